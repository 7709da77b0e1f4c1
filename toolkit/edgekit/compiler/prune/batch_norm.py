"""Measures batch normalization's means and variances again, for a network whose channels or weights have changed.

Rules this file keeps:

1. No weight changes. Only batch normalization runs in training mode; dropout and stochastic depth stay off.
2. The new figures are the plain average over the batches, each counting the same, and do not depend on the old ones.
3. The network is afterwards in the mode it was in; where a batch fails, its old figures are back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from edgekit.errors import DataError, ModelError

if TYPE_CHECKING:
    import torch


def recalibrate_batch_norm(module: torch.nn.Module, batches: Callable[[], Iterable[torch.Tensor]]) -> int:
    """Replaces the running figures of every batch normalization by those of some batches.

    Args:
        module: The network; changed in place.
        batches: Yields float32 (frames, channels, height, width), as the network takes them.

    Returns:
        How many batches were used: 0 where the network has no batch normalization with running figures.

    Raises:
        DataError: There is no batch.
        ModelError: The network fails on a batch.
    """
    import torch

    norms = [part for part in module.modules() if isinstance(part, torch.nn.modules.batchnorm._BatchNorm) and part.track_running_stats]  # noqa: SLF001 - the common base has no public name
    if not norms:
        return 0
    modes = [(part, part.training) for part in module.modules()]
    momenta = [norm.momentum for norm in norms]
    kept = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
    done = False
    try:
        count = _measure(module, norms, batches)
        done = True
    finally:
        for part, training in modes:
            part.training = training
        for norm, momentum, buffers in zip(norms, momenta, kept, strict=True):
            norm.momentum = momentum
            if not done:
                norm.load_state_dict(buffers, strict=False)
    return count


def _measure(
    module: torch.nn.Module, norms: list[torch.nn.modules.batchnorm._BatchNorm], batches: Callable[[], Iterable[torch.Tensor]]
) -> int:
    import torch

    module.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch then averages over all batches
        norm.training = True
    count = 0
    with torch.no_grad():
        for batch in batches():
            try:
                module(batch)
            except (RuntimeError, ValueError) as error:
                raise ModelError(
                    f"batch normalization cannot be measured again: {str(error).splitlines()[0]}"[:300],
                    hint="give batches of several frames",
                ) from error
            count += 1
    if count == 0:
        raise DataError("batch normalization cannot be measured again without frames", hint="the split train is empty")
    if not all(torch.isfinite(buffer).all() for norm in norms for buffer in norm.buffers()):
        raise ModelError("batch normalization's means or variances are NaN or infinite", hint="check the frames and the weights")
    return count
