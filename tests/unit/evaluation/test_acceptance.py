"""The whole judgement: what is chosen where, planted failures, and JSON."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from edgekit.errors import ModelError
from edgekit.evaluation.acceptance import Evidence, SplitEvidence, freeze_reference, judge
from edgekit.evaluation.decision import logits_by_label, probabilities
from edgekit.evaluation.further_gates import Budgets
from edgekit.evaluation.thresholds import choose_thresholds
from edgekit.schema.accept import AcceptSpec
from edgekit.schema.model_io import OutputSpec

BINARY = OutputSpec(labels=("n", "p"), task="binary", positive="p")
MULTICLASS = OutputSpec(labels=("a", "b", "c"), task="multiclass", positive="b")
PLAIN = OutputSpec(labels=("a", "b", "c"), task="multiclass")
MULTILABEL = OutputSpec(labels=("x", "y", "z"), task="multilabel")
KINDS = [(BINARY, 2), (BINARY, 1), (MULTICLASS, 3), (PLAIN, 3), (MULTILABEL, 3)]
NAMES = [
    "auc_difference_lower_bound",
    "harmful_flips",
    "flips",
    "net_harm",
    "sensitivity",
    "specificity",
    "subgroup_flips",
    "ece_increase",
]
FEW = 200


def split(output, outputs, *, frames=900, noise=0.03, seed=0, per_group=2, skill=3.0):
    """A reference of some skill, and a device that is the reference and noise."""
    random = np.random.default_rng(seed)
    if output.task == "multilabel":
        truth = random.random((frames, len(output.labels))) < [0.3, 0.5, 0.2]
        raw = skill * (truth - 0.5)
    else:
        truth = np.eye(len(output.labels), dtype=bool)[np.arange(frames) % len(output.labels)]
        raw = skill * (truth[:, 1:] - 0.5) if outputs == 1 else skill * truth
    raw = raw + random.normal(size=raw.shape)
    reference, device = (
        logits_by_label(values.astype(np.float32), output) for values in (raw, raw + noise * random.normal(size=raw.shape))
    )
    return SplitEvidence(
        reference=reference,
        device=device,
        truth=truth,
        groups=[f"p{i // per_group}" for i in range(frames)],
        extra=[{"probe": "linear" if i % 3 else "convex", "file": f"{i}.png"} for i in range(frames)],
    )


def evidence(output=BINARY, outputs=2, *, noise=0.03, frames=900, **more):
    return Evidence(
        output=output,
        outputs=outputs,
        val=split(output, outputs, seed=1, noise=noise),
        test=split(output, outputs, seed=2, noise=noise, frames=frames),
        **more,
    )


@pytest.mark.parametrize(("output", "outputs"), KINDS)
def test_a_faithful_device_is_accepted(output, outputs):
    """Every kind of output: all gates in their order, none failed, and the document is plain JSON without a file's name."""
    found = judge(AcceptSpec(), evidence(output, outputs), replicates=FEW)
    assert [gate.name for gate in found.gates] == NAMES
    assert [gate.name for gate in found.gates if gate.status == "failed"] == []
    assert found.accepted
    text = json.dumps(found.to_json(), allow_nan=False)
    assert ".png" not in text
    document = json.loads(text)
    assert document["gates"][0]["status"] == "passed"
    assert document["device"]["per_class"].keys() == set(output.labels)
    assert document["mcnemar"]["test"] == "clustered"
    assert [entry["label"] for entry in document["operating_point"]] == list(
        output.labels if output.positive is None else (output.positive,)
    )
    assert {part.value for part in found.subgroups} == {"linear", "convex"}
    assert [part.column for part in found.skipped_columns] == ["file"]


def test_what_travels_quotes_no_value_of_the_data_manifest():
    """A bundle goes to every device: names of hospitals or of patients in the manifest's further columns stay in the report."""
    found = judge(AcceptSpec(max_subgroup_flips=0.0), evidence(noise=0.3), replicates=FEW)
    (gate,) = [gate for gate in found.gates if gate.name == "subgroup_flips"]
    assert "probe = " in gate.explanation
    text = json.dumps(found.to_json())
    assert not any(word in text for word in ("linear", "convex", "probe"))
    travelling = {entry["name"]: entry for entry in found.to_json()["gates"]}
    assert (travelling["subgroup_flips"]["status"], travelling["subgroup_flips"]["value"]) == (gate.status, gate.value)
    assert travelling["flips"]["explanation"] == found.gates[2].explanation


def test_temperature_and_thresholds_are_those_of_val():
    """Each model's temperature is fitted on val, the threshold is the reference's there, and both are applied to test."""
    given = evidence()
    found = judge(AcceptSpec(), given, replicates=FEW)
    fitted, frozen = freeze_reference(given.val.reference, given.val.truth, BINARY, outputs=2)
    assert found.temperatures.reference == fitted
    assert fitted.reason == ""
    calibrated = probabilities(given.val.reference, BINARY, outputs=2, temperature=fitted.value)
    assert found.thresholds == frozen.thresholds == choose_thresholds(calibrated, given.val.truth, BINARY).thresholds
    assert found.temperature != fitted.value
    expected = probabilities(given.test.device, BINARY, outputs=2, temperature=found.temperature)
    assert np.array_equal(found.after.probability, expected)
    assert found.after.thresholds == found.before.thresholds == found.thresholds


def test_test_chooses_nothing():
    """Another test split leaves temperatures and thresholds as they are, and so does another device the reference's."""
    given = evidence()
    found = judge(AcceptSpec(), given, replicates=FEW)
    other = judge(AcceptSpec(), dataclasses.replace(given, test=split(BINARY, 2, seed=9, skill=0.5)), replicates=FEW)
    assert (other.temperatures, other.frozen) == (found.temperatures, found.frozen)
    device = dataclasses.replace(given, val=dataclasses.replace(given.val, device=3 * given.val.device))
    changed = judge(AcceptSpec(), device, replicates=FEW)
    assert (changed.temperatures.reference, changed.frozen) == (found.temperatures.reference, found.frozen)
    assert changed.temperature == pytest.approx(3 * found.temperature, rel=1e-6)


def test_a_device_on_another_scale_is_judged_by_its_calibrated_probabilities():
    """Logits three times as large are the same answers, the same sensitivity and the same calibration."""
    given = evidence(noise=0.0)
    larger = {name: dataclasses.replace(part, device=3 * part.device) for name, part in (("val", given.val), ("test", given.test))}
    found = judge(AcceptSpec(), dataclasses.replace(given, **larger), replicates=FEW)
    assert found.accepted
    assert found.operating_point[0].sensitivity.lost == found.operating_point[0].sensitivity.gained == 0
    assert found.ece.device == pytest.approx(found.ece.reference, abs=1e-9)
    assert found.ece.device_before != pytest.approx(found.ece.reference_before, abs=0.02)


def test_without_a_temperature_of_the_reference_the_device_has_none():
    """A val split that the reference separates: both stay at 1, so that the shared threshold means the same."""
    given = evidence(noise=0.3)
    val = dataclasses.replace(given.val, reference=8 * given.val.truth - 4.0)
    found = judge(AcceptSpec(), dataclasses.replace(given, val=val), replicates=FEW)
    assert (found.temperatures.reference.value, found.temperature) == (1.0, 1.0)
    assert "the reference has none" in found.temperatures.device.reason


def test_a_device_that_separates_val_takes_the_references():
    """Its own would be a border; the reference's is the one its logits imitate."""
    given = evidence()
    val = dataclasses.replace(given.val, device=8 * given.val.truth - 4.0)
    found = judge(AcceptSpec(), dataclasses.replace(given, val=val), replicates=FEW)
    assert found.temperature == found.temperatures.reference.value != 1.0
    assert "the reference's is used" in found.temperatures.device.reason


def test_a_student_with_another_number_of_outputs():
    """One logit on the reference, two on the device: the same meaning, so the same answers."""
    one = evidence(BINARY, 1, noise=0.0)
    halves = {
        name: dataclasses.replace(part, device=part.device / 2) for name, part in (("val", one.val), ("test", one.test))
    }  # softmax over (−z/2, z/2) is the sigmoid of z
    found = judge(AcceptSpec(), dataclasses.replace(one, outputs=2, reference_outputs=1, **halves), replicates=FEW)
    assert np.allclose(found.before.probability, found.after.probability)
    assert found.accepted


PLANTED = {
    "shuffled-head": lambda device: device[:, ::-1],
    "crushed-weights": lambda device: np.round(device / 4) * 4,
    "constant": lambda device: np.tile(np.float32([1.0, 0.0]), (len(device), 1)),
    "noise": lambda device: np.random.default_rng(0).normal(size=device.shape),
}


@pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED)
@pytest.mark.parametrize("new_network", [False, True])
def test_planted_failures_are_refused(plant, new_network):
    """Wrong heads, crushed weights, constants and noise: refused, and the gates that failed say what to try."""
    given = evidence(new_network=new_network)
    broken = {name: dataclasses.replace(part, device=plant(part.device)) for name, part in (("val", given.val), ("test", given.test))}
    found = judge(AcceptSpec(), dataclasses.replace(given, **broken), replicates=FEW)
    assert not found.accepted
    failed = {gate.name for gate in found.gates if not gate.passed}
    assert "auc_difference_lower_bound" in failed
    assert "harmful_flips" in failed
    assert all(gate.advice for gate in found.gates if gate.status != "passed")
    json.dumps(found.to_json(), allow_nan=False)


def test_a_threshold_that_misses_patients_fails_although_the_auc_does_not():
    """Logits of the test split shifted against val: the order stays, and the frozen threshold loses positive frames."""
    given = evidence()
    shifted = given.test.device + np.array([2.0, 0.0])
    found = judge(AcceptSpec(), dataclasses.replace(given, test=dataclasses.replace(given.test, device=shifted)), replicates=FEW)
    status = {gate.name: gate.status for gate in found.gates}
    assert status["auc_difference_lower_bound"] == "passed"
    assert status["sensitivity"] == "failed"


def test_new_networks_have_the_wider_default():
    """The same flips pass or fail by what the recipe makes."""
    old, new = (judge(AcceptSpec(), evidence(noise=0.35, new_network=value), replicates=FEW) for value in (False, True))
    bounds = [next(gate.bound for gate in found.gates if gate.name == "flips") for found in (old, new)]
    assert bounds == [0.02, 0.05]
    assert old.flips == new.flips


def test_budgets_come_last_and_can_refuse():
    """Where the recipe has one, and only then."""
    given = evidence(budgets=Budgets(latency_ms=5.0, size_bytes=10, host="this host"))
    assert [gate.name for gate in judge(AcceptSpec(), given, replicates=FEW).gates] == NAMES
    found = judge(AcceptSpec(max_latency_ms=4.0), given, replicates=FEW)
    assert (found.gates[-1].name, found.accepted) == ("latency_ms", False)


def test_the_same_evidence_gives_the_same_verdict():
    """Every draw has a seed."""
    one, other = (judge(AcceptSpec(), evidence(), replicates=FEW).to_json() for _ in range(2))
    assert one == other


def test_broken_logits_are_a_model_error():
    """NaN on val or on test."""
    given = evidence()
    for name, part in (("val", given.val), ("test", given.test)):
        device = part.device.copy()
        device[5, 0] = np.nan
        with pytest.raises(ModelError, match="NaN"):
            judge(AcceptSpec(), dataclasses.replace(given, **{name: dataclasses.replace(part, device=device)}), replicates=FEW)


def test_frames_that_do_not_match_are_refused():
    """Logits of other frames, or groups that are too few."""
    part = split(BINARY, 2, frames=20)
    for change in ({"device": part.device[:-1]}, {"groups": part.groups[:-1]}, {"truth": part.truth[:-1]}):
        with pytest.raises(ValueError, match="shapes differ"):
            dataclasses.replace(part, **change)
