"""Percentiles of latencies that say how sure they are, or say nothing.

Rules this file keeps:

1. A percentile is a latency that was really measured: the nearest-rank definition (type 1 of Hyndman & Fan 1996), the smallest sample at or
   below which at least the share p of the samples lies. Nothing is interpolated.
2. A percentile is reported only from as many samples as bound it: with 99 % confidence the second largest sample must lie at or above the true
   percentile. That is 11 samples for p50, 64 for p90, 130 for p95 and 662 for p99; 64 and 662 are the minimum query counts of MLPerf
   Inference's early stopping, which is the same bound.
3. Every percentile has a 95 % interval between two order statistics, from the binomial distribution: no assumption about the shape of the
   latencies (David & Nagaraja 2003, Order Statistics, section 7.1).

Does not prove that the samples are independent: latencies of a busy machine come in bursts, and then the interval is too narrow. The
steady-state verdict (`warmup.py`) is there for that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import EdgekitError

SHARES: dict[str, float] = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}
"""The percentiles a profile reports."""

INTERVAL_CONFIDENCE = 0.95
BOUND_CONFIDENCE = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentile:
    """A percentile with its 95 % order-statistic interval, all three of them measured samples."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Percentiles of one series of latencies in milliseconds.

    Attributes:
        p50: Median; None below 11 samples.
        p90: None below 64 samples.
        p95: None below 130 samples.
        p99: None below 662 samples.
        max: Largest sample.
        samples: Number of samples the figures are made of.
    """

    p50: Percentile | None
    p90: Percentile | None
    p95: Percentile | None
    p99: Percentile | None
    max: float
    samples: int

    def percentile(self, name: str) -> Percentile | None:
        """The percentile called ``"p50"``, ``"p90"``, ``"p95"`` or ``"p99"``."""
        found: Percentile | None = getattr(self, name)
        return found

    def figures(self) -> dict[str, float | int | None]:
        """``{p50, p90, p95, p99, max, samples}``, JSON-ready; a percentile that is not known is None."""
        values: dict[str, float | int | None] = {}
        for name in SHARES:
            found = self.percentile(name)
            values[name] = None if found is None else found.value
        return {**values, "max": self.max, "samples": self.samples}

    def intervals(self) -> dict[str, list[float] | None]:
        """``{p50: [low, high], …}``, JSON-ready; None where the percentile is."""
        found = {name: self.percentile(name) for name in SHARES}
        return {name: None if percentile is None else [percentile.low, percentile.high] for name, percentile in found.items()}

    def missing(self) -> dict[str, str]:
        """Percentile name to the reason why it is not reported."""
        return {
            name: f"{name} needs {minimum_samples(share)} samples after the warm-up, there are {self.samples}"
            for name, share in SHARES.items()
            if self.percentile(name) is None
        }


def latency(milliseconds: NDArray[np.float64]) -> Latency:
    """Summarizes one series.

    Args:
        milliseconds: float64 (samples,), in any order, warm-up already excluded.

    Raises:
        EdgekitError: When there is no sample, or one is not a number.
    """
    if milliseconds.size == 0 or not np.isfinite(milliseconds).all():
        raise EdgekitError("no percentile of an empty series or of values that are not numbers", hint="measure for longer")
    ordered = np.sort(milliseconds.astype(np.float64))
    found = {name: percentile(ordered, share) for name, share in SHARES.items()}
    return Latency(**found, max=float(ordered[-1]), samples=int(ordered.size))


def percentile(ordered: NDArray[np.float64], share: float) -> Percentile | None:
    """Nearest-rank percentile of sorted samples with its 95 % interval, or None when there are too few (rule 2).

    Args:
        ordered: float64 (samples,), ascending.
        share: The percentile as a share, between 0 and 1, both excluded.
    """
    count = int(ordered.size)
    if count < minimum_samples(share):
        return None
    low, high = interval_ranks(count, share)
    return Percentile(value=float(ordered[nearest_rank(count, share) - 1]), low=float(ordered[low - 1]), high=float(ordered[high - 1]))


def nearest_rank(count: int, share: float) -> int:
    """1-based rank of the percentile among `count` samples: ⌈count · share⌉, at least 1."""
    # 0.07 · 100 is 7.000000000000001 in binary: without the rounding the rank would be one too high.
    return max(1, math.ceil(round(count * share, 9)))


@lru_cache(maxsize=64)
def minimum_samples(share: float) -> int:
    """Fewest samples a percentile is reported from.

    The number of samples above the true percentile is binomial with probability 1 − share. The second largest sample bounds the percentile
    unless at most one sample lies above it: shareⁿ + n (1 − share) shareⁿ⁻¹ ≤ 1 − 0.99 (MLPerf Inference rules, early stopping).
    """
    count = 2
    while share**count + count * (1 - share) * share ** (count - 1) > 1 - BOUND_CONFIDENCE:
        count += 1
    return count


def interval_ranks(count: int, share: float) -> tuple[int, int]:
    """1-based ranks (low, high) between which the true percentile lies with at least 95 % confidence, at most 2.5 % missing on each side.

    Args:
        count: Number of samples, at least `minimum_samples(share)`; fewer have no finite interval.
        share: The percentile as a share.
    """
    tail = (1 - INTERVAL_CONFIDENCE) / 2
    cumulative = _binomial_cdf(count, share)
    # X₍l₎ ≤ q fails when fewer than l samples lie below q, X₍u₎ ≥ q when u or more do.
    low = int(np.searchsorted(cumulative, tail, side="right"))
    high = int(np.searchsorted(cumulative, 1 - tail, side="left")) + 1
    return max(low, 1), min(high, count)


def _binomial_cdf(count: int, share: float) -> NDArray[np.float64]:
    # In logarithms: the factorials of a few thousand samples overflow a float.
    factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])
    k = np.arange(count + 1)
    log_mass = factorial[count] - factorial[k] - factorial[count - k] + k * math.log(share) + (count - k) * math.log1p(-share)
    cumulative: NDArray[np.float64] = np.minimum(np.cumsum(np.exp(log_mass)), 1.0)
    return cumulative
