"""What `val` says about a student: the loss that chooses the best epoch, and the AUC that is shown beside it.

Rules this file keeps:

1. The teachers answer each frame of `val` once; only the student runs again after every epoch.
2. Nothing is varied, and the student runs in float32 whatever the training's precision: the epoch is chosen for what will be compiled.
3. Several processes share the frames and then all have every result, so that they choose alike.
4. Features are no part of the loss that chooses: they help to learn, and say nothing about an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler.distill import batches
from edgekit.compiler.distill.losses import TINY, Objective, Scales, Target, combine, floored
from edgekit.compiler.distill.settings import TrainData, TrainSettings
from edgekit.errors import ModelError
from edgekit.evaluation.decision import logits_by_label, probabilities
from edgekit.evaluation.metrics import weighted_auc
from edgekit.schema.model_io import OutputSpec

if TYPE_CHECKING:
    import torch

    from edgekit.compiler.distill.answer import Answer

DIVERGED = "lower learning_rate; if it was low already, check the labels and [input] mean and std"


class Result(NamedTuple):
    """What an epoch is worth: the mean loss, its parts, and the AUC or None where it is not defined."""

    loss: float
    parts: dict[str, float]
    auc: float | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shared:
    """What validation needs to know about the processes.

    Attributes:
        rank: Of this process.
        processes: How many there are.
        gather: Gives every process the lists of all, joined.
    """

    rank: int
    processes: int
    gather: Callable[[list[Any]], list[Any]]


class Validation:
    """`val` with the teachers' answers to it."""

    def __init__(self, data: TrainData, settings: TrainSettings, normalize: batches.Normalize, shared: Shared) -> None:
        """Prepares; `ask` comes before `judge`."""
        self._data = data
        self._settings = settings
        self._normalize = normalize
        self._shared = shared
        self._targets: list[Target] = []

    def __len__(self) -> int:
        """Batches that this process judges."""
        return len(self._numbered())

    def ask(self, teachers: Callable[[torch.Tensor], Sequence[Answer]], outputs: int, on_batch: Callable[[], None]) -> Scales:
        """Keeps what the teachers say, and tells how much their maps and features vary.

        Args:
            teachers: Answers normalized frames.
            outputs: Number of the student's outputs.
            on_batch: Called after each batch.
        """
        sums: list[NDArray[np.float64] | None] = []
        self._targets = []
        for _, x in self._batches():
            answers = teachers(x)
            target = combine(answers, self._data.output, self._settings.temperature, outputs)
            measured = [None if target.maps is None else _moments(target.maps.transpose(0, 1).flatten(1))]
            if self._settings.feature_weight:
                measured += [None if features is None else _moments(features.reshape(1, -1)) for features in target.features]
            sums = measured if not sums else [_added(old, new) for old, new in zip(sums, measured, strict=True)]
            self._targets.append(target._replace(features=()))
            on_batch()
        return _scales([item for item in self._shared.gather([sums]) if item], self._normalize.device)

    def judge(self, student: torch.nn.Module, objective: Objective, on_batch: Callable[[], None]) -> Result:
        """What the student is worth now.

        Args:
            student: Put into evaluation mode, and left so.
            objective: The loss.
            on_batch: Called after each batch.

        Raises:
            ModelError: The loss is not finite.
        """
        import torch

        student.eval()
        found: list[tuple[int, int, dict[str, float], NDArray[np.float32]]] = []
        for (number, rows), (_, x), target in zip(self._numbered(), self._batches(), self._targets, strict=True):
            with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
                answer = student(x)
                loss = objective.loss(answer, target, torch.from_numpy(self._data.val.truth[rows]).to(x.device))
            values = {"total": float(loss.total), **{name: float(value) for name, value in loss.parts.items()}}
            found.append((number, len(rows), values, answer.logits.cpu().numpy()))
            on_batch()
        every = sorted(self._shared.gather(found), key=lambda item: item[0])
        frames = sum(count for _, count, _, _ in every)
        means = {name: sum(count * values[name] for _, count, values, _ in every) / frames for name in every[0][2]}
        total = means.pop("total")
        if not np.isfinite(total):
            raise ModelError("the loss on val is not finite", hint=DIVERGED)
        return Result(total, means, _auc(np.concatenate([logits for *_, logits in every]), self._data.val.truth, self._data.output))

    def _numbered(self) -> list[tuple[int, NDArray[np.intp]]]:
        """Number and rows of each batch of this process."""
        frames, size = len(self._data.val.tensors), self._settings.batch
        starts = list(enumerate(range(0, frames, size)))[self._shared.rank :: self._shared.processes]
        return [(number, np.arange(start, min(start + size, frames))) for number, start in starts]

    def _batches(self) -> Iterator[tuple[NDArray[np.intp], torch.Tensor]]:
        for _, rows in self._numbered():
            yield rows, self._normalize(batches.read(self._data.val, rows, self._settings, None))


def _moments(values: torch.Tensor) -> NDArray[np.float64]:
    """Number, sum and sum of squares of each row: float64 (3, rows)."""
    table = values.cpu().double()
    counts = np.full(len(table), table.shape[1], dtype=np.float64)
    return np.stack([counts, table.sum(dim=1).numpy(), (table**2).sum(dim=1).numpy()])


def _added(first: NDArray[np.float64] | None, second: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    return None if first is None or second is None else first + second


def _scales(every: Sequence[Sequence[NDArray[np.float64] | None]], device: torch.device) -> Scales:
    """Variances from the moments of all processes: of the maps, then of each teacher's features."""
    import torch

    variances: list[NDArray[np.float64] | None] = []
    for parts in zip(*every, strict=True):
        known = [part for part in parts if part is not None]
        if not known:
            variances.append(None)
            continue
        count, total, squares = np.sum(known, axis=0)
        variances.append(np.maximum(squares / count - (total / count) ** 2, 0))
    maps, *features = variances
    return Scales(
        maps=None if maps is None else floored(torch.tensor(maps, dtype=torch.float32, device=device)),
        features=tuple(1.0 if item is None else max(float(item[0]), TINY) for item in features),
    )


def _auc(logits: NDArray[np.float32], truth: NDArray[np.bool_], output: OutputSpec) -> float | None:
    """That of the positive label for binary, otherwise the mean over the labels, as `evaluation.metrics` has it."""
    found = probabilities(logits_by_label(logits, output), output, outputs=logits.shape[1])
    columns = np.arange(truth.shape[1])
    if output.task == "binary" and output.positive is not None:
        columns = columns[[output.labels.index(output.positive)]]
    elif output.task == "multilabel":
        columns = np.flatnonzero(truth.any(axis=0) & ~truth.all(axis=0))
    if not len(columns):
        return None
    weights = np.ones((1, len(truth)))
    value = float(np.mean([weighted_auc(found[:, column], truth[:, column], weights)[0] for column in columns]))
    return value if np.isfinite(value) else None
