"""Compiles the OpenVINO models of a bundle ahead, at `edgekit build`, and tries what was kept.

Rules this file keeps:

1. What is kept must reproduce the golden frames of the bundle, read back from the cache as a start would read it; otherwise it is removed.
2. What is kept already and still fits is tried again, and not made again.
3. One process compiles at a time, from the bundle's own model; another one that waited finds what the first has kept.
"""

from __future__ import annotations

import datetime as dt
import time

from edgekit.bundle.manifest import EngineSpec
from edgekit.bundle.reader import Bundle
from edgekit.errors import TargetError
from edgekit.profiler.engine_choice import Outcome, Tried, choose
from edgekit.runtime import selftest
from edgekit.runtime.classifier import check_machine
from edgekit.runtime.engines import openvino_cache
from edgekit.runtime.engines.base import ModelRefusedError
from edgekit.runtime.engines.cache_keys import Entry, EntryKey, Unusable
from edgekit.runtime.engines.engine_cache import EngineCache
from edgekit.runtime.engines.openvino import COMPILED_AHEAD, DEVICES, OpenVinoEngine, load_library
from edgekit.runtime.engines.tensorrt_build import Built, Progress, built_of, is_tensorrt


def make_ready(bundle: Bundle, cache: EngineCache, progress: Progress, *, again: bool = False) -> Outcome:
    """What an installation does for a bundle: TensorRT's engines are built and put in order; a bundle without them has its OpenVINO models compiled ahead.

    Args:
        bundle: The bundle.
        cache: Where it is kept.
        progress: Is told how far it is.
        again: As in `engine_choice.choose`.

    Raises:
        TargetError: The bundle has no engine of either kind; or as `engine_choice.choose`.
        EdgekitError: As `engine_choice.choose` and `compile_ahead`.
    """
    specs = bundle.manifest.engines
    ahead = [spec for spec in specs if can_be_compiled_ahead(spec)]
    if not ahead or any(is_tensorrt(spec.name) for spec in specs):
        return choose(bundle, cache, progress, again=again)
    tried = tuple(compile_ahead(bundle, spec, cache, progress) for spec in ahead)
    return Outcome(tried=tried, order=tuple(one.engine for one in tried if one.status == "PASS"))


def can_be_compiled_ahead(spec: EngineSpec) -> bool:
    """Whether an engine of a manifest has a model that a start may read in place of compiling it."""
    return spec.name == openvino_cache.KIND and spec.settings.get("DEVICE", DEVICES[0]) == DEVICES[0]


def compile_ahead(bundle: Bundle, spec: EngineSpec, cache: EngineCache, progress: Progress) -> Tried:
    """Compiles the model of an engine, keeps it, and tries it on the golden frames.

    Args:
        bundle: The bundle.
        spec: One of its engines, for which `can_be_compiled_ahead`.
        cache: Where it is kept.
        progress: Is told how far it is.

    Raises:
        MissingEngineError: OpenVINO is not installed.
        BundleError: The model is not what the manifest says.
        OutputError: The cache cannot be written.
    """
    tolerance = bundle.manifest.golden.tolerance[spec.name]
    try:
        check_machine(bundle.manifest)
        built = _kept(bundle, spec, cache, progress)
    except (TargetError, ModelRefusedError) as error:
        return Tried(
            engine=spec.name, status="NOT RUN", reason=error.message, built=None, frames=0, max_difference=None, tolerance=tolerance
        )
    progress.begin(f"golden frames of {spec.name}", cached=False)
    check = selftest.check(bundle, spec)
    origin = OpenVinoEngine.open(spec, bundle.members).describe()["model"]
    progress.end()
    unread = "" if origin == COMPILED_AHEAD else f"what was kept is not read: {origin}"
    if check.status != "PASS" or unread:
        cache.remove(_key(bundle, spec))
    return Tried(
        engine=spec.name,
        status="FAIL" if unread else check.status,
        reason=check.reason or unread,
        built=built,
        frames=check.frames,
        max_difference=check.max_difference,
        tolerance=tolerance,
        max_residual=check.max_residual,
        max_map_difference=check.max_map_difference,
        label_changes=check.label_changes,
    )


def _key(bundle: Bundle, spec: EngineSpec) -> EntryKey:
    return openvino_cache.entry_key(spec, bundle.members, load_library().__version__)


def _kept(bundle: Bundle, spec: EngineSpec, cache: EngineCache, progress: Progress) -> Built:
    key = _key(bundle, spec)
    found = cache.load(key)
    reason = found.reason if isinstance(found, Unusable) else ""
    progress.begin(f"compile {spec.name} ahead", cached=not reason)
    if isinstance(found, Unusable):
        with cache.locked(key, waiting=lambda: progress.note(f"another process compiles {spec.name}; waiting for it")):
            again = cache.load(key)
            found = _stored(bundle, spec, cache, key) if isinstance(again, Unusable) else again
    progress.end()
    return built_of(key, found, reason)


def _stored(bundle: Bundle, spec: EngineSpec, cache: EngineCache, key: EntryKey) -> Entry:
    start = time.monotonic()
    content = OpenVinoEngine.compile(spec, bundle.members).export()
    facts = {
        "build_seconds": round(time.monotonic() - start, 3),
        "built_at": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
    }
    return cache.store(key, content, facts)
