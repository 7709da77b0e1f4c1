"""Charts, read back from their SVG."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.report import charts, svg
from edgekit.report.charts import Course, Interval


def drawn(markup):
    """The chart's elements; raises when the markup is not well-formed XML."""
    return ET.fromstring(f"<div>{markup.text}</div>")


def texts(markup):
    return [element.text for element in drawn(markup).iter("text")]


def points(markup, tag="polyline"):
    listed = next(element for element in drawn(markup).iter(tag)).get("points")
    return np.array([[float(number) for number in pair.split(",")] for pair in listed.split()])


def label(markup):
    return next(drawn(markup).iter("svg")).get("aria-label")


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e6))
def test_ticks_are_round_few_and_within_the_scale(low, extent):
    """1, 2 or 5 times a power of ten apart, at most seven, none outside."""
    scale = svg.Scale(low=low, high=low + extent, start=0, end=100)
    ticks = scale.ticks()
    assert 0 <= len(ticks) <= svg.MOST_TICKS
    assert all(low - 1e-6 * extent <= tick <= low + extent * (1 + 1e-6) for tick in ticks)
    step = svg.round_step(extent / (svg.MOST_TICKS - 1))
    assert f"{step:.0e}"[0] in "125"


@pytest.mark.parametrize(("high", "written"), [(1.0, "0.2"), (0.02, "0.005"), (50.0, "10"), (3000.0, "500")])
def test_ticks_are_written_with_the_decimals_they_need(high, written):
    """The second tick reads as itself."""
    scale = svg.Scale(low=0, high=high, start=0, end=1)
    assert svg.decimals_for(scale)(scale.ticks()[1]) == written


@pytest.mark.parametrize("count", [1, 10, 100_000])
def test_a_distribution_rises_from_zero_to_one(count):
    """The curve never falls (pixels count downwards), starts at 0 % and ends at 100 %; long series are thinned."""
    values = np.random.default_rng(0).gamma(5, 1, count)
    curve = points(charts.cdf(values, {"p50": float(np.median(values))}))
    area = charts.Area(height=290, top=charts.NOTE_HEIGHT)
    assert (np.diff(curve[:, 0]) >= 0).all()
    assert (np.diff(curve[:, 1]) <= 0).all()
    assert curve[0, 1] == pytest.approx(area.y_end)
    assert curve[-1, 1] == pytest.approx(area.top, abs=1.5)
    assert len(curve) <= 4 * charts.COLUMNS + 2


def test_a_distribution_names_its_marks_and_units():
    """Percentiles stand beside the curve with their unit, below each other, and the axis has its quantity."""
    markup = charts.cdf(np.arange(1.0, 101), {"p50": 50.0, "p90": 90.0, "p95": 95.0})
    assert {"p50 50 ms", "p90 90 ms", "p95 95 ms", "latency (ms)", "share of frames", "100%"} <= set(texts(markup))
    heights = [float(text.get("y")) for text in drawn(markup).iter("text") if text.text.startswith("p9")]
    assert abs(heights[0] - heights[1]) >= charts.LABEL_HEIGHT
    assert "p95 95 ms" in label(markup)


def test_a_lone_spike_does_not_flatten_the_others_and_is_counted():
    """Typical values spread over the chart; what is beyond it is said in words."""
    values = np.concatenate([np.linspace(1, 2, 999), [500.0]])
    markup = charts.cdf(values, {"p50": 1.5})
    assert any(text.startswith("1 frame above") for text in texts(markup))
    assert max(float(text) for text in texts(markup) if re.fullmatch(r"[\d.]+", text)) < 10
    assert any("1 frame above" in text for text in texts(charts.timeline(np.arange(1000.0), values, Course(excluded=0, median=1.5))))
    assert not any("above" in text for text in texts(charts.cdf(np.linspace(1, 2, 50), {})))


def test_the_course_keeps_every_spike_of_a_long_series():
    """The band reaches the largest sample although only a few hundred columns are drawn."""
    values = np.ones(50_000)
    values[31_234] = 2.5
    markup = charts.timeline(np.arange(50_000) / 100, values, Course(excluded=0, median=1.0))
    band, course = points(markup, "polygon"), points(markup, "polyline")
    assert len(course) == charts.COLUMNS
    top = band[:, 1].min()
    assert top < course[:, 1].min() - 50
    assert band[band[:, 1].argmin(), 0] == pytest.approx(56 + 31_234 / 50_000 * (svg.WIDTH - 74), abs=3)


@pytest.mark.parametrize(
    ("excluded", "said"), [(0, "no warm-up found"), (20, "warm-up, 20 frames, left out"), (100, "warm-up, 100 frames, left out")]
)
def test_the_warm_up_is_shaded_to_its_end(excluded, said):
    """The shade ends where the first kept frame starts, also when none is kept."""
    starts = np.arange(100) / 10
    markup = charts.timeline(starts, np.full(100, 2.0), Course(excluded=excluded, median=2.0))
    shades = [element for element in drawn(markup).iter("rect") if element.get("class") == "shade"]
    assert said in texts(markup)
    assert len(shades) == (excluded > 0)
    for shade in shades:
        end = float(shade.get("x")) + float(shade.get("width"))
        assert end == pytest.approx(56 + min(excluded, 99) / 99 * (svg.WIDTH - 74), abs=0.1)


def test_the_parts_of_a_stack_are_as_long_as_their_shares():
    """Widths (with the gap of two pixels) are proportional, narrow parts have no words inside, all are in the legend."""
    markup = charts.stack([("read", 3.0), ("infer", 6.0), ("cam", 0.01)])
    widths = [float(element.get("width")) for element in drawn(markup).iter("rect")]
    assert (widths[1] + 2) / (widths[0] + 2) == pytest.approx(2.0, abs=0.01)
    inside = [element.text for element in drawn(markup).iter("text") if element.get("class") == "inside"]
    assert inside == ["3", "6"]
    assert ["".join(item.itertext()) for item in drawn(markup).iter("li")] == ["read 3 ms", "infer 6 ms", "cam 0.01 ms"]


def test_intervals_are_drawn_from_low_to_high_around_their_figure():
    """Rows in order of appearance, a colour a series, a figure without an interval is a dot alone, bounds cross their row."""
    items = [
        Interval(label="AUC", series="FP32", value=0.96, low=0.93, high=0.98),
        Interval(label="AUC", series="device", value=0.95, low=0.92, high=0.97),
        Interval(label="size", series="device", value=0.5, low=None, high=None),
    ]
    markup = charts.intervals(items, quantity="figure (share)", bounds={"AUC": 0.9533})
    whiskers = [element for element in drawn(markup).iter("line") if "stroke" in element.get("class")]
    dots = list(drawn(markup).iter("circle"))
    assert [dot.get("class") for dot in dots] == ["s1 dot", "s2 dot", "s2 dot"]
    assert len(whiskers) == 2
    for whisker, dot in zip(whiskers, dots, strict=False):
        assert float(whisker.get("x1")) < float(dot.get("cx")) < float(whisker.get("x2"))
        assert whisker.get("y1") == whisker.get("y2") == dot.get("cy")
    bound = next(element for element in drawn(markup).iter("line") if element.get("class") == "bound")
    assert float(dots[1].get("cx")) < float(bound.get("x1")) < float(dots[0].get("cx"))
    assert "AUC, FP32: 0.96 (0.93 to 0.98)" in label(markup)


@pytest.mark.parametrize(
    "markup",
    [
        charts.cdf(np.full(5, 2.0), {"p50": 2.0}),
        charts.timeline(np.zeros(1), np.array([3.0]), Course(excluded=0, median=3.0)),
        charts.stack([("only", 0.0)]),
        charts.intervals([Interval(label="a", series="b", value=0.0, low=None, high=None)], quantity="q"),
        charts.intervals([Interval(label="<b>" * 40, series="&", value=1.0, low=1.0, high=1.0)], quantity="<q>"),
    ],
    ids=["constant", "one frame", "nothing", "one dot", "hostile words"],
)
def test_a_degenerate_chart_is_still_a_chart(markup):
    """Constant, single and empty values give finite coordinates and well-formed markup."""
    assert "nan" not in markup.text
    assert "inf" not in markup.text
    assert list(drawn(markup).iter("svg"))


def test_a_distribution_with_values_without_end_stops_below_the_whole():
    """One of four has none: the curve ends at three quarters, and a mark is as high as its share of all."""
    markup = charts.cdf(np.array([1.0, 2.0, 3.0]), {"p50": 2.0}, endless=1)
    area = charts.Area(height=290, top=charts.NOTE_HEIGHT)
    y = area.vertical(0.0, 1.0)
    assert points(markup)[-1, 1] == pytest.approx(y(0.75), abs=0.1)
    assert float(next(drawn(markup).iter("circle")).get("cy")) == pytest.approx(y(0.5), abs=0.1)
    assert "of 4 frames, 1 of them without end" in label(markup)


def test_a_course_without_a_median_has_no_guide():
    """And its own words under the axis; what lies beyond the plot is not shaded."""
    markup = charts.timeline(
        np.arange(10.0), np.full(10, 2.0), Course(median=None, moments="when it was due (s)", held=[(-5.0, 1.0), (8.0, 30.0)])
    )
    assert "median" not in label(markup)
    assert "when it was due (s)" in texts(markup)
    area = charts.Area(height=250, top=charts.NOTE_HEIGHT)
    held = [one for one in drawn(markup).iter("rect") if one.get("class") == "held"]
    assert float(held[0].get("x")) == area.left
    assert float(held[1].get("x")) + float(held[1].get("width")) == pytest.approx(area.x_end)
    assert not [one for one in drawn(markup).iter("line") if one.get("class") == "guide"]
