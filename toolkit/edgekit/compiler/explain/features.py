"""The feature map that a classifier decides by, and its gradient, found by watching the classifier run in PyTorch.

Class activation maps weigh a feature map. Which one is decided by what happens to it, never by the model's or a layer's name:

1. The last map that loses its positions: a pooling (mean, maximum, any of PyTorch's) over all of them, or flattening into one vector.
2. Where attention comes later than that, what enters the last attention: the result of the normalization before it (in a vision transformer, the first
   normalization of the last block). Tokens after it do not reach the classifier, so their gradient would be zero.
3. Tokens are laid out as the last convolution before them left its positions; tokens that are no patches stand in front, as in ViT, DeiT and their kin.
4. Anything else is refused, with what was seen.

The file imports torch at its top since it defines a mode; it is itself imported only by what computes maps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch  # noqa: TID253 - see above
from numpy.typing import NDArray
from torch.overrides import TorchFunctionMode  # noqa: TID253 - see above

from edgekit.errors import ModelError

Layout = Literal["channels first", "channels last", "tokens"]

_REDUCTIONS = frozenset({"mean", "amax"})
_FLATTENINGS = frozenset({"flatten", "reshape", "view"})
_ATTENTIONS = frozenset({"scaled_dot_product_attention", "multi_head_attention_forward"})
_NORMALIZATIONS = frozenset({"layer_norm", "rms_norm"})
_MOST_PREFIX_TOKENS = 16
"""Class, distillation and register tokens; more of them means that the positions were laid out otherwise."""


class Features(NamedTuple):
    """What a map is made of.

    Attributes:
        values: float32 (channels, rows, columns).
        gradients: Of the score, float32 (channels, rows, columns).
    """

    values: NDArray[np.float32]
    gradients: NDArray[np.float32]


def features_and_gradients(module: torch.nn.Module, frame: torch.Tensor, score: Callable[[torch.Tensor], torch.Tensor]) -> Features:
    """Runs a classifier on a frame and differentiates a score of its answer by the feature map.

    Args:
        module: From float32 (1, channels, height, width) to (1, outputs), in evaluation mode.
        frame: float32 (1, channels, height, width).
        score: From the answer, float32 (1, outputs), to a scalar.

    Raises:
        ModelError: No such feature map is seen, or it does not reach the answer.
    """
    watch = _Watch()
    # Whatever follows the frame is then followed by autograd, also where the weights are frozen.
    watched = frame.detach().clone().requires_grad_()
    with torch.enable_grad():
        with watch:
            answer = module(watched)
        found = watch.found
        if found is None:
            raise ModelError(
                "no feature map is seen that the network pools, flattens or attends to",
                hint="its positions leave by another way; leave the methods that weigh features out of explain.compare",
            )
        scalar = score(answer)
        gradient = None
        if scalar.requires_grad and found.tensor.requires_grad:
            try:
                (gradient,) = torch.autograd.grad(scalar, found.tensor, allow_unused=True)
            except RuntimeError as error:  # an operation without a derivative, or one that overwrote what its derivative needs
                raise ModelError(
                    f"the network cannot be differentiated by its feature map: {str(error).splitlines()[0]}",
                    hint="leave the methods that weigh features out of explain.compare",
                ) from error
    if gradient is None:
        raise ModelError("the feature map that was seen does not reach the answer", hint="please report the architecture")
    return Features(found.laid_out(found.tensor), found.laid_out(gradient))


@dataclass(frozen=True, slots=True)
class _Found:
    """A tensor with positions, and how they lie in it."""

    tensor: torch.Tensor
    layout: Layout
    grid: tuple[int, int]

    def laid_out(self, tensor: torch.Tensor) -> NDArray[np.float32]:
        """float32 (channels, rows, columns)."""
        plain = tensor.detach().float()[0]
        if self.layout == "channels first":
            return np.array(plain.numpy(), dtype=np.float32)
        if self.layout == "tokens":
            rows, columns = self.grid
            plain = plain[len(plain) - rows * columns :].reshape(rows, columns, -1)
        return np.array(plain.permute(2, 0, 1).numpy(), dtype=np.float32, order="C")


class _Watch(TorchFunctionMode):
    """Keeps what rules 1 and 2 find last."""

    def __init__(self) -> None:
        super().__init__()
        self.found: _Found | None = None
        self._normalized: torch.Tensor | None = None
        self._grid: tuple[int, int] | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        result = func(*args, **named)
        name = getattr(func, "__name__", "").strip("_")
        given = args[0] if args else named.get("input")
        if isinstance(result, torch.Tensor) and isinstance(given, torch.Tensor):
            self._see(name, given, result, (args, named))
        elif name == "multi_head_attention_forward":  # answers with the attention's weights as well
            self._see_attention()
        return result

    def _see(self, name: str, given: torch.Tensor, result: torch.Tensor, call: tuple[Sequence[Any], Mapping[str, Any]]) -> None:
        if name == "conv2d" and result.shape[2] * result.shape[3] > 1:
            self._grid = (result.shape[2], result.shape[3])
        elif name in _NORMALIZATIONS and result.ndim == 3 and result.shape[1] > 1:
            self._normalized = result
        elif name in _ATTENTIONS or (name == "softmax" and self._weighs_tokens(result)):
            self._see_attention()
        elif "pool2d" in name:
            if given.ndim == 4 and result.numel() == len(given) * given.shape[1]:
                self._lose(given, "channels first")
        elif name in _REDUCTIONS:
            self._see_reduction(given, _axes(*call))
        elif name in _FLATTENINGS and given.ndim == 4 and result.ndim == 2:
            self._lose(given, "channels first")

    def _see_reduction(self, given: torch.Tensor, axes: tuple[int, ...]) -> None:
        places = tuple(sorted(axis % given.ndim for axis in axes))
        if given.ndim == 4 and places == (2, 3):
            self._lose(given, "channels first")
        elif given.ndim == 4 and places == (1, 2):
            self._lose(given, "channels last")
        elif given.ndim == 3 and places == (1,):
            self._lose(given, "tokens")

    def _lose(self, tensor: torch.Tensor, layout: Layout) -> None:
        """Rule 1: a map of more than one position has just lost them."""
        if layout == "tokens":
            grid = self._grid_of(tensor.shape[1])
        else:
            grid = (tensor.shape[2], tensor.shape[3]) if layout == "channels first" else (tensor.shape[1], tensor.shape[2])
        if grid is not None and grid[0] * grid[1] > 1:
            self.found = _Found(tensor, layout, grid)

    def _see_attention(self) -> None:
        """Rule 2."""
        grid = None if self._normalized is None else self._grid_of(self._normalized.shape[1])
        if self._normalized is not None and grid is not None:
            self.found = _Found(self._normalized, "tokens", grid)

    def _weighs_tokens(self, weights: torch.Tensor) -> bool:
        """Whether the result of a softmax is attention that was written out: (frames, heads, queries, tokens)."""
        return self._normalized is not None and weights.ndim == 4 and weights.shape[3] == self._normalized.shape[1]

    def _grid_of(self, tokens: int) -> tuple[int, int] | None:
        """Rule 3."""
        if self._grid is None or not 0 <= tokens - self._grid[0] * self._grid[1] <= _MOST_PREFIX_TOKENS:
            return None
        return self._grid


def _axes(args: Sequence[Any], named: Mapping[str, Any]) -> tuple[int, ...]:
    """The axes of a reduction; none where it goes over all of them."""
    axes = args[1] if len(args) > 1 else named.get("dim", ())
    if isinstance(axes, int) and not isinstance(axes, bool):
        return (axes,)
    return tuple(axes) if isinstance(axes, (tuple, list)) else ()
