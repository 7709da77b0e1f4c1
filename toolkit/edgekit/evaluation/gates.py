"""The acceptance gates: what a compressed model must keep, measured against what the recipe allows.

A gate that cannot be computed fails: a model that nothing is known about is not accepted.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.evaluation.delong import AucDifference
from edgekit.evaluation.paired import Flips
from edgekit.schema.accept import AcceptSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """One gate.

    Attributes:
        name: What scripts read: auc_difference_lower_bound, harmful_flips or flips.
        value: What was measured; None where it could not be.
        bound: What the value was held against.
        passed: Whether the gate lets the model through.
        explanation: One sentence for the report.
    """

    name: str
    value: float | None
    bound: float
    passed: bool
    explanation: str


def apply_gates(spec: AcceptSpec, difference: AucDifference, flips: Flips) -> tuple[GateResult, ...]:
    """Holds a compressed model against the recipe's `[accept]`; the model is accepted when every gate passed."""
    return (
        _auc_gate(spec, difference),
        _flip_gate("harmful_flips", len(flips.harmful), flips.frames, spec.max_harmful_flips, "become wrong on the device"),
        _flip_gate("flips", len(flips.indices), flips.frames, spec.max_flips, "get another answer on the device"),
    )


def _auc_gate(spec: AcceptSpec, difference: AucDifference) -> GateResult:
    name, value, bound = "auc_difference_lower_bound", difference.lower_bound, -spec.auc_margin
    if value is None:
        why = difference.reason or "the bound is undefined"
        text = f"It could not be shown that the AUC is not worse, because {why}."
        return GateResult(name=name, value=None, bound=bound, passed=False, explanation=text)
    passed = value > bound
    found = {"delong": "paired DeLong", "bootstrap": "paired bootstrap over groups"}.get(difference.method, difference.method)
    text = (
        f"With 97.5 % confidence ({found}) the AUC changes by more than {value:+.4f}, which is "
        f"{'above' if passed else 'not above'} the allowed {bound:+.4f}; measured change {difference.difference or 0.0:+.4f}."
    )
    return GateResult(name=name, value=value, bound=bound, passed=passed, explanation=text)


def _flip_gate(name: str, count: int, frames: int, bound: float, what: str) -> GateResult:
    if not frames:
        return GateResult(name=name, value=None, bound=bound, passed=False, explanation="There are no frames to compare answers on.")
    value = count / frames
    passed = value <= bound
    text = f"{count} of {frames} frames ({value:.2%}) {what}, {'within' if passed else 'more than'} the allowed {bound:.2%}."
    return GateResult(name=name, value=value, bound=bound, passed=passed, explanation=text)
