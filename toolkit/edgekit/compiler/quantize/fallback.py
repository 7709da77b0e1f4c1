"""float-fallback: which layers of a quantized graph hurt most, found by measuring.

Rules this file keeps:

1. An error is measured, not predicted: one layer at a time goes back to float in the quantized graph, the whole network runs, and what the error
   of its outputs loses is the layer's. NNCF's accuracy control ranks alike (docs/adr/0016-float-fallback.md).
2. A layer that goes back gets everything back: weights and bias of the float graph, and inputs that no quantizer of its own has touched, also where
   the quantizer stands before operators that only move values, or where SmoothQuant has scaled the input.
3. The quantized graph is as it was after every measurement.
4. Layers are found by their names, which are the same in both graphs (`openvino_ptq.build_ir` sees to that).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler.stages.measure import Measured

# What has weights, or multiplies activations, and is worth leaving in float.
LAYERS = frozenset({"Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul"})
# NNCF moves quantizers up through these (QUANTIZE_AGNOSTIC_OPERATIONS of NNCF 3.4, and Concat).
MOVERS = frozenset(
    {
        "AdaptiveMaxPool",
        "Broadcast",
        "Concat",
        "DepthToSpace",
        "Gather",
        "MaxPool",
        "Maximum",
        "Minimum",
        "Pad",
        "ReduceMax",
        "Reshape",
        "ShuffleChannels",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "StridedSlice",
        "Tile",
        "Transpose",
        "Unsqueeze",
        "VariadicSplit",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerError:
    """What one layer's quantization costs.

    Attributes:
        name: Of the operation in the engine's graph.
        type: Of the operation, as OpenVINO or ONNX calls it.
        error: What the error of the outputs (see `output_error`) loses when this layer alone goes back to float. Negative where it grows.
    """

    name: str
    type: str
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A quantized layer, and what of it is connected otherwise in float: (input of an operation, the output it gets in float)."""

    name: str
    type: str
    swaps: tuple[tuple[Any, Any], ...]


def output_error(exact: Measured, found: Measured) -> float:
    """Mean squared error of the logits in parts of their variance, plus the same of the maps where there are some.

    The variance is that of the exact values over frames and positions, around the mean of each output. Squares, because the divergence of the
    probabilities vanishes on the many frames that are clear, and a ranking frame is too dear to say nothing.
    """
    total = _relative_square(exact.logits, found.logits)
    if exact.maps is not None and found.maps is not None:
        total += _relative_square(exact.maps, found.maps)
    return total


def rank(
    exact: Any, quantized: Any, answers: Callable[[Any], Measured], step: Callable[[int, int], None]
) -> tuple[float, tuple[LayerError, ...]]:
    """Ranks the quantized layers, the worst first.

    Args:
        exact: The float graph, an `openvino.Model`.
        quantized: The quantized one; as it was when this returns.
        answers: Runs a graph on the ranking frames.
        step: Told of every layer that was measured: how many, of how many.

    Returns:
        The error of the quantized graph, and the layers; layers with the same error in the order of their names.
    """
    reference = answers(exact)
    layers = find_layers(exact, quantized)
    before = output_error(reference, answers(quantized))
    found = []
    for index, layer in enumerate(layers):
        with in_float(layer):
            after = output_error(reference, answers(quantized))
        found.append(LayerError(name=layer.name, type=layer.type, error=before - after))
        step(index + 1, len(layers))
    return before, tuple(sorted(found, key=lambda layer: (-layer.error, layer.name)))


def find_layers(exact: Any, quantized: Any) -> tuple[Layer, ...]:
    """The layers of a quantized graph whose weights (or, without weights, inputs) are quantized, in the graph's order."""
    floats = {operation.get_friendly_name(): operation for operation in exact.get_ordered_ops()}
    found = []
    for operation in quantized.get_ordered_ops():
        twin = floats.get(operation.get_friendly_name())
        if operation.get_type_name() not in LAYERS or twin is None:
            continue
        swaps = _input_swaps(operation, twin, floats)
        if swaps:
            swaps += _bias_swaps(operation, floats)
            found.append(Layer(name=operation.get_friendly_name(), type=operation.get_type_name(), swaps=tuple(swaps)))
    return tuple(found)


@contextmanager
def in_float(layer: Layer) -> Iterator[None]:
    """Connects a layer as in the float graph, and back."""
    before = [(port, port.get_source_output()) for port, _ in layer.swaps]
    for port, output in layer.swaps:
        port.replace_source_output(output)
    try:
        yield
    finally:
        for port, output in before:
            port.replace_source_output(output)


def _input_swaps(operation: Any, twin: Any, floats: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """What the inputs of a layer get in float; empty where the layer is in float already."""
    swaps = []
    for port, original in zip(operation.inputs(), twin.input_values(), strict=True):
        source = port.get_source_output()
        if original.get_node().get_type_name() == "Constant":
            if source.get_node().get_type_name() == "Constant":
                return []
            swaps.append((port, original))
        else:
            output = _in_float(source, floats)
            if not _same(output, source):
                swaps.append((port, output))
    return swaps


def _bias_swaps(operation: Any, floats: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """The float bias of a layer, which quantization has corrected."""
    swaps = []
    for consumer in (target.get_node() for target in operation.output(0).get_target_inputs()):
        twin = floats.get(consumer.get_friendly_name())
        if consumer.get_type_name() != "Add" or twin is None or twin.get_type_name() != "Add":
            continue
        for port, original in zip(consumer.inputs(), twin.input_values(), strict=True):
            if port.get_source_output().get_node().get_type_name() == original.get_node().get_type_name() == "Constant":
                swaps.append((port, original))
    return swaps


def _in_float(output: Any, floats: Mapping[str, Any]) -> Any:
    """An activation without the quantizers right before it: operations that the float graph does not have are stepped over."""
    node = output.get_node()
    if node.get_type_name() == "Constant":
        return output
    if node.get_friendly_name() not in floats:
        return _in_float(node.input_value(0), floats)
    if node.get_type_name() not in MOVERS:
        return output
    inputs = [_in_float(value, floats) for value in node.input_values()]
    if all(_same(new, old) for new, old in zip(inputs, node.input_values(), strict=True)):
        return output
    from openvino.utils.node_factory import NodeFactory

    # A copy, because the operation may have other consumers, which stay quantized.
    copy = NodeFactory(node.get_type_info().version_id).create(node.get_type_name(), inputs, node.get_attributes())
    return copy.output(output.get_index())


def _same(one: Any, other: Any) -> bool:
    return bool(one.get_node().get_instance_id() == other.get_node().get_instance_id()) and bool(one.get_index() == other.get_index())


def _relative_square(exact: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """Mean squared difference in parts of the variance around each output's mean; without a variance, the square itself. Axis 1 is the outputs."""
    wide = exact.astype(np.float64)
    others = tuple(axis for axis in range(wide.ndim) if axis != 1)
    variance = float(((wide - wide.mean(axis=others, keepdims=True)) ** 2).mean())
    square = float(((found.astype(np.float64) - wide) ** 2).mean())
    return square / variance if variance > 0 else square
