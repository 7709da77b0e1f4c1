"""A small network with everything that is rounded, and the same with calibrated quantizers.

Any test may `from qat_builders import small_network, calibrated`. Importing this file imports torch.
"""
# ruff: noqa: TID253 - see above

from __future__ import annotations

import torch
from network_builders import frames, input_spec, settle
from torch import nn

from edgekit.compiler.load.source import normalize
from edgekit.compiler.progress import Silent
from edgekit.compiler.quantize.qat import calibrate, train
from edgekit.compiler.quantize.rungs import HALF_RANGE, TrainedIntegers


class Block(nn.Module):
    """An inverted residual: wide, depthwise, narrow, and the sum."""

    def __init__(self, width, inner):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU6(inplace=True),
            nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU6(inplace=True),
            nn.Conv2d(inner, width, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x):
        return x + self.body(x)


def small_network(outputs=3, *, channels=3, width=16, seed=0):
    """A stem, a block, a last convolution, and a pooled linear head."""
    torch.manual_seed(seed)
    parts = [
        nn.Conv2d(channels, width, 3, stride=2, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU6(inplace=True),
        Block(width, 2 * width),
        nn.Conv2d(width, 2 * width, 1),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, outputs),
    ]
    return settle(nn.Sequential(*parts), seed, channels=channels)


def calibrated(module=None, spec=None, count=16, weights=HALF_RANGE):
    """A network with quantizers, its ranges from frames of noise; what it takes; the frames. Its weights keep to what every CPU sums without cutting off."""
    spec = spec or input_spec()
    network, taken = train.quantized(small_network() if module is None else module, spec, TrainedIntegers(weights=weights))
    tensors = frames(spec, count)
    calibrate.calibrate(network, lambda part: torch.from_numpy(normalize(tensors[part], taken)), count, Silent())
    return network.eval(), taken, tensors
