"""Colour maps as tables of 256 RGB colours, by name.

- inferno (default) and viridis: perceptually uniform and readable with colour vision deficiency, because lightness rises steadily from one end
  to the other (van der Walt and Smith 2015, released under CC0). The tables are computed from the degree-6 polynomials that Matt Zucker fitted
  to them (shadertoy.com/view/WlfXRN, CC0); they stay within a few of 255 levels of the originals.
- jet: the classic, from its piecewise linear definition. Its lightness goes up and down, so that it draws borders that are not in the data
  (Borland and Taylor 2007, IEEE CG&A 27(2):14); it is here for comparison with older software.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError, nearest

DEFAULT = "inferno"

# Coefficients of t^0 to t^6, each for (red, green, blue).
_INFERNO = (
    (0.0002189403691192265, 0.001651004631001012, -0.01948089843709184),
    (0.1065134194856116, 0.5639564367884091, 3.932712388889277),
    (11.60249308247187, -3.972853965665698, -15.9423941062914),
    (-41.70399613139459, 17.43639888205313, 44.35414519872813),
    (77.162935699427, -33.40235894210092, -81.80730925738993),
    (-71.31942824499214, 32.62606426397723, 73.20951985803202),
    (25.13112622477341, -12.24266895238567, -23.07032500287172),
)
_VIRIDIS = (
    (0.2777273272234177, 0.005407344544966578, 0.3340998053353061),
    (0.1050930431085774, 1.404613529898575, 1.384590162594685),
    (-0.3308618287255563, 0.214847559468213, 0.09509516302823659),
    (-4.634230498983486, -5.799100973351585, -19.33244095627987),
    (6.228269936347081, 14.17993336680509, 56.69055260068105),
    (4.776384997670288, -13.74514537774601, -65.35303263337234),
    (-5.435455855934631, 4.645852612178535, 26.3124352495832),
)


def _polynomial(coefficients: tuple[tuple[float, float, float], ...], t: NDArray[np.float64]) -> NDArray[np.float64]:
    color = np.zeros((len(t), 3))
    for coefficient in reversed(coefficients):
        color = color * t[:, None] + np.array(coefficient)
    return color


def _jet(t: NDArray[np.float64]) -> NDArray[np.float64]:
    color: NDArray[np.float64] = 1.5 - np.abs(4 * t[:, None] - np.array([3.0, 2.0, 1.0]))
    return color


COLORMAPS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "inferno": lambda t: _polynomial(_INFERNO, t),
    "viridis": lambda t: _polynomial(_VIRIDIS, t),
    "jet": _jet,
}
"""Name to a function from float64 (n,) in [0, 1] to float64 (n, 3), RGB, clipped to [0, 1] afterwards."""


@lru_cache(maxsize=len(COLORMAPS))
def colors(name: str) -> NDArray[np.uint8]:
    """The table of a colour map.

    Args:
        name: A key of `COLORMAPS`.

    Returns:
        uint8 (256, 3), RGB, from no evidence to full evidence; read-only.

    Raises:
        DataError: On an unknown name.
    """
    if name not in COLORMAPS:
        raise DataError(f"there is no colour map {name!r}", hint=nearest(name, COLORMAPS))
    table = np.rint(np.clip(COLORMAPS[name](np.linspace(0, 1, 256)), 0, 1) * 255).astype(np.uint8)
    table.flags.writeable = False
    return table
