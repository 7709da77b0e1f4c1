"""gate frames: frames that an input gate is tried on, read or drawn, and preprocessed as the classifier's own.

Rules this file keeps:

1. A set that a recipe names is a CSV with a column of files; labels are not looked at, since a foreign frame has none of the classifier's.
2. What is drawn needs no data: kinds of `imaging.foreign`, and the frames of `test` with black and white exchanged.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler.progress import Progress
from edgekit.compiler.versions import versions
from edgekit.compiler.workspace import Stage, file_digest
from edgekit.errors import DataError, nearest
from edgekit.evaluation.dataset import MAX_MANIFEST_BYTES, Sample
from edgekit.imaging import foreign
from edgekit.imaging.preprocess import preprocess
from edgekit.imaging.quality import frame_figures
from edgekit.schema.data import Columns
from edgekit.schema.decode import encode
from edgekit.schema.model_io import InputSpec

DRAWN_FRAMES = 48
"""Frames of each kind that is drawn."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DrawnFrames:
    """Frames of a kind: uint8 (frames, height, width, channels), their figures (`PreparedSplit.figures`), and the digest of the tensors."""

    tensors: NDArray[np.uint8]
    figures: NDArray[np.float32]
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnStage(Stage[DrawnFrames]):
    """Draws frames of a kind in `imaging.foreign.KINDS`."""

    name: ClassVar[str] = "drawn"
    kind: str
    input: InputSpec

    def requires(self) -> Mapping[str, object]:
        return {"kind": self.kind, "frames": DRAWN_FRAMES, "input": encode(self.input), "versions": versions("pillow", "numpy")}

    def apply(self, folder: Path, progress: Progress) -> None:
        drawn = foreign.frames(self.kind, DRAWN_FRAMES)
        progress.step(1, 2)
        np.save(folder / "tensors.npy", np.concatenate([preprocess(frame, self.input) for frame in drawn]))
        np.save(folder / "figures.npy", np.array([frame_figures(frame) for frame in drawn], dtype=np.float32))
        progress.step(2, 2)

    def ensures(self, folder: Path) -> DrawnFrames:
        path = folder / "tensors.npy"
        tensors, figures = (np.load(folder / name, allow_pickle=False) for name in ("tensors.npy", "figures.npy"))
        return DrawnFrames(tensors=tensors, figures=figures, sha256=file_digest(path))


def named_samples(path: Path, columns: Columns, *, count: int, seed: int = 0) -> tuple[Sample, ...]:
    """Frames of a CSV whose labels mean nothing here, at most `count`, drawn at random.

    Args:
        path: UTF-8, first line the column names, with the column of files; the column of groups is read where there is one.
        columns: Their names.
        count: How many.
        seed: Of the draw.

    Raises:
        DataError: It cannot be read, lacks the column, has no rows, or a frame is not there.
    """
    rows = _rows(path, columns)
    chosen = sorted(np.random.default_rng(seed).permutation(len(rows))[:count].tolist())
    samples = tuple(_sample(path, columns, rows[index], index) for index in chosen)
    missing = [sample for sample in samples if not sample.path.is_file()]
    if missing:
        raise DataError(
            f"{path}: {len(missing)} frame files are not there, the first: {missing[0].path}", hint="paths are relative to the CSV"
        )
    return samples


def _rows(path: Path, columns: Columns) -> Sequence[Mapping[str, str]]:
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise DataError(
                f"{path} has more than {MAX_MANIFEST_BYTES} bytes", hint="a set of frames is a small CSV; is this the right file?"
            )
        reader = csv.DictReader(io.StringIO(path.read_text("utf-8-sig"), newline=""), strict=True)
        rows = list(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: cannot read the set of foreign frames: {error}", hint="[gate] foreign names CSVs of files") from error
    if columns.file not in (reader.fieldnames or ()):
        raise DataError(f"{path}: the column {columns.file!r} is missing", hint=nearest(columns.file, reader.fieldnames or ()))
    if not rows or any(not (row[columns.file] or "").strip() for row in rows):
        raise DataError(f"{path}: it has no rows, or a row without a file")
    return rows


def _sample(path: Path, columns: Columns, row: Mapping[str, str], index: int) -> Sample:
    file = row[columns.file].strip()
    group = (row.get(columns.group) or "").strip() or file
    return Sample(path=path.parent / file, file=file, labels=(), split="foreign", group=group, mask=None, extra={}, line=index + 2)
