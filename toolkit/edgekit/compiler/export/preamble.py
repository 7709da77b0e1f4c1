"""The graph part of preprocessing: from the device's uint8 frame to what the trained model takes.

The deployed graph takes uint8 (1, height, width, channels), the layout frames have in memory, and does the rest itself: no device code can get
mean, standard deviation or channel order wrong.

A grey frame that is repeated to three channels and normalized alike feeds the first convolution three equal planes, so the convolution's weights
are summed over its input channels and it takes the one plane: the same sum in another order, a third of the work. Where mean or std differ by
channel this is not exact at the zero-padded border, and the frame is broadcast instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgekit.bundle.manifest import INPUT_NAMES
from edgekit.compiler import graph as g
from edgekit.compiler.explain.head import NEXT_STATE
from edgekit.errors import ModelError
from edgekit.schema.model_io import InputSpec

if TYPE_CHECKING:
    import onnx_ir as ir

INPUT, STATE = INPUT_NAMES


def attach(model: ir.Model, spec: InputSpec, state: tuple[int, ...] | None = None) -> None:
    """Puts the preamble before the model's frame; the graph's input is then `frame`, uint8 (1, height, width, frame channels).

    Args:
        model: With one input and one output; where it is recurrent, the second ones are its state and its next state, and get the names that engines know.
        spec: The recipe's `[input]`.
        state: Shape of the state; None where the model is not recurrent.

    Raises:
        ModelError: The model's input is not float (1, channels, height, width) as the recipe says, or it does not have the inputs and outputs.
    """
    import onnx_ir as ir

    graph = model.graph
    old, *states = _inputs(graph, 1 if state is None else 2)
    if state is not None:
        _name_states(graph, states[0], state)
    expected = (1, spec.channels, *spec.size)
    if g.shape(old) != expected:
        raise ModelError(
            f"the model takes {old.shape}, the recipe's [input] makes {list(expected)}",
            hint="channels, resize and crop in [input] must fit the model; its batch must be 1",
        )
    if old.dtype not in (None, ir.DataType.FLOAT):
        raise ModelError(f"the model takes {old.dtype}, not FLOAT", hint="export it in float32")
    g.free_name(graph, INPUT)
    frame = ir.Value(name=INPUT, shape=ir.Shape((1, *spec.size, spec.frame_channels)), type=ir.TensorType(ir.DataType.UINT8))
    summed = _sum_first_convolution(graph, old, spec)
    width = 1 if summed else spec.channels
    mean = np.array(spec.mean[:width], dtype=np.float32).reshape(1, width, 1, 1)
    scale = (1.0 / np.array(spec.std[:width], dtype=np.float64)).astype(np.float32).reshape(1, width, 1, 1)
    nodes = [ir.node("Cast", [frame], {"to": int(ir.DataType.FLOAT)}, name="preamble/float")]
    nodes.append(ir.node("Transpose", [nodes[-1].outputs[0]], {"perm": [0, 3, 1, 2]}, name="preamble/planes"))
    nodes.append(ir.node("Sub", [nodes[-1].outputs[0], g.add_constant(graph, "preamble/mean_value", mean)], name="preamble/mean"))
    nodes.append(ir.node("Mul", [nodes[-1].outputs[0], g.add_constant(graph, "preamble/scale_value", scale)], name="preamble/std"))
    for node in nodes:
        node.outputs[0].name = node.name
    normalized = nodes[-1].outputs[0]
    normalized.shape = ir.Shape((1, width, *spec.size))
    normalized.type = ir.TensorType(ir.DataType.FLOAT)
    first = graph[0]
    for use in list(old.uses()):
        use.node.replace_input_with(use.idx, normalized)
    graph.inputs.clear()
    graph.inputs.extend([frame, *states])
    graph.insert_before(first, nodes)
    g.tidy(model)


def _inputs(graph: ir.Graph, count: int) -> list[ir.Value]:
    inputs = [value for value in graph.inputs if value.name not in graph.initializers]
    if len(inputs) != count:
        wanted = "one frame in, one vector of logits out" if count == 1 else "a frame and a state in, logits and the next state out"
        raise ModelError(
            f"the model has {len(inputs)} inputs; edgekit compiles {wanted}",
            hint='wrap the model in a factory that takes and returns no more, and use source = "python:module:factory"',
        )
    return inputs


def _name_states(graph: ir.Graph, given: ir.Value, shape: tuple[int, ...]) -> None:
    """Calls the state and the next state what engines call them; the next state becomes a value of its own, which nothing else in the graph is."""
    import onnx_ir as ir

    if len(graph.outputs) != 2:
        raise ModelError(f"the recurrent model has {len(graph.outputs)} outputs, not logits and the next state")
    following = graph.outputs[1]
    for value in (given, following):
        if g.shape(value) != shape or value.dtype != ir.DataType.FLOAT:
            raise ModelError(f"the exported state is {value.dtype} {value.shape}, [model] state is float32 {list(shape)}")
    g.free_name(graph, STATE)
    given.name = STATE
    node = ir.node("Identity", [following], name=NEXT_STATE)
    g.free_name(graph, NEXT_STATE)
    node.outputs[0].name, node.outputs[0].shape, node.outputs[0].type = NEXT_STATE, ir.Shape(shape), ir.TensorType(ir.DataType.FLOAT)
    graph.append(node)
    graph.outputs[1] = node.outputs[0]


def _sum_first_convolution(graph: ir.Graph, old: ir.Value, spec: InputSpec) -> bool:
    uses = list(old.uses())
    alike = len(set(spec.mean)) == 1 and len(set(spec.std)) == 1
    if spec.color != "grey" or spec.channels == 1 or not alike or len(uses) != 1:
        return False
    node = uses[0].node
    kernel = g.constant(node.inputs[1]) if node.op_type == "Conv" and uses[0].idx == 0 else None
    if kernel is None or kernel.shape[1] != spec.channels:
        return False
    summed = kernel.astype(np.float64).sum(axis=1, keepdims=True).astype(np.float32)
    node.replace_input_with(1, g.add_constant(graph, "preamble/summed_kernel", summed))
    return True
