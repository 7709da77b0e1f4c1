"""Warm-up detection on series whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.profiler.warmup import steady_state

COUNT = 1000
SEEDS = range(40)


def noise(seed, *, scatter=0.02, count=COUNT):
    return 2.0 * (1 + scatter * np.random.default_rng(seed).normal(size=count))


def with_outliers(seed):
    generator = np.random.default_rng(seed + 1000)
    series = noise(seed)
    hit = generator.random(COUNT) < 0.03
    series[hit] *= 1 + generator.exponential(3, hit.sum())
    return series


def with_burst(seed):
    series = noise(seed)
    start = np.random.default_rng(seed).integers(0, COUNT - 15)
    series[start : start + 15] *= 2.5
    return series


def with_two_modes(seed):
    return noise(seed, scatter=0.01) * np.where(np.random.default_rng(seed + 1).random(COUNT) < 0.4, 1.2, 1.0)


def with_memory(seed):
    steps = np.random.default_rng(seed).normal(size=COUNT) * 0.01
    series = np.zeros(COUNT)
    for index in range(1, COUNT):
        series[index] = 0.9 * series[index - 1] + steps[index]
    return 2.0 * (1 + series)


def step(factor, length, seed=0):
    return noise(seed) * np.where(np.arange(COUNT) < length, factor, 1.0)


@pytest.mark.parametrize(
    "series",
    [noise, with_outliers, with_two_modes, with_memory, lambda seed: noise(seed, scatter=0.08), lambda _: np.full(COUNT, 2.0)],
    ids=["quiet", "3% outliers", "two modes", "autocorrelated", "noisy", "constant"],
)
def test_a_stationary_series_keeps_almost_all_its_samples(series):
    """Without a warm-up, the average loss over 40 series is under 1.5 % and all of them are steady."""
    found = [steady_state(series(seed)) for seed in SEEDS]
    assert np.mean([verdict.excluded for verdict in found]) < 0.015 * COUNT
    assert all(verdict.steady for verdict in found)


def test_a_burst_in_the_middle_is_not_a_warm_up():
    """Fifteen slow calls anywhere after the first tenth exclude little and do not upset the verdict."""
    found = [steady_state(with_burst(seed)) for seed in SEEDS]
    assert np.median([verdict.excluded for verdict in found]) <= 5
    assert max(verdict.excluded for verdict in found) < 0.2 * COUNT
    assert all(verdict.steady for verdict in found)


@pytest.mark.parametrize("length", [5, 20, 100, 300])
@pytest.mark.parametrize("factor", [0.8, 1.2, 1.5, 10.0])
def test_the_end_of_a_step_is_found(factor, length):
    """A level that changes at a known call, up or down, is cut there, at most five calls late and never early."""
    for seed in range(10):
        found = steady_state(step(factor, length, seed))
        assert length <= found.excluded <= length + 5
        assert found.steady


@pytest.mark.parametrize("calls", [1, 2, 4])
def test_a_few_slow_first_calls_are_excluded(calls):
    """Calls too few for a batch of five are still found."""
    series = noise(3)
    series[:calls] = 40.0
    assert calls <= steady_state(series).excluded <= calls + 5


def test_an_exponential_warm_up_is_cut_where_it_has_died_away():
    """After the cut, what is left of a decay with a time constant of 40 calls is under 5 %."""
    for seed in range(10):
        found = steady_state(noise(seed) * (1 + np.exp(-np.arange(COUNT) / 40)))
        assert np.exp(-found.excluded / 40) < 0.05
        assert found.excluded < 250
        assert found.steady


@pytest.mark.parametrize(
    ("series", "reason"),
    [
        (noise(0) * (1 + 0.3 * np.arange(COUNT) / COUNT), "drifts|windows"),
        (noise(0) * np.where(np.arange(COUNT) < 0.6 * COUNT, 1.0, 1.4), "windows"),
        (noise(0, scatter=0.4).clip(0.1), "vary by"),
        (np.tile([1.5, 4.0, 4.5, 5.0, 8.0], COUNT // 5), "vary by"),
        (noise(0, count=32), "too few"),
        (noise(0, count=0), "too few"),
    ],
    ids=["drift", "throttled late", "scattered", "scattered around a still median", "short", "empty"],
)
def test_a_series_that_does_not_settle_is_not_called_steady(series, reason):
    """The verdict is no, and the reason says which."""
    found = steady_state(series)
    assert not found.steady
    assert np.any([word in found.reason for word in reason.split("|")]), found.reason


def test_the_verdict_carries_its_evidence():
    """Three window medians and the variation are given, and they are those of the samples that are kept."""
    found = steady_state(step(3.0, 100))
    kept = step(3.0, 100)[found.excluded :]
    assert found.window_medians == tuple(np.median(window) for window in np.array_split(kept, 3))
    assert found.variation == pytest.approx(0.02, abs=0.003)
    assert found.reason == ""
