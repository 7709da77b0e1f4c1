"""Opens a bundle: from a path to contents whose every byte was checked.

Rules this file keeps:

1. The bytes that are checked are the bytes that are used. The file is read once into memory and never looked at again. It is not mapped:
   another process that writes into a mapped file changes what was already checked, and one that shortens it kills this process.
2. A thing that is no regular file is refused before it is opened, so a pipe cannot make the caller wait and a device is not touched.
   A symbolic link is followed: the path is the user's own choice. Size is checked before anything is read.
3. Order of the checks: container (`archive`), manifest (`manifest`), set of members, size and sha256 of each. Nothing reaches the caller before
   all of them have passed.
4. Does not prove who made the bundle: whoever can write the file can write a consistent one (see `docs/adr/0002-canonical-zip.md`).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

from edgekit.bundle import archive
from edgekit.bundle.arrays import parse_array
from edgekit.bundle.limits import DEFAULT_LIMITS, Limits
from edgekit.bundle.manifest import MANIFEST_NAME, Manifest
from edgekit.bundle.manifest_json import parse
from edgekit.errors import BundleError, TargetError, nearest

_COPY_AGAIN = "copy the original bundle again and compare its digest (`edgekit inspect`)"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bundle:
    """A bundle that was checked.

    Attributes:
        manifest: What it says about itself.
        members: Member name to its bytes, read-only views of the one copy in memory; the manifest included.
        digest: sha256 of the manifest's bytes, 64 lower-case hex digits. The manifest holds the sha256 of every other member, so the
            digest identifies the whole content.
        path: Where it was read from; for messages.
        size_bytes: Size of the file.
    """

    manifest: Manifest = field(repr=False)
    members: Mapping[str, memoryview] = field(repr=False)
    digest: str
    path: Path
    size_bytes: int

    def load_array(self, name: str) -> NDArray[Any]:
        """Decodes an array member from the checked bytes.

        Args:
            name: A member in `.npy` format, such as `manifest.golden.frames`.

        Returns:
            A copy the caller owns, of the type and shape the member states.

        Raises:
            BundleError: No such member, or not an array this format allows.
        """
        if name not in self.members:
            raise BundleError(f"{self.path} has no member {name!r}", hint=nearest(name, self.members))
        try:
            return parse_array(self.members[name])
        except ValueError as error:
            raise BundleError(
                f"{self.path}: the member {name!r} cannot be read: {error}", hint="compile the bundle again with this edgekit"
            ) from error


def open_bundle(path: str | os.PathLike[str], *, limits: Limits = DEFAULT_LIMITS) -> Bundle:
    """Opens a bundle and checks every byte of it.

    Args:
        path: A file, or a symbolic link to one.
        limits: What is refused before memory or time is spent on it.

    Raises:
        BundleError: There is no such file, it is not a bundle, it is damaged, or it needs another edgekit.
        TargetError: This device has not enough memory to hold it.
    """
    return read_bundle(_read_file(path, limits), path=path, limits=limits)


def read_bundle(data: bytes, *, path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> Bundle:
    """Checks a bundle that is already in memory.

    Args:
        data: The whole file. `bytes`, because nobody can change them after the check.
        path: Where they came from, for messages.
        limits: As for `open_bundle`.

    Raises:
        BundleError: As for `open_bundle`.
    """
    where = os.fspath(path)
    members = archive.read(memoryview(data), where=where, limits=limits)
    if MANIFEST_NAME not in members:
        raise BundleError(f"{where} is not an edgekit bundle: it has no {MANIFEST_NAME}", hint="`edgekit compile` makes bundles")
    manifest = parse(members[MANIFEST_NAME], where=where, limits=limits)
    _check_members(manifest, members, where)
    return Bundle(
        manifest=manifest,
        members=MappingProxyType(members),
        digest=hashlib.sha256(members[MANIFEST_NAME]).hexdigest(),
        path=Path(path),
        size_bytes=len(data),
    )


def _check_members(manifest: Manifest, members: Mapping[str, memoryview], where: str) -> None:
    for name in manifest.members:
        if name not in members:
            raise BundleError(f"{where} is damaged: the member {name!r} is missing", hint=_COPY_AGAIN)
    for name, content in members.items():
        if name == MANIFEST_NAME:
            continue
        if name not in manifest.members:
            raise BundleError(f"{where} holds the member {name!r}, which its manifest does not list", hint=_COPY_AGAIN)
        listed = manifest.members[name]
        if len(content) != listed.size_bytes:
            raise BundleError(
                f"{where} is damaged: the member {name!r} has {len(content)} bytes, not the {listed.size_bytes} its manifest lists",
                hint=_COPY_AGAIN,
            )
        if hashlib.sha256(content).hexdigest() != listed.sha256:
            raise BundleError(f"{where} is damaged: the member {name!r} is not the one its manifest lists (sha256)", hint=_COPY_AGAIN)


def _read_file(path: str | os.PathLike[str], limits: Limits) -> bytes:
    where = os.fspath(path)
    try:
        # Looked at before it is opened, because opening a device can have effects; and again after, because it may have been replaced.
        _check_regular(Path(path).stat(), where, limits)
        # Without O_NONBLOCK, a pipe put there in between would make this call wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with os.fdopen(descriptor, "rb") as file:
            size = _check_regular(os.fstat(descriptor), where, limits)
            data = file.read(size + 1)
    except FileNotFoundError as error:
        raise BundleError(f"{where} does not exist", hint="check the path; bundles' names end in .edgekit") from error
    except MemoryError as error:
        raise TargetError(f"not enough memory here to read {where}", hint="choose a smaller bundle or a device with more memory") from error
    except (OSError, ValueError) as error:
        # ValueError: a path that no file system can have, such as one with a NUL character.
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BundleError(f"{where!r} cannot be read: {reason}", hint="check the path and its permissions") from error
    if len(data) != size:
        raise BundleError(f"{where} changed while it was read", hint="wait until the copy is finished, then try again")
    return data


def _check_regular(status: os.stat_result, where: str, limits: Limits) -> int:
    """Returns the size in bytes of a regular file within the limit; refuses everything else."""
    if stat.S_ISDIR(status.st_mode):
        raise BundleError(f"{where} is a folder, not an edgekit bundle", hint="a bundle is one file; its name ends in .edgekit")
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"{where} is not a regular file, so it is not an edgekit bundle", hint="copy the bundle to a file first")
    if status.st_size == 0:
        raise BundleError(f"{where} is empty, so it is not an edgekit bundle", hint="copy the original bundle again")
    if status.st_size > limits.max_bundle_bytes:
        raise BundleError(
            f"{where} has {status.st_size} bytes, more than the {limits.max_bundle_bytes} a bundle may have", hint="is it a bundle?"
        )
    return status.st_size
