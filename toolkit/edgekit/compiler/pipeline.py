"""`edgekit compile`: from a recipe to proven device bundles.

The stages, in order: load → frames → baseline → explain → quantize (the ladder) → measure → gate → pack. Each is a file in `stages/`; this file is
the order, and what is decided between them.

Rules this file keeps:

1. What would be refused at the end is refused at the start where it can be: output paths, splits, labels, what the teacher is known to score.
2. `val` chooses, `test` proves: nothing is tuned on the frames that the gate looks at.
3. A refused model leaves no bundle under its name, and a report that says why; with `enforce = false` it is written and marked.
"""

from __future__ import annotations

from pathlib import Path

from edgekit.bundle.manifest import EngineSpec
from edgekit.bundle.writer import check_writable
from edgekit.catalog.compress import Rung
from edgekit.catalog.recipe import Recipe
from edgekit.catalog.target import Target, load_target
from edgekit.compiler import ladder, pack
from edgekit.compiler.checks import check_export, check_machine
from edgekit.compiler.finish import Candidate, Finished, Outputs, finish
from edgekit.compiler.prepare import Prepared, prepare
from edgekit.compiler.progress import Progress
from edgekit.compiler.quantize.rungs import RUNGS
from edgekit.compiler.stages.frames import PreparedSplit
from edgekit.compiler.stages.measure import Measured, MeasureStage
from edgekit.compiler.stages.quantize import Artefact, QuantizeStage
from edgekit.compiler.threads import let_idle_threads_sleep
from edgekit.compiler.workspace import Workspace
from edgekit.errors import CatalogError


def compile_recipe(recipe: Recipe, *, out: Path | None, workdir: Path, progress: Progress) -> list[Finished]:
    """Compiles a recipe for every target it names.

    Args:
        recipe: From `catalog.recipe.load_recipe`.
        out: A `.edgekit` file, or a folder; None for the working directory.
        workdir: Where stage results are kept between runs.
        progress: Told of every stage.

    Returns:
        One result a target, accepted or not; bundles and reports are written.

    Raises:
        EdgekitError: What is wrong, by who must act.
    """
    let_idle_threads_sleep()
    outputs = [plan_outputs(recipe, name, out) for name in recipe.targets]
    for planned in outputs:
        for path in (planned.bundle, planned.report_html, planned.report_json):
            check_writable(path)
    targets = [load_target(name) for name in recipe.targets]
    for target in targets:
        check_machine(target, quantizes=any(RUNGS[rung].quantize for rung in recipe.compress.quantize.ladder))
    workspace = Workspace(workdir, progress)
    prepared = prepare(recipe, workspace, progress)
    return [prove(prepared, target, planned, workspace, progress) for target, planned in zip(targets, outputs, strict=True)]


def plan_outputs(recipe: Recipe, target: str, out: Path | None) -> Outputs:
    """Where the bundle and its reports of a target go."""
    several = len(recipe.targets) > 1
    name = f"{recipe.name}-{target}" if several else recipe.name
    if out is not None and out.suffix == ".edgekit":
        if several:
            raise CatalogError(f"--out {out} is one file, but the recipe has {len(recipe.targets)} targets", hint="give a folder")
        return Outputs.beside(out)
    return Outputs.beside((out or Path.cwd()) / f"{name}.edgekit")


def prove(prepared: Prepared, target: Target, outputs: Outputs, workspace: Workspace, progress: Progress) -> Finished:
    """Quantizes for a target, proves the artefact on `test`, and writes what it deserves."""
    recipe = prepared.recipe
    output = recipe.model.output
    val = prepared.splits["val"]
    runner = _Runner(prepared, target, workspace)
    exact = runner.float_engine(val)
    check_export(prepared.reference["val"], exact, progress)
    chosen, tried = ladder.climb(
        recipe.compress.quantize.ladder,
        runner.try_rung,
        lambda measured: ladder.compare(prepared.reference["val"], measured.logits, val, output, prepared.thresholds),
        recipe.accept,
    )
    test = workspace.run(runner.measure_stage(chosen.artefact, prepared.splits["test"]), label=f"{chosen.rung} on test, {target.name}")
    candidate = Candidate(target=target, engine=runner.spec(chosen.artefact), chosen=chosen, tried=tried, exact=exact, test=test)
    return finish(prepared, candidate, outputs, workspace, progress)


class _Runner:
    """Makes and runs artefacts for one target."""

    def __init__(self, prepared: Prepared, target: Target, workspace: Workspace) -> None:
        self._prepared = prepared
        self._target = target
        self._workspace = workspace
        self._outputs = prepared.reference["val"].shape[1]

    def spec(self, artefact: Artefact) -> EngineSpec:
        return pack.engine_spec(self._target, artefact.precision, self._outputs)

    def measure_stage(self, artefact: Artefact, split: PreparedSplit) -> MeasureStage:
        return MeasureStage(artefact=artefact, engine=self.spec(artefact), tensors=split.tensors, tensors_sha256=split.sha256)

    def artefact(self, rung: Rung) -> Artefact:
        calibration = self._prepared.calibration
        stage = QuantizeStage(
            graph=self._prepared.explained, rung=rung, calibration=calibration.tensors, calibration_sha256=calibration.sha256
        )
        return self._workspace.run(stage, label=f"{rung}, {self._target.name}")

    def try_rung(self, rung: Rung) -> tuple[Artefact, Measured]:
        artefact = self.artefact(rung)
        return artefact, self._workspace.run(self.measure_stage(artefact, self._prepared.splits["val"]), label=f"{rung} on val")

    def float_engine(self, split: PreparedSplit) -> Measured:
        """The engine on the unquantized graph: what remains between it and the reference is export alone."""
        artefact = self.artefact("float")
        return self._workspace.run(self.measure_stage(artefact, split), label="float on val")
