"""Small residual networks that keep every rule of TensorRT, to break one rule at a time, and targets to check them against.

`residual()` is what edgekit exports for TensorRT 10: strongly typed, float16, opset 19. `residual(typed=False)` is for 8.6: float32, opset 17.
"""
# ruff: noqa: TID253 - building ONNX graphs takes onnx

from __future__ import annotations

import dataclasses

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edgekit.catalog.target import EngineChoice, JetPack, Jetson, Target, TensorRt

SIDE, WIDTH, CLASSES = 16, 32, 3

MODULE = Jetson(
    part_numbers=("p3767-0003",),
    soc="t234",
    compute_capability="8.7",
    multiprocessors=8,
    memory_mib=8192,
    dla_cores=0,
    dla_generation=0,
    sparsity_2_4=False,
    io_coherent=True,
    jetpacks=(JetPack(version="6.2", l4t="36.4.3", tensorrt="10.3", cuda="12.6", python="3.10"),),
)


def target(*versions, opset=19, typed=True, **module):
    """A Jetson with these TensorRT versions; `module` changes fields of the module."""
    jetpacks = (dataclasses.replace(MODULE.jetpacks[0], tensorrt=versions[0]),)
    return Target(
        name="a-jetson",
        title="A Jetson",
        architectures=("aarch64",),
        engines=(EngineChoice(name="tensorrt-int8", settings={}),),
        jetson=dataclasses.replace(MODULE, jetpacks=jetpacks, **module),
        tensorrt=TensorRt(versions=versions, opset=opset, strongly_typed=typed),
    )


TYPED = target("10.3", "10.16", "11.4")
UNTYPED = target("8.6", opset=17, typed=False)


class Graph:
    """Nodes and initializers, added one by one."""

    def __init__(self, dtype):
        self.dtype = dtype
        self.nodes = []
        self.initializers = []
        self.random = np.random.default_rng(0)

    def add(self, op_type, inputs, name, **attributes):
        """A node of one output, which has the node's name."""
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name, values):
        self.initializers.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def weight(self, name, *shape, axis=0, quantized=True):
        """A weight: int8 behind a DequantizeLinear with one scale for each output channel, float32 with a pair behind it for TensorRT before 10, or float."""
        values = self.random.integers(-127, 128, shape)
        if not quantized:
            return self.constant(f"{name}_weight", (values / 100).astype(self.dtype))
        count = shape[axis]
        integers = self.dtype == np.float16
        stored = self.constant(f"{name}_weight", values.astype(np.int8) if integers else (values * 0.01).astype(np.float32))
        parts = [self.constant(f"{name}_scale", np.full(count, 0.01, self.dtype)), self.constant(f"{name}_zero", np.zeros(count, np.int8))]
        if not integers:
            stored = self.add("QuantizeLinear", [stored, *parts], f"{name}_q", axis=axis)
        return self.add("DequantizeLinear", [stored, *parts], f"{name}_dq", axis=axis)

    def pair(self, source, name, *, quantized=True):
        """A quantize and a dequantize node behind a tensor."""
        if not quantized:
            return source
        parts = [self.constant(f"{name}_scale", np.array(0.05, self.dtype)), self.constant(f"{name}_zero", np.array(0, np.int8))]
        self.add("QuantizeLinear", [source, *parts], f"{name}_q")
        return self.add("DequantizeLinear", [f"{name}_q", *parts], f"{name}_dq")

    def convolution(self, source, name, inputs, *, quantized=True):
        weight = self.weight(name, WIDTH, inputs, 3, 3, quantized=quantized)
        bias = self.constant(f"{name}_bias", np.zeros(WIDTH, self.dtype))
        return self.add("Conv", [source, weight, bias], name, kernel_shape=[3, 3], pads=[1, 1, 1, 1])


def residual(*, typed=True, quantized=True):
    """A frame, three convolutions with one skip connection, and a classifier.

    Tensors have the names of the nodes that make them: `planes` (float32), `stem`, `relu1`, `conv2`, `relu2`, `conv3`, `sum`, `relu3`, `pool`, `logits`; pairs
    are `a0` (before the stem), `a1` (behind `relu1`, read by `conv2` and the skip), `a2` (before `conv3`) and `a3` (before the pooling), with nodes `_q`, `_dq`
    and initializers `_scale`, `_zero`.
    """
    graph = Graph(np.float16 if typed else np.float32)
    graph.add("Cast", ["frame"], "pixels", to=TensorProto.FLOAT)
    graph.add("Transpose", ["pixels"], "planes", perm=[0, 3, 1, 2])
    graph.add("Mul", ["planes", graph.constant("std", np.full((1, 1, 1, 1), 0.01, np.float32))], "normalized")
    source = graph.add("Cast", ["normalized"], "half", to=TensorProto.FLOAT16) if typed else "normalized"
    graph.convolution(graph.pair(source, "a0", quantized=quantized), "stem", 1, quantized=quantized)
    graph.add("Relu", ["stem"], "relu1")
    skip = graph.pair("relu1", "a1", quantized=quantized)
    graph.convolution(skip, "conv2", WIDTH, quantized=quantized)
    graph.add("Relu", ["conv2"], "relu2")
    graph.convolution(graph.pair("relu2", "a2", quantized=quantized), "conv3", WIDTH, quantized=quantized)
    graph.add("Add", ["conv3", skip], "sum")
    graph.add("Relu", ["sum"], "relu3")
    graph.add("GlobalAveragePool", [graph.pair("relu3", "a3", quantized=quantized)], "pool")
    graph.add("Flatten", ["pool"], "features")
    graph.weight("fc", CLASSES, WIDTH, quantized=False)
    graph.constant("fc_bias", np.zeros(CLASSES, graph.dtype))
    graph.add("Gemm", ["features", "fc_weight", "fc_bias"], "scores" if typed else "logits", transB=1)
    if typed:
        graph.add("Cast", ["scores"], "logits", to=TensorProto.FLOAT)
    return helper.make_model(
        helper.make_graph(
            graph.nodes,
            "residual",
            [helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, SIDE, SIDE, 1])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES])],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", 19 if typed else 17)],
        ir_version=8,
    )


def node(model, name):
    (found,) = [item for item in model.graph.node if item.name == name]
    return found


def set_constant(model, name, values):
    """Gives an initializer another value, or adds one."""
    for item in model.graph.initializer:
        if item.name == name:
            item.CopyFrom(numpy_helper.from_array(np.asarray(values), name))
            return name
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
    return name


def get_constant(model, name):
    (found,) = [item for item in model.graph.initializer if item.name == name]
    return numpy_helper.to_array(found)


def set_attribute(item, **attributes):
    kept = [attribute for attribute in item.attribute if attribute.name not in attributes]
    del item.attribute[:]
    item.attribute.extend([*kept, *[helper.make_attribute(name, value) for name, value in attributes.items()]])


def insert(model, before, op_type, inputs, outputs, **attributes):
    """Puts a node before another one; the first output is its name."""
    made = helper.make_node(op_type, inputs, outputs, name=outputs[0], domain=attributes.pop("domain", ""), **attributes)
    position = next((index for index, item in enumerate(model.graph.node) if item.name == before), len(model.graph.node))
    model.graph.node.insert(position, made)
    return outputs[0]


def append(model, op_type, inputs, *outputs, **attributes):
    """Puts a node at the end that nobody reads."""
    return insert(model, None, op_type, inputs, list(outputs), **attributes)


def insert_pair(model, before, source, name, *, scale=0.05, dtype=np.float16):
    """Puts a quantize and a dequantize node behind a tensor; returns the dequantized tensor."""
    parts = [set_constant(model, f"{name}_scale", np.array(scale, dtype)), set_constant(model, f"{name}_zero", np.array(0, np.int8))]
    insert(model, before, "QuantizeLinear", [source, *parts], [f"{name}_q"])
    return insert(model, before, "DequantizeLinear", [f"{name}_q", *parts], [f"{name}_dq"])


def read_instead(model, name, old, new):
    """Makes a node read another tensor."""
    item = node(model, name)
    inputs = [new if source == old else source for source in item.input]
    if list(item.input) == inputs:
        raise LookupError(f"{name} does not read {old}")
    del item.input[:]
    item.input.extend(inputs)


def set_opset(model, version):
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", version))


def write(model, path):
    path.write_bytes(model.SerializeToString())
    return path
