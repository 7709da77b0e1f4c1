"""Do reference and device err on different frames: McNemar's test on the frames that only one of them answers right.

Rules this file keeps:

1. A pair is a frame, for multilabel every label of a frame; a pair is harmful where only the reference is right, helpful where only the device is.
2. Where every group holds one pair the reported test is McNemar's exact one (McNemar 1947): harmful pairs are binomial with one half among the
   discordant ones.
3. Otherwise the reported test is the exact one over groups: under the null hypothesis reference and device can be exchanged within each group,
   so each group's (harmful − helpful) is as likely as its negative (Fisher's randomization test, 1935). With one pair a group this is rule 2.
4. Obuchowski 1998 for clustered pairs is given beside it: it needs many groups with a change, and the exact test does not.

A large p says that no difference was found. It does not say that there is none: that is what the bounds of `delong` and `proportions` are for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.evaluation.intervals import group_indices
from edgekit.evaluation.metrics import Outcomes

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class McNemar:
    """McNemar's test, two-sided.

    Attributes:
        test: Which p-value is reported: exact (rule 2) or clustered (rule 3).
        unit: What a pair is.
        pairs: Number of pairs, also those that agree.
        harmful: Pairs that only the reference has right.
        helpful: Pairs that only the device has right.
        groups: Groups the pairs come from.
        p_value: The reported one.
        exact_p_value: Rule 2, as if every pair were independent.
        mid_p_value: The same with half the probability of what was observed (Fagerland, Lydersen & Laake 2013): less conservative.
        clustered_p_value: Rule 3.
        obuchowski_p_value: Rule 4; 1 where nothing changed.
    """

    test: Literal["exact", "clustered"]
    unit: Literal["frames", "labels of frames"]
    pairs: int
    harmful: int
    helpful: int
    groups: int
    p_value: float
    exact_p_value: float
    mid_p_value: float
    clustered_p_value: float
    obuchowski_p_value: float


def mcnemar(reference: Outcomes, device: Outcomes, *, groups: Sequence[str]) -> McNemar:
    """Tests whether reference and device are right equally often.

    Args:
        reference: What the reference said.
        device: What the device said about the same frames, in the same order.
        groups: The patient or video of each frame.
    """
    if reference.output != device.output or not np.array_equal(reference.truth, device.truth) or len(groups) != len(device.truth):
        raise ValueError("reference and device are not about the same frames and labels")
    index = group_indices(groups)
    right = [(model.answers == model.truth) for model in (reference, device)]
    multilabel = reference.output.task == "multilabel"
    first, second = right if multilabel else [table.all(axis=1, keepdims=True) for table in right]
    lost, gained = (first & ~second).sum(axis=1), (second & ~first).sum(axis=1)
    harmful, helpful = int(lost.sum()), int(gained.sum())
    count = int(index.max()) + 1
    net = np.bincount(index, weights=lost - gained, minlength=count).astype(np.float64)
    clustered = count < first.size
    exact, mid = exact_p_values(harmful, helpful)
    over_groups = exchange_p_value(net)
    return McNemar(
        test="clustered" if clustered else "exact",
        unit="labels of frames" if multilabel else "frames",
        pairs=int(first.size),
        harmful=harmful,
        helpful=helpful,
        groups=count,
        p_value=over_groups if clustered else exact,
        exact_p_value=exact,
        mid_p_value=mid,
        clustered_p_value=over_groups,
        obuchowski_p_value=obuchowski_p_value(net),
    )


def exact_p_values(harmful: int, helpful: int) -> tuple[float, float]:
    """The exact and the mid-p value of independent discordant pairs (Fagerland, Lydersen & Laake 2013, equations 3 and 4), two-sided."""
    total, fewer = harmful + helpful, min(harmful, helpful)
    if not total:
        return 1.0, 1.0
    # Whole numbers: exact for any number of frames.
    whole = 2**total
    tail, observed = sum(math.comb(total, k) for k in range(fewer + 1)), math.comb(total, fewer)
    if harmful == helpful:
        return 1.0, 1 - observed / (2 * whole)
    return 2 * tail / whole, (2 * tail - observed) / whole


def exchange_p_value(net: Floats) -> float:
    """The exact two-sided p-value of Σ net under a fair change of sign of every group (rule 3).

    Args:
        net: float64 (groups,), whole numbers: harmful − helpful pairs of each group.

    Returns:
        The share of all sign patterns whose |sum| is at least the observed one.
    """
    sizes = np.abs(net[net != 0]).astype(np.int64)
    observed = abs(int(net.sum()))
    if observed == 0:
        return 1.0
    # The distribution of Σ ±size, one group after the other; probabilities, because the counts outgrow any integer type.
    distribution = np.ones(1)
    for size in sizes:
        wider = np.zeros(len(distribution) + 2 * int(size))
        wider[: len(distribution)] += distribution / 2
        wider[2 * int(size) :] += distribution / 2
        distribution = wider
    sums = np.arange(len(distribution)) - int(sizes.sum())
    return min(1.0, float(distribution[np.abs(sums) >= observed].sum()))


def obuchowski_p_value(net: Floats) -> float:
    """Obuchowski 1998 (in the form of Yang, Sun & Hardin 2010): (K − 1) / K · (Σ net)² / Σ net² against χ² with one degree of freedom.

    Args:
        net: float64 (groups,): harmful − helpful pairs of each of the K groups.
    """
    squares = float((net**2).sum())
    if not squares:
        return 1.0
    statistic = (len(net) - 1) / len(net) * float(net.sum()) ** 2 / squares
    return 2 * (1 - NormalDist().cdf(math.sqrt(statistic)))
