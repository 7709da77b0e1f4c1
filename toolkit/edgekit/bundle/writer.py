"""Writes a bundle so that its name means a whole one or none.

Rules this file keeps:

1. The same manifest and members give the same bytes, in whatever order they are given.
2. What is written can be read: the manifest goes through the reader's own parser, and the reader's limits are kept.
3. The final name is given last: a hidden temporary file in the same folder is written, synchronised with the disk and renamed, then the
   folder is synchronised. After a crash at any moment the name means the old content or the new one. A failure removes the temporary file;
   a power cut can leave it, under a name that begins with `.edgekit-`.
4. Only regular files are replaced. Where the name is a symbolic link to one, the link is replaced, not what it points to.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from edgekit.bundle import archive
from edgekit.bundle.archive import Buffer
from edgekit.bundle.limits import DEFAULT_LIMITS, Limits
from edgekit.bundle.manifest import MANIFEST_NAME, Manifest, Member
from edgekit.bundle.manifest_json import parse, serialize
from edgekit.errors import BundleError, OutputError

_CHOOSE_ANOTHER = "choose another place for it"


def write_bundle(
    path: str | os.PathLike[str], manifest: Manifest, members: Mapping[str, Buffer], *, limits: Limits = DEFAULT_LIMITS
) -> str:
    """Writes a bundle, replacing one of the same name.

    Args:
        path: The file. Missing folders above it are created.
        manifest: A draft: its `members` are filled in here, whatever they are.
        members: Name to content of everything but the manifest.
        limits: What devices accept.

    Returns:
        The bundle's digest, as `reader.Bundle.digest`.

    Raises:
        BundleError: Manifest and members do not make a bundle that can be read.
        OutputError: The file cannot be written.
    """
    where = os.fspath(path)
    content = _manifest_bytes(manifest, members, where, limits)
    pieces = archive.write({**members, MANIFEST_NAME: content}, limits=limits)
    write_atomically(path, pieces)
    return hashlib.sha256(content).hexdigest()


def write_atomically(path: str | os.PathLike[str], pieces: Iterable[Buffer]) -> None:
    """Writes a file so that its name means the whole content or what it meant before (rules 3 and 4 of this file).

    Args:
        path: The file. Missing folders above it are created.
        pieces: Its content.

    Raises:
        OutputError: The file cannot be written; nothing is left behind but the folders.
    """
    target = Path(path)
    _check_replaceable(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _cannot_write(target, error) from error
    try:
        _replace(target, pieces)
        _synchronise_folder(folder)
    except OSError as error:
        raise _cannot_write(target, error) from error
    finally:
        os.close(folder)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Finds out before long work whether a file could be written at its end; leaves nothing behind.

    A file is made and removed in the nearest folder that exists, because permission bits do not tell of read-only file systems.
    Does not prove that the disk has room for the result.

    Args:
        path: The file that will be written; folders above it may be missing.

    Raises:
        OutputError: A folder or a device is in the way, or nothing can be created there.
    """
    target = Path(path)
    _check_replaceable(target)
    try:
        folder = next(parent for parent in target.absolute().parents if os.path.lexists(parent))
        probe, descriptor = _create_temporary(folder)
        os.close(descriptor)
        probe.unlink()
    except OSError as error:
        raise _cannot_write(target, error) from error


def _manifest_bytes(manifest: Manifest, members: Mapping[str, Buffer], where: str, limits: Limits) -> bytes:
    if MANIFEST_NAME in members:
        raise BundleError(f"{where}: {MANIFEST_NAME} is made from the manifest and cannot be given as a member")
    listed = {name: Member(sha256=hashlib.sha256(data).hexdigest(), size_bytes=memoryview(data).nbytes) for name, data in members.items()}
    try:
        content = serialize(dataclasses.replace(manifest, members=listed))
    except ValueError as error:
        raise BundleError(f"{where} cannot be written: {error}") from error
    parse(content, where=where, limits=limits)
    return content


def _check_replaceable(target: Path) -> None:
    try:
        status = target.stat()
    except FileNotFoundError:
        # The usual case: nothing is there yet (or a link to nothing, which is replaced).
        return
    except (OSError, ValueError) as error:
        # ValueError: a path that no file system can have, such as one with a NUL character.
        raise _cannot_write(target, error) from error
    if stat.S_ISDIR(status.st_mode):
        raise OutputError(f"{target} is a folder; the result is one file", hint="give the name of a file in it")
    if not stat.S_ISREG(status.st_mode):
        raise OutputError(f"{target} is not a regular file, and is not replaced by one", hint=_CHOOSE_ANOTHER)


def _replace(target: Path, pieces: Iterable[Buffer]) -> None:
    temporary, descriptor = _create_temporary(target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(target)
    except BaseException:
        # Also when the user interrupts.
        temporary.unlink(missing_ok=True)
        raise


def _create_temporary(folder: Path) -> tuple[Path, int]:
    # A name of its own and not one made from the target's, which may already be as long as the file system allows.
    path = folder / f".edgekit-{secrets.token_hex(8)}.tmp"
    return path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def _synchronise_folder(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and FAT file systems cannot synchronise a folder and say so; there, the rename is all there is.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def _cannot_write(target: Path, error: Exception) -> OutputError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return OutputError(f"{str(target)!r} cannot be written: {reason}", hint="make room on the disk" if full else _CHOOSE_ANOTHER)
