"""What a Jetson has besides its GPU's common path: the deep learning accelerator (DLA), and 2:4 structured sparsity. Told, never refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.catalog.target import Target
from edgekit.compiler.conformance.finding import Hit, Rule, number, versions_of
from edgekit.compiler.conformance.quantizers import (
    DEQUANTIZE,
    QUANTIZE,
    WEIGHTED,
    dequantize_before,
    float_source,
    output_channel_axis,
    quantizers,
    scale_of,
)
from edgekit.compiler.conformance.view import GraphView, label

_LAST_WITH_DLA = (10, 7)
_FIRST_WITH_DLA_AGAIN = (11, 4)
_MAX_BATCH, _MAX_SIZE = 4096, 8192

_NAMES_ON_DLA = """
Abs Add AveragePool BatchNormalization Clip Concat Constant ConstantOfShape Conv ConvTranspose Equal Gemm LeakyRelu LRN MatMul Max MaxPool Mul PRelu Relu
Reshape Resize Shape Sigmoid Slice Softmax Split Sub Sum Tanh Transpose Upsample
"""
_ON_DLA = frozenset(_NAMES_ON_DLA.split())
"""Operators that TensorRT hands to the DLA of an Orin as they are, or folds before."""

_DLA = "NVIDIA/Deep-Learning-Accelerator-SW operators/README.md"


def dla_takes_no_quantizers(view: GraphView, target: Target) -> Iterator[Hit]:
    """D1."""
    versions = _with_dla(target)
    count = sum(1 for _ in quantizers(view))
    if versions and count:
        yield Hit(
            node="", message=f"the DLA takes none of the {count} quantizers: it wants ranges set by hand, or float16", versions=versions
        )


def not_on_dla(view: GraphView, target: Target) -> Iterator[Hit]:
    """D2."""
    versions = _with_dla(target)
    if not versions or target.jetson is None or target.jetson.dla_generation != 2:
        return
    found: dict[str, int] = {}
    for node in view.every_node():
        if node.op_type not in _ON_DLA and node.op_type not in {QUANTIZE, DEQUANTIZE}:
            found[node.op_type] = found.get(node.op_type, 0) + 1
    for name in sorted(found):
        yield Hit(node="", message=f"{found[name]} × {name} would fall back from the DLA to the GPU", versions=versions)


def dla_sizes(view: GraphView, target: Target) -> Iterator[Hit]:
    """D3."""
    versions = _with_dla(target)
    for node in view.nodes if versions else ():
        for name in node.output:
            sizes = [size for size in view.shape(name) or () if size is not None]
            if sizes and (sizes[0] > _MAX_BATCH or any(size > _MAX_SIZE for size in sizes[1:])):
                yield Hit(node=label(node), message=f"a tensor of {'×'.join(map(str, sizes))} is too large for the DLA", versions=versions)


def no_dla(_view: GraphView, target: Target) -> Iterator[Hit]:
    """D4."""
    missing = tuple(version for version in versions_of(target) if version not in _with_dla(target))
    if target.jetson is not None and target.jetson.dla_cores and missing:
        yield Hit(
            node="",
            message=f"this module's {target.jetson.dla_cores} DLA cores are out of reach of TensorRT {', '.join(missing)}",
            versions=missing,
        )


def sparsity(view: GraphView, target: Target) -> Iterator[Hit]:
    """S1."""
    if target.jetson is None or not target.jetson.sparsity_2_4:
        return
    weights = [values for node in view.nodes if node.op_type in WEIGHTED for values in _weights(view, node)]
    if weights:
        fit = sum(_is_sparse(values) for values in weights)
        yield Hit(node="", message=f"{fit} of {len(weights)} layers have two zeros in every four consecutive input channels")


def _with_dla(target: Target) -> tuple[str, ...]:
    if target.jetson is None or not target.jetson.dla_cores:
        return ()
    return tuple(item for item in versions_of(target) if number(item) <= _LAST_WITH_DLA or number(item) >= _FIRST_WITH_DLA_AGAIN)


def _weights(view: GraphView, node: Any) -> Iterator[NDArray[Any]]:
    """The weight of an operator, rounded as its quantizer rounds, with its input channels on the last axis; none where it is not constant."""
    name = node.input[1]
    pair = dequantize_before(view, name)
    values = view.constant(name if pair is None else float_source(view, pair))
    axis = output_channel_axis(node, 1, 0 if values is None else values.ndim)
    if values is None or values.ndim < 2 or axis is None:
        return
    scale = scale_of(view, pair) if pair is not None and values.dtype.kind == "f" else None
    if scale is not None and scale.size in {1, values.shape[axis]} and np.all(scale > 0):
        shape = [1] * values.ndim
        shape[axis] = scale.size
        values = np.rint(values.astype(np.float64) / scale.astype(np.float64).reshape(shape))
    yield np.moveaxis(values, _input_channel_axis(node, axis, values.ndim), -1)


def _input_channel_axis(node: Any, output_axis: int, rank: int) -> int:
    if node.op_type == "MatMul":
        return rank - 2
    return 1 - output_axis


def _is_sparse(values: NDArray[Any]) -> bool:
    channels = values.shape[-1]
    if channels % 4 or not channels:
        return False
    zeros = (values == 0).reshape(*values.shape[:-1], channels // 4, 4).sum(axis=-1)
    return bool((zeros >= 2).all())


RULES = (
    Rule(
        id="D1",
        severity="info",
        title="Quantizers, which the DLA does not take",
        fix="build for the GPU; the DLA is for float16 here",
        source="NVIDIA/Deep-Learning-Accelerator-SW tools/qdq-translator",
        check=dla_takes_no_quantizers,
    ),
    Rule(
        id="D2",
        severity="info",
        title="Operators that an Orin's DLA does not run",
        fix="build for the GPU, or write the operator with ones that the DLA has",
        source=_DLA,
        check=not_on_dla,
    ),
    Rule(
        id="D3",
        severity="info",
        title="Tensors that are too large for the DLA",
        fix="build for the GPU, or work on smaller frames",
        source="TensorRT developer guide, DLA Supported Layers and Restrictions: batch up to 4096, other dimensions up to 8192",
        check=dla_sizes,
    ),
    Rule(
        id="D4",
        severity="info",
        title="TensorRT versions without the DLA that the module has",
        fix="build for the GPU",
        source="TensorRT release notes: 10.7 was the last release that supported DLA; TensorRT 11.4.1 migration page for Jetson",
        check=no_dla,
    ),
    Rule(
        id="S1",
        severity="info",
        title="Layers whose weights are 2:4 sparse along the input channels",
        fix="prune weights two in four and train again, if sparse kernels are wanted",
        source="TensorRT developer guide, Structured Sparsity",
        check=sparsity,
    ),
)
