"""Formulas on arrays, written once: what is known at compile time is computed now, what depends on the frame becomes nodes.

An operand is a numpy array or a value of the graph. The reverse pass over a head is written in these few operations, so a head whose gradient does not depend
on the frame folds into constants by itself, and any other becomes the nodes that compute it.

Rules this file keeps:

1. Constants are computed in float64 and rounded to float32 once, where a node reads them.
2. Shapes are static and known for every value that is made.
3. Nothing enters the graph before `emit`: a head that turns out to have no map leaves the graph as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler import graph as g
from edgekit.compiler.explain.head import PREFIX, UnknownHeadError

if TYPE_CHECKING:
    import onnx_ir as ir

Operand = Union["NDArray[np.float64]", "ir.Value"]
Shape = tuple[int, ...]

_OLD_AXES = {"ReduceSum": 13}
"""Reductions that take their axes as an input from an earlier opset than 18 on."""


class Algebra:
    """Collects the nodes of a head."""

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._opset = model.opset_imports[""]
        self._nodes: list[ir.Node] = []
        self._constants: list[ir.Value] = []
        self.multiplications = 0

    def emit(self) -> list[ir.Node]:
        """Registers the constants and hands over the nodes, in order; the caller puts them into the graph."""
        for value in self._constants:
            self._model.graph.register_initializer(value)
        return self._nodes

    def add(self, a: Operand, b: Operand) -> Operand:
        return self._pair("Add", np.add, a, b)

    def subtract(self, a: Operand, b: Operand) -> Operand:
        return self._pair("Sub", np.subtract, a, b)

    def multiply(self, a: Operand, b: Operand) -> Operand:
        return self._pair("Mul", np.multiply, a, b)

    def divide(self, a: Operand, b: Operand) -> Operand:
        return self._pair("Div", np.divide, a, b)

    def power(self, a: Operand, exponent: float) -> Operand:
        return self._pair("Pow", np.power, a, np.array(exponent))

    def at_least(self, a: Operand, least: float) -> Operand:
        return self._pair("Max", np.maximum, a, np.array(least))

    def matmul(self, a: Operand, b: Operand) -> Operand:
        """The product of matrices, or of stacks of them."""
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            return np.asarray(a @ b)
        first, second = shape_of(a), shape_of(b)
        if any(isinstance(part, np.ndarray) and not part.any() for part in (a, b)):
            return np.zeros((*np.broadcast_shapes(first[:-2], second[:-2]), first[-2], second[-1]))
        made = (*np.broadcast_shapes(first[:-2], second[:-2]), first[-2], second[-1])
        self.multiplications += math.prod(made) * first[-1]
        return self._node("MatMul", [a, b], made)

    def pointwise(self, features: ir.Value, kernel: NDArray[np.float64]) -> Operand:
        """A 1 × 1 convolution: features (1, channels, rows, columns), kernel (outputs, channels)."""
        _, channels, rows, columns = shape_of(features)
        self.multiplications += kernel.size * rows * columns
        made = (1, len(kernel), rows, columns)
        return self._node("Conv", [features, kernel.reshape(-1, channels, 1, 1)], made, kernel_shape=[1, 1])

    def unary(self, kind: str, function: Callable[[NDArray[np.float64]], NDArray[np.float64]], a: Operand) -> Operand:
        """An operator on each element, by its name in ONNX and as numpy computes it."""
        return function(a) if isinstance(a, np.ndarray) else self._node(kind, [a], shape_of(a))

    def square_root(self, a: Operand) -> Operand:
        return self.unary("Sqrt", np.sqrt, a)

    def exponential(self, a: Operand) -> Operand:
        return self.unary("Exp", np.exp, a)

    def sigmoid(self, a: Operand) -> Operand:
        return self.unary("Sigmoid", lambda x: 1 / (1 + np.exp(-x)), a)

    def error_function(self, a: ir.Value | Operand) -> Operand:
        return self.unary("Erf", np.vectorize(math.erf), a)

    def tanh(self, a: Operand) -> Operand:
        return self.unary("Tanh", np.tanh, a)

    def softmax(self, a: Operand) -> Operand:
        """Over the last axis."""
        if isinstance(a, np.ndarray):
            raised = np.exp(a - a.max(axis=-1, keepdims=True))
            return np.asarray(raised / raised.sum(axis=-1, keepdims=True))
        return self._node("Softmax", [a], shape_of(a), axis=-1)

    def above(self, a: Operand, threshold: Operand) -> Operand:
        """1 where a is above a threshold, 0 elsewhere."""
        return self._mask("Greater", np.greater, a, threshold)

    def equal(self, a: Operand, b: Operand) -> Operand:
        """1 where a and b are the same, 0 elsewhere."""
        return self._mask("Equal", np.equal, a, b)

    def mean(self, a: Operand, axes: Sequence[int], *, keep: bool = True) -> Operand:
        return self._reduce("ReduceMean", np.mean, a, axes, keep=keep)

    def largest(self, a: Operand, axes: Sequence[int]) -> Operand:
        return self._reduce("ReduceMax", np.max, a, axes, keep=True)

    def sum(self, a: Operand, axes: Sequence[int], *, keep: bool = True) -> Operand:
        return self._reduce("ReduceSum", np.sum, a, axes, keep=keep)

    def reshape(self, a: Operand, sizes: Sequence[int]) -> Operand:
        sizes = tuple(sizes)
        if isinstance(a, np.ndarray):
            return a.reshape(sizes)
        return a if shape_of(a) == sizes else self._node("Reshape", [a, _integers(sizes)], sizes)

    def transpose(self, a: Operand, order: Sequence[int]) -> Operand:
        if isinstance(a, np.ndarray):
            return a.transpose(order)
        if list(order) == list(range(len(order))):
            return a
        return self._node("Transpose", [a], tuple(shape_of(a)[axis] for axis in order), perm=list(order))

    def turn(self, a: Operand) -> Operand:
        """The transposed matrix, or stack of them."""
        rank = len(shape_of(a))
        return self.transpose(a, [*range(rank - 2), rank - 1, rank - 2])

    def part(self, a: Operand, axis: int, start: int, stop: int) -> Operand:
        """A run of indices of an axis, which stays."""
        if isinstance(a, np.ndarray):
            return a.take(range(start, stop), axis)
        sizes = list(shape_of(a))
        if (start, stop) == (0, sizes[axis]):
            return a
        sizes[axis] = stop - start
        return self._node("Slice", [a, _integers([start]), _integers([stop]), _integers([axis])], tuple(sizes))

    def join(self, parts: Sequence[Operand], axis: int) -> Operand:
        """Operands one behind the other along an axis."""
        if all(isinstance(part, np.ndarray) for part in parts):
            return np.concatenate(parts, axis)
        sizes = list(shape_of(parts[0]))
        sizes[axis] = sum(shape_of(part)[axis] for part in parts)
        return self._node("Concat", parts, tuple(sizes), axis=axis)

    def copy(self, node: ir.Node, operands: Sequence[Any], batch: int) -> list[ir.Value]:
        """A node once more, on other operands (None for one that is left out), whose results have another size of their first axis."""
        import onnx_ir as ir

        inputs = [None if operand is None else self._value(operand) for operand in operands]
        name = f"{PREFIX}copy_{len(self._nodes)}"  # the node itself may have no name
        made = ir.node(node.op_type, inputs, dict(node.attributes), name=name, domain=node.domain, num_outputs=len(node.outputs))
        for index, (value, like) in enumerate(zip(made.outputs, node.outputs, strict=True)):
            value.name = f"{name}/{index}"
            value.shape, value.type = ir.Shape((batch, *shape_of(like)[1:])), like.type
        self._nodes.append(made)
        return list(made.outputs)

    def _pair(self, kind: str, function: Any, a: Operand, b: Operand) -> Operand:
        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            return np.asarray(function(a, b))
        if kind in ("Add", "Sub") and isinstance(b, np.ndarray) and not b.any() and _fits(a, b):
            return a
        if kind == "Add" and isinstance(a, np.ndarray) and not a.any() and _fits(b, a):
            return b
        if kind in ("Mul", "Div") and isinstance(b, np.ndarray) and (b == 1).all() and _fits(a, b):
            return a
        if kind == "Mul" and any(isinstance(part, np.ndarray) and not part.any() for part in (a, b)):
            return np.zeros(np.broadcast_shapes(shape_of(a), shape_of(b)))
        return self._node(kind, [a, b], np.broadcast_shapes(shape_of(a), shape_of(b)))

    def _mask(self, kind: str, function: Any, a: Operand, b: Operand) -> Operand:
        import onnx_ir as ir

        if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
            return np.asarray(function(a, b), dtype=np.float64)
        sizes = np.broadcast_shapes(shape_of(a), shape_of(b))
        asked = self._node(kind, [a, b], sizes, kind_of_value=ir.DataType.BOOL)
        return self._node("Cast", [asked], sizes, to=int(ir.DataType.FLOAT))

    def _reduce(self, kind: str, function: Any, a: Operand, axes: Sequence[int], *, keep: bool) -> Operand:
        axes = sorted(axis % len(shape_of(a)) for axis in axes)
        if isinstance(a, np.ndarray):
            return np.asarray(function(a, axis=tuple(axes), keepdims=keep))
        sizes = shape_of(a)
        left = tuple(1 if axis in axes else size for axis, size in enumerate(sizes) if keep or axis not in axes)
        if self._opset >= _OLD_AXES.get(kind, 18):
            return self._node(kind, [a, _integers(axes)], left, keepdims=int(keep))
        return self._node(kind, [a], left, axes=list(axes), keepdims=int(keep))

    def _node(self, kind: str, operands: Sequence[Operand | NDArray[np.int64]], sizes: Shape, **attributes: Any) -> ir.Value:
        import onnx_ir as ir

        element = attributes.pop("kind_of_value", ir.DataType.FLOAT)
        inputs = [self._value(operand) for operand in operands]
        made = ir.node(kind, inputs, attributes, name=f"{PREFIX}{kind.lower()}_{len(self._nodes)}")
        value = made.outputs[0]
        value.name, value.shape, value.type = made.name, ir.Shape(sizes), ir.TensorType(element)
        self._nodes.append(made)
        return value

    def _value(self, operand: Operand | NDArray[np.int64]) -> ir.Value:
        import onnx_ir as ir

        if not isinstance(operand, np.ndarray):
            return operand
        array = operand if operand.dtype == np.int64 else operand.astype(np.float32)
        name = f"{PREFIX}constant_{len(self._constants)}"
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(ir.DataType.from_numpy(array.dtype)))
        value.const_value = ir.tensor(np.asarray(array, order="C"), name=name)
        self._constants.append(value)
        return value


def shape_of(operand: Operand) -> Shape:
    """The static shape of an operand.

    Raises:
        UnknownHeadError: It has none.
    """
    if isinstance(operand, np.ndarray):
        return operand.shape
    sizes = g.shape(operand)
    if sizes is None:
        raise UnknownHeadError(f"{operand.name} has no static shape")
    return sizes


def _fits(a: Operand, zeros: NDArray[np.float64]) -> bool:
    return np.broadcast_shapes(shape_of(a), zeros.shape) == shape_of(a)


def _integers(values: Sequence[int]) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)
