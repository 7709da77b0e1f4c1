"""Frames that come from a clock and not when the last one is done: what a frame waits for counts.

A loop that sends the next frame when the last one was answered hides a stall: one call was slow, and the frames that a camera would have delivered
meanwhile were never asked for (coordinated omission; Tene 2013, "How NOT to measure latency"). Rules this file keeps:

1. Frame k is due at start + k / fps, whatever the frames before it do (an open loop). Its latency counts from then to its answer.
2. Frames are answered one at a time in the order they are due; none is skipped. One that waits is late by what it waited.
3. Every due frame is served or counted as not served. A run that cannot keep up ends at its limit of time; what was due by then and not begun is
   `unserved`, missed its deadline, and counts in the percentiles as a latency (and a wait) without end: a percentile that falls on one is null, and
   `without_end` names it, because it is above every limit.
4. The deadline of a frame is the moment the next one is due.
5. `live_drops` says what a live stream, which keeps only the latest frame while it works, would have dropped of all due frames at these service times.
6. Waiting is `time.sleep`, as in a program that waits for a camera: what the machine takes to wake up is a part of the latency.
7. What is done while the loop waits (a reading of the watch, progress) is told how long that is, and is itself in no latency where it keeps to it.

The 95 % intervals take frames as independent (`percentiles.py`). Frames that wait for each other are not: where a stall delays ten, these ten are one
event, and the intervals are too narrow.
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
SLACK_NS = 5_000_000
"""Progress is drawn only where the next frame is at least this far away."""

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


def _nothing(_told: float) -> None:
    """Where nobody listens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside:
    """What is done while no frame waits.

    Attributes:
        look: Called before each frame that is not yet due, with the nanoseconds until then.
        on_progress: Told the share that is done, where there is time to draw it, 0 before the first frame and 1 after the last.
    """

    look: Callable[[int], object] = _nothing
    on_progress: Progress = _nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Paced:
    """One run, times since its start.

    Attributes:
        fps: Frames due a second.
        due_ns: int64 (due,), when each frame was due; those that were never begun are the last ones.
        starts_ns: int64 (served,), when its answer was begun.
        ends_ns: int64 (served,), when it was there.
    """

    fps: float
    due_ns: NDArray[np.int64]
    starts_ns: NDArray[np.int64]
    ends_ns: NDArray[np.int64]

    @property
    def served(self) -> int:
        """Frames that were answered."""
        return int(self.ends_ns.size)

    @property
    def unserved(self) -> int:
        """Frames that were due before the end and never begun."""
        return int(self.due_ns.size) - self.served

    @property
    def latency_ms(self) -> NDArray[np.float64]:
        """float64 (served,): from due to answered."""
        return (self.ends_ns - self.due_ns[: self.served]) / 1e6

    @property
    def service_ms(self) -> NDArray[np.float64]:
        """float64 (served,): from begun to answered."""
        return (self.ends_ns - self.starts_ns) / 1e6

    @property
    def wait_ms(self) -> NDArray[np.float64]:
        """float64 (served,): from due to begun; waking up and waiting for the frames before."""
        return (self.starts_ns - self.due_ns[: self.served]) / 1e6

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
        due_by_then = np.searchsorted(self.due_ns, self.starts_ns, side="right")
        # Those left at the end were all due by then (rule 3).
        return max(int((due_by_then - np.arange(self.served)).max(initial=0)), self.unserved)

    def to_json(self) -> dict[str, Any]:
        """The part ``paced`` of a profile; the keys ``unavailable`` and ``without_end`` are for the whole document's."""
        parts = {
            "latency_ms": figures(self.latency_ms, unserved=self.unserved),
            "service_ms": figures(self.service_ms),
            "wait_ms": figures(self.wait_ms, unserved=self.unserved),
        }
        due = int(self.due_ns.size)
        return {
            "fps": self.fps,
            "deadline_ms": self.deadline_ms,
            "due": due,
            "served": self.served,
            "unserved": self.unserved,
            "deadline_misses": self.deadline_misses,
            "deadline_miss_share": self.deadline_misses / due,
            "longest_queue": self.longest_queue,
            "live_drops": live_drops(self.due_ns, self.service_ms),
            **{part: found.values for part, found in parts.items()},
            "latency_intervals_ms": parts["latency_ms"].intervals,
            "series": {
                name: [round(float(value), 4) for value in values]
                for name, values in (
                    ("due_s", self.due_ns[: self.served] / 1e9),
                    ("latency_ms", self.latency_ms),
                    ("service_ms", self.service_ms),
                )
            },
            "unavailable": {f"{part}.{name}": why for part, found in parts.items() for name, why in found.missing.items()},
            "without_end": [f"{part}.{name}" for part, found in parts.items() for name in found.without_end],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Percentiles of a series in which some values may be without end.

    Attributes:
        values: ``{p50, p90, p95, p99, max, samples}``.
        intervals: Percentile to [low, high], None where an end is not known.
        missing: Percentile (or max) to why it is not known.
        without_end: Those of them that are known to be without end.
    """

    values: dict[str, float | int | None]
    intervals: dict[str, list[float] | None]
    missing: dict[str, str]
    without_end: tuple[str, ...]


def figures(milliseconds: NDArray[np.float64], *, unserved: int = 0) -> Figures:
    """Summarizes a series (rule 3).

    Args:
        milliseconds: float64 (samples,), finite, in any order.
        unserved: How many more there were that have no end.
    """
    ordered = np.concatenate([np.sort(milliseconds), np.full(unserved, np.inf)])
    found = {name: percentile(ordered, share) for name, share in SHARES.items()}
    values: dict[str, float | int | None] = {name: _finite(one.value) if one else None for name, one in found.items()}
    values["max"] = _finite(float(ordered[-1])) if ordered.size else None
    missing = {
        name: f"{name} needs {minimum_samples(SHARES[name])} frames, there are {ordered.size}" for name, one in found.items() if not one
    }
    endless = tuple(name for name in (*SHARES, "max") if values[name] is None and name not in missing and ordered.size)
    missing |= dict.fromkeys(endless, f"{unserved} of {ordered.size} frames were never answered, and this falls on one of them")
    return Figures(
        values={**values, "samples": int(ordered.size)},
        intervals={name: [one.low, one.high] if one and np.isfinite(one.high) else None for name, one in found.items()},
        missing=missing,
        without_end=endless,
    )


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def play(
    call: Callable[[], object],
    *,
    fps: float,
    seconds: float,
    clock: Clock | None = None,
    aside: Aside | None = None,
) -> Paced:
    """Calls once a due frame (rules 1 to 3).

    Args:
        call: Answers one frame.
        fps: Frames a second, above 0.
        seconds: Span in which frames are due; at least one is.
        clock: Time and waiting.
        aside: What is done while nothing waits.

    Raises:
        EdgekitError: When the rate is not one.
    """
    if not 0 < fps <= MOST_FPS or seconds <= 0:
        raise EdgekitError(f"frames cannot come {fps:g} times a second for {seconds:g} s", hint=f"a rate above 0, up to {MOST_FPS:g}")
    clock, aside = clock or Clock(), aside or Aside()
    count = max(1, round(fps * seconds))
    due = np.round(np.arange(count) * (1e9 / fps)).astype(np.int64)
    starts: list[int] = []
    ends: list[int] = []
    limit = round(PATIENCE * max(seconds, 1 / fps) * 1e9)
    aside.on_progress(0.0)
    begin = clock.now_ns()
    told = 0
    for index in range(count):
        now = clock.now_ns() - begin
        if now >= limit:
            break
        if now < due[index]:
            aside.look(int(due[index]) - now)
            now = clock.now_ns() - begin
        if due[index] - now >= SLACK_NS and now - told >= PROGRESS_INTERVAL_NS:
            aside.on_progress(index / count)
            told = now
        clock.wait_until(begin + int(due[index]))
        starts.append(clock.now_ns() - begin)
        call()
        ends.append(clock.now_ns() - begin)
    aside.on_progress(1.0)
    return Paced(fps=fps, due_ns=due, starts_ns=np.array(starts, np.int64), ends_ns=np.array(ends, np.int64))


def live_drops(due_ns: NDArray[np.int64], service_ms: NDArray[np.float64]) -> int:
    """Frames that a stream which keeps only the latest one would have dropped (rule 5).

    Args:
        due_ns: int64 (due,), ascending.
        service_ms: float64 (served,), at least one: what answers took. The frames that the stream serves take these, in turn.
    """
    free, served, index = 0.0, 0, 0
    count = int(due_ns.size)
    while index < count:
        begun = max(free, float(due_ns[index]))
        # While it was busy, later frames took the place of this one.
        index = max(index, int(np.searchsorted(due_ns, begun, side="right")) - 1)
        # The stream serves fewer frames than the run did; where it runs past the end of the run, its last one may lack a time, and none comes behind it.
        free = begun + float(service_ms[min(served, service_ms.size - 1)]) * 1e6
        served += 1
        index += 1
    return count - served
