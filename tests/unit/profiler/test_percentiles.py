"""Percentiles: definition, sample limits and intervals, against scipy and against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import EdgekitError
from edgekit.profiler import percentiles

stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize(("share", "count"), [(0.50, 11), (0.90, 64), (0.95, 130), (0.99, 662)])
def test_a_percentile_needs_as_many_samples_as_mlperf_asks_for(share, count):
    """The limits are those of MLPerf's early stopping: the fewest samples whose second largest bounds the percentile with 99 % confidence."""
    assert percentiles.minimum_samples(share) == count
    assert stats.binom.cdf(1, count, 1 - share) <= 0.01 < stats.binom.cdf(1, count - 1, 1 - share)


@pytest.mark.parametrize(("name", "count"), [("p50", 11), ("p90", 64), ("p95", 130), ("p99", 662)])
def test_a_percentile_of_too_few_samples_is_refused_with_the_number_needed(name, count):
    """One sample short gives None and a reason, one more gives the figure."""
    short, enough = percentiles.latency(np.arange(1.0, count)), percentiles.latency(np.arange(1.0, count + 1))
    assert short.percentile(name) is None
    assert f"{count} samples" in short.missing()[name]
    assert f"there are {count - 1}" in short.missing()[name]
    assert enough.percentile(name) is not None
    assert name not in enough.missing()


@given(st.integers(662, 3000), st.sampled_from([0.5, 0.9, 0.95, 0.99]), st.integers(0, 2**32 - 1))
def test_a_percentile_is_the_nearest_rank_sample(count, share, seed):
    """The value is numpy's inverted_cdf (type 1), and it lies within its interval; all three are samples."""
    values = np.sort(np.random.default_rng(seed).lognormal(size=count))
    found = percentiles.percentile(values, share)
    assert found.value == np.quantile(values, share, method="inverted_cdf")
    assert found.low <= found.value <= found.high
    assert {found.value, found.low, found.high} <= set(values)


@pytest.mark.parametrize("count", [662, 700, 1000, 5000, 200_000])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.95, 0.99])
def test_the_interval_is_the_narrowest_with_two_and_a_half_percent_on_each_side(count, share):
    """The ranks miss at most 2.5 % on each side by scipy's binomial, and one rank further in would miss more."""
    low, high = percentiles.interval_ranks(count, share)
    assert stats.binom.cdf(low - 1, count, share) <= 0.025 < stats.binom.cdf(low, count, share)
    assert stats.binom.sf(high - 1, count, share) <= 0.025 < stats.binom.sf(high - 2, count, share)


@pytest.mark.parametrize(("share", "count"), [(0.5, 11), (0.9, 64), (0.99, 662)])
def test_the_interval_covers_the_true_percentile(share, count):
    """Of 2000 series with heavy tails, at least 95 % (less four standard errors) have the true percentile inside, at the smallest count allowed."""
    series = np.sort(np.random.default_rng(7).lognormal(0.0, 1.0, size=(2000, count)), axis=1)
    low, high = percentiles.interval_ranks(count, share)
    true = stats.lognorm.ppf(share, 1.0)
    covered = np.mean((series[:, low - 1] <= true) & (true <= series[:, high - 1]))
    assert covered >= 0.95 - 4 * np.sqrt(0.95 * 0.05 / 2000)


def test_figures_are_ready_for_json():
    """The contract's keys are all there; what is not known is None, and the order of the samples does not matter."""
    values = np.random.default_rng(0).permutation(np.arange(1.0, 201.0))
    found = percentiles.latency(values)
    assert found.figures() == {"p50": 100.0, "p90": 180.0, "p95": 190.0, "p99": None, "max": 200.0, "samples": 200}
    assert found.intervals()["p99"] is None
    assert found.intervals()["p50"] == [float(rank) for rank in percentiles.interval_ranks(200, 0.5)]


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_a_series_without_numbers_has_no_percentile(values):
    """An empty series and one with NaN are errors, not zeros."""
    with pytest.raises(EdgekitError, match="no percentile"):
        percentiles.latency(np.array(values))
