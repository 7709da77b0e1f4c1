"""Where in a frame a class activation map lies, and what it says at each pixel.

Rules this file keeps:

1. Geometry is by pixel edges: the map's outer edges are the box's, a cell's value stands at the cell's centre, values between are bilinear,
   beyond the outer centres the outer cell's value holds, and a pixel takes the value at its own centre.
2. Pixels whose centre is outside the box are outside, whatever the map says.
3. A map that is no finite 2-D float array explains nothing and is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError

Box = tuple[float, float, float, float]
"""(left, top, right, bottom) in pixels of the frame, pixel edges, not rounded. It may reach beyond the frame."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Axis:
    """The rows or the columns of a frame beside those of a map.

    Attributes:
        pixels: Those with their centre inside the box.
        lower: intp (pixels,): the cell of the map at or before each.
        part: float32 (pixels,): the way from it to the next cell, in [0, 1).
        pitch: Cells of the map from one pixel to the next.
    """

    pixels: slice
    lower: NDArray[np.intp]
    part: NDArray[np.float32]
    pitch: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A map, placed in a frame: interpolated across already, not yet down.

    Attributes:
        rows: Pixel rows of the frame with their centre inside the box.
        columns: Pixel columns of the frame with their centre inside the box.
        across: float32 (map rows, columns): the map at each pixel column.
        down: Where each pixel row is in rows of the map.
    """

    rows: slice
    columns: slice
    across: NDArray[np.float32]
    down: Axis

    @property
    def is_empty(self) -> bool:
        """No pixel is inside."""
        return self.across.shape[1] == 0 or len(self.down.lower) == 0

    def values(self) -> NDArray[np.float32]:
        """The map at every pixel inside, float32 (rows, columns)."""
        above = self.across[self.down.lower]
        below = self.across[np.minimum(self.down.lower + 1, len(self.across) - 1)]
        below -= above
        below *= self.down.part[:, None]
        below += above
        return below


def place(shape: tuple[int, ...], cam: NDArray[np.float32], box: Box) -> Placed:
    """Places a map in a frame.

    Args:
        shape: Shape of the frame, (rows, columns, ...).
        cam: float32 (map rows, map columns), as `check_map` gives it, in any unit.
        box: Where its outer edges are.

    Raises:
        DataError: When the box is not one.
    """
    left, top, right, bottom = box
    if not (all(map(math.isfinite, box)) and left < right and top < bottom):
        raise DataError(f"the overlay's box must be (left, top, right, bottom) with left < right and top < bottom, not {box}")
    down = _axis(top, bottom, shape[0], cam.shape[0])
    along = _axis(left, right, shape[1], cam.shape[1])
    across = cam.take(along.lower, axis=1)
    step = cam.take(np.minimum(along.lower + 1, cam.shape[1] - 1), axis=1)
    step -= across
    step *= along.part
    across += step
    return Placed(rows=down.pixels, columns=along.pixels, across=across, down=down)


def check_map(cam: object) -> NDArray[np.floating]:
    """Refuses what is no map.

    Raises:
        DataError: It is not a finite float array (rows, columns), naming what was found.
    """
    if not isinstance(cam, np.ndarray) or cam.dtype.kind != "f" or cam.ndim != 2 or 0 in cam.shape:
        found = f"{cam.dtype} {cam.shape}" if isinstance(cam, np.ndarray) else type(cam).__name__
        raise DataError(
            f"a map is a float array (rows, columns), not {found}", hint="one map at a time: prediction.cam, or one class of it"
        )
    if not np.isfinite(cam).all():
        raise DataError(
            "the map has NaN or infinite values", hint="it explains nothing; the prediction it came with is not to be trusted either"
        )
    return cam


def check_scale(scale: float) -> None:
    """Refuses a scale that is none.

    Raises:
        DataError: It is not finite and above 0.
    """
    if not (np.isfinite(scale) and scale > 0):
        raise DataError(f"the overlay's scale must be a finite number of logit units above 0, not {scale}")


@lru_cache(maxsize=8)
def _axis(low: float, high: float, size: int, cells: int) -> Axis:
    """One axis of a box over that many pixels. The frames of one source ask for the same again and again."""
    start, stop = (min(max(math.ceil(edge - 0.5), 0), size) for edge in (low, high))
    centres = np.arange(start, stop) + 0.5
    pitch = cells / (high - low)
    inside = np.clip(((centres - low) * pitch - 0.5).astype(np.float32), 0, cells - 1)
    lower = inside.astype(np.intp)
    part = (inside - lower).astype(np.float32)
    lower.flags.writeable = part.flags.writeable = False
    return Axis(pixels=slice(start, stop), lower=lower, part=part, pitch=pitch)
