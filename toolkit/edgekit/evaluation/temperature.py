"""Fits the temperature that the logits are divided by, on the validation split: calibrated probabilities without changing an order.

Rules this file keeps:

1. The temperature minimizes the mean negative log-likelihood over frames (Guo et al. 2017), every frame weighing the same; for multilabel the mean over
   the labels that are both present and absent, others say nothing.
2. The likelihood is convex in 1 / T, so its one minimum is where the derivative changes sign; it is found by bisection in log T to full precision.
3. T = 1, with a reason, where there is no such minimum inside the limits (frames that the model separates perfectly ask for T = 0) or only one
   outcome. A temperature at a border would turn every probability into 0 or 1, or into a coin's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import ModelError
from edgekit.evaluation.decision import probabilities
from edgekit.evaluation.metrics import Outcomes, expected_calibration_error
from edgekit.schema.model_io import OutputSpec

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LOWEST, HIGHEST = 0.05, 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Temperature:
    """A fitted temperature and what it does to the frames it was fitted on.

    Attributes:
        value: The temperature; 1 where none could be fitted.
        frames: Number of frames it was fitted on.
        nll_before: Mean negative log-likelihood in nats at T = 1; None where it is undefined (multilabel without a label of both outcomes).
        nll_after: The same at `value`.
        ece_before: Expected calibration error at T = 1, as `metrics` defines it.
        ece_after: The same at `value`. May be larger: the likelihood is minimized, not this.
        reason: Why the temperature is 1; empty where it was fitted.
    """

    value: float
    frames: int
    nll_before: float | None
    nll_after: float | None
    ece_before: float
    ece_after: float
    reason: str


def fit_temperature(logits: NDArray[np.floating], truth: Bools, output: OutputSpec, *, outputs: int) -> Temperature:
    """Fits the temperature of one model.

    Args:
        logits: float (frames, labels) of the validation split, from `decision.logits_by_label`.
        truth: bool (frames, labels).
        output: The meaning of the outputs.
        outputs: Number of raw outputs of the model (see `decision.probabilities`).

    Raises:
        ModelError: A logit is NaN or infinite.
        DataError: There are no frames.
    """
    if logits.shape != truth.shape:
        raise ValueError(f"shapes differ: logits {logits.shape}, truth {truth.shape}")
    if not np.isfinite(logits).all():
        raise ModelError("the model gave NaN or infinite logits on val", hint="check its weights and precision")
    scores, right = _as_choices(logits.astype(np.float64), truth, output, outputs)
    return keep_temperature(logits, truth, output, outputs=outputs, known=_minimum(scores, right, truth))


def keep_temperature(
    logits: NDArray[np.floating], truth: Bools, output: OutputSpec, *, outputs: int, known: tuple[float, str]
) -> Temperature:
    """What a temperature that is already known does to frames.

    Args:
        logits: float (frames, labels), from `decision.logits_by_label`.
        truth: bool (frames, labels).
        output: The meaning of the outputs.
        outputs: Number of raw outputs of the model.
        known: The temperature, and why it was not fitted to these frames; an empty text where it was.
    """
    value, reason = known
    scores, right = _as_choices(logits.astype(np.float64), truth, output, outputs)
    before, after = (calibration_error_at(logits, truth, output, outputs=outputs, temperature=t) for t in (1.0, value))
    return Temperature(
        value=value,
        frames=len(truth),
        nll_before=_likelihood(scores, right, 1.0),
        nll_after=_likelihood(scores, right, value),
        ece_before=before,
        ece_after=after,
        reason=reason,
    )


def calibration_error_at(logits: NDArray[np.floating], truth: Bools, output: OutputSpec, *, outputs: int, temperature: float) -> float:
    """The expected calibration error (see `metrics`) of logits (frames, labels) at a temperature."""
    probability = probabilities(logits, output, outputs=outputs, temperature=temperature)
    outcomes = Outcomes(probability=probability, truth=truth, output=output, thresholds={})
    return float(expected_calibration_error(outcomes, np.ones((1, len(truth))))[0])


def _as_choices(logits: Floats, truth: Bools, output: OutputSpec, outputs: int) -> tuple[Floats, NDArray[np.intp]]:
    # Every likelihood as a softmax over choices: a sigmoid of z is one over (0, z). Scores (rows, choices) and the right choice of each row.
    if output.task != "multilabel" and outputs != 1:
        return logits, truth.argmax(axis=1)
    columns = truth.any(axis=0) & ~truth.all(axis=0)
    if output.task != "multilabel":
        columns = np.array([False, True])
    flat = logits[:, columns].ravel()
    return np.stack([np.zeros_like(flat), flat], axis=1), truth[:, columns].ravel().astype(np.intp)


def _minimum(scores: Floats, right: NDArray[np.intp], truth: Bools) -> tuple[float, str]:
    # (temperature, reason); the derivative with respect to 1 / T is the mean of (expected score − score of the right choice), and it increases.
    if not len(right) or (truth == truth[0]).all():
        return 1.0, "val has only one outcome"
    slope = _Slope(scores, right)
    if slope.at(LOWEST) <= 0:
        return (
            1.0,
            f"val asks for a temperature of {LOWEST} or less: the model separates it (almost) perfectly, so its likelihood has no minimum",
        )
    if slope.at(HIGHEST) >= 0:
        return 1.0, f"val asks for a temperature of {HIGHEST:g} or more: the logits say nothing about it"
    low, high = math.log(LOWEST), math.log(HIGHEST)
    while low < (middle := (low + high) / 2) < high:
        if slope.at(math.exp(middle)) > 0:
            low = middle
        else:
            high = middle
    return math.exp(middle), ""


class _Slope:
    def __init__(self, scores: Floats, right: NDArray[np.intp]) -> None:
        # Scores relative to the right choice: the sum stays exact to the last digit where all but one choice have vanished.
        self._relative = scores - scores[np.arange(len(right)), right][:, None]
        self._shift = self._relative.max(axis=1, keepdims=True)

    def at(self, temperature: float) -> float:
        weight = np.exp((self._relative - self._shift) / temperature)
        return float(((weight * self._relative).sum(axis=1) / weight.sum(axis=1)).mean())


def _likelihood(scores: Floats, right: NDArray[np.intp], temperature: float) -> float | None:
    if not len(right):
        return None
    scaled = scores / temperature
    return float((np.logaddexp.reduce(scaled, axis=1) - scaled[np.arange(len(right)), right]).mean())
