"""What prune, distill, quantize and accept come to on the real teachers: the compressions of `docs/measurements.md`, each against quantization alone.

    EDGEKIT_REAL_DATA=… python benchmarks/compression.py [CASE …]
    EDGEKIT_REAL_DATA=… python benchmarks/compression.py --speeds [CASE …]     times the bundles of an earlier run again, on a quiet machine

Every case is a compile with a recipe of `models/` and the settings below, chosen on `val`; `test` is looked at by the compile's gate and here. Latencies are
ratios of interleaved runs: bundle against bundle (`engine.infer` of the same frame), and against PyTorch eager as in `speed.py`. The map is compared with the
trained model's FP32 map on every test frame. "NNCF defaults" is as in `accuracy.py`.

The cases `densenet121-lite0` and `ensemble` need ImageNet weights (`imagenet_weights.py`) at `.edgekit/imagenet-lite0.safetensors`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import naive
from common import RESULTS, TEACHERS, Teacher, real_data, save, teacher_recipe
from speed import against_eager, ratio

import edgekit
from edgekit.catalog.recipe import Recipe
from edgekit.cli.console import TerminalProgress
from edgekit.compiler import ladder
from edgekit.compiler.load.source import normalize
from edgekit.compiler.pipeline import compile_recipe
from edgekit.compiler.prepare import prepare
from edgekit.compiler.stages.measure import Measured, map_likeness
from edgekit.compiler.workspace import Workspace

WORKDIR = Path(".edgekit")
BUNDLES = WORKDIR / "bundles"
IMAGENET = WORKDIR / "imagenet-lite0.safetensors"
IMAGENET_STUDENTS = ("kermany-densenet121-lite0", "kermany-ensemble-lite0")
QAT = 'compress.quantize.ladder=["ptq", "ptq-full", "qat"]'


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One compression.

    Attributes:
        recipe: In `models/`; its teacher is one of `common.TEACHERS`, by the name before `-small` and the like.
        teacher: The recipe of the teacher, quantized alone: what the case is compared with.
        settings: Changes of the recipe.
    """

    recipe: str
    teacher: str
    settings: tuple[str, ...] = ()


CASES = {
    "densenet121-small": Case(recipe="kermany-densenet121-small", teacher="kermany-densenet121"),
    "densenet121-lite0": Case(recipe="kermany-densenet121-lite0", teacher="kermany-densenet121"),
    "lite0-qat": Case(recipe="kermany-lite0-qat", teacher="kermany-lite0"),
    "breast-us": Case(recipe="breast-us-lite0", teacher="breast-us-lite0", settings=(QAT,)),
    "pocus-lung": Case(recipe="pocus-lung-lite0", teacher="pocus-lung-lite0", settings=(QAT,)),
    "vit-tiny": Case(recipe="kermany-vit-tiny", teacher="kermany-vit-tiny"),
    "ensemble": Case(recipe="kermany-ensemble-lite0", teacher="kermany-lite0"),
}


def main() -> None:
    found, wanted = _earlier(), sys.argv[1:]
    if wanted[:1] == ["--speeds"]:
        for name in wanted[1:] or found:
            case = CASES[name]
            teacher = next(teacher for teacher in TEACHERS if teacher.recipe == case.teacher)
            found[name] |= speeds(name, case_recipe(case, teacher))
            save("compression", {"cases": found})
        return
    for name in wanted or CASES:
        found[name] = measure(name, CASES[name])
        save("compression", {"cases": found})


def _earlier() -> dict[str, Any]:
    path = RESULTS / "compression.json"
    return json.loads(path.read_text())["cases"] if path.is_file() else {}


def measure(name: str, case: Case) -> dict[str, Any]:
    """Compiles a case and the teacher alone, and compares both."""
    progress = TerminalProgress()
    teacher = next(teacher for teacher in TEACHERS if teacher.recipe == case.teacher)
    recipe = case_recipe(case, teacher)
    BUNDLES.mkdir(parents=True, exist_ok=True)
    document = compile_recipe(recipe, out=BUNDLES / f"{name}.edgekit", workdir=WORKDIR, progress=progress)[0].document
    alone = teacher_recipe(teacher, 'compress.quantize.ladder=["ptq"]', "accept.enforce=false")
    compile_recipe(alone, out=BUNDLES / f"{name}-ptq.edgekit", workdir=WORKDIR, progress=progress)
    kinds = [flip["kind"] for flip in document["flips"]]
    return {
        "accepted": document["accepted"],
        "failed_gates": [gate["name"] for gate in document["gates"] if not gate["passed"]],
        "enforced": document["enforce"],
        "rung": document["rung"],
        "frames": document["device"]["n"],
        "flips": len(kinds),
        "harmful_flips": kinds.count("harmful"),
        "helpful_flips": kinds.count("helpful"),
        "auc_difference": document["auc_difference"],
        "fp32_auc": document["reference"]["auc"],
        "auc": document["device"]["auc"],
        "fp32_accuracy": document["reference"]["accuracy"]["value"],
        "accuracy": document["device"]["accuracy"]["value"],
        "map": document["cam"]["agreement"],
        "size_bytes": document["size_bytes"],
        "pruning": document["pruning"] and {key: document["pruning"][key] for key in ("measure", "target", "share", "host")},
        "seconds": sum(stage["seconds"] for stage in document["stages"] if not stage["cached"]),
        "nncf_defaults": against_naive(alone, progress),
        **speeds(name, recipe),
    }


def case_recipe(case: Case, teacher: Teacher) -> Recipe:
    """The recipe of a case with its weights and data; a model that is refused is written and marked, to be timed."""
    settings = [*case.settings, "accept.enforce=false"]
    if case.recipe in IMAGENET_STUDENTS:
        if not IMAGENET.is_file():
            sys.exit(f"python benchmarks/imagenet_weights.py {IMAGENET}")
        settings.append(f"compress.student.weights={json.dumps(str(IMAGENET.resolve()))}")
    if case.recipe == "kermany-ensemble-lite0":
        densenet = json.dumps(str(real_data() / "teachers" / "kermany-densenet121.safetensors"))
        settings.append(f'compress.distill.teachers=[{{ source = "timm:densenet121", weights = {densenet} }}]')
    return teacher_recipe(Teacher(recipe=case.recipe, weights=teacher.weights, data=teacher.data), *settings)


def against_naive(recipe: Recipe, progress: TerminalProgress) -> dict[str, Any]:
    """The teacher quantized with NNCF's defaults: flips and likeness of the map on `test`."""
    workspace = Workspace(WORKDIR, progress)
    prepared = prepare(recipe, workspace, progress)
    found = naive(recipe, workspace, progress)
    test, output = prepared.splits["test"], recipe.model.output
    against = ladder.compare(prepared.reference["test"], found.logits, test, output, prepared.thresholds)
    likeness = None
    if found.maps is not None:
        exact = float_answers(recipe, workspace, progress)
        likeness = map_likeness(exact, found)
    flips = against.flips
    return {"flips": len(flips.indices), "harmful_flips": len(flips.harmful), "map": likeness}


def float_answers(recipe: Recipe, workspace: Workspace, progress: TerminalProgress) -> Measured:
    """What the trained model answers on `test` in the engine, in float32."""
    from edgekit.catalog.target import load_target
    from edgekit.compiler import pack
    from edgekit.compiler.stages.measure import MeasureStage
    from edgekit.compiler.stages.quantize import QuantizeStage

    prepared = prepare(recipe, workspace, progress)
    calibration, test = prepared.calibration, prepared.splits["test"]
    stage = QuantizeStage(graph=prepared.explained, rung="float", calibration=calibration.tensors, calibration_sha256=calibration.sha256)
    artefact = workspace.run(stage)
    spec = pack.engine_spec(load_target(recipe.targets[0]), artefact)
    return workspace.run(MeasureStage(artefact=artefact, engine=spec, tensors=test.tensors, tensors_sha256=test.sha256))


def speeds(name: str, recipe: Recipe) -> dict[str, Any]:
    """The case against the teacher quantized alone, and against the teacher in PyTorch eager."""
    small, alone = (edgekit.load(BUNDLES / f"{name}{suffix}.edgekit") for suffix in ("", "-ptq"))
    generator = np.random.default_rng(0)
    tensor = generator.integers(0, 256, size=(1, *recipe.input.size, recipe.input.frame_channels), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "floats.npy", normalize(tensor, recipe.input))
        eager = against_eager(recipe.model.source.partition(":")[2], Path(folder) / "floats.npy", lambda: small.engine.infer(tensor))
    return {"ptq_over_case": ratio(lambda: alone.engine.infer(tensor), lambda: small.engine.infer(tensor)), "eager_over_case": eager}


if __name__ == "__main__":
    main()
