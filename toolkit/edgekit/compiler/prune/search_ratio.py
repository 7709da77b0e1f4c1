"""Finds how much must go for a target of latency or of multiply-accumulates, by measuring.

What a pruned network costs over its ratio falls, but in steps (channels go in blocks) and, where it is timed, under noise. The search therefore keeps a bracket, one ratio that
missed the target and one that met it, and narrows it by regula falsi with bisection where that stalls (as in Dowell & Jarratt, 1971, halving the weight of an
end that stays).

Rules this file keeps:

1. The answer is a ratio that was measured and met the target: the smallest such.
2. Every measurement is in the record, in the order it was made, so that the decision can be repeated without the clock.
3. A target that the largest ratio does not meet is refused, with what was reached.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from edgekit.errors import ModelError

MOST_PROBES = 8
"""Measurements of one search, at most; each compiles and times a candidate."""
NARROWEST = 0.005
"""Width of a bracket that is not worth another measurement: half a percent of the channels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One measurement.

    Attributes:
        ratio: Share of the channels that were gone.
        share: What is left of what is measured, in parts of the unpruned network's.
    """

    ratio: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """What is measured.

    Attributes:
        what: Its words in messages.
        key: The key of `compress.prune` that asks for it.
        tolerance: A share this much below the target is near enough.
        again: What to do about a measurement that is none.
    """

    what: str
    key: str
    tolerance: float
    again: str


LATENCY = Quantity(what="latency", key="latency_target", tolerance=0.03, again="measure again on an otherwise idle machine")
MACS = Quantity(what="multiply-accumulates", key="macs_target", tolerance=0.01, again="please report the architecture")
"""A count is exact, so it is searched for more narrowly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What a search found.

    Attributes:
        ratio: The smallest measured ratio that met the target.
        share: What was measured at it, in parts of the unpruned network's.
        target: What was asked for.
        probes: Every measurement, in order.
    """

    ratio: float
    share: float
    target: float
    probes: tuple[Probe, ...]


def find_ratio(
    measure: Callable[[float], float],
    target: float,
    *,
    high: float = 0.9,
    most: int = MOST_PROBES,
    quantity: Quantity = LATENCY,
) -> Search:
    """Finds the smallest ratio that meets a target.

    Args:
        measure: Takes a ratio and returns what is left of the measured quantity in the network pruned by it, in parts of the unpruned network's.
        target: Largest share that is wanted, above 0 and below 1.
        high: The largest ratio.
        most: Measurements at most, at least 2.
        quantity: What is measured.

    Returns:
        The ratio, and how it was found.

    Raises:
        ModelError: The largest ratio does not meet the target, or a measurement is no positive number.
        ValueError: The arguments contradict each other.
    """
    if not 0 < target < 1 or not 0 < high <= 1 or most < 2:
        raise ValueError("a search needs a target between 0 and 1, a largest ratio of at most 1, and at least two measurements")
    probes = [_probe(measure, high, quantity)]
    best = probes[0]
    if best.share > target:
        raise ModelError(
            f"pruning does not reach {target:.0%} of the unpruned network's {quantity.what}: with {high:.0%} of the channels gone it is {best.share:.0%}",
            hint=f"raise prune.{quantity.key} above {best.share:.2f}, raise prune.max_ratio, or choose a smaller student",
        )
    # The middle of what is near enough is aimed at. The unpruned network has the share 1; that needs no measurement.
    aim = target - quantity.tolerance / 2
    missed, excess, room = 0.0, 1 - aim, best.share - aim
    last_met: bool | None = None
    while len(probes) < most and best.share < target - quantity.tolerance and best.ratio - missed > NARROWEST:
        probe = _probe(measure, _next(missed, excess, best.ratio, room), quantity)
        probes.append(probe)
        met = probe.share <= target
        if met:
            best, room = probe, probe.share - aim
            excess = excess / 2 if last_met is True else excess
        else:
            missed, excess = probe.ratio, probe.share - aim
            room = room / 2 if last_met is False else room
        last_met = met
    return Search(ratio=best.ratio, share=best.share, target=target, probes=tuple(probes))


def _next(missed: float, excess: float, met: float, room: float) -> float:
    """Where the line through both ends meets what is aimed at, kept off the ends by a tenth of the bracket."""
    part = excess / (excess - room) if excess > room else 0.5
    return missed + min(max(part, 0.1), 0.9) * (met - missed)


def _probe(measure: Callable[[float], float], ratio: float, quantity: Quantity) -> Probe:
    share = float(measure(ratio))
    if not math.isfinite(share) or share <= 0:
        raise ModelError(f"{quantity.what} at a ratio of {ratio:.3f}: measured as {share}", hint=quantity.again)
    return Probe(ratio=ratio, share=share)
