"""A class activation map drawn over the frame it explains.

Rules this file keeps:

1. The scale is fixed: a colour means the same number of logit units on every frame. A map is never stretched to its own maximum, which would
   paint a negative frame as red as a positive one.
2. Only positive evidence is drawn, and opacity grows with it. Where the map is zero or negative, and outside the box it covers, the frame's
   pixels are unchanged bit for bit.
3. Geometry is by pixel edges: the map's outer edges are the box's, a cell's value stands at the cell's centre, values between are bilinear,
   and a pixel takes the value at its own centre. Pixels whose centre is outside the box are outside.
4. The picture owns its pixels: it shares no memory with the frame or the map.

It does not prove that the model looked at the right thing; it shows where the score came from.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError
from edgekit.imaging import colormaps
from edgekit.imaging.preprocess import check_frame

# A block of rows whose intermediate values stay in a core's second-level cache.
_BLOCK_PIXELS = 48_000

# Some 4000 times full colour: beyond it, float32 could not tell a level from the next when it interpolates.
_MAX_LEVEL = 2.0**20


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayOptions:
    """How evidence is drawn.

    Attributes:
        colormap: A name in `colormaps.COLORMAPS`.
        opacity: Weight of the colour at full evidence, above 0 and at most 1; it is proportional to the evidence below that.
    """

    colormap: str = colormaps.DEFAULT
    opacity: float = 0.6

    def __post_init__(self) -> None:
        colormaps.colors(self.colormap)
        if not 0 < self.opacity <= 1:
            raise DataError(f"the overlay's opacity must be above 0 and at most 1, not {self.opacity}")


DEFAULT = OverlayOptions()

Box = tuple[float, float, float, float]


def render(
    frame: NDArray[np.uint8], cam: NDArray[np.floating], *, box: Box, scale: float, options: OverlayOptions = DEFAULT
) -> NDArray[np.uint8]:
    """Draws a map over a frame.

    Args:
        frame: uint8 (rows, columns), or (rows, columns, 3) in RGB order.
        cam: float (map rows, map columns) in logit units, signed.
        box: (left, top, right, bottom) of the map in pixels of the frame, pixel edges, not rounded: `preprocess.crop_box`. It may reach beyond
            the frame.
        scale: Logit units drawn in full colour, above 0; the same for all frames that are compared.
        options: Colours and opacity.

    Returns:
        uint8 (rows, columns, 3), RGB, contiguous.

    Raises:
        DataError: When the frame is not one, when the map is not a finite 2-D float array, or when box or scale are not usable.
    """
    check_frame(frame)
    level = _levels(cam, scale)
    left, top, right, bottom = _check_box(box)
    rows, row_place = _pixels_inside(top, bottom, frame.shape[0], level.shape[0])
    columns, column_place = _pixels_inside(left, right, frame.shape[1], level.shape[1])
    picture = np.empty((*frame.shape[:2], 3), dtype=np.uint8)
    for outside in (
        np.s_[: rows.start],
        np.s_[rows.stop :],
        np.s_[rows, : columns.start],
        np.s_[rows, columns.stop :],
    ):
        _copy(frame[outside], picture[outside])
    if rows.start < rows.stop and columns.start < columns.stop:
        lower, part = _neighbours(column_place, level.shape[1])
        across = level[:, lower] + (level[:, np.minimum(lower + 1, level.shape[1] - 1)] - level[:, lower]) * part
        _draw(frame[rows, columns], across, row_place, picture[rows, columns], options)
    return picture


def _draw(
    frame: NDArray[np.uint8], across: NDArray[np.float32], places: NDArray[np.float32], picture: NDArray[np.uint8], options: OverlayOptions
) -> None:
    """Interpolates the map's rows down the frame and composites, block by block.

    Args:
        frame: uint8 (rows, columns) or (rows, columns, 3): the part inside the box.
        across: float32 (map rows, columns): the map, already interpolated across.
        places: float32 (rows,): each pixel row's place in rows of the map.
        picture: uint8 (rows, columns, 3): where the result goes.
        options: Colours and opacity.
    """
    lower, part = _neighbours(places, len(across))
    step = np.diff(across, axis=0, append=across[-1:])
    bounds = _blocks(lower, frame.shape[1])
    height = max(stop - start for start, stop in bounds)
    values = np.empty((height, frame.shape[1]), dtype=np.float32)
    # intp is what take() indexes with; any other type would be converted in every call.
    index = np.empty((height, frame.shape[1]), dtype=np.intp)
    composite = _composite_grey if frame.ndim == 2 else _composite_rgb
    for start, stop in bounds:
        value, row = values[: stop - start], int(lower[start])
        np.multiply(part[start:stop, None], step[row], out=value)
        np.add(value, across[row], out=value)
        np.clip(value, 0, 255, out=value)
        np.copyto(index[: stop - start], value, casting="unsafe")
        np.left_shift(index[: stop - start], 8, out=index[: stop - start])
        composite(frame[start:stop], index[: stop - start], picture[start:stop], options)


def _composite_grey(frame: NDArray[np.uint8], index: NDArray[np.intp], picture: NDArray[np.uint8], options: OverlayOptions) -> None:
    np.bitwise_or(index, frame, out=index)
    packed = np.empty(index.shape, dtype=np.uint32)
    # The index is in range by construction; "clip" only spares take() a copy of its output.
    np.take(_packed_table(options), index, out=packed, mode="clip")
    channels = packed.view(np.uint8).reshape(*index.shape, 4)
    for channel in range(3):
        picture[..., channel] = channels[..., channel]


def _composite_rgb(frame: NDArray[np.uint8], index: NDArray[np.intp], picture: NDArray[np.uint8], options: OverlayOptions) -> None:
    table = _table(options)
    mixed = np.empty(index.shape, dtype=np.uint8)
    for channel in range(3):
        np.take(table[channel], index | frame[..., channel], out=mixed, mode="clip")
        picture[..., channel] = mixed


@lru_cache(maxsize=8)
def _table(options: OverlayOptions) -> NDArray[np.uint8]:
    """uint8 (3, 256 · 256): what channel c of a pixel with value v becomes at level e, at [c, 256 · e + v]."""
    color = colormaps.colors(options.colormap).astype(np.float64).T[:, :, None]
    value = np.arange(256.0)[None, None, :]
    weight = (options.opacity * np.arange(256) / 255)[None, :, None]
    table: NDArray[np.uint8] = np.rint(value + weight * (color - value)).astype(np.uint8).reshape(3, -1)
    return table


@lru_cache(maxsize=8)
def _packed_table(options: OverlayOptions) -> NDArray[np.uint32]:
    """uint32 (256 · 256,): the three channels of `_table` as the first three bytes of a word, so that a grey pixel is one look-up."""
    words = np.zeros((256 * 256, 4), dtype=np.uint8)
    words[:, :3] = _table(options).T
    return words.view(np.uint32).reshape(-1)


def _levels(cam: NDArray[np.floating], scale: float) -> NDArray[np.float32]:
    """The map in levels of the colour table plus one half, so that cutting the fraction off rounds; 255 is full colour."""
    if not isinstance(cam, np.ndarray) or cam.dtype.kind != "f" or cam.ndim != 2 or 0 in cam.shape:
        found = f"{cam.dtype} {cam.shape}" if isinstance(cam, np.ndarray) else type(cam).__name__
        raise DataError(
            f"a map is a float array (rows, columns), not {found}", hint="one map at a time: prediction.cam, or one class of it"
        )
    if not np.isfinite(cam).all():
        raise DataError(
            "the map has NaN or infinite values", hint="it explains nothing; the prediction it came with is not to be trusted either"
        )
    if not (np.isfinite(scale) and scale > 0):
        raise DataError(f"the overlay's scale must be a finite number of logit units above 0, not {scale}")
    with np.errstate(over="ignore"):
        level = cam.astype(np.float64) * 255 / scale
    return (np.clip(level, -_MAX_LEVEL, _MAX_LEVEL) + 0.5).astype(np.float32)


def _check_box(box: Box) -> Box:
    left, top, right, bottom = box
    if not (np.isfinite(box).all() and left < right and top < bottom):
        raise DataError(f"the overlay's box must be (left, top, right, bottom) with left < right and top < bottom, not {box}")
    return box


def _pixels_inside(low: float, high: float, size: int, cells: int) -> tuple[slice, NDArray[np.float32]]:
    """The pixels of one axis whose centre lies in [low, high), and the place of each in cells of the map, 0 at the first cell's centre."""
    start, stop = (int(np.clip(np.ceil(edge - 0.5), 0, size)) for edge in (low, high))
    centres = np.arange(start, stop) + 0.5
    return slice(start, stop), ((centres - low) * (cells / (high - low)) - 0.5).astype(np.float32)


def _neighbours(places: NDArray[np.float32], cells: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The cell at or before each place and the way from it to the next; beyond the outer centres the outer cell's value holds."""
    inside = np.clip(places, 0, cells - 1)
    lower = inside.astype(np.intp)
    return lower, (inside - lower).astype(np.float32)


def _blocks(lower: NDArray[np.intp], columns: int) -> list[tuple[int, int]]:
    """Runs of pixel rows between the same two rows of the map, cut so that a block stays in the cache."""
    longest = max(1, _BLOCK_PIXELS // columns)
    edges = [0, *(np.flatnonzero(np.diff(lower)) + 1).tolist(), len(lower)]
    return [(cut, min(cut + longest, stop)) for start, stop in itertools.pairwise(edges) for cut in range(start, stop, longest)]


def _copy(frame: NDArray[np.uint8], picture: NDArray[np.uint8]) -> None:
    for channel in range(3):
        picture[..., channel] = frame if frame.ndim == 2 else frame[..., channel]
