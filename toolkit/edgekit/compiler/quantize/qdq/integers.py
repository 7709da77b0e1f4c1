"""Biases as integers, for engines whose integer kernels want them so.

A convolution of integers sums in int32 steps of (scale of the input) × (scale of the weight); a bias in the same steps joins that sum. The step is 2⁻¹⁵ of the
range or finer, so nothing is lost that rounding has not lost already. A bias that int32 cannot hold stands beside weights that are next to nothing: their channel
gets coarser steps, in which it fits (ONNX Runtime's `quantize_static` does the same).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler import graph as g

if TYPE_CHECKING:
    import onnx_ir as ir

_LARGEST = 2**31 - 128
"""Largest integer that float32 and int32 both hold."""


def store_biases(model: ir.Model) -> None:
    """Replaces the float biases of layers with rounded input and weight by int32 and a DequantizeLinear, in place."""
    for node in list(model.graph):
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm") or len(node.inputs) < 3:
            continue
        features, weight = (_restored_by(value) for value in node.inputs[:2])
        bias = g.constant(node.inputs[2])
        if bias is None or features is None or weight is None:
            continue
        step = np.float32(_scale(features))
        # A Gemm may write one number, or a row.
        wide = np.broadcast_to(np.asarray(bias, dtype=np.float64).reshape(-1), _scale(weight).shape)
        _make_room(model, node, weight, np.abs(wide) / (float(step) * _LARGEST))
        scale = (step * _scale(weight)).astype(np.float32)
        _replace(model, node, np.clip(np.rint(wide / scale), -_LARGEST, _LARGEST).astype(np.int32), scale)
    g.tidy(model)


def _make_room(model: ir.Model, node: ir.Node, weight: ir.Node, least: NDArray[np.float64]) -> None:
    """Gives the channels whose scale is below the least that their bias needs that one; the others keep their integers."""
    scale = _scale(weight)
    if (scale >= least).all():
        return
    new = np.maximum(scale, least.astype(np.float32))
    integers = np.asarray(g.constant(weight.inputs[0]), dtype=np.float64)
    axis = weight.attributes["axis"].as_int()
    spread = [-1 if index == axis else 1 for index in range(integers.ndim)]
    coarse = np.rint(integers * (scale.astype(np.float64) / new).reshape(spread)).astype(np.int8)
    weight.replace_input_with(0, g.add_constant(model.graph, f"{node.name}/weight_coarse", coarse))
    weight.replace_input_with(1, g.add_constant(model.graph, f"{node.name}/weight_scale_coarse", new))


def _replace(model: ir.Model, node: ir.Node, integers: NDArray[np.int32], scale: NDArray[np.float32]) -> None:
    import onnx_ir as ir

    parts = {"bias_integers": integers, "bias_scale": scale, "bias_zero_point": np.zeros(integers.shape, dtype=np.int32)}
    inputs = [g.add_constant(model.graph, f"{node.name}/{name}", array) for name, array in parts.items()]
    restored = ir.node("DequantizeLinear", inputs, {"axis": 0}, name=f"{node.name}/bias_dequantize")
    restored.outputs[0].name = f"{node.name}/bias_restored"
    restored.outputs[0].shape = ir.Shape(integers.shape)
    restored.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    model.graph.insert_before(node, restored)
    node.replace_input_with(2, restored.outputs[0])


def _restored_by(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear that makes a value; None where another operator does."""
    node = value.producer() if value is not None else None
    return None if node is None or node.op_type != "DequantizeLinear" else node


def _scale(node: ir.Node) -> NDArray[np.float32]:
    """float32, of a DequantizeLinear."""
    return np.asarray(g.constant(node.inputs[1]), dtype=np.float32)
