"""Finds the frames in class folders, for people who have no data manifest.

Two layouts are understood: ``FOLDER/<class>/…`` and the already split ``FOLDER/<split>/<class>/…``.

Rules this file keeps:

1. The name of a class folder is the label. Hidden files and folders are left out; a file of another kind is counted, not guessed at.
2. ``x_mask.png`` beside ``x.png`` is the lesion mask of ``x.png`` and never a frame: a classifier must not be shown the answer. Further masks
   (``x_mask_1.png``) are counted as skipped.
3. The order is that of the relative paths, so the same folder gives the same plan on every file system.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import DataError
from edgekit.evaluation.dataset import SPLITS

FRAME_SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".ima")

_SPLIT_FOLDERS = {"train": "train", "calib": "calib", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_MASK = re.compile(r"(?P<frame>.+)_mask(?P<further>_\d+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFrame:
    """One frame in a class folder.

    Attributes:
        path: Where it is.
        relative: Its path below the folder, with ``/``.
        label: Name of its class folder.
        inside: Its path below the class folder.
        split: The split it was found in; None in a folder that is not split yet.
        mask: Its lesion mask, where there is one.
    """

    path: Path
    relative: str
    label: str
    inside: Path
    split: str | None
    mask: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFolder:
    """What a folder holds: `labels` sorted, `frames` in the order of their relative paths, `skipped` files that are no frames."""

    root: Path
    labels: tuple[str, ...]
    frames: tuple[FoundFrame, ...]
    skipped: int

    @property
    def given_splits(self) -> tuple[str, ...]:
        """The splits the folder came with; empty where it is not split yet."""
        found = {frame.split for frame in self.frames}
        return tuple(split for split in SPLITS if split in found)


def scan_folder(root: Path, *, suffixes: Sequence[str] = FRAME_SUFFIXES) -> FoundFolder:
    """Finds every frame below a folder.

    Args:
        root: The folder.
        suffixes: File name endings of frames, lower case, with the dot.

    Raises:
        DataError: It is no folder, has fewer than two class folders, has frames outside of class folders, or mixes splits and classes.
    """
    top = _folders(root)
    splits = {name: _SPLIT_FOLDERS[name.casefold()] for name in top if name.casefold() in _SPLIT_FOLDERS}
    _refuse_loose_frames(root, suffixes, "class folders" if not splits else "split folders")
    frames: list[FoundFrame] = []
    skipped = 0
    for split_folder, split in _split_folders(root, top, splits):
        if split is not None:
            _refuse_loose_frames(split_folder, suffixes, "class folders")
        for name in _folders(split_folder):
            if name != name.strip():
                raise DataError(
                    f"the class folder {str(split_folder / name)!r} has spaces around its name", hint="rename it: its name is the label"
                )
            found, rest = _class_frames(root, split_folder / name, split, suffixes)
            frames += found
            skipped += rest
    labels = tuple(sorted({frame.label for frame in frames}))
    if len(labels) < 2:
        raise DataError(
            f"{root}: frames were found in {len(labels)} class folders, at least two are needed",
            hint=f"expected FOLDER/<class>/frame.png or FOLDER/train/<class>/frame.png; frames end in {', '.join(suffixes)}",
        )
    return FoundFolder(root=root, labels=labels, frames=tuple(sorted(frames, key=lambda frame: frame.relative)), skipped=skipped)


def _split_folders(root: Path, top: Sequence[str], splits: dict[str, str]) -> list[tuple[Path, str | None]]:
    if not splits:
        return [(root, None)]
    others = [name for name in top if name not in splits]
    if others:
        raise DataError(f"{root} holds both split folders ({', '.join(splits)}) and {others[0]!r}", hint="either all splits or all classes")
    if "train" not in splits.values():
        raise DataError(f"{root} holds {', '.join(splits)} but no train folder", hint="the splits that are missing are taken from train")
    if len(set(splits.values())) != len(splits):
        raise DataError(f"{root}: two folders mean the same split: {', '.join(splits)}", hint="keep one of them")
    return [(root / name, split) for name, split in splits.items()]


def _class_frames(root: Path, folder: Path, split: str | None, suffixes: Sequence[str]) -> tuple[list[FoundFrame], int]:
    files = sorted(_files(folder))
    candidates = [path for path in files if path.suffix.lower() in suffixes]
    stems = {(path.parent, path.stem) for path in candidates}
    masks: dict[tuple[Path, str], Path] = {}
    frames: list[Path] = []
    for path in candidates:
        match = _MASK.fullmatch(path.stem)
        if match is None or (path.parent, match["frame"]) not in stems:
            frames.append(path)
        elif match["further"] is None:
            masks[path.parent, match["frame"]] = path
    found = [
        FoundFrame(
            path=path,
            relative=path.relative_to(root).as_posix(),
            label=folder.name,
            inside=path.relative_to(folder),
            split=split,
            mask=masks.get((path.parent, path.stem)),
        )
        for path in frames
    ]
    return found, len(files) - len(frames) - len(masks)


def _folders(root: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{root}: cannot read the folder: {reason}", hint="give the folder that holds the class folders") from error


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, onerror=_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent) / name for name in names if not name.startswith("."))


def _unreadable(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot read the folder: {error.strerror}") from error


def _refuse_loose_frames(folder: Path, suffixes: Sequence[str], expected: str) -> None:
    loose = sorted(
        path for path in folder.iterdir() if path.suffix.lower() in suffixes and path.is_file() and not path.name.startswith(".")
    )
    if loose:
        raise DataError(
            f"{folder} holds {len(loose)} frames beside its {expected}, the first {loose[0].name!r}", hint="move them into their class"
        )
