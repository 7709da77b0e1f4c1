"""Biases as integers, for engines whose integer kernels want them so.

A convolution of integers sums in int32 steps of (scale of the input) × (scale of the weight); a bias in the same steps joins that sum. The step is 2⁻¹⁶ of the
range or finer, so nothing is lost that rounding has not lost already; a bias that int32 cannot hold stays in float, and its layer then runs in float.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgekit.compiler import graph as g

if TYPE_CHECKING:
    import onnx_ir as ir

_LARGEST = 2**31 - 1


def store_biases(model: ir.Model) -> None:
    """Replaces the float biases of layers with rounded input and weight by int32 and a DequantizeLinear, in place."""
    import onnx_ir as ir

    for node in list(model.graph):
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm") or len(node.inputs) < 3:
            continue
        steps = [_scale(value) for value in node.inputs[:2]]
        bias = g.constant(node.inputs[2])
        if bias is None or any(step is None for step in steps):
            continue
        scale = (np.float32(steps[0]) * np.asarray(steps[1], dtype=np.float32)).astype(np.float32)
        integers = np.rint(np.asarray(bias, dtype=np.float64) / scale)
        if not (np.abs(integers) <= _LARGEST).all():
            continue
        inputs = [
            g.add_constant(model.graph, f"{node.name}/{name}", array)
            for name, array in (
                ("bias_integers", integers.astype(np.int32)),
                ("bias_scale", np.broadcast_to(scale, integers.shape).copy()),
                ("bias_zero_point", np.zeros(integers.shape, dtype=np.int32)),
            )
        ]
        restored = ir.node("DequantizeLinear", inputs, {"axis": 0}, name=f"{node.name}/bias_dequantize")
        restored.outputs[0].name = f"{node.name}/bias_restored"
        restored.outputs[0].shape = ir.Shape(integers.shape)
        restored.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        model.graph.insert_before(node, restored)
        node.replace_input_with(2, restored.outputs[0])
    g.tidy(model)


def _scale(value: ir.Value | None) -> np.ndarray | None:
    """The scale of the DequantizeLinear that makes a value; None where another operator does."""
    node = value.producer() if value is not None else None
    return None if node is None or node.op_type != "DequantizeLinear" else np.asarray(g.constant(node.inputs[1]))
