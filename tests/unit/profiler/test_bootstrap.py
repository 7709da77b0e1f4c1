"""Ratios of percentiles with intervals that know of neighbours."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.profiler import bootstrap
from edgekit.profiler.bootstrap import paired_ratios, separate_ratios
from edgekit.profiler.percentiles import nearest_rank

SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def autoregressive(generator, count, phi):
    """Standard normal values whose neighbours are correlated by phi."""
    noise = generator.normal(size=count) * np.sqrt(1 - phi**2)
    values = np.empty(count)
    values[0] = generator.normal()
    for index in range(1, count):
        values[index] = phi * values[index - 1] + noise[index]
    return values


def test_the_ratio_is_that_of_nearest_ranks():
    """Measured samples, as everywhere."""
    generator = np.random.default_rng(0)
    a, b = generator.gamma(4.0, size=700), generator.gamma(5.0, size=700)
    found = paired_ratios(a, b, SHARES, resamples=20)
    for name, share in SHARES.items():
        rank = nearest_rank(700, share) - 1
        assert found[name].value == np.sort(a)[rank] / np.sort(b)[rank]
        assert found[name].low <= found[name].high


@pytest.mark.parametrize(("count", "names"), [(10, []), (11, ["p50"]), (64, ["p50", "p90"]), (662, ["p50", "p90", "p99"])])
def test_a_percentile_needs_as_many_samples_as_anywhere(count, names):
    """Of the shorter series."""
    series = np.random.default_rng(0).gamma(4.0, size=700)
    assert list(paired_ratios(series[:count], series[:count], SHARES, resamples=5)) == names
    assert list(separate_ratios(series[:count], series, SHARES, resamples=5)) == names


def test_a_thing_and_itself_have_the_ratio_one():
    """Pairs that are equal have no scatter at all."""
    series = np.random.default_rng(0).gamma(4.0, size=200)
    found = paired_ratios(series, series, {"p50": 0.5}, resamples=50)["p50"]
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


def test_what_slows_both_cancels_in_pairs_only():
    """A machine that swings by a fifth leaves the interval of pairs narrow and that of separate series wide."""
    generator = np.random.default_rng(0)
    swing = np.exp(0.2 * np.sin(np.arange(600) / 30))
    a, b = (swing * np.exp(0.01 * generator.normal(size=600)) for _ in range(2))
    paired, separate = paired_ratios(a, b, {"p50": 0.5})["p50"], separate_ratios(a, b, {"p50": 0.5})["p50"]
    assert paired.high / paired.low < 1.03
    assert separate.high / separate.low > 1.1


@pytest.mark.parametrize(("phi", "low", "high"), [(0.0, 1, 12), (0.5, 6, 25), (0.9, 20, 90)])
def test_blocks_grow_with_the_likeness_of_neighbours(phi, low, high):
    """Medians over ten series of a thousand; the least is the third root."""
    lengths = [bootstrap._block_length(autoregressive(np.random.default_rng(seed), 1000, phi)) for seed in range(10)]
    assert low <= np.median(lengths) <= high
    assert min(lengths) >= 10


def test_the_length_is_politis_and_whites():
    """For an autoregression both sums over its covariances are known, and so is the best length."""
    phi, count = 0.7, 20_000
    slope, spectrum = 2 * phi / (1 - phi) ** 2, (1 + phi) / (1 - phi)
    # Σ |k| φ^|k| = 2 φ / (1 − φ)², Σ φ^|k| = (1 + φ) / (1 − φ).
    best = (2 * slope**2 / (4 / 3 * spectrum**2) * count) ** (1 / 3)
    lengths = [bootstrap._block_length(autoregressive(np.random.default_rng(seed), count, phi)) for seed in range(8)]
    assert np.median(lengths) == pytest.approx(best, rel=0.25)


def test_the_interval_holds_the_truth_where_neighbours_are_alike():
    """Of 60 pairs of independent series that wander, at least 88 in a hundred intervals hold 1; blocks of one sample hold it far less often."""
    inside = naive = 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        a, b = (np.exp(0.05 * autoregressive(generator, 400, 0.8)) for _ in range(2))
        found = paired_ratios(a, b, {"p50": 0.5}, seed=seed, resamples=200)["p50"]
        inside += found.low <= 1 <= found.high
        medians = [np.median(a[places]) / np.median(b[places]) for places in generator.integers(0, 400, (200, 400))]
        naive += np.quantile(medians, 0.025) <= 1 <= np.quantile(medians, 0.975)
    assert inside >= 0.88 * 60
    assert naive < inside - 8


def test_blocks_of_pairs_are_as_long_as_what_does_not_cancel_asks_for(monkeypatch):
    """A machine that wanders slowly under both asks for long blocks of either, and for short ones of their ratio."""
    generator = np.random.default_rng(0)
    clock = np.exp(0.2 * autoregressive(generator, 1000, 0.98))
    a, b = (clock * np.exp(0.02 * generator.normal(size=1000)) for _ in range(2))
    lengths = []
    original = bootstrap._block_length
    monkeypatch.setattr(bootstrap, "_block_length", lambda series: lengths.append(original(series)) or lengths[-1])
    paired_ratios(a, b, {"p50": 0.5}, resamples=2)
    separate_ratios(a, b, {"p50": 0.5}, resamples=2)
    assert 3 * lengths[0] < min(lengths[1:])
