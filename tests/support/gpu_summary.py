"""What a run of `tests/gpu` says at its end: on which machine, how each test ended, and what was measured. Markdown, to be pasted into an issue."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gpu import driver, read_gpu

import edgekit

PACKAGES = ("cuda-python", "cuda-bindings", "pycuda", "torch", "onnxruntime-gpu", "onnxruntime", "onnx", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A test, how it ended ("passed", "failed", "skipped"), and what was measured or why."""

    test: str
    outcome: str
    told: str


def machine() -> list[str]:
    """Lines on the GPU, its driver and the libraries."""
    asked = driver()
    if isinstance(asked, str):
        found = asked
    else:
        gpu = read_gpu(asked)
        found = f"{gpu.name}, compute capability {gpu.compute_capability}, {gpu.memory_bytes / 2**30:.1f} GiB, driver for CUDA {gpu.cuda}"
    return [
        f"- GPU: {found}",
        f"- edgekit {edgekit.__version__}, Python {platform.python_version()}, {platform.system()} {platform.release()} {platform.machine()}",
        f"- {', '.join(f'{name} {version}' for name in PACKAGES if (version := _version(name)))}",
    ]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def told(properties: Iterable[tuple[str, object]]) -> str:
    """What a test measured, in one line."""
    return "; ".join(f"{name}: {value}" for name, value in properties)


def reason(longrepr: object) -> str:
    """Why a test was skipped, or the last line of how it failed."""
    if isinstance(longrepr, tuple) and len(longrepr) == 3:
        return str(longrepr[2]).removeprefix("Skipped: ")
    lines = [line for line in str(longrepr).splitlines() if line.startswith("E ")] or str(longrepr).splitlines() or [""]
    return " ".join(lines[0].removeprefix("E").split())


def summary(lines: Sequence[Line]) -> list[str]:
    """The whole text. Tests of one file that were skipped for one reason are one row."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for line in lines:
        file, _, name = line.test.partition("::")
        key = (file, line.outcome, line.told) if line.outcome == "skipped" else (line.test, line.outcome, line.told)
        rows.setdefault(key, []).append(name)
    counts = {outcome: sum(line.outcome == outcome for line in lines) for outcome in ("passed", "failed", "skipped")}
    return [
        "### edgekit on an NVIDIA GPU",
        "",
        *machine(),
        f"- {', '.join(f'{count} {outcome}' for outcome, count in counts.items())}",
        "",
        "| test | outcome | measured, or why |",
        "|---|---|---|",
        *(
            f"| `{where}`{f' ({len(names)} tests)' if len(names) > 1 else ''} | {outcome.upper()} | {text.replace('|', '/')} |"
            for (where, outcome, text), names in rows.items()
        ),
    ]
