"""Where training starts: ranges from calibration frames, and biases that take back the mean error of rounding.

Rules this file keeps:

1. A range is the one with the least squared error on the calibration frames, not the extremes: one outlier must not cost everybody else's precision.
2. Biases are corrected layer by layer, each with the layers before it already rounded and corrected (Nagel et al. 2019, section 4.2, empirical form).
3. Frames are read in order and in fixed batches: the same frames give the same ranges.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler.progress import Progress
from edgekit.compiler.quantize.qat.trace import constant
from edgekit.errors import ModelError

if TYPE_CHECKING:
    import torch

    from edgekit.compiler.quantize.qat.network import QuantizedNetwork

BATCH = 16
BINS = 2048
CANDIDATES = np.geomspace(0.05, 1.0, 120)
"""Ranges that are tried, in parts of the largest magnitude."""

SAMPLE = 1 << 14
"""About so many values of a tensor are kept a batch; the largest is looked for among all."""

CORRECTION_FRAMES = 64
"""Frames of the bias correction; what they make is in memory at once."""


def calibrate(network: QuantizedNetwork, frames: Callable[[slice], torch.Tensor], count: int, progress: Progress) -> None:
    """Finds the ranges of all activations, then corrects the biases; in place.

    Args:
        network: As built.
        frames: Gives a slice of the calibration frames as the network takes them, float32 (frames, planes, height, width).
        count: How many there are.
        progress: Told of every frame.

    Raises:
        ModelError: A value of the network is not finite on the calibration frames.
    """
    largest: dict[str, float] = {}
    samples: dict[str, list[NDArray[np.float32]]] = {}

    def look(name: str, value: torch.Tensor) -> None:
        magnitudes = value.abs().flatten()
        found = float(magnitudes.max())
        if not math.isfinite(found):
            raise ModelError(f"the network's value {name} is not finite on the calibration frames", hint="check [input] mean and std")
        largest[name] = max(largest.get(name, 0.0), found)
        # An odd step visits every channel and every column.
        samples.setdefault(name, []).append(magnitudes[:: (len(magnitudes) // SAMPLE) | 1].numpy().copy())

    for start in range(0, count, BATCH):
        _observe(network, frames(slice(start, start + BATCH)), look)
        progress.step(min(start + BATCH, count), count)
    for name, quantizer in network.values().items():
        if not largest[name]:
            quantizer.set_scale(1 / quantizer.limits.high)
            progress.note(f"{name} is 0 on every calibration frame; its range is set to 1")
            continue
        counts, _ = np.histogram(np.concatenate(samples.pop(name)), bins=BINS, range=(0, largest[name]))
        quantizer.set_scale(best_range(counts.astype(np.float64), largest[name], quantizer.limits.high) / quantizer.limits.high)
    correct_biases(network, frames(slice(0, CORRECTION_FRAMES)))


def best_range(counts: NDArray[np.float64], largest: float, steps: int) -> float:
    """The range with the least squared error of rounding and clipping.

    Args:
        counts: float64 (bins,), of magnitudes between 0 and `largest`.
        largest: Largest magnitude, in the value's units.
        steps: Integers that the range is divided into.

    Returns:
        Largest magnitude that is kept, in the value's units.
    """
    centres = (np.arange(len(counts)) + 0.5) * (largest / len(counts))
    scales = largest * CANDIDATES[:, None] / steps
    errors = (counts * (np.minimum(np.round(centres / scales), steps) * scales - centres) ** 2).sum(axis=1)
    return float(largest * CANDIDATES[int(errors.argmin())])


def correct_biases(network: QuantizedNetwork, frames: torch.Tensor) -> None:
    """Makes the mean of every channel that a layer gives what it is without rounding, in place; a layer without a bias is left as it is.

    Args:
        network: Calibrated.
        frames: float32 (frames, planes, height, width), as the network takes them.
    """
    import torch

    exact, rounded = (_Walk(network, frames, rounding=rounding) for rounding in (False, True))
    with torch.no_grad():
        for node in network.nodes():
            found, expected = rounded.step(node), exact.step(node)
            bias = network.bias(node)
            if bias is None:
                continue
            # Channels are the second axis of an image and the last of a sequence of vectors.
            image = expected.ndim == 4
            shift = (expected - found).movedim(1 if image else -1, 0).flatten(1).mean(dim=1)
            bias.add_(shift)
            rounded.values[node] = found + (shift[:, None, None] if image else shift)


def _observe(network: QuantizedNetwork, frames: torch.Tensor, look: Callable[[str, torch.Tensor], None]) -> None:
    """Runs the network without rounding, and shows every value that would be rounded."""
    import torch

    walk = _Walk(network, frames, rounding=False)
    with torch.no_grad():
        for node in network.nodes():
            value = walk.step(node)
            name = network.value_name(node)
            if name is not None:
                look(name, value)


class _Walk:
    """Runs a network node by node, and forgets what nobody reads any more."""

    def __init__(self, network: QuantizedNetwork, frames: torch.Tensor, *, rounding: bool) -> None:
        self.values: dict[torch.fx.Node, Any] = {}
        self._network = network
        self._frames = frames
        self._rounding = rounding
        self._left = {node: len(node.users) for node in network.nodes()}

    def step(self, node: torch.fx.Node) -> Any:
        """The value of the next node."""
        result = self.values[node] = self._value(node)
        for read in node.all_input_nodes:
            self._left[read] -= 1
            if not self._left[read]:
                del self.values[read]
        return result

    def _value(self, node: torch.fx.Node) -> Any:
        from torch.fx.node import map_arg

        if node.op == "placeholder":
            return self._frames
        if node.op == "get_attr":
            return constant(self._network.graph, node)
        arguments = map_arg(node.args, self.values.__getitem__)
        if node.op == "call_module":
            return self._network.call(node, cast("torch.Tensor", arguments[0]), rounding=self._rounding)
        return cast("Callable[..., Any]", node.target)(*arguments, **map_arg(node.kwargs, self.values.__getitem__))
