"""Writes roundings into a graph: QuantizeLinear/DequantizeLinear pairs, and weights as integers.

Rules this file keeps:

1. A value has one pair, whoever reads it (no rounding of what is rounded already).
2. Zero points are written, always, with their type: left out, ONNX means uint8 and TensorRT int8.
3. Weights are stored as int8 before a DequantizeLinear, in −limit … limit, one scale an output channel. `store_floats` rewrites them for a reader that takes no
   int8 constants; what they mean stays the same to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler import graph as g
from edgekit.compiler.quantize.qdq.place import Layer, Placement
from edgekit.compiler.quantize.qdq.ranges import Scale, half_up
from edgekit.errors import ModelError

if TYPE_CHECKING:
    import onnx_ir as ir

WEIGHT_LIMIT = 127
"""Largest weight as an integer; −128 is left out, so that a weight and its negative are both there."""

_SMALLEST_SCALE = 1e-12


def insert(  # noqa: PLR0913 - a graph, where and how
    model: ir.Model,
    placement: Placement,
    scales: Mapping[ir.Value, Scale],
    *,
    weight_limit: int,
    half: bool,
    trained: Mapping[str, NDArray[np.float64]] | None = None,
) -> None:
    """Rounds what the placement says, in place.

    Args:
        model: The explained graph.
        placement: Of this graph.
        scales: Of every value that is rounded.
        weight_limit: Largest weight as an integer.
        half: Scales are rounded to float16 (they are stored as float32 here; `half.py` changes types).
        trained: Scales of weights, float64 (output channels,), by the layer's name, where a training has found them.
    """
    for value, readers in placement.readers.items():
        _insert_pair(model, value, readers, scales[value])
    for layer in placement.layers:
        found = None if trained is None else trained.get(layer.name)
        _insert_weight(model, layer, weight_limit, half=half, trained=found)


def _insert_pair(model: ir.Model, value: ir.Value, readers: tuple[tuple[ir.Node, int], ...], scale: Scale) -> None:
    import onnx_ir as ir

    name = value.name
    kind = np.uint8 if scale.unsigned else np.int8
    step = g.add_constant(model.graph, f"{name}/scale", np.array(scale.scale, dtype=np.float32))
    zero = g.add_constant(model.graph, f"{name}/zero_point", np.array(scale.zero_point, dtype=kind))
    rounded = ir.node("QuantizeLinear", [value, step, zero], name=f"{name}/quantize")
    restored = ir.node("DequantizeLinear", [rounded.outputs[0], step, zero], name=f"{name}/dequantize")
    _declare(rounded.outputs[0], f"{name}/rounded", value, ir.DataType.UINT8 if scale.unsigned else ir.DataType.INT8)
    _declare(restored.outputs[0], f"{name}/restored", value, ir.DataType.FLOAT)
    producer = value.producer()
    if producer is None:
        model.graph.insert_before(model.graph[0], [rounded, restored])
    else:
        model.graph.insert_after(producer, [rounded, restored])
    for node, index in readers:
        node.replace_input_with(index, restored.outputs[0])


def _declare(made: ir.Value, name: str, like: ir.Value, kind: ir.DataType) -> None:
    import onnx_ir as ir

    made.name = name
    made.shape = like.shape
    made.type = ir.TensorType(kind)


def _insert_weight(model: ir.Model, layer: Layer, limit: int, *, half: bool, trained: NDArray[np.float64] | None) -> None:
    import onnx_ir as ir

    read = layer.node.inputs[1]
    found = g.constant(read)
    if read is None or found is None:
        raise ModelError(f"the weight of {layer.name} is not a constant", hint="please report the architecture")
    weight = np.asarray(found, dtype=np.float64)
    if trained is None:
        scale = weight_scales(weight, layer.axis, limit, half=half)
    else:
        scale = half_up(trained) if half else trained.astype(np.float32).astype(np.float64)
    spread = [1] * weight.ndim
    spread[layer.axis] = -1
    integers = np.clip(np.rint(weight / scale.reshape(spread)), -limit, limit).astype(np.int8)
    stored = g.add_constant(model.graph, f"{layer.name}/weight", integers)
    step = g.add_constant(model.graph, f"{layer.name}/weight_scale", scale.astype(np.float32))
    zero = g.add_constant(model.graph, f"{layer.name}/weight_zero_point", np.zeros(len(scale), dtype=np.int8))
    restored = ir.node("DequantizeLinear", [stored, step, zero], {"axis": layer.axis}, name=f"{layer.name}/weight_dequantize")
    _declare(restored.outputs[0], f"{layer.name}/weight_restored", read, ir.DataType.FLOAT)
    model.graph.insert_before(layer.node, restored)
    layer.node.replace_input_with(1, restored.outputs[0])


def store_floats(model: ir.Model) -> None:
    """Stores weights as float32 before a pair of QuantizeLinear and DequantizeLinear, in place: each integer times its scale, which rounds to that integer again."""
    import onnx_ir as ir

    for node in list(model.graph):
        stored = g.constant(node.inputs[0]) if node.op_type == "DequantizeLinear" else None
        scale = g.constant(node.inputs[1]) if stored is not None else None
        if stored is None or scale is None or stored.dtype != np.int8:
            continue
        axis = node.attributes["axis"].as_int()
        spread = [-1 if index == axis else 1 for index in range(stored.ndim)]
        floats = stored.astype(np.float32) * np.asarray(scale, dtype=np.float32).reshape(spread)
        value = g.add_constant(model.graph, f"{node.inputs[0].name}_float", floats)
        pair = ir.node("QuantizeLinear", [value, *node.inputs[1:]], {"axis": axis}, name=f"{node.name}/quantize")
        _declare(pair.outputs[0], f"{value.name}_rounded", node.outputs[0], ir.DataType.INT8)
        model.graph.insert_before(node, pair)
        node.replace_input_with(0, pair.outputs[0])
    g.tidy(model)


def weight_scales(weight: NDArray[np.float64], axis: int, limit: int, *, half: bool) -> NDArray[np.float64]:
    """float64 (output channels,): the largest magnitude of a channel in parts of the limit, a float32, or a float16 that is not smaller.

    A channel of zeros has the largest scale of its layer: its zeros are zeros in any steps, and its bias may have to be told in them.
    """
    others = tuple(other for other in range(weight.ndim) if other != axis)
    largest = np.abs(weight).max(axis=others)
    largest = np.where(largest > 0, largest, largest.max() or 1.0)
    scale = np.maximum(largest / limit, _SMALLEST_SCALE)
    return half_up(scale) if half else scale.astype(np.float32).astype(np.float64)
