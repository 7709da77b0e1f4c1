"""Verdicts of comparisons on simulated machines: how often they cry wolf, how often they miss a planted slowdown."""

from __future__ import annotations

import importlib
from collections import Counter

import numpy as np
import pytest

from edgekit.errors import EdgekitError, RegressionError
from edgekit.profiler import compare, verdict
from edgekit.profiler.bootstrap import Estimate
from edgekit.profiler.compare import MARGINS, compare_bundles, judge_pairs
from edgekit.profiler.percentiles import minimum_samples
from edgekit.profiler.verdict import ALIKE, FASTER, MEDIAN_ALIKE, MEDIAN_FASTER, NOT_JUDGED, SLOWER, judge

RUNS = 60
RESAMPLES = 300


def wandering(generator, count, phi):
    noise = generator.normal(size=count) * np.sqrt(1 - phi**2)
    values = np.empty(count)
    values[0] = generator.normal()
    for index in range(1, count):
        values[index] = phi * values[index - 1] + noise[index]
    return values


def machine(seed, *, slowdown=1.0, pairs=750, common=0.05, own=0.03, burst=0.02):
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
    assert words[SLOWER] + words[FASTER] + words[MEDIAN_FASTER] <= 0.05 * RUNS
    assert words[ALIKE] + words[MEDIAN_ALIKE] >= 0.95 * RUNS
    assert kind != "quiet" or words[ALIKE] >= 0.95 * RUNS


@pytest.mark.parametrize("kind", MACHINES)
def test_a_tenth_slower_is_found(kind):
    """At least nineteen times in twenty, and never passed as alike."""
    words = Counter(judge_pairs(*machine(seed, slowdown=1.1, **MACHINES[kind]), resamples=RESAMPLES).word for seed in range(RUNS))
    assert words[SLOWER] >= 0.95 * RUNS
    assert words[SLOWER] + words[NOT_JUDGED] == RUNS


def slow_tail(seed, *, pairs, factor, share=0.02):
    """The same median, but the slow frames of the first are slower by a factor: about one in fifty is slow."""
    generator = np.random.default_rng(seed)
    found = []
    for times in (3 * factor, 3):
        series = 5.0 * np.exp(0.02 * generator.normal(size=pairs))
        slow = generator.random(pairs) < share
        series[slow] *= times * np.exp(0.2 * generator.normal(size=slow.sum()))
        found.append(series)
    return found


@pytest.mark.parametrize(("pairs", "factor"), [(400, 3.0), (750, 2.0), (2000, 2.0)], ids=["too few for p99", "some", "many"])
def test_a_slow_tail_never_passes_silently(pairs, factor):
    """It is found, or the word says that only the median was judged, and the reason that p99 was not."""
    for seed in range(20):
        found = judge_pairs(*slow_tail(seed, pairs=pairs, factor=factor), resamples=RESAMPLES)
        assert found.word in {SLOWER, MEDIAN_ALIKE}
        assert "p99" in found.reason


def test_many_pairs_find_a_slow_tail():
    """Half as much again in one frame of fifty, over two thousand pairs."""
    words = Counter(judge_pairs(*slow_tail(seed, pairs=2000, factor=1.5), resamples=RESAMPLES).word for seed in range(20))
    assert words[SLOWER] >= 15


def test_a_percentile_of_too_few_pairs_is_said_to_be_missing():
    """With how many there are and how many it needs."""
    found = judge_pairs(*machine(0, pairs=400, burst=0.0), resamples=RESAMPLES)
    assert found.word == MEDIAN_ALIKE
    assert "p99: 400 samples, 662 needed" in found.reason
    assert "p90" not in found.reason


def test_as_many_pairs_are_wanted_as_every_percentile_needs():
    """After a warm-up of a tenth."""
    assert minimum_samples(0.99) <= compare.WANTED_PAIRS * 0.9


def test_a_tenth_faster_is_faster():
    """The other way round."""
    found = judge_pairs(*machine(0, slowdown=1 / 1.1, burst=0.0), resamples=RESAMPLES)
    assert found.word == FASTER


def test_a_machine_too_noisy_to_tell_is_not_judged():
    """Where the interval holds both nothing and a tenth, nobody knows; that is no pass."""
    found = [judge_pairs(*machine(seed, slowdown=1.05, pairs=120, own=0.5, burst=0.2), resamples=100) for seed in range(20)]
    unknown = [one for one in found if one.word == NOT_JUDGED]
    assert len(unknown) >= 14
    assert any("p50: up to" in one.reason for one in unknown)


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
    assert judge_pairs(a * drift, b * drift, resamples=RESAMPLES).word in {ALIKE, MEDIAN_ALIKE}


def ratios(p50=(1.0, 0.99, 1.01), p90=(1.0, 0.98, 1.02), p99=(1.0, 0.9, 1.1)):
    """Value, low and high of each; None for one of too few samples."""
    given = {"p50": p50, "p90": p90, "p99": p99}
    return {name: Estimate(value=one[0], low=one[1], high=one[2]) for name, one in given.items() if one is not None}


@pytest.mark.parametrize(
    ("found", "word", "words"),
    [
        (ratios(), ALIKE, ()),
        (ratios(p50=(1.05, 1.021, 1.08)), SLOWER, ("p50 is 1.050",)),
        (ratios(p50=(1.05, 1.019, 1.08)), ALIKE, ()),
        (ratios(p50=(1.0, 0.9, 1.11)), NOT_JUDGED, ("p50: up to 1.11 times is not excluded",)),
        (ratios(p50=(0.9, 0.8, 0.97)), FASTER, ()),
        (ratios(p50=(0.9, 0.8, 0.99)), ALIKE, ()),
        (ratios(p90=(1.2, 1.06, 1.3)), SLOWER, ("p90 is 1.200",)),
        (ratios(p90=(1.1, 1.04, 1.19)), ALIKE, ()),
        (ratios(p90=(1.2, 1.04, 1.39)), MEDIAN_ALIKE, ("p90: up to 1.39 times is not excluded",)),
        (ratios(p99=(1.2, 0.8, 1.6)), MEDIAN_ALIKE, ("p99: up to 1.60 times is not excluded",)),
        (ratios(p99=None), MEDIAN_ALIKE, ("p99: 500 samples, 662 needed",)),
        (ratios(p90=None, p99=None), MEDIAN_ALIKE, ("p90: 500 samples, 64 needed", "p99: 500 samples")),
        (ratios(p50=(0.9, 0.8, 0.95), p99=(1.5, 1.2, 1.9)), SLOWER, ("p99 is 1.500",)),
        (ratios(p50=(0.9, 0.8, 0.95), p99=(1.2, 0.8, 1.9)), MEDIAN_FASTER, ("p99: up to 1.90",)),
        (ratios(p50=(1.05, 1.03, 1.08), p99=None), SLOWER, ("p50 is 1.050", "p99: 500 samples")),
        (ratios(p50=(1.0, 0.9, 1.11), p99=None), NOT_JUDGED, ("p50: up to 1.11", "p99: 500 samples")),
    ],
)
def test_words_of_intervals(found, word, words):
    """Slower is the whole interval above the margin, of any percentile; what is not judged is in the reason, and in the word where it is a tail."""
    said = judge(found, MARGINS, 500)
    assert said.word == word
    for one in words:
        assert one in said.reason
    assert ("not judged" in said.reason or "needed" in said.reason or "not excluded" in said.reason) == any(
        "needed" in one or "not excluded" in one or "samples" in one or "up to" in one for one in words
    )


def document(**words):
    part = {word: None if said is None else {"verdict": said, "reason": "r"} for word, said in words.items()}
    return {"compare": None, "baseline": None, **part}


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ({}, None),
        ({"compare": ALIKE, "baseline": FASTER}, None),
        ({"compare": MEDIAN_ALIKE, "baseline": MEDIAN_FASTER}, None),
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
