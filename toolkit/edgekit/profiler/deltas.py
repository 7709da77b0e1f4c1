"""What the map and the overlay add to an answer, measured against the same answer without them.

Rules this file keeps:

1. With and without are called in turn on the same frame, so that a machine that slows down slows both.
2. The map is asked for through `predict(frame, explain=…)`. A graph that has the map inside computes it either way; what is saved then is small, and
   that is what this shows.
3. A median difference has a 95 % interval over the pairs (`bootstrap.paired_differences`): where it holds 0, nothing was told apart.
4. What the overlay adds is the answer and its drawing over the answer alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edgekit.profiler.bootstrap import Estimate, paired_differences, paired_ratios
from edgekit.profiler.clock import Budget, Progress, measure_pairs
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
        pairs: Number of pairs after the warm-up.
        steady: Whether both were steady.
    """

    added_ms: Estimate
    ratio: Estimate
    pairs: int
    steady: bool

    def to_json(self) -> dict[str, Any]:
        """One entry of the part ``deltas`` of a profile."""
        return {
            "added_ms": self.added_ms.value,
            "added_low_ms": self.added_ms.low,
            "added_high_ms": self.added_ms.high,
            "ratio": self.ratio.value,
            "low": self.ratio.low,
            "high": self.ratio.high,
            "pairs": self.pairs,
            "steady": self.steady,
        }


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
    found = measure_pairs(with_it, without, budget, on_progress=on_progress)
    a, b = found.settled
    median = {"p50": SHARES["p50"]}
    fewest = minimum_samples(SHARES["p50"])
    if a.size < fewest:
        return f"a median needs {fewest} pairs after the warm-up, there are {a.size}"
    return Delta(
        added_ms=paired_differences(a, b, median)["p50"],
        ratio=paired_ratios(a, b, median)["p50"],
        pairs=int(a.size),
        steady=found.steady,
    )
