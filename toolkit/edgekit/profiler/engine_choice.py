"""Builds the engines of a bundle that are built on the device, tries them, and writes down which may answer, the fastest first.

Rules this file keeps:

1. An engine may answer only where it reproduces the golden frames of the bundle on this device; how fast it is plays no part in that.
2. Those that do are timed pair by pair, interleaved. One is preferred for its speed where the 95 % interval of the ratio says that it is faster; otherwise
   the manifest's order stands. Where timing fails, it stands too, and a note says why.
3. What is written down of an engine holds for this bundle on this device with that plan; what is written of the others stands when it has a new one.
4. What was found before and still holds is taken as it is, and said to be: a command that a device runs at every start must not take a working engine away.
   `again` does everything anew.
5. Only PASS and FAIL last, and both were seen: what the engine answered was compared, or was NaN or infinite. One that could not be built, kept or opened, or
   that failed on a frame without an answer, is tried again the next time, and never takes the place of one that passed with the plan that is still there.
6. A plan that was built in another power mode answers as well as it did; that it may not be the fastest one here is a note, and never a reason to build.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgekit.bundle.manifest import EngineSpec
from edgekit.bundle.reader import Bundle
from edgekit.errors import EdgekitError, OutputError, TargetError
from edgekit.profiler import clock
from edgekit.profiler.clock import Budget
from edgekit.profiler.jetson_state import read_clocks, read_power_mode
from edgekit.profiler.warmup import steady_state
from edgekit.runtime import selftest
from edgekit.runtime.classifier import open_for_check
from edgekit.runtime.engines import tensorrt_build
from edgekit.runtime.engines.base import ModelRefusedError
from edgekit.runtime.engines.cache_keys import DeviceKey
from edgekit.runtime.engines.choice_file import Choice, Power
from edgekit.runtime.engines.engine_cache import EngineCache
from edgekit.runtime.engines.tensorrt_build import Built, Progress
from edgekit.schema.decode import decode

Call = Callable[[], object]

BUDGET = Budget(seconds=3.0, min_samples=100, max_seconds=60.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One engine, built and tried.

    Attributes:
        engine: Its name.
        status: PASS, FAIL, or NOT RUN where it could not be built or opened, or gave no answer.
        reason: Why it is not PASS.
        built: What was built or found in the cache; None where nothing was.
        frames: Golden frames compared; 0 where none were.
        max_difference: Largest |Δlogit|; None where not run.
        tolerance: What was allowed.
        max_residual: Largest |mean of a map + bias − logit|; None where the bundle has no maps or not run.
        max_map_difference: How far the worst map is off the one that was proven, root mean square over its cells; None as before.
        label_changes: Golden frames with other labels than where the bundle was proven; None where not run.
        latency_ms: Median of one frame on the engine alone, without preprocessing; None where not timed.
        earlier: Whether an earlier build found this, and it still holds.
    """

    engine: str
    status: str
    reason: str
    built: Built | None
    frames: int
    max_difference: float | None
    tolerance: float
    max_residual: float | None = None
    max_map_difference: float | None = None
    label_changes: int | None = None
    latency_ms: float | None = None
    earlier: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a device made of a bundle.

    Attributes:
        tried: Every engine that is built on the device.
        order: Those that may answer, the fastest first.
        notes: What did not work on the way and changes nothing of that.
    """

    tried: tuple[Tried, ...]
    order: tuple[str, ...]
    notes: tuple[str, ...] = ()


def choose(bundle: Bundle, cache: EngineCache, progress: Progress, *, budget: Budget | None = None, again: bool = False) -> Outcome:
    """Builds, tries and orders; the choice is in the cache afterwards.

    Args:
        bundle: The bundle.
        cache: Where plans and the choice are kept.
        progress: Is told how far it is.
        budget: How long a pair is timed; None for `BUDGET`.
        again: Whether engines are tried and timed although what an earlier build found still holds; plans are built again only where they must be.

    Raises:
        TargetError: The bundle has no engine that is built on the device, or there is no GPU here.
        MissingEngineError: TensorRT or a binding of CUDA is not installed.
        BundleError: A model or a setting is not one that any device may take.
        OutputError: The choice cannot be written; what was written down before stands.
    """
    specs = [spec for spec in bundle.manifest.engines if tensorrt_build.is_tensorrt(spec.name)]
    if not specs:
        names = ", ".join(spec.name for spec in bundle.manifest.engines)
        raise TargetError(f"{bundle.path} has no engine that is built on the device, only {names}", hint="it runs as it is: edgekit verify")
    device, power = tensorrt_build.this_device(), this_power()
    stored = cache.load_choice(bundle.digest, device)
    earlier = _earlier(bundle, specs, cache, device, stored) if isinstance(stored, Choice) else {}
    tried = [
        _reused(earlier[spec.name], progress) if spec.name in earlier and not again else _try(bundle, spec, cache, progress, power)
        for spec in specs
    ]
    if isinstance(stored, Choice) and all(one.earlier for one in tried):
        return _told(Outcome(tried=tuple(tried), order=stored.order, notes=_of_the_mode(tried, stored.power, power, cache)), progress)
    standing = [one for one in tried if one.status == "NOT RUN" and one.engine in earlier]
    order, medians, notes = _ordered(bundle, specs, tried, _Timing(budget=budget or BUDGET, progress=progress))
    if standing and isinstance(stored, Choice):
        order, notes = _with_standing(order, standing, stored, notes)
    told = tuple(dataclasses.replace(one, latency_ms=medians.get(one.engine, one.latency_ms)) for one in tried)
    kept = [earlier[one.engine] if one in standing else one for one in told]
    # Where nothing was timed, only engines that stand have an order that was found in a mode.
    before = stored.power if standing and isinstance(stored, Choice) else Power()
    timed_in = power if medians else before
    cache.store_choice(bundle.digest, device, _choice(order, kept, timed_in))
    return _told(Outcome(tried=told, order=order, notes=(*notes, *_of_the_mode(kept, timed_in, power, cache))), progress)


def this_power() -> Power:
    """The power mode of this device and the highest frequency of its GPU, as far as they can be read."""
    mode, _ = read_power_mode()
    highest = [clock.highest_mhz for clock in read_clocks() if clock.name.startswith("gpu ") and clock.highest_mhz is not None]
    return Power(mode="" if mode is None else mode.name or str(mode.id), gpu_mhz=max(highest, default=None))


def _of_the_mode(tried: Sequence[Tried], timed_in: Power, now: Power, cache: EngineCache) -> tuple[str, ...]:
    """A note for each engine that answers and was built in another power mode (rule 6), or one where the order is of another; none where a mode is not known."""
    answering = [one.built for one in tried if one.status == "PASS" and one.built is not None]
    if not now.mode or not answering:
        return ()
    built = [one for one in answering if one.power.mode not in ("", now.mode)]
    if not built and timed_in.mode not in ("", now.mode):
        again = "edgekit build BUNDLE --again times them in this one"
        return (f"the engines were timed in the power mode {timed_in.mode}, now it is {now.mode}; {again}",)
    return tuple(
        f"{one.engine} was built in the power mode {one.power.mode}, now it is {now.mode}: it answers as it did, and one that is built now may be faster; "
        f"to build it again, remove {cache.folder / one.entry}.plan and run edgekit build BUNDLE"
        for one in built
    )


def _told(outcome: Outcome, progress: Progress) -> Outcome:
    for note in outcome.notes:
        progress.note(note)
    return outcome


def _choice(order: tuple[str, ...], tried: Sequence[Tried], power: Power) -> Choice:
    built = [one for one in tried if one.built is not None]
    return Choice(
        order=order,
        refused={one.engine: one.reason for one in tried if one.status == "FAIL"},
        untried={one.engine: one.reason for one in tried if one.status == "NOT RUN"},
        entries={one.engine: one.built.entry for one in built if one.built is not None},
        plans={one.engine: one.built.sha256 for one in built if one.built is not None},
        tried=tuple(asdict(one) for one in tried),
        power=power,
    )


def _earlier(bundle: Bundle, specs: Sequence[EngineSpec], cache: EngineCache, device: DeviceKey, stored: Choice) -> dict[str, Tried]:
    """What an earlier build found of each engine, where it lasts (rule 5) and the plan that it was found with is whole and in the cache."""
    found = {one.get("engine"): one for one in stored.tried}
    kept = {}
    for spec in specs:
        lasting = spec.name in stored.order or spec.name in stored.refused
        plan = tensorrt_build.find(spec, bundle.members, cache, device)
        if not lasting or not isinstance(plan, Built):
            continue
        told = _decoded(found.get(spec.name))
        same = stored.entries.get(spec.name) == plan.entry and stored.plans.get(spec.name) == plan.sha256
        if same and told is not None and told.status == ("PASS" if spec.name in stored.order else "FAIL"):
            kept[spec.name] = dataclasses.replace(told, built=plan, earlier=True)
    return kept


def _decoded(document: Any) -> Tried | None:
    """What was told of an engine; None where nothing was, or not in this version's form."""
    try:
        return decode(Tried, document, where="the choice", error=TargetError)
    except TargetError:
        return None


def _reused(found: Tried, progress: Progress) -> Tried:
    progress.begin(f"{found.engine}, as an earlier build found it", cached=True)
    progress.end()
    return found


def _ordered(
    bundle: Bundle, specs: Sequence[EngineSpec], tried: Sequence[Tried], timing: _Timing
) -> tuple[tuple[str, ...], dict[str, float], tuple[str, ...]]:
    """Names of the engines that passed in order, their medians in milliseconds, and a note where they could not be timed (rule 2)."""
    passed = [spec for spec in specs if any(one.engine == spec.name and one.status == "PASS" for one in tried)]
    try:
        return (*_fastest_first(bundle, passed, timing), ())
    except EdgekitError as error:
        return tuple(spec.name for spec in passed), {}, (f"not timed, so the manifest's order stands: {error.message}",)


def _with_standing(
    order: tuple[str, ...], standing: Sequence[Tried], stored: Choice, notes: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The order with those that passed before and could not be tried now (rule 5): the places that they had."""
    names = {one.engine for one in standing}
    before = [name for name in stored.order if name in names or name in order]
    told = (f"{one.engine} could not be tried, so what an earlier build found of it stands: {one.reason}" for one in standing)
    return (*before, *(name for name in order if name not in before)), (*notes, *told)


def _try(bundle: Bundle, spec: EngineSpec, cache: EngineCache, progress: Progress, power: Power) -> Tried:
    tolerance = bundle.manifest.golden.tolerance[spec.name]
    try:
        built = tensorrt_build.build(spec, bundle.members, cache, progress, power=power)
    except (TargetError, ModelRefusedError, OutputError) as error:
        return Tried(
            engine=spec.name, status="NOT RUN", reason=error.message, built=None, frames=0, max_difference=None, tolerance=tolerance
        )
    progress.begin(f"golden frames of {spec.name}", cached=False)
    check = selftest.check(bundle, spec)
    unseen = check.status == "FAIL" and not check.answered
    progress.end()
    return Tried(
        engine=spec.name,
        status="NOT RUN" if unseen else check.status,
        reason=check.reason,
        built=built,
        frames=check.frames,
        max_difference=check.max_difference,
        tolerance=tolerance,
        max_residual=check.max_residual,
        max_map_difference=check.max_map_difference,
        label_changes=check.label_changes,
    )


def _fastest_first(bundle: Bundle, specs: Sequence[EngineSpec], timing: _Timing) -> tuple[tuple[str, ...], dict[str, float]]:
    """Names of the engines in order, and their medians in milliseconds (rule 2)."""
    tensor = np.ascontiguousarray(bundle.load_array(bundle.manifest.golden.frames)[:1])
    medians: dict[str, float] = {}
    ordered: list[tuple[str, Call]] = []
    with contextlib.ExitStack() as held:
        for spec in specs:
            engine = open_for_check(bundle, spec)
            held.callback(engine.close)
            call = functools.partial(engine.infer, tensor, engine.initial_state())
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
