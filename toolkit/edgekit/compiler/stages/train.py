"""train: a student learns the teachers' answers, maps and features; also the recovery between two steps of pruning."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from edgekit.catalog.compress import DistillSpec
from edgekit.compiler import network as n
from edgekit.compiler.progress import Progress
from edgekit.compiler.stages.frames import PreparedSplit
from edgekit.compiler.stages.load import FloatGraph, LazySource
from edgekit.compiler.versions import versions
from edgekit.compiler.workspace import Stage
from edgekit.profiler.host import fingerprint
from edgekit.schema.decode import encode
from edgekit.schema.model_io import InputSpec, OutputSpec

if TYPE_CHECKING:
    from edgekit.compiler.distill.answer import Explained
    from edgekit.compiler.distill.trainer import TrainData

HISTORY = "history.json"
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Teacher:
    """A teacher: the model itself or a further one, and its float graph, which stands for it in keys."""

    source: LazySource
    graph: FloatGraph


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingFrames:
    """What is trained on, and what chooses between epochs; never `test`."""

    train: PreparedSplit
    val: PreparedSplit
    input: InputSpec
    output: OutputSpec

    def key(self) -> dict[str, object]:
        """For a stage's key: the frames' content and labels."""
        return {
            name: {"frames": split.sha256, "labels": [list(sample.labels) for sample in split.samples]}
            for name, split in (("train", self.train), ("val", self.val))
        } | {"input": encode(self.input), "output": encode(self.output)}

    def data(self) -> TrainData:
        """As the trainer takes it."""
        from edgekit.compiler.distill.trainer import Frames, TrainData

        train, val = (Frames(tensors=split.tensors, truth=split.truth) for split in (self.train, self.val))
        return TrainData(train=train, val=val, input=self.input, output=self.output)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trained:
    """A trained network, and how the training went: JSON-ready, see `distill.trainer.History`."""

    network: n.Network
    history: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainStage(Stage[Trained]):
    """Trains a network on the teachers' answers."""

    name: ClassVar[str] = "train"
    collective: ClassVar[bool] = True
    network: n.Network
    teachers: Sequence[Teacher]
    frames: TrainingFrames
    spec: DistillSpec

    def requires(self) -> Mapping[str, object]:
        return {
            "network": self.network.sha256,
            "teachers": [teacher.graph.sha256 for teacher in self.teachers],
            "frames": self.frames.key(),
            "spec": encode(dataclasses.replace(self.spec, teachers=())),
            "versions": versions("torch", "torch-pruning", "timm", "torchvision", "accelerate", "numpy"),
            "instruction_sets": list(fingerprint().instruction_sets or ()),
        }

    def apply(self, folder: Path, progress: Progress) -> None:
        from edgekit.compiler.distill.answer import Explained
        from edgekit.compiler.distill.trainer import settings_of, train

        example = example_frame(self.frames.input)
        student = Explained(self.network.build(), example)
        teachers = [explained(teacher, example) for teacher in self.teachers]
        history = train(student, teachers, self.frames.data(), settings_of(self.spec), folder / CHECKPOINTS, progress)
        if not history.is_main:
            return
        n.save_weights(student.module, folder / n.WEIGHTS)
        if self.network.pruned and self.network.folder is not None:
            shutil.copyfile(self.network.folder / n.PLAN, folder / n.PLAN)
        (folder / HISTORY).write_text(json.dumps(history.to_json(), allow_nan=False))
        shutil.rmtree(folder / CHECKPOINTS)

    def ensures(self, folder: Path) -> Trained:
        return Trained(
            network=n.Network(architecture=self.network.architecture, folder=folder), history=json.loads((folder / HISTORY).read_text())
        )


def explained(teacher: Teacher, example: Any) -> Explained:
    """A teacher that answers with its map."""
    from edgekit.compiler.distill.answer import Explained

    return Explained(n.module_of(teacher.source), example)


def example_frame(spec: InputSpec) -> Any:
    """float32 (1, channels, height, width): noise of a fixed seed in the range of normalized frames."""
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.rand((1, spec.channels, *spec.size), generator=generator) * 2 - 1
