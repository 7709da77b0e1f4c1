"""Limits that a container or a service manager sets on this process: cores' worth of time, and memory.

Reads control groups version 2 (`cpu.max`, `memory.max`) and 1 (`cpu.cfs_quota_us`, `memory.limit_in_bytes`). A limit of any group above this
process holds, so the smallest one counts. Inside a container the path of the group may be the host's and not exist here; its parents are then
tried, up to the root of what is mounted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

UNLIMITED_BYTES = 1 << 60
"""Version 1 writes "no limit" as the largest page-aligned number."""


def cpu_limit(root: Path) -> tuple[float | None, str]:
    """(cores' worth of time, "") or (None, why there is none).

    Args:
        root: Where `/proc` and `/sys` are.
    """
    return _smallest(root, "cpu", _cpu_limit)


def memory_limit(root: Path) -> tuple[float | None, str]:
    """(bytes, "") or (None, why there is none).

    Args:
        root: Where `/proc` and `/sys` are.
    """
    return _smallest(root, "memory", _memory_limit)


def _smallest(root: Path, controller: str, read: Callable[[Path], float | None]) -> tuple[float | None, str]:
    found: list[float] = []
    readable = False
    for folder in _groups(root, controller):
        try:
            limit = read(folder)
        except (OSError, ValueError, IndexError, ZeroDivisionError):
            # This group has no such file, or one of another form; a group above it may have one.
            continue
        readable = True
        if limit is not None:
            found.append(limit)
    if found:
        return min(found), ""
    return None, "no limit is set" if readable else f"no control group for {controller} is readable"


def _groups(root: Path, controller: str) -> Iterator[Path]:
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    mount = root / "sys/fs/cgroup"
    for line in lines:
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if hierarchy == "0" and not controllers:
            base = mount
        elif controller in controllers.split(","):
            base = mount / controller if (mount / controller).is_dir() else mount / controllers
        else:
            continue
        group = Path(path.lstrip("/"))
        yield from (base / part for part in (group, *group.parents) if ".." not in part.parts)


def _cpu_limit(folder: Path) -> float | None:
    if (folder / "cpu.max").is_file():
        quota, period = (folder / "cpu.max").read_text("ascii").split()
        return None if quota == "max" else int(quota) / int(period)
    microseconds = int((folder / "cpu.cfs_quota_us").read_text("ascii"))
    return None if microseconds < 0 else microseconds / int((folder / "cpu.cfs_period_us").read_text("ascii"))


def _memory_limit(folder: Path) -> float | None:
    if (folder / "memory.max").is_file():
        text = (folder / "memory.max").read_text("ascii").strip()
        return None if text == "max" else float(int(text))
    count = int((folder / "memory.limit_in_bytes").read_text("ascii"))
    return None if count >= UNLIMITED_BYTES else float(count)
