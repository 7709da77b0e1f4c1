"""masks: what each cell of a map sees of the lesion masks that the data manifest names.

Rules this file keeps:

1. A mask is untrusted: it is read like a frame, and must be as large as its frame. A mask of another size could only be guessed into place.
2. A mask has two values. Which of several is the lesion would be a guess, and so would be a coloured drawing: both are refused.
3. An empty mask, and a lesion outside the crop, is left out and counted: there is nothing a map could point at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler.progress import Progress
from edgekit.compiler.versions import versions
from edgekit.compiler.workspace import Stage, file_digest
from edgekit.errors import DataError
from edgekit.evaluation.dataset import Sample
from edgekit.evaluation.localisation import Lesions
from edgekit.imaging.coverage import cells_of
from edgekit.imaging.frames import only_frame
from edgekit.imaging.preprocess import crop_box
from edgekit.schema.decode import encode
from edgekit.schema.model_io import InputSpec

EMPTY = "the mask is empty"
OUTSIDE = "the lesion lies outside the crop"

_SPLIT_AT = 128
"""Where a mask holds levels of grey (a JPEG's rounding, an antialiased edge), from here on a pixel is in it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PreparedMasks:
    """Masks as cells see them.

    Attributes:
        lesions: Of every frame, in the order of the samples.
        reasons: Why a frame has nothing to point at; empty where it has.
    """

    lesions: Lesions
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MasksStage(Stage[PreparedMasks]):
    """Reads masks.

    Attributes:
        samples: Frames that have one.
        input: How a frame becomes what the map covers.
        size: Rows and columns of the map.
    """

    name: ClassVar[str] = "masks"
    samples: tuple[Sample, ...]
    input: InputSpec
    size: tuple[int, int]

    def requires(self) -> Mapping[str, object]:
        return {
            "files": [[file_digest(sample.path), file_digest(_path(sample))] for sample in self.samples],
            "input": encode(self.input),
            "size": list(self.size),
            "versions": versions("pillow", "numpy", "pydicom", "pyjpegls", "pylibjpeg-openjpeg", "python-gdcm"),
        }

    def apply(self, folder: Path, progress: Progress) -> None:
        covered, centre, reasons = [], [], []
        for index, sample in enumerate(self.samples):
            shape = only_frame(sample.path).shape
            mask = read_mask(_path(sample), shape[:2])
            part, middle = cells_of(mask, crop_box(shape, self.input), self.size)
            covered.append(part)
            centre.append(middle)
            reasons.append(EMPTY if not mask.any() else OUTSIDE if not part.any() else "")
            progress.step(index + 1, len(self.samples))
        np.save(folder / "covered.npy", np.stack(covered))
        np.save(folder / "centre.npy", np.stack(centre))
        (folder / "reasons.json").write_text(json.dumps(reasons))

    def ensures(self, folder: Path) -> PreparedMasks:
        covered, centre = (np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("covered", "centre"))
        return PreparedMasks(
            lesions=Lesions(covered=covered, centre=centre), reasons=tuple(json.loads((folder / "reasons.json").read_text()))
        )


def read_mask(path: Path, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Reads a lesion mask.

    Args:
        path: A picture in a format that frames are read from.
        shape: (rows, columns) of its frame.

    Returns:
        bool (rows, columns): where the lesion is.

    Raises:
        DataError: It cannot be read, has another size, is coloured, or has values that are neither a lesion's nor its surroundings'.
    """
    pixels = only_frame(path)
    if pixels.ndim == 3:
        if (pixels != pixels[..., :1]).any():
            raise DataError(f"{path}: the mask is coloured", hint="a mask is black where there is no lesion and white where there is one")
        pixels = pixels[..., 0]
    if pixels.shape != shape:
        raise DataError(
            f"{path}: the mask has {pixels.shape[0]} × {pixels.shape[1]} pixels, its frame {shape[0]} × {shape[1]}",
            hint="export the mask at the size of its frame",
        )
    largest = int(pixels.max())
    if 1 < largest < _SPLIT_AT:
        raise DataError(
            f"{path}: the mask's values reach from {int(pixels.min())} to {largest}, and which of them are the lesion is not known",
            hint="a mask is 0 where there is no lesion, and 255 (or 1) where there is one",
        )
    return pixels >= (1 if largest == 1 else _SPLIT_AT)


def _path(sample: Sample) -> Path:
    if sample.mask is None:
        raise ValueError(f"{sample.file} has no mask")
    return sample.mask
