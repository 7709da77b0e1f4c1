"""The fallback: the head's answers to one position at a time, by running the head itself on masked features; and what cannot be masked."""
# ruff: noqa: TID253 - the passes are written against onnx-ir

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from network_builders import run_onnx
from onnx import TensorProto, checker, helper, numpy_helper, shape_inference

from edgekit.compiler.explain.find import explain
from edgekit.compiler.explain.head import in_head

CHANNELS, ROWS, COLUMNS, OUTPUTS = 4, 2, 3, 3
POSITIONS = ROWS * COLUMNS
RANDOM = np.random.default_rng(4)
FRAME = RANDOM.normal(size=(1, CHANNELS, ROWS, COLUMNS)).astype(np.float32)
node = helper.make_node


def weights(*shape):
    return RANDOM.normal(size=shape)


AXES = {"axes": np.array([2, 3])}
LINEAR = {"w": weights(CHANNELS, OUTPUTS), "b": weights(OUTPUTS)}
LAST = node("Gemm", ["f", "w", "b"], ["y"])
FLAT = node("Flatten", ["p"], ["f"])
# Sum of one value: what it does is nothing, and no rule is known for it.
UNKNOWN_MEAN = [node("GlobalAveragePool", ["r"], ["q"]), node("Sum", ["q"], ["p"]), FLAT]

HEADS = {
    "norm-pooling": ([node("GlobalLpPool", ["r"], ["p"]), FLAT, LAST], LINEAR),
    "log-sum-exp": ([node("ReduceLogSumExp", ["r", "axes"], ["f"], keepdims=0), LAST], {**LINEAR, **AXES}),
    "normalized-logits": (
        [node("GlobalAveragePool", ["r"], ["p"]), FLAT, node("Gemm", ["f", "w", "b"], ["z"]), node("LogSoftmax", ["z"], ["y"], axis=1)],
        LINEAR,
    ),
    "softmax-of-features": (
        [node("GlobalAveragePool", ["r"], ["p"]), FLAT, node("Softmax", ["f"], ["s"]), node("Gemm", ["s", "w", "b"], ["y"])],
        LINEAR,
    ),
    "unknown-activation-on-all-positions": (
        [node("Reshape", ["r", "one"], ["f"]), node("Gemm", ["f", "w1"], ["h"], transB=1), node("Selu", ["h"], ["a"]), node("MatMul", ["a", "w2"], ["y"])],
        {"one": np.array([1, -1]), "w1": weights(5, CHANNELS * POSITIONS), "w2": weights(5, OUTPUTS)},
    ),
    "convolution-and-power": (
        [node("Conv", ["r", "k"], ["c"]), node("Reshape", ["c", "one"], ["f"]), node("Mish", ["f"], ["a"]), node("Gemm", ["a", "w2", "b"], ["y"])],
        {"k": weights(5, CHANNELS, ROWS, COLUMNS), "one": np.array([1, 5]), "w2": weights(5, OUTPUTS), "b": weights(OUTPUTS)},
    ),
    "expanded": (
        [*UNKNOWN_MEAN, node("MatMul", ["f", "column"], ["m"]), node("Expand", ["m", "sizes"], ["e"]), node("Mul", ["e", "b"], ["y"])],
        {"column": weights(CHANNELS, 1), "sizes": np.array([1, OUTPUTS]), "b": weights(OUTPUTS)},
    ),
    "two-paths": (
        [
            node("GlobalLpPool", ["r"], ["p"]),
            FLAT,
            node("ReduceMax", ["r", "axes"], ["g"], keepdims=0),
            node("Concat", ["f", "g"], ["j"], axis=-1),
            node("Gemm", ["j", "w", "b"], ["y"]),
        ],
        {**AXES, "w": weights(2 * CHANNELS, OUTPUTS), "b": weights(OUTPUTS)},
    ),
    "channels-last": (
        [
            node("Transpose", ["r"], ["t"], perm=[0, 2, 3, 1]),
            node("LayerNormalization", ["t", "scale"], ["n"]),
            node("ReduceLogSumExp", ["n", "inner"], ["f"], keepdims=0),
            node("Gemm", ["f", "w", "b"], ["y"]),
        ],
        {**LINEAR, "scale": weights(CHANNELS), "inner": np.array([1, 2])},
    ),
    "unsqueezed": (
        [
            node("ReduceLogSumExp", ["r", "axes"], ["f"], keepdims=0),
            node("Unsqueeze", ["f", "last"], ["u"]),
            node("Squeeze", ["u", "last"], ["s"]),
            node("Gemm", ["s", "w", "b"], ["y"]),
        ],
        {**LINEAR, **AXES, "last": np.array([-1])},
    ),
}  # fmt: skip


def graph_of(nodes, initializers, *, head_only=False):
    """A Relu for the network, and a head; or the head alone, on the features."""
    first, name = ([], "r") if head_only else ([node("Relu", ["x"], ["r"])], "x")
    arrays = [
        numpy_helper.from_array(array.astype(np.float32) if array.dtype.kind == "f" else array.astype(np.int64), key)
        for key, array in initializers.items()
    ]
    graph = helper.make_graph(
        [*first, *nodes],
        "head",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, FRAME.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, OUTPUTS))],
        arrays,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)


def by_brute_force(nodes, initializers):
    """N · (head(A · e_ij) − head(0)) with the head as it was, one pass a position: (outputs, rows, columns)."""
    features = np.maximum(FRAME, 0)
    alone = np.zeros((POSITIONS + 1, *features.shape[1:]), dtype=np.float32)
    for index, place in enumerate(np.ndindex(ROWS, COLUMNS)):
        alone[(index, slice(None), *place)] = features[(0, slice(None), *place)]
    *answers, none = run_onnx(graph_of(nodes, initializers, head_only=True).SerializeToString(), alone)[0]
    return POSITIONS * (np.stack(answers) - none).T.reshape(OUTPUTS, ROWS, COLUMNS)


def masked(nodes, initializers):
    proto = graph_of(nodes, initializers)
    model = ir.from_proto(proto)
    found = explain(model, "masking")
    assert not isinstance(found, str), found
    after = ir.to_proto(model)
    checker.check_model(after, full_check=True)
    before = run_onnx(proto.SerializeToString(), FRAME)[0]
    return found, model, before, run_onnx(after.SerializeToString(), FRAME)


@pytest.mark.parametrize(("nodes", "initializers"), HEADS.values(), ids=HEADS)
def test_the_map_is_the_heads_answer_to_each_position_alone(nodes, initializers):
    """As the head itself says, for every logit; logits are what they were, and the offset is the rest."""
    found, model, before, (logits, maps, offset) = masked(nodes, initializers)
    assert (found.kind, found.rows, found.columns, found.bias) == ("masking", ROWS, COLUMNS, ())
    assert maps[0] == pytest.approx(by_brute_force(nodes, initializers), rel=1e-4, abs=1e-4)
    assert logits == pytest.approx(before, abs=1e-6)
    assert maps.mean(axis=(2, 3)) + offset == pytest.approx(logits, abs=1e-4)
    assert not [part.name for part in model.graph if in_head(part) and any(value.name == "logits" for value in part.outputs)]


def test_behind_a_mean_and_a_linear_layer_it_is_the_exact_map():
    """W · features, where no rule saw that the head is linear."""
    found, _, _, (_, maps, _) = masked([*UNKNOWN_MEAN, LAST], LINEAR)
    assert found.kind == "masking"
    expected = np.einsum("co,ncrq->norq", LINEAR["w"], np.maximum(FRAME, 0))
    assert np.abs(maps - expected).max() <= 1e-5 * np.abs(expected).max()


def test_it_is_asked_for():
    """It costs as many passes as there are positions, so nobody gets it unasked; the reason names what was found, and how to ask."""
    for choice in ("auto", "none"):
        model = ir.from_proto(graph_of([*UNKNOWN_MEAN, LAST], LINEAR))
        before = ir.to_proto(model).SerializeToString(deterministic=True)
        found = explain(model, choice)
        assert isinstance(found, str)
        assert ir.to_proto(model).SerializeToString(deterministic=True) == before
        assert ("the operator Sum" in found and 'map = "masking"' in found) == (choice == "auto")


def test_a_head_with_a_map_of_its_own_is_not_masked():
    """The fallback is for what has none."""
    model = ir.from_proto(graph_of([node("GlobalAveragePool", ["r"], ["p"]), FLAT, LAST], LINEAR))
    assert explain(model, "masking").kind == "pooled-linear"


def test_its_cost_is_that_of_the_passes():
    """N + 1 passes of every layer of the head, and the title says so."""
    found, *_ = masked([*UNKNOWN_MEAN, LAST], LINEAR)
    assert found.multiplications == (POSITIONS + 1) * CHANNELS * OUTPUTS
    assert found.title == f"{POSITIONS + 1} passes of GlobalAveragePool → Sum → Flatten → Gemm"
    nodes, initializers = HEADS["unknown-activation-on-all-positions"]
    found, *_ = masked(nodes, initializers)
    assert found.multiplications == (POSITIONS + 1) * (CHANNELS * POSITIONS * 5 + 5 * OUTPUTS)


SUM = [*UNKNOWN_MEAN, node("Gemm", ["f", "w", "b"], ["z"])]
REFUSED = {
    "softmax-over-frames": ([*SUM, node("LogSoftmax", ["z"], ["y"], axis=0)], LINEAR, "which may work across frames"),
    "maximum-over-frames": ([*SUM, node("ReduceMax", ["z", "first"], ["y"])], {**LINEAR, "first": np.array([0])}, "which may work across frames"),
    "maximum-over-everything": ([*SUM, node("ReduceMax", ["z"], ["m"]), node("Mul", ["z", "m"], ["y"])], LINEAR, "which may work across frames"),
    "frames-turned": ([*SUM, node("Transpose", ["z"], ["t"], perm=[1, 0]), node("Transpose", ["t"], ["y"], perm=[1, 0])], LINEAR, "not of one frame"),
    "frames-turned-among-themselves": (
        [node("GlobalLpPool", ["r"], ["p"]), node("Flatten", ["p"], ["f"]), node("MatMul", ["f", "column"], ["m"]), node("Transpose", ["m"], ["t"], perm=[1, 0]), node("Mul", ["t", "b"], ["y"])],
        {"column": weights(CHANNELS, 1), "b": weights(OUTPUTS)},
        "which may work across frames",
    ),
    "product-with-another-frame": (
        [node("GlobalLpPool", ["r"], ["p"]), node("Flatten", ["p"], ["f"]), node("MatMul", ["f", "column"], ["m"]), node("MatMul", ["f", "w"], ["z"]), node("MatMul", ["m", "z"], ["y"])],
        {"column": weights(CHANNELS, 1), "w": weights(CHANNELS, OUTPUTS)},
        "which may work across frames",
    ),
    "an-operator-of-no-table": ([*SUM, node("CumSum", ["z", "zero"], ["y"])], {**LINEAR, "zero": np.array(1)}, "which may work across frames"),
    "ranks-that-differ": (
        [*SUM, node("Reshape", ["z", "three"], ["v"]), node("Mul", ["z", "v"], ["m"]), node("Reshape", ["m", "one"], ["y"])],
        {**LINEAR, "three": np.array([1, 1, 3]), "one": np.array([1, 3])},
        "which may work across frames",
    ),
    "frames-turned-by-default": ([*SUM, node("Transpose", ["z"], ["t"]), node("Transpose", ["t"], ["y"])], LINEAR, "not of one frame"),
    "frames-sliced": ([*SUM, node("Slice", ["z", "zero", "one", "zero"], ["y"])], {**LINEAR, "zero": np.array([0]), "one": np.array([1])}, "which may work across frames"),
    "frames-gathered": ([*SUM, node("Gather", ["z", "zero"], ["y"], axis=0)], {**LINEAR, "zero": np.array([0])}, "which may work across frames"),
    "frame-axis-removed": (
        [*SUM, node("Squeeze", ["z", "zero"], ["s"]), node("Unsqueeze", ["s", "zero"], ["y"])],
        {**LINEAR, "zero": np.array([0])},
        "not of one frame",
    ),
    "frame-flattened-away": (
        [*SUM, node("Flatten", ["z"], ["s"], axis=0), node("Sum", ["s"], ["y"])],
        LINEAR,
        "which may work across frames",
    ),
    "no-features": (
        [node("Reshape", ["r", "one"], ["f"]), node("Selu", ["f"], ["a"]), node("Gemm", ["a", "w"], ["g"]), node("Reshape", ["x", "one"], ["xf"]), node("Gemm", ["xf", "w"], ["h"]), node("Add", ["g", "h"], ["y"])],
        {"one": np.array([1, -1]), "w": weights(CHANNELS * POSITIONS, OUTPUTS)},
        "nothing in the network is a map of features that all of the answer passes through",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("nodes", "initializers", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_head_that_mixes_what_it_is_asked_together_is_refused(nodes, initializers, reason):
    """Its answers to a batch would not be its answers to the frames; the graph stays as it was."""
    model = ir.from_proto(graph_of(nodes, initializers))
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    found = explain(model, "masking")
    assert isinstance(found, str), found
    assert reason in found
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
