"""What the recorder of a stream counts, and what it never keeps."""

from __future__ import annotations

import json
import sys
import threading

import pytest

from edgekit.runtime import health as module
from edgekit.runtime.health import Health, kind_name, nearest_rank
from edgekit.runtime.sensors import Sensors

NONE = Sensors(temperatures_c={}, clocks_mhz={}, unavailable={"temperatures_c": "why"})


class Clock:
    def __init__(self):
        self.now_ns = 5_000_000_000_000

    def __call__(self):
        return self.now_ns

    def advance(self, seconds):
        self.now_ns += round(seconds * 1e9)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def health(clock):
    return Health(clock_ns=clock, sensors=lambda: NONE)


def test_every_counter_counts_its_own(health):
    """Each call moves its counter by what it says, and no other."""
    health.captured()
    health.captured(9)
    health.dropped(3)
    health.dropped()
    health.late()
    health.processed(latency_ms=8.0, age_ms=20.0)
    health.not_assessable()
    health.not_assessable()
    health.failed("DataError")
    health.degraded("map-off")
    health.degraded("full")
    health.restarted("hang")
    found = health.snapshot()
    assert (found.captured, found.dropped, found.late, found.processed, found.not_assessable) == (10, 4, 1, 1, 2)
    assert (found.failed, found.failed_by_kind) == (1, {"DataError": 1})
    assert (found.degraded, found.degraded_by_step) == (1, {"map-off": 1})
    assert (found.restarts, found.restarts_by_kind) == (1, {"hang": 1})


def test_the_step_is_the_one_it_stands_on(health):
    """It is full until the ladder says otherwise."""
    assert health.snapshot().step == "full"
    health.at_step("no-result")
    assert health.snapshot().step == "no-result"


def test_percentiles_are_measured_values(health):
    """Of 1 to 100 ms, the median is 50, p99 is 99 and the largest 100, in whatever order they came; ages are apart."""
    for value in sorted(range(1, 101), key=lambda number: number * 37 % 101):
        health.processed(latency_ms=float(value), age_ms=2.0 * value)
    found = health.snapshot()
    assert (found.latency_ms.p50_ms, found.latency_ms.p90_ms, found.latency_ms.p99_ms, found.latency_ms.max_ms) == (50, 90, 99, 100)
    assert found.age_ms.p50_ms == 100
    assert (found.latency_ms.count, found.latency_ms.sum_ms) == (100, 5050)


@pytest.mark.parametrize(("count", "known"), [(0, []), (1, []), (2, ["p50"]), (10, ["p50", "p90"]), (99, ["p50", "p90"])])
def test_too_few_samples_have_no_percentile(health, count, known):
    """A percentile that would be the largest sample by its nature is not given."""
    for _ in range(count):
        health.processed(latency_ms=1.0, age_ms=1.0)
    series = health.snapshot().latency_ms
    assert [name for name in ("p50", "p90", "p99") if getattr(series, f"{name}_ms") is not None] == known
    assert (series.max_ms is None) == (count == 0)


def test_percentiles_forget_what_is_long_past(health):
    """After a whole window of fast frames the slow beginning is in the sum, and no longer in the percentiles."""
    health.processed(latency_ms=900.0, age_ms=900.0)
    for _ in range(module.WINDOW_FRAMES):
        health.processed(latency_ms=1.0, age_ms=1.0)
    series = health.snapshot().latency_ms
    assert series.max_ms == 1.0
    assert (series.samples, series.count, series.sum_ms) == (module.WINDOW_FRAMES, module.WINDOW_FRAMES + 1, 900 + module.WINDOW_FRAMES)


def test_nearest_rank_needs_no_rounding_luck():
    """Ranks are exact where share times count is a whole number that binary fractions miss."""
    assert nearest_rank([float(value) for value in range(1, 101)], 0.07) == 7


def test_rates_are_of_whole_seconds(health, clock):
    """A steady 30 frames a second is 30, from the second second on, also at the beginning of a second; a source that stopped falls to nothing."""
    health.captured(7)
    assert health.snapshot().captured_per_s is None
    clock.advance(1)
    health.captured(9)
    assert health.snapshot().captured_per_s == 7
    clock.advance(1)
    for _ in range(20):
        health.captured(30)
        clock.advance(1)
    assert health.snapshot().captured_per_s == 30
    clock.advance(5)
    assert health.snapshot().captured_per_s == 15
    clock.advance(6)
    assert health.snapshot().captured_per_s == 0
    assert health.snapshot().processed_per_s == 0


def test_the_time_since_the_last_result(health, clock):
    """Nobody knows it before the first; afterwards it grows until the next."""
    assert health.snapshot().since_last_result_s is None
    health.processed(latency_ms=1.0, age_ms=1.0)
    clock.advance(2.5)
    found = health.snapshot()
    assert (found.since_last_result_s, found.uptime_s) == (2.5, 2.5)


SECRET = "/media/usb/DOE^JANE_1962-03-04.dcm: no frame"


def test_no_text_gets_in(health):
    """A message, a file's name or a long word is counted as other, wherever it is given, and is nowhere in the snapshot."""
    for give in (health.failed, health.degraded, health.restarted, health.at_step):
        for text in (SECRET, "DOE^JANE", "1962-03-04", "x" * 41, "naïve", "", "a\nb"):
            give(text)
    found = health.snapshot()
    assert found.failed_by_kind == found.degraded_by_step == found.restarts_by_kind == {"other": 7}
    assert found.step == "other"
    assert "JANE" not in json.dumps(found.to_json())


def test_kinds_do_not_grow_without_bound(health):
    """A caller that invents reasons fills a bounded table, and nothing is lost from the sum."""
    for number in range(500):
        health.failed(f"kind-{number}")
    found = health.snapshot()
    assert found.failed == 500
    assert len(found.failed_by_kind) == module.MAX_KINDS + 1
    assert found.failed_by_kind["other"] == 500 - module.MAX_KINDS


def test_a_kind_is_one_word():
    """Names of errors and steps pass as they are."""
    assert [kind_name(text) for text in ("TargetError", "map-every-4", "no_result", "a b")] == [
        "TargetError",
        "map-every-4",
        "no_result",
        "other",
    ]


def test_a_snapshot_is_plain_json(health):
    """It survives JSON as it is, sensors and missing values included, without NaN."""
    found = health.snapshot().to_json()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["sensors"]["unavailable"] == {"temperatures_c": "why"}
    assert found["latency_ms"]["p50_ms"] is None


def test_sums_of_threads_are_exact(health):
    """Four threads that count at once lose nothing."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work():
        for _ in range(500):
            health.captured()
            health.processed(latency_ms=1.0, age_ms=1.0)
            health.failed("DataError")

    threads = [threading.Thread(target=work) for _ in range(4)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    found = health.snapshot()
    assert (found.captured, found.processed, found.failed, found.latency_ms.count) == (2000, 2000, 2000, 2000)


def test_events_are_told_as_kinds(clock):
    """Each error and restart, and each step that is another one than before; never a text, and not under the lock."""
    told = []
    health = Health(
        clock_ns=clock, sensors=lambda: NONE, events=lambda event, facts: told.append((event, dict(facts), health.snapshot().failed))
    )
    health.failed(SECRET)
    health.restarted("hang")
    for step in ("full", "no-maps", "no-maps"):
        health.at_step(step)
    assert told == [
        ("error", {"kind": "other"}, 1),
        ("restart", {"reason": "hang"}, 1),
        ("step", {"before": "full", "step": "no-maps"}, 1),
    ]
