"""Biases that take back the mean error of rounding.

Rules this file keeps:

1. Layer by layer in the graph's order, each with the layers before it already rounded and corrected (Nagel et al. 2019, section 4.2, empirical form).
2. What is compared is what the layer gives, with its bias; the shift is the mean over frames and positions of a channel.
3. A layer without a bias gets one; the bias of a MatMul is the constant of the Add behind it, and where there is none the layer is left as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler import graph as g
from edgekit.compiler.progress import Progress
from edgekit.compiler.quantize.qdq.run import open_session, zeros

if TYPE_CHECKING:
    import onnx_ir as ir

FRAMES = 32
"""Frames of the correction; what they make is in memory at once."""

Values = list[NDArray[Any]]


def correct_biases(exact: ir.Model, rounded: ir.Model, layers: tuple[str, ...], frames: NDArray[np.uint8], progress: Progress) -> None:
    """Makes the mean of every channel that a layer gives what it is without rounding, in the rounded graph.

    Args:
        exact: The explained float graph.
        rounded: The same with roundings; its nodes and values keep their names.
        layers: Names of the layers.
        frames: uint8 (frames, height, width, channels).
        progress: Told of every layer.
    """
    walks = _Walk(exact, frames), _Walk(rounded, frames)
    nodes = {node.name: node for node in rounded.graph}
    places = {_bias_place(nodes[name]): nodes[name] for name in layers if name in nodes}
    done = 0
    for node in exact.graph:
        found = [walk.until(str(node.name)) for walk in walks]
        layer = places.get(str(node.name))
        if layer is None:
            continue
        before, after = found
        # The channels of a convolution are the second axis; those of a linear layer the last, also where it reads (1, rows, columns, channels).
        image = layer.op_type in ("Conv", "ConvTranspose")
        axes = (0, 2, 3) if image else tuple(range(before[0].ndim - 1))
        shift = np.mean([(one.astype(np.float64) - other).mean(axis=axes) for one, other in zip(before, after, strict=True)], axis=0)
        add_to_bias(rounded, nodes[str(node.name)], shift.astype(np.float32))
        moved = shift.astype(np.float32)[:, None, None] if image else shift.astype(np.float32)
        walks[1].replace(nodes[str(node.name)], [value + moved for value in after])
        done += 1
        progress.step(done, len(places))


def _bias_place(layer: ir.Node) -> str:
    """Name of the node whose constant is the layer's bias; empty where there is none."""
    if layer.op_type != "MatMul":
        return str(layer.name)
    uses = list(layer.outputs[0].uses())
    if len(uses) != 1 or uses[0].node.op_type != "Add":
        return ""
    other = g.constant(uses[0].node.inputs[1 - uses[0].idx])
    return str(uses[0].node.name) if other is not None and other.size == max(other.shape, default=1) else ""


def add_to_bias(model: ir.Model, node: ir.Node, shift: NDArray[np.float32]) -> None:
    """Adds to the bias of a convolution or linear layer, or to the constant of an Add, in place."""
    constants = (index for index, value in enumerate(node.inputs) if g.constant(value) is not None)
    index = next(constants) if node.op_type == "Add" else 2
    bias = g.constant(node.inputs[index]) if len(node.inputs) > index else None
    new = shift if bias is None else (np.asarray(bias, dtype=np.float32) + shift).astype(np.float32)
    value = g.add_constant(model.graph, f"{node.name}/bias", new)
    if len(node.inputs) > index:
        node.replace_input_with(index, value)
    else:
        node.resize_inputs(index + 1)
        node.replace_input_with(index, value)


class _Walk:
    """Runs a graph node by node on all frames, and forgets what nobody reads any more."""

    def __init__(self, model: ir.Model, frames: NDArray[np.uint8]) -> None:
        self._frames = [np.ascontiguousarray(frame[None]) for frame in frames]
        self._values: dict[ir.Value, Values] = {
            model.graph.inputs[0]: list(self._frames),
            **{state: [zeros(state)] for state in model.graph.inputs[1:]},
        }
        self._left = {value: len(list(value.uses())) for node in model.graph for value in node.outputs}
        self._nodes = iter(list(model.graph))

    def until(self, name: str) -> Values:
        """Runs up to a node, and gives its first output on every frame."""
        for node in self._nodes:
            values = self._run(node)
            if node.name == name:
                return values
        raise ValueError(f"there is no node {name} left")

    def replace(self, node: ir.Node, values: Values) -> None:
        """Sets what a node that has just run gave."""
        self._values[node.outputs[0]] = values

    def _run(self, node: ir.Node) -> Values:
        reads = [value for value in node.inputs if value is not None]
        varying = list(dict.fromkeys(value for value in reads if value in self._values))
        session = open_session(_alone(node, varying, self._values), optimize=False)
        names = [value.name for value in node.outputs]
        frames = range(len(self._frames) if varying and any(len(self._values[value]) > 1 for value in varying) else 1)
        results = [session.run(names, {str(value.name): self._of_frame(value, frame) for value in varying}) for frame in frames]
        for index, value in enumerate(node.outputs):
            self._values[value] = [result[index] for result in results]
        for value in dict.fromkeys(reads):
            if value in self._left:
                self._left[value] -= sum(other is value for other in reads)
                if not self._left[value]:
                    del self._values[value]
        first = [result[0] for result in results]
        return first if len(first) == len(self._frames) else first * len(self._frames)

    def _of_frame(self, value: ir.Value, frame: int) -> NDArray[Any]:
        held = self._values[value]
        return held[frame] if len(held) > 1 else held[0]


def _alone(node: ir.Node, varying: list[ir.Value], values: dict[ir.Value, Values]) -> bytes:
    """A graph of one node as bytes; what is constant is inside."""
    import onnx
    import onnx_ir as ir

    made = ir.to_proto(node)
    constants = []
    for value in dict.fromkeys(value for value in node.inputs if value is not None and value not in varying):
        array = g.constant(value)
        if array is None:
            raise ValueError(f"{value.name} is neither constant nor known")
        constants.append(onnx.numpy_helper.from_array(np.asarray(array), name=value.name))
    inputs = [
        onnx.helper.make_tensor_value_info(value.name, onnx.helper.np_dtype_to_tensor_dtype(held.dtype), held.shape)
        for value, held in ((value, values[value][0]) for value in varying)
    ]
    outputs = [onnx.helper.make_empty_tensor_value_info(value.name) for value in node.outputs]
    graph = onnx.helper.make_graph([made], "node", inputs, outputs, constants)
    opsets = [onnx.helper.make_opsetid("", node.graph.opset_imports[""] if node.graph is not None else 20)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    content: bytes = model.SerializeToString()
    return content
