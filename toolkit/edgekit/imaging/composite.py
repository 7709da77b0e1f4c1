"""Evidence composited over the pixels of a frame: the part of the overlay that has to be fast.

Rules this file keeps:

1. A pixel with value f under the colour C with the weight m (0 to 256) becomes (f·(256 − m) >> 8) + (C·m + 255 >> 8), in integers, for grey and for
   colour alike: exactly f where the weight is 0, exactly C where it is 256, less than one away from the mixture.
2. Colour and weight come from the evidence in 255 levels each side of zero, rounded to the nearest. Pairs of columns and groups of rows that differ
   little take the level of their middle, which is less than two levels from each one's own. Levels that such a group could show where a
   pixel has no evidence are not drawn, so that a pixel without evidence is the frame's.
3. Every value is computed from its own row and column, not from the block it is in: bytes do not depend on block sizes, runs or threads.
4. Where nothing is to be drawn, pixels are copied and nothing is computed. Intermediate values are kept in the processor's cache.

Two pixels are 6 bytes, which is three 16-bit words: R G, B R, G B. A level is one look-up of four words, these three and the weight. The rest is
arithmetic on words of two bytes, which numpy does many at a time; single bytes, three apart, it moves one by one.
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

_BLOCK_PIXELS = 64_000
"""Pixels worked on at once, at some 10 bytes each."""

_MOST_LEVELS_APART = 1.96
"""Of a pixel's own evidence and the middle of the group it is looked up with (rule 2); the rest to two is for float32's rounding."""

_MOST_ROWS_TOGETHER = 16

# A level is cut off after one half was added, so nothing under one is drawn; the rest is for float32's rounding between two rows.
_DRAWN = 0.49


@dataclass(frozen=True, slots=True, kw_only=True)
class Colours:
    """What the levels of evidence look like.

    Attributes:
        above: The bytes of uint8 (256, 3), RGB, by level of positive evidence.
        below: The same for negative evidence; None where it is not drawn.
        opacity: Weight of the colour at level 255, above 0 and at most 1.
    """

    above: bytes
    below: bytes | None
    opacity: float

    @property
    def zero(self) -> int:
        """The place of level 0 in the table of levels."""
        return 0 if self.below is None else LEVELS - 1


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
        placed: The map in levels, clipped to ±`MAX_LEVEL`.
        picture: uint8 (rows, columns, 3): where the result goes; shares no memory with the frame.
        colours: Colours and opacity.
    """
    composite = _grey if frame.ndim == 2 else _rgb
    # A row that is wider than a block gets room of its own, so that one odd frame does not stay in memory.
    scratch = _THREADS.scratch if frame.shape[1] <= _BLOCK_PIXELS else _Scratch()
    grid = _grid(placed)
    table = _table(colours, grid.faint)
    upper = grid.upper + np.float32(colours.zero + 0.5)
    for block in _blocks(placed, grid, is_signed=colours.below is not None):
        rows, columns = slice(block.start, block.stop), slice(block.left, block.right)
        if block.left == block.right:
            copy(frame[rows], picture[rows])
            continue
        if block.left > 0:
            copy(frame[rows, : block.left], picture[rows, : block.left])
        if block.right < frame.shape[1]:
            copy(frame[rows, block.right :], picture[rows, block.right :])
        half = slice(block.left // 2, (block.right + 1) // 2)
        words = _look_up(table, upper[..., half], grid.step[..., half], grid.lower[block.groups], grid.part[block.groups], scratch)
        composite(frame[rows, columns], words, picture[rows, columns], scratch)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grid:
    """The map at the pixels that are looked up: one of each group.

    Attributes:
        together: Rows of a group.
        lower: intp (groups,): the map row at or above the middle of each group of rows.
        part: float32 (groups,): the way from it to the next.
        upper: float32 (sides, map rows, half the columns): the map. One side is the middle of each pair of columns, two are even and odd columns; where
            the last column is without a partner, it is its own.
        step: The same for what the next row of the map adds.
        faint: The lowest level that is drawn (rule 2).
    """

    together: int
    lower: NDArray[np.intp]
    part: NDArray[np.float32]
    upper: NDArray[np.float32]
    step: NDArray[np.float32]
    faint: int


def _grid(placed: Placed) -> _Grid:
    """Groups as many pixels as may share a look-up (rule 2)."""
    across, lower, part = placed.across, placed.lower, placed.part
    if across.shape[1] % 2:
        across = np.concatenate([across, across[:, -1:]], axis=1)
    even, odd = across[:, ::2], across[:, 1::2]
    aside = float(np.abs(odd - even).max()) / 2
    is_paired = aside < _MOST_LEVELS_APART
    upper = ((even + odd) * np.float32(0.5))[None] if is_paired else np.stack([even, odd])
    step = np.zeros_like(upper)
    np.subtract(upper[:, 1:], upper[:, :-1], out=step[:, :-1])
    aside = aside if is_paired else 0.0
    slope = placed.pitch * float(np.abs(across[1:] - across[:-1]).max(initial=0))
    together = min(_MOST_ROWS_TOGETHER, 1 + int(2 * (_MOST_LEVELS_APART - aside) / max(slope, 1e-6)))
    if together > 1:
        rows = np.arange(0, len(lower), together)
        last = np.minimum(rows + (together - 1), len(lower) - 1)
        middle = (lower[rows] + part[rows] + lower[last] + part[last]) * 0.5
        lower = middle.astype(np.intp)
        part = (middle - lower).astype(np.float32)
    # A group of one pixel shows its own level; a larger one may show these many where a pixel has none.
    shown = aside + (together - 1) / 2 * slope
    return _Grid(together=together, lower=lower, part=part, upper=upper, step=step, faint=1 + int(shown + 0.51))


@dataclass(frozen=True, slots=True)
class _Block:
    """Groups of rows, the rows `start` to `stop` that they are, and the columns `left` to `right` in which one of them has evidence; `left` is even."""

    groups: slice
    start: int
    stop: int
    left: int
    right: int


def _blocks(placed: Placed, grid: _Grid, *, is_signed: bool) -> Iterator[_Block]:
    """Cuts the groups of rows into blocks."""
    (_, cells, half), (rows, columns), count = grid.upper.shape, placed.shape, len(grid.lower)
    longest = max(1, _BLOCK_PIXELS // columns // grid.together)
    # What is left over at the end is a group of its own: it has fewer rows.
    cuts = sorted({*range(0, count, longest), rows // grid.together, count})
    first, last = np.array(cuts[:-1]), np.array(cuts[1:]) - 1
    # Between two rows of the map a column has its extremes in the first or the last group; beyond, in the rows of the map between them.
    ends = [grid.upper[:, grid.lower[at]] + grid.part[at, None] * grid.step[:, grid.lower[at]] for at in (first, last)]
    largest = np.maximum(*map(np.abs, ends)) if is_signed else np.maximum(*ends)
    for index in range(len(first)):
        for row in range(int(grid.lower[first[index]]) + 1, min(int(grid.lower[last[index]]), cells - 1) + 1):
            values = grid.upper[:, row]
            np.maximum(largest[:, index], np.abs(values) if is_signed else values, out=largest[:, index])
    drawn = (largest >= _DRAWN).any(axis=0)
    left, right = drawn.argmax(axis=1), half - drawn[:, ::-1].argmax(axis=1)
    for index, is_drawn in enumerate(drawn.any(axis=1)):
        start, stop = cuts[index] * grid.together, min(cuts[index + 1] * grid.together, rows)
        of_pair = (2 * int(left[index]), min(2 * int(right[index]), columns)) if is_drawn else (0, 0)
        yield _Block(slice(cuts[index], cuts[index + 1]), start, stop, *of_pair)


def _look_up(
    table: NDArray[np.uint64],
    upper: NDArray[np.float32],
    step: NDArray[np.float32],
    lower: NDArray[np.intp],
    part: NDArray[np.float32],
    scratch: _Scratch,
) -> NDArray[np.uint16]:
    """Four words for each group and pair of columns: uint16 (sides, groups, half the columns, 4)."""
    sides, _, half = upper.shape
    shape = sides, len(lower), half
    level = scratch.room("level", np.float32, *shape)
    edges = [0, *(np.flatnonzero(lower[1:] != lower[:-1]) + 1).tolist(), len(lower)]
    for start, stop in itertools.pairwise(edges):
        row = int(lower[start])
        np.multiply(part[None, start:stop, None], step[:, row, None], out=level[:, start:stop])
        np.add(level[:, start:stop], upper[:, row, None], out=level[:, start:stop])
    whole = scratch.room("whole", np.int32, *shape)
    np.copyto(whole, level, casting="unsafe")
    # take() looks up with intp only; numpy gets there faster by way of int32.
    index = scratch.room("index", np.intp, *shape)
    np.copyto(index, whole)
    found = scratch.room("found", np.uint64, *shape)
    # "clip" holds levels beyond the ends of the table.
    table.take(index, out=found, mode="clip")
    words: NDArray[np.uint16] = found.view(np.uint16).reshape(*shape, 4)
    return words


def _grey(frame: NDArray[np.uint8], words: NDArray[np.uint16], picture: NDArray[np.uint8], scratch: _Scratch) -> None:
    """Composites over grey: each pixel is weighted once, then added to three colours."""
    rows, (_, groups, half, _) = len(frame), words.shape
    shape = groups, rows // groups, half
    pairs = _as_words(frame, half, scratch).reshape(shape)
    weights = scratch.room("weights", np.uint16, len(words), groups, 1, half)
    np.copyto(weights, words[..., None, :, 3])
    low, high, mixed = (scratch.room(slot, np.uint16, *shape) for slot in ("low", "high", "mixed"))
    _weigh(pairs, weights[0], weights[-1], low, high)
    plus = scratch.room("plus", np.uint16, groups, 1, half)
    out = _room_for_words(picture, 3 * half, scratch).reshape(*shape, 3)
    for word in range(3):
        if word == 0:
            np.multiply(low, 257, out=mixed)
        elif word == 1:
            np.bitwise_or(low, high, out=mixed)
        else:
            np.right_shift(high, 8, out=mixed)
            np.bitwise_or(mixed, high, out=mixed)
        _colour(words, word, plus[:, 0])
        np.add(mixed, plus, out=mixed)
        np.copyto(out[..., word], mixed)
    _give_back(out.reshape(rows, 3 * half), picture)


def _rgb(frame: NDArray[np.uint8], words: NDArray[np.uint16], picture: NDArray[np.uint8], scratch: _Scratch) -> None:
    """Composites over colour."""
    rows, (sides, groups, half, _) = len(frame), words.shape
    shape = groups, rows // groups, 3 * half
    plus = scratch.room("plus", np.uint16, groups, 1, half, 3)
    for word in range(3):
        _colour(words, word, plus[:, 0, :, word])
    # By word, the side of its low byte and that of its high byte: R G of the even column, B R of both, G B of the odd one.
    weights = scratch.room("weights", np.uint16, sides, groups, 1, half, 3)
    for byte, word in itertools.product(range(sides), range(3)):
        np.copyto(weights[byte, :, 0, :, word], words[-1 if 2 * word + byte > 2 else 0, ..., 3])
    weights = weights.reshape(sides, groups, 1, 3 * half)
    low, high = (scratch.room(slot, np.uint16, *shape) for slot in ("low", "high"))
    _weigh(_as_words(frame.reshape(rows, -1), 3 * half, scratch).reshape(shape), weights[0], weights[-1], low, high)
    np.bitwise_or(low, high, out=low)
    out = _room_for_words(picture, 3 * half, scratch)
    np.add(low, plus.reshape(groups, 1, 3 * half), out=out.reshape(shape))
    _give_back(out, picture)


def _weigh(
    words: NDArray[np.uint16], of_low: NDArray[np.uint16], of_high: NDArray[np.uint16], low: NDArray[np.uint16], high: NDArray[np.uint16]
) -> None:
    """Both bytes of each word times their weights over 256: the low one into the low byte of `low`, the high one into the high byte of `high`."""
    np.bitwise_and(words, 0xFF, out=low)
    np.multiply(low, of_low, out=low)
    np.right_shift(low, 8, out=low)
    np.right_shift(words, 8, out=high)
    np.multiply(high, of_high, out=high)
    np.bitwise_and(high, 0xFF00, out=high)


def _colour(words: NDArray[np.uint16], word: int, out: NDArray[np.uint16]) -> None:
    """One of the three words of a pair of colours: the even column's R G, B and the odd one's R, the odd one's G B."""
    even, odd = words[0, ..., word], words[-1, ..., word]
    if word == 1 and len(words) == 2:
        np.bitwise_and(even, 0xFF, out=out)
        np.bitwise_or(out, odd & 0xFF00, out=out)
    else:
        np.copyto(out, odd if word == 2 else even)


def _as_words(pixels: NDArray[np.uint8], half: int, scratch: _Scratch) -> NDArray[np.uint16]:
    """Rows of bytes as `half` words each: a view where memory allows it, otherwise a copy with something after the last odd byte."""
    rows, count = pixels.shape
    if count == 2 * half and pixels.strides[1] == 1:
        words: NDArray[np.uint16] = pixels.view("<u2")
        if words.flags.aligned:
            return words
    room = scratch.room("pixels", np.uint16, rows, half)
    np.copyto(room.view(np.uint8)[:, :count], pixels)
    return room


def _room_for_words(picture: NDArray[np.uint8], half: int, scratch: _Scratch) -> NDArray[np.uint16]:
    """Where to write the words of a part of the picture: in it where memory allows that, otherwise in a place for `_give_back`."""
    rows, columns = picture.shape[:2]
    if 3 * columns == 2 * half:
        words: NDArray[np.uint16] = picture.reshape(rows, -1).view("<u2")
        if words.flags.aligned:
            return words
    return scratch.room("picture", np.uint16, rows, half)


def _give_back(words: NDArray[np.uint16], picture: NDArray[np.uint8]) -> None:
    """Copies what was not written in the picture itself."""
    if not np.may_share_memory(words, picture):
        rows, columns = picture.shape[:2]
        np.copyto(picture, words.view(np.uint8)[:, : 3 * columns].reshape(rows, columns, 3))


@lru_cache(maxsize=16)
def _table(colours: Colours, faint: int) -> NDArray[np.uint64]:
    """By level, from the most negative on: the words R G, B R and G B to be added, and the weight of the frame (rule 1)."""
    level = np.arange(-colours.zero, LEVELS)
    weight = np.rint(256 * colours.opacity * np.abs(level) / (LEVELS - 1)).astype(np.int64)
    weight[np.abs(level) < faint] = 0
    above, below = (np.frombuffer(ramp or b"", dtype=np.uint8).reshape(-1, 3) for ramp in (colours.above, colours.below))
    colour = np.concatenate([below[:0:-1], above]).astype(np.int64)
    added = (colour * weight[:, None] + 255) >> 8
    words = np.empty((len(level), 4), dtype="<u2")
    words[:, :3].view(np.uint8)[...] = np.tile(added, 2)
    words[:, 3] = 256 - weight
    table: NDArray[np.uint64] = words.view(np.uint64).reshape(-1)
    return table


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
