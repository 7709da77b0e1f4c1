"""What a unit is worth: the criteria, and how a structure's units are scored with one.

`CRITERIA` is the extension point; a criterion is one figure a weight, and everything else is shared.

Rules this file keeps:

1. A unit's score is the sum of the figures of every weight that goes with it, in all its modules, in parts of the structure's mean; so structures of
   different sizes can be compared. Biases do not count.
2. A criterion that a network gives nothing to judge by is refused by name, with those that work. A single structure it cannot judge keeps all its units.
3. Scores are float64 and finite. The network is judged in evaluation mode and is not changed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgekit.catalog.compress import Criterion
from edgekit.compiler.prune.modules import kind_of, named_places, weights_of
from edgekit.compiler.prune.structure import Structure
from edgekit.errors import ModelError

if TYPE_CHECKING:
    import torch

    Losses = Callable[[torch.nn.Module], Iterable[torch.Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CriterionRule:
    """One criterion.

    Attributes:
        title: For the report.
        figure: The figure of each weight: takes a weight and its gradient (zeros where none is needed), float (…), and returns as many, none below zero.
        needs_losses: Whether gradients are needed. The figure is then averaged over batches.
        kinds: Kinds of modules whose weights count (`modules.py`); None for all.
    """

    title: str
    figure: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    needs_losses: bool = False
    kinds: frozenset[str] | None = None


CRITERIA: Mapping[Criterion, CriterionRule] = {
    "l1": CriterionRule(
        title="sum of absolute weights (Li et al., Pruning filters for efficient ConvNets, ICLR 2017)",
        figure=lambda weight, _: weight.abs(),
    ),
    "l2": CriterionRule(
        title="sum of squared weights over everything that depends on a channel (Fang et al., DepGraph, CVPR 2023)",
        figure=lambda weight, _: weight.square(),
    ),
    "taylor": CriterionRule(
        title="first-order change of the loss, |weight × gradient|, mean over batches (Molchanov et al., Importance estimation for neural network pruning, CVPR 2019)",
        figure=lambda weight, gradient: (weight * gradient).abs(),
        needs_losses=True,
    ),
    "bn-scale": CriterionRule(
        title="absolute scale of batch normalization (Liu et al., Network slimming, ICCV 2017)",
        figure=lambda weight, _: weight.abs(),
        kinds=frozenset({"batch norm"}),
    ),
}


def figures(module: torch.nn.Module, criterion: Criterion, losses: Losses | None, seed: int) -> Mapping[str, torch.Tensor]:
    """Gives every weight of a network its figure.

    Args:
        module: The network.
        criterion: A name of `CRITERIA`.
        losses: Takes a network and yields the loss of one batch after the other, a scalar tensor that depends on the network's parameters.
        seed: Of PyTorch's random numbers while the losses are computed; the caller's are as before afterwards.

    Returns:
        Parameter name to float tensor of the parameter's shape, on the CPU.

    Raises:
        ModelError: The criterion needs losses and got none, or one that is not finite.
    """
    import torch

    rule = CRITERIA[criterion]
    judged = copy.deepcopy(module).eval().requires_grad_(True)
    if not rule.needs_losses:
        with torch.no_grad():
            return {name: rule.figure(weight, torch.zeros_like(weight)).cpu() for name, weight in judged.named_parameters()}
    if losses is None:
        raise ModelError(f"the criterion {criterion} needs a loss to differentiate, and was given none", hint=_others(criterion))
    sums = {name: torch.zeros(weight.shape, dtype=torch.float64) for name, weight in judged.named_parameters()}
    batches = 0
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(seed)
        for loss in losses(judged):
            if loss.dim() != 0 or not torch.isfinite(loss):
                raise ModelError(
                    f"the loss of batch {batches + 1} is not a finite number", hint="check the frames, the labels and the weights"
                )
            judged.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            batches += 1
            for name, weight in judged.named_parameters():
                if weight.grad is not None:
                    sums[name] += rule.figure(weight.detach(), weight.grad).double().cpu()
    if batches == 0:
        raise ModelError(f"the criterion {criterion} was given no batch to judge by", hint="it needs frames of the split train")
    return {name: total / batches for name, total in sums.items()}


def scores(
    module: torch.nn.Module, structures: Iterable[Structure], criterion: Criterion, weights: Mapping[str, torch.Tensor]
) -> Mapping[str, tuple[float, ...]]:
    """Scores every unit that the criterion can judge.

    Args:
        module: The network.
        structures: Its structures.
        criterion: A name of `CRITERIA`.
        weights: What `figures` returned.

    Returns:
        Name of a structure to the score of each unit, in parts of their mean (zeros where all are zero). A structure that has no weight that counts is left
        out.

    Raises:
        ModelError: No structure can be judged by the criterion, or a score is not finite.
    """
    places = named_places(module)
    by_identity = {id(parameter): weights[name] for name, parameter in module.named_parameters()}
    found = {}
    for structure in structures:
        units = _units(structure, places, CRITERIA[criterion].kinds, by_identity)
        if units is not None:
            found[structure.name] = units
    if not found:
        raise ModelError(f"the criterion {criterion} finds nothing to judge by in this network", hint=_others(criterion))
    return found


def _units(
    structure: Structure, places: Mapping[str, Any], kinds: frozenset[str] | None, figure: Mapping[int, torch.Tensor]
) -> tuple[float, ...] | None:
    import torch

    total = torch.zeros(structure.units, dtype=torch.float64)
    judged = False
    for member in structure.members:
        place = places[member.module]
        if kinds is not None and kind_of(place) not in kinds:
            continue
        entries = weights_of(place, member.axis, lambda weight: figure.get(id(weight)))
        if entries is None:
            continue
        judged = True
        unit = torch.tensor([number for number, indices in enumerate(member.indices) for _ in indices], dtype=torch.int64)
        index = torch.tensor([index for indices in member.indices for index in indices], dtype=torch.int64)
        total.index_add_(0, unit, entries[index])
    if not judged:
        return None
    if not torch.isfinite(total).all():
        raise ModelError(f"the weights of {structure.name} are NaN or infinite", hint="check the weights file")
    mean = float(total.mean())
    return tuple(float(value) for value in (total / mean if mean > 0 else total))


def _others(criterion: Criterion) -> str:
    working = [name for name, rule in CRITERIA.items() if name != criterion and rule.kinds is None]
    return f"these work for every network: {', '.join(working)}"
