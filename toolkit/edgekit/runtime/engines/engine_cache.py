"""Where engines that were built on this device are kept, and when one may be used.

An entry is two files: the payload (`NAME.plan`), byte for byte as the library gave it, and a sidecar (`NAME.json`) with the key it was made for, its size
and its sha256. NAME comes from the key.

Rules this file keeps:

1. A plan is executable. It is handed out only when the key in the sidecar is the one asked for and the sha256 is right of the very bytes that are handed
   out; whatever is foreign, damaged, cut short or of another version is told and never loaded.
2. The folder must be this user's (or root's) and writable by nobody else, and so must every file in it: the sidecar lies beside the payload, so it
   protects from damage and mix-ups, not from somebody who can write here.
3. A file is written under another name, synchronised and renamed; the sidecar, which makes an entry one, comes last.
4. One process writes an entry at a time (`locked`). Reading takes no lock and writes nothing, so a cache on a read-only disk serves.
5. What this user may not read is not there, with the reason: it is never more than the next engine of a bundle that is needed.
6. Writing an entry takes no choice away: a choice names the sha256 of the plan that it was made with, and lets no other answer. Where a plan cannot be written,
   the entry of before stands; where the plan is written and its sidecar cannot be, there is no entry until one is stored again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from edgekit.errors import OutputError, TargetError
from edgekit.runtime.engines import cache_files, choice_file
from edgekit.runtime.engines.cache_keys import DeviceKey, Entry, EntryKey, Unusable, difference
from edgekit.runtime.engines.choice_file import Choice

ENVIRONMENT = "EDGEKIT_ENGINE_CACHE"
MAX_PAYLOAD_BYTES = 4 * 2**30
MAX_SIDECAR_BYTES = 2**20


def default_folder() -> Path:
    """The folder that the environment names, else the user's cache.

    Raises:
        TargetError: This user has no home folder.
    """
    if os.environ.get(ENVIRONMENT):
        return Path(os.environ[ENVIRONMENT]).absolute()
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (base if base.is_absolute() else Path.home() / ".cache") / "edgekit" / "engines"
    except RuntimeError as error:
        raise TargetError("there is no home folder to keep engines in", hint=f"set {ENVIRONMENT} to a folder of this user") from error


class EngineCache:
    """Entries in one folder.

    Args:
        folder: Where; None for `default_folder`. It is made by the first write.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = default_folder() if folder is None else folder.absolute()

    def load(self, key: EntryKey) -> Entry | Unusable:
        """The payload of a key, or why there is none.

        Raises:
            TargetError: The folder may be written by others; nothing in it is looked at.
        """
        if not self._exists():
            return Unusable(reason="no engine was built here yet")
        sidecar = self._sidecar(f"{key.name}.json")
        if sidecar is None:
            return Unusable(reason=self._nearest(key))
        if isinstance(sidecar, Unusable):
            return sidecar
        if sidecar.get("key") != key.document():
            return Unusable(reason="the entry's key is not the one its name says")
        try:
            payload = cache_files.read(self.folder / f"{key.name}.plan", MAX_PAYLOAD_BYTES)
        except cache_files.UnusableFileError as error:
            return Unusable(reason=str(error))
        if len(payload) != sidecar.get("size_bytes"):
            return Unusable(reason=f"the plan has {len(payload)} bytes, not the {sidecar.get('size_bytes')} it was built with")
        digest = hashlib.sha256(payload).hexdigest()
        if digest != sidecar.get("sha256"):
            return Unusable(reason="the plan is not the one that was built (sha256)")
        return Entry(payload=payload, sha256=digest, facts=sidecar)

    def store(self, key: EntryKey, payload: bytes, facts: Mapping[str, Any]) -> Entry:
        """Writes an entry, in the place of one of the same key.

        Args:
            key: What it was made from.
            payload: As the library gave it.
            facts: More for the sidecar: how long it took, for example.

        Raises:
            OutputError: It cannot be written.
            TargetError: The folder may be written by others.
        """
        self.prepare()
        digest = hashlib.sha256(payload).hexdigest()
        sidecar = {**facts, "key": key.document(), "sha256": digest, "size_bytes": len(payload)}
        cache_files.write(self.folder / f"{key.name}.plan", payload)
        # Until it is written, the sidecar of before is of other bytes, and `load` refuses them.
        cache_files.write(self.folder / f"{key.name}.json", _json(sidecar))
        return Entry(payload=payload, sha256=digest, facts=sidecar)

    def remove(self, key: EntryKey) -> None:
        """Takes an entry away; what is not there is no error.

        Raises:
            OutputError: It cannot be removed: another user's, or on a disk that cannot be written to.
        """
        try:
            # The sidecar goes first: it makes the entry one.
            for ending in ("json", "plan"):
                (self.folder / f"{key.name}.{ending}").unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                f"{key.name} could not be removed from {self.folder}: {error.strerror}",
                hint=f"remove it as the user that it belongs to, or set {ENVIRONMENT} to a folder of this user",
            ) from error

    def prepare(self) -> None:
        """Makes the folder where there is none, and finds out whether entries can be written.

        Raises:
            OutputError: They cannot.
            TargetError: The folder may be written by others.
        """
        try:
            cache_files.make_folder(self.folder)
        except OSError as error:
            raise OutputError(
                f"{self.folder} cannot be made: {error.strerror}", hint=f"set {ENVIRONMENT} to a folder of this user"
            ) from error
        self._exists()
        cache_files.probe(self.folder, hint=f"set {ENVIRONMENT} to a folder that this user can write to")

    @contextlib.contextmanager
    def locked(self, key: EntryKey, *, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Holds the right to write an entry; waits while another process has it. A process that ends gives it back, however it ends.

        Args:
            key: Of the entry.
            waiting: Called once where another process has it.
        """
        self.prepare()
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(self.folder / f"{key.name}.lock", flags, 0o600)
        except OSError as error:
            raise OutputError(f"{self.folder} cannot be locked: {error.strerror}", hint="remove what is in the way") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            cache_files.sweep(self.folder)
            yield
        finally:
            os.close(descriptor)

    def store_choice(self, bundle_digest: str, device: DeviceKey, choice: Choice) -> None:
        """Writes down which engines of a bundle may answer here.

        Where that is written already, nothing is: a disk that cannot be written to is then no error, and timings that moved are no new choice.

        Args:
            bundle_digest: Of the bundle.
            device: The device.
            choice: What was found.

        Raises:
            OutputError: It cannot be written.
            TargetError: The folder may be written by others.
        """
        before = self.load_choice(bundle_digest, device)
        if isinstance(before, Choice) and before.without_timings() == choice.without_timings():
            return
        self.prepare()
        document = choice_file.document(bundle_digest, device, choice)
        cache_files.write(self.folder / choice_file.name(bundle_digest, device), _json(document))

    def load_choice(self, bundle_digest: str, device: DeviceKey) -> Choice | Unusable:
        """Which engines of a bundle may answer here, or why that is not known.

        Raises:
            TargetError: The folder may be written by others.
        """
        nothing = Unusable(reason="the bundle's engines were not built and tried on this device yet")
        name = choice_file.name(bundle_digest, device)
        if not self._exists():
            return nothing
        found = self._sidecar(name)
        if found is None:
            # Of another version, or of a mode with other multiprocessors: it does not count, but it says what has changed.
            others = (self._sidecar(path.name) for path in cache_files.listed(self.folder, choice_file.pattern(bundle_digest)))
            found = next((other for other in others if isinstance(other, dict)), None)
        if found is None or isinstance(found, Unusable):
            return found or nothing
        return choice_file.parse(found, bundle_digest, device)

    def _exists(self) -> bool:
        """Whether the folder is there; refuses one that others may write to."""
        try:
            cache_files.check_folder(self.folder)
        except FileNotFoundError:
            return False
        except cache_files.UnusableFileError as error:
            raise TargetError(
                f"engines are not taken from {self.folder}: {error}", hint=f"chmod go-w it, or set {ENVIRONMENT} to a folder of this user"
            ) from error
        return True

    def _sidecar(self, name: str) -> dict[str, Any] | Unusable | None:
        """The document; None where there is no such file."""
        try:
            found = json.loads(cache_files.read(self.folder / name, MAX_SIDECAR_BYTES))
        except cache_files.NoFileError:
            return None
        except cache_files.UnusableFileError as error:
            return Unusable(reason=str(error))
        except (ValueError, RecursionError):
            return Unusable(reason=f"{name} is damaged")
        return found if isinstance(found, dict) else Unusable(reason=f"{name} is damaged")

    def _nearest(self, key: EntryKey) -> str:
        """Why there is no entry: another device or version built it, or nobody."""
        wanted = key.document()
        for path in cache_files.listed(self.folder, f"{key.kind}-*.json"):
            found = self._sidecar(path.name)
            listed = found.get("key") if isinstance(found, dict) else None
            if isinstance(listed, dict) and listed.get("model_sha256") == key.model_sha256:
                if listed.get("device") != wanted["device"]:
                    return f"the one that is cached was built with {difference(listed.get('device'), wanted['device'])}"
                return "the one that is cached was built with other options"
        return "it was not built here yet"


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, sort_keys=True, indent=2, allow_nan=False) + "\n").encode()
