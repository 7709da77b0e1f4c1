"""The reverse pass over a head: from the logits back to the features, as operands of the forward graph.

A gradient of all logits with respect to a value is kept as a matrix (outputs, elements of the value). With it goes an offset, (1, outputs): what each operator adds to the
logits beside gradient · input, so that at every moment

    logits = Σ over the values reached: gradient · value + offset.

Where a head is linear in its features once its gates, divisors and places of maxima are held fixed, the offset is all that is not in the map, and the map is complete. Elsewhere the offset
holds what a first-order explanation leaves out.

Rules this file keeps:

1. `RULES` is a literal table from ONNX operator to rule; an operator that is not in it, or a form of it that the rule does not know, ends the pass with `UnknownHeadError`.
2. A value that has positions ends the pass there: what reads it is a pooling (`pooling.py`), a selected token (`attention.py`), or a layer on all positions.
3. Divisors of a layer normalization behind a pooling are held fixed (`freeze`): its true gradient is orthogonal to its input, so that the map would have a mean of 0 whatever the logit is.
4. A rounding is passed as if it were none; what it changes is offset.
5. In a token's part of a network every value is a list of tokens of which the gradient touches a few; values are then looked at one token at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler import graph as g
from edgekit.compiler.explain import activations
from edgekit.compiler.explain.algebra import Algebra, Operand
from edgekit.compiler.explain.head import UnknownHeadError

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a gradient touches a value: the token, and the axis tokens are counted on; None for all of a value without positions."""

    axis: int
    token: int


class Reverse:
    """The pass.

    Attributes:
        algebra: Where the nodes go.
        outputs: Number of logits.
        offset: (1, outputs).
        first_order: Whether an operator was passed that is not linear, even with everything held fixed.
    """

    def __init__(self, algebra: Algebra, logits: ir.Value, outputs: int, *, freeze: bool) -> None:
        self.algebra = algebra
        self.outputs = outputs
        self.freeze = freeze
        self.offset: Operand = np.zeros((1, outputs))
        self.first_order = False
        self._gradients: dict[ir.Value, dict[Spot | None, Operand]] = {logits: {None: np.eye(outputs)}}
        self._vectors: dict[tuple[ir.Value, Spot | None], Operand] = {}

    def gradients(self, value: ir.Value) -> dict[Spot | None, Operand]:
        """What has arrived at a value, by spot."""
        return self._gradients.get(value, {})

    def reached(self, node: ir.Node) -> bool:
        """Whether the logits depend on a node by a path that was followed."""
        return any(value in self._gradients for value in node.outputs)

    def give(self, value: ir.Value | None, spot: Spot | None, gradient: Operand) -> None:
        """Adds to the gradient of a value."""
        if value is None:
            raise UnknownHeadError("an operator lacks an input")
        found = self._gradients.setdefault(value, {})
        found[spot] = gradient if spot not in found else self.algebra.add(found[spot], gradient)

    def vector(self, value: ir.Value, spot: Spot | None) -> Operand:
        """What a value is at a spot, (1, elements)."""
        if (value, spot) not in self._vectors:
            part: Operand = value if spot is None else self.algebra.part(value, spot.axis, spot.token, spot.token + 1)
            self._vectors[value, spot] = self.algebra.reshape(part, (1, elements(value, spot)))
        return self._vectors[value, spot]

    def add_offset(self, gradient: Operand, row: Operand) -> None:
        """Adds gradient · row, for a row (1, elements)."""
        self.offset = self.algebra.add(self.offset, self.dot(gradient, row))

    def dot(self, gradient: Operand, row: Operand) -> Operand:
        """Gradient · row, (1, outputs)."""
        return self.algebra.matmul(row, self.algebra.turn(gradient))

    def follow(self, node: ir.Node) -> None:
        """Takes the gradient of a node's output to its inputs, by the table.

        Raises:
            UnknownHeadError: No rule is known.
        """
        if node.op_type == "Split":
            _split(self, node)
            return
        rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if rule is None:
            raise UnknownHeadError(f"the head has the operator {node.op_type} ({node.name}), which no rule is known for")
        if any(value in self._gradients for value in node.outputs[1:]):
            raise UnknownHeadError(f"the head reads a second output of {node.op_type} ({node.name})")
        for spot, gradient in self.gradients(node.outputs[0]).items():
            rule(self, node, spot, gradient)

    def through(self, node: ir.Node, spot: Spot | None, gradient: Operand, slope: Operand) -> None:
        """An operator on each element with a slope (1, elements): the gradient is multiplied, the rest of the value is offset."""
        value = node.inputs[0]
        below = self.algebra.multiply(gradient, slope)
        line = self.algebra.multiply(slope, self.vector(_some(value), spot))
        self.add_offset(gradient, self.algebra.subtract(self.vector(node.outputs[0], spot), line))
        self.give(value, spot, below)


def elements(value: ir.Value, spot: Spot | None) -> int:
    """Number of elements of a value at a spot."""
    sizes = _sizes(value)
    return math.prod(sizes) if spot is None else math.prod(sizes) // sizes[spot.axis]


Rule = Callable[[Reverse, "ir.Node", "Spot | None", Operand], None]


def _some(value: ir.Value | None) -> ir.Value:
    if value is None:
        raise UnknownHeadError("an operator lacks an input")
    return value


def _sizes(value: ir.Value | None) -> tuple[int, ...]:
    sizes = g.shape(value)
    if sizes is None:
        raise UnknownHeadError(f"{'a value' if value is None else value.name} of the head has no static shape")
    return sizes


def _row(constant: NDArray[np.float64], value: ir.Value, spot: Spot | None) -> NDArray[np.float64]:
    """A constant as it meets a value at a spot, (1, elements)."""
    try:
        whole = np.broadcast_to(constant, _sizes(value))
    except ValueError:
        raise UnknownHeadError("a constant of the head makes a value larger") from None
    return (whole if spot is None else whole.take([spot.token], spot.axis)).reshape(1, -1)


def _same(reverse: Reverse, node: ir.Node, spot: Spot | None, gradient: Operand) -> None:
    """What only changes the shape; a token's axis is found again by what stands before it."""
    value = _some(node.inputs[0])
    if spot is None:
        reverse.give(value, None, gradient)
        return
    before, after = _sizes(value), _sizes(node.outputs[0])
    ahead = math.prod(after[: spot.axis])
    axes = [axis for axis, size in enumerate(before) if size == after[spot.axis] and math.prod(before[:axis]) == ahead]
    if not axes:
        raise UnknownHeadError(f"{node.op_type} ({node.name}) mixes tokens with other axes")
    reverse.give(value, Spot(axes[0], spot.token), gradient)


def _transpose(reverse: Reverse, node: ir.Node, spot: Spot | None, gradient: Operand) -> None:
    value = _some(node.inputs[0])
    order = list(node.attributes["perm"].as_ints()) if "perm" in node.attributes else list(range(len(_sizes(value))))[::-1]
    if spot is None:
        made = _sizes(node.outputs[0])
        back = [0, *(1 + order.index(axis) for axis in range(len(order)))]
        moved = reverse.algebra.transpose(reverse.algebra.reshape(gradient, (reverse.outputs, *made)), back)
        reverse.give(value, None, reverse.algebra.reshape(moved, (reverse.outputs, math.prod(made))))
        return
    kept = [axis for axis in order if axis != order[spot.axis] and _sizes(value)[axis] > 1]
    if kept != sorted(kept):
        raise UnknownHeadError(f"Transpose ({node.name}) turns the parts of a token over")
    reverse.give(value, Spot(order[spot.axis], spot.token), gradient)


def _gather(reverse: Reverse, node: ir.Node, spot: Spot | None, gradient: Operand) -> None:
    """Only in the form that hands on all elements in order; a chosen token is found before this."""
    value, indices = _some(node.inputs[0]), g.constant(node.inputs[1])
    sizes = _sizes(value)
    axis = node.attributes["axis"].as_int() % len(sizes) if "axis" in node.attributes else 0
    whole = sizes[axis] in (1, math.prod(sizes))
    if spot is not None or indices is None or not whole or list(indices.ravel()) != list(range(sizes[axis])):
        raise UnknownHeadError(f"the head chooses among features by Gather ({node.name})")
    reverse.give(value, None, gradient)


def _linear(
    reverse: Reverse, node: ir.Node, spot: Spot | None, gradient: Operand, layer: tuple[NDArray[np.float64], NDArray[np.float64] | None]
) -> None:
    """The layer x ↦ x · matrix + bias."""
    matrix, bias = layer
    value = _some(node.inputs[0])
    if elements(value, spot) != len(matrix):
        raise UnknownHeadError(f"{node.op_type} ({node.name}) is a layer on several positions")
    if bias is not None:
        reverse.add_offset(gradient, np.broadcast_to(bias.ravel(), (1, matrix.shape[1])))
    reverse.give(value, spot, reverse.algebra.matmul(gradient, matrix.T))


def _gemm(reverse: Reverse, node: ir.Node, spot: Spot | None, gradient: Operand) -> None:
    attributes, matrix = node.attributes, g.stored(node.inputs[1])
    bias = g.stored(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else np.zeros(1)
    if matrix is None or bias is None or ("transA" in attributes and attributes["transA"].as_int()):
        raise UnknownHeadError(f"Gemm ({node.name}) has weights that are not constant, or a transposed input")
    if "transB" in attributes and attributes["transB"].as_int():
        matrix = matrix.T
    alpha, beta = (attributes[name].as_float() if name in attributes else 1.0 for name in ("alpha", "beta"))
    _linear(reverse, node, spot, gradient, (alpha * matrix, beta * bias if bias.any() else None))


def _matmul(reverse: Reverse, node: ir.Node, spot: Spot | None, gradient: Operand) -> None:
    matrix = g.stored(node.inputs[1])
    if matrix is None or matrix.ndim != 2:
        raise UnknownHeadError(f"MatMul ({node.name}) has no constant matrix")
    _linear(reverse, node, spot, gradient, (matrix, None))


def _convolution(reverse: Reverse, node: ir.Node, spot: Spot | None, gradient: Operand) -> None:
    kernel, sizes = g.stored(node.inputs[1]), _sizes(node.inputs[0])
    grouped = "group" in node.attributes and node.attributes["group"].as_int() != 1
    bias = g.stored(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else None
    if spot is not None or kernel is None or sizes[2:] != (1, 1) or kernel.shape[2:] != (1, 1) or grouped:
        raise UnknownHeadError(f"Conv ({node.name}) is not a 1 × 1 layer on a pooled map")
    _linear(reverse, node, spot, gradient, (kernel[:, :, 0, 0].T, bias))


def _batch_norm(reverse: Reverse, node: ir.Node, spot: Spot | None, gradient: Operand) -> None:
    figures = [g.stored(value) for value in node.inputs[1:]]
    sizes = _sizes(node.inputs[0])
    if spot is not None or any(figure is None for figure in figures) or math.prod(sizes) != sizes[1]:
        raise UnknownHeadError(f"BatchNormalization ({node.name}) is not on a pooled vector")
    scale, shift, mean, variance = (figure for figure in figures if figure is not None)
    factor = scale / np.sqrt(variance + (node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5))
    reverse.add_offset(gradient, (shift - mean * factor)[None])
    reverse.give(node.inputs[0], None, reverse.algebra.multiply(gradient, factor[None]))


def _layer_norm(reverse: Reverse, node: ir.Node, spot: Spot | None, gradient: Operand) -> None:
    """Layer normalization, y = γ · (x − mean x) / σ + β (Ba et al. 2016).

    With σ fixed the gradient of x is (γg − mean γg) / σ; the true one has −x̂ · mean(γg · x̂) in the brackets too.
    """
    algebra, value = reverse.algebra, _some(node.inputs[0])
    scale = g.stored(node.inputs[1])
    shift = g.stored(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else np.zeros(1)
    count = elements(value, spot)
    axis = (node.attributes["axis"].as_int() if "axis" in node.attributes else -1) % len(_sizes(value))
    if scale is None or shift is None or math.prod(_sizes(value)[axis:]) != count:
        raise UnknownHeadError(f"LayerNormalization ({node.name}) is not over a whole vector")
    epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
    scale, shift = (np.broadcast_to(part.ravel(), (1, count)) for part in (scale, shift))
    x = reverse.vector(value, spot)
    centred = algebra.subtract(x, algebra.mean(x, [1]))
    sigma = algebra.square_root(algebra.add(algebra.mean(algebra.multiply(centred, centred), [1]), np.array([[epsilon]])))
    scaled = algebra.multiply(gradient, scale)
    inner = algebra.subtract(scaled, algebra.mean(scaled, [1]))
    reverse.add_offset(gradient, shift)
    if reverse.freeze:
        reverse.give(value, spot, algebra.divide(inner, sigma))
        return
    reverse.first_order = True
    unit = algebra.divide(centred, sigma)
    share = algebra.mean(algebra.multiply(scaled, unit), [1])
    # gradient · γx̂ is the value without its shift; what the true gradient · x leaves of it is offset.
    below = algebra.divide(algebra.subtract(inner, algebra.multiply(share, unit)), sigma)
    reverse.offset = algebra.add(reverse.offset, algebra.subtract(reverse.dot(scaled, unit), reverse.dot(below, x)))
    reverse.give(value, spot, below)


def _sum(reverse: Reverse, node: ir.Node, spot: Spot | None, gradient: Operand) -> None:
    """Add and Sub."""
    signs = (1.0, -1.0 if node.op_type == "Sub" else 1.0)
    for value, sign in zip(node.inputs, signs, strict=True):
        constant = g.stored(value)
        signed = gradient if sign > 0 else reverse.algebra.multiply(gradient, np.array(sign))
        if constant is not None:
            reverse.add_offset(signed, _row(constant, node.outputs[0], spot))
        elif _sizes(value) != _sizes(node.outputs[0]):
            raise UnknownHeadError(f"{node.op_type} ({node.name}) repeats a value")
        else:
            reverse.give(value, spot, signed)


def _product(reverse: Reverse, node: ir.Node, spot: Spot | None, gradient: Operand) -> None:
    """Mul and Div: by a constant, or of two values that both depend on the features."""
    first, second = (_some(value) for value in node.inputs)
    divides = node.op_type == "Div"
    constants = [g.stored(first), g.stored(second)]
    algebra = reverse.algebra
    for constant, other in zip(constants, (second, first), strict=True):
        if constant is not None and _sizes(other) == _sizes(node.outputs[0]) and not (divides and other is second):
            row = _row(constant, other, spot)
            reverse.give(other, spot, algebra.multiply(gradient, 1 / row if divides else row))
            return
    if any(constant is not None for constant in constants) or _sizes(first) != _sizes(second):
        raise UnknownHeadError(f"{node.op_type} ({node.name}) is not of two values of one shape")
    reverse.first_order = True
    x, y = reverse.vector(first, spot), reverse.vector(second, spot)
    result = reverse.vector(node.outputs[0], spot)
    if divides:
        # x / y: 1 / y and −(x / y) / y; x · 1/y + y · −x/y² is 0, so the whole quotient is offset.
        over = algebra.divide(gradient, y)
        reverse.give(first, spot, over)
        reverse.give(second, spot, algebra.multiply(algebra.multiply(over, result), np.array(-1.0)))
        reverse.add_offset(gradient, result)
    else:
        reverse.give(first, spot, algebra.multiply(gradient, y))
        reverse.give(second, spot, algebra.multiply(gradient, x))
        reverse.add_offset(gradient, algebra.multiply(result, np.array(-1.0)))


def _join(reverse: Reverse, node: ir.Node, spot: Spot | None, gradient: Operand) -> None:
    parts = [_some(value) for value in node.inputs]
    axis = node.attributes["axis"].as_int() % len(_sizes(parts[0]))
    counts = [elements(value, None) for value in parts]
    if spot is not None or any(math.prod(_sizes(value)[:axis]) != 1 for value in parts):
        raise UnknownHeadError(f"Concat ({node.name}) joins more than vectors")
    start = 0
    for value, count in zip(parts, counts, strict=True):
        piece = reverse.algebra.part(gradient, 1, start, start + count)
        constant = g.stored(value)
        if constant is not None:
            reverse.add_offset(piece, constant.reshape(1, -1))
        else:
            reverse.give(value, None, piece)
        start += count


def _activation(reverse: Reverse, node: ir.Node, spot: Spot | None, gradient: Operand) -> None:
    found = activations.ACTIVATIONS[node.op_type]
    x, y = reverse.vector(_some(node.inputs[0]), spot), reverse.vector(node.outputs[0], spot)
    try:
        slope = found.slope(reverse.algebra, node, x, y)
    except ValueError as error:
        raise UnknownHeadError(f"{node.op_type} ({node.name}): {error}") from error
    reverse.first_order |= not found.piecewise_linear
    reverse.through(node, spot, gradient, slope)


def _split(reverse: Reverse, node: ir.Node) -> None:
    """A vector in parts, as the gates of a recurrent cell are made; all parts that the logits depend on at once."""
    value = _some(node.inputs[0])
    axis = node.attributes["axis"].as_int() % len(_sizes(value)) if "axis" in node.attributes else 0
    if _sizes(value)[axis] != elements(value, None):
        raise UnknownHeadError(f"Split ({node.name}) is not of a vector")
    parts = [reverse.gradients(part) for part in node.outputs]
    if any(set(found) - {None} for found in parts):
        raise UnknownHeadError(f"Split ({node.name}) is of several positions")
    empty = [np.zeros((reverse.outputs, elements(part, None))) for part in node.outputs]
    reverse.give(value, None, reverse.algebra.join([found.get(None, zeros) for found, zeros in zip(parts, empty, strict=True)], 1))


def _rounding(reverse: Reverse, node: ir.Node, spot: Spot | None, gradient: Operand) -> None:
    """QuantizeLinear and DequantizeLinear of one value, together (Bengio et al. 2013, straight-through)."""
    rounded = _some(node.inputs[0]).producer()
    if rounded is None or rounded.op_type != "QuantizeLinear":
        raise UnknownHeadError(f"{node.op_type} ({node.name}) restores a value that was not rounded in the graph")
    value = _some(rounded.inputs[0])
    change = reverse.algebra.subtract(reverse.vector(node.outputs[0], spot), reverse.vector(value, spot))
    reverse.add_offset(gradient, change)
    reverse.give(value, spot, gradient)


RESHAPING: Sequence[str] = ("Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")

RULES: dict[str, Rule] = {
    **dict.fromkeys(RESHAPING, _same),
    **dict.fromkeys(activations.ACTIVATIONS, _activation),
    "Add": _sum,
    "BatchNormalization": _batch_norm,
    "Concat": _join,
    "Conv": _convolution,
    "DequantizeLinear": _rounding,
    "Div": _product,
    "Gather": _gather,
    "Gemm": _gemm,
    "LayerNormalization": _layer_norm,
    "MatMul": _matmul,
    "Mul": _product,
    "Sub": _sum,
    "Transpose": _transpose,
}
"""Operator to what it does with a gradient."""
