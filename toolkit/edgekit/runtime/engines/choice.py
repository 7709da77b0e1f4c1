"""In which order the engines of a bundle are tried on this device.

Rules this file keeps:

1. The order is the manifest's. Engines that are built on the device take the places that they have there, among themselves in the order that
   `edgekit build` found: the fastest first.
2. One that was built on the device answers only where `edgekit build` saw it reproduce the golden frames of this bundle here. One that was not tried, or did
   not, is passed over with the reason, even where a plan of it is in the cache, and even where it was named.
3. What answers is the very plan that was tried: its sha256 is in the choice.
4. A model or a setting that no device may take is an error of the bundle here too, whether or not TensorRT is installed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekit.bundle.manifest import EngineSpec
from edgekit.errors import EdgekitError, TargetError
from edgekit.runtime.engines import open_engine, tensorrt_build
from edgekit.runtime.engines.base import Engine, EngineNotBuiltError
from edgekit.runtime.engines.cache_keys import Unusable
from edgekit.runtime.engines.choice_file import Choice
from edgekit.runtime.engines.engine_cache import EngineCache
from edgekit.runtime.engines.tensorrt_engine import TensorRtEngine

_BUILD = "edgekit build BUNDLE"
_AGAIN = "edgekit build BUNDLE --again tries it again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An engine of a bundle, or why it may not answer here.

    Attributes:
        spec: Its entry in the manifest.
        refusal: Why it may not.
        plan_sha256: The plan that may answer, where it is built on the device.
    """

    spec: EngineSpec
    refusal: EdgekitError | None = None
    plan_sha256: str = ""


def candidates(specs: Sequence[EngineSpec], bundle_digest: str) -> tuple[Candidate, ...]:
    """The engines of a bundle in the order they are tried."""
    built = [spec for spec in specs if tensorrt_build.is_tensorrt(spec.name)]
    if not built:
        return tuple(Candidate(spec=spec) for spec in specs)
    ordered = iter(_ordered(built, bundle_digest))
    return tuple(next(ordered) if tensorrt_build.is_tensorrt(spec.name) else Candidate(spec=spec) for spec in specs)


def open_candidate(candidate: Candidate, members: Mapping[str, memoryview]) -> Engine:
    """Opens an engine that may answer.

    Raises:
        EdgekitError: Its refusal, or as `Engine.open`.
    """
    if tensorrt_build.is_tensorrt(candidate.spec.name):
        tensorrt_build.read_model(candidate.spec, members)
        tensorrt_build.read_settings(candidate.spec)
    if candidate.refusal is not None:
        raise candidate.refusal
    if candidate.plan_sha256:
        return TensorRtEngine.open(candidate.spec, members, plan_sha256=candidate.plan_sha256)
    return open_engine(candidate.spec, members)


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
    name = spec.name
    if name in choice.order and choice.plans.get(name):
        return Candidate(spec=spec, plan_sha256=choice.plans[name])
    if name in choice.refused:
        return Candidate(spec=spec, refusal=TargetError(f"refused when it was built here: {choice.refused[name]}", hint=_AGAIN))
    why = f": {choice.untried[name]}" if name in choice.untried else ""
    return Candidate(spec=spec, refusal=EngineNotBuiltError(f"it was not built and tried here yet{why}", hint=_BUILD))
