"""The charts of the reports: distribution and course of latencies, stages stacked, figures with their intervals.

Rules this file keeps:

1. Nothing is left out in silence: values beyond the edge of a chart are counted in words on it.
2. A long series is drawn as the band from the smallest to the largest sample of each pixel column with the median in it; picking every n-th sample
   would lose the spikes that matter.
3. A quantity that is a length (latency over time, stages) starts at zero; a distribution or an interval need not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.report.html import Content, Html, element, join
from edgekit.report.svg import (
    WIDTH,
    Area,
    FloatArray,
    Scale,
    chart,
    curve,
    dot,
    held_back,
    key,
    legend,
    line,
    rectangle,
    text,
    x_axis,
    y_axis,
)

COLUMNS = 320
"""Pixel columns a long series is gathered in."""

NARROWEST_LABEL = 46.0
"""Segments of a stack narrower than this, in pixels, have no label inside."""

NOTE_HEIGHT = 28.0
"""Room above a plot for a line of words."""

LABEL_HEIGHT = 16.0

SPIKE = 3.0
"""A chart's edge follows the largest sample only up to this many times the median."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What is drawn beside the values of a timeline.

    Attributes:
        median: A guide; None for none.
        excluded: Leading samples that are warm-up; None where there is nothing to say of one.
        held: (start, end) in seconds of each time in which the machine held itself back.
        moments: What is on the horizontal axis.
    """

    median: float | None
    excluded: int | None = None
    held: Sequence[tuple[float, float]] = ()
    moments: str = "time since the first frame (s)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A figure with its interval in an interval chart.

    Attributes:
        label: Row it stands in; rows keep the order in which their labels first come.
        series: Name of what was measured; tells intervals of one row apart by colour.
        value: The figure.
        low: Lower end; None where there is no interval.
        high: Upper end; None where there is none.
    """

    label: str
    series: str
    value: float
    low: float | None
    high: float | None


def cdf(values: FloatArray, marks: Mapping[str, float], *, endless: int = 0, quantity: str = "latency", unit: str = "ms") -> Html:
    """Cumulative distribution: the share of samples at or below each value.

    Args:
        values: float64 (samples,), at least one.
        marks: Name ("p50") to value; drawn as guides and written beside the curve.
        endless: How many more there are that have no value and lie above all: the curve ends that much below 100 %.
        quantity: What is on the horizontal axis.
        unit: Its unit.
    """
    ordered = np.sort(values)
    edge = _edge(ordered, max(marks.values(), default=0.0))
    area = Area(height=290, top=NOTE_HEIGHT)
    x, y = area.horizontal(float(ordered[0]), edge), area.vertical(0.0, 1.0)
    count = ordered.size + endless
    shares = np.arange(1, ordered.size + 1) / count
    shown = _thinned(int(np.searchsorted(ordered, edge, side="right")))
    xs, ys = np.append(ordered[shown], edge), np.append(shares[shown], shares[shown][-1])
    steps_x = np.repeat(x.start + (xs - x.low) / (x.high - x.low) * (x.end - x.start), 2)
    steps_y = np.concatenate([[0.0], np.repeat(ys, 2)[:-1]])
    points = {
        f"{name} {value:.3g} {unit}": (value, float((ordered <= value).sum()) / count) for name, value in marks.items() if value <= edge
    }
    return chart(
        area,
        x_axis(area, x, f"{quantity} ({unit})"),
        y_axis(area, y, "share of frames", lambda share: f"{share:.0%}"),
        curve(steps_x, [y(float(share)) for share in steps_y], "s1 stroke"),
        *_points(area, x, y, points),
        _beyond(area, int((ordered > edge).sum()), edge, unit),
        label=f"Cumulative distribution of the {quantity} of {count} frames, "
        + (f"{endless} of them without end, " if endless else "")
        + ", ".join(f"{name} {value:.3g} {unit}" for name, value in marks.items()),
    )


def timeline(starts_s: FloatArray, values: FloatArray, course: Course, *, unit: str = "ms") -> Html:
    """Latency over time, the warm-up and what slowed the machine down shaded.

    Args:
        starts_s: float64 (samples,), seconds since the start, ascending.
        values: float64 (samples,).
        course: What is drawn beside them.
        unit: Of the values.
    """
    edge = _edge(np.sort(values), 0.0)
    area = Area(height=250, top=NOTE_HEIGHT)
    x, y = area.horizontal(0.0, float(starts_s[-1])), area.vertical(0.0, edge * 1.08)
    excluded, median = course.excluded, course.median
    marks: list[Content] = []
    if excluded:
        end = x(float(starts_s[min(excluded, starts_s.size - 1)]))
        marks.append(rectangle(area.left, area.top, (end - area.left, area.y_end - area.top), "shade", tip=f"warm-up: {excluded} frames"))
    marks += held_back(area, x, course.held)
    axes = [x_axis(area, x, course.moments), y_axis(area, y, f"latency ({unit})")]
    lines = _course(x, y, starts_s, np.minimum(values, edge))
    guide = [] if median is None else [line(area.left, y(median), area.x_end, y(median), "guide")]
    said = f"warm-up, {excluded} frames, left out" if excluded else "" if excluded is None else "no warm-up found"
    notes = [text(area.left, area.top - 10, said), _beyond(area, int((values > edge).sum()), edge, unit)]
    label = f"Latency of {values.size} frames over {starts_s[-1]:.3g} s"
    label += "" if median is None else f" around a median of {median:.3g} {unit}"
    drawn = chart(area, *marks, *axes, *lines, *guide, *notes, label=f"{label}; {said}" if said else label)
    return join([drawn, key({"held": "the machine held itself back"})]) if course.held else drawn


def stack(parts: Sequence[tuple[str, float]], *, unit: str = "ms") -> Html:
    """One horizontal bar of parts that follow each other, with a legend.

    Args:
        parts: At most five of (name, length), in order; lengths from 0 up.
        unit: Of the lengths.
    """
    total = sum(length for _, length in parts)
    area = Area(height=92, left=8, right=8, top=8)
    x = area.horizontal(0.0, total)
    marks: list[Html] = []
    offset = 0.0
    for index, (name, length) in enumerate(parts):
        start, end = x(offset), x(offset + length)
        # Two pixels of the page between neighbours tell them apart without an outline.
        width = max(end - start - 2, 0.0)
        marks.append(
            rectangle(start, area.top + 2, (width, area.y_end - area.top - 6), f"s{index + 1} fill", tip=f"{name}: {length:.3g} {unit}")
        )
        if width >= NARROWEST_LABEL:
            marks.append(text((start + end - 2) / 2, (area.top + area.y_end) / 2 + 3, f"{length:.3g}", anchor="middle", kind="inside"))
        offset += length
    label = f"{total:.3g} {unit} in all: " + ", ".join(f"{name} {length:.3g} {unit}" for name, length in parts)
    drawn = chart(area, x_axis(area, x, f"time ({unit})"), *marks, label=label)
    return join([drawn, legend([f"{name} {length:.3g} {unit}" for name, length in parts])])


def intervals(items: Sequence[Interval], *, quantity: str, bounds: Mapping[str, float] | None = None) -> Html:
    """Dots with whiskers: figures and their intervals, one row a figure, one colour a series.

    Args:
        items: At least one, of at most five series.
        quantity: Title of the axis, with its unit.
        bounds: Row label to a limit drawn across its row.
    """
    rows = list(dict.fromkeys(item.label for item in items))
    series = list(dict.fromkeys(item.series for item in items))
    limits = bounds or {}
    row_height = 22.0 + 16.0 * len(series)
    area = Area(height=row_height * len(rows) + 58, left=_label_width(rows))
    x = _interval_scale(area, items, list(limits.values()))
    marks: list[Html] = []
    for index, label in enumerate(rows):
        top = area.top + index * row_height
        marks.append(text(area.left - 12, top + row_height / 2 + 4, label, anchor="end", kind="strong"))
        if index:
            marks.append(line(area.left, top, area.x_end, top, "grid"))
        if label in limits:
            marks.append(line(x(limits[label]), top + 3, x(limits[label]), top + row_height - 3, "bound"))
        for item in (item for item in items if item.label == label):
            place = series.index(item.series)
            marks += _whisker(x, top + 19 + 16 * place, item, place)
    said = "; ".join(f"{item.label}, {item.series}: {_said(item)}" for item in items)
    drawn = chart(area, x_axis(area, x, quantity), *marks, label=f"{quantity}. {said}")
    return join([drawn, legend(series)]) if len(series) > 1 else drawn


def _whisker(x: Scale, y: float, item: Interval, place: int) -> list[Html]:
    kind = f"s{place + 1}"
    marks: list[Html] = []
    if item.low is not None and item.high is not None:
        marks.append(line(x(item.low), y, x(item.high), y, f"{kind} stroke"))
    return [*marks, dot(x(item.value), y, f"{kind} dot", tip=f"{item.label}, {item.series}: {_said(item)}")]


def _said(item: Interval) -> str:
    if item.low is None or item.high is None:
        return f"{item.value:.4g}"
    return f"{item.value:.4g} ({item.low:.4g} to {item.high:.4g})"


def _interval_scale(area: Area, items: Sequence[Interval], limits: Sequence[float]) -> Scale:
    ends = [end for item in items for end in (item.low, item.value, item.high) if end is not None] + list(limits)
    low, high = min(ends), max(ends)
    margin = 0.06 * (high - low)
    return area.horizontal(low - margin, high + margin)


def _label_width(labels: Sequence[str]) -> float:
    # Fonts differ; 7 pixels a character fit the semibold 12-pixel text of all common ones.
    return min(max(7.0 * max(map(len, labels)) + 20, 60.0), WIDTH / 2)


def _edge(ordered: FloatArray, least: float) -> float:
    """Largest value a chart shows: the largest sample, but a lone spike must not flatten all others."""
    typical = float(np.median(ordered)) * SPIKE
    # A marked value needs room to its right, or its dot lies on the edge.
    return float(min(max(ordered[-1], least), max(typical, least * 1.05)))


def _thinned(count: int) -> NDArray[np.intp]:
    return np.unique(np.linspace(0, count - 1, min(count, 2 * COLUMNS)).round().astype(np.intp))


def _points(area: Area, x: Scale, y: Scale, points: Mapping[str, tuple[float, float]]) -> list[Html]:
    """Dots on a rising curve with their words beside them, from the top down so that no two lie on each other."""
    drawn = []
    free = area.top
    for words, (value, share) in sorted(points.items(), key=lambda item: -item[1][1]):
        px, py = x(value), y(share)
        free = max(free, py) + LABEL_HEIGHT
        # Near the right edge the words go to the left of the dot.
        is_left = px > area.x_end - 110
        beside = text(px - 9 if is_left else px + 9, free, words, anchor="end" if is_left else "start", kind="strong")
        drawn.append(element("g", line(px, py, px, area.y_end, "guide"), dot(px, py, "s1 dot"), beside))
    return drawn


def _course(x: Scale, y: Scale, starts: FloatArray, values: FloatArray) -> list[Html]:
    if values.size <= COLUMNS:
        return [curve([x(float(s)) for s in starts], [y(float(v)) for v in values], "s1 stroke")]
    groups = np.array_split(np.arange(values.size), COLUMNS)
    xs = np.array([x(float(starts[group].mean())) for group in groups])
    lows, medians, highs = (np.array([y(float(reduce(values[group]))) for group in groups]) for reduce in (np.min, np.median, np.max))
    band = curve(np.concatenate([xs, xs[::-1]]), np.concatenate([highs, lows[::-1]]), "s1 band", is_closed=True)
    return [band, curve(xs, medians, "s1 stroke")]


def _beyond(area: Area, count: int, edge: float, unit: str) -> Html:
    if not count:
        return Html("")
    words = f"{count} {'frame' if count == 1 else 'frames'} above {edge:.3g} {unit} not drawn to scale"
    return text(area.x_end, area.top - 10, words, anchor="end", kind="faint")
