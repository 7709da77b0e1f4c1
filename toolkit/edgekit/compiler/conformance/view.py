"""An ONNX graph as the rules look at it: who makes a tensor, who reads it, what is constant, and of which type.

Rules this file keeps:

1. Nothing is changed: the model that was checked is the model that is shipped.
2. Types and shapes are ONNX's own inference; what it does not know is unknown (type 0, shape None), and no rule is broken by it.
3. A value is constant when it is an initializer, a Constant, or what operators that convert, move or calculate element by element make of nothing but these.
   TensorRT folds those.
4. A walk is bounded, so that a graph with a circle ends too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler.load.torch_model import first_line
from edgekit.errors import ModelError

STANDARD_DOMAINS = ("", "ai.onnx")
_LONGEST_WALK = 32
_CONVERTING = ("Cast", "Identity")
_CALCULATING = ("Abs", "Add", "Div", "Exp", "Log", "Mul", "Neg", "Pow", "Reciprocal", "Sqrt", "Sub")
_FOLDED = frozenset((*_CONVERTING, *_CALCULATING, "Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"))


class GraphView:
    """One model, indexed.

    Attributes:
        model: The ONNX `ModelProto`.
        opset: Version of the standard operators; 0 where the model names none.
        nodes: Of the main graph, in its order.
        inputs: The graph's inputs that no initializer fills.
        outputs: Names of the graph's outputs.
        initializers: By name.

    Raises:
        ModelError: ONNX cannot infer the graph's types at all.
    """

    def __init__(self, model: Any) -> None:
        graph = model.graph
        self.model = model
        self.opset = max((entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS), default=0)
        self.nodes: tuple[Any, ...] = tuple(graph.node)
        self.initializers: Mapping[str, Any] = {tensor.name: tensor for tensor in graph.initializer}
        self.inputs: tuple[Any, ...] = tuple(value for value in graph.input if value.name not in self.initializers)
        self.outputs = tuple(value.name for value in graph.output)
        self._producers = {name: node for node in self.nodes for name in node.output if name}
        self._consumers: dict[str, list[tuple[Any, int]]] = {}
        for node in self.nodes:
            for index, name in enumerate(node.input):
                self._consumers.setdefault(name, []).append((node, index))
        self._types = _inferred(model)
        self._constants: dict[str, NDArray[Any] | None] = {}

    def every_node(self) -> Iterator[Any]:
        """Every node, those in bodies of control flow too."""
        stack = [self.model.graph]
        while stack:
            for node in stack.pop().node:
                yield node
                for attribute in node.attribute:
                    stack.extend(attribute.graphs)
                    if attribute.HasField("g"):
                        stack.append(attribute.g)

    def producer(self, name: str) -> Any:
        """The node that makes a tensor; None for inputs and initializers."""
        return self._producers.get(name)

    def consumers(self, name: str) -> tuple[tuple[Any, int], ...]:
        """The nodes that read a tensor, each with the number of the input it reads it by."""
        return tuple(self._consumers.get(name, ()))

    def dtype(self, name: str) -> int:
        """`TensorProto.DataType` of a tensor; 0 where it is unknown."""
        return self._types.get(name, (0, None))[0]

    def shape(self, name: str) -> tuple[int | None, ...] | None:
        """The shape of a tensor, None for a dimension that is not static; None where not even the rank is known."""
        return self._types.get(name, (0, None))[1]

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is known when the engine is built."""
        left, known = [name], set[str]()
        for _ in range(_LONGEST_WALK):
            if not left:
                return True
            tensor = left.pop()
            node = self.producer(tensor)
            if node is None:
                if tensor not in self.initializers:
                    return False
            elif node.op_type in _FOLDED:
                found = {item for item in node.input if item} - known
                left += found
                known |= found
            elif node.op_type != "Constant":
                return False
        return False

    def constant(self, name: str) -> NDArray[Any] | None:
        """The value of a constant, converted as the Casts behind it say; None where it is not constant, or not in the file."""
        if name not in self._constants:
            self._constants[name] = self._constant(name)
        return self._constants[name]

    def _constant(self, name: str) -> NDArray[Any] | None:
        casts: list[int] = []
        for _ in range(_LONGEST_WALK):
            node = self.producer(name)
            if node is None:
                return _cast(_array(self.initializers.get(name)), casts)
            if node.op_type == "Constant":
                return _cast(_constant_value(node), casts)
            if node.op_type not in _CONVERTING or not node.input:
                return None
            if node.op_type == "Cast":
                casts.append(int(attribute(node, "to", 0)))
            name = node.input[0]
        return None


def attribute(node: Any, name: str, default: Any) -> Any:
    """The value of a node's attribute."""
    import onnx

    found = next((item for item in node.attribute if item.name == name), None)
    return default if found is None else onnx.helper.get_attribute_value(found)


def label(node: Any) -> str:
    """What a message calls a node: its name, or else what it makes."""
    return str(node.name or next((name for name in node.output if name), node.op_type))


def type_name(dtype: int) -> str:
    """`FLOAT16` for 10; the number itself where ONNX has no such type."""
    import onnx

    known = {number: name for name, number in onnx.TensorProto.DataType.items()}
    return str(known.get(dtype, f"type {dtype}"))


def _inferred(model: Any) -> dict[str, tuple[int, tuple[int | None, ...] | None]]:
    import onnx

    try:
        graph = onnx.shape_inference.infer_shapes(model, strict_mode=False, data_prop=True).graph
    except Exception as error:  # onnx raises kinds of its own, protobuf others
        raise ModelError(f"the types of the graph do not fit: {first_line(error)}", hint="onnx.checker.check_model tells more") from error
    found: dict[str, tuple[int, tuple[int | None, ...] | None]] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        sizes = tuple(size.dim_value if size.HasField("dim_value") else None for size in tensor.shape.dim)
        found[value.name] = (tensor.elem_type, sizes if tensor.HasField("shape") else None)
    for tensor in graph.initializer:
        found[tensor.name] = (tensor.data_type, tuple(tensor.dims))
    return found


def _array(tensor: Any) -> NDArray[Any] | None:
    import onnx

    if tensor is None or tensor.data_location == onnx.TensorProto.EXTERNAL:
        return None
    try:
        return np.asarray(onnx.numpy_helper.to_array(tensor))
    except (TypeError, ValueError) as error:
        raise ModelError(f"the constant {tensor.name[:80]!r} is damaged: {first_line(error)}") from error


def _constant_value(node: Any) -> NDArray[Any] | None:
    for item in node.attribute:
        if item.name == "value":
            return _array(item.t)
        if item.name in {"value_float", "value_floats"}:
            return np.asarray(attribute(node, item.name, None), dtype=np.float32)
        if item.name in {"value_int", "value_ints"}:
            return np.asarray(attribute(node, item.name, None), dtype=np.int64)
    return None


def _cast(value: NDArray[Any] | None, casts: list[int]) -> NDArray[Any] | None:
    import onnx

    for dtype in reversed(casts):
        if value is None or dtype not in onnx.helper.get_all_tensor_dtypes():
            return None
        # What overflows becomes infinite, and that is for the rules to see.
        with np.errstate(over="ignore", invalid="ignore"):
            value = np.asarray(value).astype(onnx.helper.tensor_dtype_to_np_dtype(dtype))
    return value
