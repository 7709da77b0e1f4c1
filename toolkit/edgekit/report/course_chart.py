"""Readings over time: temperatures, clocks, memory. A gap in the readings is a gap in the line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgekit.report.html import Html, join
from edgekit.report.svg import Area, Scale, chart, curve, dot, held_back, key, legend, x_axis, y_axis

MOST_SERIES = 5
"""As many as there are colours that can be told apart."""

_HEIGHT = 170.0
_ROOM = 0.08


def courses(
    moments_s: Sequence[float],
    series: Mapping[str, Sequence[float | None]],
    *,
    quantity: str,
    unit: str,
    held: Sequence[tuple[float, float]] = (),
) -> Html:
    """One line a series over a common time.

    Args:
        moments_s: When each reading was taken, ascending.
        series: Name to its values, as many as there are moments; None where there was no reading. The `MOST_SERIES` that reach highest are drawn, in
            the order they are given; how many are left out is in the title of the axis.
        quantity: What is on the vertical axis.
        unit: Its unit.
        held: (start, end) in seconds of each time in which the machine held itself back; shaded.
    """
    drawn = _highest(series)
    known = [value for values in drawn.values() for value in values if value is not None]
    area = Area(height=_HEIGHT)
    margin = _ROOM * (max(known) - min(known)) or 1.0
    x = area.horizontal(min(0.0, moments_s[0]), moments_s[-1])
    y = area.vertical(min(known) - margin, max(known) + margin)
    marks = [
        mark
        for index, values in enumerate(drawn.values())
        for piece in _pieces(moments_s, values)
        for mark in _line(x, y, piece, f"s{index + 1}")
    ]
    more = f", {len(series) - len(drawn)} more not drawn" if len(series) > len(drawn) else ""
    label = f"{quantity} over {moments_s[-1]:.3g} s: " + "; ".join(f"{name} {_span(values)} {unit}" for name, values in drawn.items())
    found = chart(
        area,
        *held_back(area, x, held),
        x_axis(area, x, f"time since the first frame (s){more}"),
        y_axis(area, y, f"{quantity} ({unit})"),
        *marks,
        label=label,
    )
    return join([found, legend(list(drawn)), *([key({"held": "the machine held itself back"})] if held else [])])


def has_values(series: Mapping[str, Sequence[float | None]]) -> bool:
    """Whether there is anything to draw."""
    return any(value is not None for values in series.values() for value in values)


def _highest(series: Mapping[str, Sequence[float | None]]) -> dict[str, Sequence[float | None]]:
    peaks = {name: max((value for value in values if value is not None), default=None) for name, values in series.items()}
    ranked = sorted((name for name, peak in peaks.items() if peak is not None), key=lambda name: -(peaks[name] or 0.0))[:MOST_SERIES]
    return {name: values for name, values in series.items() if name in ranked}


def _pieces(moments_s: Sequence[float], values: Sequence[float | None]) -> list[list[tuple[float, float]]]:
    """Runs of readings without a gap."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for moment, value in zip(moments_s, values, strict=True):
        if value is None:
            pieces.append([])
        else:
            pieces[-1].append((moment, value))
    return [piece for piece in pieces if piece]


def _line(x: Scale, y: Scale, piece: Sequence[tuple[float, float]], kind: str) -> list[Html]:
    if len(piece) == 1:
        return [dot(x(piece[0][0]), y(piece[0][1]), f"{kind} dot", radius=3.0)]
    return [curve([x(moment) for moment, _ in piece], [y(value) for _, value in piece], f"{kind} stroke")]


def _span(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{min(known):.4g} to {max(known):.4g}"
