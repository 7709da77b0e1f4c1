"""Counts multiply-accumulates: what stands for the latency of a device that is not here.

It stands for it badly: memory traffic, launch times and kernels that fill whole blocks of channels are not in it, so half of the multiply-accumulates is never half
of the time. It is the same on every machine, though, and it falls when channels go.
"""

from __future__ import annotations

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

    # A fused attention is one operator, which the counter does not know on a CPU; as written, it is two matrix products.
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        module(example)
    count = counter.get_total_flops() // 2
    if count == 0:
        raise ModelError("the network has no convolution and no matrix product to count", hint="prune it by latency_target instead")
    return int(count)
