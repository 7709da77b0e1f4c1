"""Colour maps as tables of 256 RGB colours, by name.

- inferno (default) and viridis: perceptually uniform and readable with colour vision deficiency, because lightness rises steadily from one end
  to the other (van der Walt and Smith 2015, released under CC0). The tables are computed from the degree-6 polynomials that Matt Zucker fitted
  to them (shadertoy.com/view/WlfXRN, CC0); they stay within a few of 255 levels of the originals.
- cividis: the same for readers with and without colour vision deficiency alike (Nuñez, Anderton and Renslow 2018, PLOS ONE 13(7):e0199239), between
  its own colours at every 17th level, and two more where it bends.
- coolwarm: diverging, for maps that are drawn with their sign: blue below zero, grey at it, red above (Moreland 2009, "Diverging Color Maps for
  Scientific Visualization", ISVC, with the paper's end colours and its formula).
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

# Level to its colour, 0 to 255. Red leaves zero between 17 and 34 and blue turns there.
_CIVIDIS = {
    0: (0, 34, 78),
    1: (0, 35, 79),
    17: (0, 46, 108),
    19: (0, 48, 111),
    34: (30, 58, 111),
    51: (53, 69, 108),
    68: (71, 81, 108),
    85: (87, 93, 109),
    102: (102, 105, 112),
    119: (117, 117, 117),
    136: (132, 130, 121),
    153: (148, 142, 119),
    170: (165, 156, 116),
    187: (183, 169, 110),
    204: (200, 184, 102),
    221: (219, 199, 90),
    238: (238, 214, 73),
    255: (254, 232, 56),
}

_COOL, _WARM = (59, 76, 192), (180, 4, 38)
_WHITE_D65 = (0.95047, 1.0, 1.08883)
# IEC 61966-2-1: linear sRGB to CIE XYZ.
_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def _polynomial(coefficients: tuple[tuple[float, float, float], ...], t: NDArray[np.float64]) -> NDArray[np.float64]:
    color = np.zeros((len(t), 3))
    for coefficient in reversed(coefficients):
        color = color * t[:, None] + np.array(coefficient)
    return color


def _jet(t: NDArray[np.float64]) -> NDArray[np.float64]:
    color: NDArray[np.float64] = 1.5 - np.abs(4 * t[:, None] - np.array([3.0, 2.0, 1.0]))
    return color


def _cividis(t: NDArray[np.float64]) -> NDArray[np.float64]:
    levels = np.array(list(_CIVIDIS), dtype=np.float64) / 255
    return np.stack([np.interp(t, levels, [color[channel] / 255 for color in _CIVIDIS.values()]) for channel in range(3)], axis=1)


def _coolwarm(t: NDArray[np.float64]) -> NDArray[np.float64]:
    """Moreland's interpolation: both ends keep their saturation's fall to white, in polar coordinates of CIE L*a*b* (M, s, h)."""
    cool, warm = _to_msh(np.array(_COOL) / 255), _to_msh(np.array(_WARM) / 255)
    middle = max(cool[0], warm[0], 88.0)
    colors = []
    for position in t.tolist():
        end, way = (cool, 2 * position) if position < 0.5 else (warm, 2 - 2 * position)
        # At the white middle a hue has no meaning: it is turned so that lightness rises evenly on the way there.
        white = np.array([middle, 0.0, _adjusted_hue(end, middle)])
        colors.append(_from_msh(end * (1 - way) + white * way))
    return np.array(colors)


def _adjusted_hue(msh: NDArray[np.float64], middle: float) -> float:
    """The hue at the white end of a half (Moreland 2009, figure 5)."""
    m, s, h = (float(value) for value in msh)
    spin = s * np.sqrt(max(middle**2 - m**2, 0.0)) / (m * np.sin(s))
    return float(h + spin if h > -np.pi / 3 else h - spin)


def _to_msh(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    ratio = _XYZ @ linear / _WHITE_D65
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    lab = np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])
    m = float(np.linalg.norm(lab))
    return np.array([m, np.arccos(lab[0] / m), np.arctan2(lab[2], lab[1])])


def _from_msh(msh: NDArray[np.float64]) -> NDArray[np.float64]:
    m, s, h = msh
    lightness, a, b = m * np.cos(s), m * np.sin(s) * np.cos(h), m * np.sin(s) * np.sin(h)
    f = (lightness + 16) / 116 + np.array([a / 500, 0.0, -b / 200])
    ratio = np.where(f**3 > 0.008856, f**3, (f - 16 / 116) / 7.787)
    linear = np.clip(np.linalg.solve(_XYZ, ratio * _WHITE_D65), 0, 1)
    color: NDArray[np.float64] = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return color


COLORMAPS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "inferno": lambda t: _polynomial(_INFERNO, t),
    "viridis": lambda t: _polynomial(_VIRIDIS, t),
    "cividis": _cividis,
    "coolwarm": _coolwarm,
    "jet": _jet,
}
"""Name to a function from float64 (n,) in [0, 1] to float64 (n, 3), RGB, clipped to [0, 1] afterwards."""

DIVERGING = frozenset({"coolwarm"})
"""Colour maps whose middle is zero: they draw evidence against a label too."""


@lru_cache(maxsize=len(COLORMAPS))
def colors(name: str) -> NDArray[np.uint8]:
    """The table of a colour map.

    Args:
        name: A key of `COLORMAPS`.

    Returns:
        uint8 (256, 3), RGB, from no evidence to full evidence, of a diverging map from the most negative; read-only.

    Raises:
        DataError: On an unknown name.
    """
    if name not in COLORMAPS:
        raise DataError(f"there is no colour map {name!r}", hint=nearest(name, COLORMAPS))
    table = np.rint(np.clip(COLORMAPS[name](np.linspace(0, 1, 256)), 0, 1) * 255).astype(np.uint8)
    table.flags.writeable = False
    return table


@lru_cache(maxsize=2 * len(COLORMAPS))
def ramp(name: str, *, is_negative: bool = False) -> NDArray[np.uint8]:
    """The colours from no evidence to full evidence: the whole table, or that half of a diverging one.

    Args:
        name: A key of `COLORMAPS`.
        is_negative: The half below zero, from zero on; only a diverging map has one.

    Returns:
        uint8 (256, 3), RGB; read-only.

    Raises:
        DataError: On an unknown name, or where the map does not diverge.
    """
    table = colors(name)
    if name not in DIVERGING:
        if is_negative:
            raise DataError(f"the colour map {name!r} has no colours below zero", hint=f"one that has: {', '.join(sorted(DIVERGING))}")
        return table
    t = np.linspace(0.5, 0.0 if is_negative else 1.0, len(table))
    half = np.rint(np.clip(COLORMAPS[name](t), 0, 1) * 255).astype(np.uint8)
    half.flags.writeable = False
    return half
