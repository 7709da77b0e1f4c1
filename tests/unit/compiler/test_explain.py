"""The explain stage on real architectures: the same logits, and a map that is W · features where the head is linear, gradient · features elsewhere."""
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
from edgekit.compiler.stages import explain as stage
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
    """Its head sees every position by itself."""

    def __init__(self):
        super().__init__()
        self.features = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(16))
        self.head = torch.nn.Sequential(torch.nn.Linear(4 * 4 * 6, 8), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(8, LABELS))

    def forward_features(self, x):
        return self.features(x)

    def forward_head(self, features):
        return self.head(features.flatten(1))

    def forward(self, x):
        return self.forward_head(self.forward_features(x))


class GeneralizedMean(SmallVgg):
    """Its exponent is learned."""

    def __init__(self):
        super().__init__()
        self.power = torch.nn.Parameter(torch.tensor([2.5]))
        self.last = torch.nn.Linear(4, LABELS)

    def forward_head(self, features):
        return self.last(features.clamp(min=1e-6).pow(self.power).mean((2, 3)).pow(1 / self.power))


class NormPooled(SmallVgg):
    """Its pooling is one that no rule is known for."""

    def __init__(self):
        super().__init__()
        self.last = torch.nn.Linear(4, LABELS)

    def forward_head(self, features):
        return self.last(features.logsumexp((2, 3)))


# Name to how it is built and the kind of its map; without a normalization whose divisor is held the map is the true gradient's.
BY_GRADIENT = {
    "mobilenetv3_small_050": (lambda: create("timm:mobilenetv3_small_050", LABELS), "gradient"),
    "resnet-mean-and-max": (lambda: create("timm:resnet10t", LABELS, global_pool="catavgmax"), "complete"),
    "generalized-mean": (GeneralizedMean, "complete"),
    "vgg": (SmallVgg, "complete"),
}


def network(build):
    torch.manual_seed(0)
    return settle(build())


def explained(net, folder, spec=SPEC, *, choice="auto"):
    """The float graph and what the explain stage makes of it."""
    path = folder / "float.onnx"
    TorchModel(net, spec, labels=LABELS, binary=False).export(path)
    step = ExplainStage(graph=FloatGraph(path=path, sha256=file_digest(path), notes=()), input=spec, map=choice)
    step.apply(folder, Silent())
    return path, step.ensures(folder)


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


def answers(graph, tensors):
    """Logits, map and what is added to its mean, of an explained graph."""
    logits, maps, *offset = run_onnx(graph.path, tensors)
    return logits, maps, offset[0] if offset else np.array(graph.bias, dtype=np.float32)


@pytest.mark.parametrize(("build", "kind"), BY_GRADIENT.values(), ids=BY_GRADIENT)
def test_the_map_is_autograds_gradient_times_features(build, kind, tmp_path):
    """From the device's uint8 frame on, for every logit, in float64; map and rest add up to it."""
    net = network(build)
    _, graph = explained(net, tmp_path)
    tensors = frames(SPEC, count=1)
    logits, maps, added = answers(graph, tensors)
    net.double()
    features = net.forward_features(torch.from_numpy(normalize(tensors, SPEC)).double())
    own = net.forward_head(features)
    slopes = [torch.autograd.grad(own[0, index], features, retain_graph=True)[0] for index in range(LABELS)]
    expected = torch.stack([(slope * features).sum(dim=1)[0] for slope in slopes]).detach().numpy() * graph.rows * graph.columns
    assert graph.kind == kind
    close(maps[0], expected, ACROSS_FRAMEWORKS)
    close(logits, own.detach().numpy(), ACROSS_FRAMEWORKS)
    close(maps.mean(axis=(2, 3)) + added, logits)


def test_a_normalization_behind_the_mean_leaves_a_map_that_adds_up(tmp_path):
    """ConvNeXt: the divisor is held, so that mean and constant bias give the logit; the true gradient's map would have a mean of 0."""
    net = network(lambda: create("timm:test_convnext", LABELS))
    _, graph = explained(net, tmp_path)
    tensors = frames(SPEC, count=1)
    logits, maps, added = answers(graph, tensors)
    with torch.inference_mode():
        features = net.forward_features(torch.from_numpy(normalize(tensors, SPEC))).double()
        norm, last = net.head.norm, net.head.fc
        pooled = features.mean((2, 3))
        sigma = (pooled.var(unbiased=False) + norm.eps).sqrt()
        scaled = last.weight.double() * norm.weight.double()
        expected = torch.einsum("kc,ncrq->nkrq", (scaled - scaled.mean(dim=1, keepdim=True)) / sigma, features).numpy()
    assert graph.kind == "complete"
    assert graph.bias == pytest.approx((last.weight @ norm.bias + last.bias).tolist(), abs=1e-6)
    close(maps, expected, ACROSS_FRAMEWORKS)
    close(maps.mean(axis=(2, 3)) + added, logits)


def test_an_architecture_without_a_map_compiles_and_says_why(tmp_path):
    """One output, of the same name, with the same logits; and what would give a map."""
    net = network(NormPooled)
    _, graph = explained(net, tmp_path)
    tensors = frames(SPEC, count=1)
    (logits,) = run_onnx(graph.path, tensors)
    with torch.inference_mode():
        close(logits, net(torch.from_numpy(normalize(tensors, SPEC))).numpy(), ACROSS_FRAMEWORKS)
    assert not graph.has_map
    assert (graph.bias, graph.kind, graph.multiplications) == ((), "", 0)
    assert "which no rule is known for" in graph.reason
    assert 'map = "masking"' in graph.reason


def test_what_has_no_map_of_its_own_is_masked_where_the_recipe_asks(tmp_path):
    """The network's own head gives the logits; each position of the map is what that head says to it alone."""
    net = network(NormPooled)
    _, graph = explained(net, tmp_path, choice="masking")
    tensors = frames(SPEC, count=1)
    logits, maps, added = answers(graph, tensors)
    with torch.inference_mode():
        features = net.forward_features(torch.from_numpy(normalize(tensors, SPEC)))
        own, none, expected = net.forward_head(features), net.forward_head(0 * features), np.zeros(maps.shape)
        for row, column in np.ndindex(maps.shape[2:]):
            alone = torch.zeros_like(features)
            alone[:, :, row, column] = features[:, :, row, column]
            expected[..., row, column] = (net.forward_head(alone) - none).numpy() * graph.rows * graph.columns
    assert graph.kind == "masking"
    close(maps, expected, ACROSS_FRAMEWORKS)
    close(logits, own.numpy(), ACROSS_FRAMEWORKS)
    close(maps.mean(axis=(2, 3)) + added, logits)


def test_the_plain_classifier_has_no_map(tmp_path):
    """For comparison, the branch can be left out."""
    _, graph = explained(network(WITH_MAP["squeezenet1_1"].build), tmp_path, choice="none")
    assert len(run_onnx(graph.path, frames(SPEC, count=1))) == 1
    assert not graph.has_map


def notes_of(net, folder, choice="auto"):
    notes = []

    class Told(Silent):
        def note(self, text):
            notes.append(text)

    path = folder / "float.onnx"
    TorchModel(net, SPEC, labels=LABELS, binary=False).export(path)
    ExplainStage(graph=FloatGraph(path=path, sha256="", notes=()), input=SPEC, map=choice).apply(folder, Told())
    return notes


def test_progress_is_told_that_there_is_no_map(tmp_path):
    """The user learns it while compiling, not on the device."""
    (note,) = notes_of(network(NormPooled), tmp_path)
    assert note.startswith("no class activation map: the head has the operator ")


def test_progress_is_told_what_a_dear_map_costs(tmp_path, monkeypatch):
    """In millions of multiplications a frame; a cheap one costs no words."""
    assert notes_of(network(NormPooled), tmp_path, "masking") == []
    monkeypatch.setattr(stage, "_WORTH_A_NOTE", 300)
    (note,) = notes_of(network(NormPooled), tmp_path, "masking")
    assert note.startswith("the class activation map (masking) costs 0 million multiplications a frame; the head: ")
    assert " passes of " in note
