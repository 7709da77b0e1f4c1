"""Types in the graph: what TensorRT is told to compute in float16."""

from __future__ import annotations

import numpy as np
import onnx  # noqa: TID253 - checks what was written
import onnx_ir as ir  # noqa: TID253 - reads what was written
import pytest
from conformance_builders import TYPED
from qdq_builders import Sketch, frames, node, plain, residual, run, transformer

from edgekit.compiler import conformance
from edgekit.compiler import graph as g
from edgekit.compiler.progress import Silent
from edgekit.compiler.quantize.qdq import build, half
from edgekit.compiler.quantize.qdq.rules import RULES

WRITING = build.Writing(opset=19, typed=True)
HALF, FLOAT = ir.DataType.FLOAT16, ir.DataType.FLOAT


def written(sketch, path, *, quantize=True, tensors=None):
    """The typed graph, read back with the types that ONNX infers; and how many nodes were too large for float16."""
    tensors = frames(8) if tensors is None else tensors
    source = sketch.save(path / "graph.onnx")
    rounding = build.Rounding(rules=RULES["tensorrt"], method="extremes", weight_limit=127)
    model = build.quantize(source, rounding, WRITING, tensors, Silent()) if quantize else ir.load(source)
    wide = build.write(model, WRITING, path / "typed.onnx", tensors, Silent())
    proto = onnx.load(path / "typed.onnx")
    del proto.graph.value_info[:]
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True)), wide


def scaled(factor, *, weight=None):
    """A network whose values in the middle are larger by a factor, and small again behind it."""
    s = Sketch()
    stem = s.relu(s.conv("planes", "stem", 16, 1))
    s.add("Mul", [stem, s.constant("up", np.full(1, factor))], "large")
    wide = s.conv("large", "wide", 16, 16, weight=weight)
    s.add("Mul", [s.relu(wide), s.constant("down", np.full(1, 1 / factor))], "small")
    return s.head(s.relu(s.conv("small", "last", 16, 16)), 16)


def averaged(factor, pool):
    """A network with a mean, between two convolutions, of numbers that float16 holds and whose sum it may not."""
    s = Sketch()
    stem = s.relu(s.conv("planes", "stem", 16, 1))
    s.add("Mul", [stem, s.constant("up", np.full(1, factor))], "large")
    means = {
        "GlobalAveragePool": lambda: s.add("GlobalAveragePool", ["large"], "average"),
        "ReduceMean": lambda: s.add("ReduceMean", ["large", s.constant("axes", [2, 3], np.int64)], "average", keepdims=1),
        "AveragePool": lambda: s.add("AveragePool", ["large"], "average", kernel_shape=[8, 8], strides=[8, 8]),
    }
    means[pool]()
    s.add("Mul", ["average", s.constant("down", np.full(1, 1 / factor))], "small")
    return s.head(s.relu(s.conv("small", "last", 16, 16)), 16)


@pytest.mark.parametrize("pool", ["GlobalAveragePool", "ReduceMean", "AveragePool"])
def test_a_mean_whose_sum_is_too_large_stays_in_float32(pool, tmp_path):
    """float16 holds every number and the mean, and not what a device may add up on the way."""
    for factor, kind in ((1.0, HALF), (4e3, FLOAT)):
        model, wide = written(averaged(factor, pool), tmp_path, quantize=False)
        assert node(model, "average").outputs[0].dtype == kind
        assert (wide == 0) == (kind == HALF)
        largest = half.largest_values(ir.load(tmp_path / "graph.onnx"), frames(8), Silent())
        assert largest["large"] < half.LARGEST


def shared(factor):
    """Two convolutions that read one value; the result of one is larger by a factor."""
    s = Sketch()
    stem = s.relu(s.conv("planes", "stem", 16, 1))
    s.conv(stem, "small", 16, 16)
    s.conv(stem, "large", 16, 16, weight=s.noise(16, 16, 3, 3) * factor)
    s.add("Mul", ["large", s.constant("down", np.full(1, 1 / factor))], "scaled")
    s.add("Add", ["small", "scaled"], "sum")
    return s.head(s.relu(s.conv(s.relu("sum"), "last", 16, 16)), 16)


def test_a_rounding_that_both_types_read_is_restored_in_both(tmp_path):
    """No Cast stands between a rounding and a layer, whichever type the layer has; both restore the same integers."""
    model, wide = written(shared(1e5), tmp_path)
    assert wide > 0
    layers = [node(model, name) for name in ("small", "large")]
    assert [layer.outputs[0].dtype for layer in layers] == [HALF, FLOAT]
    restored = [layer.inputs[0].producer() for layer in layers]
    assert [item.op_type for item in restored] == ["DequantizeLinear"] * 2
    assert restored[0].inputs[0] is restored[1].inputs[0]
    assert float(g.constant(restored[0].inputs[1])) == float(g.constant(restored[1].inputs[1]))
    assert not [finding for finding in conformance.check(onnx.load(tmp_path / "typed.onnx"), TYPED) if finding.rule == "P1"]


def resized():
    """A network with an enlarged map."""
    s = Sketch()
    stem = s.relu(s.conv("planes", "stem", 16, 1))
    parts = [stem, "", s.constant("scales", [1, 1, 2, 2])]
    s.add("Resize", parts, "enlarged", mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    return s.head(s.relu(s.conv("enlarged", "last", 16, 16)), 16)


SKETCHES = {"plain": plain, "residual": residual, "transformer": transformer, "resized": resized, "large": lambda: scaled(1e5)}
everyone = pytest.mark.parametrize("build_sketch", SKETCHES.values(), ids=SKETCHES)
either = pytest.mark.parametrize("quantize", [True, False], ids=["int8", "fp16"])


@everyone
@either
def test_both_sides_of_every_operator_have_one_type(build_sketch, quantize, tmp_path):
    """ONNX's checker infers every type, the conformance checker finds nothing that TensorRT refuses, and the inferred types are mixed nowhere."""
    model, _ = written(build_sketch(), tmp_path, quantize=quantize)
    onnx.checker.check_model(onnx.load(tmp_path / "typed.onnx"), full_check=True)
    findings = conformance.check(onnx.load(tmp_path / "typed.onnx"), TYPED)
    assert [finding for finding in findings if finding.severity == "error"] == []
    for item in model.graph:
        inputs = [value for index, value in enumerate(item.inputs) if not (item.op_type == "Resize" and index in (1, 2))]
        kinds = {value.dtype for value in (*inputs, *item.outputs) if value is not None and value.dtype in (HALF, FLOAT)}
        assert len(kinds) <= 1 or item.op_type == "Cast", item


@everyone
@either
def test_frames_and_the_head_are_float32(build_sketch, quantize, tmp_path):
    """The preamble, where frames reach 255; and the head, so that logit = mean of the map + bias to float32 rounding."""
    sketch = build_sketch()
    model, _ = written(sketch, tmp_path, quantize=quantize)
    for name in ("preamble/mean", "preamble/std", "cam_head/maps", "cam_head/mean", "cam_head/logits"):
        assert node(model, name).outputs[0].dtype == FLOAT
    logits, maps = run(model, frames(4))
    bias = g.constant(node(model, "cam_head/logits").inputs[1])
    np.testing.assert_allclose(maps.mean(axis=(2, 3)) + bias, logits, atol=1e-5 * np.abs(maps).max())


def test_everything_else_is_float16(tmp_path):
    """Convolutions, and every constant they read; nothing but preamble and head is left in float32."""
    model, wide = written(plain(), tmp_path)
    assert wide == 0
    for name in ("stem", "middle", "last", "last_relu"):
        assert node(model, name).outputs[0].dtype == HALF
    floats = {value.name for value in model.graph.initializers.values() if value.dtype == FLOAT}
    assert all(name.startswith(("preamble/", "cam_head/")) for name in floats)


def test_normalization_and_softmax_are_float32(tmp_path):
    """They sum many terms."""
    model, _ = written(transformer(), tmp_path)
    assert node(model, "norm").outputs[0].dtype == FLOAT
    assert node(model, "up").outputs[0].dtype == HALF


@everyone
@either
def test_the_answers_are_those_of_float32(build_sketch, quantize, tmp_path):
    """Typing changes the answers by no more than float16 rounds; with integers, by what a step here and there does."""
    sketch = build_sketch()
    model, _ = written(sketch, tmp_path, quantize=quantize)
    for exact, found in zip(run(sketch.model(), frames(4)), run(model, frames(4)), strict=True):
        assert np.isfinite(found).all()
        assert np.abs(found - exact).max() < (0.1 if quantize else 0.01) * exact.std()


@either
def test_values_that_float16_cannot_hold_stay_in_float32(quantize, tmp_path):
    """The operators that make or read them, also as rounded: what a rounding restores is as large as what it rounded."""
    model, wide = written(scaled(1e5), tmp_path, quantize=quantize)
    assert wide >= 3
    for name in ("large", "wide", "small", *(["large/restored"] if quantize else [])):
        (item,) = [item for item in model.graph if item.outputs[0].name == name]
        assert {value.dtype for value in item.inputs if value is not None} <= {FLOAT, ir.DataType.INT8}
        assert item.outputs[0].dtype == FLOAT
    assert node(model, "stem").outputs[0].dtype == HALF
    assert node(model, "last").outputs[0].dtype == HALF


def test_between_a_rounding_and_a_layer_stands_no_cast(tmp_path):
    """A layer in float32 reads weights that are restored in float32: a Cast would keep TensorRT from its integer kernels."""
    model, _ = written(scaled(1e5), tmp_path)
    assert [value.producer().op_type for value in node(model, "wide").inputs[:2]] == ["DequantizeLinear", "DequantizeLinear"]


def test_weights_that_float16_cannot_hold_stay_in_float32(tmp_path):
    """A constant is looked at like any value."""
    s = Sketch()
    stem = s.relu(s.conv("planes", "stem", 16, 1))
    s.add("Add", [stem, s.constant("offset", np.full((1, 16, 1, 1), 5e4))], "shifted")
    s.add("Sub", ["shifted", s.constant("back", np.full((1, 16, 1, 1), 5e4))], "again")
    s.head(s.relu(s.conv("again", "last", 16, 16)), 16)
    model, wide = written(s, tmp_path, quantize=False)
    assert wide == 2
    assert node(model, "shifted").outputs[0].dtype == FLOAT
    assert np.isfinite(run(model, frames(2))[0]).all()


def test_a_value_that_is_no_number_is_too_large():
    """NaN on one frame, and not on the ones around it, is not forgotten."""
    s = Sketch()
    s.add("Log", [s.add("Add", ["planes", s.constant("half", np.full(1, 0.5))], "shifted")], "logarithm")
    s.head(s.relu(s.conv("logarithm", "stem", 16, 1)), 16)
    tensors = np.full((3, 8, 8, 1), 200, np.uint8)
    tensors[1, 0, 0] = 0
    assert np.isnan(half.largest_values(s.model(), tensors, Silent())["logarithm"])


@pytest.mark.parametrize("build_sketch", [plain, residual, transformer])
def test_float16_scales_are_those_that_integers_were_made_with(build_sketch, tmp_path):
    """Before and after typing every scale is the same number, and every integer is the same."""
    source = build_sketch().save(tmp_path / "graph.onnx")
    rounding = build.Rounding(rules=RULES["tensorrt"], method="extremes", weight_limit=127)
    before = build.quantize(source, rounding, WRITING, frames(8), Silent())
    after, _ = written(build_sketch(), tmp_path)
    scales = {item.name: [g.constant(value) for value in item.inputs] for item in before.graph if "quantize" in item.name}
    assert scales
    for name, parts in scales.items():
        for old, new in zip(parts, node(after, name).inputs, strict=True):
            if old is not None:
                assert np.array_equal(old.astype(np.float64), g.constant(new).astype(np.float64))


def test_the_scales_of_a_resize_are_float32(tmp_path):
    """ONNX wants them so, whatever is resized."""
    model, _ = written(resized(), tmp_path)
    item = node(model, "enlarged")
    assert (item.inputs[2].dtype, item.outputs[0].dtype) == (FLOAT, HALF)


def normalized(kind):
    """Features divided by their norm, which a guard keeps off 0."""
    s = Sketch()
    stem = s.relu(s.conv("planes", "stem", 16, 1))
    if kind == "operator":
        s.add("ReduceL2", [stem, s.constant("axes", [1], np.int64)], "norm", keepdims=1)
    else:
        s.add("Mul", [stem, stem], "square")
        s.add("ReduceMean", ["square", s.constant("axes", [1], np.int64)], "mean_square", keepdims=1)
        s.add("Sqrt", ["mean_square"], "norm")
    s.add("Max", ["norm", s.constant("guard", np.full(1, 1e-12))], "guarded")
    s.add("Div", [stem, "guarded"], "unit")
    return s.head(s.relu(s.conv("unit", "last", 16, 16)), 16)


@pytest.mark.parametrize("kind", ["operator", "written-out"])
def test_a_guard_of_a_divisor_is_not_rounded_to_zero(kind, tmp_path):
    """A black frame has a norm of 0; with a guard of 0 its answer would be 0 / 0."""
    s = normalized(kind)
    for item in s.initializers:
        if item.name == "stem.bias":
            item.CopyFrom(onnx.numpy_helper.from_array(np.zeros(16, np.float32), item.name))
    model, wide = written(s, tmp_path, quantize=False)
    assert wide == 1
    assert {node(model, name).outputs[0].dtype for name in ("guarded", "norm", "unit")} == {FLOAT}
    assert node(model, "last").outputs[0].dtype == HALF
    grey = np.full((1, 8, 8, 1), 127.5).round().astype(np.uint8)
    assert np.isfinite(run(model, grey)[0]).all()


def test_small_weights_are_no_guards(tmp_path):
    """A channel of weights that float16 cannot hold adds nothing, and its layer stays in float16."""
    s = Sketch()
    stem = s.relu(s.conv("planes", "stem", 16, 1))
    s.head(s.relu(s.conv(stem, "tiny", 16, 16, weight=np.full((16, 16, 3, 3), 1e-9))), 16)
    model, wide = written(s, tmp_path, quantize=False)
    assert (wide, node(model, "tiny").outputs[0].dtype) == (0, HALF)


def test_sums_and_norms_inside_one_operator_are_float32(tmp_path):
    """TensorRT takes the root of a sum of squares, which overflows long before its result does."""
    model, _ = written(normalized("operator"), tmp_path, quantize=False)
    assert node(model, "norm").outputs[0].dtype == FLOAT


def test_a_type_that_is_an_attribute_stays(tmp_path):
    """Nothing else would be valid ONNX."""
    s = Sketch()
    stem = s.relu(s.conv("planes", "stem", 16, 1))
    fill = onnx.helper.make_tensor("value", onnx.TensorProto.FLOAT, [1], [0.5])
    s.add("ConstantOfShape", [s.constant("sizes", [1, 16, 8, 8], np.int64)], "filled", value=fill)
    s.add("Add", [stem, "filled"], "shifted")
    s.head(s.relu(s.conv("shifted", "last", 16, 16)), 16)
    model, _ = written(s, tmp_path, quantize=False)
    assert node(model, "shifted").outputs[0].dtype == HALF
