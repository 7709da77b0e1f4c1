"""Everything of a compile that does not depend on the target: the model, the data, the reference, the explained float graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.catalog.calibration import Calibration, load_calibration
from edgekit.catalog.compress import NetworkSpec
from edgekit.catalog.recipe import Recipe
from edgekit.compiler import ladder
from edgekit.compiler.checks import check_above_chance, check_expected, check_meaning, check_trainable
from edgekit.compiler.network import further_model
from edgekit.compiler.progress import Progress
from edgekit.compiler.stages.baseline import BaselineStage
from edgekit.compiler.stages.explain import ExplainedGraph, ExplainStage
from edgekit.compiler.stages.frames import FramesStage, PreparedSplit, calibration_indices
from edgekit.compiler.stages.load import FloatGraph, LazySource, LoadStage
from edgekit.compiler.workspace import Workspace, digest
from edgekit.errors import DataError
from edgekit.evaluation import decision
from edgekit.evaluation.acceptance import freeze_reference
from edgekit.evaluation.calibration_frames import check_calibration
from edgekit.evaluation.dataset import DataManifest, Sample, load_manifest, require_splits
from edgekit.evaluation.evaluate import evaluate
from edgekit.evaluation.temperature import Temperature
from edgekit.schema.decode import encode
from edgekit.schema.model_io import OutputSpec

PROVING_SPLITS = ("val", "test")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """Everything that does not depend on the target.

    Attributes:
        recipe: What to compile.
        data: The checked manifest.
        graph: The trained model's float graph.
        explained: The same as it will run.
        splits: `val` and `test`.
        reference: What the trained model answers on either: float32 (frames, outputs).
        temperature: The reference's, fitted on `val`.
        thresholds: Frozen, chosen on `val` from the reference's calibrated probabilities.
        calibration: The frames that ranges are measured on.
        source: The trained model.
        notes: What was decided that the user should know.
    """

    recipe: Recipe
    data: DataManifest
    graph: FloatGraph
    explained: ExplainedGraph
    splits: Mapping[str, PreparedSplit]
    reference: Mapping[str, NDArray[np.float32]]
    temperature: Temperature
    thresholds: dict[str, float]
    calibration: PreparedSplit
    source: LazySource
    notes: tuple[str, ...]


def prepare(recipe: Recipe, workspace: Workspace, progress: Progress) -> Prepared:
    """Loads the model and the data, runs the reference, and makes the float graph explain itself."""
    output = recipe.model.output
    data = load_manifest(Path(recipe.data.manifest), recipe.data.columns, output)
    require_splits(data, PROVING_SPLITS, output)
    check_trainable(recipe, data)
    calibration_recipe = load_calibration(recipe.calibration.recipe)
    chosen = choose_calibration(data, calibration_recipe)
    calibration = workspace.run(FramesStage(samples=chosen, input=recipe.input, output=output), label="calibration")
    _check_calibration(data, calibration, calibration_recipe, output)
    source = LazySource(recipe.model, recipe.input)
    graph = workspace.run(LoadStage(source=source))
    splits = {
        name: workspace.run(FramesStage(samples=data.split(name), input=recipe.input, output=output), label=name) for name in PROVING_SPLITS
    }
    reference = {name: workspace.run(BaselineStage(source=source, graph=graph, split=split), label=name) for name, split in splits.items()}
    check_meaning(recipe.model, reference["val"].shape[1])
    check_expected(recipe.model, splits, reference)
    on_val = ladder.outcomes(reference["val"], splits["val"], output, {})
    check_above_chance(evaluate(on_val, groups=splits["val"].groups).figures["auc"], enforce=recipe.accept.enforce, progress=progress)
    explained = workspace.run(ExplainStage(graph=graph, input=recipe.input, map=recipe.explain.map, state=recipe.model.state))
    temperature, found = freeze_reference(
        decision.logits_by_label(reference["val"], output), splits["val"].truth, output, outputs=reference["val"].shape[1]
    )
    notes = [*graph.notes, *(f"no threshold can be chosen for {label!r} on val; 0.5 is used" for label in found.undecided)]
    if recipe.model.expected is None:
        notes.append("the order of the labels is not checked against a known score: [model] expected is not given")
    for note in notes[len(graph.notes) :]:
        progress.note(note)
    return Prepared(
        recipe=recipe,
        data=data,
        graph=graph,
        explained=explained,
        splits=splits,
        reference=reference,
        temperature=temperature,
        thresholds=found.thresholds,
        calibration=calibration,
        source=source,
        notes=tuple(notes),
    )


def _check_calibration(data: DataManifest, split: PreparedSplit, calibration: Calibration, output: OutputSpec) -> None:
    """Names the manifest whose frames will not do."""
    try:
        check_calibration(split.tensors, [sample.labels for sample in split.samples], calibration, output)
    except DataError as error:
        raise DataError(f"{data.path}: {error.message}", hint=error.hint) from error


def choose_calibration(data: DataManifest, calibration: Calibration) -> tuple[Sample, ...]:
    """Draws the calibration frames, of one split after the other; `check_calibration` says whether they will do."""
    chosen: list[Sample] = []
    for split in calibration.splits:
        pool = [sample for sample in data.samples if sample.split == split]
        wanted = calibration.samples - len(chosen)
        chosen += [pool[index] for index in calibration_indices(pool, count=wanted, seed=calibration.seed)]
    if not chosen:
        where = " and ".join(calibration.splits)
        raise DataError(f"{data.path}: there are no frames in {where} to calibrate with", hint="label frames with the split calib")
    return tuple(chosen)


def source_digests(prepared: Prepared) -> dict[str, str]:
    """What a bundle was compiled from, as sha256."""
    recipe = prepared.recipe
    return {
        "float_graph": prepared.graph.sha256,
        "data_manifest": prepared.data.sha256,
        "calibration_frames": prepared.calibration.sha256,
        "val_frames": prepared.splits["val"].sha256,
        "test_frames": prepared.splits["test"].sha256,
        # Without the parts that only say where things are on this machine.
        "recipe": digest({**{key: value for key, value in encode(recipe).items() if key not in ("data", "model")}, **_compress(recipe)}),
    }


def _compress(recipe: Recipe) -> dict[str, object]:
    """The recipe's `[compress]` with its networks by content and without the place of a search's trials."""
    spec, table = recipe.compress, encode(recipe.compress)
    table["study"]["storage"] = None
    if spec.student is not None:
        table["student"] = _network(recipe, spec.student)
    if spec.distill is not None:
        table["distill"]["teachers"] = [_network(recipe, teacher) for teacher in spec.distill.teachers]
    return {"compress": table}


def _network(recipe: Recipe, spec: NetworkSpec) -> dict[str, object]:
    return LazySource(further_model(recipe.model, spec), recipe.input).fingerprint()


def split_counts(data: DataManifest, labels: Sequence[str]) -> dict[str, dict[str, int]]:
    """Split to label to number of frames."""
    counts: dict[str, dict[str, int]] = {}
    for sample in data.samples:
        row = counts.setdefault(sample.split, dict.fromkeys(labels, 0))
        for label in sample.labels:
            row[label] += 1
    return counts
