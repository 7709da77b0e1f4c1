"""How well a score tells foreign frames from those a classifier was made for, and where its limit is set.

A score is higher the less a frame looks like the known ones. Conventions, which the literature mixes:

- `auroc`: the chance that a foreign frame has the higher score of a pair, ties counting half.
- `fpr_at_95_tpr`: known frames are the positives (Liang et al. 2018, ODIN): of the foreign frames, the share that passes a limit that 95 % of the known frames pass.
- `refused`: the share of frames above the bundle's own limit.

Rules this file keeps:

1. The limit is set on known frames alone; foreign ones never have a say.
2. Intervals draw whole patients, as everywhere (`intervals`).
3. A frame that is refused before it is scored counts as one with an infinite score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.evaluation.intervals import REPLICATES, Figure, bootstrap, figure, group_indices
from edgekit.evaluation.metrics import weighted_auc

Floats = NDArray[np.float64]

PASSING = 0.95
"""Share of the known frames that pass, for `fpr_at_95_tpr`."""

_SLICE = 200
"""Draws at a time."""

MARGIN = 0.25
"""Beyond the highest score of too few patients, in parts of its distance from the median."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Separation:
    """Known frames against a set of foreign ones.

    Attributes:
        frames: Foreign frames.
        groups: Patients or videos they come from.
        auroc: See above.
        fpr_at_95_tpr: See above.
        refused: Of the foreign frames.
    """

    frames: int
    groups: int
    auroc: Figure
    fpr_at_95_tpr: Figure
    refused: Figure


def limit_of(scores: Floats, groups: Sequence[str], quantile: float) -> float:
    """The largest score that is answered, from known frames.

    Every patient counts the same, however many frames it has. Of n patients the limit is the order statistic ⌈quantile · (n + 1)⌉: on average over draws of `val`, a frame of a further
    patient is then answered with the quantile's chance or more (Vovk et al. 2005, split conformal prediction). Fewer patients than quantile / (1 − quantile) have no such order
    statistic; the limit is then beyond the highest score by `MARGIN` of its distance from the median, less as more of them are there. That margin is a convention.

    Args:
        scores: float64 (frames,), finite.
        groups: The patient or video of each frame.
        quantile: Share of known frames that are to be answered, in (0, 1).
    """
    index = group_indices(groups)
    count = int(index.max()) + 1
    rank, needed = math.ceil(quantile * (count + 1) - 1e-9), math.ceil(quantile / (1 - quantile) - 1e-9)
    if rank > count:
        top, middle = float(scores.max()), float(np.median(scores))
        return top + MARGIN * (1 - count / needed) * (top - middle)
    weights = 1.0 / np.bincount(index)[index]
    order = np.argsort(scores, kind="stable")
    share = weights[order].cumsum() / weights.sum()
    place = int(np.searchsorted(share, rank / count - 1e-12))
    return float(scores[order][min(place, len(scores) - 1)])


def separate(  # noqa: PLR0913 - two sides with their groups, and the limit
    known: Floats,
    foreign: Floats,
    known_groups: Sequence[str],
    foreign_groups: Sequence[str],
    *,
    limit: float,
    replicates: int = REPLICATES,
) -> Separation:
    """Compares the scores of known frames with those of foreign ones.

    Args:
        known: float64 (frames,), infinite where a frame is refused before it is scored.
        foreign: The same of the foreign frames.
        known_groups: The patient or video of each known frame.
        foreign_groups: The same of the foreign frames.
        limit: Of the bundle.
        replicates: Draws of the bootstrap.
    """
    values = np.concatenate([known, foreign])
    is_foreign = np.arange(len(values)) >= len(known)

    def measure(weights: Floats) -> dict[str, Floats]:
        return {
            "auroc": weighted_auc(values, is_foreign, weights),
            "fpr_at_95_tpr": _fpr(values, is_foreign, weights),
            "refused": _share(values[is_foreign] > limit, weights[:, is_foreign]),
        }

    plain, draws = measure(np.ones((1, len(values)))), _stratified(measure, (known_groups, foreign_groups), replicates)
    count = len(set(foreign_groups))
    fewest = min(count, len(set(known_groups)))
    found = {name: figure(plain[name][0], draws[name], count if name == "refused" else fewest) for name in plain}
    return Separation(frames=len(foreign), groups=count, **found)


def _stratified(
    statistic: Callable[[Floats], Mapping[str, Floats]], sides: Sequence[Sequence[str]], replicates: int
) -> dict[str, NDArray[np.float64]]:
    """Draws of the groups of each side by itself: both sets are there in every draw."""
    weights = [
        bootstrap(lambda drawn: {"weights": drawn}, group_indices(groups), replicates=replicates, seed=seed)["weights"]
        for seed, groups in enumerate(sides)
    ]
    parts = [
        statistic(np.concatenate([side[start : start + _SLICE] for side in weights], axis=1)) for start in range(0, replicates, _SLICE)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def refused_share(scores: Floats, groups: Sequence[str], *, limit: float, replicates: int = REPLICATES) -> Figure:
    """The share of known frames above the limit, with an interval over groups."""
    above = scores > limit

    def measure(weights: Floats) -> dict[str, Floats]:
        return {"refused": _share(above, weights)}

    plain, draws = measure(np.ones((1, len(above)))), bootstrap(measure, group_indices(groups), replicates=replicates)
    return figure(plain["refused"][0], draws["refused"], len(set(groups)))


def _share(chosen: NDArray[np.bool_], weights: Floats) -> Floats:
    total = weights.sum(axis=1)
    found: Floats = np.divide(weights @ chosen, total, out=np.full(len(weights), np.nan), where=total > 0)
    return found


def _fpr(values: Floats, is_foreign: NDArray[np.bool_], weights: Floats) -> Floats:
    known = values[~is_foreign]
    order = np.argsort(known, kind="stable")
    mass = weights[:, ~is_foreign][:, order].cumsum(axis=1)
    total = mass[:, -1:]
    threshold = known[order][(mass >= PASSING * total - 1e-9).argmax(axis=1)]
    passes = values[is_foreign][None, :] <= threshold[:, None]
    weight = weights[:, is_foreign]
    both = weight.sum(axis=1) * (total[:, 0] > 0)
    found: Floats = np.divide((weight * passes).sum(axis=1), weight.sum(axis=1), out=np.full(len(weights), np.nan), where=both > 0)
    return found
