"""Roundings as nodes, and weights as integers."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir  # noqa: TID253 - reads what was written
import pytest
from qdq_builders import Sketch, frames, made_by, node, plain, quantize_linear, residual, run, transformer

from edgekit.compiler import graph as g
from edgekit.compiler.progress import Silent
from edgekit.compiler.quantize.qdq import build, ranges
from edgekit.compiler.quantize.qdq.insert import insert, weight_scales
from edgekit.compiler.quantize.qdq.place import place
from edgekit.compiler.quantize.qdq.rules import RULES

everyone = pytest.mark.parametrize("dialect", tuple(RULES))


def inserted(sketch, dialect="tensorrt", *, weight_limit=127, half=False, trained=None):
    """The graph with its roundings, and the scales by the value's name."""
    model = sketch.model()
    placement = place(model, RULES[dialect])
    seen = ranges.observe(model, list(placement.readers), frames(8), Silent())
    scales = ranges.scales_of(placement.groups, seen, "extremes", unsigned=RULES[dialect].unsigned, half=half)
    insert(model, placement, scales, weight_limit=weight_limit, half=half, trained=trained)
    g.tidy(model)
    return model, {value.name: scale for value, scale in scales.items()}


@everyone
def test_a_value_has_one_pair(dialect):
    """However many read it, and nothing that is rounded is rounded again."""
    model, scales = inserted(residual(), dialect)
    pairs = [item for item in model.graph if item.op_type == "QuantizeLinear"]
    assert sorted(item.inputs[0].name for item in pairs) == sorted(scales)
    assert not [item for item in pairs if made_by(item.inputs[0]) == "DequantizeLinear"]


@everyone
def test_zero_points_are_written_with_their_type(dialect):
    """Left out, ONNX means uint8 and TensorRT int8."""
    model, _ = inserted(residual(), dialect)
    kind = np.uint8 if dialect == "onnxruntime" else np.int8
    for item in model.graph:
        if item.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = g.constant(item.inputs[2])
            weight = g.constant(item.inputs[0]) is not None
            assert zero.dtype == (np.int8 if weight else kind)
            assert zero.shape == g.constant(item.inputs[1]).shape
            assert (zero == 0).all() or (kind == np.uint8 and not weight)


@everyone
@pytest.mark.parametrize("limit", [127, 63])
def test_weights_are_int8_with_a_scale_an_output_channel(dialect, limit):
    """Within the limit, every channel uses all of it, and each comes back within half a step."""
    sketch = plain()
    exact = sketch.model()
    model, _ = inserted(sketch, dialect, weight_limit=limit)
    for name in ("middle", "last"):
        restore = node(model, name).inputs[1].producer()
        integers, scale = g.constant(restore.inputs[0]), g.constant(restore.inputs[1])
        weight = g.constant(node(exact, name).inputs[1])
        assert (integers.dtype, restore.attributes["axis"].as_int(), scale.shape) == (np.int8, 0, (16,))
        assert (np.abs(integers.astype(int)).reshape(16, -1).max(axis=1) == limit).all()
        step = scale.reshape(-1, 1, 1, 1)
        assert (np.abs(integers * step - weight) <= 0.5001 * step).all()


def layer_of(kind):
    """A layer with eight channels in, and six of very different sizes out."""
    s = Sketch()
    features = s.relu(s.conv("planes", "stem", 8, 1))
    gains = np.array([1e-3, 1e-2, 0.1, 1, 10, 100])
    weight = s.noise(6, 8) * gains[:, None]
    if kind == "Conv":
        s.conv(features, "layer", 6, 8, weight=weight[:, :, None, None], kernel=1)
    elif kind == "ConvTranspose":
        s.add("ConvTranspose", [features, s.constant("layer.weight", weight.T[:, :, None, None])], "layer", kernel_shape=[1, 1])
    else:
        s.add("Transpose", [features], "moved", perm=[0, 2, 3, 1])
        s.add("Reshape", ["moved", s.constant("rows", [64, 8], np.int64)], "flat")
        if kind == "MatMul":
            s.add("MatMul", ["flat", s.constant("layer.weight", weight.T)], "layer")
        else:
            transposed = kind == "Gemm transposed"
            s.add("Gemm", ["flat", s.constant("layer.weight", weight if transposed else weight.T)], "layer", transB=int(transposed))
        s.add("Reshape", ["layer", s.constant("map", [1, 8, 8, 6], np.int64)], "rows_again")
        s.add("Transpose", ["rows_again"], "maps", perm=[0, 3, 1, 2])
    return s.head("layer" if kind.startswith("Conv") else "maps", 6)


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose", "Gemm", "Gemm transposed", "MatMul"])
def test_the_axis_is_that_of_the_output_channels(kind):
    """Channels of very different sizes all keep their precision; along the other axis the small ones would vanish."""
    sketch = layer_of(kind)
    (exact,) = run(sketch.model(), frames(2), ["layer"])
    model, _ = inserted(sketch, "onnxruntime")
    (found,) = run(model, frames(2), ["layer"])
    axis = 1 if kind.startswith("Conv") else -1
    channels = [np.moveaxis(part, axis, 0).reshape(6, -1) for part in (exact, found)]
    error = np.abs(channels[1] - channels[0]).max(axis=1) / np.abs(channels[0]).max(axis=1)
    assert error.max() < 0.05


@everyone
def test_the_graph_computes_what_onnx_says(dialect):
    """A layer's answer is that of a numpy model: its input rounded, its weights rounded, summed in float."""
    sketch = plain()
    model, scales = inserted(sketch, dialect)
    before, inside, after = run(model, frames(3), ["stem_relu", "stem_relu/rounded", "middle"])
    scale = scales["stem_relu"]
    kind = np.uint8 if scale.unsigned else np.int8
    expected = quantize_linear(before, np.float32(scale.scale), scale.zero_point, kind)
    assert np.array_equal(inside, expected)
    layer = node(model, "middle")
    restore = layer.inputs[1].producer()
    weight = g.constant(restore.inputs[0]).astype(np.float64) * g.constant(restore.inputs[1]).reshape(-1, 1, 1, 1)
    values = (expected.astype(np.float64) - scale.zero_point) * scale.scale
    padded = np.pad(values, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    summed = np.einsum("nchwij,ocij->nohw", windows, weight) + g.constant(layer.inputs[2]).reshape(1, -1, 1, 1)
    np.testing.assert_allclose(after, summed, atol=1e-4)


def test_float16_scales_are_exact_everywhere():
    """What is stored is what was rounded with: every scale survives float16."""
    model, _ = inserted(residual(), "tensorrt", half=True)
    for item in model.graph:
        if item.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale = g.constant(item.inputs[1])
            assert (scale.astype(np.float16).astype(np.float32) == scale).all()


def test_trained_scales_are_taken():
    """The scale of a training is written, and the integers are in its steps."""
    scales = np.full(16, 0.02)
    sketch = plain()
    weight = g.constant(node(sketch.model(), "middle").inputs[1])
    model, _ = inserted(sketch, trained={"middle": scales})
    restore = node(model, "middle").inputs[1].producer()
    assert g.constant(restore.inputs[1]) == pytest.approx(scales)
    expected = np.clip(np.rint(weight / np.float32(0.02)), -127, 127)
    assert (np.abs(g.constant(restore.inputs[0]) - expected) <= 1).all()
    assert (g.constant(restore.inputs[0]) == expected).mean() > 0.999


@pytest.mark.parametrize("half", [True, False])
def test_a_channel_of_zeros_has_a_scale_of_its_layers_size(half):
    """A dead channel must not ask for steps so small that its bias has no integer."""
    weight = np.random.default_rng(0).normal(size=(4, 8, 3, 3))
    weight[2] = 0
    scale = weight_scales(weight, 0, 127, half=half)
    assert scale[2] == pytest.approx(scale[[0, 1, 3]].max())
    assert (weight_scales(np.zeros((4, 8)), 0, 127, half=half) > 0).all()


@everyone
def test_names_of_the_graph_are_left_alone(dialect):
    """An initializer may have any name already, also one that a rounding would be given."""
    s = Sketch()
    stem = s.relu(s.conv("planes", "stem", 16, 1))
    parts = [stem, s.constant("middle/weight", s.noise(16, 16, 3, 3)), s.constant("middle/bias", s.noise(16))]
    s.add("Conv", parts, "middle", pads=[1] * 4)
    s.add("Mul", [s.relu("middle"), s.constant("stem_relu/scale", np.full((1, 16, 1, 1), 2))], "scaled")
    s.head(s.relu(s.conv("scaled", "last", 16, 16)), 16)
    exact = run(s.model(), frames(2))[0]
    model, _ = inserted(s, dialect)
    assert np.abs(run(model, frames(2))[0] - exact).max() < 0.05


def test_weights_that_two_layers_share_are_written_for_each():
    """Each layer has integers of its own; the shared constant is no longer needed."""
    s = Sketch()
    stem = s.relu(s.conv("planes", "stem", 16, 1))
    shared = s.constant("shared", s.noise(16, 16, 3, 3))
    for name in ("one", "two"):
        stem = s.relu(s.add("Conv", [stem, shared], name, pads=[1] * 4))
    s.head(s.relu(s.conv(stem, "last", 16, 16)), 16)
    exact = run(s.model(), frames(2))[0]
    model, _ = inserted(s)
    assert "shared" not in model.graph.initializers
    assert np.abs(run(model, frames(2))[0] - exact).max() < 0.05


@pytest.mark.parametrize("make", [residual, transformer], ids=["convolutions", "linear"])
def test_weights_as_floats_mean_the_same_to_the_bit(make, tmp_path):
    """For an engine without int8 constants: no DequantizeLinear reads one, each reads what its QuantizeLinear makes, and every answer is the same."""
    rounding = build.Rounding(rules=RULES["tensorrt"], method="extremes", weight_limit=127)
    answers = []
    for integers in (True, False):
        writing = build.Writing(opset=17, integer_weights=integers)
        model = build.quantize(make().save(tmp_path / "graph.onnx"), rounding, writing, frames(4), Silent())
        build.write(model, writing, tmp_path / f"{integers}.onnx", frames(4), Silent())
        made = ir.load(tmp_path / f"{integers}.onnx")
        constants = [item for item in made.graph if item.op_type == "DequantizeLinear" and g.constant(item.inputs[0]) is not None]
        assert bool(constants) is integers
        answers.append(run(made, frames(6, seed=1)))
    for one, other in zip(*answers, strict=True):
        np.testing.assert_array_equal(one, other)
