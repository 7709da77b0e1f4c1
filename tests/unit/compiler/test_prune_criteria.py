"""What a unit is worth."""
# ruff: noqa: TID253 - the tests of what loads torch load torch

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from network_builders import tiny_network
from prune_builders import couplings, example, losses
from torch import nn

from edgekit.catalog.compress import Criterion
from edgekit.compiler.prune.adapters import find_structures
from edgekit.compiler.prune.criteria import CRITERIA, figures, scores
from edgekit.errors import ModelError


def scored(module, criterion, given=None, frame=None):
    structures = find_structures(module, example() if frame is None else frame)
    return scores(module, structures, criterion, figures(module, criterion, given, 0))


def test_every_criterion_of_the_recipe_is_there():
    """The table and the recipe name the same criteria."""
    assert set(CRITERIA) == set(get_args(Criterion))


@pytest.mark.parametrize("criterion", CRITERIA)
def test_scores_are_finite_and_in_parts_of_the_mean(criterion):
    """Of every structure: one score a unit, none below zero, with a mean of 1."""
    module = couplings()
    units = {structure.name: structure.units for structure in find_structures(module, example())}
    found = scored(module, criterion, losses)
    assert found
    for name, values in found.items():
        assert len(values) == units[name]
        assert all(value >= 0 and math.isfinite(value) for value in values)
        assert sum(values) / len(values) == pytest.approx(1)


def reference(criterion, network):
    """The scores of the tiny network's only structure by the criteria's own formulas: convolution, batch normalization, head."""
    convolution, norm, head = network[0], network[1], network[5]
    if criterion == "bn-scale":
        return norm.weight.abs()
    power = 1 if criterion == "l1" else 2
    return convolution.weight.abs().pow(power).sum((1, 2, 3)) + norm.weight.abs().pow(power) + head.weight.abs().pow(power).sum(0)


@pytest.mark.parametrize("criterion", ["l1", "l2", "bn-scale"])
def test_magnitudes_are_the_formulas(criterion):
    """L1, L2 and the scale of batch normalization are sums over everything that goes with a channel."""
    network = tiny_network()
    with torch.no_grad():
        network[1].weight.copy_(torch.linspace(-1, 2, 8))
        expected = reference(criterion, network)
    torch.testing.assert_close(
        torch.tensor(scored(network, criterion)["0"]), expected / expected.mean(), rtol=1e-5, atol=1e-6, check_dtype=False
    )


@pytest.mark.parametrize(("criterion", "power"), [("l1", 1), ("l2", 2)])
def test_magnitudes_are_those_of_torch_pruning(criterion, power):
    """On a network without depthwise convolutions the scores are Torch-Pruning's own group importance."""
    import torch_pruning as tp

    network = tiny_network()
    graph = tp.DependencyGraph().build_dependency(network, example())
    group = graph.get_pruning_group(network[0], tp.prune_conv_out_channels, list(range(8)))
    theirs = tp.importance.GroupMagnitudeImportance(p=power)(group)
    torch.testing.assert_close(torch.tensor(scored(network, criterion)["0"]), theirs, rtol=1e-4, atol=1e-5, check_dtype=False)


def test_taylor_is_the_mean_over_batches():
    """The figure of a weight is |weight × gradient|, averaged over batches and not cancelled between them."""
    network = tiny_network()
    expected = torch.zeros(8, 3, 3, 3)
    for loss in losses(network):
        network.zero_grad()
        loss.backward()
        expected += (network[0].weight * network[0].weight.grad).abs().detach() / 2
    network.zero_grad()
    found = figures(network, "taylor", losses, 0)["0.weight"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-8, check_dtype=False)


def test_taylor_keeps_what_the_loss_needs():
    """A channel that the answer does not depend on is worth nothing, whatever its weights."""
    network = tiny_network()
    with torch.no_grad():
        network[0].weight[3] *= 100
        network[5].weight[:, 3] = 0
    values = scored(network, "taylor", losses)["0"]
    assert values[3] == min(values)
    assert max(scored(network, "l2")["0"]) == scored(network, "l2")["0"][3]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "was given none"),
        (lambda _: iter(()), "no batch"),
        (lambda network: [network[0].weight.sum() * math.nan], "not a finite number"),
        (lambda network: [network[0].weight.flatten()], "not a finite number"),
    ],
)
def test_taylor_without_a_usable_loss_is_refused(given, said):
    """No losses, none at all, NaN or a vector: a ModelError with a hint."""
    with pytest.raises(ModelError, match=said) as caught:
        figures(tiny_network(), "taylor", given, 0)
    assert caught.value.hint


def test_scales_need_batch_normalization():
    """A network without batch normalization is refused for `bn-scale`, and the hint names those that work."""
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)).eval()
    with pytest.raises(ModelError, match="nothing to judge by") as caught:
        scored(network, "bn-scale")
    assert caught.value.hint.endswith("l1, l2, taylor")


def test_a_structure_without_scales_is_left_alone():
    """With `bn-scale` a layer without batch normalization gets no score; the others do."""
    found = scored(couplings(), "bn-scale")
    assert "hidden" not in found
    assert "stem.0" in found


def test_weights_that_are_not_numbers_are_refused():
    """NaN in the weights is named by its layer."""
    network = tiny_network()
    with torch.no_grad():
        network[0].weight[2] = math.nan
    with pytest.raises(ModelError, match="weights of 0 are NaN"):
        scored(network, "l1")


def test_a_network_of_zeros_has_scores():
    """Weights that are all zero are scored zero instead of NaN."""
    network = tiny_network()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert scored(network, "l2")["0"] == (0.0,) * 8
