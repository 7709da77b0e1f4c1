"""PNG and JPEG files, read into uint8 frames with Pillow.

Rules this file keeps:

1. The size is read from the file's own header and refused before Pillow decodes anything; Pillow may open these two formats only.
2. Every byte that has a check value is checked: all chunks of a PNG by their CRC, its pixels by their Adler-32 and their number, which Pillow
   does not look at. A truncated file is an error, never a picture with a black bottom. A JPEG has no check value, so a flipped bit in its
   pixels cannot be found.
3. 16-bit grey maps the whole range 0..65535 to 0..255, linearly and rounded (v × 255 / 65535), never the range the picture happens to
   use: two frames of one scanner stay comparable. A 12-bit picture stored in 16 bits comes out dark; multiply it by 16 before saving,
   or give the DICOM file, which says how many bits it uses. 16-bit colour takes the upper byte of each sample.
4. The frame is turned as its EXIF orientation says, so that what is classified is what a viewer shows.
5. An alpha channel that is opaque everywhere is dropped; anything see-through is refused, because the background behind it would be a guess.
   CMYK is refused too: turning it into RGB needs a colour profile. Palettes become RGB, one bit becomes 0 and 255.
6. Colour profiles and gamma are not applied, as in the usual training code. Of a JPEG with several pictures (MPO) the first is read; an
   animated PNG is refused.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from edgekit.errors import DataError
from edgekit.imaging import codestream
from edgekit.imaging.codestream import Codestream
from edgekit.imaging.preprocess import MAX_FRAME_PIXELS

MAX_FILE_MIB = 256
"""Largest PNG or JPEG file that is read; an uncompressed frame of `MAX_FRAME_PIXELS` in RGB is smaller."""

_INFLATE_STEP_BYTES = 2**18
_KEPT_BYTES = 2**25
"""Rows that are kept while a file is checked; larger pictures are unpacked twice, a step at a time."""
# First row, first column and steps of the seven passes of an interlaced PNG (ISO/IEC 15948 8.2).
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))

_AS_GREY = frozenset({"1", "L", "LA"})
_AS_COLOUR = frozenset({"P", "PA", "RGB", "RGBA"})


def read_png(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Reads the one frame of a PNG.

    Args:
        path: A file whose first bytes are a PNG's.

    Yields:
        uint8 (rows, columns) for a grey picture, otherwise uint8 (rows, columns, 3) in RGB order; the caller owns it.

    Raises:
        DataError: When the file is damaged, too large, animated, see-through or unreadable.
    """
    yield _read(path, "PNG", codestream.png)


def read_jpeg(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Reads the (first) frame of a JPEG; arguments, shape and errors as `read_png`."""
    yield _read(path, "JPEG", codestream.jpeg)


def _read(path: Path, kind: str, header: Callable[[bytes], Codestream | None]) -> NDArray[np.uint8]:
    data = _load(path)
    size = header(data)
    if size is None:
        raise DataError(f"{path}: the {kind} is damaged: it has no readable header", hint="copy or export the file again")
    _check_size(path, size)
    try:
        if kind == "PNG":
            data = _check_chunks(path, data, size)
        with Image.open(BytesIO(data), formats=(kind,)) as image:
            _check_kind(path, image, size)
            image.load()
            return _pixels(path, ImageOps.exif_transpose(image))
    except DataError:
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error and zlib.error on damaged files
        raise DataError(f"{path}: the {kind} is damaged or truncated", hint="copy or export the file again") from error


def _load(path: Path) -> bytes:
    try:
        size_mib = path.stat().st_size / 2**20
        if size_mib > MAX_FILE_MIB:
            raise DataError(f"{path}: the file has {size_mib:.0f} MiB, more than {MAX_FILE_MIB} MiB")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _check_size(path: Path, size: Codestream) -> None:
    if 0 in (size.rows, size.columns):
        raise DataError(f"{path}: the picture is empty: {size.rows} × {size.columns} pixels")
    if size.rows * size.columns > MAX_FRAME_PIXELS:
        raise DataError(f"{path}: the picture has {size.rows} × {size.columns} pixels, more than {MAX_FRAME_PIXELS}")


def _check_chunks(path: Path, data: bytes, size: Codestream) -> bytes:
    """Checks every chunk's CRC, and that the compressed rows are whole (ISO/IEC 15948 5.3 and 10).

    Returns:
        The file, where it is not too large with its rows as they were unpacked, so that nobody unpacks them again.
    """
    inflater, rows, position, kind = zlib.decompressobj(), _Rows(_rows_bytes(size, interlaced=data[28] == 1)), 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, position)
        body = memoryview(data)[position + 8 : position + 8 + length]
        if zlib.crc32(body, zlib.crc32(kind)) != struct.unpack_from(">I", data, position + 8 + length)[0]:
            raise DataError(f"{path}: the PNG is damaged: a chunk does not match its check value", hint="copy or export the file again")
        if kind == b"IDAT":
            rows.take(inflater, body, position, position + 12 + length)
        position += 12 + length
    if not inflater.eof or rows.unpacked != rows.expected:
        raise DataError(
            f"{path}: the PNG is damaged or truncated: it has not as many rows as it says", hint="copy or export the file again"
        )
    return rows.put_into(data)


class _Rows:
    """The rows of a PNG with their filter bytes, counted, and kept where they are not too many."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.unpacked = 0
        self._kept: list[bytes] | None = [] if expected <= _KEPT_BYTES else None
        self._first = self._last = 0

    def take(self, inflater: zlib._Decompress, body: memoryview, start: int, end: int) -> None:
        """Unpacks a chunk that lies between two places of the file, and stops a step after the last row that is expected."""
        if self._last not in (0, start):
            self._kept = None  # Other chunks lie between: Pillow decides what that means.
        self._first, self._last = self._first or start, end
        waiting = bytes(body)
        while self.unpacked <= self.expected and not inflater.eof:
            step = inflater.decompress(waiting, _INFLATE_STEP_BYTES)
            waiting = inflater.unconsumed_tail
            self.unpacked += len(step)
            if self._kept is not None:
                self._kept.append(step)
            if not waiting and len(step) < _INFLATE_STEP_BYTES:
                break

    def put_into(self, data: bytes) -> bytes:
        """The file with one chunk of rows that are stored and not compressed; as it is where they were not kept."""
        if self._kept is None:
            return data
        body = b"IDAT" + zlib.compress(b"".join(self._kept), 0)
        stored = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        return b"".join((memoryview(data)[: self._first], stored, memoryview(data)[self._last :]))


def _rows_bytes(size: Codestream, *, interlaced: bool) -> int:
    """Bytes of all rows before compression, each with its filter byte (ISO/IEC 15948 7.2 and 8.2)."""
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    total = 0
    for top, left, down, right in passes:
        rows, columns = len(range(top, size.rows, down)), len(range(left, size.columns, right))
        total += rows * (1 + (columns * size.components * size.precision + 7) // 8) if columns else 0
    return total


def _check_kind(path: Path, image: Image.Image, size: Codestream) -> None:
    if image.size != (size.columns, size.rows):
        raise DataError(f"{path}: the {image.format} states two different sizes")
    if image.format == "PNG" and getattr(image, "n_frames", 1) > 1:
        raise DataError(f"{path}: the PNG is animated", hint="save each frame as a file of its own")
    if image.mode == "CMYK":
        raise DataError(f"{path}: the picture is CMYK, which is for printing", hint="save it as grey or RGB")


def _pixels(path: Path, image: Image.Image) -> NDArray[np.uint8]:
    see_through = image.has_transparency_data
    if image.mode.startswith("I") and not see_through:
        return _from_16_bits(np.asarray(image))
    if image.mode not in _AS_GREY | _AS_COLOUR:
        raise DataError(f"{path}: the picture's kind ({image.mode}) is not read", hint="save it as 8-bit grey or RGB")
    if see_through:
        image = _without_alpha(path, image)
    # np.array, not asarray: Pillow hands out a read-only buffer, and a frame belongs to whoever reads it.
    return np.array(image.convert("L" if image.mode in _AS_GREY else "RGB"), dtype=np.uint8)


def _from_16_bits(stored: NDArray[np.generic]) -> NDArray[np.uint8]:
    # 65535 / 255 = 257 exactly, so adding half of it rounds to the nearest.
    return ((stored.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _without_alpha(path: Path, image: Image.Image) -> Image.Image:
    mode = "LA" if image.mode in _AS_GREY else "RGBA"
    whole = image.convert(mode)
    if whole.getchannel("A").getextrema() != (255, 255):
        raise DataError(
            f"{path}: the picture is see-through in places", hint="save it without an alpha channel, on the background you mean"
        )
    return whole.convert(mode[:-1])
