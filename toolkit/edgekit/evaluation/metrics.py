"""Figures of a classifier on labelled frames, for many weightings of the frames at once.

The bootstrap weights each frame by how often its group was drawn; the plain figure is the same code with every weight 1, so a figure and
its interval cannot mean different things. Undefined is NaN inside this file and `None` for everyone else.

What the figures mean:

1. accuracy, balanced_accuracy, precision, recall, f1 and everything per class judge the answers: the argmax, for multilabel the frozen thresholds.
   Multilabel accuracy asks for all labels of a frame (exact match); balanced_accuracy is the mean over classes of their recall, for multilabel
   the mean over labels of (sensitivity + specificity) / 2.
2. precision, recall and f1 are those of the positive label for binary, otherwise the mean over the classes (macro).
3. sensitivity and specificity are about `output.positive`, at its frozen threshold where there is one (positive at or above), otherwise
   by the answers; without a positive label they are the mean over the classes.
4. auc is that of the positive label for binary, otherwise macro one-vs-rest; ties count half.
5. ece is that of the top label over 15 bins of equal mass (Guo et al. 2017; Nguyen & O'Connor 2015 for the bins); for multilabel the mean over labels
   of the same for P(label).
6. A mean over classes is defined only where every class has its part; for multilabel, over the labels that are both present and
   absent among the frames (others say nothing).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError, ModelError
from edgekit.evaluation.decision import answers
from edgekit.schema.model_io import OutputSpec

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

ECE_BINS = 15
FIGURES = ("accuracy", "balanced_accuracy", "auc", "sensitivity", "specificity", "precision", "recall", "f1", "ece")
CLASS_FIGURES = ("auc", "sensitivity", "specificity", "precision", "f1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """What a model said about labelled frames.

    Attributes:
        probability: float (frames, labels) in [0, 1], from `decision.probabilities`; kept as float64.
        truth: bool (frames, labels); exactly one True a row except for multilabel.
        output: The meaning of the outputs.
        thresholds: Label to frozen threshold.
        answers: bool (frames, labels), from `decision.answers`; derived.

    Raises:
        DataError: No frames, or a row of a single-label task with no or several true labels.
        ModelError: A probability that is NaN or not in [0, 1].
    """

    probability: Floats
    truth: Bools
    output: OutputSpec
    thresholds: Mapping[str, float]
    answers: Bools = field(init=False)

    def __post_init__(self) -> None:
        if self.probability.shape != self.truth.shape or self.truth.ndim != 2 or self.truth.shape[1] != len(self.output.labels):
            raise ValueError(f"expected (frames, {len(self.output.labels)}), got {self.probability.shape} and {self.truth.shape}")
        if not len(self.truth):
            raise DataError("there are no frames to evaluate")
        object.__setattr__(self, "probability", self.probability.astype(np.float64))
        # NaN fails the comparison too.
        broken = ~((self.probability >= 0) & (self.probability <= 1)).all(axis=1)
        if broken.any():
            raise ModelError(
                f"the model gave a probability that is NaN or not in [0, 1], first on frame {int(broken.argmax())}",
                hint="check its weights",
            )
        if self.output.task != "multilabel" and (self.truth.sum(axis=1) != 1).any():
            raise DataError("a frame does not have exactly one true label")
        object.__setattr__(self, "answers", answers(self.probability, self.output, self.thresholds))

    @property
    def decided_labels(self) -> NDArray[np.intp]:
        """Columns a mean over classes is taken over (rule 6)."""
        if self.output.task != "multilabel":
            return np.arange(len(self.output.labels))
        return np.flatnonzero(self.truth.any(axis=0) & ~self.truth.all(axis=0))

    @property
    def judged_labels(self) -> NDArray[np.intp]:
        """Columns of auc, precision, recall and f1 (rules 2 and 4)."""
        column = self.positive_column
        return self.decided_labels if self.output.task != "binary" or column is None else np.array([column], dtype=np.intp)

    @property
    def positive_column(self) -> int | None:
        """Column of `output.positive`."""
        return None if self.output.positive is None else self.output.labels.index(self.output.positive)


def figures(outcomes: Outcomes, weights: Floats, table: Mapping[str, Floats]) -> dict[str, Floats]:
    """Every figure of `FIGURES` under many weightings.

    Args:
        outcomes: The frames.
        weights: float64 (replicates, frames), not negative.
        table: What `class_figures` gives for the same weights.

    Returns:
        Name to float64 (replicates,); NaN where it is undefined.
    """
    task, decided, judged = outcomes.output.task, outcomes.decided_labels, outcomes.judged_labels
    right = (outcomes.answers == outcomes.truth).all(axis=1)
    balanced = table["sensitivity"] if task != "multilabel" else (table["sensitivity"] + table["specificity"]) / 2
    sensitivity, specificity = _at_operating_point(outcomes, weights, table)
    return {
        "accuracy": _ratio(weights @ right, weights.sum(axis=1)),
        "balanced_accuracy": _mean(balanced, decided),
        "auc": _mean(table["auc"], judged),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "precision": _mean(table["precision"], judged),
        "recall": _mean(table["sensitivity"], judged),
        "f1": _mean(table["f1"], judged),
        "ece": expected_calibration_error(outcomes, weights),
    }


def class_figures(outcomes: Outcomes, weights: Floats) -> dict[str, Floats]:
    """Every figure of `CLASS_FIGURES`, one against the rest, by the answers.

    Args:
        outcomes: The frames.
        weights: float64 (replicates, frames), not negative.

    Returns:
        Name to float64 (replicates, labels); NaN where it is undefined.
    """
    hit, missed, false, passed = _counts(outcomes.truth, outcomes.answers, weights)
    auc = [weighted_auc(outcomes.probability[:, column], outcomes.truth[:, column], weights) for column in range(outcomes.truth.shape[1])]
    return {
        "auc": np.stack(auc, axis=1),
        "sensitivity": _ratio(hit, hit + missed),
        "specificity": _ratio(passed, passed + false),
        "precision": _ratio(hit, hit + false),
        "f1": _ratio(2 * hit, 2 * hit + missed + false),
    }


def weighted_auc(score: Floats, truth: Bools, weights: Floats) -> Floats:
    """Area under the ROC curve: the chance that a positive frame scores above a negative one, ties counting half.

    Args:
        score: float64 (frames,).
        truth: bool (frames,).
        weights: float64 (replicates, frames), not negative.

    Returns:
        float64 (replicates,); NaN where one outcome has no weight.
    """
    order = np.argsort(score, kind="stable")
    ranked = score[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    sorted_weights, sorted_truth = weights[:, order], truth[order]
    positive = np.add.reduceat(sorted_weights * sorted_truth, starts, axis=1)
    negative = np.add.reduceat(sorted_weights * ~sorted_truth, starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    return _ratio((positive * below).sum(axis=1), positive.sum(axis=1) * negative.sum(axis=1))


def confusion(outcomes: Outcomes) -> NDArray[np.int64]:
    """Counts of answers.

    Returns:
        int64 (labels, labels) with the truth in rows and the answer in columns; for multilabel (labels, 2, 2) with absent before present.
    """
    truth, given = outcomes.truth.astype(np.int64), outcomes.answers.astype(np.int64)
    if outcomes.output.task != "multilabel":
        result: NDArray[np.int64] = truth.T @ given
        return result
    cells = [((1 - truth) * (1 - given)), (1 - truth) * given, truth * (1 - given), truth * given]
    return np.asarray(np.stack([cell.sum(axis=0) for cell in cells], axis=1).reshape(-1, 2, 2))


def calibration_error(confidence: Floats, right: Bools, weights: Floats, *, bins: int = ECE_BINS) -> Floats:
    """Expected calibration error over bins of equal mass.

    A frame on the border of two bins is shared between them, and frames of equal confidence are spread evenly, so the figure depends
    neither on the order of the frames nor on how the number of frames divides.

    Args:
        confidence: float64 (frames,) in [0, 1].
        right: bool (frames,).
        weights: float64 (replicates, frames), not negative.
        bins: Number of bins.

    Returns:
        float64 (replicates,); NaN where all weights are 0.
    """
    order = np.argsort(confidence, kind="stable")
    ranked = confidence[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    mass = np.cumsum(np.add.reduceat(weights[:, order], starts, axis=1), axis=1)
    gaps = weights[:, order] * (ranked - right[order])
    gap = np.cumsum(np.add.reduceat(gaps, starts, axis=1), axis=1)
    result = np.full(len(weights), np.nan)
    for replicate, total in enumerate(mass[:, -1]):
        if total > 0:
            edges = np.linspace(0, total, bins + 1)
            knots, heights = np.concatenate([[0.0], mass[replicate]]), np.concatenate([[0.0], gap[replicate]])
            result[replicate] = np.abs(np.diff(np.interp(edges, knots, heights))).sum() / total
    return result


def expected_calibration_error(outcomes: Outcomes, weights: Floats) -> Floats:
    """The calibration error of rule 5, float64 (replicates,), for weights float64 (replicates, frames)."""
    if outcomes.output.task == "multilabel":
        columns = range(outcomes.truth.shape[1])
        errors = [calibration_error(outcomes.probability[:, column], outcomes.truth[:, column], weights) for column in columns]
        return np.asarray(np.stack(errors).mean(axis=0), dtype=np.float64)
    top = outcomes.probability.argmax(axis=1)
    rows = np.arange(len(top))
    return calibration_error(outcomes.probability[rows, top], outcomes.truth[rows, top], weights)


def _at_operating_point(outcomes: Outcomes, weights: Floats, table: Mapping[str, Floats]) -> tuple[Floats, Floats]:
    column, label = outcomes.positive_column, outcomes.output.positive
    if column is None or label is None:
        decided = outcomes.decided_labels
        return _mean(table["sensitivity"], decided), _mean(table["specificity"], decided)
    if label not in outcomes.thresholds:
        return table["sensitivity"][:, column], table["specificity"][:, column]
    above = outcomes.probability[:, [column]] >= outcomes.thresholds[label]
    hit, missed, false, passed = _counts(outcomes.truth[:, [column]], above, weights)
    return _ratio(hit, hit + missed)[:, 0], _ratio(passed, passed + false)[:, 0]


def _counts(truth: Bools, given: Bools, weights: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    # Weighted true positives, false negatives, false positives and true negatives, each (replicates, labels).
    return weights @ (truth & given), weights @ (truth & ~given), weights @ (~truth & given), weights @ (~truth & ~given)


def _ratio(part: Floats, whole: Floats) -> Floats:
    result = np.full(np.shape(part), np.nan)
    np.divide(part, whole, out=result, where=whole > 0)
    return result


def _mean(table: Floats, columns: NDArray[np.intp]) -> Floats:
    # NaN in any class makes the mean NaN: a class nobody could judge must not drop out of it.
    if not len(columns):
        return np.full(len(table), np.nan)
    result: Floats = table[:, columns].mean(axis=1)
    return result
