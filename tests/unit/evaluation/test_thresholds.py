"""Frozen thresholds: the best by Youden's J, in the middle of the widest gap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.evaluation.thresholds import best_threshold, choose_thresholds
from edgekit.schema.model_io import OutputSpec

CASES = {
    "separated": ([0.1, 0.3, 0.7, 0.9], [0, 0, 1, 1], 0.5, 1.0),
    "one-error": ([0.1, 0.2, 0.4, 0.8], [0, 1, 0, 1], 0.6, 0.5),
    "widest-of-equal": ([0.1, 0.15, 0.3, 0.8], [0, 1, 0, 1], 0.55, 0.5),
    "lowest-of-equally-wide": ([0.0, 0.25, 0.5, 0.75], [0, 1, 0, 1], 0.125, 0.5),
    "ties": ([0.2, 0.2, 0.2, 0.6, 0.6], [0, 0, 1, 1, 1], 0.4, 2 / 3),
    "worse-than-chance": ([0.2, 0.8], [1, 0], 0.5, -1.0),
}


@pytest.mark.parametrize(("probability", "truth", "threshold", "youden"), CASES.values(), ids=CASES)
def test_thresholds_counted_by_hand(probability, truth, threshold, youden):
    """Threshold and J of small cases."""
    assert best_threshold(np.array(probability), np.array(truth, dtype=bool)) == pytest.approx((threshold, youden))


@given(st.lists(st.tuples(st.sampled_from(np.linspace(0, 1, 21).tolist()) | st.floats(0, 1), st.booleans()), min_size=2, max_size=40))
def test_no_other_threshold_between_the_frames_is_better(frames):
    """J at the threshold is the one stated, and no cut between two distinct probabilities has a larger one."""
    probability, truth = np.array([p for p, _ in frames]), np.array([t for _, t in frames])
    found = best_threshold(probability, truth)
    if truth.all() or not truth.any() or len(set(probability.tolist())) < 2:
        assert found is None
        return

    def youden(threshold):
        above = probability >= threshold
        return above[truth].mean() + (~above)[~truth].mean() - 1

    assert youden(found[0]) == pytest.approx(found[1])
    assert found[1] == pytest.approx(max(youden(value) for value in sorted(set(probability.tolist()))[1:]))


def test_neighbouring_floats_are_still_separated():
    """Where two probabilities have no float between them, the upper one is the threshold."""
    low, high = 0.5, np.nextafter(0.5, 1)
    threshold, youden = best_threshold(np.array([low, high]), np.array([False, True]))
    assert (threshold, youden) == (high, 1.0)


def test_each_task_has_its_labels():
    """The positive label, every label, or none."""
    random = np.random.default_rng(0)
    truth = np.eye(3, dtype=bool)[np.arange(30) % 3]
    probability = random.dirichlet(np.ones(3), 30) * 0.5 + truth * 0.5
    labels = ("a", "b", "c")
    pointed = choose_thresholds(probability, truth, OutputSpec(labels=labels, task="multiclass", positive="b"))
    assert list(pointed.thresholds) == ["b"]
    assert (pointed.thresholds["b"], pointed.youden["b"]) == best_threshold(probability[:, 1], truth[:, 1])
    assert choose_thresholds(probability, truth, OutputSpec(labels=labels, task="multiclass")).thresholds == {}
    assert list(choose_thresholds(probability, truth, OutputSpec(labels=labels, task="multilabel")).thresholds) == ["a", "b", "c"]


def test_labels_without_both_outcomes_are_reported():
    """Nothing can be chosen on them, so they get 0.5 and are named."""
    truth = np.array([[1, 0, 1], [0, 0, 1], [1, 0, 0]], dtype=bool)
    probability = np.array([[0.9, 0.2, 0.5], [0.3, 0.1, 0.5], [0.8, 0.4, 0.5]])
    found = choose_thresholds(probability, truth, OutputSpec(labels=("a", "never", "flat"), task="multilabel"))
    assert found.thresholds == pytest.approx({"a": 0.55, "never": 0.5, "flat": 0.5})
    assert found.undecided == ("never", "flat")
    assert found.youden == {"a": 1.0, "never": None, "flat": None}
