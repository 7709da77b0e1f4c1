"""Answers over time: each aggregate is its formula, and no frame hides behind another."""

from __future__ import annotations

import math

import numpy as np
import pytest
from device_bundles import MANY, THREE, TWO

from edgekit.errors import DataError
from edgekit.runtime.temporal import AGGREGATES, Combiner, Evidence, TimeConstant

RNG = np.random.default_rng(7)
P = RNG.dirichlet(np.ones(3), size=20)  # (frames, labels)


def evidence(output, row, number=0, time_s=None):
    return Evidence(probabilities=dict(zip(output.labels, map(float, row), strict=True)), number=number, time_s=time_s)


def combined(aggregate, output, rows, **options):
    """The answer after all rows, one a frame."""
    combiner = Combiner(aggregate, output, {}, **options)
    for number, row in enumerate(rows):
        combiner.add(evidence(output, row, number, number / 30))
    return combiner.result()


def values(found):
    return np.array(list(found.probabilities.values()))


def test_mean_is_the_mean_of_probabilities():
    """Not of logits: a frame counts for one frame's worth."""
    np.testing.assert_allclose(values(combined("mean", THREE, P)), P.mean(axis=0))


def test_max_and_top_k_of_a_multiclass_clip():
    """For each label the mean of its k largest values, divided by their sum."""
    for k, options in ((1, ("max", {})), (4, ("topk", {"top_k": 4})), (20, ("topk", {"top_k": 50}))):
        expected = np.sort(P, axis=0)[::-1][:k].mean(axis=0)
        np.testing.assert_allclose(values(combined(options[0], THREE, P, **options[1])), expected / expected.sum())


def test_a_binary_clip_is_decided_by_its_most_suspicious_frames():
    """The positive label's largest values, and one minus them for the other."""
    rows = np.stack([1 - P[:, 0], P[:, 0]], axis=1)
    for aggregate, k in (("max", 1), ("topk", 3)):
        expected = np.sort(P[:, 0])[::-1][:k].mean()
        np.testing.assert_allclose(values(combined(aggregate, TWO, rows, top_k=3)), [1 - expected, expected])


def test_multilabel_labels_stand_for_themselves():
    """Nothing is divided, and the answer is every label at or above its threshold."""
    found = combined("max", MANY, P)
    np.testing.assert_allclose(values(found), P.max(axis=0))
    combiner = Combiner("mean", MANY, {"cyst": 0.3, "mass": 0.31, "calcification": 0.9})
    assert combiner.add(evidence(MANY, [0.3, 0.3, 0.95])).label == ("cyst", "calcification")


@pytest.mark.parametrize("tau", [TimeConstant(value=4.0), TimeConstant(value=4.0 / 30, unit="seconds")])
def test_exponential_weighs_by_age_without_a_start_up_bias(tau):
    """Σ w p / Σ w, in frames and in seconds alike; the first answer is the first frame's."""
    weights = np.exp(-(19 - np.arange(20)) / 4.0)
    np.testing.assert_allclose(values(combined("exponential", THREE, P, tau=tau)), (weights[:, None] * P).sum(axis=0) / weights.sum())
    np.testing.assert_allclose(values(combined("exponential", THREE, P[:1], tau=tau)), P[0])


def test_time_goes_on_over_frames_that_are_left_out():
    """After a long gap what was before it counts for nothing."""
    combiner = Combiner("exponential", THREE, {}, tau=TimeConstant(value=5))
    combiner.add(evidence(THREE, P[0], number=0))
    np.testing.assert_allclose(values(combiner.add(evidence(THREE, P[1], number=500))), P[1], atol=1e-12)
    near = Combiner("exponential", THREE, {}, tau=TimeConstant(value=5))
    near.add(evidence(THREE, P[0], number=0))
    weight = math.exp(-1 / 5)
    np.testing.assert_allclose(values(near.add(evidence(THREE, P[1], number=1))), (weight * P[0] + P[1]) / (weight + 1))


def test_top_k_keeps_k_values_however_long_the_clip_is():
    """Memory does not grow with the clip."""
    combiner = Combiner("topk", THREE, {}, top_k=5)
    for row in RNG.dirichlet(np.ones(3), size=500):
        combiner.add(evidence(THREE, row))
    assert combiner._aggregator._kept.shape == (5, 3)
    assert combiner.result().frames == 500


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_every_aggregate_of_equal_frames_is_the_frame(aggregate):
    """Frames that say the same together say that; before the first there is no answer."""
    assert Combiner(aggregate, THREE, {}).result() is None
    found = combined(aggregate, THREE, [P[3]] * 12)
    np.testing.assert_allclose(values(found), P[3])
    assert found.label == THREE.labels[int(P[3].argmax())]


def test_one_saturated_frame_does_not_outvote_a_hundred():
    """The reason for probabilities: the mean of logits would say the opposite."""
    rows = [[0.4, 0.6]] * 100 + [[1 - 1e-300, 1e-300]]
    assert combined("mean", TWO, rows).label == "malignant"
    logits = np.log([0.6 / 0.4] * 100 + [1e-300])
    assert logits.mean() < 0


@pytest.mark.parametrize(("text", "value", "unit"), [("8", 8.0, "frames"), ("0.5s", 0.5, "seconds"), ("2.5", 2.5, "frames")])
def test_time_constants_are_read(text, value, unit):
    """Frames, or seconds with an s."""
    assert TimeConstant.parse(text) == TimeConstant(value=value, unit=unit)


@pytest.mark.parametrize("text", ["", "s", "0", "-1", "0s", "nan", "inf", "5ms", "five"])
def test_what_is_no_time_constant_is_refused(text):
    """Nothing is smoothed over a time that is none."""
    with pytest.raises(DataError, match="no time to smooth over"):
        TimeConstant.parse(text)


def test_wrong_settings_are_refused():
    """An unknown name gives the known ones, k is at least 1, and seconds need frames with a time."""
    with pytest.raises(DataError, match="no aggregate 'median'") as caught:
        Combiner("median", THREE, {})
    assert "mean" in caught.value.hint
    with pytest.raises(DataError, match="below 1"):
        Combiner("topk", THREE, {}, top_k=0)
    with pytest.raises(DataError, match="does not say when"):
        Combiner("exponential", THREE, {}, tau=TimeConstant(value=1, unit="seconds")).add(evidence(THREE, P[0]))


def test_a_time_that_goes_back_gives_no_frame_more_weight_than_one():
    """A video's times may be out of order: a frame that is earlier than the one before it is taken for one of the same moment."""
    combiner = Combiner("exponential", THREE, {}, tau=TimeConstant(value=1, unit="seconds"))
    combiner.add(evidence(THREE, P[0], number=0, time_s=10.0))
    np.testing.assert_allclose(values(combiner.add(evidence(THREE, P[1], number=1, time_s=5.0))), (P[0] + P[1]) / 2)


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_after_a_reset_nothing_is_left(aggregate):
    """As a new one."""
    combiner = Combiner(aggregate, THREE, {})
    for row in P:
        combiner.add(evidence(THREE, row))
    combiner.reset()
    assert combiner.result() is None
    found = combiner.add(evidence(THREE, P[2]))
    assert found.frames == 1
    np.testing.assert_allclose(values(found), P[2])
