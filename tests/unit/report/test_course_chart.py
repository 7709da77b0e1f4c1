"""Readings over time."""

from __future__ import annotations

import re

from edgekit.report.course_chart import MOST_SERIES, courses, has_values


def drawn(**series):
    moments = list(range(len(next(iter(series.values())))))
    return str(courses(moments, series, quantity="temperature", unit="°C"))


def test_a_gap_in_the_readings_is_a_gap_in_the_line():
    """Two pieces where one reading is missing; a lone reading between two gaps is a dot."""
    assert drawn(cpu=[40.0, 41.0, None, 43.0, 44.0]).count("<polyline") == 2
    alone = drawn(cpu=[40.0, 41.0, None, 43.0, None, 44.0, 45.0])
    assert (alone.count("<polyline"), alone.count("<circle")) == (2, 1)


def test_of_many_series_the_highest_are_drawn_and_the_rest_counted():
    """Five colours; the title says how many are left out, the legend names the drawn ones in the order given."""
    markup = drawn(**{f"core{index}": [40.0 + index, 41.0 + index] for index in range(8)})
    assert markup.count("<polyline") == MOST_SERIES
    assert "3 more not drawn" in markup
    assert re.findall(r"</i>(core\d)", markup) == ["core3", "core4", "core5", "core6", "core7"]


def test_the_sentence_for_who_does_not_see_it():
    """Quantity, span and unit of each series."""
    assert 'aria-label="temperature over 1 s: cpu 40 to 55 °C"' in drawn(cpu=[40.0, 55.0])


def test_a_constant_reading_has_an_axis():
    """No division by zero."""
    assert "NaN" not in drawn(cpu=[40.0, 40.0])
    assert "nan" not in drawn(cpu=[40.0])


def test_nothing_to_draw_is_known_before():
    """No series, or only gaps."""
    assert not has_values({})
    assert not has_values({"cpu": [None, None]})
    assert has_values({"cpu": [None, 1.0]})
