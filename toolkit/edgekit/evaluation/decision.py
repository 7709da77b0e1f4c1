"""From logits to an answer: the one place that knows what an output means.

Compile time and the device call these functions on the same logits, so an answer that was accepted is the answer that is given.

Rules this file keeps:

1. A binary model with one logit z has two labels with the log-odds (-z, z); everything downstream sees one logit a label.
2. Probabilities are those of the logits divided by the temperature.
3. One answer a frame is the argmax for multiclass and binary; multilabel answers are the labels at or above their frozen threshold.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgekit.schema.model_io import OutputSpec

FloatArray = NDArray[np.floating]


def logits_by_label(raw: FloatArray, output: OutputSpec) -> NDArray[np.float32]:
    """Expands raw model outputs to one logit a label.

    Args:
        raw: float (..., outputs), where outputs is the number of labels, or 1 for a binary model.
        output: The meaning of the outputs.

    Returns:
        float32 (..., labels).
    """
    if raw.shape[-1] == 1 and output.task == "binary":
        return np.concatenate([-raw, raw], axis=-1).astype(np.float32, copy=False)
    return raw.astype(np.float32, copy=False)


def probabilities(logits: FloatArray, output: OutputSpec, *, outputs: int, temperature: float = 1.0) -> NDArray[np.float64]:
    """Probabilities of logits from `logits_by_label`.

    Args:
        logits: float (..., labels).
        output: The meaning of the outputs.
        outputs: Number of raw outputs of the model: 1 means sigmoid also for a binary model.
        temperature: Above 0; the logits are divided by it (Guo et al. 2017, temperature scaling).

    Returns:
        float64 (..., labels) in [0, 1]; rows sum to 1 except for multilabel.
    """
    scaled = logits.astype(np.float64) / temperature
    if output.task == "multilabel" or outputs == 1:
        return _sigmoid(scaled)
    shifted = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    softmax: NDArray[np.float64] = shifted / shifted.sum(axis=-1, keepdims=True)
    return softmax


def answers(probability: FloatArray, output: OutputSpec, thresholds: Mapping[str, float]) -> NDArray[np.bool_]:
    """Which labels each frame is answered with.

    Args:
        probability: float (frames, labels).
        output: The meaning of the outputs.
        thresholds: Label to frozen threshold; read only for multilabel, where a label without one uses 0.5.

    Returns:
        bool (frames, labels); exactly one True a row except for multilabel. Ties go to the first label.
    """
    if output.task == "multilabel":
        limits = np.array([_threshold(label, thresholds) for label in output.labels])
        return probability >= limits
    chosen = np.zeros(probability.shape, dtype=bool)
    chosen[np.arange(len(probability)), probability.argmax(axis=-1)] = True
    return chosen


def answered(probability: FloatArray, output: OutputSpec, thresholds: Mapping[str, float]) -> tuple[str, ...]:
    """The labels one frame is answered with: those that `answers` has for it, without its arrays.

    Args:
        probability: float (labels,).
        output: The meaning of the outputs.
        thresholds: As in `answers`.
    """
    if output.task != "multilabel":
        return (output.labels[int(probability.argmax())],)
    return tuple(label for label, value in zip(output.labels, probability.tolist(), strict=True) if value >= _threshold(label, thresholds))


def _threshold(label: str, thresholds: Mapping[str, float]) -> float:
    return thresholds.get(label, 0.5)


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    # Split by sign so that neither branch overflows.
    small = np.exp(-np.abs(x))
    result: NDArray[np.float64] = np.where(x >= 0, 1.0, small) / (1.0 + small)
    return result
