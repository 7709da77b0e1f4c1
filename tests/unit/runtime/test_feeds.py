"""Feeds and sources: what is captured is taken or counted as dropped, and nothing hangs. The threads here are real, and wait for each other, never for time."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from dicom_builders import dicom_bytes
from PIL import Image
from stream_world import FakeClip, World

from edgekit.errors import DataError, TargetError
from edgekit.runtime import feeds
from edgekit.runtime.feeds import EveryFeed, LatestFeed
from edgekit.runtime.health import Health
from edgekit.runtime.sources import CameraSource, Picture, Player
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


class Due:
    """In place of waiting: notes what was waited for."""

    def __init__(self, limit=1e9) -> None:
        self.seconds, self.limit = [], limit

    def __call__(self, seconds):
        self.seconds.append(seconds)
        return len(self.seconds) <= self.limit


def cine(path, count=3, **attributes):
    path.write_bytes(dicom_bytes(np.arange(count * 48, dtype=np.uint8).reshape(count, 6, 8), **attributes))
    return path


def test_a_player_keeps_to_the_clock(tmp_path):
    """Frame i of everything is due at i frame times; a file that cannot be read costs no time and is told."""
    paths = [cine(tmp_path / "a.dcm"), tmp_path / "gone.png", cine(tmp_path / "b.dcm")]
    due = Due()
    pictures = list(Player("folder", paths, fps=10).pictures(due))
    np.testing.assert_allclose(due.seconds, np.arange(6) / 10)
    assert [picture.index for picture in pictures if picture.error is None] == [0, 1, 2, 0, 1, 2]
    assert [picture.input for picture in pictures if picture.error is not None] == [str(tmp_path / "gone.png")]


def test_a_file_is_played_at_its_own_rate(tmp_path):
    """Its times are kept, whatever they begin with, and the next file follows after a frame time."""
    paths = [cine(tmp_path / "a.dcm", FrameTimeVector=["0", "100", "300"]), cine(tmp_path / "b.dcm", FrameTime="100")]
    player, due = Player("folder", paths, fps=None), Due()
    assert player.period_s == pytest.approx(0.1)
    list(player.pictures(due))
    np.testing.assert_allclose(due.seconds, [0, 0.1, 0.4, 0.5, 0.6, 0.7])


def test_what_has_no_rate_asks_for_one(tmp_path):
    """Pictures, and cines that do not say; a rate that is none is refused."""
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    for paths in ([tmp_path / "a.png"], [cine(tmp_path / "c.dcm")]):
        with pytest.raises(DataError, match="how fast") as caught:
            Player("x", paths, fps=None)
        assert "--fps" in caught.value.hint
    mixed = [cine(tmp_path / "d.dcm", FrameTime="40"), tmp_path / "a.png"]
    assert "how fast" in list(Player("x", mixed, fps=None).pictures(Due()))[-1].error.message
    for fps in (0, -1, float("nan"), float("inf"), 1e6):
        with pytest.raises(DataError, match="cannot be played at"):
            Player("x", mixed, fps=fps)


def test_a_player_that_is_stopped_reads_no_further(tmp_path):
    """Waiting says so."""
    assert len(list(Player("x", [cine(tmp_path / "a.dcm")], fps=10).pictures(Due(limit=2)))) == 2


class FakeCamera:
    name, period_s = "camera:0", 0.04

    def __init__(self) -> None:
        self.closed = 0

    def frames(self):
        yield PIXELS
        yield DataError("a frame arrived damaged")
        yield PIXELS

    def close(self):
        self.closed += 1


def test_a_camera_is_a_source():
    """Damaged frames are pictures with an error; a camera without a rate asks for one, and is given back."""
    camera = FakeCamera()
    source = CameraSource(camera)
    found = list(source.pictures(Due()))
    assert [(picture.index, picture.error is None) for picture in found] == [(0, True), (1, False), (2, True)]
    assert source.period_s == 0.04
    assert source.stalls
    camera.period_s = None
    assert CameraSource(camera, fps=20).period_s == 0.05
    with pytest.raises(DataError, match="does not say how many frames"):
        CameraSource(camera)
    assert camera.closed == 1
