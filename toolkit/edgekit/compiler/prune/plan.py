"""Plans pruning: finds what can go, scores it, chooses, and believes the plan only after the pruned network has run. The package's interface is here.

Rules this file keeps:

1. The network that is given is not changed; the plan is the only result.
2. The same network, example, settings and losses give the same plan.
3. A plan is relative to the network that is given. In an iterative pruning the shares are of the unpruned network's channels, in every step.
4. A network that cannot be pruned is refused in one line; there is never half a plan.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekit.compiler.prune.adapters import find_structures
from edgekit.compiler.prune.apply import apply_plan, check_pruned, run
from edgekit.compiler.prune.channel_plan import ChannelPlan, PruneSettings, compose, plan_of
from edgekit.compiler.prune.criteria import figures, scores
from edgekit.compiler.prune.ranking import Candidate, block_of, can_lose, choose
from edgekit.compiler.prune.storage import load, read, save
from edgekit.compiler.prune.structure import Structure
from edgekit.errors import ModelError

if TYPE_CHECKING:
    import torch

    from edgekit.compiler.prune.criteria import Losses


__all__ = ["ChannelPlan", "PruneSettings", "Step", "apply_plan", "compose", "load", "plan_pruning", "read", "save"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Where a plan stands in an iterative pruning.

    Attributes:
        before: The plan that the network came from, relative to the unpruned network. What it took out counts towards ratio and max_ratio.
        widths: No structure becomes narrower than in this plan, which is relative to the unpruned network. With a ratio of 1 all become just as wide: which
            units go is chosen anew, the shapes that were measured stay.
    """

    before: ChannelPlan | None = None
    widths: ChannelPlan | None = None


ONLY = Step()
"""The only step of a pruning."""


def plan_pruning(
    module: torch.nn.Module, example: torch.Tensor, settings: PruneSettings, losses: Losses | None = None, step: Step = ONLY
) -> ChannelPlan:
    """Plans which units of a network go.

    Args:
        module: The network, perhaps one that was pruned and trained again.
        example: float32 (1, channels, height, width), a frame as the network takes it.
        settings: How much goes, and by what measure.
        losses: For a criterion that needs gradients: takes a network and yields the loss of one batch after the other (a scalar tensor with its graph). The
            network it takes is a copy of `module`, in evaluation mode.
        step: Where the plan stands in an iterative pruning.

    Returns:
        A plan relative to `module`. The share of the channels that is gone comes nearest to `settings.ratio` in whole blocks of `round_to`, or as near as
        `max_ratio` lets it (`ChannelPlan.removed_share`).

    Raises:
        ModelError: Nothing can be taken out, or what is left would not run; says why.
    """
    import torch

    network = copy.deepcopy(module).eval()
    with torch.no_grad():
        if not torch.isfinite(run(network, example, "the network fails on the example frame")).all():
            raise ModelError("the network answers with NaN or infinite logits", hint="check the weights and the frame")
    structures = find_structures(network, example)
    if not structures:
        raise ModelError(
            "nothing can be taken out of this network: every channel leads to its answer or to a layer that cannot be cut",
            hint="quantize it without pruning, or distill it into a student of another architecture",
        )
    weights = figures(network, settings.criterion, losses, settings.seed)
    candidates = _candidates(structures, scores(network, structures, settings.criterion, weights), settings, step)
    _check_room(candidates, settings, step)
    plan = plan_of(structures, choose(candidates, settings.ratio, settings.scope), settings)
    check_pruned(network, apply_plan(network, plan), plan, example)
    return plan


def _candidates(
    structures: Iterable[Structure],
    scored: Mapping[str, tuple[float, ...]],
    settings: PruneSettings,
    step: Step,
) -> list[Candidate]:
    found = []
    for structure in structures:
        if structure.name not in scored:
            continue
        earlier = None if step.before is None else step.before.width_of(structure.name)
        narrowest = None if step.widths is None else step.widths.width_of(structure.name)
        original = structure.units if earlier is None else earlier.before
        # A share like 0.9 of 10 is 9.000000000000002 in binary.
        least = max(structure.least, math.ceil(original * (1 - settings.max_ratio) - 1e-9), 1 if narrowest is None else narrowest.after)
        found.append(
            Candidate(
                name=structure.name,
                kind=structure.kind,
                scores=scored[structure.name],
                original=original,
                width=structure.width,
                block=1 if structure.whole else block_of(structure.width, settings.round_to),
                least=least,
            )
        )
    return found


def _check_room(candidates: Iterable[Candidate], settings: PruneSettings, step: Step) -> None:
    first = step.before is None and step.widths is None
    if first and settings.ratio > 0 and sum(can_lose(candidate) for candidate in candidates) == 0:
        raise ModelError(
            f"nothing can be taken out of this network in steps of {settings.round_to} channels with at most {settings.max_ratio:.0%} of a layer gone",
            hint="lower prune.round_to or raise prune.max_ratio",
        )
