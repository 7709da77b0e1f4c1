"""The files of the engine cache: what may be read, and how one is written.

Rules this file keeps:

1. The bytes that are returned were read once, from a regular file of this user or root that nobody else may write to; a symbolic link is not followed.
2. A folder is safe when it is this user's or root's, nobody else may write to it, and no folder above it lets everybody rename it.
3. A name means the whole content or what it meant before: a temporary file is synchronised and renamed.
4. What a user writes only that user reads. What root writes everybody may read: root installs for the user of a service.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import time
from pathlib import Path
from typing import BinaryIO

from edgekit.errors import OutputError

STALE_S = 24 * 3600.0
"""Age at which a temporary file was left by a process that was killed; writing one takes seconds."""

_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_TEMPORARY = ".edgekit-{}.tmp"


class UnusableFileError(Exception):
    """A file or folder that nothing may be loaded from; the text says why."""


class NoFileError(UnusableFileError):
    """There is no such file."""


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
        raise UnusableFileError(f"it cannot be looked at ({_words(error)})") from error
    if not stat.S_ISDIR(status.st_mode):
        raise UnusableFileError("it is not a folder")
    _check_owner(status, "it")
    for parent, found in above:
        # The sticky bit, as /tmp has it, lets only the owner rename what is inside.
        if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            raise UnusableFileError(f"everybody may write to {parent} above it")


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it that are missing (rule 4).

    Raises:
        OSError: It cannot be made.
    """
    missing = []
    for path in (folder, *folder.parents):
        if path.is_dir():
            break
        missing.append(path)
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
        if _for_everybody():
            # Whatever the umask of root's shell is.
            path.chmod(0o755)


def listed(folder: Path, pattern: str) -> list[Path]:
    """The files of that pattern, sorted; none where this user may not list the folder."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def read(path: Path, max_bytes: int) -> bytes:
    """The content of a file (rule 1).

    Raises:
        NoFileError: There is none.
        UnusableFileError: It may not be used.
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
            return _content(file, status.st_size, path.name)
    except FileNotFoundError as error:
        raise NoFileError(f"{path.name} cannot be read: {_words(error)}") from error
    except OSError as error:
        raise UnusableFileError(f"{path.name} cannot be read: {_words(error)}") from error


def write(path: Path, content: bytes) -> None:
    """Writes a file (rules 3 and 4).

    Raises:
        OutputError: It cannot be written; nothing is left behind.
    """
    temporary = _temporary(path.parent)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                if _for_everybody():
                    os.fchmod(descriptor, 0o644)
                os.fsync(descriptor)
            temporary.replace(path)
        except BaseException:
            # Also when the user interrupts.
            temporary.unlink(missing_ok=True)
            raise
        _synchronise(path.parent)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {_words(error)}", hint="make room, or choose another folder") from error


def probe(folder: Path, *, hint: str) -> None:
    """Finds out before long work whether files can be written into a folder, and leaves nothing behind.

    Raises:
        OutputError: They cannot.
    """
    temporary = _temporary(folder)
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        temporary.unlink()
    except OSError as error:
        raise OutputError(f"{folder} cannot be written to: {_words(error)}", hint=hint) from error


def sweep(folder: Path) -> None:
    """Removes temporary files that processes left which were killed while they wrote."""
    for path in listed(folder, _TEMPORARY.format("*")):
        # One that is gone, or that cannot be removed, is in nobody's way.
        with contextlib.suppress(OSError):
            if time.time() - path.lstat().st_mtime > STALE_S:
                path.unlink()


def _temporary(folder: Path) -> Path:
    return folder / _TEMPORARY.format(secrets.token_hex(8))


def _content(file: BinaryIO, size_bytes: int, name: str) -> bytes:
    """What is in a file of a known size."""
    try:
        # Python takes the memory for all that it is asked to read before it reads; the largest plan allowed is more than a small board has.
        content = file.read(size_bytes + 1)
    except MemoryError as error:
        raise UnusableFileError(f"there is no memory for the {size_bytes} bytes of {name}") from error
    if len(content) > size_bytes:
        raise UnusableFileError(f"{name} was written to while it was read")
    return content


def _for_everybody() -> bool:
    return os.geteuid() == 0


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


def _words(error: BaseException) -> str:
    """What went wrong, without the path: the caller names what the reader needs of it."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
