"""Video files: the pixels that were stored, their times, and damage as an error."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from video_builders import broken_in_the_middle, noise, write_video

from edgekit.errors import DataError, MissingEngineError
from edgekit.imaging import frames, video

pytest.importorskip("av", reason="PyAV is not installed")

CONTAINERS = {
    "mp4": ("libx264", "mp4", "yuv420p", {}),
    "mov": ("mpeg4", "mov", "yuv420p", {}),
    "avi": ("mpeg4", "avi", "yuv420p", {}),
    "mkv": ("mjpeg", "matroska", "yuvj420p", {}),
    "webm": ("libvpx-vp9", "webm", "yuv420p", {}),
}
SMOOTH = [np.add.outer(np.arange(96), np.arange(128)).astype(np.uint8) // 2 + 5 * number for number in range(20)]


def read(path):
    return list(frames.read(path))


@pytest.mark.parametrize("name", sorted(CONTAINERS))
def test_each_container_is_read_whatever_its_name(tmp_path, name):
    """All frames, in order, with their times; the content decides the format."""
    codec, container, pix_fmt, options = CONTAINERS[name]
    found = read(write_video(tmp_path / "clip.bin", SMOOTH, codec=codec, container=container, pix_fmt=pix_fmt, **options))
    assert [frame.index for frame in found] == list(range(20))
    np.testing.assert_allclose([frame.time_s for frame in found], np.arange(20) / 25, atol=0.001)
    for frame, stored in zip(found, SMOOTH, strict=True):
        assert frame.pixels.shape == (96, 128, 3)
        assert np.abs(frame.pixels.mean(axis=2) - stored).mean() < 4


def test_grey_stays_grey_bit_for_bit(tmp_path):
    """A stream of grey frames gives one plane, and a lossless one the very pixels; whoever reads them owns them."""
    stored = noise(6)
    found = read(write_video(tmp_path / "x.mkv", stored))
    np.testing.assert_array_equal([frame.pixels for frame in found], stored)
    assert all(frame.pixels.flags.owndata and frame.pixels.flags.writeable for frame in found)


def test_grey_of_more_bits_is_scaled_over_the_whole_range(tmp_path):
    """10 bits become 8, linearly and rounded."""
    found = read(write_video(tmp_path / "x.mkv", SMOOTH, pix_fmt="gray10le"))
    np.testing.assert_array_equal([frame.pixels for frame in found], SMOOTH)


PATCHES = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (40, 90, 200)]


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("span", ["limited", "full"])
def test_colours_are_those_that_were_filmed(tmp_path, span, matrix):
    """The stream's own range and matrix are used: a wrong one is off by 20 and more."""
    filmed = [np.full((48, 64, 3), patch, np.uint8) for patch in PATCHES]
    path = write_video(tmp_path / "x.mp4", filmed, codec="libx264", container="mp4", pix_fmt="yuv444p", colours=(span, matrix), qp="0")
    found = [frame.pixels[20, 20] for frame in read(path)]
    assert np.abs(np.array(found, dtype=int) - np.array(PATCHES)).max() <= 3


@pytest.mark.parametrize("name", ["mp4", "avi", "mkv"])
def test_damage_is_an_error_at_its_frame(tmp_path, name):
    """The frames before it are there, then the damage is said; no frame comes after it."""
    codec, container, pix_fmt, _ = CONTAINERS[name]
    path = write_video(tmp_path / "whole", noise(20, 96, 128), codec=codec, container=container, pix_fmt=pix_fmt)
    seen = []
    with pytest.raises(DataError, match="the video is damaged at frame"):
        seen.extend(frames.read(broken_in_the_middle(path)))
    assert 0 < len(seen) < 20


def test_damage_that_a_decoder_hides_is_an_error_too(tmp_path):
    """FFV1 shows the frame before in place of one whose check value is wrong, and only writes that into a log."""
    path = write_video(tmp_path / "whole", noise(20), level="3", slicecrc="1")
    seen: list[frames.Frame] = []
    with pytest.raises(DataError, match=r"damaged at frame .*: slice CRC mismatch"):
        seen.extend(frames.read(broken_in_the_middle(path, size=3)))
    assert 0 < len(seen) < 20


def test_a_frame_that_a_decoder_leaves_out_is_missed(tmp_path):
    """Without its first packet a stream has frames that nothing can be made of; FFmpeg says nothing and begins later."""
    import av

    moving = [np.add.outer(np.arange(96) + 3 * number, np.arange(128) * 2).astype(np.uint8) for number in range(20)]
    path = write_video(tmp_path / "whole.mkv", moving, codec="libx264", pix_fmt="yuv420p", g="5", bf="0", sc_threshold="0")
    with av.open(str(path)) as whole, av.open(str(tmp_path / "cut.mkv"), "w", format="matroska") as cut:
        stream = cut.add_stream_from_template(whole.streams.video[0])
        for number, packet in enumerate(whole.demux(whole.streams.video[0])):
            if number and packet.size:
                packet.stream = stream
                cut.mux(packet)
    with pytest.raises(DataError, match="19 were stored, and no more than 15 can be decoded"):
        read(tmp_path / "cut.mkv")


def test_hidden_frames_are_no_damage(tmp_path):
    """VP8 stores frames that are never shown."""
    options = {"auto-alt-ref": "1", "lag-in-frames": "16", "b": "100k"}
    path = write_video(tmp_path / "x.webm", SMOOTH, codec="libvpx", container="webm", pix_fmt="yuv420p", **options)
    assert len(read(path)) == len(SMOOTH)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.999])
@pytest.mark.parametrize("name", sorted(CONTAINERS))
def test_a_file_that_was_cut_off_is_refused_before_its_first_frame(tmp_path, name, share):
    """FFmpeg would end it like a whole one; a cine without its end must not be answered as if nothing were missing."""
    codec, container, pix_fmt, _ = CONTAINERS[name]
    path = write_video(tmp_path / "whole", noise(10), codec=codec, container=container, pix_fmt=pix_fmt)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match="truncated"):
        next(frames.read(path))


def test_a_frame_above_the_limit_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    """The header says the size; no memory is taken for it."""
    path = write_video(tmp_path / "x.mkv", noise(2))
    monkeypatch.setattr(video, "MAX_FRAME_PIXELS", 48 * 64 - 1)
    with pytest.raises(DataError, match="more than 3071"):
        next(frames.read(path))


def test_only_decoders_that_are_listed_run(tmp_path):
    """Another codec is named, with those that are read."""
    path = write_video(tmp_path / "x.mkv", SMOOTH, codec="prores_ks", pix_fmt="yuv422p10le")
    with pytest.raises(DataError, match="encoded with prores, which is not read") as caught:
        next(frames.read(path))
    assert "h264" in caught.value.hint


def test_a_video_that_is_see_through_is_refused(tmp_path):
    """What is behind it would be a guess."""
    path = write_video(tmp_path / "x.mkv", SMOOTH, pix_fmt="yuva420p")
    with pytest.raises(DataError, match="see-through"):
        next(frames.read(path))


def _tracks(path, kinds):
    """A Matroska file with one frame in each of its tracks."""
    import av

    with av.open(str(path), "w", format="matroska") as file:
        streams = [file.add_stream("ffv1", rate=25) if kind == "video" else file.add_stream("pcm_s16le", rate=8000) for kind in kinds]
        for stream, kind in zip(streams, kinds, strict=True):
            if kind == "video":
                stream.width, stream.height, stream.pix_fmt = 64, 48, "gray"
        for stream, kind in zip(streams, kinds, strict=True):
            if kind == "video":
                frame = av.VideoFrame.from_ndarray(noise(1)[0], format="gray")
            else:
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
                frame.sample_rate = 8000
            file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("kinds", "words"), [(("video", "video"), "2 video tracks"), (("sound",), "no video tracks")], ids=["two", "none"])
def test_what_has_not_one_video_track_is_refused(tmp_path, kinds, words):
    """Which of two is meant is not guessed."""
    with pytest.raises(DataError, match=words):
        next(frames.read(_tracks(tmp_path / "x.mkv", kinds)))


def test_sound_beside_a_video_is_left_alone(tmp_path):
    """A scanner records the examiner's voice; its track is never decoded."""
    assert len(read(_tracks(tmp_path / "x.mkv", ("video", "sound")))) == 1


def test_no_other_file_is_opened(tmp_path, monkeypatch):
    """A playlist that is named a video, and a file that refers to another one, open nothing but themselves."""
    import av

    secret = write_video(tmp_path / "secret.mkv", noise(2))
    playlist = tmp_path / "x.mkv"
    playlist.write_bytes(b"\x1a\x45\xdf\xa3#EXTM3U\n" + str(secret).encode())
    with pytest.raises(DataError):
        next(frames.read(playlist))
    opened = []
    whole = av.open
    monkeypatch.setattr(av, "open", lambda file, *args, **options: opened.append((file, options)) or whole(file, *args, **options))
    read(secret)
    ((file, options),) = opened
    assert not isinstance(file, str)
    assert options["format"] == "matroska"
    with pytest.raises(PermissionError):
        options["io_open"]("file:/etc/hostname", 0, {})


def test_a_still_picture_in_a_container_of_video_is_refused(tmp_path):
    """HEIF and AVIF begin like an MP4."""
    path = tmp_path / "x.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 100)
    with pytest.raises(DataError, match="still pictures"):
        next(frames.read(path))


def test_an_avi_that_was_never_finished_is_refused(tmp_path):
    """Its writer fills in the sizes at the end."""
    path = write_video(tmp_path / "x.avi", noise(5), codec="mpeg4", container="avi", pix_fmt="yuv420p")
    data = bytearray(path.read_bytes())
    data[4:8] = bytes(4)
    path.write_bytes(data)
    with pytest.raises(DataError, match="never finished"):
        next(frames.read(path))


def test_a_video_without_pyav_names_the_extra(tmp_path, monkeypatch):
    """Who installed edgekit can act on it."""
    path = write_video(tmp_path / "x.mkv", noise(2))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingEngineError, match="needs PyAV") as caught:
        next(frames.read(path))
    assert "edgekit-toolkit[video]" in caught.value.hint


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_video_is_turned_as_a_player_shows_it(turn):
    """The display matrix turns the pixels; another angle than a quarter is refused."""
    from types import SimpleNamespace

    from edgekit.imaging.decoded import pixels_of

    stored = noise(1)[0]
    layout = SimpleNamespace(name="gray", components=[SimpleNamespace(bits=8)])

    def shown(rotation):
        return pixels_of(
            "x", SimpleNamespace(width=64, height=48, format=layout, color_range=0, rotation=rotation, to_ndarray=lambda: stored)
        )

    np.testing.assert_array_equal(shown(turn), np.rot90(stored, turn // 90))
    with pytest.raises(DataError, match="turned by 30"):
        shown(30)
