"""What can be taken out of a network: structures of units, each with the places in modules that go with it.

Rules this file keeps:

1. A unit goes as a whole: its rows in the layer that makes it, its entries in norms, its columns in every layer that reads it. What is half taken out
   does not run.
2. Places are named by the module's or parameter's name in the network, so a structure can be written down and found again in a new instance.
3. Nothing here knows PyTorch or Torch-Pruning: adapters make structures, ranking chooses among their units, `plan.py` writes the choice down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Axis = Literal["outputs", "inputs", "groups", "channels", "heads"]
"""Along what a module is cut: rows or columns of a weight, whole groups of a grouped convolution, entries of a norm or parameter, attention heads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """What one module has of every unit.

    Attributes:
        module: Name of the module, or of a parameter that no known module holds.
        axis: Along what it is cut.
        size: How many entries the module has along the axis.
        indices: For each unit, its entries along the axis; empty where the module has none of it.
    """

    module: str
    axis: Axis
    size: int
    indices: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """Units of which any may be taken out, independently of all other structures.

    Attributes:
        name: Name of the module that makes the units; the same in the network and in what is left of it after pruning.
        kind: Structures with the same kind are alike in what their units touch, so that their scores can be compared.
        members: Every place the units are in.
        width: Channels of one unit: 1, the channels of a convolution's group, or the dimension of a head.
        least: Units that always stay.
        whole: Whether the width is a fixed multiple of its own, so that the rounding of channels does not apply (attention heads).
    """

    name: str
    kind: str
    members: tuple[Member, ...]
    width: int = 1
    least: int = 1
    whole: bool = False

    @property
    def units(self) -> int:
        """How many units there are."""
        return len(self.members[0].indices)
