"""The measuring loop, on a clock that the test turns."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.errors import EdgekitError
from edgekit.profiler import clock
from edgekit.profiler.bootstrap import median_ratio, paired_ratios
from edgekit.profiler.clock import Budget, measure, measure_pair, ratio_interval


@pytest.fixture
def turn(monkeypatch):
    """A clock that stands still until it is turned by a number of milliseconds."""
    now = [0]
    monkeypatch.setattr(clock.time, "perf_counter_ns", lambda: now[0])

    def turned(milliseconds):
        now[0] += round(milliseconds * 1e6)

    return turned


def test_only_the_call_is_timed(turn):
    """What happens before and after a call is in no duration, but is in the starts."""
    durations = iter([3.0, 5.0, 7.0])
    found = measure(lambda: turn(next(durations)), Budget(seconds=0, min_samples=3), before=lambda: turn(100), after=lambda: turn(1000))
    assert found.milliseconds.tolist() == [3.0, 5.0, 7.0]
    assert found.start_seconds.tolist() == [0.1, 1.203, 2.308]


@pytest.mark.parametrize(
    ("budget", "samples"),
    [
        (Budget(seconds=1.0), 100),
        (Budget(seconds=0.0), 1),
        (Budget(seconds=0.1, min_samples=64), 64),
        (Budget(seconds=0.1, min_samples=64, max_seconds=0.3), 30),
        (Budget(seconds=0.0, min_samples=5, max_seconds=0.0), 1),
    ],
    ids=["time", "one at least", "samples stretch it", "up to the limit", "no time at all"],
)
def test_the_loop_stops_by_its_budget(turn, budget, samples):
    """A call of 10 ms is repeated for the seconds, then for the samples, never beyond the limit, and once in any case."""
    assert measure(lambda: turn(10), budget).durations_ns.size == samples


def test_progress_rises_to_one_at_ten_reports_a_second(turn):
    """It is told the end exactly once, and not on every call."""
    told = []
    measure(lambda: turn(1), Budget(seconds=1.0), on_progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert told.count(1.0) == 1
    assert 9 <= len(told) <= 11


@pytest.mark.parametrize("wrong", [{"seconds": -1.0}, {"seconds": 5.0, "max_seconds": 1.0}, {"seconds": 1.0, "min_samples": 0}])
def test_a_budget_that_cannot_be_kept_is_refused(wrong):
    """Negative time, more time than the limit and no sample are errors."""
    with pytest.raises(EdgekitError, match="cannot measure"):
        Budget(**wrong)


def test_a_pair_is_measured_in_alternating_order(turn):
    """A B, B A, A B …: each first equally often, each duration with its own call."""
    order = []

    def call(name, milliseconds):
        order.append(name)
        turn(milliseconds)

    found = measure_pair(lambda: call("a", 4), lambda: call("b", 2), Budget(seconds=0, min_samples=40))
    assert "".join(order[:8]) == "abbaabba"
    assert set(found.a.milliseconds) == {4.0}
    assert set(found.b.milliseconds) == {2.0}
    assert (found.ratio, found.low, found.high) == (2.0, 2.0, 2.0)
    assert found.steady
    assert found.b.start_seconds[:2].tolist() == [0.004, 0.006]


def test_the_warm_up_of_either_is_left_out_of_the_ratio(turn):
    """Only one of the two has a warm-up; the same pairs go for both."""
    durations = iter([50.0] * 20 + [4.0] * 180)
    found = measure_pair(lambda: turn(next(durations)), lambda: turn(2), Budget(seconds=0, min_samples=200))
    assert 20 <= found.excluded <= 25
    assert [(values.size, values.max()) for values in found.settled] == [(200 - found.excluded, 4.0), (200 - found.excluded, 2.0)]
    assert found.ratio == 2.0


def test_the_interval_of_a_ratio_covers_the_truth():
    """Of 60 noisy comparisons with a true ratio of 1.1, at least 52 intervals hold it; a common slow-down does not matter."""
    covered = 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        shared = 1 + 0.3 * np.sin(np.arange(300) / 40)
        a, b = (factor * shared * generator.lognormal(0, 0.1, 300) for factor in (1.1, 1.0))
        found = median_ratio(a, b, seed=seed, resamples=300)
        ratio, low, high = found.value, found.low, found.high
        assert low <= ratio <= high
        assert high - low < 0.12
        covered += low <= 1.1 <= high
    assert covered >= 52


def test_the_interval_is_repeatable_and_wider_where_neighbours_are_alike():
    """The seed decides the resamples; correlated noise of the same size gives the wider interval that it deserves."""
    generator = np.random.default_rng(1)
    independent = generator.normal(0, 0.1, 1000)
    alike = np.repeat(generator.normal(0, 0.1, 100), 10)
    widths = []
    for errors in (independent, alike):
        _, low, high = ratio_interval(np.exp(errors), np.ones(1000), seed=3)
        assert (low, high) == ratio_interval(np.exp(errors), np.ones(1000), seed=3)[1:]
        widths.append(high - low)
    assert widths[1] > 1.5 * widths[0]


def test_the_interval_is_that_of_the_bootstrap():
    """One way of drawing serves comparisons, choices of the compiler and deltas."""
    generator = np.random.default_rng(2)
    a, b = generator.gamma(400.0, 0.01, (2, 300))
    found = paired_ratios(a, b, {"p50": 0.5}, seed=5)["p50"]
    assert ratio_interval(a, b, seed=5) == (found.value, found.low, found.high)


def test_the_ratio_is_that_of_the_medians_that_are_told(turn):
    """An even number of pairs has two middle ones; the same of them is the median and makes the ratio."""
    durations = iter([2.0, 4.0] * 40)
    found = measure_pair(lambda: turn(next(durations)), lambda: turn(1), Budget(seconds=0, min_samples=40))
    assert found.medians_ms == (2.0, 1.0)
    assert found.ratio == 2.0


def test_series_that_are_no_pairs_are_refused():
    """Different lengths were not measured interleaved; an empty one has no median."""
    for a, b in ((np.ones(3), np.ones(4)), (np.ones(0), np.ones(0))):
        with pytest.raises(EdgekitError, match="no pairs"):
            ratio_interval(a, b)
