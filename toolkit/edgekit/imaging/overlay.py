"""A class activation map drawn over the frame it explains.

Rules this file keeps:

1. The scale is fixed: a colour means the same number of logit units on every frame. A map is never stretched to its own maximum, which would
   paint a negative frame as red as a positive one.
2. Only positive evidence is drawn, and opacity grows with it; a diverging colour map draws negative evidence too, in its other half. Where the
   map is zero (or negative, in a map that does not diverge), and outside the box it covers, the frame's pixels are unchanged bit for bit.
3. Geometry is that of `evidence`; how colours are mixed, and what is exact about it, is in `composite`.
4. Contours are lines at fixed logit values, and every pixel that is not on one is unchanged.
5. The picture owns its pixels: it shares no memory with the frame or the map.

It does not prove that the model looked at the right thing; it shows where the score came from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError
from edgekit.imaging import colormaps, composite, contours
from edgekit.imaging.evidence import Box, check_map, check_scale, place
from edgekit.imaging.preprocess import check_frame


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayOptions:
    """How evidence is drawn.

    Attributes:
        colormap: A name in `colormaps.COLORMAPS`; one that is in `colormaps.DIVERGING` draws negative evidence too.
        opacity: Weight of the colour at full evidence, above 0 and at most 1; it is proportional to the evidence below that. Contours are opaque.
        contours: Lines of equal evidence, at a quarter, half, three quarters and the whole of the scale, instead of a filled area.
        line_px: Width of a contour in pixels, at least 1; None for what suits the size of the frame, `contours.width_px`.
    """

    colormap: str = colormaps.DEFAULT
    opacity: float = 0.6
    contours: bool = False
    line_px: int | None = None

    def __post_init__(self) -> None:
        colormaps.colors(self.colormap)
        if not 0 < self.opacity <= 1:
            raise DataError(f"the overlay's opacity must be above 0 and at most 1, not {self.opacity}")
        if self.line_px is not None and self.line_px < 1:
            raise DataError(f"a contour is at least 1 pixel wide, not {self.line_px}")

    @property
    def is_signed(self) -> bool:
        """Whether negative evidence is drawn too."""
        return self.colormap in colormaps.DIVERGING


DEFAULT = OverlayOptions()


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
        options: Colours, opacity, area or lines.

    Returns:
        uint8 (rows, columns, 3), RGB, contiguous.

    Raises:
        DataError: When the frame is not one, when the map is not a finite 2-D float array, or when box or scale are not usable.
    """
    check_frame(frame)
    check_map(cam)
    check_scale(scale)
    with np.errstate(over="ignore"):
        shares = cam.astype(np.float64) / scale
    if options.contours:
        return _outline(frame, shares, box, options)
    return _fill(frame, shares, box, options)


def _fill(frame: NDArray[np.uint8], shares: NDArray[np.float64], box: Box, options: OverlayOptions) -> NDArray[np.uint8]:
    """Fills where the map, in shares of the scale, has evidence that is drawn."""
    level = np.clip(shares * (composite.LEVELS - 1), -composite.MAX_LEVEL, composite.MAX_LEVEL)
    placed = place(frame.shape, level.astype(np.float32), box)
    picture = np.empty((*frame.shape[:2], 3), dtype=np.uint8)
    rows, columns = placed.rows, placed.columns
    for outside in (
        np.s_[: rows.start],
        np.s_[rows.stop :],
        np.s_[rows, : columns.start],
        np.s_[rows, columns.stop :],
    ):
        composite.copy(frame[outside], picture[outside])
    if not placed.is_empty:
        colours = composite.Colours(
            above=colormaps.ramp(options.colormap).tobytes(),
            below=colormaps.ramp(options.colormap, is_negative=True).tobytes() if options.is_signed else None,
            opacity=options.opacity,
        )
        composite.draw(frame[rows, columns], placed, picture[rows, columns], colours)
    return picture


def _outline(frame: NDArray[np.uint8], shares: NDArray[np.float64], box: Box, options: OverlayOptions) -> NDArray[np.uint8]:
    """Draws lines over a copy."""
    picture = np.empty((*frame.shape[:2], 3), dtype=np.uint8)
    composite.copy(frame, picture)
    width = contours.width_px(frame.shape) if options.line_px is None else options.line_px
    contours.draw(picture, shares, box=box, colormap=options.colormap, width=width)
    return picture
