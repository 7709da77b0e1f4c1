"""Memory of a process, from the kernel's own books.

Rules this file keeps:

1. Peak is VmHWM of `/proc/self/status`. Not `ru_maxrss`: a child inherits the peak of the parent that started it, however large that was.
2. A figure the system does not give is None, with the reason.
3. A process measures itself, and nothing that measures lives in it: the profile reads the figures of a fresh child (`coldstart.py`).

Does not count memory of an accelerator that has its own; on a Jetson the GPU shares the host's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MIB = 1024.0 * 1024.0
PROCESS = Path("/proc/self")


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Memory of one process in MiB.

    Attributes:
        peak_mib: Largest resident set since the process started (VmHWM).
        resident_mib: Resident set now (VmRSS), pages shared with other processes counted in full.
        proportional_mib: Resident set now with shared pages divided among their users (PSS).
        unavailable: Field name to the reason why it is None.
    """

    peak_mib: float | None
    resident_mib: float | None
    proportional_mib: float | None
    unavailable: dict[str, str]


def read(process: Path = PROCESS) -> Memory:
    """Reads the memory of a process.

    Args:
        process: Its folder under `/proc`.
    """
    sources = {"peak_mib": ("status", "VmHWM"), "resident_mib": ("status", "VmRSS"), "proportional_mib": ("smaps_rollup", "Pss")}
    figures: dict[str, float | None] = {}
    unavailable: dict[str, str] = {}
    for name, (file, key) in sources.items():
        value, reason = _field(process / file, key)
        figures[name] = value
        if reason:
            unavailable[name] = reason
    return Memory(
        peak_mib=figures["peak_mib"],
        resident_mib=figures["resident_mib"],
        proportional_mib=figures["proportional_mib"],
        unavailable=unavailable,
    )


def _field(path: Path, key: str) -> tuple[float | None, str]:
    """(MiB, "") of a line like ``VmHWM:   1936 kB``, or (None, why not)."""
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError as error:
        return None, f"{path} cannot be read: {error.strerror or error}"
    value = _entry(lines, key)
    return value, "" if value is not None else f"{path} has no {key}"


def _entry(lines: list[str], key: str) -> float | None:
    """MiB of the line of that name."""
    for line in lines:
        name, _, rest = line.partition(":")
        number = rest.split()
        if name == key and len(number) == 2 and number[0].isdecimal() and number[1] == "kB":
            return int(number[0]) * 1024 / MIB
    return None


def held_mib(process: Path = PROCESS) -> tuple[float | None, float | None]:
    """(proportional, own) memory of a process now in MiB; None where the system does not tell. One file is read, for who reads it often.

    Proportional is PSS, which rises when another process that shares a library ends. Own is what is no file's, swapped out or not: a program that keeps
    what it should give back shows there, and nobody else does.

    Args:
        process: Its folder under `/proc`.
    """
    try:
        lines = (process / "smaps_rollup").read_text("utf-8", "replace").splitlines()
    except OSError:
        return None, None
    pss, anonymous, swapped = (_entry(lines, key) for key in ("Pss", "Anonymous", "Swap"))
    return pss, None if anonymous is None else anonymous + (swapped or 0.0)
