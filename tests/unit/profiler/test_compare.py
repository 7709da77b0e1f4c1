"""Verdicts of comparisons on simulated machines: how often they cry wolf, how often they miss a planted slowdown."""

from __future__ import annotations

import importlib
from collections import Counter

import numpy as np
import pytest

from edgekit.errors import EdgekitError, RegressionError
from edgekit.profiler import verdict
from edgekit.profiler.bootstrap import Ratio
from edgekit.profiler.compare import MARGINS, compare_bundles, judge_pairs
from edgekit.profiler.verdict import ALIKE, FASTER, NOT_JUDGED, SLOWER, judge

RUNS = 60
RESAMPLES = 300


def wandering(generator, count, phi):
    noise = generator.normal(size=count) * np.sqrt(1 - phi**2)
    values = np.empty(count)
    values[0] = generator.normal()
    for index in range(1, count):
        values[index] = phi * values[index - 1] + noise[index]
    return values


def machine(seed, *, slowdown=1.0, pairs=400, common=0.05, own=0.03, burst=0.02):
    """Latencies of two calls in pairs: a clock that wanders, scatter of their own that wanders too, and bursts of other programs."""
    generator = np.random.default_rng(seed)
    clock = np.exp(common * wandering(generator, pairs, 0.9))
    busy = np.zeros(pairs, bool)
    for index in range(1, pairs):
        busy[index] = generator.random() < (0.8 if busy[index - 1] else 0.2 * burst)
    found = []
    for factor in (slowdown, 1.0):
        series = 5.0 * factor * clock * np.exp(own * wandering(generator, pairs, 0.5))
        series[busy] *= 1 + generator.exponential(0.5, busy.sum())
        found.append(series)
    return found


MACHINES = {
    "quiet": {"common": 0.005, "own": 0.01, "burst": 0.0},
    "usual": {},
    "clock that wanders": {"common": 0.15},
    "shared": {"common": 0.1, "own": 0.08, "burst": 0.05},
}


@pytest.mark.parametrize("kind", MACHINES)
def test_a_thing_compared_with_itself_is_not_slower(kind):
    """At most one false alarm in twenty, on every machine."""
    words = Counter(judge_pairs(*machine(seed, **MACHINES[kind]), resamples=RESAMPLES).word for seed in range(RUNS))
    assert words[SLOWER] + words[FASTER] <= 0.05 * RUNS
    assert words[ALIKE] >= 0.95 * RUNS


@pytest.mark.parametrize("kind", MACHINES)
def test_a_tenth_slower_is_found(kind):
    """At least nineteen times in twenty, and never passed as alike."""
    words = Counter(judge_pairs(*machine(seed, slowdown=1.1, **MACHINES[kind]), resamples=RESAMPLES).word for seed in range(RUNS))
    assert words[SLOWER] >= 0.95 * RUNS
    assert words[ALIKE] + words[FASTER] == 0


def test_a_tenth_faster_is_faster():
    """The other way round."""
    found = judge_pairs(*machine(0, slowdown=1 / 1.1), resamples=RESAMPLES)
    assert found.word == FASTER


def test_a_machine_too_noisy_to_tell_is_not_judged():
    """Where the interval holds both nothing and a tenth, nobody knows; that is no pass."""
    found = [judge_pairs(*machine(seed, slowdown=1.05, pairs=120, own=0.5, burst=0.2), resamples=100) for seed in range(20)]
    unknown = [one for one in found if one.word == NOT_JUDGED]
    assert len(unknown) >= 14
    assert any("neither shown nor excluded" in one.reason for one in unknown)


def test_few_pairs_are_not_judged():
    """99 of the 100 that are needed."""
    a, b = machine(0, pairs=99)
    found = judge_pairs(a, b)
    assert (found.word, found.ratios) == (NOT_JUDGED, {})
    assert "99 pairs" in found.reason


def test_a_ratio_that_drifts_is_not_judged():
    """One that becomes slower by a third while it is measured, as when its memory is swapped out."""
    a, b = machine(0, pairs=600)
    found = judge_pairs(a * np.linspace(1.0, 1.33, 600), b, resamples=RESAMPLES)
    assert found.word == NOT_JUDGED
    assert "not steady" in found.reason


def test_a_clock_that_falls_for_both_is_judged():
    """Both become half as fast; their ratio holds still."""
    a, b = machine(0, pairs=600)
    drift = np.linspace(1.0, 2.0, 600)
    assert judge_pairs(a * drift, b * drift, resamples=RESAMPLES).word == ALIKE


@pytest.mark.parametrize(
    ("ratios", "word"),
    [
        ({"p50": Ratio(value=1.05, low=1.021, high=1.08)}, SLOWER),
        ({"p50": Ratio(value=1.05, low=1.019, high=1.08)}, ALIKE),
        ({"p50": Ratio(value=1.0, low=0.9, high=1.11)}, NOT_JUDGED),
        ({"p50": Ratio(value=0.9, low=0.8, high=0.97)}, FASTER),
        ({"p50": Ratio(value=0.9, low=0.8, high=0.99)}, ALIKE),
        ({"p50": Ratio(value=1.0, low=0.99, high=1.01), "p90": Ratio(value=1.2, low=1.06, high=1.3)}, SLOWER),
        ({"p50": Ratio(value=1.0, low=0.99, high=1.01), "p90": Ratio(value=1.2, low=1.04, high=1.3)}, ALIKE),
        ({"p50": Ratio(value=0.9, low=0.8, high=0.95), "p99": Ratio(value=1.5, low=1.2, high=1.9)}, SLOWER),
    ],
    ids=["above", "within", "blind", "below", "just below", "tail", "tail within", "faster with a slower tail"],
)
def test_words_of_intervals(ratios, word):
    """Slower is the whole interval above the margin, of any percentile."""
    assert judge(ratios, MARGINS).word == word


def document(**words):
    part = {word: None if said is None else {"verdict": said, "reason": "r"} for word, said in words.items()}
    return {"compare": None, "baseline": None, **part}


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ({}, None),
        ({"compare": ALIKE, "baseline": FASTER}, None),
        ({"compare": SLOWER}, RegressionError),
        ({"baseline": SLOWER, "compare": NOT_JUDGED}, RegressionError),
        ({"compare": NOT_JUDGED}, EdgekitError),
        ({"compare": ALIKE, "baseline": NOT_JUDGED}, EdgekitError),
    ],
)
def test_exit_codes_of_words(words, error):
    """4 for slower, 1 for not judged, and slower goes first."""
    if error is None:
        verdict.check(document(**words))
        return
    with pytest.raises(error) as raised:
        verdict.check(document(**words))
    assert type(raised.value) is error


def test_both_answer_the_same_frames_in_an_order_drawn_by_chance(runtime, frames):
    """Each sees every frame in turn; in every two pairs each is first once."""
    module = importlib.import_module(runtime())
    log = []

    class Logged(module.Classifier):
        def __init__(self, name):
            super().__init__(name)
            self.name = name

        def predict(self, frame, *, explain=True, gate=True):  # noqa: ARG002 - the contract's
            log.append((self.name, int(frame.flat[0])))
            return super().predict(frame, explain=explain)

    compare_bundles(Logged("a"), Logged("b"), frames, seconds=0.05)
    for name in "ab":
        seen = [value for who, value in log if who == name]
        assert seen[:7] == [10, 20, 30, 10, 20, 30, 10]
    first = [log[index][0] for index in range(0, len(log), 2)]
    twos = list(zip(first[::2], first[1::2], strict=False))
    assert set(twos) == {("a", "b"), ("b", "a")}
