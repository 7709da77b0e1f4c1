"""Feeds: what is captured is taken or counted as dropped, and nothing hangs. The threads here are real, and wait for each other, never for time."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from PIL import Image
from stream_world import FakeClip, World

from edgekit.errors import DataError, TargetError
from edgekit.runtime import feeds, mailbox
from edgekit.runtime.feeds import EveryFeed, LatestFeed
from edgekit.runtime.health import Health
from edgekit.runtime.sources import Picture, Player
from edgekit.runtime.stream import Stream, StreamOptions

PIXELS = np.zeros((4, 4), np.uint8)


def shown(number, **options):
    return Picture(input="x", index=number, pixels=PIXELS, **options)


class Scripted:
    """A source that gives its first picture, the others when it is let, and then ends when it is let, or raises."""

    name, period_s = "camera:0", 1 / 60

    def __init__(self, pictures, *, error=None, stalls=False) -> None:
        self.given, self.error, self.stalls = pictures, error, stalls
        self.gate, self.closed = threading.Event(), 0
        self.go_on, self.all_given = threading.Event(), threading.Event()

    def pictures(self, _wait_until):
        yield self.given[0]
        self.go_on.wait(30)
        yield from self.given[1:]
        self.all_given.set()
        if self.error is not None:
            raise self.error
        self.gate.wait(30)

    def close(self):
        self.closed += 1


def test_only_the_latest_frame_is_taken_and_the_others_are_counted():
    """A taker that comes late gets the newest frame; captured = taken + dropped, the frame left at the end among them."""
    health, source = Health(), Scripted([shown(number) for number in range(100)])
    feed = LatestFeed(source, health)
    assert feed.take().number == 0
    source.go_on.set()
    assert source.all_given.wait(30)
    assert feed.take().number == 99
    assert (health.snapshot().captured, health.snapshot().dropped) == (100, 98)
    source.gate.set()
    feed.close()
    assert source.closed == 1


def test_the_frame_that_waits_at_the_end_is_counted_too():
    """Captured = taken + dropped, also where nobody asks any more."""
    health, source = Health(), Scripted([shown(number) for number in range(10)])
    feed = LatestFeed(source, health)
    feed.take()
    source.go_on.set()
    assert source.all_given.wait(30)
    source.gate.set()
    feed.close()
    assert (health.snapshot().captured, health.snapshot().dropped) == (10, 9)


def test_errors_are_not_overwritten():
    """A file that cannot be read is heard of, however many frames come after it."""
    health = Health()
    pictures = [Picture(input="bad", index=0, error=DataError("damaged")), *[shown(number) for number in range(50)]]
    source = Scripted(pictures)
    feed = LatestFeed(source, health)
    source.go_on.set()
    source.gate.set()
    shots = []
    while (shot := feed.take()) is not None:
        shots.append(shot)
    assert [shot.picture.input for shot in shots].count("bad") == 1
    assert shots[-1].number == 50
    assert shots[-1].frame_number == 49
    feed.close()


def test_what_the_source_ends_with_reaches_the_taker_after_its_last_frame():
    """A camera that is unplugged, and a defect, alike."""
    for error in (TargetError("unplugged"), ZeroDivisionError("defect")):
        source = Scripted([shown(0)], error=error)
        source.go_on.set()
        feed = LatestFeed(source, Health())
        assert feed.take().number == 0
        with pytest.raises(type(error)):
            feed.take()
        feed.close()
        assert source.closed == 1


def test_a_camera_that_falls_silent_is_an_error(monkeypatch):
    """Nobody waits for ever, and closing does not wait for a driver that does not answer."""
    monkeypatch.setattr(feeds, "STALL_S", 0.01)
    monkeypatch.setattr(feeds, "STOP_S", 0.01)
    source = Scripted([shown(0)], stalls=True)
    feed = LatestFeed(source, Health())
    feed.take()
    with pytest.raises(TargetError, match="no frame came for"):
        feed.take()
    feed.close()
    source.go_on.set()
    source.gate.set()


def test_a_feed_ends_at_its_time():
    """With a source that never ends."""
    source = Scripted([shown(0)])
    feed = LatestFeed(source, Health())
    assert feed.take() is not None
    assert feed.take(until_ns=time.monotonic_ns() + 10_000_000) is None
    assert feed.take(until_ns=time.monotonic_ns() - 1) is None
    source.go_on.set()
    source.gate.set()
    feed.close()
    assert EveryFeed(iter([shown(0)]), Health()).take(until_ns=0) is None


def test_every_frame_comes_in_order_with_its_time():
    """Nothing is read before it is asked for."""
    world, read = World(), []
    pictures = (read.append(number) or shown(number) for number in range(3))
    feed = EveryFeed(pictures, world.health(), world.clocks)
    assert read == []
    world.work(5)
    shot = feed.take()
    assert (shot.number, shot.captured_ns, read) == (0, 5_000_000, [0])
    assert [feed.take().number for _ in range(2)] == [1, 2]
    assert feed.take() is None
    feed.close()
    assert feed.take() is None


def test_a_real_stream_accounts_for_every_frame(tmp_path):
    """Real threads, a real clock: a folder played at 500 frames a second into a classifier that needs 5 ms."""
    for number in range(100):
        Image.fromarray(np.full((4, 4), number, np.uint8)).save(tmp_path / f"{number:03d}.png")
    (tmp_path / "050x.png").write_bytes(b"damaged")
    health = Health()

    class Slow(FakeClip):
        def predict(self, frame, *, explain=True):
            time.sleep(0.005)
            return super().predict(frame, explain=explain)

    source = Player(str(tmp_path), sorted(tmp_path.iterdir()), fps=500)
    stream = Stream(Slow(World()), health, StreamOptions(period_s=source.period_s, deadline_ms=10_000))
    results = list(stream.play(LatestFeed(source, health)))
    found = health.snapshot()
    assert found.captured == 101
    assert found.failed == 1
    assert found.captured == found.processed + found.late + found.dropped + found.failed
    assert found.dropped > 0
    for result in results:
        if result.error is None:
            assert int(result.prediction.seen[0, 0]) == int(result.input[-7:-4])
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("capture")]


def test_a_lower_rate_waits():
    """A frame that is there is not taken before its time, and the newest one is taken then."""
    health, source = Health(), Scripted([shown(number) for number in range(3)])
    feed = LatestFeed(source, health)
    feed.take()
    source.go_on.set()
    assert source.all_given.wait(30)
    not_before_ns = time.monotonic_ns() + 100_000_000
    shot = feed.take(not_before_ns=not_before_ns)
    assert time.monotonic_ns() >= not_before_ns
    assert shot.number == 2
    source.gate.set()
    feed.close()


def test_errors_that_there_is_no_room_for_are_counted(monkeypatch):
    """A damaged camera fills no memory, and no frame is forgotten."""
    monkeypatch.setattr(mailbox, "MAX_NOTICES", 3)
    health = Health()
    source = Scripted([shown(0), *[Picture(input="x", index=number, error=DataError("damaged")) for number in range(10)]])
    feed = LatestFeed(source, health)
    feed.take()
    source.go_on.set()
    assert source.all_given.wait(30)
    assert health.snapshot().failed_by_kind == {"DataError": 7}
    source.gate.set()
    feed.close()


def test_a_slow_camera_is_not_dead(monkeypatch):
    """It may be silent for some frame times of its own."""
    monkeypatch.setattr(feeds, "STALL_S", 0.001)
    source = Scripted([shown(0)], stalls=True)
    source.period_s = 0.03
    feed = LatestFeed(source, Health())
    feed.take()
    with pytest.raises(TargetError, match=r"no frame came for 0\.3 seconds"):
        feed.take()
    source.go_on.set()
    source.gate.set()
    feed.close()
