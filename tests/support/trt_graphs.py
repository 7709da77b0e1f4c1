"""A small Q/DQ network as edgekit writes them for TensorRT, and the same with one fault.

    model = quantized_network()                            # float16 and opset 19: strongly typed
    model = quantized_network(opset=17)                    # float32: TensorRT 8.5 and 8.6
    model = quantized_network(fault="zero-point-not-0")    # of FAULTS

Rules this file keeps:

1. Without a fault: uint8 frame in, float32 logits and maps out, static shapes, residual Add with Q/DQ on the skip input alone, weights per channel.
2. A fault changes the network in one place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx  # noqa: TID253 - the graphs are made of its messages
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper  # noqa: TID253

CHANNELS, SIDE, OUTPUTS = 16, 16, 2


@dataclass(slots=True)
class Graph:
    """A graph that is being put together.

    Attributes:
        opset: 19 with float16, 17 with float32.
        batch: Of the input; a name leaves it open.
        nodes: In order.
        weights: By name.
    """

    opset: int = 19
    batch: int | str = 1
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, NDArray[np.generic]] = field(default_factory=dict)

    @property
    def dtype(self) -> type[np.floating]:
        return np.float16 if self.opset >= 19 else np.float32

    @property
    def onnx_type(self) -> int:
        return TensorProto.FLOAT16 if self.opset >= 19 else TensorProto.FLOAT

    def add(self, operator: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], name=f"/{output}", **attributes))
        return output

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        self.weights[name] = value
        return name

    def quantize(self, tensor: str, scale: float = 0.05) -> str:
        """Q/DQ of an activation, per tensor."""
        pair = [self.constant(f"{tensor}.scale", np.array(scale, self.dtype)), self.constant(f"{tensor}.zero", np.array(0, np.int8))]
        return self.add("DequantizeLinear", [self.add("QuantizeLinear", [tensor, *pair], f"{tensor}.q"), *pair], f"{tensor}.dq")

    def conv(self, tensor: str, name: str, taken: int, given: int) -> str:
        """A 3 × 3 convolution whose weights are int8, per output channel; TensorRT before 10 takes no int8 constants and gets them as floats before a pair."""
        random = np.random.default_rng(len(self.nodes))
        weights = random.integers(-127, 128, (given, taken, 3, 3)).astype(np.int8)
        pair = [
            self.constant(f"{name}.w.scale", np.full(given, 0.002, self.dtype)),
            self.constant(f"{name}.w.zero", np.zeros(given, np.int8)),
        ]
        kept = self.constant(f"{name}.w", weights)
        if self.opset < 19:
            self.weights[kept] = weights * self.weights[pair[0]].reshape(-1, 1, 1, 1)
            kept = self.add("QuantizeLinear", [kept, *pair], f"{name}.w.q", axis=0)
        kernel = self.add("DequantizeLinear", [kept, *pair], f"{name}.w.dq", axis=0)
        bias = self.constant(f"{name}.b", random.normal(size=given).astype(self.dtype))
        return self.add("Conv", [tensor, kernel, bias], name, pads=[1, 1, 1, 1])

    def node(self, output: str) -> onnx.NodeProto:
        """The node that computes a tensor."""
        return next(node for node in self.nodes if output in node.output)

    def model(self) -> onnx.ModelProto:
        inputs = [helper.make_tensor_value_info("frame", TensorProto.UINT8, [self.batch, SIDE, SIDE, 3])]
        outputs = [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, [self.batch, OUTPUTS]),
            helper.make_tensor_value_info("cam", TensorProto.FLOAT, [self.batch, OUTPUTS, SIDE, SIDE]),
        ]
        weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in self.weights.items()]
        graph = helper.make_graph(self.nodes, "network", inputs, outputs, weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=9 if self.opset >= 19 else 8)


def _whole(opset: int) -> Graph:
    graph = Graph(opset=opset)
    cast = graph.add("Cast", ["frame"], "cast", to=graph.onnx_type)
    scaled = graph.add("Mul", [cast, graph.constant("per255", np.array(1 / 255, graph.dtype))], "scaled")
    first = graph.add(
        "Relu", [graph.conv(graph.quantize(graph.add("Transpose", [scaled], "nchw", perm=[0, 3, 1, 2])), "c1", 3, CHANNELS)], "r1"
    )
    branch = graph.add("Relu", [graph.conv(graph.quantize(first), "c2", CHANNELS, CHANNELS)], "r2")
    branch = graph.conv(graph.quantize(branch), "c3", CHANNELS, CHANNELS)
    # The skip input alone: the Add is then fused into the convolution.
    features = graph.add("Relu", [graph.add("Add", [branch, "r1.dq"], "sum")], "features")
    pooled = graph.add("Flatten", [graph.add("GlobalAveragePool", [features], "pooled")], "flat")
    random = np.random.default_rng(0)
    weights = graph.constant("fc.w", random.normal(size=(OUTPUTS, CHANNELS)).astype(graph.dtype))
    bias = graph.constant("fc.b", np.zeros(OUTPUTS, graph.dtype))
    logits = graph.add("Gemm", [pooled, weights, bias], "fc", transB=1)
    maps = graph.add("Conv", [features, graph.constant("cam.w", random.normal(size=(OUTPUTS, CHANNELS, 1, 1)).astype(graph.dtype))], "maps")
    graph.add("Cast", [logits], "logits", to=TensorProto.FLOAT)
    graph.add("Cast", [maps], "cam", to=TensorProto.FLOAT)
    return graph


def _set(name: str, value: Callable[[NDArray[np.generic]], NDArray[np.generic]]) -> Callable[[Graph], None]:
    def change(graph: Graph) -> None:
        graph.weights[name] = value(graph.weights[name])

    return change


def _int32_bias(graph: Graph) -> None:
    """A quantized bias, as ONNX Runtime's tools write them."""
    graph.weights["c2.b"] = np.zeros(CHANNELS, np.int32)
    scale = graph.constant("c2.b.scale", np.full(CHANNELS, 1e-4, graph.dtype))
    _insert(graph, "c2", helper.make_node("DequantizeLinear", ["c2.b", scale], ["c2.b.dq"], name="/c2.b.dq", axis=0))
    graph.node("c2").input[2] = "c2.b.dq"


def _insert(graph: Graph, before: str, node: onnx.NodeProto) -> None:
    graph.nodes.insert(graph.nodes.index(graph.node(before)), node)


def _after_features(operator: str, **attributes: object) -> Callable[[Graph], None]:
    """Puts a node between the features and what they go into."""

    def change(graph: Graph) -> None:
        _insert(graph, "pooled", helper.make_node(operator, ["features"], ["changed"], name="/changed", **attributes))
        graph.node("pooled").input[0] = "changed"

    return change


def _unique(graph: Graph) -> None:
    _insert(graph, "fc", helper.make_node("Unique", ["flat"], ["unique"], name="/unique"))
    _insert(graph, "fc", helper.make_node("Expand", ["unique", graph.constant("shape", np.array([1, CHANNELS]))], ["wide"], name="/wide"))
    graph.node("fc").input[0] = "wide"


def _conv_integer(graph: Graph) -> None:
    node = helper.make_node("ConvInteger", ["r1.q", "c2.w"], ["c2.integer"], name="/c2.integer", pads=[1, 1, 1, 1])
    _insert(graph, "c2", node)
    graph.node("c2").CopyFrom(helper.make_node("Cast", ["c2.integer"], ["c2"], name="/c2", to=graph.onnx_type))


def _qlinear_conv(graph: Graph) -> None:
    inputs = ["r1.q", "r1.scale", "r1.zero", "c2.w", "c2.w.scale", "c2.w.zero", "r2.scale", "r2.zero"]
    for name in ("r1.scale", "c2.w.scale", "r2.scale"):
        graph.weights[f"{name}.f"] = graph.weights[name].astype(np.float32)
        inputs[inputs.index(name)] = f"{name}.f"
    _insert(graph, "c2", helper.make_node("QLinearConv", inputs, ["c2.quantized"], name="/c2.quantized", pads=[1, 1, 1, 1]))
    graph.node("c2").CopyFrom(helper.make_node("Cast", ["c2.quantized"], ["c2"], name="/c2", to=graph.onnx_type))


def _dynamic_quantize(graph: Graph) -> None:
    _insert(graph, "c2", helper.make_node("Cast", ["r1"], ["r1.f"], name="/r1.f", to=TensorProto.FLOAT))
    _insert(graph, "c2", helper.make_node("DynamicQuantizeLinear", ["r1.f"], ["d.q", "d.scale", "d.zero"], name="/d"))
    _insert(graph, "c2", helper.make_node("DequantizeLinear", ["d.q", "d.scale", "d.zero"], ["d.dq"], name="/d.dq"))
    _insert(graph, "c2", helper.make_node("Cast", ["d.dq"], ["d"], name="/d.cast", to=graph.onnx_type))
    graph.node("c2").input[0] = "d"


def _float32_operand(graph: Graph) -> None:
    _insert(graph, "sum", helper.make_node("Cast", ["r1.dq"], ["r1.f"], name="/r1.f", to=TensorProto.FLOAT))
    graph.node("sum").input[1] = "r1.f"


def _axis_1(graph: Graph) -> None:
    del graph.node("c2.w.dq").attribute[:]
    graph.node("c2.w.dq").attribute.append(helper.make_attribute("axis", 1))


def _without_zero_point(graph: Graph) -> None:
    for output in ("r1.q", "r1.dq"):
        del graph.node(output).input[2]


def _per_channel_activation(graph: Graph) -> None:
    graph.weights["r2.scale"] = np.full(CHANNELS, 0.05, graph.dtype)
    graph.weights["r2.zero"] = np.zeros(CHANNELS, np.int8)
    for output in ("r2.q", "r2.dq"):
        graph.node(output).attribute.append(helper.make_attribute("axis", 1))


FAULTS: dict[str, Callable[[Graph], None]] = {
    "zero-point-not-0": _set("r2.zero", lambda _: np.array(3, np.int8)),
    "zero-point-uint8-128": _set("r2.zero", lambda _: np.array(128, np.uint8)),
    "weight-zero-point-not-0": _set("c2.w.zero", lambda zero: zero + np.int8(1)),
    "scale-0": _set("r2.scale", lambda scale: scale * 0),
    "scale-negative": _set("r2.scale", lambda scale: -scale),
    "weight-scale-0": _set("c2.w.scale", lambda scale: scale * 0),
    "int32-bias": _int32_bias,
    "conv-integer": _conv_integer,
    "qlinear-conv": _qlinear_conv,
    "dynamic-quantize-linear": _dynamic_quantize,
    "unique": _unique,
    "maxpool-dilation": _after_features("MaxPool", kernel_shape=[2, 2], dilations=[2, 2]),
    "add-float16-float32": _float32_operand,
    "conv-float32-bias": _set("c2.b", lambda bias: bias.astype(np.float32)),
    "weight-scale-float32": _set("c2.w.scale", lambda scale: scale.astype(np.float32)),
    "open-batch": lambda graph: setattr(graph, "batch", "batch"),
    "zero-point-uint8-0": _set("r2.zero", lambda _: np.array(0, np.uint8)),
    "zero-point-missing": _without_zero_point,
    "activation-per-channel": _per_channel_activation,
    "weight-axis-1": _axis_1,
}


def quantized_network(*, opset: int = 19, fault: str = "") -> onnx.ModelProto:
    """The network, whole or with one fault of `FAULTS`."""
    graph = _whole(opset)
    if fault:
        FAULTS[fault](graph)
    return graph.model()
