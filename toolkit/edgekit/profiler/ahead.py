"""Compiles the OpenVINO models of a bundle ahead, at `edgekit build`, and tries them.

Rules this file keeps:

1. An export must reproduce the golden frames of the bundle, read back as a start would read it, before it is kept: what a build that ends in the middle leaves
   behind must not answer.
2. What is kept already and still fits is tried again, and not made again. It is removed where it fails; one that cannot be removed is told.
3. One process compiles at a time, from the bundle's own model; another one that waited finds what the first has kept.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
from dataclasses import dataclass

from edgekit.bundle.manifest import EngineSpec
from edgekit.bundle.reader import Bundle
from edgekit.errors import OutputError, TargetError
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
    """Compiles the model of an engine, tries it on the golden frames, and keeps it where it passes.

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
    try:
        check_machine(bundle.manifest)
        key = openvino_cache.entry_key(spec, bundle.members, load_library().__version__)
        return _made_or_found(_Job(bundle=bundle, spec=spec, cache=cache, key=key, progress=progress))
    except (TargetError, ModelRefusedError) as error:
        return Tried(
            engine=spec.name,
            status="NOT RUN",
            reason=error.message,
            built=None,
            frames=0,
            max_difference=None,
            tolerance=bundle.manifest.golden.tolerance[spec.name],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One model: of which bundle and engine, kept where under which key, and who is told."""

    bundle: Bundle
    spec: EngineSpec
    cache: EngineCache
    key: EntryKey
    progress: Progress


def _made_or_found(job: _Job) -> Tried:
    found = openvino_cache.read(job.cache, job.key)
    job.progress.begin(f"compile {job.spec.name} ahead", cached=isinstance(found, Entry))
    if isinstance(found, Unusable):
        with job.cache.locked(job.key, waiting=lambda: job.progress.note(f"another process compiles {job.spec.name}; waiting for it")):
            again = openvino_cache.read(job.cache, job.key)
            if isinstance(again, Unusable):
                return _make(job, found.reason)
        found = again
    job.progress.end()
    return _try_again(job, built_of(job.key, found, ""))


def _make(job: _Job, reason: str) -> Tried:
    """Compiles, tries, and keeps what passes (rule 1)."""
    start = time.monotonic()
    content = OpenVinoEngine.compile(job.spec, job.bundle.members).export()
    facts = {
        "build_seconds": round(time.monotonic() - start, 3),
        "built_at": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
    }
    job.progress.end()
    with openvino_cache.on_trial(content):
        tried = _try(job)
    if tried.status != "PASS":
        return tried
    return dataclasses.replace(tried, built=built_of(job.key, openvino_cache.keep(job.cache, job.key, content, facts), reason))


def _try_again(job: _Job, built: Built) -> Tried:
    """Tries what is kept, and removes it where it fails (rule 2)."""
    tried = dataclasses.replace(_try(job), built=built)
    if tried.status == "PASS":
        return tried
    try:
        job.cache.remove(job.key)
    except OutputError as error:
        return dataclasses.replace(tried, reason=f"{tried.reason}; it is still read at a start: {error.message}")
    return tried


def _try(job: _Job) -> Tried:
    """The golden frames on the engine as it opens now, which must not be by compiling."""
    job.progress.begin(f"golden frames of {job.spec.name}", cached=False)
    check = selftest.check(job.bundle, job.spec)
    origin = OpenVinoEngine.open(job.spec, job.bundle.members).describe()["model"]
    job.progress.end()
    unread = "" if origin == COMPILED_AHEAD else f"what was compiled is not read back: {origin}"
    return Tried(
        engine=job.spec.name,
        status="FAIL" if unread else check.status,
        reason=check.reason or unread,
        built=None,
        frames=check.frames,
        max_difference=check.max_difference,
        tolerance=check.tolerance,
        max_residual=check.max_residual,
        max_map_difference=check.max_map_difference,
        label_changes=check.label_changes,
    )
