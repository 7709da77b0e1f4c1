"""Known frames against foreign ones, and the limit between them."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.evaluation.ood import MARGIN, limit_of, refused_share, separate


def alone(count, name="p"):
    return [f"{name}{index}" for index in range(count)]


def test_the_limit_is_an_order_statistic_where_there_are_patients_enough():
    """Of 199 patients at 0.99 the 198th score (split conformal prediction), whatever their order."""
    scores = np.random.default_rng(0).permutation(np.arange(1.0, 200))
    assert limit_of(scores, alone(199), 0.99) == 198


def test_a_limit_from_few_patients_is_beyond_the_highest_score():
    """99 patients are just enough for the highest score; of fewer there is a margin beyond it, the larger the fewer they are."""
    scores = np.arange(1.0, 100)
    assert limit_of(scores, alone(99), 0.99) == 99
    assert limit_of(scores[:33], alone(33), 0.99) == pytest.approx(33 + MARGIN * (2 / 3) * (33 - 17))


def test_patients_count_the_same_however_many_frames_they_have():
    """One patient of a hundred frames with high scores moves the limit as one patient does."""
    scores = np.concatenate([np.arange(1.0, 399), np.full(100, 2000.0)])
    groups = [*alone(398), *["long"] * 100]
    assert limit_of(scores, groups, 0.99) == 396


def test_the_figures_by_hand():
    """Five known frames and four foreign ones, worked out with a pencil."""
    known, foreign = np.array([1.0, 2, 3, 4, 5]), np.array([2.0, 5, 6, np.inf])
    found = separate(known, foreign, alone(5), alone(4, "f"), limit=5.5)
    # Above: of 2: 1 and half a tie; of 5: 4 and half a tie; of 6 and infinity: all five.
    assert found.auroc.value == pytest.approx((1.5 + 4.5 + 5 + 5) / 20)
    assert found.fpr_at_95_tpr.value == pytest.approx(2 / 4)
    assert found.refused.value == pytest.approx(2 / 4)
    assert (found.frames, found.groups) == (4, 4)


def test_intervals_draw_whole_patients():
    """Twenty foreign frames of two patients are drawn by the patient: the interval is another one than that of twenty patients."""
    random = np.random.default_rng(1)
    known, foreign = random.normal(0, 1, 60), random.normal(1, 1, 20)
    apart = separate(known, foreign, alone(60), alone(20, "f"), limit=1.5)
    joined = separate(known, foreign, alone(60), [f"f{index // 10}" for index in range(20)], limit=1.5)
    assert apart.refused.value == joined.refused.value
    assert (apart.refused.low, apart.refused.high) != (joined.refused.low, joined.refused.high)
    assert apart.auroc.low < apart.auroc.value < apart.auroc.high


def test_known_frames_that_are_refused():
    """Those above the limit, and not those at it."""
    found = refused_share(np.array([1.0, 2, 3, np.inf]), alone(4), limit=2.0)
    assert found.value == 0.5
    assert found.low < 0.5 < found.high
