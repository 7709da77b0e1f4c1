"""Evidence composited over the pixels of a frame: the part of the overlay that has to be fast.

Rules this file keeps:

1. A pixel with value f under the colour C with the weight m (0 to 256) becomes f + (C·m >> 8) − (f·m >> 8), in integers, for grey and for colour
   alike: exactly f where the weight is 0, exactly C where it is 256, never beyond either of them by more than one.
2. Colour and weight come from the evidence in 256 levels, rounded to the nearest. Where neighbouring rows differ by less than half a level,
   they are looked up together, so that a level is off by one at most and level 0 stays level 0.
3. Every value is computed from its own row and column, not from the block it is in: bytes do not depend on block sizes, runs or threads.
4. Where nothing is to be drawn, pixels are copied and nothing is computed. Intermediate values are kept in the processor's cache.

Two pixels are 6 bytes, which is three 16-bit words. So the columns are taken apart in even and odd ones and each pixel is one look-up in a table of
32-bit words, in which the odd pixels' colours are moved by one byte; numpy moves words much faster than three single bytes.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.imaging.evidence import Placed

LEVELS = 256

MAX_LEVEL = 2.0**20
"""Some 4000 times full colour: beyond it, float32 could not tell a level from the next when it interpolates."""

_BLOCK_PIXELS = 128_000
"""Pixels worked on at once, at some 20 bytes each."""

_MOST_ROWS_TOGETHER = 16

# A level is cut off after one half was added, so nothing under one is drawn; the rest is for float32's rounding between two rows.
_DRAWN = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Colours:
    """What the levels of evidence look like.

    Attributes:
        colours: The bytes of uint8 (256, 3), RGB, by level.
        opacity: Weight of the colour at level 255, above 0 and at most 1.
    """

    colours: bytes
    opacity: float

    def products(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Colour times weight, shifted, int64 (256, 3), and the weight, int64 (256,), by level (rule 1)."""
        weight = np.rint(256 * self.opacity * np.arange(LEVELS) / (LEVELS - 1)).astype(np.int64)
        colour = np.frombuffer(self.colours, dtype=np.uint8).reshape(LEVELS, 3).astype(np.int64)
        return (colour * weight[:, None]) >> 8, weight


def copy(frame: NDArray[np.uint8], picture: NDArray[np.uint8]) -> None:
    """Copies pixels, grey ones into all three channels."""
    if frame.ndim == 3:
        np.copyto(picture, frame)
    else:
        for channel in range(3):
            picture[..., channel] = frame


def draw(frame: NDArray[np.uint8], placed: Placed, picture: NDArray[np.uint8], colours: Colours) -> None:
    """Fills the part of a picture that is inside the box.

    Args:
        frame: uint8 (rows, columns) or (rows, columns, 3): the part of the frame inside the box.
        placed: The map in levels plus one half, clipped to ±`MAX_LEVEL`.
        picture: uint8 (rows, columns, 3): where the result goes; shares no memory with the frame.
        colours: Colours and opacity.
    """
    composite = _grey if frame.ndim == 2 else _rgb
    step = np.diff(placed.across, axis=0, append=placed.across[-1:])
    # A row that is wider than a block gets room of its own, so that one odd frame does not stay in memory.
    scratch = _THREADS.scratch if frame.shape[1] <= _BLOCK_PIXELS else _Scratch()
    for block in _blocks(placed, step):
        rows, columns = slice(block.start, block.stop), slice(block.left, block.right)
        if columns.start == columns.stop:
            copy(frame[rows], picture[rows])
            continue
        copy(frame[rows, : columns.start], picture[rows, : columns.start])
        copy(frame[rows, columns.stop :], picture[rows, columns.stop :])
        level = scratch.room("level", np.float32, 2, len(block.parts), (block.right - block.left + 1) // 2)
        _interpolate(placed.across[block.row, columns], step[block.row, columns], block.parts, level)
        composite(frame[rows, columns], level, picture[rows, columns], colours, scratch)


@dataclass(frozen=True, slots=True)
class _Block:
    """Rows `start` to `stop` after map row `row`, of which columns `left` to `right` are drawn; `parts` has one place down for each group of rows."""

    row: int
    start: int
    stop: int
    left: int
    right: int
    parts: NDArray[np.float32]


def _blocks(placed: Placed, step: NDArray[np.float32]) -> Iterator[_Block]:
    """Cuts the rows into blocks between the same two rows of the map, and finds the columns in which each has evidence."""
    edges = [0, *(np.flatnonzero(np.diff(placed.lower)) + 1).tolist(), len(placed.lower)]
    for start, stop in itertools.pairwise(edges):
        row = int(placed.lower[start])
        part = placed.part[start:stop]
        left, right = _columns(placed.across[row], step[row], part)
        together = _rows_together(step[row, left:right], part)
        longest = max(1, _BLOCK_PIXELS // max(1, right - left) // together) * together
        for first in range(0, stop - start, longest):
            of_block = part[first : first + longest]
            left, right = _columns(placed.across[row], step[row], of_block)
            whole = len(of_block) // together * together
            for low, high, count in ((0, whole, together), (whole, len(of_block), len(of_block) - whole)):
                if low < high:
                    # The middle of a group of rows; one row is its own middle, bit for bit.
                    parts = of_block[low:high].reshape(-1, count).mean(axis=1, dtype=np.float32) if count > 1 else of_block[low:high]
                    yield _Block(row, start + first + low, start + first + high, left, right, parts)


def _columns(above: NDArray[np.float32], step: NDArray[np.float32], part: NDArray[np.float32]) -> tuple[int, int]:
    """The columns with evidence in one of these rows: between two rows of the map, each column has its largest value in the first or the last."""
    drawn = np.flatnonzero(np.maximum(above + part[0] * step, above + part[-1] * step) >= _DRAWN)
    return (int(drawn[0]), int(drawn[-1]) + 1) if len(drawn) else (0, 0)


def _rows_together(step: NDArray[np.float32], part: NDArray[np.float32]) -> int:
    """How many rows may take the level of their middle (rule 2)."""
    if len(part) < 2 or not len(step):
        return 1
    # The largest step: rows before the map's first centre all have its value, and no step.
    slope = float(np.abs(step).max()) * float(np.diff(part).max())
    return min(_MOST_ROWS_TOGETHER, 1 + int(0.98 / slope)) if slope > 0 else _MOST_ROWS_TOGETHER


def _interpolate(above: NDArray[np.float32], step: NDArray[np.float32], parts: NDArray[np.float32], level: NDArray[np.float32]) -> None:
    """Levels down the rows into `level`, float32 (2, groups, half the columns): even columns, then odd ones; a missing last one is copied."""
    apart = np.zeros((2, 2, level.shape[2]), dtype=np.float32)
    for index, values in enumerate((above, step)):
        apart[index, 0] = values[::2]
        apart[index, 1, : len(values) // 2] = values[1::2]
    np.multiply(parts[None, :, None], apart[1][:, None, :], out=level)
    np.add(level, apart[0][:, None, :], out=level)


def _grey(frame: NDArray[np.uint8], level: NDArray[np.float32], picture: NDArray[np.uint8], colours: Colours, scratch: _Scratch) -> None:
    """Composites over grey: one look-up of level and value a pixel."""
    (rows, columns), (_, groups, half) = frame.shape, level.shape
    together = rows // groups
    np.clip(level, 0, LEVELS - 0.5, out=level)
    high = scratch.room("high", np.uint16, 2, groups, half)
    np.copyto(high, level, casting="unsafe")
    np.left_shift(high, 8, out=high)
    pairs = _pairs(frame, scratch.room("grey", np.uint8, rows, 2 * half)).reshape(groups, together, half)
    low = scratch.room("low", np.uint16, groups, together, half)
    index = scratch.room("index", np.intp, 2, groups, together, half)
    for odd in range(2):
        # The even column's byte, then the odd one's.
        np.right_shift(pairs, 8, out=low) if odd else np.bitwise_and(pairs, 255, out=low)
        np.bitwise_or(low, high[odd][:, None], out=low)
        np.copyto(index[odd], low)
    packed = _join(_grey_tables(colours), index.reshape(2, rows, half), scratch, scratch.room("packed", np.uint16, rows, half, 3))
    np.copyto(picture, packed.view(np.uint8).reshape(rows, 2 * half, 3)[:, :columns])


def _rgb(frame: NDArray[np.uint8], level: NDArray[np.float32], picture: NDArray[np.uint8], colours: Colours, scratch: _Scratch) -> None:
    """Composites over colour: colour and weight are looked up once a group of rows, the rest is arithmetic."""
    (rows, columns), (_, groups, half) = frame.shape[:2], level.shape
    together = rows // groups
    whole = scratch.room("whole", np.int32, 2, groups, half)
    np.copyto(whole, level, casting="unsafe")
    index = scratch.room("index", np.intp, 2, groups, half)
    np.copyto(index, whole)
    added, weights = _rgb_tables(colours)
    plus = (
        _join(added, index, scratch, scratch.room("packed", np.uint16, groups, half, 3))
        .view(np.uint8)
        .reshape(groups, 1, 6 * half)[..., : 3 * columns]
    )
    packed = _join(weights, index, scratch, scratch.room("weights", np.uint16, groups, half, 3)).view(np.uint8)
    weight = scratch.room("weight", np.uint16, groups, 1, 3 * columns)
    np.copyto(weight, packed.reshape(groups, 1, 6 * half)[..., : 3 * columns])
    # The table holds the weight minus one, because 256 is no byte; a weight of 0 became 1, which takes nothing from a value under 256 either.
    np.add(weight, 1, out=weight)
    taken = scratch.room("taken", np.uint16, rows, columns, 3)
    np.copyto(taken, frame)
    taken = taken.reshape(groups, together, 3 * columns)
    np.multiply(taken, weight, out=taken)
    np.right_shift(taken, 8, out=taken)
    change = scratch.room("change", np.uint8, groups, together, 3 * columns)
    np.copyto(change, taken, casting="unsafe")
    # Bytes wrap around: plus − taken may be negative, the sum with the frame is not (rule 1).
    np.subtract(plus, change, out=change)
    np.add(frame, change.reshape(rows, columns, 3), out=picture)


def _pairs(frame: NDArray[np.uint8], room: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """The frame's bytes in pairs, uint16 (rows, half the columns), the even column's in the low byte."""
    np.copyto(room[:, : frame.shape[1]], frame)
    room[:, frame.shape[1] :] = 0
    pairs: NDArray[np.uint16] = room.view("<u2")
    return pairs


def _join(
    tables: tuple[NDArray[np.uint32], NDArray[np.uint32]], index: NDArray[np.intp], scratch: _Scratch, out: NDArray[np.uint16]
) -> NDArray[np.uint16]:
    """Looks even and odd columns up and puts them side by side: uint16 (rows, half the columns, 3) is uint8 (rows, columns, 3)."""
    shape = index.shape[1:]
    even, odd = scratch.room("even", np.uint32, *shape), scratch.room("odd", np.uint32, *shape)
    # "clip" spares take() a copy of its output, and holds levels beyond the ends of a table of levels.
    np.take(tables[0], index[0], out=even, mode="clip")
    np.take(tables[1], index[1], out=odd, mode="clip")
    first, second = even.view(np.uint16).reshape(*shape, 2), odd.view(np.uint16).reshape(*shape, 2)
    out[..., 0] = first[..., 0]
    np.bitwise_or(first[..., 1], second[..., 0], out=out[..., 1])
    out[..., 2] = second[..., 1]
    return out


def _word_tables(rgb: NDArray[np.int64]) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """RGB colours as words of four bytes: R G B 0 for even columns, 0 R G B for odd ones."""
    even, odd = (np.zeros((len(rgb), 4), dtype=np.uint8) for _ in range(2))
    even[:, :3] = rgb
    odd[:, 1:] = rgb
    return even.view(np.uint32).reshape(-1), odd.view(np.uint32).reshape(-1)


@lru_cache(maxsize=4)
def _grey_tables(colours: Colours) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """The pixel with value v at level e, at [256 · e + v]; two tables of 256 KiB."""
    added, weight = colours.products()
    value = np.arange(256)
    taken = (value[None, :] * weight[:, None]) >> 8
    return _word_tables((value[None, :, None] + added[:, None, :] - taken[:, :, None]).reshape(-1, 3))


@lru_cache(maxsize=8)
def _rgb_tables(
    colours: Colours,
) -> tuple[tuple[NDArray[np.uint32], NDArray[np.uint32]], tuple[NDArray[np.uint32], NDArray[np.uint32]]]:
    """By level: what is added, and the weight minus one in each of the three channels."""
    added, weight = colours.products()
    return _word_tables(added), _word_tables(np.repeat(np.maximum(weight - 1, 0)[:, None], 3, axis=1))


class _Scratch:
    """Room for the intermediate values of one block. It is kept from frame to frame, because new memory costs more than what is done in it."""

    def __init__(self) -> None:
        self._slots: dict[str, NDArray[Any]] = {}

    def room(self, slot: str, dtype: type[np.generic], *shape: int) -> NDArray[Any]:
        """An array with whatever was in it, for the one use that the slot is named after."""
        count = math.prod(shape)
        found = self._slots.get(slot)
        if found is None or len(found) < count:
            found = self._slots[slot] = np.empty(count, dtype=dtype)
        return found[:count].reshape(shape)


class _Threads(threading.local):
    """One scratch a thread: frames may be drawn in several at a time."""

    def __init__(self) -> None:
        self.scratch = _Scratch()


_THREADS = _Threads()
