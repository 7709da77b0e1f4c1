"""Counts multiply-accumulates: what stands for the latency of a device that is not here.

It stands for it badly: memory traffic, launch times and kernels that fill whole blocks of channels are not in it, so half of the multiply-accumulates is never half
of the time. It is the same on every machine, though, and it falls when channels go.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgekit.errors import ModelError

if TYPE_CHECKING:
    import torch


def multiply_accumulates(module: torch.nn.Module, example: torch.Tensor) -> int:
    """Counts the multiply-accumulates of one frame, of convolutions and matrix products (PyTorch's `FlopCounterMode`, which counts each as two operations).

    Args:
        module: A network in evaluation mode.
        example: float32 (1, channels, height, width).

    Raises:
        ModelError: There is none to count.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with torch.no_grad(), _no_fused_attention(), sdpa_kernel(SDPBackend.MATH), counter:
        module(example)
    count = counter.get_total_flops() // 2
    if count == 0:
        raise ModelError("the network has no convolution and no matrix product to count", hint="please report the architecture")
    return int(count)


@contextlib.contextmanager
def _no_fused_attention() -> Iterator[None]:
    """A fused attention, or a whole layer of a transformer, is one operator that the counter does not know; as written, it is matrix products."""
    import torch

    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
