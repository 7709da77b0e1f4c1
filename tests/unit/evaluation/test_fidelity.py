"""How near maps are to each other: figures of known maps, ties, maps without structure, two sizes, and intervals over groups."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit.errors import ModelError
from edgekit.evaluation import fidelity
from edgekit.evaluation.fidelity import answered_maps, at_size, compare_frames, residual_share, summarize, values

RANDOM = np.random.default_rng(0)
MAPS = RANDOM.normal(size=(40, 7, 7)).astype(np.float32)


def spot(row, column, size=7, height=1.0):
    """A map that is 0 but for one cell."""
    cells = np.zeros((1, size, size), dtype=np.float32)
    cells[0, row, column] = height
    return cells


def test_a_map_is_like_itself():
    """Every figure of equal maps is perfect, and so is that of a scaled map: likeness knows no unit."""
    for other in (MAPS, 3 * MAPS, MAPS * np.float32(1e-30)):
        found = values(compare_frames(MAPS, other))
        assert found == pytest.approx(dict.fromkeys(fidelity.FIGURES, 1.0))


def test_a_turned_map_is_unlike():
    """The negative of a map correlates with -1, shares no evidence, and agrees in no sign."""
    found = compare_frames(MAPS, -MAPS)
    assert found.pearson == pytest.approx(-np.ones(40))
    assert found.overlap.max() < 0.2
    assert found.sign.max() == 0


def test_pearson_is_numpys():
    """Pearson's correlation is numpy's, also of maps whose squares are too small for a double."""
    other = MAPS + RANDOM.normal(size=MAPS.shape)
    expected = [np.corrcoef(one.ravel(), two.ravel())[0, 1] for one, two in zip(MAPS, other, strict=True)]
    assert compare_frames(MAPS, other).pearson == pytest.approx(expected)
    assert compare_frames(MAPS.astype(np.float64) * 1e-200, other).pearson == pytest.approx(expected)


@pytest.mark.parametrize(("cell", "shift"), [((3, 3), 0), ((3, 4), 1), ((4, 4), 1), ((3, 6), 3), ((0, 5), 3)])
def test_the_peak_moves_by_the_larger_direction(cell, shift):
    """A diagonal step is one cell."""
    assert compare_frames(spot(3, 3), spot(*cell)).peak_shift == pytest.approx([shift])


def test_of_several_peaks_the_worst_counts():
    """A second peak far from the first is a shift, on whichever side it stands: nobody knows which one is looked at."""
    both = spot(1, 1) + spot(6, 6)
    assert compare_frames(spot(1, 1), both).peak_shift == pytest.approx([5])
    assert compare_frames(both, spot(1, 1)).peak_shift == pytest.approx([5])
    assert compare_frames(both, both).peak_shift == pytest.approx([0])


def test_a_peak_that_moves_to_a_cell_as_high_is_kept():
    """Which of two cells wins is rounding; a cell that is clearly lower is another place. A device that peaks in several must be right in all."""
    twin = spot(0, 0)
    twin[0, 5, 5] = 0.96 * twin.max()
    moved, lower, both = spot(5, 5), spot(3, 3), spot(5, 5)
    both[0, 3, 3] = both.max()
    assert [compare_frames(twin, device).peak_kept[0] for device in (twin, spot(1, 1), moved, lower, both)] == [1, 1, 1, 0, 0]
    assert compare_frames(twin, moved).peak_shift[0] == 5
    twin[0, 5, 5] = 0.94 * twin.max()
    assert compare_frames(twin, moved).peak_kept[0] == 0


def test_one_map_without_structure():
    """Nothing correlates with a map that is the same everywhere, and it points nowhere: as far off as the map is large."""
    found = compare_frames(spot(3, 3), np.full((1, 7, 7), 0.25, dtype=np.float32))
    assert (found.pearson[0], found.overlap[0], found.peak_shift[0]) == (0, 0, 6)


def test_two_maps_without_structure_are_left_out():
    """Where neither says anything about a place there is nothing to compare; the frame is counted."""
    flat = np.full((1, 7, 7), 0.5, dtype=np.float32)
    rounded = flat * (1 + np.float32(1e-7) * (np.arange(49).reshape(1, 7, 7) % 2))
    found = compare_frames(np.concatenate([MAPS, flat]), np.concatenate([MAPS, rounded.astype(np.float32)]))
    assert np.isnan([found.pearson[-1], found.overlap[-1], found.peak_shift[-1], found.sign[-1]]).all()
    together = summarize(found, [str(index) for index in range(41)], replicates=50)
    assert (together.frames, together.groups, together.featureless) == (40, 40, 1)
    alone = summarize(compare_frames(flat, flat), ["a"])
    assert (alone.frames, alone.featureless, alone.pearson_median.value, alone.peak_near.value) == (0, 1, None, None)
    assert values(compare_frames(flat, flat)) == dict.fromkeys(fidelity.FIGURES)


def test_ties_at_the_edge_share_the_room():
    """The largest tenth of a map with equal cells does not depend on their order: turned upside down, the overlap is the same."""
    steps = np.kron(np.arange(4, dtype=np.float32).reshape(2, 2), np.ones((2, 2), dtype=np.float32))[None]
    other = RANDOM.normal(size=(1, 4, 4)).astype(np.float32)
    upright = compare_frames(steps, other).overlap
    turned = compare_frames(steps[:, ::-1, ::-1], other[:, ::-1, ::-1]).overlap
    assert upright == pytest.approx(turned)


def test_the_largest_tenth_is_a_tenth():
    """A slope's largest tenth are the last of its columns; a plateau of one and a half times their width shares the room, and so half of both."""
    slope = np.arange(10.0)[None, None, :].repeat(10, axis=1)
    assert compare_frames(slope, slope**3).overlap == pytest.approx([1])
    assert compare_frames(slope, slope[:, :, ::-1]).overlap == pytest.approx([0])
    plateau = -np.abs(slope - 8.5)
    assert compare_frames(slope, plateau).overlap == pytest.approx([0.5])


def test_signs_are_weighted_by_evidence():
    """A cell counts for what it says: one of ten times the evidence outweighs nine that turned."""
    first = np.array([[[9.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]])
    second = -first
    second[0, 0, 0] = 2.0
    assert compare_frames(first, second).sign == pytest.approx([9 / 17])


def test_maps_of_two_sizes_meet_at_the_smaller():
    """Each cell of the smaller size is the mean of the area it covers, also where cells are cut."""
    large = RANDOM.normal(size=(3, 6, 9))
    assert at_size(large, (2, 3)) == pytest.approx(large.reshape(3, 2, 3, 3, 3).mean(axis=(2, 4)))
    assert at_size(np.array([[[0.0, 3.0, 6.0]]]), (1, 2)) == pytest.approx(np.array([[[1.0, 5.0]]]))
    assert compare_frames(large, at_size(large, (2, 3))).pearson == pytest.approx(np.ones(3))


def test_maps_that_are_no_numbers_are_refused():
    """A NaN is not a frame without structure."""
    broken = MAPS.copy()
    broken[5, 0, 0] = np.nan
    for pair in ((MAPS, broken), (broken, MAPS)):
        with pytest.raises(ModelError, match="frame 5"):
            compare_frames(*pair)


def test_the_label_is_the_references_answer():
    """The map of the label that the reference answers is taken on both sides; one logit stands for two labels."""
    logits = np.array([[1.0, 2.0], [3.0, -1.0]], dtype=np.float32)
    maps = np.arange(2 * 2 * 4, dtype=np.float32).reshape(2, 2, 2, 2)
    first, second = answered_maps(logits, maps, -maps)
    assert (first == np.stack([maps[0, 1], maps[1, 0]])).all()
    assert (second == -first).all()
    single, _ = answered_maps(np.array([[-2.0], [2.0]], dtype=np.float32), maps[:, :1], maps[:, :1])
    assert (single == np.stack([-maps[0, 0], maps[1, 0]])).all()


def test_the_summary_is_numpys_quantiles():
    """Median and 5th percentile are numpy's, the share within a cell is counted, and the intervals hold them."""
    other = MAPS + 0.5 * RANDOM.normal(size=MAPS.shape)
    found = compare_frames(MAPS, other)
    together = summarize(found, [str(index) for index in range(40)], replicates=400)
    assert together.pearson_median.value == pytest.approx(np.median(found.pearson))
    assert together.pearson_p5.value == pytest.approx(np.percentile(found.pearson, 5))
    assert together.overlap_median.value == pytest.approx(np.median(found.overlap))
    assert together.peak_near.value == pytest.approx((found.peak_shift <= 1).mean())
    for name in ("pearson_median", "pearson_p5", "overlap_median", "peak_near"):
        figure = getattr(together, name)
        assert figure.low <= figure.value <= figure.high
    assert together.spared["pearson_p5"] == pytest.approx(np.percentile(np.sort(found.pearson)[1:], 5))


def test_a_draw_counts_a_frame_as_often_as_its_group_was_drawn():
    """A weighted quantile is the quantile of the frames repeated as often."""
    sample = RANDOM.normal(size=12)
    weights = RANDOM.integers(0, 4, size=(5, 12)).astype(np.float64)
    for share in (0.05, 0.5, 0.9):
        expected = [np.quantile(np.repeat(sample, row.astype(int)), share) for row in weights]
        assert fidelity._quantile(sample, weights, share) == pytest.approx(expected)


def test_groups_widen_the_interval():
    """Forty frames of four patients know less than forty patients."""
    other = MAPS + np.repeat(RANDOM.uniform(0.1, 3, 4), 10)[:, None, None] * RANDOM.normal(size=MAPS.shape)
    found = compare_frames(MAPS, other)
    alone = summarize(found, [str(index) for index in range(40)]).pearson_median
    grouped = summarize(found, [str(index // 10) for index in range(40)]).pearson_median
    assert grouped.high - grouped.low > 1.5 * (alone.high - alone.low)


def test_the_residual_is_in_parts_of_the_logits_spread():
    """The worst output decides, each in its own unit; an output that never varies and does deviate has no measure."""
    logits = np.array([[0.0, 0.0], [2.0, 20.0]], dtype=np.float32)
    residual = np.array([[0.1, 0.1], [0.0, 0.4]], dtype=np.float32)
    assert residual_share(residual, logits) == pytest.approx(0.1)
    assert residual_share(np.zeros((0, 2)), logits) is None
    constant = np.ones((2, 2), dtype=np.float32)
    assert residual_share(residual, constant) is None
    assert residual_share(np.zeros((2, 2)), constant) == 0


@given(
    hnp.arrays(np.float32, (2, 5, 4), elements=st.floats(-100, 100, width=32)),
    hnp.arrays(np.float32, (2, 5, 4), elements=st.floats(-100, 100, width=32)),
)
def test_every_figure_stays_in_its_range(first, second):
    """Whatever the maps: correlations in [-1, 1], shares in [0, 1], shifts within the map, and undefined all at once or never."""
    found = compare_frames(first, second)
    left_out = np.isnan(found.pearson)
    assert (left_out == np.isnan(found.overlap)).all()
    assert (left_out == np.isnan(found.peak_shift)).all()
    kept = ~left_out
    assert (np.abs(found.pearson[kept]) <= 1).all()
    assert ((found.overlap[kept] >= -1e-12) & (found.overlap[kept] <= 1 + 1e-12)).all()
    assert ((found.peak_shift[kept] >= 0) & (found.peak_shift[kept] <= 4)).all()
