"""What explicit quantization has to be for TensorRT to take it and to mean the same by it.

Zero points are 0 and INT8, scales are constants, activations have one scale and weights one an output channel, biases stay float.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgekit.catalog.target import Target
from edgekit.compiler.conformance.finding import Hit, Rule, below
from edgekit.compiler.conformance.operators_table import INTEGER
from edgekit.compiler.conformance.quantizers import (
    DEQUANTIZE,
    QUANTIZE,
    WEIGHTED,
    Quantizer,
    float_source,
    moved_readers,
    output_channel_axis,
    quantizers,
    scale_of,
)
from edgekit.compiler.conformance.view import STANDARD_DOMAINS, GraphView, attribute, label, type_name

_HEADER = "TensorRT include/NvInfer.h (10.3, 11.1), IQuantizeLayer and IDequantizeLayer"
_PARSER = "onnx-tensorrt 10.1, QuantDequantLinearHelper"
_TRIED = "tried on TensorRT-RTX 1.7.1"
_INT8_CONSTANTS = "10.0"


def zero_points_are_zero(view: GraphView, _target: Target) -> Iterator[Hit]:
    """Q1."""
    for quantizer in quantizers(view, "weight", "activation"):
        name = _zero_point(quantizer.node)
        if name is None:
            continue
        value = view.constant(name)
        if value is None:
            yield Hit(node=label(quantizer.node), message="the zero point is not a constant")
        elif np.any(value != 0):
            yield Hit(node=label(quantizer.node), message=f"the zero point is {value.ravel()[np.argmax(value.ravel() != 0)]}, not 0")


def zero_points_are_int8(view: GraphView, _target: Target) -> Iterator[Hit]:
    """Q2."""
    import onnx

    for quantizer in quantizers(view, "weight", "activation"):
        name = _zero_point(quantizer.node)
        if name is None:
            yield Hit(node=label(quantizer.node), message="the zero point is left out, which is UINT8 in ONNX and INT8 in TensorRT")
        elif view.dtype(name) not in {onnx.TensorProto.INT8, onnx.TensorProto.UNDEFINED}:
            yield Hit(node=label(quantizer.node), message=f"the zero point is {type_name(view.dtype(name))}, not INT8")


def scales_are_positive(view: GraphView, _target: Target) -> Iterator[Hit]:
    """Q3."""
    for quantizer in quantizers(view, "weight", "activation"):
        scale = scale_of(view, quantizer.node)
        if scale is None:
            yield Hit(node=label(quantizer.node), message="the scale is not a constant")
        elif not (np.isfinite(scale).all() and np.all(scale > 0)):
            wrong = scale.ravel()[~(np.isfinite(scale.ravel()) & (scale.ravel() > 0))]
            yield Hit(
                node=label(quantizer.node), message=f"{wrong.size} of {scale.size} scales are not above 0 and finite, {wrong[0]} first"
            )


def activations_per_tensor(view: GraphView, _target: Target) -> Iterator[Hit]:
    """Q4."""
    for quantizer in quantizers(view, "activation", "weight"):
        count = _elements(view, quantizer.node.input[1])
        if count is None or count == 1:
            continue
        if quantizer.role == "activation":
            yield Hit(node=label(quantizer.node), message=f"an activation has {count} scales")
        elif (readers := {reader.op_type for reader, _, _ in _final_readers(view, quantizer, None)}) and not readers & {*WEIGHTED}:
            yield Hit(node=label(quantizer.node), message=f"a constant that no convolution and no matrix product reads has {count} scales")


def weights_per_output_channel(view: GraphView, _target: Target) -> Iterator[Hit]:
    """Q5."""
    for quantizer in quantizers(view, "weight"):
        count = _elements(view, quantizer.node.input[1])
        shape = view.shape(quantizer.node.input[0])
        if count is None or count == 1 or shape is None:
            continue
        axis = _axis(quantizer.node, len(shape))
        for reader, index, held in _final_readers(view, quantizer, axis):
            expected = output_channel_axis(reader, index, len(view.shape(reader.input[index]) or ()))
            if None not in (expected, held) and held != expected:
                yield Hit(
                    node=label(quantizer.node),
                    message=f"the scales run along axis {axis}, which {reader.op_type} reads as axis {held}; its output channels are axis {expected}",
                )
                break


def biases_are_float(view: GraphView, _target: Target) -> Iterator[Hit]:
    """Q6."""
    for quantizer in quantizers(view, "bias"):
        yield Hit(node=label(quantizer.node), message=f"a bias goes through {quantizer.node.op_type}")


def no_integer_operators(view: GraphView, _target: Target) -> Iterator[Hit]:
    """Q7."""
    for node in view.every_node():
        if node.domain in STANDARD_DOMAINS and node.op_type in INTEGER:
            yield Hit(node=label(node), message=f"{node.op_type} is an operator on integers")


def counts_fit(view: GraphView, _target: Target) -> Iterator[Hit]:
    """Q10."""
    for quantizer in quantizers(view, "weight", "activation"):
        for message in _misfits(view, quantizer):
            yield Hit(node=label(quantizer.node), message=message)


def data_is_int8(view: GraphView, _target: Target) -> Iterator[Hit]:
    """Q11."""
    import onnx

    for quantizer in quantizers(view, "weight", "activation"):
        node = quantizer.node
        if node.op_type != DEQUANTIZE or view.dtype(node.input[0]) not in {onnx.TensorProto.INT8, onnx.TensorProto.UNDEFINED}:
            continue
        made_by = view.producer(node.input[0])
        plain = made_by is None and node.input[0] in view.initializers
        if not plain and (made_by is None or made_by.op_type not in {QUANTIZE, "Constant"}):
            what = "the graph's input" if made_by is None else made_by.op_type
            yield Hit(node=label(node), message=f"what is dequantized comes from {what}, neither a QuantizeLinear nor an INT8 constant")


def constants_are_floats(view: GraphView, target: Target) -> Iterator[Hit]:
    """Q14."""
    import onnx

    older = below(target, _INT8_CONSTANTS)
    for quantizer in quantizers(view) if older else ():
        name = quantizer.node.input[0]
        if quantizer.node.op_type == DEQUANTIZE and view.is_constant(name) and view.dtype(name) == onnx.TensorProto.INT8:
            yield Hit(node=label(quantizer.node), message="an INT8 constant is dequantized", versions=older)


def weights_are_symmetric(view: GraphView, _target: Target) -> Iterator[Hit]:
    """Q12."""
    for quantizer in quantizers(view, "weight"):
        if quantizer.node.op_type != DEQUANTIZE:
            continue
        value = view.constant(float_source(view, quantizer.node))
        if value is not None and value.dtype == np.int8 and np.any(value == -128):
            yield Hit(node=label(quantizer.node), message=f"{int((value == -128).sum())} of {value.size} weights are -128")


def _final_readers(view: GraphView, quantizer: Quantizer, axis: int | None) -> Iterator[tuple[Any, int, int | None]]:
    """Who computes with what is dequantized, past what only moves it."""
    for name in dict.fromkeys(reader.input[index] for reader, index in quantizer.readers):
        yield from moved_readers(view, name, axis)


def _zero_point(node: Any) -> str | None:
    return str(node.input[2]) if len(node.input) > 2 and node.input[2] else None


def _elements(view: GraphView, name: str) -> int | None:
    shape = view.shape(name)
    if shape is None or any(size is None for size in shape):
        return None
    count = 1
    for size in shape:
        count *= size or 0
    return count


def _axis(node: Any, rank: int) -> int:
    axis = int(attribute(node, "axis", 1))
    return axis + rank if axis < 0 else axis


def _misfits(view: GraphView, quantizer: Quantizer) -> Iterator[str]:
    node = quantizer.node
    scale = view.shape(node.input[1])
    if scale is not None and len(scale) > 1:
        yield f"the scale has {len(scale)} dimensions; 0 or 1 are allowed"
    if attribute(node, "block_size", 0):
        yield "the scales are of blocks"
    count = _elements(view, node.input[1])
    name = _zero_point(node)
    points = _elements(view, name) if name is not None else None
    if count is not None and points is not None and points != count:
        yield f"there are {count} scales and {points} zero points"
    shape = view.shape(node.input[0])
    if shape is None:
        return
    if not shape and node.op_type == QUANTIZE:
        yield "a single number is quantized"
    axis = _axis(node, len(shape))
    if quantizer.role == "weight" and count not in {None, 1} and 0 <= axis < len(shape) and shape[axis] not in {None, count}:
        yield f"there are {count} scales for {shape[axis]} channels of axis {axis}"


RULES = (
    Rule(
        id="Q1",
        severity="error",
        title="Zero points are 0",
        fix="quantize symmetrically",
        source=f"{_PARSER}: assertion; {_TRIED}",
        check=zero_points_are_zero,
    ),
    Rule(
        id="Q2",
        severity="error",
        title="Zero points are there, and INT8",
        fix="give QuantizeLinear and DequantizeLinear a zero point of type INT8",
        source=f"ONNX QuantizeLinear; {_PARSER}: notInvalidType UINT8",
        check=zero_points_are_int8,
    ),
    Rule(
        id="Q3",
        severity="error",
        title="Scales are constants above 0",
        fix="keep scales as initializers; a channel of zeros gets the scale of the smallest other one",
        source=f"{_HEADER}; {_TRIED}: rejects 0 and below",
        check=scales_are_positive,
    ),
    Rule(
        id="Q4",
        severity="error",
        title="An activation has one scale",
        fix="quantize activations per tensor",
        source=_HEADER,
        check=activations_per_tensor,
    ),
    Rule(
        id="Q5",
        severity="error",
        title="A weight's scales run along its output channels",
        fix="axis 0 for Conv, 1 for ConvTranspose, the output channels' axis for Gemm and MatMul",
        source="NVIDIA Model-Optimizer modelopt/onnx/quantization, QDQOpTypePerChannelSupportToAxis; TensorRT-RTX 1.7.1 builds another axis, slowly",
        check=weights_per_output_channel,
    ),
    Rule(
        id="Q6",
        severity="error",
        title="Biases are not quantized",
        fix="leave the bias in float",
        source=f"NVIDIA Model-Optimizer, QuantizeBias=False; {_TRIED}: rejects INT32",
        check=biases_are_float,
    ),
    Rule(
        id="Q7",
        severity="error",
        title="Quantization is by QuantizeLinear and DequantizeLinear, not by operators on integers",
        fix="export in the Q/DQ format, with static ranges",
        source=f"onnx-tensorrt docs/operators.md; {_TRIED}",
        check=no_integer_operators,
    ),
    Rule(
        id="Q10",
        severity="error",
        title="Scales and zero points are as many as there are channels, or one",
        fix="one number, or a vector along the axis, for scale and zero point alike",
        source=_PARSER,
        check=counts_fit,
    ),
    Rule(
        id="Q11",
        severity="error",
        title="What is dequantized was quantized, or is an INT8 constant",
        fix="put the DequantizeLinear right behind its QuantizeLinear or its weight",
        source=_HEADER,
        check=data_is_int8,
    ),
    Rule(
        id="Q12",
        severity="warning",
        title="Weights are between -127 and 127",
        fix="divide by 127, not 128, and clip to it",
        source=f"{_HEADER}: numbers are clamped to [-128, 127]; a range of 127 is the symmetric one",
        check=weights_are_symmetric,
    ),
    Rule(
        id="Q14",
        severity="error",
        title="Before TensorRT 10 a weight is a float constant before QuantizeLinear and DequantizeLinear",
        fix="store the weight as float32 and put the pair behind it: edgekit compile does for such a target",
        source="TensorRT 8.5.3 and 8.6 operator documentation, Constant: int32, float16, float32; microsoft/onnxruntime#11535: invalid weights type of Int8",
        check=constants_are_floats,
    ),
)
