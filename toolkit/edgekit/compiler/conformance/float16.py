"""Numbers that float16 does not hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.catalog.target import Target
from edgekit.compiler.conformance.finding import Hit, Rule
from edgekit.compiler.conformance.quantizers import is_bias, quantizers, scale_of
from edgekit.compiler.conformance.view import GraphView, attribute, label

_FLOAT16_MAX = float(np.finfo(np.float16).max)
_MASKING = frozenset({"Clip", "Greater", "Less", "Max", "Min", "Where"})
_IEEE = "IEEE 754-2019, table 3.5: binary16"


def not_finite(view: GraphView, _target: Target) -> Iterator[Hit]:
    """F1."""
    for name, values in _floats(view):
        # Scales have a rule of their own.
        wrong = ~np.isfinite(values)
        if wrong.any() and not _is_scale(view, name) and (np.isnan(values).any() or not _masks(view, name, values)):
            yield Hit(node=name, message=f"{int(wrong.sum())} of {values.size} numbers of {name!r} are infinite or not numbers")


def cast_overflows(view: GraphView, _target: Target) -> Iterator[Hit]:
    """F2."""
    import onnx

    for node in view.nodes:
        if node.op_type != "Cast" or attribute(node, "to", 0) != onnx.TensorProto.FLOAT16 or _is_scale(view, node.output[0]):
            continue
        before = view.constant(node.input[0])
        if before is not None and before.dtype.kind == "f" and _overflows(before):
            yield Hit(node=label(node), message=f"a constant of {_largest(before):.4g} is cast to FLOAT16, which ends at {_FLOAT16_MAX:g}")


def may_overflow(view: GraphView, target: Target) -> Iterator[Hit]:
    """F3."""
    if target.tensorrt is None or target.tensorrt.strongly_typed:
        return
    for name, values in _floats(view):
        if _overflows(values):
            yield Hit(node=name, message=f"{name!r} has a number of {_largest(values):.4g}; FLOAT16 ends at {_FLOAT16_MAX:g}")


def subnormal_scale(view: GraphView, _target: Target) -> Iterator[Hit]:
    """F4."""
    for quantizer in quantizers(view):
        scale = scale_of(view, quantizer.node)
        if scale is None or scale.dtype not in {np.dtype(np.float16), np.dtype(np.float32)}:
            continue
        smallest = float(np.finfo(scale.dtype).tiny)
        small = (scale > 0) & (scale < smallest)
        if small.any():
            yield Hit(
                node=label(quantizer.node),
                message=f"{int(small.sum())} of {scale.size} scales are subnormal {scale.dtype}, below {smallest:.3g}",
            )


def _floats(view: GraphView) -> Iterator[tuple[str, NDArray[Any]]]:
    names = [*view.initializers, *[node.output[0] for node in view.nodes if node.op_type == "Constant"]]
    for name in names:
        values = view.constant(name)
        if values is not None and values.dtype.kind == "f" and values.size:
            yield name, values


def _masks(view: GraphView, name: str, values: NDArray[Any]) -> bool:
    """Whether an infinite constant is a mask or a bound: it is chosen or compared with, or it is minus infinity and added to what is no layer's result."""
    readers = view.consumers(name)
    return bool(readers) and all(_masks_in(view, reader, index, values) for reader, index in readers)


def _masks_in(view: GraphView, reader: Any, index: int, values: NDArray[Any]) -> bool:
    if reader.op_type == "Cast":
        return _masks(view, reader.output[0], values)
    if reader.op_type == "Add":
        return not (values == np.inf).any() and bool((values == 0).any()) and not is_bias(view, reader, index)
    return reader.op_type in _MASKING


def _is_scale(view: GraphView, name: str) -> bool:
    readers = [reader for reader, index in view.consumers(name) if index == 1]
    return bool(readers) and all(reader.op_type in {"QuantizeLinear", "DequantizeLinear"} for reader in readers)


def _largest(values: NDArray[Any]) -> float:
    finite = values[np.isfinite(values)]
    return float(np.abs(finite).max()) if finite.size else 0.0


def _overflows(values: NDArray[Any]) -> bool:
    return values.dtype.itemsize > 2 and _largest(values) > _FLOAT16_MAX


RULES = (
    Rule(
        id="F1",
        severity="error",
        title="Constants are finite, but for masks and bounds that are added, chosen or compared with",
        fix="look at the checkpoint: an infinite weight makes every answer infinite or not a number",
        source=_IEEE,
        check=not_finite,
    ),
    Rule(
        id="F2",
        severity="error",
        title="A constant that is cast to float16 is within ±65504",
        fix="leave the layer in float32, or scale it",
        source=_IEEE,
        check=cast_overflows,
    ),
    Rule(
        id="F3",
        severity="warning",
        title="Constants are within ±65504 where the builder chooses the precision",
        fix="leave the layer in float32 by a precision constraint, or scale it",
        source=f"{_IEEE}; TensorRT developer guide, Reduced Precision",
        check=may_overflow,
    ),
    Rule(
        id="F4",
        severity="warning",
        title="Scales are normal numbers of their type",
        fix="quantize the layer per tensor, or leave it in float: its numbers are next to zero",
        source=f"{_IEEE}: a subnormal number has fewer digits, and may be flushed to zero",
        check=subnormal_scale,
    ),
)
