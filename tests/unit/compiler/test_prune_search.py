"""The search for a ratio: synthetic latencies with plateaus and noise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgekit.compiler.prune.search_ratio import MACS, MOST_PROBES, find_ratio
from edgekit.errors import ModelError


def quadratic(ratio):
    """Latency that follows the multiplications: both sides of a layer shrink."""
    return (1 - ratio) ** 2


def overhead(ratio):
    """A third of the time does not depend on the channels."""
    return 0.35 + 0.65 * (1 - ratio) ** 2


def stairs(ratio):
    """Channels go in blocks, so the latency falls in steps."""
    return (1 - math.floor(ratio * 8) / 8) ** 2


def flat_start(ratio):
    """The first third of the channels buys nothing."""
    return 1.0 if ratio < 0.35 else 1.0 - (ratio - 0.35) * 1.4


CURVES = [quadratic, overhead, stairs, flat_start]


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.__name__)
@pytest.mark.parametrize("target", [0.4, 0.5, 0.7, 0.85])
def test_the_target_is_met_and_not_overshot(curve, target):
    """The answer meets the target; it lies within the tolerance below it, or no smaller ratio that meets it is worth a measurement."""
    found = find_ratio(curve, target)
    assert found.share == curve(found.ratio) <= target
    assert found.share >= target - 0.03 or curve(found.ratio - 0.02) > target


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: curve.__name__)
@pytest.mark.parametrize("seed", range(5))
def test_noise_does_not_break_the_search(curve, seed):
    """With 3 % of noise the answer was measured below the target, and its true latency is at most the noise above it."""
    random = np.random.default_rng(seed)
    found = find_ratio(lambda ratio: curve(ratio) * (1 + 0.03 * random.uniform(-1, 1)), 0.5)
    assert found.share <= 0.5
    assert curve(found.ratio) <= 0.5 * 1.035
    assert curve(max(found.ratio - 0.15, 0)) > 0.5 * 0.97


def test_every_measurement_is_recorded():
    """The record has each measurement in its order, the answer is the smallest that met the target, and there are not too many."""
    asked = []

    def measure(ratio):
        asked.append(ratio)
        return stairs(ratio)

    found = find_ratio(measure, 0.5)
    assert [probe.ratio for probe in found.probes] == asked
    assert [probe.share for probe in found.probes] == [stairs(ratio) for ratio in asked]
    assert found.ratio == min(probe.ratio for probe in found.probes if probe.share <= 0.5)
    assert len(asked) <= MOST_PROBES


def test_a_smooth_curve_is_found_in_few_measurements():
    """Where the curve is smooth, five measurements do, that of the largest ratio included."""
    assert len(find_ratio(quadratic, 0.5).probes) <= 5


def test_a_count_is_searched_for_more_narrowly():
    """2 % below the target is near enough for a time, and not for a number that is the same every time."""
    steps = lambda ratio: {True: 0.48, False: 0.495}[ratio > 0.6] if ratio > 0.5 else 0.9  # noqa: E731
    assert find_ratio(steps, 0.5).share == 0.48
    assert find_ratio(steps, 0.5, quantity=MACS).share == 0.495


def test_the_largest_ratio_may_be_the_answer():
    """A target that only the largest ratio meets is answered with it."""
    assert find_ratio(overhead, overhead(0.9) + 0.001).ratio == 0.9


def test_a_target_out_of_reach_is_refused():
    """The refusal says what was reached and names the knobs."""
    with pytest.raises(ModelError, match=r"does not reach 30%.*it is 36%") as caught:
        find_ratio(overhead, 0.3)
    assert "latency_target" in caught.value.hint
    assert "max_ratio" in caught.value.hint
    with pytest.raises(ModelError, match="30% of the unpruned network's multiply-accumulates") as caught:
        find_ratio(overhead, 0.3, quantity=MACS)
    assert "macs_target" in caught.value.hint


@pytest.mark.parametrize("share", [0.0, -1.0, float("nan"), float("inf")])
def test_a_measurement_that_is_none_is_refused(share):
    """A latency of zero, NaN or infinity ends the search."""
    with pytest.raises(ModelError, match=r"latency at a ratio of 0\.900: measured as"):
        find_ratio(lambda _: share, 0.5)


@pytest.mark.parametrize("arguments", [{"target": 0}, {"target": 1}, {"high": 0}, {"high": 1.1}, {"most": 1}])
def test_contradictory_arguments_are_refused(arguments):
    """A caller's mistake is a ValueError, before anything is measured."""
    with pytest.raises(ValueError, match="a search needs"):
        find_ratio(lambda _: pytest.fail("measured"), **{"target": 0.5, **arguments})
