"""Which answers change, and how far two models are apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.special import rel_entr  # noqa: TID253 - the cross-check

from edgekit.errors import ModelError
from edgekit.evaluation.decision import logits_by_label, probabilities
from edgekit.evaluation.paired import agreement, compare_answers
from edgekit.schema.model_io import OutputSpec

MULTICLASS = OutputSpec(labels=("a", "b", "c"), task="multiclass")
BINARY = OutputSpec(labels=("n", "p"), task="binary", positive="p")
MULTILABEL = OutputSpec(labels=("x", "y", "z"), task="multilabel")
ONE = np.eye(3, dtype=bool)


def test_single_answers_flip_three_ways():
    """Right to wrong is harmful, wrong to right helpful, wrong to another wrong neither; equal answers do not count."""
    truth, reference, device = ONE[[0, 0, 0, 0, 1]], ONE[[0, 0, 1, 1, 0]], ONE[[0, 1, 0, 2, 0]]
    flips = compare_answers(reference, device, truth, MULTICLASS)
    assert (flips.harmful, flips.helpful, flips.neither, flips.indices) == ((1,), (2,), (3,), (1, 2, 3))
    assert (flips.rate, flips.harmful_rate) == (0.6, 0.2)


MULTILABEL_CASES = {
    "one-label-lost": ([1, 0, 1], [1, 0, 1], [1, 0, 0], "harmful"),
    "one-label-found": ([1, 0, 1], [1, 0, 0], [1, 0, 1], "helpful"),
    "one-lost-one-found": ([1, 0, 1], [1, 0, 0], [0, 0, 1], "harmful"),
    "lost-while-another-stays-wrong": ([1, 1, 1], [1, 1, 0], [1, 0, 0], "harmful"),
    "found-while-another-stays-wrong": ([1, 1, 1], [1, 0, 0], [1, 1, 0], "helpful"),
    "one-label-swapped": ([1, 0, 0], [0, 1, 0], [0, 0, 1], "harmful"),
    "same-errors": ([1, 0, 1], [0, 1, 0], [0, 1, 0], None),
}


@pytest.mark.parametrize(("truth", "reference", "device", "kind"), MULTILABEL_CASES.values(), ids=MULTILABEL_CASES)
def test_multilabel_flips_count_any_label(truth, reference, device, kind):
    """A frame is harmed when any label that was right becomes wrong, whatever else becomes better."""
    flips = compare_answers(*(np.array([row], dtype=bool) for row in (reference, device, truth)), MULTILABEL)
    assert {name for name in ("harmful", "helpful", "neither") if getattr(flips, name)} == ({kind} if kind else set())


@given(st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_flips_partition_the_changed_frames(frames, seed):
    """Each changed frame is in exactly one list; accuracy changes by helpful − harmful."""
    random = np.random.default_rng(seed)
    truth, reference, device = (ONE[random.integers(0, 3, frames)] for _ in range(3))
    flips = compare_answers(reference, device, truth, MULTICLASS)
    assert flips.indices == tuple(np.flatnonzero((reference != device).any(1)).tolist())
    gained = (device == truth).all(1).sum() - (reference == truth).all(1).sum()
    assert len(flips.helpful) - len(flips.harmful) == gained


def test_no_frames_have_no_rate():
    """A rate of nothing is None, not 0."""
    none = np.zeros((0, 3), dtype=bool)
    flips = compare_answers(none, none, none, MULTICLASS)
    assert (flips.rate, flips.harmful_rate) == (None, None)


def test_different_shapes_are_refused():
    """Broadcasting would compare the wrong frames."""
    with pytest.raises(ValueError, match="shapes differ"):
        compare_answers(ONE, ONE[:1], ONE, MULTICLASS)
    with pytest.raises(ValueError, match="shapes differ"):
        agreement(np.zeros((2, 3)), np.zeros((1, 3)), MULTICLASS, outputs=3)


@pytest.mark.parametrize(("output", "outputs"), [(MULTICLASS, 3), (BINARY, 2), (BINARY, 1), (MULTILABEL, 3)])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_agreement_equals_its_definition(output, outputs, temperature):
    """KL of the distribution (of each label's for multilabel, summed), mean |Δp| and max |Δlogit|."""
    random = np.random.default_rng(0)
    raw = random.normal(size=(2, 50, outputs)).astype(np.float32) * 2
    reference, device = (logits_by_label(part, output) for part in raw)
    found = agreement(reference, device, output, outputs=outputs, temperature=temperature)
    p, q = (probabilities(part, output, outputs=outputs, temperature=temperature) for part in (reference, device))
    each = rel_entr(p, q) + rel_entr(1 - p, 1 - q) if output.task == "multilabel" else rel_entr(p, q)
    assert found.mean_kl == pytest.approx(each.sum(1).mean(), rel=1e-6)
    assert found.mean_abs_probability == pytest.approx(np.abs(p - q).mean())
    assert found.max_abs_logit == pytest.approx(np.abs(raw[0] - raw[1]).max(), rel=1e-6)


def test_each_side_is_read_with_its_own_outputs_and_temperature():
    """One logit z at temperature 2 is two logits (−z/2, z/2) at temperature 1: the same probabilities, although the raw logits differ."""
    z = np.random.default_rng(0).normal(size=(50, 1)).astype(np.float32)
    reference, device = logits_by_label(z, BINARY), np.concatenate([-z, z], axis=1) / 4
    found = agreement(reference, device, BINARY, outputs=1, temperature=2.0, device_outputs=2, device_temperature=1.0)
    assert (found.mean_kl, found.mean_abs_probability) == pytest.approx((0, 0), abs=1e-7)
    assert found.max_abs_logit == pytest.approx(0.75 * np.abs(z).max())
    assert agreement(reference, device, BINARY, outputs=1, temperature=2.0, device_outputs=2).mean_kl > 1e-3
    assert agreement(reference, device, BINARY, outputs=1, temperature=2.0, device_temperature=1.0).mean_kl > 1e-3


@pytest.mark.parametrize(("output", "outputs"), [(MULTICLASS, 3), (MULTILABEL, 3)])
def test_extreme_logits_stay_finite(output, outputs):
    """A probability that rounds to 0 still has a logarithm."""
    found = agreement(np.array([[2000.0, 0, -2000]]), np.array([[-2000.0, 0, 2000]]), output, outputs=outputs)
    assert found.mean_kl == pytest.approx(4000)


@given(arrays.arrays(np.float32, (4, 3), elements=st.floats(-50, 50, width=32)))
def test_a_model_agrees_with_itself(logits):
    """All three are exactly 0."""
    found = agreement(logits, logits.copy(), MULTICLASS, outputs=3)
    assert (found.mean_kl, found.mean_abs_probability, found.max_abs_logit) == (0, 0, 0)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_broken_logits_are_a_model_error(broken):
    """NaN would pass every comparison of size."""
    with pytest.raises(ModelError, match="device model gave NaN or infinite logits, first on frame 1"):
        agreement(np.zeros((2, 3)), np.array([[0, 0, 0], [0, broken, 0]]), MULTICLASS, outputs=3)
    with pytest.raises(ModelError, match="no frames"):
        agreement(np.zeros((0, 3)), np.zeros((0, 3)), MULTICLASS, outputs=3)
