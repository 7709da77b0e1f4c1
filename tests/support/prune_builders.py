"""Small networks to prune, with the couplings that pruning has to keep, and what an independent check of a plan needs.

Any test may `from prune_builders import couplings, architecture, zeroed`. Importing this file imports torch.
"""
# ruff: noqa: TID253 - see above

from __future__ import annotations

import copy

import torch
from network_builders import settle
from torch import nn

SIDE = 32


class Couplings(nn.Module):
    """A residual sum, a depthwise convolution with squeeze and excitation, a grouped convolution, a concatenation, and a flattened map before two layers."""

    def __init__(self):
        super().__init__()
        self.stem = block(3, 32, stride=4)
        self.left, self.right = block(32, 48), block(48, 32)
        self.depthwise = block(32, 32, groups=32)
        self.squeeze, self.excite = nn.Conv2d(32, 8, 1), nn.Conv2d(8, 32, 1)
        self.before, self.grouped, self.after = block(32, 64), block(64, 64, groups=8), block(64, 32)
        self.merge = block(64, 32)
        self.hidden, self.head = nn.Linear(32 * 16, 40), nn.Linear(40, 3)
        self.pool, self.act = nn.AdaptiveAvgPool2d(4), nn.PReLU(40)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.right(self.left(x))
        gate = self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        side = self.depthwise(x) * gate
        x = torch.cat([side, self.after(self.grouped(self.before(x)))], 1)
        return self.head(self.act(self.hidden(self.pool(self.merge(x)).flatten(1))))


def block(inputs, outputs, *, stride=1, groups=1):
    """Convolution, batch normalization, ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, groups=groups, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def couplings(seed=0):
    """The network of all couplings, with random weights that are nowhere zero."""
    torch.manual_seed(seed)
    return awake(settle(Couplings(), seed), seed)


def awake(module, seed=0):
    """Gives norms and bare parameters random values: libraries start some at zero, and what is multiplied by zero shows no fault."""
    generator = torch.Generator().manual_seed(seed)
    known = (nn.modules.conv._ConvNd, nn.Linear)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, known):
                continue
            for parameter in part.parameters(recurse=False):
                parameter.copy_(0.5 + torch.rand(parameter.shape, generator=generator))
    return module.eval()


def architecture(source, side, **arguments):
    """An architecture of timm or torchvision with random weights that are nowhere zero, settled on frames of `side`."""
    import timm
    import torchvision

    kind, _, name = source.partition(":")
    torch.manual_seed(0)
    module = (
        timm.create_model(name, num_classes=3, **arguments)
        if kind == "timm"
        else torchvision.models.get_model(name, weights=None, num_classes=3, **arguments)
    )
    awake(module)
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        with torch.no_grad():
            module.train()(torch.cat([example(side, seed) for seed in range(4)]))
    return module.eval()


def example(side=SIDE, seed=1):
    """float32 (1, 3, side, side) of noise."""
    return torch.randn((1, 3, side, side), generator=torch.Generator().manual_seed(seed))


def logits(module, frame):
    """What a network answers with, without a graph."""
    with torch.no_grad():
        return module(frame)


def losses(module, *, side=SIDE, batches=2):
    """Cross-entropies of some noise, for the Taylor criterion."""
    for number in range(batches):
        frames = torch.cat([example(side, seed) for seed in range(3 * number, 3 * number + 3)])
        yield nn.functional.cross_entropy(module(frames), torch.tensor([0, 1, 2]))


def zeroed(module, plan):
    """The unpruned network in which nothing reads what the plan takes out: an independent account of what the pruned one must answer."""
    same = copy.deepcopy(module)
    parts = dict(same.named_modules())
    with torch.no_grad():
        for cut in plan.cuts:
            gone = [index for index in range(cut.size) if index not in cut.kept]
            if cut.axis == "inputs":
                parts[cut.module].weight[:, gone] = 0
            elif cut.axis == "heads":
                weight = parts[cut.module].proj.weight
                width = weight.shape[1] // cut.size
                for head in gone:
                    weight[:, head * width : (head + 1) * width] = 0
    return same


def parameters(module):
    """How many there are."""
    return sum(parameter.numel() for parameter in module.parameters())
