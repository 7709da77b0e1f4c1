"""The checks of float16 that are run on a GPU, on the CPU's float16: right arithmetic passes, and wrong arithmetic is found.

The graph reader that takes a graph to the GPU is compared with ONNX Runtime here, operator by operator.
"""
# ruff: noqa: TID253 - graphs by hand take onnx

from __future__ import annotations

import runpy

import half_checks
import numpy as np
import onnx
import onnx_on_torch
import pytest
import qdq_builders
import repository
import torch
from onnx import TensorProto, helper, numpy_helper

ON_A_GPU = runpy.run_path(str(repository.ROOT / "tests" / "gpu" / "test_half_numerics.py"))
SHALLOW = {
    "resnet18": {"layers": (1, 1, 1, 1)},
    "mobilenetv3_small_050": {},
    "densenet121": {"block_config": (2, 2, 2, 2)},
    "vit_tiny_patch16_224": {"img_size": 64, "depth": 2},
    "convnext_atto": {"depths": (1, 1, 1, 1)},
}
"""Architecture to what leaves it its operators and makes it small."""


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """The explained graph of a small residual network, and its input."""
    return half_checks.explained_by_hand(tmp_path_factory.mktemp("network"))


@pytest.fixture(scope="module", params=half_checks.ENGINES)
def written(request, graph, tmp_path_factory):
    """The graph as it is written for an engine."""
    return half_checks.write(*graph, request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def noted():
    """What a check puts down."""
    return {}


def test_right_arithmetic_passes(written, noted):
    """PyTorch's float16 on the CPU answers as the oracle foresaw, and what was measured is put down."""
    half_checks.check_answers(written, half_checks.on_torch("cpu")(written.content), noted.__setitem__)
    assert {"logits", "maps", "maps' cells"} == set(noted)


def test_the_edges_pass(noted):
    """PyTorch's float16 on the CPU gives the oracle's numbers exactly, and there are subnormal and infinite values among them."""
    half_checks.check_edges(half_checks.on_torch("cpu"), noted.__setitem__)
    assert " 0 " not in noted["values"]


@pytest.fixture(scope="module", params=ON_A_GPU["ARCHITECTURES"])
def shallow(request, tmp_path_factory):
    """The graph of an architecture of the GPU's tests, with fewer blocks and small frames."""
    return half_checks.explained(request.param, 64, tmp_path_factory.mktemp(request.param), **SHALLOW[request.param])


@pytest.mark.parametrize("engine", ON_A_GPU["ENGINES"])
def test_the_reader_knows_every_operator_of_the_gpus_graphs(shallow, engine, tmp_path, noted):
    """Each kind of graph that is taken to a GPU opens, and answers on the CPU as the oracle foresaw."""
    written = half_checks.write(*shallow, engine, tmp_path)
    half_checks.check_answers(written, half_checks.on_torch("cpu")(written.content), noted.__setitem__)
    assert noted


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ON_A_GPU["ARCHITECTURES"])
def test_the_gpus_graphs_are_right_on_the_cpu(architecture, tmp_path, noted):
    """The very graphs that are taken to a GPU answer as the oracle foresaw with the CPU's float16: what fails there is the GPU's."""
    graph = half_checks.explained(architecture, 224, tmp_path)
    for engine in ON_A_GPU["ENGINES"]:
        written = half_checks.write(*graph, engine, tmp_path)
        half_checks.check_answers(written, half_checks.on_torch("cpu")(written.content), noted.__setitem__)


def shifted(answer, **by):
    """An answer with something added to its outputs."""
    return lambda frame: {name: value + by.get(name, 0.0) for name, value in answer(frame).items()}


@pytest.mark.parametrize("fault", ["logits", "maps", "nan", "bfloat16", "weights"])
def test_wrong_arithmetic_is_found(graph, fault, tmp_path, noted, monkeypatch):
    """Logits or maps that are off, what is no number, three bits fewer, and a layer of the float16 graph that was changed are found."""
    written = half_checks.write(*graph, "tensorrt-fp16", tmp_path)
    content = written.content
    if fault == "bfloat16":
        monkeypatch.setattr(onnx_on_torch, "TYPES", {**onnx_on_torch.TYPES, TensorProto.FLOAT16: torch.bfloat16})
    if fault == "weights":
        model = onnx.load_model_from_string(content)
        weight = next(item for item in model.graph.initializer if item.data_type == TensorProto.FLOAT16 and len(item.dims) == 4)
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float16(1.05), weight.name))
        content = model.SerializeToString()
    answer = half_checks.on_torch("cpu")(content)
    if fault == "bfloat16":
        for name, value in answer._constants.items():
            answer._constants[name] = value.to(torch.bfloat16) if value.dtype == torch.float16 else value
    if fault in {"logits", "nan"}:
        answer = shifted(answer, logits=np.float32("nan" if fault == "nan" else 1.0))
    if fault == "maps":
        whole = answer
        answer = lambda frame: {**whole(frame), "cam": whole(frame)["cam"] * np.float32(1.01)}  # noqa: E731 - as the others
    with pytest.raises(AssertionError):
        half_checks.check_answers(written, answer, noted.__setitem__)


@pytest.mark.parametrize("fault", ["flushed", "saturated", "cut"])
def test_wrong_rounding_is_found(fault, noted):
    """Subnormals that are flushed to 0, what is too large for float16 made the largest, and rounding towards 0 are found."""

    def opened(content):
        answer = half_checks.on_torch("cpu")(content)
        return lambda frame: {name: broken(value) for name, value in answer(frame).items()}

    def broken(value):
        if fault == "flushed":
            return np.where(np.abs(value) < 2.0**-14, np.float32(0), value)
        if fault == "saturated":
            return np.clip(value, -65504, 65504)
        return np.where(np.abs(value) > 1, np.float32(np.nextafter(value, np.float32(0))), value)

    with pytest.raises(AssertionError):
        half_checks.check_edges(opened, noted.__setitem__)


X, Y = (1, 4, 6, 6), (1, 3, 8)
OPERATORS = {
    "Add": ([X, X], [], {}),
    "AveragePool": ([X], [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    "BatchNormalization": ([X], [np.ones(4) * 2, np.ones(4) * 0.5, np.arange(4.0), np.arange(4.0) + 1], {"epsilon": 1e-3}),
    "Concat": ([X, X], [], {"axis": 1}),
    "Conv": (
        [X],
        [np.random.default_rng(1).normal(size=(8, 2, 3, 3)), np.arange(8.0)],
        {"group": 2, "pads": [0, 0, 1, 1], "strides": [2, 2]},
    ),
    "Div": ([X, X], [], {}),
    "Erf": ([X], [], {}),
    "Exp": ([X], [], {}),
    "Flatten": ([X], [], {"axis": 2}),
    "Gather": ([X], [np.array([[2, -1]])], {"axis": 1}),
    "Gelu": ([X], [], {"approximate": "tanh"}),
    "Gemm": ([(3, 5)], [np.random.default_rng(2).normal(size=(4, 5)), np.arange(4.0)], {"transB": 1}),
    "GlobalAveragePool": ([X], [], {}),
    "Greater": ([X, (4, 1, 6)], [], {}),
    "HardSigmoid": ([X], [], {"alpha": 1 / 6, "beta": 0.5}),
    "HardSwish": ([X], [], {}),
    "LayerNormalization": ([Y], [np.arange(8.0), np.ones(8)], {"axis": -1, "epsilon": 1e-3}),
    "MatMul": ([Y, (1, 8, 5)], [], {}),
    "MaxPool": ([X], [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1], "ceil_mode": 1}),
    "Mul": ([X, X], [], {}),
    "ReduceMean": ([X], [np.array([2, 3])], {"keepdims": 0}),
    "ReduceSum": ([X], [np.array([1, -1])], {}),
    "Relu": ([X], [], {}),
    "Reshape": ([X], [np.array([0, -1, 3])], {}),
    "Sigmoid": ([X], [], {}),
    "Slice": ([X], [np.array([1, -4]), np.array([3, 100]), np.array([1, 3]), np.array([1, 2])], {}),
    "Softmax": ([X], [], {"axis": 1}),
    "Sqrt": ([X], [], {}),
    "Squeeze": ([(1, 3, 1, 4)], [np.array([0, 2])], {}),
    "Sub": ([X, X], [], {}),
    "Transpose": ([X], [], {"perm": [0, 2, 3, 1]}),
}
"""Operator to the shapes of what it is given, its constants, and its attributes."""

ELSEWHERE = {"Cast", "DequantizeLinear", "QuantizeLinear"}
"""Between every graph's frame and its outputs, and in the graphs for int8."""


def one_operator(operator, shapes, constants, attributes):
    """A graph of one operator on float values that are made of the frame."""
    nodes, values = [helper.make_node("Cast", ["frame"], ["single"], to=TensorProto.FLOAT)], []
    for index, shape in enumerate(shapes):
        values.append(numpy_helper.from_array(np.random.default_rng(index).normal(size=shape).astype(np.float32), f"other{index}"))
        nodes.append(helper.make_node("Mul", ["single", f"other{index}"], [f"input{index}"]))
    for index, value in enumerate(constants):
        kind = np.int64 if np.issubdtype(value.dtype, np.integer) else np.float32
        values.append(numpy_helper.from_array(value.astype(kind), f"constant{index}"))
    names = [*(f"input{index}" for index in range(len(shapes))), *(f"constant{index}" for index in range(len(constants)))]
    nodes.append(helper.make_node(operator, names, ["result"], **attributes))
    # Of what is true, 1.
    nodes.append(helper.make_node("Cast", ["result"], ["out"], to=TensorProto.FLOAT))
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, [1])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        values,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9).SerializeToString()


@pytest.mark.parametrize("operator", OPERATORS)
def test_an_operator_is_what_onnx_says(operator):
    """Each operator of the reader computes what ONNX Runtime computes."""
    content = one_operator(operator, *OPERATORS[operator])
    frame = np.array([3], dtype=np.uint8)
    (expected,) = qdq_builders.run(content, [np.uint8(3)], ["out"])
    found = onnx_on_torch.Program(content, "cpu")(frame)["out"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("operator", "attributes"),
    [("ReduceSum", {}), ("ReduceMean", {}), ("ReduceSum", {"noop_with_empty_axes": 1})],
    ids=["sum", "mean", "nothing"],
)
def test_a_reduction_without_axes_is_of_all_or_of_none(operator, attributes):
    """No axes are all of them, and none where the attribute says so."""
    content = one_operator(operator, [X], [], attributes)
    (expected,) = qdq_builders.run(content, [np.uint8(3)], ["out"])
    found = onnx_on_torch.Program(content, "cpu")(np.array([3], dtype=np.uint8))["out"]
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_every_operator_is_compared():
    """No operator of the reader is left out."""
    assert set(OPERATORS) | ELSEWHERE == set(onnx_on_torch.OPERATORS)


@pytest.mark.parametrize(
    ("operator", "case"),
    [
        ("Tan", ([X], [], {})),
        ("HardSigmoid", ([X], [], {"alpha": 0.3})),
        ("Gemm", ([(3, 5)], [np.ones((5, 4))], {"alpha": 2.0})),
        ("Conv", ([X], [np.ones((4, 4, 3, 3))], {"auto_pad": "SAME_UPPER"})),
    ],
)
def test_what_the_reader_does_not_know_is_refused(operator, case):
    """An operator or an attribute that is not in the table is refused by name, and nothing is computed in its place."""
    with pytest.raises(NotImplementedError, match=operator):
        onnx_on_torch.Program(one_operator(operator, *case), "cpu")(np.array([3], dtype=np.uint8))
