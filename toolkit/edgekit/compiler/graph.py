"""Reading an ONNX graph backwards: the few questions every pass asks of a float model.

edgekit's intermediate form is one float32 ONNX graph with one static input and one output, whatever the model came from. Passes are written
against onnx-ir, which edits a graph in place without protobuf's copies.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnx_ir as ir

# What turns logits into probabilities.
PROBABILITIES = ("Softmax", "Sigmoid")
# Operators that hand their input on unchanged at inference, up to its shape.
RESHAPING = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Dropout"})

_STORED = frozenset({"DequantizeLinear", "QuantizeLinear", "Transpose"}) | RESHAPING
_LIMITS = {"INT8": (-128, 127), "UINT8": (0, 255)}


def constant(value: ir.Value | None) -> NDArray[np.generic] | None:
    """The value of an initializer or Constant node as an array; None when it depends on the input."""
    if value is None:
        return None
    import onnx_ir as ir

    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else cast("NDArray[np.generic]", tensor.numpy())


def stored(value: ir.Value | None) -> NDArray[np.float64] | None:
    """A constant as float64, also one that is rounded or restored by QuantizeLinear and DequantizeLinear, or moved; None when it depends on the input."""
    found = constant(value)
    if found is not None:
        return np.asarray(found, dtype=np.float64)
    node = value.producer() if value is not None else None
    if node is None or node.op_type not in _STORED:
        return None
    first, *others = (stored(part) for part in node.inputs)
    if first is None or any(part is not None and found is None for part, found in zip(node.inputs[1:], others, strict=True)):
        return None
    if node.op_type == "Transpose":
        order = list(node.attributes["perm"].as_ints()) if "perm" in node.attributes else None
        return np.transpose(first, order)
    if node.op_type in RESHAPING:
        sizes = shape(value)
        return None if sizes is None else first.reshape(sizes)
    scale, zero = (_along(part, first.ndim, node) for part in (others[0], others[1] if len(others) > 1 else None))
    if node.op_type == "DequantizeLinear":
        return np.asarray((first - zero) * scale)
    limits = _LIMITS.get(str(value.dtype)) if value is not None else None
    # In float32, as whoever runs the graph divides: float64 would round other values up.
    divided = first.astype(np.float32) / np.asarray(scale, dtype=np.float32)
    return None if limits is None else np.clip(np.rint(divided) + zero, *limits).astype(np.float64)


def _along(part: NDArray[np.float64] | None, rank: int, node: ir.Node) -> NDArray[np.float64]:
    """A scale or zero point as it meets what is rounded."""
    if part is None:
        return np.zeros(())
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    return part.reshape([-1 if index == axis % rank else 1 for index in range(rank)]) if part.size > 1 else part.reshape(())


def shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The static shape of a value; None when it is unknown or dynamic."""
    if value is None or value.shape is None:
        return None
    sizes = tuple(value.shape)
    return cast("tuple[int, ...]", sizes) if all(isinstance(size, int) for size in sizes) else None


def skip_reshaping(value: ir.Value | None) -> ir.Value | None:
    """Walks up through operators that only change the shape."""
    while value is not None:
        node = value.producer()
        if node is None or node.op_type not in RESHAPING:
            return value
        value = node.inputs[0]
    return None


def final_probabilities(output: ir.Value) -> ir.Node | None:
    """The Softmax or Sigmoid that makes an output, up to its shape; None where there is none."""
    tail = skip_reshaping(output)
    node = tail.producer() if tail is not None else None
    return node if node is not None and node.op_type in PROBABILITIES else None


def free_name(graph: ir.Graph, name: str) -> None:
    """Renames the value that has a name edgekit gives to another one."""
    taken = {value.name for value in _values(graph)}
    for value in _values(graph):
        if value.name == name:
            value.name = next(other for other in (f"{name}_{index}" for index in range(len(taken) + 1)) if other not in taken)


def _values(graph: ir.Graph) -> list[ir.Value]:
    made = [value for node in graph for value in node.outputs]
    return [*graph.inputs, *graph.initializers.values(), *made]


def reduced_axes(node: ir.Node) -> tuple[int, ...] | None:
    """The axes a ReduceMean reduces, from its attribute (before opset 18) or its constant input; None when they are not constant."""
    attribute = node.attributes.get("axes")
    if attribute is not None:
        return tuple(int(axis) for axis in attribute.as_ints())
    axes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    return None if axes is None else tuple(int(axis) for axis in axes.ravel())


def insert_before_output(graph: ir.Graph, nodes: list[ir.Node], outputs: list[ir.Value]) -> None:
    """Appends nodes to the graph and makes `outputs` its outputs; what is no longer needed is removed by `tidy`."""
    for node in nodes:
        graph.append(node)
    graph.outputs.clear()
    graph.outputs.extend(outputs)


def tidy(model: ir.Model) -> None:
    """Removes nodes and initializers that no output needs."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(model)


def _untaken(graph: ir.Graph, name: str) -> str:
    taken = {value.name for node in graph for value in node.outputs if str(value.name).startswith(name)}
    names = itertools.chain([name], (f"{name}_{index}" for index in itertools.count(1)))
    return next(other for other in names if other not in graph.initializers and other not in taken)


def add_constant(graph: ir.Graph, name: str, array: NDArray[np.generic]) -> ir.Value:
    """Adds an initializer; where the name is taken already, under one like it."""
    import onnx_ir as ir

    name = _untaken(graph, name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(ir.DataType.from_numpy(array.dtype)))
    value.const_value = ir.tensor(array, name=name)
    graph.register_initializer(value)
    return value
