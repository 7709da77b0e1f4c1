"""The rung qat: a float classifier becomes a trained Q/DQ graph.

Rules this file keeps:

1. The network imitates its float teachers: answers, logits and maps. Labels have no say, and `val` chooses the epoch.
2. Interrupted and called again with the same folder, it goes on where it was: the calibrated start is kept beside the trainer's checkpoints.
3. What was trained is kept as safetensors, and the quantizers as JSON; the ONNX file is made from them.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekit.catalog.compress import QatSpec
from edgekit.compiler.distill.settings import History, TrainData, TrainSettings
from edgekit.compiler.load.source import normalize
from edgekit.compiler.processes import launched
from edgekit.compiler.progress import Progress
from edgekit.compiler.quantize.qat import calibrate
from edgekit.compiler.quantize.qat.export import export
from edgekit.compiler.quantize.qat.fold import fold_batch_norm, fold_grey
from edgekit.compiler.quantize.qat.trace import check_same, trace
from edgekit.compiler.quantize.rungs import TrainedIntegers
from edgekit.errors import DataError
from edgekit.schema.model_io import InputSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from edgekit.compiler.quantize.qat.network import QuantizedNetwork

GRAPH = "model.onnx"
WEIGHTS = "quantized.safetensors"
QUANTIZERS = "quantizers.json"
_START = "start.safetensors"
_CHECKPOINTS = "checkpoints"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QatTask:
    """What is trained.

    Attributes:
        module: The float classifier, from float32 (frames, channels, height, width) to (frames, outputs); not changed.
        teachers: Networks that answer with `Answer`: the classifier itself, or those it learned from.
        data: Frames to train on and to choose with, and the recipe's `[input]` and the outputs' meaning.
        calibration: uint8 (frames, height, width, channels).
        spec: The recipe's `qat`.
        integers: What the engine wants values rounded to.
    """

    module: torch.nn.Module
    teachers: Sequence[torch.nn.Module]
    data: TrainData
    calibration: NDArray[np.uint8]
    spec: QatSpec
    integers: TrainedIntegers = field(default_factory=TrainedIntegers)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QatResult:
    """What came out.

    Attributes:
        onnx: The Q/DQ graph: float32 (1, planes, height, width) in, logits (1, outputs) out. Only the main process of several has it.
        input: How frames become what the graph takes: the recipe's `[input]`, with one channel where grey planes were folded.
        history: How the training went.
    """

    onnx: Path
    input: InputSpec
    history: History


def train_qat(task: QatTask, folder: Path, progress: Progress) -> QatResult:
    """Trains with rounding in place, and exports.

    Args:
        task: What is trained.
        folder: Of the results and of what a training that is interrupted goes on from.
        progress: Told of the calibration, then of the training.

    Raises:
        ModelError: The network cannot be traced or exported, or the training diverges.
        DataError: There are no calibration frames.
    """
    from edgekit.compiler.distill.trainer import train

    network, spec = quantized(task.module, task.data.input, task.integers)
    _start(network, spec, task.calibration, folder / _START, progress)
    history = train(network, task.teachers, task.data, settings_of(task.spec), folder / _CHECKPOINTS, progress)
    if history.is_main:
        _save(network, folder / WEIGHTS)
        (folder / QUANTIZERS).write_text(json.dumps(describe(network), indent=1, allow_nan=False))
        export(network, (spec.channels, *spec.size), folder / GRAPH)
    return QatResult(onnx=folder / GRAPH, input=spec, history=history)


def quantized(module: torch.nn.Module, spec: InputSpec, integers: TrainedIntegers | None = None) -> tuple[QuantizedNetwork, InputSpec]:
    """A classifier with quantizers whose ranges are still to be found, and what it takes.

    Raises:
        ModelError: It cannot be traced, or holds nothing to quantize.
    """
    import torch

    from edgekit.compiler.quantize.qat.network import QuantizedNetwork

    generator = torch.Generator().manual_seed(0)
    # Two frames: of one, the exporter would take the number for part of the network.
    example = torch.rand((2, spec.channels, *spec.size), generator=generator) * 2 - 1
    traced = trace(module, example)
    fold_batch_norm(traced)
    check_same(module, traced, example)
    folded = fold_grey(traced, spec)
    return QuantizedNetwork(traced, planes=folded.channels, integers=integers), folded


def settings_of(spec: QatSpec) -> TrainSettings:
    """The settings of a recipe's `qat` for the trainer."""
    return TrainSettings(
        epochs=spec.epochs,
        frames_per_epoch=spec.frames_per_epoch,
        batch=spec.batch,
        learning_rate=spec.learning_rate,
        weight_decay=0.0,
        temperature=1.0,
        soft_weight=1.0,
        hard_weight=0.0,
        logit_weight=spec.logit_weight,
        cam_weight=spec.cam_weight,
        class_weighting=False,
        patience=spec.epochs,
        seed=spec.seed,
        precision="f32",
    )


def describe(network: QuantizedNetwork) -> list[dict[str, Any]]:
    """The quantizers of values, JSON-ready: name, integers, and the scale in the value's units a step."""
    return [
        {"name": name, "low": part.limits.low, "high": part.limits.high, "scale": float(part.scale.detach())}
        for name, part in network.values().items()
    ]


def _start(network: QuantizedNetwork, spec: InputSpec, frames: NDArray[np.uint8], path: Path, progress: Progress) -> None:
    """Calibrates, or takes up what was calibrated before; of several processes the first does, and all start from the same."""
    import torch
    from safetensors.torch import load_file

    def taken(part: slice) -> torch.Tensor:
        return torch.from_numpy(normalize(np.asarray(frames[part]), spec))

    processes = launched()
    if processes.is_main and not path.is_file():
        if not len(frames):
            raise DataError("there are no calibration frames", hint="the manifest's split column names them")
        calibrate.calibrate(network, taken, len(frames), progress)
        _save(network, path)
    processes.wait()
    network.load_state_dict(load_file(path))


def _save(network: QuantizedNetwork, path: Path) -> None:
    """Writes a network's state: whole or not at all."""
    import torch
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(tensors, unfinished)
    unfinished.replace(path)
