"""`--compare OTHER`: two bundles in one process, on the same frames, call by call.

Rules this file keeps:

1. Both answer the same frame right after each other. Who is first is drawn by chance, each as often as the other (in twos): a rhythm of the machine
   can then not fall in with a rhythm of ours.
2. What slows the machine down slows both. What must hold still is therefore their ratio: the medians of the three thirds of ln(candidate / other) must
   agree within 5 %, or within what the scatter that the interval shows explains (the range of three normal medians of a third of the pairs each, 95 %
   point), else the comparison is not judged. Either series alone may drift.
3. The ratios are candidate / other: above 1, the candidate is slower. Margins and what "not distinguishable" needs are in `verdict.py`.
4. Warm-up of either is left out of both.

Each finds the caches as the other left them, so latencies here may be above those of a bundle alone; the ratio is of two that suffer alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.profiler.bootstrap import paired_ratios
from edgekit.profiler.clock import Budget, Progress, Samples, measure_pairs
from edgekit.profiler.percentiles import latency
from edgekit.profiler.stages import Frame, Predictor, in_turn
from edgekit.profiler.verdict import DECIDING, Margins, Verdict, judge, not_judged

MARGINS = Margins(slower={"p50": 0.02, "p90": 0.05, "p99": 0.10}, blind={"p50": 0.10, "p90": 0.20, "p99": 0.50})
FEWEST_PAIRS = 100
WANTED_PAIRS = 800
"""As many as p99 needs, and a warm-up."""

TOLERANCE = 0.05
"""How far the thirds of the ratio may differ."""

_INTERVAL_SIGMAS = 2 * 1.96
_RANGE_OF_THREE = 3.314
"""95 % point of the range of three standard normal values (studentized range with known variance)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One comparison.

    Attributes:
        candidate: Calls of the bundle that is profiled.
        other: Calls of the one it is compared with, in the same order.
        excluded: Leading pairs left out.
        verdict: What can be said.
    """

    candidate: Samples
    other: Samples
    excluded: int
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        """The part ``compare`` of a profile, without the other bundle's facts."""
        kept = self._kept()
        return {
            "pairs": int(kept["candidate"].size),
            "excluded": self.excluded,
            "latency_ms": {name: latency(values).figures() if values.size else None for name, values in kept.items()},
            **self.verdict.to_json(),
        }

    def missing(self) -> dict[str, str]:
        """Path of a figure of `to_json` that is null because of too few pairs, to the reason."""
        kept = self._kept().items()
        return {f"latency_ms.{name}.{one}": why for name, values in kept if values.size for one, why in latency(values).missing().items()}

    def _kept(self) -> dict[str, NDArray[np.float64]]:
        return {name: samples.milliseconds[self.excluded :] for name, samples in (("candidate", self.candidate), ("other", self.other))}


def compare_bundles(
    candidate: Predictor, other: Predictor, frames: Sequence[Frame], *, seconds: float, on_progress: Progress | None = None
) -> Compared:
    """Measures two classifiers against each other.

    Args:
        candidate: The one in question.
        other: What it is compared with.
        frames: Frames in memory; they take turns, both answer the same one.
        seconds: How long; up to three times as long where that gives 800 pairs.
        on_progress: Told how far it is.

    Raises:
        DataError: When there is no frame.
    """
    budget = Budget(seconds=seconds, min_samples=WANTED_PAIRS, max_seconds=3 * seconds)
    # Each has a turn of its own, so that both see the frames in the same order.
    calls = [in_turn(predictor, frames) for predictor in (candidate, other)]
    found = measure_pairs(calls[0], calls[1], budget, on_progress=on_progress)
    verdict = judge_pairs(*found.settled)
    return Compared(candidate=found.a, other=found.b, excluded=found.excluded, verdict=verdict)


def judge_pairs(candidate: NDArray[np.float64], other: NDArray[np.float64], *, seed: int = 0, resamples: int = 2000) -> Verdict:
    """What latencies that were measured in pairs say.

    Args:
        candidate: float64 (pairs,), in milliseconds, warm-up left out.
        other: float64 (pairs,).
        seed: Of the bootstrap.
        resamples: Of the bootstrap.
    """
    if candidate.size < FEWEST_PAIRS:
        return not_judged(f"{candidate.size} pairs after the warm-up are too few, {FEWEST_PAIRS} are needed", MARGINS)
    ratios = paired_ratios(candidate, other, DECIDING, seed=seed, resamples=resamples)
    thirds = [float(np.median(part)) for part in np.array_split(np.log(candidate / other), 3)]
    scatter = math.log(ratios["p50"].high / ratios["p50"].low) / _INTERVAL_SIGMAS
    allowed = max(math.log1p(TOLERANCE), _RANGE_OF_THREE * math.sqrt(3) * scatter)
    spread = max(thirds) - min(thirds)
    if spread > allowed:
        told = f"its medians over the three thirds differ by {math.expm1(spread):.1%}, more than {math.expm1(allowed):.1%}"
        return not_judged(f"the ratio is not steady: {told}", MARGINS, ratios)
    return judge(ratios, MARGINS, int(candidate.size))
