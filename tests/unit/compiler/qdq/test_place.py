"""Where a graph is quantized."""

from __future__ import annotations

import numpy as np
import pytest
from qdq_builders import Sketch, node, plain, residual, transformer

from edgekit.compiler.quantize.qdq.place import place
from edgekit.compiler.quantize.qdq.rules import RULES
from edgekit.errors import ModelError

DIALECTS = tuple(RULES)
everyone = pytest.mark.parametrize("dialect", DIALECTS)


def placed(sketch, dialect, float_layers=()):
    """The graph, and its placement."""
    model = sketch.model()
    return model, place(model, RULES[dialect], float_layers)


def names(placement):
    return [layer.name for layer in placement.layers]


def rounded(placement):
    """Name of every rounded value to the uses that read it so."""
    return {value.name: [(reader.name, index) for reader, index in uses] for value, uses in placement.readers.items()}


@everyone
def test_the_head_of_the_map_stays_in_float(dialect):
    """The weights of the head are not quantized."""
    _, found = placed(plain(), dialect)
    assert "cam_head/maps" not in names(found)
    assert "last" in names(found)


@everyone
def test_the_layer_that_makes_the_logits_stays_in_float(dialect):
    """Without a map the last linear layer is the head, also behind a sum and a reshape."""
    s = Sketch()
    features = s.relu(s.conv(s.relu(s.conv("planes", "stem", 16, 1)), "last", 16, 16))
    s.add("GlobalAveragePool", [features], "pooled")
    s.add("Flatten", ["pooled"], "flat")
    s.linear("flat", "fc", 3, 16)
    s.add("Reshape", ["fc_sum", s.constant("shape", [1, 3], np.int64)], "logits")
    s.outputs = ["logits"]
    _, found = placed(s, dialect)
    assert "fc" not in names(found)
    assert "last" in names(found)


@everyone
def test_a_value_is_rounded_once_for_all_its_readers(dialect):
    """Every (node, input) stands under one value, and the pair of a value is one entry."""
    _, found = placed(residual(), dialect)
    uses = [use for readers in rounded(found).values() for use in readers]
    assert len(uses) == len(set(uses))
    assert rounded(found)["stem_relu"] == [("inner", 0), ("sum", 1)]


def test_tensorrt_rounds_the_skip_of_a_sum_and_not_the_branch():
    """The branch ends in a convolution that TensorRT fuses with the sum."""
    _, found = placed(residual(), "tensorrt")
    assert ("sum", 1) in rounded(found)["stem_relu"]
    assert "outer" not in rounded(found)


def test_of_two_convolutions_the_longer_branch_is_fused():
    """Where the skip is a convolution of its own, the branch with more of them is left as it is."""
    s = Sketch()
    stem = s.relu(s.conv("planes", "stem", 16, 1))
    s.conv(stem, "skip", 16, 16, kernel=1)
    s.conv(s.relu(s.conv(stem, "inner", 16, 16)), "outer", 16, 16)
    s.add("Add", ["outer", "skip"], "sum")
    s.head(s.relu("sum"), 16)
    _, found = placed(s, "tensorrt")
    assert rounded(found)["skip"] == [("sum", 1)]
    assert "outer" not in rounded(found)


def test_onnx_runtime_rounds_both_sides_of_a_sum_and_what_it_gives():
    """Its integer kernel of the sum wants both inputs and the output as integers."""
    _, found = placed(residual(), "onnxruntime")
    uses = rounded(found)
    assert ("sum", 0) in uses["outer"]
    assert ("sum", 1) in uses["stem_relu"]
    assert "sum_relu" in uses


def test_onnx_runtime_rounds_behind_the_activation_and_not_before():
    """Between a convolution and its ReLU stands no pair: the kernel has the ReLU in its range."""
    _, found = placed(plain(), "onnxruntime")
    assert "middle_relu" in rounded(found)
    assert "middle" not in rounded(found)


@everyone
def test_only_linear_layers_of_a_normalized_network(dialect):
    """The residual stream of a transformer stays in float, and so does its patch convolution."""
    _, found = placed(transformer(), dialect)
    assert names(found) == ["up", "down"]
    assert set(rounded(found)) == {"norm", "gelu"}


@pytest.mark.parametrize(
    ("dialect", "expected"), [("tensorrt", {"wide", "grouped"}), ("onnxruntime", {"stem", "wide", "depth", "small", "grouped", "gate"})]
)
def test_what_tensorrt_leaves_in_float(dialect, expected):
    """Depthwise convolutions, those with few channels, and layers that read a single position; ONNX Runtime takes them all."""
    s = Sketch()
    stem = s.relu(s.conv("planes", "stem", 16, 1))
    wide = s.relu(s.conv(stem, "wide", 32, 16))
    depth = s.relu(s.conv(wide, "depth", 32, 32, group=32))
    small = s.relu(s.conv(depth, "small", 8, 32, kernel=1))
    grouped = s.relu(s.conv(s.relu(s.conv(small, "again", 32, 8, kernel=1)), "grouped", 32, 32, group=2))
    s.add("GlobalAveragePool", [grouped], "pooled")
    s.add("Sigmoid", [s.conv("pooled", "gate", 32, 32, kernel=1)], "share")
    s.add("Mul", [grouped, "share"], "gated")
    s.head("gated", 32)
    _, found = placed(s, dialect)
    assert set(names(found)) == expected | ({"again"} if dialect == "onnxruntime" else set())


@pytest.mark.parametrize(("dialect", "quantized"), [("tensorrt", False), ("onnxruntime", True)])
def test_a_product_with_a_vector(dialect, quantized):
    """A linear layer of one row is a matrix-vector product, faster in float16 on a GPU."""
    s = Sketch()
    features = s.relu(s.conv(s.relu(s.conv("planes", "stem", 16, 1)), "last", 16, 16))
    s.add("GlobalAveragePool", [features], "pooled")
    s.add("Flatten", ["pooled"], "flat")
    s.gemm_head(s.relu(s.linear("flat", "hidden", 16, 16)), 16)
    _, found = placed(s, dialect)
    assert ("hidden" in names(found)) == quantized


@everyone
@pytest.mark.parametrize(("changes", "axis"), [({"transB": 0}, 1), ({"transB": 1}, 0), ({"alpha": 2.0}, None), ({"beta": 0.5}, None)])
def test_a_gemm_is_a_layer_where_it_is_a_plain_product(dialect, changes, axis):
    """Its output channels are the columns, or the rows of a transposed matrix; a scaled product is left alone."""
    s = Sketch()
    s.add("Reshape", [s.relu(s.conv("planes", "stem", 16, 1)), s.constant("rows", [-1, 16], np.int64)], "many")
    parts = ["many", s.constant("hidden.weight", s.noise(16, 16)), s.constant("hidden.bias", s.noise(16))]
    s.add("Gemm", parts, "hidden", **changes)
    s.add("ReduceMean", ["hidden", s.constant("axes", [0], np.int64)], "mean", keepdims=1)
    s.conv(s.conv("planes", "other", 16, 1), "another", 16, 16)
    s.gemm_head("mean", 16)
    _, found = placed(s, dialect)
    assert {layer.name: layer.axis for layer in found.layers}.get("hidden") == axis


@everyone
def test_a_transposed_convolution_has_its_output_channels_in_the_second_axis(dialect):
    """One scale an output channel: axis 1 of its weights."""
    s = Sketch()
    stem = s.relu(s.conv("planes", "stem", 16, 1))
    s.add("ConvTranspose", [stem, s.constant("up.weight", s.noise(16, 24, 2, 2))], "up", strides=[2, 2], kernel_shape=[2, 2])
    s.head(s.relu("up"), 24)
    _, found = placed(s, dialect)
    assert {layer.name: layer.axis for layer in found.layers}["up"] == 1


@everyone
@pytest.mark.parametrize("between", [1, 2, 3])
def test_what_only_moves_shares_one_range(dialect, between):
    """Two roundings with nothing but moving operators between them, however many, have one range: the second changes nothing."""
    s = Sketch()
    stem = s.relu(s.conv(s.conv("planes", "stem", 16, 1), "first", 16, 16))
    moved = s.add("MaxPool", [stem], "pool_0", kernel_shape=[2, 2], strides=[2, 2])
    for index in range(1, between):
        moved = s.add("Transpose", [moved], f"pool_{index}", perm=[0, 1, 3, 2])
    s.conv(stem, "beside", 16, 16)
    s.add("MaxPool", [s.relu("beside")], "small", kernel_shape=[2, 2], strides=[2, 2])
    s.add("Add", [s.conv(moved, "second", 16, 16), "small"], "sum")
    s.head("sum", 16)
    model, found = placed(s, dialect)
    first, last = node(model, stem).outputs[0], node(model, moved).outputs[0]
    assert first in found.readers
    assert last in found.readers
    assert found.groups[last] is found.groups[first]


@everyone
def test_nothing_is_shared_across_a_concatenation(dialect):
    """The parts of a concatenation keep their ranges, and it has one of its own."""
    s = Sketch()
    stem = s.relu(s.conv("planes", "stem", 16, 1))
    parts = [s.relu(s.conv(stem, name, 16, 16)) for name in ("left", "right")]
    s.add("Concat", parts, "both", axis=1)
    s.head(s.relu(s.conv("both", "last", 16, 32)), 16)
    model, found = placed(s, dialect)
    both = node(model, "both").outputs[0]
    assert found.groups[both] is both
    assert all(found.groups[value] is value for value in found.readers)


@everyone
def test_a_float_layer_that_is_none_is_refused(dialect):
    """A misspelt name would otherwise quantize what was to stay in float."""
    with pytest.raises(ModelError, match="no layer mittle"):
        placed(plain(), dialect, ("mittle",))


@everyone
def test_a_float_layer_reads_and_gives_floats(dialect):
    """It gets everything back: its weights, and an input that no rounding has touched."""
    _, found = placed(plain(), dialect, ("middle",))
    assert "middle" not in names(found)
    assert ("middle", 0) not in [use for uses in rounded(found).values() for use in uses]


@everyone
def test_a_network_without_layers_is_refused(dialect):
    """Everything in float is not a quantized graph."""
    with pytest.raises(ModelError, match="no layer to quantize"):
        placed(plain(), dialect, tuple(names(placed(plain(), dialect)[1])))


def test_constants_are_not_rounded_as_features():
    """A sum with a constant is no sum of two features."""
    s = Sketch()
    stem = s.relu(s.conv("planes", "stem", 16, 1))
    s.add("Add", [stem, s.constant("offset", np.ones((1, 16, 1, 1)))], "shifted")
    s.head(s.relu(s.conv("shifted", "last", 16, 16)), 16)
    _, found = placed(s, "onnxruntime")
    assert not [use for uses in rounded(found).values() for use in uses if use[0] == "shifted" and use[1] == 1]


def written_out_norm():
    """Layer normalization of an older exporter over the channels of an image, and a residual sum."""
    s = Sketch()
    stem = s.relu(s.conv("planes", "stem", 16, 1))
    s.add("ReduceMean", [stem, s.constant("axes", [1], np.int64)], "mean_of", keepdims=1)
    s.add("Sub", [stem, "mean_of"], "centred")
    s.add("Mul", ["centred", "centred"], "square")
    s.add("ReduceMean", ["square", s.constant("axes_too", [1], np.int64)], "variance", keepdims=1)
    s.add("Sqrt", [s.add("Add", ["variance", s.constant("epsilon", np.full(1, 1e-5))], "shifted")], "deviation")
    s.add("Div", ["centred", "deviation"], "unit")
    s.add("Add", [s.conv("unit", "inner", 16, 16), stem], "sum")
    return s.head(s.conv("sum", "pointwise", 16, 16, kernel=1), 16)


@everyone
def test_normalization_that_is_written_out_is_seen(dialect):
    """Its residual stream has the same outliers as that of an exporter with the operator; pointwise convolutions are its linear layers."""
    _, found = placed(written_out_norm(), dialect)
    assert names(found) == ["pointwise"]


@everyone
def test_what_the_head_of_the_map_divides_by_makes_no_normalized_network(dialect):
    """Behind a pooling there is no residual stream: the convolutions before it are quantized as they are without."""
    s = Sketch()
    s.head(s.relu(s.conv(s.relu(s.conv("planes", "stem", 16, 1)), "spatial", 16, 16)), 16)
    s.add("LayerNormalization", ["cam", s.constant("scale", np.ones(s.side))], "cam_head/norm")
    _, found = placed(s, dialect)
    assert "spatial" in names(found)


@everyone
def test_a_softmax_over_branches_is_no_attention(dialect):
    """A network that weighs two branches with a softmax is quantized like any convolutional one."""
    s = Sketch()
    stem = s.relu(s.conv("planes", "stem", 16, 1))
    s.add("Softmax", [s.conv(stem, "weights_of", 16, 16)], "share", axis=1)
    s.add("Mul", [stem, "share"], "chosen")
    s.head(s.relu(s.conv("chosen", "last", 16, 16)), 16)
    _, found = placed(s, dialect)
    assert "last" in names(found)
    assert "weights_of" in names(found)
