"""Are the device's probabilities as honest as the reference's: the paired difference of the expected calibration error.

Each model's probabilities are those after its own temperature. The interval is a paired percentile bootstrap over groups, as in `intervals`. The calibration
error of few frames is mostly chance, which `chance` estimates: a perfectly calibrated model shows about that much.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.evaluation.intervals import CONFIDENCE, REPLICATES, bootstrap, group_indices
from edgekit.evaluation.metrics import ECE_BINS, Outcomes, expected_calibration_error


@dataclass(frozen=True, slots=True, kw_only=True)
class EceDifference:
    """Expected calibration errors (see `metrics`) on the same frames.

    Attributes:
        frames: Number of frames.
        reference: Of the reference.
        device: Of the device.
        difference: Device − reference.
        low: Lower end of its 95 % interval.
        high: Upper end.
        chance: What a perfectly calibrated model with the device's probabilities would show on as many independent frames.
    """

    frames: int
    reference: float
    device: float
    difference: float
    low: float
    high: float
    chance: float


def paired_ece_difference(
    reference: Outcomes, device: Outcomes, *, groups: Sequence[str], replicates: int = REPLICATES, seed: int = 0
) -> EceDifference:
    """Compares the calibration of two models on the same frames.

    Args:
        reference: What the reference said.
        device: What the device said about the same frames, in the same order.
        groups: The patient or video of each frame.
        replicates: Draws of the bootstrap.
        seed: Of the bootstrap.
    """

    def errors(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        return {name: expected_calibration_error(model, weights) for name, model in (("reference", reference), ("device", device))}

    plain = errors(np.ones((1, len(device.truth))))
    draws = bootstrap(errors, group_indices(groups), replicates=replicates, seed=seed)
    change = draws["device"] - draws["reference"]
    low, high = map(float, np.quantile(change, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]))
    before, after = float(plain["reference"][0]), float(plain["device"][0])
    return EceDifference(
        frames=len(device.truth),
        reference=before,
        device=after,
        difference=after - before,
        low=low,
        high=high,
        chance=chance_error(device),
    )


def chance_error(outcomes: Outcomes, *, bins: int = ECE_BINS) -> float:
    """The calibration error that chance alone causes: mean of |N(0, Σ p (1 − p))| over bins of equal variance, in parts of the frames."""
    probability = outcomes.probability
    if outcomes.output.task != "multilabel":
        probability = probability.max(axis=1, keepdims=True)
    variance = (probability * (1 - probability)).sum(axis=0)
    return float(np.sqrt(2 / math.pi * bins * variance).mean()) / len(probability)
