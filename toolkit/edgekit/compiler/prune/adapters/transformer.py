"""Vision transformers: whole attention heads, and the hidden units of the MLPs. The width of the embedding stays.

Rules this file keeps:

1. Heads and hidden units never leave the module they are in, so no tracing is needed, and every one can be taken out alone.
2. A module is known by its exact type. Of an attention that computes with the embedding's width instead of its heads' (torchvision's and PyTorch's own), the
   heads stay; so do those of one that normalizes across heads or has gates.
3. Each layer keeps a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from edgekit.compiler.prune.modules import ATTENTIONS, kind_of, size_of, type_name
from edgekit.compiler.prune.structure import Axis, Member, Structure

if TYPE_CHECKING:
    import torch

FIXED_ATTENTIONS = frozenset(
    {
        "torch.nn.modules.activation.MultiheadAttention",
        "torchvision.models.swin_transformer.ShiftedWindowAttention",
        "torchvision.models.swin_transformer.ShiftedWindowAttentionV2",
        "timm.models.swin_transformer_v2.WindowAttention",
    }
)
"""Types of attention that tell a transformer and whose heads cannot be taken out."""

MLPS: Mapping[str, tuple[str, str]] = {
    "timm.layers.mlp.Mlp": ("fc1", "fc2"),
    "torchvision.ops.misc.MLP": ("0", "3"),
    "torchvision.models.vision_transformer.MLPBlock": ("0", "3"),
}
"""Types of MLP, to the names of the layers that make and read the hidden units; only an activation and dropout may be between them."""


def fits(module: torch.nn.Module) -> bool:
    """Whether the network has an attention of a known type."""
    names = {type_name(part) for part in module.modules()}
    return bool(names & (ATTENTIONS.keys() | FIXED_ATTENTIONS))


def structures(module: torch.nn.Module, example: torch.Tensor) -> list[Structure]:  # noqa: ARG001 - the contract of adapters
    """The heads and hidden units of every layer."""
    return [*_heads(module), *_hidden_units(module)]


def _heads(module: torch.nn.Module) -> Iterator[Structure]:
    for name, part in module.named_modules():
        attention: Any = part
        if type_name(part) not in ATTENTIONS or not _has_separate_heads(attention):
            continue
        yield Structure(
            name=name,
            kind="attention heads",
            members=(_member(name, part, "heads"),),
            width=attention.qkv.out_features // (3 * attention.num_heads),
            whole=True,
        )


def _has_separate_heads(attention: Any) -> bool:
    from torch import nn

    return isinstance(getattr(attention, "norm", nn.Identity()), nn.Identity) and getattr(attention, "gate", None) is None


def _hidden_units(module: torch.nn.Module) -> Iterator[Structure]:
    from torch import nn

    for name, part in module.named_modules():
        if type_name(part) not in MLPS or not isinstance(getattr(part, "norm", nn.Identity()), nn.Identity):
            continue
        first, second = MLPS[type_name(part)]
        layers: list[Any] = [getattr(part, first, None), getattr(part, second, None)]
        if any(kind_of(layer) not in {"linear", "convolution"} for layer in layers) or size_of(layers[0], "outputs") != size_of(
            layers[1], "inputs"
        ):
            continue
        yield Structure(
            name=f"{name}.{first}",
            kind="hidden units",
            members=(_member(f"{name}.{first}", layers[0], "outputs"), _member(f"{name}.{second}", layers[1], "inputs")),
        )


def _member(name: str, part: object, axis: Axis) -> Member:
    size = size_of(part, axis) or 0
    return Member(module=name, axis=axis, size=size, indices=tuple((index,) for index in range(size)))
