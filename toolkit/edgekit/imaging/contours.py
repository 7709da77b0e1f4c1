"""Lines of equal evidence, drawn over a frame.

Rules this file keeps:

1. A line stands at a fixed number of logit units, a fixed share of the scale, on every frame: lines of two frames can be compared.
2. A line is the border of the pixels at or above its value, drawn inside that border. The edge of the map is no border: beyond it nothing is known.
3. Every pixel that is not on a line is unchanged bit for bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekit.imaging import colormaps
from edgekit.imaging.evidence import Box, place

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Where the lines stand, in parts of the scale; with a diverging colour map also below zero."""

_PIXELS_A_WIDTH = 400
"""A line is one pixel wide, and one more for every so many pixels of the frame's shorter side, so that it can be seen on a frame that is shown smaller."""

_DARKEST = 0.4
"""The lowest line has about this place in the colours: what comes before is as dark as anatomy, and a line is opaque."""

_MAX_SHARE = 2.0**12
"""Beyond it, float32 could not tell where the lowest line is when it interpolates."""


def width_px(shape: tuple[int, ...]) -> int:
    """Width of a line on a frame of this shape (rows, columns, ...)."""
    return 1 + min(shape[:2]) // _PIXELS_A_WIDTH


def draw(picture: NDArray[np.uint8], shares: NDArray[np.float64], *, box: Box, colormap: str, width: int) -> None:
    """Draws the lines into a picture.

    Args:
        picture: uint8 (rows, columns, 3), RGB; changed in place.
        shares: float64 (map rows, map columns): the map in shares of the scale, signed.
        box: Where the map lies in the picture.
        colormap: A name in `colormaps.COLORMAPS`; a line's colour is that of its value, moved towards the bright end.
        width: Of a line, in pixels: `width_px`.
    """
    placed = place(picture.shape, np.clip(shares, -_MAX_SHARE, _MAX_SHARE).astype(np.float32), box)
    if placed.is_empty:
        return
    inside = picture[placed.rows, placed.columns]
    values = placed.values()
    for is_negative in (False, True) if colormap in colormaps.DIVERGING else (False,):
        ramp = colormaps.ramp(colormap, is_negative=is_negative)
        for share in SHARES:
            above = -values >= share if is_negative else values >= share
            inside[_border(above, width)] = ramp[round((_DARKEST + (1 - _DARKEST) * share) * (len(ramp) - 1))]


def _border(above: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """The pixels of a region that are at most `width` steps along a row or a column from a pixel outside it."""
    core = above
    for _ in range(width):
        smaller = core.copy()
        smaller[1:] &= core[:-1]
        smaller[:-1] &= core[1:]
        smaller[:, 1:] &= core[:, :-1]
        smaller[:, :-1] &= core[:, 1:]
        core = smaller
    border: NDArray[np.bool_] = above & ~core
    return border
