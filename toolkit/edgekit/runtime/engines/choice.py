"""In which order the engines of a bundle are tried on this device.

Rules this file keeps:

1. The order is the manifest's. Engines that are built on the device take the places that they have there, among themselves in the order that
   `edgekit build` found: the fastest first.
2. One that was built on the device answers only where `edgekit build` saw it reproduce the golden frames of this bundle here. One that was not tried, or did
   not, is passed over with the reason, even where a plan of it is in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.bundle.manifest import EngineSpec
from edgekit.errors import EdgekitError, TargetError
from edgekit.runtime.engines import tensorrt_build
from edgekit.runtime.engines.base import EngineNotBuiltError
from edgekit.runtime.engines.engine_cache import Choice, EngineCache, Unusable

_BUILD = "edgekit build BUNDLE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An engine of a bundle, or why it may not answer here."""

    spec: EngineSpec
    refusal: EdgekitError | None = None


def candidates(specs: Sequence[EngineSpec], bundle_digest: str) -> tuple[Candidate, ...]:
    """The engines of a bundle in the order they are tried."""
    built = [spec for spec in specs if tensorrt_build.is_tensorrt(spec.name)]
    if not built:
        return tuple(Candidate(spec=spec) for spec in specs)
    ordered = iter(_ordered(built, bundle_digest))
    return tuple(next(ordered) if tensorrt_build.is_tensorrt(spec.name) else Candidate(spec=spec) for spec in specs)


def _ordered(built: Sequence[EngineSpec], bundle_digest: str) -> list[Candidate]:
    try:
        choice = EngineCache().load_choice(bundle_digest, tensorrt_build.this_device())
    except EdgekitError as error:
        return [Candidate(spec=spec, refusal=error) for spec in built]
    if isinstance(choice, Unusable):
        return [Candidate(spec=spec, refusal=EngineNotBuiltError(choice.reason, hint=_BUILD)) for spec in built]
    rank = {name: index for index, name in enumerate(choice.order)}
    return [_judged(spec, choice) for spec in sorted(built, key=lambda spec: rank.get(spec.name, len(rank)))]


def _judged(spec: EngineSpec, choice: Choice) -> Candidate:
    if spec.name in choice.order:
        return Candidate(spec=spec)
    if spec.name in choice.refused:
        return Candidate(spec=spec, refusal=TargetError(f"refused when it was built here: {choice.refused[spec.name]}", hint=_BUILD))
    return Candidate(spec=spec, refusal=EngineNotBuiltError("it was not built and tried here yet", hint=_BUILD))
