"""The features that the input gate judges: what the head reads, averaged over positions, whatever the map is."""
# ruff: noqa: TID253 - the tests of what loads torch load torch

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from network_builders import create, frames, input_spec, run_onnx, settle

from edgekit.compiler.explain.head import PREFIX
from edgekit.compiler.load.source import normalize
from edgekit.compiler.load.torch_model import TorchModel
from edgekit.compiler.progress import Silent
from edgekit.compiler.quantize import openvino_ptq
from edgekit.compiler.quantize.rungs import RUNGS
from edgekit.compiler.stages.explain import ExplainStage
from edgekit.compiler.stages.load import FloatGraph
from edgekit.compiler.workspace import file_digest
from edgekit.runtime.engines.openvino import load_library

SPEC = input_spec(resize=(64, 64))
LABELS = 3


class Scaled(torch.nn.Module):
    """No pooling: a layer on every second pixel."""

    def __init__(self):
        super().__init__()
        self.hidden = torch.nn.Linear(3 * 8, 6)
        self.last = torch.nn.Linear(6, LABELS)

    def forward(self, x):
        return self.last(torch.relu(self.hidden(torch.cumsum(x[:, :, 0, :8], dim=2).reshape(1, -1))))


def mean(net, planes):
    return net.forward_features(planes).mean((2, 3))


def token(net, planes):
    return net.forward_head(net.forward_features(planes), pre_logits=True)


def mean_and_maximum_read_the_same(net, planes):
    return mean(net, planes)


def below_the_map_of_logits(net, planes):
    return net.features(planes).mean((2, 3))


def hidden(net, planes):
    return torch.relu(net.hidden(torch.cumsum(planes[:, :, 0, :8], dim=2).reshape(1, -1)))


HEADS = {
    "linear": (lambda: create("timm:test_efficientnet", LABELS), mean, "auto"),
    "linear, no map": (lambda: create("timm:test_efficientnet", LABELS), mean, "none"),
    "hidden layer": (lambda: create("timm:mobilenetv3_small_050", LABELS), mean, "auto"),
    "normalized": (lambda: create("timm:test_convnext", LABELS), mean, "auto"),
    "mean and maximum": (lambda: create("timm:resnet10t", LABELS, global_pool="catavgmax"), mean_and_maximum_read_the_same, "auto"),
    "map of logits": (lambda: create("torchvision:squeezenet1_1", LABELS), below_the_map_of_logits, "auto"),
    "token": (lambda: create("timm:test_vit", LABELS, img_size=64), token, "auto"),
    "no pooling": (Scaled, hidden, "auto"),
}


def explained(net, folder, choice="auto"):
    path = folder / "float.onnx"
    TorchModel(net, SPEC, labels=LABELS, binary=False).export(path)
    stage = ExplainStage(graph=FloatGraph(path=path, sha256=file_digest(path), notes=()), input=SPEC, map=choice)
    stage.apply(folder, Silent())
    return stage.ensures(folder)


@pytest.mark.parametrize(("build", "own", "choice"), HEADS.values(), ids=HEADS)
def test_the_features_are_what_the_head_reads(build, own, choice, tmp_path):
    """The graph's features are those that the network's own words give, and the logits stay what they were."""
    torch.manual_seed(0)
    net = settle(build()) if not isinstance(build, type) else build().eval()
    graph = explained(net, tmp_path, choice)
    tensors = frames(SPEC, count=1)
    planes = torch.from_numpy(normalize(tensors, SPEC))
    with torch.inference_mode():
        expected, logits = own(net, planes).numpy(), net(planes).numpy()
    (found,) = run_onnx(graph.path, tensors, features=True)
    assert found.shape == expected.shape == (1, graph.features)
    assert graph.features_reason == ""
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(run_onnx(graph.path, tensors)[0], logits, atol=1e-4 * np.abs(logits).max())


def test_what_makes_them_is_part_of_the_head(tmp_path):
    """Nodes that only features need are named like the head's, which no engine rounds."""
    graph = onnx.load(explained(create("timm:test_vit", LABELS, img_size=64), tmp_path).path).graph
    makers = {name: node for node in graph.node for name in node.output}
    mean_node = makers["features"]
    assert mean_node.op_type == "ReduceMean"
    assert mean_node.name.startswith(PREFIX)
    assert makers[mean_node.input[0]].name.startswith(PREFIX)


@pytest.mark.parametrize("choice", ["auto", "none"])
@pytest.mark.parametrize("name", ["timm:test_efficientnet", "timm:test_vit"])
def test_quantization_leaves_the_output(name, choice, tmp_path):
    """OpenVINO's quantized model has the features by their name, near those of the float graph, and the mean itself is not rounded."""
    arguments = {"img_size": 64} if name.endswith("vit") else {}
    graph = explained(create(name, LABELS, **arguments), tmp_path, choice)
    tensors = frames(SPEC, count=8)
    openvino_ptq.build_ir(graph.path, RUNGS["ptq"], tensors, tmp_path, Silent())
    compiled = load_library().Core().compile_model(str(tmp_path / openvino_ptq.XML), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = np.concatenate([compiled({"frame": tensors[index : index + 1]})["features"] for index in range(4)])
    (expected,) = run_onnx(graph.path, tensors[:4], features=True)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 0.3 * np.abs(expected).max()
    assert len(np.unique(found)) > 200, "an int8 output has at most 256 values"


def test_a_head_that_reads_no_vector_has_none(tmp_path):
    """Logits that are summed from the frame without a layer have no features, and the graph says why."""

    class Direct(torch.nn.Module):
        def forward(self, x):
            return x.sum((2, 3))

    graph = explained(Direct().eval(), tmp_path)
    assert graph.features == 0
    assert graph.features_reason
    assert [output.name for output in onnx.load(graph.path).graph.output] == ["logits"]
