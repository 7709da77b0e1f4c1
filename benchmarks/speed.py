"""What compiling buys, and what edgekit costs: ratios of medians, interleaved in one process, with 95 % intervals.

    python benchmarks/speed.py

1. INT8 in edgekit's graph (uint8 frame in, logits and map out) against the same model in PyTorch eager FP32, same cores.
2. `predict` (480 × 640 grey frame in; label, probabilities and map out) against a bare OpenVINO `infer` of the same INT8 network without the map.
3. The INT8 graph with the map against the same classifier compiled without the branch.

Random weights and synthetic frames: latency does not depend on them. PyTorch's idle threads sleep (OMP_WAIT_POLICY=PASSIVE), so they do not slow
OpenVINO's.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import json
import tempfile
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
from edgekit.profiler.clock import Budget, Comparison, measure_pair
from edgekit.runtime.engines.openvino import load_library

ARCHITECTURES = ("tf_efficientnet_lite0", "resnet18", "densenet121")
TARGET = "x86-64"
BUDGET = Budget(seconds=20.0, min_samples=300, max_seconds=120.0)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = phantom.write_dataset(Path(folder) / "data", patients_per_class=8, frames_per_patient=4, seed=0)
        found = {name: measure(name, data, Path(folder)) for name in ARCHITECTURES}
    save("speed", {"architectures": found, "frame": [480, 640], "input": [224, 224]})


def measure(architecture: str, data: Path, folder: Path) -> dict[str, Any]:
    """The three comparisons of one architecture."""
    import torch

    module, recipe = model(architecture, data, folder)
    progress = TerminalProgress()
    bundle = compile_recipe(recipe, out=folder / f"{architecture}.edgekit", workdir=folder / "work", progress=progress)[0].bundle
    classifier = edgekit.load(bundle)
    workspace = Workspace(folder / "work", progress)
    prepared = prepare(recipe, workspace, progress)
    tensor = np.ascontiguousarray(prepared.splits["val"].tensors[:1])
    plain = plain_artefact(prepared, workspace)
    plain_engine = open_artefact(plain, pack.engine_spec(load_target(TARGET), "int8", len(recipe.model.labels)))
    bare = bare_openvino(plain)
    floats = torch.from_numpy(normalize(tensor, recipe.input))
    frame = phantom.frame("b-lines", patient=0, index=0, seed=0, spec=PhantomSpec(rows=480, columns=640))

    def eager() -> object:
        with torch.inference_mode():
            return module(floats)

    return {
        "eager_over_int8": ratio(eager, lambda: classifier.engine.infer(tensor)),
        "predict_over_bare": ratio(lambda: classifier.predict(frame), lambda: bare(tensor)),
        "map_over_plain": ratio(lambda: classifier.engine.infer(tensor), lambda: plain_engine.infer(tensor)),
    }


def model(architecture: str, data: Path, folder: Path) -> tuple[Any, Recipe]:
    """A module with random weights, and the recipe that compiles it."""
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
    return module, load_recipe("phantom-lung", settings=settings)


def plain_artefact(prepared: Prepared, workspace: Workspace) -> Artefact:
    """The same classifier, compiled without the map's branch."""
    graph = workspace.run(ExplainStage(graph=prepared.graph, input=prepared.recipe.input, cam=False), label="plain")
    frames = prepared.calibration
    return workspace.run(
        QuantizeStage(graph=graph, rung="ptq", calibration=frames.tensors, calibration_sha256=frames.sha256), label="plain"
    )


def bare_openvino(artefact: Artefact) -> Callable[[np.ndarray[Any, Any]], object]:
    """The shortest way to run an IR: no copies, no checks; the same settings."""
    core = load_library().Core()
    request = core.compile_model(str(artefact.files["xml"]), "CPU", dict(load_target(TARGET).settings)).create_infer_request()
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
