"""Plans splits for class folders, and writes them as a data manifest.

Rules this file keeps:

1. A group is never in two splits, and every split has frames of every class; where that is impossible the plan is refused, not bent.
2. The same folder, fractions and seed give the same plan, on every machine and with every version of numpy.
3. Splits that came with the folder are kept; the ones that are missing are taken from train, group by group.
4. A manifest that is there is never overwritten unless that is asked for, and never half written.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import math
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgekit.errors import DataError, OutputError
from edgekit.evaluation.dataset import SPLITS
from edgekit.evaluation.grouping import Grouping, Thumbnail, find_groups
from edgekit.evaluation.layout import FRAME_SUFFIXES, FoundFolder, scan_folder

DEFAULT_FRACTIONS: Mapping[str, float] = {"train": 0.55, "calib": 0.15, "val": 0.15, "test": 0.15}

GroupCounts = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRow:
    """One line of a data manifest that is to be written."""

    path: Path
    label: str
    split: str
    group: str
    mask: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitPlan:
    """Splits for a folder.

    Attributes:
        rows: One a frame, in the order of the relative paths.
        labels: Sorted.
        grouping: How the groups were found.
        given_splits: Splits that came with the folder and were kept (train without the groups that were taken from it).
        skipped: Files that are no frames.
    """

    rows: tuple[PlannedRow, ...]
    labels: tuple[str, ...]
    grouping: Grouping
    given_splits: tuple[str, ...]
    skipped: int

    def counts(self) -> dict[str, dict[str, int]]:
        """Split to label to number of frames."""
        found = Counter((row.split, row.label) for row in self.rows)
        return {split: {label: found[split, label] for label in self.labels} for split in SPLITS}


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitOptions:
    """How to split.

    Attributes:
        fractions: Share of the frames in each of train, calib, val and test; above 0, summing to 1.
        seed: Another seed gives another split.
        pattern: Regular expression that finds the group in the path of a frame (see `grouping.find_groups`).
        suffixes: File name endings of frames.
    """

    fractions: Mapping[str, float] = field(default_factory=lambda: DEFAULT_FRACTIONS)
    seed: int = 0
    pattern: str | None = None
    suffixes: tuple[str, ...] = FRAME_SUFFIXES

    def __post_init__(self) -> None:
        if set(self.fractions) != set(SPLITS) or not all(value > 0 for value in self.fractions.values()):
            raise DataError(f"the fractions must name {', '.join(SPLITS)}, each above 0")
        if not math.isclose(sum(self.fractions.values()), 1, abs_tol=1e-6):
            raise DataError(f"the fractions must sum to 1, not {sum(self.fractions.values()):g}")


def plan_splits(root: Path, *, thumbnail: Thumbnail, options: SplitOptions | None = None) -> SplitPlan:
    """Plans grouped splits, stratified by class.

    Args:
        root: A folder with class folders, or with split folders that hold class folders.
        thumbnail: From the path of a frame to float32 (32, 32); called only where nothing else tells the groups.
        options: How to split.

    Raises:
        DataError: The folder, its groups or the fractions do not allow a split.
    """
    options = options or SplitOptions()
    folder = scan_folder(root, suffixes=options.suffixes)
    grouping = find_groups(folder, thumbnail=thumbnail, pattern=options.pattern)
    split_of = _given_splits(folder, grouping)
    missing = [split for split in SPLITS if split not in folder.given_splits]
    if missing:
        # A folder without splits is all "train": everything that is missing is taken from it.
        counts = _counts(folder, grouping, [name for name, split in split_of.items() if split == "train"])
        wanted = {split: options.fractions[split] for split in SPLITS if split == "train" or split in missing}
        split_of |= assign_groups(counts, wanted, seed=options.seed)
    _require_every_class(folder, grouping, split_of)
    rows = tuple(
        PlannedRow(path=frame.path, label=frame.label, split=split_of[group], group=group, mask=frame.mask)
        for frame, group in zip(folder.frames, grouping.names, strict=True)
    )
    return SplitPlan(rows=rows, labels=folder.labels, grouping=grouping, given_splits=folder.given_splits, skipped=folder.skipped)


def assign_groups(counts: GroupCounts, fractions: Mapping[str, float], *, seed: int) -> dict[str, str]:
    """Assigns whole groups to splits so that each class is shared out as the fractions say.

    Large groups go first, each to the split that it fills least; then splits that lack a class get the smallest group that can be spared.

    Args:
        counts: Group to label to number of frames.
        fractions: Split to relative share; need not sum to 1.
        seed: Orders groups of equal size.

    Returns:
        Group to split.

    Raises:
        DataError: A class has too few groups to be in every split.
    """
    totals: Counter[str] = Counter()
    for inside in counts.values():
        totals.update(inside)
    _require_enough_groups(counts, totals, len(fractions))
    whole = sum(fractions.values())
    goal = {(split, label): total * share / whole for split, share in fractions.items() for label, total in totals.items()}
    filled: Counter[tuple[str, str]] = Counter()
    result: dict[str, str] = {}
    for group in sorted(counts, key=lambda name: (-sum(counts[name].values()), _shuffled(name, seed))):

        def fullness(split: str, group: str = group) -> float:
            # Half of the group, as in Sainte-Laguë's method: counting all of it would favour the largest split.
            return sum(frames * (filled[split, label] + frames / 2) / goal[split, label] for label, frames in counts[group].items())

        result[group] = min(fractions, key=fullness)
        filled.update({(result[group], label): frames for label, frames in counts[group].items()})
    _fill_gaps(result, counts, list(fractions), list(totals))
    return result


def write_manifest(path: Path, rows: Sequence[PlannedRow], *, force: bool = False) -> None:
    """Writes a data manifest with the columns file, label, split, patient_or_video_id, and mask where a row has one.

    Args:
        path: The CSV. Files below its folder are written relative to it, others absolute.
        rows: From `plan_splits`.
        force: Whether a file that is there may be replaced.

    Raises:
        OutputError: The file is there already, or cannot be written; nothing is left behind then.
        DataError: A file name cannot be written as UTF-8.
    """
    if not force and os.path.lexists(path):
        raise OutputError(f"{path} is there already and is not overwritten", hint="move it away, or ask for it to be replaced")
    data = _csv_bytes(path, rows)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
    except OSError as error:
        raise OutputError(
            f"{path}: cannot write the data manifest: {error.strerror}", hint="does the folder exist, may you write there?"
        ) from error


def _csv_bytes(path: Path, rows: Sequence[PlannedRow]) -> bytes:
    masks = any(row.mask is not None for row in rows)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "label", "split", "patient_or_video_id", *(["mask"] if masks else [])])
    home = path.parent.absolute()
    for row in rows:
        mask = [_relative(row.mask, home) if row.mask is not None else ""] if masks else []
        writer.writerow([_relative(row.path, home), row.label, row.split, row.group, *mask])
    try:
        return text.getvalue().encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"a file name cannot be written as UTF-8: {error.object[error.start - 40 : error.end]!r}", hint="rename the file"
        ) from error


def _relative(file: Path, home: Path) -> str:
    absolute = file.absolute()
    return (absolute.relative_to(home) if absolute.is_relative_to(home) else absolute).as_posix()


def _given_splits(folder: FoundFolder, grouping: Grouping) -> dict[str, str]:
    result: dict[str, str] = {}
    for frame, group in zip(folder.frames, grouping.names, strict=True):
        split = frame.split or "train"
        if result.setdefault(group, split) != split:
            raise DataError(
                f"{folder.root}: the group {group!r} is in two of the given splits, {result[group]!r} and {split!r} ({frame.relative})",
                hint="move all its frames into one split, or put the class folders side by side and let edgekit split",
            )
    return result


def _counts(folder: FoundFolder, grouping: Grouping, groups: Sequence[str]) -> GroupCounts:
    wanted = set(groups)
    result: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for frame, group in zip(folder.frames, grouping.names, strict=True):
        if group in wanted:
            result[group][frame.label] += 1
    return result


def _require_every_class(folder: FoundFolder, grouping: Grouping, split_of: Mapping[str, str]) -> None:
    there = {(split_of[group], frame.label) for frame, group in zip(folder.frames, grouping.names, strict=True)}
    for split in SPLITS:
        for label in folder.labels:
            if (split, label) not in there:
                raise DataError(
                    f"{folder.root}: the split {split!r} has no frame of {label!r}", hint="every split needs frames of every class"
                )


def _require_enough_groups(counts: GroupCounts, labels: Mapping[str, int], splits: int) -> None:
    for label in sorted(labels):
        having = sum(label in inside for inside in counts.values())
        if having < splits:
            raise DataError(
                f"the class {label!r} has {having} groups, too few for {splits} splits",
                hint="every split needs a patient of every class: add frames, or check what the groups were made from",
            )


def _fill_gaps(result: dict[str, str], counts: GroupCounts, splits: Sequence[str], labels: Sequence[str]) -> None:
    # Rarest class first: it has the fewest groups to spare.
    having = {label: [group for group in counts if label in counts[group]] for label in labels}
    for label in sorted(labels, key=lambda name: (len(having[name]), name)):
        for split in splits:
            if any(result[group] == split for group in having[label]):
                continue
            spare = [group for group in having[label] if _can_leave(group, result, counts, having)]
            if not spare:
                raise DataError(
                    f"the class {label!r} cannot be in every split without cutting through a group",
                    hint="its few groups also hold the only frames of other classes; add patients",
                )
            result[min(spare, key=lambda name: (sum(counts[name].values()), name))] = split


def _can_leave(group: str, result: Mapping[str, str], counts: GroupCounts, having: Mapping[str, Sequence[str]]) -> bool:
    # Whether the split would keep a frame of every class the group has.
    return all(any(other != group and result[other] == result[group] for other in having[label]) for label in counts[group])


def _shuffled(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest()
