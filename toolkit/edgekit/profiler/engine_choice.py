"""Builds the engines of a bundle that are built on the device, tries them, and writes down which may answer, the fastest first.

Rules this file keeps:

1. An engine may answer only where it reproduces the golden frames of the bundle on this device; how fast it is plays no part in that.
2. Those that do are timed pair by pair, interleaved. One is preferred for its speed where the 95 % interval of the ratio says that it is faster; otherwise
   the manifest's order stands.
3. What is written down holds for this bundle on this device with these plans; a new plan withdraws it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass

import numpy as np

from edgekit.bundle.manifest import EngineSpec
from edgekit.bundle.reader import Bundle
from edgekit.errors import BundleError, TargetError
from edgekit.profiler import clock
from edgekit.profiler.clock import Budget
from edgekit.profiler.warmup import steady_state
from edgekit.runtime import selftest
from edgekit.runtime.engines import open_engine, tensorrt_build
from edgekit.runtime.engines.engine_cache import Choice, EngineCache
from edgekit.runtime.engines.tensorrt_build import Built, Progress

Call = Callable[[], object]

BUDGET = Budget(seconds=3.0, min_samples=100, max_seconds=60.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One engine, built and tried.

    Attributes:
        engine: Its name.
        status: PASS, FAIL, or NOT RUN where it could not be built or opened.
        reason: Why it is not PASS.
        built: What was built or found in the cache; None where nothing was.
        frames: Golden frames compared; 0 where none were.
        max_difference: Largest |Δlogit|; None where not run.
        tolerance: What was allowed.
        latency_ms: Median of one frame on the engine alone, without preprocessing; None where not timed.
    """

    engine: str
    status: str
    reason: str
    built: Built | None
    frames: int
    max_difference: float | None
    tolerance: float
    latency_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a device made of a bundle: every engine that was tried, and the names of those that may answer, the fastest first."""

    tried: tuple[Tried, ...]
    order: tuple[str, ...]


def choose(bundle: Bundle, cache: EngineCache, progress: Progress, *, budget: Budget | None = None) -> Outcome:
    """Builds, tries and orders; the choice is in the cache afterwards.

    Args:
        bundle: The bundle.
        cache: Where plans and the choice are kept.
        progress: Is told how far it is.
        budget: How long a pair is timed; None for `BUDGET`.

    Raises:
        TargetError: The bundle has no engine that is built on the device, or there is no GPU here.
        MissingEngineError: TensorRT or a binding of CUDA is not installed.
        OutputError: The cache cannot be written.
    """
    specs = [spec for spec in bundle.manifest.engines if tensorrt_build.is_tensorrt(spec.name)]
    if not specs:
        names = ", ".join(spec.name for spec in bundle.manifest.engines)
        raise TargetError(f"{bundle.path} has no engine that is built on the device, only {names}", hint="it runs as it is: edgekit verify")
    device = tensorrt_build.this_device()
    tried = [_try(bundle, spec, cache, progress) for spec in specs]
    passed = [spec for spec in specs if any(one.engine == spec.name and one.status == "PASS" for one in tried)]
    order, medians = _fastest_first(bundle, passed, _Timing(budget=budget or BUDGET, progress=progress))
    outcome = Outcome(tried=tuple(dataclasses.replace(one, latency_ms=medians.get(one.engine)) for one in tried), order=order)
    cache.store_choice(
        bundle.digest,
        device,
        Choice(order=order, refused={one.engine: one.reason for one in tried if one.status != "PASS"}),
        {one.engine: one.built.entry for one in tried if one.built is not None},
        {"tried": [asdict(one) for one in outcome.tried]},
    )
    return outcome


def _try(bundle: Bundle, spec: EngineSpec, cache: EngineCache, progress: Progress) -> Tried:
    tolerance = bundle.manifest.golden.tolerance[spec.name]
    try:
        built = tensorrt_build.build(spec, bundle.members, cache, progress)
    except (TargetError, BundleError) as error:
        return Tried(
            engine=spec.name, status="NOT RUN", reason=error.message, built=None, frames=0, max_difference=None, tolerance=tolerance
        )
    progress.begin(f"golden frames of {spec.name}", cached=False)
    check = selftest.check(bundle, spec)
    progress.end()
    return Tried(
        engine=spec.name,
        status=check.status,
        reason=check.reason,
        built=built,
        frames=check.frames,
        max_difference=check.max_difference,
        tolerance=tolerance,
    )


def _fastest_first(bundle: Bundle, specs: Sequence[EngineSpec], timing: _Timing) -> tuple[tuple[str, ...], dict[str, float]]:
    """Names of the engines in order, and their medians in milliseconds (rule 2)."""
    tensor = np.ascontiguousarray(bundle.load_array(bundle.manifest.golden.frames)[:1])
    medians: dict[str, float] = {}
    ordered: list[tuple[str, Call]] = []
    with ExitStack() as held:
        for spec in specs:
            engine = open_engine(spec, bundle.members)
            held.callback(engine.close)
            call = functools.partial(engine.infer, tensor)
            place = len(ordered)
            while place > 0 and timing.is_faster((spec.name, call), ordered[place - 1], medians):
                place -= 1
            ordered.insert(place, (spec.name, call))
        if len(ordered) == 1:
            timing.alone(ordered[0], medians)
    return tuple(name for name, _ in ordered), medians


@dataclass(frozen=True, slots=True, kw_only=True)
class _Timing:
    """How long is measured, and who is told."""

    budget: Budget
    progress: Progress

    def is_faster(self, new: tuple[str, Call], old: tuple[str, Call], medians: dict[str, float]) -> bool:
        """Whether the new one is faster for certain; puts both medians down."""
        self.progress.begin(f"time {new[0]} against {old[0]}", cached=False)
        found = clock.measure_pair(new[1], old[1], self.budget, on_progress=self._told)
        self.progress.end()
        for name, series in ((new[0], found.a), (old[0], found.b)):
            medians[name] = float(np.median(series.milliseconds[found.excluded :]))
        return found.high < 1

    def alone(self, only: tuple[str, Call], medians: dict[str, float]) -> None:
        """Puts the median of the only one down."""
        self.progress.begin(f"time {only[0]}", cached=False)
        found = clock.measure(only[1], self.budget, on_progress=self._told).milliseconds
        self.progress.end()
        medians[only[0]] = float(np.median(found[steady_state(found).excluded :]))

    def _told(self, share: float) -> None:
        self.progress.step(round(100 * share), 100)
