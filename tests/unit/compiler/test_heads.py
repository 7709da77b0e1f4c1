"""The map of a pooled linear head on hand-made graphs: every way such a head is written, and what has no map.

Heads of other kinds are in `test_reverse_pass.py` and `test_attention_map.py`.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir  # noqa: TID253 - the passes are written against it
import pytest
from network_builders import SIDE, onnx_model, run_onnx, write_onnx
from onnx import TensorProto, checker, helper, numpy_helper  # noqa: TID253

from edgekit.compiler import graph as g
from edgekit.compiler.explain.find import explain
from edgekit.compiler.explain.head import PREFIX, in_head
from edgekit.compiler.load.onnx_file import open_onnx
from edgekit.errors import ModelError
from edgekit.schema.model_io import InputSpec

CHANNELS = 4
RANDOM = np.random.default_rng(0)
KERNEL = RANDOM.normal(size=(CHANNELS, 3, 3, 3)).astype(np.float32)
WEIGHT = RANDOM.normal(size=(3, CHANNELS)).astype(np.float32)
BIAS = RANDOM.normal(size=3).astype(np.float32)
FRAME = RANDOM.normal(size=(2, 3, SIDE, SIDE)).astype(np.float32)
node = helper.make_node


def constants(**arrays):
    return [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]


AXES = constants(axes=np.array([2, 3], dtype=np.int64))
LINEAR = constants(w=np.ascontiguousarray(WEIGHT.T), b=BIAS)
POOLS = {
    "global-average-pool": ([node("GlobalAveragePool", ["r"], ["p"]), node("Flatten", ["p"], ["f"])], [], 20),
    "mean-by-input": ([node("ReduceMean", ["r", "axes"], ["f"], keepdims=0)], AXES, 20),
    "mean-by-attribute": ([node("ReduceMean", ["r"], ["f"], axes=[2, 3], keepdims=0)], [], 13),
    "mean-over-the-last-two": ([node("ReduceMean", ["r"], ["f"], axes=[-1, -2], keepdims=0)], [], 13),
    "mean-that-keeps-dimensions": ([node("ReduceMean", ["r", "axes"], ["p"]), node("Flatten", ["p"], ["f"])], AXES, 20),
    "whole-average-pool": ([node("AveragePool", ["r"], ["p"], kernel_shape=[SIDE, SIDE]), node("Flatten", ["p"], ["f"])], [], 20),
    "dropout-and-identity": (
        [
            node("GlobalAveragePool", ["r"], ["p"]),
            node("Dropout", ["p"], ["d"]),
            node("Identity", ["d"], ["i"]),
            node("Squeeze", ["i", "axes"], ["f"]),
        ],
        AXES,
        20,
    ),
}
HEADS = {
    "gemm": ([node("Gemm", ["f", "w", "b"], ["y"])], LINEAR, True),
    "gemm-transposed": ([node("Gemm", ["f", "w", "b"], ["y"], transB=1)], constants(w=WEIGHT, b=BIAS), True),
    "gemm-without-bias": ([node("Gemm", ["f", "w"], ["y"])], LINEAR[:1], False),
    "matmul-and-add": ([node("MatMul", ["f", "w"], ["m"]), node("Add", ["m", "b"], ["y"])], LINEAR, True),
    "add-of-a-bias-first": ([node("MatMul", ["f", "w"], ["m"]), node("Add", ["b", "m"], ["y"])], LINEAR, True),
    "matmul": ([node("MatMul", ["f", "w"], ["y"])], LINEAR[:1], False),
    "reshaped-logits": (
        [node("Gemm", ["f", "w", "b"], ["z"]), node("Reshape", ["z", "s"], ["y"])],
        [*LINEAR, *constants(s=np.array([1, -1], dtype=np.int64))],
        True,
    ),
}


def backbone(*tail, initializers=(), opset=20, last="y"):
    nodes = [node("Conv", ["x", "k"], ["c"], pads=[1, 1, 1, 1]), node("Relu", ["c"], ["r"]), *tail]
    outputs = [helper.make_tensor_value_info(last, TensorProto.FLOAT, [None, None])]
    return onnx_model(nodes, [*constants(k=KERNEL), *initializers], outputs=outputs, opset=opset)


def loaded(tmp_path, model):
    """The graph as the loader leaves it: static shapes, logits."""
    from network_builders import model_spec

    path = write_onnx(tmp_path / "net.onnx", model)
    spec = InputSpec(color="rgb", channels=3, resize=(SIDE, SIDE), mean=(0.0,) * 3, std=(1.0,) * 3)
    open_onnx(str(path), model_spec(f"onnx:{path}"), spec).export(tmp_path / "loaded.onnx")
    return ir.load(tmp_path / "loaded.onnx"), (tmp_path / "loaded.onnx").read_bytes()


def features():
    """Relu of the padded convolution of FRAME, computed here: float32 (frames, channels, rows, columns)."""
    padded = np.pad(FRAME, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.maximum(np.einsum("nchwij,ocij->nohw", windows, KERNEL), 0)


@pytest.mark.parametrize(("head", "weights", "biased"), HEADS.values(), ids=HEADS)
@pytest.mark.parametrize(("pool", "axes", "opset"), POOLS.values(), ids=POOLS)
def test_every_way_to_write_the_head_gets_its_map(tmp_path, pool, axes, opset, head, weights, biased):
    """The map is W · features; its mean plus the bias is the logit, and the logit is what it was."""
    model, before = loaded(tmp_path, backbone(*pool, *head, initializers=[*axes, *weights], opset=opset))
    found = explain(model)
    assert not isinstance(found, str), found
    logits, maps = run_onnx(ir.to_proto(model).SerializeToString(), FRAME)
    assert [value.name for value in model.graph.outputs] == ["logits", "cam"]
    bias = BIAS if biased else np.zeros(3, dtype=np.float32)
    assert logits == pytest.approx(run_onnx(before, FRAME)[0], abs=1e-4)
    assert maps == pytest.approx(np.einsum("oc,nchw->nohw", WEIGHT, features()), abs=1e-4)
    assert maps.mean((2, 3)) + bias == pytest.approx(logits, abs=1e-5)
    assert found.bias == tuple(bias.tolist())
    assert found.kind == "pooled-linear"


def test_a_pointwise_convolution_on_the_pooled_map_is_a_head(tmp_path):
    """As in EfficientNets exported from other frameworks."""
    tail = [node("GlobalAveragePool", ["r"], ["p"]), node("Conv", ["p", "w", "b"], ["z"]), node("Flatten", ["z"], ["y"])]
    model, before = loaded(tmp_path, backbone(*tail, initializers=constants(w=WEIGHT[:, :, None, None], b=BIAS)))
    explain(model)
    logits, maps = run_onnx(ir.to_proto(model).SerializeToString(), FRAME)
    assert logits == pytest.approx(run_onnx(before, FRAME)[0], abs=1e-4)
    assert maps == pytest.approx(np.einsum("oc,nchw->nohw", WEIGHT, features()), abs=1e-4)


def test_a_convolution_that_is_averaged_is_a_head(tmp_path):
    """SqueezeNet: the maps are there already, and W is the identity."""
    tail = [node("Conv", ["r", "w", "b"], ["z"]), node("GlobalAveragePool", ["z"], ["p"]), node("Flatten", ["p"], ["y"])]
    model, before = loaded(tmp_path, backbone(*tail, initializers=constants(w=WEIGHT[:, :, None, None], b=BIAS)))
    explain(model)
    logits, maps = run_onnx(ir.to_proto(model).SerializeToString(), FRAME)
    assert logits == pytest.approx(run_onnx(before, FRAME)[0], abs=1e-4)
    assert maps == pytest.approx(np.einsum("oc,nchw->nohw", WEIGHT, features()) + BIAS[:, None, None], abs=1e-4)


FLAT = [node("GlobalAveragePool", ["r"], ["p"]), node("Flatten", ["p"], ["f"])]
GEMM = node("Gemm", ["f", "w", "b"], ["y"])
NO_HEADS = {
    "mean-over-channels-too": (
        [node("ReduceMean", ["r", "all"], ["p"], keepdims=0), node("Reshape", ["p", "s"], ["f"]), node("Gemm", ["f", "w"], ["y"])],
        constants(all=np.array([1, 2, 3], dtype=np.int64), s=np.array([1, 1], dtype=np.int64), w=np.ones((1, 3), dtype=np.float32)),
        "the operator ReduceMean",
    ),
    "normalized-logits": (
        [*FLAT, node("Gemm", ["f", "w", "b"], ["z"]), node("LogSoftmax", ["z"], ["y"])],
        LINEAR,
        "the operator LogSoftmax",
    ),
    "weight-from-the-frame": (
        [*FLAT, node("Reshape", ["f", "s"], ["v"]), node("MatMul", ["f", "v"], ["m"]), node("Expand", ["m", "t"], ["y"])],
        constants(s=np.array([CHANNELS, 1], dtype=np.int64), t=np.array([1, 3], dtype=np.int64)),
        "the operator Expand",
    ),
    "transposed-gemm": (
        [*FLAT, node("Transpose", ["f"], ["t"]), node("Gemm", ["t", "w", "b"], ["y"], transA=1)],
        LINEAR,
        "a transposed input",
    ),
    "attention-that-sees-no-patches": (
        [*FLAT, node("Softmax", ["f"], ["a"], axis=1), node("Gemm", ["a", "w", "b"], ["y"])],
        LINEAR,
        "the operator Softmax",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("tail", "weights", "reason"), NO_HEADS.values(), ids=NO_HEADS)
def test_a_head_without_an_exact_map_says_why(tmp_path, tail, weights, reason):
    """A map that is not the decision would mislead, so there is none."""
    model, _ = loaded(tmp_path, backbone(*tail, initializers=weights))
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    found = explain(model)
    assert isinstance(found, str)
    assert reason in found
    assert 'map = "masking"' in found
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("name", ["logits", "cam", "frame"])
def test_a_value_of_the_users_may_have_edgekits_names(tmp_path, name):
    """The graph still has one value of each name, and answers the same."""
    from edgekit.compiler.export import preamble

    model = backbone(*FLAT, GEMM, initializers=LINEAR)
    for part in model.graph.node:
        part.input[:] = [name if value == "r" else value for value in part.input]
        part.output[:] = [name if value == "r" else value for value in part.output]
    graph, before = loaded(tmp_path, model)
    preamble.attach(graph, InputSpec(color="rgb", channels=3, resize=(SIDE, SIDE), mean=(0.0,) * 3, std=(1.0,) * 3))
    explain(graph)
    frames = RANDOM.integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8)
    logits, _ = run_onnx(ir.to_proto(graph).SerializeToString(), frames)
    assert logits == pytest.approx(run_onnx(before, frames.astype(np.float32).transpose(0, 3, 1, 2))[0], rel=1e-4, abs=1e-2)
    assert [value.name for value in (*graph.graph.inputs, *graph.graph.outputs)] == ["frame", "logits", "cam"]


@pytest.mark.parametrize("old", ["k", "w", "c", "r"])
def test_a_model_may_name_its_own_parts_like_the_head(tmp_path, old):
    """What is named like the head stays float, so the model's own gets another name; no name stands for two things."""
    model = backbone(*FLAT, GEMM, initializers=LINEAR)
    new = f"{PREFIX}{'conv_0' if old in 'cr' else 'constant_0'}"
    for part in model.graph.node:
        part.input[:] = [new if value == old else value for value in part.input]
        part.output[:] = [new if value == old else value for value in part.output]
        part.name = f"{PREFIX}own_{part.op_type}"
    for tensor in model.graph.initializer:
        tensor.name = new if tensor.name == old else tensor.name
    graph, before = loaded(tmp_path, model)
    assert not isinstance(explain(graph), str)
    proto = ir.to_proto(graph)
    checker.check_model(proto, full_check=True)
    assert run_onnx(proto.SerializeToString(), FRAME)[0] == pytest.approx(run_onnx(before, FRAME)[0], abs=1e-4)
    assert [part.op_type for part in graph.graph if not in_head(part)] == ["Conv", "Relu"]


def test_a_padded_pooling_as_large_as_the_map_leaves_positions(tmp_path):
    """With `auto_pad` its result is as large as what it reads, so it is not the mean that the head reads."""
    tail = [
        node("AveragePool", ["r"], ["p"], kernel_shape=[SIDE, SIDE], auto_pad="SAME_UPPER"),
        node("GlobalMaxPool", ["p"], ["g"]),
        node("Flatten", ["g"], ["f"]),
        GEMM,
    ]
    model, before = loaded(tmp_path, backbone(*tail, initializers=LINEAR))
    found = explain(model)
    assert (found.kind, found.rows, found.columns) == ("complete", SIDE, SIDE)
    assert run_onnx(ir.to_proto(model).SerializeToString(), FRAME)[0] == pytest.approx(run_onnx(before, FRAME)[0], abs=1e-4)


def test_logits_that_do_not_depend_on_the_frame_have_no_map(tmp_path):
    """As of a last layer that is still all zeros; the graph stays as it was."""
    zeros = constants(none=np.zeros((CHANNELS * SIDE * SIDE, 3), dtype=np.float32), b=BIAS)
    tail = [node("Flatten", ["r"], ["f"]), node("Gemm", ["f", "none", "b"], ["y"])]
    model, _ = loaded(tmp_path, backbone(*tail, initializers=zeros))
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    assert str(explain(model)).startswith("the logits do not depend on the frame")
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_an_attached_head_leaves_nothing_behind(tmp_path):
    """The old pool and linear layer are gone, so no engine computes them."""
    model, _ = loaded(tmp_path, backbone(*FLAT, GEMM, initializers=LINEAR))
    explain(model)
    assert [part.op_type for part in model.graph] == ["Conv", "Relu", "Conv", "ReduceMean", "Add"]
    assert {name for name in model.graph.initializers if not name.startswith(PREFIX)} == {"k"}
    assert [in_head(part) for part in model.graph] == [False, False, True, True, True]


def test_a_shape_that_is_not_static_is_no_shape(tmp_path):
    """The passes ask for static shapes only."""
    model, _ = loaded(tmp_path, backbone(*FLAT, GEMM, initializers=LINEAR))
    value = model.graph.inputs[0]
    assert g.shape(value) == (1, 3, SIDE, SIDE)
    value.shape = ir.Shape([1, 3, "H", SIDE])
    assert g.shape(value) is None
    assert g.shape(None) is None


def test_the_preamble_refuses_a_graph_that_does_not_take_floats(tmp_path):
    """Its own Cast would otherwise be undone."""
    from edgekit.compiler.export import preamble

    model, _ = loaded(tmp_path, backbone(*FLAT, GEMM, initializers=LINEAR))
    model.graph.inputs[0].type = ir.TensorType(ir.DataType.FLOAT16)
    with pytest.raises(ModelError, match="the model takes FLOAT16"):
        preamble.attach(model, InputSpec(color="rgb", channels=3, resize=(SIDE, SIDE), mean=(0.0,) * 3, std=(1.0,) * 3))
