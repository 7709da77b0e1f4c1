"""Graphs that were trained with their roundings, in other dialects."""
# ruff: noqa: TID253 - trains and reads graphs

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from conformance_builders import TYPED
from network_builders import create, input_spec
from qat_builders import calibrated
from qdq_builders import Sketch, made_by, run
from torch import nn

from edgekit.compiler import conformance
from edgekit.compiler import graph as g
from edgekit.compiler.explain.find import explain
from edgekit.compiler.export import preamble
from edgekit.compiler.progress import Silent
from edgekit.compiler.quantize.qat import export
from edgekit.compiler.quantize.qdq import build, half
from edgekit.compiler.quantize.qdq.ranges import Scale
from edgekit.compiler.quantize.qdq.rules import RULES
from edgekit.compiler.quantize.qdq.trained import in_dialect, take_apart
from edgekit.errors import ModelError


class Pooled(nn.Module):
    """A maximum between two convolutions: the training rounds above it, a dialect may round below it."""

    def __init__(self):
        super().__init__()
        self.parts = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, 3),
        )

    def forward(self, x):
        return self.parts(x)


MODULES = {"convolutions": lambda: None, "pooled": lambda: Pooled().eval(), "transformer": lambda: create("timm:test_vit", img_size=32)}


@pytest.fixture(scope="module", params=MODULES)
def trained(request, tmp_path_factory):
    """An explained Q/DQ graph as the rung `qat` exports it, and frames."""
    folder = tmp_path_factory.mktemp("trained")
    network, taken, tensors = calibrated(MODULES[request.param](), input_spec(color="rgb"), count=8)
    export.export(network, (taken.channels, *taken.size), folder / "model.onnx")
    model = ir.load(folder / "model.onnx")
    preamble.attach(model, taken)
    head = explain(model)
    assert not isinstance(head, str), head
    proto = ir.to_proto(model)
    (folder / "explained.onnx").write_bytes(proto.SerializeToString())
    return folder / "explained.onnx", tensors


def rewritten(path, tensors, dialect, *, limit=127, typed=False):
    rounding = build.Rounding(rules=RULES[dialect], method="extremes", weight_limit=limit)
    writing = build.Writing(opset=19, typed=True) if typed else build.Writing()
    return build.rewrite_trained(path, rounding, writing, tensors, Silent()), writing


def weights_of(model):
    """Layer's name to the integers of its weight, as int; whether it stores them or rounds them."""
    found = {}
    for item in model.graph:
        weight = item.inputs[1] if item.op_type in ("Conv", "Gemm", "MatMul") else None
        turned = made_by(weight) == "Transpose" and made_by(weight.producer().inputs[0]) == "DequantizeLinear"
        weight = weight.producer().inputs[0] if turned else weight
        if made_by(weight) != "DequantizeLinear":
            continue
        restore = weight.producer()
        integers, step = g.constant(restore.inputs[0]), g.constant(restore.inputs[1])
        if integers is None:
            floats = g.constant(restore.inputs[0].producer().inputs[0])
            axis = restore.attributes["axis"].as_int() if np.ndim(step) else 0
            spread = [-1 if index == axis and np.ndim(step) else 1 for index in range(floats.ndim)]
            integers = np.clip(np.rint(floats / step.reshape(spread)), -128, 127)
        found[item.name] = (integers.T if turned else integers).astype(int)
    return found


def test_taken_apart_it_answers_alike_but_for_the_rounding_of_values(trained):
    """No pair is left, weights have the values they were rounded to, and every value that was rounded has its scale."""
    path, tensors = trained
    model = ir.load(path)
    pairs = [item for item in model.graph if item.op_type == "QuantizeLinear"]
    values = {item.inputs[0].name: item.inputs for item in pairs if g.constant(item.inputs[0]) is None}
    found = take_apart(model)
    assert not [item for item in model.graph if "Linear" in item.op_type]
    assert set(found.values) == set(values)
    for name, (_, scale, zero) in values.items():
        expected = Scale(scale=float(g.constant(scale)), zero_point=int(g.constant(zero)), unsigned=g.constant(zero).dtype == np.uint8)
        assert found.values[name] == expected
    exact, before = run(model, tensors)[0], run(ir.load(path), tensors)[0]
    assert np.abs(exact - before).max() < 0.1 * np.abs(before).max()


@pytest.mark.parametrize(("dialect", "typed"), [("onnxruntime", False), ("tensorrt", False), ("tensorrt", True)])
def test_the_integers_of_the_weights_are_those_that_were_trained(trained, dialect, typed):
    """Whatever the dialect, and also where its scales are float16."""
    path, tensors = trained
    expected = weights_of(ir.load(path))
    model, _ = rewritten(path, tensors, dialect, typed=typed)
    found = weights_of(model)
    assert found
    for name, integers in found.items():
        assert np.array_equal(integers, expected[name]), name


@pytest.mark.parametrize(("dialect", "typed"), [("onnxruntime", False), ("tensorrt", False), ("tensorrt", True)])
def test_the_answers_are_those_of_the_trained_graph(trained, dialect, typed, tmp_path):
    """As near as the other integers allow; valid, and nothing that TensorRT refuses."""
    path, tensors = trained
    model, writing = rewritten(path, tensors, dialect, typed=typed)
    build.write(model, writing, tmp_path / "made.onnx", tensors, Silent())
    before, after = (run(source.read_bytes(), tensors)[0] for source in (path, tmp_path / "made.onnx"))
    assert np.abs(before - after).max() < 0.1 * np.abs(before).max()
    if typed:
        findings = conformance.check(onnx.load(tmp_path / "made.onnx"), TYPED)
        assert [finding for finding in findings if finding.severity == "error"] == []


@pytest.mark.parametrize("dialect", ["onnxruntime", "tensorrt"])
def test_trained_ranges_are_kept(trained, dialect):
    """A rounding has the trained range, also where it stands behind an operator that only moves what the training rounded."""
    path, tensors = trained
    scales = take_apart(ir.load(path)).values
    model, _ = rewritten(path, tensors, dialect)
    unsigned = dialect == "onnxruntime"
    checked = 0
    for item in model.graph:
        if item.op_type != "QuantizeLinear":
            continue
        source = item.inputs[0]
        while (
            source.name not in scales and source.producer() is not None and source.producer().op_type in ("MaxPool", "Reshape", "Transpose")
        ):
            source = source.producer().inputs[0]
        if source.name in scales:
            expected = in_dialect(scales[source.name], unsigned=unsigned, half=False)
            assert g.constant(item.inputs[1]) == pytest.approx(expected.scale), item.name
            assert g.constant(item.inputs[2]) == expected.zero_point
            checked += 1
    assert checked


def test_trained_weights_keep_to_a_smaller_limit(trained):
    """A dialect with half of the range gets no weight outside it."""
    path, tensors = trained
    model, _ = rewritten(path, tensors, "onnxruntime", limit=63)
    assert max(np.abs(integers).max() for integers in weights_of(model).values()) <= 63


@pytest.mark.parametrize(
    ("scale", "unsigned", "expected"),
    [
        (Scale(scale=0.5, unsigned=True), True, Scale(scale=0.5, unsigned=True)),
        (Scale(scale=0.5, unsigned=True), False, Scale(scale=0.5 * 255 / 127)),
        (Scale(scale=0.5), True, Scale(scale=0.5, zero_point=128, unsigned=True)),
        (Scale(scale=0.5), False, Scale(scale=0.5)),
        (Scale(scale=0.5, zero_point=100, unsigned=True), False, Scale(scale=0.5 * 155 / 127)),
    ],
)
def test_a_range_in_other_integers(scale, unsigned, expected):
    """uint8 as int8 has wider steps; int8 as uint8 is moved by 128; all that was in range still is."""
    found = in_dialect(scale, unsigned=unsigned, half=False)
    assert (found.zero_point, found.unsigned) == (expected.zero_point, expected.unsigned)
    assert found.scale == pytest.approx(expected.scale)


def test_a_range_in_float16():
    """Exact, and not smaller."""
    found = in_dialect(Scale(scale=0.0123456), unsigned=False, half=True)
    assert float(np.float16(found.scale)) == found.scale >= 0.0123456


@pytest.mark.parametrize("spoil", ["no counterpart", "scale that depends on the frame"])
def test_a_rounding_that_no_training_writes_is_refused(spoil):
    """A graph that brings other roundings would be read wrong."""
    s = Sketch()
    stem = s.relu(s.conv("planes", "stem", 16, 1))
    zero = s.constant("zero", np.array(0), np.int8)
    if spoil == "no counterpart":
        s.add("QuantizeLinear", [stem, s.constant("scale", np.array(0.1)), zero], "quantized")
        s.add("Cast", ["quantized"], "restored", to=1)
    else:
        s.add("ReduceMax", [stem], "largest", keepdims=0)
        s.add("QuantizeLinear", [stem, "largest", zero], "quantized")
        s.add("DequantizeLinear", ["quantized", "largest", zero], "restored")
    s.head(s.relu(s.conv("restored", "last", 16, 16)), 16)
    with pytest.raises(ModelError, match="no rounding that the training writes"):
        take_apart(s.model())


def test_the_types_of_a_trained_graph_are_looked_at_in_it(trained, tmp_path):
    """float16 is judged by the values of the graph that is written."""
    path, tensors = trained
    model, _ = rewritten(path, tensors, "tensorrt", typed=True)
    found = half.largest_values(model, tensors[:2], Silent())
    restored = [value.name for item in model.graph for value in item.outputs if item.op_type == "DequantizeLinear"]
    assert restored
    assert set(restored) <= set(found)
    build.write(model, build.Writing(opset=19, typed=True), tmp_path / "made.onnx", tensors, Silent())
