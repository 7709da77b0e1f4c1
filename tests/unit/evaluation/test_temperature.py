"""Temperature scaling: the minimum of the likelihood, and when there is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar  # noqa: TID253 - the cross-check
from sklearn.metrics import log_loss  # noqa: TID253 - the cross-check

from edgekit.errors import DataError, ModelError
from edgekit.evaluation.decision import logits_by_label, probabilities
from edgekit.evaluation.temperature import calibration_error_at, fit_temperature, keep_temperature
from edgekit.schema.model_io import OutputSpec

MULTICLASS = OutputSpec(labels=("a", "b", "c"), task="multiclass")
BINARY = OutputSpec(labels=("n", "p"), task="binary", positive="p")
MULTILABEL = OutputSpec(labels=("x", "y", "z"), task="multilabel")
KINDS = [(MULTICLASS, 3), (BINARY, 2), (BINARY, 1), (MULTILABEL, 3)]


def drawn(output, outputs, *, temperature=1.0, frames=400, seed=0):
    """Logits (frames, labels) and truth drawn from their own probabilities at a temperature."""
    random = np.random.default_rng(seed)
    logits = logits_by_label((2 * random.normal(size=(frames, outputs))).astype(np.float32), output)
    p = probabilities(logits, output, outputs=outputs, temperature=temperature)
    if output.task == "multilabel":
        return logits, random.random(p.shape) < p
    chosen = [random.choice(p.shape[1], p=row / row.sum()) for row in p]
    return logits, np.eye(p.shape[1], dtype=bool)[chosen]


def likelihood(logits, truth, output, outputs, temperature):
    p = probabilities(logits, output, outputs=outputs, temperature=temperature)
    if output.task == "multilabel":
        return np.mean([log_loss(truth[:, column], p[:, column], labels=[0, 1]) for column in range(truth.shape[1])])
    return log_loss(truth.argmax(axis=1), p, labels=range(p.shape[1]))


@pytest.mark.parametrize(("output", "outputs"), KINDS)
@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_fitted_temperature_has_the_least_likelihood_loss(output, outputs, temperature):
    """As a general minimizer finds it on scikit-learn's log loss, and near the temperature that the labels were drawn with."""
    logits, truth = drawn(output, outputs, temperature=temperature)
    found = fit_temperature(logits, truth, output, outputs=outputs)
    best = minimize_scalar(
        lambda t: likelihood(logits, truth, output, outputs, np.exp(t)), bounds=(-3, 3), method="bounded", options={"xatol": 1e-8}
    )
    assert found.reason == ""
    assert found.value == pytest.approx(np.exp(best.x), rel=1e-4)
    assert found.value == pytest.approx(temperature, rel=0.25)
    assert found.nll_before == pytest.approx(likelihood(logits, truth, output, outputs, 1.0), rel=1e-6)
    assert found.nll_after == pytest.approx(best.fun, rel=1e-6)
    assert found.nll_after <= found.nll_before
    assert found.frames == len(truth)


@pytest.mark.parametrize(("output", "outputs"), KINDS)
def test_overconfidence_is_taken_back(output, outputs):
    """Logits three times too large: the calibration error falls, and is the one of `metrics` at that temperature."""
    logits, truth = drawn(output, outputs, temperature=3.0, frames=2000)
    found = fit_temperature(logits, truth, output, outputs=outputs)
    assert found.ece_after < found.ece_before / 2
    assert found.ece_after == calibration_error_at(logits, truth, output, outputs=outputs, temperature=found.value)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.25, 4), st.integers(0, 1000))
def test_scaled_logits_scale_the_temperature(factor, seed):
    """Logits times c have the temperature times c, and the same likelihood."""
    logits, truth = drawn(MULTICLASS, 3, seed=seed, frames=200)
    one, other = (fit_temperature(scale * logits.astype(float), truth, MULTICLASS, outputs=3) for scale in (1.0, factor))
    assert other.value == pytest.approx(factor * one.value, rel=1e-6)
    assert other.nll_after == pytest.approx(one.nll_after, rel=1e-9)


@pytest.mark.parametrize(("output", "outputs"), KINDS)
def test_one_outcome_has_no_temperature(output, outputs):
    """Every frame with the same labels: 1, and the reason."""
    logits, truth = drawn(output, outputs)
    found = fit_temperature(logits, np.repeat(truth[:1], len(truth), axis=0), output, outputs=outputs)
    assert (found.value, found.reason) == (1.0, "val has only one outcome")


@pytest.mark.parametrize("scale", [0.5, 1.0, 300.0, 1e6])
def test_separable_frames_have_no_temperature(scale):
    """A model without an error would get probabilities of 0 and 1 only; it stays as it is, whatever the size of its logits."""
    truth = np.eye(3, dtype=bool)[np.arange(60) % 3]
    found = fit_temperature(scale * truth.astype(float), truth, MULTICLASS, outputs=3)
    assert found.value == 1.0
    assert "separates" in found.reason
    assert found.nll_after == found.nll_before


def test_logits_against_the_truth_have_no_temperature():
    """Worse than a coin: only an infinite temperature would help."""
    truth = np.eye(3, dtype=bool)[np.arange(60) % 3]
    found = fit_temperature(-2.0 * truth, truth, MULTICLASS, outputs=3)
    assert found.value == 1.0
    assert "say nothing" in found.reason


def test_multilabel_labels_of_one_outcome_say_nothing():
    """A finding that no frame of val has does not make the model more confident."""
    logits, truth = drawn(MULTILABEL, 3, temperature=2.0)
    truth[:, 2] = False
    two = OutputSpec(labels=("x", "y"), task="multilabel")
    assert fit_temperature(logits, truth, MULTILABEL, outputs=3).value == fit_temperature(logits[:, :2], truth[:, :2], two, outputs=2).value


def test_a_known_temperature_is_measured():
    """The value is kept and its likelihood is that of the frames."""
    logits, truth = drawn(MULTICLASS, 3)
    found = keep_temperature(logits, truth, MULTICLASS, outputs=3, known=(2.0, "the reference's is used"))
    assert (found.value, found.reason) == (2.0, "the reference's is used")
    assert found.nll_after == pytest.approx(likelihood(logits, truth, MULTICLASS, 3, 2.0), rel=1e-6)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_broken_logits_are_a_model_error(broken):
    """A NaN would end the search anywhere."""
    logits, truth = drawn(MULTICLASS, 3)
    logits[3, 1] = broken
    with pytest.raises(ModelError, match="NaN or infinite"):
        fit_temperature(logits, truth, MULTICLASS, outputs=3)


def test_no_frames_and_other_shapes_are_refused():
    """Nothing can be fitted to nothing, and broadcasting would fit it to something else."""
    with pytest.raises(DataError, match="no frames"):
        fit_temperature(np.zeros((0, 3)), np.zeros((0, 3), bool), MULTICLASS, outputs=3)
    with pytest.raises(ValueError, match="shapes differ"):
        fit_temperature(np.zeros((2, 3)), np.zeros((1, 3), bool), MULTICLASS, outputs=3)
