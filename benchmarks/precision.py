"""What OpenVINO's own choice of precision does to a float model: float32 pinned against the default, which is bfloat16 on CPUs that have it.

EDGEKIT_REAL_DATA=… python benchmarks/precision.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from common import TEACHERS, save, teacher_recipe

from edgekit.catalog.target import load_target
from edgekit.cli.console import TerminalProgress
from edgekit.compiler import ladder
from edgekit.compiler.prepare import prepare
from edgekit.compiler.workspace import Workspace
from edgekit.runtime.engines.openvino import load_library


def main() -> None:
    teacher = next(item for item in TEACHERS if item.recipe == "breast-us-lite0")
    recipe = teacher_recipe(teacher)
    progress = TerminalProgress()
    prepared = prepare(recipe, Workspace(Path(".edgekit"), progress), progress)
    split, output = prepared.splits["test"], recipe.model.output
    pinned = dict(load_target("x86-64").engine.settings)
    default = {key: value for key, value in pinned.items() if key != "INFERENCE_PRECISION_HINT"}
    chosen, logits = run(prepared.explained.path, default, split.tensors)
    _, exact = run(prepared.explained.path, pinned, split.tensors)
    found = ladder.compare(exact, logits, split, output, prepared.thresholds)
    save(
        "precision",
        {
            "teacher": teacher.recipe,
            "default_precision": chosen,
            "frames": found.flips.frames,
            "flips": len(found.flips.indices),
            "max_abs_logit": found.agreement.max_abs_logit,
        },
    )


def run(graph: Path, settings: dict[str, str], tensors: np.ndarray[Any, Any]) -> tuple[str, np.ndarray[Any, Any]]:
    """The precision in use, and the logits of every frame."""
    compiled = load_library().Core().compile_model(str(graph), "CPU", settings)
    request = compiled.create_infer_request()
    rows = [np.array(request.infer([np.ascontiguousarray(tensors[index : index + 1])])[0][0]) for index in range(len(tensors))]
    return compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name(), np.stack(rows)


if __name__ == "__main__":
    main()
