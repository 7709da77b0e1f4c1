"""Runs a graph that edgekit wrote with PyTorch's kernels, so on a GPU with NVIDIA's: cuDNN and cuBLAS compute each layer in the type that the graph gives it.

    answer = Program(content, "cuda")(frame)      # {"logits": ..., "cam": ...}

Rules this file keeps:

1. One operator is one call, in the types of its inputs; nothing is fused, and a result has the type that the graph says.
2. An operator, an attribute or a combination that is not here is refused by name. What is here was compared with ONNX Runtime.
3. float32 is float32: TF32 is off while a graph runs.

There is onnx2torch, but it reads older opsets than edgekit writes and knows nothing of float16 scales.
"""
# ruff: noqa: TID253 - it joins onnx and torch

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

TYPES: Mapping[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.UINT8: torch.uint8,
    TensorProto.INT8: torch.int8,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
}

Attributes = dict[str, Any]
Operator = Callable[..., torch.Tensor]


class Program:
    """A graph, ready to run.

    Args:
        content: An ONNX file with its weights in it.
        device: PyTorch's name of it.

    Raises:
        NotImplementedError: Something in it is not here (rule 2).
    """

    def __init__(self, content: bytes, device: str) -> None:
        graph = onnx.load_model_from_string(content).graph
        for node in graph.node:
            if node.op_type not in OPERATORS or node.domain not in {"", "ai.onnx"} or len(node.output) != 1:
                raise NotImplementedError(f"{node.name}: {node.domain}.{node.op_type} with {len(node.output)} outputs")
        self._device = device
        self._steps = [
            (node, {item.name: helper.get_attribute_value(item) for item in node.attribute}, OPERATORS[node.op_type]) for node in graph.node
        ]
        self._constants = {item.name: torch.from_numpy(numpy_helper.to_array(item).copy()).to(device) for item in graph.initializer}
        self._taken, self._given = graph.input[0].name, [item.name for item in graph.output]

    def __call__(self, frame: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """The outputs for a frame, uint8 (1, rows, columns, channels), by their names."""
        values: dict[str, torch.Tensor | None] = {**self._constants, "": None, self._taken: torch.from_numpy(frame).to(self._device)}
        with torch.no_grad(), _exact_float32():
            for node, attributes, operator in self._steps:
                try:
                    values[node.output[0]] = operator(dict(attributes), *[values[name] for name in node.input])
                except (TypeError, KeyError) as error:
                    raise NotImplementedError(f"{node.name}: {node.op_type} {attributes}: {error}") from error
        return {name: _array(values[name]) for name in self._given}


def _array(value: torch.Tensor | None) -> NDArray[np.float32]:
    if value is None or value.dtype != torch.float32:
        raise NotImplementedError("an output that is not float32")
    return value.cpu().numpy()


@contextlib.contextmanager
def _exact_float32() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def _all_used(attributes: Attributes) -> None:
    if attributes:
        raise KeyError(f"{sorted(attributes)}")


def _plain(function: Operator) -> Operator:
    """An operator without attributes."""

    def run(attributes: Attributes, *inputs: torch.Tensor) -> torch.Tensor:
        _all_used(attributes)
        return function(*inputs)

    return run


def _integers(value: torch.Tensor) -> list[int]:
    return [int(item) for item in value.cpu().reshape(-1)]


def _cast(attributes: Attributes, value: torch.Tensor) -> torch.Tensor:
    kind = TYPES[attributes.pop("to")]
    attributes.pop("saturate", None)  # of float8
    _all_used(attributes)
    return value.to(kind)


def _transpose(attributes: Attributes, value: torch.Tensor) -> torch.Tensor:
    order = attributes.pop("perm")
    _all_used(attributes)
    return value.permute(*order).contiguous()


def _padded(attributes: Attributes, value: torch.Tensor, fill: float) -> tuple[torch.Tensor, list[int]]:
    """The value with what `pads` says only on one side, and the padding that is the same on both."""
    if attributes.pop("auto_pad", b"NOTSET") != b"NOTSET":
        raise KeyError("auto_pad")
    dims = value.ndim - 2
    pads = list(attributes.pop("pads", [0] * 2 * dims))
    begin, end = pads[:dims], pads[dims:]
    if begin == end:
        return value, begin
    both = [side for axis in reversed(range(dims)) for side in (begin[axis], end[axis])]
    return F.pad(value, both, value=fill), [0] * dims


def _conv(attributes: Attributes, value: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    value, padding = _padded(attributes, value, 0.0)
    attributes.pop("kernel_shape", None)  # the weight's
    dims = value.ndim - 2
    strides, dilations = attributes.pop("strides", [1] * dims), attributes.pop("dilations", [1] * dims)
    groups = attributes.pop("group", 1)
    _all_used(attributes)
    return {1: F.conv1d, 2: F.conv2d}[dims](value, weight, bias, strides, padding, dilations, groups)


def _max_pool(attributes: Attributes, value: torch.Tensor) -> torch.Tensor:
    value, padding = _padded(attributes, value, -float("inf"))
    kernel, ceiling = attributes.pop("kernel_shape"), bool(attributes.pop("ceil_mode", 0))
    strides, dilations = attributes.pop("strides", [1, 1]), attributes.pop("dilations", [1, 1])
    attributes.pop("storage_order", None)  # of the indices, which nobody asks for
    _all_used(attributes)
    return F.max_pool2d(value, kernel, strides, padding, dilations, ceiling)


def _average_pool(attributes: Attributes, value: torch.Tensor) -> torch.Tensor:
    counts = bool(attributes.pop("count_include_pad", 0))
    value, padding = _padded(attributes, value, 0.0)
    kernel, ceiling, strides = attributes.pop("kernel_shape"), bool(attributes.pop("ceil_mode", 0)), attributes.pop("strides", [1, 1])
    if attributes.pop("dilations", [1, 1]) != [1, 1]:
        raise KeyError("dilations")
    _all_used(attributes)
    return F.avg_pool2d(value, kernel, strides, padding, ceiling, counts)


def _hard_sigmoid(attributes: Attributes, value: torch.Tensor) -> torch.Tensor:
    slope, middle = attributes.pop("alpha", 0.2), attributes.pop("beta", 0.5)
    _all_used(attributes)
    if not np.isclose(slope, 1 / 6) or middle != 0.5:
        raise KeyError(f"alpha {slope}, beta {middle}")
    return F.hardsigmoid(value)


def _gelu(attributes: Attributes, value: torch.Tensor) -> torch.Tensor:
    kind = attributes.pop("approximate", b"none").decode()
    _all_used(attributes)
    return F.gelu(value, approximate=kind)


def _gemm(attributes: Attributes, one: torch.Tensor, other: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
    if (attributes.pop("alpha", 1.0), attributes.pop("beta", 1.0)) != (1.0, 1.0):
        raise KeyError("alpha, beta")
    one = one.T if attributes.pop("transA", 0) else one
    other = other.T if attributes.pop("transB", 0) else other
    _all_used(attributes)
    return torch.mm(one, other) if added is None else torch.addmm(added, one, other)


def _softmax(attributes: Attributes, value: torch.Tensor) -> torch.Tensor:
    axis = attributes.pop("axis", -1)
    _all_used(attributes)
    return torch.softmax(value, axis)


def _layer_normalization(attributes: Attributes, value: torch.Tensor, *affine: torch.Tensor) -> torch.Tensor:
    axis, epsilon = attributes.pop("axis", -1), attributes.pop("epsilon", 1e-5)
    if attributes.pop("stash_type", 1) != 1:
        raise KeyError("stash_type")
    _all_used(attributes)
    return F.layer_norm(value, value.shape[axis:], *affine, eps=epsilon)


def _batch_normalization(attributes: Attributes, value: torch.Tensor, *four: torch.Tensor) -> torch.Tensor:
    epsilon = attributes.pop("epsilon", 1e-5)
    attributes.pop("momentum", None)  # of training
    if attributes.pop("training_mode", 0):
        raise KeyError("training_mode")
    _all_used(attributes)
    scale, bias, mean, variance = four
    return F.batch_norm(value, mean, variance, scale, bias, eps=epsilon)


def _reshape(attributes: Attributes, value: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
    keeps = not attributes.pop("allowzero", 0)
    _all_used(attributes)
    sides = _integers(shape)
    return value.reshape([value.shape[axis] if keeps and side == 0 else side for axis, side in enumerate(sides)])


def _flatten(attributes: Attributes, value: torch.Tensor) -> torch.Tensor:
    axis = attributes.pop("axis", 1)
    _all_used(attributes)
    return value.reshape(int(np.prod(value.shape[:axis])), -1)


def _concat(attributes: Attributes, *values: torch.Tensor) -> torch.Tensor:
    axis = attributes.pop("axis")
    _all_used(attributes)
    return torch.cat(values, axis)


def _reduced(function: Operator) -> Operator:
    """An operator that makes one value of all those along some axes; an attribute until opset 13 or 18, an input from there on."""

    def run(attributes: Attributes, value: torch.Tensor, axes: torch.Tensor | None = None) -> torch.Tensor:
        keeps, left_alone = bool(attributes.pop("keepdims", 1)), bool(attributes.pop("noop_with_empty_axes", 0))
        listed: Sequence[int] = attributes.pop("axes", ()) or ([] if axes is None else _integers(axes))
        _all_used(attributes)
        if not listed and left_alone:
            return value
        return function(value, list(listed or range(value.ndim)), keepdim=keeps, dtype=value.dtype)

    return run


def _global_average_pool(value: torch.Tensor) -> torch.Tensor:
    return value.mean(list(range(2, value.ndim)), keepdim=True)


def _slice(attributes: Attributes, value: torch.Tensor, *bounds: torch.Tensor) -> torch.Tensor:
    _all_used(attributes)
    starts, ends = _integers(bounds[0]), _integers(bounds[1])
    axes = _integers(bounds[2]) if len(bounds) > 2 else list(range(len(starts)))
    steps = _integers(bounds[3]) if len(bounds) > 3 else [1] * len(starts)
    taken = [slice(None)] * value.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 1:
            raise KeyError(f"step {step}")
        taken[axis] = slice(start, end, step)
    return value[tuple(taken)]


def _squeeze(attributes: Attributes, value: torch.Tensor, axes: torch.Tensor) -> torch.Tensor:
    _all_used(attributes)
    return value.squeeze(tuple(_integers(axes)))


def _gather(attributes: Attributes, value: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    axis = attributes.pop("axis", 0)
    _all_used(attributes)
    found = value.index_select(axis, torch.where(indices < 0, indices + value.shape[axis], indices).reshape(-1))
    return found.reshape(*value.shape[:axis], *indices.shape, *value.shape[axis:][1:])


def _channelwise(scale: torch.Tensor, value: torch.Tensor, attributes: Attributes) -> torch.Tensor:
    """A scale of one value, or of one a channel, in the shape that goes with a value."""
    axis = attributes.pop("axis", 1)
    if attributes.pop("block_size", 0):
        raise KeyError("block_size")
    return scale if scale.ndim == 0 else scale.reshape([-1 if index == axis % value.ndim else 1 for index in range(value.ndim)])


def _quantize(attributes: Attributes, value: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    scale = _channelwise(scale, value, attributes)
    attributes.pop("saturate", None)  # of float8
    _all_used(attributes)
    if zero.dtype != torch.int8 or bool(zero.any()):
        raise KeyError("a zero point that is not an int8 0")
    return torch.round(value.float() / scale.float()).clamp(-128, 127).to(torch.int8)


def _dequantize(attributes: Attributes, value: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    sized = _channelwise(scale, value, attributes)
    _all_used(attributes)
    if value.dtype != torch.int8 or bool(zero.any()):
        raise KeyError("integers that are not int8 around 0")
    return (value.float() * sized.float()).to(scale.dtype)


OPERATORS: Mapping[str, Operator] = {
    "Add": _plain(torch.add),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "Concat": _concat,
    "Conv": _conv,
    "DequantizeLinear": _dequantize,
    "Div": _plain(torch.div),
    "Erf": _plain(torch.erf),
    "Exp": _plain(torch.exp),
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _plain(_global_average_pool),
    "Greater": _plain(torch.gt),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _plain(F.hardswish),
    "LayerNormalization": _layer_normalization,
    "MatMul": _plain(torch.matmul),
    "MaxPool": _max_pool,
    "Mul": _plain(torch.mul),
    "QuantizeLinear": _quantize,
    "ReduceMean": _reduced(torch.mean),
    "ReduceSum": _reduced(torch.sum),
    "Relu": _plain(torch.relu),
    "Reshape": _reshape,
    "Sigmoid": _plain(torch.sigmoid),
    "Slice": _slice,
    "Softmax": _softmax,
    "Sqrt": _plain(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _plain(torch.sub),
    "Transpose": _transpose,
}
"""ONNX's name to PyTorch's kernel."""
