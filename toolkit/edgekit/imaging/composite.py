"""Evidence composited over the pixels of a frame: the part of the overlay that has to be fast.

Rules this file keeps:

1. A pixel with value f under the colour C with the weight m (0 to 256) becomes (f·(256 − m) >> 8) + (C·m + 255 >> 8), in integers, for grey and for
   colour alike: exactly f where the weight is 0, exactly C where it is 256, less than one away from the mixture.
2. Colour and weight come from the evidence in 255 levels each side of zero, rounded to the nearest. Pairs of columns and groups of rows that differ
   little take the level of their middle, which is less than two levels from each one's own. Levels that such a group could show where a
   pixel has no evidence are not drawn, so that a pixel without evidence is the frame's.
3. Every value is computed from its own row and column, not from the block it is in: bytes do not depend on block sizes, runs or threads.
4. Where nothing is to be drawn, pixels are copied and nothing is computed. Intermediate values are small enough for the processor's cache.

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

from edgekit.imaging.evidence import Axis, Placed

LEVELS = 256

MAX_LEVEL = 2.0**20
"""Some 4000 times full colour: beyond it, float32 could not tell a level from the next when it interpolates."""

_BLOCK_PIXELS = 320_000
"""Pixels worked on at once, at some 15 bytes each: with more, each step goes through main memory; with fewer, numpy's calls cost more than what they do."""

_MOST_LEVELS_APART = 1.96
"""Of a pixel's own evidence and the middle of the group it is looked up with (rule 2); the rest to two is for float32's rounding."""

_MOST_ROWS_TOGETHER = 16

_A, _B = "a", "b"
"""Rooms in which one step after the other puts what only the next one needs, so that less memory is gone through."""

# Levels are rounded to the nearest, so nothing under one half is drawn; the rest is for float32's rounding between two rows.
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
    for block in _blocks(grid, frame.shape, is_signed=colours.below is not None):
        rows, columns = slice(block.start, block.stop), slice(block.left, block.right)
        if block.left > 0:
            copy(frame[rows, : block.left], picture[rows, : block.left])
        if block.right < frame.shape[1]:
            copy(frame[rows, block.right :], picture[rows, block.right :])
        if block.left < block.right:
            half = slice(block.left // 2, (block.right + 1) // 2)
            found = _look_up(table, upper[..., half], grid.step[..., half], grid.groups.cut(block.groups), scratch)
            composite(frame[rows, columns], found, picture[rows, columns], scratch)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Groups:
    """Rows that are looked up together.

    Attributes:
        together: Rows of a group; the last may have fewer.
        lower: intp (groups,): the map row at or above the middle of each.
        part: float32 (groups,): the way from it to the next.
    """

    together: int
    lower: NDArray[np.intp]
    part: NDArray[np.float32]

    def cut(self, groups: slice) -> _Groups:
        """Some of them."""
        return _Groups(together=self.together, lower=self.lower[groups], part=self.part[groups])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grid:
    """The map at the pixels that are looked up, one of each group.

    Attributes:
        groups: Down the frame.
        upper: float32 (sides, map rows, half the columns): the map. One side is the middle of each pair of columns, two are even and odd columns; where
            the last column is without a partner, it is its own.
        step: The same for what the next row of the map adds.
        faint: The lowest level that is drawn (rule 2).
    """

    groups: _Groups
    upper: NDArray[np.float32]
    step: NDArray[np.float32]
    faint: int


def _grid(placed: Placed) -> _Grid:
    """Groups as many pixels as may share a look-up (rule 2)."""
    across = placed.across
    if across.shape[1] % 2:
        across = np.concatenate([across, across[:, -1:]], axis=1)
    even, odd = across[:, ::2], across[:, 1::2]
    aside = _largest(odd - even) / 2
    if aside < _MOST_LEVELS_APART:
        upper = even + odd
        upper *= 0.5
        upper = upper[None]
    else:
        upper, aside = np.stack([even, odd]), 0.0
    step = np.zeros_like(upper)
    np.subtract(upper[:, 1:], upper[:, :-1], out=step[:, :-1])
    slope = placed.down.pitch * _largest(step)
    together = min(_MOST_ROWS_TOGETHER, 1 + int(2 * (_MOST_LEVELS_APART - aside) / max(slope, 1e-6)))
    # A group of one pixel shows its own level; a larger one may show these many where a pixel has none.
    shown = aside + (together - 1) / 2 * slope
    return _Grid(groups=_groups(placed.down, together), upper=upper, step=step, faint=1 + int(shown + 0.51))


def _largest(values: NDArray[np.float32]) -> float:
    """Without its sign."""
    return max(float(values.max()), -float(values.min()))


@lru_cache(maxsize=16)
def _groups(down: Axis, together: int) -> _Groups:
    if together == 1:
        return _Groups(together=1, lower=down.lower, part=down.part)
    rows = np.arange(0, len(down.lower), together)
    last = np.minimum(rows + (together - 1), len(down.lower) - 1)
    middle = (down.lower[rows] + down.part[rows] + down.lower[last] + down.part[last]) * 0.5
    lower = middle.astype(np.intp)
    return _Groups(together=together, lower=lower, part=(middle - lower).astype(np.float32))


@dataclass(frozen=True, slots=True)
class _Block:
    """Groups of rows, the rows `start` to `stop` that they are, and the columns `left` to `right` in which one of them may have evidence; `left` is even."""

    groups: slice
    start: int
    stop: int
    left: int
    right: int


def _blocks(grid: _Grid, shape: tuple[int, ...], *, is_signed: bool) -> Iterator[_Block]:
    """Cuts the groups of rows of a part with this shape (rows, columns, ...) into blocks."""
    (_, cells, half), (rows, columns), together = grid.upper.shape, shape[:2], grid.groups.together
    # Between two rows of the map, no column has evidence that has none in either.
    largest: NDArray[np.float32] = (np.abs(grid.upper) if is_signed else grid.upper).max(axis=0)
    drawn = largest >= _DRAWN
    has_any = drawn.any(axis=1)
    left = np.where(has_any, 2 * drawn.argmax(axis=1), columns).tolist()
    right = np.where(has_any, np.minimum(2 * (half - drawn[:, ::-1].argmax(axis=1)), columns), 0).tolist()
    lower = grid.groups.lower
    longest = max(1, _BLOCK_PIXELS // columns // together)
    # What is left over at the end is a block of its own: its group has fewer rows.
    cuts = sorted({*range(0, len(lower), longest), rows // together, len(lower)})
    for start, stop in itertools.pairwise(cuts):
        of_map = slice(int(lower[start]), min(int(lower[stop - 1]) + 2, cells))
        first, last = min(left[of_map]), max(right[of_map])
        yield _Block(slice(start, stop), start * together, min(stop * together, rows), first if last else 0, last)


def _look_up(
    table: NDArray[np.uint64], upper: NDArray[np.float32], step: NDArray[np.float32], groups: _Groups, scratch: _Scratch
) -> NDArray[np.uint64]:
    """What the table has for each group and pair of columns: uint64 (sides, groups, half the columns)."""
    sides, _, half = upper.shape
    shape = sides, len(groups.lower), half
    level, above = (scratch.room(slot, np.float32, *shape) for slot in (_A, _B))
    step.take(groups.lower, axis=1, out=level, mode="clip")
    np.multiply(level, groups.part[:, None], out=level)
    upper.take(groups.lower, axis=1, out=above, mode="clip")
    np.add(level, above, out=level)
    whole = scratch.room(_B, np.int32, *shape)
    np.copyto(whole, level, casting="unsafe")
    # take() looks up with intp only; numpy gets there faster by way of int32.
    index = scratch.room(_A, np.intp, *shape)
    np.copyto(index, whole)
    found = scratch.room("found", np.uint64, *shape)
    # "clip" holds levels beyond the ends of the table.
    return table.take(index, out=found, mode="clip")


def _grey(frame: NDArray[np.uint8], found: NDArray[np.uint64], picture: NDArray[np.uint8], scratch: _Scratch) -> None:
    """Composites over grey: each pixel is weighted once, then added to three colours, two pixels at a time."""
    rows, (sides, groups, half) = len(frame), found.shape
    together = rows // groups
    weights = _weights(found, scratch)
    weight = weights[0] if sides == 1 else (weights[0] & 0xFFFF) | (weights[1] & 0xFFFF0000)
    rest = scratch.room("rest", np.uint8, together, groups, 2 * half)
    _weigh(frame, weight.view(np.uint16), rest, scratch)
    pairs = rest.view(np.uint16)
    plus = scratch.room("plus", np.uint16, groups, half)
    mixed = scratch.room(_A, np.uint16, together, groups, half)
    out = _room_for_words(picture, half, scratch)
    in_groups = out.reshape(groups, together, half, 3).swapaxes(0, 1)
    for word in range(3):
        _colour(found, word, plus)
        np.add(_word(pairs, word, mixed).reshape(together, -1), plus.reshape(1, -1), out=mixed.reshape(together, -1))
        np.copyto(in_groups[..., word], mixed)
    _give_back(out, picture)


def _rgb(frame: NDArray[np.uint8], found: NDArray[np.uint64], picture: NDArray[np.uint8], scratch: _Scratch) -> None:
    """Composites over colour."""
    (rows, columns), (sides, groups, half) = frame.shape[:2], found.shape
    together = rows // groups
    plus = scratch.room("plus", np.uint16, groups, half, 3)
    for word in range(3):
        _colour(found, word, plus[..., word])
    weights = _weights(found, scratch)
    weight = scratch.room("weight", np.uint32, groups, half, 3)
    np.copyto(weight[..., 0], weights[0])
    np.copyto(weight[..., 1], weights[0] if sides == 1 else (weights[0] & 0xFFFF) | (weights[1] & 0xFFFF0000))
    np.copyto(weight[..., 2], weights[-1])
    rest = scratch.room("rest", np.uint8, together, groups, 6 * half)
    _weigh(frame.reshape(rows, 3 * columns), weight.view(np.uint16).reshape(groups, 6 * half), rest, scratch)
    added = plus.view(np.uint8).reshape(1, groups, 6 * half)
    out = picture.reshape(groups, together, 3 * columns).swapaxes(0, 1)
    np.add(rest[..., : 3 * columns], added[..., : 3 * columns], out=out)


def _weigh(values: NDArray[np.uint8], weight: NDArray[np.uint16], rest: NDArray[np.uint8], scratch: _Scratch) -> None:
    """Values times their weights over 256.

    Args:
        values: uint8 (rows, values).
        weight: uint16 (groups, at least as many).
        rest: uint8 (rows of a group, groups, as many as weights): where the result goes. In this order, the rows that share weights are far apart, and
            numpy multiplies all groups in one go; what is beyond the values is of no use.
        scratch: Room for the products.
    """
    together, groups, _ = rest.shape
    product = scratch.room(_A, np.uint16, *rest.shape)
    np.copyto(product[..., : values.shape[1]], values.reshape(groups, together, -1).swapaxes(0, 1))
    flat = product.reshape(together, -1)
    np.multiply(flat, weight.reshape(1, -1), out=flat)
    np.right_shift(flat, 8, out=flat)
    np.copyto(rest, product, casting="unsafe")


def _word(grey: NDArray[np.uint16], word: int, out: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """One of the three words of two grey pixels a b as colours: a a, a b, b b."""
    if word == 1:
        return grey
    np.right_shift(grey, 8, out=out) if word else np.bitwise_and(grey, 0xFF, out=out)
    return np.multiply(out, 0x101, out=out)


def _colour(found: NDArray[np.uint64], word: int, out: NDArray[np.uint16]) -> None:
    """One of the three words of two colours: R G of the even column, its B and the odd one's R, the odd one's G B."""
    even, odd = found[0].view(np.uint16)[:, word::4], found[-1].view(np.uint16)[:, word::4]
    if word == 1 and len(found) == 2:
        np.copyto(out, (even & 0xFF) | (odd & 0xFF00))
    else:
        np.copyto(out, odd if word == 2 else even)


def _weights(found: NDArray[np.uint64], scratch: _Scratch) -> NDArray[np.uint32]:
    """The weight of the frame, twice in each word: uint32 (sides, groups, half the columns)."""
    shifted = scratch.room(_A, np.uint64, *found.shape)
    np.right_shift(found, 48, out=shifted)
    weights: NDArray[np.uint32] = scratch.room(_B, np.uint32, *found.shape)
    np.copyto(weights, shifted, casting="unsafe")
    np.multiply(weights, 0x10001, out=weights)
    return weights


def _room_for_words(picture: NDArray[np.uint8], half: int, scratch: _Scratch) -> NDArray[np.uint16]:
    """Where to write the three words of each pair: in the picture where memory allows that, otherwise in a place for `_give_back`."""
    rows, columns = picture.shape[:2]
    if columns == 2 * half:
        words: NDArray[np.uint16] = picture.reshape(rows, -1).view(np.uint16).reshape(rows, half, 3)
        if words.flags.aligned:
            return words
    return scratch.room("picture", np.uint16, rows, half, 3)


def _give_back(words: NDArray[np.uint16], picture: NDArray[np.uint8]) -> None:
    """Copies what was not written in the picture itself."""
    if not np.may_share_memory(words, picture):
        rows, columns = picture.shape[:2]
        np.copyto(picture, words.view(np.uint8).reshape(rows, -1, 3)[:, :columns])


@lru_cache(maxsize=16)
def _table(colours: Colours, faint: int) -> NDArray[np.uint64]:
    """By level, from the most negative on: the bytes R G B R G B of what is added, and the weight of the frame in two bytes (rule 1)."""
    level = np.arange(-colours.zero, LEVELS)
    weight = np.rint(256 * colours.opacity * np.abs(level) / (LEVELS - 1)).astype(np.int64)
    weight[np.abs(level) < faint] = 0
    above, below = (np.frombuffer(ramp or b"", dtype=np.uint8).reshape(-1, 3) for ramp in (colours.above, colours.below))
    colour = np.concatenate([below[:0:-1], above]).astype(np.int64)
    table = np.empty((len(level), 4), dtype=np.uint16)
    table[:, :3].view(np.uint8)[...] = np.tile((colour * weight[:, None] + 255) >> 8, 2)
    table[:, 3] = 256 - weight
    words: NDArray[np.uint64] = table.view(np.uint64).reshape(-1)
    return words


class _Scratch:
    """Room for the intermediate values of one block. It is kept from frame to frame, because new memory costs more than what is done in it."""

    def __init__(self) -> None:
        self._slots: dict[str, NDArray[np.uint8]] = {}

    def room(self, slot: str, dtype: type[np.generic], *shape: int) -> NDArray[Any]:
        """An array with whatever was in it; the one that had the slot before is lost."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        found = self._slots.get(slot)
        if found is None or len(found) < size:
            found = self._slots[slot] = np.empty(size, dtype=np.uint8)
        room: NDArray[Any] = np.ndarray(shape, dtype=dtype, buffer=found)
        return room


class _Threads(threading.local):
    """One scratch a thread: frames may be drawn in several at a time."""

    def __init__(self) -> None:
        self.scratch = _Scratch()


_THREADS = _Threads()
