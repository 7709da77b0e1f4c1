"""Which units go: the lowest scores, under a share, a rounding and a limit for each structure.

Rules this file keeps:

1. Units are taken in blocks that leave a multiple of the rounding, so a share of 40 % takes 40 % of the channels and not what is left after each structure
   was rounded for itself.
2. The blocks form one order in each scope, and a larger share takes a longer beginning of it: what a share takes, every larger share takes too.
   Latency over the share is therefore a falling curve, noise apart.
3. At least one whole block, and what `max_ratio` leaves, stays of each structure.
4. Ties are broken by the order of structures and units: the same scores, the same choice.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekit.catalog.compress import Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A structure's scores and what may become of it.

    Attributes:
        name: The structure's.
        kind: The structure's.
        scores: What each of its units is worth, in parts of the structure's mean.
        original: Units it had before any pruning.
        width: Channels of one unit.
        block: What is left is a multiple of this many units.
        least: Units that stay at the least.
    """

    name: str
    kind: str
    scores: tuple[float, ...]
    original: int
    width: int
    block: int
    least: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    score: float
    candidate: int
    position: int
    units: tuple[int, ...]
    channels: int


def block_of(width: int, round_to: int) -> int:
    """Units of `width` channels in the smallest block whose channels are a multiple of `round_to`."""
    return round_to // math.gcd(width, round_to)


def choose(candidates: Sequence[Candidate], ratio: float, scope: Scope) -> Mapping[str, tuple[int, ...]]:
    """Chooses the units that go.

    Args:
        candidates: One a structure.
        ratio: Share of each scope's original channels that is to be gone, 0 to 1; channels that went in earlier steps count.
        scope: `isomorphic` fills the share within structures of one kind, `global` over all of them.

    Returns:
        Name of the structure to the units that go, ascending; only structures that lose some. The sum comes nearest to the share in whole blocks, or as near as
        the limits of the structures let it.
    """
    scopes: dict[str, list[int]] = {}
    for index, candidate in enumerate(candidates):
        scopes.setdefault(candidate.kind if scope == "isomorphic" else "", []).append(index)
    gone: dict[str, list[int]] = {}
    for indices in scopes.values():
        wanted = sum((ratio * candidates[index].original - _lost(candidates[index])) * candidates[index].width for index in indices)
        blocks = [block for index in indices for block in _blocks(candidates[index], index)]
        taken = 0
        for block in sorted(blocks, key=lambda block: (block.score, block.candidate, block.position)):
            if taken + block.channels / 2 > wanted:
                break
            taken += block.channels
            gone.setdefault(candidates[block.candidate].name, []).extend(block.units)
    return {name: tuple(sorted(units)) for name, units in gone.items()}


def can_lose(candidate: Candidate) -> int:
    """Channels that may go at most."""
    return sum(block.channels for block in _blocks(candidate, 0))


def _lost(candidate: Candidate) -> int:
    return candidate.original - len(candidate.scores)


def _blocks(candidate: Candidate, index: int) -> list[_Block]:
    """The structure's units in ascending order, cut where a multiple of the block is left."""
    units = sorted(range(len(candidate.scores)), key=lambda unit: (candidate.scores[unit], unit))
    floor = math.ceil(max(candidate.least, candidate.block) / candidate.block) * candidate.block
    cuts = [0, *(len(units) - left for left in range(len(units) - 1, 0, -1) if left % candidate.block == 0 and left >= floor)]
    blocks = []
    for position, (start, end) in enumerate(itertools.pairwise(cuts)):
        part = tuple(units[start:end])
        score = sum(candidate.scores[unit] for unit in part) / len(part)
        blocks.append(_Block(score=score, candidate=index, position=position, units=part, channels=len(part) * candidate.width))
    return blocks
