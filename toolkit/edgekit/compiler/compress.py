"""From the trained model to the network that is quantized: student, search, prune, recover, distill.

Rules this file keeps:

1. Every step is a stage with a result of its own, so an interrupted compile goes on at the step, and inside training at the epoch.
2. How much is pruned is measured twice: on the trained model, for the schedule of the steps, and on the recovered network, for the last cut. The recipe's
   latency target is about what comes out at the end.
3. A recipe that only quantizes passes through here untouched, also where the model is no network of PyTorch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from edgekit.catalog.compress import DistillSpec, PruneSpec
from edgekit.catalog.target import Target
from edgekit.compiler import network as n
from edgekit.compiler import pack
from edgekit.compiler.prepare import Prepared
from edgekit.compiler.progress import Progress
from edgekit.compiler.stages.explain import ExplainedGraph, ExplainStage
from edgekit.compiler.stages.frames import FramesStage, PreparedSplit
from edgekit.compiler.stages.load import FloatGraph, LazySource, LoadStage, Opened
from edgekit.compiler.stages.prune import Cut, PruneStage, RatioStage
from edgekit.compiler.stages.quantize import Artefact, QuantizeStage
from edgekit.compiler.stages.train import Teacher, Trained, TrainingFrames, TrainStage
from edgekit.compiler.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Compressed:
    """What is quantized, and how it came to be.

    Attributes:
        source: The network as something that can be run and exported.
        graph: Its float graph.
        explained: The same as it will run on the device.
        network: For the rungs that train; None where the model is no network of PyTorch.
        teachers: Whose answers trained it, the model first.
        pruning: The last decision about the ratio, for the report; None without pruning.
        training: How each training went, for the report.
        reference_artefact: The trained model itself, quantized: what pruning is measured against. None without pruning.
    """

    source: Opened
    graph: FloatGraph
    explained: ExplainedGraph
    network: n.Network | None
    teachers: tuple[Teacher, ...]
    pruning: dict[str, Any] | None = None
    training: tuple[dict[str, Any], ...] = ()
    reference_artefact: Artefact | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class Compressor:
    """Makes networks smaller for one target.

    Attributes:
        prepared: The model, the data, the reference.
        target: Whose engine times the candidates.
        workspace: Runs the stages.
        progress: Told of decisions.
        training: How each training went, in order.
        pruning: The last decision about the ratio.
    """

    prepared: Prepared
    target: Target
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
                found.append(Teacher(source=source, graph=self.workspace.run(LoadStage(source=source), label=f"teacher {spec.source}")))
            self._teachers = tuple(found)
        return self._teachers

    @property
    def int8_reference(self) -> Artefact:
        """The trained model, not pruned, in INT8: what latency targets are shares of."""
        if self._int8 is None:
            self._int8 = self.quantize(self.prepared.explained, label="unpruned")
        return self._int8

    def quantize(self, graph: ExplainedGraph, *, label: str) -> Artefact:
        """The quickest rung, for timing."""
        calibration: PreparedSplit = self.prepared.calibration
        stage = QuantizeStage(graph=graph, rung="ptq", calibration=calibration.tensors, calibration_sha256=calibration.sha256)
        return self.workspace.run(stage, label=f"ptq, {label}, {self.target.name}")

    def start(self) -> n.Network:
        """The network that is made smaller: the model's own, or the student's architecture."""
        recipe = self.prepared.recipe
        student = recipe.compress.student
        if student is None:
            return n.Network(architecture=n.of_teacher(self.prepared.source, self.prepared.graph))
        seed = recipe.compress.distill.seed if recipe.compress.distill is not None else 0
        return n.Network(architecture=n.of_student(student, recipe.model, recipe.input, seed))

    def prune(self, network: n.Network, spec: PruneSpec, distill: DistillSpec) -> n.Network:
        """Takes channels out in steps, with a recovery between them, until the INT8 candidate is as fast as asked."""
        wanted = self._ratio(self._cut(network, spec), label="of the trained model").ratio
        taken = 0.0
        for step in range(1, spec.steps):
            share = wanted * step / spec.steps
            network = self.cut(network, spec, (share - taken) / (1 - taken), label=f"step {step} of {spec.steps}")
            taken = share
            if spec.recovery_epochs:
                network = self.train(network, _recovery(distill, spec.recovery_epochs), label=f"recovery {step}")
        last = self._ratio(self._cut(network, spec), label="of the last step") if spec.steps > 1 else None
        rest = last.ratio if last is not None else wanted
        return self.cut(network, spec, rest, label=f"step {spec.steps} of {spec.steps}")

    def cut(self, network: n.Network, spec: PruneSpec, ratio: float, *, label: str) -> n.Network:
        """Takes a share of the channels out."""
        return self.workspace.run(PruneStage(cut=self._cut(network, spec), ratio=ratio), label=label)

    def train(self, network: n.Network, spec: DistillSpec, *, label: str) -> n.Network:
        """Trains on the teachers' answers."""
        trained: Trained = self.workspace.run(
            TrainStage(network=network, teachers=self.teachers, frames=self.frames, spec=spec), label=label
        )
        self.training.append({"stage": label, **trained.history})
        return trained.network

    def finish(self, network: n.Network, *, label: str = "student") -> Compressed:
        """Exports a network and makes it explain itself."""
        recipe = self.prepared.recipe
        source = n.NetworkSource(network, recipe.model, recipe.input)
        graph = self.workspace.run(LoadStage(source=source), label=label)
        explained = self.workspace.run(ExplainStage(graph=graph, input=recipe.input), label=label)
        return Compressed(
            source=source,
            graph=graph,
            explained=explained,
            network=network,
            teachers=self.teachers,
            pruning=self.pruning,
            training=tuple(self.training),
            reference_artefact=self._int8,
        )

    def _cut(self, network: n.Network, spec: PruneSpec) -> Cut:
        return Cut(
            network=network,
            spec=spec,
            round_to=spec.round_to if spec.round_to is not None else self.target.channel_multiple,
            teacher=self.teachers[0],
            frames=self.frames,
        )

    def _ratio(self, cut: Cut, *, label: str) -> Any:
        recipe = self.prepared.recipe
        engine = pack.engine_spec(self.target, "int8", self.prepared.reference["val"].shape[1])
        stage = RatioStage(
            cut=cut, model=recipe.model, engine=engine, reference=self.int8_reference, calibration=self.prepared.calibration.tensors
        )
        found = self.workspace.run(stage, label=label)
        self.pruning = {
            "criterion": cut.spec.criterion,
            "scope": cut.spec.scope,
            "latency_target": cut.spec.latency_target,
            "latency_share": found.document["share"],
            "round_to": cut.round_to,
            "host": found.document["host"],
            "probes": found.document["probes"],
        }
        return found


def compress(prepared: Prepared, target: Target, workspace: Workspace, progress: Progress) -> Compressed:
    """Makes the network that is quantized, as the recipe's `[compress]` says."""
    spec = prepared.recipe.compress
    maker = Compressor(prepared=prepared, target=target, workspace=workspace, progress=progress)
    if not spec.makes_new_network:
        return untouched(prepared, needs_network="qat" in spec.quantize.ladder, maker=maker)
    network = maker.start()
    if spec.prune is not None and spec.distill is not None:
        network = maker.prune(network, spec.prune, spec.distill)
    if spec.distill is not None:
        network = maker.train(network, spec.distill, label="distill")
    return maker.finish(network)


def untouched(prepared: Prepared, *, needs_network: bool, maker: Compressor) -> Compressed:
    """The trained model itself; a rung that trains needs it as a network."""
    return Compressed(
        source=prepared.source,
        graph=prepared.graph,
        explained=prepared.explained,
        network=maker.start() if needs_network else None,
        teachers=maker.teachers if needs_network else (),
    )


def _recovery(spec: DistillSpec, epochs: int) -> DistillSpec:
    return dataclasses.replace(spec, epochs=epochs, patience=max(spec.patience, epochs))


def titles(teachers: Sequence[Teacher]) -> list[str]:
    """Sources of the further teachers, for the report."""
    return [teacher.source.model.source for teacher in teachers[1:]]
