"""What the map and the overlay add, on a classifier whose costs the test knows."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.profiler import clock, deltas
from edgekit.profiler.clock import Budget


class Costly:
    """Answers in 10 ms, with a map in 14 ms, and draws in 6 ms, on a clock that it turns itself."""

    def __init__(self, monkeypatch):
        self.now, self.asked = 0, []
        monkeypatch.setattr(clock.time, "perf_counter_ns", lambda: self.now)

    def predict(self, frame, *, explain=True, gate=True):  # noqa: ARG002 - the contract's
        self.asked.append((int(frame[0, 0]), explain))
        self.now += 14_000_000 if explain else 10_000_000
        return self

    def overlay(self):
        self.now += 6_000_000


@pytest.fixture
def shown():
    return [np.full((4, 4), value, np.uint8) for value in (1, 2, 3)]


def test_what_the_map_adds(monkeypatch, shown):
    """4 of 10 ms, over as many pairs as there were; with and without see the same frames."""
    classifier = Costly(monkeypatch)
    found = deltas.measure_cam(classifier, shown, Budget(seconds=0.0, min_samples=60))
    document = found.to_json()
    assert [document[name] for name in ("added_ms", "added_low_ms", "added_high_ms")] == pytest.approx([4.0, 4.0, 4.0])
    assert [document[name] for name in ("ratio", "low", "high")] == pytest.approx([1.4, 1.4, 1.4])
    assert found.steady
    seen = {explain: [value for value, said in classifier.asked if said is explain] for explain in (True, False)}
    assert seen[True] == seen[False] == [1, 2, 3] * 20
    assert document["pairs"] == found.pairs


def test_what_the_overlay_adds(monkeypatch, shown):
    """6 ms over an answer with its map of 14 ms."""
    found = deltas.measure_overlay(Costly(monkeypatch), shown, Budget(seconds=0.0, min_samples=60))
    assert (found.added_ms.value, found.ratio.value) == pytest.approx((6.0, 20 / 14))


def test_the_warm_up_is_no_part_of_what_is_added(monkeypatch, shown):
    """A map that costs 1 s more for the first third of the pairs adds 4 ms, and no more."""
    classifier = Costly(monkeypatch)
    usual = classifier.predict

    def cold(frame, *, explain=True, gate=True):
        found = usual(frame, explain=explain, gate=gate)
        if explain and len(classifier.asked) < 60:
            classifier.now += 1_000_000_000
        return found

    classifier.predict = cold
    found = deltas.measure_cam(classifier, shown, Budget(seconds=0.0, min_samples=100))
    assert found.added_ms.high == pytest.approx(4.0)
    assert 65 <= found.pairs <= 75


def test_a_difference_that_is_none_holds_zero(monkeypatch, shown):
    """Two equal costs that scatter: the interval of the milliseconds says so."""
    classifier = Costly(monkeypatch)
    scatter = np.random.default_rng(0)

    def alike(frame, *, explain=True, gate=True):
        classifier.now += round(1e6 * scatter.normal(10.0, 0.2))
        return classifier

    classifier.predict = alike
    found = deltas.measure_cam(classifier, shown, Budget(seconds=0.0, min_samples=200))
    assert found.added_ms.low < 0 < found.added_ms.high
    assert found.added_ms.high - found.added_ms.low < 0.3


def test_too_few_pairs_are_a_reason(monkeypatch, shown):
    """Ten of the eleven that a median needs."""
    found = deltas.measure_cam(Costly(monkeypatch), shown, Budget(seconds=0.0, min_samples=10))
    assert found == "a median needs 11 pairs after the warm-up, there are 10"
