"""A graph that was trained with its roundings is a float graph and their scales; taken apart so, it can be written in any dialect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler import graph as g
from edgekit.compiler.quantize.qdq.ranges import Scale, half_up
from edgekit.errors import ModelError

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedScales:
    """What a training has found.

    Attributes:
        values: How a value is rounded, by its name.
        weights: float64 (output channels,), by the layer's name.
    """

    values: Mapping[str, Scale]
    weights: Mapping[str, NDArray[np.float64]]


def take_apart(model: ir.Model) -> TrainedScales:
    """Takes the QuantizeLinear/DequantizeLinear pairs out of a graph, in place; weights keep the values they were rounded to.

    Raises:
        ModelError: A pair is not one that the training writes.
    """
    values: dict[str, Scale] = {}
    weights: dict[str, NDArray[np.float64]] = {}
    for node in list(model.graph):
        if node.op_type != "QuantizeLinear":
            continue
        source, step, zero = node.inputs[0], g.constant(node.inputs[1]), g.constant(node.inputs[2])
        readers = [use.node for use in node.outputs[0].uses()]
        if source is None or step is None or zero is None or len(readers) != 1 or readers[0].op_type != "DequantizeLinear":
            raise ModelError(f"{node.name} is no rounding that the training writes", hint="please report the architecture")
        restored = readers[0].outputs[0]
        constant = g.constant(source)
        if constant is None:
            values[str(source.name)] = Scale(scale=float(step), zero_point=int(zero), unsigned=zero.dtype == np.uint8)
            for use in list(restored.uses()):
                use.node.replace_input_with(use.idx, source)
            continue
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
        rounded = _rounded(np.asarray(constant, dtype=np.float64), np.asarray(step, dtype=np.float64), axis)
        for layer, index, weight in list(_layers(restored, rounded.astype(np.float32))):
            layer.replace_input_with(index, g.add_constant(model.graph, f"{source.name}/trained", weight))
            weights[str(layer.name)] = np.atleast_1d(np.asarray(step, dtype=np.float64))
    g.tidy(model)
    return TrainedScales(values=values, weights=weights)


def _layers(value: ir.Value, weight: NDArray[np.float32]) -> Iterator[tuple[ir.Node, int, NDArray[np.float32]]]:
    """Who reads a weight, as which input, and as it is read: the exporter turns the matrix of a linear layer behind its rounding."""
    for use in value.uses():
        if use.node.op_type == "Transpose":
            yield from _layers(use.node.outputs[0], weight.transpose(use.node.attributes["perm"].as_ints()))
        else:
            yield use.node, use.idx, weight


def in_dialect(scale: Scale, *, unsigned: bool, half: bool) -> Scale:
    """The same range in another dialect's integers; int8 for what was trained as uint8 from 0 on has steps twice as wide."""
    if unsigned:
        return scale if scale.unsigned else Scale(scale=scale.scale, zero_point=128, unsigned=True)
    step = scale.scale * max(scale.zero_point, 255 - scale.zero_point) / 127 if scale.unsigned else scale.scale
    return Scale(scale=float(half_up(np.array([step]))[0]) if half else float(np.float32(step)))


def _rounded(weight: NDArray[np.float64], scale: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    spread = [1] * weight.ndim
    if scale.ndim:
        spread[axis] = -1
    step = scale.reshape(spread)
    found: NDArray[np.float64] = np.clip(np.rint(weight / step), -128, 127) * step
    return found
