"""Calls after pauses, on a clock that the test turns."""

from __future__ import annotations

import pytest

from edgekit.profiler import idle
from edgekit.profiler.idle import calls_for, measure_wakes
from edgekit.profiler.pacing import Clock


class Sleepy:
    """A machine whose answer takes longer the longer it has slept."""

    def __init__(self):
        self.now = self.slept = 0
        self.clock = Clock(now_ns=lambda: self.now, sleep=self._sleep)

    def _sleep(self, seconds):
        self.now += round(seconds * 1e9)
        self.slept += round(seconds * 1e9)

    def call(self):
        self.now += 2_000_000 + self.slept // 1000
        self.slept = 0


def test_the_pause_before_a_call_is_no_part_of_it():
    """2 ms and a thousandth of the pause: 2.033, 3 and 12 ms."""
    machine = Sleepy()
    found = measure_wakes(machine.call, seconds=60.0, clock=machine.clock)
    assert [wake.gap_s for wake in found] == list(idle.GAPS_S)
    assert [wake.to_json()["p50_ms"] for wake in found] == pytest.approx([2.033, 3.0, 12.0])
    assert [wake.milliseconds.size for wake in found] == [64, 64, 12]


def test_a_pause_that_the_time_does_not_hold_often_enough_is_not_measured():
    """Ten seconds hold 1 s twenty times and 10 s only twice, of which there is no median; the reason says how long it takes."""
    machine = Sleepy()
    found = measure_wakes(machine.call, seconds=10.0, clock=machine.clock)
    assert [wake.milliseconds is None for wake in found] == [False, False, True]
    document = found[2].to_json()
    assert (document["p50_ms"], document["samples"]) == (None, 0)
    assert "--seconds 55" in document["reason"]
    assert calls_for(10.0, 55.0) == 11
    assert calls_for(10.0, 54.9) == 0


def test_progress_goes_by_the_time_that_is_spent():
    """Told after each call, up to 1."""
    machine = Sleepy()
    told = []
    measure_wakes(machine.call, seconds=10.0, clock=machine.clock, on_progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
