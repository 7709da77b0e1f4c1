"""Frames that come from a clock, on a clock that the test turns, against the recursion of a queue with one server."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import EdgekitError
from edgekit.profiler import pacing
from edgekit.profiler.pacing import Aside, Clock, figures, live_drops, play


class World:
    """Time that moves by sleeping and by serving; sleeping may take longer than was asked for."""

    def __init__(self, services_ms, oversleep_ms=0.0):
        self.now = 0
        self._services = iter(services_ms)
        self._oversleep = round(oversleep_ms * 1e6)
        self.clock = Clock(now_ns=lambda: self.now, sleep=self._sleep)

    def _sleep(self, seconds):
        self.now += round(seconds * 1e9) + self._oversleep

    def serve(self):
        self.now += round(next(self._services) * 1e6)


def played(services_ms, *, fps=50.0, oversleep_ms=0.0):
    world = World(services_ms, oversleep_ms)
    return play(world.serve, fps=fps, seconds=len(services_ms) / fps, clock=world.clock)


def lindley(services_ms, period_ms):
    """End of each frame, milliseconds: end k = max(due k, end k-1) + service k."""
    ends, free = [], 0.0
    for index, service in enumerate(services_ms):
        free = max(index * period_ms, free) + service
        ends.append(free)
    return np.array(ends)


def test_a_stall_shows_in_every_frame_that_was_due_meanwhile():
    """One call of 200 ms at 50 frames a second delays ten frames, and those behind them until the queue is drained; a loop without due times would show one."""
    services = [5.0] * 10 + [200.0] + [5.0] * 40
    found = played(services)
    expected = lindley(services, 20.0) - np.arange(51) * 20.0
    assert found.latency_ms == pytest.approx(expected, abs=1e-5)
    assert (found.latency_ms > 20.0).sum() == 12
    assert (found.service_ms > 20.0).sum() == 1
    assert found.deadline_misses == 12
    assert found.latency_ms[10:13].tolist() == [200.0, 185.0, 170.0]


@given(st.lists(st.floats(0.125, 60.0), min_size=1, max_size=60))
def test_every_latency_is_that_of_the_queue(services):
    """Whatever the service times: latency counts from due, in order, one at a time, and nothing is left out where there is patience."""
    period = 1e3 / 50
    if sum(services) > pacing.PATIENCE * 1e3 * len(services) / 50 - 60:
        return
    found = played(services)
    assert found.latency_ms == pytest.approx(lindley(services, period) - np.arange(len(services)) * period, abs=1e-3)
    assert found.wait_ms + found.service_ms == pytest.approx(found.latency_ms)
    assert found.unserved == 0


def test_a_run_that_cannot_keep_up_ends_and_counts_what_was_left():
    """At four times the period a run ends after three spans; every due frame is served or unserved, and unserved ones missed their deadline."""
    services = [80.0] * 100
    found = played(services)
    assert (found.due_ns.size, found.served, found.unserved) == (100, 75, 25)
    document = found.to_json()
    assert (document["due"], document["served"], document["unserved"]) == (100, 75, 25)
    assert document["deadline_misses"] == 100
    assert document["deadline_miss_share"] == 1.0
    # When frame 24 is begun at 1920 ms, frame 96 is due; when frame 25 is, all are: 75 wait.
    assert document["longest_queue"] == 75
    assert document["latency_ms"]["max"] is None
    assert "25 of 100 frames were never answered" in document["unavailable"]["latency_ms.max"]


def test_a_wait_that_never_ended_counts_as_an_answer_that_never_came():
    """In overload latency and wait lose the same percentiles, what an answer takes loses none, and each has its own reasons."""
    document = played([80.0] * 100).to_json()
    for part in ("latency_ms", "wait_ms"):
        assert document[part]["samples"] == 100
        assert {name for name in ("p50", "p90", "max") if document[part][name] is None} == {"p90", "max"}
        assert {f"{part}.p90", f"{part}.max"} <= set(document["without_end"])
    assert document["wait_ms"]["p50"] == 49 * 60.0
    assert (document["service_ms"]["samples"], document["service_ms"]["p90"], document["service_ms"]["max"]) == (75, 80.0, 80.0)
    assert "75" in document["unavailable"]["service_ms.p95"]
    assert "service_ms.p90" not in document["unavailable"]
    # Too few for a p99 is not known to be without end.
    assert not any(path.endswith(("p95", "p99")) for path in document["without_end"])
    assert document["unavailable"]["latency_ms.p99"].startswith("p99 needs 662")


def mailbox(period_ms, services_ms, count):
    """Frames dropped by a one-slot mailbox, frame by frame: one that comes while another waits takes its place."""
    free, waiting, served, dropped = 0.0, None, 0, 0
    for index in range(count):
        due = index * period_ms
        if waiting is not None and free < due:
            free, waiting, served = free + services_ms[served], None, served + 1
        if free <= due and waiting is None:
            free, served = due + services_ms[served], served + 1
        else:
            dropped += waiting is not None
            waiting = index
    return dropped


@pytest.mark.parametrize("services", [[5.0] * 100, [30.0] * 100, [80.0] * 100, [70.0] * 10 + [45.0] * 90, [3000.0] + [1.0] * 49])
def test_a_live_stream_in_overload_drops_what_a_mailbox_drops(services):
    """Of all frames that were due, those included that the run itself never began."""
    found = played(services)
    assert found.to_json()["live_drops"] == mailbox(20.0, services, len(services))


def test_a_live_stream_serves_its_last_frame_though_the_run_ended_before():
    """One answer of minutes: the run serves one frame, the stream that one and the latest."""
    found = played([100_000.0] * 50)
    assert (found.served, found.to_json()["live_drops"]) == (1, 48)


def test_what_a_machine_takes_to_wake_up_is_in_the_latency():
    """A sleep that returns 3 ms late makes a frame 3 ms late."""
    found = played([5.0] * 20, oversleep_ms=3.0)
    assert found.wait_ms[1:] == pytest.approx(3.0)
    assert found.latency_ms[1:] == pytest.approx(8.0)


def test_a_percentile_that_falls_on_an_unserved_frame_is_not_known():
    """Ten of a hundred without an end leave p50, and take p90 and the largest away."""
    found = figures(np.arange(1.0, 91.0), unserved=10)
    assert found.values["p50"] == 50.0
    assert found.values["samples"] == 100
    # Rank 90 of 100 is the last that was answered; what lies above it is not known.
    assert (found.values["p90"], found.intervals["p90"]) == (90.0, None)
    assert set(found.missing) == {"p95", "p99", "max"}
    one_more = figures(np.arange(1.0, 90.0), unserved=11)
    assert (one_more.values["p90"], one_more.values["max"], one_more.intervals["p90"]) == (None, None, None)
    assert "11 of 100 frames were never answered, and this falls on one" in one_more.missing["p90"]
    assert one_more.without_end == ("p90", "max")


def test_figures_without_unserved_frames_are_those_of_the_saturated_loop():
    """The same percentiles and intervals as everywhere."""
    from edgekit.profiler.percentiles import latency

    values = np.random.default_rng(0).gamma(4.0, size=700)
    found, usual = figures(values), latency(values)
    assert found.values == usual.figures()
    assert found.intervals == usual.intervals()
    assert found.missing == {}


@pytest.mark.parametrize(
    ("service_ms", "drops"), [(5.0, 0), (19.0, 0), (30.0, 33), (50.0, 59)], ids=["fast", "just", "every third", "three in five"]
)
def test_what_a_live_stream_would_have_dropped(service_ms, drops):
    """A one-slot mailbox at 20 ms a frame: frames that another one replaced while one was answered."""
    due = np.arange(100, dtype=np.int64) * 20_000_000
    assert live_drops(due, np.full(100, service_ms)) == drops


def test_the_longest_queue_is_what_was_due_and_not_begun():
    """After a stall of 200 ms at 20 ms a frame, ten frames wait."""
    assert played([5.0] * 5 + [200.0] + [5.0] * 30).longest_queue == 10
    assert played([5.0] * 5).longest_queue == 1


def test_progress_is_told_while_nothing_waits():
    """It rises to 1, which is told once."""
    world = World([5.0] * 100)
    told = []
    play(world.serve, fps=50.0, seconds=2.0, clock=world.clock, aside=Aside(on_progress=told.append))
    assert told == sorted(told)
    assert told.count(1.0) == 1
    assert len(told) > 10


def test_progress_is_not_drawn_where_a_frame_is_near():
    """4 ms before the next one there is no time for it; start and end are told in any case."""
    world = World([16.0] * 100)
    told = []
    play(world.serve, fps=50.0, seconds=2.0, clock=world.clock, aside=Aside(on_progress=told.append))
    assert told == [0.0, 1.0]


def test_what_is_done_aside_knows_its_time_and_is_in_no_latency():
    """It is called before each frame that is not yet due, with the 15 ms that are left; frames that are late are not held up."""
    services = [5.0] * 10 + [50.0] + [5.0] * 10
    world = World(services)
    left = []

    def look(left_ns):
        left.append(left_ns / 1e6)
        world.now += left_ns

    found = play(world.serve, fps=50.0, seconds=len(services) / 50, clock=world.clock, aside=Aside(look=look))
    gaps = np.arange(1, 21) * 20.0 - lindley(services, 20.0)[:-1]
    assert left == pytest.approx(gaps[gaps > 0])
    assert len(left) < 20
    assert found.latency_ms == pytest.approx(lindley(services, 20.0) - np.arange(len(services)) * 20.0, abs=1e-5)


@pytest.mark.parametrize(("fps", "seconds"), [(0.0, 1.0), (-1.0, 1.0), (float("nan"), 1.0), (1e9, 1.0), (30.0, 0.0)])
def test_a_rate_that_is_none_is_refused(fps, seconds):
    """Zero, negative, not a number, absurd, and no time at all."""
    with pytest.raises(EdgekitError, match="frames cannot come"):
        play(lambda: None, fps=fps, seconds=seconds)


def test_one_frame_is_due_at_least():
    """A rate of one in ten seconds, for one second."""
    world = World([5.0])
    assert play(world.serve, fps=0.1, seconds=1.0, clock=world.clock).served == 1
