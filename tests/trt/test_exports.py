"""What edgekit writes for TensorRT, of real architectures: NVIDIA's parser and builder take it, and it conforms to the rules of every version it is meant for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import trt_rtx

from edgekit.catalog.target import EngineChoice, TensorRt, load_target
from edgekit.compiler import conformance, pack
from edgekit.compiler.dialects import dialect_of
from edgekit.compiler.progress import Silent
from edgekit.compiler.stages.explain import ExplainStage
from edgekit.compiler.stages.frames import PreparedSplit
from edgekit.compiler.stages.load import FloatGraph
from edgekit.compiler.torchvision_ops import define_missing_operators
from edgekit.compiler.workspace import file_digest
from edgekit.schema.model_io import InputSpec

# One of a kind: residual sums, depthwise convolutions with squeeze and excitation, dense concatenations, attention, layer normalization between convolutions.
ARCHITECTURES = ("resnet18", "mobilenetv3_small_050", "densenet121", "vit_tiny_patch16_224", "convnext_atto")
TAKEN = InputSpec(color="grey", channels=3, resize=(224, 224), crop=(224, 224), mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5))
VERSIONS = ("10.3", "10.16", "11.4")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def explained(request, tmp_path_factory):
    """The explained graph of an architecture with random weights and fitting statistics."""
    trt_rtx.folder("rtx")
    import torch

    define_missing_operators()
    import timm

    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    network = timm.create_model(request.param, num_classes=3).train()
    with torch.no_grad():
        for _ in range(4):
            network(torch.randn(4, 3, 224, 224))
    program = torch.onnx.export(
        network.eval(), (torch.zeros(1, 3, 224, 224),), dynamo=True, opset_version=20, external_data=False, verbose=False
    )
    program.save(str(folder / "model.onnx"))
    path = folder / "model.onnx"
    stage = ExplainStage(graph=FloatGraph(path=path, sha256=file_digest(path), notes=()), input=TAKEN)
    stage.apply(folder, Silent())
    return stage.ensures(folder)


@pytest.mark.parametrize(
    ("engine", "versions", "opset"),
    [("tensorrt-int8", VERSIONS, 20), ("tensorrt-fp16", VERSIONS, 20), ("tensorrt-int8", ("8.6",), 17), ("tensorrt-int8", ("8.5",), 17)],
    ids=["int8", "fp16", "int8-8.6", "int8-8.5"],
)
def test_an_export_is_taken(explained, engine, versions, opset, tmp_path):
    """It conforms to each version's rules (the stage itself refuses it otherwise), and the typed one is parsed and built by NVIDIA's own code."""
    import onnx

    target = dataclasses.replace(
        load_target("jetson-agx-orin-64gb"),
        engines=(EngineChoice(name=engine, settings={}),),
        tensorrt=TensorRt(versions=versions, opset=opset, strongly_typed=opset > 17),
        jetson=None,
    )
    tensors = pack.golden_frames(TAKEN)
    frames = PreparedSplit(tensors=tensors, truth=np.zeros((len(tensors), 3), dtype=np.bool_), samples=(), sha256="")
    stage = dialect_of(target).make(explained, "ptq" if engine == "tensorrt-int8" else "float", frames)
    stage.apply(tmp_path, Silent())
    content = stage.ensures(tmp_path).files["onnx"].read_bytes()
    model = onnx.load_from_string(content)
    assert model.opset_import[0].version == opset
    pairs = sum(node.op_type == "QuantizeLinear" for node in model.graph.node)
    assert (pairs > 0) == (engine == "tensorrt-int8")
    assert not [finding for finding in conformance.check(model, target) if finding.severity == "error"]
    if opset > 17:
        built = trt_rtx.parse_and_build(content)
        assert built.ok, built.errors
