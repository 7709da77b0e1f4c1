"""Which frames a step sees, and how they become what the networks take.

Rules this file keeps:

1. The order of an epoch depends on seed and epoch alone. Every process knows it whole and takes its own part of each batch.
2. All parts of a batch have the same size, so the mean of the processes' gradients is the gradient of the batch.
3. Frames are normalized exactly as for the trained model (`load/source.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler.distill.augment import varied
from edgekit.compiler.distill.settings import Frames, TrainSettings
from edgekit.errors import CatalogError, DataError
from edgekit.schema.model_io import InputSpec

if TYPE_CHECKING:
    import torch

Rows = NDArray[np.intp]


def batch_size(frames: int, settings: TrainSettings, processes: int) -> int:
    """Frames of a step over all processes: the recipe's, or fewer where `train` has fewer.

    Raises:
        CatalogError: The recipe's batch cannot be shared evenly by the processes.
        DataError: There are fewer frames than processes.
    """
    if settings.batch % processes:
        raise CatalogError(
            f"a batch of {settings.batch} frames cannot be shared evenly by {processes} processes",
            hint=f"choose a multiple of {processes} for batch, or another number of processes",
        )
    size = min(settings.batch, frames - frames % processes)
    if not size:
        raise DataError(f"{frames} frames cannot be shared by {processes} processes", hint="use fewer processes")
    return size


def steps_per_epoch(frames: int, settings: TrainSettings, processes: int) -> int:
    """Steps of one epoch; frames that do not fill a last batch wait for another epoch."""
    return min(frames, settings.frames_per_epoch or frames) // batch_size(frames, settings, processes)


def epoch_rows(frames: int, settings: TrainSettings, *, epoch: int, rank: int, processes: int) -> Iterator[Rows]:
    """This process's rows of each batch of an epoch.

    Args:
        frames: Number of frames in `train`.
        settings: Batch, frames per epoch and seed.
        epoch: From 1.
        rank: Of this process.
        processes: Number of processes.
    """
    order = np.random.default_rng((settings.seed, epoch)).permutation(frames)
    size = batch_size(frames, settings, processes)
    part = size // processes
    for step in range(steps_per_epoch(frames, settings, processes)):
        start = step * size + rank * part
        yield order[start : start + part]


def read(frames: Frames, rows: Rows, settings: TrainSettings, epoch: int | None) -> torch.Tensor:
    """Frames of a batch, varied where they are trained on: uint8 (frames, height, width, channels).

    Args:
        frames: The split.
        rows: Which frames.
        settings: Augmentation and seed.
        epoch: From 1; None where nothing is varied.
    """
    import torch

    if settings.augment is None or epoch is None:
        return torch.from_numpy(np.array(frames.tensors[rows]))
    batch = np.empty((len(rows), *frames.tensors.shape[1:]), dtype=np.uint8)
    for place, row in enumerate(rows.tolist()):
        batch[place] = varied(frames.tensors[row], settings.augment, seed=settings.seed, epoch=epoch, index=row)
    return torch.from_numpy(batch)


class Normalize:
    """The preamble of the deployed graph, in torch and on the training device."""

    def __init__(self, spec: InputSpec, device: torch.device) -> None:
        """Takes mean and standard deviation of the recipe's `[input]`."""
        import torch

        self.device = device
        self._mean = torch.tensor(spec.mean, dtype=torch.float32, device=device).reshape(1, -1, 1, 1)
        self._std = torch.tensor(spec.std, dtype=torch.float32, device=device).reshape(1, -1, 1, 1)

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """From uint8 (frames, height, width, channels) to float32 (frames, model channels, height, width) in channels-last memory."""
        import torch

        planes = frames.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float()
        return ((planes - self._mean) / self._std).contiguous(memory_format=torch.channels_last)
