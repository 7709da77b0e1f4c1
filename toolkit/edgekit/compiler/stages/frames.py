"""frames: every frame of a split, read and preprocessed once, as one array on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler.progress import Progress
from edgekit.compiler.versions import versions
from edgekit.compiler.workspace import Stage, file_digest
from edgekit.evaluation.dataset import Sample, truth_matrix
from edgekit.imaging.frames import only_frame
from edgekit.imaging.preprocess import preprocess
from edgekit.imaging.quality import frame_figures
from edgekit.schema.decode import encode
from edgekit.schema.model_io import InputSpec, OutputSpec


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PreparedSplit:
    """The frames of a split.

    Attributes:
        tensors: uint8 (frames, height, width, channels), on disk.
        truth: bool (frames, labels).
        samples: The rows of the manifest, in the same order.
        sha256: Of the tensors.
        figures: Rows, columns and chroma of each frame before it was preprocessed (`imaging.quality.frame_figures`), float32 (frames, 3); None where the tensors
            are all that is known.
    """

    tensors: NDArray[np.uint8]
    truth: NDArray[np.bool_]
    samples: tuple[Sample, ...]
    sha256: str
    figures: NDArray[np.float32] | None = None

    @property
    def groups(self) -> list[str]:
        """The patient or video of each frame."""
        return [sample.group for sample in self.samples]


@dataclass(frozen=True, slots=True, kw_only=True)
class FramesStage(Stage[PreparedSplit]):
    """Reads and preprocesses a split."""

    name: ClassVar[str] = "frames"
    samples: tuple[Sample, ...]
    input: InputSpec
    output: OutputSpec

    def requires(self) -> Mapping[str, object]:
        return {
            "files": [file_digest(sample.path) for sample in self.samples],
            "input": encode(self.input),
            "versions": versions("pillow", "numpy", "pydicom", "pyjpegls", "pylibjpeg-openjpeg", "python-gdcm"),
        }

    def apply(self, folder: Path, progress: Progress) -> None:
        figures = []
        shape = (len(self.samples), *self.input.size, self.input.frame_channels)
        # Written, not mapped: a full disk is then an error that can be told, and not a signal that ends the process.
        with (folder / "tensors.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            for index, sample in enumerate(self.samples):
                frame = only_frame(sample.path)
                figures.append(frame_figures(frame))
                file.write(preprocess(frame, self.input).tobytes())
                progress.step(index + 1, len(self.samples))
        np.save(folder / "figures.npy", np.array(figures, dtype=np.float32).reshape(-1, 3))

    def ensures(self, folder: Path) -> PreparedSplit:
        path = folder / "tensors.npy"
        tensors = np.load(path, mmap_mode="r", allow_pickle=False)
        return PreparedSplit(
            tensors=tensors,
            truth=truth_matrix(self.samples, self.output),
            samples=self.samples,
            sha256=file_digest(path),
            figures=np.load(folder / "figures.npy", allow_pickle=False),
        )


def calibration_indices(samples: Sequence[Sample], *, count: int, seed: int) -> list[int]:
    """Draws calibration frames evenly over the labels, and within a label evenly over the groups.

    Args:
        samples: The frames to draw from.
        count: How many; all where there are fewer.
        seed: Of the draw.

    Returns:
        Indices into `samples`, ascending.
    """
    generator = np.random.default_rng(seed)
    by_label: dict[tuple[str, ...], dict[str, list[int]]] = {}
    for index in generator.permutation(len(samples)).tolist():
        by_label.setdefault(samples[index].labels, {}).setdefault(samples[index].group, []).append(index)
    queues = [_round_robin([by_label[label][group] for group in sorted(by_label[label])]) for label in sorted(by_label)]
    return sorted(_round_robin(queues)[:count])


def _round_robin(queues: Sequence[Sequence[int]]) -> list[int]:
    """One of each queue in turn, until all are empty."""
    longest = max((len(queue) for queue in queues), default=0)
    return [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]
