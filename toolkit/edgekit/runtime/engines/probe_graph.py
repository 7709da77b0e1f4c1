"""One convolution as ONNX, in float32, float16 or int8, written without the library `onnx`, which a device does not have.

The graph is a bundle's in small: `frame` uint8 (1, 8, 8, 32) → Cast → × 1/255 → to channels first → convolution 3 × 3, 32 channels → mean → `logits`
float32 (1, 32). So whatever a bundle cannot do without is tried: uint8 input, casts, and the kernels of one precision.

Rules this file keeps:

1. `typed` graphs are for TensorRT 10 and newer: every tensor has its type in the graph, and float16 scales need opset 19. The others are float32 at opset
   17, whose precision the builder's flags allow.
2. int8 has the form of the compiler's graphs: symmetric, zero points 0 of type int8, activations per tensor, weights per output channel, no bias; weights are int8
   constants where graphs are typed, and floats before a pair where they are not: TensorRT before 10 takes no int8 constants.
3. Messages and field numbers are those of `onnx.proto3` (ONNX 1.16); only what these graphs need can be written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

SIDE, CHANNELS = 8, 32
PRECISIONS = ("fp32", "fp16", "int8")

_DATA_TYPES: Mapping[str, int] = {"float32": 1, "uint8": 2, "int8": 3, "float16": 10}
_ATTRIBUTE_INT, _ATTRIBUTE_INTS = 2, 7
_SCALE = 1 / 127


def one_convolution(precision: str, *, typed: bool) -> bytes:
    """The graph as a serialized `ModelProto`.

    Args:
        precision: One of `PRECISIONS`.
        typed: Whether it is for TensorRT 10 and newer (rule 1).
    """
    half = typed and precision != "fp32"
    graph = _Graph(dtype=np.dtype(np.float16 if half else np.float32))
    kind = _DATA_TYPES[graph.dtype.name]
    graph.node("Cast", ["frame"], "cast", to=kind)
    graph.node("Mul", ["cast", graph.constant("per_255", np.array(1 / 255, graph.dtype))], "scaled")
    graph.node("Transpose", ["scaled"], "channels_first", perm=(0, 3, 1, 2))
    taken, weights = _operands(graph, quantized=precision == "int8", typed=typed)
    graph.node("Conv", [taken, weights], "conv", pads=(1, 1, 1, 1))
    graph.node("GlobalAveragePool", ["conv"], "pooled")
    graph.node("Flatten", ["pooled"], "flat")
    graph.node("Cast", ["flat"], "logits", to=_DATA_TYPES["float32"])
    return _model(graph, opset=19 if typed else 17, ir_version=9 if typed else 8)


@dataclass(slots=True)
class _Graph:
    """Nodes and initializers, serialized, and the type that float tensors have."""

    dtype: np.dtype[np.floating]
    nodes: list[bytes] = field(default_factory=list)
    initializers: list[bytes] = field(default_factory=list)

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        dims = b"".join(_integer(1, side) for side in value.shape)
        little = value.astype(value.dtype.newbyteorder("<"))
        self.initializers.append(dims + _integer(2, _DATA_TYPES[value.dtype.name]) + _text(8, name) + _bytes(9, little.tobytes()))
        return name

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: int | Sequence[int]) -> str:
        parts = [*(_text(1, name) for name in inputs), _text(2, output), _text(3, f"/{output}"), _text(4, operator)]
        self.nodes.append(b"".join(parts) + b"".join(_bytes(5, _attribute(name, value)) for name, value in attributes.items()))
        return output


def _operands(graph: _Graph, *, quantized: bool, typed: bool) -> tuple[str, str]:
    """Names of the tensor and of the weights that the convolution takes."""
    weights = np.random.default_rng(0).integers(-127, 128, (CHANNELS, CHANNELS, 3, 3))
    if not quantized:
        return "channels_first", graph.constant("weights", (weights * _SCALE).astype(graph.dtype))
    pair = [graph.constant("scale", np.array(_SCALE, graph.dtype)), graph.constant("zero", np.array(0, np.int8))]
    graph.node("QuantizeLinear", ["channels_first", *pair], "quantized")
    graph.node("DequantizeLinear", ["quantized", *pair], "dequantized")
    scales = graph.constant("weight_scales", np.full(CHANNELS, _SCALE, graph.dtype))
    zeros = graph.constant("weight_zeros", np.zeros(CHANNELS, np.int8))
    if typed:
        whole = graph.constant("weights", weights.astype(np.int8))
    else:
        floats = graph.constant("weights", (weights * _SCALE).astype(graph.dtype))
        whole = graph.node("QuantizeLinear", [floats, scales, zeros], "weights_quantized", axis=0)
    return "dequantized", graph.node("DequantizeLinear", [whole, scales, zeros], "weights_dequantized", axis=0)


def _model(graph: _Graph, *, opset: int, ir_version: int) -> bytes:
    body = b"".join(
        [
            *(_bytes(1, node) for node in graph.nodes),
            _text(2, "one-convolution"),
            *(_bytes(5, initializer) for initializer in graph.initializers),
            _bytes(11, _value("frame", "uint8", (1, SIDE, SIDE, CHANNELS))),
            _bytes(12, _value("logits", "float32", (1, CHANNELS))),
        ]
    )
    return _integer(1, ir_version) + _text(2, "edgekit") + _bytes(7, body) + _bytes(8, _text(1, "") + _integer(2, opset))


def _value(name: str, dtype: str, shape: Sequence[int]) -> bytes:
    dims = b"".join(_bytes(1, _integer(1, side)) for side in shape)
    tensor = _integer(1, _DATA_TYPES[dtype]) + _bytes(2, dims)
    return _text(1, name) + _bytes(2, _bytes(1, tensor))


def _attribute(name: str, value: int | Sequence[int]) -> bytes:
    if isinstance(value, int):
        return _text(1, name) + _integer(3, value) + _integer(20, _ATTRIBUTE_INT)
    return _text(1, name) + b"".join(_integer(8, item) for item in value) + _integer(20, _ATTRIBUTE_INTS)


def _integer(number: int, value: int) -> bytes:
    """A field of protobuf's wire type 0; `value` is not negative."""
    return _varint(number << 3) + _varint(value)


def _bytes(number: int, value: bytes) -> bytes:
    """A field of wire type 2."""
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _text(number: int, value: str) -> bytes:
    return _bytes(number, value.encode())


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
