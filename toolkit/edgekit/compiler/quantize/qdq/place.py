"""Where an explained ONNX graph is quantized.

Rules this file keeps:

1. A layer is a Conv, ConvTranspose, Gemm or MatMul with constant weights. Its input and its weights are rounded, weights with one scale an output channel.
2. The head of the map and the layer that makes the logits stay in float: logit = mean of the map + bias then holds to float rounding.
3. In a network with layer normalization or attention only linear layers are quantized, pointwise convolutions among them: its residual stream has outliers that no range of 256 steps spans.
4. At a residual sum TensorRT reads the skip rounded and the branch that ends in a convolution as it is, so that it can fuse convolution and sum.
5. Values that only move between two roundings share one range, so the second rounding changes nothing.
6. Nothing is grouped across a concatenation: a rounding stands behind it, once, for whoever reads it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgekit.compiler import graph as g
from edgekit.compiler.explain.head import LOGITS, in_head
from edgekit.compiler.quantize.qdq.rules import Rules
from edgekit.errors import ModelError

if TYPE_CHECKING:
    import onnx_ir as ir

# Hand on the values of their first input and no others, but for zeros at a border.
MOVING = frozenset({"Flatten", "Identity", "MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"})
# An activation that ONNX Runtime drops when the rounding behind it cuts off as much.
_CUTTING = frozenset({"Clip", "Relu"})
_CHAINED = {"Add": 2, "AveragePool": 1, "Concat": 1, "GlobalAveragePool": 1, "Mul": 2}
"""Operators beside layers that ONNX Runtime has integer kernels for, to the fewest inputs that are features."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layer:
    """A layer whose weights are rounded: the node, and the axis of its weight's output channels."""

    node: ir.Node
    axis: int

    @property
    def name(self) -> str:
        return str(self.node.name)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placement:
    """The roundings of a graph.

    Attributes:
        layers: In the graph's order.
        readers: Of each value that is rounded, the uses (node, index of its input) that read it rounded; in the graph's order.
        groups: Of each value that is rounded, the first value of its group, which shares one range.
    """

    layers: tuple[Layer, ...]
    readers: dict[ir.Value, tuple[tuple[ir.Node, int], ...]]
    groups: dict[ir.Value, ir.Value]


def place(model: ir.Model, rules: Rules, float_layers: Collection[str] = ()) -> Placement:
    """Decides what is quantized.

    Args:
        model: The explained graph.
        rules: The dialect's.
        float_layers: Names of layers that stay in float.

    Raises:
        ModelError: A name is not one of a layer, or there is no layer to quantize.
    """
    layers = tuple(find_layers(model, rules))
    missing = set(float_layers) - {layer.name for layer in layers}
    if missing:
        raise ModelError(f"the graph has no layer {', '.join(sorted(missing))}", hint="layers are named as in the explained graph")
    kept = tuple(layer for layer in layers if layer.name not in float_layers)
    if not kept:
        raise ModelError("the network has no layer to quantize", hint='use [compress] quantize = { ladder = ["float"] }')
    found = _Found(everyone=rules.chained, floats=frozenset(layer.node for layer in layers if layer not in kept))
    for layer in kept:
        found.read(layer.node, 0)
    if _is_normalized(model):
        for layer in kept if rules.chained else ():
            if layer.node.op_type == "Conv":
                found.make(_behind_cut(layer.node.outputs[0]))
    else:
        for node in model.graph:
            _read_features(node, found, rules, frozenset(layer.node for layer in kept))
    return Placement(layers=kept, readers=found.in_order(model), groups=found.groups(model))


def find_layers(model: ir.Model, rules: Rules) -> Iterator[Layer]:
    """The layers that the rules quantize, in the graph's order."""
    normalized = _is_normalized(model)
    last = _makes_logits(model)
    for node in model.graph:
        if in_head(node) or node is last:
            continue
        if node.op_type in ("Conv", "ConvTranspose") and (_is_pointwise(node) or not normalized) and _takes_convolution(node, rules):
            yield Layer(node=node, axis=0 if node.op_type == "Conv" else 1)
        elif node.op_type in ("Gemm", "MatMul") and _takes_product(node, rules):
            transposed = node.op_type == "Gemm" and _integer(node, "transB") == 1
            yield Layer(node=node, axis=0 if transposed else 1)


def _takes_convolution(node: ir.Node, rules: Rules) -> bool:
    kernel, sizes = g.constant(node.inputs[1]), g.shape(node.inputs[0])
    if kernel is None or sizes is None or len(sizes) != 4:
        return False
    groups = _integer(node, "group", 1)
    if node.op_type == "ConvTranspose" and groups != 1:
        return False
    # In a group; a depthwise convolution has one.
    taken, given = (kernel.shape[1], kernel.shape[0] // groups) if node.op_type == "Conv" else (kernel.shape[0], kernel.shape[1])
    depthwise = groups > 1 and taken == 1
    if depthwise:
        return rules.depthwise
    if sizes[2:] == (1, 1) and not rules.vectors:
        return False
    return int(min(taken, given)) >= rules.least_channels


def _is_pointwise(node: ir.Node) -> bool:
    """Whether a convolution is a linear layer on every position."""
    kernel = g.constant(node.inputs[1])
    return node.op_type == "Conv" and kernel is not None and kernel.shape[2:] == (1, 1) and _integer(node, "group", 1) == 1


def _takes_product(node: ir.Node, rules: Rules) -> bool:
    matrix, sizes = g.constant(node.inputs[1]), g.shape(node.inputs[0])
    if matrix is None or matrix.ndim != 2 or sizes is None or len(sizes) < 2:
        return False
    if node.op_type == "Gemm":
        scaled = any(name in node.attributes and node.attributes[name].as_float() != 1.0 for name in ("alpha", "beta"))
        if scaled or _integer(node, "transA"):
            return False
    positions: int = math.prod(sizes[:-1])
    return rules.vectors or positions > 1


def _read_features(node: ir.Node, found: _Found, rules: Rules, layers: Collection[ir.Node]) -> None:
    """What is rounded beside the inputs of layers."""
    if in_head(node):
        return
    if not rules.chained:
        skip = skip_of(node, layers)
        if skip is not None:
            found.read(node, skip)
        return
    if node in layers and node.op_type in ("Conv", "ConvTranspose"):
        found.make(_behind_cut(node.outputs[0]))
    elif node.op_type in _CHAINED and len(node.inputs) >= _CHAINED[node.op_type] and all(_is_feature(value) for value in node.inputs):
        for index in range(len(node.inputs)):
            found.read(node, index)
        found.make(_behind_cut(node.outputs[0]))


def skip_of(node: ir.Node, layers: Collection[ir.Node]) -> int | None:
    """The input of a residual sum that is read rounded (rule 4); None where a node is no such sum."""
    if node.op_type != "Add" or not _two_features(node):
        return None
    branches = [
        index
        for index, value in enumerate(node.inputs)
        if value is not None and value.producer() in layers and len(list(value.uses())) == 1 and not value.is_graph_output()
    ]
    if not branches:
        return None
    # Where both end in a convolution, the branch is the longer one.
    branch = max(branches, key=lambda index: _depth(node.inputs[index]))
    return 1 - branch


def _depth(value: ir.Value | None) -> int:
    """Convolutions on the way to a value in a row, without branching."""
    depth = 0
    while value is not None:
        node = value.producer()
        if node is None or node.op_type == "Add":
            return depth
        depth += node.op_type == "Conv"
        value = node.inputs[0]
    return depth


def _two_features(node: ir.Node) -> bool:
    return len(node.inputs) == 2 and all(_is_feature(value) for value in node.inputs)


def _is_feature(value: ir.Value | None) -> bool:
    sizes = g.shape(value)
    return value is not None and sizes is not None and len(sizes) == 4 and g.constant(value) is None and value.producer() is not None


def _behind_cut(value: ir.Value) -> ir.Value:
    """The value itself, or what the only reader, a Relu or a Clip, makes of it."""
    uses = list(value.uses())
    return uses[0].node.outputs[0] if len(uses) == 1 and uses[0].node.op_type in _CUTTING else value


def _is_normalized(model: ir.Model) -> bool:
    """Whether a network has attention or layer normalization, as an operator or written out; a softmax of another kind, such as one over branches, is neither.

    What the head of the map computes beside does not count: behind a pooling there is no residual stream.
    """
    kinds = (node for node in model.graph if not in_head(node))
    return any(node.op_type == "LayerNormalization" or _attends(node) or _writes_out_a_norm(node) for node in kinds)


def _attends(node: ir.Node) -> bool:
    """Whether a softmax weighs values: a matrix product of two features reads it."""
    if node.op_type != "Softmax":
        return False
    return any(
        reader.op_type == "MatMul" and all(g.constant(value) is None for value in reader.inputs) for reader in _readers(node.outputs[0])
    )


def _readers(value: ir.Value) -> Iterator[ir.Node]:
    """Who reads a value, also behind what only moves it."""
    for use in value.uses():
        if use.node.op_type in MOVING or use.node.op_type in ("Cast", "Dropout"):
            yield from _readers(use.node.outputs[0])
        else:
            yield use.node


def _writes_out_a_norm(node: ir.Node) -> bool:
    """Whether a node divides by √(mean of something + ε): layer normalization before ONNX had the operator."""
    root = _made_by(node.inputs[1], "Sqrt") if node.op_type == "Div" else None
    shifted = None if root is None else _made_by(root.inputs[0], "Add")
    return shifted is not None and any(_made_by(value, "ReduceMean") is not None for value in shifted.inputs)


def _made_by(value: ir.Value | None, kind: str) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == kind else None


def _makes_logits(model: ir.Model) -> ir.Node | None:
    """The layer that makes the logits of a graph without a map."""
    value = next((output for output in model.graph.outputs if output.name == LOGITS), None)
    while value is not None:
        node = value.producer()
        if node is None:
            return None
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            return node
        value = next((read for read in node.inputs if read is not None and g.constant(read) is None), None)
    return None


def _integer(node: ir.Node, name: str, default: int = 0) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


@dataclass
class _Found:
    """Collects the values that are rounded and who reads them so: everyone or those that ask, but no layer that is to stay in float."""

    everyone: bool
    floats: Collection[ir.Node]
    readers: dict[ir.Value, set[tuple[ir.Node, int]]] = field(default_factory=dict)

    def read(self, node: ir.Node, index: int) -> None:
        value = node.inputs[index]
        if value is None or g.constant(value) is not None:
            return
        self.readers.setdefault(value, set()).add((node, index))
        if self.everyone:
            self.make(value)

    def make(self, value: ir.Value) -> None:
        uses = {(use.node, use.idx) for use in value.uses() if use.node not in self.floats}
        if uses:
            self.readers.setdefault(value, set()).update(uses)

    def in_order(self, model: ir.Model) -> dict[ir.Value, tuple[tuple[ir.Node, int], ...]]:
        position = {node: index for index, node in enumerate(model.graph)}
        return {
            value: tuple(sorted(self.readers[value], key=lambda use: (position[use[0]], use[1])))
            for value in sorted(self.readers, key=lambda value: _made_at(value, position))
        }

    def groups(self, model: ir.Model) -> dict[ir.Value, ir.Value]:
        first = {value: value for value in self.readers}
        for node in model.graph:
            source = moved_from(node.outputs[0], first) if node.outputs[0] in first else None
            if source is not None:
                first[node.outputs[0]] = first[source]
        return first


def moved_from(value: ir.Value, known: Collection[ir.Value]) -> ir.Value | None:
    """The nearest known value that a value only moved, through any number of operators; None where there is none."""
    node = value.producer()
    while node is not None and node.op_type in MOVING:
        source = node.inputs[0]
        if source is None or source in known:
            return source
        node = source.producer()
    return None


def _made_at(value: ir.Value, position: dict[ir.Node, int]) -> int:
    producer = value.producer()
    return -1 if producer is None else position[producer]
