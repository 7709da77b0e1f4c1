"""The golden frames: does this machine answer as the machine the bundle was proven on?

Runs at `edgekit verify` and at the end of a compile, not at every opening. The frames are synthetic, so they prove that the arithmetic is the same,
not that the answers on patients are right: that is what the acceptance gate has shown, once, with the same arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgekit.bundle.manifest import EngineSpec
from edgekit.bundle.reader import Bundle
from edgekit.errors import BundleError, EdgekitError
from edgekit.runtime.engines import open_engine


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCheck:
    """One engine on the golden frames.

    Attributes:
        engine: Name of the engine.
        status: PASS, FAIL, or NOT RUN where the engine is not installed or refuses this machine.
        frames: Golden frames compared.
        max_difference: Largest |Δlogit|; None when not run.
        tolerance: What was allowed.
        reason: Why it failed or was not run.
    """

    engine: str
    status: str
    frames: int
    max_difference: float | None
    tolerance: float
    reason: str


def run(bundle: Bundle) -> tuple[EngineCheck, ...]:
    """Runs every engine of a bundle on its golden frames.

    Raises:
        BundleError: The golden members do not fit the manifest.
    """
    return tuple(_check(bundle, spec) for spec in bundle.manifest.engines)


def _check(bundle: Bundle, spec: EngineSpec) -> EngineCheck:
    golden = bundle.manifest.golden
    frames = bundle.load_array(golden.frames)
    expected = bundle.load_array(golden.logits[spec.name])
    tolerance = golden.tolerance[spec.name]
    if frames.dtype != np.uint8 or frames.ndim != 4 or expected.shape != (len(frames), spec.outputs):
        raise BundleError(
            f"{bundle.path}: the golden frames {frames.shape} do not fit the expected logits {expected.shape}", hint="compile it again"
        )
    try:
        engine = open_engine(spec, bundle.members)
        found = np.stack([engine.infer(np.ascontiguousarray(frame[None])).logits for frame in frames])
    except EdgekitError as error:
        return EngineCheck(
            engine=spec.name,
            status="NOT RUN",
            frames=len(frames),
            max_difference=None,
            tolerance=tolerance,
            reason=f"{error.message}; {error.hint}",
        )
    difference = float(np.abs(found - expected).max())
    passed = difference <= tolerance
    return EngineCheck(
        engine=spec.name,
        status="PASS" if passed else "FAIL",
        frames=len(frames),
        max_difference=difference,
        tolerance=tolerance,
        reason="" if passed else "this machine's arithmetic differs from the one the bundle was proven with",
    )
