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

_PIXELS_A_WIDTH = 700
"""A line is one pixel wide, and one more for every so many pixels of the frame's shorter side, so that it can be seen on a frame that is shown smaller."""


def draw(picture: NDArray[np.uint8], cam: NDArray[np.floating], *, box: Box, scale: float, colormap: str) -> None:
    """Draws the lines into a picture.

    Args:
        picture: uint8 (rows, columns, 3), RGB; changed in place.
        cam: float (map rows, map columns) in logit units, signed and finite.
        box: Where the map lies in the picture.
        scale: Logit units of the outermost line.
        colormap: A name in `colormaps.COLORMAPS`; each line has the colour of its value.
    """
    with np.errstate(over="ignore"):
        shares = np.clip(cam.astype(np.float64) / scale, -1e6, 1e6).astype(np.float32)
    placed = place(picture.shape, shares, box)
    if placed.is_empty:
        return
    inside = picture[placed.rows, placed.columns]
    values = placed.values()
    width = 1 + min(picture.shape[:2]) // _PIXELS_A_WIDTH
    for is_negative in (False, True) if colormap in colormaps.DIVERGING else (False,):
        ramp = colormaps.ramp(colormap, is_negative=is_negative)
        for share in SHARES:
            inside[_border(-values >= share if is_negative else values >= share, width)] = ramp[round(share * (len(ramp) - 1))]


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
