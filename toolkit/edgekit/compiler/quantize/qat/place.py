"""Where a traced network is quantized, and where it stays in float.

Rules this file keeps:

1. The inputs of convolutions and linear layers are quantized, with their weights; that is where the time goes.
2. So are both sides of a residual sum or a product of two features, and what an average over positions reads: then memory holds int8 between the
   layers. A network with layer normalization or attention keeps these in float: its residual stream has outliers that no range of 256 steps spans.
3. One quantizer a value: everything that reads a quantized value reads the same integers.
4. A quantizer stands where a value is made, above what only moves it (padding, maximum, reshaping). The parts of a concatenation share one range.
   In a network of rule 2 that keeps its residual stream in float, it stands below what that stream reads too.
5. The head, pooling included, is float: logit = mean of the map + bias then holds to float rounding, in every engine.
6. uint8 where the operator that makes a value cannot make a negative one, int8 elsewhere; the data has no say in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from edgekit.compiler.quantize.qat.trace import constant, operator
from edgekit.errors import ModelError

if TYPE_CHECKING:
    import torch

# These hand on the values of their first input and no others, but for zeros at a border.
_MOVING = frozenset(
    {"clone", "contiguous", "flatten", "max_pool2d", "pad", "permute", "reshape", "slice", "squeeze", "transpose", "unsqueeze", "view"}
)
_NOT_NEGATIVE = frozenset({"abs", "hardsigmoid", "relu", "relu6", "sigmoid", "softmax"})
_AVERAGES = frozenset({"adaptive_avg_pool2d", "avg_pool2d", "mean"})
_WEIGHTED = {"conv1d": 0, "conv2d": 0, "conv3d": 0, "conv_transpose2d": 1, "linear": 0}
_NORMALIZED = frozenset({"layer_norm", "native_layer_norm", "scaled_dot_product_attention", "softmax"})
_RESHAPING = frozenset({"flatten", "reshape", "squeeze", "unsqueeze", "view"})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Head:
    """What turns features into logits.

    Attributes:
        nodes: The classifier, and the pooling where there is one: never quantized.
        features: What is pooled; None where there is no pooled linear head.
        weight: The classifier's weight; None where the pooled channels are the logits, or there is no such head.
    """

    nodes: frozenset[torch.fx.Node]
    features: torch.fx.Node | None = None
    weight: torch.fx.Node | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placement:
    """The quantizers of a network.

    Attributes:
        groups: Values that are rounded with one range, and whether they cannot be negative; in the graph's order.
        readers: Of each value, the nodes that read it rounded.
        weighted: The layers whose weights are rounded, and the axis of their output channels.
    """

    groups: tuple[tuple[tuple[torch.fx.Node, ...], bool], ...]
    readers: dict[torch.fx.Node, frozenset[torch.fx.Node]]
    weighted: dict[torch.fx.Node, int]


def find_head(traced: torch.fx.GraphModule) -> Head:
    """Finds the head above the output; as far as training needs it: for a pooled linear one all of it, else the layer that makes the logits."""
    output = next(node for node in traced.graph.nodes if node.op == "output")
    last = _skip_reshaping(cast("torch.fx.Node", output.args[0]))
    if _pools(last):
        return _pooled(last, None, {last})
    weight = constant(traced, last.args[1]) if operator(last) in ("linear", "conv2d") else None
    if weight is None:
        return Head(nodes=frozenset({last}))
    pool = _skip_reshaping(cast("torch.fx.Node", last.args[0]))
    if not _pools(pool) or _shape(cast("torch.fx.Node", pool.args[0]))[1] != weight.numel() // weight.shape[0]:
        return Head(nodes=frozenset({last}))
    return _pooled(pool, cast("torch.fx.Node", last.args[1]), {last, pool})


def place(traced: torch.fx.GraphModule, head: Head) -> Placement:
    """Decides what is quantized.

    Raises:
        ModelError: Nothing is: there is no convolution or linear layer before the head.
    """
    weighted = {}
    everywhere = not any(operator(node) in _NORMALIZED and not _is_vector(node) for node in traced.graph.nodes)
    found = _Found(above_branches=everywhere)
    for node in traced.graph.nodes:
        if node in head.nodes:
            continue
        axis = _WEIGHTED.get(operator(node))
        if axis is not None and _own_weight(traced, node):
            weighted[node] = axis
            found.read(node, node.args[0])
        elif everywhere:
            for value in _features_read(traced, node):
                found.read(node, value)
    if not weighted:
        raise ModelError(
            "the network has no convolution or linear layer to quantize", hint='use [compress] quantize = { ladder = ["float"] }'
        )
    return Placement(
        groups=found.groups(list(traced.graph.nodes)),
        readers={value: frozenset(readers) for value, readers in found.readers.items()},
        weighted=weighted,
    )


def _is_vector(node: torch.fx.Node) -> bool:
    """Whether a value has no positions: behind a pooling there is no residual stream."""
    sizes = _shape(node)[1:]
    return bool(sizes) and math.prod(sizes) == max(sizes)


def _own_weight(traced: torch.fx.GraphModule, layer: torch.fx.Node) -> bool:
    """Whether a layer's weight is a parameter that nothing but layers of its kind read."""
    import torch

    weight = layer.args[1]
    if not isinstance(constant(traced, weight), torch.nn.Parameter):
        return False
    target = cast("torch.fx.Node", weight).target
    readers = [(reader, read) for read in traced.graph.nodes if read.op == "get_attr" and read.target == target for reader in read.users]
    return all(operator(reader) == operator(layer) and reader.args[1] is read for reader, read in readers)


@dataclass(slots=True)
class _Found:
    """Collects which values are read rounded by whom, and which of them share a range."""

    above_branches: bool
    readers: dict[torch.fx.Node, set[torch.fx.Node]] = field(default_factory=dict)
    shared: dict[torch.fx.Node, torch.fx.Node] = field(default_factory=dict)

    def read(self, reader: torch.fx.Node, value: object) -> list[torch.fx.Node]:
        """Walks up from what a node reads to where it is made; returns those values."""
        import torch

        if not isinstance(value, torch.fx.Node):
            return []
        up = self.above_branches or len(value.users) == 1
        if up and moves(value):
            return self.read(value, value.args[0])
        if up and operator(value) == "cat":
            made = [source for part in cast("list[object]", value.args[0]) for source in self.read(value, part)]
            for source in made[1:]:
                self.shared[self._first(source)] = self._first(made[0])
            return made
        self.readers.setdefault(value, set()).add(reader)
        return [value]

    def groups(self, order: list[torch.fx.Node]) -> tuple[tuple[tuple[torch.fx.Node, ...], bool], ...]:
        together: dict[torch.fx.Node, list[torch.fx.Node]] = {}
        for value in order:
            if value in self.readers:
                together.setdefault(self._first(value), []).append(value)
        return tuple((tuple(values), all(_cannot_be_negative(value) for value in values)) for values in together.values())

    def _first(self, value: torch.fx.Node) -> torch.fx.Node:
        while self.shared.get(value, value) is not value:
            value = self.shared[value]
        return value


def _features_read(traced: torch.fx.GraphModule, node: torch.fx.Node) -> list[torch.fx.Node]:
    """What a sum or product of two features, or an average over positions, reads; empty for any other node."""
    import torch

    name = operator(node)
    if name in _AVERAGES and len(_shape(node.args[0])) == 4:
        return [cast("torch.fx.Node", node.args[0])]
    if name in ("add", "mul") and not any(value != 1 for value in node.kwargs.values()):
        values = [value for value in node.args[:2] if isinstance(value, torch.fx.Node) and len(_shape(value)) == 4]
        if len(values) == 2 and all(constant(traced, value) is None for value in values):
            return values
    return []


def moves(node: torch.fx.Node) -> bool:
    """Whether a node hands on the values of its first input and no others, but for zeros at a border."""
    name = operator(node)
    if name == "pad":
        mode = node.args[2] if len(node.args) > 2 else "constant"
        return mode == "constant" and not (node.args[3] if len(node.args) > 3 else None)
    return name in _MOVING


def _cannot_be_negative(node: object) -> bool:
    import torch

    if not isinstance(node, torch.fx.Node):
        return False
    name = operator(node)
    if name in _NOT_NEGATIVE:
        return True
    if name in ("hardtanh", "clamp"):
        lowest = node.args[1] if len(node.args) > 1 else None
        return isinstance(lowest, int | float) and lowest >= 0
    if name in _AVERAGES or moves(node):
        return _cannot_be_negative(node.args[0])
    if name in ("add", "mul"):
        return all(_cannot_be_negative(value) for value in node.args[:2]) and not node.kwargs
    return name == "cat" and all(_cannot_be_negative(value) for value in cast("list[object]", node.args[0]))


def _skip_reshaping(node: torch.fx.Node) -> torch.fx.Node:
    while operator(node) in _RESHAPING:
        node = cast("torch.fx.Node", node.args[0])
    return node


def _pools(node: torch.fx.Node) -> bool:
    """Whether a node averages every channel over all its positions."""
    name = operator(node)
    if name not in _AVERAGES:
        return False
    read, made = _shape(node.args[0]), _shape(node)
    if len(read) != 4 or read[2] * read[3] == 1:
        return False
    if name == "mean":
        axes = node.args[1] if len(node.args) > 1 else None
        return isinstance(axes, list | tuple) and sorted(cast("int", axis) % 4 for axis in axes) == [2, 3]
    if name == "avg_pool2d":
        padding = node.args[3] if len(node.args) > 3 else 0
        if padding not in (0, [0], [0, 0]):
            return False
    return len(made) == 4 and made[2] * made[3] == 1


def _pooled(pool: torch.fx.Node, weight: torch.fx.Node | None, nodes: set[torch.fx.Node]) -> Head:
    return Head(nodes=frozenset(nodes), features=cast("torch.fx.Node", pool.args[0]), weight=weight)


def _shape(node: object) -> tuple[int, ...]:
    """The shape of a node's value as it was traced; the frames' axis is a symbol. Empty where it is not one tensor."""
    meta = getattr(node, "meta", {})
    value = meta.get("val") if isinstance(meta, dict) else None
    return tuple(getattr(value, "shape", ()))
