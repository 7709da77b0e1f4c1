"""The pixels of a DICOM object as they are stored, one frame at a time.

Rules this file keeps:

1. Lengths first: native pixel data must be as long as the attributes say, encapsulated pixel data must be whole items up to the
   delimiter, and a compressed frame must state the size that the attributes state, all before anything is decoded. What a run-length segment
   unpacks to is counted before it is unpacked.
2. One decoder a transfer syntax, the first of a fixed list that is installed, and no second try with another one: two decoders of lossy
   pictures differ, and a frame must not depend on which of them failed. Which one it is follows from what is installed, not from the frame.
3. 8-bit JPEG is decoded by Pillow itself: pydicom's way through Pillow converts twice when the codestream has an Adobe marker. JPEG Lossless and
   12-bit JPEG are decoded by GDCM in a process of its own, because a damaged frame ends the process that GDCM is in.
4. Of colour, only RGB leaves this file. In 8-bit JPEG the codestream's markers win over Photometric Interpretation, as decoders everywhere do.
5. Nothing is checked that a codec cannot know: a flipped bit inside a lossy frame gives a wrong picture, not an error.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgekit.errors import DataError, EdgekitError, MissingEngineError
from edgekit.imaging import codestream
from edgekit.imaging.codestream import Codestream
from edgekit.imaging.dicom_display import Stored
from edgekit.imaging.dicom_gdcm import GdcmProcess

# Transfer syntaxes (PS3.6 table A-1).
NATIVE = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"})
_JPEG = frozenset({"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"})
_LOSSLESS_JPEG = frozenset({"1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"})
_JPEG_LS = frozenset({"1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"})
_HTJ2K = frozenset({"1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"})
_JPEG_2000 = frozenset({"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"}) | _HTJ2K
_RLE = "1.2.840.10008.1.2.5"
READ_SYNTAXES = NATIVE | _JPEG | _LOSSLESS_JPEG | _JPEG_LS | _JPEG_2000 | {_RLE}

# pydicom's plugins in order of preference, for what neither Pillow alone nor GDCM decodes. GDCM is never a plugin here (see `dicom_gdcm`).
_PLUGINS: dict[str, tuple[str, ...]] = {
    _RLE: ("pydicom",),
    **dict.fromkeys(_JPEG_LS, ("pyjpegls",)),
    **dict.fromkeys(_JPEG_2000, ("pylibjpeg", "pillow")),
}
_EXTRA = "edgekit-toolkit[dicom]"


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelData:
    """Where the pixels are and what they are, in the standard's terms (PS3.3 C.7.6.3).

    Attributes:
        path: The file, for messages.
        file: The opened object; its place is this file's business while frames are read.
        start: Byte where the value of Pixel Data begins.
        length: Its length in bytes; None when it is encapsulated.
        syntax: Transfer syntax UID.
        vr: "OB" or "OW".
        rows: Rows of a frame.
        columns: Columns of a frame.
        frames: Number of Frames.
        samples: Samples per Pixel, 1 or 3.
        photometric: Photometric Interpretation.
        planar: Planar Configuration.
        stored: Bits and sign.
        offsets: Extended Offset Table and its lengths; None when there is none.
    """

    path: Path
    file: BinaryIO
    start: int
    length: int | None
    syntax: str
    vr: str
    rows: int
    columns: int
    frames: int
    samples: int
    photometric: str
    planar: int
    stored: Stored
    offsets: tuple[bytes, bytes] | None


@contextlib.contextmanager
def guarded(path: Path, message: str) -> Iterator[None]:
    """Turns whatever pydicom and its decoders raise into one `DataError`, and keeps their warnings and log lines, which may quote a patient."""
    logger = logging.getLogger("pydicom")
    propagate, logger.propagate = logger.propagate, False
    try:
        with warnings.catch_warnings():
            # Every attribute that decides a pixel is checked here by hand; the others are not read.
            warnings.simplefilter("ignore")
            yield
    except EdgekitError:
        raise
    except Exception as error:  # parsers of damaged input raise nearly anything
        raise DataError(f"{path}: {message}", hint="export or copy the object again") from error
    finally:
        logger.propagate = propagate


def check_length(pixels: PixelData) -> None:
    """Compares the length of the pixel data with the attributes and the file, without reading it.

    Raises:
        DataError: When it is truncated, or holds more whole frames than Number of Frames says.
    """
    if pixels.length is None:
        _check_items(pixels)
        return
    available = pixels.file.seek(0, os.SEEK_END) - pixels.start
    if pixels.length > available:
        raise DataError(f"{pixels.path}: the pixel data is truncated: {available} of {pixels.length} bytes are there")
    bits = pixels.rows * pixels.columns * pixels.samples * pixels.stored.bits_allocated
    if pixels.photometric == "YBR_FULL_422":
        bits = bits // 3 * 2
    expected = (bits * pixels.frames + 7) // 8
    if pixels.length < expected:
        raise DataError(f"{pixels.path}: the pixel data has {pixels.length} bytes where its attributes ask for {expected}")
    # Padding happens; a whole frame more means that one of the attributes is wrong.
    if pixels.length - expected >= max(bits // 8, 2):
        raise DataError(f"{pixels.path}: the pixel data has {pixels.length} bytes where its attributes ask for only {expected}")


def decode(pixels: PixelData) -> Iterator[NDArray[Any]]:
    """Decodes the frames, one at a time.

    Args:
        pixels: Pixel data that `check_length` has passed.

    Yields:
        (rows, columns), or (rows, columns, 3) in RGB order; integers of the stored sign in the machine's byte order.

    Raises:
        DataError: When a frame is damaged, missing or not what the attributes say.
        MissingEngineError: When its decoder is not installed.
    """
    arrays = _native(pixels) if pixels.syntax in NATIVE else _encapsulated(pixels)
    shape = (pixels.rows, pixels.columns) if pixels.samples == 1 else (pixels.rows, pixels.columns, 3)
    count = 0
    while True:
        with guarded(pixels.path, f"frame {count} cannot be decoded"):
            array = next(arrays, None)
        if array is None:
            break
        if count == pixels.frames:
            raise DataError(f"{pixels.path}: there are more frames than the {pixels.frames} of Number of Frames")
        if array.shape != shape:
            raise DataError(f"{pixels.path}: frame {count} decodes to {array.shape}, not to {shape}")
        yield array.astype(array.dtype.newbyteorder("="), copy=False)
        count += 1
    if count < pixels.frames:
        raise DataError(f"{pixels.path}: there are only {count} of {pixels.frames} frames")


def _options(pixels: PixelData) -> dict[str, Any]:
    """The decoding options of pydicom (pydicom.pixels.decoders.base.DecodeOptions)."""
    return {
        "rows": pixels.rows,
        "columns": pixels.columns,
        "samples_per_pixel": pixels.samples,
        "photometric_interpretation": pixels.photometric,
        "planar_configuration": pixels.planar,
        "bits_allocated": pixels.stored.bits_allocated,
        "bits_stored": pixels.stored.bits_stored,
        "pixel_representation": int(pixels.stored.signed),
        "pixel_keyword": "PixelData",
        "pixel_vr": pixels.vr,
        "allow_excess_frames": False,
    }


def _native(pixels: PixelData) -> Iterator[NDArray[Any]]:
    from pydicom.pixels import get_decoder

    pixels.file.seek(pixels.start)
    options = _options(pixels) | {"number_of_frames": pixels.frames}
    indices = range(pixels.frames)
    for array, properties in get_decoder(pixels.syntax).iter_array(pixels.file, indices=indices, validate=False, **options):
        yield _checked_colour(pixels, array, properties)


def _encapsulated(pixels: PixelData) -> Iterator[NDArray[Any]]:
    from pydicom.encaps import generate_frames

    pixels.file.seek(pixels.start)
    with contextlib.closing(GdcmProcess(pixels.path)) as gdcm:
        for data in generate_frames(pixels.file, number_of_frames=pixels.frames, extended_offsets=pixels.offsets):
            if pixels.syntax == _RLE:
                _check_run_lengths(pixels, data)
                yield _by_plugin(pixels, data)
                continue
            header = _checked_header(pixels, data)
            if pixels.syntax in _LOSSLESS_JPEG or (pixels.syntax in _JPEG and header.precision > 8):
                yield _by_gdcm(pixels, gdcm, data, header)
            elif pixels.syntax in _JPEG:
                yield _jpeg(pixels, data)
            else:
                yield _by_plugin(pixels, data)


def _checked_header(pixels: PixelData, data: bytes) -> Codestream:
    header = codestream.jpeg2000(data) if pixels.syntax in _JPEG_2000 else codestream.jpeg(data)
    if header is None:
        raise DataError(f"{pixels.path}: a compressed frame has no readable header")
    found = (header.rows, header.columns, header.components)
    if found != (pixels.rows, pixels.columns, pixels.samples):
        raise DataError(
            f"{pixels.path}: a compressed frame is {found[0]} × {found[1]} with {found[2]} samples, where its attributes say "
            f"{pixels.rows} × {pixels.columns} with {pixels.samples}"
        )
    if not 1 <= header.precision <= pixels.stored.bits_allocated:
        raise DataError(f"{pixels.path}: a compressed frame has {header.precision} bits, more than Bits Allocated")
    return header


def _by_plugin(pixels: PixelData, data: bytes) -> NDArray[Any]:
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder

    decoder = get_decoder(pixels.syntax)
    plugin = next((name for name in _PLUGINS[pixels.syntax] if name in decoder.available_plugins), None)
    if plugin is None:
        raise MissingEngineError(f"{pixels.path}: no decoder for {decoder.UID.name} is installed", hint=f"install the extra: {_EXTRA}")
    options = _options(pixels) | {"number_of_frames": 1, "decoding_plugin": plugin}
    array, properties = decoder.as_array(encapsulate([data], has_bot=False), index=0, validate=False, **options)
    return _checked_colour(pixels, array, properties)


def _checked_colour(pixels: PixelData, array: NDArray[Any], properties: dict[str, Any]) -> NDArray[Any]:
    found = properties["photometric_interpretation"]
    if pixels.samples == 3 and found != "RGB":
        raise DataError(f"{pixels.path}: colour stored as {found} is not read in this transfer syntax", hint="export it as RGB")
    return array


def _jpeg(pixels: PixelData, data: bytes) -> NDArray[Any]:
    with Image.open(BytesIO(data), formats=("JPEG",)) as image:
        if image.size != (pixels.columns, pixels.rows):
            raise DataError(f"{pixels.path}: a compressed frame states two different sizes")
        # libjpeg takes three unmarked components for YCbCr. Where the object says RGB, asking for YCbCr hands them out unconverted.
        if pixels.photometric == "RGB" and not {"jfif", "adobe"} & image.info.keys():
            image.draft("YCbCr", image.size)
        return np.array(image)


def _by_gdcm(pixels: PixelData, gdcm: GdcmProcess, data: bytes, header: Codestream) -> NDArray[Any]:
    from pydicom.pixels import convert_color_space

    stored, kind = pixels.stored, np.dtype(f"<{'i' if pixels.stored.signed else 'u'}{pixels.stored.bits_allocated // 8}")
    shape = (pixels.rows, pixels.columns) if pixels.samples == 1 else (pixels.rows, pixels.columns, 3)
    decoded = gdcm.decode(
        data,
        math.prod(shape) * kind.itemsize,
        rows=pixels.rows,
        columns=pixels.columns,
        samples=pixels.samples,
        bits_allocated=stored.bits_allocated,
        precision=header.precision,
        signed=int(stored.signed),
        photometric=pixels.photometric,
        syntax=pixels.syntax,
    )
    # GDCM has drawn the sign up to the top already.
    array = np.frombuffer(decoded, kind).reshape(shape)
    return array if pixels.samples == 1 or pixels.photometric == "RGB" else convert_color_space(array, pixels.photometric, "RGB")


def _check_items(pixels: PixelData) -> None:
    """Walks the items of encapsulated pixel data (PS3.5 A.4): all whole, closed by the delimiter, and enough of them."""
    position, items = 0, 0
    while True:
        pixels.file.seek(pixels.start + position)
        head = pixels.file.read(8)
        if len(head) < 8:
            raise DataError(f"{pixels.path}: the pixel data is truncated: its end mark is missing")
        group, element, length = struct.unpack("<HHL", head)
        position += 8
        if (group, element) == (0xFFFE, 0xE0DD):
            break
        if (group, element) != (0xFFFE, 0xE000):
            raise DataError(f"{pixels.path}: the pixel data is damaged after {max(items - 1, 0)} fragments")
        # Past the end of the file, the next head cannot be read.
        position += length
        items += 1
    # The first item is the offset table.
    if items - 1 < pixels.frames:
        raise DataError(f"{pixels.path}: there are {max(items - 1, 0)} fragments for {pixels.frames} frames")


def _check_run_lengths(pixels: PixelData, data: bytes) -> None:
    """Counts what each segment of a run-length frame (PS3.5 annex G) unpacks to: 64 times its size, if its writer meant harm."""
    if len(data) < 64:
        raise DataError(f"{pixels.path}: a run-length frame is shorter than its header")
    count, *offsets = struct.unpack_from("<16L", data)
    expected = pixels.samples * ((pixels.stored.bits_allocated + 7) // 8)
    if count != expected:
        raise DataError(f"{pixels.path}: a run-length frame has {count} segments where its attributes ask for {expected}")
    ends = [*offsets[1:count], len(data)]
    wanted = pixels.rows * pixels.columns
    for start, end in zip(offsets, ends, strict=False):
        length = _unpacked_length(data[start:end])
        # A segment may be padded by a byte, which can look like one more run.
        if not wanted <= length <= wanted + 128:
            raise DataError(f"{pixels.path}: a run-length segment unpacks to {length} bytes, not to {wanted}")


def _unpacked_length(segment: bytes) -> int:
    position, length, end = 0, 0, len(segment)
    while position < end:
        head = segment[position]
        if head < 128:
            length += min(head + 1, end - position - 1)
            position += head + 2
        elif head == 128:
            position += 1
        else:
            length += 257 - head if position + 1 < end else 0
            position += 2
    return length
