"""The container: one way to write it, and nothing else is read."""

from __future__ import annotations

import io
import zipfile

import pytest
from bundle_builders import raw_zip, tiny_bundle, tiny_members
from hypothesis import given
from hypothesis import strategies as st

from edgekit.bundle import archive
from edgekit.bundle.limits import Limits
from edgekit.errors import BundleError

SEGMENT = st.from_regex(r"[a-z0-9_]([a-z0-9._-]{0,6}[a-z0-9_])?", fullmatch=True)
NAME = st.lists(SEGMENT, min_size=1, max_size=3).map("/".join)


def no_folder_is_a_file(members: dict[str, bytes]) -> bool:
    return not any(other.startswith(name + "/") for name in members for other in members)


MEMBERS = st.dictionaries(NAME, st.binary(max_size=40), min_size=1, max_size=6).filter(no_folder_is_a_file)


def packed(members: dict[str, bytes], **limits: int) -> bytes:
    return b"".join(archive.write(members, limits=Limits(**limits)))


def unpacked(data: bytes, **limits: int) -> dict[str, bytes]:
    return {name: bytes(view) for name, view in archive.read(memoryview(data), where="x.edgekit", limits=Limits(**limits)).items()}


@given(members=MEMBERS)
def test_round_trip(members):
    """What is written is read back, in sorted order."""
    found = unpacked(packed(members))
    assert found == members
    assert list(found) == sorted(members)


@given(members=MEMBERS)
def test_order_of_the_mapping_is_not_in_the_bytes(members):
    """The same members give the same bytes in whatever order they are given."""
    assert packed(members) == packed(dict(reversed(list(members.items()))))


@given(members=MEMBERS)
def test_two_implementations_agree(members):
    """The writer in the package and the one written from the format's description give the same bytes."""
    assert packed(members) == raw_zip(sorted(members.items()))


@given(members=MEMBERS, data=st.data())
def test_any_change_of_one_byte_is_refused(members, data):
    """No byte of an archive can have another value, wherever it is."""
    whole = bytearray(packed(members))
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BundleError):
        unpacked(bytes(whole))


@given(data=st.binary(max_size=200))
def test_noise_is_refused(data):
    """Bytes that are no archive raise the bundle's error and no other, also when they begin like one."""
    for noise in (data, b"PK\x03\x04" + data, b"PK\x03\x04" + data + b"PK\x05\x06" + data[:18].ljust(18, b"\0")):
        with pytest.raises(BundleError):
            unpacked(noise)


def test_python_opens_it():
    """A ZIP library sees the same members, stored, dated 1980, with mode 0644."""
    members = tiny_members()
    with zipfile.ZipFile(io.BytesIO(packed(members))) as file:
        assert file.testzip() is None
        assert {info.filename: file.read(info) for info in file.infolist()} == members
        for info in file.infolist():
            assert (info.date_time, info.compress_type, info.external_attr >> 16) == ((1980, 1, 1, 0, 0, 0), zipfile.ZIP_STORED, 0o100644)


def test_contents_are_not_copied():
    """What is read is a view into the bytes that were checked."""
    data = memoryview(bytearray(packed({"a": b"12"})))
    found = archive.read(data, where="x.edgekit")["a"]
    data[data.tobytes().index(b"12")] = ord("9")
    assert bytes(found) == b"92"


@pytest.mark.parametrize(
    "content", [bytearray(b"1234"), memoryview(b"1234"), memoryview(b"12341234")[::2].tobytes(), memoryview(b"1234").cast("I")]
)
def test_every_kind_of_buffer_is_written(content):
    """A member may be any contiguous buffer; its bytes count, not its items."""
    data = packed({"a": content})
    assert len(unpacked(data)["a"]) == 4


def test_nothing_in_it():
    """An archive without members is not a bundle."""
    with pytest.raises(BundleError, match="is not an edgekit bundle"):
        unpacked(packed({}))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/..",
        "../a",
        "./a",
        "a\\b",
        "A",
        "ä",
        "a b",
        "a\n",
        "a.",
        ".a",
        "-a",
        "a-",
        "a:b",
        "a\0",
        "a" * 97,
    ],
)
def test_names_that_are_not_written(name):
    """A name that could leave its folder, collide or confuse a tool cannot be written, and cannot be read where another tool wrote it."""
    with pytest.raises(BundleError, match="member name"):
        packed({name: b""})
    with pytest.raises(BundleError, match="member name"):
        unpacked(raw_zip([(name, b"")]))


@pytest.mark.parametrize("name", ["a", "0", "_", "a.b", "a-b/c_d.e/f", "..a"[2:], "a..b", "a" * 96])
def test_names_that_are_written(name):
    """The names the format allows, up to the longest."""
    assert unpacked(packed({name: b"1"})) == {name: b"1"}


def test_a_file_that_is_also_a_folder():
    """Two members that could not lie in one folder tree together are refused."""
    with pytest.raises(BundleError, match="also a folder"):
        packed({"a": b"", "a/b/c": b""})
    with pytest.raises(BundleError, match="also a folder"):
        packed({"a/b": b"", "a/b/c": b"", "a/b-c": b""})


def test_limit_max_members():
    """One member more than the limit is refused, by the writer and by the reader; the limit itself is not."""
    assert len(unpacked(packed({"a": b"", "b": b""}, max_members=2), max_members=2)) == 2
    with pytest.raises(BundleError, match="2 members, more than 1"):
        packed({"a": b"", "b": b""}, max_members=1)
    with pytest.raises(BundleError, match="2 members, more than 1"):
        unpacked(packed({"a": b"", "b": b""}), max_members=1)


def test_limit_max_name_bytes():
    """One byte more than the limit is refused, by the writer and by the reader; the limit itself is not."""
    assert unpacked(packed({"abc": b""}, max_name_bytes=3), max_name_bytes=3) == {"abc": b""}
    with pytest.raises(BundleError, match="member name of 3 bytes"):
        packed({"abc": b""}, max_name_bytes=2)
    with pytest.raises(BundleError, match="member name of 3 bytes"):
        unpacked(packed({"abc": b""}), max_name_bytes=2)


def test_limit_max_bundle_bytes():
    """One byte more than the limit is refused, by the writer and by the reader; the limit itself is not."""
    size = len(packed({"a": b"1"}))
    assert unpacked(packed({"a": b"1"}, max_bundle_bytes=size), max_bundle_bytes=size) == {"a": b"1"}
    with pytest.raises(BundleError, match="would be larger"):
        packed({"a": b"1"}, max_bundle_bytes=size - 1)
    with pytest.raises(BundleError, match="more than"):
        unpacked(packed({"a": b"1"}), max_bundle_bytes=size - 1)
    with pytest.raises(BundleError, match="would be larger"):
        packed({"a": bytes(size), "b": b""}, max_bundle_bytes=size)


@pytest.mark.parametrize(
    "limits", [{"max_bundle_bytes": 2**32 - 1}, {"max_members": 2**16 - 1}, {"max_name_bytes": 2**16 - 1}, {"max_members": 0}]
)
def test_limits_stay_within_what_a_zip_can_say(limits):
    """A limit that needs the 64-bit extension, or allows nothing, is no limit."""
    with pytest.raises(ValueError, match=next(iter(limits))):
        Limits(**limits)


def test_a_directory_longer_than_the_file():
    """A number of members that the directory cannot hold is refused before it is walked past the end."""
    data = bytearray(tiny_bundle())
    data[-12:-10] = (64).to_bytes(2, "little")
    with pytest.raises(BundleError, match="directory ends before member 8 of 64"):
        unpacked(bytes(data))
