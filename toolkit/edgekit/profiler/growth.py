"""Does memory grow while frames are answered? The slope of a series of readings, with an interval.

The slope is Theil's and Sen's: the median of the slopes between all pairs of readings, which a single reading, or a step that goes back, cannot move.
Its 95 % interval is Sen's (1968, "Estimates of the regression coefficient based on Kendall's tau", J. Am. Stat. Assoc. 63:1379), from the normal
approximation of Kendall's statistic.

Does not prove a leak: an allocator that fills its pools grows too, and readings that follow each other are alike, which makes the interval too narrow.
A slope over ten seconds says little about a day; `--seconds 600` says more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FEWEST_READINGS = 10
MOST_READINGS = 400
"""More are thinned to medians of neighbours: 400 have 79 800 pairs."""

_Z = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True)
class Slope:
    """A slope with its 95 % interval, in units of y over units of x."""

    value: float
    low: float
    high: float
    readings: int


def theil_sen(x: NDArray[np.float64], y: NDArray[np.float64]) -> Slope | str:
    """The slope, or why there is none.

    Args:
        x: float64 (readings,), ascending.
        y: float64 (readings,).
    """
    if x.size < FEWEST_READINGS:
        return f"a slope needs {FEWEST_READINGS} readings, there are {x.size}"
    readings = int(x.size)
    if readings > MOST_READINGS:
        groups = np.array_split(np.arange(readings), MOST_READINGS)
        x, y = (np.array([np.median(values[group]) for group in groups]) for values in (x, y))
    first, second = np.triu_indices(x.size, k=1)
    steps = x[second] - x[first]
    apart = steps > 0
    if not apart.any():
        return "all readings are of one moment"
    slopes = np.sort((y[second] - y[first])[apart] / steps[apart])
    count = int(x.size)
    spread = _Z * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    low = max(0, math.floor((slopes.size - spread) / 2))
    high = min(slopes.size - 1, math.ceil((slopes.size + spread) / 2))
    return Slope(value=float(np.median(slopes)), low=float(slopes[low]), high=float(slopes[high]), readings=readings)
