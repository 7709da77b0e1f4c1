"""Convolutions that are too small for integers to pay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgekit.catalog.target import Target
from edgekit.compiler.conformance.finding import Hit, Rule
from edgekit.compiler.conformance.quantizers import dequantize_before, float_source, is_quantized, weight_shape
from edgekit.compiler.conformance.view import GraphView, attribute, label

_FEW = 16
_MULTIPLE = 8
# What stands between a frame and the first convolution.
_PREAMBLE = ("Cast", "Transpose", "Sub", "Mul", "Add", "Div", "Expand", "Concat", "Unsqueeze", "Reshape")
_LONGEST_PREAMBLE = 16


def few_channels(view: GraphView, _target: Target) -> Iterator[Hit]:
    """P6."""
    for node in view.nodes:
        shape = weight_shape(view, node) if node.op_type == "Conv" and is_quantized(view, node) else None
        if shape is not None and len(shape) > 2 and min(shape[:2]) < _FEW and not _pays(view, node, shape):
            yield Hit(
                node=label(node),
                message=f"a convolution from {shape[1]} to {shape[0]} channels, kernel {'×'.join(map(str, shape[2:]))}, is quantized",
            )


def depthwise(view: GraphView, _target: Target) -> Iterator[Hit]:
    """P9."""
    for node in view.nodes:
        shape = weight_shape(view, node) if node.op_type == "Conv" and is_quantized(view, node) else None
        if shape is not None and attribute(node, "group", 1) > 1 and shape[1] == 1:
            yield Hit(node=label(node), message=f"a depthwise convolution of {shape[0]} channels is quantized")


def _pays(view: GraphView, node: Any, shape: tuple[int, ...]) -> bool:
    outputs, inputs, *kernel = shape
    if attribute(node, "group", 1) > 1:
        return outputs % _MULTIPLE == 0 and min(kernel) >= 3
    wide = max(outputs, inputs) >= _FEW or _is_first(view, node)
    return (outputs % _MULTIPLE == 0 or inputs % _MULTIPLE == 0) and wide and len(set(kernel)) == 1


def _is_first(view: GraphView, node: Any) -> bool:
    name = node.input[0]
    inputs = {value.name for value in view.inputs}
    for _ in range(_LONGEST_PREAMBLE):
        if name in inputs:
            return True
        pair = dequantize_before(view, name)
        made_by = pair if pair is not None else view.producer(name)
        if made_by is None or (pair is None and made_by.op_type not in _PREAMBLE):
            return False
        name = float_source(view, made_by) if pair is not None else made_by.input[0]
    return False


RULES = (
    Rule(
        id="P6",
        severity="warning",
        title="A convolution with fewer than 16 channels in or out stays float, a few forms apart",
        fix="take the quantizers off, or widen the layer to a multiple of 8",
        source="NVIDIA Model-Optimizer modelopt/onnx/quantization/graph_utils.py, find_nodes_from_convs_to_exclude",
        check=few_channels,
    ),
    Rule(
        id="P9",
        severity="info",
        title="Depthwise convolutions that are quantized",
        fix="measure on the device: float16 is often faster here",
        source="NVIDIA/TensorRT issues 2067 and 4039; ultralytics issue 26159",
        check=depthwise,
    ),
)
