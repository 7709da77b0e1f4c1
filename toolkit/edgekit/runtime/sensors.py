"""Temperatures and clocks of the machine now, from the kernel's files. Everything is read, nothing is set.

Rules this file keeps:

1. What the system does not tell is left out, with the reason; a number is never guessed, and never taken from the reading before.
2. Nobody needs to be root, no program is started, and no library is needed: a reading costs some reads of `/sys`.
3. Temperatures come from the thermal zones; where there is none (AMD processors, some virtual machines), from `hwmon`.
4. At most `MAX_SENSORS` of each kind are read, so that a machine with hundreds of cores does not make a health page of them.

Sources: the kernel's Documentation/driver-api/thermal/sysfs-api.rst (millidegrees Celsius), Documentation/hwmon/sysfs-interface.rst (the same),
Documentation/admin-guide/pm/cpufreq.rst (kHz), Documentation/ABI/testing/sysfs-class-devfreq (Hz).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MAX_SENSORS = 16
_MILLIDEGREES = re.compile(r"-?\d{1,7}\n?")
_NUMBER = re.compile(r"\d{1,15}\n?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensors:
    """What the machine says of itself.

    Attributes:
        temperatures_c: Sensor's name to degrees Celsius.
        clocks_mhz: Clock's name ("cpu policy0", "devfreq 17000000.gpu") to megahertz.
        unavailable: "temperatures_c" or "clocks_mhz" to the reason, where there is not even one.
    """

    temperatures_c: dict[str, float]
    clocks_mhz: dict[str, float]
    unavailable: dict[str, str]


def read_sensors(root: Path = Path("/")) -> Sensors:
    """Reads what there is; never raises for what a machine lacks.

    Args:
        root: Where the file system begins.
    """
    return SensorFiles(root).read()


class SensorFiles:
    """Where this machine tells of itself, found once for who reads often.

    Args:
        root: Where the file system begins.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._zones, self._hwmon = _zones(root), _hwmon(root)
        self._policies, self._devfreq = _policies(root), _devfreq(root)

    def read(self) -> Sensors:
        """What can be read now."""
        temperatures = _named(self._zones, _degrees) or _named(self._hwmon, _degrees)
        clocks = _named([*self._policies, *self._devfreq], lambda file: _scaled(file, 1e6 if file.name == "cur_freq" else 1e3))
        unavailable = {}
        if not temperatures:
            unavailable["temperatures_c"] = "no zone of /sys/class/thermal and no input of /sys/class/hwmon gives a temperature"
        if not clocks:
            unavailable["clocks_mhz"] = "neither /sys/devices/system/cpu/cpufreq nor /sys/class/devfreq gives a frequency"
        return Sensors(temperatures_c=temperatures, clocks_mhz=clocks, unavailable=unavailable)


_Files = list[tuple[str, Path]]
"""Name of what a file tells, and the file."""


def _zones(root: Path) -> _Files:
    return [(_text(zone / "type") or zone.name, zone / "temp") for zone in _numbered(root / "sys/class/thermal", "thermal_zone*")]


def _hwmon(root: Path) -> _Files:
    found: _Files = []
    for device in _numbered(root / "sys/class/hwmon", "hwmon*"):
        for file in _numbered(device, "temp*_input"):
            label = _text(file.with_name(file.name.replace("_input", "_label"))) or file.name.removesuffix("_input")
            found.append((f"{_text(device / 'name') or device.name} {label}", file))
    return found


def _policies(root: Path) -> _Files:
    folders = _numbered(root / "sys/devices/system/cpu/cpufreq", "policy*")
    return [(f"cpu {policy.name}", policy / "scaling_cur_freq") for policy in folders]


def _devfreq(root: Path) -> _Files:
    return [(f"devfreq {device.name}", device / "cur_freq") for device in sorted((root / "sys/class/devfreq").glob("*"))[:MAX_SENSORS]]


def _named(files: _Files, read: Callable[[Path], float | None]) -> dict[str, float]:
    """Name to value of those that can be read; two of one name are told apart by a number."""
    found: dict[str, float] = {}
    for name, file in files:
        value, unique, count = read(file), name, 1
        while unique in found:
            count += 1
            unique = f"{name} {count}"
        if value is not None:
            found[unique] = value
    return found


def _numbered(folder: Path, pattern: str) -> list[Path]:
    """The first `MAX_SENSORS` that match, in the order of their numbers."""
    return sorted(folder.glob(pattern), key=lambda path: int(re.sub(r"\D", "", path.name) or 0))[:MAX_SENSORS]


def _degrees(file: Path) -> float | None:
    text = _text(file)
    return int(text) / 1e3 if _MILLIDEGREES.fullmatch(text) else None


def _scaled(file: Path, unit: float) -> float | None:
    text = _text(file)
    return int(text) / unit if _NUMBER.fullmatch(text) else None


def _text(file: Path) -> str:
    """What a file says, without the blank space around it; nothing where it cannot be read, as a zone that is switched off cannot."""
    try:
        return file.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
