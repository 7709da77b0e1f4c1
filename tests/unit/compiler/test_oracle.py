"""The numerical oracle computes a Q/DQ graph as ONNX defines it."""
# ruff: noqa: TID253 - builds graphs

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper
from qdq_builders import Sketch, frames, plain, quantize_linear, residual

from edgekit.bundle.manifest import EngineSpec
from edgekit.compiler.oracle import open_oracle, write_out_halves
from edgekit.compiler.progress import Silent
from edgekit.compiler.quantize.qdq import build
from edgekit.compiler.quantize.qdq.rules import RULES
from edgekit.compiler.quantize.qdq.run import open_session
from edgekit.errors import BundleError

SPEC = EngineSpec(
    name="tensorrt-int8",
    files={"onnx": "model/x.onnx"},
    minimum_version="10.3",
    precision="int8",
    settings={"WORKSPACE_MIB": "256"},
    outputs=3,
)


def opened(model, **changes):
    import dataclasses

    content = model if isinstance(model, bytes) else ir.to_proto(model).SerializeToString()
    return open_oracle(dataclasses.replace(SPEC, **changes), {"model/x.onnx": memoryview(content)})


def one_convolution(scale):
    """Pixels, rounded, into a 1 × 1 convolution of integer weights; a map and its mean."""
    s = Sketch()
    s.initializers, s.nodes = [], []
    s.add("Cast", ["frame"], "pixels", to=1)
    s.add("Transpose", ["pixels"], "planes", perm=[0, 3, 1, 2])
    parts = [s.constant("scale", np.array(scale)), s.constant("zero", np.array(0), np.int8)]
    s.add("QuantizeLinear", ["planes", *parts], "rounded")
    s.add("DequantizeLinear", ["rounded", *parts], "restored")
    weight = [
        s.constant("weight", np.array([3, -2, 7]).reshape(3, 1, 1, 1), np.int8),
        s.constant("weight_scale", [0.5, 0.25, 0.125]),
        s.constant("weight_zero", np.zeros(3), np.int8),
    ]
    s.add("DequantizeLinear", weight, "weight_restored", axis=0)
    s.nodes.append(helper.make_node("Conv", ["restored", "weight_restored"], ["cam"], name="layer"))
    s.add("ReduceMean", ["cam", s.constant("axes", [2, 3], np.int64)], "logits", keepdims=0)
    s.outputs = ["logits", "cam"]
    return s.proto().SerializeToString()


@pytest.mark.parametrize("scale", [2.0, 1.0, 2.5, 0.5])
def test_rounding_is_exact(scale):
    """Half to even and saturated at −128 and 127, as numpy works it out: 255 / 2 = 127.5 saturates, 1 / 2 rounds to 0, 3 / 2 to 2."""
    engine = opened(one_convolution(scale))
    tensors = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    for tensor in tensors:
        raw = engine.infer(np.ascontiguousarray(tensor[None]))
        values = quantize_linear(tensor[..., 0].astype(np.float64), scale, 0, np.int8).astype(np.float64) * scale
        expected = np.array([3 * 0.5, -2 * 0.25, 7 * 0.125]).reshape(3, 1, 1) * values
        assert np.array_equal(raw.cam, expected)
        np.testing.assert_allclose(raw.logits, expected.mean(axis=(1, 2)), rtol=1e-6)


def test_nothing_is_optimized_away(monkeypatch):
    """What runs is the graph as it is written, whatever the device's settings say; only float32 may be optimized, where it changes nothing."""
    import onnxruntime

    seen = []
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda data, options, **more: seen.append(options) or real(data, options, **more))
    level = onnxruntime.GraphOptimizationLevel
    model = plain().model()
    for precision, expected in (("int8", level.ORT_DISABLE_ALL), ("fp16", level.ORT_DISABLE_ALL), ("f32", level.ORT_ENABLE_ALL)):
        opened(model, precision=precision, settings={"GRAPH_OPTIMIZATION": "all"})
        assert seen[-1].graph_optimization_level == expected


@pytest.mark.parametrize("writing", [build.Writing(opset=17), build.Writing(opset=19, typed=True)], ids=["8.5", "10.3"])
def test_it_answers_what_the_graph_says(writing, tmp_path):
    """The engine's own settings and versions do not hold for it; the answers are those of the exact network but for rounding."""
    path = residual().save(tmp_path / "graph.onnx")
    rounding = build.Rounding(rules=RULES["tensorrt"], method="extremes", weight_limit=127)
    model = build.quantize(path, rounding, writing, frames(8), Silent())
    build.write(model, writing, tmp_path / "made.onnx", frames(8), Silent())
    exact, rounded = opened(path.read_bytes(), precision="f32"), opened((tmp_path / "made.onnx").read_bytes(), minimum_version="99.9")
    for tensor in frames(4):
        before, after = (engine.infer(np.ascontiguousarray(tensor[None])) for engine in (exact, rounded))
        assert before.cam.shape == after.cam.shape
        assert 0 < np.abs(before.cam - after.cam).max() < 0.2


def test_another_number_of_outputs_is_refused():
    """The manifest's number must be the graph's, here as on the device."""
    with pytest.raises(BundleError, match="2 logits"):
        opened(plain().model(), outputs=2)


def halves(*nodes, constant):
    """A graph of float16 between two casts; `frame` is float32 (1, 4)."""
    cast_in, cast_out = helper.make_node("Cast", ["frame"], ["x"], to=10), helper.make_node("Cast", ["z"], ["logits"], to=1)
    shape = [helper.make_tensor_value_info(name, 1, [1, 4]) for name in ("frame", "logits")]
    stored = onnx.numpy_helper.from_array(np.array(constant, np.float16), "k")
    graph = helper.make_graph([cast_in, *nodes, cast_out], "halves", shape[:1], shape[1:], [stored])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return onnx.shape_inference.infer_shapes(model).SerializeToString()


@pytest.mark.parametrize(
    ("nodes", "constant", "frame", "expected"),
    [
        ((("Mul", "x", "k", "y"), ("Div", "y", "k", "z")), 300, 300, np.inf),
        ((("Add", "x", "k", "y"), ("Sub", "y", "x", "z")), 1, 2048, 0),
        ((("Mul", "x", "k", "y"), ("Mul", "y", "k", "z")), 1e-4, 1e-4, 0),
    ],
    ids=["overflows", "is-absorbed", "vanishes"],
)
def test_float16_is_rounded_between_operators(nodes, constant, frame, expected):
    """Left to itself ONNX Runtime computes a chain of float16 operators in float32 on a CPU, and shows no overflow."""
    made = [helper.make_node(kind, [first, second], [out]) for kind, first, second, out in nodes]
    content = halves(*made, constant=constant)
    answers = [
        open_session(graph, optimize=False).run(None, {"frame": np.full((1, 4), frame, np.float32)})[0]
        for graph in (content, write_out_halves(content))
    ]
    assert np.isfinite(answers[0]).all()
    assert (answers[1] == expected).all()


def test_weights_and_integers_go_through_float16_too():
    """What a DequantizeLinear of float16 restores is a float16."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "k", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "k", "zero"], ["z"]),
    ]
    model = onnx.load_from_string(halves(*nodes, constant=0.1))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0, np.int8), "zero"))
    content = onnx.shape_inference.infer_shapes(model).SerializeToString()
    found = open_session(write_out_halves(content), optimize=False).run(None, {"frame": np.full((1, 4), 3.0, np.float32)})[0]
    assert (found == np.float32(np.float16(np.float32(30) * np.float32(np.float16(0.1))))).all()


def test_what_has_no_float16_is_left_alone():
    """The same bytes."""
    content = one_convolution(1.0)
    assert write_out_halves(content) == content
