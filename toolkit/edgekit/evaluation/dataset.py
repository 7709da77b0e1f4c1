"""Reads a data manifest: which frame carries which label, belongs to which patient, and is used for what.

Rules this file keeps:

1. Everything wrong is a `DataError` that names the file, the line and what is wrong: a mislabelled row is found here or never.
2. A group (patient or video) is in one split only, also where only one of them is used; otherwise the test split would measure memory.
3. Rows of splits that are not used are counted, not checked: they may carry labels the model does not know. A misspelt split is no such row.
4. Spaces around a label, split or group mean nothing; a file name is taken as it is written.
5. Files are relative to the folder of the manifest. Absolute paths and `..` are allowed: the manifest is the user's own.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError, nearest
from edgekit.schema.data import Columns
from edgekit.schema.model_io import OutputSpec

SPLITS = ("train", "calib", "val", "test")
MAX_MANIFEST_BYTES = 256 * 1024 * 1024

_SYNONYMS = {"training": "train", "calibration": "calib", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}
_WIDE_ENCODINGS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One labelled frame.

    Attributes:
        path: Where the frame is; absolute or relative to the working directory.
        file: The same as the manifest writes it, for messages and lists.
        labels: Exactly one except for multilabel, where there may be none or several; in the order of the output.
        split: One of the splits that were asked for.
        group: Patient or video.
        mask: Lesion mask; None where the row has none.
        extra: The other columns of the row.
        line: Line of the manifest, counted from 1.
    """

    path: Path
    file: str
    labels: tuple[str, ...]
    split: str
    group: str
    mask: Path | None
    extra: Mapping[str, str]
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DataManifest:
    """A checked data manifest.

    Attributes:
        path: The CSV.
        samples: Rows of the used splits, in the order of the file.
        ignored: Split to number of rows that are not used.
        sha256: Digest of the bytes of the CSV, as 64 lower-case hex digits. Does not cover the frames.
    """

    path: Path
    samples: tuple[Sample, ...]
    ignored: Mapping[str, int]
    sha256: str

    def split(self, name: str) -> tuple[Sample, ...]:
        """The frames of one split, in the order of the file.

        Raises:
            DataError: No row has this split.
        """
        found = tuple(sample for sample in self.samples if sample.split == name)
        if not found:
            known = {sample.split for sample in self.samples} | set(self.ignored)
            raise DataError(f"{self.path}: no row has the split {name!r}", hint=nearest(name, known))
        return found


def truth_matrix(samples: Sequence[Sample], output: OutputSpec) -> NDArray[np.bool_]:
    """The labels of samples as bool (frames, labels), columns in the order of `output.labels`."""
    column = {label: index for index, label in enumerate(output.labels)}
    truth = np.zeros((len(samples), len(column)), dtype=bool)
    for row, sample in enumerate(samples):
        truth[row, [column[label] for label in sample.labels]] = True
    return truth


def load_manifest(path: Path, columns: Columns, output: OutputSpec, *, splits: Sequence[str] = SPLITS) -> DataManifest:
    """Reads and checks a data manifest.

    Args:
        path: A CSV in UTF-8 (with or without a byte order mark), comma-separated, first line the column names.
        columns: Which column holds what.
        output: The labels that may occur.
        splits: Splits whose rows are used and checked; rows of others are only counted.

    Raises:
        DataError: Anything in it that is wrong (see the rules of this file), also frames that are not there.
    """
    data = _read(path)
    if output.task == "multilabel" and (mixed := [label for label in output.labels if re.search(r"[;|]", label)]):
        raise DataError(f"{path}: the label {mixed[0]!r} contains a sign that separates labels", hint="rename it without ';' and '|'")
    records = _records(path, _decode(path, data))
    header_line, header = next(records, (1, []))
    if not header:
        raise DataError(f"{path} is empty", hint=f"the first line names the columns: {','.join(columns.named())}")
    _check_header(path, header_line, header, columns)
    reader = _RowReader(path, columns, output, tuple(splits))
    samples: list[Sample] = []
    ignored: Counter[str] = Counter()
    groups: list[tuple[str, str, int]] = []
    for line, cells in records:
        if len(cells) != len(header):
            raise reader.fail(line, f"{len(cells)} cells where the header has {len(header)}", "a comma inside a cell needs double quotes")
        row = dict(zip(header, cells, strict=True))
        split = reader.split(line, row)
        if split in splits or split in SPLITS:
            groups.append((row[columns.group].strip(), split, line))
        if split in splits:
            samples.append(reader.sample(line, row, split))
        else:
            ignored[split] += 1
    if not samples and not ignored:
        raise DataError(f"{path} has a header but no rows", hint="one line a frame")
    _check_repeats(path, samples)
    _check_groups(path, groups)
    _check_files(path, samples)
    return DataManifest(path=path, samples=tuple(samples), ignored=dict(ignored), sha256=hashlib.sha256(data).hexdigest())


def require_splits(manifest: DataManifest, names: Sequence[str], output: OutputSpec) -> None:
    """Refuses splits on which nothing could be measured.

    Every label must occur in each of them (binary, multiclass); for multilabel at least one label must be both present and absent.

    Raises:
        DataError: Naming the split and the labels that are not in it.
    """
    for name in names:
        samples = manifest.split(name)
        truth = truth_matrix(samples, output)
        where = f"{manifest.path}: the split {name!r} ({len(samples)} frames)"
        if output.task == "multilabel":
            if not (truth.any(axis=0) & ~truth.all(axis=0)).any():
                raise DataError(
                    f"{where} has no label that is both present and absent", hint="nothing can be measured on it; move groups into it"
                )
            continue
        absent = [label for column, label in enumerate(output.labels) if not truth[:, column].any()]
        if absent:
            raise DataError(
                f"{where} has no frame of {', '.join(map(repr, absent))}", hint="every label must occur in it; move whole groups from train"
            )


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise DataError(
                f"{path} has more than {MAX_MANIFEST_BYTES} bytes", hint="a data manifest is a small CSV; is this the right file?"
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(
            f"{path}: cannot read the data manifest: {reason}", hint="edgekit init FOLDER makes one from class folders"
        ) from error


def _decode(path: Path, data: bytes) -> str:
    if data.startswith(_WIDE_ENCODINGS):
        raise DataError(f"{path} is UTF-16, not UTF-8", hint="save it as 'CSV UTF-8'")
    if (nul := data.find(b"\0")) >= 0:
        line = data.count(b"\n", 0, nul) + 1
        raise DataError(f"{path}: line {line}: a NUL byte", hint="this is not a text file; is it a spreadsheet?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}: line {line}: not UTF-8 (byte 0x{data[error.start]:02x})", hint="save it as 'CSV UTF-8'") from error


def _records(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    # Yields (first line of the record, cells); blank lines are left out.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"{path}: line {line}: not valid CSV: {error}", hint="is a double quote missing or left open?") from error
        if any(cell.strip() for cell in cells):
            yield line, cells


def _check_header(path: Path, line: int, header: Sequence[str], columns: Columns) -> None:
    for name in columns.named():
        if name not in header:
            separated = len(header) == 1 and re.search(r"[;\t]", header[0])
            hint = f"the columns seem to be separated by {separated[0]!r}; save it with commas" if separated else nearest(name, header)
            raise DataError(f"{path}: line {line}: the column {name!r} is missing", hint=hint)
    repeated = [name for name, count in Counter(header).items() if count > 1 and name]
    if repeated:
        raise DataError(f"{path}: line {line}: the column {repeated[0]!r} is there twice", hint="rename or remove one of them")


class _RowReader:
    def __init__(self, path: Path, columns: Columns, output: OutputSpec, splits: tuple[str, ...]) -> None:
        self._path = path
        self._columns = columns
        self._output = output
        self._splits = splits

    def fail(self, line: int, what: str, hint: str = "") -> DataError:
        return DataError(f"{self._path}: line {line}: {what}", hint=hint)

    def split(self, line: int, row: Mapping[str, str]) -> str:
        name = self._filled(line, row, self._columns.split)
        meant = _SYNONYMS.get(name.casefold(), name.casefold())
        if name not in self._splits and meant in self._splits and meant != name:
            raise self.fail(line, f"the split {name!r} is not known", f"did you mean {meant!r}? splits used: {', '.join(self._splits)}")
        return name

    def sample(self, line: int, row: Mapping[str, str], split: str) -> Sample:
        file = row[self._columns.file]
        self._filled(line, row, self._columns.file)
        mask = row[self._columns.mask] if self._columns.mask is not None else ""
        read = set(self._columns.named())
        return Sample(
            path=self._path.parent / file,
            file=file,
            labels=self._labels(line, row),
            split=split,
            group=self._filled(line, row, self._columns.group),
            mask=self._path.parent / mask if mask.strip() else None,
            extra={name: cell for name, cell in row.items() if name not in read},
            line=line,
        )

    def _filled(self, line: int, row: Mapping[str, str], column: str) -> str:
        cell = row[column].strip()
        if not cell:
            raise self.fail(line, f"the cell of column {column!r} is empty")
        return cell

    def _labels(self, line: int, row: Mapping[str, str]) -> tuple[str, ...]:
        if self._output.task != "multilabel":
            return (self._known(line, self._filled(line, row, self._columns.label)),)
        cell = row[self._columns.label]
        found = [self._known(line, label.strip()) for label in re.split(r"[;|]", cell)] if cell.strip() else []
        if len(set(found)) != len(found):
            raise self.fail(line, f"a label is repeated in {cell!r}")
        return tuple(label for label in self._output.labels if label in found)

    def _known(self, line: int, label: str) -> str:
        if label not in self._output.labels:
            empty = "; leave the cell empty where no label applies" if self._output.task == "multilabel" else ""
            raise self.fail(line, f"the label {label!r} is not known", nearest(label, self._output.labels) + empty)
        return label


def _check_repeats(path: Path, samples: Sequence[Sample]) -> None:
    first: dict[str, Sample] = {}
    for sample in samples:
        before = first.setdefault(os.path.normpath(sample.path), sample)
        if before is not sample:
            raise DataError(
                f"{path}: line {sample.line}: the file {sample.file!r} is already on line {before.line}", hint="each frame has one line"
            )


def _check_groups(path: Path, rows: Sequence[tuple[str, str, int]]) -> None:
    """Refuses a group in two splits; rows are (group, split, line), of the used splits and of every other one a model may have seen."""
    first: dict[str, tuple[str, int]] = {}
    for group, split, line in rows:
        if not group:
            continue  # an empty cell of a used row was refused; one of an unused row joins nothing
        earlier, where = first.setdefault(group, (split, line))
        if earlier != split:
            raise DataError(
                f"{path}: line {line}: the group {group!r} is in two splits: {earlier!r} (line {where}) and {split!r}",
                hint="all frames of one patient or video belong into one split",
            )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        # A name longer than the file system allows, or a folder that may not be entered: the frame cannot be read either way.
        return False


def _check_files(path: Path, samples: Sequence[Sample]) -> None:
    for what, needed in (
        ("frame", [(sample, sample.path) for sample in samples]),
        ("mask", [(sample, sample.mask) for sample in samples if sample.mask is not None]),
    ):
        missing = [(sample, file) for sample, file in needed if not _is_file(file)]
        if missing:
            sample, file = missing[0]
            raise DataError(
                f"{path}: {len(missing)} of {len(needed)} {what} files are not there, the first on line {sample.line}: {file}",
                hint="paths are relative to the folder of the manifest and use '/'",
            )
