"""`edgekit verify`: does this machine answer as the one a bundle was proven on, with which engine, how fast, and what would answer if that one failed?

Rules this file keeps:

1. The bundle's bytes were checked when it was opened; what is checked here is the device.
2. Every engine of the bundle has its checks, those that cannot run here too: NOT RUN, with the reason. An engine is timed and looked into only where it
   reproduced the golden frames.
3. The verdict is PASS where no check failed, at least one engine ran, and the bundle's first engine and every engine that is built on the device ran. Where
   that last part is waived (`allow_fallback`), the fallback must have run.
4. Checks hold nothing that tells one device from another of its kind; folders in a reason are replaced by what every reader knows.

Does not prove that the answers on patients are right: the golden frames are synthetic.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.bundle.manifest import EngineSpec
from edgekit.bundle.reader import Bundle
from edgekit.errors import EdgekitError
from edgekit.profiler import anonymous, cache_faults, clock
from edgekit.profiler.check import FAIL, NOT_RUN, PASS, Check
from edgekit.profiler.clock import Budget
from edgekit.profiler.engine_layers import count_layers
from edgekit.profiler.warmup import steady_state
from edgekit.runtime import selftest
from edgekit.runtime.classifier import Classifier, open_for_check
from edgekit.runtime.engines import tensorrt_build
from edgekit.runtime.engines.base import Engine
from edgekit.runtime.engines.cache_keys import Unusable
from edgekit.runtime.engines.engine_cache import EngineCache
from edgekit.runtime.engines.tensorrt_engine import TensorRtEngine
from edgekit.runtime.selftest import EngineCheck

FEWEST_SAMPLES = 50
BUDGET = Budget(seconds=2.0, min_samples=150, max_seconds=120.0)
"""How long an engine is timed; up to two thirds of the samples may be its warm-up."""

INT8 = "tensorrt-int8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was found.

    Attributes:
        passed: The verdict (rule 3).
        checks: In the order they were made.
    """

    passed: bool
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked for.

    Attributes:
        faults: Whether damaged and foreign plans are tried too.
        allow_fallback: Whether it is enough that some engine of the bundle runs.
        budget: How long each engine is timed; None for `BUDGET`.
    """

    faults: bool = False
    allow_fallback: bool = False
    budget: Budget | None = None


def verify(bundle: Bundle, wanted: Wanted) -> Verification:
    """Checks a bundle on this device.

    Raises:
        BundleError: The golden members do not fit the manifest.
    """
    members = len(bundle.manifest.members)
    checks = [Check(name="digests", status=PASS, value=members, reason="members that are what the manifest lists")]
    entries: dict[str, str] = {}
    for spec in bundle.manifest.engines:
        checks += _engine_checks(bundle, spec, wanted.budget or BUDGET, entries)
    if wanted.faults:
        checks += cache_faults.fault_checks(bundle, entries, EngineCache())
    checks += _answer_checks(bundle, checks)
    return Verification(passed=_verdict(bundle, checks, wanted), checks=tuple(_without_paths(check, bundle) for check in checks))


def status_of(checks: Sequence[Check], name: str) -> str:
    """Status of the check of that name; NOT RUN where there is none."""
    return next((check.status for check in checks if check.name == name), NOT_RUN)


def golden(engine: str) -> str:
    """Name of the check of an engine on its golden frames."""
    return f"golden-frames {engine}"


def required(bundle: Bundle) -> tuple[str, ...]:
    """Engines that must have run (rule 3): the first, and those that are built on the device."""
    names = [spec.name for spec in bundle.manifest.engines]
    return tuple(name for index, name in enumerate(names) if index == 0 or tensorrt_build.is_tensorrt(name))


def _verdict(bundle: Bundle, checks: Sequence[Check], wanted: Wanted) -> bool:
    ran = [spec.name for spec in bundle.manifest.engines if status_of(checks, golden(spec.name)) == PASS]
    if not ran or any(check.status == FAIL for check in checks):
        return False
    return wanted.allow_fallback or all(name in ran for name in required(bundle))


def _engine_checks(bundle: Bundle, spec: EngineSpec, budget: Budget, entries: dict[str, str]) -> list[Check]:
    """The checks of one engine; puts the name of its entry in the cache down."""
    found = selftest.check(bundle, spec)
    checks = [Check(name=golden(spec.name), status=found.status, value=found.max_difference, bound=found.tolerance, reason=found.reason)]
    checks += _golden_parts(bundle, found)
    if tensorrt_build.is_tensorrt(spec.name):
        cached, entries[spec.name] = _cache_check(bundle, spec)
        checks.append(cached)
    if found.status == PASS:
        return checks + _measured(bundle, spec, budget)
    reason = "its golden frames did not pass"
    return checks + [Check(name=f"{name} {spec.name}", status=NOT_RUN, reason=reason) for name in _measurements(spec)]


def _golden_parts(bundle: Bundle, found: EngineCheck) -> list[Check]:
    """What the golden frames showed beside the logits: the maps and whether they add up, and how many answers changed, which is told and fails nothing."""
    labels = Check(name=f"golden-labels {found.engine}", status=NOT_RUN, reason="no logits to compare")
    if found.label_changes is not None:
        labels = Check(name=labels.name, status=PASS, value=found.label_changes, reason=f"of {found.frames} frames have other labels")
    cam = bundle.manifest.cam
    if cam is None:
        return [labels]
    bound = cam.golden_tolerance.get(found.engine)
    maps = _map_check("golden-maps", found, found.max_map_difference, bound, wrong="a map differs from the one that was proven")
    adding_up = _map_check("golden-residual", found, found.max_residual, cam.tolerance, wrong="a map does not add up to its logit")
    return [maps, adding_up, labels]


def _map_check(what: str, found: EngineCheck, value: float | None, bound: float | None, *, wrong: str) -> Check:
    name = f"{what} {found.engine}"
    if bound is None:
        return Check(name=name, status=NOT_RUN, reason="the bundle is from before there were golden maps; compile it again")
    if found.label_changes is None:
        return Check(name=name, status=NOT_RUN, bound=bound, reason="no maps to look at")
    if value is None:
        return Check(name=name, status=FAIL, bound=bound, reason=f"{wrong}: it is not finite, or is not there")
    if value <= bound:
        return Check(name=name, status=PASS, value=value, bound=bound)
    reason = f"{wrong}: off by {value:.3g} logit units, {bound:.3g} allowed"
    return Check(name=name, status=FAIL, value=value, bound=bound, reason=reason)


def _measurements(spec: EngineSpec) -> tuple[str, ...]:
    if not tensorrt_build.is_tensorrt(spec.name):
        return ("latency-ms",)
    return ("int8-share", "reformats", "latency-ms") if spec.name == INT8 else ("reformats", "latency-ms")


def _cache_check(bundle: Bundle, spec: EngineSpec) -> tuple[Check, str]:
    """Whether the plan of the engine is in the cache under this device's key, and the name of its entry where it is."""
    name = f"cached-engine {spec.name}"
    try:
        onnx, settings = tensorrt_build.read_model(spec, bundle.members), tensorrt_build.read_settings(spec)
        key = tensorrt_build.entry_key(spec, onnx, settings, tensorrt_build.this_device())
        cache = EngineCache()
        found = cache.load(key)
    except EdgekitError as error:
        return Check(name=name, status=NOT_RUN, reason=error.message), ""
    if isinstance(found, Unusable):
        # An entry of this key that must not be used is damage; none of this key was not built, or on another device.
        damaged = os.path.exists(cache.folder / f"{key.name}.json")  # noqa: PTH110 - Path.exists raises where the folder is closed
        return Check(name=name, status=FAIL if damaged else NOT_RUN, reason=f"{found.reason}; edgekit build BUNDLE"), ""
    return Check(name=name, status=PASS, value=found.sha256, reason="the key is this device's"), key.name


def _measured(bundle: Bundle, spec: EngineSpec, budget: Budget) -> list[Check]:
    try:
        engine = open_for_check(bundle, spec)
    except EdgekitError as error:
        return [Check(name=f"{name} {spec.name}", status=NOT_RUN, reason=error.message) for name in _measurements(spec)]
    try:
        layers = _layer_checks(engine, spec) if isinstance(engine, TensorRtEngine) else []
    except EdgekitError as error:
        layers = [Check(name=f"{name} {spec.name}", status=NOT_RUN, reason=error.message) for name in _measurements(spec)[:-1]]
    try:
        return [*layers, _latency_check(bundle, engine, spec, budget)]
    finally:
        engine.close()


def _layer_checks(engine: TensorRtEngine, spec: EngineSpec) -> list[Check]:
    found = count_layers(engine.layers())
    names = [f"{name} {spec.name}" for name in _measurements(spec) if name != "latency-ms"]
    if isinstance(found, str):
        return [Check(name=name, status=NOT_RUN, reason=found) for name in names]
    hidden = f", {found.unknown} cannot be looked into" if found.unknown else ""
    reformats = Check(name=names[-1], status=PASS, value=found.reformats, reason=f"of {found.layers} layers{hidden}")
    if spec.name != INT8:
        return [reformats]
    share = found.int8_share
    if share is None:
        return [Check(name=names[0], status=NOT_RUN, reason=f"no convolution or matrix product is told{hidden}"), reformats]
    reason = f"{found.int8} of {found.weighted} convolutions and matrix products work in int8{hidden}"
    return [Check(name=names[0], status=PASS if found.int8 else FAIL, value=share, bound="above 0", reason=reason), reformats]


def _latency_check(bundle: Bundle, engine: Engine, spec: EngineSpec, budget: Budget) -> Check:
    name = f"latency-ms {spec.name}"
    tensor = np.ascontiguousarray(bundle.load_array(bundle.manifest.golden.frames)[:1])
    try:
        series = clock.measure(functools.partial(engine.infer, tensor, engine.initial_state()), budget).milliseconds
    except EdgekitError as error:
        return Check(name=name, status=FAIL, reason=error.message)
    verdict = steady_state(series)
    kept = series[verdict.excluded :]
    if len(kept) < FEWEST_SAMPLES:
        return Check(name=name, status=NOT_RUN, reason=f"{len(kept)} frames after the warm-up are fewer than {FEWEST_SAMPLES}")
    reason = f"median of {len(kept)} frames on the engine alone" + ("" if verdict.steady else f"; not steady: {verdict.reason}")
    return Check(name=name, status=PASS, value=float(np.median(kept)), reason=reason)


def _answer_checks(bundle: Bundle, checks: Sequence[Check]) -> list[Check]:
    """Which engine answers here, and which one would if that could not."""
    try:
        classifier = Classifier(bundle)
    except EdgekitError as error:
        reason = f"nothing answers here: {error.message}"
        return [Check(name=name, status=NOT_RUN, reason=reason) for name in ("answering-engine", "fallback-engine")]
    classifier.close()
    answers = Check(name="answering-engine", status=PASS, value=classifier.engine_name, reason="; ".join(classifier.engine_notes))
    if status_of(checks, golden(classifier.engine_name)) != PASS:
        answers = dataclasses.replace(answers, status=FAIL, reason="it answers, but its golden frames did not pass")
    others = [spec.name for spec in bundle.manifest.engines if spec.name != classifier.engine_name]
    able = [name for name in others if status_of(checks, golden(name)) == PASS]
    if able:
        return [answers, Check(name="fallback-engine", status=PASS, value=able[0])]
    return [answers, Check(name="fallback-engine", status=NOT_RUN, reason="no other engine of the bundle passes here")]


def _without_paths(check: Check, bundle: Bundle) -> Check:
    """The check without folders of this machine (rule 4)."""
    return dataclasses.replace(check, reason=anonymous.text(check.reason, {str(bundle.path): bundle.path.name}))
