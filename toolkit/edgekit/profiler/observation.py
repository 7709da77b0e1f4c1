"""What a watch saw, as parts of the document: timeline, throttling, energy a frame, growth of memory.

Rules this file keeps:

1. Times are seconds since the series began; the first reading is a moment before that.
2. Energy a frame is all the meter counted over the run by the frames begun meanwhile, and what is above the power of the machine at rest, which was
   measured before with the bundle open and nothing to do. Both are told, with what the meter sees. A meter that fails meanwhile is a reason, not an error.
3. The sustained ratio is the median of the last third of the run by that of the first third, warm-up and all: above 1, a machine that starts fast and
   does not keep it up.
4. Growth is the slope of the process's own memory after the warm-up, and beside it what the profile itself kept meanwhile. Not of the proportional memory,
   which moves when other programs start and end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import TargetError
from edgekit.profiler.clock import Progress
from edgekit.profiler.energy import Meter
from edgekit.profiler.growth import theil_sen
from edgekit.profiler.memory import MIB
from edgekit.profiler.pacing import Clock
from edgekit.profiler.percentiles import SHARES, minimum_samples
from edgekit.profiler.watch import KEPT_BYTES, Reading, Watch

ENERGY_KEYS = ("source", "scope", "idle_w", "busy_w", "mj_per_frame", "mj_per_frame_above_idle", "frames")
GROWTH_KEYS = ("mib_per_minute", "low", "high", "readings", "kept_mib_per_minute")
_REST_STEP_S = 0.25

Part = tuple[dict[str, Any], dict[str, str]]
"""A part of the document, and figure of it to why it is null."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A series and the watch beside it.

    Attributes:
        watch: Closed.
        begin_ns: Start of the series on the watch's clock.
        starts_s: float64 (samples,), start of each frame since then.
        milliseconds: float64 (samples,), latency of each frame.
        rest_w: Power at rest before, or why it is not known.
    """

    watch: Watch
    begin_ns: int
    starts_s: NDArray[np.float64]
    milliseconds: NDArray[np.float64]
    rest_w: float | str

    @property
    def readings(self) -> Sequence[Reading]:
        """All readings."""
        return self.watch.readings

    @property
    def moments_s(self) -> NDArray[np.float64]:
        """float64 (readings,): when each began."""
        return np.array([(reading.at_ns - self.begin_ns) / 1e9 for reading in self.readings])


def rest_power(meter: Meter, seconds: float, *, clock: Clock | None = None, on_progress: Progress | None = None) -> float | str:
    """Power in watts while this process waits, or why it is not known.

    Args:
        meter: The meter.
        seconds: How long to wait.
        clock: Time and waiting.
        on_progress: Told the share that is done.
    """
    clock = clock or Clock()
    told = on_progress or (lambda _share: None)
    begin = now = clock.now_ns()
    try:
        first = last = meter.joules(begin / 1e9)
        while now - begin < seconds * 1e9:
            told((now - begin) / (seconds * 1e9))
            clock.wait_until(now + round(_REST_STEP_S * 1e9))
            now = clock.now_ns()
            last = meter.joules(now / 1e9)
    except TargetError as error:
        return f"the power at rest is not known: {error.message}"
    finally:
        told(1.0)
    return (last - first) / ((now - begin) / 1e9)


def timeline(seen: Observed) -> Part:
    """The part ``timeline``."""
    readings = seen.readings
    throttled, words = seen.watch.throttled
    ratio, no_ratio = sustained_ratio(seen.starts_s, seen.milliseconds)
    temperatures = _columns([reading.sensors.temperatures_c for reading in readings])
    clocks = _columns([reading.sensors.clocks_mhz for reading in readings])
    hottest = [value for column in temperatures.values() for value in column if value is not None]
    found: dict[str, Any] = {
        "t_s": _rounded(seen.moments_s, 3),
        "temperatures_c": temperatures,
        "clocks_mhz": clocks,
        "throttle_events": seen.watch.throttle_events,
        "throttle_states": [None if (states := reading.throttle.states) is None else list(states) for reading in readings],
        "memory_mib": [reading.memory_mib for reading in readings],
        "own_memory_mib": [reading.own_mib for reading in readings],
        "energy_j": [reading.joules for reading in readings],
        "hottest_c": max(hottest) if hottest else None,
        "throttled": throttled,
        "throttled_by": words if throttled else "",
        "throttle_sources": list(seen.watch.eyes.throttle.sources),
        "sustained_ratio": ratio,
        "reading_ms": seen.watch.reading_ms,
    }
    last = readings[-1].sensors.unavailable
    reasons: dict[str, str] = {name: last[name] for name in ("temperatures_c", "clocks_mhz") if name in last and not found[name]}
    if not hottest:
        reasons["hottest_c"] = last.get("temperatures_c", "no reading gave a temperature")
    if throttled is None:
        reasons["throttled"] = words
    if ratio is None:
        reasons["sustained_ratio"] = no_ratio
    return found, reasons


def energy(seen: Observed) -> Part:
    """The part ``energy``."""
    meter, readings = seen.watch.eyes.meter, seen.readings
    nothing: dict[str, Any] = dict.fromkeys(ENERGY_KEYS)
    reason = "" if meter is not None else seen.watch.eyes.no_meter
    first, last = readings[0], readings[-1]
    seconds = (last.at_ns - first.at_ns) / 1e9
    if not reason and (last.joules is None or first.joules is None):
        reason = seen.watch.meter_failed or "the meter gave no reading"
    moments = seen.moments_s
    frames = int(((seen.starts_s >= moments[0]) & (seen.starts_s < moments[-1])).sum())
    if not reason and (not frames or seconds <= 0):
        reason = "no frame was begun between two readings of the meter"
    if reason or meter is None or first.joules is None or last.joules is None:
        return nothing, dict.fromkeys(ENERGY_KEYS, reason)
    busy_w = (last.joules - first.joules) / seconds
    total = 1e3 * (last.joules - first.joules) / frames
    rest_w, no_rest = (None, seen.rest_w) if isinstance(seen.rest_w, str) else (seen.rest_w, "")
    above = None if rest_w is None else total - 1e3 * rest_w * seconds / frames
    found = {
        "source": meter.source,
        "scope": meter.scope,
        "idle_w": rest_w,
        "busy_w": busy_w,
        "mj_per_frame": total,
        "mj_per_frame_above_idle": above,
        "frames": frames,
    }
    return found, {name: no_rest for name in ENERGY_KEYS if found[name] is None}


def growth(seen: Observed, excluded: int) -> Part:
    """The part ``memory_growth``.

    Args:
        seen: The series and its watch.
        excluded: Leading samples that are warm-up.
    """
    settled_s = float(seen.starts_s[min(excluded, seen.starts_s.size - 1)])
    points = [
        (moment, reading.own_mib)
        for moment, reading in zip(seen.moments_s.tolist(), seen.readings, strict=True)
        if reading.own_mib is not None and moment >= settled_s
    ]
    span_min = float(seen.starts_s[-1] - seen.starts_s[0]) / 60
    kept = seen.starts_s.size * KEPT_BYTES / MIB / span_min if span_min > 0 else None
    if all(reading.own_mib is None for reading in seen.readings):
        slope: Any = "the system does not tell the memory of a process (/proc/self/smaps_rollup)"
    else:
        slope = theil_sen(np.array([point[0] for point in points]) / 60, np.array([point[1] for point in points], np.float64))
    if isinstance(slope, str):
        reason = f"{slope}; it is read once a second after the warm-up, --seconds makes it longer"
        return {**dict.fromkeys(GROWTH_KEYS), "readings": len(points)}, {name: reason for name in GROWTH_KEYS if name != "readings"}
    found = {
        "mib_per_minute": slope.value,
        "low": slope.low,
        "high": slope.high,
        "readings": slope.readings,
        "kept_mib_per_minute": kept,
    }
    return found, {} if kept is not None else {"kept_mib_per_minute": "there was one frame"}


def sustained_ratio(starts_s: NDArray[np.float64], milliseconds: NDArray[np.float64]) -> tuple[float | None, str]:
    """(ratio, "") of rule 3, or (None, why not).

    Args:
        starts_s: float64 (samples,), ascending.
        milliseconds: float64 (samples,).
    """
    third = (starts_s[-1] - starts_s[0]) / 3
    first, last = milliseconds[starts_s < starts_s[0] + third], milliseconds[starts_s >= starts_s[-1] - third]
    fewest = minimum_samples(SHARES["p50"])
    if min(first.size, last.size) < fewest:
        return None, f"{first.size} and {last.size} frames in the first and the last third are too few, {fewest} are needed"
    return float(np.median(last) / np.median(first)), ""


def _columns(rows: Sequence[dict[str, float]]) -> dict[str, list[float | None]]:
    """Name to its values over time; None where a reading lacked it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _rounded(values: NDArray[np.float64], digits: int) -> list[float]:
    return [round(float(value), digits) for value in values]
