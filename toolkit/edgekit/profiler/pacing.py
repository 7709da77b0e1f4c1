"""Frames that come from a clock and not when the last one is done: what a frame waits for counts.

A loop that sends the next frame when the last one was answered hides a stall: one call was slow, and the frames that a camera would have delivered
meanwhile were never asked for (coordinated omission; Tene 2013, "How NOT to measure latency"). Rules this file keeps:

1. Frame k is due at start + k / fps, whatever the frames before it do (an open loop). Its latency counts from then to its answer.
2. Frames are answered one at a time in the order they are due; none is skipped. One that waits is late by what it waited.
3. Every due frame is served or counted as not served. A run that cannot keep up ends at its limit of time; what was due by then and not begun is
   `unserved`, missed its deadline, and counts in the percentiles as a latency without end: a percentile that falls on one is not known.
4. The deadline of a frame is the moment the next one is due.
5. `live_drops` says what a live stream, which keeps only the latest frame while it works, would have dropped at these very service times.
6. Waiting is `time.sleep`, as in a program that waits for a camera: what the machine takes to wake up is a part of the latency.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import EdgekitError
from edgekit.profiler.clock import PROGRESS_INTERVAL_NS, Progress
from edgekit.profiler.percentiles import SHARES, minimum_samples, percentile

MOST_FPS = 1000.0
PATIENCE = 3.0
"""The run ends after this many times the span in which its frames were due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Time and waiting, so that a test can turn them.

    Attributes:
        now_ns: Nanoseconds that never go back.
        sleep: Waits a number of seconds.
    """

    now_ns: Callable[[], int] = time.perf_counter_ns
    sleep: Callable[[float], None] = time.sleep

    def wait_until(self, due_ns: int) -> None:
        """Returns at or after a moment; at once where it is past."""
        while (left := due_ns - self.now_ns()) > 0:
            self.sleep(left / 1e9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Paced:
    """One run, times since its start.

    Attributes:
        fps: Frames due a second.
        due_ns: int64 (served,), when each frame was due.
        starts_ns: int64 (served,), when its answer was begun.
        ends_ns: int64 (served,), when it was there.
        unserved: Frames that were due before the end and never begun.
    """

    fps: float
    due_ns: NDArray[np.int64]
    starts_ns: NDArray[np.int64]
    ends_ns: NDArray[np.int64]
    unserved: int

    @property
    def latency_ms(self) -> NDArray[np.float64]:
        """float64 (served,): from due to answered."""
        return (self.ends_ns - self.due_ns) / 1e6

    @property
    def service_ms(self) -> NDArray[np.float64]:
        """float64 (served,): from begun to answered."""
        return (self.ends_ns - self.starts_ns) / 1e6

    @property
    def wait_ms(self) -> NDArray[np.float64]:
        """float64 (served,): from due to begun; waking up and waiting for the frames before."""
        return (self.starts_ns - self.due_ns) / 1e6

    @property
    def deadline_ms(self) -> float:
        """The time between two frames."""
        return 1e3 / self.fps

    @property
    def deadline_misses(self) -> int:
        """Frames that were answered after the next one was due, or never."""
        return int((self.latency_ms > self.deadline_ms).sum()) + self.unserved

    @property
    def longest_queue(self) -> int:
        """Most frames that were due and not begun at one moment, the one about to begin included."""
        if not self.due_ns.size:
            return self.unserved
        due_by_then = np.searchsorted(self.due_ns, self.starts_ns, side="right")
        return max(int((due_by_then - np.arange(self.due_ns.size)).max()), self.unserved)

    def to_json(self) -> dict[str, Any]:
        """The part ``paced`` of a profile; the key ``unavailable`` is for the whole document's."""
        latency = figures(self.latency_ms, unserved=self.unserved)
        service = figures(self.service_ms)
        return {
            "fps": self.fps,
            "deadline_ms": self.deadline_ms,
            "due": int(self.due_ns.size) + self.unserved,
            "served": int(self.due_ns.size),
            "unserved": self.unserved,
            "deadline_misses": self.deadline_misses,
            "deadline_miss_share": self.deadline_misses / (self.due_ns.size + self.unserved),
            "longest_queue": self.longest_queue,
            "live_drops": live_drops(self.due_ns, self.service_ms) + self.unserved,
            "latency_ms": latency.values,
            "latency_intervals_ms": latency.intervals,
            "service_ms": service.values,
            "wait_ms": figures(self.wait_ms).values,
            "series": {
                name: [round(float(value), 4) for value in values]
                for name, values in (("due_s", self.due_ns / 1e9), ("latency_ms", self.latency_ms), ("service_ms", self.service_ms))
            },
            "unavailable": {f"latency_ms.{name}": why for name, why in latency.missing.items()}
            | {f"{part}.{name}": why for part in ("service_ms", "wait_ms") for name, why in service.missing.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Percentiles of a series in which some values may be without end.

    Attributes:
        values: ``{p50, p90, p95, p99, max, samples}``.
        intervals: Percentile to [low, high], None where it is not known.
        missing: Percentile (or max) to why it is not known.
    """

    values: dict[str, float | int | None]
    intervals: dict[str, list[float] | None]
    missing: dict[str, str]


def figures(milliseconds: NDArray[np.float64], *, unserved: int = 0) -> Figures:
    """Summarizes a series (rule 3).

    Args:
        milliseconds: float64 (samples,), finite, in any order.
        unserved: How many more there were that have no end.
    """
    ordered = np.concatenate([np.sort(milliseconds), np.full(unserved, np.inf)])
    values: dict[str, float | int | None] = {}
    intervals: dict[str, list[float] | None] = {}
    missing: dict[str, str] = {}
    for name, share in SHARES.items():
        found = percentile(ordered, share)
        is_known = found is not None and np.isfinite(found.high)
        values[name] = found.value if found is not None and is_known else None
        intervals[name] = [found.low, found.high] if found is not None and is_known else None
        if found is None:
            missing[name] = f"{name} needs {minimum_samples(share)} frames, there are {ordered.size}"
        elif not is_known:
            missing[name] = f"{unserved} of {ordered.size} frames were never answered, and {name} or its interval falls on one of them"
    values["max"] = float(ordered[-1]) if ordered.size and not unserved else None
    values["samples"] = int(ordered.size)
    if values["max"] is None:
        missing["max"] = f"{unserved} of {ordered.size} frames were never answered"
    return Figures(values=values, intervals=intervals, missing=missing)


def play(
    call: Callable[[], object], *, fps: float, seconds: float, clock: Clock | None = None, on_progress: Progress | None = None
) -> Paced:
    """Calls once a due frame (rules 1 to 3).

    Args:
        call: Answers one frame.
        fps: Frames a second, above 0.
        seconds: Span in which frames are due; at least one is.
        clock: Time and waiting.
        on_progress: Told the share that is done, while nothing waits.

    Raises:
        EdgekitError: When the rate is not one.
    """
    if not 0 < fps <= MOST_FPS or seconds <= 0:
        raise EdgekitError(f"frames cannot come {fps:g} times a second for {seconds:g} s", hint=f"a rate above 0, up to {MOST_FPS:g}")
    clock = clock or Clock()
    count = max(1, round(fps * seconds))
    due = np.round(np.arange(count) * (1e9 / fps)).astype(np.int64)
    starts: list[int] = []
    ends: list[int] = []
    limit = round(PATIENCE * max(seconds, 1 / fps) * 1e9)
    begin = clock.now_ns()
    told = 0
    for index in range(count):
        now = clock.now_ns() - begin
        if now >= limit:
            break
        if on_progress is not None and now < due[index] and now - told >= PROGRESS_INTERVAL_NS:
            on_progress(index / count)
            told = now
        clock.wait_until(begin + int(due[index]))
        starts.append(clock.now_ns() - begin)
        call()
        ends.append(clock.now_ns() - begin)
    if on_progress is not None:
        on_progress(1.0)
    served = len(ends)
    return Paced(
        fps=fps, due_ns=due[:served], starts_ns=np.array(starts, np.int64), ends_ns=np.array(ends, np.int64), unserved=count - served
    )


def live_drops(due_ns: NDArray[np.int64], service_ms: NDArray[np.float64]) -> int:
    """Frames that a stream which keeps only the latest one would have dropped (rule 5).

    Args:
        due_ns: int64 (frames,), ascending.
        service_ms: float64 (frames,), what each of them took; the frames that are served take these, in turn.
    """
    free, served, index = 0.0, 0, 0
    count = int(due_ns.size)
    while index < count:
        begun = max(free, float(due_ns[index]))
        # While it was busy, later frames took the place of this one.
        index = max(index, int(np.searchsorted(due_ns, begun, side="right")) - 1)
        free = begun + float(service_ms[served]) * 1e6
        served += 1
        index += 1
    return count - served
