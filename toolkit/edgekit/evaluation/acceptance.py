"""Judges a compressed model: everything from two models' logits on `val` and `test` to the gates.

Rules this file keeps, in this order:

1. Temperatures are fitted on `val`, each model's to its own logits. Where the reference has none, neither has the device; where only the device's cannot
   be fitted, it takes the reference's, whose logits it imitates. So probabilities of both mean the same.
2. Thresholds are chosen on `val` from the reference's calibrated probabilities alone. They are fixed before anything is known of the device, are shared by
   both models, and are applied to each one's calibrated probabilities.
3. Everything else is measured on `test`, which chose nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.evaluation import decision
from edgekit.evaluation.delong import AucDifference, paired_auc_difference
from edgekit.evaluation.ece_difference import EceDifference, paired_ece_difference
from edgekit.evaluation.evaluate import Evaluation, evaluate
from edgekit.evaluation.further_gates import (
    QUOTES_THE_DATA,
    Budgets,
    budget_gates,
    ece_gate,
    net_harm_gate,
    proportion_gates,
    subgroup_gate,
)
from edgekit.evaluation.gates import GateResult, apply_gates
from edgekit.evaluation.intervals import REPLICATES
from edgekit.evaluation.map_gates import MapEvidence, map_gates
from edgekit.evaluation.mcnemar import McNemar, mcnemar
from edgekit.evaluation.metrics import Outcomes
from edgekit.evaluation.paired import Flips, compare_answers
from edgekit.evaluation.proportions import OperatingPoint, operating_points
from edgekit.evaluation.subgroups import SkippedColumn, Subgroup, find_subgroups
from edgekit.evaluation.temperature import Temperature, calibration_error_at, fit_temperature, keep_temperature
from edgekit.evaluation.thresholds import FrozenThresholds, choose_thresholds
from edgekit.schema.accept import AcceptSpec
from edgekit.schema.decode import encode
from edgekit.schema.model_io import OutputSpec

Logits = NDArray[np.floating]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SplitEvidence:
    """What two models said about the frames of one split.

    Attributes:
        reference: float (frames, labels), from `decision.logits_by_label`.
        device: The same of the device, run by its own engine.
        truth: bool (frames, labels).
        groups: The patient or video of each frame.
        extra: The further columns of each frame's row in the manifest (`Sample.extra`); read on `test` only.
    """

    reference: Logits
    device: Logits
    truth: Bools
    groups: Sequence[str]
    extra: Sequence[Mapping[str, str]] = ()

    def __post_init__(self) -> None:
        if not self.reference.shape == self.device.shape == self.truth.shape or len(self.groups) != len(self.truth):
            raise ValueError(
                f"shapes differ: reference {self.reference.shape}, device {self.device.shape}, truth {self.truth.shape}, {len(self.groups)} groups"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """Everything a model is judged by.

    Attributes:
        output: The meaning of the outputs.
        outputs: Number of raw outputs of the device's model (see `decision.probabilities`).
        reference_outputs: The same of the reference; None where it is the same number.
        val: Chooses temperatures and thresholds.
        test: Proves.
        new_network: Whether the recipe makes another network than the trained one.
        maps: What was found out about the class activation maps; None where there are none, and then no gate asks for them.
        budgets: Of the finished bundle; None where it is judged without them (`further_gates.budget_gates` adds them later).
    """

    output: OutputSpec
    outputs: int
    reference_outputs: int | None = None
    val: SplitEvidence
    test: SplitEvidence
    new_network: bool = False
    maps: MapEvidence | None = None
    budgets: Budgets | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Temperatures:
    """The fitted temperatures of both models."""

    reference: Temperature
    device: Temperature


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationErrors:
    """Expected calibration errors on `test`: at T = 1 (before) and at each model's temperature."""

    reference_before: float
    reference: float
    device_before: float
    device: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Acceptance:
    """The verdict and what it rests on.

    Attributes:
        gates: Every gate, in the report's order.
        temperatures: Rule 1.
        frozen: Rule 2.
        before: What the reference said about `test`.
        after: What the device said.
        reference: The reference's figures.
        device: The device's figures, also by label.
        auc_difference: ΔAUC.
        flips: Changed answers.
        mcnemar: McNemar's test of them.
        operating_point: Sensitivity and specificity, by label.
        subgroups: Flips by the manifest's further columns.
        skipped_columns: Further columns that make no subgroups, and why.
        ece: Calibration errors.
        ece_difference: Their paired difference.
        maps: What was found out about the maps; None where there are none.
    """

    gates: tuple[GateResult, ...]
    temperatures: Temperatures
    frozen: FrozenThresholds
    before: Outcomes
    after: Outcomes
    reference: Evaluation
    device: Evaluation
    auc_difference: AucDifference
    flips: Flips
    mcnemar: McNemar
    operating_point: tuple[OperatingPoint, ...]
    subgroups: tuple[Subgroup, ...]
    skipped_columns: tuple[SkippedColumn, ...]
    ece: CalibrationErrors
    ece_difference: EceDifference
    maps: MapEvidence | None

    @property
    def accepted(self) -> bool:
        """Whether every gate lets the model through."""
        return all(gate.passed for gate in self.gates)

    @property
    def temperature(self) -> float:
        """The device's temperature, for the bundle."""
        return self.temperatures.device.value

    @property
    def thresholds(self) -> dict[str, float]:
        """The frozen thresholds, for the bundle."""
        return self.frozen.thresholds

    def to_json(self) -> dict[str, Any]:
        """Aggregate figures only, JSON-ready, as they travel in a bundle.

        No frame and no file is named, and no value of the data manifest's further columns: `subgroups` and the sentences that quote them are for the
        report beside the bundle.
        """
        return {
            "accepted": self.accepted,
            "gates": [_travelling(gate) for gate in self.gates],
            "temperatures": encode(self.temperatures),
            "thresholds": encode(self.frozen),
            "reference": self.reference.to_json(),
            "device": self.device.to_json(),
            "auc_difference": encode(self.auc_difference),
            "flips": {
                "frames": self.flips.frames,
                "total": len(self.flips.indices),
                "harmful": len(self.flips.harmful),
                "helpful": len(self.flips.helpful),
            },
            "mcnemar": encode(self.mcnemar),
            "operating_point": encode(self.operating_point),
            "ece": encode(self.ece),
            "ece_difference": encode(self.ece_difference),
            "maps": None if self.maps is None else self.maps.to_json(),
        }


def judge(spec: AcceptSpec, evidence: Evidence, *, replicates: int = REPLICATES, seed: int = 0) -> Acceptance:
    """Judges a compressed model against its reference.

    Args:
        spec: The recipe's `[accept]`.
        evidence: What both said.
        replicates: Draws of every bootstrap.
        seed: Of every bootstrap.

    Raises:
        ModelError: A model gave NaN or infinite logits.
        DataError: There are no frames.
    """
    temperatures, frozen = freeze(evidence)
    before, after = _outcomes(evidence, temperatures, frozen)
    groups = evidence.test.groups
    flips = compare_answers(before.answers, after.answers, evidence.test.truth, evidence.output)
    difference = paired_auc_difference(before, after, groups=groups, replicates=replicates, seed=seed)
    points = operating_points(
        before, after, groups=groups, sensitivity_margin=spec.sensitivity_margin, specificity_margin=spec.specificity_margin
    )
    subgroups = find_subgroups(flips, evidence.test.extra, groups)
    calibration = paired_ece_difference(before, after, groups=groups, replicates=replicates, seed=seed)
    new = evidence.new_network
    gates = (
        *apply_gates(spec, difference, flips, new_network=new),
        net_harm_gate(spec, flips, new_network=new),
        *proportion_gates(spec, points, new_network=new),
        subgroup_gate(spec, subgroups, new_network=new),
        ece_gate(spec, calibration),
        *(() if evidence.maps is None else map_gates(spec, evidence.maps, new_network=new)),
        *(() if evidence.budgets is None else budget_gates(spec, evidence.budgets)),
    )
    return Acceptance(
        gates=gates,
        temperatures=temperatures,
        frozen=frozen,
        before=before,
        after=after,
        reference=evaluate(before, groups=groups, replicates=replicates, seed=seed),
        device=evaluate(after, groups=groups, replicates=replicates, seed=seed),
        auc_difference=difference,
        flips=flips,
        mcnemar=mcnemar(before, after, groups=groups),
        operating_point=points,
        subgroups=subgroups.found,
        skipped_columns=subgroups.skipped,
        ece=_calibration_errors(evidence, calibration),
        ece_difference=calibration,
        maps=evidence.maps,
    )


def freeze_reference(logits: Logits, truth: Bools, output: OutputSpec, *, outputs: int) -> tuple[Temperature, FrozenThresholds]:
    """The reference's temperature and the shared thresholds, from its logits (frames, labels) on `val`; nothing of the device is needed."""
    fitted = fit_temperature(logits, truth, output, outputs=outputs)
    calibrated = decision.probabilities(logits, output, outputs=outputs, temperature=fitted.value)
    return fitted, choose_thresholds(calibrated, truth, output)


def device_temperature(logits: Logits, truth: Bools, output: OutputSpec, *, outputs: int, reference: Temperature) -> Temperature:
    """The device's temperature, from its logits (frames, labels) on `val` and the reference's temperature (rule 1)."""
    if reference.reason:
        return keep_temperature(
            logits, truth, output, outputs=outputs, known=(reference.value, f"the reference has none: {reference.reason}")
        )
    fitted = fit_temperature(logits, truth, output, outputs=outputs)
    if not fitted.reason:
        return fitted
    reason = f"the reference's is used: {fitted.reason}"
    return keep_temperature(logits, truth, output, outputs=outputs, known=(reference.value, reason))


def freeze(evidence: Evidence) -> tuple[Temperatures, FrozenThresholds]:
    """Everything that is chosen, from `val` alone."""
    val, output = evidence.val, evidence.output
    reference, frozen = freeze_reference(val.reference, val.truth, output, outputs=_reference_outputs(evidence))
    device = device_temperature(val.device, val.truth, output, outputs=evidence.outputs, reference=reference)
    return Temperatures(reference=reference, device=device), frozen


def _travelling(gate: GateResult) -> dict[str, Any]:
    found: dict[str, Any] = encode(gate)
    if gate.name in QUOTES_THE_DATA:
        found["explanation"] = "The report beside the bundle says more."
    return found


def _reference_outputs(evidence: Evidence) -> int:
    return evidence.outputs if evidence.reference_outputs is None else evidence.reference_outputs


def _outcomes(evidence: Evidence, temperatures: Temperatures, frozen: FrozenThresholds) -> tuple[Outcomes, Outcomes]:
    test, output = evidence.test, evidence.output
    sides = (
        (test.reference, _reference_outputs(evidence), temperatures.reference.value),
        (test.device, evidence.outputs, temperatures.device.value),
    )
    before, after = (
        Outcomes(
            probability=decision.probabilities(logits, output, outputs=outputs, temperature=value),
            truth=test.truth,
            output=output,
            thresholds=frozen.thresholds,
        )
        for logits, outputs, value in sides
    )
    return before, after


def _calibration_errors(evidence: Evidence, calibrated: EceDifference) -> CalibrationErrors:
    test, output = evidence.test, evidence.output
    before = [
        calibration_error_at(logits, test.truth, output, outputs=outputs, temperature=1.0)
        for logits, outputs in ((test.reference, _reference_outputs(evidence)), (test.device, evidence.outputs))
    ]
    return CalibrationErrors(reference_before=before[0], reference=calibrated.reference, device_before=before[1], device=calibrated.device)
