"""`Explained`: which heads have maps, that a map is exact, and that the classifier is left alone."""
# ruff: noqa: TID253, N812, ARG005 - the tests of what uses torch use torch

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from network_builders import SIDE, create, input_spec, tiny_network
from torch import nn

from edgekit.compiler.distill.answer import Explained
from edgekit.compiler.explain.find import explain
from edgekit.compiler.load.torch_model import TorchModel
from edgekit.errors import ModelError


class Written(nn.Module):
    """A convolution, and a head as a function of its output and the parameters."""

    def __init__(self, head, outputs=3, channels=8):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Conv2d(3, channels, 3, padding=1)
        self.classifier = nn.Linear(channels, outputs)
        self.head = head

    def forward(self, x):
        return self.head(self.body(x), self.classifier)


def noise(frames=2, side=SIDE, seed=0):
    return torch.randn(frames, 3, side, side, generator=torch.Generator().manual_seed(seed))


POOLED = {
    "adaptive": lambda a, c: c(F.adaptive_avg_pool2d(a, 1).flatten(1)),
    "adaptive-pair": lambda a, c: c(F.adaptive_avg_pool2d(a, (1, 1)).flatten(1)),
    "average-pool": lambda a, c: c(F.avg_pool2d(a, SIDE).flatten(1)),
    "mean": lambda a, c: c(a.mean((2, 3))),
    "mean-of-torch": lambda a, c: c(torch.mean(a, dim=[-1, -2])),
    "mean-kept": lambda a, c: c(a.mean(dim=(2, 3), keepdim=True).flatten(1)),
    "dropout": lambda a, c: c(F.dropout(a.mean((2, 3)), 0.5, training=c.training)),
    "pointwise": lambda a, c: F.conv2d(a.mean((2, 3), keepdim=True), c.weight[:, :, None, None], c.bias).flatten(1),
    "without-bias": lambda a, c: F.linear(a.mean((2, 3)), c.weight),
    "by-name": lambda a, c: F.linear(input=F.adaptive_avg_pool2d(input=a, output_size=1).flatten(1), weight=c.weight, bias=c.bias),
}


@pytest.mark.parametrize("head", POOLED.values(), ids=POOLED)
def test_a_pooled_linear_head_is_found_however_it_is_written(head):
    """The mean of each map plus the bias is the logit, and the map is W · A at every position."""
    module = Written(head).eval()
    answer = Explained(module, noise(1))(noise())
    assert answer.maps.shape == (2, 3, SIDE, SIDE)
    bias = 0 if head is POOLED["without-bias"] else module.classifier.bias
    assert torch.equal(answer.logits, module(noise()))
    assert torch.allclose(answer.maps.mean((2, 3)) + bias, answer.logits, atol=1e-5)
    assert torch.allclose(answer.maps, torch.einsum("kc,nchw->nkhw", module.classifier.weight, module.body(noise())), atol=1e-5)
    assert torch.equal(answer.features, module.body(noise()))


OTHERS = {
    "flatten": (lambda a, c: F.linear(a[:, :, ::8, ::8].flatten(1), c.weight.repeat(1, 16)), "not a spatial mean but flatten", False),
    "largest": (lambda a, c: c(F.adaptive_max_pool2d(a, 1).flatten(1)), "not a spatial mean but adaptive_max_pool2d", False),
    "activation-after": (lambda a, c: c(F.hardswish(a.mean((2, 3)))), "not a spatial mean but hardswish", True),
    "joined": (lambda a, c: c(torch.cat([a[:, :4].mean((2, 3)), a[:, 4:].amax((2, 3))], 1)), "but cat: other features are joined in", True),
    "after-the-layer": (lambda a, c: c(a.mean((2, 3))) * 2, "the output is made by mul, not by a linear layer", True),
    "not-all-positions": (lambda a, c: c(F.avg_pool2d(a, SIDE - 8, SIDE).flatten(1)), "which is not the mean over all positions", True),
    "channels-last": (lambda a, c: c(a.permute(0, 2, 3, 1).mean((1, 2))), "not a spatial mean but mean", False),
    "one-position": (lambda a, c: c(a[:, :, :1, :1].mean((2, 3))), "not a spatial mean but mean", False),
}


@pytest.mark.parametrize(("head", "reason", "pools"), OTHERS.values(), ids=OTHERS)
def test_another_head_has_no_maps_and_says_why(head, reason, pools):
    """What is pooled can still be compared as features."""
    network = Explained(Written(head), noise(1))
    answer = network(noise())
    assert reason in network.reason
    assert answer.maps is None
    assert (answer.features is not None) == pools
    assert answer.logits.shape == (2, 3)


ARCHITECTURES = {
    "timm:test_resnet": "",
    "timm:test_efficientnet": "",
    "torchvision:densenet121": "",
    "torchvision:squeezenet1_1": "",
    "torchvision:shufflenet_v2_x0_5": "",
    "torchvision:mobilenet_v3_small": "hardswish",
    "timm:test_convnext": "norm",
    "timm:test_vit": "spatial mean",
}


@pytest.mark.parametrize("source", ARCHITECTURES)
def test_known_architectures(source):
    """Without knowing their names; squeeze-and-excitation pools on the way do not confuse it."""
    module = create(source, **({"img_size": 64} if source == "timm:test_vit" else {}))
    network = Explained(module, noise(1, 64)).eval()
    reason = ARCHITECTURES[source]
    assert (network.reason == "") if not reason else (reason in network.reason)
    if not reason:
        with torch.no_grad():
            answer, empty = network(noise(2, 64)), network(torch.zeros(1, 3, 64, 64))
        bias = empty.logits - empty.maps.mean((2, 3))  # whatever it is, it is the same for every frame
        assert torch.allclose(answer.maps.mean((2, 3)) + bias, answer.logits, atol=1e-4 * float(answer.logits.abs().max()))


@pytest.mark.parametrize("module", [create("torchvision:squeezenet1_1"), Written(OTHERS["activation-after"][0])])
def test_training_and_deployment_agree_on_which_heads_have_maps(module, tmp_path):
    """What trains on maps is what has them on the device: the ONNX graph's head is judged alike."""
    import onnx_ir as ir

    TorchModel(module, input_spec(resize=(64, 64)), labels=3, binary=False).export(tmp_path / "m.onnx")
    found = explain(ir.load(tmp_path / "m.onnx"))
    assert (found.kind == "pooled-linear") == (not Explained(module, noise(1, 64)).reason)


def test_maps_teach_features_and_classifier():
    """A gradient reaches both, through the map alone."""
    network = Explained(tiny_network(), noise(1)).train()
    network(noise()).maps[:, :, 0, 0].sum().backward()
    parameters = dict(network.module.named_parameters())
    assert all(float(parameters[name].grad.abs().sum()) > 0 for name in ("0.weight", "5.weight"))
    assert parameters["5.bias"].grad is None


def test_wrapping_leaves_the_classifier_as_it_was():
    """Weights, names, running figures and every part's mode."""
    module = tiny_network().train()
    module[1].eval()
    before = copy.deepcopy(module.state_dict())
    network = Explained(module, noise(1))
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert list(network.state_dict()) == [f"module.{name}" for name in before]
    assert [part.training for part in module] == [True, False, True, True, True, True]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_a_copy_answers_alike_and_is_its_own(copied):
    """Neither shares a tensor with the original."""
    network = Explained(tiny_network(), noise(1)).eval()
    twin = copied(network)
    wanted = network(noise())
    with torch.no_grad():
        network.module[5].weight.zero_()
    assert all(torch.equal(one, other) for one, other in zip(twin(noise()), wanted, strict=True))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_answers_are_float32_under_autocast(kind):
    """Also the map, which is computed outside of it."""
    network = Explained(tiny_network(), noise(1)).eval()
    with torch.autocast("cpu", dtype=kind):
        answer = network(noise())
    assert {part.dtype for part in answer} == {torch.float32}
    assert torch.allclose(answer.maps.mean((2, 3)) + network.module[5].bias, answer.logits, atol=1e-2)


def test_one_frame_and_many_frames_answer_alike():
    """The example's batch is not remembered."""
    network = Explained(tiny_network(), noise(1)).eval()
    together, alone = network(noise(3)), [network(frame[None]) for frame in noise(3)]
    assert torch.allclose(together.maps, torch.cat([answer.maps for answer in alone]), atol=1e-6)


def test_a_network_that_trains_otherwise_than_it_evaluates_is_refused():
    """Its map could not be followed."""
    module = Written(lambda a, c: c(a.amax((2, 3)) if c.training else a.mean((2, 3))))
    with pytest.raises(ModelError, match="runs otherwise in training"):
        Explained(module, noise(1)).train()(noise())


@pytest.mark.parametrize("head", [lambda a, c: a, lambda a, c: {"logits": c(a.mean((2, 3)))}, lambda a, c: c(a.mean((0, 2, 3)))[None][:0]])
def test_what_does_not_answer_with_logits_is_refused(head):
    """A map, a dictionary, nothing."""
    with pytest.raises(ModelError, match="one vector of logits a frame"):
        Explained(Written(head), noise(2))


def test_a_mean_over_other_axes_is_no_pooling():
    """Though a map of as many rows as channels gives as many values."""
    module = Written(lambda a, c: c(a.permute(0, 2, 3, 1).mean((1, 2))) + a.mean(0).sum() * 0, channels=SIDE)
    network = Explained(module, noise(1))
    assert network.reason
    assert network(noise()).features is None
