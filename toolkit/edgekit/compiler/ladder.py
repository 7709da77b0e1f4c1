"""Climbs the quantization ladder: cheapest rung first, only as far as the validation frames need.

Rules this file keeps:

1. Settings are chosen on `val`. `test` is looked at once, with the chosen rung, by the acceptance gate.
2. The first rung for which `val` shows, with 95 % confidence, that the flip gates would pass, and whose ΔAUC and maps there pass the gates themselves, is taken.
   Counting alone would not do: no flip among 77 frames still allows 3.8 % of flips. Frames count as independent here, which frames of one video are
   not: this only decides when to stop climbing, and proves nothing; the gate on `test` does.
3. When `val` shows it for none, the rung whose answers are nearest to the reference's (mean KL divergence) is taken, and the gate decides.
4. A rung may have several variants, which are tried like rungs, or none, and then says why; the report tells all of them. A variant whose answers are no
   numbers counts as not tried.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.catalog.compress import Rung
from edgekit.compiler.quantize.rungs import RUNGS
from edgekit.compiler.stages.frames import PreparedSplit
from edgekit.compiler.stages.measure import LIKENESS_FIGURES, Measured, map_likeness
from edgekit.compiler.stages.quantize import Artefact
from edgekit.errors import CatalogError, ModelError
from edgekit.evaluation import decision
from edgekit.evaluation.acceptance import device_temperature
from edgekit.evaluation.delong import AucDifference, paired_auc_difference
from edgekit.evaluation.exact import clopper_pearson
from edgekit.evaluation.map_gates import is_alike
from edgekit.evaluation.metrics import Outcomes
from edgekit.evaluation.paired import Agreement, Flips, agreement, compare_answers
from edgekit.evaluation.temperature import Temperature
from edgekit.schema.accept import AcceptSpec
from edgekit.schema.model_io import OutputSpec

_FIGURES = (
    "frames",
    "flips",
    "harmful_flips",
    "auc_difference",
    "auc_difference_lower_bound",
    "mean_kl",
    "max_abs_logit",
    "map_likeness",
    "fallback",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """An artefact against the reference on one split.

    Attributes:
        flips: The frames whose answer changed.
        agreement: How far the answers are apart.
        auc: The difference of the areas under the curve, device − reference.
        map_likeness: Likeness of the maps to those of the network before it was quantized, over frames (`measure.map_likeness`); None where
            there is no map, or the maps were not compared.
    """

    flips: Flips
    agreement: Agreement
    auc: AucDifference
    map_likeness: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Variant:
    """Something a rung tries.

    Attributes:
        label: What tells it from the other variants of its rung; empty where there is one.
        artefact: The engine's model.
        measured: What it answered on `val`.
    """

    label: str = ""
    artefact: Artefact
    measured: Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A rung that has nothing to try, and why."""

    rung: Rung
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RungResult:
    """One variant of a rung as measured on `val`; `label` as in `Variant`."""

    rung: Rung
    label: str = ""
    artefact: Artefact
    measured: Measured
    comparison: Comparison
    sufficient: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Yardstick:
    """What every rung is measured against on `val`.

    Attributes:
        reference: Raw logits of the trained model, float32 (frames, outputs); of the trained model also where a student is quantized.
        exact: What the engine answered with the network that is quantized, before it was; for its maps.
        split: The frames.
        output: The meaning of the outputs.
        thresholds: The frozen ones, of calibrated probabilities.
        temperature: The reference's; an artefact's is fitted to its own logits, as it will be for the bundle.
    """

    reference: NDArray[np.float32]
    exact: Measured
    split: PreparedSplit
    output: OutputSpec
    thresholds: dict[str, float]
    temperature: Temperature

    def compare(self, measured: Measured) -> Comparison:
        """Compares what an artefact answered on `val` with the reference, and its maps with those before quantization."""
        labelled, outputs = decision.logits_by_label(measured.logits, self.output), measured.logits.shape[1]
        own = device_temperature(labelled, self.split.truth, self.output, outputs=outputs, reference=self.temperature)
        temperatures = (self.temperature.value, own.value)
        found = compare(self.reference, measured.logits, self.split, self.output, self.thresholds, temperatures=temperatures)
        return dataclasses.replace(found, map_likeness=map_likeness(self.exact, measured))


def outcomes(
    logits: NDArray[np.float32], split: PreparedSplit, output: OutputSpec, thresholds: dict[str, float], *, temperature: float = 1.0
) -> Outcomes:
    """Raw logits (frames, outputs) of a split as outcomes."""
    labelled = decision.logits_by_label(logits, output)
    probability = decision.probabilities(labelled, output, outputs=logits.shape[1], temperature=temperature)
    return Outcomes(probability=probability, truth=split.truth, output=output, thresholds=thresholds)


def compare(  # noqa: PLR0913 - five and their temperatures
    reference: NDArray[np.float32],
    device: NDArray[np.float32],
    split: PreparedSplit,
    output: OutputSpec,
    thresholds: dict[str, float],
    *,
    temperatures: tuple[float, float] = (1.0, 1.0),
) -> Comparison:
    """Compares raw logits (frames, outputs) of reference and device on a split; thresholds are of probabilities at these temperatures."""
    before, after = (
        outcomes(logits, split, output, thresholds, temperature=value)
        for logits, value in zip((reference, device), temperatures, strict=True)
    )
    difference = paired_auc_difference(before, after, groups=split.groups)
    return Comparison(
        flips=compare_answers(before.answers, after.answers, split.truth, output),
        agreement=agreement(
            decision.logits_by_label(reference, output),
            decision.logits_by_label(device, output),
            output,
            outputs=reference.shape[1],
            device_outputs=device.shape[1],
            temperature=temperatures[0],
            device_temperature=temperatures[1],
        ),
        auc=difference,
    )


def climb(
    ladder: Sequence[Rung],
    attempt: Callable[[Rung, Sequence[RungResult]], Iterable[Variant | Skipped]],
    against: Callable[[Measured], Comparison],
    accept: AcceptSpec,
    max_flips: float,
) -> tuple[RungResult, tuple[RungResult | Skipped, ...]]:
    """Tries rungs until one suffices.

    Args:
        ladder: The recipe's rungs, in order.
        attempt: Makes the variants of a rung and runs them on `val`, one when the one before did not suffice; told what was tried before the rung.
        against: Compares what a variant answered with the reference.
        accept: The gates.
        max_flips: Largest accepted share of changed answers; the gate's default depends on whether the recipe makes a new network.

    Returns:
        The chosen variant, and every one that was tried or skipped, in order.

    Raises:
        CatalogError: No rung of the ladder has anything to try.
    """
    steps: list[RungResult | Skipped] = []
    for rung in ladder:
        for found in attempt(rung, _tried(steps)):
            if isinstance(found, Skipped):
                steps.append(found)
                continue
            try:
                comparison = against(found.measured)
            except ModelError as error:  # logits that are no numbers: the next rung may do better
                steps.append(Skipped(rung=rung, reason=f"{found.label}: {error.message}" if found.label else error.message))
                continue
            result = RungResult(
                rung=rung,
                label=found.label,
                artefact=found.artefact,
                measured=found.measured,
                comparison=comparison,
                sufficient=_suffices(comparison, accept, max_flips),
            )
            steps.append(result)
            if result.sufficient:
                return result, tuple(steps)
    tried = _tried(steps)
    if not tried:
        raise CatalogError(f"no rung of the ladder can be tried: {_reasons(steps)}", hint='add a rung: ladder = ["ptq", "ptq-full"]')
    return min(tried, key=lambda result: result.comparison.agreement.mean_kl), tuple(steps)


def describe_all(steps: Sequence[RungResult | Skipped], chosen: RungResult) -> list[dict[str, object]]:
    """Everything that was tried or skipped for the report, JSON-ready, in order."""
    return [describe(step, chosen) for step in steps]


def describe(step: RungResult | Skipped, chosen: RungResult) -> dict[str, object]:
    """A variant of a rung for the report, JSON-ready; a skipped rung has the same keys, without figures."""
    row: dict[str, object] = {"rung": step.rung, "title": RUNGS[step.rung].title, "chosen": step is chosen}
    if isinstance(step, Skipped):
        return {**row, "variant": "", "status": f"skipped: {step.reason}", **dict.fromkeys(_FIGURES), "sufficient": False}
    found = step.comparison
    figures = (
        found.flips.frames,
        len(found.flips.indices),
        len(found.flips.harmful),
        found.auc.difference,
        found.auc.lower_bound,
        found.agreement.mean_kl,
        found.agreement.max_abs_logit,
        None if found.map_likeness is None else dict(found.map_likeness),
        None if step.artefact.fallback is None else dict(step.artefact.fallback),
    )
    return {**row, "variant": step.label, "status": "tried", **dict(zip(_FIGURES, figures, strict=True)), "sufficient": step.sufficient}


def _tried(steps: Sequence[RungResult | Skipped]) -> tuple[RungResult, ...]:
    return tuple(step for step in steps if isinstance(step, RungResult))


def _reasons(steps: Sequence[RungResult | Skipped]) -> str:
    return "; ".join(f"{step.rung}: {step.reason}" for step in steps if isinstance(step, Skipped))


def _suffices(found: Comparison, accept: AcceptSpec, max_flips: float) -> bool:
    """Whether `val` shows that the gates would pass (rule 2)."""
    flips, frames = found.flips, found.flips.frames
    if not _maps_suffice(found.map_likeness, accept):
        return False
    enough = _at_most(len(flips.indices), frames) <= max_flips and _at_most(len(flips.harmful), frames) <= accept.max_harmful_flips
    return enough and found.auc.lower_bound is not None and found.auc.lower_bound > -accept.auc_margin


def _maps_suffice(likeness: Mapping[str, float] | None, accept: AcceptSpec) -> bool:
    """Whether the maps on `val` are as near as the gates ask on `test`; where there are none, there is nothing to keep."""
    return likeness is None or is_alike(accept, {figure: likeness[name] for name, figure in LIKENESS_FIGURES.items()})


def _at_most(count: int, frames: int) -> float:
    """The exact (Clopper–Pearson) one-sided 95 % upper bound of a share of independent frames."""
    return clopper_pearson(count, frames, confidence=0.90)[1]
