"""What the cells of a map see of a mask that is drawn on the original frame.

Geometry is by pixel edges, as in `overlay`: the map's outer edges are those of the part of the frame it explains, and a cell may cut through pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Box = tuple[float, float, float, float]


def cells_of(mask: Bools, box: Box, size: tuple[int, int]) -> tuple[Floats, Bools]:
    """What the cells of a map see of a mask.

    Args:
        mask: bool (rows, columns), of the original frame.
        box: (left, top, right, bottom) in pixels of the frame, pixel edges: what the map covers (`preprocess.crop_box`).
        size: Rows and columns of the map.

    Returns:
        float64 (rows, columns) share of each cell in the mask, exact for cells that cut through pixels, and bool (rows, columns) at the cells' centres.
    """
    left, top, right, bottom = box
    rows, columns = np.linspace(top, bottom, size[0] + 1), np.linspace(left, right, size[1] + 1)
    total = np.pad(np.cumsum(np.cumsum(mask, axis=0, dtype=np.float64), axis=1), ((1, 0), (1, 0)))
    sums = _between(_between(total, rows).T, columns).T
    area = np.outer(np.diff(rows), np.diff(columns))
    covered: Floats = np.clip(np.diff(np.diff(sums, axis=0), axis=1) / area, 0, 1)
    inside = [((edges[1:] + edges[:-1]) / 2).astype(np.intp) for edges in (rows, columns)]
    at = [np.clip(places, 0, limit - 1) for places, limit in zip(inside, mask.shape, strict=True)]
    return covered, mask[np.ix_(*at)]


def _between(total: Floats, edges: Floats) -> Floats:
    """Rows of a running sum at places between its rows, linear; outside it nothing is added."""
    places = np.clip(edges, 0, len(total) - 1)
    lower = np.minimum(places.astype(np.intp), len(total) - 2)
    weight = (places - lower)[:, None]
    found: Floats = total[lower] * (1 - weight) + total[lower + 1] * weight
    return found


def at_pixels(cam: NDArray[np.floating], box: Box, shape: tuple[int, ...]) -> Floats:
    """A map at every pixel of its frame, as it is drawn: bilinear between the centres of its cells.

    Args:
        cam: float (rows, columns), finite.
        box: What the map covers, as for `cells_of`.
        shape: (rows, columns) of the frame.

    Returns:
        float64 (rows, columns); NaN where the centre of the pixel lies outside the box.
    """
    left, top, right, bottom = box
    down, across = _weights(cam.shape[0], (top, bottom), shape[0]), _weights(cam.shape[1], (left, right), shape[1])
    found: Floats = down @ cam.astype(np.float64) @ across.T
    return found


def _weights(cells: int, covered: tuple[float, float], pixels: int) -> Floats:
    """float64 (pixels, cells): what each cell adds to each pixel of an axis; NaN outside what the map covers."""
    low, high = covered
    centres = np.arange(pixels) + 0.5
    places = np.clip((centres - low) * cells / (high - low) - 0.5, 0, cells - 1)
    weights: Floats = np.clip(1 - np.abs(places[:, None] - np.arange(cells)), 0, None)
    weights[(centres < low) | (centres >= high)] = np.nan
    return weights
