"""Cameras: FFmpeg's own test picture stands in for a device; what a driver can do wrong is played by hand."""

from __future__ import annotations

import itertools
import sys
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from edgekit.errors import DataError, MissingEngineError, TargetError
from edgekit.imaging.camera import Camera, is_camera

av = pytest.importorskip("av", reason="PyAV is not installed")


def picture(rate: int = 30, options: str = ""):
    """An opener that gives FFmpeg's test picture in place of a device."""
    return lambda _device, fps: av.open(f"testsrc=size=64x48:rate={int(fps or rate)}{options}", format="lavfi")


class Driver:
    """A device by hand: gives what it is told, an exception by raising it."""

    def __init__(self, *packets) -> None:
        self.packets, self.closed = packets, 0
        context = SimpleNamespace(thread_count=0)
        self.streams = SimpleNamespace(video=[SimpleNamespace(codec_context=context, average_rate=Fraction(25), guessed_rate=None)])

    def demux(self, _stream):
        for packet in self.packets:
            if isinstance(packet, Exception):
                raise packet
            yield packet

    def close(self) -> None:
        self.closed += 1


def packet(decode, *, corrupt=False, size=100):
    return SimpleNamespace(decode=decode, is_corrupt=corrupt, size=size)


def good():
    return packet(lambda: [av.VideoFrame.from_ndarray(np.full((48, 64), 7, np.uint8), format="gray")])


def failing(error):
    def decode():
        raise error

    return packet(decode)


def test_a_camera_gives_frames_and_its_rate():
    """Frames in RGB, one after the other, without end."""
    with Camera("camera:0", opener=picture()) as camera:
        assert camera.period_s == pytest.approx(1 / 30)
        found = list(itertools.islice(camera.frames(), 5))
    assert {(frame.shape, frame.dtype.name) for frame in found} == {((48, 64, 3), "uint8")}
    # FFmpeg's test picture has saturated red and saturated blue.
    assert (found[0].reshape(-1, 3).max(axis=0) > 200).all()


def test_the_rate_and_the_device_are_asked_for():
    """The N of camera:N is /dev/videoN's, and --fps reaches the driver."""
    asked = []
    Camera("camera:12", fps=50, opener=lambda device, fps: asked.append((device, fps)) or picture()(device, fps)).close()
    assert asked == [("/dev/video12", 50)]
    with Camera("camera:0", fps=50, opener=picture()) as camera:
        assert camera.period_s == pytest.approx(1 / 50)


def test_a_damaged_frame_is_lost_and_the_next_one_is_read():
    """Each lost frame is an error with its reason, and the camera goes on."""
    driver = Driver(
        good(), failing(av.error.InvalidDataError(1, "Invalid data")), packet(list, corrupt=True), failing(ValueError("odd")), good()
    )
    camera = Camera("camera:0", opener=lambda *_: driver)
    found = list(itertools.islice(camera.frames(), 5))
    assert [isinstance(item, DataError) for item in found] == [False, True, True, True, False]
    assert "Invalid data" in found[1].message
    np.testing.assert_array_equal(found[4], np.full((48, 64), 7))


@pytest.mark.parametrize("end", [av.error.OSError(19, "No such device"), packet(list, size=0), None])
def test_a_camera_that_is_unplugged_is_one_error(end):
    """After the frames before it; whatever the driver makes of it."""
    driver = Driver(good(), good(), *([] if end is None else [end]))
    camera = Camera("camera:3", opener=lambda *_: driver)
    seen = []
    with pytest.raises(TargetError, match=r"camera:3: the camera (gives no more frames: No such device|has ended)"):
        seen.extend(camera.frames())
    assert len(seen) == 2


@pytest.mark.parametrize("name", ["camera:", "camera:x", "camera:-1", "camera:0/../../etc/passwd", "camera:1 ", "camera:1234"])
def test_a_name_that_is_no_cameras_is_refused(name):
    """Nothing but a number reaches the name of a device."""
    assert is_camera(name)
    with pytest.raises(DataError, match="N the number"):
        Camera(name, opener=lambda *_: pytest.fail("opened"))


def test_a_device_that_is_not_there_is_named_with_those_that_are():
    """And one that may not be opened says why."""
    with pytest.raises(TargetError, match="there is no /dev/video987"):
        Camera("camera:987")

    def refuse(device, fps):
        raise av.error.PermissionError(13, "Permission denied")

    with pytest.raises(TargetError, match="cannot be opened: Permission denied"):
        Camera("camera:0", opener=refuse)


def test_a_device_without_video_is_refused_and_given_back():
    """Many cameras have a second device that gives no picture."""
    driver = Driver()
    driver.streams.video.clear()
    with pytest.raises(TargetError, match="gives no video"):
        Camera("camera:1", opener=lambda *_: driver)
    assert driver.closed == 1


def test_other_systems_are_refused_with_the_reason(monkeypatch):
    """Video4Linux is Linux's."""
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(TargetError, match="which darwin has not"):
        Camera("camera:0")


def test_without_pyav_the_extra_is_named(monkeypatch):
    """Who installed edgekit can act on it."""
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingEngineError, match="needs PyAV"):
        Camera("camera:0")
