"""Climbs the quantization ladder: cheapest rung first, only as far as the validation frames need.

Rules this file keeps:

1. Settings are chosen on `val`. `test` is looked at once, with the chosen rung, by the acceptance gate.
2. The first rung for which `val` shows, with 95 % confidence, that the flip gates would pass, and whose ΔAUC there passes the gate itself, is taken.
   Counting alone would not do: no flip among 77 frames still allows 3.8 % of flips. Frames count as independent here, which frames of one video are
   not: this only decides when to stop climbing, and proves nothing; the gate on `test` does.
3. When `val` shows it for none, the rung whose answers are nearest to the reference's (mean KL divergence) is taken, and the gate decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.catalog.compress import Rung
from edgekit.compiler.quantize.rungs import RUNGS
from edgekit.compiler.stages.frames import PreparedSplit
from edgekit.compiler.stages.measure import Measured
from edgekit.compiler.stages.quantize import Artefact
from edgekit.evaluation import decision
from edgekit.evaluation.delong import AucDifference, paired_auc_difference
from edgekit.evaluation.exact import clopper_pearson
from edgekit.evaluation.metrics import Outcomes
from edgekit.evaluation.paired import Agreement, Flips, agreement, compare_answers
from edgekit.schema.accept import AcceptSpec
from edgekit.schema.model_io import OutputSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """An artefact against the reference on one split."""

    flips: Flips
    agreement: Agreement
    auc: AucDifference


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RungResult:
    """One rung as measured on `val`."""

    rung: Rung
    artefact: Artefact
    measured: Measured
    comparison: Comparison
    sufficient: bool


def outcomes(logits: NDArray[np.float32], split: PreparedSplit, output: OutputSpec, thresholds: dict[str, float]) -> Outcomes:
    """Raw logits (frames, outputs) of a split as outcomes."""
    labelled = decision.logits_by_label(logits, output)
    probability = decision.probabilities(labelled, output, outputs=logits.shape[1])
    return Outcomes(probability=probability, truth=split.truth, output=output, thresholds=thresholds)


def compare(
    reference: NDArray[np.float32], device: NDArray[np.float32], split: PreparedSplit, output: OutputSpec, thresholds: dict[str, float]
) -> Comparison:
    """Compares raw logits (frames, outputs) of reference and device on a split."""
    before, after = (outcomes(logits, split, output, thresholds) for logits in (reference, device))
    difference = paired_auc_difference(before, after, groups=split.groups)
    return Comparison(
        flips=compare_answers(before.answers, after.answers, split.truth, output),
        agreement=agreement(
            decision.logits_by_label(reference, output), decision.logits_by_label(device, output), output, outputs=reference.shape[1]
        ),
        auc=difference,
    )


def climb(
    ladder: Sequence[Rung],
    try_rung: Callable[[Rung], tuple[Artefact, Measured]],
    against: Callable[[Measured], Comparison],
    accept: AcceptSpec,
) -> tuple[RungResult, tuple[RungResult, ...]]:
    """Tries rungs until one suffices.

    Args:
        ladder: The recipe's rungs, in order.
        try_rung: Makes a rung's artefact and runs it on `val`.
        against: Compares what it answered with the reference.
        accept: The gates.

    Returns:
        The chosen rung, and every rung that was tried.
    """
    tried: list[RungResult] = []
    for rung in ladder:
        artefact, measured = try_rung(rung)
        comparison = against(measured)
        result = RungResult(
            rung=rung, artefact=artefact, measured=measured, comparison=comparison, sufficient=_suffices(comparison, accept)
        )
        tried.append(result)
        if result.sufficient:
            return result, tuple(tried)
    return min(tried, key=lambda result: result.comparison.agreement.mean_kl), tuple(tried)


def describe(result: RungResult, chosen: RungResult) -> dict[str, object]:
    """A rung for the report, JSON-ready."""
    found = result.comparison
    return {
        "rung": result.rung,
        "title": RUNGS[result.rung].title,
        "frames": found.flips.frames,
        "flips": len(found.flips.indices),
        "harmful_flips": len(found.flips.harmful),
        "auc_difference": found.auc.difference,
        "auc_difference_lower_bound": found.auc.lower_bound,
        "mean_kl": found.agreement.mean_kl,
        "max_abs_logit": found.agreement.max_abs_logit,
        "sufficient": result.sufficient,
        "chosen": result is chosen,
    }


def _suffices(found: Comparison, accept: AcceptSpec) -> bool:
    """Whether `val` shows that the gates would pass (rule 2)."""
    flips, frames = found.flips, found.flips.frames
    enough = _at_most(len(flips.indices), frames) <= accept.max_flips and _at_most(len(flips.harmful), frames) <= accept.max_harmful_flips
    return enough and found.auc.lower_bound is not None and found.auc.lower_bound > -accept.auc_margin


def _at_most(count: int, frames: int) -> float:
    """The exact (Clopper–Pearson) one-sided 95 % upper bound of a share of independent frames."""
    return clopper_pearson(count, frames, confidence=0.90)[1]
