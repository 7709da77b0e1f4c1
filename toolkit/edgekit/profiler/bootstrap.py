"""Ratios and differences of percentiles of two series of latencies, with intervals that know that neighbouring latencies are alike.

Rules this file keeps:

1. Percentiles are nearest-rank, as everywhere (`percentiles.py`), and only of as many samples as bound them.
2. The interval is a percentile interval of the circular block bootstrap (Politis & Romano 1992). Series that were measured in pairs are drawn in pairs:
   what slowed both at one moment cancels. Series that were measured apart are drawn apart.
3. The length of a block is chosen by the data (Politis & White 2004, "Automatic block-length selection for the dependent bootstrap", with the correction
   of Patton, Politis & White 2009), on the series whose mean the ratio follows to first order: for a pair, the difference of whether either is above its
   percentile. It is never below n^(1/3), and the longest one of the percentiles asked for counts for all.

Does not prove that another run would lie in the interval: what differs from start to start of a process (where memory lies, which cores) is in no series.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.profiler.percentiles import minimum_samples, nearest_rank

RESAMPLES = 2000
FEWEST_RESAMPLES = 400
MOST_DRAWN = 4e7
"""Values drawn in all: beyond it a long series is drawn less often, down to `FEWEST_RESAMPLES`; minutes of a small model are 100 000 pairs."""

CONFIDENCE = 0.95

_Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A ratio or a difference of two percentiles with its 95 % interval."""

    value: float
    low: float
    high: float


def paired_ratios(a: _Values, b: _Values, shares: Mapping[str, float], *, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Estimate]:
    """Percentile(a) / percentile(b) of series measured in turn.

    Args:
        a: float64 (pairs,), in the order they were measured.
        b: float64 (pairs,), likewise.
        shares: Name to the share of the percentile; names whose share needs more samples are missing in the answer.
        seed: Of the bootstrap.
        resamples: How often is drawn, at most.
    """
    asked = _bounded(shares, a.size)
    return _over_pairs(a, b, asked, np.divide, _Draws(seed=seed, resamples=resamples)) if asked else {}


def paired_differences(
    a: _Values, b: _Values, shares: Mapping[str, float], *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Estimate]:
    """Percentile(a) − percentile(b), in the unit of the series; else as `paired_ratios`."""
    asked = _bounded(shares, a.size)
    return _over_pairs(a, b, asked, np.subtract, _Draws(seed=seed, resamples=resamples)) if asked else {}


def median_ratio(a: _Values, b: _Values, *, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """Median(a) / median(b) of series measured in turn, of however few pairs; one at least."""
    return _over_pairs(a, b, {"p50": 0.5}, np.divide, _Draws(seed=seed, resamples=resamples))["p50"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draws:
    seed: int
    resamples: int


def _over_pairs(
    a: _Values, b: _Values, asked: Mapping[str, float], combine: Callable[[_Values, _Values], _Values], draws: _Draws
) -> dict[str, Estimate]:
    block = max(_block_length(_above(a, share) - _above(b, share)) for share in asked.values())
    generator = np.random.default_rng(draws.seed)
    drawn = np.empty((_affordable(draws.resamples, a.size), len(asked)))
    for index in range(len(drawn)):
        places = _circular(generator, a.size, block)
        drawn[index] = combine(_percentiles(a[places], asked), _percentiles(b[places], asked))
    return _estimates(combine(_percentiles(a, asked), _percentiles(b, asked)), drawn, asked)


def separate_ratios(
    a: _Values, b: _Values, shares: Mapping[str, float], *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Estimate]:
    """Percentile(a) / percentile(b) of series measured apart, of any lengths; else as `paired_ratios`."""
    asked = _bounded(shares, min(a.size, b.size))
    if not asked:
        return {}
    generator = np.random.default_rng(seed)
    times = _affordable(resamples, a.size + b.size)
    sides = []
    for series in (a, b):
        block = max(_block_length(_above(series, share)) for share in asked.values())
        sides.append(np.array([_percentiles(series[_circular(generator, series.size, block)], asked) for _ in range(times)]))
    return _estimates(_percentiles(a, asked) / _percentiles(b, asked), sides[0] / sides[1], asked)


def _block_length(series: _Values) -> int:
    """Length of the blocks for the mean of a series (rule 3)."""
    count = int(series.size)
    least: int = max(1, round(float(count) ** (1 / 3)))
    most = max(least, math.ceil(min(3 * math.sqrt(count), count / 3)))
    centred = series - series.mean()
    variance = float(centred @ centred) / count
    if variance <= 0:
        return least
    quiet = max(5, math.ceil(math.sqrt(math.log10(count))))
    furthest = min(math.ceil(math.sqrt(count)) + quiet, count - 1)
    covariances = np.array([float(centred[: count - lag] @ centred[lag:]) / count for lag in range(furthest + 1)])
    band = 2 * math.sqrt(math.log10(count) / count) * variance
    loud = np.flatnonzero(np.abs(covariances[1:]) >= band) + 1
    # The first lag after which `quiet` lags in a row are noise.
    last = next((int(lag) for lag in (0, *loud) if not ((loud > lag) & (loud <= lag + quiet)).any()), furthest)
    window = min(2 * max(last, 1), furthest)
    lags = np.arange(1, window + 1)
    weights = np.minimum(1.0, 2 * (1 - lags / window)) if window > 1 else np.ones(1)
    weights = np.maximum(weights, 0.0)
    spectrum = covariances[0] + 2 * float(weights @ covariances[1 : window + 1])
    slope = 2 * float(weights @ (lags * covariances[1 : window + 1]))
    if spectrum <= 0:
        return least
    best = float(count * 2 * slope**2 / (4 / 3 * spectrum**2)) ** (1 / 3)
    return int(min(max(math.ceil(best), least), most))


def _affordable(resamples: int, count: int) -> int:
    return min(resamples, max(FEWEST_RESAMPLES, round(MOST_DRAWN / count)))


def _bounded(shares: Mapping[str, float], count: int) -> dict[str, float]:
    return {name: share for name, share in shares.items() if count >= minimum_samples(share)}


def _above(series: _Values, share: float) -> _Values:
    found: _Values = (series > _percentiles(series, {"": share})[0]).astype(np.float64)
    return found


def _percentiles(series: _Values, shares: Mapping[str, float]) -> _Values:
    ranks = [nearest_rank(series.size, share) - 1 for share in shares.values()]
    found: _Values = np.partition(series, ranks)[ranks]
    return found


def _circular(generator: np.random.Generator, count: int, block: int) -> NDArray[np.int64]:
    first = generator.integers(0, count, size=(-(-count // block), 1))
    places: NDArray[np.int64] = ((first + np.arange(block)) % count).ravel()[:count]
    return places


def _estimates(values: _Values, drawn: _Values, shares: Mapping[str, float]) -> dict[str, Estimate]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    return {name: Estimate(value=float(values[index]), low=float(low[index]), high=float(high[index])) for index, name in enumerate(shares)}
