"""The one measuring loop: a profile, a benchmark and the compiler's choice between candidates all time with it.

Rules this file keeps:

1. `time.perf_counter_ns` around the call and nothing else; preparing the next input and reading the result happen between two calls.
2. Garbage is collected before the loop and the collector then stays as the caller has it: on a device it runs, so its pauses are part of the tail.
3. Calls follow each other without a pause. The figures say what one frame costs on a busy engine, not what a frame costs after a second of idling.
4. Two things are compared only interleaved, pair by pair in an order drawn by chance, so that a machine that slows down slows both. The ratio of the
   medians has a 95 % interval from a circular block bootstrap of the pairs (Politis & Romano 1992): neighbouring latencies are alike, and
   drawing them one by one would make the interval too narrow.
"""

from __future__ import annotations

import gc
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import EdgekitError
from edgekit.profiler.warmup import SteadyState, steady_state

PROGRESS_INTERVAL_NS = 100_000_000
"""Progress is reported at most ten times a second; drawing it costs time and warms other caches than the call's."""

RESAMPLES = 2000

Progress = Callable[[float], None]
"""Takes the share of the work that is done, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How long to measure: at least `seconds` and `min_samples`, at most `max_seconds`, always one sample.

    Attributes:
        seconds: Shortest duration of the loop.
        min_samples: Fewest samples, as far as `max_seconds` allows.
        max_seconds: The loop starts no further call after this.
    """

    seconds: float
    min_samples: int = 1
    max_seconds: float = 600.0

    def __post_init__(self) -> None:
        if not 0 <= self.seconds <= self.max_seconds or self.min_samples < 1:
            raise EdgekitError(
                f"cannot measure for {self.seconds} s with at least {self.min_samples} samples within {self.max_seconds} s",
                hint="seconds must be between 0 and max_seconds, min_samples at least 1",
            )

    def progress(self, elapsed_s: float, samples: int) -> float:
        """Share of the work that is done, 0 to 1; 1 means stop."""
        time_share = elapsed_s / self.seconds if self.seconds > 0 else 1.0
        wanted = min(time_share, samples / self.min_samples)
        return min(1.0, max(wanted, elapsed_s / self.max_seconds if self.max_seconds > 0 else 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """A series of measured calls.

    Attributes:
        durations_ns: int64 (samples,), in the order they were measured.
        starts_ns: int64 (samples,), start of each call since the start of the loop.
    """

    durations_ns: NDArray[np.int64]
    starts_ns: NDArray[np.int64]

    @property
    def milliseconds(self) -> NDArray[np.float64]:
        """float64 (samples,): the durations in milliseconds."""
        return self.durations_ns / 1e6

    @property
    def start_seconds(self) -> NDArray[np.float64]:
        """float64 (samples,): the starts in seconds."""
        return self.starts_ns / 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two things measured interleaved.

    Attributes:
        a: Samples of the first.
        b: Samples of the second.
        excluded: Leading pairs left out as warm-up of either.
        ratio: Median of a / median of b, without the warm-up.
        low: Lower end of the 95 % interval of the ratio.
        high: Upper end.
        steady: Whether both were steady.
    """

    a: Samples
    b: Samples
    excluded: int
    ratio: float
    low: float
    high: float
    steady: bool


def measure(
    call: Callable[[], object],
    budget: Budget,
    *,
    before: Callable[[], object] | None = None,
    after: Callable[[], object] | None = None,
    on_progress: Progress | None = None,
) -> Samples:
    """Times a call again and again.

    Args:
        call: What is timed.
        budget: When to stop.
        before: Called before each call, outside the clock.
        after: Called after each call, outside the clock.
        on_progress: Told how far the loop is, at most ten times a second and once at the end.
    """
    gc.collect()
    # Eight bytes a sample: lists of numbers would look like a leak of what is measured.
    durations, starts = array("q"), array("q")
    clock = time.perf_counter_ns
    begin = reported = clock()
    done = 0.0
    while done < 1.0:
        if before is not None:
            before()
        start = clock()
        call()
        end = clock()
        durations.append(end - start)
        starts.append(start - begin)
        if after is not None:
            after()
        now = clock()
        done = budget.progress((now - begin) / 1e9, len(durations))
        if on_progress is not None and (done >= 1.0 or now - reported >= PROGRESS_INTERVAL_NS):
            on_progress(done)
            reported = clock()
    return Samples(durations_ns=np.array(durations, np.int64), starts_ns=np.array(starts, np.int64))


def measure_pair(
    a: Callable[[], object], b: Callable[[], object], budget: Budget, *, seed: int = 0, on_progress: Progress | None = None
) -> Comparison:
    """Times two calls interleaved and gives the ratio of their medians, a / b.

    Args:
        a: The first; a ratio above 1 means it is slower.
        b: The second.
        budget: When to stop; `min_samples` counts pairs.
        seed: Of the bootstrap and of the order.
        on_progress: As in `measure`.
    """
    durations: list[tuple[int, int]] = []
    starts: list[tuple[int, int]] = []
    gc.collect()
    clock = time.perf_counter_ns
    order = np.random.default_rng(seed)
    a_first = False
    begin = reported = clock()
    done = 0.0
    while done < 1.0:
        # In each two pairs either is first once. Which one is drawn, so that a rhythm of the machine cannot fall in with ours.
        a_first = bool(order.integers(2)) if len(durations) % 2 == 0 else not a_first
        t0 = clock()
        (a if a_first else b)()
        t1 = clock()
        (b if a_first else a)()
        t2 = clock()
        first, second = (t0 - begin, t1 - t0), (t1 - begin, t2 - t1)
        (start_a, took_a), (start_b, took_b) = (first, second) if a_first else (second, first)
        durations.append((took_a, took_b))
        starts.append((start_a, start_b))
        done = budget.progress((t2 - begin) / 1e9, len(durations))
        if on_progress is not None and (done >= 1.0 or t2 - reported >= PROGRESS_INTERVAL_NS):
            on_progress(done)
            reported = clock()
    return _compare(np.array(durations, np.int64), np.array(starts, np.int64), seed)


def ratio_interval(a: NDArray[np.float64], b: NDArray[np.float64], *, seed: int = 0) -> tuple[float, float, float]:
    """(ratio, low, high) of median(a) / median(b) with a 95 % circular block bootstrap interval over the pairs.

    Args:
        a: float64 (pairs,), in the order they were measured.
        b: float64 (pairs,), measured in turn with `a`.
        seed: Of the bootstrap.

    Raises:
        EdgekitError: When the series are empty or not of one length: they were then not measured in pairs.
    """
    if a.shape != b.shape or a.size == 0:
        raise EdgekitError(f"{a.size} and {b.size} latencies are no pairs", hint="measure both interleaved, with measure_pair")
    count = a.size
    block = max(1, round(count ** (1 / 3)))
    blocks = -(-count // block)
    generator = np.random.default_rng(seed)
    ratios = np.empty(RESAMPLES)
    for index in range(RESAMPLES):
        first = generator.integers(0, count, size=(blocks, 1))
        drawn = ((first + np.arange(block)) % count).ravel()[:count]
        ratios[index] = np.median(a[drawn]) / np.median(b[drawn])
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(np.median(a) / np.median(b)), float(low), float(high)


def _compare(durations: NDArray[np.int64], starts: NDArray[np.int64], seed: int) -> Comparison:
    series_a, series_b = (Samples(durations_ns=durations[:, column].copy(), starts_ns=starts[:, column].copy()) for column in (0, 1))
    verdicts: list[SteadyState] = [steady_state(series.milliseconds) for series in (series_a, series_b)]
    excluded = max(verdict.excluded for verdict in verdicts)
    ratio, low, high = ratio_interval(series_a.milliseconds[excluded:], series_b.milliseconds[excluded:], seed=seed)
    steady = all(verdict.steady for verdict in verdicts)
    return Comparison(a=series_a, b=series_b, excluded=excluded, ratio=ratio, low=low, high=high, steady=steady)
