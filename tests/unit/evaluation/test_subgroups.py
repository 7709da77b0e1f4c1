"""Flips by the manifest's further columns."""

from __future__ import annotations

import pytest
from scipy.stats import beta  # noqa: TID253 - the cross-check

from edgekit.evaluation.paired import Flips
from edgekit.evaluation.subgroups import SkippedColumn, Subgroups, find_subgroups


def flips(frames, harmful=(), helpful=(), neither=()):
    return Flips(frames=frames, harmful=tuple(harmful), helpful=tuple(helpful), neither=tuple(neither))


def rows(**columns):
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def test_counts_of_each_value():
    """Every frame is in one subgroup a column; an empty cell is a value of its own and spaces mean nothing."""
    extra = rows(probe=["linear", "convex ", "convex", "", "linear", "convex"], sex=["f", "m", "f", "m", "f", "m"])
    found = find_subgroups(flips(6, harmful=[1, 3], helpful=[2], neither=[5]), extra, list("aabbcd")).found
    assert [(part.column, part.value, part.frames, part.groups, part.flips, part.harmful, part.helpful) for part in found] == [
        ("probe", "(not stated)", 1, 1, 1, 1, 0),
        ("probe", "convex", 3, 3, 3, 1, 1),
        ("probe", "linear", 2, 2, 0, 0, 0),
        ("sex", "f", 3, 3, 1, 0, 1),
        ("sex", "m", 3, 3, 3, 2, 0),
    ]
    assert found[1].rate == 1.0


NO_SUBGROUPS = {
    "one-value": (["same"] * 30, "the same in every frame"),
    "empty": ([""] * 30, "the same in every frame"),
    "a-name-each": ([f"file-{i}" for i in range(30)], "names frames, patients or videos: no value is of two groups"),
    "a-name-a-group": ([f"case {i // 3}" for i in range(30)], "names frames, patients or videos: no value is of two groups"),
    "a-name-some-groups": (["case 1"] * 3 + ["case 2"] * 3 + [""] * 24, "names frames, patients or videos: no value is of two groups"),
    "thirteen-values": ([f"{i % 13}" for i in range(30)], "13 values, more than 12"),
}


@pytest.mark.parametrize(("cells", "reason"), NO_SUBGROUPS.values(), ids=NO_SUBGROUPS)
def test_columns_that_are_no_subgroups(cells, reason):
    """One value compares nothing; identifiers and many values are no groups of patients; the column is named, and no value of it."""
    found = find_subgroups(flips(30), rows(column=cells), [f"p{i // 3}" for i in range(30)])
    assert found == Subgroups(skipped=(SkippedColumn(column="column", reason=reason),))


def test_an_identifier_of_few_frames_is_none_either():
    """Five frames with five names; twelve sites of two patients each are sites."""
    assert find_subgroups(flips(5), rows(name=list("abcde")), list("vwxyz")).found == ()
    assert len(find_subgroups(flips(24), rows(site=[f"{i % 12}" for i in range(24)]), [f"p{i}" for i in range(24)]).found) == 12


def test_the_upper_bound_is_exact():
    """Clopper–Pearson over the frames where each is a patient, over the patients where they have several."""
    extra = rows(site=["a", "b"] * 50)
    alone = find_subgroups(flips(100, harmful=[0, 2]), extra, [f"p{i}" for i in range(100)]).found
    assert alone[0].upper == pytest.approx(beta.ppf(0.975, 3, 48))
    assert alone[1].upper == pytest.approx(1 - 0.025 ** (1 / 50))
    grouped = find_subgroups(flips(100, harmful=[0, 2]), extra, [f"p{i // 10}" for i in range(100)]).found
    assert grouped[0].groups == 10
    assert grouped[0].upper == pytest.approx(beta.ppf(0.975, 1.4, 9.6))
    assert grouped[1].upper == pytest.approx(1 - 0.025 ** (1 / 10))


def test_without_further_columns_there_are_none():
    """A manifest with only the needed columns."""
    assert find_subgroups(flips(3), (), list("abc")) == Subgroups()
    assert find_subgroups(flips(3), [{}, {}, {}], list("abc")) == Subgroups()


def test_rows_of_other_frames_are_refused():
    """A count of the wrong frames is worse than none."""
    with pytest.raises(ValueError, match="2 rows"):
        find_subgroups(flips(3), rows(site=["a", "b"]), list("abc"))
