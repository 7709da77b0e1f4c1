"""Answers over time: smoothed while a stream runs, and one for a whole clip.

Both work on probabilities, not on logits. A frame then counts for at most one frame's worth, where in the mean of logits a single frame with a
saturated logit outvotes a hundred; a mean of distributions is a distribution; and it stands on the scale of the frozen thresholds.

With p_i the probabilities of frame i:

- mean: Σ p_i / n.
- max, and topk with k: for each label the mean of its k largest p_i (k = 1 for max; all where there are fewer than k). For a binary model the frames are
  those where the positive label is largest, and the other label is one minus it. For multiclass the labels' values are divided by their sum, so
  that they are probabilities again; that does not change which is largest. For multilabel each label stands for itself.
- exponential: Σ w_i p_i / Σ w_i with w_i = exp(−(t_n − t_i) / τ), t in frames or in seconds. This is an exponential moving average without the
  start-up bias (Kingma & Ba 2015, section 3, correct it alike).

Rules this file keeps:

1. Frames that are not assessable, late or failed are left out, and counted; time goes on over them.
2. Memory does not grow with the clip: sums, and k values a label.
3. Nothing here was through the acceptance gate, which judges frames one by one: the thresholds are those of frames.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError, nearest
from edgekit.evaluation import decision
from edgekit.schema.model_io import OutputSpec

Aggregate = Literal["mean", "max", "topk", "exponential"]
AGGREGATES: tuple[Aggregate, ...] = get_args(Aggregate)

DEFAULT_TOP_K = 5
DEFAULT_FRAMES = 10.0
"""τ of the exponential mean where none is named, in frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeConstant:
    """τ: after it, a frame counts for 1/e.

    Attributes:
        value: Above 0.
        unit: What it is counted in.
    """

    value: float
    unit: Literal["frames", "seconds"] = "frames"

    @classmethod
    def parse(cls, text: str) -> TimeConstant:
        """Reads `8` (frames) or `0.5s` (seconds).

        Raises:
            DataError: It is neither, or not above 0.
        """
        seconds = text.endswith("s")
        try:
            value = float(text[:-1] if seconds else text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value > 0):
            raise DataError(f"{text!r} is no time to smooth over", hint="a number of frames such as 8, or of seconds such as 0.5s")
        return cls(value=value, unit="seconds" if seconds else "frames")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What one frame says, and when.

    Attributes:
        probabilities: Label to probability in [0, 1].
        number: The frame's place in the stream; frames that were dropped have a place too.
        time_s: Its time in seconds, of any clock that never goes back; None where it has none.
    """

    probabilities: Mapping[str, float]
    number: int
    time_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Combined:
    """The answer of several frames.

    Attributes:
        label: As `Prediction.label`.
        probabilities: Label to combined probability.
        frames: Number of frames that are in it.
    """

    label: str | tuple[str, ...]
    probabilities: dict[str, float]
    frames: int


class Aggregator(Protocol):
    """Takes frames one by one and has an answer at any time."""

    def add(self, evidence: Evidence) -> None:
        """One more frame."""

    def values(self) -> NDArray[np.float64] | None:
        """float64 (labels,); None before the first frame."""


class Combiner:
    """Combines the frames of a clip, and counts those that are left out.

    Args:
        aggregate: How.
        output: What the model's outputs mean.
        thresholds: Label to threshold of a frame, for multilabel.
        top_k: k of topk.
        tau: τ of exponential.

    Raises:
        DataError: `aggregate` is unknown, or k is below 1.
    """

    def __init__(
        self,
        aggregate: str,
        output: OutputSpec,
        thresholds: Mapping[str, float],
        *,
        top_k: int = DEFAULT_TOP_K,
        tau: TimeConstant | None = None,
    ) -> None:
        check_aggregate(aggregate, top_k)
        self._aggregate, self._output, self._thresholds = aggregate, output, thresholds
        self._top_k, self._tau = top_k, tau or TimeConstant(value=DEFAULT_FRAMES)
        self.reset()

    def reset(self) -> None:
        """Forgets every frame."""
        self._frames = 0
        self._aggregator: Aggregator
        if self._aggregate == "mean":
            self._aggregator = _Mean(self._output)
        elif self._aggregate == "exponential":
            self._aggregator = _Exponential(self._output, self._tau)
        else:
            self._aggregator = _Largest(self._output, 1 if self._aggregate == "max" else self._top_k)

    def add(self, evidence: Evidence) -> Combined:
        """Takes one more frame; returns what all of them say together.

        Raises:
            DataError: τ is in seconds and the frame has no time.
        """
        self._aggregator.add(evidence)
        self._frames += 1
        found = self.result()
        if found is None:  # pragma: no cover - there is a frame
            raise DataError("no frame was combined")
        return found

    def result(self) -> Combined | None:
        """What the frames say together; None where there is none."""
        values = self._aggregator.values()
        if values is None:
            return None
        named = decision.answered(values, self._output, self._thresholds)
        return Combined(
            label=named if self._output.task == "multilabel" else named[0],
            probabilities=dict(zip(self._output.labels, values.tolist(), strict=True)),
            frames=self._frames,
        )


def check_aggregate(aggregate: str, top_k: int) -> None:
    """Refuses an aggregate that there is not.

    Raises:
        DataError: The name is unknown, or k is below 1.
    """
    if aggregate not in AGGREGATES:
        raise DataError(f"there is no aggregate {aggregate!r}", hint=nearest(aggregate, AGGREGATES))
    if top_k < 1:
        raise DataError(f"the k of top-k is {top_k}, which is below 1", hint="how many frames decide, for instance 5")


def _row(evidence: Evidence, output: OutputSpec) -> NDArray[np.float64]:
    return np.array([evidence.probabilities[label] for label in output.labels], dtype=np.float64)


class _Mean:
    def __init__(self, output: OutputSpec) -> None:
        self._output = output
        self._sum = np.zeros(len(output.labels))
        self._count = 0

    def add(self, evidence: Evidence) -> None:
        self._sum += _row(evidence, self._output)
        self._count += 1

    def values(self) -> NDArray[np.float64] | None:
        return self._sum / self._count if self._count else None


class _Exponential:
    """Σ w_i p_i and Σ w_i, both multiplied by exp(−Δt / τ) from frame to frame."""

    def __init__(self, output: OutputSpec, tau: TimeConstant) -> None:
        self._output, self._tau = output, tau
        self._sum = np.zeros(len(output.labels))
        self._weight = 0.0
        self._last: float | None = None

    def add(self, evidence: Evidence) -> None:
        now = evidence.time_s if self._tau.unit == "seconds" else float(evidence.number)
        if now is None:
            raise DataError(
                "this file does not say when its frames were taken, so nothing can be smoothed over seconds", hint="smooth over frames"
            )
        kept = 1.0 if self._last is None else math.exp(-max(now - self._last, 0.0) / self._tau.value)
        self._last = now
        self._sum = self._sum * kept + _row(evidence, self._output)
        self._weight = self._weight * kept + 1.0

    def values(self) -> NDArray[np.float64] | None:
        return self._sum / self._weight if self._weight else None


class _Largest:
    """The mean of the k largest values a label."""

    def __init__(self, output: OutputSpec, k: int) -> None:
        self._output, self._k = output, k
        self._kept = np.empty((0, len(output.labels)))

    def add(self, evidence: Evidence) -> None:
        rows = np.concatenate([self._kept, _row(evidence, self._output)[None]])
        self._kept = np.sort(rows, axis=0)[::-1][: self._k]

    def values(self) -> NDArray[np.float64] | None:
        if not len(self._kept):
            return None
        output, values = self._output, np.asarray(self._kept.mean(axis=0))
        if output.task == "binary" and output.positive is not None:
            positive = output.labels.index(output.positive)
            values[1 - positive] = 1 - values[positive]
        elif output.task == "multiclass":
            values = values / values.sum()
        return values
