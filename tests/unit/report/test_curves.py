"""The points of ROC curves and reliability diagrams, against independent computations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve  # noqa: TID253 - the cross-check

from edgekit.errors import ModelError
from edgekit.report.curves import TOLERANCE, reliability_bins, roc_points


def scored(count, *, ties=False, seed=0, separation=1.0):
    """Scores and truth of frames of both outcomes."""
    random = np.random.default_rng(seed)
    truth = np.arange(count) % 3 == 0
    score = random.normal(separation * truth, 1.0)
    return (score.round(1) if ties else score), truth


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("count", [2, 30, 200])
def test_the_curve_has_the_corners_of_the_empirical_one_and_no_other_points(count, ties):
    """On small samples it is exactly where scikit-learn's curve turns, and both ends."""
    score, truth = scored(count, ties=ties)
    points = roc_points(score, truth, None)
    fpr, tpr, _ = roc_curve(truth, score, drop_intermediate=False)
    curve = np.stack([fpr, tpr], axis=1)
    before, after = np.diff(curve, axis=0)[:-1], np.diff(curve, axis=0)[1:]
    is_turn = np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]) > 1e-12
    expected = curve[np.concatenate([[True], is_turn, [True]])].round(6)
    assert np.array_equal(np.stack([points["fpr"], points["tpr"]], axis=1), expected)


@given(st.integers(2, 4000), st.booleans(), st.integers(0, 5), st.floats(0, 4))
def test_thinning_never_changes_the_picture(count, ties, seed, separation):
    """It starts at (0, 0), ends at (1, 1), never falls, and keeps the area to far less than a report's digits."""
    score, truth = scored(count, ties=ties, seed=seed, separation=separation)
    points = roc_points(score, truth, None)
    fpr, tpr = np.array(points["fpr"]), np.array(points["tpr"])
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(fpr) >= 0).all()
    assert (np.diff(tpr) >= 0).all()
    # A band of half-width TOLERANCE around a curve that is at most 2 long.
    assert np.trapezoid(tpr, fpr) == pytest.approx(roc_auc_score(truth, score), abs=2 * TOLERANCE + 1e-6)


def test_a_long_curve_is_thinned():
    """A hundred thousand frames give a picture of hundreds of points."""
    score, truth = scored(100_000)
    assert len(roc_points(score, truth, None)["fpr"]) < 700


def test_the_operating_point_counts_positive_at_or_above_the_threshold():
    """It is [fpr, tpr], and a score equal to the threshold is positive."""
    score, truth = np.array([0.1, 0.5, 0.5, 0.9]), np.array([False, False, True, True])
    assert roc_points(score, truth, 0.5)["operating"] == [0.5, 1.0]
    assert roc_points(score, truth, 0.500001)["operating"] == [0.0, 0.5]
    assert roc_points(score, truth, None)["operating"] is None


@pytest.mark.parametrize("truth", [np.ones(4, bool), np.zeros(4, bool)])
def test_a_curve_of_one_outcome_is_not_defined(truth):
    """No points at all, not a diagonal."""
    assert roc_points(np.arange(4.0), truth, 2.0) == {"fpr": [], "tpr": [], "operating": None}


def test_a_bin_holds_the_answers_of_its_range():
    """Borders belong to the upper bin, 1 to the last; means and shares are of the bin's own answers; sides may differ in number."""
    bins = reliability_bins(
        np.array([0.0, 0.25, 0.4, 0.5, 1.0]), np.array([False, True, False, True, True]), np.array([0.6]), np.array([False]), bins=2
    )
    assert [(found["low"], found["high"]) for found in bins] == [(0.0, 0.5), (0.5, 1.0)]
    assert bins[0]["reference"] == {"confidence": pytest.approx(0.65 / 3), "accuracy": pytest.approx(1 / 3), "frames": 3}
    assert bins[1]["reference"] == {"confidence": 0.75, "accuracy": 1.0, "frames": 2}
    assert bins[0]["device"] == {"confidence": None, "accuracy": None, "frames": 0}
    assert bins[1]["device"] == {"confidence": 0.6, "accuracy": 0.0, "frames": 1}


@given(st.integers(1, 300), st.integers(1, 20))
def test_no_answer_is_lost_between_bins(count, bins):
    """Frames add up, and every mean lies in its bin."""
    confidence = np.random.default_rng(count).random(count).round(2)
    right = np.arange(count) % 2 == 0
    found = reliability_bins(confidence, right, confidence, right, bins=bins)
    assert sum(item["reference"]["frames"] for item in found) == count
    for item in found:
        if item["device"]["frames"]:
            assert item["low"] - 1e-9 <= item["device"]["confidence"] <= item["high"] + 1e-9


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda: roc_points(np.array([0.1, np.nan]), np.array([True, False]), None), ModelError),
        (lambda: roc_points(np.zeros(3), np.zeros(2, bool), None), ValueError),
        (lambda: reliability_bins(np.array([1.5]), np.array([True]), np.array([0.5]), np.array([True])), ModelError),
        (lambda: reliability_bins(np.array([0.5]), np.array([True]), np.array([np.nan]), np.array([True])), ModelError),
        (lambda: reliability_bins(np.zeros(2), np.zeros(3, bool), np.zeros(2), np.zeros(2, bool)), ValueError),
        (lambda: reliability_bins(np.zeros(2), np.zeros(2, bool), np.zeros(2), np.zeros(2, bool), bins=0), ValueError),
    ],
    ids=["NaN score", "shapes", "above 1", "NaN confidence", "shapes of a side", "no bins"],
)
def test_what_is_no_score_is_refused(call, kind):
    """NaN, impossible probabilities and shapes that do not fit are errors, not points."""
    with pytest.raises(kind):
        call()
