"""Where quantizers stand: what lets TensorRT fuse a layer with its neighbours into one kernel on integers.

None of it makes a graph wrong; it makes it slower, often slower than float16.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgekit.catalog.target import Target
from edgekit.compiler.conformance.finding import Hit, Rule
from edgekit.compiler.conformance.quantizers import (
    QUANTIZE,
    WEIGHTED,
    behind_pair,
    dequantize_before,
    is_quantized,
    quantizers,
    same_scale,
)
from edgekit.compiler.conformance.view import GraphView, label

_MODELOPT = "NVIDIA Model-Optimizer modelopt/onnx/quantization"
_GUIDE = "TensorRT developer guide, Q/DQ Layer-Placement Recommendations"

_CONVOLUTIONS = ("Conv", "ConvTranspose")
_FUSED = ("BatchNormalization", "Relu", "Clip", "LeakyRelu")
_COMMUTING = ("MaxPool", "AveragePool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze")
_FLOAT_ONLY = ("Softmax", "LogSoftmax", "Sigmoid", "LayerNormalization", "GroupNormalization", "InstanceNormalization")
# What TensorRT runs on integers, or moves a quantizer across.
_ON_INTEGERS = frozenset(
    (*WEIGHTED, *_COMMUTING, *_FUSED, "Add", "Sub", "Mul", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "Concat", "Slice", "Split")
) | {"Resize", "Pad", "Gather", "Identity", "DepthToSpace", "SpaceToDepth", "HardSwish", "PRelu"}


def both_operands(view: GraphView, _target: Target) -> Iterator[Hit]:
    """P1."""
    for node in view.nodes:
        if node.op_type not in WEIGHTED or len(node.input) < 2:
            continue
        quantized = [dequantize_before(view, name) is not None for name in node.input[:2]]
        if any(quantized) and not all(quantized):
            yield Hit(node=label(node), message=f"input {quantized.index(False)} of {node.op_type} is float, the other one is quantized")


def skip_input_only(view: GraphView, _target: Target) -> Iterator[Hit]:
    """P2."""
    for node in view.nodes:
        if node.op_type != "Add" or len(node.input) != 2 or any(_is_constant_operand(view, name) for name in node.input):
            continue
        branches = [_is_branch(view, name) for name in node.input]
        if not any(branches):
            continue
        quantized = [dequantize_before(view, name) is not None for name in node.input]
        if all(quantized):
            yield Hit(
                node=label(node),
                message="both inputs of the residual addition are quantized, so the convolution gives out its own integers",
            )
        elif not any(quantized):
            yield Hit(node=label(node), message="the skip input of the residual addition is float, so the convolution's output stays float")
        elif not all(branches) and quantized == branches:
            yield Hit(node=label(node), message="the convolution's input of the residual addition is quantized, and the skip input is not")


def nothing_before_activation(view: GraphView, _target: Target) -> Iterator[Hit]:
    """P3."""
    for node in view.nodes:
        if node.op_type not in _FUSED or not node.input:
            continue
        made_by = behind_pair(view, node.input[0])
        if made_by is None or made_by.op_type not in _CONVOLUTIONS:
            continue
        if dequantize_before(view, node.input[0]) is not None:
            yield Hit(node=label(node), message=f"a quantizer stands between {made_by.op_type} and {node.op_type}")
        elif node.op_type == "BatchNormalization" and is_quantized(view, made_by):
            yield Hit(node=label(node), message=f"a BatchNormalization stands behind a quantized {made_by.op_type}")


def concat_scales(view: GraphView, _target: Target) -> Iterator[Hit]:
    """P4."""
    for node in view.nodes:
        found = [dequantize_before(view, name) for name in node.input] if node.op_type == "Concat" else []
        found = [item for item in found if item is not None]
        if len(found) > 1 and not all(same_scale(view, found[0], item) for item in found[1:]):
            yield Hit(node=label(node), message=f"{len(found)} quantized inputs of Concat have scales of their own")


def commuting_scales(view: GraphView, _target: Target) -> Iterator[Hit]:
    """P5."""
    for node in view.nodes:
        if node.op_type not in _COMMUTING or not node.input:
            continue
        before = dequantize_before(view, node.input[0])
        if before is None:
            continue
        after = [reader for reader, index in view.consumers(node.output[0]) if reader.op_type == QUANTIZE and index == 0]
        if any(not same_scale(view, before, item) for item in after):
            yield Hit(node=label(node), message=f"{node.op_type} stands between two scales, so it cannot run on integers")


def float_layers(view: GraphView, _target: Target) -> Iterator[Hit]:
    """P7."""
    for node in view.nodes:
        if node.op_type in {"Gemm", "MatMul"} and is_quantized(view, node) and _is_vector_product(view, node):
            yield Hit(node=label(node), message=f"{node.op_type} of a matrix and one vector is quantized")
        elif node.op_type in _FLOAT_ONLY and dequantize_before(view, node.input[0]) is not None:
            yield Hit(node=label(node), message=f"the input of {node.op_type} is quantized")


def useless_pairs(view: GraphView, _target: Target) -> Iterator[Hit]:
    """P8."""
    for quantizer in quantizers(view, "activation"):
        node = quantizer.node
        if node.op_type == QUANTIZE:
            if dequantize_before(view, node.input[0]) is not None:
                yield Hit(node=label(node), message="a tensor is quantized again right behind its DequantizeLinear")
            elif node.output[0] not in view.outputs and not view.consumers(node.output[0]):
                yield Hit(node=label(node), message="nobody reads what is quantized here")
        elif not any(_has_use(reader) for reader, _ in quantizer.readers):
            yield Hit(node=label(node), message=f"only {_names(quantizer.readers)} read what is dequantized here")


def _is_constant_operand(view: GraphView, name: str) -> bool:
    node = dequantize_before(view, name)
    return view.is_constant(name) or (node is not None and view.is_constant(node.input[0]))


def _is_branch(view: GraphView, name: str) -> bool:
    made_by = behind_pair(view, name)
    return made_by is not None and made_by.op_type in _CONVOLUTIONS and is_quantized(view, made_by)


def _is_vector_product(view: GraphView, node: Any) -> bool:
    shape = view.shape(node.output[0])
    return shape is not None and len(shape) < 3 and 1 in shape


def _has_use(reader: Any) -> bool:
    return reader.op_type in _ON_INTEGERS or reader.op_type in _FLOAT_ONLY or reader.op_type == QUANTIZE


def _names(readers: tuple[tuple[Any, int], ...]) -> str:
    return ", ".join(sorted({reader.op_type for reader, _ in readers})) or "outputs"


RULES = (
    Rule(
        id="P1",
        severity="warning",
        title="Both operands of a weighted operator are quantized, or none",
        fix="quantize the other operand too, or take the quantizer away",
        source=_GUIDE,
        check=both_operands,
    ),
    Rule(
        id="P2",
        severity="warning",
        title="At a residual addition, the skip input alone is quantized",
        fix="put the pair on the skip input and none on the convolution's",
        source=f"{_GUIDE}; {_MODELOPT}, build_non_residual_input_map; NVIDIA TF-quant toolkit, ResNetV1QDQCase",
        check=skip_input_only,
    ),
    Rule(
        id="P3",
        severity="warning",
        title="Nothing stands between a convolution and its activation",
        fix="fold the BatchNormalization; quantize behind the activation",
        source=_GUIDE,
        check=nothing_before_activation,
    ),
    Rule(
        id="P4",
        severity="warning",
        title="Quantized inputs of a Concat have one scale",
        fix="give all inputs of the Concat the largest of their scales",
        source=f"{_MODELOPT}, concat elimination",
        check=concat_scales,
    ),
    Rule(
        id="P5",
        severity="warning",
        title="Pooling and what only moves elements has one scale before and behind",
        fix="use one scale on both sides, so that the quantizer moves across",
        source=f"{_GUIDE}: Q/DQ commute with these layers",
        check=commuting_scales,
    ),
    Rule(
        id="P7",
        severity="warning",
        title="The classifier, and what is sensitive, stays float",
        fix="take the quantizers off",
        source=f"{_MODELOPT}: a Gemm or MatMul whose output has a dimension of 1 is excluded",
        check=float_layers,
    ),
    Rule(
        id="P8",
        severity="warning",
        title="A tensor is quantized once, for somebody who works on integers",
        fix="take the pair away",
        source=_GUIDE,
        check=useless_pairs,
    ),
)
