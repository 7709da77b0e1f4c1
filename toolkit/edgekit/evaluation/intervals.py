"""Intervals that respect groups: frames of one patient are not independent, so whole groups are drawn, never frames.

Rules this file keeps:

1. The interval is the 95 % percentile interval of a bootstrap over groups (Efron & Tibshirani 1993; Field & Welsh 2007 for whole clusters).
2. Replicates in which a figure is undefined are left out; when fewer than 95 % remain, there is no interval.
3. Where every replicate agrees (sensitivity 1.0, say) the percentile interval would have no width. It is then the exact Clopper–Pearson interval of
   that value over the number of groups that could have changed it.

The percentile interval does not correct a bias of the figure: a calibration error, which chance can only raise, may lie below its own interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.evaluation.exact import clopper_pearson

Floats = NDArray[np.float64]

CONFIDENCE = 0.95
REPLICATES = 2000
LEAST_DEFINED = 0.95

# Weights are made in slices of at most this many numbers (32 MiB), however many frames there are.
_SLICE = 4_000_000
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A measured figure; `value` is None where it is undefined, `low` and `high` where no interval can be given."""

    value: float | None
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, float | None]:
        """The figure as ``{value, low, high}``."""
        return {"value": self.value, "low": self.low, "high": self.high}


def group_indices(groups: Sequence[str]) -> NDArray[np.intp]:
    """Numbers the groups: intp (frames,), 0 to the number of groups − 1, in sorted order of their names."""
    return np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1].reshape(-1)


def bootstrap(
    statistic: Callable[[Floats], Mapping[str, Floats]],
    group_index: NDArray[np.intp],
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[str, Floats]:
    """Draws groups with replacement and computes statistics of each draw.

    Args:
        statistic: From float64 (some replicates, frames) weights to named arrays with the replicates in their first axis.
        group_index: From `group_indices`.
        replicates: Number of draws.
        seed: The same seed and groups give the same draws.

    Returns:
        Name to float64 (replicates, ...).
    """
    random = np.random.default_rng(seed)
    count = int(group_index.max()) + 1
    step = max(1, _SLICE // max(len(group_index), count))
    parts: list[Mapping[str, Floats]] = []
    for start in range(0, replicates, step):
        rows = min(step, replicates - start)
        drawn = random.integers(count, size=(rows, count)) + np.arange(rows)[:, None] * count
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        parts.append(statistic(times[:, group_index].astype(np.float64)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def figure(value: float, draws: Floats, groups: int) -> Figure:
    """A figure with its interval.

    Args:
        value: The figure on all frames; NaN where it is undefined.
        draws: float64 (replicates,); NaN where it is undefined.
        groups: Number of groups that the figure rests on, for the exact interval (rule 3).
    """
    if np.isnan(value):
        return Figure(value=None, low=None, high=None)
    defined = draws[~np.isnan(draws)]
    if len(defined) < LEAST_DEFINED * len(draws) or not len(defined) or groups < 1:
        return Figure(value=float(value), low=None, high=None)
    if np.ptp(defined) < _ROUNDING:
        low, high = clopper_pearson(min(max(float(value), 0.0), 1.0) * groups, groups, confidence=CONFIDENCE)
    else:
        low, high = map(float, np.quantile(defined, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]))
    return Figure(value=float(value), low=low, high=high)
