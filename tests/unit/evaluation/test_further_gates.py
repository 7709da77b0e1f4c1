"""The gates beside the answers, at, above and below their bounds, and what they say where frames are few."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.evaluation.ece_difference import EceDifference, chance_error, paired_ece_difference
from edgekit.evaluation.further_gates import Budgets, budget_gates, ece_gate, net_harm_gate, proportion_gates, subgroup_gate
from edgekit.evaluation.metrics import Outcomes, calibration_error
from edgekit.evaluation.paired import Flips
from edgekit.evaluation.proportions import OperatingPoint, paired_difference
from edgekit.evaluation.subgroups import SkippedColumn, Subgroup, Subgroups
from edgekit.schema.accept import AcceptSpec
from edgekit.schema.model_io import OutputSpec

BINARY = OutputSpec(labels=("n", "p"), task="binary", positive="p")
MULTILABEL = OutputSpec(labels=("x", "y"), task="multilabel")


def flips(harmful, helpful, frames):
    return Flips(frames=frames, harmful=tuple(range(harmful)), helpful=tuple(range(harmful, harmful + helpful)), neither=())


NET = {
    "none": (0, 0, 1000, "passed"),
    "at-the-bound": (15, 10, 1000, "passed"),
    "above": (16, 10, 1000, "failed"),
    "more-helpful": (5, 50, 1000, "passed"),
    "one-of-few": (3, 2, 115, "not demonstrated"),
    "two-of-few": (4, 2, 115, "failed"),
}


@pytest.mark.parametrize(("harmful", "helpful", "frames", "status"), NET.values(), ids=NET)
def test_net_harm(harmful, helpful, frames, status):
    """Harmful minus helpful may reach 0.5 %; one frame more than few frames can resolve is no verdict, two are."""
    gate = net_harm_gate(AcceptSpec(), flips(harmful, helpful, frames), new_network=False)
    assert (gate.name, gate.status, gate.passed) == ("net_harm", status, status != "failed")
    assert gate.value == pytest.approx((harmful - helpful) / frames)
    assert gate.bound == 0.005


def test_net_harm_of_nothing_fails():
    """No frames are a refusal, and a limit of 0 allows no frame at all."""
    assert net_harm_gate(AcceptSpec(), flips(0, 0, 0), new_network=False).status == "failed"
    assert net_harm_gate(AcceptSpec(max_net_harm=0.0), flips(1, 0, 115), new_network=False).status == "failed"


def part(frames=200, lost=0, gained=0, margin=0.05):
    reference, device = np.ones(frames, bool), np.ones(frames, bool)
    device[:lost] = False
    reference[lost : lost + gained] = False
    return paired_difference(reference, device, np.arange(frames), margin=margin)


def point(label="p", sensitivity=None, specificity=None):
    return OperatingPoint(label=label, threshold=0.5, sensitivity=sensitivity or part(), specificity=specificity or part())


@pytest.mark.parametrize(
    ("measured", "status", "required"),
    [
        (part(200), "passed", "passed"),
        (part(31), "not demonstrated", "failed"),
        (part(200, lost=12), "failed", "failed"),
        (part(0), "failed", "failed"),
    ],
    ids=["demonstrated", "few", "worse", "none"],
)
def test_sensitivity_and_specificity(measured, status, required):
    """A loss fails; too few frames fail only where the recipe requires the proof; value and bound are the lower bound and the margin."""
    for name, given in (("sensitivity", point(sensitivity=measured)), ("specificity", point(specificity=measured))):
        for spec, expected in ((AcceptSpec(), status), (AcceptSpec(require_demonstrated=True), required)):
            gates = {gate.name: gate for gate in proportion_gates(spec, [given], new_network=False)}
            assert gates[name].status == expected
            assert (gates[name].value, gates[name].bound) == (measured.low, -0.05)
            other = gates["specificity" if name == "sensitivity" else "sensitivity"]
            assert other.status == "passed"


def test_too_few_frames_say_how_many_it_takes():
    """The number stands in the sentence and in the advice."""
    measured = part(31)
    gate = proportion_gates(AcceptSpec(), [point(sensitivity=measured)], new_network=False)[0]
    assert f"about {measured.frames_needed} frames with 'p'" in gate.explanation
    assert f"{measured.frames_needed} test frames with 'p'" in gate.advice


def test_a_sentence_claims_no_loss_within_the_margin_where_there_is_more():
    """One lost frame of ten is 10 %: not counted, and not called less than the margin."""
    gate = proportion_gates(AcceptSpec(), [point(sensitivity=part(10, lost=1))], new_network=False)[0]
    assert gate.status == "not demonstrated"
    assert "a single one is more than the margin" in gate.explanation
    assert "no loss beyond the margin" not in gate.explanation
    gate = proportion_gates(AcceptSpec(), [point(sensitivity=part(31))], new_network=False)[0]
    assert "no loss beyond the margin either" in gate.explanation
    gate = proportion_gates(AcceptSpec(), [point(sensitivity=part(15, lost=4))], new_network=False)[0]
    assert (gate.status, "not demonstrated" in gate.explanation) == ("failed", False)


@pytest.mark.parametrize(("required", "status"), [(False, "not demonstrated"), (True, "failed")])
@pytest.mark.parametrize(("measured", "advice"), [(part(200), "test frames"), (part(31), "about 73 test frames")], ids=["proven", "few"])
def test_a_label_without_frames_is_named_and_nothing_is_proven(measured, advice, required, status):
    """What was not measured on one label is not demonstrated, however good the others are."""
    points = [point("a", measured), point("b", part(0)), point("c", part(0))]
    gate = proportion_gates(AcceptSpec(require_demonstrated=required), points, new_network=False)[0]
    assert (gate.status, gate.value) == (status, measured.low)
    assert "Not measured, because there are no frames with the label: 'b', 'c'." in gate.explanation
    assert gate.advice.startswith(advice)
    assert "test frames with 'b', 'c'" in gate.advice


def test_the_worst_label_decides():
    """A loss comes before a lack of frames, and both before what is demonstrated, whatever their bounds."""
    points = [point("a", part(200)), point("b", part(10)), point("c", part(400, lost=24)), point("d", part(0))]
    gate = proportion_gates(AcceptSpec(), points, new_network=False)[0]
    assert gate.status == "failed"
    assert "of 'c'" in gate.explanation
    assert "worst of 3 labels, of which 1 are demonstrated" in gate.explanation


def subgroups(*found, skipped=()):
    return Subgroups(found=found, skipped=tuple(SkippedColumn(column=column, reason=reason) for column, reason in skipped))


def subgroup(value, frames, flipped, harmful=0):
    return Subgroup(column="probe", value=value, frames=frames, groups=frames, flips=flipped, harmful=harmful, helpful=0, upper=1.0)


def test_subgroups():
    """The largest share among those with 50 frames; smaller ones are only reported."""
    spared, small = subgroup("linear", 100, 5), subgroup("phased", 49, 49)
    gate = subgroup_gate(AcceptSpec(), subgroups(spared, small), new_network=False)
    assert (gate.name, gate.value, gate.bound, gate.status) == ("subgroup_flips", 0.05, 0.05, "passed")
    gate = subgroup_gate(AcceptSpec(), subgroups(spared, subgroup("convex", 50, 3, harmful=2), small), new_network=False)
    assert (gate.value, gate.status) == (0.06, "failed")
    assert "probe = convex" in gate.explanation
    assert "2 harmful" in gate.explanation


def test_subgroups_may_flip_as_much_as_all_frames():
    """A recipe that allows 10 % everywhere allows it in each part, unless it states a limit of the parts: that stands."""
    found = subgroups(subgroup("linear", 100, 8))
    assert subgroup_gate(AcceptSpec(max_flips=0.1, max_subgroup_flips=0.07), found, new_network=False).bound == 0.07
    assert subgroup_gate(AcceptSpec(max_subgroup_flips=0.0), found, new_network=True).status == "failed"
    assert subgroup_gate(AcceptSpec(), found, new_network=False).status == "failed"
    assert subgroup_gate(AcceptSpec(max_flips=0.1), found, new_network=False).status == "passed"


@pytest.mark.parametrize("found", [subgroups(), subgroups(subgroup("linear", 49, 9))])
def test_without_large_subgroups_nothing_is_demonstrated(found):
    """The model is let through, and the report says that nobody looked."""
    gate = subgroup_gate(AcceptSpec(), found, new_network=False)
    assert (gate.value, gate.status, gate.passed) == (None, "not demonstrated", True)
    assert "could not be compared" in gate.explanation


@pytest.mark.parametrize("found", [(), (subgroup("linear", 100, 1),)])
def test_columns_that_were_not_compared_are_named(found):
    """A column of fifteen sites must not look as if it had been looked at."""
    gate = subgroup_gate(AcceptSpec(), subgroups(*found, skipped=[("site", "15 values, more than 12")]), new_network=False)
    assert "Columns that were not compared: site (15 values, more than 12)." in gate.explanation
    assert "not compared" not in subgroup_gate(AcceptSpec(), subgroups(*found), new_network=False).explanation


def ece(difference, low, chance=0.01):
    return EceDifference(frames=115, reference=0.03, device=0.03 + difference, difference=difference, low=low, high=0.2, chance=chance)


@pytest.mark.parametrize(
    ("difference", "low", "status"),
    [(0.02, 0.015, "passed"), (0.03, 0.001, "failed"), (0.03, -0.01, "not demonstrated"), (-0.1, -0.2, "passed")],
)
def test_calibration(difference, low, status):
    """An increase above the limit fails where chance does not explain it."""
    gate = ece_gate(AcceptSpec(), ece(difference, low))
    assert (gate.name, gate.value, gate.bound, gate.status) == ("ece_increase", difference, 0.02, status)
    assert ("chance explains it" in gate.explanation) == (status == "not demonstrated")


def test_few_frames_say_what_chance_does():
    """A reader must not take 0.08 on 115 frames for a broken model."""
    assert "about 0.080" in ece_gate(AcceptSpec(), ece(0.0, 0.0, chance=0.08)).explanation
    assert "chance" not in ece_gate(AcceptSpec(), ece(0.0, 0.0)).explanation


def calibrated(frames, seed=0, scale=1.0):
    random = np.random.default_rng(seed)
    z = 2 * random.normal(size=frames)
    truth = random.random(frames) < 1 / (1 + np.exp(-z))
    p = 1 / (1 + np.exp(-scale * z))
    return Outcomes(probability=np.stack([1 - p, p], 1), truth=np.stack([~truth, truth], 1), output=BINARY, thresholds={})


def test_the_difference_is_that_of_the_metric():
    """Each error is `metrics`' own, and an overconfident device has an interval above 0."""
    before, after = calibrated(800), calibrated(800, scale=4.0)
    found = paired_ece_difference(before, after, groups=[f"p{i}" for i in range(800)], replicates=300)
    for model, value in ((before, found.reference), (after, found.device)):
        top = model.probability.argmax(axis=1)
        right = model.truth[np.arange(800), top]
        assert value == pytest.approx(calibration_error(model.probability.max(axis=1), right, np.ones((1, 800)))[0])
    assert found.difference == found.device - found.reference
    assert 0 < found.low <= found.difference <= found.high


@pytest.mark.parametrize("frames", [115, 900])
def test_chance_is_what_perfectly_calibrated_models_show(frames):
    """Within a quarter of the mean over fresh samples."""
    measured = []
    for seed in range(60):
        model = calibrated(frames, seed)
        top = model.probability.argmax(axis=1)
        measured.append(calibration_error(model.probability.max(axis=1), model.truth[np.arange(frames), top], np.ones((1, frames)))[0])
    assert chance_error(calibrated(frames)) == pytest.approx(np.mean(measured), rel=0.25)


def test_chance_of_several_labels_is_their_mean():
    """As the multilabel error is."""
    p = np.array([[0.5, 0.1]] * 40)
    model = Outcomes(probability=p, truth=p > 0.3, output=MULTILABEL, thresholds={})
    expected = [np.sqrt(2 / np.pi * 15 * 40 * v) / 40 for v in (0.25, 0.09)]
    assert chance_error(model) == pytest.approx(np.mean(expected))


def test_budgets():
    """Only where the recipe has one; at the budget passes; the latency says which host it stands for."""
    measured = Budgets(latency_ms=2.0, size_bytes=1_500_000, host="Intel N100, 4 cores")
    assert budget_gates(AcceptSpec(), measured) == ()
    gates = budget_gates(AcceptSpec(max_latency_ms=2.0, max_size_mb=1.5), measured)
    assert [(gate.name, gate.value, gate.bound, gate.status) for gate in gates] == [
        ("latency_ms", 2.0, 2.0, "passed"),
        ("size_mb", 1.5, 1.5, "passed"),
    ]
    assert "measured on Intel N100, 4 cores. It stands for no other device." in gates[0].explanation
    late, large = budget_gates(AcceptSpec(max_latency_ms=1.9, max_size_mb=1.4), measured)
    assert (late.status, large.status) == ("failed", "failed")
    assert "compress.prune (latency_target or macs_target)" in late.advice


def test_a_budget_that_was_not_measured_fails():
    """Nothing known is not fast."""
    gates = budget_gates(AcceptSpec(max_latency_ms=2.0, max_size_mb=1.5), Budgets(latency_ms=None, size_bytes=None, host=""))
    assert [(gate.value, gate.status) for gate in gates] == [(None, "failed")] * 2
