"""The slope of memory."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.profiler.growth import theil_sen


def test_the_slope_is_theils_and_the_interval_is_sens():
    """Against SciPy's implementation of the same paper."""
    from scipy import stats

    generator = np.random.default_rng(0)
    x = np.sort(generator.uniform(0, 10, 60))
    y = 3.0 * x + generator.normal(size=60)
    found, expected = theil_sen(x, y), stats.theilslopes(y, x)
    assert found.value == pytest.approx(expected.slope)
    assert found.low == pytest.approx(expected.low_slope, rel=0.02)
    assert found.high == pytest.approx(expected.high_slope, rel=0.02)


def test_a_single_burst_does_not_move_it():
    """One reading of a gigabyte more in a flat series is no growth."""
    y = np.full(30, 100.0)
    y[15] = 1100.0
    found = theil_sen(np.arange(30.0), y)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_a_true_slope_lies_in_its_interval_nineteen_times_in_twenty():
    """With independent noise, over 300 series."""
    inside = 0
    for seed in range(300):
        y = 0.5 * np.arange(40.0) + np.random.default_rng(seed).normal(size=40)
        found = theil_sen(np.arange(40.0), y)
        inside += found.low <= 0.5 <= found.high
    assert inside >= 300 * 0.95 - 12


def test_a_long_series_is_thinned_and_keeps_its_slope():
    """Ten thousand readings take no hundred million pairs."""
    x = np.arange(10_000.0)
    found = theil_sen(x, 2.0 * x)
    assert found.value == pytest.approx(2.0)
    assert found.readings == 10_000


@pytest.mark.parametrize(("x", "reason"), [(np.arange(9.0), "needs 10 readings, there are 9"), (np.zeros(20), "of one moment")])
def test_too_little_is_a_reason(x, reason):
    """Few readings, or all of one moment."""
    assert reason in theil_sen(x, np.ones(x.size))
