"""The document of a profile: what was measured, under the names that scripts read. `document_schema.py` says the same as a JSON Schema.

Rules this file keeps:

1. A figure that is not known is null, and `unavailable` says why under its path. A part that was not asked for is null as a whole. A figure that is null
   because it is above everything, as the latency of frames that were never answered, is in `without_end` too: it breaks a limit from above.
2. The document holds every sample, so that another question can be asked of it later.
3. Nothing in it names the machine's owner: no path, no host name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekit.profiler import observation, stages
from edgekit.profiler.baseline import FORMAT_VERSION, AgainstBaseline, Baseline
from edgekit.profiler.clock import Samples
from edgekit.profiler.coldstart import ColdStart
from edgekit.profiler.compare import Compared
from edgekit.profiler.deltas import NAMES, Delta
from edgekit.profiler.host import Host
from edgekit.profiler.idle import Wake
from edgekit.profiler.layers import LayerTable
from edgekit.profiler.observation import Observed
from edgekit.profiler.pacing import Paced
from edgekit.profiler.percentiles import SHARES, Latency
from edgekit.profiler.verdict import DECIDING
from edgekit.profiler.warmup import SteadyState
from edgekit.schema.decode import encode

if TYPE_CHECKING:
    from edgekit.runtime.classifier import Classifier

STAGE_FIGURES = ("p50", "p95", "samples")
DELTA_FIGURES = ("added_ms", "added_low_ms", "added_high_ms", "ratio", "low", "high", "pairs", "steady")
ASKED_FOR = {"paced": "--fps", "idle_wake": "--idle", "layers": "--layers", "compare": "--compare", "baseline": "--baseline"}
"""Parts that are null where an option is not given."""

_LATENCY = (*SHARES, "max", "samples")

PATHS: frozenset[str] = frozenset(
    [f"latency_ms.{name}" for name in _LATENCY]
    + [f"stages_ms.{stage}.{name}" for stage in stages.STAGES for name in STAGE_FIGURES]
    + [f"cold_start_ms.{name}" for name in ("interpreter", "import", "load", "first_result", "total", "first_total", "repeats")]
    + ["peak_memory_mib", "bundle.size_bytes", "bundle.accepted", "warmup.excluded", "warmup.steady", "warmup.variation"]
    + [f"deltas.{what}.{name}" for what in NAMES for name in DELTA_FIGURES]
    + [f"timeline.{name}" for name in ("hottest_c", "throttled", "sustained_ratio", "reading_ms")]
    + [f"energy.{name}" for name in observation.ENERGY_KEYS if name not in {"source", "scope"}]
    + [f"memory_growth.{name}" for name in observation.GROWTH_KEYS]
)
"""The figures every profile has: what a limit may name (`failif.parse(…, known=PATHS)`)."""

_RATIOS = tuple(f"ratio.{name}.{end}" for name in DECIDING for end in ("value", "low", "high"))
OPTIONAL_PATHS: Mapping[str, tuple[str, ...]] = {
    "paced": (
        *(f"paced.{name}" for name in ("fps", "deadline_ms", "due", "served", "unserved", "deadline_misses", "deadline_miss_share")),
        *(f"paced.{name}" for name in ("longest_queue", "live_drops")),
        *(f"paced.{part}.{name}" for part in ("latency_ms", "service_ms", "wait_ms") for name in _LATENCY),
        *(f"paced.timeline.{name}" for name in ("hottest_c", "throttled", "sustained_ratio")),
        *(f"paced.energy.{name}" for name in observation.ENERGY_KEYS if name not in {"source", "scope"}),
    ),
    "idle_wake": tuple(
        f"idle_wake.{gap}.{name}" for gap in ("after_33_ms", "after_1000_ms", "after_10000_ms") for name in ("p50_ms", "max_ms", "samples")
    ),
    "layers": ("layers.sum_ms",),
    "compare": tuple(f"compare.{name}" for name in (*_RATIOS, "pairs")),
    "baseline": tuple(f"baseline.{name}" for name in (*_RATIOS, "samples")),
}
"""The figures of the parts that are there when they are asked for."""


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

    @classmethod
    def of(cls, classifier: Classifier) -> BundleFacts:
        """The facts of an open classifier."""
        manifest = classifier.manifest
        return cls(
            file=Path(classifier.path).name,
            name=manifest.name,
            version=manifest.version,
            digest=classifier.bundle_digest,
            size_bytes=classifier.size_bytes,
            accepted=manifest.accepted,
            engine=dict(classifier.engine.describe()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """Parts that are measured when they are asked for; None where they are not.

    Attributes:
        paced: Frames from a clock, and the machine meanwhile.
        wakes: Calls after pauses.
        layers: The layers of the engine.
        compared: The other bundle's facts, and the comparison with it.
        against: The comparison with an earlier profile.
    """

    paced: tuple[Paced, Observed] | None = None
    wakes: tuple[Wake, ...] | None = None
    layers: LayerTable | None = None
    compared: tuple[BundleFacts, Compared] | None = None
    against: AgainstBaseline | None = None


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
        deltas: What the map and the overlay add, or why that is not known.
        observed: The machine meanwhile.
        cold_start: Start of a fresh process; its memory is the bundle's.
        host: The machine.
        extras: What was asked for beside.
    """

    measured_at: str
    bundle: BundleFacts
    frame_shapes: tuple[tuple[int, ...], ...]
    frame_count: int
    series: Samples
    warmup: SteadyState
    latency: Latency
    stages: dict[str, Latency | None]
    deltas: dict[str, Delta | str]
    observed: Observed
    cold_start: ColdStart
    host: Host
    extras: Extras

    def as_baseline(self) -> Baseline:
        """What a later profile would compare itself with."""
        return Baseline(
            measured_at=self.measured_at,
            host=encode(self.host),
            bundle=encode(self.bundle),
            frames={"count": self.frame_count, "shapes": encode(self.frame_shapes)},
            steady=self.warmup.steady,
            milliseconds=self.series.milliseconds[self.warmup.excluded :],
        )

    def to_json(self) -> dict[str, Any]:
        """The document; docs/profiling.md names its keys. Milliseconds are kept to 0.1 µs in the series."""
        memory = self.cold_start.memory
        parts, reasons = self._parts()
        without_end = [] if parts["paced"] is None else parts["paced"].pop("without_end")
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
            **parts,
            "without_end": [f"paced.{path}" for path in without_end],
            "unavailable": {**self._unavailable(), **reasons},
        }

    def _parts(self) -> tuple[dict[str, Any], dict[str, str]]:
        """The parts beside latency, stages, start and host, and why figures of them are null."""
        seen = {
            "timeline": observation.timeline(self.observed),
            "energy": observation.energy(self.observed),
            "memory_growth": observation.growth(self.observed, self.warmup.excluded),
        }
        parts: dict[str, Any] = {name: part for name, (part, _) in seen.items()}
        reasons = {f"{name}.{figure}": why for name, (_, whys) in seen.items() for figure, why in whys.items()}
        parts["deltas"] = {}
        for name, delta in self.deltas.items():
            parts["deltas"][name] = dict.fromkeys(DELTA_FIGURES) if isinstance(delta, str) else delta.to_json()
            if isinstance(delta, str):
                reasons |= {f"deltas.{name}.{figure}": delta for figure in DELTA_FIGURES}
        for name, (part, whys) in self._asked().items():
            parts[name] = part
            reasons |= (
                {f"{name}.{figure}": why for figure, why in whys.items()}
                if part is not None
                else {name: f"not asked for: {ASKED_FOR[name]}"}
            )
        return parts, reasons

    def _asked(self) -> dict[str, tuple[dict[str, Any] | None, dict[str, str]]]:
        extras = self.extras
        found: dict[str, tuple[dict[str, Any] | None, dict[str, str]]] = {name: (None, {}) for name in ASKED_FOR}
        if extras.paced is not None:
            found["paced"] = _paced(*extras.paced)
        if extras.wakes is not None:
            wakes = {f"after_{round(wake.gap_s * 1e3)}_ms": wake.to_json() for wake in extras.wakes}
            found["idle_wake"] = (
                wakes,
                {f"{gap}.{name}": wake["reason"] for gap, wake in wakes.items() for name, value in wake.items() if value is None},
            )
        if extras.layers is not None:
            table = extras.layers.to_json()
            found["layers"] = table, {"sum_ms": table["reason"]} if table["sum_ms"] is None else {}
        if extras.compared is not None:
            other, compared = extras.compared
            part, reasons = _judged({"other": encode(other), **compared.to_json()})
            found["compare"] = part, reasons | compared.missing()
        if extras.against is not None:
            found["baseline"] = _judged(extras.against.to_json())
        return found

    def _unavailable(self) -> dict[str, str]:
        reasons = {f"latency_ms.{name}": reason for name, reason in self.latency.missing().items()}
        for stage, found in self.stages.items():
            missing = (
                dict.fromkeys(SHARES, "the bundle has no map" if stage in {"cam", "overlay"} else f"predict did not time {stage}")
                if found is None
                else found.missing()
            )
            reasons.update({f"stages_ms.{stage}.{name}": reason for name, reason in missing.items() if name in STAGE_FIGURES})
        memory = self.cold_start.memory.unavailable
        reasons.update({"peak_memory_mib" if name == "peak_mib" else f"memory.{name}": reason for name, reason in memory.items()})
        reasons.update({f"host.{name}": reason for name, reason in self.host.unavailable.items()})
        if self.warmup.variation is None:
            reasons["warmup.variation"] = self.warmup.reason
        return reasons


def _paced(paced: Paced, seen: Observed) -> tuple[dict[str, Any], dict[str, str]]:
    found = paced.to_json()
    reasons: dict[str, str] = found.pop("unavailable")
    for name, (part, whys) in {"timeline": observation.timeline(seen), "energy": observation.energy(seen)}.items():
        found[name] = part
        reasons |= {f"{name}.{figure}": why for figure, why in whys.items()}
    return found, reasons


def _judged(part: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    reasons: dict[str, str] = {}
    for name, ratio in part["ratio"].items():
        reasons |= {f"ratio.{name}.{end}": part["reason"] for end, value in ratio.items() if value is None}
    return part, reasons


def _stage_figures(found: Latency | None) -> dict[str, float | int | None]:
    if found is None:
        return {"p50": None, "p95": None, "samples": 0}
    figures = found.figures()
    return {name: figures[name] for name in STAGE_FIGURES}


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [round(float(value), 4) for value in values]
