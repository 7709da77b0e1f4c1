"""Energy that the machine itself counts: Intel's and AMD's RAPL, the INA3221 of a Jetson, and as a last resort what `tegrastats` prints.

Rules this file keeps:

1. A meter says what it measures (`scope`): the whole board, the processor's package, or some rails. Nothing is scaled up to what is not measured.
2. RAPL's counters wrap around; a difference below zero is one wrap, which holds where a reading comes more often than a wrap (minutes at full power).
3. A meter of power is integrated over the readings (trapezoids): power that changes faster than it is read is seen only on average. When it is read is
   not for the frames to choose (`sampler.py`).
4. No meter, or one that may not be read, is a reason and no figure. Nobody is asked to become root.
5. A counter of RAPL that does not move (firmware and virtual machines have such) measures nothing, and is passed over with the reason.

Sources: Linux Documentation/power/powercap/powercap.rst (microjoules), Documentation/hwmon/ina3221.rst (millivolts, milliamperes);
NVIDIA Jetson Linux Developer Guide, "Software-Based Power Consumption Modeling" (rails) and "tegrastats Utility".
"""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from edgekit.errors import TargetError
from edgekit.profiler.pacing import Clock

WHOLE_BOARD = ("VDD_IN", "POM_5V_IN")
"""Rails that everything on a Jetson's board is fed from."""

NOTHING = "no RAPL counter in /sys/class/powercap, no INA3221 in /sys/class/hwmon and no tegrastats"
# "VDD_IN 4876mW/4900mW", on older systems without the unit; "RAM 2448/7620MB" is none.
_RAIL = re.compile(r"(?<!\S)(?P<rail>[A-Z][A-Z0-9_]*) (?P<now>\d+)(?:mW)?/(?P<mean>\d+)(?:mW)?(?!\S)")
_CHANNELS = (1, 2, 3)
_TEGRASTATS = "usr/bin/tegrastats"
_INTERVAL_MS = 500
_FIRST_LINE_S = 5.0
_MOVES_WITHIN_S = 0.5
_LOOK_AGAIN_S = 0.01
"""The kernel counts about every millisecond, at rest too."""


class Meter(Protocol):
    """Something that counts energy."""

    @property
    def source(self) -> str:
        """What is read: ``"RAPL"``, ``"INA3221"``, ``"tegrastats"``."""

    @property
    def scope(self) -> str:
        """What is measured, for people."""

    def joules(self, now_s: float) -> float:
        """Energy since the first call.

        Args:
            now_s: Seconds on any clock that does not go back, the same one each time.

        Raises:
            TargetError: The meter can no longer be read.
        """

    def close(self) -> None:
        """Gives back what the meter holds."""


class RaplMeter:
    """Adds up counters of RAPL (rule 2)."""

    source = "RAPL"

    def __init__(self, zones: Sequence[Path], scope: str) -> None:
        self.scope = scope
        self._zones = zones
        self._wraps_at_uj = [int((zone / "max_energy_range_uj").read_text("ascii")) for zone in zones]
        self._last = [_microjoules(zone) for zone in zones]
        self._sum_uj = 0

    def joules(self, now_s: float) -> float:  # noqa: ARG002 - a counter needs no clock
        try:
            found = [_microjoules(zone) for zone in self._zones]
        except (OSError, ValueError) as error:
            raise TargetError(f"the counter of RAPL can no longer be read: {error}") from error
        for wraps_at, last, now in zip(self._wraps_at_uj, self._last, found, strict=True):
            self._sum_uj += now - last if now >= last else now - last + wraps_at
        self._last = found
        return self._sum_uj / 1e6

    def close(self) -> None:
        """A file is opened for each reading alone."""


class PowerMeter:
    """Integrates a power (rule 3).

    Args:
        source: What is read.
        scope: What it measures.
        watts: Reads the power; raises `TargetError` where that no longer works.
        close: Gives back what `watts` holds.
    """

    def __init__(self, source: str, scope: str, watts: Callable[[], float], close: Callable[[], None] = lambda: None) -> None:
        self.source, self.scope = source, scope
        self._watts, self._close = watts, close
        self._last: tuple[float, float] | None = None
        self._joules = 0.0

    @property
    def last_w(self) -> float:
        """The power at the last reading; 0 before the first."""
        return 0.0 if self._last is None else self._last[1]

    def joules(self, now_s: float) -> float:
        power = self._watts()
        if self._last is not None:
            self._joules += (power + self._last[1]) / 2 * (now_s - self._last[0])
        self._last = now_s, power
        return self._joules

    def close(self) -> None:
        self._close()


def find_meter(root: Path = Path("/"), *, clock: Clock | None = None) -> Meter | str:
    """The meter of this machine that sees most of it, or why there is none.

    Args:
        root: Where the file system begins.
        clock: Time and waiting, for whether a counter moves.
    """
    problems: list[str] = []
    rails = _ina3221(root)
    if set(rails) & set(WHOLE_BOARD):
        return _rail_meter(rails)
    found = _rapl(root, clock or Clock(), problems)
    if found is not None:
        return found
    if rails:
        return _rail_meter(rails)
    command = root / _TEGRASTATS
    if command.is_file():
        try:
            return tegrastats_meter(command)
        except TargetError as error:
            problems.append(error.message)
    return "; ".join(problems) or NOTHING


def parse_tegrastats(line: str) -> dict[str, float]:
    """Rail to watts of one line of `tegrastats`; empty where it has none."""
    return {match["rail"]: int(match["now"]) / 1e3 for match in _RAIL.finditer(line)}


def rail_scope(names: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """Which of the rails are added up, and what that is: the one that feeds the whole board where there is one."""
    board = [name for name in names if name in WHOLE_BOARD]
    if board:
        return (board[0],), f"whole board ({board[0]})"
    return tuple(names), f"the rails {', '.join(names)}; not the whole board"


def _rapl(root: Path, clock: Clock, problems: list[str]) -> RaplMeter | None:
    zones = sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
    names = {zone: name for zone in zones if (name := _text(zone / "name"))}
    psys = [zone for zone, name in names.items() if name == "psys"][:1]
    packages = [zone for zone, name in names.items() if name.startswith("package")]
    memory = [zone for zone, name in names.items() if name == "dram"]
    for needed, beside, scope in ((psys, [], "whole platform (psys)"), (packages, memory, "processor package")):
        if not needed:
            continue
        try:
            moving = _moving([*needed, *beside], clock)
            if set(needed) <= moving:
                also = [zone for zone in beside if zone in moving]
                return RaplMeter([*needed, *also], scope + (" and memory" if also else ""))
            problems.append(f"a counter of RAPL, {scope}, stands still")
        except PermissionError:
            problems.append("RAPL is there, but only root may read /sys/class/powercap/*/energy_uj")
        except (OSError, ValueError) as error:
            problems.append(f"RAPL cannot be read: {error}")
    return None


def _moving(zones: Sequence[Path], clock: Clock) -> set[Path]:
    """Those whose counter rises while one looks (rule 5)."""
    first = {zone: _microjoules(zone) for zone in zones}
    moving: set[Path] = set()
    until = clock.now_ns() + round(_MOVES_WITHIN_S * 1e9)
    while len(moving) < len(zones) and (now := clock.now_ns()) < until:
        clock.wait_until(now + round(_LOOK_AGAIN_S * 1e9))
        moving |= {zone for zone in zones if _microjoules(zone) != first[zone]}
    return moving


def _microjoules(zone: Path) -> int:
    return int((zone / "energy_uj").read_text("ascii"))


def _ina3221(root: Path) -> dict[str, tuple[Path, Path]]:
    """Rail to the files of its voltage and current."""
    found: dict[str, tuple[Path, Path]] = {}
    for device in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if _text(device / "name") != "ina3221":
            continue
        for channel in _CHANNELS:
            label = _text(device / f"in{channel}_label")
            files = device / f"in{channel}_input", device / f"curr{channel}_input"
            if label not in {"", "NC"} and all(_text(file).lstrip("-").isdigit() for file in files):
                found[label] = files
    return found


def _rail_meter(rails: Mapping[str, tuple[Path, Path]]) -> PowerMeter:
    names, scope = rail_scope(list(rails))

    def watts() -> float:
        try:
            # Millivolts times milliamperes are microwatts.
            return sum(int(rails[name][0].read_text("ascii")) * int(rails[name][1].read_text("ascii")) for name in names) / 1e6
        except (OSError, ValueError) as error:
            raise TargetError(f"the INA3221 can no longer be read: {error}") from error

    return PowerMeter("INA3221", scope, watts)


def tegrastats_meter(command: Path) -> PowerMeter:
    """Runs `tegrastats` beside the measurement and takes the last line it wrote.

    Args:
        command: The program.

    Raises:
        TargetError: It cannot be started, or tells no power.
    """
    try:
        process = subprocess.Popen(  # noqa: S603 - the system's own program
            [str(command), "--interval", str(_INTERVAL_MS)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    except OSError as error:
        raise TargetError(f"tegrastats cannot be started: {error}") from error
    reader = _LastLine(process)
    first = reader.wait(_FIRST_LINE_S)
    if not first:
        reader.close()
        raise TargetError("tegrastats tells no power")
    names, scope = rail_scope(list(first))

    def watts() -> float:
        rails = reader.rails()
        if not rails or not set(names) <= set(rails):
            raise TargetError("tegrastats has stopped telling the power")
        return sum(rails[name] for name in names)

    return PowerMeter("tegrastats", scope, watts, reader.close)


class _LastLine:
    """Keeps the last line of a program that writes one every half a second."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lock = threading.Lock()
        self._there = threading.Event()
        self._rails: dict[str, float] = {}
        self._thread = threading.Thread(target=self._read, name="edgekit-tegrastats", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            rails = parse_tegrastats(line)
            with self._lock:
                self._rails = rails
            self._there.set()
        # It has ended: what it said last is no power of now.
        with self._lock:
            self._rails = {}
        self._there.set()

    def wait(self, seconds: float) -> dict[str, float]:
        self._there.wait(seconds)
        return self.rails()

    def rails(self) -> dict[str, float]:
        with self._lock:
            return dict(self._rails)

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join(timeout=2)
        if self._process.stdout is not None:
            self._process.stdout.close()


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
