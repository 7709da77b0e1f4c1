"""Where a head stops seeing positions, and the map of the features there.

For features A (channels, positions), N positions, and the gradient J of the logits with respect to what the head reads, the map is what every position adds to a logit, times N,
so that the mean over the map is the sum of what they add:

- a mean over positions: M_k = Σ_c J_kc · A_c (Zhou et al. 2016, CAM);
- a maximum: M_k = N · Σ_c J_kc · A_c · [A_c is the maximum], shared evenly among positions that tie;
- a generalized mean z = (mean Aᵖ)^(1/p) (Radenović et al. 2018, GeM): M_k = Σ_c J_kc · z_c^(1−p) · A_cᵖ;
- a layer on all positions at once: M_k = N · Σ_c G_kc · A_c with G the gradient at each position (Draelos and Carin 2020, HiResCAM).

Whatever the head is, each of these is gradient times features summed over channels: for the mean it is Grad-CAM and HiResCAM at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler import graph as g
from edgekit.compiler.explain.activations import ACTIVATIONS
from edgekit.compiler.explain.algebra import Algebra, Operand, shape_of
from edgekit.compiler.explain.backward import RESHAPING
from edgekit.compiler.explain.head import UnknownHeadError

if TYPE_CHECKING:
    import onnx_ir as ir

_MEANS = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean"})
_MAXIMA = frozenset({"GlobalMaxPool", "MaxPool", "ReduceMax"})
_BY_ELEMENT = frozenset(
    {"Add", "DequantizeLinear", "Div", "Dropout", "Identity", "LayerNormalization", "Mul", "QuantizeLinear", "Sub", *ACTIVATIONS}
)
_LEAST_MEAN = 1e-30
"""Of powers: float32 holds it and its inverse."""


@dataclass(frozen=True, slots=True)
class Features:
    """Features with positions.

    Attributes:
        value: (1, channels, rows, columns), (1, rows, columns, channels), (1, channels, positions) or (1, positions, channels).
        channel_axis: Which axis channels are on.
        rows: Rows.
        columns: Columns.
    """

    value: ir.Value
    channel_axis: int
    rows: int
    columns: int

    @property
    def positions(self) -> int:
        return self.rows * self.columns

    @property
    def position_axes(self) -> list[int]:
        return [axis for axis in range(1, len(shape_of(self.value))) if axis != self.channel_axis]


@dataclass(frozen=True, slots=True)
class Pool:
    """An operator that reads features and leaves one value a channel: their mean, or their maximum."""

    features: Features
    maximum: bool


def pool_of(node: ir.Node) -> Pool | None:
    """The pooling that a node is; None where it is another operator, or leaves positions.

    Raises:
        UnknownHeadError: It pools a list of positions whose rows and columns are not known.
    """
    if node.op_type not in _MEANS | _MAXIMA:
        return None
    value, sizes = node.inputs[0], g.shape(node.inputs[0])
    axes = _pooled_axes(node, sizes)
    if value is None or sizes is None or axes is None or len(sizes) not in (3, 4) or len(axes) != len(sizes) - 2 or 0 in axes:
        return None
    channel_axis = next(axis for axis in range(1, len(sizes)) if axis not in axes)
    if len(sizes) == 4:
        if channel_axis == 2:
            return None
        rows, columns = (sizes[axis] for axis in axes)
    elif sizes[axes[0]] == 1:
        rows = columns = 1
    else:
        rows, columns = grid_of(value, sizes[axes[0]], sizes[channel_axis])
    return Pool(Features(value, channel_axis, rows, columns), maximum=node.op_type in _MAXIMA)


def _pooled_axes(node: ir.Node, sizes: tuple[int, ...] | None) -> list[int] | None:
    if sizes is None:
        return None
    if node.op_type.startswith("Reduce"):
        axes = g.reduced_axes(node)
        return None if axes is None else sorted(axis % len(sizes) for axis in axes)
    if node.op_type.startswith("Global"):
        return list(range(2, len(sizes)))
    kernel, pads = node.attributes.get("kernel_shape"), node.attributes.get("pads")
    made = g.shape(node.outputs[0])
    # Padded by `auto_pad`, a kernel as large as the map leaves positions.
    covers = kernel is not None and tuple(kernel.as_ints()) == sizes[2:] and made is not None and math.prod(made[2:]) == 1
    return list(range(2, len(sizes))) if covers and (pads is None or not any(pads.as_ints())) else None


def grid_of(value: ir.Value, count: int, channels: int) -> tuple[int, int]:
    """Rows and columns of a list of positions: those of the nearest features above with as many positions and channels.

    Raises:
        UnknownHeadError: There are none.
    """
    for above in ancestors(value):
        sizes = g.shape(above)
        if sizes is None or len(sizes) != 4:
            continue
        if sizes[1] == channels and sizes[2] * sizes[3] == count:
            return sizes[2], sizes[3]
        if sizes[3] == channels and sizes[1] * sizes[2] == count:
            return sizes[1], sizes[2]
    raise UnknownHeadError(f"the head reads a list of {count} positions, and no features above it tell their rows and columns")


def ancestors(value: ir.Value) -> Iterator[ir.Value]:
    """A value and all that it is made from, the nearest first."""
    seen, waiting = {value}, [value]
    for item in waiting:
        yield item
        node = item.producer()
        for read in () if node is None else node.inputs:
            if read is not None and read not in seen:
                seen.add(read)
                waiting.append(read)


def channels_last(value: ir.Value) -> bool:
    """Whether the channels of (1, …, …, …) come last: it was turned so, or what made it worked along the last axis."""
    while (node := value.producer()) is not None:
        if node.op_type == "Transpose":
            return list(node.attributes["perm"].as_ints()) == [0, 2, 3, 1]
        if node.op_type == "LayerNormalization" and ("axis" not in node.attributes or node.attributes["axis"].as_int() in (-1, 3)):
            return True
        if node.op_type == "MatMul":
            return g.stored(node.inputs[1]) is not None
        source = next((read for read in node.inputs if read is not None and g.stored(read) is None), None)
        if node.op_type not in _BY_ELEMENT or source is None:
            return False
        value = source
    return False


def flattened(node: ir.Node) -> Features | None:
    """The features that a node lays out as one vector; None where it does not."""
    value = node.inputs[0] if node.inputs else None
    before, after = g.shape(value), g.shape(node.outputs[0])
    if (
        node.op_type not in RESHAPING
        or value is None
        or before is None
        or after is None
        or len(before) != 4
        or max(after) != math.prod(before)
    ):
        return None
    last = channels_last(value)
    rows, columns = before[1:3] if last else before[2:]
    return Features(value, 3 if last else 1, rows, columns) if rows * columns > 1 and math.prod(before) > rows * columns else None


def whole_convolution(node: ir.Node) -> tuple[Features, NDArray[np.float64], NDArray[np.float64] | None] | None:
    """The features, kernel (outputs, channels · rows · columns) and bias of a convolution as large as the map it reads: a layer on all positions."""
    kernel, sizes = g.constant(node.inputs[1]) if node.op_type == "Conv" else None, g.shape(node.inputs[0])
    value = node.inputs[0]
    if kernel is None or sizes is None or value is None or kernel.shape[1:] != sizes[1:] or math.prod(sizes[2:]) == 1:
        return None
    plain = all(
        name not in node.attributes or set(node.attributes[name].as_ints()) == {expected}
        for name, expected in (("pads", 0), ("dilations", 1))
    )
    if g.shape(node.outputs[0]) != (1, len(kernel), 1, 1) or not plain:
        return None
    bias = g.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    if len(node.inputs) > 2 and node.inputs[2] is not None and bias is None:
        return None
    flat = np.asarray(kernel, dtype=np.float64).reshape(len(kernel), -1)
    return Features(value, 1, *sizes[2:]), flat, None if bias is None else np.asarray(bias, dtype=np.float64)


def generalized_mean(node: ir.Node) -> tuple[Pool, float] | None:
    """The pooling of Aᵖ, and p, where a node is the root that ends a generalized mean."""
    exponent = _exponent(node)
    inner = g.skip_reshaping(node.inputs[0]) if exponent is not None else None
    pooled = inner.producer() if inner is not None else None
    pool = pool_of(pooled) if pooled is not None else None
    raised = pool.features.value.producer() if pool is not None and not pool.maximum else None
    power = _exponent(raised) if raised is not None else None
    if pool is None or pool.features.positions == 1 or exponent is None or power is None or abs(power * exponent - 1) > 1e-4:
        return None
    return pool, power


def _exponent(node: ir.Node) -> float | None:
    found = g.constant(node.inputs[1]) if node.op_type == "Pow" else None
    return float(found.item()) if found is not None and found.size == 1 else None


def map_of_mean(algebra: Algebra, features: Features, gradient: Operand) -> Operand:
    """Σ_c J_kc · A_c: (1, outputs, rows, columns) from J (outputs, channels)."""
    sizes = shape_of(features.value)
    outputs, channels = shape_of(gradient)
    if isinstance(gradient, np.ndarray) and features.channel_axis == 1 and len(sizes) == 4:
        if gradient.shape == (channels, channels) and (gradient == np.eye(channels)).all():
            return features.value
        return algebra.pointwise(features.value, gradient)
    if features.channel_axis == 1:
        product = algebra.matmul(gradient, algebra.reshape(features.value, (channels, features.positions)))
    else:
        product = algebra.turn(algebra.matmul(algebra.reshape(features.value, (features.positions, channels)), algebra.turn(gradient)))
    return algebra.reshape(product, (1, outputs, features.rows, features.columns))


def map_of_maximum(algebra: Algebra, features: Features, gradient: Operand) -> Operand:
    """The same of the positions that are the maximum, of the very features that the map reads: the network's own maximum may be rounded otherwise."""
    found = algebra.equal(features.value, algebra.largest(features.value, features.position_axes))
    ties = algebra.sum(found, features.position_axes)
    shared = algebra.multiply(algebra.divide(algebra.multiply(features.value, found), ties), np.array(float(features.positions)))
    if isinstance(shared, np.ndarray):  # features depend on the frame
        raise UnknownHeadError("the head pools a constant")
    return map_of_mean(algebra, Features(shared, features.channel_axis, features.rows, features.columns), gradient)


def map_of_generalized_mean(algebra: Algebra, pool: Pool, power: float, gradient: Operand) -> Operand:
    """Σ_c J_kc · z_c^(1−p) · A_cᵖ, with z_c^(1−p) = (mean A_cᵖ)^((1−p)/p) of the very features that the map reads.

    The network's own z may be rounded, to 0 even, where its features are not: the map would be anything. A mean of 0 is held above it: 0 · ∞ is no number.
    """
    mean = algebra.at_least(algebra.mean(pool.features.value, pool.features.position_axes), _LEAST_MEAN)
    factor = algebra.reshape(algebra.power(mean, (1 - power) / power), (1, shape_of(gradient)[1]))
    return map_of_mean(algebra, pool.features, algebra.multiply(gradient, factor))


def map_of_flattened(algebra: Algebra, features: Features, gradient: Operand) -> Operand:
    """N · Σ_c G_kc · A_c, position by position."""
    outputs = shape_of(gradient)[0]
    spread = algebra.reshape(gradient, (outputs, *shape_of(features.value)[1:]))
    summed = algebra.sum(algebra.multiply(spread, features.value), [features.channel_axis], keep=False)
    scaled = algebra.multiply(summed, np.array(float(features.positions)))
    return algebra.reshape(scaled, (1, outputs, features.rows, features.columns))
