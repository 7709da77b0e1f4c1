"""Is a damaged or foreign plan ever executed here, and does a cache that cannot be written to still serve?

Tried on a copy of the cache, with the engine that would execute the plan.

Rules this file keeps:

1. The real cache is read and never written: everything happens in a folder of its own, which is gone afterwards.
2. The untouched copy is opened first. Where that does not work, a refusal of a damaged one would prove nothing, and the faults are NOT RUN.
3. PASS of a fault: the engine refused to open, and where the bundle can be opened at all, another engine answers and says why. FAIL: the engine opened.
4. PASS of the read-only cache: a build finds the plan and writes nothing, and the engine opens. Nothing is read-only for root, so there it is NOT RUN.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from edgekit.bundle.manifest import EngineSpec
from edgekit.bundle.reader import Bundle
from edgekit.errors import EdgekitError
from edgekit.profiler.check import FAIL, NOT_RUN, PASS, Check
from edgekit.runtime.classifier import Classifier
from edgekit.runtime.engines import cache_files, choice_file, open_engine, tensorrt_build
from edgekit.runtime.engines.cache_keys import EntryKey
from edgekit.runtime.engines.choice_file import Choice
from edgekit.runtime.engines.engine_cache import ENVIRONMENT, EngineCache

FOREIGN = "0.0.0"
"""A version that TensorRT never had."""


def _flip_byte(folder: Path, entry: str, _: str) -> None:
    path = folder / f"{entry}.plan"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def _cut(folder: Path, entry: str, _: str) -> None:
    path = folder / f"{entry}.plan"
    path.write_bytes(path.read_bytes()[:-1])


def _foreign_version(folder: Path, entry: str, digest: str) -> None:
    """As where the system was updated after the build: entry and choice are what another TensorRT would have left, under its names; the plan is whole."""
    here = tensorrt_build.this_device()
    before = dataclasses.replace(here, tensorrt=FOREIGN)
    sidecar = json.loads((folder / f"{entry}.json").read_bytes())
    made = sidecar["key"]
    key = EntryKey(kind=made["kind"], model_sha256=made["model_sha256"], options=made["options"], device=before)
    (folder / f"{entry}.json").unlink()
    # Not by the user's umask: a file that a group may write to would be refused for that.
    cache_files.write(folder / f"{key.name}.json", json.dumps({**sidecar, "key": key.document()}).encode())
    (folder / f"{entry}.plan").rename(folder / f"{key.name}.plan")
    cache = EngineCache(folder)
    choice = cache.load_choice(digest, here)
    if isinstance(choice, Choice):
        (folder / choice_file.name(digest, here)).unlink()
        cache.store_choice(digest, before, choice)


FAULTS: Mapping[str, Callable[[Path, str, str], None]] = {
    "corrupt-plan": _flip_byte,
    "truncated-plan": _cut,
    "foreign-version": _foreign_version,
}
"""Name of the check to what is done to the copy of an entry: folder, name of the entry, digest of the bundle."""


READ_ONLY = "read-only-cache"
"""Name of the check of a copy that nothing can be written into."""

NAMES = (*FAULTS, READ_ONLY)


class _Silent:
    """A build's progress, where the plan must be there already: nobody is told."""

    def begin(self, stage: str, *, cached: bool) -> None:
        """Not told."""

    def step(self, done: int, total: int) -> None:
        """Not told."""

    def note(self, text: str) -> None:
        """Not told."""

    def end(self) -> None:
        """Not told."""


def fault_checks(bundle: Bundle, entries: Mapping[str, str], cache: EngineCache) -> tuple[Check, ...]:
    """Tries every fault on every engine of a bundle that is built on the device.

    Args:
        bundle: The bundle.
        entries: Engine to the name of its entry in the cache; empty where there is no whole plan of it.
        cache: The real cache.
    """
    checks: list[Check] = []
    for spec in bundle.manifest.engines:
        if not tensorrt_build.is_tensorrt(spec.name):
            continue
        if not entries.get(spec.name):
            checks += _not_run(spec, "there is no whole plan in the cache to damage a copy of")
            continue
        try:
            checks += [_try(bundle, spec, entries, cache, name) for name in FAULTS]
            checks.append(_try_read_only(bundle, spec, entries, cache))
        except OSError as error:
            checks += _not_run(spec, f"the cache cannot be copied: {error.strerror or error}")
    return tuple(checks)


def _not_run(spec: EngineSpec, reason: str) -> tuple[Check, ...]:
    """Every fault of an engine, where none can be tried."""
    return tuple(Check(name=f"{name} {spec.name}", status=NOT_RUN, reason=reason) for name in NAMES)


def _try(bundle: Bundle, spec: EngineSpec, entries: Mapping[str, str], cache: EngineCache, fault: str) -> Check:
    name = f"{fault} {spec.name}"
    with _copied(bundle, entries, cache) as folder:
        untouched = _refusal(bundle, spec)
        if untouched is not None:
            return Check(name=name, status=NOT_RUN, reason=f"the whole plan is not taken either: {untouched}")
        FAULTS[fault](folder, entries[spec.name], bundle.digest)
        refused = _refusal(bundle, spec)
        if refused is None:
            return Check(name=name, status=FAIL, value="used", bound="refused", reason="the engine opened a plan that is not its own")
        answers, why = _answering(bundle)
        if answers == spec.name:
            return Check(name=name, status=FAIL, value="used", bound="refused", reason="the bundle answers with the plan it refused")
        told = f"; {answers} answers instead" if answers else f"; nothing answers instead: {why}"
        return Check(name=name, status=PASS, value="refused", bound="refused", reason=refused + told)


def _try_read_only(bundle: Bundle, spec: EngineSpec, entries: Mapping[str, str], cache: EngineCache) -> Check:
    name = f"{READ_ONLY} {spec.name}"
    if os.geteuid() == 0:
        return Check(name=name, status=NOT_RUN, reason="root may write everywhere; run verify as the user of the service")
    with _copied(bundle, entries, cache) as folder:
        untouched = _refusal(bundle, spec)
        if untouched is not None:
            return Check(name=name, status=NOT_RUN, reason=f"the whole plan is not taken either: {untouched}")
        folder.chmod(0o500)
        try:
            tensorrt_build.build(spec, bundle.members, EngineCache(), _Silent())
            refused = _refusal(bundle, spec)
        except EdgekitError as error:
            refused = error.message
        finally:
            # So that it can be removed.
            folder.chmod(0o700)
    if refused is not None:
        return Check(name=name, status=FAIL, value="refused", bound="used", reason=refused)
    return Check(name=name, status=PASS, value="used", bound="used")


@contextlib.contextmanager
def _copied(bundle: Bundle, entries: Mapping[str, str], cache: EngineCache) -> Iterator[Path]:
    """A copy of what the cache holds of a bundle, in the place of the cache."""
    with tempfile.TemporaryDirectory(prefix="edgekit-faults-") as folder, _cache_in(Path(folder)):
        for pattern in (*(f"{entry}.*" for entry in entries.values() if entry), choice_file.pattern(bundle.digest)):
            for path in cache_files.listed(cache.folder, pattern):
                if path.suffix != ".lock":
                    shutil.copy(path, folder)
        yield Path(folder)


def _refusal(bundle: Bundle, spec: EngineSpec) -> str | None:
    """Why the engine does not open; None where it does."""
    try:
        open_engine(spec, bundle.members).close()
    except EdgekitError as error:
        return error.message
    return None


def _answering(bundle: Bundle) -> tuple[str, str]:
    """Name of the engine that answers, or why none does."""
    try:
        classifier = Classifier(bundle)
    except EdgekitError as error:
        return "", error.message
    classifier.close()
    return classifier.engine_name, ""


@contextlib.contextmanager
def _cache_in(folder: Path) -> Iterator[None]:
    """The engine cache in another folder. An engine finds its cache by the environment alone, so that nothing else can lead it to another plan."""
    kept = os.environ.get(ENVIRONMENT)
    os.environ[ENVIRONMENT] = str(folder)
    try:
        yield
    finally:
        if kept is None:
            del os.environ[ENVIRONMENT]
        else:
            os.environ[ENVIRONMENT] = kept
