"""Evaluates a classifier on labelled frames: every figure of the `evaluate` contract with an interval that respects groups.

`metrics` says what each figure means, `intervals` what each interval means; this file puts the two together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.evaluation import metrics
from edgekit.evaluation.intervals import REPLICATES, Figure, bootstrap, figure, group_indices
from edgekit.evaluation.metrics import Outcomes

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassEvaluation:
    """One label against the rest: `support` frames that carry it, and the figures of `metrics.CLASS_FIGURES` by the answers."""

    support: int
    figures: Mapping[str, Figure]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A classifier on one split.

    Attributes:
        n: Number of frames.
        groups: Number of groups the frames come from.
        labels: In output order; the order of `confusion`.
        figures: Name (see `metrics.FIGURES`) to figure.
        confusion: Counts with the truth in rows and the answer in columns; multilabel: such a table (absent, present) a label.
        per_class: Label to its figures.
        not_assessable: Frames that the bundle's input gate refuses; they are among the others in all figures. None where no gate has judged them.
    """

    n: int
    groups: int
    labels: tuple[str, ...]
    figures: Mapping[str, Figure]
    confusion: Sequence[Any]
    per_class: Mapping[str, ClassEvaluation]
    not_assessable: int | None = None

    def value(self, name: str) -> float | None:
        """The value of one of `metrics.FIGURES`; None where it is undefined."""
        return self.figures[name].value

    def to_json(self) -> dict[str, Any]:
        """The JSON document of `edgekit evaluate`: no NaN, plain numbers only."""
        return {
            "n": self.n,
            **{name: item.to_json() for name, item in self.figures.items()},
            "confusion": {"value": self.confusion, "low": None, "high": None},
            "per_class": {
                label: {"support": item.support, **{name: part.to_json() for name, part in item.figures.items()}}
                for label, item in self.per_class.items()
            },
            "labels": list(self.labels),
            "groups": self.groups,
            **({} if self.not_assessable is None else {"not_assessable": self.not_assessable}),
        }


def evaluate(outcomes: Outcomes, *, groups: Sequence[str], replicates: int = REPLICATES, seed: int = 0) -> Evaluation:
    """Evaluates what a model said about one split.

    Args:
        outcomes: Probabilities and truth of the frames.
        groups: The patient or video of each frame.
        replicates: Draws of the bootstrap.
        seed: Of the bootstrap.
    """
    truth, labels = outcomes.truth, outcomes.output.labels
    if len(groups) != len(truth):
        raise ValueError(f"{len(groups)} groups for {len(truth)} frames")
    index = group_indices(groups)
    # Flat names keep the bootstrap ignorant of what it draws: "auc" and, a label each in the second axis, "class auc".
    plain = _measure(outcomes, np.ones((1, len(truth))))
    draws = bootstrap(lambda weights: _measure(outcomes, weights), index, replicates=replicates, seed=seed)
    rests = {name: _group_count(frames, index) for name, frames in _rests_on(outcomes).items()}
    per_class = {}
    for column, label in enumerate(labels):
        alone = {name: _group_count(frames, index) for name, frames in _class_rests_on(outcomes, [column]).items()}
        found = {
            name: figure(plain[f"class {name}"][0, column], draws[f"class {name}"][:, column], alone[name])
            for name in metrics.CLASS_FIGURES
        }
        per_class[label] = ClassEvaluation(support=int(truth[:, column].sum()), figures=found)
    return Evaluation(
        n=len(truth),
        groups=int(index.max()) + 1,
        labels=labels,
        figures={name: figure(plain[name][0], draws[name], rests[name]) for name in metrics.FIGURES},
        confusion=metrics.confusion(outcomes).tolist(),
        per_class=per_class,
    )


def _measure(outcomes: Outcomes, weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    table = metrics.class_figures(outcomes, weights)
    return {**metrics.figures(outcomes, weights, table), **{f"class {name}": values for name, values in table.items()}}


def _rests_on(outcomes: Outcomes) -> dict[str, Bools]:
    # The frames each figure rests on, bool (frames, parts): the exact interval counts the groups of the smallest part.
    truth, decided = outcomes.truth, list(outcomes.decided_labels)
    positive = outcomes.positive_column
    pointed = decided if positive is None else [positive]
    everything = np.ones((len(truth), 1), dtype=bool)
    parts = _class_rests_on(outcomes, list(outcomes.judged_labels))
    both = outcomes.output.task == "multilabel"
    return {
        "accuracy": everything,
        "balanced_accuracy": np.hstack([truth[:, decided], ~truth[:, decided]]) if both else truth[:, decided],
        "auc": parts["auc"],
        "sensitivity": truth[:, pointed],
        "specificity": ~truth[:, pointed],
        "precision": parts["precision"],
        "recall": parts["sensitivity"],
        "f1": parts["f1"],
        "ece": everything,
    }


def _class_rests_on(outcomes: Outcomes, columns: Sequence[int]) -> dict[str, Bools]:
    truth, given = outcomes.truth[:, columns], outcomes.answers[:, columns]
    return {"auc": np.hstack([truth, ~truth]), "sensitivity": truth, "specificity": ~truth, "precision": given, "f1": truth | given}


def _group_count(frames: Bools, group_index: NDArray[np.intp]) -> int:
    return min((len(np.unique(group_index[part])) for part in frames.T), default=0)
