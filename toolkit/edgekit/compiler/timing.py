"""Times artefacts on this host, one against another: how pruning knows what it bought.

Rules this file keeps:

1. Only the compiled artefact is timed, by the profiler's clock, with the target's own settings. Counting operations is not timing: half of them may cost
   nine tenths of the time.
2. Two artefacts take turns, call by call, so that a busy machine slows both; what counts is the ratio of their medians.
3. It happens in a process of its own, as on a device: in the compile's, PyTorch's threads and memory slow small models more than large ones.
4. A busy machine decides nothing while it can be helped: what was not steady is timed again, some times at most, and then the middle of all counts.
5. That process runs in no folder of the user's: `python -m` looks for modules in its working folder first, and what lies there must not be executed.
6. A time belongs to the host it was measured on, and carries its name.

    python -m edgekit.compiler.timing      is that process: a request as JSON on stdin, a `LatencyShare` on stdout
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.manifest import EngineSpec
from edgekit.compiler.stages.quantize import Artefact
from edgekit.errors import ModelError
from edgekit.profiler.clock import Budget, measure_pair
from edgekit.profiler.host import fingerprint
from edgekit.runtime.engines import open_engine
from edgekit.runtime.engines.base import Engine
from edgekit.schema.decode import decode, encode

_TIMEOUT_S = 600.0
TRIES = 5
"""Timings at most until one is steady."""
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


def latency_share(
    candidate: Artefact, reference: Artefact, specs: tuple[EngineSpec, EngineSpec], frame: NDArray[np.uint8], *, tries: int = TRIES
) -> LatencyShare:
    """Times one inference of either, in a process of its own.

    Args:
        candidate: What is timed.
        reference: What it is compared with.
        specs: How the one and the other run.
        frame: uint8 (1, height, width, channels).
        tries: Timings at most until one is steady.

    Raises:
        ModelError: The process did not end well; its last words are the hint.
    """
    models = [
        {"files": {role: str(path.resolve()) for role, path in artefact.files.items()}, "spec": encode(spec)}
        for artefact, spec in zip((candidate, reference), specs, strict=True)
    ]
    request = {"models": models, "shape": list(frame.shape), "frame": base64.b64encode(frame.tobytes()).decode("ascii")}
    return steadiest(lambda: _timed(json.dumps(request)), tries)


def steadiest(time: Callable[[], LatencyShare], tries: int) -> LatencyShare:
    """The first steady timing, or, when there is none in so many tries, the one with the middle share (rule 4)."""
    found: list[LatencyShare] = []
    while len(found) < tries:
        found.append(time())
        if found[-1].steady:
            return found[-1]
    return sorted(found, key=lambda timing: timing.share)[len(found) // 2]


def _timed(request: str) -> LatencyShare:
    ended = subprocess.run(  # noqa: S603 - this interpreter and our own module
        [sys.executable, "-m", __name__], cwd="/", input=request, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    if ended.returncode != 0:
        last = ended.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise ModelError(f"the process that times artefacts ended with {ended.returncode}", hint=last[0][:400])
    return decode(LatencyShare, json.loads(ended.stdout), where="timing", error=ModelError)


def measure(engines: Sequence[Engine], frame: NDArray[np.uint8]) -> LatencyShare:
    """Times the first of two engines in parts of the second."""
    calls: list[Callable[[], object]] = [partial(engine.infer, frame, engine.initial_state()) for engine in engines]
    for _ in range(_WARM_UP_CALLS):
        for call in calls:
            call()
    found = measure_pair(calls[0], calls[1], PAIR_BUDGET)
    latency_ms, reference_ms = found.medians_ms
    return LatencyShare(
        latency_ms=latency_ms,
        reference_ms=reference_ms,
        share=found.ratio,
        low=found.low,
        high=found.high,
        samples=len(found.a.durations_ns) - found.excluded,
        steady=found.steady,
    )


def answer(request: dict[str, Any]) -> LatencyShare:
    """What the process of its own does with a request."""
    engines = []
    for model in request["models"]:
        spec = decode(EngineSpec, model["spec"], where="timing", error=ModelError)
        engines.append(open_engine(spec, {spec.files[role]: memoryview(Path(path).read_bytes()) for role, path in model["files"].items()}))
    frame = np.frombuffer(base64.b64decode(request["frame"]), dtype=np.uint8).reshape(request["shape"])
    return measure(engines, frame)


def host_name() -> str:
    """What a time is labelled with: the processor and the cores that may be used."""
    host = fingerprint()
    return f"{host.device_model or host.cpu_model or host.architecture}, {host.cores_usable} cores"


if __name__ == "__main__":
    sys.stdout.write(json.dumps(encode(answer(json.load(sys.stdin)))))
