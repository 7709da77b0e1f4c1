"""`edgekit profile`: what a bundle costs on this machine, as a document.

Rules this file keeps:

1. The machine is looked at before it is loaded, and the cold start is measured before this process has opened the bundle and filled an
   engine's cache.
2. The warm-up is found on the series and excluded; whether the rest is steady is said beside every figure, not hidden in it.
3. A figure that is not known is null, and `unavailable` says why under its path.
4. The document holds every sample, so that another question can be asked of it later.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError
from edgekit.profiler import host, stages
from edgekit.profiler.clock import Budget, Samples
from edgekit.profiler.coldstart import RUNTIME, ColdStart, measure_cold_start
from edgekit.profiler.host import Host
from edgekit.profiler.percentiles import SHARES, Latency, latency, minimum_samples
from edgekit.profiler.warmup import SteadyState, steady_state
from edgekit.schema.decode import encode

if TYPE_CHECKING:
    from edgekit.runtime.classifier import Classifier

FORMAT_VERSION = 1

STAGE_FIGURES = ("p50", "p95", "samples")

PATHS: frozenset[str] = frozenset(
    [f"latency_ms.{name}" for name in (*SHARES, "max", "samples")]
    + [f"stages_ms.{stage}.{name}" for stage in stages.STAGES for name in STAGE_FIGURES]
    + [f"cold_start_ms.{name}" for name in ("interpreter", "import", "load", "first_result", "total", "first_total", "repeats")]
    + ["peak_memory_mib", "bundle.size_bytes", "bundle.accepted", "warmup.excluded", "warmup.steady", "warmup.variation"]
)
"""The figures every profile has: what a limit may name (`failif.parse(…, known=PATHS)`)."""

StageProgress = Callable[[str, float], None]
"""Takes the name of the stage and the share of it that is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to measure.

    Attributes:
        seconds: Duration of the latency measurement; reading and the overlay get a fifth of it each. Stretched up to three times where
            that gives p90 of the latency and p95 of the two others.
        repeats: Fresh processes for the cold start.
        files: Files to time the reading with; PNG copies of the frames when there are none.
        runtime: Module with the `load` to profile.
    """

    seconds: float = 10.0
    repeats: int = 5
    files: tuple[Path, ...] = ()
    runtime: str = RUNTIME

    def budget(self, share: float, percentile: str) -> Budget:
        """The budget of one part: a share of the seconds, and enough samples for a percentile if three times as long gives them."""
        seconds = self.seconds * share
        return Budget(seconds=seconds, min_samples=minimum_samples(SHARES[percentile]), max_seconds=3 * seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFacts:
    """Which bundle was measured, and what ran it.

    Attributes:
        file: Name of the file, without its folder.
        name: Name of the model.
        version: Version of the model.
        digest: sha256 of the bundle.
        size_bytes: Size of the file.
        accepted: Whether it passed its acceptance gates.
        engine: What the engine says of itself: name, version, device, precision, threads.
    """

    file: str
    name: str
    version: str
    digest: str
    size_bytes: int
    accepted: bool
    engine: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beforehand:
    """What was measured before this process opened the bundle."""

    host: Host
    cold_start: ColdStart


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One measurement of one bundle on one machine.

    Attributes:
        measured_at: UTC, ISO 8601, to the second.
        bundle: What was measured.
        frame_shapes: Distinct shapes of the frames used.
        frame_count: Distinct frames used.
        series: Every timed predict, warm-up included.
        warmup: How many of them are left out, and whether the rest is steady.
        latency: Percentiles of the rest.
        stages: Stage to its percentiles; None for one the bundle does not have.
        cold_start: Start of a fresh process; its memory is the bundle's.
        host: The machine.
    """

    measured_at: str
    bundle: BundleFacts
    frame_shapes: tuple[tuple[int, ...], ...]
    frame_count: int
    series: Samples
    warmup: SteadyState
    latency: Latency
    stages: dict[str, Latency | None]
    cold_start: ColdStart
    host: Host

    def to_json(self) -> dict[str, Any]:
        """The document; `docs` and DESIGN name its keys. Milliseconds are kept to 0.1 µs in the series."""
        memory = self.cold_start.memory
        return {
            "format_version": FORMAT_VERSION,
            "measured_at": self.measured_at,
            "bundle": encode(self.bundle),
            "frames": {"count": self.frame_count, "shapes": encode(self.frame_shapes)},
            "latency_ms": self.latency.figures(),
            "latency_intervals_ms": self.latency.intervals(),
            "stages_ms": {stage: _stage_figures(self.stages[stage]) for stage in stages.STAGES},
            "warmup": {
                "excluded": self.warmup.excluded,
                "steady": self.warmup.steady,
                "reason": self.warmup.reason,
                "window_medians_ms": list(self.warmup.window_medians),
                "variation": self.warmup.variation,
            },
            "cold_start_ms": self.cold_start.figures(),
            "peak_memory_mib": memory.peak_mib,
            "memory": {"resident_mib": memory.resident_mib, "proportional_mib": memory.proportional_mib},
            "host": {name: value for name, value in encode(self.host).items() if name != "unavailable"},
            "series": {"start_s": _rounded(self.series.start_seconds), "latency_ms": _rounded(self.series.milliseconds)},
            "unavailable": self._unavailable(),
        }

    def _unavailable(self) -> dict[str, str]:
        reasons = {f"latency_ms.{name}": reason for name, reason in self.latency.missing().items()}
        for stage, found in self.stages.items():
            why = "the bundle has no map" if stage in ("cam", "overlay") else f"predict did not time {stage}"
            missing = dict.fromkeys(SHARES, why) if found is None else found.missing()
            reasons.update({f"stages_ms.{stage}.{name}": reason for name, reason in missing.items() if name in STAGE_FIGURES})
        memory = self.cold_start.memory.unavailable
        reasons.update({"peak_memory_mib" if name == "peak_mib" else f"memory.{name}": reason for name, reason in memory.items()})
        reasons.update({f"host.{name}": reason for name, reason in self.host.unavailable.items()})
        if self.warmup.variation is None:
            reasons["warmup.variation"] = self.warmup.reason
        return reasons


def profile(
    bundle: Path, frames: Sequence[stages.Frame], *, options: Options | None = None, on_progress: StageProgress | None = None
) -> Profile:
    """Measures a bundle on this machine.

    Args:
        bundle: The bundle.
        frames: uint8 (rows, columns) or (rows, columns, 3); they take turns, the first one is also that of the cold start.
        options: How to measure.
        on_progress: Told the stage and the share of it that is done.

    Raises:
        DataError: When there is no frame, or one is not a frame.
        BundleError: When the bundle cannot be opened.
        TargetError: When a fresh process with the bundle crashes.
    """
    if not frames:
        raise DataError("there is no frame to measure with", hint="give at least one frame")
    chosen = options or Options()
    told = on_progress or (lambda _stage, _share: None)
    machine = host.fingerprint()
    cold = measure_cold_start(bundle, frames[0], repeats=chosen.repeats, runtime=chosen.runtime, on_progress=partial(told, "cold start"))
    classifier = _load(chosen.runtime, bundle)
    return profile_classifier(classifier, frames, Beforehand(host=machine, cold_start=cold), options=chosen, on_progress=told)


def profile_classifier(
    classifier: Classifier, frames: Sequence[stages.Frame], before: Beforehand, *, options: Options, on_progress: StageProgress
) -> Profile:
    """The part of `profile` that runs in this process, on a classifier that is open."""
    predicted = stages.measure_predict(classifier, frames, options.budget(1.0, "p90"), on_progress=partial(on_progress, "predict"))
    warmup = steady_state(predicted.samples.milliseconds)
    split: dict[str, Latency | None] = dict.fromkeys(stages.STAGES)
    for stage, values in predicted.stages_ms.items():
        split[stage] = latency(values[warmup.excluded :])
    short = options.budget(0.2, "p95")
    split["read"] = _settled(stages.measure_read(frames, options.files, short, on_progress=partial(on_progress, "read")))
    if classifier.manifest.cam is None:
        split["cam"] = None
    else:
        split["overlay"] = _settled(stages.measure_overlay(classifier, frames, short, on_progress=partial(on_progress, "overlay")))
    return Profile(
        measured_at=dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        bundle=_facts(classifier),
        frame_shapes=tuple(dict.fromkeys(frame.shape for frame in frames)),
        frame_count=len(frames),
        series=predicted.samples,
        warmup=warmup,
        latency=latency(predicted.samples.milliseconds[warmup.excluded :]),
        stages=split,
        cold_start=before.cold_start,
        host=before.host,
    )


def _load(runtime: str, bundle: Path) -> Classifier:
    # By the same name as the child, so that both measure the same code.
    import importlib

    classifier: Classifier = importlib.import_module(runtime).load(bundle)
    return classifier


def _settled(samples: Samples) -> Latency:
    values = samples.milliseconds
    return latency(values[steady_state(values).excluded :])


def _stage_figures(found: Latency | None) -> dict[str, float | int | None]:
    if found is None:
        return {"p50": None, "p95": None, "samples": 0}
    figures = found.figures()
    return {name: figures[name] for name in STAGE_FIGURES}


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [round(float(value), 4) for value in values]


def _facts(classifier: Classifier) -> BundleFacts:
    manifest = classifier.manifest
    return BundleFacts(
        file=Path(classifier.path).name,
        name=manifest.name,
        version=manifest.version,
        digest=classifier.bundle_digest,
        size_bytes=classifier.size_bytes,
        accepted=manifest.accepted,
        engine=dict(classifier.engine.describe()),
    )
