"""Finds out which frames belong to one patient or video, so that no split and no interval cuts through one.

Rules this file keeps:

1. A pattern the user gives says it; else the sub-folders of the class folders; else only likeness is left, which is no patient information and is
   reported as such.
2. The same name is the same group, also under another class: one patient can have frames of both.
3. Byte-identical files are always one group. In two classes, or in two splits that came with the folder, they are refused: one of them is wrong.
4. By likeness, frames whose 32 × 32 thumbnails correlate above 0.98 (Pearson) are one group, and so are chains of them. Across splits
   that came with the folder they cannot be joined; they are counted.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError
from edgekit.evaluation.layout import FoundFolder, FoundFrame

Thumbnail = Callable[[Path], NDArray[np.float32]]

THUMBNAIL_SIDE = 32
NEAR_DUPLICATE = 0.98

_BLOCK = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """Which group each frame belongs to, and how that was found.

    Attributes:
        source: What the groups come from.
        names: Name of the group of each frame, in the order of the folder's frames.
        identical: Frames that are byte-identical to an earlier one.
        near_duplicates: Frames that were joined to an earlier one because they look alike; only for likeness.
        across_splits: Pairs that look alike but came in two different splits; only for likeness.
        across_classes: Pairs that look alike but have different labels; only for likeness. Worth a look by the data's owner.
    """

    source: Literal["pattern", "subfolder", "likeness"]
    names: tuple[str, ...]
    identical: int
    near_duplicates: int
    across_splits: int
    across_classes: int

    def describe(self) -> str:
        """One sentence or two for the user."""
        count = len(set(self.names))
        if self.source == "pattern":
            return f"{count} groups from the pattern."
        if self.source == "subfolder":
            return f"{count} groups from the sub-folders of the class folders."
        return (
            f"No patient information found: {len(self.names)} frames were put into {count} groups by likeness alone "
            f"({self.identical} identical, {self.near_duplicates} near-duplicates). Frames of one patient may be in two splits, "
            "and figures may be too good."
        )


def find_groups(folder: FoundFolder, *, thumbnail: Thumbnail, pattern: str | None = None) -> Grouping:
    """Finds the groups of a folder.

    Args:
        folder: From `layout.scan_folder`.
        thumbnail: From the path of a frame to float32 (32, 32), any scale; called only for likeness. Its errors pass through.
        pattern: A regular expression with one capture group, searched in the path of each frame below the folder (with ``/``).

    Raises:
        DataError: The pattern is wrong or does not match a frame, only some frames are in sub-folders, or identical files contradict (rule 3).
    """
    frames = folder.frames
    joined = _Joined(len(frames))
    identical = _join_identical(frames, joined)
    if pattern is not None:
        return _named("pattern", _by_pattern(folder, pattern), joined, identical)
    if any(len(frame.inside.parts) > 1 for frame in frames):
        return _named("subfolder", _by_subfolder(folder), joined, identical)
    near = across_splits = across_classes = 0
    for first, second in near_duplicate_pairs([thumbnail(frame.path) for frame in frames]):
        if frames[first].split != frames[second].split:
            across_splits += 1
            continue
        # Pairs of the same two groups say nothing new; only the first one joins.
        near += joined.join(first, second)
        across_classes += frames[first].label != frames[second].label
    names = tuple(frames[joined.root(index)].relative for index in range(len(frames)))
    return Grouping(
        source="likeness",
        names=names,
        identical=identical,
        near_duplicates=near,
        across_splits=across_splits,
        across_classes=across_classes,
    )


def near_duplicate_pairs(thumbnails: Sequence[NDArray[np.float32]]) -> Iterator[tuple[int, int]]:
    """Pairs (first < second) whose thumbnails correlate above `NEAR_DUPLICATE`; a thumbnail of one colour correlates with none.

    Args:
        thumbnails: float32 (32, 32) each.
    """
    table = np.stack([np.asarray(image, dtype=np.float32).reshape(THUMBNAIL_SIDE**2) for image in thumbnails])
    table = table - table.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(table, axis=1, keepdims=True)
    table = np.divide(table, norm, out=np.zeros_like(table), where=norm > 1e-6)
    for top in range(0, len(table), _BLOCK):
        for left in range(top, len(table), _BLOCK):
            alike = table[top : top + _BLOCK] @ table[left : left + _BLOCK].T > NEAR_DUPLICATE
            for row, column in np.argwhere(alike):
                if top + row < left + column:
                    yield int(top + row), int(left + column)


class _Joined:
    """Disjoint sets of frames; the root of a set is its first frame."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def root(self, index: int) -> int:
        while self._parent[index] != index:
            self._parent[index] = self._parent[self._parent[index]]
            index = self._parent[index]
        return index

    def join(self, first: int, second: int) -> bool:
        """Joins two sets; False when they were one already."""
        low, high = sorted((self.root(first), self.root(second)))
        self._parent[high] = low
        return low != high


def _join_identical(frames: Sequence[FoundFrame], joined: _Joined) -> int:
    pairs = [(frames[same[0]], frames[index]) for same in _identical(frames) for index in same[1:]]
    _refuse_contradictions("classes", [(one, other) for one, other in pairs if one.label != other.label])
    _refuse_contradictions("splits", [(one, other) for one, other in pairs if one.split != other.split])
    place = {frame.relative: index for index, frame in enumerate(frames)}
    return sum(joined.join(place[one.relative], place[other.relative]) for one, other in pairs)


def _refuse_contradictions(what: str, pairs: Sequence[tuple[FoundFrame, FoundFrame]]) -> None:
    if pairs:
        one, other = pairs[0]
        raise DataError(
            f"{len(pairs)} images are there twice, in two {what}; the first are {one.relative} and {other.relative}",
            hint="remove the ones that are wrong: an image has one label and one split",
        )


def _identical(frames: Sequence[FoundFrame]) -> Iterable[list[int]]:
    # Only files of equal size are read.
    by_size: defaultdict[int, list[int]] = defaultdict(list)
    by_digest: defaultdict[bytes, list[int]] = defaultdict(list)
    try:
        for index, frame in enumerate(frames):
            by_size[frame.path.stat().st_size].append(index)
        for same_size in by_size.values():
            for index in same_size if len(same_size) > 1 else ():
                by_digest[hashlib.sha256(frames[index].path.read_bytes()).digest()].append(index)
    except OSError as error:
        raise DataError(f"{error.filename}: cannot read the frame: {error.strerror}", hint="remove it, or make it readable") from error
    return [same for same in by_digest.values() if len(same) > 1]


def _by_pattern(folder: FoundFolder, pattern: str) -> list[str]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise DataError(f"the group pattern {pattern!r} is not a regular expression: {error}") from error
    if expression.groups != 1:
        raise DataError(
            f"the group pattern {pattern!r} has {expression.groups} capture groups, it needs one",
            hint="put round brackets around the part that names the patient, and (?:…) around everything else",
        )
    names = [match[1].strip() if (match := expression.search(frame.relative)) and match[1] else "" for frame in folder.frames]
    missed = [frame.relative for frame, name in zip(folder.frames, names, strict=True) if not name]
    if missed:
        raise DataError(f"the group pattern {pattern!r} finds no group in {len(missed)} of {len(names)} frames, the first {missed[0]!r}")
    return names


def _by_subfolder(folder: FoundFolder) -> list[str]:
    loose = [frame.relative for frame in folder.frames if len(frame.inside.parts) == 1]
    if loose:
        raise DataError(
            f"{folder.root}: some frames are in sub-folders of their class, {len(loose)} are not, the first {loose[0]!r}",
            hint="put every frame into the folder of its patient, or give a group pattern",
        )
    return [frame.inside.parts[0].strip() for frame in folder.frames]


def _named(source: Literal["pattern", "subfolder"], names: list[str], joined: _Joined, identical: int) -> Grouping:
    # One image under two patients makes them one group: nobody can say whose it is.
    first = {name: index for index, name in reversed(list(enumerate(names)))}
    for index, name in enumerate(names):
        joined.join(first[name], index)
    together = tuple(names[joined.root(index)] for index in range(len(names)))
    return Grouping(source=source, names=together, identical=identical, near_duplicates=0, across_splits=0, across_classes=0)
