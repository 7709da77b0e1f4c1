"""From stored DICOM values to the 8 bits of a frame: modality, values of interest, presentation, palette.

Every step of the standard's display pipeline (PS3.4 N.2) maps one value to one value, whatever its neighbours are. So the whole pipeline is
worked out once, over every value the container can hold, and a frame is one lookup in that table. Only numpy is needed here.

Rules this file keeps:

1. The order is the standard's: modality LUT or rescale, then VOI LUT or window, then presentation.
2. The output range is 0..255 at every step that has one, so a negative rescale slope cannot turn the picture upside down a second time.
3. Without a window the standard leaves the range open. What comes out of the modality step with at most 8 bits uses its whole range, as it
   stands; with more, the values from the smallest to the largest in all frames of the object (pixel padding left out) are spread over 0..255:
   10 bits in a container that says 16 would be black otherwise. Where an object says its window, that is used and nothing is guessed.
4. The picture is inverted once at most: MONOCHROME1 and Presentation LUT Shape INVERSE say the same thing (PS3.3 C.8.11.3.1.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

WindowFunction = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lut:
    """A lookup table (PS3.3 C.11.1.1, C.11.2.1.1).

    Attributes:
        first: The value that the first entry is for; smaller values take it too, and values past the end the last one.
        entries: uint16 (entries,).
        bits: Bits of an entry: the output range is 0..2**bits − 1.
    """

    first: int
    entries: NDArray[np.uint16]
    bits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A window (PS3.3 C.11.2.1.2 and C.11.2.1.3), in the values that come out of the modality step."""

    center: float
    width: float
    function: WindowFunction = "LINEAR"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stored:
    """The numbers in the file: containers of `bits_allocated` bits (1 is unpacked to 8), `bits_stored` of them used, signed or not."""

    bits_allocated: int
    bits_stored: int
    signed: bool

    @property
    def low(self) -> int:
        """Smallest value that the stored bits can say."""
        return -(1 << (self.bits_stored - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        """Largest value that the stored bits can say."""
        return self.low + (1 << self.bits_stored) - 1

    @property
    def values(self) -> NDArray[np.int64]:
        """int64 (2**container bits,): what each bit pattern of the container means, clipped to the stored range; its index is the pattern."""
        unsigned = np.dtype(np.uint16 if self.bits_allocated > 8 else np.uint8)
        patterns = np.arange(2 ** (8 * unsigned.itemsize)).astype(unsigned)
        signed = patterns.view(np.dtype(f"i{unsigned.itemsize}")) if self.signed else patterns
        # A lossy codec may overshoot the stored range by a little.
        return np.clip(signed.astype(np.int64), self.low, self.high)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grey:
    """How an object wants its grey values shown.

    Attributes:
        modality: The Modality LUT, or (slope, intercept) of the rescale; (1, 0) where there is none.
        voi: The VOI LUT or the window to use; None where there is none.
        inverse: True for MONOCHROME1 and for Presentation LUT Shape INVERSE.
        padding: Smallest and largest stored value that mean "no pixel here"; None where there is none.
    """

    modality: Lut | tuple[float, float] = (1.0, 0.0)
    voi: Lut | Window | None = None
    inverse: bool = False
    padding: tuple[int, int] | None = None


def needs_range(grey: Grey, stored: Stored) -> bool:
    """Whether the values that occur in the object decide the scale (rule 3)."""
    bits = grey.modality.bits if isinstance(grey.modality, Lut) else stored.bits_stored
    return grey.voi is None and bits > 8


def value_range(grey: Grey, stored: Stored, seen: NDArray[np.bool_]) -> tuple[float, float] | None:
    """Smallest and largest value after the modality step, over the bit patterns that occur.

    Args:
        grey: How the object is shown.
        stored: What the bit patterns mean.
        seen: bool (2**container bits,): whether a pattern occurs.

    Returns:
        (smallest, largest), or None when there is nothing but padding.
    """
    values = stored.values
    if grey.padding is not None:
        seen = seen & ((values < grey.padding[0]) | (values > grey.padding[1]))
    occurring = _modality(grey, values)[seen]
    return (float(occurring.min()), float(occurring.max())) if occurring.size else None


def grey_table(grey: Grey, stored: Stored, shown: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    """Works the display pipeline out for every bit pattern.

    Args:
        grey: How the object is shown.
        stored: What the bit patterns mean.
        shown: The range to spread over 0..255 when `needs_range` says so; None when every pixel is padding.

    Returns:
        uint8 (2**container bits,): the frame's value for each bit pattern, 255 is white.
    """
    values = _modality(grey, stored.values)
    if isinstance(grey.voi, Lut):
        level = _lookup(grey.voi, values) / (2**grey.voi.bits - 1)
    elif grey.voi is not None:
        level = _window(grey.voi, values)
    else:
        low, high = (shown or (0.0, 0.0)) if needs_range(grey, stored) else _whole_range(grey, stored)
        # One value all over has no contrast to show: it is black (white when inverted).
        level = (values - low) / (high - low) if high > low else np.zeros_like(values)
    table: NDArray[np.uint8] = np.rint(255 * np.clip(level, 0, 1)).astype(np.uint8)
    return np.bitwise_not(table) if grey.inverse else table


def palette_table(red: Lut, green: Lut, blue: Lut, stored: Stored) -> NDArray[np.uint8]:
    """Turns a palette into a table of colours (PS3.3 C.7.6.3.1.5 and .6).

    16-bit entries give their upper byte: writers put 8-bit colours there, either alone or repeated in the lower one. Where no entry of a 16-bit
    palette is above 255 the writer meant 8-bit colours.

    Args:
        red: Entries for red, 8 or 16 bits each.
        green: Entries for green.
        blue: Entries for blue.
        stored: What the bit patterns mean.

    Returns:
        uint8 (2**container bits, 3): the RGB colour of each bit pattern.
    """
    luts = (red, green, blue)
    small = all(lut.bits == 8 or lut.entries.max() <= 255 for lut in luts)
    colours = np.stack([_lookup(lut, stored.values.astype(np.float64)) for lut in luts], axis=-1).astype(np.uint16)
    return (colours if small else colours >> 8).astype(np.uint8)


def colour_8_bits(pixels: NDArray[np.unsignedinteger], bits_stored: int) -> NDArray[np.uint8]:
    """Scales colour samples of `bits_stored` bits to 0..255, rounded."""
    if bits_stored == 8:
        return pixels.astype(np.uint8)
    largest = 2**bits_stored - 1
    table = np.rint(np.arange(largest + 1) * (255 / largest)).astype(np.uint8)
    scaled: NDArray[np.uint8] = table[np.minimum(pixels, largest)]
    return scaled


def _modality(grey: Grey, values: NDArray[np.int64]) -> NDArray[np.float64]:
    if isinstance(grey.modality, Lut):
        return _lookup(grey.modality, values.astype(np.float64))
    slope, intercept = grey.modality
    return values.astype(np.float64) * slope + intercept


def _whole_range(grey: Grey, stored: Stored) -> tuple[float, float]:
    if isinstance(grey.modality, Lut):
        return 0.0, 2.0**grey.modality.bits - 1
    slope, intercept = grey.modality
    ends = stored.low * slope + intercept, stored.high * slope + intercept
    return min(ends), max(ends)


def _lookup(lut: Lut, values: NDArray[np.float64]) -> NDArray[np.float64]:
    index = np.clip(np.rint(values) - lut.first, 0, lut.entries.size - 1)
    found: NDArray[np.uint16] = lut.entries[index.astype(np.int64)]
    return found.astype(np.float64)


def _window(window: Window, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The window's output as 0..1, before clipping."""
    center, width = window.center, window.width
    if window.function == "SIGMOID":
        # Beyond ±700 the exponential leaves float64; the level is 0 or 1 long before.
        level: NDArray[np.float64] = 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
        return level
    if window.function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:
        return (values > center).astype(np.float64)
    linear: NDArray[np.float64] = (values - center) / width + 0.5
    return linear
