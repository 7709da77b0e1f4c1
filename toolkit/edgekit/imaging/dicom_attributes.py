"""The attributes of a DICOM object that decide its pixels, as plain checked values.

Rules this file keeps:

1. Only what `KEYWORDS` lists is ever parsed; nothing in it names a person.
2. An attribute that is missing, empty where it must not be, or of the wrong type is a `DataError` that names it and does not quote it.
3. Lookup tables are read by their own length, not by what the writer says about 8 or 16 bits, and by the object's byte order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError
from edgekit.imaging.dicom_display import Grey, Lut, Window, WindowFunction
from edgekit.imaging.dicom_pixels import guarded

_WINDOW_FUNCTIONS: dict[str, WindowFunction] = {name: name for name in get_args(WindowFunction)}
_COLOURS = ("Red", "Green", "Blue")
_PALETTE_PARTS = ("PaletteColorLookupTableDescriptor", "PaletteColorLookupTableData")

KEYWORDS: tuple[str, ...] = (
    "SOPClassUID",
    "PresentationIntentType",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "PixelPresentation",
    "RescaleIntercept",
    "RescaleSlope",
    "ModalityLUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "VOILUTSequence",
    "PresentationLUTShape",
    "PresentationLUTSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "FrameIncrementPointer",
    "FrameTime",
    "FrameTimeVector",
    "CineRate",
    *(colour + part for colour in _COLOURS for part in _PALETTE_PARTS),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in _COLOURS),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """A pydicom dataset with typed, checked access by keyword."""

    path: Path
    dataset: Any
    little_endian: bool

    def value(self, keyword: str) -> Any:
        """What pydicom makes of an attribute; None when it is missing or empty."""
        with guarded(self.path, f"{keyword} cannot be read"):
            found = self.dataset.get(keyword)
        return None if found is None or (isinstance(found, (str, bytes)) and not found) else found

    def whole(self, keyword: str, default: int | None = None) -> int:
        """A whole number, or the default where the attribute may be missing."""
        found = self.value(keyword)
        if found is None and default is not None:
            return default
        if found is None:
            raise DataError(f"{self.path}: {keyword} is missing", hint="is this an image? export the object again")
        if not isinstance(found, int):
            raise DataError(f"{self.path}: {keyword} is not one whole number")
        return int(found)

    def number(self, keyword: str) -> float | None:
        """A finite number, the first where there are several; None when there is none."""
        found = self.value(keyword)
        if isinstance(found, Sequence) and not isinstance(found, str):
            found = found[0] if found else None
        if found is None:
            return None
        with guarded(self.path, f"{keyword} is not a number"):
            result = float(found)
        if not math.isfinite(result):
            raise DataError(f"{self.path}: {keyword} is not finite")
        return result

    def text(self, keyword: str) -> str:
        """A code string in capitals, empty when there is none."""
        found = self.value(keyword)
        return str(found).strip().upper() if isinstance(found, str) else ""

    def items(self, keyword: str) -> list[Attributes]:
        """The items of a sequence, none when there is no such sequence."""
        found = self.value(keyword)
        if found is None:
            return []
        with guarded(self.path, f"{keyword} is not a sequence"):
            return [Attributes(path=self.path, dataset=item, little_endian=self.little_endian) for item in _datasets(found)]


def grey_transforms(attributes: Attributes, frames: int) -> tuple[Grey, ...]:
    """Reads how a grey object is shown (PS3.3 C.11.1, C.11.2, C.7.6.16.2.9 and .10).

    Args:
        attributes: The object.
        frames: Number of Frames.

    Returns:
        One transform for all frames, or one a frame where the per-frame functional groups say so.

    Raises:
        DataError: When a window, a lookup table or a rescale is damaged or forbidden by the standard.
    """
    if attributes.value("PresentationLUTSequence") is not None:
        raise DataError(
            f"{attributes.path}: a Presentation LUT Sequence is not read", hint="export the object without a presentation state"
        )
    shared = [macro for item in attributes.items("SharedFunctionalGroupsSequence")[:1] for macro in _display_macros(item)]
    by_frame = [_display_macros(item) for item in attributes.items("PerFrameFunctionalGroupsSequence")]
    if not any(by_frame):
        return (_grey(attributes, [*shared, attributes]),)
    if len(by_frame) != frames:
        raise DataError(f"{attributes.path}: there are {len(by_frame)} per-frame functional groups for {frames} frames")
    return tuple(_grey(attributes, [*macros, *shared, attributes]) for macros in by_frame)


def palette(attributes: Attributes) -> tuple[Lut, Lut, Lut]:
    """Reads the red, green and blue palette (PS3.3 C.7.6.3.1.5 and C.7.9), segmented or not."""
    red, green, blue = (_palette_colour(attributes, colour) for colour in _COLOURS)
    return red, green, blue


def _datasets(sequence: Any) -> list[Any]:
    items = list(sequence)
    if not all(hasattr(item, "get") for item in items):
        raise TypeError("not a sequence of items")
    return items


def _display_macros(group: Attributes) -> list[Attributes]:
    return [item for keyword in ("PixelValueTransformationSequence", "FrameVOILUTSequence") for item in group.items(keyword)[:1]]


def _grey(attributes: Attributes, sources: list[Attributes]) -> Grey:
    """The first source that says something about a step decides it."""
    modality = next((found for source in sources if (found := _modality(source)) is not None), (1.0, 0.0))
    voi = next((shown for source in sources if (shown := _voi(source)) is not None), None)
    inverse = attributes.text("PhotometricInterpretation") == "MONOCHROME1" or attributes.text("PresentationLUTShape") == "INVERSE"
    return Grey(modality=modality, voi=voi, inverse=inverse, padding=_padding(attributes))


def _modality(source: Attributes) -> Lut | tuple[float, float] | None:
    items = source.items("ModalityLUTSequence")
    if items:
        return _lut(items[0], "LUTDescriptor", "LUTData")
    slope, intercept = source.number("RescaleSlope"), source.number("RescaleIntercept")
    if slope is None and intercept is None:
        return None
    if slope is None or intercept is None or slope == 0:
        raise DataError(f"{source.path}: Rescale Slope and Rescale Intercept must both be there, the slope not 0")
    return slope, intercept


def _voi(source: Attributes) -> Lut | Window | None:
    items = source.items("VOILUTSequence")
    if items:
        return _lut(items[0], "LUTDescriptor", "LUTData")
    center, width = source.number("WindowCenter"), source.number("WindowWidth")
    if center is None and width is None:
        return None
    if center is None or width is None:
        raise DataError(f"{source.path}: Window Center and Window Width must both be there")
    named = source.text("VOILUTFunction") or "LINEAR"
    function = _WINDOW_FUNCTIONS.get(named)
    if function is None:
        raise DataError(f"{source.path}: the VOI LUT Function is none of {', '.join(_WINDOW_FUNCTIONS)}")
    if width < 1 if function == "LINEAR" else width <= 0:
        raise DataError(
            f"{source.path}: Window Width is {width:g}, which the standard forbids", hint="set a window and export the object again"
        )
    return Window(center=center, width=width, function=function)


def _padding(attributes: Attributes) -> tuple[int, int] | None:
    if attributes.value("PixelPaddingValue") is None:
        return None
    value = attributes.whole("PixelPaddingValue")
    limit = attributes.whole("PixelPaddingRangeLimit", value)
    return min(value, limit), max(value, limit)


def _descriptor(source: Attributes, keyword: str) -> tuple[int, int, int]:
    found = source.value(keyword)
    if not isinstance(found, Sequence) or len(found) != 3 or not all(isinstance(number, int) for number in found):
        raise DataError(f"{source.path}: {keyword} is not three numbers")
    # Written as signed numbers where pixels are signed; the count and the bits never are. A count of 65536 is written as 0.
    entries, first, bits = found[0] & 0xFFFF or 0x10000, int(found[1]), found[2] & 0xFFFF
    if not 8 <= bits <= 16:
        raise DataError(f"{source.path}: a lookup table has entries of {bits} bits, not 8 to 16")
    return entries, first, bits


def _lut(source: Attributes, descriptor: str, data: str) -> Lut:
    count, first, bits = _descriptor(source, descriptor)
    entries = _entries(source, data, count)
    if entries.size < count:
        raise DataError(f"{source.path}: {data} has {entries.size} of {count} entries")
    entries = entries[:count]
    if int(entries.max()) >= 2**bits:
        raise DataError(f"{source.path}: {data} has entries above its {bits} bits")
    return Lut(first=first, entries=entries, bits=bits)


def _entries(source: Attributes, keyword: str, count: int) -> NDArray[np.uint16]:
    found = source.value(keyword)
    if isinstance(found, bytes):
        return _words(source, found) if len(found) >= 2 * count else _octets(source, found)
    numbers = [found] if isinstance(found, int) else found
    if not isinstance(numbers, Sequence) or not all(isinstance(number, int) and 0 <= number <= 0xFFFF for number in numbers):
        raise DataError(f"{source.path}: {keyword} is missing or not a list of numbers")
    return np.array(numbers, np.uint16)


def _words(source: Attributes, data: bytes) -> NDArray[np.uint16]:
    return np.frombuffer(data[: len(data) // 2 * 2], "<u2" if source.little_endian else ">u2").astype(np.uint16)


def _octets(source: Attributes, data: bytes) -> NDArray[np.uint16]:
    # Two 8-bit entries share a word, the first in its lower half: in big-endian files they are swapped (PS3.3 C.7.6.3.1.6).
    if not source.little_endian:
        data = _words(source, data).astype("<u2").tobytes()
    return np.frombuffer(data, np.uint8).astype(np.uint16)


def _palette_colour(attributes: Attributes, colour: str) -> Lut:
    descriptor = colour + _PALETTE_PARTS[0]
    if attributes.value(f"Segmented{colour}{_PALETTE_PARTS[1]}") is None:
        return _lut(attributes, descriptor, colour + _PALETTE_PARTS[1])
    count, first, bits = _descriptor(attributes, descriptor)
    keyword = f"Segmented{colour}{_PALETTE_PARTS[1]}"
    data = attributes.value(keyword)
    if not isinstance(data, bytes) or bits not in (8, 16):
        raise DataError(f"{attributes.path}: {keyword} cannot be read")
    numbers = _words(attributes, data) if bits == 16 else _octets(attributes, data)
    with guarded(attributes.path, f"{keyword} is damaged"):
        return Lut(first=first, entries=_expanded(numbers, count), bits=bits)


def _expanded(numbers: NDArray[np.uint16], count: int) -> NDArray[np.uint16]:
    """Unpacks a segmented palette of `count` entries (PS3.3 C.7.9.2): discrete and linear segments; indirect ones are refused."""
    entries, position, filled = np.zeros(count, np.uint16), 0, 0
    while filled < count:
        kind, length = int(numbers[position]), int(numbers[position + 1])
        end = filled + length
        if length == 0 or end > count:
            raise ValueError("a segment has no entry or goes past the last one")
        if kind == 0:
            entries[filled:end] = numbers[position + 2 : position + 2 + length]
            position += 2 + length
        elif kind == 1 and filled > 0:
            start, stop = float(entries[filled - 1]), float(numbers[position + 2])
            entries[filled:end] = np.rint(start + (stop - start) * np.arange(1, length + 1) / length)
            position += 3
        else:
            raise ValueError("a segment is neither discrete nor linear")
        filled = end
    return entries
