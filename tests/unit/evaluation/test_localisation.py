"""Whether maps point at lesions: hits, energy, and the paired comparison of two renderings."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.evaluation.localisation import Lesions, compare, energy_inside, hits

CENTRE = np.zeros((1, 4, 4), dtype=bool)
CENTRE[0, 1:3, 1:3] = True
LESION = Lesions(covered=CENTRE.astype(np.float64), centre=CENTRE)


def spots(*cells):
    found = np.zeros((1, 4, 4))
    for cell in cells:
        found[0][cell] = 1.0
    return found


@pytest.mark.parametrize(
    ("cells", "hit"),
    [
        ([(1, 1)], True),
        ([(0, 1)], False),
        ([(1, 1), (2, 2)], True),
        ([(1, 1), (0, 0)], True),
        ([(1, 1), (0, 0), (3, 3)], False),
        ([], False),
    ],
)
def test_a_hit_is_a_peak_inside(cells, hit):
    """The largest cell's centre must lie in the mask; of several at least half of them; a map that is the same everywhere points nowhere."""
    assert hits(spots(*cells), LESION).tolist() == [hit]


def test_a_map_without_structure_misses_a_lesion_that_is_everywhere():
    """It points nowhere, also where every place would be right."""
    everywhere = np.ones((1, 4, 4), dtype=bool)
    assert hits(np.ones((1, 4, 4)), Lesions(covered=everywhere.astype(float), centre=everywhere)).tolist() == [False]


def test_energy_counts_positive_evidence_only():
    """Evidence against the label is none inside, a cell half covered counts half, and a map without positive evidence has 0."""
    maps = np.zeros((1, 4, 4))
    maps[0, 1, 1], maps[0, 0, 0], maps[0, 3, 3] = 3.0, 1.0, -8.0
    assert energy_inside(maps, LESION) == pytest.approx([0.75])
    assert energy_inside(maps, Lesions(covered=0.5 * LESION.covered, centre=CENTRE)) == pytest.approx([0.375])
    assert energy_inside(-np.ones((1, 4, 4)), LESION) == pytest.approx([0.0])


def rendered(lost, frames=80):
    """Maps that point into the lesion on every frame, and the same with some that point beside it."""
    before = np.repeat(spots((1, 1)), frames, axis=0)
    after = before.copy()
    after[:lost] = spots((0, 0))
    lesions = Lesions(covered=np.repeat(LESION.covered, frames, axis=0), centre=np.repeat(CENTRE, frames, axis=0))
    names = [str(index) for index in range(frames)]
    return compare(
        before, after, lesions, groups=names, splits=["val", "test"] * (frames // 2), left_out={"x": 2}, margin=0.05, replicates=200
    )


@pytest.mark.parametrize(("lost", "status"), [(0, "demonstrated"), (3, "not demonstrated"), (8, "worse")])
def test_lost_hits_decide(lost, status):
    """No loss among 80 is proof, three leave it open, eight are worse."""
    found = rendered(lost)
    assert (found.pointing.status, found.pointing.lost) == (status, lost)
    assert (found.frames, found.groups, found.splits, found.left_out) == (80, 80, {"val": 40, "test": 40}, {"x": 2})
    assert found.chance == pytest.approx(4 / 16)


def test_the_difference_of_energies_is_paired():
    """Its interval is about the same frames on both sides; where nothing changes there is no interval, not one of no width."""
    same, worse = rendered(0).energy_difference, rendered(8).energy_difference
    assert (same.value, same.low, same.high) == (0.0, None, None)
    assert worse.value == pytest.approx(-0.1)
    assert worse.low < -0.1 < worse.high < 0


def test_no_frames():
    """Without a frame nothing is known, and nothing is invented."""
    empty = np.zeros((0, 1, 1))
    found = compare(empty, empty, Lesions(covered=empty, centre=empty.astype(bool)), groups=[], splits=[], left_out={}, margin=0.05)
    assert (found.frames, found.chance, found.pointing.difference, found.energy_device.value) == (0, None, None, None)
