"""Finds where the warm-up of a series of latencies ends, and whether what follows is steady.

A fixed number of warm-up calls is wrong on every machine but one. The truncation point is found on the series itself with MSER-5 (White 1997, "An
effective truncation heuristic for bias reduction in simulation output"; White, Cobb & Spratt 2000), made robust:

1. The series is cut into batches of five; a batch is its *median*, not its mean, so that one preempted call in five cannot move it.
2. The scatter σ is robust, 1.4826 · MAD of the second half of the batches, plus (in squares) a floor σ₀ of 1 % of the median: on a quiet machine a
   drift of a thousandth is significant, and still no warm-up. Batches are clipped to the median ± 3 σ, so that a burst in the middle does not
   look like the end of a warm-up.
3. The truncation point d minimizes (Σᵢ₍≥d₎ (zᵢ − z̄)² + n σ₀²) / n² with n = m − d, over the first half of the m batches; the
   smallest d within 5/m of the minimum wins, for a batch of pure noise moves the minimum by about 1/m, and one at the clip of rule 2 by 7/m. A
   truncation of more than a third of the series means that no steady part was reached.
4. Batches hide a single slow first call, so leading calls further than 6 σ from the median are excluded too.

A *faster* beginning (a burst before thermal throttling) is excluded like a slower one: what a device in use shows is what comes after.

The steady-state verdict is the part MSER cannot give. The rest is cut into three windows (as perf_analyzer does): their medians must agree within
5 %, and the robust coefficient of variation of its calls, 1.4826 · MAD / median, at most 10 %: a median can stand still on a machine that other
programs share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BATCH = 5
"""Samples a batch; the 5 of MSER-5."""

CLIP_SIGMAS = 3.0
OUTLIER_SIGMAS = 6.0
MAD_TO_SIGMA = 1.4826
"""MAD of a normal distribution times this is its standard deviation."""

FLOOR = 0.01
"""σ₀ as a share of the median: differences of about this size are never a warm-up."""

NOISE_GAIN = 5.0
"""Times 1/m: how far below the others, relatively, noise may push the smallest statistic."""

SEARCHED_SHARE = 0.5
"""Share of the series in which the end of the warm-up is looked for."""

UNRESOLVED_SHARE = 1 / 3
"""A longer warm-up than this share of the series cannot be told from a drift."""

WINDOWS = 3
WINDOW_TOLERANCE = 0.05
VARIATION_LIMIT = 0.10
FEWEST_STEADY_SAMPLES = 33
"""Eleven samples a window: the fewest a median is reported from (`percentiles.py`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SteadyState:
    """Where a series became steady, if it did.

    Attributes:
        excluded: Leading samples to leave out as warm-up.
        steady: Whether the rest is steady.
        reason: Why it is not; empty where it is.
        window_medians: Medians of the three windows of the rest, in the unit of the series; empty when there are too few samples.
        variation: 1.4826 · MAD / median of the rest; None when there are too few samples.
    """

    excluded: int
    steady: bool
    reason: str
    window_medians: tuple[float, ...]
    variation: float | None


def steady_state(series: NDArray[np.float64]) -> SteadyState:
    """Finds the warm-up of a series and judges the rest.

    Args:
        series: float64 (samples,), latencies above 0 in the order they were measured.

    Returns:
        The samples to exclude and the verdict. A series too short to judge is not steady, and the reason says so.
    """
    if series.size < FEWEST_STEADY_SAMPLES:
        return _too_few(0, int(series.size))
    excluded = _truncation(series)
    rest = series[excluded:]
    if rest.size < FEWEST_STEADY_SAMPLES:
        return _too_few(excluded, int(rest.size))
    medians = tuple(float(np.median(window)) for window in np.array_split(rest, WINDOWS))
    variation = _scatter(rest) / float(np.median(rest))
    if excluded > UNRESOLVED_SHARE * series.size:
        reason = "the warm-up takes more than a third of the measurement, or the latency drifts"
    else:
        reason = _unsteadiness(medians, variation)
    return SteadyState(excluded=excluded, steady=not reason, reason=reason, window_medians=medians, variation=variation)


def _truncation(series: NDArray[np.float64]) -> int:
    batches = _batch_medians(series)
    reference = batches[batches.size // 2 :]
    centre = float(np.median(reference))
    floor = FLOOR * centre
    band = CLIP_SIGMAS * float(np.hypot(_scatter(reference), floor))
    cut = _mser(np.clip(batches - centre, -band, band), floor) * BATCH
    # Single calls scatter more than batches of five do.
    single_band = OUTLIER_SIGMAS * float(np.hypot(_scatter(series[series.size // 2 :]), floor))
    outside = np.abs(series[cut : cut + BATCH] - centre) > single_band
    return cut + (int(np.argmin(outside)) if not outside.all() else BATCH)


def _mser(batches: NDArray[np.float64], floor: float) -> int:
    # Sums over the tail for every truncation point at once; the batches are centred, so nothing cancels.
    remaining = np.arange(batches.size, 0, -1)
    sums, squares = np.cumsum(batches[::-1])[::-1], np.cumsum(batches[::-1] ** 2)[::-1]
    statistic = (squares - sums**2 / remaining + remaining * floor**2) / remaining**2
    searched = statistic[: int(batches.size * SEARCHED_SHARE) + 1]
    return int(np.argmax(searched <= searched.min() * (1 + NOISE_GAIN / batches.size)))


def _batch_medians(series: NDArray[np.float64]) -> NDArray[np.float64]:
    whole = series.size // BATCH * BATCH
    medians: NDArray[np.float64] = np.median(series[:whole].reshape(-1, BATCH), axis=1)
    return medians


def _scatter(values: NDArray[np.float64]) -> float:
    return MAD_TO_SIGMA * float(np.median(np.abs(values - np.median(values))))


def _unsteadiness(medians: tuple[float, ...], variation: float) -> str:
    reasons = []
    spread = (max(medians) - min(medians)) / float(np.median(medians))
    if spread > WINDOW_TOLERANCE:
        listed = ", ".join(f"{median:.3g}" for median in medians)
        reasons.append(f"the medians of the three windows ({listed} ms) differ by {spread:.1%}, more than {WINDOW_TOLERANCE:.0%}")
    if variation > VARIATION_LIMIT:
        reasons.append(f"latencies vary by {variation:.1%} around their median, more than {VARIATION_LIMIT:.0%}")
    return "; ".join(reasons)


def _too_few(excluded: int, left: int) -> SteadyState:
    reason = f"{left} samples after the warm-up are too few to judge; {FEWEST_STEADY_SAMPLES} are needed"
    return SteadyState(excluded=excluded, steady=False, reason=reason, window_medians=(), variation=None)
