"""Sources: files are played by the clock, whatever times they claim, and a camera is taken at its word as far as that is possible."""

from __future__ import annotations

import numpy as np
import pytest
from dicom_builders import dicom_bytes
from PIL import Image

from edgekit.errors import DataError
from edgekit.imaging import frames
from edgekit.imaging.frames import Frame
from edgekit.runtime.sources import MAX_FPS, CameraSource, Player, check_fps, parts_of

PIXELS = np.zeros((4, 4), np.uint8)


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


@pytest.fixture
def timed(tmp_path, monkeypatch):
    """Files whose frames have these times; a list that ends with an error breaks there."""
    files = {}

    def read(path):
        for index, time_s in enumerate(files[path]):
            if isinstance(time_s, Exception):
                raise time_s
            yield Frame(pixels=PIXELS, index=index, time_s=time_s)

    monkeypatch.setattr(frames, "read", read)

    def add(*times):
        path = tmp_path / f"{len(files)}.mkv"
        path.write_bytes(b"\x1a\x45\xdf\xa3")
        files[path] = times
        return path

    return add


def test_a_time_that_goes_back_is_not_waited_for_twice(timed):
    """Those after it keep their own times."""
    due = Due()
    list(Player("x", [timed(0.0, 0.1, 0.05, 0.2)], fps=None).pictures(due))
    np.testing.assert_allclose(due.seconds, [0, 0.1, 0.1, 0.2])


@pytest.mark.parametrize(
    ("times", "index"),
    [((0.0, 0.1, 61.0), 2), ((0.0, 1e9), 1), ((0.0, 1e-5, 2e-5), 1), ((0.0, 0.0), 1), ((0.0, 0.1, float("nan")), 2), ((0.0, None), 1)],
)
def test_times_that_cannot_be_played_are_an_error_of_their_file(timed, times, index):
    """A minute without a frame, a thousand frames in a hundredth of a second, no number: the file has an error at that frame, and the next one is played."""
    due = Due()
    player = Player("x", [timed(*times), timed(5.0, 5.1)], fps=None)
    assert player.period_s == pytest.approx(0.1)
    pictures = list(player.pictures(due))
    assert max(due.seconds) < 1
    assert [picture.index for picture in pictures if picture.error is not None] == [index]
    assert [picture.index for picture in pictures][-2:] == [0, 1]
    # A rate that is named needs none of them.
    assert not [picture for picture in Player("x", [timed(*times)], fps=10).pictures(Due()) if picture.error is not None]


def test_one_file_with_such_times_says_what_is_wrong_with_it(timed):
    """Before anything is played."""
    with pytest.raises(DataError, match="61 s after") as caught:
        Player("x", [timed(0.0, 61.0)], fps=None)
    assert "--fps" in caught.value.hint


def test_where_a_file_breaks(timed):
    """The error has the place of the frame that is missing."""
    pictures = list(Player("x", [timed(0.0, 0.1, DataError("damaged"))], fps=10).pictures(Due()))
    assert [(picture.index, picture.error is None) for picture in pictures] == [(0, True), (1, True), (2, False)]


def test_rates_have_limits():
    """A frame a minute, and a thousand a second."""
    assert (check_fps(1 / 60), check_fps(MAX_FPS)) == (1 / 60, MAX_FPS)
    for fps in (1e-9, 0.01, 1001):
        with pytest.raises(DataError, match="cannot be played at"):
            check_fps(fps)


def test_the_parts_of_an_input(tmp_path):
    """What moves is one part each, and so are the pictures of one folder, single-frame objects among them; what cannot be read is one of its own."""
    for name in ("a/1.png", "a/2.png", "a/b/1.png", "c/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS).save(tmp_path / name)
    single, moving, bad = tmp_path / "a" / "0.dcm", tmp_path / "a" / "1x.dcm", tmp_path / "a" / "1y.png"
    single.write_bytes(dicom_bytes(np.zeros((1, 6, 8), np.uint8)))
    cine(moving)
    bad.write_bytes(b"damaged")
    paths = frames.expand([tmp_path])
    found = {part: [path.name for path in members] for part, members in parts_of(paths).items()}
    a, b, c = (str(tmp_path / name) for name in ("a", "a/b", "c"))
    assert found == {a: ["0.dcm", "1.png", "2.png"], str(moving): ["1x.dcm"], str(bad): ["1y.png"], b: ["1.png"], c: ["1.png"]}
    pictures = list(Player("x", paths, fps=10).pictures(Due()))
    assert [picture.part for picture in pictures] == [a] * 3 + [str(moving)] * 3 + [""] + [b, c]


def test_a_camera_that_tells_nonsense_asks_for_a_rate():
    """A frame a year, a million a second."""
    for period_s in (1e-6, 3e7):
        camera = FakeCamera()
        camera.period_s = period_s
        assert CameraSource(camera, fps=20).period_s == 0.05
        with pytest.raises(DataError, match="does not say how many frames"):
            CameraSource(camera)
