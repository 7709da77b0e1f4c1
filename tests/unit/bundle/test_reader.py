"""Opening a bundle: everything checked, every fault refused with its reason."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from bundle_builders import ARRAY_FAULTS, FAULTS, tiny_bundle, tiny_members, write_tiny_bundle

from edgekit.bundle import reader
from edgekit.bundle.arrays import dump_array, parse_array
from edgekit.bundle.limits import Limits
from edgekit.bundle.reader import open_bundle, read_bundle
from edgekit.errors import BundleError, TargetError

WHOLE = tiny_bundle()

# What the message says about each fault of the builders: whoever reads it must not look for the wrong thing.
SAYS = {
    "empty": "is not an edgekit bundle",
    "not-a-zip": "is not an edgekit bundle",
    "flipped-byte": "member 'model/openvino.xml' does not have its checksum",
    "flipped-manifest-byte": "member 'manifest.json' does not have its checksum",
    "flipped-date": "header of member 'golden/frames.npy' does not agree",
    "truncated": "end record is missing",
    "appended": "end record is missing",
    "prefixed": "is not an edgekit bundle",
    "prefixed-by-zip": "points to the wrong place",
    "deflated": "'golden/frames.npy' is compressed",
    "rezipped": "does not agree",
    "data-descriptors": "but the file has",
    "commented": "end record is missing",
    "missing-manifest": "has no manifest.json",
    "missing-member": "the member 'model/openvino.bin' is missing",
    "unlisted-member": "holds the member 'report/a', which its manifest does not list",
    "duplicate-member": "'model/openvino.bin' is there twice",
    "swapped-members": "'golden/frames.npy' has",
    "replaced-member": "'model/openvino.bin' is not the one its manifest lists",
    "resized-member": "'model/openvino.bin' has 6 bytes, not the 4",
    "unsorted-members": "'report/summary.json' stands before 'model/openvino.xml'",
    "unsorted-directory": "'golden/openvino.npy' stands before 'golden/frames.npy'",
    "huge-claim": "'golden/frames.npy' claims 42949672",
    "zip64-claim": "'golden/frames.npy' claims 42949672",
    "folder-and-file": "'model/openvino.bin' is also a folder",
    "name-too-long": "member name of 97 bytes, longer than 96",
    "too-many-members": "65 members, more than 64",
    "manifest-unknown-key": "manifest.json: tempature: unknown key",
    "manifest-wrong-type": "manifest.json: accepted: expected bool, found str 'yes'",
    "manifest-missing-key": "'accepted' is missing",
    "manifest-repeated-key": "a key is repeated",
    "manifest-nan": "NaN is not a number",
    "manifest-infinite": "1e999 is not one a field can hold",
    "manifest-huge-integer": "is not one a field can hold",
    "manifest-endless-integer": "is not one a field can hold",
    "manifest-over-64-bit": "is not one a field can hold",
    "manifest-deep": "nested deeper than 8",
    "manifest-bottomless": "is not valid JSON",
    "manifest-long-text": "a text of 2001 characters, longer than 2000",
    "manifest-escape-sequence": "cannot be printed",
    "manifest-lone-surrogate": "cannot be printed",
    "manifest-not-json": "is not valid JSON",
    "manifest-not-utf8": "is not valid JSON",
    "manifest-byte-order-mark": "is not valid JSON",
    "manifest-list": "expected a table",
    "manifest-draft": "members is empty",
    "manifest-version-2": "format version 2 is not one this edgekit reads (1)",
    "manifest-version-true": "expected int, found bool",
    "manifest-version-missing": "'format_version' is missing",
    "manifest-too-large": "more than 1048576",
} | {fault: "the member name" for fault in FAULTS if fault.startswith("name-") and fault != "name-too-long"}


def test_the_whole_bundle_opens(tmp_path):
    """A bundle without a fault opens, with its members, digest and size."""
    bundle = open_bundle(write_tiny_bundle(tmp_path / "tiny.edgekit"))
    assert {name: bytes(view) for name, view in bundle.members.items() if name != "manifest.json"} == tiny_members()
    assert bundle.manifest.name == "tiny"
    assert bundle.digest == hashlib.sha256(bundle.members["manifest.json"]).hexdigest()
    assert bundle.size_bytes == len(WHOLE)
    assert bundle.path == tmp_path / "tiny.edgekit"


def test_the_caller_cannot_change_what_was_checked(tmp_path):
    """Members are read-only views, in a read-only mapping."""
    bundle = open_bundle(write_tiny_bundle(tmp_path / "tiny.edgekit"))
    assert all(view.readonly for view in bundle.members.values())
    with pytest.raises(TypeError):
        bundle.members["model/openvino.bin"] = b"evil"


def test_every_fault_has_its_words():
    """Each named fault has an expected message in this file."""
    assert set(SAYS) == set(FAULTS)


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_refused(fault, tmp_path):
    """Each named fault is refused with one printable line that names the file and the reason, and with a hint."""
    path = write_tiny_bundle(tmp_path / "tiny.edgekit", fault)
    with pytest.raises(BundleError) as caught:
        open_bundle(path)
    assert SAYS[fault] in caught.value.message
    assert caught.value.message.startswith(str(path))
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 400 + len(str(path))
    assert caught.value.hint


def test_every_flipped_bit_is_refused():
    """One flipped bit anywhere in a bundle is refused."""
    data = bytearray(WHOLE)
    accepted = []
    for index in range(len(data)):
        for bit in range(8):
            data[index] ^= 1 << bit
            try:
                read_bundle(bytes(data), path="x.edgekit")
            except BundleError:
                pass
            else:
                accepted.append((index, bit))
            data[index] ^= 1 << bit
    assert accepted == []
    assert read_bundle(bytes(data), path="x.edgekit").manifest.name == "tiny"


def test_every_truncation_is_refused():
    """A bundle cut at any length is refused."""
    for length in range(len(WHOLE)):
        with pytest.raises(BundleError):
            read_bundle(WHOLE[:length], path="x.edgekit")


@pytest.mark.parametrize(
    "extra", [b"\0", b"PK\x05\x06", WHOLE, WHOLE[-22:], bytes(1000)], ids=["zero", "signature", "bundle", "end-record", "zeros"]
)
def test_appended_bytes_are_refused(extra):
    """Nothing may follow a bundle, nor stand before it."""
    for data in (WHOLE + extra, extra + WHOLE):
        with pytest.raises(BundleError):
            read_bundle(data, path="x.edgekit")


def test_a_link_to_a_bundle_opens(tmp_path):
    """A symbolic link is the user's own choice and is followed."""
    write_tiny_bundle(tmp_path / "tiny.edgekit")
    (tmp_path / "current.edgekit").symlink_to("tiny.edgekit")
    assert open_bundle(tmp_path / "current.edgekit").manifest.name == "tiny"


def test_things_that_are_no_files_are_refused_at_once(tmp_path, monkeypatch):
    """A folder, a pipe, a socket, a device and nothing at all are named for what they are; a pipe does not make the caller wait."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("gone")
    (tmp_path / "empty").touch()
    with socket.socket(socket.AF_UNIX) as listener:
        # Bound by a relative name, because a socket's path is short.
        monkeypatch.chdir(tmp_path)
        listener.bind("socket")
        for path, says in (
            (tmp_path, "is a folder"),
            (tmp_path / "pipe", "is not a regular file"),
            (tmp_path / "socket", "is not a regular file"),
            ("/dev/zero", "is not a regular file"),
            (tmp_path / "empty", "is empty"),
            (tmp_path / "missing", "does not exist"),
            (tmp_path / "link", "does not exist"),
            (tmp_path / "empty" / "inside", "cannot be read"),
            (tmp_path / ("n" * 300), "cannot be read"),
            ("nul\0character", "cannot be read"),
        ):
            with pytest.raises(BundleError, match=says) as caught:
                open_bundle(path)
            assert caught.value.hint
            assert caught.value.message.isprintable()


def test_a_pipe_put_there_after_the_first_look(tmp_path, monkeypatch):
    """A file that becomes a pipe between the look and the opening is refused, without waiting for a writer."""
    path = write_tiny_bundle(tmp_path / "tiny.edgekit")
    seen = path.stat()
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr(reader.Path, "stat", lambda _: seen)
    with pytest.raises(BundleError, match="is not a regular file"):
        open_bundle(path)


def test_a_file_without_permission(tmp_path, monkeypatch):
    """A file that may not be opened is a bundle error with the system's reason."""
    path = write_tiny_bundle(tmp_path / "tiny.edgekit")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(reader.os, "open", refuse)
    with pytest.raises(BundleError, match="cannot be read: Permission denied"):
        open_bundle(path)


class FakeFile(io.BytesIO):
    """What `os.fdopen` returns in the tests below: reads as told."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def read(self, size=-1):
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer[:size]


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (MemoryError(), TargetError, "not enough memory"),
        (OSError(5, "Input/output error"), BundleError, "Input/output error"),
        (WHOLE[:-1], BundleError, "changed while it was read"),
        (WHOLE + b"more", BundleError, "changed while it was read"),
    ],
    ids=["no-memory", "bad-medium", "shortened", "grown"],
)
def test_reading_goes_wrong(tmp_path, monkeypatch, answer, kind, says):
    """A medium that fails, a file that changes and a device that is too small have their own messages."""
    path = write_tiny_bundle(tmp_path / "tiny.edgekit")
    fdopen = os.fdopen

    def fake(descriptor, mode):
        fdopen(descriptor, mode).close()
        return FakeFile(answer)

    # The status was taken from the descriptor that is closed here.
    monkeypatch.setattr(reader.os, "fstat", lambda _: path.stat())
    monkeypatch.setattr(reader.os, "fdopen", fake)
    with pytest.raises(kind, match=says):
        open_bundle(path)


def test_a_huge_file_is_not_read(tmp_path, monkeypatch):
    """A 10 GB file is refused by its size, before it is opened."""
    path = tmp_path / "huge.edgekit"
    with path.open("wb") as file:
        file.truncate(10 * 10**9)
    monkeypatch.setattr(reader.os, "open", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(BundleError, match="has 10000000000 bytes, more than"):
        open_bundle(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_bundle_bytes", len(WHOLE)), ("max_members", 7), ("max_name_bytes", 19), ("max_manifest_bytes", None), ("max_manifest_depth", 4)],
)
def test_limits_of_the_reader(tmp_path, name, value):
    """The tiny bundle opens at each limit, and not one below."""
    path = write_tiny_bundle(tmp_path / "tiny.edgekit")
    if value is None:
        value = len(open_bundle(path).members["manifest.json"])
    open_bundle(path, limits=Limits(**{name: value}))
    with pytest.raises(BundleError):
        open_bundle(path, limits=Limits(**{name: value - 1}))


def test_arrays_are_read(tmp_path):
    """Golden arrays come back with type, shape and values, as the caller's own memory."""
    bundle = open_bundle(write_tiny_bundle(tmp_path / "tiny.edgekit"))
    frames = bundle.load_array(bundle.manifest.golden.frames)
    assert (frames.dtype, frames.shape) == (np.uint8, (2, 2, 2, 1))
    assert frames.ravel().tolist() == list(range(8))
    logits = bundle.load_array("golden/openvino.npy")
    assert (logits.dtype, logits.tolist()) == (np.float32, [[0.5, -0.5], [1.5, -1.5]])
    assert logits.flags.writeable
    assert logits.flags.aligned
    assert np.load(io.BytesIO(bundle.members["golden/openvino.npy"])).tolist() == logits.tolist()


ARRAY_SAYS = {
    "array-short": "not an .npy array",
    "array-not-npy": "not an .npy array",
    "array-version-2": "not an .npy array",
    "array-header-cut-short": "header is not the one",
    "array-10e12-elements": "claims 4000000000000 bytes of data, but it has 8",
    "array-64-bit-overflow": "claims 18446744073709551616 bytes of data, but it has 0",
    "array-huge-side": "is not one of a filled array",
    "array-empty": "is not one of a filled array",
    "array-scalar": "is not one of a filled array",
    "array-negative": "header is not the one",
    "array-too-short": "claims 8 bytes of data, but it has 7",
    "array-too-long": "claims 8 bytes of data, but it has 9",
    "array-objects": "header is not the one",
    "array-big-endian": "header is not the one",
    "array-half": "type '<f2' in C order",
    "array-record": "header is not the one",
    "array-fortran": "type '<f4' in Fortran order",
    "array-code": "header is not the one",
    "array-nine-dimensions": "9 dimensions, more than 8",
}


@pytest.mark.parametrize("fault", ARRAY_FAULTS)
def test_array_faults_are_refused(tmp_path, fault):
    """An array member that is not what it claims is refused with its name, before memory is taken for it."""
    bundle = open_bundle(write_tiny_bundle(tmp_path / "tiny.edgekit", fault))
    with pytest.raises(BundleError, match=r"'golden/frames\.npy' cannot be read") as caught:
        bundle.load_array("golden/frames.npy")
    assert ARRAY_SAYS[fault] in caught.value.message
    assert caught.value.hint


def test_an_array_that_is_not_there(tmp_path):
    """The name of no member is a bundle error that lists the members."""
    bundle = open_bundle(write_tiny_bundle(tmp_path / "tiny.edgekit"))
    with pytest.raises(BundleError, match=r"has no member 'golden/frame\.npy'") as caught:
        bundle.load_array("golden/frame.npy")
    assert "golden/frames.npy" in caught.value.hint


def test_reading_needs_no_engine_and_no_zip_library():
    """Opening a bundle imports neither zipfile nor any engine."""
    code = "import sys, edgekit.bundle.reader; print([m for m in ('zipfile', 'openvino', 'torch', 'onnx', 'PIL') if m in sys.modules])"
    before = "import sys, numpy; print([m for m in ('zipfile', 'openvino', 'torch', 'onnx', 'PIL') if m in sys.modules])"
    answers = [subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True).stdout for line in (code, before)]
    assert answers[0] == answers[1]


def test_limit_max_array_dimensions():
    """One dimension more than the limit is refused; the limit itself is read."""
    data = memoryview(dump_array(np.zeros((1, 2, 1), np.uint8)))
    assert parse_array(data, Limits(max_array_dimensions=3)).shape == (1, 2, 1)
    with pytest.raises(ValueError, match="3 dimensions, more than 2"):
        parse_array(data, Limits(max_array_dimensions=2))
