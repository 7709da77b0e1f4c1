"""`edgekit compile`: from a recipe to proven device bundles.

The stages, in order: load → frames → baseline → explain → prune → train → quantize (the ladder) → measure → gate → pack. Each is a file in `stages/`;
this file is the order, and what is decided between them.

Rules this file keeps:

1. What would be refused at the end is refused at the start where it can be: output paths, splits, labels, what the teacher is known to score.
2. `val` chooses, `test` proves: nothing is tuned on the frames that the gate looks at.
3. A refused model leaves no bundle under its name, and a report that says why; with `enforce = false` it is written and marked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.bundle.writer import check_writable
from edgekit.catalog.recipe import Recipe
from edgekit.catalog.target import Target, load_target
from edgekit.compiler import ladder
from edgekit.compiler.attempts import Attempts, Bench
from edgekit.compiler.checks import check_export, check_machine, check_processes, check_recurrent
from edgekit.compiler.compress import Compressed, compress
from edgekit.compiler.dialects import dialect_of
from edgekit.compiler.dialects.base import Dialect
from edgekit.compiler.finish import Finished, Outputs, finish
from edgekit.compiler.input_gate import examine_input
from edgekit.compiler.ladder import Skipped, Variant
from edgekit.compiler.maps import Rendering, examine
from edgekit.compiler.prepare import Prepared, prepare
from edgekit.compiler.processes import launched
from edgekit.compiler.progress import Progress, Silent
from edgekit.compiler.proof import Candidate, Proving, Side
from edgekit.compiler.quantize.rungs import POST_TRAINING
from edgekit.compiler.stages.explain import ExplainedGraph
from edgekit.compiler.stages.methods import check_comparison, compare_methods
from edgekit.compiler.stages.qat import make_artefact
from edgekit.compiler.stages.quantize import Artefact
from edgekit.compiler.threads import let_idle_threads_sleep
from edgekit.compiler.workspace import Stage, Workspace
from edgekit.errors import CatalogError, ModelError, TargetError


def compile_recipe(recipe: Recipe, *, out: Path | None, workdir: Path, progress: Progress) -> list[Finished]:
    """Compiles a recipe for every target it names.

    Args:
        recipe: From `catalog.recipe.load_recipe`.
        out: A `.edgekit` file, or a folder; None for the working directory.
        workdir: Where stage results are kept between runs.
        progress: Told of every stage.

    Returns:
        One result a target, accepted or not; bundles and reports are written. Nothing in the further processes of a launcher: the first one writes.

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
        check_machine(target, recipe)
    check_recurrent(recipe)
    check_comparison(recipe)
    processes = launched()
    check_processes(recipe, processes)
    told = progress if processes.is_main else Silent()
    workspace = Workspace(workdir, told, processes)
    prepared = prepare(recipe, workspace, told)
    results = []
    for target, planned in zip(targets, outputs, strict=True):
        proven = prove_target(prepared, target, workspace, told)
        methods = compare_methods(prepared, proven.provings[0].candidate.test, workspace)
        if processes.is_main:
            results.append(finish(proven.provings, proven.left_out, planned, workspace, told, methods))
    return results


def plan_outputs(recipe: Recipe, target: str, out: Path | None) -> Outputs:
    """Where the bundle and its reports of a target go."""
    several = len(recipe.targets) > 1
    name = f"{recipe.name}-{target}" if several else recipe.name
    if out is not None and out.suffix == ".edgekit":
        if several:
            raise CatalogError(f"--out {out} is one file, but the recipe has {len(recipe.targets)} targets", hint="give a folder")
        return Outputs.beside(out)
    return Outputs.beside((out or Path.cwd()) / f"{name}.edgekit")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Proven:
    """What a target came to.

    Attributes:
        provings: One an engine, the one that leads the bundle first.
        left_out: Name of an engine that nothing could be made for, to the reason.
    """

    provings: tuple[Proving, ...]
    left_out: dict[str, str]


def prove_target(prepared: Prepared, target: Target, workspace: Workspace, progress: Progress) -> Proven:
    """Compresses for a target, and quantizes and judges for each of its engines."""
    first, *others = (dialect_of(target, choice) for choice in target.engines)
    teacher = teacher_side(prepared, first, workspace, progress)
    compressed = compress(prepared, first, workspace, progress)
    provings = [prove(prepared, compressed, first, teacher, workspace, progress)]
    # An engine that stands in for another has to answer right before it answers fast: float32 is its last rung, and nothing is trained for it.
    rungs = tuple(rung for rung in compressed.ladder if rung in POST_TRAINING)
    left_out: dict[str, str] = {}
    for dialect in others:
        standing_in = compressed if _same_library(dialect, first) else dataclasses.replace(compressed, ladder=(*rungs, "float"))
        try:
            own = teacher_side(prepared, dialect, workspace, progress)
            provings.append(prove(prepared, standing_in, dialect, own, workspace, progress))
        except (CatalogError, ModelError, TargetError) as error:
            left_out[dialect.choice.name] = error.message
            progress.note(f"{dialect.choice.name} stays out of the bundle: {error.message}")
    lead = next((found for found in provings if found.accepted and _same_library(found.candidate.dialect, first)), provings[0])
    for found in provings:
        if not found.accepted and found is not lead:
            progress.note(f"{found.candidate.dialect.choice.name} is refused by the gates and stays out of the bundle")
    if lead is not provings[0]:
        progress.note(f"{lead.candidate.dialect.choice.name} leads the bundle in its place")
    return Proven(provings=(lead, *(found for found in provings if found is not lead)), left_out=left_out)


def _same_library(one: Dialect, other: Dialect) -> bool:
    """Whether two engines are precisions of one: a bundle that was asked for on a GPU is not led by the CPU's."""
    return one.choice.name.partition("-")[0] == other.choice.name.partition("-")[0]


def teacher_side(prepared: Prepared, dialect: Dialect, workspace: Workspace, progress: Progress) -> Side:
    """The trained model in an engine, in float32; stops where it does not compute what the trained model computes."""
    trained = _attempts(prepared, dialect, workspace)
    artefact = trained.exact()
    teacher = Side(artefact=artefact, val=trained.measure(artefact, f"float on val, {dialect.choice.name}"))
    check_export(prepared.reference["val"], teacher.val, progress)
    test = prepared.splits["test"]
    return dataclasses.replace(teacher, test=trained.measure(artefact, f"trained model, float on test, {dialect.choice.name}", test))


def prove(  # noqa: PLR0913, PLR0917 - what is judged, for which engine, against what, and where it happens
    prepared: Prepared, compressed: Compressed, dialect: Dialect, teacher: Side, workspace: Workspace, progress: Progress
) -> Proving:
    """Climbs the ladder for one engine, and judges the artefact on `test`."""
    recipe, val, test = prepared.recipe, prepared.splits["val"], prepared.splits["test"]
    student = _attempts(prepared, dialect, workspace, compressed)
    exact = teacher
    if compressed.is_new:
        artefact = student.exact()
        exact = Side(
            artefact=artefact,
            val=student.measure(artefact, f"student, float on val, {dialect.choice.name}"),
            test=student.measure(artefact, f"student, float on test, {dialect.choice.name}", test),
        )
        check_export(compressed.reference, exact.val, progress)
    yardstick = ladder.Yardstick(
        reference=prepared.reference["val"],
        exact=exact.val,
        split=val,
        output=recipe.model.output,
        thresholds=prepared.thresholds,
        temperature=prepared.temperature,
    )
    flips_allowed = recipe.accept.flips_allowed(compressed.is_new)
    rungs = dialect.ladder(compressed.ladder)
    chosen, tried = ladder.climb(rungs, student.variants, yardstick.compare, recipe.accept, flips_allowed)
    device = student.measure(chosen.artefact, f"{chosen.rung} on test, {dialect.target.name}, {dialect.choice.name}", test)
    explained = compressed.explained
    before = Rendering(artefact=exact.artefact, graph=explained, test=exact.test)
    after = Rendering(artefact=chosen.artefact, graph=chosen.artefact.graph or explained, test=device)
    candidate = Candidate(
        dialect=dialect,
        chosen=chosen,
        tried=tried,
        teacher=teacher,
        exact=exact,
        test=device,
        maps=examine(prepared, before, after, student.measure, workspace),
        gate=examine_input(
            prepared,
            chosen.artefact,
            (chosen.measured, device),
            student.measure,
            workspace,
            leads=dialect.choice.name == dialect.target.engine.name,
        ),
    )
    return Proving(prepared, compressed, candidate)


def _attempts(prepared: Prepared, dialect: Dialect, workspace: Workspace, compressed: Compressed | None = None) -> Attempts:
    """The rungs of the trained model, or of what was made from it."""
    bench = Bench(
        graph=prepared.explained if compressed is None else compressed.explained,
        calibration=prepared.calibration,
        val=prepared.splits["val"],
        dialect=dialect,
        quantize=prepared.recipe.compress.quantize,
    )
    if compressed is None:
        return Attempts(bench, workspace)
    found = compressed

    def qat(_: Sequence[ladder.RungResult]) -> Iterator[Variant | Skipped]:
        if found.untrainable:
            yield Skipped(rung="qat", reason=found.untrainable)
            return

        def write(graph: ExplainedGraph) -> Stage[Artefact]:
            return dialect.trained(graph, prepared.calibration)

        trained = make_artefact(found.qat(dialect.integers), write, workspace, map_choice=prepared.recipe.explain.map)
        yield attempts.attempt("qat", trained, "qat on val")

    attempts = Attempts(bench, workspace, others={"qat": qat})
    return attempts
