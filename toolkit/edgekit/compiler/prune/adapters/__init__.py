"""Who finds the structures of a network: the first adapter that fits.

`ADAPTERS` is the extension point. An adapter is a module with two functions:

    fits(module) -> bool                              whether it knows networks of this kind
    structures(module, example) -> list[Structure]    what can be taken out, without touching the network; raises ModelError where it cannot tell

Transformers come first, because Torch-Pruning, which finds the structures of convolutional networks, fails on them.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from edgekit.compiler.prune.structure import Structure

ADAPTERS: Mapping[str, str] = {
    "transformer": "edgekit.compiler.prune.adapters.transformer",
    "convolution": "edgekit.compiler.prune.adapters.convolution",
}


def find_structures(module: torch.nn.Module, example: torch.Tensor) -> list[Structure]:
    """Finds everything that can be taken out of a network.

    Args:
        module: The network, in evaluation mode.
        example: float32 (1, channels, height, width).

    Returns:
        The structures, in an order that depends on the architecture alone.

    Raises:
        ModelError: The network cannot be traced.
    """
    adapters: list[Any] = [importlib.import_module(path) for path in ADAPTERS.values()]
    found: list[Structure] = next(adapter for adapter in adapters if adapter.fits(module)).structures(module, example)
    return found
