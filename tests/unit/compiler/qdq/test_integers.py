"""Biases as integers, and that ONNX Runtime then computes in integers."""

from __future__ import annotations

import numpy as np
import onnx  # noqa: TID253 - reads what was written
import pytest
from qdq_builders import Sketch, frames, made_by, node, plain, residual, run

from edgekit.compiler import graph as g
from edgekit.compiler.progress import Silent
from edgekit.compiler.quantize.qdq import build
from edgekit.compiler.quantize.qdq.rules import RULES


def quantized(sketch, path, *, integer_bias=True):
    """The graph in ONNX Runtime's dialect, with its biases as integers or not; its weights are summed alike on every CPU."""
    import dataclasses

    rules = dataclasses.replace(RULES["onnxruntime"], integer_bias=integer_bias)
    rounding = build.Rounding(rules=rules, method="extremes", weight_limit=63)
    return build.quantize(sketch.save(path / "graph.onnx"), rounding, build.Writing(), frames(8), Silent())


def optimized_operators(model, path):
    """Operators of the graph that ONNX Runtime executes."""
    import onnx_ir as ir
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path / "optimized.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [item.op_type for item in onnx.load(path / "optimized.onnx").graph.node]


@pytest.mark.parametrize("build_sketch", [plain, residual])
def test_logits_hardly_change(build_sketch, tmp_path):
    """An integer bias is within half of a step that is 2⁻¹⁵ of the range, or finer."""
    floats, whole = (quantized(build_sketch(), tmp_path, integer_bias=choice) for choice in (False, True))
    for before, after in zip(run(floats, frames(8)), run(whole, frames(8)), strict=True):
        # A value that lies on the border between two steps may fall to the other side.
        assert np.abs(before - after).mean() < 1e-3 * before.std()


def test_every_layer_has_an_integer_bias_in_the_product_of_its_scales(tmp_path):
    """int32, one scale an output channel: that of the input times that of the weight."""
    model = quantized(plain(), tmp_path)
    for name in ("stem", "middle", "last"):
        features, weight, bias = (value.producer() for value in node(model, name).inputs)
        assert g.constant(bias.inputs[0]).dtype == np.int32
        assert np.array_equal(g.constant(bias.inputs[1]), g.constant(features.inputs[1]) * g.constant(weight.inputs[1]))
    assert made_by(node(model, "cam_head/maps").inputs[1]) == ""


def test_onnx_runtime_computes_every_layer_in_integers(tmp_path):
    """Its optimizer makes integer convolutions of all three, and an integer sum; only the head is left in float."""
    operators = optimized_operators(quantized(residual(), tmp_path), tmp_path)
    assert operators.count("QLinearConv") == 3
    assert operators.count("QLinearAdd") == 1
    assert operators.count("Conv") + operators.count("FusedConv") == 1


def test_a_dead_channel_does_not_keep_its_layer_from_integers(tmp_path):
    """A channel whose weights are all zero, as pruning and training leave them, has a bias like any other."""
    s = Sketch()
    stem = s.relu(s.conv("planes", "stem", 16, 1))
    weight = s.noise(16, 16, 3, 3)
    weight[3] = 0
    s.head(s.relu(s.conv(s.relu(s.conv(stem, "dead", 16, 16, weight=weight)), "last", 16, 16)), 16)
    model = quantized(s, tmp_path)
    assert made_by(node(model, "dead").inputs[2]) == "DequantizeLinear"
    assert optimized_operators(model, tmp_path).count("QLinearConv") == 3


@pytest.mark.parametrize("shape", [(16,), (1, 16), (1,), ()])
def test_a_gemm_may_write_its_bias_in_any_shape(shape, tmp_path):
    """ONNX spreads it over the rows; the graph with integers is valid and answers alike."""
    s = Sketch()
    s.add("Reshape", [s.relu(s.conv("planes", "stem", 16, 1)), s.constant("rows", [-1, 16], np.int64)], "many")
    s.add("Gemm", ["many", s.constant("layer.weight", s.noise(16, 16)), s.constant("layer.bias", s.noise(*shape))], "layer")
    s.add("ReduceMean", ["layer", s.constant("axes", [0], np.int64)], "mean", keepdims=1)
    s.gemm_head("mean", 16)
    exact = run(s.model(), frames(4))[0]
    model = quantized(s, tmp_path)
    build.write(model, build.Writing(), tmp_path / "made.onnx", frames(1), Silent())
    assert np.abs(run(model, frames(4))[0] - exact).max() < 0.05 * np.abs(exact).max()
    assert np.allclose(run(model, frames(4), optimize=True)[0], run(model, frames(4))[0], atol=1e-3)


def test_a_channel_with_next_to_no_weights_has_steps_in_which_its_bias_fits(tmp_path):
    """Batch normalization folded into a channel that training has given up leaves weights of 1e-12; cut off, its bias would be another one."""
    s = Sketch()
    stem = s.relu(s.conv("planes", "stem", 16, 1))
    weight = s.noise(16, 16, 3, 3)
    weight[3] *= 1e-12
    s.head(s.relu(s.conv(s.relu(s.conv(stem, "faint", 16, 16, weight=weight)), "last", 16, 16)), 16)
    floats, whole = (quantized(s, tmp_path, integer_bias=choice) for choice in (False, True))
    bias = g.constant(node(floats, "faint").inputs[2])
    made = node(whole, "faint").inputs[2].producer()
    assert g.constant(made.inputs[0]) * g.constant(made.inputs[1]) == pytest.approx(bias, abs=1e-4)
    before, after = (run(model, frames(4), ["faint"])[0] for model in (floats, whole))
    np.testing.assert_allclose(before[:, 3], after[:, 3], atol=1e-4)
    others = [channel for channel in range(16) if channel != 3]
    kept = [g.constant(node(model, "faint").inputs[1].producer().inputs[0])[others] for model in (floats, whole)]
    assert np.array_equal(*kept)
