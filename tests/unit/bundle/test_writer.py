"""Writing a bundle: the same bytes each time, and a whole file or none."""

from __future__ import annotations

import errno
import os
import resource
import stat
from pathlib import Path

import numpy as np
import pytest
from bundle_builders import tiny_bundle, tiny_manifest, tiny_members, write_tiny_bundle
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgekit.bundle import writer
from edgekit.bundle.arrays import dump_array, parse_array
from edgekit.bundle.limits import Limits
from edgekit.bundle.reader import open_bundle
from edgekit.bundle.writer import check_writable, write_atomically, write_bundle
from edgekit.errors import BundleError, OutputError


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_round_trip(tmp_path):
    """What was written is read back; the digest names it."""
    path = tmp_path / "new" / "folder" / "tiny.edgekit"
    digest = write_bundle(path, tiny_manifest(), tiny_members())
    bundle = open_bundle(path)
    assert bundle.digest == digest
    assert {name: bytes(view) for name, view in bundle.members.items() if name != "manifest.json"} == tiny_members()
    assert bundle.manifest.output == tiny_manifest().output
    assert names_in(path.parent) == ["tiny.edgekit"]


def test_the_same_inputs_give_the_same_bytes(tmp_path):
    """Neither time, nor the order of the members, nor what was there before is in the bytes; the builder's own writer agrees."""
    members = tiny_members()
    turned = dict(reversed(list(members.items())))
    write_bundle(tmp_path / "a", tiny_manifest(), members)
    write_bundle(tmp_path / "b", tiny_manifest(made_with=dict(reversed(tiny_manifest().made_with.items()))), turned)
    write_bundle(tmp_path / "b", tiny_manifest(), {name: memoryview(bytearray(data)) for name, data in turned.items()})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == tiny_bundle()


def test_the_mode_is_the_users(tmp_path):
    """A bundle gets the permissions of any new file, not those of a temporary one."""
    write_bundle(tmp_path / "a", tiny_manifest(), tiny_members())
    (tmp_path / "other").touch()
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


def test_a_link_is_replaced_and_not_followed(tmp_path):
    """What a link pointed to is kept."""
    old = tmp_path / "old.edgekit"
    old.write_bytes(b"old")
    (tmp_path / "current.edgekit").symlink_to(old)
    write_bundle(tmp_path / "current.edgekit", tiny_manifest(), tiny_members())
    assert old.read_bytes() == b"old"
    assert not (tmp_path / "current.edgekit").is_symlink()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda members: members.pop("model/openvino.bin"), "'model/openvino.bin' is used but is not listed"),
        (lambda members: members.update({"manifest.json": b"{}"}), "manifest.json is made from the manifest"),
        (lambda members: members.update({"report/A": b""}), "member name 'report/A' is not allowed"),
        (lambda members: members.update({"notes": b""}), "nothing uses the member 'notes'"),
        (lambda members: members.clear(), "members is empty"),
    ],
    ids=["missing", "manifest", "name", "unused", "none"],
)
def test_members_that_make_no_bundle(tmp_path, change, says):
    """What a device would refuse is refused while it is written, and nothing is left."""
    members = tiny_members()
    change(members)
    with pytest.raises(BundleError) as caught:
        write_bundle(tmp_path / "a", tiny_manifest(), members)
    assert says in caught.value.message
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("limits", "says"),
    [({"max_bundle_bytes": 1000}, "would be larger"), ({"max_members": 6}, "7 members"), ({"max_manifest_bytes": 1000}, "more than 1000")],
)
def test_the_readers_limits_are_kept(tmp_path, limits, says):
    """A bundle that a reader would refuse for its size is not written."""
    with pytest.raises(BundleError, match=says):
        write_bundle(tmp_path / "a", tiny_manifest(), tiny_members(), limits=Limits(**limits))
    assert names_in(tmp_path) == []


def test_a_text_that_cannot_be_read_is_not_written(tmp_path):
    """The manifest passes the reader's own parser before it is written."""
    with pytest.raises(BundleError, match="cannot be printed"):
        write_bundle(tmp_path / "a", tiny_manifest(made_with={"open\nvino": "1"}), tiny_members())
    assert names_in(tmp_path) == []


def in_the_way(tmp_path):
    """Places where no file can be written, with what the message says."""
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    return [
        (tmp_path, "is a folder"),
        (tmp_path / "file" / "a", "Not a directory"),
        (tmp_path / "file" / "b" / "a", "Not a directory"),
        (tmp_path / "pipe", "is not a regular file"),
        ("/dev/null", "is not a regular file"),
        (tmp_path / ("n" * 300), "File name too long"),
        ("/proc/a.edgekit", "cannot be written"),
        ("a\0b", "cannot be written"),
    ]


def test_places_that_cannot_be_written(tmp_path):
    """Folders, devices and read-only places are output errors, before the work and after it, and nothing is left behind."""
    places = in_the_way(tmp_path)
    before = names_in(tmp_path)
    for path, says in places:
        for attempt in (lambda path=path: check_writable(path), lambda path=path: write_atomically(path, [b"1"])):
            with pytest.raises(OutputError, match=says) as caught:
                attempt()
            assert caught.value.hint
            assert caught.value.message.isprintable()
    assert names_in(tmp_path) == before
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_checking_leaves_nothing(tmp_path):
    """A place that can be written is accepted, also under folders that are missing; nothing is made, nothing is changed."""
    existing = write_tiny_bundle(tmp_path / "old.edgekit")
    for path in (existing, tmp_path / "a.edgekit", tmp_path / "new" / "folder" / "a.edgekit"):
        check_writable(path)
    assert names_in(tmp_path) == ["old.edgekit"]
    assert existing.read_bytes() == tiny_bundle()


def test_a_relative_name(tmp_path, monkeypatch):
    """A bare name is one in the working directory."""
    monkeypatch.chdir(tmp_path)
    check_writable("a.edgekit")
    write_bundle("a.edgekit", tiny_manifest(), tiny_members())
    assert (tmp_path / "a.edgekit").read_bytes() == tiny_bundle()


@pytest.fixture
def old(tmp_path):
    """A file that must survive what goes wrong."""
    path = tmp_path / "a.edgekit"
    path.write_bytes(b"old")
    return path


def check_nothing_happened(old):
    assert old.read_bytes() == b"old"
    assert names_in(old.parent) == ["a.edgekit"]


def test_a_file_size_limit_of_the_system(old):
    """When the system stops the write half-way, the old content stays and the temporary file goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            write_bundle(old, tiny_manifest(), tiny_members())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    check_nothing_happened(old)


@pytest.mark.parametrize("call", ["fsync", "open"])
@pytest.mark.parametrize(("number", "says"), [(errno.ENOSPC, "make room"), (errno.EIO, "another place"), (errno.EROFS, "another place")])
def test_a_disk_that_fails(old, monkeypatch, call, number, says):
    """When the disk is full, broken or read-only, the old content stays and the hint says what to do."""

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(writer.os, call, fail)
    with pytest.raises(OutputError, match=os.strerror(number)) as caught:
        write_atomically(old, [b"1"])
    monkeypatch.undo()
    assert says in caught.value.hint
    check_nothing_happened(old)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, MemoryError])
def test_an_interruption(old, interruption):
    """Whatever stops the write, the old content stays and the temporary file goes."""

    def pieces():
        yield b"1"
        raise interruption

    with pytest.raises(interruption):
        write_atomically(old, pieces())
    check_nothing_happened(old)


def test_a_rename_that_fails(old, monkeypatch):
    """When the last step fails, nothing has happened."""

    def fail(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(writer.Path, "replace", fail)
    with pytest.raises(OutputError, match="not permitted"):
        write_atomically(old, [b"1"])
    check_nothing_happened(old)


def test_the_order_of_the_system_calls(old, monkeypatch):
    """The content is on the disk before the name, and the name before the end."""
    calls = []
    fsync, replace = os.fsync, writer.Path.replace
    monkeypatch.setattr(
        writer.os, "fsync", lambda number: (calls.append("folder" if stat.S_ISDIR(os.fstat(number).st_mode) else "file"), fsync(number))
    )
    monkeypatch.setattr(writer.Path, "replace", lambda *paths: (calls.append("rename"), replace(*paths)))
    write_atomically(old, [b"1", b"2"])
    assert calls == ["file", "rename", "folder"]
    assert old.read_bytes() == b"12"


@pytest.mark.parametrize(("number", "refused"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)])
def test_a_folder_that_cannot_be_synchronised(old, monkeypatch, number, refused):
    """A file system without that operation is accepted; a real fault of the disk is not."""
    fsync = os.fsync

    def fail_for_folders(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(writer.os, "fsync", fail_for_folders)
    if refused:
        with pytest.raises(OutputError):
            write_atomically(old, [b"1"])
    else:
        write_atomically(old, [b"1"])


@given(
    array=arrays.arrays(
        dtype=st.sampled_from([np.uint8, np.int8, np.int32, np.int64, np.float32, np.float64]),
        shape=arrays.array_shapes(min_dims=1, max_dims=5, max_side=4),
    ),
    turned=st.booleans(),
)
def test_arrays_round_trip(array, turned):
    """An array comes back with its type, shape and bits, whatever its memory order was."""
    source = array.T if turned else array
    found = parse_array(memoryview(dump_array(source)))
    assert found.dtype == source.dtype
    assert found.shape == source.shape
    assert found.tobytes() == source.tobytes()


def test_big_endian_arrays_are_turned():
    """A big-endian array is written as the little-endian one of the same values."""
    assert parse_array(memoryview(dump_array(np.array([1.5, 2.5], ">f4")))).tolist() == [1.5, 2.5]


@pytest.mark.parametrize("array", [np.zeros(0, np.uint8), np.float32(1.0)[()], np.zeros(2, np.float16), np.array([None]), np.array(["a"])])
def test_arrays_that_are_not_written(array):
    """An array that could not be read back is not written."""
    with pytest.raises(ValueError, match=r"type|shape|Object|header"):
        dump_array(np.asarray(array))
