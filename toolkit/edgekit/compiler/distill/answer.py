"""What a classifier in training answers with: logits, the class activation map behind them, and the features the head pools.

`Explained` wraps any eager classifier. It finds the pooled linear head by watching the classifier run, not by the model's name, and computes the map from
what it saw; the classifier itself is not changed and does not run twice. What counts is what `explain/find.py` calls pooled-linear on
ONNX graphs:

1. the output is made by a linear layer: `linear`, or a 1 × 1 convolution on a pooled (1 × 1) map;
2. its input is a mean over all positions: adaptive_avg_pool2d, avg_pool2d or mean, over a map of more than one position;
3. or, without 1, a convolutional classifier whose channels are averaged (SqueezeNet): its channels are the maps, W is the identity;
4. a head counts only if mean(W · A) + b gives the example's logits; otherwise there are no maps, and `reason` says what was found instead.

The file imports torch at its top since it defines modules; it is itself imported only by what trains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch  # noqa: TID253 - see above
import torch.nn.functional as F  # noqa: N812, TID253 - the name everybody knows; see above
from torch.overrides import TorchFunctionMode  # noqa: TID253 - see above

from edgekit.errors import ModelError

TOLERANCE = 1e-4
"""Largest distance of mean(W · A) + b from the logits, in parts of the largest logit of the example."""

_POOLS = frozenset({F.adaptive_avg_pool2d, F.avg_pool2d})
_MEANS = frozenset({torch.mean, torch.Tensor.mean})
# These pass on what they are given, so they are not what made it.
_SAME_VALUES = frozenset({"flatten", "view", "reshape", "squeeze", "dropout", "contiguous", "permute", "transpose", "to", "float", "get"})
_MOST_KEPT = 1 << 16
"""Values of the largest result whose maker is remembered: a vector of features is smaller, a feature map need not be known."""


class Answer(NamedTuple):
    """What a classifier answers with.

    Attributes:
        logits: float32 (frames, outputs).
        maps: float32 (frames, outputs, rows, columns), in logit units: the mean over the positions plus the bias is the logit. None where the head allows
            none.
        features: float32 (frames, channels, rows, columns), what the head pools. None where nothing is pooled.
    """

    logits: torch.Tensor
    maps: torch.Tensor | None
    features: torch.Tensor | None


class Explained(torch.nn.Module):
    """A classifier that answers with its map.

    Attributes:
        module: The classifier, unchanged.
        reason: Why there are no maps; empty where there are.
    """

    def __init__(self, module: torch.nn.Module, example: torch.Tensor) -> None:
        """Watches the classifier on an example, in evaluation mode, and decides whether it has maps.

        Args:
            module: From float32 (frames, channels, height, width) to (frames, outputs).
            example: float32 (frames, channels, height, width) on the module's device; one frame is enough, noise is as good as any.

        Raises:
            ModelError: The module does not answer with (frames, outputs).
        """
        super().__init__()
        self.module = module
        watch = _Watch(keep=True)
        with torch.no_grad(), _evaluating(module), watch:
            logits = module(example)
        if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(logits) != len(example):
            raise ModelError("the network does not answer with one vector of logits a frame, so it cannot be trained here")
        self.reason = _why_no_maps(watch, logits)
        self._through_linear = watch.linear is not None and not _equal(watch.pooled, logits)
        self._pools = watch.features is not None

    def forward(self, x: torch.Tensor) -> Answer:
        """Answers.

        Args:
            x: float32 (frames, channels, height, width).

        Raises:
            ModelError: The classifier pooled something on the example and does not now.
        """
        watch = _Watch(keep=False)
        with watch:
            logits = self.module(x)
        if not self._pools:
            return Answer(logits.float(), None, None)
        if watch.features is None or (not self.reason and self._through_linear and watch.linear is None):
            raise ModelError("the network runs otherwise in training than in evaluation, so its map cannot be followed")
        with torch.autocast(x.device.type, enabled=False):
            features = watch.features.float()
            if self.reason:
                return Answer(logits.float(), None, features)
            if not self._through_linear or watch.linear is None:
                return Answer(logits.float(), features, features)
            return Answer(logits.float(), _maps(features, watch.linear.weight), features)


class _Linear(NamedTuple):
    inputs: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor | None
    output: torch.Tensor


class _Watch(TorchFunctionMode):
    """Remembers the last pooling over all positions and the last linear layer on a vector; with `keep`, also who made which small result."""

    def __init__(self, *, keep: bool) -> None:
        super().__init__()
        self.features: torch.Tensor | None = None
        self.pooled: torch.Tensor | None = None
        self.linear: _Linear | None = None
        self.made: list[tuple[str, torch.Tensor]] = []
        self._keep = keep

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        result = func(*args, **named)
        if func is F.linear or func is F.conv2d:
            self._see_linear(args, named, result)
        elif func in _POOLS or func in _MEANS:
            self._see_pool(func, args, named, result)
        if self._keep and isinstance(result, torch.Tensor) and result.numel() <= _MOST_KEPT:
            self.made.append((getattr(func, "__name__", "?").strip("_"), result))
        return result

    def _see_pool(self, func: Callable[..., Any], args: Sequence[Any], named: Mapping[str, Any], result: torch.Tensor) -> None:
        features = args[0] if args else named["input"]
        if features.ndim != 4 or features.shape[2] * features.shape[3] == 1 or result.numel() != features.shape[0] * features.shape[1]:
            return
        if func in _MEANS:
            axes = args[1] if len(args) > 1 else named.get("dim")
            if not isinstance(axes, (tuple, list)) or sorted(axis % 4 for axis in axes) != [2, 3]:
                return
        self.features, self.pooled = features, result

    def _see_linear(self, args: Sequence[Any], named: Mapping[str, Any], result: torch.Tensor) -> None:
        inputs, weight, bias = (
            args[place] if len(args) > place else named.get(name) for place, name in enumerate(("input", "weight", "bias"))
        )
        if not isinstance(inputs, torch.Tensor) or not isinstance(weight, torch.Tensor):
            return
        # Anything but a vector a frame times a matrix leaves other sizes than these: a larger kernel or map, and grouping.
        one_product = inputs.numel() == len(inputs) * weight.shape[1] and weight.numel() == len(weight) * weight.shape[1]
        if one_product and result.numel() == len(inputs) * len(weight):
            self.linear = _Linear(inputs, weight, bias, result)

    def maker(self, tensor: torch.Tensor) -> str:
        """The function that made a tensor, for people; what only passes values on is not meant."""
        names = [name for name, made in self.made if made.data_ptr() == tensor.data_ptr() and made.numel() == tensor.numel()]
        makers = [name for name in names if name not in _SAME_VALUES]
        return next(reversed(makers or names), "something that is not seen")


def _why_no_maps(watch: _Watch, logits: torch.Tensor) -> str:
    """Checks rules 1 to 4; empty where the head has maps."""
    pooled, features, linear = watch.pooled, watch.features, watch.linear
    if _equal(pooled, logits):
        return ""
    if linear is None or not _equal(linear.output, logits):
        return f"the output is made by {watch.maker(logits)}, not by a linear layer on pooled features"
    if pooled is None or features is None or not _equal(pooled, linear.inputs.flatten(1)):
        maker = watch.maker(linear.inputs)
        joined = ": other features are joined in" if maker in ("cat", "concat") else ""
        return f"the classifier's input is not a spatial mean but {maker}{joined}"
    means = _maps(features.double(), linear.weight.double()).mean(dim=(2, 3))
    if not _equal(means if linear.bias is None else means + linear.bias.double(), logits):
        return f"the classifier's input is pooled by {watch.maker(pooled)}, which is not the mean over all positions"
    return ""


def _maps(features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """W · A: a 1 × 1 convolution, as the matrix product it is on channels-last memory."""
    matrix = weight.flatten(1).to(features.dtype)
    return F.linear(features.permute(0, 2, 3, 1), matrix).permute(0, 3, 1, 2)


def _equal(found: torch.Tensor | None, wanted: torch.Tensor) -> bool:
    if found is None or found.numel() != wanted.numel():
        return False
    distance = (found.reshape(wanted.shape).double() - wanted.double()).abs().max()
    return bool(distance <= TOLERANCE * wanted.double().abs().max())


@contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    """In evaluation mode, so that an example leaves no trace in running figures; every part's own mode comes back."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
