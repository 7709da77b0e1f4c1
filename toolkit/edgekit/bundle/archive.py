"""The container of a bundle: a ZIP that can be written in one way only.

Any ZIP tool can open it, but it is read by the rules below and never by a ZIP library, because libraries forgive: they look for the
end record, skip what they do not know and prefer one header over another, and two readers may then see two different contents.

Rules this file keeps:

1. Members are stored, not compressed, without gaps, in ascending order of the bytes of their names; then the directory; then the end record,
   which are the last 22 bytes of the file.
2. A header says nothing but name, size and CRC-32: version, flags, date (1980-01-01 00:00), attributes (a regular file, mode 0644) are fixed;
   extra fields, comments, data descriptors, folders, encryption and the 64-bit extension do not exist.
3. The reader takes name, size and CRC-32 from the directory, encodes every header again and compares. So every bit outside the members'
   data has one accepted value, and the same members give the same bytes.
4. The CRC-32 of every member is checked. It finds accidents; it proves nothing about the author (see `docs/adr/0002-canonical-zip.md`).
5. Names are lower-case ASCII segments, so they mean one file on every file system, inside the folder they are unpacked to.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from edgekit.bundle.limits import DEFAULT_LIMITS, Limits
from edgekit.errors import BundleError

Buffer = bytes | bytearray | memoryview

# APPNOTE.TXT 6.3.10 (PKWARE), sections 4.3.7, 4.3.12 and 4.3.16.
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_DIRECTORY = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_LOCAL_SIGNATURE, _DIRECTORY_SIGNATURE, _END_SIGNATURE = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"

_VERSION_NEEDED = 10  # 1.0: stored members only
_MADE_BY = 3 << 8 | 20  # Unix, so that the mode below is read; version 2.0
_FLAGS = 0  # not encrypted, no data descriptor, names are ASCII
_STORED = 0
_TIME, _DATE = 0, 1 << 5 | 1  # 00:00:00, 1980-01-01: the first moment a ZIP can say
_ATTRIBUTES = 0o100644 << 16

_SEGMENT = r"[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?"
_NAME = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")

_HINT = "copy the original bundle again; a bundle that was unpacked cannot be zipped again by hand"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """All that a header can say about a member; `offset` is where its local header begins."""

    name: str
    crc32: int
    size_bytes: int
    offset: int

    def local(self) -> bytes:
        fields = (_VERSION_NEEDED, _FLAGS, _STORED, _TIME, _DATE, self.crc32, self.size_bytes, self.size_bytes, len(self.name), 0)
        return _LOCAL.pack(_LOCAL_SIGNATURE, *fields) + self.name.encode("ascii")

    def directory(self) -> bytes:
        fields = (_MADE_BY, _VERSION_NEEDED, _FLAGS, _STORED, _TIME, _DATE, self.crc32, self.size_bytes, self.size_bytes, len(self.name))
        return _DIRECTORY.pack(_DIRECTORY_SIGNATURE, *fields, 0, 0, 0, 0, _ATTRIBUTES, self.offset) + self.name.encode("ascii")

    @property
    def data_offset(self) -> int:
        return self.offset + _LOCAL.size + len(self.name)

    @property
    def end_offset(self) -> int:
        return self.data_offset + self.size_bytes


def check_names(names: Iterable[str], limits: Limits = DEFAULT_LIMITS) -> None:
    """Refuses names that a bundle cannot hold, alone or together.

    Args:
        names: Names of members, in any order.
        limits: Number and length.

    Raises:
        ValueError: Says which name and why; the caller knows whose error it is.
    """
    ordered = sorted(names)
    if len(ordered) > limits.max_members:
        raise ValueError(f"{len(ordered)} members, more than {limits.max_members}")
    for name in ordered:
        if len(name) > limits.max_name_bytes:
            raise ValueError(f"a member name of {len(name)} bytes, longer than {limits.max_name_bytes}")
        if not _NAME.fullmatch(name):
            raise ValueError(f"the member name {name!r} is not allowed (lower-case letters, digits, . _ - in segments divided by /)")
    for first, second in pairwise(ordered):
        if first == second:
            raise ValueError(f"the member {first!r} is there twice")
    folders = {name[:index] for name in ordered for index, letter in enumerate(name) if letter == "/"}
    for name in ordered:
        if name in folders:
            raise ValueError(f"the member {name!r} is also a folder of another member")


def write(members: Mapping[str, Buffer], *, limits: Limits = DEFAULT_LIMITS) -> list[Buffer]:
    """Encodes an archive.

    Args:
        members: Name to content, in any order.
        limits: What the reader will accept.

    Returns:
        The pieces of the file in order; members' contents are not copied.

    Raises:
        BundleError: When a name is not allowed or the archive would be larger than a reader accepts.
    """
    try:
        check_names(members, limits)
    except ValueError as error:
        raise BundleError(f"the bundle cannot be written: {error}") from error
    entries: list[_Entry] = []
    pieces: list[Buffer] = []
    offset = 0
    for name in sorted(members):
        content = memoryview(members[name]).cast("B")
        if offset + len(content) > limits.max_bundle_bytes:
            raise _too_large(limits)
        entry = _Entry(name=name, crc32=zlib.crc32(content), size_bytes=len(content), offset=offset)
        entries.append(entry)
        pieces += [entry.local(), content]
        offset = entry.end_offset
    pieces.append(_tail(entries))
    if sum(map(len, pieces)) > limits.max_bundle_bytes:
        raise _too_large(limits)
    return pieces


def read(data: memoryview, *, where: str, limits: Limits = DEFAULT_LIMITS) -> dict[str, memoryview]:
    """Decodes an archive that `write` could have written, and no other.

    Args:
        data: The whole file, as contiguous bytes.
        where: The file, for the message.
        limits: Size of the file, number of members and length of names.

    Returns:
        Name to a view into `data`, in the order of the archive.

    Raises:
        BundleError: When any rule of this file is broken, saying which member and how.
    """
    if len(data) > limits.max_bundle_bytes:
        raise BundleError(
            f"{where} has {len(data)} bytes, more than the {limits.max_bundle_bytes} a bundle may have", hint="is it a bundle?"
        )
    if len(data) < _END.size or data[:4] != _LOCAL_SIGNATURE:
        raise BundleError(f"{where} is not an edgekit bundle", hint="`edgekit compile` makes bundles; their names end in .edgekit")
    try:
        entries = _directory(data)
        check_names([entry.name for entry in entries], limits)
        _compare(data, entries)
    except ValueError as error:
        raise BundleError(f"{where} is damaged or was not written by edgekit: {error}", hint=_HINT) from error
    return {entry.name: data[entry.data_offset : entry.end_offset] for entry in entries}


def _directory(data: memoryview) -> list[_Entry]:
    """Takes name, CRC-32 and size out of the directory; names are checked and all the rest is compared afterwards."""
    signature, _, _, _, count, size, offset, _ = _END.unpack_from(data, len(data) - _END.size)
    if signature != _END_SIGNATURE:
        raise ValueError("its end record is missing, so it was cut short or something was added to it")
    directory, end = offset, len(data) - _END.size
    if offset + size != end:
        raise ValueError("its end record points to the wrong place, so bytes are missing or were added")
    entries: list[_Entry] = []
    member_offset = 0
    for number in range(1, count + 1):
        if offset + _DIRECTORY.size > end:
            raise ValueError(f"its directory ends before member {number} of {count}")
        entry, length = _entry(data[offset:end], member_offset)
        if entry.end_offset > directory:
            raise ValueError(f"the member {entry.name!r} claims {entry.size_bytes} bytes, more than the file has for it")
        entries.append(entry)
        member_offset, offset = entry.end_offset, offset + length
    return entries


def _entry(record: memoryview, member_offset: int) -> tuple[_Entry, int]:
    fields = _DIRECTORY.unpack_from(record)
    flags, method, crc32, size, name_length = fields[3], fields[4], fields[7], fields[9], fields[10]
    length = _DIRECTORY.size + name_length
    # Latin-1 takes every byte, so that a foreign name can be shown; `check_names` refuses all but ASCII.
    name = bytes(record[_DIRECTORY.size : length]).decode("latin-1")
    if flags & 1:
        raise ValueError(f"the member {name!r} is encrypted")
    if method != _STORED:
        raise ValueError(f"the member {name!r} is compressed")
    return _Entry(name=name, crc32=crc32, size_bytes=size, offset=member_offset), length


def _compare(data: memoryview, entries: Sequence[_Entry]) -> None:
    """Requires every header to be what `write` would have written, and every content to have its CRC-32."""
    for first, second in pairwise(entries):
        if first.name > second.name:
            raise ValueError(f"the member {first.name!r} stands before {second.name!r}")
    tail = _tail(entries)
    start = entries[-1].end_offset if entries else 0
    if start + len(tail) != len(data):
        raise ValueError(f"its members claim {start} bytes, but the file has {len(data) - len(tail)} for them")
    for entry in entries:
        if data[entry.offset : entry.data_offset] != entry.local():
            raise ValueError(f"the header of member {entry.name!r} does not agree with the directory")
    if data[start:] != tail:
        raise ValueError("its directory is not the one its members give")
    for entry in entries:
        if zlib.crc32(data[entry.data_offset : entry.end_offset]) != entry.crc32:
            raise ValueError(f"the content of member {entry.name!r} does not have its checksum")


def _tail(entries: Sequence[_Entry]) -> bytes:
    directory = b"".join(entry.directory() for entry in entries)
    offset = entries[-1].end_offset if entries else 0
    return directory + _END.pack(_END_SIGNATURE, 0, 0, len(entries), len(entries), len(directory), offset, 0)


def _too_large(limits: Limits) -> BundleError:
    return BundleError(
        f"the bundle would be larger than the {limits.max_bundle_bytes} bytes a device accepts",
        hint="choose a smaller model or a lower precision",
    )
