"""Batch normalizations and grey planes are folded into the convolutions before anything is quantized.

Rules this file keeps:

1. A batch normalization at inference is y = (x − μ) / √(σ² + ε) · γ + β a channel. After a convolution it becomes part of the convolution's weights and
   bias (Jacob et al. 2018), computed in float64.
2. Where no convolution stands before it (DenseNet), it becomes a product and a sum, whose factors are trained like other parameters.
3. A grey frame that is repeated to three planes and normalized alike enters as one plane, and the first convolution's weights are summed over its input
   channels: the same sum in another order (docs/adr/0009-grey-frames-in-one-plane.md). Behind a quantizer, the float graph's pass can no longer do it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, cast

from edgekit.compiler.quantize.qat.trace import constant, operator
from edgekit.errors import ModelError
from edgekit.schema.model_io import InputSpec

if TYPE_CHECKING:
    import torch

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")


def fold_batch_norm(traced: torch.fx.GraphModule) -> None:
    """Folds every batch normalization of a traced network, in place.

    Raises:
        ModelError: One has no running statistics: what a frame gets would depend on the frames beside it.
    """
    for node in list(traced.graph.nodes):
        if operator(node) != "batch_norm":
            continue
        if constant(traced, node.args[3]) is None or constant(traced, node.args[4]) is None or node.args[5]:
            raise ModelError(
                "a batch normalization of the network has no running statistics", hint="train it with track_running_stats=True"
            )
        if _follows_own_convolution(traced, node):
            _into_convolution(traced, node)
        else:
            _into_product(traced, node)
    _finish(traced)


def fold_grey(traced: torch.fx.GraphModule, spec: InputSpec) -> InputSpec:
    """Makes a network that was trained on repeated grey planes take one, in place, where that is exact.

    Args:
        traced: Takes (frames, spec.channels, height, width).
        spec: The recipe's `[input]`.

    Returns:
        What the network takes now.
    """
    source = next(node for node in traced.graph.nodes if node.op == "placeholder")
    alike = len(set(spec.mean)) == 1 and len(set(spec.std)) == 1
    if spec.color != "grey" or spec.channels == 1 or not alike or len(source.users) != 1:
        return spec
    first = next(iter(source.users))
    # Zero padding is zero in every plane.
    if operator(first) == "pad" and len(first.users) == 1:
        first = next(iter(first.users))
    kernel = constant(traced, first.args[1]) if operator(first) == "conv2d" else None
    if kernel is None or kernel.shape[1] != spec.channels or len(first.args[1].users) != 1:
        return spec
    _replace(traced, first.args[1], kernel.double().sum(dim=1, keepdim=True))
    source.meta.clear()
    _finish(traced)
    return dataclasses.replace(spec, channels=1, mean=spec.mean[:1], std=spec.std[:1])


def _follows_own_convolution(traced: torch.fx.GraphModule, node: torch.fx.Node) -> bool:
    before = cast("torch.fx.Node", node.args[0])
    if operator(before) not in _CONVOLUTIONS or len(before.users) != 1:
        return False
    parameters = [argument for argument in before.args[1:3] if argument is not None]
    # A parameter that two layers share cannot take up the normalization of one.
    return all(constant(traced, item) is not None and _uses(traced, cast("torch.fx.Node", item)) == 1 for item in parameters)


def _uses(traced: torch.fx.GraphModule, node: torch.fx.Node) -> int:
    return sum(len(other.users) for other in traced.graph.nodes if other.op == "get_attr" and other.target == node.target)


def _factors(traced: torch.fx.GraphModule, node: torch.fx.Node) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and shift of a batch normalization, float64 (channels,)."""
    import torch

    gamma, beta, mean, variance = (constant(traced, argument) for argument in node.args[1:5])
    epsilon = cast("float", node.args[7])
    if mean is None or variance is None:
        raise ModelError("a batch normalization of the network has no running statistics")
    scale = 1 / torch.sqrt(variance.detach().double() + epsilon)
    if gamma is not None:
        scale = scale * gamma.detach().double()
    shift = -mean.detach().double() * scale
    return scale, shift if beta is None else shift + beta.detach().double()


def _into_convolution(traced: torch.fx.GraphModule, node: torch.fx.Node) -> None:
    convolution = cast("torch.fx.Node", node.args[0])
    scale, shift = _factors(traced, node)
    kernel = cast("torch.fx.Node", convolution.args[1])
    weight = cast("torch.Tensor", constant(traced, kernel)).detach().double()
    _replace(traced, kernel, weight * scale.reshape(-1, *[1] * (weight.ndim - 1)))
    bias = convolution.args[2] if len(convolution.args) > 2 else None
    old = constant(traced, bias)
    if old is not None:
        _replace(traced, cast("torch.fx.Node", bias), old.detach().double() * scale + shift)
    else:
        added = _add_parameter(traced, f"{convolution.name}_bias", shift, convolution)
        convolution.args = (*convolution.args[:2], added, *convolution.args[3:])
    node.replace_all_uses_with(convolution)
    traced.graph.erase_node(node)


def _into_product(traced: torch.fx.GraphModule, node: torch.fx.Node) -> None:
    import torch

    graph = traced.graph
    value = cast("torch.fx.Node", node.args[0])
    sides = [1] * (value.meta["val"].ndim - 2)
    scale, shift = (
        _add_parameter(traced, f"{node.name}_{name}", part.reshape(-1, *sides), node)
        for name, part in zip(("scale", "shift"), _factors(traced, node), strict=True)
    )
    with graph.inserting_before(node):
        product = graph.call_function(torch.ops.aten.mul.Tensor, (value, scale))
        total = graph.call_function(torch.ops.aten.add.Tensor, (product, shift))
    for made in (product, total):
        made.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(total)
    graph.erase_node(node)


def _add_parameter(traced: torch.fx.GraphModule, name: str, value: torch.Tensor, before: torch.fx.Node) -> torch.fx.Node:
    import torch

    traced.register_parameter(name, torch.nn.Parameter(value.float()))
    with traced.graph.inserting_before(before):
        return traced.graph.get_attr(name)


def _replace(traced: torch.fx.GraphModule, node: torch.fx.Node, value: torch.Tensor) -> None:
    """Gives the parameter that a node reads another value, under its name."""
    import torch

    path, _, name = str(node.target).rpartition(".")
    owner = traced.get_submodule(path)
    owner._parameters.pop(name, None)  # noqa: SLF001 - a frozen weight may be a buffer; either becomes a parameter
    owner._buffers.pop(name, None)  # noqa: SLF001
    owner.register_parameter(name, torch.nn.Parameter(value.float()))


def _finish(traced: torch.fx.GraphModule) -> None:
    traced.graph.eliminate_dead_code()
    traced.delete_all_unused_submodules()
    traced.recompile()
