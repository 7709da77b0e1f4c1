"""From the trained model to the network that is quantized: student, search, prune, recover, distill.

Rules this file keeps:

1. Every step is a stage with a result of its own, so an interrupted compile goes on at the step, and inside training at the epoch.
2. How much is pruned is measured twice: on the network as it starts, for the schedule of the steps, and on the recovered one, for the last cut. The recipe's
   target is about that last cut; `finish` says where the packed artefact, of another rung perhaps, misses a latency. A search decides by its own front, and the
   target has no say in it. Where the latency cannot be measured here, multiply-accumulates decide (`macs_target`).
3. A recipe that only quantizes passes through here untouched, also where the model is no network of PyTorch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.manifest import EngineSpec
from edgekit.catalog.compress import DistillSpec, PruneSpec, Rung
from edgekit.compiler import ladder, timing
from edgekit.compiler import network as n
from edgekit.compiler.checks import check_above_chance, point_figures, untrainable
from edgekit.compiler.dialects.base import Dialect
from edgekit.compiler.prepare import Prepared
from edgekit.compiler.progress import Progress
from edgekit.compiler.quantize.rungs import TrainedIntegers
from edgekit.compiler.stages.baseline import BaselineStage
from edgekit.compiler.stages.explain import ExplainedGraph, ExplainStage
from edgekit.compiler.stages.frames import FramesStage
from edgekit.compiler.stages.load import FloatGraph, LazySource, LoadStage
from edgekit.compiler.stages.measure import MeasureStage
from edgekit.compiler.stages.prune import Cut, MacsRatioStage, PruneStage, Ratio, RatioStage
from edgekit.compiler.stages.qat import QatStage
from edgekit.compiler.stages.quantize import Artefact
from edgekit.compiler.stages.train import Teacher, Trained, TrainingFrames, TrainStage
from edgekit.compiler.study import Outcome, Point, Study, StudyStage
from edgekit.compiler.workspace import Stage, Workspace, digest
from edgekit.evaluation.evaluate import evaluate
from edgekit.schema.decode import encode

_PROBE_FRAMES = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Compressed:
    """What is quantized, and how it came to be.

    Attributes:
        is_new: Whether it is another network than the trained model.
        graph: Its float graph.
        explained: The same as it will run on the device.
        reference: What it answers on `val` in its own framework, float32 (frames, outputs).
        ladder: The rungs to try.
        qat: Makes the stage of the rung that trains, when it is reached, for what an engine wants values rounded to.
        teachers: Whose answers trained it, the model first.
        pruning: The last decision about the ratio, for the report; None without pruning.
        training: How each training went, for the report.
        int8_reference: The trained model itself, quantized, that pruning is measured against; None without pruning.
        search: Every trial of a search, for the report; None without one.
        untrainable: Why the rung that trains has nothing to train; empty where it has.
        notes: What was decided that the user should know.
    """

    is_new: bool
    graph: FloatGraph
    explained: ExplainedGraph
    reference: NDArray[np.float32]
    ladder: tuple[Rung, ...]
    qat: Callable[[TrainedIntegers], QatStage]
    teachers: tuple[Teacher, ...]
    pruning: dict[str, Any] | None = None
    training: tuple[dict[str, Any], ...] = ()
    int8_reference: Artefact | None = None
    search: dict[str, Any] | None = None
    untrainable: str = ""
    notes: tuple[str, ...] = ()


@dataclass(slots=True, kw_only=True, eq=False)
class Compressor:
    """Makes networks smaller for one target.

    Attributes:
        prepared: The model, the data, the reference.
        dialect: Of the target's first engine, which times the candidates.
        workspace: Runs the stages.
        progress: Told of decisions.
        training: How each training went, in order.
        pruning: The last decision about the ratio.
    """

    prepared: Prepared
    dialect: Dialect
    workspace: Workspace
    progress: Progress
    training: list[dict[str, Any]] = field(default_factory=list)
    pruning: dict[str, Any] | None = None
    _frames: TrainingFrames | None = None
    _teachers: tuple[Teacher, ...] | None = None
    _int8: Artefact | None = None

    @property
    def frames(self) -> TrainingFrames:
        """What is trained on."""
        if self._frames is None:
            recipe = self.prepared.recipe
            stage = FramesStage(samples=self.prepared.data.split("train"), input=recipe.input, output=recipe.model.output)
            self._frames = TrainingFrames(
                train=self.workspace.run(stage, label="train"),
                val=self.prepared.splits["val"],
                input=recipe.input,
                output=recipe.model.output,
            )
        return self._frames

    @property
    def teachers(self) -> tuple[Teacher, ...]:
        """The model, and the further teachers of the recipe."""
        if self._teachers is None:
            recipe = self.prepared.recipe
            further = recipe.compress.distill.teachers if recipe.compress.distill is not None else ()
            found = [Teacher(source=self.prepared.source, graph=self.prepared.graph)]
            for spec in further:
                source = LazySource(n.further_model(recipe.model, spec), recipe.input)
                teacher = Teacher(source=source, graph=self.workspace.run(LoadStage(source=source), label=f"teacher {spec.source}"))
                self._check_teacher(teacher)
                found.append(teacher)
            self._teachers = tuple(found)
        return self._teachers

    def _check_teacher(self, teacher: Teacher) -> None:
        """A further teacher with its labels in another order would teach nonsense, and no later gate could tell why."""
        recipe, val = self.prepared.recipe, self.prepared.splits["val"]
        logits = self.workspace.run(
            BaselineStage(source=teacher.source, graph=teacher.graph, split=val), label=f"teacher {teacher.source.model.source} on val"
        )
        found = evaluate(ladder.outcomes(logits, val, recipe.model.output, {}), groups=val.groups).figures["auc"]
        check_above_chance(found, enforce=recipe.accept.enforce, progress=self.progress, who=f"the teacher {teacher.source.model.source}")

    @property
    def int8_reference(self) -> Artefact:
        """The network that is pruned, before that, in INT8: what latency targets are shares of."""
        if self._int8 is None:
            student = self.prepared.recipe.compress.student is not None
            graph = self.explain(self.start(), label="unpruned")[0] if student else self.prepared.explained
            self._int8 = self.quantize(graph, "ptq", label="unpruned")
        return self._int8

    def quantize(self, graph: ExplainedGraph, rung: Rung, *, label: str) -> Artefact:
        """A rung of post-training quantization."""
        stage = self.dialect.make(graph, rung, self.prepared.calibration)
        return self.workspace.run(stage, label=f"{rung}, {label}, {self.dialect.target.name}")

    def start(self) -> n.Network:
        """The network that is made smaller: the model's own, or the student's architecture."""
        recipe = self.prepared.recipe
        student = recipe.compress.student
        if student is None:
            return n.Network(architecture=n.of_teacher(self.prepared.source, self.prepared.graph))
        seed = recipe.compress.distill.seed if recipe.compress.distill is not None else 0
        architecture = n.of_student(student, recipe.model, recipe.input, seed)
        if not architecture.repeatable:
            # What the user's own code makes is known only when it has made it.
            source = self._source(n.Network(architecture=architecture))
            graph = self.workspace.run(LoadStage(source=source), label="student, untrained")
            digested = digest({"student": architecture.sha256, "graph": graph.sha256})
            architecture = dataclasses.replace(architecture, sha256=digested, repeatable=True)
        return n.Network(architecture=architecture)

    def prune(self, network: n.Network, spec: PruneSpec, distill: DistillSpec) -> n.Network:
        """Takes channels out in steps, with a recovery between them, until the INT8 candidate is as fast, or the network as small, as asked."""
        wanted = self._ratio(self._cut(network, spec), label="of the trained model").ratio
        if spec.steps > 1:
            network = self.prune_to(network, spec, distill, wanted, steps=spec.steps - 1)
            wanted = self._ratio(self._cut(network, spec), label="of the last step").ratio
        return self.cut(network, spec, wanted, label=f"step {spec.steps} of {spec.steps}")

    def prune_to(self, network: n.Network, spec: PruneSpec, distill: DistillSpec, ratio: float, *, steps: int) -> n.Network:
        """Takes the first steps towards a ratio, each with a recovery."""
        for step in range(1, steps + 1):
            network = self.cut(network, spec, ratio * step / spec.steps, label=f"step {step} of {spec.steps}")
            if spec.recovery_epochs:
                network = self.train(network, _recovery(distill, spec.recovery_epochs), label=f"recovery {step}")
        return network

    def cut(self, network: n.Network, spec: PruneSpec, ratio: float, *, label: str) -> n.Network:
        """Takes a share of the channels out."""
        return self.workspace.run(PruneStage(cut=self._cut(network, spec), ratio=ratio), label=label)

    def train(self, network: n.Network, spec: DistillSpec, *, label: str, keep: bool = True) -> n.Network:
        """Trains on the teachers' answers; `keep` tells the report."""
        trained: Trained = self.workspace.run(
            TrainStage(network=network, teachers=self.teachers, frames=self.frames, spec=spec), label=label
        )
        if keep:
            self.training.append({"stage": label, **trained.history})
        return trained.network

    def finish(self, network: n.Network, *, ladder: Sequence[Rung], search: dict[str, Any] | None = None) -> Compressed:
        """Exports a network, runs it on `val`, and makes it explain itself."""
        explained, graph = self.explain(network, label="student")
        reference = self.workspace.run(
            BaselineStage(source=self._source(network), graph=graph, split=self.prepared.splits["val"]), label="student on val"
        )
        notes = [f"student: {note}" for note in graph.notes]
        if self.pruning is not None and self.pruning["measure"] == "macs":
            notes.append(
                f"pruning left {self.pruning['share']:.1%} of the multiply-accumulates; what that is worth in time is measured on the device: edgekit profile"
            )
        return Compressed(
            is_new=True,
            graph=graph,
            explained=explained,
            reference=reference,
            ladder=tuple(ladder),
            qat=lambda integers: self.qat_stage(network, integers),
            teachers=self.teachers,
            pruning=None if self.pruning is None else {**self.pruning, "layers": widths(network)},
            training=tuple(self.training),
            int8_reference=self.int8_reference if self.pruning is not None else None,
            search=search,
            notes=tuple(notes),
        )

    def untouched(self) -> Compressed:
        """The trained model itself."""
        prepared = self.prepared
        return Compressed(
            is_new=False,
            graph=prepared.graph,
            explained=prepared.explained,
            reference=prepared.reference["val"],
            ladder=prepared.recipe.compress.quantize.ladder,
            qat=lambda integers: self.qat_stage(self.start(), integers),
            teachers=(),
            untrainable=untrainable(prepared.recipe.model.source),
        )

    def explain(self, network: n.Network, *, label: str) -> tuple[ExplainedGraph, FloatGraph]:
        """The network's graph as it will run, and as it was exported."""
        graph = self.workspace.run(LoadStage(source=self._source(network)), label=label)
        recipe = self.prepared.recipe
        return self.workspace.run(ExplainStage(graph=graph, input=recipe.input, map=recipe.explain.map), label=label), graph

    def qat_stage(self, network: n.Network, integers: TrainedIntegers) -> QatStage:
        """The training of the rung `qat`."""
        return QatStage(
            network=network,
            frames=self.frames,
            calibration=self.prepared.calibration,
            spec=self.prepared.recipe.compress.quantize.qat,
            integers=integers,
        )

    def engine(self, artefact: Artefact) -> EngineSpec:
        """How an artefact runs on the target."""
        return self.dialect.spec(artefact)

    def _source(self, network: n.Network) -> n.NetworkSource:
        return n.NetworkSource(network, self.prepared.recipe.model, self.prepared.recipe.input)

    def _cut(self, network: n.Network, spec: PruneSpec) -> Cut:
        return Cut(network=network, spec=spec, round_to=self._round_to(spec), frames=self.frames)

    def _ratio(self, cut: Cut, *, label: str) -> Ratio:
        found = self.workspace.run(self._timed(cut) if cut.spec.measure == "latency" else MacsRatioStage(cut=cut), label=label)
        self.tell_pruning(cut.spec, found.document)
        return found

    def _timed(self, cut: Cut) -> RatioStage:
        recipe = self.prepared.recipe
        return RatioStage(
            cut=cut,
            model=recipe.model,
            engine=self.engine(self.int8_reference),
            reference=self.int8_reference,
            quantize=self._quantize_candidate,
            frame=self.prepared.calibration.tensors[:1],
            map=recipe.explain.map,
        )

    def _quantize_candidate(self, graph: ExplainedGraph) -> Stage[Artefact]:
        """A candidate is only timed: few frames give it ranges."""
        calibration = self.prepared.calibration
        few = dataclasses.replace(calibration, tensors=calibration.tensors[:_PROBE_FRAMES])
        return self.dialect.make(graph, "ptq", few)

    def tell_pruning(self, spec: PruneSpec, document: Mapping[str, Any]) -> None:
        """Keeps what was decided about the ratio for the report."""
        self.pruning = {
            "criterion": spec.criterion,
            "scope": spec.scope,
            "measure": "latency" if self.prepared.recipe.compress.search else spec.measure,
            "target": None if self.prepared.recipe.compress.search else spec.target,
            "share": document["share"],
            "unpruned_macs": document.get("unpruned_macs"),
            "round_to": self._round_to(spec),
            "host": document["host"],
            "probes": document["probes"],
        }

    def _round_to(self, spec: PruneSpec) -> int:
        return spec.round_to if spec.round_to is not None else self.dialect.target.channel_multiple


def compress(prepared: Prepared, dialect: Dialect, workspace: Workspace, progress: Progress) -> Compressed:
    """Makes the network that is quantized, as the recipe's `[compress]` says."""
    spec = prepared.recipe.compress
    maker = Compressor(prepared=prepared, dialect=dialect, workspace=workspace, progress=progress)
    if not spec.makes_new_network:
        return maker.untouched()
    network, rungs, found = maker.start(), spec.quantize.ladder, None
    if spec.prune is not None and spec.distill is not None:
        if spec.search:
            study = search(maker, spec.prune, spec.distill)
            point, found = study.chosen, study.document
            prune = dataclasses.replace(spec.prune, criterion=point.criterion)
            network = maker.prune_to(network, prune, spec.distill, point.ratio, steps=prune.steps - 1)
            network = maker.cut(network, prune, point.ratio, label=f"step {prune.steps} of {prune.steps}")
            rungs = (point.rung, *(rung for rung in rungs if rung != point.rung))
            maker.tell_pruning(prune, {"share": chosen_share(found), "host": found["host"], "probes": []})
        else:
            network = maker.prune(network, spec.prune, spec.distill)
    if spec.distill is not None:
        network = maker.train(network, spec.distill, label="distill")
    return maker.finish(network, ladder=rungs, search=found)


def search(maker: Compressor, prune: PruneSpec, distill: DistillSpec) -> Study:
    """Searches for criterion, ratio and rung."""
    prepared = maker.prepared
    spec, val = prepared.recipe.compress.study, prepared.splits["val"]
    start = maker.start()
    short = dataclasses.replace(distill, epochs=spec.epochs, patience=max(distill.patience, spec.epochs))

    def auc(logits: NDArray[np.float32]) -> float:
        return point_figures(ladder.outcomes(logits, val, prepared.recipe.model.output, prepared.thresholds))["auc"]

    def try_point(point: Point) -> Outcome:
        network = maker.cut(start, dataclasses.replace(prune, criterion=point.criterion), point.ratio, label=f"trial, {point.ratio:.0%}")
        network = maker.train(network, short, label="trial", keep=False)
        explained, _ = maker.explain(network, label="trial")
        artefact = maker.quantize(explained, point.rung, label="trial")
        stage = MeasureStage(artefact=artefact, engine=maker.engine(artefact), tensors=val.tensors, tensors_sha256=val.sha256)
        measured = maker.workspace.run(stage, label="trial on val")
        specs = (maker.engine(artefact), maker.engine(maker.int8_reference))
        timed = timing.latency_share(artefact, maker.int8_reference, specs, np.ascontiguousarray(val.tensors[:1]))
        return Outcome(share=timed.share, latency_ms=timed.latency_ms, auc=auc(measured.logits))

    stage = StudyStage(
        spec=spec,
        depends_on={
            "network": start.sha256,
            "frames": maker.frames.key(),
            "teachers": [teacher.graph.sha256 for teacher in maker.teachers],
            "prune": encode(prune),
            "round_to": maker.dialect.target.channel_multiple,
            "distill": encode(dataclasses.replace(distill, teachers=())),
            "calibration": prepared.calibration.sha256,
            "reference": maker.int8_reference.sha256,
            "engine": encode(maker.engine(maker.int8_reference)),
        },
        teacher_auc=auc(prepared.reference["val"]),
        evaluate=try_point,
    )
    return maker.workspace.run(stage)


def chosen_share(document: Mapping[str, Any]) -> float:
    """The measured latency of the point that a search chose, in parts of the unpruned one's."""
    return next(float(trial["share"]) for trial in document["trials"] if trial["chosen"])


def widths(network: n.Network) -> list[dict[str, Any]]:
    """Channels of every structure of a pruned network before and after, for the report."""
    if network.folder is None or not network.pruned:
        return []
    from edgekit.compiler.prune.plan import read

    return [
        {"name": width.structure, "before": width.before * width.channels, "after": width.after * width.channels}
        for width in read(network.folder).widths
    ]


def _recovery(spec: DistillSpec, epochs: int) -> DistillSpec:
    return dataclasses.replace(spec, epochs=epochs, patience=max(spec.patience, epochs))


def titles(teachers: Sequence[Teacher]) -> list[str]:
    """Sources of the further teachers, for the report."""
    return [n.public_title(teacher.source.model.source) for teacher in teachers[1:]]
