"""The training itself: on one CPU, one GPU, or in several processes under `accelerate launch` or `torchrun`, with the same settings.

Rules this file keeps:

1. The best weights on `val` are what comes out, the ones it began with among them: a training that makes nothing better changes nothing.
2. Interrupted after any epoch and called again with the same folder, it ends with the same bits as uninterrupted. Everything random depends on seed, epoch
   and process; the learning rate depends on the step alone.
3. Several processes train as one: a batch is split evenly, gradients are averaged, running figures of batch normalizations are those of the first process,
   and every process ends with the same weights. Only the first writes and tells.
4. A loss that is not finite ends the training, in every process at once.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch  # noqa: TID253 - this file is imported only by what trains
from numpy.typing import NDArray

from edgekit.compiler.distill.loop import Run
from edgekit.compiler.distill.settings import Frames, History, TrainData, TrainSettings, settings_of
from edgekit.compiler.distill.trainee import at_work, weights_digest
from edgekit.compiler.progress import Progress, Silent
from edgekit.compiler.workspace import digest
from edgekit.errors import MissingEngineError
from edgekit.schema.decode import encode

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Frames", "History", "TrainData", "TrainSettings", "settings_of", "train"]


def train(  # noqa: PLR0913, PLR0917 - six, and every caller has them apart
    student: torch.nn.Module,
    teachers: Sequence[torch.nn.Module],
    data: TrainData,
    settings: TrainSettings,
    folder: Path,
    progress: Progress,
) -> History:
    """Trains a student in place.

    Args:
        student: Answers with `Answer`; on return it has the best weights and is in evaluation mode.
        teachers: One or more that answer with `Answer`; not changed.
        data: Frames to train on and to choose with.
        settings: Everything else.
        folder: Of the checkpoint; all processes see the same one. A training that was interrupted goes on, one that had ended is read.
        progress: Told about every step and epoch, by the first process.

    Raises:
        ModelError: The loss is not finite, the networks' outputs do not go together, or the folder holds another training's checkpoint.
        CatalogError: Precision or batch cannot be had here.
        MissingEngineError: Processes that were started together do not find each other.
    """
    if not teachers:
        raise ValueError("a student needs at least one teacher")
    accelerator = _accelerator()
    key = _key(student, teachers, data, settings, accelerator)
    device = accelerator.device
    devices = [device] if device.type == "cuda" else []
    with at_work(student, teachers, device), torch.random.fork_rng(devices=devices):
        told = progress if accelerator.is_main_process else Silent()
        return Run(student, teachers, data, settings, accelerator=accelerator, progress=told).through(folder, key)


def _accelerator() -> Accelerator:
    """What knows the device and the other processes.

    Raises:
        MissingEngineError: The launcher's processes do not find each other.
    """
    from accelerate import Accelerator

    processes = int(os.environ.get("WORLD_SIZE", "1"))
    # Without being told so, accelerate takes processes that torchrun starts on a machine without GPUs for strangers.
    accelerator = Accelerator(mixed_precision="no", cpu=processes > 1 and not torch.cuda.is_available())
    if accelerator.num_processes != processes:
        raise MissingEngineError(
            f"the launcher started {processes} processes, of which {accelerator.num_processes} found each other",
            hint="start them with torchrun or accelerate launch, with nothing of PyTorch's set up before",
        )
    return accelerator


def _key(
    student: torch.nn.Module,
    teachers: Sequence[torch.nn.Module],
    data: TrainData,
    settings: TrainSettings,
    accelerator: Accelerator,
) -> str:
    """What a checkpoint belongs to: another number of processes or another kind of device would go on with other sums."""
    return digest(
        {
            "processes": accelerator.num_processes,
            "device": accelerator.device.type,
            "frames": [_content(frames.tensors) for frames in (data.train, data.val)],
            "student": weights_digest(student),
            "teachers": [weights_digest(teacher) for teacher in teachers],
            "settings": encode(settings),
            "input": encode(data.input),
            "output": encode(data.output),
            "labels": [digest(frames.truth.astype(int).tolist()) for frames in (data.train, data.val)],
            "torch": torch.__version__,
        }
    )


def _content(tensors: NDArray[np.uint8]) -> str:
    """sha256 of frames, read one at a time: they may be a memory map."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(np.ascontiguousarray(tensor).tobytes())
    return found.hexdigest()
