"""Convolutional networks: channels, with everything that depends on them, as Torch-Pruning's dependency graph finds it (Fang et al., CVPR 2023).

Torch-Pruning is used for that graph alone, and only here: what is worth what, how much goes and how it is cut are edgekit's. Another tracer would replace this
file.

Rules this file keeps:

1. What the network answers with is never cut.
2. Groups of a grouped convolution go whole, at its input and its output together: a group keeps its width, which decides how fast it runs.
3. Where a structure touches a module that cannot be cut, it stays whole.
4. The network is traced as a copy, with what Torch-Pruning prints and warns kept off the terminal.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgekit.compiler.prune.modules import kind_of, named_places, size_of
from edgekit.compiler.prune.structure import Axis, Member, Structure
from edgekit.errors import MissingEngineError, ModelError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    """One module of a traced group: which of its entries go with which channel of the root."""

    module: str
    kind: str
    axis: Axis
    size: int
    entries: tuple[tuple[int, int], ...]  # (entry, channel of the root)
    linked: bool  # a grouped convolution, whose input and output go together


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    channels: int
    items: tuple[_Item, ...]
    usable: bool


def fits(module: torch.nn.Module) -> bool:  # noqa: ARG001 - the contract of adapters
    """Whether to try: always; tracing tells."""
    return True


def structures(module: torch.nn.Module, example: torch.Tensor) -> list[Structure]:
    """The channels of every layer that can lose some, in the network's order."""
    found = (_structure(component) for component in _components(list(_trace(module, example))))
    position = {name: number for number, name in enumerate(named_places(module))}
    ordered = [_in_order(structure, position) for structure in found if structure is not None]
    return sorted(ordered, key=lambda structure: position[structure.name])


def _in_order(structure: Structure, position: Mapping[str, int]) -> Structure:
    """Puts the members in the network's order, and names the structure after the first that makes its channels."""
    members = sorted(structure.members, key=lambda member: (position[member.module], member.axis))
    makers = [member.module for member in members if member.axis in {"outputs", "groups"}]
    return dataclasses.replace(structure, name=makers[0], members=tuple(members))


def _trace(module: torch.nn.Module, example: torch.Tensor) -> Iterator[_Group]:
    import torch

    try:
        import torch_pruning
    except ImportError as error:
        raise MissingEngineError(f"torch_pruning cannot be loaded: {error}", hint="install the extra: edgekit-toolkit[compile]") from error

    traced = copy.deepcopy(module).eval().requires_grad_(True)
    names = {place: name for name, place in named_places(traced).items()}
    try:
        with torch.enable_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            graph = torch_pruning.DependencyGraph().build_dependency(
                traced, example, forward_fn=lambda network, frame: network(frame), verbose=False
            )
            groups = list(graph.get_all_groups())
    except Exception as error:  # the tracer and the model's own code raise whatever they like
        raise ModelError(
            f"the network's channels cannot be traced: {type(error).__name__}: {error}"[:300],
            hint="this architecture cannot be pruned; quantize it without pruning, or distill it into a student that can",
        ) from error
    yield from (_read(group, graph, names) for group in groups)


def _read(group: Any, graph: Any, names: dict[object, str]) -> _Group:
    items = []
    usable = True
    for item in group.items:
        node = item.dep.target
        into = graph.is_in_channel_pruning_fn(item.dep.handler)
        reads = into and not graph.is_out_channel_pruning_fn(item.dep.handler)
        # Nothing comes after what the network answers with.
        usable = usable and (bool(node.outputs) or reads)
        place = names.get(node.module)
        if place is None or getattr(node.module, "num_parameters", None) == 1:
            continue  # an operation without entries of its own
        read = _item(place, node.module, item, reads=reads)
        usable = usable and read is not None
        items += [read] if read is not None else []
    return _Group(channels=len(group[0].idxs), items=tuple(items), usable=usable)


def _item(name: str, module: Any, item: Any, *, reads: bool) -> _Item | None:
    """What a traced module has of the root's channels; None where it cannot be cut."""
    kind = kind_of(module)
    grouped = kind == "grouped convolution"
    # A depthwise convolution is traced as one item for both sides. That holds only where both have a channel a group, and not for one that takes the frame.
    depthwise = grouped and module.groups == module.out_channels
    if (
        kind is None
        or any(root is None for root in item.root_idxs)
        or (depthwise and (module.in_channels != module.groups or not item.dep.target.inputs))
    ):
        return None
    makes = kind in {"convolution", "linear", "grouped convolution"}
    axis: Axis = "groups" if grouped else "inputs" if makes and reads else "outputs" if makes else "channels"
    size = size_of(module, axis)
    width = (module.in_channels if reads else module.out_channels) // module.groups if grouped else 1
    entries = {(index // width, root) for index, root in zip(item.idxs, item.root_idxs, strict=True)}
    if size is None or any(entry >= size for entry, _ in entries):
        return None
    side = " reads" if makes and reads else " makes" if makes and not depthwise else ""
    return _Item(module=name, kind=kind + side, axis=axis, size=size, entries=tuple(sorted(entries)), linked=grouped and not depthwise)


def _components(groups: Sequence[_Group]) -> list[list[_Group]]:
    """Groups that share a grouped convolution, one at its input and one at its output, go together."""
    component = list(range(len(groups)))
    first: dict[str, int] = {}
    for index, group in enumerate(groups):
        for item in group.items:
            if item.linked:
                into = component[first.setdefault(item.module, index)]
                component = [into if number == component[index] else number for number in component]
    return [[group for group, of in zip(groups, component, strict=True) if of == number] for number in dict.fromkeys(component)]


def _structure(groups: Sequence[_Group]) -> Structure | None:
    """One structure of groups that go together; None where they cannot be cut."""
    items = [item for group in groups for item in group.items]
    linked = [item for item in items if item.linked]
    if not all(group.usable for group in groups) or not any(item.axis in {"outputs", "groups"} for item in items):
        return None
    if not linked:
        return _assembled(groups, [{channel: channel for channel in range(groups[0].channels)}], groups[0].channels)
    sizes = {item.size for item in linked}
    sides = {item.module: {other.kind for other in linked if other.module == item.module} for item in linked}
    if len(sizes) != 1 or any(len(side) != 2 for side in sides.values()):
        return None
    units = [_unit_of_channels(group) for group in groups]
    return None if any(not of for of in units) else _assembled(groups, units, sizes.pop())


def _unit_of_channels(group: _Group) -> dict[int, int]:
    """Channel of the root to the convolution's group that it is in; empty where convolutions disagree, or where a channel is in none."""
    unit: dict[int, int] = {}
    for item in group.items:
        for entry, channel in item.entries if item.linked else ():
            if unit.setdefault(channel, entry) != entry:
                return {}
    return unit if len(unit) == group.channels else {}


def _assembled(groups: Sequence[_Group], units: Sequence[dict[int, int]], count: int) -> Structure:
    """Puts the groups' items together, one member a module and axis.

    Args:
        groups: Groups that go together.
        units: For each group, channel of the root to unit.
        count: Number of units.
    """
    entries: dict[tuple[str, Axis, int], list[set[int]]] = {}
    kinds: list[str] = []
    for group, unit in zip(groups, units, strict=True):
        for item in group.items:
            kinds.append(item.kind)
            places = entries.setdefault((item.module, item.axis, item.size), [set() for _ in range(count)])
            for entry, channel in item.entries:
                places[unit[channel]].add(entry)
    members = tuple(
        Member(module=module, axis=axis, size=size, indices=tuple(tuple(sorted(indices)) for indices in places))
        for (module, axis, size), places in entries.items()
    )
    writers, readers = (sum(kind.endswith(side) for kind in kinds) for side in (" makes", " reads"))
    return Structure(
        name="",
        kind=f"{', '.join(sorted(set(kinds)))}; {_one_or_many(writers)} written, {_one_or_many(readers)} read",
        members=members,
        width=groups[0].channels // count,
        # One group left would make a grouped convolution a plain one, with other axes.
        least=2 if any(member.axis == "groups" for member in members) else 1,
    )


def _one_or_many(count: int) -> str:
    return "once" if count == 1 else "often"
