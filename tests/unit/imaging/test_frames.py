"""The right reader takes a file, and a list of inputs stands for the right files."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from dicom_builders import dicom_bytes
from PIL import Image

from edgekit.errors import DataError
from edgekit.imaging import frames

PIXELS = np.arange(48, dtype=np.uint8).reshape(6, 8)


def _saved(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind)
    return buffer.getvalue()


def _write(path: Path, data: bytes | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_saved("PNG") if data is None else data)
    return path


@pytest.mark.parametrize("name", ["frame.png", "frame.jpg", "frame", "frame.txt"])
def test_content_decides_the_format(tmp_path, name):
    """A PNG is read as one whatever its name says."""
    (frame,) = frames.read(_write(tmp_path / name))
    np.testing.assert_array_equal(frame.pixels, PIXELS)
    assert frame.index == 0


def test_every_reader_is_reached(tmp_path):
    """PNG, JPEG and DICOM, with and without preamble, go to their readers, and frames are numbered from 0."""
    cine = np.stack([PIXELS, PIXELS + 9])
    assert [f.pixels.shape for f in frames.read(_write(tmp_path / "a", _saved("JPEG")))] == [(6, 8)]
    for preamble in (True, False):
        found = list(frames.read(_write(tmp_path / "b", dicom_bytes(cine, preamble=preamble))))
        assert [frame.index for frame in found] == [0, 1]
        np.testing.assert_array_equal([frame.pixels for frame in found], cine)


def test_frames_are_read_one_at_a_time(tmp_path):
    """The first frame of a damaged cine is there before the damage is met."""
    data = dicom_bytes(np.zeros((2, 16, 16), np.uint8), syntax="1.2.840.10008.1.2.4.50")
    second = data.rindex(b"\xff\xd8\xff")
    found = frames.read(_write(tmp_path / "cine", data[:second] + b"\0\0\0" + data[second + 3 :]))
    assert next(found).index == 0
    with pytest.raises(DataError, match="compressed frame"):
        next(found)


def test_tiff_in_a_dicom_preamble_is_allowed(tmp_path):
    """A DICOM file whose preamble makes it a TIFF too is read as DICOM."""
    data = dicom_bytes(PIXELS[None])
    (frame,) = frames.read(_write(tmp_path / "dual", b"II*\x00" + data[4:]))
    np.testing.assert_array_equal(frame.pixels, PIXELS)


FAULTS = {
    "empty": (b"", "empty"),
    "text": (b"a,b\n1,2\n", "not a picture that edgekit knows"),
    "png-and-dicom": (_saved("PNG")[:128].ljust(128, b"\0") + dicom_bytes(PIXELS[None])[128:], "PNG and DICOM at once"),
    "gif": (b"GIF89a" + b"\0" * 200, "GIF, is not read"),
    "tiff": (b"II*\0" + b"\0" * 200, "TIFF, is not read"),
}


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_what_is_not_read_is_named(tmp_path, fault):
    """A format that is not read is named, at once, with what is read."""
    data, words = FAULTS[fault]
    with pytest.raises(DataError, match=words) as caught:
        frames.read(_write(tmp_path / "file.png", data))
    if fault in {"text", "gif", "tiff"}:
        assert "PNG, JPEG, DICOM, MP4, MOV, AVI, Matroska and WebM" in caught.value.hint


def test_what_is_no_file_is_refused(tmp_path):
    """A missing file, a folder, a pipe and a name that cannot be are errors, and the pipe is not waited for."""
    os.mkfifo(tmp_path / "pipe")
    for name, words in (("missing", "no such file"), (".", "folder"), ("pipe", "pipe"), ("nul\0l", "cannot be read")):
        with pytest.raises(DataError, match=words):
            frames.read(tmp_path / name)


def test_unreadable_file_is_refused(tmp_path, monkeypatch):
    """A file that may not be opened is an error with the system's reason."""
    path = _write(tmp_path / "secret.png")

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match="Permission denied"):
        frames.read(path)


def test_folder_is_searched_in_the_order_of_paths(tmp_path):
    """A folder gives its frames, those below it too, in the order of their paths."""
    for name in ("b.png", "a/z.PNG", "a/b/1.dcm", "c.jpeg", "no-suffix"):
        _write(tmp_path / name)
    assert frames.expand([tmp_path]) == [tmp_path / name for name in ("a/b/1.dcm", "a/z.PNG", "b.png", "c.jpeg", "no-suffix")]


def test_folder_skips_what_is_no_frame_and_nothing_else(tmp_path):
    """Notes, tables, hidden files and a DICOMDIR are skipped; a damaged frame and a video are kept, so that reading them reports it."""
    for name, data in {
        "notes.txt": b"text",
        "manifest.csv": b"a,b",
        "nothing": b"",
        ".DS_Store": b"x",
        "._frame.png": b"x",
        ".git/frame.png": None,
        "DICOMDIR": dicom_bytes(PIXELS[None]),
        "damaged.png": b"",
        "clip": b"\0\0\0\x18ftypisom" + b"\0" * 200,
        "mask.tif": FAULTS["tiff"][0],
    }.items():
        _write(tmp_path / name, data)
    os.mkfifo(tmp_path / "pipe")
    assert frames.expand([tmp_path]) == [tmp_path / "clip", tmp_path / "damaged.png"]


def test_inputs_keep_their_order(tmp_path):
    """Files are taken as they are and in the order given, folders in between."""
    later, earlier, folder = _write(tmp_path / "z.png"), _write(tmp_path / "a.png"), tmp_path / "m"
    _write(folder / "1.png")
    assert frames.expand([later, folder, earlier]) == [later, folder / "1.png", earlier]


def test_links_are_followed_once(tmp_path):
    """Linked files and folders are found, and a link to a folder above does not go round for ever."""
    _write(tmp_path / "in" / "a.png")
    _write(tmp_path / "out" / "b.png")
    (tmp_path / "in" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "over").symlink_to(tmp_path / "out")
    (tmp_path / "in" / "file.png").symlink_to(tmp_path / "out" / "b.png")
    (tmp_path / "in" / "broken.png").symlink_to(tmp_path / "gone.png")
    found = [str(path.relative_to(tmp_path / "in")) for path in frames.expand([tmp_path / "in"])]
    assert found == ["a.png", "broken.png", "file.png", "over/b.png"]


@pytest.mark.parametrize(
    ("name", "words"), [("missing", "no such file or folder"), ("hollow", "holds no frame"), ("file.png/below", "no such file or folder")]
)
def test_inputs_without_frames_are_errors(tmp_path, name, words):
    """A path that does not exist and a folder without any frame are errors that name them."""
    (tmp_path / "hollow").mkdir()
    _write(tmp_path / "file.png")
    with pytest.raises(DataError, match=words) as caught:
        frames.expand([tmp_path / name])
    assert name in caught.value.message


def test_no_input_and_cameras_are_errors():
    """No input at all and a camera are refused with what is read."""
    with pytest.raises(DataError, match="no input"):
        frames.expand([])
    with pytest.raises(DataError, match="a camera is no file"):
        frames.expand([Path("camera:0")])


def test_table_of_formats_is_sound():
    """Every format's magic lies within the bytes that are looked at, and every reader is in the table; pictures alone do not move."""
    assert all(row.offset + len(row.magic) <= 132 for row in frames.FORMATS)
    videos = {"MP4 or MOV video", "AVI video", "Matroska or WebM video"}
    assert {row.name for row in frames.FORMATS if row.read is not None} == {"PNG", "JPEG", "DICOM", *videos}
    assert {row.name for row in frames.FORMATS if row.moving} == {"DICOM", *videos}
