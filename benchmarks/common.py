"""What every benchmark shares: where the real data is, how results are kept, and the teachers.

Results are JSON under `benchmarks/results/`, each with the host it was measured on; `readme_table.py` makes the tables of `docs/measurements.md` and of the README from them.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.catalog.recipe import Recipe, load_recipe
from edgekit.profiler.host import fingerprint
from edgekit.schema.decode import encode

RESULTS = Path(__file__).parent / "results"
MISSED_GOAL = 3
"""Exit code of a script that wrote its result, with a goal that is missed in it; any other but 0 wrote none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """A real trained classifier: recipe in `models/`, weights file, data set."""

    recipe: str
    weights: str
    data: str


TEACHERS = (
    Teacher(recipe="kermany-lite0", weights="kermany-lite0.safetensors", data="kermany"),
    Teacher(recipe="kermany-densenet121", weights="kermany-densenet121.safetensors", data="kermany"),
    Teacher(recipe="kermany-vit-tiny", weights="kermany-vit_tiny_patch16_224.safetensors", data="kermany"),
    Teacher(recipe="breast-us-lite0", weights="breast-us-lite0.safetensors", data="breast-us"),
    Teacher(recipe="brain-mri-lite0", weights="brain-mri-lite0.safetensors", data="brain-mri"),
    Teacher(recipe="pocus-lung-lite0", weights="pocus-lung-lite0.safetensors", data="pocus-lung"),
)


def real_data() -> Path:
    """The folder of teachers and data sets, or an exit that says how to name it."""
    found = os.environ.get("EDGEKIT_REAL_DATA")
    if not found:
        sys.exit("set EDGEKIT_REAL_DATA to the folder that holds data/ and teachers/")
    return Path(found).resolve()


def teacher_recipe(teacher: Teacher, *settings: str) -> Recipe:
    """A teacher's recipe with its weights and data."""
    root = real_data()
    places = [
        f"model.weights={json.dumps(str(root / 'teachers' / teacher.weights))}",
        f"data.manifest={json.dumps(str(root / 'data' / teacher.data / 'manifest.csv'))}",
    ]
    return load_recipe(teacher.recipe, settings=[*places, *settings])


def save(name: str, document: dict[str, Any]) -> None:
    """Keeps a result with the date and the host."""
    RESULTS.mkdir(exist_ok=True)
    host = encode(fingerprint())
    kept = {key: host[key] for key in ("cpu_model", "cores_usable", "instruction_sets", "python", "packages")}
    whole = {"date": dt.datetime.now(dt.timezone.utc).date().isoformat(), "host": kept, **document}
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(whole, indent=2, sort_keys=True) + "\n")
    print(f"wrote {path}")
