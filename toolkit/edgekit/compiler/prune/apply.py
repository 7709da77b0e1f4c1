"""Makes the pruned network out of the unpruned one and a channel plan, and checks that it is what was planned.

Rules this file keeps:

1. The unpruned network is not touched: the pruned one is a copy with new parameters.
2. The same network and plan give the same bits. A plan without cuts gives the network itself.
3. A plan of another architecture is refused before anything is cut.
4. A plan is believed only after the pruned network has run and answered as the unpruned one does when the columns that read the removed entries are zero.
   An index that is wrong but fits the shapes would otherwise damage the network unseen.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgekit.compiler.prune.channel_plan import ChannelPlan, Cut
from edgekit.compiler.prune.modules import CUTTERS, cut_parameter, kind_of, named_places, size_of
from edgekit.errors import ModelError

if TYPE_CHECKING:
    import torch

TOLERANCE = 1e-3
"""Largest difference between the pruned network and the one with zeroed columns, in parts of the largest logit. Other orders of summation make 1e-6 of it, a
single wrong index mostly more than 1e-3, a wrong mapping tenths."""

# What mixes the channels of one position: with entries gone, its result is another one, and the two networks cannot be compared.
_MIXING = frozenset({"layer norm", "parameter"})

_REPORT_HINT = "this architecture cannot be pruned as it is; quantize it without pruning, or choose a student of another architecture"


def apply_plan(module: torch.nn.Module, plan: ChannelPlan) -> torch.nn.Module:
    """Makes the pruned network.

    Args:
        module: The network that the plan was made from.
        plan: Made from it, or from one of the same architecture.

    Returns:
        A copy in which every planned module has its planned shape and the weights of the entries that stay.

    Raises:
        ModelError: The plan is not one of this architecture.
    """
    pruned = copy.deepcopy(module)
    places = named_places(pruned)
    for cut in plan.cuts:
        _check(cut, places)
    for cut in plan.cuts:
        _cut(pruned, places[cut.module], cut)
    return pruned


def check_pruned(module: torch.nn.Module, pruned: torch.nn.Module, plan: ChannelPlan, example: torch.Tensor) -> None:
    """Refuses a pruned network that does not run, or does not compute what is left of the unpruned one.

    With channels gone from a norm over channels the two cannot be compared; then only shapes and finiteness are checked.

    Args:
        module: The unpruned network, in evaluation mode.
        pruned: What `apply_plan` made of it.
        plan: The plan.
        example: float32 (1, channels, height, width).

    Raises:
        ModelError: Says what the pruned network does.
    """
    import torch

    # Several frames, since the logits of one may all be near zero.
    frames = (example, example.flip(-1), example.flip(-2), -example)
    with torch.no_grad():
        expected = module(example).shape
        answer = torch.cat([run(pruned, frame, "after pruning, the network fails") for frame in frames])
        if answer.shape[1:] != expected[1:]:
            raise ModelError(
                f"after pruning, the network answers with {answer.shape[1]} logits instead of {expected[1]}", hint=_REPORT_HINT
            )
        if not torch.isfinite(answer).all():
            raise ModelError("after pruning, the network answers with NaN or infinite logits", hint="check the weights and the frame")
        places = named_places(module)
        if any(kind_of(places[cut.module]) in _MIXING for cut in plan.cuts):
            return
        zeroed = _with_zeroed_columns(module, plan)
        reference = torch.cat([zeroed(frame) for frame in frames])
    difference, largest = float((answer - reference).abs().max()), float(reference.abs().max())
    if not difference <= TOLERANCE * largest:
        raise ModelError(
            f"the pruned network is not what is left of the unpruned one: its logits are off by {difference:.3g} of {largest:.3g}",
            hint=_REPORT_HINT,
        )


def run(module: torch.nn.Module, example: torch.Tensor, failure: str) -> torch.Tensor:
    """Runs a network on an example.

    Raises:
        ModelError: It fails, or returns something else than one tensor (1, outputs).
    """
    import torch

    try:
        answer = module(example)
    except Exception as error:  # the model's own code
        first = str(error).strip().splitlines()
        raise ModelError(f"{failure}: {type(error).__name__}: {first[0] if first else ''}"[:300], hint=_REPORT_HINT) from error
    if not isinstance(answer, torch.Tensor) or answer.dim() != 2:
        raise ModelError(
            f"{failure}: it does not answer with one vector of logits a frame", hint="wrap it so that it returns the logits alone"
        )
    return answer


def _check(cut: Cut, places: Mapping[str, Any]) -> None:
    hint = "a plan belongs to the architecture that it was made from; prune again"
    place = places.get(cut.module)
    if place is None:
        raise ModelError(f"the channel plan names {cut.module}, which the architecture does not have", hint=hint)
    size = size_of(place, cut.axis)
    if size is None:
        raise ModelError(f"the channel plan cuts the {cut.axis} of {cut.module}, a {type(place).__name__} that has none", hint=hint)
    if size != cut.size:
        raise ModelError(f"the channel plan expects {cut.size} {cut.axis} in {cut.module}, and the architecture has {size}", hint=hint)


def _cut(network: torch.nn.Module, place: Any, cut: Cut) -> None:
    import torch

    kept = torch.tensor(cut.kept, dtype=torch.int64)
    if kind_of(place) == "parameter":
        owner, _, name = cut.module.rpartition(".")
        cut_parameter(network.get_submodule(owner), name, kept)
    else:
        # The kind is asked again: a convolution that was cut before is still one of the same kind.
        CUTTERS[kind_of(place), cut.axis](place, kept)


def _with_zeroed_columns(module: torch.nn.Module, plan: ChannelPlan) -> torch.nn.Module:
    """The unpruned network in which nothing reads the entries that go."""
    import torch

    zeroed = copy.deepcopy(module)
    places = named_places(zeroed)
    with torch.no_grad():
        for cut in plan.cuts:
            place = places[cut.module]
            gone = sorted(set(range(cut.size)) - set(cut.kept))
            if cut.axis == "inputs":
                place.weight[:, gone] = 0
            elif cut.axis == "heads":
                weight = place.proj.weight
                weight.view(len(weight), cut.size, -1)[:, gone] = 0
    return zeroed
