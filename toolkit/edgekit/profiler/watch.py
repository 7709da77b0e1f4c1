"""Looks at the machine while a series is measured: temperatures, clocks, throttling, memory of this process, energy.

Rules this file keeps:

1. A thread of this process reads once a second, at the start and at the end. What a reading takes is told (`reading_ms`): meanwhile it holds up the
   frames a little, and on a small model that is seen in the tail.
2. Readings are on the clock of the series, so that a chart can lay them over each other.
3. What the machine does not tell is null, with the reason; a reading that fails later ends that figure with the reason, not the measurement. Any other
   failure of the thread is raised where the measurement ends.
4. Memory is that of the measuring process: interpreter, library, engine, frames, and what the profile itself keeps a frame (`KEPT_BYTES`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np

from edgekit.errors import TargetError
from edgekit.profiler import memory
from edgekit.profiler.energy import Meter
from edgekit.profiler.throttle import NONE_TOLD, Throttle, ThrottleFiles
from edgekit.runtime.sensors import Sensors, read_sensors

INTERVAL_S = 1.0
KEPT_BYTES = 40
"""What the profile keeps of a frame while it measures: start, duration and three stages, eight bytes each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The machine at one moment.

    Attributes:
        at_ns: When the reading began, on the clock of the series.
        took_ns: How long it took.
        sensors: Temperatures and clocks.
        throttle: Counters and states.
        memory_mib: Proportional memory (PSS) of this process; None where the system does not tell.
        own_mib: What of it is no file's, swapped out or not; None likewise.
        joules: Energy since the watch began; None where there is no meter or it failed.
    """

    at_ns: int
    took_ns: int
    sensors: Sensors
    throttle: Throttle
    memory_mib: float | None
    own_mib: float | None
    joules: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Eyes:
    """What a watch reads with.

    Attributes:
        throttle: Where the machine tells of throttling.
        sensors: Reads temperatures and clocks.
        process: Folder of this process under `/proc`.
        meter: Counts energy; None where there is none.
        no_meter: Why there is none.
        now_ns: The clock of the series.
    """

    throttle: ThrottleFiles
    sensors: Callable[[], Sensors] = read_sensors
    process: Path = memory.PROCESS
    meter: Meter | None = None
    no_meter: str = ""
    now_ns: Callable[[], int] = time.perf_counter_ns


def open_eyes(root: Path = Path("/"), *, meter: Meter | str) -> Eyes:
    """What this machine can be watched with.

    Args:
        root: Where the file system begins.
        meter: The meter, or why there is none (`energy.find_meter`).
    """
    known = None if isinstance(meter, str) else meter
    reason = meter if isinstance(meter, str) else ""
    return Eyes(throttle=ThrottleFiles(root), sensors=lambda: read_sensors(root), process=root / "proc/self", meter=known, no_meter=reason)


@dataclass(slots=True, kw_only=True)
class Watch:
    """Reads while it is open (a context manager).

    Attributes:
        eyes: What it reads with.
        interval_s: Pause between two readings.
        readings: Those so far.
        meter_failed: Why the meter gave no more; empty where it did.
    """

    eyes: Eyes
    interval_s: float = INTERVAL_S
    readings: list[Reading] = field(default_factory=list)
    meter_failed: str = ""
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _error: BaseException | None = None

    def __enter__(self) -> Watch:  # noqa: PYI034 - typing.Self came with Python 3.11
        self.read()
        self._thread = threading.Thread(target=self._run, name="edgekit-watch", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if error is None:
            if self._error is not None:
                raise self._error
            self.read()

    def read(self) -> None:
        """Takes one reading."""
        eyes = self.eyes
        begun = eyes.now_ns()
        joules = self._joules(begun)
        sensors, throttle = eyes.sensors(), eyes.throttle.read()
        proportional, own = memory.held_mib(eyes.process)
        took = eyes.now_ns() - begun
        self.readings.append(
            Reading(at_ns=begun, took_ns=took, sensors=sensors, throttle=throttle, memory_mib=proportional, own_mib=own, joules=joules)
        )

    def _joules(self, now_ns: int) -> float | None:
        if self.eyes.meter is None or self.meter_failed:
            return None
        try:
            return self.eyes.meter.joules(now_ns / 1e9)
        except TargetError as error:
            self.meter_failed = error.message
            return None

    def _run(self) -> None:
        try:
            while not self._stop.wait(self.interval_s):
                self.read()
        except BaseException as error:  # noqa: BLE001 - raised where the measurement ends (rule 3)
            self._error = error

    @property
    def reading_ms(self) -> float:
        """Median time a reading took."""
        return float(np.median([reading.took_ns for reading in self.readings])) / 1e6

    @property
    def throttled(self) -> tuple[bool | None, str]:
        """(whether the machine held itself back, what by) or (None, why nobody knows)."""
        if not self.eyes.throttle.tells:
            return None, NONE_TOLD
        states = dict.fromkeys(state for reading in self.readings for state in reading.throttle.states or ())
        counts = [reading.throttle.events for reading in self.readings if reading.throttle.events is not None]
        rise = counts[-1] - counts[0] if counts else 0
        told = [f"{rise} throttle events"] if rise > 0 else []
        return bool(told or states), "; ".join([*told, *states])
