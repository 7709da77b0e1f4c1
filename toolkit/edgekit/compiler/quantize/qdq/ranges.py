"""Ranges of activations, from calibration frames.

Rules this file keeps:

1. The float graph runs on every calibration frame in ONNX Runtime, and the values that will be rounded are looked at on the way.
2. 0 is an integer: padding and ReLU give exact zeros, and they must stay so.
3. "extremes" keeps everything that was seen; "least-error" takes the range with the least squared error of rounding and clipping, so that one outlier does not
   cost everybody else's precision.
4. A float16 scale is rounded before anything is rounded with it, never silently afterwards.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler.progress import Progress
from edgekit.compiler.quantize.qdq.run import GraphRunner
from edgekit.errors import ModelError

if TYPE_CHECKING:
    import onnx_ir as ir

Method = Literal["extremes", "least-error"]
SAMPLES = 1024
"""Values kept of a tensor and frame, evenly over it; the extremes are looked for among all."""

BINS = 2048
CANDIDATES = np.geomspace(0.05, 1.0, 90)
"""Ranges that are tried, in parts of the extremes."""

_SMALLEST_SCALE = 1e-12
_SMALLEST_HALF = 2.0**-24


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How a tensor is rounded: q = round(x / scale) + zero_point, saturated.

    Attributes:
        scale: Units of the tensor a step; positive.
        zero_point: The integer that stands for 0.
        unsigned: uint8 instead of int8.
    """

    scale: float
    zero_point: int = 0
    unsigned: bool = False


@dataclass(slots=True, eq=False)
class Seen:
    """What was seen of a value: its extremes, and a sample of it."""

    low: float
    high: float
    samples: list[NDArray[np.float32]]

    def look(self, value: NDArray[np.float32]) -> None:
        """Takes one frame's value in."""
        # numpy's, which hand NaN on; Python's would forget it.
        self.low, self.high = float(np.minimum(self.low, value.min())), float(np.maximum(self.high, value.max()))
        flat = value.ravel()
        # A step that shares no factor with any axis visits every channel, row and column; one with a common factor might see the border alone.
        step = next(step for step in itertools.count(max(1, flat.size // SAMPLES)) if math.gcd(step, flat.size) == 1)
        self.samples.append(flat[::step].copy())


def observe(model: ir.Model, values: Sequence[ir.Value], frames: NDArray[np.uint8], progress: Progress) -> dict[str, Seen]:
    """Looks at values of the float graph.

    Args:
        model: The explained graph.
        values: To look at; each has a name.
        frames: uint8 (frames, height, width, channels).
        progress: Told of every frame.

    Returns:
        By the value's name.

    Raises:
        ModelError: A value is not finite.
    """
    names = [str(value.name) for value in values]
    runner = GraphRunner(model, names)
    found = {name: Seen(np.inf, -np.inf, []) for name in names}
    for index in range(len(frames)):
        for name, value in zip(names, runner.run(np.ascontiguousarray(frames[index : index + 1])), strict=True):
            found[name].look(value)
        progress.step(index + 1, len(frames))
    for name, seen in found.items():
        if not np.isfinite([seen.low, seen.high]).all():
            raise ModelError(f"the network's value {name} is not finite on the calibration frames", hint="check [input] mean and std")
    return found


def merge(parts: Sequence[Seen]) -> Seen:
    """What was seen of a group of values that share one range."""
    return Seen(min(part.low for part in parts), max(part.high for part in parts), [sample for part in parts for sample in part.samples])


def choose(seen: Seen, method: Method, *, unsigned: bool, half: bool) -> Scale:
    """The scale and zero point of a value.

    Args:
        seen: Of its group.
        method: See the rules above.
        unsigned: uint8 with a zero point, instead of int8 with the zero point 0.
        half: The scale is stored as float16.
    """
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    if low == high:  # zero on every frame
        return Scale(scale=1.0, zero_point=0, unsigned=unsigned)
    candidates = [
        _scale(low * part, high * part, unsigned=unsigned, half=half) for part in (CANDIDATES if method == "least-error" else (1.0,))
    ]
    if len(candidates) == 1:
        return candidates[0]
    counts, edges = np.histogram(np.concatenate(seen.samples), bins=BINS, range=(low, high))
    centres = (edges[:-1] + edges[1:]) / 2
    errors = [float((counts * (round_with(centres, scale) - centres) ** 2).sum()) for scale in candidates]
    return candidates[int(np.argmin(errors))]


def round_with(values: NDArray[np.float64], scale: Scale) -> NDArray[np.float64]:
    """DequantizeLinear(QuantizeLinear(values))."""
    low, high = (0, 255) if scale.unsigned else (-128, 127)
    steps: NDArray[np.float64] = np.clip(np.rint(values / scale.scale) + scale.zero_point, low, high) - scale.zero_point
    return steps * scale.scale


def _scale(low: float, high: float, *, unsigned: bool, half: bool) -> Scale:
    if unsigned:
        scale = max((high - low) / 255, _SMALLEST_SCALE)
        return Scale(scale=float(np.float32(scale)), zero_point=int(np.clip(np.rint(-low / scale), 0, 255)), unsigned=True)
    scale = max(max(-low, high) / 127, _SMALLEST_SCALE)
    return Scale(scale=half_up(np.array([scale]))[0] if half else float(np.float32(scale)))


def half_up(scales: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest float16 that is not smaller, so that nothing in range is cut off; float64 of the same shape.

    Raises:
        ModelError: A scale is larger than float16 can hold.
    """
    with np.errstate(over="ignore"):  # refused below
        rounded = np.maximum(scales, _SMALLEST_HALF).astype(np.float16)
    rounded = np.where(rounded.astype(np.float64) < scales, np.nextafter(rounded, np.float16(np.inf)), rounded)
    if not np.isfinite(rounded).all():
        raise ModelError(
            "a scale is larger than float16 can hold", hint="an activation of the network reaches millions; retrain it with normalization"
        )
    return rounded.astype(np.float64)


def scales_of(
    groups: Mapping[ir.Value, ir.Value], seen: Mapping[str, Seen], method: Method, *, unsigned: bool, half: bool
) -> dict[ir.Value, Scale]:
    """The scale of every value that is rounded; a group shares one."""
    members: dict[ir.Value, list[ir.Value]] = {}
    for value, first in groups.items():
        members.setdefault(first, []).append(value)
    chosen = {
        first: choose(merge([seen[str(value.name)] for value in values]), method, unsigned=unsigned, half=half)
        for first, values in members.items()
    }
    return {value: chosen[first] for value, first in groups.items()}
