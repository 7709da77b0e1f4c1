"""qat: the network is trained with rounded weights and activations, and becomes an artefact by way of one Q/DQ graph."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from edgekit.catalog.compress import QatSpec
from edgekit.catalog.explain import MapChoice
from edgekit.compiler import network as n
from edgekit.compiler.progress import Progress
from edgekit.compiler.quantize.rungs import TrainedIntegers
from edgekit.compiler.stages.explain import ExplainedGraph, ExplainStage
from edgekit.compiler.stages.frames import PreparedSplit
from edgekit.compiler.stages.load import FloatGraph
from edgekit.compiler.stages.quantize import FILES, Artefact
from edgekit.compiler.stages.train import CHECKPOINTS, HISTORY, TrainingFrames, example_frame
from edgekit.compiler.versions import versions
from edgekit.compiler.workspace import Stage, Workspace, file_digest
from edgekit.errors import ModelError
from edgekit.profiler.host import fingerprint
from edgekit.schema.decode import decode, encode
from edgekit.schema.model_io import InputSpec

INPUT = "input.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundedGraph:
    """The trained Q/DQ graph, what its preamble makes of a frame, and how the training went."""

    graph: FloatGraph
    input: InputSpec
    history: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QatStage(Stage[RoundedGraph]):
    """Trains a network to answer as it does in float32.

    Attributes:
        network: What is quantized; also what it imitates.
        frames: Of `train`, and of `val` to choose between epochs.
        calibration: Frames that the first ranges are measured on.
        spec: The recipe's.
        integers: What the engine wants values rounded to.
    """

    name: ClassVar[str] = "qat"
    collective: ClassVar[bool] = True
    network: n.Network
    frames: TrainingFrames
    calibration: PreparedSplit
    spec: QatSpec
    integers: TrainedIntegers = field(default_factory=TrainedIntegers)

    def requires(self) -> Mapping[str, object]:
        return {
            "network": self.network.sha256,
            "frames": self.frames.key(),
            "calibration": self.calibration.sha256,
            "spec": encode(self.spec),
            "integers": encode(self.integers),
            "versions": versions("torch", "torch-pruning", "timm", "torchvision", "accelerate", "onnx", "onnx-ir", "onnxscript", "numpy"),
            "instruction_sets": list(fingerprint().instruction_sets or ()),
        }

    def apply(self, folder: Path, progress: Progress) -> None:
        from edgekit.compiler.distill.answer import Explained
        from edgekit.compiler.quantize.qat.train import QatTask, train_qat

        task = QatTask(
            module=self.network.build(),
            teachers=[Explained(self.network.build(), example_frame(self.frames.input))],
            data=self.frames.data(),
            calibration=self.calibration.tensors,
            spec=self.spec,
            integers=self.integers,
        )
        result = train_qat(task, folder, progress)
        if result.history.is_main:
            (folder / INPUT).write_text(json.dumps(encode(result.input)))
            (folder / HISTORY).write_text(json.dumps(result.history.to_json(), allow_nan=False))
            shutil.rmtree(folder / CHECKPOINTS)

    def ensures(self, folder: Path) -> RoundedGraph:
        from edgekit.compiler.quantize.qat import train

        path = folder / train.GRAPH
        table = json.loads((folder / INPUT).read_text())
        return RoundedGraph(
            graph=FloatGraph(path=path, sha256=file_digest(path), notes=()),
            input=decode(InputSpec, table, where=str(folder / INPUT), error=ModelError),
            history=json.loads((folder / HISTORY).read_text()),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RoundedIrStage(Stage[Artefact]):
    """OpenVINO's dialect of an explained Q/DQ graph."""

    name: ClassVar[str] = "rounded"
    graph: ExplainedGraph

    def requires(self) -> Mapping[str, object]:
        return {"graph": self.graph.sha256, "versions": versions("openvino", "numpy")}

    def apply(self, folder: Path, progress: Progress) -> None:  # noqa: ARG002 - it takes a second
        from edgekit.compiler.quantize.qat import openvino_qdq

        openvino_qdq.build_ir(self.graph.path, folder)

    def ensures(self, folder: Path) -> Artefact:
        files = {role: folder / name for role, name in FILES.items()}
        digests = "-".join(file_digest(path) for path in files.values())
        return Artefact(files=files, sha256=digests, precision="int8", outputs=self.graph.outputs, graph=self.graph)


def make_artefact(
    stage: QatStage, write: Callable[[ExplainedGraph], Stage[Artefact]], workspace: Workspace, *, map_choice: MapChoice = "auto"
) -> Artefact:
    """Trains, makes the trained graph explain itself, and writes it in the engine's dialect.

    Args:
        stage: The training.
        write: Makes the stage that writes an explained Q/DQ graph for the engine.
        workspace: Runs the stages.
        map_choice: As in a recipe's [explain].
    """
    rounded = workspace.run(stage)
    explained = workspace.run(ExplainStage(graph=rounded.graph, input=rounded.input, map=map_choice), label="qat")
    made = workspace.run(write(explained), label="qat")
    return dataclasses.replace(made, training=({"stage": "qat", **rounded.history},))
