"""Heads that are not linear: the map is gradient · features by numbers alone, and map and rest add up to the logit."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir  # noqa: TID253 - the passes are written against it
import pytest
from network_builders import run_onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference  # noqa: TID253
from onnx.reference import ReferenceEvaluator  # noqa: TID253

from edgekit.compiler.explain.find import explain

CHANNELS, ROWS, COLUMNS, OUTPUTS = 4, 2, 3, 3
RANDOM = np.random.default_rng(3)
# Away from kinks and ties; all positive, as roots and powers want.
FEATURES = RANDOM.uniform(0.2, 2.0, (1, CHANNELS, ROWS, COLUMNS))
node = helper.make_node


def weights(*shape):
    return RANDOM.normal(size=shape)


def tensors(**arrays):
    return {name: np.asarray(array) for name, array in arrays.items()}


LINEAR = tensors(w=weights(CHANNELS, OUTPUTS), b=weights(OUTPUTS))
HIDDEN = tensors(w1=2 * weights(CHANNELS, 5), b1=weights(5), w2=weights(5, OUTPUTS), b2=weights(OUTPUTS))
MEAN = [node("GlobalAveragePool", ["x"], ["p"]), node("Flatten", ["p"], ["f"])]
LAST = node("Gemm", ["f", "w", "b"], ["y"])


def hidden(*activation, attributes=(), **more):
    """Mean, linear, an activation, linear; `activation` names operators from h to a."""
    names = ["h", *(f"h{index}" for index in range(1, len(activation))), "a"]
    middle = [
        node(kind, [names[index], *extra], [names[index + 1]], **dict(attributes))
        for index, (kind, *extra) in enumerate(item if isinstance(item, tuple) else (item,) for item in activation)
    ]
    return [*MEAN, node("Gemm", ["f", "w1", "b1"], ["h"]), *middle, node("Gemm", ["a", "w2", "b2"], ["y"])], {**HIDDEN, **tensors(**more)}


def gated(kind, **attributes):
    """A head with x · gate(x) in its middle."""
    nodes = [*MEAN, node("Gemm", ["f", "w1", "b1"], ["h"]), node(kind, ["h"], ["s"], **attributes), node("Mul", ["h", "s"], ["a"]), node("Gemm", ["a", "w2", "b2"], ["y"])]  # fmt: skip
    return nodes, HIDDEN


COMPLETE = {
    "relu": hidden("Relu"),
    "leaky-relu": hidden("LeakyRelu", attributes={"alpha": 0.2}.items()),
    "prelu": hidden(("PRelu", "slope"), slope=RANDOM.uniform(0.1, 0.9, 5)),
    "relu-6": hidden(("Clip", "low", "high"), low=np.array(0.0), high=np.array(1.5)),
    "hard-sigmoid": hidden("HardSigmoid", attributes={"alpha": 0.2, "beta": 0.5}.items()),
    "max": ([node("GlobalMaxPool", ["x"], ["p"]), node("Flatten", ["p"], ["f"]), LAST], LINEAR),
    "mean-and-max": (
        [*MEAN, node("ReduceMax", ["x", "axes"], ["g"], keepdims=0), node("Concat", ["f", "g"], ["j"], axis=1), node("Gemm", ["j", "w", "b"], ["y"])],
        tensors(axes=np.array([2, 3]), w=weights(2 * CHANNELS, OUTPUTS), b=weights(OUTPUTS)),
    ),
    "generalized-mean": (
        [
            node("Clip", ["x", "least"], ["c"]),
            node("Pow", ["c", "three"], ["q"]),
            node("ReduceMean", ["q", "axes"], ["m"], keepdims=0),
            node("Pow", ["m", "third"], ["f"]),
            LAST,
        ],
        {**LINEAR, **tensors(least=np.array(1e-6), three=np.array([3.0]), third=np.array([1 / 3]), axes=np.array([2, 3]))},
    ),
    "all-positions": ([node("Flatten", ["x"], ["f"]), LAST], tensors(w=weights(CHANNELS * ROWS * COLUMNS, OUTPUTS), b=weights(OUTPUTS))),
    "all-positions-channels-last": (
        [node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]), node("Flatten", ["t"], ["f"]), LAST],
        tensors(w=weights(CHANNELS * ROWS * COLUMNS, OUTPUTS), b=weights(OUTPUTS)),
    ),
    "all-positions-of-turned-and-normed-features": (
        [
            node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]),
            node("MatMul", ["t", "m"], ["u"]),
            node("Add", ["u", "c"], ["v"]),
            node("Relu", ["v"], ["r"]),
            node("Flatten", ["r"], ["f"]),
            LAST,
        ],
        tensors(m=np.eye(CHANNELS), c=np.zeros(CHANNELS), w=weights(CHANNELS * ROWS * COLUMNS, OUTPUTS), b=weights(OUTPUTS)),
    ),
    "all-positions-and-relu": (
        [node("Flatten", ["x"], ["f"]), node("Gemm", ["f", "w1", "b1"], ["h"]), node("Relu", ["h"], ["a"]), node("Gemm", ["a", "w2", "b2"], ["y"])],
        {**HIDDEN, "w1": weights(CHANNELS * ROWS * COLUMNS, 5)},
    ),
    "whole-convolution": (
        [node("Conv", ["x", "k", "b1"], ["h"]), node("Relu", ["h"], ["a"]), node("Flatten", ["a"], ["g"]), node("Gemm", ["g", "w2", "b2"], ["y"])],
        {**HIDDEN, "k": weights(5, CHANNELS, ROWS, COLUMNS)},
    ),
}  # fmt: skip

GRADIENT = {
    "hard-swish": hidden("HardSwish"),
    "gelu": hidden("Gelu"),
    "gelu-tanh": hidden("Gelu", attributes={"approximate": "tanh"}.items()),
    "elu": hidden("Elu", attributes={"alpha": 0.7}.items()),
    "tanh": hidden("Tanh"),
    "sigmoid": hidden("Sigmoid"),
    "softplus": hidden("Softplus"),
    "swish": gated("Sigmoid"),
    "written-hard-swish": gated("HardSigmoid", alpha=1 / 6, beta=0.5),
    "mish": ([*hidden("Softplus", "Tanh")[0][:-1], node("Mul", ["h", "a"], ["c"]), node("Gemm", ["c", "w2", "b2"], ["y"])], HIDDEN),
    "written-gelu": (
        [
            *MEAN,
            node("Gemm", ["f", "w1", "b1"], ["h"]),
            node("Div", ["h", "root"], ["r"]),
            node("Erf", ["r"], ["e"]),
            node("Add", ["e", "one"], ["o"]),
            node("Mul", ["h", "o"], ["m"]),
            node("Mul", ["m", "half"], ["a"]),
            node("Gemm", ["a", "w2", "b2"], ["y"]),
        ],
        {**HIDDEN, **tensors(root=np.array(np.sqrt(2.0)), one=np.array(1.0), half=np.array(0.5))},
    ),
    "quotient": (
        [*MEAN, node("Gemm", ["f", "w1", "b1"], ["h"]), node("Exp", ["h"], ["e"]), node("Add", ["e", "one"], ["o"]), node("Div", ["h", "o"], ["a"]), node("Gemm", ["a", "w2", "b2"], ["y"])],
        {**HIDDEN, **tensors(one=np.array(1.0))},
    ),
    "norm": ([*MEAN, node("Mul", ["f", "f"], ["q"]), node("Sqrt", ["q"], ["a"]), node("Gemm", ["a", "w", "b"], ["y"])], LINEAR),
    "square": ([*MEAN, node("Gemm", ["f", "w", "b"], ["z"]), node("Mul", ["z", "z"], ["y"])], LINEAR),
}  # fmt: skip

POOLED_LINEAR = {
    "scaled-gemm": ([*MEAN, node("Gemm", ["f", "w", "b"], ["y"], alpha=2.0, beta=0.5)], LINEAR),
    "sum-of-two-heads": (
        [*MEAN, node("Gemm", ["f", "w", "b"], ["z"]), node("Gemm", ["f", "w3"], ["v"]), node("Sub", ["z", "v"], ["s"]), node("Div", ["s", "two"], ["y"])],
        {**LINEAR, **tensors(w3=weights(CHANNELS, OUTPUTS), two=np.array(2.0))},
    ),
    "batch-norm": (
        [*MEAN, node("BatchNormalization", ["f", "scale", "shift", "mean", "variance"], ["n"]), node("Gemm", ["n", "w", "b"], ["y"])],
        {**LINEAR, **tensors(scale=weights(CHANNELS), shift=weights(CHANNELS), mean=weights(CHANNELS), variance=RANDOM.uniform(0.5, 2, CHANNELS))},
    ),
    "two-layers": ([*MEAN, node("Gemm", ["f", "w1", "b1"], ["h"]), node("Gemm", ["h", "w2", "b2"], ["y"])], HIDDEN),
    "channels-last": (
        [node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]), node("Mul", ["t", "one"], ["s"]), node("ReduceMean", ["s", "axes"], ["f"], keepdims=0), LAST],
        {**LINEAR, **tensors(axes=np.array([1, 2]), one=np.array(1.0))},
    ),
    "tokens": (
        [node("Reshape", ["x", "flat"], ["r"]), node("Transpose", ["r"], ["t"], perm=[0, 2, 1]), node("ReduceMean", ["t", "axes"], ["f"], keepdims=0), LAST],
        {**LINEAR, **tensors(axes=np.array([1]), flat=np.array([1, CHANNELS, ROWS * COLUMNS]))},
    ),
    "parts-joined-again": (
        [*MEAN, node("Gemm", ["f", "w", "b"], ["z"]), node("Concat", ["z", "fixed"], ["j"], axis=1), node("Gemm", ["j", "w4"], ["y"])],
        {**LINEAR, **tensors(fixed=weights(1, 2), w4=weights(OUTPUTS + 2, OUTPUTS))},
    ),
}  # fmt: skip


def graph_of(nodes, initializers, element):
    kind = {TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64}[element]
    arrays = [
        numpy_helper.from_array(array.astype(kind) if array.dtype.kind == "f" else array.astype(np.int64), name)
        for name, array in initializers.items()
    ]
    graph = helper.make_graph(
        nodes,
        "head",
        [helper.make_tensor_value_info("x", element, FEATURES.shape)],
        [helper.make_tensor_value_info("y", element, (1, OUTPUTS))],
        arrays,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


# The reference computes erf in float32, which a small step drowns in.
SINGLE = ("gelu", "written-gelu")


def by_numbers(nodes, initializers, size=1e-6):
    """Gradient · features of every logit, by central differences in float64 of the graph as it was: (outputs, rows, columns), times the positions."""
    run = ReferenceEvaluator(graph_of(nodes, initializers, TensorProto.DOUBLE))
    slope = np.zeros((OUTPUTS, *FEATURES.shape[1:]))
    for place in np.ndindex(FEATURES.shape[1:]):
        sides = []
        for step in (size, -size):
            moved = FEATURES.copy()
            moved[(0, *place)] += step
            sides.append(run.run(None, {"x": moved})[0][0])
        slope[(slice(None), *place)] = (sides[0] - sides[1]) / (2 * size)
    return (slope * FEATURES).sum(axis=1) * ROWS * COLUMNS


def explained(nodes, initializers):
    """The head, and logits, map and offset of the float32 graph."""
    proto = shape_inference.infer_shapes(graph_of(nodes, initializers, TensorProto.FLOAT), strict_mode=True, data_prop=True)
    model = ir.from_proto(proto)
    found = explain(model)
    assert not isinstance(found, str), found
    results = run_onnx(ir.to_proto(model).SerializeToString(), FEATURES.astype(np.float32))
    before = run_onnx(proto.SerializeToString(), FEATURES.astype(np.float32))[0]
    return found, before, results


CASES = [(kind, name, *case) for kind, table in (("complete", COMPLETE), ("gradient", GRADIENT), ("pooled-linear", POOLED_LINEAR)) for name, case in table.items()]  # fmt: skip


@pytest.mark.parametrize(("kind", "name", "nodes", "initializers"), CASES, ids=[f"{kind}-{name}" for kind, name, *_ in CASES])
def test_the_map_is_gradient_times_features(kind, name, nodes, initializers):
    """By differences of the network as it was, for every logit; and the logits are what they were."""
    found, before, (logits, maps, *offset) = explained(nodes, initializers)
    assert found.kind == kind
    step, tolerance = (1e-2, 2e-3) if name in SINGLE else (1e-6, 1e-4)
    assert maps[0] == pytest.approx(by_numbers(nodes, initializers, step), rel=tolerance, abs=tolerance)
    assert logits == pytest.approx(before, rel=1e-4, abs=1e-4)
    added = offset[0] if offset else np.array(found.bias, dtype=np.float32)
    assert maps.mean(axis=(2, 3)) + added == pytest.approx(logits, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("root", ["Sqrt", ("Pow", "half")])
def test_a_root_of_nothing_does_not_cost_the_answer(root):
    """It is infinitely steep there; the logits, which are computed from the map, stay what they were."""
    nodes, initializers = hidden("Relu", root, half=np.array(0.5))
    _, before, (logits, maps, offset) = explained(nodes, {**initializers, "b1": np.full(5, -100.0)})
    assert logits == pytest.approx(before, abs=1e-5)
    assert np.isfinite(maps).all()
    assert np.isfinite(offset).all()


# What a hard sigmoid starts from, and what a cut-off activation has reached, are biases too.
@pytest.mark.parametrize("name", sorted(COMPLETE.keys() - {"hard-sigmoid", "relu-6"}))
def test_a_complete_map_leaves_out_nothing_but_biases(name):
    """With every bias 0, the mean of the map alone is the logit."""
    nodes, initializers = COMPLETE[name]
    bare = {key: np.zeros_like(array) if key in ("b", "b1", "b2") else array for key, array in initializers.items()}
    _, before, (_, maps, *_) = explained(nodes, bare)
    assert maps.mean(axis=(2, 3)) == pytest.approx(before, rel=1e-4, abs=1e-4)


def test_behind_a_pooling_the_divisor_of_a_normalization_is_held():
    """M = (w' − mean w') · A / σ with w' = W · γ: complete, where the true gradient's map would have a mean of 0 (Ba et al. 2016: y does not change with the scale of x)."""
    nodes = [*MEAN, node("LayerNormalization", ["f", "scale", "shift"], ["n"], epsilon=1e-5), node("Gemm", ["n", "w", "b"], ["y"])]
    initializers = {**LINEAR, **tensors(scale=weights(CHANNELS), shift=weights(CHANNELS))}
    found, before, (logits, maps) = explained(nodes, initializers)
    pooled = FEATURES.mean(axis=(2, 3))[0]
    scaled = initializers["w"].T * initializers["scale"]
    expected = np.einsum("kc,crq->krq", scaled - scaled.mean(axis=1, keepdims=True), FEATURES[0]) / np.sqrt(pooled.var() + 1e-5)
    assert found.kind == "complete"
    assert maps[0] == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert logits == pytest.approx(before, rel=1e-4, abs=1e-5)
    assert maps.mean(axis=(2, 3)) + np.array(found.bias) == pytest.approx(logits, abs=1e-5)
    assert np.abs(by_numbers(nodes, initializers).mean(axis=(1, 2))).max() < 1e-3 * np.abs(maps).max()


def test_a_maximum_that_several_positions_reach_is_shared_among_them():
    """Each gets its part, so the map still adds up."""
    nodes, initializers = COMPLETE["max"]
    global FEATURES  # noqa: PLW0603 - the features are the one thing that differs
    kept, FEATURES = FEATURES, np.ones_like(FEATURES)
    try:
        found, before, (logits, maps, *_) = explained(nodes, initializers)
    finally:
        FEATURES = kept
    assert logits == pytest.approx(before, abs=1e-5)
    assert maps[0] == pytest.approx(np.broadcast_to(maps[0].mean(axis=(1, 2), keepdims=True), maps[0].shape), abs=1e-5)
    assert found.rows == ROWS
