"""Rewrites a graph for an older ONNX opset, operator by operator.

edgekit exports in one opset; what an older TensorRT reads is older. Only what is known to mean the same is rewritten, everything else that changed in between is
refused by name.

Rules this file keeps:

1. An operator whose meaning did not change between the two opsets, in the form it has here, is left alone.
2. The rewritten graph is checked by ONNX's own checker at the older opset, by whoever writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgekit.compiler import graph as g
from edgekit.errors import ModelError

if TYPE_CHECKING:
    import onnx_ir as ir


def lower(model: ir.Model, opset: int, *, without: Collection[str] = ()) -> None:
    """Takes a float32 graph to an older opset, in place.

    Args:
        model: Of a newer opset, or the same.
        opset: The older one.
        without: Operators that are rewritten although the opset has them.

    Raises:
        ModelError: An operator has no known form there.
    """
    present = model.opset_imports[""]
    model.opset_imports[""] = min(opset, present)
    for node in list(model.graph):
        since, rewrite = _CHANGES.get(node.op_type, (0, None))
        if rewrite is not None and (opset < since <= present or node.op_type in without):
            rewrite(model, node)
        newest = _INTRODUCED.get(node.op_type, 0)
        if newest > opset and node.graph is not None:
            raise ModelError(
                f"the operator {node.op_type} ({node.name}) needs opset {newest}, the target reads {opset}",
                hint="choose a target with a newer TensorRT",
            )
    g.tidy(model)


def _axes_attribute(_: ir.Model, node: ir.Node) -> None:
    """ReduceMean and its like: the axes were an attribute before opset 18."""
    import onnx_ir as ir

    axes = g.reduced_axes(node)
    if len(node.inputs) > 1 and node.inputs[1] is not None and axes is None:
        raise _refused(node, "its axes are not constant")
    idle = node.attributes.pop("noop_with_empty_axes", None)
    if not axes and idle is not None and idle.as_int():
        raise _refused(node, "it reduces nothing")
    node.resize_inputs(1)
    if axes:
        node.attributes["axes"] = ir.AttrInt64s("axes", list(axes))


class _Chain:
    """Operators that replace one, each named after it."""

    def __init__(self, model: ir.Model, node: ir.Node) -> None:
        self.nodes: list[ir.Node] = []
        self._graph = model.graph
        self._node = node

    def number(self, label: str, content: float) -> ir.Value:
        return g.add_constant(self._graph, f"{self._node.name}/{label}", np.array(content, dtype=np.float32))

    def apply(self, kind: str, *values: ir.Value | None, shape: ir.Shape | None = None, **attributes: object) -> ir.Value:
        import onnx_ir as ir

        made = ir.node(kind, list(values), attributes, name=f"{self._node.name}/{kind.lower()}_{len(self.nodes)}")
        like = self._node.outputs[0]
        made.outputs[0].name = made.name
        made.outputs[0].shape, made.outputs[0].type = shape or like.shape, like.type
        self.nodes.append(made)
        return made.outputs[0]

    def replace(self, result: ir.Value) -> None:
        for use in list(self._node.outputs[0].uses()):
            use.node.replace_input_with(use.idx, result)
        self._graph.insert_after(self._node, self.nodes)
        self._graph.remove(self._node, safe=True)


def _gelu(model: ir.Model, node: ir.Node) -> None:
    """The input times Φ of it (Hendrycks & Gimpel 2016), exactly or by its tanh approximation, as ONNX defines it."""
    chain, value = _Chain(model, node), node.inputs[0]
    if "approximate" in node.attributes and node.attributes["approximate"].as_string() == "tanh":
        cube = chain.apply("Mul", chain.apply("Mul", value, value), value)
        inner = chain.apply("Add", value, chain.apply("Mul", cube, chain.number("cubic", 0.044715)))
        share = chain.apply("Tanh", chain.apply("Mul", inner, chain.number("root", float(np.sqrt(2 / np.pi)))))
    else:
        share = chain.apply("Erf", chain.apply("Mul", value, chain.number("root", float(np.sqrt(0.5)))))
    halved = chain.apply("Mul", value, chain.number("half", 0.5))
    chain.replace(chain.apply("Mul", halved, chain.apply("Add", share, chain.number("one", 1.0))))


def _layer_norm(model: ir.Model, node: ir.Node) -> None:
    """Mean and variance over the last axes (Ba et al. 2016), written out."""
    import onnx_ir as ir

    value, sizes = node.inputs[0], g.shape(node.inputs[0])
    if sizes is None or len([output for output in node.outputs if list(output.uses())]) > 1:
        raise _refused(node, "its shape is not static, or its mean is read")
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
    axes = list(range(axis % len(sizes), len(sizes)))
    reduced = ir.Shape([1 if index in axes else size for index, size in enumerate(sizes)])
    chain = _Chain(model, node)

    def mean(of: ir.Value | None) -> ir.Value:
        if model.opset_imports[""] >= 18:
            constant = g.add_constant(model.graph, f"{node.name}/axes_{len(chain.nodes)}", np.array(axes, dtype=np.int64))
            return chain.apply("ReduceMean", of, constant, shape=reduced, keepdims=1)
        return chain.apply("ReduceMean", of, shape=reduced, axes=axes, keepdims=1)

    epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
    centred = chain.apply("Sub", value, mean(value))
    variance = chain.apply("Add", mean(chain.apply("Mul", centred, centred)), chain.number("epsilon", epsilon), shape=reduced)
    result = chain.apply("Div", centred, chain.apply("Sqrt", variance, shape=reduced))
    for kind, constant in zip(("Mul", "Add"), node.inputs[1:], strict=False):
        result = result if constant is None else chain.apply(kind, result, constant)
    chain.replace(result)


def _split(model: ir.Model, node: ir.Node) -> None:
    """Split: `num_outputs` came with opset 18; the sizes are written out instead."""
    if "num_outputs" not in node.attributes:
        return
    count = node.attributes["num_outputs"].as_int()
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    sizes = g.shape(node.inputs[0])
    if sizes is None:
        raise _refused(node, "its input has no static shape")
    part = -(-sizes[axis] // count)
    lengths = [part] * (count - 1) + [sizes[axis] - part * (count - 1)]
    value = g.add_constant(model.graph, f"{node.name}/sizes", np.array(lengths, dtype=np.int64))
    node.resize_inputs(2)
    node.replace_input_with(1, value)
    del node.attributes["num_outputs"]


def _pad(_: ir.Model, node: ir.Node) -> None:
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        raise _refused(node, "it names its axes")


def _resize(_: ir.Model, node: ir.Node) -> None:
    # What only says its default says nothing.
    if "antialias" in node.attributes and not node.attributes["antialias"].as_int():
        del node.attributes["antialias"]
    if "keep_aspect_ratio_policy" in node.attributes and node.attributes["keep_aspect_ratio_policy"].as_string() == "stretch":
        del node.attributes["keep_aspect_ratio_policy"]
    new = {"antialias", "axes", "keep_aspect_ratio_policy"} & set(node.attributes)
    if new:
        raise _refused(node, f"it uses {', '.join(sorted(new))}")


def _grid_sample(_: ir.Model, node: ir.Node) -> None:
    """GridSample: "bilinear" became "linear" with opset 20, which also takes volumes."""
    import onnx_ir as ir

    if len(g.shape(node.inputs[0]) or ()) != 4:
        raise _refused(node, "its input is no map")
    if "mode" in node.attributes and node.attributes["mode"].as_string() in ("linear", "cubic"):
        node.attributes["mode"] = ir.AttrString("mode", f"bi{node.attributes['mode'].as_string()}")


def _pool(_: ir.Model, node: ir.Node) -> None:
    if "dilations" in node.attributes and any(size != 1 for size in node.attributes["dilations"].as_ints()):
        raise _refused(node, "it is dilated")
    if "dilations" in node.attributes:
        del node.attributes["dilations"]


def _refused(node: ir.Node, why: str) -> ModelError:
    return ModelError(
        f"the operator {node.op_type} ({node.name}) cannot be written for an older opset: {why}",
        hint="choose a target with a newer TensorRT",
    )


_Rewrite = Callable[["ir.Model", "ir.Node"], None]
_CHANGES: Mapping[str, tuple[int, _Rewrite]] = {
    "AveragePool": (19, _pool),
    "Gelu": (20, _gelu),
    "GridSample": (20, _grid_sample),
    "LayerNormalization": (17, _layer_norm),
    "Pad": (18, _pad),
    "ReduceL1": (18, _axes_attribute),
    "ReduceL2": (18, _axes_attribute),
    "ReduceLogSum": (18, _axes_attribute),
    "ReduceLogSumExp": (18, _axes_attribute),
    "ReduceMax": (18, _axes_attribute),
    "ReduceMean": (18, _axes_attribute),
    "ReduceMin": (18, _axes_attribute),
    "ReduceProd": (18, _axes_attribute),
    "ReduceSumSquare": (18, _axes_attribute),
    "Resize": (18, _resize),
    "Split": (18, _split),
}
"""Operator to the opset in which its form changed, and what undoes that."""

_INTRODUCED: Mapping[str, int] = {
    "AffineGrid": 20,
    "Col2Im": 18,
    "DeformConv": 19,
    "Gelu": 20,
    "GroupNormalization": 21,
    "HardSwish": 14,
    "LayerNormalization": 17,
    "Mish": 18,
    "OptionalGetElement": 18,
    "RMSNormalization": 23,
    "Swish": 24,
}
"""Operator to the first opset that has it in the form that edgekit's exporter writes."""
