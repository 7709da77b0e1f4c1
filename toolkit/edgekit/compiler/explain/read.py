"""The vector that an input gate judges frames by: the mean over positions of the features that the head reads, as a further output of the graph.

It is found from the logits upwards, whatever the map is, and also where there is none:

| what is met first on every way up | the vector |
|---|---|
| a pooling, a generalized mean, a flattening, a layer on all positions | the mean over positions of the features it reads |
| the same, of a map of the logits themselves | the mean over positions of what the layer reads that makes the map |
| a token that is read | the token |
| neither | what the layer reads that makes the logits |

Rules this file keeps:

1. The mean is a node of the map's head (`head.PREFIX`), so it is computed in float in every engine, on the features as the quantized network gives them.
2. Several features that are met (a mean and a maximum of the same, or features of two depths) are joined; the same features are taken once.
3. The graph's other outputs, and what they are computed from, stay as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgekit.compiler import graph as g
from edgekit.compiler.explain import attention as att
from edgekit.compiler.explain import pooling
from edgekit.compiler.explain.head import FEATURES, PREFIX, UnknownHeadError

if TYPE_CHECKING:
    import onnx_ir as ir

MAX_CHANNELS = 16384
"""Longest vector; a longer one is no mean of features, and its statistics would not fit a bundle."""

_LAYERS = ("Conv", "Gemm", "MatMul")
_AXES_ARE_AN_INPUT = 18
"""ReduceMean takes its axes as an input from this opset on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of the vector.

    Attributes:
        value: What is averaged.
        axes: Over which axes; none for a vector.
        channels: Values that are left.
    """

    value: ir.Value
    axes: tuple[int, ...]
    channels: int


def find(output: ir.Value) -> tuple[Part, ...] | str:
    """What the head reads that makes an output, (1, outputs).

    Args:
        output: The logits of a graph that was not explained yet.

    Returns:
        The parts of the vector, or why there is none.
    """
    try:
        found = _above(output) or _before_last_layer(output)
    except UnknownHeadError as error:
        return str(error)
    if not found:
        return "no layer is found that makes the logits from a vector"
    channels = sum(part.channels for part in found)
    return found if channels <= MAX_CHANNELS else f"the head reads {channels} values, more than {MAX_CHANNELS}"


def attach(model: ir.Model, parts: tuple[Part, ...]) -> int:
    """Makes the vector, float32 (1, channels), the graph's last output `features`.

    Args:
        model: The graph, explained; the parts were found in it before.
        parts: From `find`.

    Returns:
        Its number of channels; 0 where the explained graph has no longer what was found.
    """
    import onnx_ir as ir

    graph = model.graph
    makers = [part.value.producer() for part in parts]
    if any(node is None or node.graph is not graph for node in makers):
        return 0
    means = [_mean(model, part, index) for index, part in enumerate(parts)]
    value, channels = means[0], sum(part.channels for part in parts)
    if len(means) > 1:
        joined = ir.node("Concat", means, {"axis": 1}, name=f"{PREFIX}features_joined")
        graph.append(joined)
        value = joined.outputs[0]
    g.free_name(graph, FEATURES)
    value.name, value.shape, value.type = FEATURES, ir.Shape((1, channels)), ir.TensorType(ir.DataType.FLOAT)
    graph.outputs.append(value)
    return channels


def _above(output: ir.Value) -> tuple[Part, ...]:
    """The parts met on all ways up; none where one ends at another operator that reads positions."""
    found: dict[ir.Value, Part] = {}
    seen, waiting = {output}, [output]
    for value in waiting:
        node = value.producer()
        if node is None or not node.inputs:
            continue
        part = _met(node)
        if part is not None:
            found.setdefault(part.value, part)
            continue
        read = [item for item in node.inputs if item is not None and item not in seen and g.stored(item) is None]
        if any(not _is_vector(item) for item in read):
            return ()
        seen.update(read)
        waiting += read
    outputs = (g.shape(output) or (0,))[-1]
    return tuple(_below_a_map_of_logits(part, outputs) for part in found.values())


def _below_a_map_of_logits(part: Part, outputs: int) -> Part:
    """A network whose last layer makes a map of the logits decides by what that layer reads."""
    value: ir.Value | None = part.value
    while value is not None and part.channels == outputs and part.axes == (2, 3):
        node = value.producer()
        read = None if node is None else next((item for item in node.inputs if item is not None and g.stored(item) is None), None)
        sizes = g.shape(read)
        if node is None or read is None or sizes is None or len(sizes) != len(g.shape(value) or ()):
            break
        if node.op_type == "Conv":
            return Part(value=read, axes=part.axes, channels=sizes[1])
        value = read
    return part


def _met(node: ir.Node) -> Part | None:
    root = pooling.generalized_mean(node)
    pool = root[0] if root is not None else pooling.pool_of(node)
    if pool is not None and pool.features.positions > 1:
        return _averaged(pool.features)
    layer = pooling.whole_convolution(node)
    if layer is not None:
        return _averaged(layer[0])
    laid_out = pooling.flattened(node)
    if laid_out is not None:
        return _averaged(laid_out)
    if att.selected_token(node) is not None:
        return _vector(node.outputs[0])
    return None


def _averaged(features: pooling.Features) -> Part:
    sizes = g.shape(features.value) or ()
    return Part(value=features.value, axes=tuple(features.position_axes), channels=sizes[features.channel_axis])


def _vector(value: ir.Value) -> Part:
    return Part(value=value, axes=(), channels=math.prod(g.shape(value) or (0,)))


def _is_vector(value: ir.Value) -> bool:
    """Whether a value has no positions: one axis alone is longer than 1."""
    sizes = g.shape(value)
    return sizes is not None and sum(size > 1 for size in sizes) <= 1


def _before_last_layer(output: ir.Value) -> tuple[Part, ...]:
    """What the layer reads that makes the logits, where that is a vector."""
    value: ir.Value | None = output
    while value is not None:
        node = value.producer()
        if node is None:
            return ()
        read = next((item for item in node.inputs if item is not None and g.stored(item) is None), None)
        if node.op_type in _LAYERS:
            known = read is not None and read.producer() is not None and _is_vector(read) and g.stored(node.inputs[1]) is not None
            return (_vector(read),) if known and read is not None else ()
        value = read
    return ()


def _mean(model: ir.Model, part: Part, index: int) -> ir.Value:
    """(1, channels). A vector goes through a mean over an axis of 1: an operator that hands its input on would be taken out, and the output be what is rounded."""
    import onnx_ir as ir

    graph, value, axes = model.graph, part.value, part.axes
    name = f"{PREFIX}features_{index}"
    if not axes:
        sizes = g.add_constant(graph, f"{name}/sizes", np.array([1, 1, part.channels], dtype=np.int64))
        laid_out = ir.node("Reshape", [value, sizes], name=f"{name}/vector")
        laid_out.outputs[0].name = f"{name}/vector"
        laid_out.outputs[0].shape, laid_out.outputs[0].type = ir.Shape((1, 1, part.channels)), ir.TensorType(ir.DataType.FLOAT)
        graph.append(laid_out)
        value, axes = laid_out.outputs[0], (1,)
    if model.opset_imports[""] >= _AXES_ARE_AN_INPUT:
        over = g.add_constant(graph, f"{name}/axes", np.array(axes, dtype=np.int64))
        mean = ir.node("ReduceMean", [value, over], {"keepdims": 0}, name=name)
    else:
        mean = ir.node("ReduceMean", [value], {"axes": list(axes), "keepdims": 0}, name=name)
    mean.outputs[0].name = name
    mean.outputs[0].shape, mean.outputs[0].type = ir.Shape((1, part.channels)), ir.TensorType(ir.DataType.FLOAT)
    graph.append(mean)
    return mean.outputs[0]
