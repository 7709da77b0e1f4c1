"""The engines that read ONNX: what their artefacts are worth on the real teachers, and how fast ONNX Runtime is.

    EDGEKIT_REAL_DATA=… python benchmarks/engines.py [TEACHER …]     accepted or refused, for a Jetson and for ONNX Runtime
    EDGEKIT_REAL_DATA=… python benchmarks/engines.py --pruned        pruned for a Jetson by counting, and trained again
    python benchmarks/engines.py --speed ARCHITECTURE…               on a quiet machine

Acceptance is the compile's own: the gates of each recipe, on `test`. TensorRT's artefacts run in the numerical oracle (ONNX Runtime without optimization), so this says
what the graphs compute, not how fast, and not that a device computes the same.

Speed, ratios of medians, interleaved, as in `speed.py`: PyTorch eager over ONNX Runtime INT8; `predict` over a bare ONNX Runtime session; OpenVINO with ONNX Runtime's
Q/DQ file over OpenVINO with NNCF's model. (OpenVINO 2026.4.1 ends the process with a segmentation fault when it compiles ONNX Runtime's file of densenet121; edgekit itself never gives it such a file.)
"""

from __future__ import annotations

import datetime as dt
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, TEACHERS, Teacher, save, teacher_recipe
from speed import against_eager, make_recipe, ratio

import edgekit
from edgekit.bundle.reader import open_bundle
from edgekit.catalog.recipe import Recipe
from edgekit.catalog.target import load_target
from edgekit.cli.console import TerminalProgress
from edgekit.compiler.load.source import normalize
from edgekit.compiler.pipeline import compile_recipe
from edgekit.imaging import phantom
from edgekit.imaging.phantom_scanner import PhantomSpec
from edgekit.runtime.engines.onnxruntime import PROVIDER, load_library, session_options
from edgekit.runtime.engines.openvino import shared_core

WORKDIR = Path(".edgekit")
JETSON, RUNTIME, OPENVINO = "jetson-orin-nano-8gb", "x86-64-onnxruntime", "x86-64"


KEPT = ("teachers", "pruned", "speed", "dates")
"""Parts of the result; `dates` has the day of each teacher and of the speeds, since the file's own is that of the last part."""

# What is pruned, and how: chosen before it ran, not by `test`.
PRUNED = {
    "kermany-lite0": (
        'compress.prune={criterion="taylor",macs_target=0.6,steps=2,recovery_epochs=1}',
        "compress.distill={epochs=3,frames_per_epoch=960,learning_rate=1e-3,hard_weight=0.5,cam_weight=1.0}",
        'compress.quantize.ladder=["ptq-full"]',
    )
}


def main() -> None:
    path = RESULTS / "engines.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    found = {key: found.get(key, {}) for key in KEPT}
    today = dt.datetime.now(dt.timezone.utc).date().isoformat()
    if sys.argv[1:2] == ["--pruned"]:
        for teacher in TEACHERS:
            if teacher.recipe in PRUNED:
                found["pruned"][teacher.recipe] = {**pruned(teacher), "date": today}
                save("engines", found)
        return
    if sys.argv[1:2] == ["--speed"]:
        with tempfile.TemporaryDirectory() as folder:
            data = phantom.write_dataset(Path(folder) / "data", patients_per_class=8, frames_per_patient=4, seed=0)
            for name in sys.argv[2:]:
                found["speed"][name] = speed(name, data, Path(folder))
        found["dates"]["speed"] = today
        save("engines", found)
        return
    for teacher in TEACHERS:
        if not sys.argv[1:] or teacher.recipe in sys.argv[1:]:
            found["teachers"][teacher.recipe] = accepted(teacher)
            found["dates"][teacher.recipe] = today
            save("engines", found)


def accepted(teacher: Teacher) -> dict[str, Any]:
    """Every engine of the Jetson, and ONNX Runtime on this CPU, each judged by the recipe's gates."""
    (WORKDIR / "bundles").mkdir(parents=True, exist_ok=True)
    rows = {}
    for target in (JETSON, RUNTIME):
        recipe = teacher_recipe(teacher, "accept.enforce=false", f"targets={json.dumps([target])}")
        out = WORKDIR / "bundles" / f"{teacher.recipe}-{target}.edgekit"
        document = compile_recipe(recipe, out=out, workdir=WORKDIR, progress=TerminalProgress())[0].document
        rows[target] = document["engines"]
    return rows


def pruned(teacher: Teacher) -> dict[str, Any]:
    """A teacher pruned for the Jetson, each engine judged by the recipe's gates: which share of the multiply-accumulates and of the parameters is left."""
    (WORKDIR / "bundles").mkdir(parents=True, exist_ok=True)
    recipe = teacher_recipe(teacher, "accept.enforce=false", f"targets={json.dumps([JETSON])}", *PRUNED[teacher.recipe])
    out = WORKDIR / "bundles" / f"{teacher.recipe}-{JETSON}-pruned.edgekit"
    document = compile_recipe(recipe, out=out, workdir=WORKDIR, progress=TerminalProgress())[0].document
    pruning = document["pruning"]
    kept = next(probe for probe in pruning["probes"] if probe["share"] == pruning["share"])
    return {
        "engines": document["engines"],
        **{key: pruning[key] for key in ("target", "share", "unpruned_macs")},
        "macs": kept["macs"],
        "parameters": kept["parameters"],
    }


def speed(architecture: str, data: Path, folder: Path) -> dict[str, Any]:
    """ONNX Runtime against PyTorch and against itself; its file in OpenVINO against NNCF's."""
    recipes = {target: compiled(architecture, data, folder, target) for target in (RUNTIME, OPENVINO)}
    ours = edgekit.load(recipes[RUNTIME][1])
    recipe = recipes[RUNTIME][0]
    members = open_bundle(recipes[RUNTIME][1]).members
    content = bytes(members["model/onnxruntime.onnx"])
    generator = np.random.default_rng(0)
    tensor = generator.integers(0, 256, size=(1, *recipe.input.size, recipe.input.frame_channels), dtype=np.uint8)
    np.save(folder / "floats.npy", normalize(tensor, recipe.input))
    frame = phantom.frame("b-lines", patient=0, index=0, seed=0, spec=PhantomSpec(rows=480, columns=640))
    (folder / "qdq.onnx").write_bytes(content)
    nncf = open_bundle(recipes[OPENVINO][1]).members
    for ending in ("xml", "bin"):
        (folder / f"nncf.{ending}").write_bytes(bytes(nncf[f"model/openvino.{ending}"]))
    bare, qdq, other = bare_runtime(content), openvino_of(folder / "qdq.onnx"), openvino_of(folder / "nncf.xml")
    return {
        "eager_over_onnxruntime": against_eager(architecture, folder / "floats.npy", lambda: ours.engine.infer(tensor)),
        "predict_over_bare": ratio(lambda: ours.predict(frame), lambda: bare(tensor)),
        "qdq_over_nncf_in_openvino": ratio(lambda: qdq(tensor), lambda: other(tensor)),
    }


def compiled(architecture: str, data: Path, folder: Path, target: str) -> tuple[Recipe, Path]:
    import dataclasses

    recipe = dataclasses.replace(make_recipe(architecture, data, folder), targets=(target,))
    out = folder / f"{architecture}-{target}.edgekit"
    compile_recipe(recipe, out=out, workdir=folder / "work", progress=TerminalProgress())
    return recipe, out


def bare_runtime(content: bytes) -> Callable[[np.ndarray[Any, Any]], object]:
    """The shortest way to run a file: no copies, no checks; the same settings."""
    options = session_options(load_target(RUNTIME).engine.settings)
    session = load_library().InferenceSession(content, options, providers=[PROVIDER])
    return lambda tensor: session.run(None, {"frame": tensor})


def openvino_of(path: Path) -> Callable[[np.ndarray[Any, Any]], object]:
    """A model in OpenVINO, called the shortest way, with the settings of its own target."""
    core = shared_core()
    model = core.read_model(str(path))
    request = core.compile_model(model, "CPU", dict(load_target(OPENVINO).engine.settings)).create_infer_request()
    return lambda tensor: request.infer([tensor], share_inputs=True, share_outputs=True)[0]


if __name__ == "__main__":
    main()
