"""The one measuring loop: a profile, a benchmark and the compiler's choice between candidates all time with it.

Rules this file keeps:

1. `time.perf_counter_ns` around the call and nothing else; preparing the next input and reading the result happen between two calls.
2. Garbage is collected before the loop and the collector then stays as the caller has it: on a device it runs, so its pauses are part of the tail.
3. Calls follow each other without a pause. The figures say what one frame costs on a busy engine, not what a frame costs after a second of idling.
4. Two things are compared only interleaved, pair by pair in an order drawn by chance, so that a machine that slows down slows both. The ratio of the
   medians has the 95 % interval of `bootstrap.py`, which draws blocks of pairs, because neighbouring latencies are alike.
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
from edgekit.profiler.bootstrap import median_ratio
from edgekit.profiler.percentiles import nearest_rank
from edgekit.profiler.warmup import steady_state

PROGRESS_INTERVAL_NS = 100_000_000
"""Progress is reported at most ten times a second; drawing it costs time and warms other caches than the call's."""

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
class Pairs:
    """Two things measured interleaved.

    Attributes:
        a: Samples of the first.
        b: Samples of the second.
        excluded: Leading pairs left out as warm-up of either.
        steady: Whether both were steady.
    """

    a: Samples
    b: Samples
    excluded: int
    steady: bool

    @property
    def settled(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """float64 (pairs,) each: milliseconds of both without the warm-up."""
        return self.a.milliseconds[self.excluded :], self.b.milliseconds[self.excluded :]

    @property
    def medians_ms(self) -> tuple[float, float]:
        """Their medians, of which the ratio is one: measured samples (nearest rank)."""
        a, b = (float(np.sort(values)[nearest_rank(values.size, 0.5) - 1]) for values in self.settled)
        return a, b


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison(Pairs):
    """Two things measured interleaved, and the ratio of their medians.

    Attributes:
        ratio: Median of a / median of b, without the warm-up.
        low: Lower end of the 95 % interval of the ratio.
        high: Upper end.
    """

    ratio: float
    low: float
    high: float


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
    found = measure_pairs(a, b, budget, seed=seed, on_progress=on_progress)
    ratio, low, high = ratio_interval(*found.settled, seed=seed)
    return Comparison(a=found.a, b=found.b, excluded=found.excluded, steady=found.steady, ratio=ratio, low=low, high=high)


def measure_pairs(
    a: Callable[[], object], b: Callable[[], object], budget: Budget, *, seed: int = 0, on_progress: Progress | None = None
) -> Pairs:
    """Times two calls interleaved; else as `measure_pair`."""
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
    took, begun = np.array(durations, np.int64), np.array(starts, np.int64)
    first_series, second_series = (Samples(durations_ns=took[:, side].copy(), starts_ns=begun[:, side].copy()) for side in (0, 1))
    verdicts = [steady_state(series.milliseconds) for series in (first_series, second_series)]
    return Pairs(
        a=first_series,
        b=second_series,
        excluded=max(verdict.excluded for verdict in verdicts),
        steady=all(verdict.steady for verdict in verdicts),
    )


def ratio_interval(a: NDArray[np.float64], b: NDArray[np.float64], *, seed: int = 0) -> tuple[float, float, float]:
    """(ratio, low, high) of median(a) / median(b) with its 95 % interval over the pairs (`bootstrap.median_ratio`).

    Args:
        a: float64 (pairs,), in the order they were measured.
        b: float64 (pairs,), measured in turn with `a`.
        seed: Of the bootstrap.

    Raises:
        EdgekitError: When the series are empty or not of one length: they were then not measured in pairs.
    """
    if a.shape != b.shape or a.size == 0:
        raise EdgekitError(f"{a.size} and {b.size} latencies are no pairs", hint="measure both interleaved, with measure_pair")
    found = median_ratio(a, b, seed=seed)
    return found.value, found.low, found.high
