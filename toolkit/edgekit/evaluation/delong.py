"""Is the device's AUC not worse than the reference's on the same frames: the paired difference with its one-sided bound.

Rules this file keeps:

1. The AUC is the one of `metrics`: the positive label for binary, otherwise the mean one-vs-rest over the labels.
2. The variance is DeLong's (DeLong, DeLong & Clarke-Pearson 1988) from structural components by mid-ranks (Sun & Xu 2014), summed over groups after
   Obuchowski 1997. Where every group is one frame and the task is binary this is exactly DeLong's.
3. For a mean over labels the components of all labels are summed within each group before they are squared, so that the covariance between
   labels, which share their frames, is kept. Each product of two sums carries Obuchowski's I / (I − 1), where I counts the groups that either touches.
4. The bound is `quantile` standard errors below the difference. A compressed model loses by a few frames that fall far, so the difference is skewed, and
   1.96 would accept a model that is worse by the whole margin in up to one test split of eight (by simulation, at an AUC of 0.99). The quantile is
   Student's, with the number of groups that the variance really rests on as its degrees of freedom, (Σ u²)² / Σ u⁴ for the groups' contributions u
   (at least 3). Where the long tail is on the side of losses it is lengthened as a Poisson limit is longer than the normal one: by the upper limit of
   K events (Byar's approximation, Breslow & Day 1987) for the K equally heavy losses that have the same skewness, 1 / √K.
5. Where that variance says nothing (it is zero, as when both AUCs are 1, or a label has too few groups) the bound is the percentile of a paired
   bootstrap over groups, and `method` and `reason` say so. With few groups that percentile is too narrow; the lower of the two bounds then counts.
   One group alone, however many frames it has, gives no bound.
6. With a variance of zero the bound is about these frames only: nothing differs among them, and rare falls may be in none of them. `undetected` says how
   many groups may still fall: the exact one-sided 97.5 % bound of no event among the groups of the rarer outcome of a label, 1 − 0.025^(1/n) (Clopper &
   Pearson 1934). A frame that falls past all others costs its own share of the AUC and no more, so the AUC may be that much lower, whichever outcome falls.

What it does not prove: where losses are rare and every frame moves a little, the variance is that of the little moves, and the bound knows nothing of losses
that no frame of the split shows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.evaluation.exact import student_quantile
from edgekit.evaluation.intervals import LEAST_DEFINED, REPLICATES, bootstrap, group_indices
from edgekit.evaluation.metrics import Outcomes, weighted_auc

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

Method = Literal["delong", "bootstrap", "undefined"]

ONE_SIDED_CONFIDENCE = 0.975
FEWEST_GROUPS = 10
"""With fewer groups of either outcome the normal approximation is not trusted."""

_LEAST_VARIANCE = 1e-18
# One group that carries all of a difference is still one event of a rare kind, not a sample of two: Student's quantile below would be absurd.
_LEAST_DEGREES = 3
# Below it the lengthening is less than one in a thousand.
_LEAST_SKEWNESS = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class AucDifference:
    """ΔAUC = device − reference.

    Attributes:
        reference_auc: None where it is undefined (an outcome is missing); then everything below is None too.
        device_auc: The same of the device.
        difference: Device − reference.
        standard_error: Of the difference.
        lower_bound: Of the one-sided 97.5 % interval; None also for a single group, and where fewer than 95 % of the bootstrap's replicates define an AUC.
        method: How the bound was found.
        reason: Why it is not DeLong's; empty where it is.
        quantile: Standard errors between difference and bound (rule 4); None where the bound is not DeLong's.
        fewest_groups: Groups of the rarer outcome, of the label that has fewest.
        undetected: Share of groups that may still fall although none did (rule 6); None where the variance is not zero.
    """

    reference_auc: float | None
    device_auc: float | None
    difference: float | None
    standard_error: float | None
    lower_bound: float | None
    method: Method
    reason: str
    quantile: float | None = None
    fewest_groups: int | None = None
    undetected: float | None = None


def paired_auc_difference(
    reference: Outcomes,
    device: Outcomes,
    *,
    groups: Sequence[str],
    replicates: int = REPLICATES,
    seed: int = 0,
) -> AucDifference:
    """Compares two models on the same frames.

    Args:
        reference: What the reference said.
        device: What the device said about the same frames, in the same order.
        groups: The patient or video of each frame.
        replicates: Draws of the bootstrap, where it is needed.
        seed: Of the bootstrap.
    """
    if reference.output != device.output or not np.array_equal(reference.truth, device.truth) or len(groups) != len(device.truth):
        raise ValueError("reference and device are not about the same frames and labels")
    columns, index = reference.judged_labels, group_indices(groups)
    truth = reference.truth[:, columns]
    if not len(columns) or not truth.any(axis=0).all() or truth.all(axis=0).any():
        return _undefined("a label has only one outcome among these frames")

    def aucs(weights: Floats) -> dict[str, Floats]:
        return {"reference": _macro_auc(reference, columns, weights), "device": _macro_auc(device, columns, weights)}

    plain = aucs(np.ones((1, len(truth))))
    difference = float(plain["device"][0] - plain["reference"][0])
    known = {"reference_auc": float(plain["reference"][0]), "device_auc": float(plain["device"][0]), "difference": difference}
    no_bound = _undefined("all frames are of one group", **known)
    if not index.any():
        return no_bound
    fewest = min(len(np.unique(index[side])) for label in truth.T for side in (label, ~label))
    bound = None
    if fewest >= 2:
        parts = _Contributions.of(reference.probability[:, columns], device.probability[:, columns], truth, index)
        if (variance := parts.variance()) > _LEAST_VARIANCE:
            quantile = parts.quantile(fewest)
            bound = difference - quantile * math.sqrt(variance)
            if fewest >= FEWEST_GROUPS:
                return replace(
                    no_bound,
                    standard_error=math.sqrt(variance),
                    lower_bound=bound,
                    method="delong",
                    reason="",
                    quantile=quantile,
                    fewest_groups=fewest,
                )
    draws = bootstrap(aucs, index, replicates=replicates, seed=seed)
    error, drawn = _percentile_bound(draws["device"] - draws["reference"])
    return replace(
        no_bound,
        standard_error=error,
        lower_bound=drawn if bound is None or drawn is None else min(drawn, bound),
        method="bootstrap",
        reason=f"one outcome of a label has only {fewest} groups" if fewest < FEWEST_GROUPS else "DeLong's variance is zero",
        fewest_groups=fewest,
        undetected=1 - (1 - ONE_SIDED_CONFIDENCE) ** (1 / fewest) if bound is None and drawn is not None else None,
    )


def structural_components(score: Floats, truth: Bools) -> Floats:
    """How each frame stands to the frames of the other outcome (DeLong's V10 and V01).

    Args:
        score: float64 (frames,).
        truth: bool (frames,); both outcomes occur.

    Returns:
        float64 (frames,) in [0, 1]: for a positive frame the share of negative frames below it, for a negative frame the share of positive
        frames above it, ties counting half. The mean over either outcome is the AUC.
    """
    overall = _midranks(score)
    result = np.empty(len(score))
    result[truth] = (overall[truth] - _midranks(score[truth])) / (~truth).sum()
    result[~truth] = 1 - (overall[~truth] - _midranks(score[~truth])) / truth.sum()
    return result


def clustered_variance(reference: Floats, device: Floats, truth: Bools, group_index: NDArray[np.intp]) -> float:
    """Variance of the difference of the mean AUCs, rules 2 and 3.

    Args:
        reference: float64 (frames, labels), higher is more positive.
        device: The same of the device.
        truth: bool (frames, labels); each label has both outcomes, each in at least two groups.
        group_index: intp (frames,), from `intervals.group_indices`.

    Returns:
        The variance; can be slightly negative where it is zero.
    """
    return _Contributions.of(reference, device, truth, group_index).variance()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Contributions:
    # What each group adds to the difference of the mean AUCs: float64 (labels × 2 outcomes, groups), and which groups each row touches.
    total: Floats
    member: Floats

    @classmethod
    def of(cls, reference: Floats, device: Floats, truth: Bools, group_index: NDArray[np.intp]) -> _Contributions:
        count, labels = int(group_index.max()) + 1, truth.shape[1]
        sums, touched = [], []
        for column in range(labels):
            side = truth[:, column]
            shift = structural_components(device[:, column], side) - structural_components(reference[:, column], side)
            for frames in (side, ~side):
                centred = (shift[frames] - shift[frames].mean()) / frames.sum() / labels
                sums.append(np.bincount(group_index[frames], weights=centred, minlength=count))
                touched.append(np.bincount(group_index[frames], minlength=count) > 0)
        return cls(total=np.stack(sums), member=np.stack(touched).astype(np.float64))

    def variance(self) -> float:
        size = self.member.sum(axis=1)
        either = size[:, None] + size[None, :] - self.member @ self.member.T
        pairs: Floats = either / (either - 1) * (self.total @ self.total.T)
        return float(pairs.sum())

    def quantile(self, fewest: int) -> float:
        """Rule 4; `fewest` groups of an outcome limit the degrees of freedom too."""
        each = self.total.sum(axis=0)
        square = float((each**2).sum())
        effective = max(_LEAST_DEGREES, int(square**2 / float((each**4).sum())))
        plain = student_quantile(min(fewest - 1, effective), confidence=2 * ONE_SIDED_CONFIDENCE - 1)
        skewness = float((each**3).sum()) / (square * math.sqrt(square))
        return plain * (_poisson_lengthening(1 / skewness**2) if skewness < -_LEAST_SKEWNESS else 1.0)


def _poisson_lengthening(events: float) -> float:
    # How much farther the one-sided 97.5 % upper limit of a Poisson count lies from it than the normal limit; at least 1 event.
    normal = NormalDist().inv_cdf(ONE_SIDED_CONFIDENCE)
    more = events + 1
    limit = more * (1 - 1 / (9 * more) + normal / (3 * math.sqrt(more))) ** 3
    return float((limit - events) / (math.sqrt(events) * normal))


def _percentile_bound(draws: Floats) -> tuple[float | None, float | None]:
    defined = draws[~np.isnan(draws)]
    if len(defined) < max(2.0, LEAST_DEFINED * len(draws)):
        return None, None
    return float(defined.std(ddof=1)), float(np.quantile(defined, 1 - ONE_SIDED_CONFIDENCE))


def _macro_auc(model: Outcomes, columns: NDArray[np.intp], weights: Floats) -> Floats:
    total = np.zeros(len(weights))
    for column in columns:
        total += weighted_auc(model.probability[:, column], model.truth[:, column], weights)
    return total / len(columns)


def _midranks(values: Floats) -> Floats:
    _, block, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[block]
    return ranks


def _undefined(
    reason: str, *, reference_auc: float | None = None, device_auc: float | None = None, difference: float | None = None
) -> AucDifference:
    return AucDifference(
        reference_auc=reference_auc,
        device_auc=device_auc,
        difference=difference,
        standard_error=None,
        lower_bound=None,
        method="undefined",
        reason=reason,
    )
