"""The golden frames: does this machine answer as the machine the bundle was proven on?

Runs at `edgekit verify` and at the end of a compile, not at every opening. The frames are synthetic, so they prove that the arithmetic is the same,
not that the answers on patients are right: that is what the acceptance gate has shown, once, with the same arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.manifest import EngineSpec
from edgekit.bundle.reader import Bundle
from edgekit.errors import BundleError, EdgekitError, TargetError
from edgekit.runtime.classifier import Classifier


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCheck:
    """One engine on the golden frames.

    Attributes:
        engine: Name of the engine.
        status: PASS, FAIL, or NOT RUN where the bundle cannot be opened on the engine here.
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
    return tuple(check(bundle, spec) for spec in bundle.manifest.engines)


def check(bundle: Bundle, spec: EngineSpec) -> EngineCheck:
    """Runs one engine of a bundle on its golden frames.

    Raises:
        BundleError: The golden members do not fit the manifest.
    """
    golden = bundle.manifest.golden
    frames = bundle.load_array(golden.frames)
    expected = bundle.load_array(golden.logits[spec.name])
    status, difference, reason = _compare(bundle, spec, frames, expected)
    return EngineCheck(
        engine=spec.name, status=status, frames=len(frames), max_difference=difference, tolerance=golden.tolerance[spec.name], reason=reason
    )


def _compare(bundle: Bundle, spec: EngineSpec, frames: NDArray[Any], expected: NDArray[Any]) -> tuple[str, float | None, str]:
    """Status, largest |Δlogit| and reason."""
    taken = bundle.manifest.input
    shape = (len(frames), *taken.size, taken.frame_channels)
    if (
        frames.dtype != np.uint8
        or frames.shape != shape
        or expected.shape != (len(frames), spec.outputs)
        or not np.isfinite(expected).all()
    ):
        raise BundleError(
            f"{bundle.path}: the golden frames {frames.shape} and logits {expected.shape} are not {shape} and finite",
            hint="compile it again",
        )
    try:
        engine = Classifier(bundle, engine=spec.name).engine
    except EdgekitError as error:
        return "NOT RUN", None, f"{error.message}; {error.hint}" if error.hint else error.message
    try:
        found = np.stack([engine.infer(np.ascontiguousarray(frame[None])).logits for frame in frames])
    except TargetError as error:
        return "FAIL", None, error.message
    finally:
        engine.close()
    difference = float(np.abs(found - expected).max())
    if difference <= bundle.manifest.golden.tolerance[spec.name]:
        return "PASS", difference, ""
    return "FAIL", difference, "this machine's arithmetic differs from the one the bundle was proven with"
