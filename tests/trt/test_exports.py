"""What edgekit writes for TensorRT, of real architectures: NVIDIA's parser and builder take it, and it conforms to the rules of every version it is meant for."""

from __future__ import annotations

import ast
import dataclasses

import numpy as np
import pytest
import repository
import trt_rtx

from edgekit.catalog.target import EngineChoice, TensorRt, load_target
from edgekit.compiler import conformance, pack
from edgekit.compiler.dialects import dialect_of
from edgekit.compiler.progress import Silent
from edgekit.compiler.stages.frames import PreparedSplit


def listed(name):
    """A literal of the benchmark that measures the same architectures; importing it would take what only it needs."""
    tree = ast.parse((repository.ROOT / "benchmarks" / "architectures.py").read_text("utf-8"))
    return next(ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == name)


ARCHITECTURES, SIZES = listed("ARCHITECTURES"), listed("SIZES")
HEAVY = {"vgg11"}
"""130 million weights, which take as long as ten of the others."""

VERSIONS = ("10.3", "10.16", "11.4")


def test_as_many_architectures_as_were_promised():
    """Fifteen and more without the heavy ones, and one of each kind that is taken to a GPU: residual, depthwise, dense, attention, layer normalization."""
    light = set(ARCHITECTURES) - HEAVY
    assert len(light) >= 15
    assert set(ARCHITECTURES) > HEAVY
    assert {"resnet18", "mobilenetv3_large_100", "densenet121", "vit_tiny_patch16_224", "convnext_atto"} <= light


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.slow) if name in HEAVY else name for name in ARCHITECTURES])
def explained(request, tmp_path_factory):
    """The explained graph of an architecture with random weights and fitting statistics, and its input; exported once."""
    trt_rtx.folder("rtx")
    import half_checks

    return half_checks.explained(request.param, SIZES.get(request.param, 224), tmp_path_factory.mktemp(request.param))


def int8_constants(model):
    """The INT8 constants of a graph that are not zero points."""
    import onnx

    kinds = {"QuantizeLinear", "DequantizeLinear"}
    constants = {item.name for item in model.graph.initializer if item.data_type == onnx.TensorProto.INT8}
    made = {
        node.output[0] for node in model.graph.node if node.op_type == "Constant" and node.attribute[0].t.data_type == onnx.TensorProto.INT8
    }
    return sorted(
        name
        for node in model.graph.node
        for place, name in enumerate(node.input)
        if name in constants | made and not (node.op_type in kinds and place == 2)
    )


@pytest.mark.parametrize(
    ("engine", "versions", "opset"),
    [("tensorrt-int8", VERSIONS, 20), ("tensorrt-fp16", VERSIONS, 20), ("tensorrt-int8", ("8.6",), 17), ("tensorrt-int8", ("8.5",), 17)],
    ids=["int8", "fp16", "int8-8.6", "int8-8.5"],
)
def test_an_export_is_taken(explained, engine, versions, opset, tmp_path):
    """It conforms to each version's rules (the stage itself refuses it otherwise), and the typed one is parsed and built by NVIDIA's own code."""
    import onnx

    graph, taken = explained
    target = dataclasses.replace(
        load_target("jetson-agx-orin-64gb"),
        engines=(EngineChoice(name=engine, settings={}),),
        tensorrt=TensorRt(versions=versions, opset=opset, strongly_typed=opset > 17),
        jetson=None,
    )
    tensors = pack.golden_frames(taken)
    frames = PreparedSplit(tensors=tensors, truth=np.zeros((len(tensors), 3), dtype=np.bool_), samples=(), sha256="")
    stage = dialect_of(target).make(graph, "ptq" if engine == "tensorrt-int8" else "float", frames)
    stage.apply(tmp_path, Silent())
    content = stage.ensures(tmp_path).files["onnx"].read_bytes()
    model = onnx.load_from_string(content)
    assert model.opset_import[0].version == opset
    pairs = sum(node.op_type == "QuantizeLinear" for node in model.graph.node)
    assert (pairs > 0) == (engine == "tensorrt-int8")
    # Before version 10 the library takes none (Q14); from there on the weights are such constants.
    assert (int8_constants(model) != []) == (engine == "tensorrt-int8" and opset > 17)
    assert not [finding for finding in conformance.check(model, target) if finding.severity == "error"]
    if opset > 17:
        built = trt_rtx.parse_and_build(content)
        assert built.ok, built.errors
