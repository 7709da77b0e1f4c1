"""Times artefacts on this host, one against another: how pruning knows what it bought.

Rules this file keeps:

1. Only the compiled artefact is timed, by the profiler's clock, with the target's own settings. Counting operations is not timing: half of them may cost
   nine tenths of the time.
2. Two artefacts take turns, call by call, so that a busy machine slows both; what counts is the ratio of their medians.
3. A time belongs to the host it was measured on, and carries its name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.manifest import EngineSpec
from edgekit.compiler.stages.measure import open_artefact
from edgekit.compiler.stages.quantize import Artefact
from edgekit.profiler.clock import Budget, measure_pair
from edgekit.profiler.host import fingerprint

PAIR_BUDGET = Budget(seconds=1.5, min_samples=150, max_seconds=30.0)
_WARM_UP_CALLS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyShare:
    """A candidate's latency in parts of a reference's, measured interleaved.

    Attributes:
        latency_ms: Median of the candidate.
        reference_ms: Median of the reference.
        share: The one over the other.
        low: Lower end of the share's 95 % interval.
        high: Upper end.
        samples: Pairs that counted.
        steady: Whether the machine was steady meanwhile.
    """

    latency_ms: float
    reference_ms: float
    share: float
    low: float
    high: float
    samples: int
    steady: bool


def latency_share(candidate: Artefact, reference: Artefact, specs: tuple[EngineSpec, EngineSpec], frame: NDArray[np.uint8]) -> LatencyShare:
    """Times one inference of either.

    Args:
        candidate: What is timed.
        reference: What it is compared with.
        specs: How the one and the other run.
        frame: uint8 (1, height, width, channels).
    """
    engines = [open_artefact(artefact, spec) for artefact, spec in zip((candidate, reference), specs, strict=True)]
    calls: list[Callable[[], object]] = [partial(engine.infer, frame) for engine in engines]
    for _ in range(_WARM_UP_CALLS):
        for call in calls:
            call()
    found = measure_pair(calls[0], calls[1], PAIR_BUDGET)
    medians = [float(np.median(series.milliseconds[found.excluded :])) for series in (found.a, found.b)]
    return LatencyShare(
        latency_ms=medians[0],
        reference_ms=medians[1],
        share=found.ratio,
        low=found.low,
        high=found.high,
        samples=len(found.a.durations_ns) - found.excluded,
        steady=found.steady,
    )


def host_name() -> str:
    """What a time is labelled with: the processor and the cores that may be used."""
    host = fingerprint()
    return f"{host.device_model or host.cpu_model or host.architecture}, {host.cores_usable} cores"
