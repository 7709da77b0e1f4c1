"""The common ground of the charts: a plotting area with axes, scales with round ticks, marks.

Rules this file keeps:

1. A chart is one inline `<svg>` that scales with the page, with a sentence that says what it shows for who cannot see it (`aria-label`).
2. Axes name the quantity and its unit. Grids stay in the background; colours come from the style sheet's classes, never from here.
3. Coordinates are in CSS pixels of a chart `WIDTH` wide, or `NARROW` where charts stand side by side; a narrow one fits a phone as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.report.html import Content, Html, element

WIDTH = 720.0
NARROW = 380.0
MOST_TICKS = 7

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A linear scale from values to pixels.

    Attributes:
        low: Value at `start`.
        high: Value at `end`; above `low`.
        start: Pixel of `low`.
        end: Pixel of `high`.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values from low to high, at most `MOST_TICKS`."""
        step = round_step((self.high - self.low) / (MOST_TICKS - 1))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """Where a chart plots, in pixels from its top left corner; the margins hold ticks and titles."""

    height: float
    width: float = WIDTH
    left: float = 56.0
    right: float = 18.0
    top: float = 14.0
    bottom: float = 44.0

    @property
    def x_end(self) -> float:
        return self.width - self.right

    @property
    def y_end(self) -> float:
        return self.height - self.bottom

    def horizontal(self, low: float, high: float) -> Scale:
        """Scale from left to right."""
        return Scale(low=low, high=_above(low, high), start=self.left, end=self.x_end)

    def vertical(self, low: float, high: float) -> Scale:
        """Scale from the bottom up."""
        return Scale(low=low, high=_above(low, high), start=self.y_end, end=self.top)


def chart(area: Area, *marks: Content, label: str) -> Html:
    """Puts marks into a chart.

    Args:
        area: Its size.
        marks: Later ones lie on top.
        label: One sentence that says what the chart shows.
    """
    drawn = element("svg", *marks, viewBox=f"0 0 {area.width:g} {area.height:g}", role="img", aria_label=label)
    return element("div", drawn, class_="chart" if area.width > NARROW else "chart narrow")


def x_axis(area: Area, scale: Scale, title: str, form: Callable[[float], str] | None = None) -> Html:
    """Axis at the bottom with vertical grid lines."""
    written = form or decimals_for(scale)
    parts = []
    for value in scale.ticks():
        x = scale(value)
        parts += [line(x, area.top, x, area.y_end, "grid"), text(x, area.y_end + 17, written(value), anchor="middle")]
    parts.append(line(area.left, area.y_end, area.x_end, area.y_end, "axis"))
    parts.append(text((area.left + area.x_end) / 2, area.height - 6, title, anchor="middle"))
    return element("g", *parts)


def y_axis(area: Area, scale: Scale, title: str, form: Callable[[float], str] | None = None) -> Html:
    """Axis at the left with horizontal grid lines; its title lies along it."""
    written = form or decimals_for(scale)
    parts = []
    for value in scale.ticks():
        y = scale(value)
        parts += [line(area.left, y, area.x_end, y, "grid"), text(area.left - 8, y + 4, written(value), anchor="end")]
    middle = (area.top + area.y_end) / 2
    parts.append(element("text", title, transform=f"translate(13 {middle:.1f}) rotate(-90)", text_anchor="middle"))
    return element("g", *parts)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Html:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def text(x: float, y: float, words: str, *, anchor: str = "start", kind: str = "") -> Html:
    styled = {"class_": kind} if kind else {}
    return element("text", words, x=x, y=y, text_anchor=anchor, **styled)


def rectangle(x: float, y: float, size: tuple[float, float], kind: str, *, tip: str = "") -> Html:
    """A rectangle of (width, height); `tip` shows while the pointer rests on it."""
    return element("rect", *_tips(tip), x=x, y=y, width=max(size[0], 0.0), height=max(size[1], 0.0), class_=kind)


def held_back(area: Area, scale: Scale, spans: Sequence[tuple[float, float]]) -> list[Html]:
    """Shades the times, (start, end) each, in which a machine held itself back; cut off at the edges of the plot."""
    found = []
    for start, end in spans:
        left, right = (min(max(scale(moment), area.left), area.x_end) for moment in (start, end))
        found.append(rectangle(left, area.top, (right - left, area.y_end - area.top), "held", tip=f"held back, {start:.3g} to {end:.3g} s"))
    return found


def dot(x: float, y: float, kind: str, *, tip: str = "", radius: float = 5.0) -> Html:
    """A round mark with a ring of the surface around it, so that it stands out on a line."""
    return element("circle", *_tips(tip), cx=x, cy=y, r=radius, class_=kind)


def curve(x: FloatArray | Sequence[float], y: FloatArray | Sequence[float], kind: str, *, is_closed: bool = False) -> Html:
    """Straight lines through points given in pixels."""
    points = " ".join(f"{px:.1f},{py:.1f}" for px, py in zip(x, y, strict=True))
    return element("polygon" if is_closed else "polyline", points=points, class_=kind)


def clipped(area: Area, *marks: Content) -> Html:
    """Marks in the same coordinates, cut off at the edges of the plot."""
    width, height = area.x_end - area.left, area.y_end - area.top
    box = f"{area.left:g} {area.top:g} {width:g} {height:g}"
    return element("svg", *marks, x=area.left, y=area.top, width=width, height=height, viewBox=box)


def legend(names: Sequence[str]) -> Html:
    """Names of the series in the order of their colours."""
    return key({f"s{index + 1}": name for index, name in enumerate(names)})


def key(names: Mapping[str, str]) -> Html:
    """What marks mean, where they are not series: class of the swatch (of the style sheet) to its words."""
    return element("ul", *(element("li", element("i", class_=kind), words) for kind, words in names.items()), class_="legend")


def round_step(rough: float) -> float:
    """The next of 1, 2, 5 · 10ⁿ at or above a step."""
    if not rough > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def decimals_for(scale: Scale) -> Callable[[float], str]:
    """Writes tick values with just the decimals that tell them apart."""
    step = round_step((scale.high - scale.low) / (MOST_TICKS - 1))
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return lambda value: f"{value + 0.0:.{digits}f}".replace("-", "\u2212")


def _above(low: float, high: float) -> float:
    # A constant series has no extent; the chart still needs one.
    return high if high > low else low + max(abs(low) * 0.1, 1e-9)


def _tips(tip: str) -> list[Html]:
    return [element("title", tip)] if tip else []
