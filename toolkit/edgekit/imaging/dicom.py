"""DICOM objects, read into uint8 frames: US, CR, DX, XA, SC and everything else that is a picture.

Rules this file keeps:

1. Only the attributes that decide a pixel, or when it is shown, are read. The patient's are skipped over, so no message, log line or traceback of ours can hold them;
   messages name attributes and never quote their text.
2. Every number is checked against its limit before anything is allocated for pixels, a deflated object included.
3. What the object says about its display is honoured (modality, then VOI, then presentation; see `dicom_display`): its first window, or its
   first VOI LUT where it has both. Shared and per-frame functional groups count too. Windows on colour, ICC profiles and overlays do not.
4. What is not meant to be looked at is refused and not shown somehow: raw "for processing" data, segmentations, maps, dose.
5. A file without the 128-byte preamble is read when its file meta group is there; without that, its encoding would be a guess.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError, MissingEngineError
from edgekit.imaging import dicom_pixels
from edgekit.imaging.cine_times import frame_times
from edgekit.imaging.dicom_attributes import KEYWORDS, Attributes, grey_transforms, palette
from edgekit.imaging.dicom_display import Grey, Stored, colour_8_bits, grey_table, needs_range, palette_table, value_range
from edgekit.imaging.dicom_pixels import NATIVE, READ_SYNTAXES, PixelData, guarded
from edgekit.imaging.preprocess import MAX_FRAME_PIXELS

MAX_FILE_MIB = 4096
"""Largest DICOM file that is read; one frame of it is in memory at a time."""

MAX_INFLATED_MIB = 512
"""Most that a deflated object may unpack to; it is unpacked in memory as a whole."""

MAX_FRAMES = 36_000
"""Most frames an object may have: twenty minutes at 30 frames a second."""

_DEFLATED, _EXPLICIT_LITTLE, _EXPLICIT_BIG, _IMPLICIT = (
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2",
)
_VIDEO_SYNTAXES = "1.2.840.10008.1.2.4.10"
_PIXEL_DATA, _OTHER_PIXEL_DATA = 0x7FE00010, frozenset({0x7FE00008, 0x7FE00009})
_UNDEFINED_LENGTH = 0xFFFFFFFF

_MONOCHROME = frozenset({"MONOCHROME1", "MONOCHROME2"})
_COLOUR = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})
_PALETTE = "PALETTE COLOR"

# SOP classes (PS3.4 table B.5-1) with pixel data that is not a picture to look at, and what to give instead.
_NOT_FRAMES = {
    "1.2.840.10008.1.3.10": ("the index of a medium (DICOMDIR)", "give the folder with the images"),
    "1.2.840.10008.5.1.4.1.1.1.1.1": ("raw X-ray data for processing", "export the image for presentation"),
    "1.2.840.10008.5.1.4.1.1.1.2.1": ("raw mammography data for processing", "export the image for presentation"),
    "1.2.840.10008.5.1.4.1.1.1.3.1": ("raw intra-oral X-ray data for processing", "export the image for presentation"),
    "1.2.840.10008.5.1.4.1.1.30": ("a parametric map", "give the image it was made from"),
    "1.2.840.10008.5.1.4.1.1.66.4": ("a segmentation", "give the image it was made from"),
    "1.2.840.10008.5.1.4.1.1.66.7": ("a label map", "give the image it was made from"),
    "1.2.840.10008.5.1.4.1.1.481.2": ("a radiotherapy dose", "give the image it was made from"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Object:
    """An opened object: its attributes, its transfer syntax once inflated, and the file placed at the Pixel Data element."""

    attributes: Attributes
    syntax: str
    file: BinaryIO


def read(path: Path) -> Iterator[NDArray[np.uint8]]:
    """The pixels alone of `read_timed`."""
    yield from (pixels for pixels, _ in read_timed(path))


def read_timed(path: Path) -> Iterator[tuple[NDArray[np.uint8], float | None]]:
    """Reads the frames of a DICOM object, one at a time.

    Args:
        path: A DICOM file (PS3.10).

    Yields:
        The pixels: uint8 (rows, columns) for MONOCHROME1 and MONOCHROME2, 255 is white; otherwise uint8 (rows, columns, 3) in RGB order. The caller owns
        them. And the time in the cine in seconds, from 0; None where the object says nothing usable (see `cine_times.py`).

    Raises:
        DataError: When the object is damaged, too large, not a picture or stored in a way that is not read. Does not prove the picture
            undamaged: most encodings have no check value.
        MissingEngineError: When pydicom or a decoder that the object needs is not installed.
    """
    _require_pydicom(path)
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    with file:
        found = _open(path, file)
        pixels = _pixel_data(path, found)
        with guarded(path, "the pixel data cannot be read"):
            dicom_pixels.check_length(pixels)
        times = frame_times(found.attributes, pixels.frames)
        # Not strict: frames that are too many or too few are an error of the decoder's, with its own words.
        yield from zip(_shown(found, pixels), times, strict=False)


def count_frames(path: Path) -> int:
    """How many frames an object says it has, without reading one. Errors as in `read_timed`."""
    _require_pydicom(path)
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    with file:
        return _open(path, file).attributes.whole("NumberOfFrames", 1)


def _shown(found: _Object, pixels: PixelData) -> Iterator[NDArray[np.uint8]]:
    if pixels.samples == 3:
        yield from (colour_8_bits(stored, pixels.stored.bits_stored) for stored in dicom_pixels.decode(pixels))
    elif pixels.photometric == _PALETTE:
        table = palette_table(*palette(found.attributes), pixels.stored)
        yield from (table[_patterns(stored)] for stored in dicom_pixels.decode(pixels))
    else:
        yield from _grey(pixels, grey_transforms(found.attributes, pixels.frames))


def _grey(pixels: PixelData, transforms: tuple[Grey, ...]) -> Iterator[NDArray[np.uint8]]:
    frames: Callable[[], Iterator[NDArray[Any]]] = lambda: dicom_pixels.decode(pixels)  # noqa: E731
    shown = None
    if any(needs_range(grey, pixels.stored) for grey in transforms):
        # The range is the whole object's, so a cine is decoded twice instead of being held in memory; a single frame is kept.
        if pixels.frames == 1:
            only = list(frames())
            frames = lambda: iter(only)  # noqa: E731
        shown = _range_of_all(pixels, transforms, frames())
    last: Grey | None = None
    for index, stored in enumerate(frames()):
        grey = transforms[index % len(transforms)]
        if grey is not last:
            table, last = grey_table(grey, pixels.stored, shown), grey
        yield table[_patterns(stored)]


def _range_of_all(pixels: PixelData, transforms: tuple[Grey, ...], frames: Iterator[NDArray[Any]]) -> tuple[float, float] | None:
    ranges = []
    seen = [np.zeros(pixels.stored.values.size, dtype=bool) for _ in transforms]
    for index, stored in enumerate(frames):
        seen[index % len(transforms)][_patterns(stored)] = True
    for grey, patterns in zip(transforms, seen, strict=True):
        found = value_range(grey, pixels.stored, patterns)
        ranges += [] if found is None else [found]
    return (min(low for low, _ in ranges), max(high for _, high in ranges)) if ranges else None


def _patterns(stored: NDArray[Any]) -> NDArray[Any]:
    """The bit patterns of stored values: an unsigned view, so that a table can be indexed without another copy."""
    return stored.view(np.dtype(f"u{stored.dtype.itemsize}"))


def _require_pydicom(path: Path) -> None:
    try:
        import pydicom  # noqa: F401
    except ImportError as error:
        raise MissingEngineError(f"{path}: reading DICOM needs pydicom", hint="install the extra: edgekit-toolkit[dicom]") from error


def _open(path: Path, file: BinaryIO) -> _Object:
    size_mib = path.stat().st_size / 2**20
    if size_mib > MAX_FILE_MIB:
        raise DataError(f"{path}: the file has {size_mib:.0f} MiB, more than {MAX_FILE_MIB} MiB")
    file.seek(0 if file.read(132)[128:] != b"DICM" else 132)
    meta = _parse(path, file, _EXPLICIT_LITTLE, lambda tag: tag >> 16 != 2)
    _check_sop_class(meta, "MediaStorageSOPClassUID")
    syntax = str(meta.value("TransferSyntaxUID") or "")
    if syntax == _DEFLATED:
        file, syntax = _inflated(path, file), _EXPLICIT_LITTLE
    _check_syntax(path, syntax)
    attributes = _parse(path, file, syntax, lambda tag: tag == _PIXEL_DATA or tag in _OTHER_PIXEL_DATA)
    _check_sop_class(attributes, "SOPClassUID")
    return _Object(attributes=attributes, syntax=syntax, file=file)


def _parse(path: Path, file: BinaryIO, syntax: str, stop: Callable[[int], bool]) -> Attributes:
    from pydicom.datadict import tag_for_keyword
    from pydicom.filereader import read_dataset

    little = syntax != _EXPLICIT_BIG
    meta_keywords = ("MediaStorageSOPClassUID", "TransferSyntaxUID")
    tags = [tag_for_keyword(keyword) for keyword in (*meta_keywords, *KEYWORDS)]
    with guarded(path, "the object's attributes are damaged"):
        dataset = read_dataset(file, syntax == _IMPLICIT, little, stop_when=lambda tag, _vr, _length: stop(tag), specific_tags=tags)
    return Attributes(path=path, dataset=dataset, little_endian=little)


def _inflated(path: Path, file: BinaryIO) -> BinaryIO:
    decompressor = zlib.decompressobj(-zlib.MAX_WBITS)
    limit = MAX_INFLATED_MIB * 2**20
    try:
        data = decompressor.decompress(file.read(limit), limit)
    except zlib.error as error:
        raise DataError(f"{path}: the deflated object is damaged", hint="export or copy the object again") from error
    if not decompressor.eof:
        reason = f"unpacks to more than {MAX_INFLATED_MIB} MiB" if len(data) >= limit else "is truncated"
        raise DataError(f"{path}: the deflated object {reason}")
    return BytesIO(data)


def _check_sop_class(attributes: Attributes, keyword: str) -> None:
    known = _NOT_FRAMES.get(str(attributes.value(keyword)))
    if known is not None:
        raise DataError(f"{attributes.path}: the object is {known[0]}, not a picture", hint=known[1])
    if attributes.text("PresentationIntentType") == "FOR PROCESSING":
        raise DataError(
            f"{attributes.path}: the object is raw data for processing, not a picture", hint="export the image for presentation"
        )


def _check_syntax(path: Path, syntax: str) -> None:
    if not syntax:
        raise DataError(f"{path}: Transfer Syntax UID is missing", hint="export the object as a DICOM file with file meta information")
    if syntax.startswith(_VIDEO_SYNTAXES):
        raise DataError(
            f"{path}: video in DICOM is not read by this version", hint="export the clip as an uncompressed or JPEG multi-frame object"
        )
    if syntax not in READ_SYNTAXES:
        raise DataError(f"{path}: its transfer syntax is not read", hint="export it uncompressed, or as RLE, JPEG, JPEG-LS or JPEG 2000")


def _pixel_data(path: Path, found: _Object) -> PixelData:
    attributes = found.attributes
    vr, length = _pixel_element(path, found)
    samples, photometric = attributes.whole("SamplesPerPixel"), attributes.text("PhotometricInterpretation")
    # Without a Planar Configuration, colour that is not compressed could be read in two ways.
    planar = attributes.whole("PlanarConfiguration", None if samples == 3 and found.syntax in NATIVE else 0)
    table, lengths = attributes.value("ExtendedOffsetTable"), attributes.value("ExtendedOffsetTableLengths")
    pixels = PixelData(
        path=path,
        file=found.file,
        start=found.file.tell(),
        length=length,
        syntax=found.syntax,
        vr=vr,
        rows=attributes.whole("Rows"),
        columns=attributes.whole("Columns"),
        frames=attributes.whole("NumberOfFrames", 1),
        samples=samples,
        photometric=photometric,
        planar=planar,
        stored=_stored(attributes),
        offsets=(table, lengths) if isinstance(table, bytes) and isinstance(lengths, bytes) else None,
    )
    _check_size(pixels)
    _check_colour(pixels)
    if photometric in _MONOCHROME and attributes.text("PixelPresentation") in {"COLOR", "MIXED"}:
        raise DataError(f"{path}: grey with supplemental colour is not read", hint="export the picture as RGB")
    return pixels


def _pixel_element(path: Path, found: _Object) -> tuple[str, int | None]:
    """Reads the head of the Pixel Data element; returns its VR and length, the file placed at its value."""
    order = "little" if found.syntax != _EXPLICIT_BIG else "big"
    implicit = bool(found.attributes.dataset.original_encoding[0])
    head = found.file.read(8 if implicit else 12)
    if len(head) < (8 if implicit else 12):
        raise DataError(
            f"{path}: the object has no pixel data, or is truncated before it", hint="give an image, not a report or a presentation"
        )
    group, element = (int.from_bytes(head[at : at + 2], order) for at in (0, 2))  # type: ignore[arg-type]
    if (group << 16 | element) in _OTHER_PIXEL_DATA:
        raise DataError(f"{path}: floating-point pixel data is not read", hint="give the image it was made from")
    vr = "OW" if implicit else head[4:6].decode("latin-1")
    if vr not in {"OB", "OW"}:
        raise DataError(f"{path}: the Pixel Data element is damaged")
    length = int.from_bytes(head[-4:], order)  # type: ignore[arg-type]
    if (length == _UNDEFINED_LENGTH) == (found.syntax in NATIVE):
        raise DataError(f"{path}: the Pixel Data element and the transfer syntax disagree on compression")
    return vr, None if length == _UNDEFINED_LENGTH else length


def _stored(attributes: Attributes) -> Stored:
    allocated, stored = attributes.whole("BitsAllocated"), attributes.whole("BitsStored")
    representation = attributes.whole("PixelRepresentation")
    if allocated not in (1, 8, 16):
        raise DataError(f"{attributes.path}: Bits Allocated is {allocated}; 1, 8 and 16 are read")
    if not 1 <= stored <= allocated or representation not in (0, 1):
        raise DataError(f"{attributes.path}: Bits Stored or Pixel Representation is out of range")
    if attributes.whole("HighBit", stored - 1) != stored - 1:
        raise DataError(f"{attributes.path}: High Bit is not Bits Stored − 1, which the standard no longer allows")
    return Stored(bits_allocated=allocated, bits_stored=stored, signed=representation == 1)


def _check_size(pixels: PixelData) -> None:
    if pixels.rows < 1 or pixels.columns < 1 or pixels.frames < 1:
        raise DataError(f"{pixels.path}: the object is empty: {pixels.frames} frames of {pixels.rows} × {pixels.columns} pixels")
    if pixels.rows * pixels.columns > MAX_FRAME_PIXELS:
        raise DataError(f"{pixels.path}: a frame has {pixels.rows} × {pixels.columns} pixels, more than {MAX_FRAME_PIXELS}")
    if pixels.frames > MAX_FRAMES:
        raise DataError(f"{pixels.path}: the object has {pixels.frames} frames, more than {MAX_FRAMES}")


def _check_colour(pixels: PixelData) -> None:
    grey, colour = pixels.photometric in _MONOCHROME or pixels.photometric == _PALETTE, pixels.photometric in _COLOUR
    if not grey and not colour:
        read = ", ".join(sorted({*_MONOCHROME, *_COLOUR, _PALETTE}))
        raise DataError(f"{pixels.path}: its Photometric Interpretation is not read", hint=f"these are: {read}")
    if pixels.samples != (1 if grey else 3) or pixels.planar not in (0, 1):
        raise DataError(f"{pixels.path}: Samples per Pixel, Planar Configuration and Photometric Interpretation disagree")
    if colour and (pixels.stored.signed or pixels.stored.bits_allocated == 1):
        raise DataError(f"{pixels.path}: signed or one-bit colour is not read")
    if pixels.photometric == "YBR_FULL_422" and pixels.planar == 1 and pixels.syntax in NATIVE:
        raise DataError(f"{pixels.path}: YBR_FULL_422 cannot be stored plane by plane")
