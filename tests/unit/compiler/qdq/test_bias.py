"""Biases that take back the mean error of rounding."""

from __future__ import annotations

import numpy as np
import pytest
from qdq_builders import SIDE, Sketch, frames, node, plain, run

from edgekit.compiler import graph as g
from edgekit.compiler.progress import Silent
from edgekit.compiler.quantize.qdq import ranges
from edgekit.compiler.quantize.qdq.bias import correct_biases
from edgekit.compiler.quantize.qdq.insert import insert
from edgekit.compiler.quantize.qdq.place import place
from edgekit.compiler.quantize.qdq.rules import RULES

COARSE = 7
"""So few steps for a weight that the error is large."""


def corrected(sketch, tensors, dialect="onnxruntime"):
    """The exact graph, the rounded one before and after correction, and the layers."""
    graphs = []
    for _ in range(2):
        model = sketch.model()
        placement = place(model, RULES[dialect])
        seen = ranges.observe(model, list(placement.readers), tensors, Silent())
        insert(
            model,
            placement,
            ranges.scales_of(placement.groups, seen, "extremes", unsigned=RULES[dialect].unsigned, half=False),
            weight_limit=COARSE,
            half=False,
        )
        g.tidy(model)
        graphs.append(model)
    layers = tuple(layer.name for layer in placement.layers)
    correct_biases(sketch.model(), graphs[1], layers, tensors, Silent())
    g.tidy(graphs[1])
    return sketch.model(), *graphs, layers


def mean_error(exact, model, tensors, name, axis):
    """Largest |mean over frames and positions| of a channel's error, in parts of the value's spread."""
    before, after = (run(graph, tensors, [name])[0].astype(np.float64) for graph in (exact, model))
    others = tuple(index for index in range(before.ndim) if index != axis % before.ndim)
    return np.abs((after - before).mean(axis=others)).max() / before.std()


def vector(bias="a constant"):
    """A linear layer behind the pooling, with an Add of a constant, of one number, or of nothing constant."""
    s = Sketch()
    features = s.relu(s.conv("planes", "stem", 16, 1))
    s.add("GlobalAveragePool", [features], "pooled")
    s.add("Flatten", ["pooled"], "flat")
    s.linear("flat", "hidden", 16, 16, bias=bias == "a constant")
    if bias == "one number":
        s.add("Add", [s.constant("number", np.array(0.5)), "hidden"], "hidden_sum")
    if bias == "another value":
        s.add("Add", ["hidden", "flat"], "hidden_sum")
    return s.gemm_head(s.relu("hidden" if bias == "none" else "hidden_sum"), 16)


def channels_last(size):
    """A linear layer on (1, rows, columns, channels), as ConvNeXt has them; in float32 its layer normalization stands before."""
    s = Sketch()
    s.add("Transpose", [s.relu(s.conv("planes", "stem", size, 1))], "last", perm=[0, 2, 3, 1])
    s.linear("last", "mixed", size, size)
    s.add("Transpose", ["mixed_sum"], "first", perm=[0, 3, 1, 2])
    return s.head("first", size)


def gemm(shape):
    """A Gemm whose bias has the shape."""
    s = Sketch()
    s.add("Reshape", [s.relu(s.conv("planes", "stem", 16, 1)), s.constant("rows", [-1, 16], np.int64)], "many")
    s.add("Gemm", ["many", s.constant("layer.weight", s.noise(16, 16)), s.constant("layer.bias", s.noise(*shape))], "layer")
    s.add("ReduceMean", ["layer", s.constant("axes", [0], np.int64)], "mean", keepdims=1)
    return s.gemm_head("mean", 16)


def unbiased():
    s = Sketch()
    stem = s.relu(s.conv("planes", "stem", 16, 1, bias=False))
    return s.head(s.relu(s.conv(stem, "last", 16, 16, bias=False)), 16)


# Name to: the graph, the value that is made right, its axis of channels.
CASES = {
    "first": (plain(), "stem", 1),
    "behind-others": (plain(), "last", 1),
    "without-a-bias": (unbiased(), "last", 1),
    "matrix-product-and-sum": (vector(), "hidden_sum", -1),
    "matrix-product-and-a-number": (vector("one number"), "hidden_sum", -1),
    "channels-last": (channels_last(16), "mixed_sum", -1),
    "channels-last-of-the-frames-size": (channels_last(SIDE), "mixed_sum", -1),
    "gemm": (gemm((16,)), "layer", -1),
    "gemm-with-a-row": (gemm((1, 16)), "layer", -1),
}


@pytest.mark.parametrize(("sketch", "name", "axis"), CASES.values(), ids=CASES)
def test_the_mean_of_every_channel_is_what_it_was(sketch, name, axis):
    """On the frames of the correction the mean error of a layer is gone; without the correction it is there."""
    tensors = frames(6)
    exact, rounded, right, _ = corrected(sketch, tensors)
    assert mean_error(exact, rounded, tensors, name, axis) > 1e-3
    assert mean_error(exact, right, tensors, name, axis) < 1e-5


def test_a_layer_without_a_bias_gets_one():
    """A vector of one value an output channel."""
    _, _, right, _ = corrected(unbiased(), frames(4))
    assert g.constant(node(right, "last").inputs[2]).shape == (16,)


@pytest.mark.parametrize("bias", ["none", "another value"])
def test_a_product_without_a_constant_behind_it_is_left_alone(bias):
    """There is no place for a shift, and none is made up."""
    exact, rounded, right, layers = corrected(vector(bias), frames(4))
    assert "hidden" in layers
    assert [item.op_type for item in right.graph] == [item.op_type for item in rounded.graph]
    assert [item.op_type for item in exact.graph if item.op_type == "Add"] == [
        item.op_type for item in right.graph if item.op_type == "Add"
    ]


def test_weights_are_as_they_were():
    """Only biases change."""
    _, rounded, right, layers = corrected(plain(), frames(4))
    for name in layers:
        before, after = (g.constant(node(model, name).inputs[1].producer().inputs[0]) for model in (rounded, right))
        assert np.array_equal(before, after)


def test_one_frame_is_enough():
    """A single calibration frame is no special case."""
    tensors = frames(1)
    exact, _, right, _ = corrected(plain(), tensors)
    assert mean_error(exact, right, tensors, "last", 1) < 1e-5
