"""Quantize and dequantize nodes by what they are for: a layer's weight, its bias, or what flows between layers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler.conformance.view import GraphView, attribute

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_WITH_BIAS = ("Conv", "ConvTranspose", "Gemm")

# What hands elements on: a bias behind one is still a bias, and a weight is read as it comes out.
_MOVING = ("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
_LONGEST_WALK = 8

Role = Literal["weight", "bias", "activation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantizer:
    """One QuantizeLinear or DequantizeLinear.

    Attributes:
        node: The node.
        role: `weight` for every constant that is no bias.
        readers: Who reads the dequantized tensor, each with the number of its input.
    """

    node: Any
    role: Role
    readers: tuple[tuple[Any, int], ...]


def quantizers(view: GraphView, *roles: Role) -> Iterator[Quantizer]:
    """The quantizers of some roles, or all, in the graph's order."""
    for node in view.nodes:
        if node.op_type in {QUANTIZE, DEQUANTIZE}:
            found = _quantizer(view, node)
            if not roles or found.role in roles:
                yield found


def _quantizer(view: GraphView, node: Any) -> Quantizer:
    readers = view.consumers(node.output[0])
    if node.op_type == QUANTIZE:
        dequantizing = [reader for reader, index in readers if reader.op_type == DEQUANTIZE and index == 0]
        readers = tuple(reader for item in dequantizing for reader in view.consumers(item.output[0]))
    return Quantizer(node=node, role=_role(view, node, readers), readers=readers)


def _role(view: GraphView, node: Any, readers: tuple[tuple[Any, int], ...]) -> Role:
    import onnx

    source = float_source(view, node)
    if view.dtype(node.input[0]) == onnx.TensorProto.INT32:
        return "bias"
    if not view.is_constant(source):
        return "activation"
    names = dict.fromkeys(reader.input[index] for reader, index in readers)
    moved = (found for name in names for found in moved_readers(view, name, None))
    return "bias" if any(is_bias(view, reader, index) for reader, index, _ in moved) else "weight"


def float_source(view: GraphView, node: Any) -> str:
    """The name of what a quantizer, or the pair it belongs to, takes in."""
    made_by = view.producer(node.input[0])
    if node.op_type == DEQUANTIZE and made_by is not None and made_by.op_type == QUANTIZE:
        return str(made_by.input[0])
    return str(node.input[0])


def moved_readers(view: GraphView, name: str, axis: int | None) -> Iterator[tuple[Any, int, int | None]]:
    """Who reads a tensor, also behind operators that only move its elements.

    Args:
        view: The graph.
        name: Of the tensor.
        axis: One of its axes.

    Yields:
        The reader, the number of its input, and which axis of that input the given one has become; None where that is not known.
    """
    seen, left = set[str](), [(name, axis, 0)]
    while left:
        tensor, held, steps = left.pop()
        for reader, index in view.consumers(tensor):
            if reader.op_type not in _MOVING or index != 0 or steps == _LONGEST_WALK:
                yield reader, index, held
            elif reader.output[0] not in seen:
                seen.add(reader.output[0])
                left.append((reader.output[0], _axis_behind(view, reader, held), steps + 1))


def _axis_behind(view: GraphView, node: Any, axis: int | None) -> int | None:
    if node.op_type in {"Cast", "Identity"} or axis is None:
        return axis
    before, after = view.shape(node.input[0]), view.shape(node.output[0])
    if before is None or after is None:
        return None
    if node.op_type == "Transpose":
        order = list(attribute(node, "perm", list(range(len(before)))[::-1]))
        return order.index(axis) if axis in order else None
    # Elements keep their order: an axis of the same size, with as many elements before it, is the same one.
    known = None not in before and None not in after and 0 <= axis < len(before)
    ahead = math.prod(side or 0 for side in before[:axis])
    same = [
        index
        for index, side in enumerate(after)
        if known and side == before[axis] and math.prod(item or 0 for item in after[:index]) == ahead
    ]
    return same[0] if same else None


def is_bias(view: GraphView, reader: Any, index: int) -> bool:
    """Whether an operator adds that input to what a layer gives."""
    if reader.op_type in _WITH_BIAS:
        return index == 2
    if reader.op_type != "Add" or len(reader.input) != 2:
        return False
    other = view.producer(reader.input[1 - index])
    return other is not None and other.op_type == "MatMul"


def dequantize_before(view: GraphView, name: str) -> Any:
    """The DequantizeLinear that makes a tensor; None where another node does."""
    node = view.producer(name)
    return node if node is not None and node.op_type == DEQUANTIZE else None


def behind_pair(view: GraphView, name: str) -> Any:
    """The node that made a tensor before it was quantized and dequantized, or that makes it; None for inputs and constants."""
    node = dequantize_before(view, name)
    return view.producer(name if node is None else float_source(view, node))


def is_quantized(view: GraphView, node: Any) -> bool:
    """Whether a weighted operator works on integers: both operands are dequantized."""
    return len(node.input) >= 2 and all(dequantize_before(view, name) is not None for name in node.input[:2])


def weight_shape(view: GraphView, node: Any) -> tuple[int, ...] | None:
    """The static shape of a weighted operator's second operand; None where it is unknown."""
    shape = view.shape(node.input[1]) if len(node.input) > 1 else None
    if shape is None or any(size is None for size in shape):
        return None
    return tuple(size for size in shape if size is not None)


def output_channel_axis(node: Any, index: int, rank: int) -> int | None:
    """The axis of a weight that counts output channels; None where the operand is no weight.

    Args:
        node: A weighted operator.
        index: Which of its inputs the weight is.
        rank: Of the weight.
    """
    if node.op_type == "Conv":
        return 0 if index == 1 else None
    if node.op_type == "ConvTranspose":
        return 1 if index == 1 else None
    if node.op_type == "Gemm":
        transposed = bool(attribute(node, "transB" if index == 1 else "transA", 0))
        return (0 if transposed else 1) if index == 1 else (1 if transposed else 0)
    if node.op_type == "MatMul" and rank >= 2:
        return rank - 1 if index == 1 else rank - 2
    return None


def scale_of(view: GraphView, node: Any) -> NDArray[Any] | None:
    """The constant scale of a quantizer; None where it is not constant."""
    return view.constant(node.input[1])


def same_scale(view: GraphView, one: Any, other: Any) -> bool:
    """Whether two quantizers have equal scales; two that are not constant differ unless they are one tensor."""
    if one.input[1] == other.input[1]:
        return True
    first, second = scale_of(view, one), scale_of(view, other)
    return first is not None and second is not None and bool(np.array_equal(first.ravel(), second.ravel()))
