"""What the map and the overlay add to an answer, measured against the same answer without them.

Rules this file keeps:

1. With and without are called in turn on the same frame, so that a machine that slows down slows both.
2. The map is asked for through `predict(frame, explain=…)`. A graph that has the map inside computes it either way; what is saved then is small, and
   that is what this shows.
3. What the overlay adds is the answer and its drawing over the answer alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edgekit.profiler.clock import Budget, Comparison, Progress, measure_pair
from edgekit.profiler.percentiles import SHARES, minimum_samples
from edgekit.profiler.stages import Answer, Frame

NAMES = ("cam", "overlay")


class Explainer(Protocol):
    """What a delta needs of a classifier."""

    def predict(self, frame: Frame, *, explain: bool = True, gate: bool = True) -> Answer:
        """Answers one frame, with or without a map, and without a gate whatever it shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What one thing adds.

    Attributes:
        added_ms: Median with it less median without it.
        ratio: Median with it over median without it.
        low: Lower end of the 95 % interval of the ratio.
        high: Upper end.
        pairs: Number of pairs after the warm-up.
        steady: Whether both were steady.
    """

    added_ms: float
    ratio: float
    low: float
    high: float
    pairs: int
    steady: bool

    def to_json(self) -> dict[str, Any]:
        """One entry of the part ``deltas`` of a profile."""
        return {name: getattr(self, name) for name in ("added_ms", "ratio", "low", "high", "pairs", "steady")}


def measure_cam(classifier: Explainer, frames: Sequence[Frame], budget: Budget, *, on_progress: Progress | None = None) -> Delta | str:
    """What the map adds; the reason where there were too few pairs."""
    with_turns, without_turns = itertools.cycle(frames), itertools.cycle(frames)
    return _measured(
        lambda: classifier.predict(next(with_turns), gate=False),
        lambda: classifier.predict(next(without_turns), explain=False, gate=False),
        budget,
        on_progress,
    )


def measure_overlay(classifier: Explainer, frames: Sequence[Frame], budget: Budget, *, on_progress: Progress | None = None) -> Delta | str:
    """What drawing the map over the frame adds; the reason where there were too few pairs."""
    with_turns, without_turns = itertools.cycle(frames), itertools.cycle(frames)
    return _measured(
        lambda: classifier.predict(next(with_turns), gate=False).overlay(),
        lambda: classifier.predict(next(without_turns), gate=False),
        budget,
        on_progress,
    )


def _measured(with_it: Callable[[], object], without: Callable[[], object], budget: Budget, on_progress: Progress | None) -> Delta | str:
    found: Comparison = measure_pair(with_it, without, budget, on_progress=on_progress)
    a, b = (samples.milliseconds[found.excluded :] for samples in (found.a, found.b))
    fewest = minimum_samples(SHARES["p50"])
    if a.size < fewest:
        return f"a median needs {fewest} pairs after the warm-up, there are {a.size}"
    return Delta(
        added_ms=float(np.median(a) - np.median(b)),
        ratio=found.ratio,
        low=found.low,
        high=found.high,
        pairs=int(a.size),
        steady=found.steady,
    )
