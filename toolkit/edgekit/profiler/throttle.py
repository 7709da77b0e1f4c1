"""Does the machine hold itself back? Counters and flags of throttling, from the kernel's files. Everything is read, nothing is set.

Rules this file keeps:

1. Where the files are is found once, for a machine does not grow sensors while it is measured; a reading then costs one read a file.
2. Two kinds of evidence: counters that rise (each rise is an event), and states that stand now. Either one is throttling.
3. A machine that has neither is not "not throttled": its answer is None, with the reason. Nor is one whose files can no longer be read.
4. The kernel keeps a core's and a package's counter once for every hardware thread: one of them is read. A counter is compared with itself alone.
5. What was looked at is told (`sources`): on a machine whose only source is ACPI's "Processor", "not throttled" says less than where counters are.

Sources: Linux Documentation/admin-guide/thermal/intel_powerclamp.rst (`cur_state` is -1 where it injects nothing) and
arch/x86/kernel/cpu/mce/therm_throt.c (`thermal_throttle/*_count`); Documentation/driver-api/thermal/sysfs-api.rst (`cooling_device*/cur_state`);
NVIDIA Jetson Linux Developer Guide, "Over-Current Event Information" (`oc*_event_cnt`); Raspberry Pi documentation, `vcgencmd get_throttled`
(bits 0 to 3 stand now, 16 to 19 since the start).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_THREADS = "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle"
_OVER_CURRENT = "sys/class/hwmon/hwmon*/oc*_event_cnt"
_FIRMWARE = ("sys/devices/platform/*/get_throttled", "sys/devices/platform/*/*/get_throttled")
# Not fans, whose state is how fast they turn.
_SLOWS_DOWN = re.compile(r"cpufreq|devfreq|^Processor$|powerclamp|throttle", re.IGNORECASE)
PI_NOW = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
"""Bits of `get_throttled` that stand now."""

NONE_TOLD = "the system has no throttle counter, no cooling device that slows a clock down, and no firmware that tells"


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """One reading.

    Attributes:
        counts: Counter to its count since the machine started; one that cannot be read now is missing.
        states: What holds the machine back now, for people; None where nothing would tell.
        lost: What was there at first and cannot be read now.
    """

    counts: Mapping[str, int]
    states: tuple[str, ...] | None
    lost: tuple[str, ...]


class ThrottleFiles:
    """Where this machine tells of throttling.

    Args:
        root: Where the file system begins.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._counters = {name: path for name, path in _counters(root) if _integer(path) is not None}
        self._firmware = {
            f"firmware {path.name}": path for pattern in _FIRMWARE for path in sorted(root.glob(pattern)) if _bits(path) is not None
        }
        devices = sorted(root.glob("sys/class/thermal/cooling_device*"), key=lambda path: (len(path.name), path.name))
        kinds = {path: _text(path / "type") for path in devices}
        self._cooling = {
            f"{kind} ({path.name})": path / "cur_state"
            for path, kind in kinds.items()
            if _SLOWS_DOWN.search(kind) and _integer(path / "cur_state") is not None
        }

    @property
    def tells(self) -> bool:
        """Whether there is anything to read."""
        return bool(self._counters or self._firmware or self._cooling)

    @property
    def sources(self) -> tuple[str, ...]:
        """What is looked at, for people."""
        kinds = Counter(name.split(" of ")[0] for name in self._counters)
        kinds += Counter(f"cooling device {name.rpartition(' (')[0]}" for name in self._cooling)
        return (*(kind if count == 1 else f"{kind} × {count}" for kind, count in kinds.items()), *self._firmware)

    def read(self) -> Throttle:
        """The counters and states now."""
        counts = {name: _integer(path) for name, path in self._counters.items()}
        cooling = {name: _integer(path) for name, path in self._cooling.items()}
        firmware = {name: _bits(path) for name, path in self._firmware.items()}
        states = [f"{name.rpartition(' (')[0]} at {state}" for name, state in cooling.items() if state is not None and state > 0]
        states += [words for bits in firmware.values() for bit, words in PI_NOW.items() if (bits or 0) >> bit & 1]
        return Throttle(
            counts={name: count for name, count in counts.items() if count is not None},
            states=tuple(states) if firmware or cooling else None,
            lost=tuple(name for name, found in {**counts, **cooling, **firmware}.items() if found is None),
        )


def events(first: Throttle, now: Throttle) -> int | None:
    """How often counters have risen between two readings (rule 4); None where neither has any."""
    both = first.counts.keys() & now.counts.keys()
    return sum(max(now.counts[name] - first.counts[name], 0) for name in both) if both else None


def _counters(root: Path) -> Iterator[tuple[str, Path]]:
    """Counter to its file, the first thread of each core and package (rule 4)."""
    seen: dict[str, Path] = {}
    for folder in sorted(root.glob(_THREADS), key=lambda path: (len(path.parent.name), path.parent.name)):
        package = _integer(folder.parent / "topology/physical_package_id")
        core = _integer(folder.parent / "topology/core_id")
        # Without a topology each thread stands for itself: a rise is then told several times, and never missed.
        alone = folder.parent.name
        of_package = alone if package is None else f"package {package}"
        seen.setdefault(f"core counter of {alone if core is None else f'{of_package} core {core}'}", folder / "core_throttle_count")
        seen.setdefault(f"package counter of {of_package}", folder / "package_throttle_count")
    yield from seen.items()
    for path in sorted(root.glob(_OVER_CURRENT)):
        yield f"over-current counter of {path.parent.name} {path.name}", path


def _bits(path: Path) -> int | None:
    return _integer(path, 16)


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
