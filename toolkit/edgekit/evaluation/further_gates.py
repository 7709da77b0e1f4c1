"""The acceptance gates beside the answers: net harm, sensitivity and specificity, subgroups, calibration, and the budgets of latency and size.

The rules are those of `gates`. What each gate proves and what it does not is in `docs/evaluation.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.evaluation.ece_difference import EceDifference
from edgekit.evaluation.gates import MORE_TEST_FRAMES, GateResult, GateStatus, nearer_to_the_reference, result, undemonstrated
from edgekit.evaluation.paired import Flips
from edgekit.evaluation.proportions import OperatingPoint, ProportionDifference
from edgekit.evaluation.subgroups import Subgroups
from edgekit.schema.accept import AcceptSpec

BYTES_PER_MB = 1_000_000

QUOTES_THE_DATA = frozenset({"subgroup_flips"})
"""Gates whose sentence quotes values of the data manifest: it is for the report and does not travel in a bundle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """What was measured of a finished bundle.

    Attributes:
        latency_ms: Median latency of one frame in milliseconds; None where it was not measured.
        size_bytes: Size of the bundle; None where it was not measured.
        host: The machine the latency was measured on, for people.
    """

    latency_ms: float | None
    size_bytes: int | None
    host: str


def net_harm_gate(spec: AcceptSpec, flips: Flips, *, new_network: bool) -> GateResult:
    """Harmful minus helpful flips: chance makes as many of either, a loss makes more harmful ones."""
    name, bound, frames = "net_harm", spec.max_net_harm, flips.frames
    if not frames:
        return result(name, None, bound, "failed", ("There are no frames to compare answers on.", MORE_TEST_FRAMES))
    net = len(flips.harmful) - len(flips.helpful)
    value = net / frames
    text = (
        f"{len(flips.harmful)} frames become wrong and {len(flips.helpful)} right on the device: {net:+d} of {frames} ({value:+.2%}), "
        f"{'within' if value <= bound else 'more than'} the allowed {bound:+.2%}."
    )
    status: GateStatus = "passed" if value <= bound else "failed"
    if net == 1 and bound > 0 and status == "failed":
        # One frame more in either direction is what these frames cannot resolve; two are counted.
        status = "not demonstrated"
        text += f" On {frames} frames a single one is more than that, so nothing is concluded from it."
    advice = MORE_TEST_FRAMES if status == "not demonstrated" else nearer_to_the_reference(new_network=new_network)
    return result(name, value, bound, status, (text, advice))


def proportion_gates(spec: AcceptSpec, points: Sequence[OperatingPoint], *, new_network: bool) -> tuple[GateResult, GateResult]:
    """Sensitivity and specificity at the frozen thresholds; of several labels the worst one decides."""
    closer = nearer_to_the_reference(new_network=new_network)
    sensitivity = [(point.label, point.sensitivity) for point in points]
    specificity = [(point.label, point.specificity) for point in points]
    return (
        _proportion_gate("sensitivity", sensitivity, spec.sensitivity_margin, spec, closer),
        _proportion_gate("specificity", specificity, spec.specificity_margin, spec, closer),
    )


def subgroup_gate(spec: AcceptSpec, subgroups: Subgroups, *, new_network: bool) -> GateResult:
    """The largest share of flips of a subgroup that is large enough to be held against a limit; says which columns were not looked at."""
    name, bound = "subgroup_flips", spec.subgroup_flips_allowed(new_network)
    found = subgroups.found
    large = [group for group in found if group.frames >= spec.subgroup_minimum]
    if not large:
        known = f"the largest of {len(found)} has {max(group.frames for group in found)} frames" if found else "there are none"
        text = (
            f"Subgroups could not be compared: the data manifest's further columns hold none of {spec.subgroup_minimum} frames or more ({known})."
            f"{_skipped(subgroups)}"
        )
        advice = "columns in the data manifest that tell patients or devices apart, or more test frames"
        return result(name, None, bound, "not demonstrated", (text, advice))
    worst = max(large, key=lambda group: group.rate)
    passed = worst.rate <= bound
    text = (
        f"Of {len(large)} subgroups with {spec.subgroup_minimum} frames or more, {worst.column} = {worst.value} has the most flips: {worst.flips} of "
        f"{worst.frames} frames ({worst.rate:.2%}, of {worst.groups} groups; {worst.harmful} harmful), "
        f"{'within' if passed else 'more than'} the allowed {bound:.2%}.{_skipped(subgroups)}"
    )
    advice = f"calibration and training frames of this subgroup; {nearer_to_the_reference(new_network=new_network)}"
    return result(name, worst.rate, bound, "passed" if passed else "failed", (text, advice))


def ece_gate(spec: AcceptSpec, found: EceDifference) -> GateResult:
    """The increase of the calibration error; more than allowed fails only where chance does not explain it."""
    name, bound, value = "ece_increase", spec.max_ece_increase, found.difference
    text = (
        f"After each one's temperature the calibration error changes by {value:+.4f} (95 % interval {found.low:+.4f} to {found.high:+.4f}), from "
        f"{found.reference:.4f} to {found.device:.4f}, {'within' if value <= bound else 'more than'} the allowed {bound:+.4f}."
    )
    status: GateStatus = "passed" if value <= bound else "failed"
    if found.low <= 0 and status == "failed":
        status = "not demonstrated"
        text += " The interval holds no change too, so chance explains it."
    if found.chance > bound:
        text += f" On {found.frames} frames chance alone gives a perfectly calibrated model an error of about {found.chance:.3f}."
    advice = 'add "ptq-full" or "qat" to compress.quantize.ladder, or take more val frames to fit the temperature on'
    return result(name, value, bound, status, (text, MORE_TEST_FRAMES if status == "not demonstrated" else advice))


def budget_gates(spec: AcceptSpec, budgets: Budgets) -> tuple[GateResult, ...]:
    """Latency and size, where the recipe has a budget for them; both are figures of the finished bundle, so they come last."""
    found = []
    if spec.max_latency_ms is not None:
        found.append(_latency_gate(spec.max_latency_ms, budgets))
    if spec.max_size_mb is not None:
        found.append(_size_gate(spec.max_size_mb, budgets))
    return tuple(found)


def _skipped(subgroups: Subgroups) -> str:
    listed = "; ".join(f"{column.column} ({column.reason})" for column in subgroups.skipped)
    return f" Columns that were not compared: {listed}." if listed else ""


def _proportion_gate(
    name: str, found: Sequence[tuple[str, ProportionDifference]], margin: float, spec: AcceptSpec, closer: str
) -> GateResult:
    bound = -margin
    measured = [(label, part) for label, part in found if part.low is not None]
    if not measured:
        text = f"No label has frames that {name} could be measured on."
        return result(name, None, bound, "failed", (text, MORE_TEST_FRAMES))
    order = ("worse", "not demonstrated", "demonstrated")
    label, worst = min(measured, key=lambda item: (order.index(item[1].status), item[1].low))
    text = _proportion_text(name, label, worst, margin)
    if len(measured) > 1:
        proven = sum(part.status == "demonstrated" for _, part in measured)
        text += f" It is the worst of {len(measured)} labels, of which {proven} are demonstrated to be not worse."
    missing = ", ".join(repr(label) for label, part in found if part.low is None)
    if missing:
        text += f" Not measured, because there are no frames {_outcome(name)} the label: {missing}."
    if worst.status == "worse":
        return result(name, worst.low, bound, "failed", (text, closer))
    if worst.status == "demonstrated" and not missing:
        return result(name, worst.low, bound, "passed", (text, ""))
    needed = []
    if worst.status != "demonstrated":
        needed.append(
            MORE_TEST_FRAMES if worst.frames_needed is None else f"about {worst.frames_needed} test frames {_outcome(name)} {label!r}"
        )
    if missing:
        needed.append(f"test frames {_outcome(name)} {missing}")
    return undemonstrated(spec, name, worst.low, bound, (text, "; ".join(needed)))


def _proportion_text(name: str, label: str, part: ProportionDifference, margin: float) -> str:
    grouped = f" of {part.groups} groups" if part.groups < part.frames else ""
    text = (
        f"The {name} of {label!r} changes by {part.difference or 0.0:+.4f} ({part.reference or 0.0:.4f} to {part.device or 0.0:.4f}; {part.lost} frames lost "
        f"and {part.gained} gained of {part.frames}{grouped}); with 97.5 % confidence by more than {part.low or 0.0:+.4f}"
    )
    if part.status == "demonstrated":
        return f"{text}, which is above −{margin:.4f}: demonstrated to be not worse."
    if part.status == "worse":
        return f"{text}. The loss is more than the allowed {margin:.4f}."
    text = f"{text}, which is not above −{margin:.4f}: not demonstrated, "
    if (part.difference or 0.0) < -margin:
        text += f"because of {part.frames} frames {_outcome(name)} it a single one is more than the margin, and no more than one was lost."
    else:
        text += "and no loss beyond the margin either."
    if part.frames_needed is None:
        return text
    return f"{text} It would take about {part.frames_needed} frames {_outcome(name)} {label!r} at this rate of changes."


def _outcome(name: str) -> str:
    return "with" if name == "sensitivity" else "without"


def _latency_gate(bound: float, budgets: Budgets) -> GateResult:
    value = budgets.latency_ms
    if value is None:
        return result("latency_ms", None, bound, "failed", ("The latency was not measured.", "measure it"))
    passed = value <= bound
    text = (
        f"The median latency of one frame is {value:.2f} ms, {'within' if passed else 'more than'} the allowed {bound:g} ms, measured on {budgets.host}. "
        "It stands for no other device."
    )
    advice = "lower the target of compress.prune (latency_target or macs_target), take a smaller student, or leave fewer layers in floating point (compress.quantize.fallback_layers)"
    return result("latency_ms", value, bound, "passed" if passed else "failed", (text, advice))


def _size_gate(bound: float, budgets: Budgets) -> GateResult:
    if budgets.size_bytes is None:
        return result("size_mb", None, bound, "failed", ("The size was not measured.", "measure it"))
    value = budgets.size_bytes / BYTES_PER_MB
    passed = value <= bound
    text = f"The bundle has {value:.2f} MB, {'within' if passed else 'more than'} the allowed {bound:g} MB."
    advice = (
        "quantize instead of the rung float, lower the target of compress.prune (latency_target or macs_target), or take a smaller student"
    )
    return result("size_mb", value, bound, "passed" if passed else "failed", (text, advice))
