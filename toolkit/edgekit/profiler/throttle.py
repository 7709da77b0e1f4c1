"""Does the machine hold itself back? Counters and flags of throttling, from the kernel's files. Everything is read, nothing is set.

Rules this file keeps:

1. Where the files are is found once, for a machine does not grow sensors while it is measured; a reading then costs one read a file.
2. Two kinds of evidence: counters that rise (each rise is an event), and states that stand now. Either one is throttling.
3. A machine that has neither is not "not throttled": its answer is None, with the reason.

Sources: Linux Documentation/admin-guide/thermal/intel_powerclamp.rst and arch/x86/kernel/cpu/mce/therm_throt.c (`thermal_throttle/*_count`);
Documentation/driver-api/thermal/sysfs-api.rst (`cooling_device*/cur_state`); NVIDIA Jetson Linux Developer Guide, "Over-Current Event Information"
(`oc*_event_cnt`); Raspberry Pi documentation, `vcgencmd get_throttled` (bits 0 to 3 stand now, 16 to 19 since the start).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_COUNTERS = (
    "sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count",
    "sys/devices/system/cpu/cpu*/thermal_throttle/package_throttle_count",
    "sys/class/hwmon/hwmon*/oc*_event_cnt",
)
_FIRMWARE = ("sys/devices/platform/*/get_throttled", "sys/devices/platform/*/*/get_throttled")
# Not fans, whose state is how fast they turn.
_SLOWS_DOWN = re.compile(r"cpufreq|devfreq|^Processor$|throttle", re.IGNORECASE)
PI_NOW = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
"""Bits of `get_throttled` that stand now."""

NONE_TOLD = "the system has no throttle counter, no cooling device that slows a clock down, and no firmware that tells"


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """One reading.

    Attributes:
        events: Sum of the counters since the machine started; None where there is none.
        states: What holds the machine back now, for people; None where nothing would tell.
    """

    events: int | None
    states: tuple[str, ...] | None


class ThrottleFiles:
    """Where this machine tells of throttling.

    Args:
        root: Where the file system begins.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._counters = tuple(path for pattern in _COUNTERS for path in sorted(root.glob(pattern)) if _integer(path) is not None)
        self._firmware = tuple(path for pattern in _FIRMWARE for path in sorted(root.glob(pattern)) if _integer(path, 16) is not None)
        kinds = {path: _text(path / "type") for path in sorted(root.glob("sys/class/thermal/cooling_device*"))}
        self._cooling = {
            path: kind for path, kind in kinds.items() if _SLOWS_DOWN.search(kind) and _integer(path / "cur_state") is not None
        }

    @property
    def tells(self) -> bool:
        """Whether there is anything to read."""
        return bool(self._counters or self._firmware or self._cooling)

    def read(self) -> Throttle:
        """The counters and states now."""
        counts = [count for path in self._counters if (count := _integer(path)) is not None]
        states = [f"{kind} at {state}" for path, kind in self._cooling.items() if (state := _integer(path / "cur_state"))]
        for path in self._firmware:
            bits = _integer(path, 16) or 0
            states += [words for bit, words in PI_NOW.items() if bits >> bit & 1]
        return Throttle(events=sum(counts) if counts else None, states=tuple(states) if self._firmware or self._cooling else None)


def _integer(path: Path, base: int = 10) -> int | None:
    try:
        return int(_text(path), base)
    except ValueError:
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
