"""Counters of a stream that runs for hours: what became of each frame, how late, how old, how hot.

Rules this file keeps:

1. Nothing in here is about a patient: no file names, no labels, no probabilities, no texts of errors. A reason or a step is kept only where it looks like
   the name of a kind (`[A-Za-z][A-Za-z0-9_-]*`, see `kind_name`); whatever else comes in, such as a message that names a file, is counted as "other".
2. Memory is bounded however long it runs: percentiles and rates are of the last frames and seconds, and at most `MAX_KINDS` kinds are told apart.
3. A counter only goes up. A percentile is a value that was really measured (nearest rank), and is None where it would be no more than the
   largest one: p50 needs 2 samples, p90 10, p99 100.
4. Every method may be called from any thread; a snapshot is of one moment.
5. The clock is monotonic and injected; what a sensor does not tell is None with the reason (`sensors.py`).
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgekit.runtime.degradation import FULL
from edgekit.runtime.sensors import Sensors, read_sensors

WINDOW_FRAMES = 1024
"""Percentiles are of this many frames: half a minute at 30 frames a second."""
WINDOW_S = 10
"""Rates are means over this many whole seconds."""
MAX_KINDS = 32
"""Different reasons or steps that are told apart; a further one is counted as "other"."""
OTHER = "other"

_KIND = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
_SHARES = {"p50_ms": 0.50, "p90_ms": 0.90, "p99_ms": 0.99}


def kind_name(text: str) -> str:
    """The name of a kind as it may be shown: itself where it is one word of plain letters (`TargetError`, `map-off`), else "other"."""
    return text if _KIND.fullmatch(text) else OTHER


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Times of the last frames, and of all of them together.

    Attributes:
        p50_ms: Median of the last `samples`; None below 2 of them.
        p90_ms: None below 10.
        p99_ms: None below 100.
        max_ms: Largest of the last `samples`; None where there is none.
        samples: Number of frames the four are of, at most `WINDOW_FRAMES`.
        count: All frames since the start.
        sum_ms: Their times added up.
    """

    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    samples: int
    count: int
    sum_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSnapshot:
    """A stream at one moment.

    Attributes:
        uptime_s: Since the recorder was made.
        captured: Frames that the source gave.
        processed: Frames that were answered in time, those that are not assessable included.
        dropped: Frames overwritten by a newer one before anybody looked at them.
        late: Frames answered after their deadline; their results were withheld.
        not_assessable: Frames that were refused an answer by the checks of the image.
        failed: Frames that got an error.
        failed_by_kind: Kind of error to frames.
        degraded: Frames answered with something given up.
        degraded_by_step: Step of the ladder to frames.
        step: Where the ladder stands.
        restarts: How often the engine was started again.
        restarts_by_kind: Reason to restarts.
        captured_per_s: Mean over the last whole seconds; None in the first.
        processed_per_s: Likewise.
        since_last_result_s: Since the last processed frame; None before the first.
        latency_ms: From the frame handed to the classifier to its answer.
        age_ms: From capture to result.
        sensors: Temperatures and clocks.
    """

    uptime_s: float
    captured: int
    processed: int
    dropped: int
    late: int
    not_assessable: int
    failed: int
    failed_by_kind: dict[str, int]
    degraded: int
    degraded_by_step: dict[str, int]
    step: str
    restarts: int
    restarts_by_kind: dict[str, int]
    captured_per_s: float | None
    processed_per_s: float | None
    since_last_result_s: float | None
    latency_ms: Series
    age_ms: Series
    sensors: Sensors

    def to_json(self) -> dict[str, Any]:
        """The same as plain tables and numbers."""
        return asdict(self)


class Health:
    """Records what becomes of the frames of one stream; thread-safe.

    Args:
        clock_ns: Nanoseconds that never go back.
        sensors: Reads temperatures and clocks, once a snapshot.
        events: Told of every "error" (its "kind"), "restart" (its "reason") and change of "step" (the one "before" and the "step"); kinds only (rule 1).
            `EventLog.record` writes them down.
    """

    def __init__(
        self,
        *,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        sensors: Callable[[], Sensors] = read_sensors,
        events: Callable[[str, Mapping[str, str]], None] | None = None,
    ) -> None:
        self._clock_ns, self._sensors, self._events = clock_ns, sensors, events
        self._lock = threading.Lock()
        self._started_ns = clock_ns()
        self._last_ns: int | None = None
        self._step = FULL
        self._counts: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._degraded: Counter[str] = Counter()
        self._restarts: Counter[str] = Counter()
        self._latency, self._age = _Times(), _Times()
        self._captured_rate, self._processed_rate = _Rate(), _Rate()

    def captured(self, count: int = 1) -> None:
        """The source gave frames."""
        with self._lock:
            self._counts["captured"] += count
            self._captured_rate.add(self._second(), count)

    def dropped(self, count: int = 1) -> None:
        """Frames were overwritten in the mailbox before anybody looked at them."""
        self._count("dropped", count)

    def late(self) -> None:
        """A frame was answered past its deadline, and the result withheld."""
        self._count("late")

    def processed(self, *, latency_ms: float, age_ms: float) -> None:
        """A frame was answered.

        Args:
            latency_ms: From the frame handed to the classifier to its answer.
            age_ms: From its capture to its result.
        """
        with self._lock:
            self._counts["processed"] += 1
            self._latency.add(latency_ms)
            self._age.add(age_ms)
            self._processed_rate.add(self._second(), 1)
            self._last_ns = self._clock_ns()

    def not_assessable(self) -> None:
        """A frame was refused an answer by the checks of the image; it counts as processed when `processed` is called too."""
        self._count("not_assessable")

    def failed(self, reason: str) -> None:
        """A frame got an error; `reason` is its kind, such as `type(error).__name__` (rule 1)."""
        with self._lock:
            kind = _add_kind(self._failed, reason)
        self._tell("error", {"kind": kind})

    def degraded(self, step: str) -> None:
        """A frame was answered while the ladder stood on `step`; nothing is counted for "full"."""
        if step != FULL:
            with self._lock:
                _add_kind(self._degraded, step)

    def restarted(self, reason: str) -> None:
        """The engine was started again; `reason` is a kind, such as "hang" (rule 1)."""
        with self._lock:
            kind = _add_kind(self._restarts, reason)
        self._tell("restart", {"reason": kind})

    def at_step(self, step: str) -> None:
        """The ladder stands on `step` now."""
        with self._lock:
            before, self._step = self._step, kind_name(step)
            after = self._step
        if before != after:
            self._tell("step", {"before": before, "step": after})

    def snapshot(self) -> HealthSnapshot:
        """Everything, at one moment."""
        sensors = self._sensors()  # not under the lock: a thermal zone may take milliseconds to answer
        with self._lock:
            now, second = self._clock_ns(), self._second()
            return HealthSnapshot(
                uptime_s=(now - self._started_ns) / 1e9,
                **{name: self._counts[name] for name in ("captured", "processed", "dropped", "late", "not_assessable")},
                failed=self._failed.total(),
                failed_by_kind=dict(self._failed),
                degraded=self._degraded.total(),
                degraded_by_step=dict(self._degraded),
                step=self._step,
                restarts=self._restarts.total(),
                restarts_by_kind=dict(self._restarts),
                captured_per_s=self._captured_rate.mean(second),
                processed_per_s=self._processed_rate.mean(second),
                since_last_result_s=None if self._last_ns is None else (now - self._last_ns) / 1e9,
                latency_ms=self._latency.series(),
                age_ms=self._age.series(),
                sensors=sensors,
            )

    def _count(self, name: str, count: int = 1) -> None:
        with self._lock:
            self._counts[name] += count

    def _tell(self, event: str, facts: Mapping[str, str]) -> None:
        """Not under the lock: a log may have to wait for a disk."""
        if self._events is not None:
            self._events(event, facts)

    def _second(self) -> int:
        """Whole seconds since the start."""
        return (self._clock_ns() - self._started_ns) // 1_000_000_000


def _add_kind(counter: Counter[str], text: str) -> str:
    """Counts a kind, and returns the name it is counted under."""
    name = kind_name(text)
    name = name if name in counter or len(counter) < MAX_KINDS else OTHER
    counter[name] += 1
    return name


class _Times:
    """Milliseconds of frames: the last ones each, all of them as a sum."""

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=WINDOW_FRAMES)
        self._count, self._sum = 0, 0.0

    def add(self, milliseconds: float) -> None:
        self._last.append(milliseconds)
        self._count += 1
        self._sum += milliseconds

    def series(self) -> Series:
        ordered = sorted(self._last)
        return Series(
            **{name: nearest_rank(ordered, share) for name, share in _SHARES.items()},
            max_ms=ordered[-1] if ordered else None,
            samples=len(ordered),
            count=self._count,
            sum_ms=self._sum,
        )


def nearest_rank(ordered: list[float], share: float) -> float | None:
    """The smallest of the values at or below which at least that share of them lies; None where there are fewer than 1 / (1 − share).

    Source: Hyndman & Fan 1996, The American Statistician 50:361, definition 1.

    Args:
        ordered: Ascending.
        share: Between 0 and 1, both excluded.
    """
    # The rounding is for shares that are not whole in binary, such as 0.07 · 100.
    if len(ordered) < round(1 / (1 - share), 9):
        return None
    return ordered[math.ceil(round(len(ordered) * share, 9)) - 1]


class _Rate:
    """Counts of the last seconds, one number a second."""

    def __init__(self) -> None:
        self._seconds: deque[tuple[int, int]] = deque(maxlen=WINDOW_S + 1)

    def add(self, second: int, count: int) -> None:
        if self._seconds and self._seconds[-1][0] == second:
            count += self._seconds.pop()[1]
        self._seconds.append((second, count))

    def mean(self, second: int) -> float | None:
        """A second, over the last `WINDOW_S` whole seconds before this one, or over all there were; None in the first."""
        window = min(second, WINDOW_S)
        if window < 1:
            return None
        return sum(count for at, count in self._seconds if second - window <= at < second) / window
