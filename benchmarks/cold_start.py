"""From a fresh process to the first answer, and the memory that takes: edgekit against the shortest script that runs the same IR in bare OpenVINO.

    python benchmarks/cold_start.py BUNDLE

Both read the same frame from a `.npy` file that already has the size the graph takes, so that neither is charged for decoding or resizing; edgekit also verifies
every byte of the bundle, preprocesses and explains. With the model cache (OpenVINO's own CACHE_DIR for the bare script, `edgekit build` for edgekit) and without.
Processes alternate; the ratios are of the medians. Memory is VmHWM, the largest resident set.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import save

from edgekit.bundle.reader import open_bundle
from edgekit.profiler.clock import ratio_interval
from edgekit.runtime.engines.engine_cache import ENVIRONMENT

RUNS = 25

Start = tuple[float, float]
"""Milliseconds and MiB of one process."""

BARE = """
import sys
import numpy as np
import openvino
core = openvino.Core()
settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": "1"}
if len(sys.argv) > 3:
    settings["CACHE_DIR"] = sys.argv[3]
model = core.compile_model(sys.argv[1], "CPU", settings)
model(np.load(sys.argv[2])[None])[0]
"""

EDGEKIT = """
import sys
import numpy as np
import edgekit
edgekit.load(sys.argv[1]).predict(np.load(sys.argv[2])[..., 0]).label
"""

PEAK = """
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
"""


def main() -> None:
    bundle = Path(sys.argv[1]).resolve()
    opened = open_bundle(bundle)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for role in ("xml", "bin"):
            (folder / f"model.{role}").write_bytes(opened.members[opened.manifest.engines[0].files[role]])
        np.save(folder / "frame.npy", opened.load_array(opened.manifest.golden.frames)[0])
        ours, bare = (bundle, folder / "frame.npy"), (folder / "model.xml", folder / "frame.npy")
        empty, built = ({**os.environ, ENVIRONMENT: str(folder / name)} for name in ("empty", "built"))
        edgekit = Path(sys.executable).with_name("edgekit")
        subprocess.run([edgekit, "build", bundle], check=True, env=built, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        without = compare(lambda: run(EDGEKIT, ours, empty), lambda: run(BARE, bare, empty))
        cached = compare(lambda: run(EDGEKIT, ours, built), lambda: run(BARE, (*bare, folder / "cache"), built))
    save("cold_start", {"bundle": opened.manifest.name, "runs": RUNS, "without_cache": without, "with_cache": cached})


def compare(ours: Callable[[], Start], bare: Callable[[], Start]) -> dict[str, Any]:
    """Both in turn: time and peak memory."""
    pairs = [(ours(), bare()) for _ in range(RUNS + 2)][2:]
    found: dict[str, Any] = {}
    for index, name in enumerate(("ms", "peak_mib")):
        a, b = (np.array([pair[side][index] for pair in pairs]) for side in (0, 1))
        ratio, low, high = ratio_interval(a, b)
        found[name] = {"ratio": ratio, "low": low, "high": high, "edgekit": float(np.median(a)), "bare": float(np.median(b))}
    return found


def run(code: str, arguments: Sequence[Path], environment: Mapping[str, str]) -> Start:
    """Wall time of one process in milliseconds, and its peak memory in MiB."""
    command = [sys.executable, "-c", code + PEAK, *map(str, arguments)]
    start = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return (time.perf_counter() - start) * 1000, int(done.stdout.split()[-1]) / 1024


if __name__ == "__main__":
    main()
