"""The channel plan: which entries of which modules stay.

Rules this file keeps:

1. A plan is relative to the network that it was made from; `compose` makes one of two that follow each other, relative to the network that the first was
   made from.
2. It is plain numbers and names, ready for JSON, and is decoded strictly.
3. The order of cuts and widths is the network's own, so the same choice is the same bytes.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from edgekit.catalog.compress import Criterion, Scope
from edgekit.compiler.prune.structure import Axis, Structure
from edgekit.errors import ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneSettings:
    """How much goes, and by what measure.

    Attributes:
        criterion: What a unit is worth; a name of `criteria.py`.
        scope: Whether units compete within structures of one kind or across the whole network.
        ratio: Share of the channels that is to be gone, 0 to 1, of those that can be taken out.
        max_ratio: Largest share that may be taken out of one structure.
        round_to: Channel counts are multiples of this. A structure that has no more channels than this keeps them all; attention heads go whole, whatever
            their dimension; groups of a grouped convolution go whole, as many as leave a common multiple.
        seed: Of random numbers that the losses of a criterion may use.
    """

    criterion: Criterion = "taylor"
    scope: Scope = "isomorphic"
    ratio: float
    max_ratio: float = 0.9
    round_to: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= 1:
            raise ValueError(f"ratio must be between 0 and 1, not {self.ratio}")
        if not 0 < self.max_ratio < 1:
            raise ValueError(f"max_ratio must be above 0 and below 1, not {self.max_ratio}")
        if not 1 <= self.round_to <= 256:
            raise ValueError(f"round_to must be between 1 and 256 channels, not {self.round_to}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, but is {self.seed}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """What stays of one module along one axis.

    Attributes:
        module: Name of the module or parameter in the network.
        axis: As in `structure.py`.
        size: Entries along the axis before the cut.
        kept: The entries that stay, ascending, at least one.
    """

    module: str
    axis: Axis
    size: int
    kept: tuple[int, ...]

    def __post_init__(self) -> None:
        ascending = all(first < second for first, second in itertools.pairwise(self.kept))
        if not self.kept or not ascending or self.kept[0] < 0 or self.kept[-1] >= self.size:
            raise ValueError(f"the kept {self.axis} of {self.module} are not some of 0 to {self.size - 1} in ascending order")


@dataclass(frozen=True, slots=True, kw_only=True)
class Width:
    """What became of one structure.

    Attributes:
        structure: Its name.
        kind: Its kind.
        channels: Channels of one unit.
        before: Units it had.
        after: Units that stay.
    """

    structure: str
    kind: str
    channels: int
    before: int
    after: int

    def __post_init__(self) -> None:
        if not 1 <= self.after <= self.before or self.channels < 1:
            raise ValueError(f"{self.structure} has {self.before} units and keeps {self.after}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelPlan:
    """How a pruned network comes from the one that the plan was made from.

    Attributes:
        format_version: Of this table.
        settings: What was asked for, in the last step.
        widths: Every structure that can be pruned, those that keep everything too.
        cuts: One a module and axis that lost entries.
    """

    format_version: Literal[1] = 1
    settings: PruneSettings
    widths: tuple[Width, ...]
    cuts: tuple[Cut, ...]

    def __post_init__(self) -> None:
        for what, names in (
            ("cut", [(cut.module, cut.axis) for cut in self.cuts]),
            ("width", [width.structure for width in self.widths]),
        ):
            if len(set(names)) != len(names):
                raise ValueError(f"a {what} is given twice")

    @property
    def removed_share(self) -> float:
        """Share of the channels that are gone, of those that can be taken out."""
        before = sum(width.before * width.channels for width in self.widths)
        return 1 - sum(width.after * width.channels for width in self.widths) / before if before else 0.0

    def width_of(self, structure: str) -> Width | None:
        """What became of a structure; None for one that the plan does not know."""
        return next((width for width in self.widths if width.structure == structure), None)


def plan_of(structures: Sequence[Structure], gone: Mapping[str, tuple[int, ...]], settings: PruneSettings) -> ChannelPlan:
    """Writes down a choice of units.

    Args:
        structures: Everything that can be pruned.
        gone: Name of a structure to its units that go.
        settings: What was asked for.
    """
    removed: dict[tuple[str, Axis], set[int]] = {}
    sizes: dict[tuple[str, Axis], int] = {}
    for structure in structures:
        units = gone.get(structure.name, ())
        for member in structure.members if units else ():
            key = (member.module, member.axis)
            sizes[key] = member.size
            removed.setdefault(key, set()).update(index for unit in units for index in member.indices[unit])
    cuts = (
        Cut(
            module=module,
            axis=axis,
            size=sizes[module, axis],
            kept=tuple(index for index in range(sizes[module, axis]) if index not in indices),
        )
        for (module, axis), indices in removed.items()
        if indices
    )
    widths = (
        Width(
            structure=structure.name,
            kind=structure.kind,
            channels=structure.width,
            before=structure.units,
            after=structure.units - len(gone.get(structure.name, ())),
        )
        for structure in structures
    )
    return ChannelPlan(settings=settings, widths=tuple(widths), cuts=tuple(cuts))


def compose(before: ChannelPlan, step: ChannelPlan) -> ChannelPlan:
    """Puts a step behind a plan.

    Args:
        before: Relative to the unpruned network.
        step: Relative to what `before` leaves.

    Returns:
        One plan, relative to the unpruned network, with the step's settings.

    Raises:
        ModelError: The step is not one of the network that `before` leaves.
    """
    hint = "make the second plan from the network that the first one leaves"
    cuts = {(cut.module, cut.axis): cut for cut in before.cuts}
    for cut in step.cuts:
        earlier = cuts.get((cut.module, cut.axis))
        if earlier is not None and len(earlier.kept) != cut.size:
            raise ModelError(
                f"two steps of pruning do not follow each other: {cut.module} has {len(earlier.kept)} {cut.axis} after the first and {cut.size} in the second",
                hint=hint,
            )
        cuts[cut.module, cut.axis] = (
            cut if earlier is None else dataclasses.replace(earlier, kept=tuple(earlier.kept[index] for index in cut.kept))
        )
    widths = []
    for width in step.widths:
        first = before.width_of(width.structure)
        if first is not None and first.after != width.before:
            raise ModelError(
                f"two steps of pruning do not follow each other: {width.structure} keeps {first.after} units in the first and has {width.before} in the second",
                hint=hint,
            )
        widths.append(width if first is None else dataclasses.replace(width, before=first.before))
    return ChannelPlan(settings=step.settings, widths=tuple(widths), cuts=tuple(cuts.values()))
