"""Is a damaged or foreign plan ever executed here? Tried on a copy of the cache, with the engine that would execute it.

Rules this file keeps:

1. The real cache is read and never written: everything happens in a folder of its own, which is gone afterwards.
2. The untouched copy is opened first. Where that does not work, a refusal of a damaged one would prove nothing, and the faults are NOT RUN.
3. PASS: the engine refused to open, and where the bundle can be opened at all, another engine answers and says why. FAIL: the engine opened.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from edgekit.bundle.manifest import EngineSpec
from edgekit.bundle.reader import Bundle
from edgekit.errors import EdgekitError
from edgekit.profiler.check import FAIL, NOT_RUN, PASS, Check
from edgekit.runtime.classifier import Classifier
from edgekit.runtime.engines import open_engine, tensorrt_build
from edgekit.runtime.engines.engine_cache import ENVIRONMENT, EngineCache

FOREIGN = "0.0.0"
"""A version that TensorRT never had."""


def _flip_byte(folder: Path, entry: str) -> None:
    path = folder / f"{entry}.plan"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def _cut(folder: Path, entry: str) -> None:
    path = folder / f"{entry}.plan"
    path.write_bytes(path.read_bytes()[:-1])


def _foreign_version(folder: Path, entry: str) -> None:
    """As where the system was updated after the build: sidecar and choice are of another TensorRT, the plan is whole."""
    for path in (folder / f"{entry}.json", *folder.glob("choice-*.json")):
        document: dict[str, Any] = json.loads(path.read_bytes())
        device = document["key"]["device"] if "key" in document else document["device"]
        device["tensorrt"] = FOREIGN
        path.write_text(json.dumps(document))


FAULTS: Mapping[str, Callable[[Path, str], None]] = {
    "corrupt-plan": _flip_byte,
    "truncated-plan": _cut,
    "foreign-version": _foreign_version,
}
"""Name of the check to what is done to the copy of an entry."""


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
        except OSError as error:
            checks += _not_run(spec, f"the cache cannot be copied: {error.strerror or error}")
    return tuple(checks)


def _not_run(spec: EngineSpec, reason: str) -> tuple[Check, ...]:
    """Every fault of an engine, where none can be tried."""
    return tuple(Check(name=f"{name} {spec.name}", status=NOT_RUN, reason=reason) for name in FAULTS)


def _try(bundle: Bundle, spec: EngineSpec, entries: Mapping[str, str], cache: EngineCache, fault: str) -> Check:
    name = f"{fault} {spec.name}"
    with tempfile.TemporaryDirectory(prefix="edgekit-faults-") as folder, _cache_in(Path(folder)):
        for pattern in (*(f"{entry}.*" for entry in entries.values() if entry), f"choice-{bundle.digest}.json"):
            for path in cache.folder.glob(pattern):
                shutil.copy(path, folder)
        untouched = _refusal(bundle, spec)
        if untouched is not None:
            return Check(name=name, status=NOT_RUN, reason=f"the whole plan is not taken either: {untouched}")
        FAULTS[fault](Path(folder), entries[spec.name])
        refused = _refusal(bundle, spec)
        if refused is None:
            return Check(name=name, status=FAIL, value="used", bound="refused", reason="the engine opened a plan that is not its own")
        answers, why = _answering(bundle)
        if answers == spec.name:
            return Check(name=name, status=FAIL, value="used", bound="refused", reason="the bundle answers with the plan it refused")
        told = f"; {answers} answers instead" if answers else f"; nothing answers instead: {why}"
        return Check(name=name, status=PASS, value="refused", bound="refused", reason=refused + told)


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
    classifier.engine.close()
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
