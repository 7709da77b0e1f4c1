"""Chooses the thresholds that are frozen into a bundle, on the validation split and never on the test split.

Rules this file keeps:

1. The threshold maximises Youden's J = sensitivity + specificity − 1 (Youden 1950), where a frame is positive when its probability is at or
   above the threshold.
2. Candidates lie in the middle between neighbouring distinct probabilities, where rounding on the device does the least harm.
3. Among equally good candidates the one in the widest gap wins; among equally wide gaps the lowest, which misses the fewest patients.
4. A label on which nothing can be chosen gets 0.5 and is reported.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.schema.model_io import OutputSpec

UNDECIDED_THRESHOLD = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenThresholds:
    """Thresholds by label.

    Attributes:
        thresholds: The positive label (binary, multiclass) or every label (multilabel); empty for multiclass without a positive label.
        youden: Label to Youden's J on the frames it was chosen on; None for a label in `undecided`.
        undecided: Labels with `UNDECIDED_THRESHOLD`, because these frames hold only one outcome or only one probability.
    """

    thresholds: dict[str, float]
    youden: dict[str, float | None]
    undecided: tuple[str, ...]


def choose_thresholds(probability: NDArray[np.floating], truth: NDArray[np.bool_], output: OutputSpec) -> FrozenThresholds:
    """Chooses a threshold for every label that has one.

    Args:
        probability: float (frames, labels) of the validation split.
        truth: bool (frames, labels).
        output: The meaning of the outputs.
    """
    single = () if output.positive is None else (output.positive,)
    labels = output.labels if output.task == "multilabel" else single
    thresholds: dict[str, float] = {}
    youden: dict[str, float | None] = {}
    for label in labels:
        column = output.labels.index(label)
        best = best_threshold(probability[:, column], truth[:, column])
        thresholds[label], youden[label] = (UNDECIDED_THRESHOLD, None) if best is None else best
    undecided = tuple(label for label in labels if youden[label] is None)
    return FrozenThresholds(thresholds=thresholds, youden=youden, undecided=undecided)


def best_threshold(probability: NDArray[np.floating], truth: NDArray[np.bool_]) -> tuple[float, float] | None:
    """The best threshold of one label and its Youden's J.

    Args:
        probability: float (frames,).
        truth: bool (frames,).

    Returns:
        (threshold, J); None when one outcome is missing or all probabilities are equal.
    """
    positives, negatives = int(truth.sum()), int((~truth).sum())
    values, block = np.unique(probability.astype(np.float64), return_inverse=True)
    if positives == 0 or negatives == 0 or len(values) < 2:
        return None
    below_positive = np.cumsum(np.bincount(block[truth], minlength=len(values)))[:-1]
    below_negative = np.cumsum(np.bincount(block[~truth], minlength=len(values)))[:-1]
    # J × positives × negatives in whole numbers, so that equal candidates compare equal.
    gain = (positives - below_positive) * negatives + below_negative * positives - positives * negatives
    best = np.flatnonzero(gain == gain.max())
    gap = int(best[np.argmax(values[best + 1] - values[best])])
    low, high = float(values[gap]), float(values[gap + 1])
    middle = (low + high) / 2
    # Neighbouring floats have no middle; `high` itself still separates them, because a frame at the threshold is positive.
    return (middle if middle > low else high), float(gain[gap]) / (positives * negatives)
