"""What an explanation costs on the device, beside the peers: ratios of medians, interleaved, with 95 % intervals.

    python benchmarks/explanations.py [--grad-cam PYTHON] [--openvino-xai PYTHON] [--seconds S] [ARCHITECTURE …]

1. edgekit: the INT8 graph with the map against the same classifier compiled without the branch, in one process.
2. openvino_xai: the same question for its ReciproCAM, in its own environment of 2024 (`peer_openvino_xai.py` says how to make it), on the same float graph.
   Only the ratio is comparable: library and OpenVINO are of that time.
3. pytorch-grad-cam: classify and explain in PyTorch (`peer_grad_cam.py`) against edgekit's INT8 graph with the map; both from the preprocessed frame. PyTorch has
   a process of its own with its default threading, and blocks of calls alternate, with a pause in between, as in `speed.py`.

A peer whose interpreter is not given is left out, and what was measured of it before stays. Random weights and synthetic frames: latency does not depend on
them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, save
from numpy.typing import NDArray
from speed import PAUSE_SECONDS, TARGET, make_recipe, plain_artefact

import edgekit
from edgekit.catalog.recipe import Recipe
from edgekit.catalog.target import load_target
from edgekit.cli.console import TerminalProgress
from edgekit.compiler import pack
from edgekit.compiler.load.source import normalize
from edgekit.compiler.pipeline import compile_recipe
from edgekit.compiler.prepare import prepare
from edgekit.compiler.stages.measure import open_artefact
from edgekit.compiler.workspace import Workspace
from edgekit.errors import EdgekitError
from edgekit.imaging import phantom
from edgekit.profiler.clock import Budget, measure_pair, ratio_interval

ARCHITECTURES = (
    "resnet18",
    "tf_efficientnet_lite0",
    "efficientnet_b0",
    "densenet121",
    "mobilenetv2_100",
    "convnext_atto",
    "mobilenetv3_large_100",
    "mobilenetv4_conv_small",
    "vit_tiny_patch16_224",
)
WARM_UP = 20
MIN_PAIRS = 100
BLOCKS = 8
BLOCK_CALLS = 10


def main() -> None:
    asked = arguments()
    path = RESULTS / "explanations.json"
    found: dict[str, Any] = json.loads(path.read_text())["architectures"] if path.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        data = phantom.write_dataset(Path(folder) / "data", patients_per_class=8, frames_per_patient=4, seed=0)
        for name in asked.architectures or ARCHITECTURES:
            found[name] = {**found.get(name, {}), **measure(name, data, Path(folder), asked)}
            print(name, json.dumps(found[name]), flush=True)
            save("explanations", {"architectures": found, "input": [224, 224], "target": TARGET})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--grad-cam", metavar="PYTHON", help="an interpreter with pytorch-grad-cam")
    parser.add_argument("--openvino-xai", metavar="PYTHON", help="an interpreter with openvino_xai")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each comparison")
    parser.add_argument("architectures", nargs="*", metavar="ARCHITECTURE")
    return parser.parse_args()


def measure(architecture: str, data: Path, folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """The comparisons of one architecture that can be made here; a refusal with its reason."""
    recipe, progress = make_recipe(architecture, data, folder), TerminalProgress()
    workspace = Workspace(folder / "work", progress)
    prepared = prepare(recipe, workspace, progress)
    row: dict[str, Any] = {}
    if asked.openvino_xai:
        row["openvino_xai"] = against_openvino_xai(asked.openvino_xai, architecture, prepared.graph.path, asked.seconds, folder)
    try:
        bundle = compile_recipe(recipe, out=folder / f"{architecture}.edgekit", workdir=folder / "work", progress=progress)[0].bundle
    except EdgekitError as error:
        return {**row, "error": error.message}
    if bundle is None:
        return {**row, "error": "no bundle was written"}
    classifier = edgekit.load(bundle)
    tensor = np.ascontiguousarray(prepared.splits["val"].tensors[:1])
    row["has_map"] = classifier.engine.infer(tensor).cam is not None
    if not row["has_map"]:
        return row
    plain = plain_artefact(prepared, workspace)
    plain_engine = open_artefact(plain, pack.engine_spec(load_target(TARGET), plain))
    row["map_over_plain"] = interleaved(lambda: classifier.engine.infer(tensor), lambda: plain_engine.infer(tensor), asked.seconds)
    if asked.grad_cam:
        row["grad_cam_over_int8"] = against_grad_cam(
            asked.grad_cam, architecture, frame_file(recipe, tensor, folder), lambda: classifier.engine.infer(tensor)
        )
    return row


def frame_file(recipe: Recipe, tensor: NDArray[np.uint8], folder: Path) -> Path:
    """The frame as PyTorch takes it."""
    path = folder / "floats.npy"
    np.save(path, normalize(tensor, recipe.input))
    return path


def interleaved(a: Callable[[], object], b: Callable[[], object], seconds: float) -> dict[str, Any]:
    """Median of a over median of b, in one process."""
    for call in (a, b) * WARM_UP:
        call()
    found = measure_pair(a, b, Budget(seconds=seconds, min_samples=MIN_PAIRS, max_seconds=4 * seconds))
    kept = len(found.a.durations_ns) - found.excluded
    return summary(found.a.milliseconds[-kept:], found.b.milliseconds[-kept:])


def against_grad_cam(python: str, architecture: str, frame: Path, ours: Callable[[], object]) -> dict[str, Any]:
    """pytorch-grad-cam over edgekit, block by block."""
    worker = subprocess.Popen(
        [python, str(Path(__file__).with_name("peer_grad_cam.py")), architecture, str(frame)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Where edgekit is, for its way to import torchvision; the environment need not have it installed.
        env={**os.environ, "PYTHONPATH": str(Path(edgekit.__file__).parents[1])},
    )
    if worker.stdin is None or worker.stdout is None:
        raise RuntimeError("the worker has no pipes")
    theirs, mine = [], []
    for block in range(BLOCKS + 1):
        worker.stdin.write(f"{BLOCK_CALLS}\n")
        worker.stdin.flush()
        times = []
        while (line := worker.stdout.readline()) != "done\n":
            if not line:
                return {"error": f"the worker ended with {worker.wait()}"}
            times.append(float(line))
        time.sleep(PAUSE_SECONDS)
        own = block_of(ours)
        if block:  # the first block of either is its warm-up
            theirs += times
            mine += own
    worker.stdin.close()
    worker.wait()
    return summary(np.array(theirs), np.array(mine))


def block_of(call: Callable[[], object]) -> list[float]:
    """Milliseconds of a block's calls, after a few that wake the threads."""
    times = []
    for count in range(5 + BLOCK_CALLS):
        start = time.perf_counter()
        call()
        if count >= 5:
            times.append((time.perf_counter() - start) * 1000)
    return times


def against_openvino_xai(python: str, architecture: str, graph: Path, seconds: float, folder: Path) -> dict[str, Any]:
    """What ReciproCAM costs in its own environment; each way to a graph, or what it failed with."""
    # It tells a vision transformer from a CNN by what it is told, and takes the name from the file's.
    model = folder / f"{architecture}.onnx"
    model.write_bytes(graph.read_bytes())
    settings = json.dumps(dict(load_target(TARGET).engine.settings))
    worker = str(Path(__file__).with_name("peer_openvino_xai.py"))
    ended = subprocess.run([python, worker, str(model), settings, str(seconds)], stdout=subprocess.PIPE, text=True, check=False)
    line = next((line for line in reversed(ended.stdout.splitlines()) if line.startswith("RESULT ")), None)
    if line is None:
        return {"error": f"the worker ended with {ended.returncode}"}
    found = json.loads(line.removeprefix("RESULT "))
    ways = {
        name: way if "error" in way else summary(np.array(way["with_ms"]), np.array(way["without_ms"]))
        for name, way in found["ways"].items()
    }
    return {"versions": found["versions"], "ways": ways}


def summary(a: NDArray[np.float64], b: NDArray[np.float64]) -> dict[str, Any]:
    """The ratio of medians with its interval, both medians, and the number of pairs."""
    value, low, high = ratio_interval(a, b)
    medians = {"a_median_ms": float(np.median(a)), "b_median_ms": float(np.median(b))}
    return {"ratio": value, "low": low, "high": high, **medians, "pairs": len(a)}


if __name__ == "__main__":
    main()
