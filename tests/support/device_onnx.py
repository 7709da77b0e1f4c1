"""The graph of `device_bundles` as ONNX, written byte by byte: a device has no library that could.

An ONNX file is a protobuf message; `field` writes one field of it, and the numbers are those of onnx.proto.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from device_bundles import BIASES, CELLS, GAINS, OFFSETS, SIDE
from numpy.typing import NDArray

_TYPES = {"float32": 1, "uint8": 2, "int64": 7}
OPSET, IR_VERSION = 17, 8


def varint(value: int) -> bytes:
    """A whole number ≥ 0, seven bits a byte."""
    parts = []
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def field(number: int, value: int | str | bytes) -> bytes:
    """One field: a whole number, a text, or a message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def tensor(name: str, array: NDArray[Any]) -> bytes:
    dims = b"".join(field(1, side) for side in array.shape)
    return dims + field(2, _TYPES[array.dtype.name]) + field(8, name) + field(9, array.tobytes())


def node(operator: str, inputs: list[str], output: str, *, domain: str = "", **attributes: int | list[int]) -> bytes:
    made = b"".join(field(1, name) for name in inputs) + field(2, output) + field(3, output) + field(4, operator)
    for name, value in attributes.items():
        content = field(3, value) + field(20, 2) if isinstance(value, int) else b"".join(field(8, item) for item in value) + field(20, 7)
        made += field(5, field(1, name) + content)
    return made + (field(7, domain) if domain else b"")


def port(name: str, kind: str, shape: tuple[int | str, ...]) -> bytes:
    """An input or output; a text as a size leaves that size open."""
    dims = b"".join(field(1, field(1, side) if isinstance(side, int) else field(2, side)) for side in shape)
    return field(1, name) + field(2, field(1, field(1, _TYPES[kind]) + field(2, dims)))


def model(nodes: list[bytes], tensors: list[bytes], taken: list[bytes], given: list[bytes], *, domains: tuple[str, ...] = ()) -> bytes:
    """A whole file of nodes, initializers, inputs and outputs."""
    parts = [(1, nodes), (2, [b"by-hand"]), (5, tensors), (11, taken), (12, given)]
    graph = b"".join(field(number, item) for number, items in parts for item in items)
    opsets = b"".join(
        field(8, field(1, domain) + field(2, version)) for domain, version in (("", OPSET), *((domain, 1) for domain in domains))
    )
    return field(1, IR_VERSION) + field(7, graph) + opsets


@functools.cache
def graph(
    *, outputs: int, cam: bool = True, bias: float = 0.0, poison: float = 0.0, cells: int = CELLS, recurrent: bool = False
) -> dict[str, bytes]:
    """The file by its role; what the arguments mean is said at `device_bundles.graph`."""
    side = SIDE // cells
    shape = (1, outputs, 1, 1)
    biases = np.array(BIASES[:outputs], dtype=np.float32)[None] + np.float32(bias)
    biases[0, 0] += np.float32(poison)
    tensors = [
        tensor("gains", np.array(GAINS[:outputs], dtype=np.float32).reshape(shape) / np.float32(255)),
        tensor("offsets", np.array(OFFSETS[:outputs], dtype=np.float32).reshape(shape)),
        tensor("biases", biases),
    ]
    nodes = [
        node("Cast", ["frame"], "pixels", to=1),
        node("Transpose", ["pixels"], "grey", perm=[0, 3, 1, 2]),
        node("AveragePool", ["grey"], "pooled", kernel_shape=[side, side], strides=[side, side]),
        node("Mul", ["pooled", "gains"], "scaled"),
        node("Add", ["scaled", "offsets"], "cam"),
        node("ReduceMean", ["cam"], "mean", axes=[2, 3], keepdims=0),
        node("Add", ["mean", "biases"], "answer" if recurrent else "logits"),
    ]
    taken = [port("frame", "uint8", (1, SIDE, SIDE, 1))]
    if recurrent:
        tensors.append(tensor("half", np.array([0.5], dtype=np.float32)))
        nodes += [node("Add", ["answer", "state"], "logits"), node("Mul", ["logits", "half"], "next_state")]
        state = [port(name, "float32", (1, outputs)) for name in ("state", "logits", "next_state")]
        return {"onnx": model(nodes, tensors, [*taken, state[0]], state[1:])}
    given = [port("logits", "float32", (1, outputs)), port("cam", "float32", (1, outputs, cells, cells))]
    return {"onnx": model(nodes, tensors, taken, given if cam else given[:1])}
