"""Before anything is rounded: tracing, folding, and the places of the quantizers."""
# ruff: noqa: TID253, N812 - the tests of what uses torch use torch

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from network_builders import SIDE, create, input_spec, tiny_network
from torch import nn

from edgekit.compiler.quantize.qat.fold import fold_batch_norm, fold_grey
from edgekit.compiler.quantize.qat.place import find_head, place
from edgekit.compiler.quantize.qat.trace import check_same, operator, trace
from edgekit.errors import ModelError


def noise(frames=2, channels=3, side=SIDE, seed=0):
    return torch.randn(frames, channels, side, side, generator=torch.Generator().manual_seed(seed))


class Parts(nn.Module):
    """A network of a few parts, put together by a function."""

    def __init__(self, run, width=8, **more):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.third = nn.Conv2d(width, width, 1)
        self.norm = nn.BatchNorm2d(width)
        self.norm.running_mean.uniform_(-0.5, 0.5)
        self.norm.running_var.uniform_(0.5, 2)
        nn.init.uniform_(self.norm.weight, 0.5, 2)
        nn.init.uniform_(self.norm.bias, -1, 1)
        self.linear = nn.Linear(width, 3)
        for name, part in more.items():
            self.add_module(name, part)
        self.run = run

    def forward(self, x):
        return self.run(self, x)


def headed(m, features):
    return m.linear(features.mean((2, 3)))


def traced(module, example=None):
    return trace(module.eval(), noise() if example is None else example)


def places(module, example=None):
    """Where a network is quantized: names of operators that make a value, to the number of its readers and whether it cannot be negative."""
    graph = traced(module, example)
    fold_batch_norm(graph)
    found = place(graph, find_head(graph))
    flat = {value.name: not_negative for values, not_negative in found.groups for value in values}
    return flat, found


@pytest.mark.parametrize(
    "name",
    [
        "timm:test_resnet",
        "timm:test_efficientnet",
        "timm:test_vit",
        "timm:test_convnext",
        pytest.param("torchvision:densenet121", marks=pytest.mark.slow),
    ],
)
def test_a_traced_and_folded_network_answers_as_the_original(name):
    """No batch normalization is left, for any number of frames, and the original keeps its weights."""
    module = create(name)
    before = copy.deepcopy(module.state_dict())
    side = 160 if name.startswith("timm") else 64
    graph = traced(module, noise(side=side))
    fold_batch_norm(graph)
    assert not any(operator(node) == "batch_norm" for node in graph.graph.nodes)
    for frames in (1, 3):
        x = noise(frames, side=side, seed=1)
        with torch.no_grad():
            assert torch.allclose(graph(x), module(x), rtol=1e-3, atol=1e-4)
    assert all(torch.equal(value, module.state_dict()[key]) for key, value in before.items())


def test_parameters_keep_their_names():
    """What is trained can be told by the names of the network it came from."""
    graph = traced(tiny_network())
    assert {"0.weight", "0.bias", "1.weight", "5.weight"} <= {name for name, _ in graph.named_parameters()}


def test_what_is_read_after_writing_into_it_is_the_written_value():
    """`relu_` and `add_` become operators that leave their input alone, and their later readers are moved."""

    def run(m, x):
        y = m.first(x)
        F.relu_(y)
        z = m.second(y)
        y += z
        return headed(m, y)

    module = Parts(run)
    graph = traced(module)
    assert not any(operator(node).endswith("_") for node in graph.graph.nodes)
    check_same(module.eval(), graph, noise(seed=3))


def test_a_network_that_decides_by_its_data_is_refused():
    """A branch that depends on the frame cannot be recorded; the error says so."""
    module = Parts(lambda m, x: headed(m, m.first(x)) if x.sum() > 0 else headed(m, x[:, :1].expand(-1, 8, -1, -1)))
    with pytest.raises(ModelError, match="cannot be traced") as raised:
        traced(module)
    assert "qat" in raised.value.hint


def test_a_graph_that_answers_otherwise_is_refused():
    """What was recorded must give the network's own logits."""
    module = tiny_network()
    with pytest.raises(ModelError, match="does not answer as the original"):
        check_same(module, tiny_network(seed=1), noise())


def test_a_normalization_that_no_convolution_stands_before_becomes_a_product_and_a_sum():
    """It then computes the same without running figures."""
    module = Parts(lambda m, x: headed(m, m.second(F.relu(m.norm(torch.cat([m.first(x), m.first(x)], 1)[:, :8])))))
    graph = traced(module)
    fold_batch_norm(graph)
    check_same(module, graph, noise(seed=3))
    assert {"batch_norm_scale", "batch_norm_shift"} <= {name for name, _ in graph.named_parameters()}


def test_a_convolution_that_is_used_twice_is_not_folded_into():
    """Its other reader must get what it got before."""
    module = Parts(lambda m, x: headed(m, m.norm(m.second(m.second(m.first(x))))))
    graph = traced(module)
    fold_batch_norm(graph)
    check_same(module, graph, noise(seed=3))


def test_a_normalization_by_the_frames_beside_it_is_refused():
    """On a device there is one frame, and the answer would be another."""
    module = Parts(lambda m, x: headed(m, m.other(m.first(x))), other=nn.BatchNorm2d(8, track_running_stats=False))
    graph = traced(module)
    with pytest.raises(ModelError, match="no running statistics"):
        fold_batch_norm(graph)


@pytest.mark.parametrize("pad", [False, True])
def test_grey_planes_are_folded_into_the_first_convolution(pad):
    """One plane gives what three equal ones gave, also behind zero padding."""
    module = Parts(lambda m, x: headed(m, m.first(F.pad(x, (0, 1, 0, 1)) if pad else x)))
    graph = traced(module)
    spec = fold_grey(graph, input_spec())
    plane = noise(channels=1, seed=2)
    with torch.no_grad():
        assert torch.allclose(graph(plane), module(plane.expand(-1, 3, -1, -1)), atol=1e-5)
    assert spec == dataclasses.replace(input_spec(), channels=1, mean=(127.5,), std=(127.5,))


@pytest.mark.parametrize(
    "changes",
    [{"color": "rgb"}, {"mean": (120.0, 127.5, 127.5)}, {"std": (60.0, 58.0, 57.0)}],
    ids=["rgb", "mean-differs", "std-differs"],
)
def test_planes_that_are_not_alike_are_not_folded(changes):
    """Another mean or deviation a plane is not exact at a padded border."""
    graph = traced(tiny_network())
    spec = input_spec(**changes)
    assert fold_grey(graph, spec) is spec
    assert next(iter(graph.named_parameters()))[1].shape[1] == 3


def test_an_input_with_two_readers_is_not_folded():
    """The other reader needs all planes."""
    graph = traced(Parts(lambda m, x: headed(m, m.first(x) + x[:, :1])))
    assert fold_grey(graph, input_spec()).channels == 3


def test_a_value_is_unsigned_only_where_its_operator_makes_no_negative():
    """The data has no say in it."""
    flat, _ = places(Parts(lambda m, x: headed(m, m.third(F.silu(m.second(F.relu6(m.first(x))))))))
    assert flat == {"x": False, "relu6": True, "silu": False}


def test_both_sides_of_a_residual_sum_are_rounded_and_the_head_is_not():
    """The sum itself is what the head pools: float."""

    def run(m, x):
        y = F.relu(m.first(x))
        return headed(m, m.second(y) + y)

    flat, found = places(Parts(run))
    assert flat == {"x": False, "relu": True, "conv2d_1": False}
    assert {reader.name for value, readers in found.readers.items() if value.name == "relu" for reader in readers} == {"conv2d_1", "add"}
    assert {layer.name for layer in found.weighted} == {"conv2d", "conv2d_1"}


def test_a_gate_and_what_it_gates_are_rounded():
    """Both sides of a product of features."""

    def run(m, x):
        y = F.relu(m.first(x))
        return headed(m, m.second(y * torch.sigmoid(m.third(y.mean((2, 3), keepdim=True)))))

    flat, _ = places(Parts(run))
    assert flat == {"x": False, "relu": True, "mean": True, "sigmoid": True, "mul": True}


def test_a_quantizer_stands_above_what_only_moves_a_value():
    """Padding and maximum are between the value and its reader."""
    flat, found = places(Parts(lambda m, x: headed(m, m.second(F.pad(F.max_pool2d(F.relu(m.first(x)), 2), (0, 1, 0, 1))))))
    assert flat == {"x": False, "relu": True}
    assert {reader.name for value, readers in found.readers.items() if value.name == "relu" for reader in readers} == {"max_pool2d"}


def test_a_padding_that_is_not_zero_is_not_moved_over():
    """A quantizer above it would not round what it adds."""
    flat, _ = places(Parts(lambda m, x: headed(m, m.second(F.pad(m.first(x), (1, 1, 1, 1), value=-1.0)))))
    assert "pad" in flat


def test_the_parts_of_a_concatenation_share_a_range():
    """One part may be negative, so all are signed."""

    def run(m, x):
        y = m.first(x)
        return headed(m, m.wide(torch.cat([F.relu(y), m.third(y)], 1)))

    _, found = places(Parts(run, wide=nn.Conv2d(16, 8, 1)))
    shared = [({value.name for value in values}, not_negative) for values, not_negative in found.groups]
    assert shared == [({"x"}, False), ({"conv2d"}, False), ({"relu", "conv2d_1"}, False)]


def test_a_network_with_attention_keeps_its_residual_stream_in_float():
    """What the linear layers read is rounded, sums are not."""
    flat, found = places(create("timm:test_vit"), noise(side=160))
    assert not any(name.startswith("add") for name in flat)
    assert any(name.startswith("layer_norm") for name in flat)
    assert any(operator(layer) == "linear" for layer in found.weighted)


def test_a_moved_value_that_the_residual_stream_reads_stays_float_for_it():
    """In a network of layer normalizations the quantizer stands below the branch."""

    def run(m, x):
        y = m.channels(m.first(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return headed(m, m.second(y) + y)

    _, found = places(Parts(run, channels=nn.LayerNorm(8)))
    [(value, readers)] = [(value, readers) for value, readers in found.readers.items() if value.name != "x"]
    assert operator(value) == "permute"
    assert {reader.name for reader in readers} == {"conv2d_1"}


@pytest.mark.parametrize(
    "head",
    [
        lambda m, a: m.linear(F.adaptive_avg_pool2d(a, 1).flatten(1)),
        lambda m, a: m.linear(F.avg_pool2d(a, SIDE).flatten(1)),
        lambda m, a: m.linear(a.mean((-1, -2))),
        lambda m, a: m.pointwise(a.mean((2, 3), keepdim=True)).flatten(1),
        lambda m, a: m.pointwise(a).mean((2, 3)),
    ],
    ids=["adaptive", "whole-average", "mean", "pointwise-classifier", "convolutional-classifier"],
)
def test_the_head_is_found_however_it_is_written(head):
    """The pooled features are known, and nothing of the head is rounded."""
    graph = traced(Parts(lambda m, x: head(m, F.relu(m.first(x))), pointwise=nn.Conv2d(8, 3, 1)))
    found = find_head(graph)
    assert found.features is not None
    assert found.features not in place(graph, found).readers


@pytest.mark.parametrize(
    "head",
    [
        lambda m, a: m.linear(a.amax((2, 3))),
        lambda m, a: m.linear(a.mean((1, 2))[:, :8]),
        lambda m, a: m.linear(F.avg_pool2d(a, 8)[:, :, 1, 1]),
    ],
    ids=["maximum", "other-axes", "part-of-the-map"],
)
def test_a_head_that_pools_otherwise_has_no_features(head):
    """The last linear layer is still left in float."""
    graph = traced(Parts(lambda m, x: head(m, F.relu(m.first(x)))))
    found = find_head(graph)
    assert found.features is None
    assert {operator(layer) for layer in place(graph, found).weighted} == {"conv2d"}


def test_a_network_without_anything_to_quantize_is_refused():
    """Training would change nothing."""
    graph = traced(Parts(lambda m, x: m.small(x.mean((2, 3))), small=nn.Linear(3, 3)))
    with pytest.raises(ModelError, match="no convolution or linear layer"):
        place(graph, find_head(graph))
