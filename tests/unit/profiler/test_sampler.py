"""Power that is read at moments the frames do not choose."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from edgekit.errors import TargetError
from edgekit.profiler import sampler
from edgekit.profiler.energy import PowerMeter
from edgekit.profiler.sampler import Sampler, open_meter


class Rail:
    """A power that a test sets, and how often it was read."""

    def __init__(self, watts=5.0):
        self.watts, self.reads, self.closed = watts, 0, False
        self.enough = threading.Event()

    def read(self):
        self.reads += 1
        if self.reads >= 5:
            self.enough.set()
        if isinstance(self.watts, BaseException):
            raise self.watts
        return self.watts

    def close(self):
        self.closed = True

    def meter(self):
        return PowerMeter("INA3221", "whole board (VDD_IN)", self.read, self.close)


def test_a_steady_power_is_its_time(monkeypatch):
    """Whenever it is asked for; it says what it is as its meter does."""
    rail = Rail()
    begin = time.perf_counter()
    found = Sampler(rail.meter(), (0.001, 0.002))
    assert rail.enough.wait(10)
    now = time.perf_counter()
    first = found.joules(now)
    assert found.joules(now + 2.0) - first == pytest.approx(10.0, abs=5.0 * 0.5)
    assert 0 < first <= 5.0 * (now - begin) + 1e-6
    assert (found.source, found.scope) == ("INA3221", "whole board (VDD_IN)")
    found.close()
    assert rail.closed
    assert not any(thread.name == "edgekit-power" for thread in threading.enumerate())


def test_it_is_read_though_nobody_asks():
    """The whole point: a reading of the watch between two frames reads no power."""
    rail = Rail()
    found = Sampler(rail.meter(), (0.001, 0.002))
    assert rail.enough.wait(10)
    found.close()
    before = rail.reads
    found.joules(time.perf_counter())
    assert rail.reads == before


@pytest.mark.parametrize("error", [TargetError("unplugged"), ZeroDivisionError("a defect")])
def test_a_failure_is_raised_where_the_energy_is_asked_for(error):
    """Whatever it is; it does not vanish with the thread."""
    rail = Rail()
    found = Sampler(rail.meter(), (0.001, 0.002))
    rail.watts = error
    found._thread.join(10)
    with pytest.raises(type(error), match=str(error)):
        found.joules(time.perf_counter())
    found.close()


def test_a_power_that_cannot_be_read_is_a_reason_from_the_start():
    """And the meter is given back."""
    rail = Rail(TargetError("no such file"))
    assert open_meter(find=lambda _: rail.meter()) == "no such file"
    assert rail.closed


def test_a_counter_needs_no_thread():
    """Energy that is counted may be read at any moment."""

    class Counter:
        source, scope = "RAPL", "processor package"

    counter = Counter()
    assert open_meter(find=lambda _: counter) is counter
    assert open_meter(find=lambda _: "there is none") == "there is none"


def test_pauses_are_drawn(monkeypatch):
    """A fixed pause would fall in with frames of a fixed rate."""
    drawn = []

    class Generator:
        def uniform(self, low, high):
            drawn.append((low, high))
            return 0.0005

    monkeypatch.setattr(np.random, "default_rng", Generator)
    rail = Rail()
    found = Sampler(rail.meter())
    assert rail.enough.wait(10)
    found.close()
    assert set(drawn) == {sampler.PAUSES_S}
    assert sampler.PAUSES_S[1] > 2 * sampler.PAUSES_S[0]
