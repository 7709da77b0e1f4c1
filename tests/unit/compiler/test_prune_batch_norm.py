"""Batch normalization measured again."""
# ruff: noqa: TID253 - the tests of what loads torch load torch

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekit.compiler.prune.batch_norm import recalibrate_batch_norm
from edgekit.errors import DataError, ModelError


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, momentum=0.3)).eval()


def batches(count=3):
    return [torch.randn((4, 3, 8, 8), generator=torch.Generator().manual_seed(seed)) * 2 + 1 for seed in range(count)]


def test_the_figures_are_the_average_over_the_batches():
    """Means and variances become the plain average of each batch's, whatever they were, and dropout is off meanwhile."""
    module = network()
    module[1].running_mean.fill_(7)
    assert recalibrate_batch_norm(module, batches) == 3
    seen = [module[0](batch).detach() for batch in batches()]
    torch.testing.assert_close(module[1].running_mean, torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0))
    torch.testing.assert_close(module[1].running_var, torch.stack([x.var((0, 2, 3)) for x in seen]).mean(0))
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    recalibrate_batch_norm(module, batches)
    assert all(torch.equal(state[name], tensor) for name, tensor in module.state_dict().items())


def test_nothing_else_changes():
    """Weights, momenta and modes are afterwards what they were."""
    module = network()
    module[2].train()
    weights = {name: parameter.clone() for name, parameter in module.named_parameters()}
    recalibrate_batch_norm(module, batches)
    assert all(torch.equal(weights[name], parameter) for name, parameter in module.named_parameters())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert [part.training for part in module] == [False, False, True, False, False]
    assert (module[1].momentum, module[4].momentum) == (0.1, 0.3)


def wrong_shape():
    yield batches()[0]
    yield torch.zeros(4, 5, 8, 8)


def single_value():
    yield torch.zeros(1, 3, 1, 1)


def not_finite():
    yield torch.full((4, 3, 8, 8), float("nan"))


def stopped():
    yield batches()[0]
    raise DataError("a frame cannot be read")


@pytest.mark.parametrize(
    ("given", "error"),
    [(wrong_shape, ModelError), (single_value, ModelError), (not_finite, ModelError), (list, DataError), (stopped, DataError)],
)
def test_a_failure_changes_nothing(given, error):
    """Where a batch fails, is missing or is NaN, the old figures, momenta and modes are back."""
    module = network()
    recalibrate_batch_norm(module, batches)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(error):
        recalibrate_batch_norm(module, given)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert module[1].momentum == 0.1
    assert not module.training


def test_a_network_without_batch_normalization_needs_no_frames():
    """Nothing is run where nothing is to be measured."""
    assert recalibrate_batch_norm(nn.Linear(3, 3), lambda: pytest.fail("frames were asked for")) == 0
