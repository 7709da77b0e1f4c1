"""Which layers of a quantized graph hurt most."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir  # noqa: TID253 - builds graphs
import pytest
from qdq_builders import Sketch, frames, plain, run, transformer

from edgekit.compiler.progress import Silent
from edgekit.compiler.quantize.fallback import output_error
from edgekit.compiler.quantize.qdq import build
from edgekit.compiler.quantize.qdq.rank import rank
from edgekit.compiler.quantize.qdq.rules import RULES
from edgekit.compiler.stages.explain import ExplainedGraph
from edgekit.compiler.stages.measure import Measured
from edgekit.compiler.stages.qdq import Dialect, QdqStage, RankQdqStage

everyone = pytest.mark.parametrize("dialect", tuple(RULES))


def harmful(**options):
    """Five layers; the input of `third` has one channel that is a thousand times larger than the others, whose weights there are as much smaller."""
    s = Sketch(**options)
    value = s.relu(s.conv("planes", "first", 16, 1))
    value = s.relu(s.conv(value, "second", 16, 16))
    gains = np.ones((1, 16, 1, 1))
    gains[0, 5] = 1000
    s.add("Mul", [value, s.constant("gains", gains)], "spread")
    weight = s.noise(16, 16, 3, 3)
    weight[:, 5] /= 1000
    value = s.relu(s.conv("spread", "third", 16, 16, weight=weight))
    value = s.relu(s.conv(value, "fourth", 16, 16))
    return s.head(s.relu(s.conv(value, "fifth", 16, 16)), 16)


def quantized(path, dialect, float_layers=(), *, correct_biases=False):
    rounding = build.Rounding(
        rules=RULES[dialect], method="extremes", weight_limit=127, float_layers=float_layers, correct_biases=correct_biases
    )
    return build.quantize(path, rounding, build.Writing(), frames(8), Silent())


def measured(model):
    return Measured(**dict(zip(("logits", "maps"), run(model, frames(8)), strict=True)))


@everyone
def test_the_layer_that_hurts_most_comes_first(dialect, tmp_path):
    """One planted outlier channel costs its layer all precision; taking that layer back takes the error back."""
    path = harmful().save(tmp_path / "graph.onnx")
    error, layers = rank(ir.load(path), quantized(path, dialect), frames(8), lambda *_: None)
    assert layers[0].name == "third"
    assert layers[0].type == "Conv"
    assert layers[0].error > 0.5 * error
    assert [layer.error for layer in layers] == sorted((layer.error for layer in layers), reverse=True)


@everyone
def test_what_is_measured_is_what_a_float_layer_brings(dialect, tmp_path):
    """The graph with the worst layer in float has the error that the ranking promised."""
    path = harmful().save(tmp_path / "graph.onnx")
    exact = ir.load(path)
    error, layers = rank(exact, quantized(path, dialect), frames(8), lambda *_: None)
    found = output_error(measured(exact), measured(quantized(path, dialect, (layers[0].name,))))
    assert found == pytest.approx(error - layers[0].error, rel=1e-3)
    assert output_error(measured(exact), measured(quantized(path, dialect, (layers[0].name,), correct_biases=True))) < 0.1 * error


@everyone
@pytest.mark.parametrize("build_sketch", [harmful, transformer, plain])
def test_the_graph_is_as_it_was(dialect, build_sketch, tmp_path):
    """Byte for byte, and asked twice it says the same."""
    path = build_sketch().save(tmp_path / "graph.onnx")
    model = quantized(path, dialect)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    answers = [rank(ir.load(path), model, frames(4), lambda *_: None) for _ in range(2)]
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    assert answers[0] == answers[1]


@everyone
def test_the_stage_finds_it_too(dialect, tmp_path):
    """The ranking is of roundings alone: biases that were corrected for a layer's errors would make it look harmless."""
    path = harmful().save(tmp_path / "graph.onnx")
    graph = ExplainedGraph(path=path, sha256="", rows=8, columns=8, bias=(0.0,) * 3, outputs=3, reason="")
    base = QdqStage(
        graph=graph,
        dialect=Dialect(rules=dialect, writing=build.Writing(), weight_limit=127),
        precision="int8",
        rung="ptq",
        calibration=frames(8),
        calibration_sha256="",
    )
    stage = RankQdqStage(base=base, tensors=frames(8), tensors_sha256="")
    stage.apply(tmp_path, Silent())
    found = stage.ensures(tmp_path)
    assert found.layers[0].name == "third"
    assert 0 < found.layers[0].error <= found.error


def test_every_layer_is_told(tmp_path):
    """Progress counts to the number of layers."""
    path = plain().save(tmp_path / "graph.onnx")
    told = []
    _, layers = rank(ir.load(path), quantized(path, "onnxruntime"), frames(2), lambda *step: told.append(step))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert sorted(layer.name for layer in layers) == ["last", "middle", "stem"]
