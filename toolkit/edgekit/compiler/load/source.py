"""What the pipeline asks of a trained model, whatever it came from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgekit.schema.model_io import InputSpec

OPSET = 20
"""ONNX operator set of the float graph; targets that need an older one convert from here."""

OnFrames = Callable[[int], None]


class SourceModel(Protocol):
    """A trained model in its own framework: the reference every artefact is compared with."""

    notes: tuple[str, ...]
    """What was decided while loading that the user should know."""

    def export(self, path: Path) -> None:
        """Writes the float32 ONNX graph: one input (1, channels, height, width), one output (1, outputs), weights inside the file."""

    def logits(self, tensors: NDArray[np.uint8], on_frame: OnFrames) -> NDArray[np.float32]:
        """Runs the model in its own framework.

        Args:
            tensors: uint8 (frames, height, width, channels) from `imaging.preprocess`.
            on_frame: Called with the number of frames done.

        Returns:
            float32 (frames, outputs), finite.
        """


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClipAnswers:
    """What a recurrent model answered on the frames of clips.

    Attributes:
        logits: float32 (frames, outputs), finite.
        states: float32 (frames, *shape of the state), what it was given with each frame; finite.
    """

    logits: NDArray[np.float32]
    states: NDArray[np.float32]


@runtime_checkable
class RecurrentSource(Protocol):
    """A trained recurrent model in its own framework."""

    notes: tuple[str, ...]
    """As in `SourceModel`."""

    def export(self, path: Path) -> None:
        """Writes the float32 ONNX graph: a frame (1, channels, height, width) and a state in, logits (1, outputs) and the next state out, in this order."""

    def run_clips(self, tensors: NDArray[np.uint8], clips: Sequence[str], on_frame: OnFrames) -> ClipAnswers:
        """Runs the model frame by frame, each clip from a state of zeros.

        Args:
            tensors: uint8 (frames, height, width, channels) from `imaging.preprocess`.
            clips: The clip of each frame; the frames of a clip stand in their order.
            on_frame: Called with the number of frames done.
        """


def normalize(tensors: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.float32]:
    """The preamble of the deployed graph, in numpy: what the trained model takes.

    Args:
        tensors: uint8 (frames, height, width, channels).
        spec: The recipe's `[input]`.

    Returns:
        float32 (frames, model channels, height, width).
    """
    planes = tensors.astype(np.float32).transpose(0, 3, 1, 2)
    mean = np.array(spec.mean, dtype=np.float32).reshape(1, -1, 1, 1)
    std = np.array(spec.std, dtype=np.float32).reshape(1, -1, 1, 1)
    # A grey plane is broadcast to the model's channels.
    return np.ascontiguousarray((planes - mean) / std)
