"""Types in the graph: float16 where TensorRT is to compute in it, float32 where it must not, with every change of type an operator.

From TensorRT 10 on a graph can say its types itself ("strongly typed"); from 11 on it has to. The builder then changes none.

Rules this file keeps:

1. float32 stay: the preamble, since frames reach 255 before they are normalized; the head of the map, so that logit = mean of the map + bias holds to float32
   rounding; softmax, normalization, sums, norms and what is nearly 0 or huge between two operators or inside one (TensorRT computes a norm as the root of a sum of
   squares): quotients, roots, powers, exponentials.
2. A node whose inputs or outputs come within a factor of two of float16's largest value on the calibration frames, or whose constants do, stays in float32. So does
   one with a constant that float16 rounds to 0: it is there to keep a divisor off 0. And so does a mean whose whole sum would come that near: nobody tells here in
   which type a device adds up. Sums on the way, of numbers that cancel, are not looked at.
3. Both sides of every operator have one type: a Cast stands where they differ. Scales have the type of what they scale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler import graph as g
from edgekit.compiler.explain.head import in_head
from edgekit.compiler.progress import Progress
from edgekit.compiler.quantize.qdq.run import GraphRunner

if TYPE_CHECKING:
    import onnx_ir as ir

LARGEST = 65504.0 / 2
"""Largest magnitude on the calibration frames that is left in float16; other frames have a factor of two."""

FRAMES = 32
_PREAMBLE = "preamble/"
_FLOAT32 = frozenset(
    {
        *(
            "GroupNormalization",
            "InstanceNormalization",
            "LayerNormalization",
            "LRN",
            "LpNormalization",
            "LpPool",
            "MeanVarianceNormalization",
        ),
        *("CumSum", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceProd", "ReduceSum", "ReduceSumSquare"),
        *("Div", "Exp", "Log", "LogSoftmax", "Pow", "Reciprocal", "Softmax", "Softplus", "Sqrt"),
        # Their type is an attribute, which stays as it is.
        *("ConstantOfShape", "EyeLike"),
    }
)
# A constant of these is added up with others: one that is too small for float16 is no divisor's guard.
_SUMMING = frozenset({"BatchNormalization", "Conv", "ConvTranspose", "DequantizeLinear", "Gemm", "MatMul", "QuantizeLinear"})
_MEANS = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean"})
# Inputs that ONNX wants in float32 whatever the others are.
_FIXED_INPUTS = {"Resize": frozenset({1, 2})}


def to_half(model: ir.Model, largest: Mapping[str, float]) -> int:
    """Gives the graph its types, in place.

    Args:
        model: float32, with or without roundings.
        largest: Largest magnitude of every float value on calibration frames, by the value's name (`largest_values` of the same graph).

    Returns:
        Number of nodes that stay in float32 because of rule 2.
    """
    import onnx_ir as ir

    kinds = {node: _kind(node, model) for node in model.graph}
    wide = [node for node, half in kinds.items() if half and _does_not_fit(node, largest)]
    for node in wide:
        kinds[node] = False
    kinds |= dict.fromkeys(_restored_twice(model, kinds), False)
    for node in kinds:
        # A rounding that float32 alone reads is restored in float32: between it and a layer may stand no Cast.
        if node.op_type == "DequantizeLinear" and not any(kinds[use.node] for use in node.outputs[0].uses()):
            kinds[node] = False
    cast = _Casts(model)
    for node in list(model.graph):
        kind = ir.DataType.FLOAT16 if kinds[node] else ir.DataType.FLOAT
        fixed = _FIXED_INPUTS.get(node.op_type, frozenset())
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16) and index not in fixed:
                node.replace_input_with(index, cast.to(value, kind, node))
        for value in node.outputs:
            if value.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16) and node.op_type != "Cast":
                value.type = ir.TensorType(kind)
    g.tidy(model)
    return len(wide)


def _restored_twice(model: ir.Model, kinds: Mapping[ir.Node, bool]) -> list[ir.Node]:
    """Gives the readers that stay in float32 a DequantizeLinear of their own where others compute in float16: between it and a layer may stand no Cast."""
    import onnx_ir as ir

    made = []
    for node in [node for node in model.graph if node.op_type == "DequantizeLinear"]:
        uses = list(node.outputs[0].uses())
        wide = [use for use in uses if not kinds[use.node]]
        if not 0 < len(wide) < len(uses):
            continue
        twin = ir.node("DequantizeLinear", list(node.inputs), dict(node.attributes), name=f"{node.name}/float")
        twin.outputs[0].name = f"{node.outputs[0].name}/float"
        twin.outputs[0].shape, twin.outputs[0].type = node.outputs[0].shape, node.outputs[0].type
        model.graph.insert_after(node, twin)
        for use in wide:
            use.node.replace_input_with(use.idx, twin.outputs[0])
        made.append(twin)
    return made


def largest_values(model: ir.Model, frames: NDArray[np.uint8], progress: Progress) -> dict[str, float]:
    """Largest magnitude of every float value of a float32 graph on frames, uint8 (frames, height, width, channels), by the value's name."""
    import onnx_ir as ir

    names = [
        str(value.name) for node in model.graph for value in node.outputs if value.dtype == ir.DataType.FLOAT and value.shape is not None
    ]
    runner = GraphRunner(model, names)
    found = dict.fromkeys(names, 0.0)
    for index in range(len(frames)):
        for name, value in zip(names, runner.run(np.ascontiguousarray(frames[index : index + 1])), strict=True):
            # numpy's, which hands NaN on; Python's would forget it.
            found[name] = float(np.maximum(found[name], np.abs(value).max(initial=0.0)))
        progress.step(index + 1, len(frames))
    return found


def _kind(node: ir.Node, model: ir.Model) -> bool:
    """Whether a node is to compute in float16 (rule 1)."""
    name = str(node.name)
    kept = name.startswith(_PREAMBLE) or in_head(node) or node.op_type in _FLOAT32 or node.op_type == "Cast"
    return not kept and not any(output in model.graph.outputs for output in node.outputs)


def _does_not_fit(node: ir.Node, largest: Mapping[str, float]) -> bool:
    if node.op_type in _MEANS and not _sum_fits(node, largest.get(str(node.outputs[0].name), 0.0)):
        return True
    for value in (*node.inputs, *node.outputs):
        if value is None:
            continue
        constant = g.constant(value)
        if constant is None:
            if not largest.get(str(value.name), 0.0) <= LARGEST:  # so that NaN is too large; what is not there is no float
                return True
        elif constant.dtype == np.float32 and not (float(np.abs(constant).max(initial=0.0)) <= LARGEST and not _vanishes(node, constant)):
            return True
    return False


def _sum_fits(node: ir.Node, mean: float) -> bool:
    """Whether what a mean is the mean of adds up to what float16 holds; not where the number of summands is unknown."""
    if node.op_type == "AveragePool":
        return bool(mean * math.prod(node.attributes["kernel_shape"].as_ints()) <= LARGEST)
    before, after = (g.shape(value) for value in (node.inputs[0], node.outputs[0]))
    return before is not None and after is not None and mean * (math.prod(before) // max(math.prod(after), 1)) <= LARGEST


def _vanishes(node: ir.Node, constant: NDArray[np.generic]) -> bool:
    """Whether float16 rounds all of a constant to 0 that is not 0. Weights of a layer have small ones among them, which add nothing."""
    small = np.asarray(constant, dtype=np.float32)
    return node.op_type not in _SUMMING and bool((small != 0).any()) and not bool(small.astype(np.float16).any())


class _Casts:
    """Values in another type, each made once."""

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._made: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def to(self, value: ir.Value, kind: ir.DataType, reader: ir.Node) -> ir.Value:
        if value.dtype == kind:
            return value
        found = self._made.get((value, kind))
        if found is None:
            found = self._made[value, kind] = self._make(value, kind, reader)
        return found

    def _make(self, value: ir.Value, kind: ir.DataType, reader: ir.Node) -> ir.Value:
        import onnx_ir as ir

        name = f"{value.name}/{'half' if kind == ir.DataType.FLOAT16 else 'float'}"
        constant = g.constant(value)
        if constant is not None:
            return g.add_constant(self._model.graph, name, np.asarray(constant).astype(kind.numpy()))
        node = ir.node("Cast", [value], {"to": int(kind)}, name=name)
        node.outputs[0].name = name
        node.outputs[0].shape = value.shape
        node.outputs[0].type = ir.TensorType(kind)
        self._model.graph.insert_before(reader, node)
        return node.outputs[0]
