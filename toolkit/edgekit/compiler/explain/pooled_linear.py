"""The class activation map of a pooled linear head, as part of the graph that classifies.

For features A (channels, rows, columns) and logits y_k = Σ_c W_kc · mean(A_c) + b_k, the map is M_k = Σ_c W_kc · A_c and therefore
y_k = mean(M_k) + b_k (Zhou et al. 2016, CAM). Mean and matrix product commute, so computing M first and its mean after costs a 1×1
convolution and makes decision and map one thing: they cannot disagree, in float or quantized.

The head is found by walking up from the output, not by the model's name:

1. the output is logits: whoever loaded the model took a Softmax or Sigmoid off, or refused it;
2. above it stands a linear layer: Gemm, MatMul with or without Add, or a 1×1 Conv on a pooled (1 × 1) map;
3. then a mean over all positions: GlobalAveragePool, ReduceMean over the two spatial axes, or an AveragePool that covers the whole map;
4. or, without 2, a convolutional classifier whose channels are averaged (SqueezeNet): its channels are the maps, W is the identity.

Anything else has no exact map here, and the answer says what was found instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler import graph as g

if TYPE_CHECKING:
    import onnx_ir as ir

LOGITS = "logits"
CAM = "cam"
# The float head, by the names quantization must leave alone.
HEAD_NODES = ("cam_head/maps", "cam_head/mean", "cam_head/logits")


@dataclass(frozen=True, slots=True)
class PooledLinearHead:
    """A pooled linear head as found.

    Attributes:
        features: The value that is pooled, (1, channels, rows, columns).
        weight: float32 (outputs, channels); None for a convolutional classifier.
        bias: float32 (outputs,).
        rows: Rows of the map.
        columns: Columns of the map.
    """

    features: ir.Value
    weight: NDArray[np.float32] | None
    bias: NDArray[np.float32]
    rows: int
    columns: int


def find(output: ir.Value) -> PooledLinearHead | str:
    """Finds the head above an output of logits; a string says why there is none."""
    tail = g.skip_reshaping(output)
    if _is_pool(tail):
        return _head_of_pool(tail, None, None)
    found = _linear(tail)
    if isinstance(found, str):
        return found
    below, weight, bias = found
    pooled = g.skip_reshaping(below)
    if not _is_pool(pooled):
        return f"the classifier's input is not a spatial mean but {_made_by(pooled)}"
    return _head_of_pool(pooled, weight, bias)


def attach(model: ir.Model, head: PooledLinearHead) -> None:
    """Replaces the head by map → mean → bias and makes logits and map the graph's outputs, (1, outputs) and (1, outputs, rows, columns)."""
    import onnx_ir as ir

    graph = model.graph
    nodes: list[ir.Node] = []
    maps = head.features
    if head.weight is not None:
        kernel = g.add_constant(graph, "cam_head/weight", head.weight[:, :, None, None].astype(np.float32))
        nodes.append(ir.node("Conv", [maps, kernel], {"kernel_shape": [1, 1]}, name=HEAD_NODES[0]))
    else:
        nodes.append(ir.node("Identity", [maps], name=HEAD_NODES[0]))
    cam = nodes[-1].outputs[0]
    axes = g.add_constant(graph, "cam_head/axes", np.array([2, 3], dtype=np.int64))
    if model.opset_imports[""] >= 18:
        nodes.append(ir.node("ReduceMean", [cam, axes], {"keepdims": 0}, name=HEAD_NODES[1]))
    else:
        nodes.append(ir.node("ReduceMean", [cam], {"axes": [2, 3], "keepdims": 0}, name=HEAD_NODES[1]))
    bias = g.add_constant(graph, "cam_head/bias", head.bias[None, :].astype(np.float32))
    nodes.append(ir.node("Add", [nodes[-1].outputs[0], bias], name=HEAD_NODES[2]))
    logits = nodes[-1].outputs[0]
    outputs = len(head.bias)
    for name in (LOGITS, CAM):
        g.free_name(graph, name)
    _declare(logits, LOGITS, (1, outputs))
    _declare(cam, CAM, (1, outputs, head.rows, head.columns))
    g.insert_before_output(graph, nodes, [logits, cam])
    g.tidy(model)


def _declare(value: ir.Value, name: str, sizes: tuple[int, ...]) -> None:
    import onnx_ir as ir

    value.name = name
    value.shape = ir.Shape(sizes)
    value.type = ir.TensorType(ir.DataType.FLOAT)


def _is_pool(value: ir.Value | None) -> bool:
    node = value.producer() if value is not None else None
    if node is None:
        return False
    sizes = g.shape(node.inputs[0])
    if sizes is None or len(sizes) != 4:
        return False
    if node.op_type == "GlobalAveragePool":
        return True
    if node.op_type == "ReduceMean":
        axes = g.reduced_axes(node)
        return axes is not None and sorted(axis % 4 for axis in axes) == [2, 3]
    if node.op_type == "AveragePool":
        kernel = node.attributes.get("kernel_shape")
        pads = node.attributes.get("pads")
        covers = kernel is not None and tuple(kernel.as_ints()) == sizes[2:]
        return covers and (pads is None or not any(pads.as_ints()))
    return False


def _made_by(value: ir.Value | None) -> str:
    """The operator that makes a value, for people: a Transpose only serves the operator before it."""
    node = value.producer() if value is not None else None
    while node is not None and node.op_type == "Transpose" and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node.op_type if node is not None else "the model's input"


def _head_of_pool(pooled: ir.Value | None, weight: NDArray[np.float32] | None, bias: NDArray[np.float32] | None) -> PooledLinearHead | str:
    node = pooled.producer() if pooled is not None else None
    features = node.inputs[0] if node is not None else None
    sizes = g.shape(features)
    if features is None or sizes is None:
        return "the pooled features have no static shape"
    _, channels, rows, columns = sizes
    if weight is not None and weight.shape[1] != channels:
        return f"the classifier takes {weight.shape[1]} values but {channels} channels are pooled (other features are joined in)"
    if rows * columns == 1:
        return "the pooled features have a single position, so a map would say nothing"
    if bias is None:
        bias = np.zeros(channels if weight is None else weight.shape[0], dtype=np.float32)
    return PooledLinearHead(features, weight, bias, rows, columns)


def _linear(value: ir.Value | None) -> tuple[ir.Value | None, NDArray[np.float32], NDArray[np.float32]] | str:
    node = value.producer() if value is not None else None
    if node is None:
        return "the output is the model's input"
    bias: NDArray[np.generic] | None = None
    if node.op_type == "Add":
        constants = [g.constant(item) for item in node.inputs]
        variable = [item for item, found in zip(node.inputs, constants, strict=True) if found is None]
        bias = next((found for found in constants if found is not None), None)
        inner = g.skip_reshaping(variable[0]) if len(variable) == 1 else None
        producer = inner.producer() if inner is not None else None
        if bias is None or producer is None or producer.op_type != "MatMul":
            return "the output is a sum that is not the bias of a linear layer"
        node = producer
    if node.op_type == "Gemm":
        return _gemm(node)
    if node.op_type == "MatMul":
        matrix = g.constant(node.inputs[1])
        if matrix is None or matrix.ndim != 2:
            return "the classifier's weight is not a constant matrix"
        return _checked(node.inputs[0], matrix.T, bias)
    if node.op_type == "Conv":
        return _pointwise(node)
    return f"the output is made by {node.op_type}, not by a linear layer"


def _gemm(node: ir.Node) -> tuple[ir.Value | None, NDArray[np.float32], NDArray[np.float32]] | str:
    attributes = node.attributes
    scaled = any(name in attributes and attributes[name].as_float() != 1.0 for name in ("alpha", "beta"))
    if scaled or ("transA" in attributes and attributes["transA"].as_int()):
        return "the classifier is a Gemm with a scale or a transposed input"
    matrix = g.constant(node.inputs[1])
    if matrix is None:
        return "the classifier's weight is not a constant"
    if not ("transB" in attributes and attributes["transB"].as_int()):
        matrix = matrix.T
    bias = g.constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if len(node.inputs) > 2 and node.inputs[2] is not None and bias is None:
        return "the classifier's bias is not a constant"
    return _checked(node.inputs[0], matrix, bias)


def _pointwise(node: ir.Node) -> tuple[ir.Value | None, NDArray[np.float32], NDArray[np.float32]] | str:
    kernel = g.constant(node.inputs[1])
    sizes = g.shape(node.inputs[0])
    grouped = "group" in node.attributes and node.attributes["group"].as_int() != 1
    if kernel is None or sizes is None or sizes[2:] != (1, 1) or kernel.shape[2:] != (1, 1) or grouped:
        return "the output is made by a convolution that is not a 1 × 1 classifier on a pooled map"
    bias = g.constant(node.inputs[2]) if len(node.inputs) > 2 else None
    return _checked(node.inputs[0], kernel[:, :, 0, 0], bias)


def _checked(
    below: ir.Value | None, matrix: NDArray[np.generic], bias: NDArray[np.generic] | None
) -> tuple[ir.Value | None, NDArray[np.float32], NDArray[np.float32]] | str:
    weight = np.ascontiguousarray(matrix, dtype=np.float32)
    flat = np.zeros(len(weight), dtype=np.float32) if bias is None else np.asarray(bias, dtype=np.float32).ravel()
    if flat.shape != (len(weight),):
        return f"the classifier's bias has {flat.size} values for {len(weight)} outputs"
    return below, weight, flat
