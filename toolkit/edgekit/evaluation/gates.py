"""The acceptance gates on answers: what a compressed model must keep, measured against what the recipe allows.

Rules this file and `further_gates` keep:

1. A gate that cannot be computed fails: a model that nothing is known about is not accepted.
2. *not demonstrated* lets a model through and says so: the frames are too few to tell, and what was measured on them is within the limit, or a
   single frame above it. Sensitivity, specificity and the AUC fail instead where the recipe says `require_demonstrated`.
3. A gate that fails, or that the frames are too few for, says what to try.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgekit.evaluation.delong import ONE_SIDED_CONFIDENCE, AucDifference
from edgekit.evaluation.paired import Flips
from edgekit.schema.accept import AcceptSpec

GateStatus = Literal["passed", "failed", "not demonstrated"]

MORE_TEST_FRAMES = "more test frames, of more patients"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """One gate.

    Attributes:
        name: What scripts read: auc_difference_lower_bound, harmful_flips, flips, or one of `further_gates`.
        value: What was measured; None where it could not be.
        bound: What the value was held against.
        passed: Whether the gate lets the model through.
        explanation: One sentence or two for the report.
        status: passed, failed, or not demonstrated (which lets the model through).
        advice: Which rung or knob to try; empty where the gate passed.
    """

    name: str
    value: float | None
    bound: float
    passed: bool
    explanation: str
    status: GateStatus
    advice: str

    def __post_init__(self) -> None:
        if self.passed != (self.status != "failed"):
            raise ValueError(f"the gate {self.name} has the status {self.status!r} and passed = {self.passed}")


def apply_gates(spec: AcceptSpec, difference: AucDifference, flips: Flips, *, new_network: bool = False) -> tuple[GateResult, ...]:
    """Holds the answers of a compressed model against the recipe's `[accept]`; a model is accepted when every gate passed.

    Args:
        spec: The recipe's limits.
        difference: ΔAUC on `test`.
        flips: Changed answers on `test`.
        new_network: Whether the recipe makes another network than the trained one (`CompressSpec.makes_new_network`).
    """
    closer = nearer_to_the_reference(new_network=new_network)
    allowed = spec.flips_allowed(new_network)
    return (
        _auc_gate(spec, difference, closer),
        _flip_gate("harmful_flips", flips.harmful, flips.frames, spec.max_harmful_flips, ("become wrong on the device", closer)),
        _flip_gate("flips", flips.indices, flips.frames, allowed, ("get another answer on the device", closer)),
    )


def nearer_to_the_reference(*, new_network: bool) -> str:
    """What to try where a model answers too differently, the cheapest first."""
    rungs = 'add "ptq-full", "float-fallback" or "qat" to compress.quantize.ladder, or take more calibration frames'
    if new_network:
        return f"raise the target of compress.prune (latency_target or macs_target) or compress.distill.epochs, or take a larger student; {rungs}"
    return rungs


def result(name: str, value: float | None, bound: float, status: GateStatus, texts: tuple[str, str]) -> GateResult:
    """A gate from its status; `texts` are the explanation and the advice, which is left out where the gate passed."""
    explanation, advice = texts
    return GateResult(
        name=name,
        value=value,
        bound=bound,
        passed=status != "failed",
        explanation=explanation,
        status=status,
        advice="" if status == "passed" else advice,
    )


def _auc_gate(spec: AcceptSpec, difference: AucDifference, closer: str) -> GateResult:
    name, value, bound = "auc_difference_lower_bound", difference.lower_bound, -spec.auc_margin
    if value is None or difference.difference is None:
        why = difference.reason or "the bound is undefined"
        return result(name, None, bound, "failed", (f"It could not be shown that the AUC is not worse, because {why}.", MORE_TEST_FRAMES))
    if difference.undetected is not None and value > bound:
        return _no_spread_gate(spec, difference, value, difference.undetected)
    passed = value > bound
    found = {"delong": "paired DeLong", "bootstrap": "paired bootstrap over groups"}.get(difference.method, difference.method)
    text = (
        f"With 97.5 % confidence ({found}) the AUC changes by more than {value:+.4f}, which is "
        f"{'above' if passed else 'not above'} the allowed {bound:+.4f}; measured change {difference.difference:+.4f}."
    )
    # Where the change itself is allowed, the frames may be too few; where it is not, more of them prove the loss.
    advice = f"{closer}; or {MORE_TEST_FRAMES}" if difference.difference > bound else closer
    return result(name, value, bound, "passed" if passed else "failed", (text, advice))


def _no_spread_gate(spec: AcceptSpec, difference: AucDifference, lowest: float, undetected: float) -> GateResult:
    # `lowest` is above the bound, and is about these frames alone: what no frame shows may still be (rule 6 of `delong`).
    name, bound, groups = "auc_difference_lower_bound", -spec.auc_margin, difference.fewest_groups
    value = max(-1.0, lowest - undetected)
    change = (
        "Nothing changed the AUC"
        if not difference.difference
        else f"Every group changed the AUC alike, by {difference.difference:+.4f} in all,"
    )
    text = (
        f"{change} on these frames, so they have no spread to take a bound from. Frames that fall may be missing among them: of the {groups} groups of the "
        f"rarer outcome none did, and with 97.5 % confidence up to {undetected:.2%} of such groups still may (exact), with which the AUC could change by {value:+.4f}"
    )
    if value > bound:
        return result(name, value, bound, "passed", (f"{text}, above the allowed {bound:+.4f}.", ""))
    needed = math.floor(math.log(1 - ONE_SIDED_CONFIDENCE) / math.log1p(-(lowest - bound))) + 1
    text += f", not above the allowed {bound:+.4f}: not demonstrated. It would take {needed} groups of every outcome without a change."
    advice = f"test frames of about {needed} groups (patients) of every outcome"
    return undemonstrated(spec, name, value, bound, (text, advice))


def undemonstrated(spec: AcceptSpec, name: str, value: float | None, bound: float, texts: tuple[str, str]) -> GateResult:
    """A gate that the frames are too few for; it fails where the recipe requires the proof. `texts` as for `result`."""
    text, advice = texts
    if spec.require_demonstrated:
        return result(name, value, bound, "failed", (text, f"{advice}; or, if that is enough, accept.require_demonstrated = false"))
    return result(name, value, bound, "not demonstrated", texts)


def _flip_gate(name: str, changed: Sequence[int], frames: int, bound: float, texts: tuple[str, str]) -> GateResult:
    what, closer = texts
    if not frames:
        return result(name, None, bound, "failed", ("There are no frames to compare answers on.", MORE_TEST_FRAMES))
    value = len(changed) / frames
    passed = value <= bound
    text = f"{len(changed)} of {frames} frames ({value:.2%}) {what}, {'within' if passed else 'more than'} the allowed {bound:.2%}."
    advice = closer
    if frames * bound < 1:
        text += f" On {frames} frames a single one is more than that."
        advice = f"{closer}; or {MORE_TEST_FRAMES}, or a limit that so few can resolve"
    return result(name, value, bound, "passed" if passed else "failed", (text, advice))
