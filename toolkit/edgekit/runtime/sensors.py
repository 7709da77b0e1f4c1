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
    temperatures = _zones(root) or _hwmon(root)
    clocks = _clocks(root)
    unavailable = {}
    if not temperatures:
        unavailable["temperatures_c"] = "no zone of /sys/class/thermal and no input of /sys/class/hwmon gives a temperature"
    if not clocks:
        unavailable["clocks_mhz"] = "neither /sys/devices/system/cpu/cpufreq nor /sys/class/devfreq gives a frequency"
    return Sensors(temperatures_c=temperatures, clocks_mhz=clocks, unavailable=unavailable)


def _zones(root: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    for zone in _numbered(root / "sys/class/thermal", "thermal_zone*"):
        _add(found, _text(zone / "type") or zone.name, _degrees(zone / "temp"))
    return found


def _hwmon(root: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    for device in _numbered(root / "sys/class/hwmon", "hwmon*"):
        for file in _numbered(device, "temp*_input"):
            label = _text(file.with_name(file.name.replace("_input", "_label"))) or file.name.removesuffix("_input")
            _add(found, f"{_text(device / 'name') or device.name} {label}", _degrees(file))
    return found


def _clocks(root: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    for policy in _numbered(root / "sys/devices/system/cpu/cpufreq", "policy*"):
        _add(found, f"cpu {policy.name}", _scaled(policy / "scaling_cur_freq", 1e3))
    for device in sorted((root / "sys/class/devfreq").glob("*"))[:MAX_SENSORS]:
        _add(found, f"devfreq {device.name}", _scaled(device / "cur_freq", 1e6))
    return found


def _add(found: dict[str, float], name: str, value: float | None) -> None:
    """Keeps a value; two sensors of one name are told apart by a number."""
    if value is None:
        return
    unique, count = name, 1
    while unique in found:
        count += 1
        unique = f"{name} {count}"
    found[unique] = value


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
