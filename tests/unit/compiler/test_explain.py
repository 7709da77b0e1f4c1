"""The explain stage on real architectures: the same logits, and a map that is W · features."""
# ruff: noqa: TID253 - the tests of what loads torch load torch

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from network_builders import create, frames, input_spec, run_onnx, settle

from edgekit.compiler.load.source import normalize
from edgekit.compiler.load.torch_model import TorchModel
from edgekit.compiler.progress import Silent
from edgekit.compiler.stages.explain import ExplainStage
from edgekit.compiler.stages.load import FloatGraph
from edgekit.compiler.workspace import file_digest

SPEC = input_spec(resize=(64, 96))
LABELS = 3
# Two frameworks round differently in every one of many layers; the rewrite itself is held to 1e-5.
ACROSS_FRAMEWORKS = 1e-4


@dataclasses.dataclass(frozen=True)
class Architecture:
    """How a network is built, and where its features and its last layer are.

    `features` and `weight` are the network's own words for them, so the map can be computed without edgekit: None where the features are the map.
    """

    build: Callable[[], Any]
    features: Callable[[Any, Any], Any]
    weight: Callable[[Any], Any] | None


def from_timm(name, **options):
    return Architecture(
        build=lambda: create(f"timm:{name}", LABELS, **options),
        features=lambda net, x: net.forward_features(x),
        weight=lambda net: net.get_classifier().weight.flatten(1),
    )


def from_torchvision(name, features, weight):
    return Architecture(build=lambda: create(f"torchvision:{name}", LABELS), features=features, weight=weight)


WITH_MAP = {
    "test_efficientnet": from_timm("test_efficientnet"),
    "resnet10t": from_timm("resnet10t"),
    "tf_efficientnet_lite0": from_timm("tf_efficientnet_lite0"),
    "mobilenetv2_035": from_timm("mobilenetv2_035"),
    "regnetx_002": from_timm("regnetx_002"),
    "densenet": from_timm("densenet121", block_config=(2, 2, 2, 2)),
    "squeezenet1_1": from_torchvision("squeezenet1_1", lambda net, x: net.classifier[:3](net.features(x)), None),
}


class SmallVgg(torch.nn.Module):
    """Its head sees every position by itself, so no map is exact."""

    def __init__(self):
        super().__init__()
        self.features = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(16))
        self.head = torch.nn.Sequential(torch.nn.Linear(4 * 4 * 6, 8), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(8, LABELS))

    def forward(self, x):
        return self.head(self.features(x).flatten(1))


WITHOUT_MAP = {
    "mobilenetv3_small_050": (lambda: create("timm:mobilenetv3_small_050", LABELS), "not a spatial mean but HardSwish"),
    "test_convnext": (lambda: create("timm:test_convnext", LABELS), "not a spatial mean but LayerNormalization"),
    "test_vit": (lambda: create("timm:test_vit", LABELS, img_size=SPEC.size), "not a spatial mean but "),
    "vgg": (SmallVgg, "not a spatial mean but Relu"),
}


def network(build):
    torch.manual_seed(0)
    return settle(build())


def explained(net, folder, spec=SPEC, *, cam=True):
    """The float graph and what the explain stage makes of it."""
    path = folder / "float.onnx"
    TorchModel(net, spec, labels=LABELS, binary=False).export(path)
    stage = ExplainStage(graph=FloatGraph(path=path, sha256=file_digest(path), notes=()), input=spec, cam=cam)
    stage.apply(folder, Silent())
    return path, stage.ensures(folder)


def close(found, expected, tolerance=1e-5):
    """Within a share of the largest value."""
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * max(1e-3, np.abs(expected).max())


# Built of the same parts as faster ones.
SLOW = {"mobilenetv2_035", "regnetx_002"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in WITH_MAP])
def test_the_map_is_the_weighted_features_and_its_mean_the_logit(name, tmp_path):
    """From the device's uint8 frame on: the logits of the float graph, and the map that torch computes by itself."""
    architecture = WITH_MAP[name]
    net = network(architecture.build)
    before, graph = explained(net, tmp_path)
    tensors = frames(SPEC, count=1)
    logits, maps = run_onnx(graph.path, tensors)
    planes = torch.from_numpy(normalize(tensors, SPEC))
    with torch.inference_mode():
        own = net(planes).numpy()
        features = architecture.features(net, planes).numpy()
    expected = features if architecture.weight is None else np.einsum("oc,nchw->nohw", architecture.weight(net).detach().numpy(), features)
    close(logits, run_onnx(before, planes.numpy())[0])
    close(logits, own, ACROSS_FRAMEWORKS)
    close(maps, expected, ACROSS_FRAMEWORKS)
    close(maps.mean(axis=(2, 3)) + np.array(graph.bias, dtype=np.float32), logits)
    assert (graph.rows, graph.columns) == maps.shape[2:]
    assert graph.has_map
    assert graph.reason == ""


@pytest.mark.parametrize(("build", "reason"), WITHOUT_MAP.values(), ids=WITHOUT_MAP)
def test_an_architecture_without_a_map_compiles_and_says_why(build, reason, tmp_path):
    """One output, of the same name, with the same logits."""
    net = network(build)
    _, graph = explained(net, tmp_path)
    tensors = frames(SPEC, count=1)
    (logits,) = run_onnx(graph.path, tensors)
    with torch.inference_mode():
        close(logits, net(torch.from_numpy(normalize(tensors, SPEC))).numpy(), ACROSS_FRAMEWORKS)
    assert not graph.has_map
    assert graph.bias == ()
    assert reason in graph.reason


def test_the_plain_classifier_has_no_map(tmp_path):
    """For comparison, the branch can be left out."""
    _, graph = explained(network(WITH_MAP["squeezenet1_1"].build), tmp_path, cam=False)
    assert len(run_onnx(graph.path, frames(SPEC, count=1))) == 1
    assert not graph.has_map


def test_progress_is_told_that_there_is_no_map(tmp_path):
    """The user learns it while compiling, not on the device."""
    notes = []

    class Told(Silent):
        def note(self, text):
            notes.append(text)

    path = tmp_path / "float.onnx"
    TorchModel(network(SmallVgg), SPEC, labels=LABELS, binary=False).export(path)
    ExplainStage(graph=FloatGraph(path=path, sha256="", notes=()), input=SPEC).apply(tmp_path, Told())
    assert notes == ["no class activation map: the classifier's input is not a spatial mean but Relu"]
