"""Looks at the machine while a series is measured: temperatures, clocks, throttling, memory of this process, energy.

Rules this file keeps:

1. A reading is taken once a second, at the start and at the end, by the loop that measures: between two frames and outside every clock. What it takes is
   told (`reading_ms`). It is in no latency; the frame behind it finds colder caches.
2. Where frames come from a clock, a reading is taken only while the next one is far enough away (`look_within`). Frames that leave no such gap are
   measured without one, and the readings at the start and at the end are then all there is.
3. Readings are on the clock of the series, so that a chart can lay them over each other.
4. What the machine does not tell is null, with the reason; a meter that fails later ends that figure with the reason, not the measurement.
5. Memory is that of the measuring process: interpreter, library, engine, frames, and what the profile itself keeps a frame (`KEPT_BYTES`).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgekit.errors import TargetError
from edgekit.profiler import memory
from edgekit.profiler.energy import Meter
from edgekit.profiler.throttle import NONE_TOLD, Throttle, ThrottleFiles, events
from edgekit.runtime.sensors import SensorFiles, Sensors

INTERVAL_NS = 1_000_000_000
ROOM = 2.0
"""A gap must be this many times as long as a reading usually takes."""

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
        joules: Energy since the meter was opened; None where there is no meter or it failed.
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
    sensors: Callable[[], Sensors]
    process: Path = memory.PROCESS
    meter: Meter | None = None
    no_meter: str = ""
    now_ns: Callable[[], int] = time.perf_counter_ns


def open_eyes(root: Path = Path("/"), *, meter: Meter | str) -> Eyes:
    """What this machine can be watched with.

    Args:
        root: Where the file system begins.
        meter: The meter, or why there is none (`sampler.open_meter`).
    """
    known = None if isinstance(meter, str) else meter
    reason = meter if isinstance(meter, str) else ""
    return Eyes(throttle=ThrottleFiles(root), sensors=SensorFiles(root).read, process=root / "proc/self", meter=known, no_meter=reason)


@dataclass(slots=True, kw_only=True)
class Watch:
    """The readings beside one series.

    Attributes:
        eyes: What it reads with.
        usual_ns: What a reading usually takes, as another watch has found; None where that is not known, and the last reading is what there is to go by.
        readings: Those so far.
        meter_failed: Why the meter gave no more; empty where it did.
    """

    eyes: Eyes
    usual_ns: float | None = None
    readings: list[Reading] = field(default_factory=list)
    meter_failed: str = ""

    def look(self) -> None:
        """Reads where the last reading is a second ago."""
        if self.eyes.now_ns() - self.readings[-1].at_ns >= INTERVAL_NS:
            self.read()

    def look_within(self, left_ns: int) -> None:
        """The same where there is room for it (rule 2).

        Args:
            left_ns: Time until the next frame is due.
        """
        usual_ns = self.readings[-1].took_ns if self.usual_ns is None else self.usual_ns
        if left_ns >= ROOM * usual_ns:
            self.look()

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

    @property
    def reading_ms(self) -> float:
        """Median time a reading took."""
        return float(np.median([reading.took_ns for reading in self.readings])) / 1e6

    @property
    def throttle_events(self) -> list[int | None]:
        """How often counters have risen since the first reading, one a reading; None where there is none to compare."""
        total: int | None = 0 if self.readings[0].throttle.counts else None
        found = [total]
        for before, now in itertools.pairwise(self.readings):
            rise = events(before.throttle, now.throttle)
            total = total if rise is None else (total or 0) + rise
            found.append(total if rise is not None else None)
        return found

    @property
    def throttled(self) -> tuple[bool | None, str]:
        """(whether the machine held itself back, what by) or (None, why nobody knows)."""
        if not self.eyes.throttle.tells:
            return None, NONE_TOLD
        states = dict.fromkeys(state for reading in self.readings for state in reading.throttle.states or ())
        rise = max((count for count in self.throttle_events if count is not None), default=0)
        told = "; ".join([*([f"{rise} throttle {'event' if rise == 1 else 'events'}"] if rise else []), *states])
        lost = dict.fromkeys(name for reading in self.readings for name in reading.throttle.lost)
        if lost and not told:
            return None, f"{', '.join(lost)} could not be read at times"
        return bool(told), told
