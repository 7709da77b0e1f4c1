"""The input gate on real teachers: what it refuses of other data sets, and of the frames it was made for.

    python benchmarks/input_gate.py [RECIPE …]

Each teacher is quantized for OpenVINO (`ptq`) and its gate fitted as `edgekit compile` does; then other data sets, all of them strangers to it, are shown to it: X-ray to ultrasound and
the reverse, magnetic resonance, what is drawn (noise, screenshots), and to the lung classifier frames of a disease it has no label for (the split `extra` of pocus-lung).
Beside the gate's own score stand the scores it was chosen from, on the same frames: its two parts, and the energy of the logits.
"""

from __future__ import annotations

import csv
import dataclasses
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from common import TEACHERS, Teacher, real_data, save, teacher_recipe

from edgekit.catalog.target import load_target
from edgekit.compiler.attempts import Attempts, Bench
from edgekit.compiler.dialects import dialect_of
from edgekit.compiler.gate_fit import FittedGate, figures_of
from edgekit.compiler.input_gate import GateProof, examine_input
from edgekit.compiler.prepare import Prepared, prepare
from edgekit.compiler.progress import Progress, Silent
from edgekit.compiler.stages.frames import PreparedSplit
from edgekit.compiler.stages.measure import Measured
from edgekit.compiler.stages.quantize import Artefact
from edgekit.compiler.workspace import Workspace
from edgekit.evaluation.ood import limit_of, separate
from edgekit.runtime.input_gate import unit_length
from edgekit.schema.decode import encode

RECIPES = ("breast-us-lite0", "pocus-lung-lite0", "brain-mri-lite0", "kermany-lite0")
SETS = ("breast-us", "pocus-lung", "kermany", "brain-mri", "chest-xray")
FRAMES = 150
EXTRA = "extra"


def main(names: list[str]) -> None:
    found = {}
    by_recipe = {teacher.recipe: teacher for teacher in TEACHERS}
    with tempfile.TemporaryDirectory(prefix="edgekit-gate-") as folder:
        for name in names or RECIPES:
            found[name] = examine(by_recipe[name], Path(folder))
            show(name, found[name])
            # After each: the whole takes a while.
            save("input_gate", {"frames": FRAMES, "rung": "ptq", "target": "x86-64", "teachers": found})


def examine(teacher: Teacher, folder: Path) -> dict[str, Any]:
    """A teacher's gate on all sets that are not its own."""
    foreign = [str(real_data() / "data" / name / "manifest.csv") for name in SETS if name != teacher.data]
    foreign += extra(teacher, folder)
    plain = teacher_recipe(teacher)
    recipe = dataclasses.replace(plain, gate=dataclasses.replace(plain.gate, foreign=tuple(foreign), foreign_frames=FRAMES))
    progress: Progress = Silent()
    workspace = Workspace(folder / teacher.recipe, progress)
    prepared = prepare(recipe, workspace, progress)
    dialect = dialect_of(load_target("x86-64"))
    bench = Bench(
        graph=prepared.explained,
        calibration=prepared.calibration,
        val=prepared.splits["val"],
        dialect=dialect,
        quantize=recipe.compress.quantize,
    )
    attempts = Attempts(bench, workspace)
    artefact = attempts.artefact("ptq")
    seen: dict[str, tuple[PreparedSplit, Measured]] = {}

    def measure(made: Artefact, title: str, split: PreparedSplit) -> Measured:
        measured = attempts.measure(made, title, split)
        seen[title.removesuffix(", foreign")] = (split, measured)
        return measured

    known = {name: attempts.measure(artefact, name, prepared.splits[name]) for name in ("val", "test")}
    proof = examine_input(prepared, artefact, (known["val"], known["test"]), measure, workspace, leads=True)
    if proof.fitted is None or proof.document is None:
        sys.exit(f"{teacher.recipe}: {proof.reason}")
    return {**proof.document, "scores": alternatives(prepared, proof, known, seen)}


def extra(teacher: Teacher, folder: Path) -> list[str]:
    """The rows of the teacher's own data that are split off as a stranger, as a set of their own."""
    manifest = real_data() / "data" / teacher.data / "manifest.csv"
    with manifest.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == EXTRA]
    if not rows:
        return []
    path = folder / f"{teacher.data}-{EXTRA}" / "manifest.csv"
    path.parent.mkdir()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "file": str(manifest.parent / row["file"])} for row in rows)
    return [str(path)]


def alternatives(
    prepared: Prepared, proof: GateProof, known: Mapping[str, Measured], seen: Mapping[str, tuple[PreparedSplit, Measured]]
) -> list[dict[str, Any]]:
    """Other scores on the same frames, each with a limit set on `val` as the gate's is; without image quality."""
    gate, rows = proof.fitted, []
    if gate is None:
        return rows
    splits = {name: (prepared.splits[name], measured) for name, measured in known.items()}
    for title in (row["set"] for row in (proof.document or {})["foreign"]):
        for score in ("gate", "features", "brightness", "energy"):
            values = {name: score_of(score, gate, *item) for name, item in {**splits, "foreign": seen[title]}.items()}
            limit = 1.0 if score == "gate" else limit_of(values["val"], prepared.splits["val"].groups, prepared.recipe.gate.quantile)
            test, strangers = prepared.splits["test"].groups, seen[title][0].groups
            rows.append(
                {
                    "set": title,
                    "score": score,
                    **encode(separate(values["test"], values["foreign"], test, strangers, limit=limit, replicates=200)),
                }
            )
    return rows


def score_of(score: str, gate: FittedGate, split: PreparedSplit, measured: Measured) -> np.ndarray[Any, np.dtype[np.float64]]:
    """One of the scores, float64 (frames,); higher is stranger. Energy: Liu et al. 2020, of one logit z as of the two logits −z and z."""
    figures = figures_of(split.tensors)
    if score == "gate":
        return gate.scores(measured.features, figures)
    if score == "features" and gate.features is not None and measured.features is not None:
        return gate.features.components.distance(unit_length(measured.features))
    if score == "energy":
        logits = np.concatenate([-measured.logits, measured.logits], axis=1) if measured.logits.shape[1] == 1 else measured.logits
        return np.asarray(-np.logaddexp.reduce(logits.astype(np.float64), axis=1))
    return gate.brightness.components.distance(np.stack([item.brightness for item in figures]))


def show(name: str, found: dict[str, Any]) -> None:
    known = "  ".join(f"{row['split']} {row['refused']['value']:.3f} of {row['frames']}" for row in found["known"])
    print(f"{name}: limits {found['limits']} from {found['groups']} groups; refused of {known}")
    for row in found["foreign"]:
        print(
            f"  {row['set']:32} {row['frames']:4} frames  AUROC {row['auroc']['value']:.3f}  FPR95 {row['fpr_at_95_tpr']['value']:.3f}  "
            f"refused {row['refused']['value']:.3f}  by quality {row['by_quality']:.3f}"
        )
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
