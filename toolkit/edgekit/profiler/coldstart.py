"""Time from starting a process to its first answer, and the memory that took.

Rules this file keeps:

1. Every repetition is a fresh interpreter: nothing imported, no engine, no bundle. The files are in the operating system's cache (but for the
   first repetition, maybe), so this is the start of a program, not of a machine.
2. The child inherits the environment, and so finds the edgekit that is measuring; it runs in an empty folder, so that no file beside the caller can
   be imported by accident.
3. Stages are medians over the repetitions; the total of the first one is kept apart, because it may have filled an engine's cache.
4. Making or reading the frame is not part of any stage.
5. The clock is `time.perf_counter_ns`, one clock for all processes, so the total begins before the interpreter does.
6. An edgekit error in the child is raised here as itself; any other end of the child is a `TargetError` with its last words.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit import errors
from edgekit.errors import EdgekitError, TargetError
from edgekit.profiler.memory import Memory

CHILD = "edgekit.profiler.coldstart_child"
RUNTIME = "edgekit"
TIMEOUT_S = 600.0
"""Longest one process may take; building a TensorRT engine on a Jetson takes minutes."""

MAX_QUOTED = 400
"""Characters of the child's last words that go into a hint."""

STAGES = ("interpreter", "import", "load", "first_result", "total")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One start, in milliseconds.

    Attributes:
        interpreter_ms: From starting the process to its first line of Python.
        import_ms: Importing edgekit's runtime with what it needs.
        load_ms: Opening and verifying the bundle, making the engine ready.
        first_result_ms: The first `predict`.
        total_ms: From starting the process to the first result, less the reading of the frame.
        memory: Of the process after the first result.
    """

    interpreter_ms: float
    import_ms: float
    load_ms: float
    first_result_ms: float
    total_ms: float
    memory: Memory


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdStart:
    """All repetitions, in the order they ran."""

    runs: tuple[Run, ...]

    def figures(self) -> dict[str, float | int]:
        """Median of each stage in milliseconds, `first_total` of the first run, and the number of `repeats`; JSON-ready."""
        medians = {stage: statistics.median(getattr(run, f"{stage}_ms") for run in self.runs) for stage in STAGES}
        return {**medians, "first_total": self.runs[0].total_ms, "repeats": len(self.runs)}

    @property
    def memory(self) -> Memory:
        """Median memory over the runs."""
        memories = [run.memory for run in self.runs]
        return Memory(
            peak_mib=_median([memory.peak_mib for memory in memories]),
            resident_mib=_median([memory.resident_mib for memory in memories]),
            proportional_mib=_median([memory.proportional_mib for memory in memories]),
            unavailable=memories[-1].unavailable,
        )


def measure_cold_start(
    bundle: Path,
    frame: NDArray[np.uint8],
    *,
    repeats: int = 5,
    runtime: str = RUNTIME,
    on_progress: Callable[[float], None] | None = None,
) -> ColdStart:
    """Starts fresh processes that open the bundle and answer one frame.

    Args:
        bundle: The bundle.
        frame: uint8 (rows, columns) or (rows, columns, 3).
        repeats: Number of fresh processes, at least 1.
        runtime: Module with the `load` to use.
        on_progress: Told the share that is done, after each process.

    Raises:
        EdgekitError: As itself, when the bundle cannot be opened or the frame not answered.
        TargetError: When the process crashes, hangs or cannot be started.
    """
    if repeats < 1:
        raise EdgekitError(f"a cold start cannot be repeated {repeats} times", hint="repeat it at least once")
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="edgekit-coldstart-") as folder:
        frame_file = Path(folder) / "frame.npy"
        np.save(frame_file, frame, allow_pickle=False)
        for index in range(repeats):
            runs.append(_start(bundle.resolve(), frame_file, runtime))
            if on_progress is not None:
                on_progress((index + 1) / repeats)
    return ColdStart(runs=tuple(runs))


def _start(bundle: Path, frame_file: Path, runtime: str) -> Run:
    folder = frame_file.parent
    result_file, words = folder / "result.json", folder / "stderr.txt"
    result_file.unlink(missing_ok=True)
    command = [sys.executable, "-m", CHILD, runtime, str(bundle), str(frame_file), str(result_file)]
    with words.open("wb") as stderr:
        spawned = time.perf_counter_ns()
        try:
            ended = subprocess.run(  # noqa: S603  the command is this interpreter and our own module
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr, timeout=TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise TargetError(
                f"{bundle.name}: no answer in a fresh process within {TIMEOUT_S:g} s",
                hint=_last_words(words) or "is the machine overloaded?",
            ) from error
        except OSError as error:
            raise TargetError(f"cannot start a fresh Python process: {error}", hint=f"tried {sys.executable}") from error
    try:
        result = json.loads(result_file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        how = f"signal {-ended.returncode}" if ended.returncode < 0 else f"exit status {ended.returncode}"
        raise TargetError(f"{bundle.name}: a fresh process crashed before its first result ({how})", hint=_last_words(words)) from error
    if "error" in result:
        raise _child_error(result["error"])
    return _run(result, spawned)


def _run(result: dict[str, Any], spawned: int) -> Run:
    started, imported, loaded = result["started_ns"], result["imported_ns"], result["loaded_ns"]
    framed, finished = result["frame_ns"], result["finished_ns"]
    return Run(
        interpreter_ms=(started - spawned) / 1e6,
        import_ms=(imported - started) / 1e6,
        load_ms=(loaded - imported) / 1e6,
        first_result_ms=(finished - framed) / 1e6,
        total_ms=(finished - spawned - (framed - loaded)) / 1e6,
        memory=Memory(**result["memory"]),
    )


def _child_error(found: dict[str, str]) -> EdgekitError:
    kind = getattr(errors, found["kind"], EdgekitError)
    return kind(found["message"], hint=found["hint"]) if issubclass(kind, EdgekitError) else EdgekitError(found["message"])


def _last_words(file: Path) -> str:
    lines = [line.strip() for line in file.read_text("utf-8", "replace").splitlines() if line.strip()]
    return f"its last words: {lines[-1][:MAX_QUOTED]}" if lines else "it said nothing"


def _median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if len(known) == len(values) else None
