"""Every teacher, compiled by its recipe, against its FP32 original and against NNCF's defaults, on its test split.

    EDGEKIT_REAL_DATA=… python benchmarks/accuracy.py [RECIPE …]

"NNCF defaults" is `nncf.quantize(model, calibration frames)` on the same float graph as OpenVINO reads it, with the same calibration frames and nothing
else; the settings edgekit chooses are chosen on `val` and looked at on `test` once.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import TEACHERS, Teacher, save, teacher_recipe

from edgekit.catalog.target import load_target
from edgekit.cli.console import TerminalProgress
from edgekit.compiler import ladder, pack
from edgekit.compiler.pipeline import compile_recipe
from edgekit.compiler.prepare import prepare
from edgekit.compiler.stages.measure import Measured, MeasureStage
from edgekit.compiler.stages.quantize import Artefact
from edgekit.compiler.workspace import Workspace
from edgekit.evaluation.delong import paired_auc_difference
from edgekit.runtime.engines.openvino import load_library

WORKDIR = Path(".edgekit")


def naive(recipe: Any, workspace: Workspace, progress: TerminalProgress) -> Measured:
    """NNCF's defaults on the same frames, run by the same engine with the same pinned precision."""
    openvino = load_library()
    import nncf

    prepared = prepare(recipe, workspace, progress)
    target = load_target(recipe.targets[0])
    model = openvino.Core().read_model(str(prepared.explained.path))
    frames = prepared.calibration.tensors
    with contextlib.redirect_stdout(io.StringIO()):
        quantized = nncf.quantize(
            model, nncf.Dataset([np.ascontiguousarray(frames[index : index + 1]) for index in range(len(frames))]), subset_size=len(frames)
        )
    test = prepared.splits["test"]
    with tempfile.TemporaryDirectory() as folder:
        files = {"xml": Path(folder) / "naive.xml", "bin": Path(folder) / "naive.bin"}
        openvino.serialize(quantized, str(files["xml"]), str(files["bin"]))
        artefact = Artefact(files=files, sha256="", precision="int8", outputs=prepared.explained.outputs)
        spec = pack.engine_spec(target, artefact)
        stage = MeasureStage(artefact=artefact, engine=spec, tensors=test.tensors, tensors_sha256=test.sha256)
        stage.apply(Path(folder), progress)
        return stage.ensures(Path(folder))


def measure(teacher: Teacher) -> dict[str, Any]:
    """One teacher."""
    progress = TerminalProgress()
    recipe = teacher_recipe(teacher, "accept.enforce=false")
    # The bundles are kept for cold_start.py.
    document = compile_recipe(recipe, out=WORKDIR / "bundles", workdir=WORKDIR, progress=progress)[0].document
    workspace = Workspace(WORKDIR, progress)
    prepared = prepare(recipe, workspace, progress)
    found = naive(recipe, workspace, progress)
    test, output = prepared.splits["test"], recipe.model.output
    reference = prepared.reference["test"]
    against = ladder.compare(reference, found.logits, test, output, prepared.thresholds)
    before, after = (ladder.outcomes(logits, test, output, prepared.thresholds) for logits in (reference, found.logits))
    difference = paired_auc_difference(before, after, groups=test.groups)
    count = len(document["flips"])
    return {
        "frames": document["device"]["n"],
        "groups": document["device"]["groups"],
        "fp32_auc": document["reference"]["auc"],
        "int8_auc": document["device"]["auc"],
        "fp32_accuracy": document["reference"]["accuracy"]["value"],
        "int8_accuracy": document["device"]["accuracy"]["value"],
        "auc_difference": document["auc_difference"],
        "flips": count,
        "harmful_flips": sum(flip["kind"] == "harmful" for flip in document["flips"]),
        "rung": document["rung"],
        "accepted": document["accepted"],
        "size_bytes": document["size_bytes"],
        "stages": document["stages"],
        "nncf_defaults": {
            "auc_difference": difference.difference,
            "flips": len(against.flips.indices),
            "harmful_flips": len(against.flips.harmful),
            "mean_kl": against.agreement.mean_kl,
        },
        "mean_kl": document["test_agreement"]["mean_kl"],
    }


def main() -> None:
    wanted = sys.argv[1:]
    chosen = [teacher for teacher in TEACHERS if not wanted or teacher.recipe in wanted]
    save("accuracy", {"teachers": {teacher.recipe: measure(teacher) for teacher in chosen}})


if __name__ == "__main__":
    main()
