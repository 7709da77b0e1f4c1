"""How near the device's maps are to FP32's on the teachers' test frames, and where they point on frames with a lesion mask.

    EDGEKIT_REAL_DATA=… python benchmarks/fidelity.py [CASE …]

Each case is a whole `edgekit compile` of a recipe of `models/`, kermany-lite0 without the rung that trains, which is a case of its own; figures are those of its report. breast-us has lesion masks in a folder of their own, by the name of the frame: a data
manifest that names them is written to the work folder. Cases are saved as they finish.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import RESULTS, TEACHERS, Teacher, real_data, save, teacher_recipe

from edgekit.cli.console import TerminalProgress
from edgekit.compiler.pipeline import compile_recipe

WORKDIR = Path(".edgekit")
BY_RECIPE = {teacher.recipe: teacher for teacher in TEACHERS}
LITE0_QAT = Teacher(recipe="kermany-lite0-qat", weights="kermany-lite0.safetensors", data="kermany")


def masked_breast() -> list[str]:
    """Settings for a manifest that names each frame's mask."""
    folder = real_data() / "data" / "breast-us"
    with (folder / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        mask = folder / "masks" / f"{Path(row['file']).stem}_mask.png"
        row.update(file=str(folder / row["file"]), mask=str(mask) if mask.is_file() else "")
    WORKDIR.mkdir(exist_ok=True)
    path = (WORKDIR / "breast-us-with-masks.csv").resolve()
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return [f"data.manifest={json.dumps(str(path))}", 'data.columns.mask="mask"']


CASES: dict[str, tuple[Teacher, Callable[[], list[str]]]] = {
    "breast-us-lite0": (BY_RECIPE["breast-us-lite0"], masked_breast),
    "kermany-vit-tiny": (BY_RECIPE["kermany-vit-tiny"], list),
    "kermany-densenet121": (BY_RECIPE["kermany-densenet121"], list),
    "kermany-lite0": (BY_RECIPE["kermany-lite0"], lambda: ['compress.quantize.ladder=["ptq", "ptq-full"]']),
    "kermany-lite0-qat": (LITE0_QAT, list),
    "brain-mri-lite0": (BY_RECIPE["brain-mri-lite0"], list),
    "pocus-lung-lite0": (BY_RECIPE["pocus-lung-lite0"], list),
}


def measure(teacher: Teacher, settings: list[str]) -> dict[str, Any]:
    """One case."""
    recipe = teacher_recipe(teacher, "accept.enforce=false", *settings)
    document = compile_recipe(recipe, out=WORKDIR / "fidelity", workdir=WORKDIR, progress=TerminalProgress())[0].document
    return {
        "rung": document["rung"],
        "accepted": document["accepted"],
        "failed_gates": [gate["name"] for gate in document["gates"] if not gate["passed"]],
        "frames": document["device"]["n"],
        "flips": len(document["flips"]),
        "harmful_flips": sum(flip["kind"] == "harmful" for flip in document["flips"]),
        "maps": document["cam"]["found"],
        "ladder": [{key: row.get(key) for key in ("rung", "variant", "chosen", "flips", "map_likeness")} for row in document["ladder"]],
    }


def main() -> None:
    path = RESULTS / "fidelity.json"
    rows = json.loads(path.read_text())["cases"] if path.is_file() else {}
    for name in sys.argv[1:] or CASES:
        teacher, settings = CASES[name]
        rows[name] = measure(teacher, settings())
        save("fidelity", {"cases": rows})


if __name__ == "__main__":
    main()
