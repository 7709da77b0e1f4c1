"""What compiling buys, and what edgekit costs: ratios of medians, interleaved, with 95 % intervals.

    python benchmarks/speed.py

1. INT8 in edgekit's graph (uint8 frame in, logits and map out) against the same model in PyTorch eager FP32, same cores.
2. `predict` (480 × 640 grey frame in; label, probabilities and map out), and with the overlay drawn, against a bare OpenVINO `infer` of the same INT8 network without
   the map and without preprocessing.
3. The INT8 graph with the map against the same classifier compiled without the branch.
4. The stages of predict, each against the same bare `infer`: what the difference consists of.

Random weights and synthetic frames: latency does not depend on them. PyTorch runs in a process of its own with its own default threading, which is
fastest for it; blocks of frames alternate between the processes, with a pause in between, so that the idle one's threads are asleep.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import save

import edgekit
from edgekit.catalog.recipe import Recipe, load_recipe
from edgekit.catalog.target import load_target
from edgekit.cli.console import TerminalProgress
from edgekit.compiler import pack
from edgekit.compiler.load.source import normalize
from edgekit.compiler.pipeline import compile_recipe
from edgekit.compiler.prepare import Prepared, prepare
from edgekit.compiler.stages.explain import ExplainStage
from edgekit.compiler.stages.measure import open_artefact
from edgekit.compiler.stages.quantize import Artefact, QuantizeStage
from edgekit.compiler.torchvision_ops import define_missing_operators
from edgekit.compiler.workspace import Workspace
from edgekit.imaging import phantom
from edgekit.imaging.phantom_scanner import PhantomSpec
from edgekit.imaging.preprocess import preprocess
from edgekit.profiler.clock import Budget, Comparison, measure_pair, ratio_interval
from edgekit.runtime.engines.openvino import load_library

ARCHITECTURES = ("tf_efficientnet_lite0", "resnet18", "densenet121", "deit_small_patch16_224")
TARGET = "x86-64"
BUDGET = Budget(seconds=8.0, min_samples=300, max_seconds=60.0)
BLOCKS = 12
BLOCK_FRAMES = 30
PAUSE_SECONDS = 0.3


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = phantom.write_dataset(Path(folder) / "data", patients_per_class=8, frames_per_patient=4, seed=0)
        found = {name: measure(name, data, Path(folder)) for name in ARCHITECTURES}
    save("speed", {"architectures": found, "frame": [480, 640], "input": [224, 224]})


def measure(architecture: str, data: Path, folder: Path) -> dict[str, Any]:
    """The three comparisons of one architecture."""
    recipe = make_recipe(architecture, data, folder)
    progress = TerminalProgress()
    bundle = compile_recipe(recipe, out=folder / f"{architecture}.edgekit", workdir=folder / "work", progress=progress)[0].bundle
    classifier = edgekit.load(bundle)
    workspace = Workspace(folder / "work", progress)
    prepared = prepare(recipe, workspace, progress)
    tensor = np.ascontiguousarray(prepared.splits["val"].tensors[:1])
    plain = plain_artefact(prepared, workspace)
    plain_engine = open_artefact(plain, pack.engine_spec(load_target(TARGET), plain))
    bare = bare_openvino(plain)
    np.save(folder / "floats.npy", normalize(tensor, recipe.input))
    frame = phantom.frame("b-lines", patient=0, index=0, seed=0, spec=PhantomSpec(rows=480, columns=640))

    return {
        "eager_over_int8": against_eager(architecture, folder / "floats.npy", lambda: classifier.engine.infer(tensor)),
        "predict_over_bare": ratio(lambda: classifier.predict(frame), lambda: bare(tensor)),
        "overlay_over_bare": ratio(lambda: classifier.predict(frame).overlay(), lambda: bare(tensor)),
        "preprocess_over_bare": ratio(lambda: preprocess(frame, recipe.input), lambda: bare(tensor)),
        "infer_over_bare": ratio(lambda: classifier.engine.infer(tensor), lambda: bare(tensor)),
        "map_over_plain": ratio(lambda: classifier.engine.infer(tensor), lambda: plain_engine.infer(tensor)),
    }


def make_recipe(architecture: str, data: Path, folder: Path) -> Recipe:
    """Random weights, and the recipe that compiles them."""
    define_missing_operators()
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    module = timm.create_model(architecture, pretrained=False, num_classes=len(phantom.LABELS)).eval()
    weights = folder / f"{architecture}.safetensors"
    save_file(module.state_dict(), weights)
    settings = [
        f"model.source={json.dumps('timm:' + architecture)}",
        f"model.weights={json.dumps(str(weights))}",
        f"data.manifest={json.dumps(str(data))}",
        "input.resize=[248, 248]",
        "input.crop=[224, 224]",
        'compress.quantize.ladder=["ptq"]',
        "accept.enforce=false",
    ]
    return load_recipe("phantom-lung", settings=settings)


EAGER = """
import sys, time
from edgekit.compiler.torchvision_ops import define_missing_operators
define_missing_operators()
import numpy, timm, torch
model = timm.create_model(sys.argv[1], pretrained=False, num_classes=3).eval()
frame = torch.from_numpy(numpy.load(sys.argv[2]))
for line in sys.stdin:
    with torch.inference_mode():
        for count in range(5 + int(line)):
            start = time.perf_counter()
            model(frame)
            if count >= 5:
                print((time.perf_counter() - start) * 1000)
    print("done", flush=True)
"""


def against_eager(architecture: str, frame: Path, int8: Callable[[], object]) -> dict[str, Any]:
    """PyTorch eager FP32 over INT8, block by block."""
    worker = subprocess.Popen(
        [sys.executable, "-c", EAGER, architecture, str(frame)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    if worker.stdin is None or worker.stdout is None:
        raise RuntimeError("the worker has no pipes")
    eager, ours = [], []
    for block in range(BLOCKS + 1):
        worker.stdin.write(f"{BLOCK_FRAMES}\n")
        worker.stdin.flush()
        theirs = [float(line) for line in iter(worker.stdout.readline, "done\n")]
        time.sleep(PAUSE_SECONDS)
        mine = []
        for count in range(5 + BLOCK_FRAMES):
            start = time.perf_counter()
            int8()
            if count >= 5:
                mine.append((time.perf_counter() - start) * 1000)
        if block:  # the first block of either is its warm-up
            eager += theirs
            ours += mine
    worker.stdin.close()
    worker.wait()
    value, low, high = ratio_interval(np.array(eager), np.array(ours))
    return {
        "ratio": value,
        "low": low,
        "high": high,
        "a_median_ms": float(np.median(eager)),
        "b_median_ms": float(np.median(ours)),
        "pairs": len(eager),
        "steady": True,
    }


def plain_artefact(prepared: Prepared, workspace: Workspace) -> Artefact:
    """The same classifier, compiled without the map's branch."""
    graph = workspace.run(ExplainStage(graph=prepared.graph, input=prepared.recipe.input, map="none"), label="plain")
    frames = prepared.calibration
    return workspace.run(
        QuantizeStage(
            graph=graph,
            rung="ptq",
            calibration=frames.tensors,
            calibration_sha256=frames.sha256,
            half_weights=load_target(TARGET).int8_saturates,
        ),
        label="plain",
    )


def bare_openvino(artefact: Artefact) -> Callable[[np.ndarray[Any, Any]], object]:
    """The shortest way to run an IR: no copies, no checks; the same settings."""
    core = load_library().Core()
    request = core.compile_model(str(artefact.files["xml"]), "CPU", dict(load_target(TARGET).engine.settings)).create_infer_request()
    return lambda tensor: request.infer([tensor], share_inputs=True, share_outputs=True)[0]


def ratio(a: Callable[[], object], b: Callable[[], object]) -> dict[str, Any]:
    """Median of a over median of b, interleaved."""
    for call in (a, b) * 20:
        call()
    found: Comparison = measure_pair(a, b, BUDGET)
    return {
        "ratio": found.ratio,
        "low": found.low,
        "high": found.high,
        "a_median_ms": float(np.median(found.a.milliseconds)),
        "b_median_ms": float(np.median(found.b.milliseconds)),
        "pairs": len(found.a.durations_ns) - found.excluded,
        "steady": found.steady,
    }


if __name__ == "__main__":
    main()
