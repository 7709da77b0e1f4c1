"""Pillow's antialiased resize in two passes, rows first, with what a centre crop leaves out left out.

A resize averages along rows into bytes, and then along columns. Pillow 12 always goes along rows first; Pillow 13 takes the order that is less work, which gives
other bytes for some sizes. Here the order is fixed, so that a frame becomes the same bytes with either.

In the first pass rows do not depend on each other, in the second columns do not. Pillow goes through a grey picture byte by byte, and through a picture of four
channels four bytes at once, with the same coefficients and the same rounding (Pillow, `src/libImaging/Resample.c`). So the four quarters of the rows of a grey
frame go through the first pass as the four channels of one picture, and every four neighbouring columns through the second. A centre crop leaves out columns of the
second pass, and rows of the first that no row of the crop reads.

Rules this file keeps:

1. Every byte is computed by Pillow, with the coefficients that it computes for the whole frame; nothing here averages or rounds.
2. What is left out is never read: which rows those are is bounded by the filter's support, with room to spare.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_CHANNELS = 4
_SUPPORT = {Image.Resampling.BILINEAR: 1.0, Image.Resampling.BICUBIC: 2.0}
"""Half the width of a filter in pixels of the larger picture's grid, as in Resample.c."""
_SPARE_ROWS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """A resize and what is kept of it.

    Attributes:
        size: (rows, columns) of the resized frame, in pixels.
        resample: BILINEAR or BICUBIC.
        top: First row that is kept.
        left: First column that is kept.
        rows: Rows that are kept.
        columns: Columns that are kept.
    """

    size: tuple[int, int]
    resample: Image.Resampling
    top: int
    left: int
    rows: int
    columns: int


def resize(frame: NDArray[np.uint8], to: Resize) -> NDArray[np.uint8]:
    """Resizes along rows and then along columns, and keeps a part.

    Args:
        frame: uint8 (rows, columns), or uint8 (rows, columns, 3) in RGB order.
        to: What is made of it.

    Returns:
        uint8 (rows, columns) or (rows, columns, 3); a view of the frame where nothing has to be computed.

    Raises:
        TypeError: The frame is not uint8.
    """
    if frame.dtype != np.uint8:
        raise TypeError(f"a frame is uint8, not {frame.dtype}")
    if frame.ndim == 3:
        return _resize_colour(frame, to)
    narrow = frame[:, to.left : to.left + to.columns] if frame.shape[1] == to.size[1] else _along_rows(frame, to)
    whole = narrow if frame.shape[0] == to.size[0] else _along_columns(narrow, to)
    return whole[to.top : to.top + to.rows]


def _resize_colour(frame: NDArray[np.uint8], to: Resize) -> NDArray[np.uint8]:
    rows, columns = to.size
    picture = Image.fromarray(frame)
    picture = picture.resize((columns, frame.shape[0]), to.resample).resize((columns, rows), to.resample)
    return np.asarray(picture)[to.top : to.top + to.rows, to.left : to.left + to.columns]


def _along_rows(frame: NDArray[np.uint8], to: Resize) -> NDArray[np.uint8]:
    """The first pass, uint8 (rows, kept columns); rows that are not read are zero. Quarters overlap where the number of rows is no multiple of four."""
    before, columns = frame.shape[0], to.size[1]
    first, last = _rows_read(before, to)
    quarter = -(-(last - first) // _CHANNELS)
    starts = [first + min(index * quarter, last - first - quarter) for index in range(_CHANNELS)]
    merged = Image.merge("RGBX", [_picture(frame[start : start + quarter], "L") for start in starts])
    resized = _pixels(merged.resize((columns, quarter), to.resample))[:, to.left : to.left + to.columns]
    narrow = np.zeros((before, to.columns), np.uint8)
    for channel, start in enumerate(starts):
        narrow[start : start + quarter] = resized[:, :, channel]
    return narrow


def _rows_read(before: int, to: Resize) -> tuple[int, int]:
    """First row, and the one behind the last, of the frame that the kept rows are made from (rule 2)."""
    scale = before / to.size[0]
    reach = _SUPPORT[to.resample] * max(scale, 1.0)
    first = math.floor((to.top + 0.5) * scale - reach) - _SPARE_ROWS
    last = math.ceil((to.top + to.rows - 0.5) * scale + reach) + _SPARE_ROWS
    return max(0, first), min(before, last)


def _along_columns(frame: NDArray[np.uint8], to: Resize) -> NDArray[np.uint8]:
    """The second pass, uint8 (rows, kept columns). Columns are filled up to a multiple of four."""
    before, columns = frame.shape
    quarter = -(-columns // _CHANNELS)
    if frame.flags.c_contiguous and columns == quarter * _CHANNELS:
        filled = frame
    else:
        filled = np.zeros((before, quarter * _CHANNELS), np.uint8)
        filled[:, :columns] = frame
    picture = _picture(filled.reshape(before, quarter, _CHANNELS), "RGBX")
    resized = _pixels(picture.resize((quarter, to.size[0]), to.resample))
    return resized.reshape(to.size[0], quarter * _CHANNELS)[:, :columns]


# Pillow's fromarray and numpy's asarray do the same, and take twice as long to find out what they are given.
def _picture(pixels: NDArray[np.uint8], mode: str) -> Image.Image:
    """A picture that reads an array, uint8 (rows, columns) or (rows, columns, 4)."""
    return Image.frombuffer(mode, (pixels.shape[1], pixels.shape[0]), np.ascontiguousarray(pixels), "raw", mode, 0, 1)


def _pixels(picture: Image.Image) -> NDArray[np.uint8]:
    """The pixels of a picture of four channels, uint8 (rows, columns, 4); read-only."""
    return np.frombuffer(picture.tobytes(), np.uint8).reshape(picture.height, picture.width, _CHANNELS)
