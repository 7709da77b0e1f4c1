"""Multiply-accumulates, against numbers worked out by hand."""
# ruff: noqa: TID253 - the tests of what loads torch load torch

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekit.compiler.prune.macs import multiply_accumulates
from edgekit.errors import ModelError

FRAME = torch.zeros(1, 3, 8, 8)


class Attention(nn.Module):
    """Self-attention over the positions of a frame, without projections."""

    def forward(self, frame):
        tokens = frame.flatten(2).transpose(1, 2)[:, None]
        return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens).mean(2)[:, 0]


class Layers(nn.Module):
    """PyTorch's own attention, and a whole layer of its transformer, which run as one operator each in evaluation mode."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, frame):
        tokens = nn.functional.pad(frame.flatten(2).transpose(1, 2), (0, 1))
        found = (
            self.layer(tokens, tokens, tokens, need_weights=False)[0]
            if isinstance(self.layer, nn.MultiheadAttention)
            else self.layer(tokens)
        )
        return found.mean(1)


# 64 tokens of 4 channels: four projections, and the two products of the attention.
OF_ATTENTION = 64 * (4 * 4 * 4 + 2 * 64 * 4)


@pytest.mark.parametrize(
    ("network", "count"),
    [
        (nn.Conv2d(3, 4, 3, padding=1), 4 * 3 * 9 * 64),
        (nn.Conv2d(3, 4, 3, padding=1, stride=2), 4 * 3 * 9 * 16),
        (nn.Conv2d(3, 6, 3, padding=1, groups=3), 6 * 9 * 64),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), 192 * 5),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)), (3 * 4 + 4 * 2) * 64),
        (Attention(), 2 * 64 * 64 * 3),
        (Layers(nn.MultiheadAttention(4, 2, batch_first=True)), OF_ATTENTION),
        (Layers(nn.TransformerEncoderLayer(4, 2, dim_feedforward=8, batch_first=True)), OF_ATTENTION + 64 * 2 * 4 * 8),
    ],
    ids=["convolution", "stride", "depthwise", "linear", "sequence", "attention", "module", "layer"],
)
def test_the_count_is_that_of_the_formula(network, count):
    """Weights by positions of the result; products of attention by tokens, tokens and channels. Norms and activations have none."""
    assert multiply_accumulates(network.eval(), FRAME) == count


def test_a_network_without_any_is_refused():
    """A share of nothing is no target."""
    with pytest.raises(ModelError, match="no convolution and no matrix product"):
        multiply_accumulates(nn.ReLU(), FRAME)
