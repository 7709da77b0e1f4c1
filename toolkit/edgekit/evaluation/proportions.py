"""Are sensitivity and specificity not worse on the device: paired differences at the frozen threshold, with intervals that respect groups.

Rules this file keeps:

1. Sensitivity rests on the frames that carry a label, specificity on those that do not. A frame is positive when its probability is at or above the
   frozen threshold. A multiclass model without a positive label has no threshold: each of its labels is then judged by the answers.
2. The interval of device − reference is Tango's score interval of a paired difference (Tango 1998), two-sided 95 %: its lower end is the one-sided
   97.5 % bound. With no change among n frames it still reaches down to −z² / (n + z²), which the share of changed frames alone would hide.
3. Where groups have several frames all counts are divided by the design effect before (Kish 1965), so that n is what the frames are worth: the variance
   of the difference over groups (Obuchowski 1998) over the variance of as many independent frames, at least 1, and z is widened to Student's t
   with groups − 1 degrees of freedom. With changes in fewer than `FEWEST_CHANGED_GROUPS` groups nobody can know that effect; it is then the largest
   there can be, as if all frames of a group were one.
4. The status is *demonstrated* where the bound is above −margin. It is *worse* where the difference itself is below −margin; on fewer than 1 / margin
   frames, where a single one is more than the margin, only if two or more are lost, gained ones deducted, or the whole interval is below −margin.
   Everything else is *not demonstrated*.
5. `frames_needed` says how many frames (of the one outcome) would demonstrate it in 80 % of all test splits if the rates are those observed:
   (z₀.₉₇₅ √V₀ + z₀.₈ √V₁)² / (δ + margin)² for the difference δ of one pair, its variance V₁, and V₀ under a true difference of −margin (Nam 1997),
   times the design effect. There is no such number where δ is at or below −margin.

"Not demonstrated" is no proof of harm and none of its absence: the frames cannot tell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.evaluation.exact import student_quantile
from edgekit.evaluation.intervals import CONFIDENCE, group_indices
from edgekit.evaluation.metrics import Outcomes

Bools = NDArray[np.bool_]
Indices = NDArray[np.intp]

Status = Literal["demonstrated", "not demonstrated", "worse"]

FEWEST_CHANGED_GROUPS = 5
POWER = 0.8

_LARGEST_NEEDED = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ProportionDifference:
    """A paired difference of one proportion, device − reference.

    Attributes:
        frames: Frames it rests on.
        groups: Groups they come from.
        lost: Frames that only the reference has right.
        gained: Frames that only the device has right.
        reference: Proportion of the reference; None without frames, and then so is everything below.
        device: Proportion of the device.
        difference: Device − reference.
        low: Lower end of the two-sided 95 % interval.
        high: Upper end.
        lower_bound: Of the one-sided 97.5 % interval: the same number as `low`.
        design_effect: Variance in parts of that of independent frames (rule 3); 1 where every group is one frame.
        margin: What the bound is held against.
        status: Rule 4.
        frames_needed: Rule 5; None where it is demonstrated, or where no number of frames would do.
    """

    frames: int
    groups: int
    lost: int
    gained: int
    reference: float | None
    device: float | None
    difference: float | None
    low: float | None
    high: float | None
    lower_bound: float | None
    design_effect: float | None
    margin: float
    status: Status
    frames_needed: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """Sensitivity and specificity of one label.

    Attributes:
        label: The label.
        threshold: The frozen threshold; None where the answers are judged (rule 1).
        sensitivity: On the frames that carry the label.
        specificity: On the others.
    """

    label: str
    threshold: float | None
    sensitivity: ProportionDifference
    specificity: ProportionDifference


def operating_points(
    reference: Outcomes, device: Outcomes, *, groups: Sequence[str], sensitivity_margin: float, specificity_margin: float
) -> tuple[OperatingPoint, ...]:
    """Compares two models at their shared frozen thresholds.

    Args:
        reference: What the reference said, with the frozen thresholds.
        device: What the device said about the same frames, in the same order, with the same thresholds.
        groups: The patient or video of each frame.
        sensitivity_margin: Above 0.
        specificity_margin: Above 0.

    Returns:
        One point a label that has a threshold: the positive label, for multilabel every label; for multiclass without a positive label every label.
    """
    if reference.output != device.output or not np.array_equal(reference.truth, device.truth) or len(groups) != len(device.truth):
        raise ValueError("reference and device are not about the same frames and labels")
    if reference.thresholds != device.thresholds:
        raise ValueError("reference and device have different thresholds; a frozen threshold is shared")
    output, index = reference.output, group_indices(groups)
    labels = output.labels if output.positive is None else (output.positive,)
    points = []
    for label in labels:
        column = output.labels.index(label)
        truth = reference.truth[:, column]
        before, after = (_called_positive(model, label, column) for model in (reference, device))
        sides = []
        for side, margin in ((truth, sensitivity_margin), (~truth, specificity_margin)):
            first, second = ((called == truth)[side] for called in (before, after))
            sides.append(paired_difference(first, second, index[side], margin=margin))
        threshold = reference.thresholds.get(label)
        points.append(OperatingPoint(label=label, threshold=threshold, sensitivity=sides[0], specificity=sides[1]))
    return tuple(points)


def paired_difference(reference: Bools, device: Bools, group_index: Indices, *, margin: float) -> ProportionDifference:
    """The difference of the share of right frames, device − reference.

    Args:
        reference: bool (frames,), where the reference is right.
        device: The same of the device.
        group_index: intp (frames,), equal for the frames of one group.
        margin: Above 0.
    """
    frames, lost, gained = len(reference), int((reference & ~device).sum()), int((device & ~reference).sum())
    if not frames:
        return _undefined(margin)
    sizes, net, changed = _by_group(reference, device, group_index)
    difference = (gained - lost) / frames
    effect = design_effect(sizes, net, changed)
    clustered = len(sizes) < frames
    low, high = -1.0, 1.0
    if not clustered or len(sizes) > 1:
        quantile = student_quantile(len(sizes) - 1) if clustered else NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
        low, high = tango_interval(gained / effect, lost / effect, frames / effect, quantile=quantile)
    status = _status(difference, low, high, frames, margin)
    needed = None if status == "demonstrated" else _frames_needed(gained / frames, lost / frames, margin, effect)
    return ProportionDifference(
        frames=frames,
        groups=len(sizes),
        lost=lost,
        gained=gained,
        reference=float(reference.mean()),
        device=float(device.mean()),
        difference=difference,
        low=low,
        high=high,
        lower_bound=low,
        design_effect=effect,
        margin=margin,
        status=status,
        frames_needed=needed,
    )


def tango_interval(first: float, second: float, total: float, *, quantile: float) -> tuple[float, float]:
    """Tango's score interval of (first − second) / total (Tango 1998).

    Args:
        first: Pairs that only the first of two tests has right; need not be whole.
        second: Pairs that only the second has right.
        total: All pairs; above 0 and at least first + second.
        quantile: Of the standard normal distribution (or of Student's), for each side.

    Returns:
        (low, high), each in [−1, 1], where the score statistic is ± quantile, by bisection to full double precision.
    """
    estimate = (first - second) / total

    def statistic(delta: float) -> float:
        variance, gap = total * _score_variance(first / total, second / total, delta), first - second - total * delta
        return math.copysign(math.inf, gap) if variance <= 0 else gap / math.sqrt(variance)

    return _crossing(statistic, -1.0, estimate, quantile), _crossing(statistic, estimate, 1.0, -quantile)


def design_effect(sizes: NDArray[np.float64], net: NDArray[np.float64], changed: NDArray[np.float64]) -> float:
    """What grouping does to the variance of a paired difference (rule 3).

    Args:
        sizes: float64 (groups,): frames of each group.
        net: float64 (groups,): gained − lost frames.
        changed: float64 (groups,): gained + lost frames.

    Returns:
        At least 1; 1 where every group is one frame.
    """
    groups, frames = len(sizes), float(sizes.sum())
    if groups == frames:
        return 1.0
    largest = float((sizes**2).sum()) / frames
    if int((changed > 0).sum()) < FEWEST_CHANGED_GROUPS:
        return largest
    difference = float(net.sum()) / frames
    over_groups = groups / (groups - 1) * float(((net - sizes * difference) ** 2).sum()) / frames**2
    independent = (float(changed.sum()) / frames - difference**2) / frames
    return max(1.0, over_groups / independent) if independent > 0 else largest


def _called_positive(model: Outcomes, label: str, column: int) -> Bools:
    if label in model.thresholds:
        return np.asarray(model.probability[:, column] >= model.thresholds[label])
    return model.answers[:, column]


def _by_group(reference: Bools, device: Bools, group_index: Indices) -> tuple[NDArray[np.float64], ...]:
    numbers = np.unique(group_index, return_inverse=True)[1]
    gained, lost = device & ~reference, reference & ~device
    tables = (np.ones(len(numbers)), gained.astype(np.float64) - lost, (gained | lost).astype(np.float64))
    return tuple(np.bincount(numbers, weights=table).astype(np.float64) for table in tables)


def _crossing(statistic: Callable[[float], float], low: float, high: float, level: float) -> float:
    # The statistic falls from above `level` at low to below it at high.
    while low < (middle := (low + high) / 2) < high:
        if statistic(middle) > level:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _status(difference: float, low: float, high: float, frames: int, margin: float) -> Status:
    if low > -margin:
        return "demonstrated"
    enough, more_than_one = frames * margin >= 1, -difference * frames > 1.5
    return "worse" if high < -margin or (difference < -margin and (enough or more_than_one)) else "not demonstrated"


def _frames_needed(gained: float, lost: float, margin: float, effect: float) -> int | None:
    # Rule 5, from the shares of frames that were gained and lost.
    difference = gained - lost
    if difference <= -margin:
        return None
    normal = NormalDist()
    level, power = normal.inv_cdf((1 + CONFIDENCE) / 2), normal.inv_cdf(POWER)
    spread = level * math.sqrt(_score_variance(gained, lost, -margin)) + power * math.sqrt(gained + lost - difference**2)
    needed = (spread / (difference + margin)) ** 2 * effect
    return math.ceil(needed) if needed <= _LARGEST_NEEDED else None


def _score_variance(first: float, second: float, delta: float) -> float:
    # Variance of one pair's difference where the shares are the most likely ones (first only, second only) whose difference is delta (Tango 1998).
    b = -first - second + (2 - first + second) * delta
    c = -second * delta * (1 - delta)
    q = max(0.0, (math.sqrt(max(0.0, b * b - 8 * c)) - b) / 4)
    return 2 * q + delta * (1 - delta)


def _undefined(margin: float) -> ProportionDifference:
    return ProportionDifference(
        frames=0,
        groups=0,
        lost=0,
        gained=0,
        reference=None,
        device=None,
        difference=None,
        low=None,
        high=None,
        lower_bound=None,
        design_effect=None,
        margin=margin,
        status="not demonstrated",
        frames_needed=None,
    )
