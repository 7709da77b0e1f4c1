"""OpenVINO models that were compiled ahead, in the engine cache: a start then reads one instead of compiling for seconds.

Rules this file keeps:

1. What is kept is OpenVINO's own export of the compiled model, under a key of everything it depends on: the model's bytes, the settings, the library's build, the
   processor and the cores it may use. Another machine, another library and another model have another key.
2. Opening reads and never writes. `edgekit build` tries an export on the golden frames before it keeps it, and an entry that does not say that it was tried is not
   read: a build that is ended in the middle leaves nothing that answers.
3. A cache that cannot be used is no error here: the model of the bundle is compiled, and `describe` says why.
"""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
import io
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgekit.bundle.manifest import EngineSpec
from edgekit.errors import TargetError
from edgekit.runtime.cpu import cpu_model, instruction_sets
from edgekit.runtime.engines.cache_keys import Entry, EntryKey, HostKey, Unusable
from edgekit.runtime.engines.engine_cache import EngineCache

KIND = "openvino"
_CPUINFO = Path("/proc/cpuinfo")
_TRIED, _PASS = "golden_frames", "PASS"
_on_trial: contextvars.ContextVar[Entry | None] = contextvars.ContextVar("on_trial", default=None)


def entry_key(spec: EngineSpec, members: Mapping[str, memoryview], version: str) -> EntryKey:
    """What the compiled model of a bundle depends on here.

    Args:
        spec: The manifest's entry.
        members: Member name to its checked bytes.
        version: Full version of OpenVINO.
    """
    digest = hashlib.sha256()
    for role in sorted(spec.files):
        # The digests of both, so that no bytes can move from one file to the other.
        digest.update(hashlib.sha256(members[spec.files[role]]).digest())
    return EntryKey(kind=KIND, model_sha256=digest.hexdigest(), options=spec.settings, device=_this_host(version))


def find(spec: EngineSpec, members: Mapping[str, memoryview], version: str) -> Entry | Unusable:
    """The compiled model of a bundle for this machine, or why there is none; reads only. Arguments as in `entry_key`."""
    tried = _on_trial.get()
    if tried is not None:
        return tried
    try:
        cache = EngineCache()
        # Most machines have no cache: the model's bytes are not hashed for nothing.
        return read(cache, entry_key(spec, members, version)) if cache.folder.is_dir() else Unusable(reason="it was not compiled ahead")
    except TargetError as error:
        return Unusable(reason=error.message)


def read(cache: EngineCache, key: EntryKey) -> Entry | Unusable:
    """The entry of a key, or why there is none that may be used (rule 2).

    Raises:
        TargetError: The folder may be written by others.
    """
    found = cache.load(key)
    if isinstance(found, Entry) and found.facts.get(_TRIED) != _PASS:
        return Unusable(reason="the one that is kept was not tried on golden frames")
    return found


def keep(cache: EngineCache, key: EntryKey, content: bytes, facts: Mapping[str, Any]) -> Entry:
    """Writes an export that reproduced the golden frames. Arguments and errors as of `EngineCache.store`."""
    return cache.store(key, content, {**facts, _TRIED: _PASS})


@contextlib.contextmanager
def on_trial(content: bytes) -> Iterator[None]:
    """What this thread opens meanwhile reads an export that is not kept yet, and nothing of the cache."""
    token = _on_trial.set(Entry(payload=content, sha256=hashlib.sha256(content).hexdigest(), facts={}))
    try:
        yield
    finally:
        _on_trial.reset(token)


def load(core: Any, found: Entry, device: str, settings: Mapping[str, str]) -> Any:
    """The compiled model of an entry.

    Raises:
        RuntimeError: OpenVINO does not take it.
    """
    return core.import_model(io.BytesIO(found.payload), device, dict(settings))


def export(compiled: Any) -> bytes:
    """The bytes that `load` takes."""
    content: bytes = compiled.export_model().getvalue()
    return content


def _this_host(version: str) -> HostKey:
    try:
        cpuinfo = _CPUINFO.read_text("utf-8", "replace")
    except OSError:
        cpuinfo = ""
    # Linux alone has affinities.
    affinity = getattr(os, "sched_getaffinity", None)
    return HostKey(
        openvino=version,
        architecture=platform.machine(),
        cpu=cpu_model(cpuinfo) or "",
        instruction_sets=instruction_sets(cpuinfo) or (),
        cores=(os.cpu_count() or 0) if affinity is None else len(affinity(0)),
    )
