"""How modules of each kind are cut, and which of their weights belong to an entry.

`CUTTERS` is the table: a kind of module and an axis to the function that slices it. A kind is what `kind_of` calls a module; a module of no known kind is
never cut. A bare parameter, which belongs to no known kind of module, is cut in its owner (`cut_parameter`).

Rules this file keeps:

1. A cut makes new parameters of the planned shapes and sets the numbers that the module's forward reads; it changes nothing else.
2. Kinds of attention are told by the exact type, since a subclass may read its weights in another order.
3. `weights_of` gives the weights that go with an entry of an axis. Biases are left out: they say little about a unit's worth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

ATTENTIONS: Mapping[str, str] = {
    "timm.layers.attention.Attention": "attention",
    "timm.models.swin_transformer.WindowAttention": "attention",
}
"""Types of attention whose heads can be taken out, to their kind. Both hold `qkv`, rows in the order (3, heads, dimension), and `proj`."""


def type_name(module: object) -> str:
    """The full name of a module's exact type."""
    return f"{type(module).__module__}.{type(module).__qualname__}"


def named_places(module: torch.nn.Module) -> dict[str, Any]:
    """Every module and every parameter of a network by its name, in the network's order: first the modules."""
    return {**dict(module.named_modules()), **dict(module.named_parameters())}


def kind_of(module: object) -> str | None:
    """What a module is cut as; None where it cannot be cut."""
    from torch import nn

    if isinstance(module, nn.Parameter):
        return "parameter" if any(size > 1 for size in module.shape) else None
    attention = ATTENTIONS.get(type_name(module))
    if attention is not None:
        return attention
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return "convolution" if module.groups == 1 else "grouped convolution"
    if isinstance(module, nn.Linear):
        return "linear"
    if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
        return "batch norm"
    if isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1:
        return "layer norm"
    return "prelu" if isinstance(module, nn.PReLU) and module.num_parameters > 1 else None


def parameter_axis(parameter: torch.Tensor) -> int:
    """The axis of a bare parameter that is cut: its last with more than one entry, as Torch-Pruning has it."""
    return max(axis for axis, size in enumerate(parameter.shape) if size > 1)


def size_of(module: Any, axis: str) -> int | None:
    """Entries of a module along an axis; None where it has no such axis."""
    kind = kind_of(module)
    if kind == "parameter" and axis == "channels":
        return int(module.shape[parameter_axis(module)])
    if (kind, axis) not in CUTTERS:
        return None
    sizes: Mapping[tuple[str | None, str], Callable[[], int]] = {
        ("convolution", "outputs"): lambda: module.out_channels,
        ("convolution", "inputs"): lambda: module.in_channels,
        ("grouped convolution", "groups"): lambda: module.groups,
        ("linear", "outputs"): lambda: module.out_features,
        ("linear", "inputs"): lambda: module.in_features,
        ("batch norm", "channels"): lambda: module.num_features,
        ("layer norm", "channels"): lambda: module.normalized_shape[0],
        ("prelu", "channels"): lambda: module.num_parameters,
        ("attention", "heads"): lambda: module.num_heads,
    }
    return int(sizes[kind, axis]())


def weights_of(module: Any, axis: str, named: Callable[[Any], torch.Tensor | None]) -> torch.Tensor | None:
    """Sums a figure of each weight over what goes with each entry.

    Args:
        module: A module or parameter of a known kind.
        axis: Of the module.
        named: Gives the figure of a parameter, float (…) of its shape, or None where it does not count.

    Returns:
        float64 (entries of the axis,), or None where no weight counts.
    """
    kind = kind_of(module)
    if kind == "attention":
        return _of_heads(module, named)
    weight = module if kind == "parameter" else module.weight
    figure = None if weight is None else named(weight)
    if figure is None:
        return None
    figure = figure.double()
    if axis == "groups":
        return figure.reshape(module.groups, -1).sum(1)
    index = parameter_axis(module) if kind == "parameter" else int(axis == "inputs")
    return figure.movedim(index, 0).flatten(1).sum(1) if figure.dim() > 1 else figure


def _of_heads(module: Any, named: Callable[[Any], torch.Tensor | None]) -> torch.Tensor | None:
    rows, columns = named(module.qkv.weight), named(module.proj.weight)
    if rows is None or columns is None:
        return None
    heads = module.num_heads
    return rows.double().reshape(3, heads, -1).sum((0, 2)) + columns.double().T.reshape(heads, -1).sum(1)


def cut_parameter(owner: Any, name: str, kept: torch.Tensor) -> None:
    """Replaces a bare parameter of a module by the entries that stay."""
    _sliced(owner, name, parameter_axis(getattr(owner, name)), kept)


def _sliced(owner: Any, name: str, axis: int, kept: torch.Tensor) -> None:
    """Replaces a parameter or buffer of a module by the entries that stay; one that is None stays None."""
    import torch

    old = getattr(owner, name)
    if old is None:
        return
    new = old.detach().index_select(axis, kept.to(old.device)).clone()
    setattr(owner, name, torch.nn.Parameter(new, requires_grad=old.requires_grad) if isinstance(old, torch.nn.Parameter) else new)


def _outputs(module: Any, kept: torch.Tensor) -> None:
    _sliced(module, "weight", 0, kept)
    _sliced(module, "bias", 0, kept)
    setattr(module, "out_features" if hasattr(module, "out_features") else "out_channels", len(kept))


def _inputs(module: Any, kept: torch.Tensor) -> None:
    _sliced(module, "weight", 1, kept)
    setattr(module, "in_features" if hasattr(module, "in_features") else "in_channels", len(kept))


def _groups(module: Any, kept: torch.Tensor) -> None:
    rows = _spread(kept, module.out_channels // module.groups)
    width = module.in_channels // module.groups
    _sliced(module, "weight", 0, rows)
    _sliced(module, "bias", 0, rows)
    module.out_channels, module.in_channels, module.groups = len(rows), width * len(kept), len(kept)


def _batch_norm(module: Any, kept: torch.Tensor) -> None:
    for name in ("weight", "bias", "running_mean", "running_var"):
        _sliced(module, name, 0, kept)
    module.num_features = len(kept)


def _layer_norm(module: Any, kept: torch.Tensor) -> None:
    for name in ("weight", "bias"):
        _sliced(module, name, 0, kept)
    module.normalized_shape = (len(kept),)


def _prelu(module: Any, kept: torch.Tensor) -> None:
    _sliced(module, "weight", 0, kept)
    module.num_parameters = len(kept)


def _heads(module: Any, kept: torch.Tensor) -> None:
    """The rows of qkv are (3, heads, dimension), the columns of proj (heads, dimension); Swin's table of relative positions has a column a head."""
    import torch

    heads = module.num_heads
    dimension = module.qkv.out_features // (3 * heads)
    columns = _spread(kept, dimension)
    _outputs(module.qkv, torch.cat([columns + part * heads * dimension for part in range(3)]))
    _inputs(module.proj, columns)
    if hasattr(module, "relative_position_bias_table"):
        _sliced(module, "relative_position_bias_table", 1, kept)
    module.num_heads = len(kept)
    if hasattr(module, "attn_dim"):
        module.attn_dim = len(columns)


def _spread(kept: torch.Tensor, width: int) -> torch.Tensor:
    """Entries of groups of `width` entries each: int64 (groups × width,)."""
    import torch

    return (kept[:, None] * width + torch.arange(width)).flatten()


CUTTERS: Mapping[tuple[str | None, str], Callable[[Any, torch.Tensor], None]] = {
    ("convolution", "outputs"): _outputs,
    ("convolution", "inputs"): _inputs,
    ("grouped convolution", "groups"): _groups,
    ("linear", "outputs"): _outputs,
    ("linear", "inputs"): _inputs,
    ("batch norm", "channels"): _batch_norm,
    ("layer norm", "channels"): _layer_norm,
    ("prelu", "channels"): _prelu,
    ("attention", "heads"): _heads,
}
"""A kind of module and an axis to what cuts it: takes the module and the entries that stay, int64 (kept,)."""
