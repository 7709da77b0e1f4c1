"""The state a Jetson works in: power mode and clocks, which decide a latency as much as the model does. Everything is read, nothing is ever set.

Rules this file keeps:

1. The power mode is what `nvpmodel -q` says; where that cannot be asked, what nvpmodel has written down: `/var/lib/nvpmodel/status` with the number, and
   `/etc/nvpmodel.conf` with the names. Numbers differ between JetPacks, so a name never comes from a table of ours.
2. Clocks come from the kernel's files, which anybody may read; `jetson_clocks --show` needs root and shows the same. A clock is locked where its lowest and
   its highest allowed frequency are one, which is what `jetson_clocks` does.
3. The parsers are functions on texts. What could not be read is None, with the reason beside it.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_QUERIED = re.compile(r"NV Power Mode:\s*(\S+)\s*\n\s*(\d+)\s*$", re.MULTILINE)
_STATUS = re.compile(r"^pmode:(\d+)", re.MULTILINE)
_MODEL = re.compile(r"^\s*<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", re.MULTILINE)
# Names of the GPU in the device tree (Xavier, Orin), and of its clocks on Thor, which has two.
_GPU_NAMES = ("gpu", "gv11b", "ga10b")
_GPU_CLOCKS = re.compile(r"gpu-(?:gpc|nvd)-\d+|\d+\.(?:gpu|gv11b|ga10b)")
_EMC = "sys/kernel/debug/bpmp/debug/clk/emc/rate"
_NVPMODEL = "usr/sbin/nvpmodel"
_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerMode:
    """A power mode: its number, its name ("MAXN_SUPER"; None where only the number is known), and where that was read."""

    id: int
    name: str | None
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """A clock.

    Attributes:
        name: "cpu policy0", "gpu 17000000.gpu", "memory".
        current_mhz: Now.
        lowest_mhz: It may go down to this.
        highest_mhz: It may go up to this.
        governor: What chooses between them.
        locked: Whether they are one and the same frequency.
        reason: Why something is None.
    """

    name: str
    current_mhz: float | None
    lowest_mhz: float | None
    highest_mhz: float | None
    governor: str | None
    locked: bool | None
    reason: str


def parse_query(text: str) -> PowerMode | None:
    """The mode out of the answer of `nvpmodel -q`; None where there is none in it."""
    found = _QUERIED.search(text)
    return PowerMode(id=int(found[2]), name=found[1], source="nvpmodel -q") if found else None


def parse_files(status: str, configuration: str) -> PowerMode | None:
    """The mode out of nvpmodel's own files; None where the first does not name one."""
    found = _STATUS.search(status)
    if found is None:
        return None
    names = {int(number): name for number, name in _MODEL.findall(configuration)}
    number = int(found[1])
    return PowerMode(id=number, name=names.get(number), source="/var/lib/nvpmodel/status")


def ask_nvpmodel(root: Path = Path("/")) -> str:
    """The answer of `nvpmodel -q`; empty where there is no such program, or it does not answer."""
    program = root / _NVPMODEL
    try:
        ended = subprocess.run(  # noqa: S603  one fixed program, which is only asked
            [str(program), "-q"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.SubprocessError, ValueError):
        return ""
    return ended.stdout


def read_power_mode(root: Path = Path("/"), ask: Callable[[Path], str] = ask_nvpmodel) -> tuple[PowerMode | None, str]:
    """The power mode, or why it is not known.

    Args:
        root: Where the file system begins.
        ask: Gives the answer of `nvpmodel -q` (rule 1).
    """
    found = parse_query(ask(root))
    if found is not None:
        return found, ""
    status, problem = _text(root / "var/lib/nvpmodel/status")
    found = parse_files(status, _text(root / "etc/nvpmodel.conf")[0])
    if found is not None:
        return found, ""
    return None, f"nvpmodel -q gives no answer, and /var/lib/nvpmodel/status {problem or 'names no mode'}"


def read_clocks(root: Path = Path("/")) -> tuple[Clock, ...]:
    """The clocks of CPU, GPU and memory.

    Args:
        root: Where the file system begins.
    """
    policies = sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy*"), key=lambda path: int(re.sub(r"\D", "", path.name) or 0))
    found = [_clock(f"cpu {path.name}", path, prefix="scaling_", unit=1e3) for path in policies]
    if not policies:
        found.append(_unknown("cpu", "/sys/devices/system/cpu/cpufreq has no policy"))
    devices = [path for path in sorted((root / "sys/class/devfreq").glob("*")) if _is_gpu(path)]
    found += [_clock(f"gpu {path.name}", path, prefix="", unit=1e6) for path in devices]
    if not devices:
        found.append(_unknown("gpu", "/sys/class/devfreq has no GPU of a Jetson"))
    return (*found, _memory(root))


def _clock(name: str, folder: Path, *, prefix: str, unit: float) -> Clock:
    """A clock of cpufreq, in kHz, or of devfreq, in Hz."""
    values: dict[str, float | None] = {}
    problems = []
    for what in ("cur", "min", "max"):
        text, problem = _text(folder / f"{prefix}{what}_freq")
        values[what] = float(text) / unit if text.strip().isdigit() else None
        if values[what] is None:
            problems.append(f"{prefix}{what}_freq {problem or 'has no number'}")
    governor, problem = _text(folder / f"{prefix}governor")
    return Clock(
        name=name,
        current_mhz=values["cur"],
        lowest_mhz=values["min"],
        highest_mhz=values["max"],
        governor=governor.strip() or None,
        locked=None if values["min"] is None or values["max"] is None else values["min"] == values["max"],
        reason="; ".join(problems + ([f"{prefix}governor {problem}"] if problem else [])),
    )


def _memory(root: Path) -> Clock:
    """The clock of the memory, which only root may look at."""
    text, problem = _text(root / _EMC)
    if not text.strip().isdigit():
        return _unknown("memory", f"/{_EMC} {problem or 'has no number'}; only root may read it")
    reason = "between what it may move is in no file"
    return Clock(name="memory", current_mhz=float(text) / 1e6, lowest_mhz=None, highest_mhz=None, governor=None, locked=None, reason=reason)


def _unknown(name: str, reason: str) -> Clock:
    return Clock(name=name, current_mhz=None, lowest_mhz=None, highest_mhz=None, governor=None, locked=None, reason=reason)


def _is_gpu(folder: Path) -> bool:
    return _GPU_CLOCKS.fullmatch(folder.name) is not None or _text(folder / "device/of_node/name")[0].strip("\0\n") in _GPU_NAMES


def _text(path: Path) -> tuple[str, str]:
    """The text of a file, or why there is none."""
    try:
        return path.read_text("utf-8", "replace"), ""
    except FileNotFoundError:
        return "", "is not there"
    except OSError as error:
        return "", f"cannot be read: {error.strerror or error}"
