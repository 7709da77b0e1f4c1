"""What kind of machine this is: enough to tell whether two measurements can be compared, nothing that identifies its owner.

Rules this file keeps:

1. No host name, user name, address, serial number, path or time zone.
2. What cannot be read is None with a reason in `unavailable`; nothing is guessed or filled in from a similar machine.
3. Versions of libraries come from their package metadata: importing OpenVINO to ask its version would cost more than the answer is worth.
4. Limits of a container count: two cores of a cgroup are not the 64 of the machine around it.
"""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TypeVar

import edgekit
from edgekit.profiler.cgroup import cpu_limit, memory_limit
from edgekit.profiler.memory import MIB
from edgekit.runtime.cpu import cpu_model, instruction_sets

T = TypeVar("T")

ROOT = Path("/")
PACKAGES = ("numpy", "pillow", "openvino", "onnxruntime", "tensorrt")
"""Distributions whose version moves a latency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The machine, as far as it decides a latency.

    Attributes:
        device_model: Board name from the device tree (Jetson, Raspberry Pi).
        cpu_model: Name of the processor.
        architecture: ``x86_64``, ``aarch64``, …
        cores_physical: Cores of the machine.
        cores_logical: Hardware threads of the machine.
        cores_usable: Hardware threads this process may run on (affinity).
        cpu_limit: Cores' worth of time the cgroup allows; None where no limit is set.
        instruction_sets: Extensions that inference kernels choose by, out of those `cpu.py` names.
        governor: Frequency governor of the first core.
        frequency_mhz: Current frequency of the first core.
        frequency_max_mhz: Highest frequency of the first core.
        load_average: Runnable processes over the last minute, when the fingerprint was taken.
        memory_mib: Memory of the machine.
        memory_limit_mib: Memory the cgroup allows; None where no limit is set.
        system: Name and release of the distribution.
        kernel: Kernel name and release.
        python: Version and implementation.
        packages: Distribution to version; None where it is not installed.
        unavailable: Field name to the reason why it is None.
    """

    device_model: str | None
    cpu_model: str | None
    architecture: str
    cores_physical: int | None
    cores_logical: int | None
    cores_usable: int | None
    cpu_limit: float | None
    instruction_sets: tuple[str, ...] | None
    governor: str | None
    frequency_mhz: float | None
    frequency_max_mhz: float | None
    load_average: float | None
    memory_mib: float | None
    memory_limit_mib: float | None
    system: str | None
    kernel: str
    python: str
    packages: dict[str, str | None]
    unavailable: dict[str, str]


def fingerprint(root: Path = ROOT) -> Host:
    """Reads the machine.

    Args:
        root: Where `/proc`, `/sys` and `/etc` are.
    """
    reader = _Reader(root)
    cpuinfo = reader.text("cpu_model", "proc/cpuinfo") or ""
    frequency = "sys/devices/system/cpu/cpu0/cpufreq"
    return Host(
        device_model=reader.text("device_model", "proc/device-tree/model"),
        cpu_model=reader.noted("cpu_model", cpu_model(cpuinfo), "/proc/cpuinfo names no processor"),
        architecture=platform.machine(),
        cores_physical=reader.cores_physical(),
        cores_logical=reader.noted("cores_logical", os.cpu_count(), "the system does not say"),
        cores_usable=reader.noted("cores_usable", _cores_usable(), "the system has no CPU affinity"),
        cpu_limit=reader.noted("cpu_limit", *cpu_limit(root)),
        instruction_sets=reader.noted("instruction_sets", instruction_sets(cpuinfo), "/proc/cpuinfo lists no flags"),
        governor=reader.text("governor", f"{frequency}/scaling_governor"),
        frequency_mhz=reader.number("frequency_mhz", f"{frequency}/scaling_cur_freq", unit=1e3),
        frequency_max_mhz=reader.number("frequency_max_mhz", f"{frequency}/cpuinfo_max_freq", unit=1e3),
        load_average=reader.number("load_average", "proc/loadavg"),
        memory_mib=reader.entry("memory_mib", "proc/meminfo", "MemTotal", unit=1024.0),
        memory_limit_mib=reader.memory_limit_mib(),
        system=reader.system(),
        kernel=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_version()} {sys.implementation.name}",
        packages=reader.packages(),
        unavailable=reader.unavailable,
    )


class _Reader:
    """Reads files under `root` and notes why a field stays None."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.unavailable: dict[str, str] = {}

    def noted(self, name: str, value: T | None, reason: str) -> T | None:
        if value is None:
            self.unavailable.setdefault(name, reason)
        return value

    def text(self, name: str, path: str) -> str | None:
        try:
            # The device tree ends its texts with a zero byte.
            found = (self._root / path).read_text("utf-8", "replace").strip("\0\n ")
        except FileNotFoundError:
            return self.noted(name, None, f"there is no /{path}")
        except OSError as error:
            return self.noted(name, None, f"/{path} cannot be read: {error.strerror or error}")
        return self.noted(name, found or None, f"/{path} is empty")

    def number(self, name: str, path: str, *, unit: float = 1.0) -> float | None:
        """The first number of a file, divided by `unit`."""
        found = self.text(name, path)
        return None if found is None else self._parsed(name, path, found, unit)

    def entry(self, name: str, path: str, key: str, *, unit: float = 1.0) -> float | None:
        """The number of a line ``key:   1936 kB``, divided by `unit`."""
        for line in (self.text(name, path) or "").splitlines():
            if line.startswith(f"{key}:"):
                return self._parsed(name, path, line.partition(":")[2], unit)
        return self.noted(name, None, f"/{path} has no {key}")

    def cores_physical(self) -> int | None:
        pattern = "sys/devices/system/cpu/cpu[0-9]*/topology/thread_siblings_list"
        try:
            siblings = {path.read_text("ascii").strip() for path in self._root.glob(pattern)}
        except (OSError, ValueError) as error:
            return self.noted("cores_physical", None, f"/{pattern} cannot be read: {error}")
        return self.noted("cores_physical", len(siblings) or None, "the system does not say which threads share a core")

    def memory_limit_mib(self) -> float | None:
        limit, reason = memory_limit(self._root)
        return self.noted("memory_limit_mib", None if limit is None else limit / MIB, reason)

    def system(self) -> str | None:
        for line in (self.text("system", "etc/os-release") or "").splitlines():
            key, _, value = line.partition("=")
            if key == "PRETTY_NAME" and value.strip("\"' "):
                return value.strip("\"' ")
        return self.noted("system", None, "/etc/os-release has no PRETTY_NAME")

    def packages(self) -> dict[str, str | None]:
        versions: dict[str, str | None] = {"edgekit": edgekit.__version__}
        for name in PACKAGES:
            try:
                versions[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                versions[name] = self.noted(f"packages.{name}", None, "not installed")
        return versions

    def _parsed(self, name: str, path: str, text: str, unit: float) -> float | None:
        try:
            return float(text.split(maxsplit=1)[0]) / unit
        except (ValueError, IndexError):
            return self.noted(name, None, f"/{path} has no number")


def _cores_usable() -> int | None:
    # Linux alone has it.
    affinity = getattr(os, "sched_getaffinity", None)
    return None if affinity is None else len(affinity(0))
