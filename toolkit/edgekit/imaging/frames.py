"""Frames from files: which reader takes a file, and which files a list of inputs stands for.

Rules this file keeps:

1. A format is told by its first bytes, never by the file's name. What two readers claim is refused: a file that is one picture to one program
   and another to the next must not be classified. A TIFF in a DICOM preamble is allowed by the standard (PS3.10 7.1): the DICOM is read.
2. Frames are read one at a time: a cine of a thousand frames needs the memory of one.
3. A picture has no time; a frame of a cine or a video has one where the file says it.
4. Nothing is left out in silence. In a folder, a file is taken when its content *or* its name says it is a frame or a video, so a damaged
   frame is an error of its own, not a missing result; notes, tables and masks in other formats are skipped.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError
from edgekit.imaging import dicom, raster, video

Reader = Callable[[Path], Iterator[tuple[NDArray[np.uint8], float | None]]]
"""Pixels and the time in seconds, frame by frame."""


def _still(read: Callable[[Path], Iterator[NDArray[np.uint8]]]) -> Reader:
    return lambda path: ((pixels, None) for pixels in read(path))


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One file format: a file that has `magic` at byte `offset` is a `name`, read by `read` (None: known, but not read).

    `moving` says that its frames follow each other in time, so that together they are one clip; `count` says how many a file has, where it may be one.
    """

    name: str
    offset: int
    magic: bytes
    read: Reader | None = None
    moving: bool = False
    count: Callable[[Path], int] | None = None


# The extension point: a new format is a row here. The second DICOM row is a file whose writer left out the 128-byte preamble but wrote the
# file meta group, which says all that is needed; without either, the encoding would be a guess and the file is refused as unknown.
FORMATS: tuple[Format, ...] = (
    Format(name="PNG", offset=0, magic=b"\x89PNG\r\n\x1a\n", read=_still(raster.read_png)),
    Format(name="JPEG", offset=0, magic=b"\xff\xd8\xff", read=_still(raster.read_jpeg)),
    Format(name="DICOM", offset=128, magic=b"DICM", read=dicom.read_timed, moving=True, count=dicom.count_frames),
    Format(name="DICOM", offset=0, magic=b"\x02\x00\x00\x00UL\x04\x00", read=dicom.read_timed, moving=True, count=dicom.count_frames),
    Format(name="MP4 or MOV video", offset=4, magic=b"ftyp", read=video.read_mp4, moving=True),
    # Files of the first QuickTime versions begin without a type.
    *(Format(name="MP4 or MOV video", offset=4, magic=box, read=video.read_mp4, moving=True) for box in (b"moov", b"mdat", b"wide")),
    Format(name="AVI video", offset=8, magic=b"AVI ", read=video.read_avi, moving=True),
    Format(name="Matroska or WebM video", offset=0, magic=b"\x1a\x45\xdf\xa3", read=video.read_matroska, moving=True),
    Format(name="TIFF", offset=0, magic=b"II*\x00"),
    Format(name="TIFF", offset=0, magic=b"MM\x00*"),
    Format(name="GIF", offset=0, magic=b"GIF8"),
    Format(name="BMP", offset=0, magic=b"BM"),
    Format(name="WebP", offset=8, magic=b"WEBP"),
    Format(name="gzip archive", offset=0, magic=b"\x1f\x8b"),
    Format(name="ZIP archive", offset=0, magic=b"PK\x03\x04"),
)

# Told by name only inside a folder, so that a damaged one is reported and not skipped.
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".mp4", ".mov", ".avi", ".mkv", ".webm"})
_HEAD_BYTES = 132
# PS3.10 8.6: the index of a medium has this name, and it holds no pixels.
_DICOM_INDEX = "DICOMDIR"
_READ_HERE = "frames are read from PNG, JPEG, DICOM, MP4, MOV, AVI, Matroska and WebM files, and `edgekit run` reads cameras, as camera:0"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """One frame of a file.

    Attributes:
        pixels: uint8 (rows, columns), or uint8 (rows, columns, 3) in RGB order; owned by whoever reads it.
        index: Its place in the file, from 0.
        time_s: When it is shown, in seconds, as the cine or the video says; None for a picture, and where the file does not say.
    """

    pixels: NDArray[np.uint8]
    index: int
    time_s: float | None = None


def read(path: Path) -> Iterator[Frame]:
    """Reads the frames of a file, one at a time.

    Args:
        path: A file of a format of `FORMATS` that is read; anything else is refused.

    Returns:
        An iterator over the frames in the file's order. A file that turns out to be damaged in the middle raises there.

    Raises:
        DataError: At once when the file is missing or of a format that is not read; on iterating when it is damaged, too large or of a
            kind that is refused (see `raster`, `dicom` and `video`).
        MissingEngineError: On iterating, when a decoder that the file needs is not installed.
    """
    reader = format_of(path).read
    return _numbered(reader(path)) if reader is not None else iter(())


def format_of(path: Path) -> Format:
    """The format by which a file is read, told by its first bytes.

    Raises:
        DataError: The file is missing, of a format that is not read, or of two at once.
    """
    found = _formats_of(_head(path))
    readers = {row.name: row for row in found if row.read is not None}
    if len(readers) > 1:
        raise DataError(f"{path}: the file is {' and '.join(readers)} at once", hint="export it again in one format")
    if not readers:
        known = f"its format, {found[0].name}, is not read" if found else "the file is not a picture that edgekit knows"
        raise DataError(f"{path}: {known}", hint=_READ_HERE)
    return next(iter(readers.values()))


def is_moving(path: Path) -> bool:
    """Whether a file is a clip of its own: a video, or an object of several frames.

    Raises:
        DataError: It cannot be read.
        MissingEngineError: A decoder that it needs is not installed.
    """
    found = format_of(path)
    return found.moving and (found.count is None or found.count(path) > 1)


def only_frame(path: Path) -> NDArray[np.uint8]:
    """The pixels of a file that holds exactly one frame, as a row of a data manifest names it.

    Raises:
        DataError: The file holds several frames, so the row does not say which it labels; or it cannot be read.
    """
    found = iter(read(path))
    first = next(found, None)
    if first is None:
        raise DataError(f"{path} holds no frame", hint="check how it was exported")
    if next(found, None) is not None:
        raise DataError(f"{path} holds several frames, and a row labels one", hint="write each labelled frame to a file of its own")
    return first.pixels


def expand(inputs: Sequence[Path]) -> list[Path]:
    """Lists the files that a command's inputs stand for.

    Args:
        inputs: Files, taken as they are, and folders, searched with everything below them. Links are followed, and a folder that is
            reached twice is searched once. Hidden files and folders and a medium's DICOMDIR are skipped.

    Returns:
        The files: inputs in the order given, the files of a folder in the order of their paths.

    Raises:
        DataError: When nothing was given, a path does not exist or cannot be searched, or a folder holds no frame.
    """
    if not inputs:
        raise DataError("no input was given", hint=_READ_HERE)
    files: list[Path] = []
    for path in inputs:
        mode = _mode(path)
        if mode is None:
            camera = str(path).startswith("camera:")
            raise DataError(f"{path}: {'a camera is no file' if camera else 'there is no such file or folder'}", hint=_READ_HERE)
        found = sorted(_frames_below(path)) if stat.S_ISDIR(mode) else [path]
        if not found:
            raise DataError(f"{path}: the folder holds no frame", hint=_READ_HERE)
        files += found
    return files


def _numbered(pictures: Iterator[tuple[NDArray[np.uint8], float | None]]) -> Iterator[Frame]:
    for index, (pixels, time_s) in enumerate(pictures):
        yield Frame(pixels=pixels, index=index, time_s=time_s)


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _head(path: Path) -> bytes:
    mode = _mode(path)
    if mode is None:
        raise DataError(f"{path}: there is no such file")
    # Opening a named pipe would wait for a writer for ever.
    if not stat.S_ISREG(mode):
        raise DataError(f"{path}: is {'a folder' if stat.S_ISDIR(mode) else 'a device or a pipe'}, not a file")
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if not head:
        raise DataError(f"{path}: the file is empty")
    return head


def _formats_of(head: bytes) -> list[Format]:
    return [row for row in FORMATS if head[row.offset : row.offset + len(row.magic)] == row.magic]


def _frames_below(folder: Path) -> Iterator[Path]:
    waiting, visited = [folder], set[tuple[int, int]]()
    while waiting:
        here = waiting.pop()
        try:
            status = here.stat()
            # A link may lead back to a folder above: each real folder is searched once.
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            paths = sorted(here.iterdir())
        except OSError as error:
            raise DataError(f"{here}: the folder cannot be searched: {error.strerror}") from error
        for path in paths:
            if path.name.startswith(".") or path.name == _DICOM_INDEX:
                continue
            if path.is_dir():
                waiting.append(path)
            elif _looks_like_frame(path):
                yield path


def _looks_like_frame(path: Path) -> bool:
    if path.suffix.lower() in _SUFFIXES:
        return True
    if not path.is_file():
        return False
    return any(row.read is not None for row in _formats_of(_head(path) if path.stat().st_size else b""))
