"""Types of operands, which a strongly typed network takes from the graph as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgekit.catalog.target import Target
from edgekit.compiler.conformance.finding import Hit, Rule, below
from edgekit.compiler.conformance.quantizers import QUANTIZE, quantizers
from edgekit.compiler.conformance.view import GraphView, label, type_name

_FIRST_FLOAT16_SCALE = 19

_ALIKE: Mapping[str, tuple[int, ...] | None] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow", "Mod", "Min", "Max", "Sum", "Mean", "PRelu", "Concat", "Clip")),
    **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")),
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul")),
    **dict.fromkeys(("InstanceNormalization", "LayerNormalization", "GroupNormalization")),
    "Where": (1, 2),
}
"""Operators whose floating-point inputs are of one type; the inputs meant, None for all."""

_MIXED_BATCH_NORM = "10.7"


def operands_alike(view: GraphView, target: Target) -> Iterator[Hit]:
    """Q8."""
    if target.tensorrt is None or not target.tensorrt.strongly_typed:
        return
    for node in view.nodes:
        if node.op_type in _ALIKE:
            yield from _differing(view, node, _ALIKE[node.op_type])
        elif node.op_type == "BatchNormalization":
            older = below(target, _MIXED_BATCH_NORM)
            if older:
                yield from _differing(view, node, None, older)
        elif node.op_type == QUANTIZE:
            yield from _differing(view, node, (0, 1))


def float16_scales(view: GraphView, _target: Target) -> Iterator[Hit]:
    """Q9."""
    import onnx

    if view.opset >= _FIRST_FLOAT16_SCALE:
        return
    for quantizer in quantizers(view):
        node = quantizer.node
        if onnx.TensorProto.FLOAT16 in {view.dtype(node.input[1]), view.dtype(node.input[0])}:
            yield Hit(node=label(node), message=f"{node.op_type} of float16 in opset {view.opset}")


def _differing(view: GraphView, node: Any, indices: tuple[int, ...] | None, versions: tuple[str, ...] = ()) -> Iterator[Hit]:
    import onnx

    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE}
    names = [name for index, name in enumerate(node.input) if name and (indices is None or index in indices)]
    types = {view.dtype(name) for name in names} & floats
    if len(types) > 1:
        shown = " and ".join(type_name(dtype) for dtype in sorted(types))
        yield Hit(node=label(node), message=f"the inputs of {node.op_type} are {shown}", versions=versions)


RULES = (
    Rule(
        id="Q8",
        severity="error",
        title="Operands of one operator are of one type in a strongly typed network",
        fix="insert a Cast; kernel, bias and scale have the type of the tensor",
        source="TensorRT developer guide, Strongly Typed Networks; NvInfer.h 10.3; onnx-tensorrt Changelog 10.7 (BatchNormalization); tried on TensorRT-RTX 1.7.1",
        check=operands_alike,
    ),
    Rule(
        id="Q9",
        severity="error",
        title="Scales and quantized tensors are float16 from opset 19 on only",
        fix="export with opset 19, or keep scales and what is quantized in float32",
        source="ONNX, QuantizeLinear: float16 since version 19",
        check=float16_scales,
    ),
)
