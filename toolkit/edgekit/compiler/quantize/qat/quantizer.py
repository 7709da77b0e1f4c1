"""Fake quantizers: float tensors that hold only the values an integer can stand for, with gradients.

Rules this file keeps:

1. Zero is an integer: the zero point is 0, in every dialect. Activations are uint8 where they cannot be negative and int8 elsewhere, one scale a tensor;
   weights are int8 in −127 … 127, −63 … 63 in a layer that reads the frame, one scale an output channel.
2. The arithmetic is that of ONNX's QuantizeLinear and DequantizeLinear: divide by the scale, round half to even, saturate, multiply by the scale.
   (PyTorch's own `fake_quantize_*` multiplies by the reciprocal, and takes eight times as long on a CPU.)
3. Rounding passes the gradient on as if it were not there; what is outside the range gets none. The scale of an activation is learned (LSQ, Esser et
   al. 2020).
4. An optimizer like Adam moves every parameter by about the learning rate, whatever its size, and folded weights differ by a factor of a thousand
   between channels. So a weight is learned in units of its channel's largest magnitude: 3e-5 a step is then a 260th of an integer step, in every channel.
5. A learned scale is kept as start · exp(GAIN · θ): it stays positive, and moves in proportion to itself.

The file imports torch at its top since it defines modules; it is itself imported only by what trains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch  # noqa: TID253 - see above

GAIN = 30.0
"""How much faster than θ the logarithm of a scale moves: at a learning rate of 3e-5, about a thousandth a step."""

WEIGHT_LIMIT = 127
"""Largest weight as an integer; −128 is left out, so that a weight and its negative are both there."""

SMALLEST_SCALE = 1e-12
"""A channel of zeros has this scale: any would do but 0, which engines refuse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The integers of a quantizer.

    Attributes:
        low: Lowest.
        high: Highest.
    """

    low: int
    high: int


UNSIGNED = Limits(low=0, high=255)
SIGNED = Limits(low=-128, high=127)


class ActivationQuantizer(torch.nn.Module):
    """Rounds a tensor to whole steps of a learned scale."""

    start: torch.Tensor

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self.limits = limits
        self.register_buffer("start", torch.ones(()))
        self.theta = torch.nn.Parameter(torch.zeros(()))

    def set_scale(self, scale: float) -> None:
        """Starts from a scale: the tensor's units of one integer step."""
        with torch.no_grad():
            self.start.fill_(scale)
            self.theta.zero_()

    @property
    def scale(self) -> torch.Tensor:
        """float32 (), positive."""
        return self.start * torch.exp(GAIN * self.theta)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rounded: torch.Tensor = _RoundLearned.apply(x, self.scale, self.limits)  # type: ignore[no-untyped-call]
        return rounded


class WeightQuantizer(torch.nn.Module):
    """Rounds weights to whole parts of the largest magnitude of each output channel.

    Attributes:
        limit: That magnitude as an integer.
        unit: float32 (output channels, 1, …), what the learned weight is multiplied with: a power of two, so nothing is lost.
    """

    unit: torch.Tensor

    def __init__(self, weight: torch.Tensor, axis: int, limit: int = WEIGHT_LIMIT) -> None:
        """Chooses the units.

        Args:
            weight: As it is before training.
            axis: Of the output channels.
            limit: Largest weight as an integer.
        """
        super().__init__()
        self.axis = axis
        self.limit = limit
        self._others = [other for other in range(weight.ndim) if other != axis]
        largest = weight.detach().abs().amax(dim=self._others, keepdim=True).clamp_min(SMALLEST_SCALE)
        self.register_buffer("unit", torch.exp2(torch.ceil(torch.log2(largest))))

    def weight(self, learned: torch.Tensor) -> torch.Tensor:
        """The weight before rounding, of the learned one."""
        return learned * self.unit

    def scale(self, weight: torch.Tensor) -> torch.Tensor:
        """float32 (output channels,), positive, of a weight before rounding."""
        return (weight.detach().abs().amax(dim=self._others) / self.limit).clamp_min(SMALLEST_SCALE)

    def forward(self, learned: torch.Tensor) -> torch.Tensor:
        weight = self.weight(learned)
        scale = self.scale(weight).reshape(self.unit.shape)
        rounded = fake_quantize(weight.detach(), scale, Limits(low=-self.limit, high=self.limit))
        # No weight is outside the range, so the gradient passes everywhere.
        return weight + (rounded - weight).detach() if torch.is_grad_enabled() else rounded


def fake_quantize(x: torch.Tensor, scale: torch.Tensor, limits: Limits) -> torch.Tensor:
    """DequantizeLinear(QuantizeLinear(x)) with zero point 0; no gradient."""
    return (x / scale).round_().clamp_(limits.low, limits.high).mul_(scale)


class _RoundLearned(torch.autograd.Function):
    """Fake quantization with a gradient for the scale (Esser et al. 2020, equations 3 and 5, and the factor of section 2.2)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: torch.Tensor, limits: Limits) -> torch.Tensor:
        rounded = fake_quantize(x, scale, limits)
        ctx.save_for_backward(x, scale, rounded)
        ctx.limits = limits
        return rounded

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        x, scale, rounded = ctx.saved_tensors
        gradient, limits, step = gradients[0], ctx.limits, float(scale)
        # The fused kernel of a clamp's gradient: four passes over memory less than comparing and multiplying.
        passed = torch.ops.aten.hardtanh_backward.default(gradient, x, limits.low * step, limits.high * step)
        # d(rounded)/d(scale) is (rounded − x) / scale inside the range and rounded / scale outside.
        toward = ((gradient * rounded).sum() - (passed * x).sum()) / scale
        return passed, toward / (x.numel() * limits.high) ** 0.5, None
