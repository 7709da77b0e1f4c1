"""The fallback for heads that no rule is known for: the head's answer to one position at a time.

The features A (channels, rows, columns) are masked but for one position, once for every position, and the head answers all of these and one frame of no features as a batch
(Byun and Lee 2022, Recipro-CAM):

    M_ij = N · (head(A · e_ij) − head(0)),   N positions.

Behind a mean and a linear layer this is the class activation map exactly, but it costs N + 1 passes of the head a frame where that costs one product. Elsewhere it says what the head
makes of a position without its surroundings, which no training frame has shown it: read it with that in mind.

Rules this file keeps:

1. The features are the nearest ones above the logits that everything passes through.
2. The network's own head stays as it is and gives the logits; the copy is float and part of the map's head.
3. An operator that could mix the frames of a batch is refused: what is not in a table here is, and so is one whose axes reach the first one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.compiler import graph as g
from edgekit.compiler.explain.algebra import Algebra, Operand, shape_of
from edgekit.compiler.explain.head import Head
from edgekit.compiler.explain.pooling import channels_last

if TYPE_CHECKING:
    import onnx_ir as ir

_LAYERS = frozenset({"Conv", "Gemm", "MatMul"})

_BY_ELEMENT = frozenset({
    "Abs", "Add", "And", "Cast", "Ceil", "Celu", "Clip", "Cos", "Div", "Dropout", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid",
    "HardSwish", "Identity", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round",
    "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Tanh", "ThresholdedRelu", "Where",
})  # fmt: skip
_BY_FRAME = _LAYERS | {
    "AveragePool", "BatchNormalization", "ConvTranspose", "DepthToSpace", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "GroupNormalization", "InstanceNormalization",
    "LRN", "LpPool", "MaxPool", "Reshape", "Expand", "SpaceToDepth", "Transpose",
}  # fmt: skip
_ALONG_AXIS = {
    "ArgMax": 0, "ArgMin": 0, "Concat": 0, "Flatten": 1, "Gather": 0, "Hardmax": -1, "LayerNormalization": -1, "LogSoftmax": -1, "LpNormalization": -1, "Softmax": -1, "Split": 0,
    "TopK": -1,
}  # fmt: skip
"""Operators with an axis, to the one that is meant where none is named."""
_ALONG_AXES = {
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"), 1),
    "Slice": 3, "Squeeze": 1, "Unsqueeze": 1,
}  # fmt: skip
"""Operators with axes, to the input that names them where no attribute does; without either, they mean all."""


def build(model: ir.Model, algebra: Algebra) -> tuple[Operand, Operand, Head] | str:
    """The map and its offset, as operands of the graph, and what they are; a string where the head cannot be masked.

    Args:
        model: A graph with one output of logits, (1, outputs).
        algebra: Where the nodes go.
    """
    found = _head(model)
    if found is None:
        return "nothing in the network is a map of features that all of the answer passes through"
    features, tail = found
    refused = next((reason for reason in map(_refusal, tail) if reason), "")
    if refused:
        return refused
    _, _, rows, columns = shape_of(features)
    count = rows * columns
    mask = np.concatenate([np.eye(count), np.zeros((1, count))]).reshape(count + 1, 1, rows, columns)
    answers = _answers(algebra, tail, features, algebra.multiply(features, mask), model.graph.outputs[0])
    outputs = shape_of(answers)[1]
    alone = algebra.part(answers, 0, 0, count)
    beside_none = algebra.subtract(alone, algebra.part(answers, 0, count, count + 1))
    scaled = algebra.multiply(beside_none, np.array(float(count)))
    maps = algebra.reshape(algebra.transpose(scaled, [1, 0]), (1, outputs, rows, columns))
    offset = algebra.subtract(model.graph.outputs[0], algebra.mean(maps, [2, 3], keep=False))
    cost = algebra.multiplications + (count + 1) * sum(map(_multiplications, tail))
    title = f"{count + 1} passes of {' → '.join(node.op_type for node in tail)}"
    return maps, offset, Head(kind="masking", rows=rows, columns=columns, bias=(), title=title, multiplications=cost)


def _head(model: ir.Model) -> tuple[ir.Value, list[ir.Node]] | None:
    """The features (rule 1) and the nodes behind them, in order."""
    needed: set[ir.Value] = {model.graph.outputs[0]}
    tail: list[ir.Node] = []
    for node in reversed(list(model.graph)):
        if not needed.intersection(node.outputs):
            continue
        tail.append(node)
        needed.difference_update(node.outputs)
        needed.update(value for value in node.inputs if value is not None and g.constant(value) is None)
        if len(needed) == 1:
            (value,) = needed
            if _is_features(value):
                return value, tail[::-1]
    return None


def _is_features(value: ir.Value) -> bool:
    """Whether a value is (1, channels, rows, columns) with more channels than one, and not the frame."""
    sizes, node = g.shape(value), value.producer()
    if sizes is None or node is None or len(sizes) != 4 or str(node.name).startswith("preamble/"):
        return False
    return not channels_last(value) and sizes[0] == 1 and sizes[1] > 1 and sizes[2] * sizes[3] > 1


def _refusal(node: ir.Node) -> str:
    """Why a node cannot answer a batch (rule 3); empty where it can."""
    what = f"the head has {node.op_type} ({node.name})"
    taken, given = (
        [g.shape(value) for value in values if value is not None and g.constant(value) is None] for values in (node.inputs, node.outputs)
    )
    if any(not size or size[0] != 1 for size in (*taken, *given)):
        return f"{what}, whose values are not of one frame"
    ranks = [len(size) for size in (*taken, *given) if size is not None]
    if node.domain not in ("", "ai.onnx") or not _keeps_frames_apart(node, ranks):
        return f"{what}, which may work across frames"
    return ""


def _keeps_frames_apart(node: ir.Node, ranks: Sequence[int]) -> bool:
    """Whether frames stay what they are along the first axis, for values of these ranks that depend on the frame."""
    kind, attributes = node.op_type, node.attributes
    if kind in _BY_ELEMENT:
        # Otherwise the first axis of one meets another axis of the other.
        return len(set(ranks)) == 1
    if kind in _ALONG_AXIS:
        axis = (attributes["axis"].as_int() if "axis" in attributes else _ALONG_AXIS[kind]) % ranks[0]
        return axis == 1 if kind == "Flatten" else axis != 0
    if kind in _ALONG_AXES:
        axes = _axes(node, _ALONG_AXES[kind])
        rank = ranks[-1] if kind == "Unsqueeze" else ranks[0]
        return bool(axes) and all(axis % rank for axis in axes)
    if kind == "Transpose":
        return "perm" in attributes and attributes["perm"].as_ints()[0] == 0
    if kind in ("Gemm", "MatMul") and (g.constant(node.inputs[0]) is not None or (g.constant(node.inputs[1]) is None and min(ranks) < 3)):
        return False
    return kind in _BY_FRAME and not (kind == "Gemm" and "transA" in attributes and attributes["transA"].as_int())


def _axes(node: ir.Node, place: int) -> tuple[int, ...]:
    """The axes that a node names; none where they are not constant, or not named."""
    if "axes" in node.attributes:
        return tuple(node.attributes["axes"].as_ints())
    found = g.constant(node.inputs[place]) if len(node.inputs) > place else None
    return () if found is None else tuple(int(axis) for axis in found.ravel())


def _answers(algebra: Algebra, tail: Sequence[ir.Node], features: ir.Value, masked: Operand, logits: ir.Value) -> ir.Value:
    """The head's answers to a batch of features, (frames, outputs)."""
    batch = shape_of(masked)[0]
    copies: dict[ir.Value, Operand] = {features: masked}
    for node in tail:
        operands: list[Any] = [None if value is None else copies.get(value, value) for value in node.inputs]
        if node.op_type in ("Expand", "Reshape"):
            operands[1] = np.array((batch, *shape_of(node.outputs[0])[1:]), dtype=np.int64)
        copies.update(zip(node.outputs, algebra.copy(node, operands, batch), strict=True))
    found = copies[logits]
    if isinstance(found, np.ndarray):
        raise TypeError("the logits do not depend on the features")
    return found


def _multiplications(node: ir.Node) -> int:
    """Multiply-accumulate operations of a layer, about."""
    if node.op_type not in _LAYERS:
        return 0
    kernel = g.shape(node.inputs[1]) or ()
    made = math.prod(shape_of(node.outputs[0]))
    if node.op_type == "Conv":
        return made * math.prod(kernel[1:])
    transposed = "transB" in node.attributes and node.attributes["transB"].as_int()
    return made * (kernel[-1] if transposed else kernel[-2])
