"""The points of the curves that a report draws, from scores and truth: ROC curves and reliability diagrams.

Rules this file keeps:

1. Thinning never changes the picture: a dropped point lies within `TOLERANCE` of the line through its neighbours that are kept, less than half a
   pixel of any chart; every point that is kept is one of the curve's own, and both ends always are.
2. A curve that is not defined has no points; an empty bin has no mean. Neither becomes 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import ModelError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

TOLERANCE = 5e-4
"""In parts of an axis."""

DIGITS = 6
"""Decimals of a point: far below `TOLERANCE`, and a third of the bytes."""


def roc_points(score: Floats, truth: Bools, threshold: float | None) -> dict[str, object]:
    """The empirical ROC curve (Fawcett 2006, algorithm 1: tied scores are one step, drawn as a diagonal).

    Args:
        score: float (frames,), larger where the label is more probable.
        truth: bool (frames,).
        threshold: Positive at or above it; None where there is none.

    Returns:
        ``fpr`` and ``tpr``: the same number of shares in [0, 1], from (0, 0) to (1, 1); empty where one outcome is missing.
        ``operating``: [fpr, tpr] at the threshold, or None.

    Raises:
        ValueError: Score and truth are not one value a frame each.
        ModelError: A score is NaN or infinite.
    """
    if score.ndim != 1 or score.shape != truth.shape:
        raise ValueError(f"expected one score and one truth a frame, got {score.shape} and {truth.shape}")
    if not np.isfinite(score).all():
        raise ModelError("a score is NaN or infinite", hint="check the model's weights")
    truth = truth.astype(np.bool_)
    positives = int(truth.sum())
    negatives = truth.size - positives
    if not positives or not negatives:
        return {"fpr": [], "tpr": [], "operating": None}
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    hits = np.append(0, np.cumsum(truth[order])[ends])
    false = np.append(0, ends + 1) - hits
    points = np.stack([false / negatives, hits / positives], axis=1)
    kept = points[_corners(points)].round(DIGITS)
    above = score >= threshold if threshold is not None else None
    operating = None if above is None else [float((above & ~truth).sum() / negatives), float((above & truth).sum() / positives)]
    return {"fpr": kept[:, 0].tolist(), "tpr": kept[:, 1].tolist(), "operating": operating}


def reliability_bins(
    confidence_reference: Floats, right_reference: Bools, confidence_device: Floats, right_device: Bools, *, bins: int = 10
) -> list[dict[str, object]]:
    """How often an answer was right, by how sure the model was of it (DeGroot & Fienberg 1983), in bins of equal width.

    The picture to the calibration error, not its definition: that one has bins of equal mass (`evaluation.metrics`).

    Args:
        confidence_reference: float (answers,) in [0, 1].
        right_reference: bool (answers,).
        confidence_device: float (answers,) in [0, 1]; as many or not as many.
        right_device: bool (answers,).
        bins: Of [0, 1]. A confidence on a border belongs to the upper bin, 1 to the last.

    Returns:
        In order: ``low``, ``high``, and for ``reference`` and ``device`` the mean ``confidence``, the share right as ``accuracy`` (both None in an
        empty bin) and the number of ``frames``.

    Raises:
        ValueError: Shapes do not fit, or no bins.
        ModelError: A confidence is NaN or not in [0, 1].
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, not {bins}")
    sides = {
        "reference": _binned(confidence_reference, right_reference, bins),
        "device": _binned(confidence_device, right_device, bins),
    }
    return [
        {"low": index / bins, "high": (index + 1) / bins, **{side: found[index] for side, found in sides.items()}} for index in range(bins)
    ]


def _binned(confidence: Floats, right: Bools, bins: int) -> list[dict[str, object]]:
    if confidence.ndim != 1 or confidence.shape != right.shape:
        raise ValueError(f"expected one confidence and one verdict an answer, got {confidence.shape} and {right.shape}")
    # NaN fails the comparison too.
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ModelError("a confidence is NaN or not in [0, 1]", hint="check the model's weights")
    borders = np.arange(1, bins) / bins
    place = np.searchsorted(borders, confidence, side="right")
    found: list[dict[str, object]] = []
    for index in range(bins):
        inside = place == index
        frames = int(inside.sum())
        means = (float(confidence[inside].mean()), float(right[inside].mean())) if frames else (None, None)
        found.append({"confidence": means[0], "accuracy": means[1], "frames": frames})
    return found


def _corners(points: Floats) -> NDArray[np.intp]:
    """Indices of the points that carry the picture (Ramer 1972; Douglas & Peucker 1973), rule 1."""
    kept = np.zeros(len(points), np.bool_)
    kept[[0, -1]] = True
    spans = [(0, len(points) - 1)]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        chord = points[last] - points[first]
        offset = points[first + 1 : last] - points[first]
        # The curve rises from one end to the other, so that no chord has length 0.
        distance = np.abs(chord[0] * offset[:, 1] - chord[1] * offset[:, 0]) / np.hypot(*chord)
        farthest = int(distance.argmax())
        if distance[farthest] > TOLERANCE:
            middle = first + 1 + farthest
            kept[middle] = True
            spans += [(first, middle), (middle, last)]
    return np.flatnonzero(kept)
