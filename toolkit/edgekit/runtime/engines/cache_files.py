"""The files of the engine cache: what may be read, and how one is written.

Rules this file keeps:

1. The bytes that are returned were read once, from a regular file of this user or root that nobody else may write to; a symbolic link is not followed.
2. A folder is safe when it is this user's or root's, nobody else may write to it, and no folder above it lets everybody rename it.
3. A name means the whole content or what it meant before: a temporary file is synchronised and renamed.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from edgekit.errors import OutputError

_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class UnusableFileError(Exception):
    """A file or folder that nothing may be loaded from; the text says why."""


def check_folder(folder: Path) -> None:
    """Refuses a folder that somebody else may write to (rule 2).

    Raises:
        FileNotFoundError: There is none.
        UnusableFileError: It is not safe.
    """
    try:
        real = folder.resolve(strict=True)
        status = real.stat()
        above = [(parent, parent.stat()) for parent in real.parents]
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError) as error:
        raise UnusableFileError(f"it cannot be looked at ({error})") from error
    if not stat.S_ISDIR(status.st_mode):
        raise UnusableFileError("it is not a folder")
    _check_owner(status, "it")
    for parent, found in above:
        # The sticky bit, as /tmp has it, lets only the owner rename what is inside.
        if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            raise UnusableFileError(f"everybody may write to {parent} above it")


def read(path: Path, max_bytes: int) -> bytes:
    """The content of a file (rule 1).

    Raises:
        UnusableFileError: There is none, or it may not be used.
    """
    try:
        # Without O_NONBLOCK, a pipe would make this call wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise UnusableFileError(f"{path.name} is not a regular file")
            _check_owner(status, path.name)
            if status.st_size > max_bytes:
                raise UnusableFileError(f"{path.name} has {status.st_size} bytes, more than the {max_bytes} it may have")
            return file.read(max_bytes + 1)
    except OSError as error:
        raise UnusableFileError(f"{path.name} cannot be read: {error.strerror}") from error


def write(path: Path, content: bytes) -> None:
    """Writes a file that only this user can read (rule 3).

    Raises:
        OutputError: It cannot be written; nothing is left behind.
    """
    temporary = path.parent / f".edgekit-{secrets.token_hex(8)}.tmp"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            temporary.replace(path)
        except BaseException:
            # Also when the user interrupts.
            temporary.unlink(missing_ok=True)
            raise
        _synchronise(path.parent)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}", hint="make room, or choose another folder") from error


def probe(folder: Path, *, hint: str) -> None:
    """Finds out before long work whether files can be written into a folder, and leaves nothing behind.

    Raises:
        OutputError: They cannot.
    """
    temporary = folder / f".edgekit-{secrets.token_hex(8)}.tmp"
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        temporary.unlink()
    except OSError as error:
        raise OutputError(f"{folder} cannot be written to: {error.strerror}", hint=hint) from error


def _check_owner(status: os.stat_result, what: str) -> None:
    if status.st_uid not in (os.geteuid(), 0):
        raise UnusableFileError(f"{what} belongs to another user (uid {status.st_uid})")
    if status.st_mode & _OTHERS:
        raise UnusableFileError(f"others than its owner may write to {what}")


def _synchronise(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
