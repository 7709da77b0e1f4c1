"""The acceptance gates, at, above and below their bounds."""

from __future__ import annotations

import pytest

from edgekit.errors import CatalogError
from edgekit.evaluation.delong import AucDifference
from edgekit.evaluation.gates import GateResult, apply_gates
from edgekit.evaluation.paired import Flips
from edgekit.schema.accept import AcceptSpec
from edgekit.schema.decode import decode


def difference(bound, reason=""):
    return AucDifference(
        reference_auc=0.95, device_auc=0.949, difference=-0.001, standard_error=0.002, lower_bound=bound, method="delong", reason=reason
    )


def flips(*, harmful=0, helpful=0, neither=0, frames=1000):
    return Flips(
        frames=frames,
        harmful=tuple(range(harmful)),
        helpful=tuple(range(harmful, harmful + helpful)),
        neither=tuple(range(500, 500 + neither)),
    )


def passed(spec, bound, changed):
    return {gate.name: gate.passed for gate in apply_gates(spec, difference(bound), changed)}


def test_a_good_model_passes_every_gate():
    """Names, values and bounds are what scripts read."""
    gates = apply_gates(AcceptSpec(), difference(-0.005), flips(harmful=4, helpful=3, neither=2))
    assert [(gate.name, gate.value, gate.bound, gate.passed) for gate in gates] == [
        ("auc_difference_lower_bound", -0.005, -0.01, True),
        ("harmful_flips", 0.004, 0.01, True),
        ("flips", 0.009, 0.02, True),
    ]


@pytest.mark.parametrize(("bound", "expected"), [(-0.0099, True), (-0.01, False), (-0.02, False), (0.01, True)])
def test_the_auc_bound_must_be_above_the_margin(bound, expected):
    """At the margin is not above it."""
    assert passed(AcceptSpec(), bound, flips())["auc_difference_lower_bound"] is expected


@pytest.mark.parametrize(
    ("harmful", "helpful", "expected"), [(10, 10, (True, True)), (11, 0, (False, True)), (0, 21, (True, False)), (11, 10, (False, False))]
)
def test_flips_may_reach_their_bound(harmful, helpful, expected):
    """A share at the bound passes; harmful flips count in both gates."""
    found = passed(AcceptSpec(), 0.0, flips(harmful=harmful, helpful=helpful))
    assert (found["harmful_flips"], found["flips"]) == expected


def test_what_cannot_be_computed_fails():
    """No AUC and no frames are a refusal with value None, and the reason is said."""
    gates = apply_gates(AcceptSpec(), difference(None, "a label has only one outcome among these frames"), flips(frames=0))
    assert [(gate.value, gate.passed) for gate in gates] == [(None, False)] * 3
    assert "only one outcome" in gates[0].explanation


def test_every_gate_explains_itself_in_one_sentence():
    """The report prints it as it is."""
    for bound, changed in ((-0.005, flips(harmful=1)), (-0.5, flips(harmful=300)), (None, flips(frames=0))):
        for gate in apply_gates(AcceptSpec(), difference(bound), changed):
            assert gate.explanation.endswith(".")
            assert "nan" not in gate.explanation.lower()
    assert (
        "12 of 1000 frames (1.20%) become wrong on the device, more than"
        in apply_gates(AcceptSpec(), difference(0.0), flips(harmful=12))[1].explanation
    )


@pytest.mark.parametrize(
    "table",
    [
        {"auc_margin": 0.0},
        {"auc_margin": -0.01},
        {"auc_margin": 0.6},
        {"max_flips": -0.1},
        {"max_flips": 1.5},
        {"max_harmful_flips": 2},
        {"max_flip": 0.1},
        {"sensitivity_margin": 0.0},
        {"specificity_margin": 0.51},
        {"max_net_harm": -0.1},
        {"max_subgroup_flips": 1.1},
        {"subgroup_minimum": 0},
        {"max_ece_increase": 2.0},
        {"max_latency_ms": 0.0},
        {"max_size_mb": -1.0},
    ],
)
def test_impossible_bounds_are_refused(table):
    """A gate that nothing could fail, or a misspelt one, is no gate."""
    with pytest.raises(CatalogError, match=r"recipe\.toml"):
        decode(AcceptSpec, table, where="recipe.toml", error=CatalogError)


def test_the_defaults_are_the_documented_ones():
    """`[accept]` without keys."""
    found = decode(AcceptSpec, {}, where="r", error=CatalogError)
    assert found == AcceptSpec(
        enforce=True,
        auc_margin=0.01,
        sensitivity_margin=0.05,
        specificity_margin=0.05,
        require_demonstrated=False,
        max_harmful_flips=0.01,
        max_flips=None,
        max_net_harm=0.005,
        max_subgroup_flips=None,
        subgroup_minimum=50,
        max_ece_increase=0.02,
        max_latency_ms=None,
        max_size_mb=None,
        threshold_split="val",
    )


@pytest.mark.parametrize(
    ("stated", "new_network", "allowed"), [(None, False, 0.02), (None, True, 0.05), (0.1, False, 0.1), (0.1, True, 0.1), (0.0, True, 0.0)]
)
def test_a_new_network_may_flip_more_unless_the_recipe_says(stated, new_network, allowed):
    """The default depends on the network; a stated limit does not, and 0 is one."""
    spec = AcceptSpec(max_flips=stated)
    assert spec.flips_allowed(new_network) == allowed
    gate = apply_gates(spec, difference(0.0), flips(helpful=30), new_network=new_network)[2]
    assert (gate.bound, gate.passed) == (allowed, allowed >= 0.03)


def test_a_failed_gate_says_what_to_try_and_a_passed_one_nothing():
    """Rungs for the trained network, the knobs of pruning and training for a new one, frames where nothing can be computed."""
    for gate in apply_gates(AcceptSpec(), difference(-0.001), flips(harmful=1)):
        assert (gate.status, gate.advice) == ("passed", "")
    auc, harmful, _ = apply_gates(AcceptSpec(), difference(-0.05), flips(harmful=300))
    assert (auc.status, harmful.status) == ("failed", "failed")
    assert "more test frames" in auc.advice  # the change itself is within the margin
    assert '"qat" to compress.quantize.ladder' in harmful.advice
    assert "more test frames" not in harmful.advice
    assert (
        "compress.prune (latency_target or macs_target)"
        in apply_gates(AcceptSpec(), difference(0.0), flips(harmful=300), new_network=True)[1].advice
    )
    assert "more test frames" in apply_gates(AcceptSpec(), difference(None), flips(frames=0))[0].advice


def test_a_limit_that_the_frames_cannot_resolve_is_said():
    """One of fifty frames is more than one per cent."""
    gate = apply_gates(AcceptSpec(), difference(0.0), flips(harmful=1, frames=50))[1]
    assert gate.status == "failed"
    assert "a single one is more than that" in gate.explanation
    assert "more test frames" in gate.advice


def unchanged(groups, change=0.0):
    return AucDifference(
        reference_auc=0.99,
        device_auc=0.99 + change,
        difference=change,
        standard_error=0.0,
        lower_bound=change,
        method="bootstrap",
        reason="DeLong's variance is zero",
        fewest_groups=groups,
        undetected=1 - 0.025 ** (1 / groups),
    )


@pytest.mark.parametrize(("groups", "status"), [(12, "not demonstrated"), (367, "not demonstrated"), (368, "passed"), (5000, "passed")])
def test_frames_on_which_nothing_changed_prove_as_much_as_there_are_groups(groups, status):
    """No bound of +0.0000: what may have fallen unseen is in the value, and too few groups are said, with how many it takes."""
    gate = apply_gates(AcceptSpec(), unchanged(groups), flips())[0]
    assert (gate.status, gate.passed) == (status, True)
    assert gate.value == pytest.approx(0.025 ** (1 / groups) - 1)
    assert "Nothing changed the AUC on these frames" in gate.explanation
    assert ("would take 368 groups" in gate.explanation, "368 groups" in gate.advice) == ((status != "passed"),) * 2
    required = apply_gates(AcceptSpec(require_demonstrated=True), unchanged(groups), flips())[0]
    assert required.status == ("passed" if status == "passed" else "failed")


def test_a_change_that_every_group_shares_is_counted_too():
    """Alike is not small: a loss beyond the margin fails, one within it takes more groups."""
    assert apply_gates(AcceptSpec(), unchanged(5000, -0.02), flips())[0].status == "failed"
    gate = apply_gates(AcceptSpec(), unchanged(500, -0.005), flips())[0]
    assert (gate.status, gate.value) == ("not demonstrated", pytest.approx(-0.005 - (1 - 0.025 ** (1 / 500))))
    assert "736 groups" in gate.explanation
    assert "Every group changed the AUC alike, by -0.0050 in all" in gate.explanation


def test_one_group_is_refused_with_the_reason():
    """A known difference without a bound shows nothing."""
    gate = apply_gates(AcceptSpec(), difference(None, "all frames are of one group"), flips())[0]
    assert (gate.value, gate.status) == (None, "failed")
    assert "because all frames are of one group" in gate.explanation


def test_status_and_passed_agree():
    """A gate cannot fail and let a model through."""
    with pytest.raises(ValueError, match="passed = True"):
        GateResult(name="flips", value=1.0, bound=0.0, passed=True, explanation="", status="failed", advice="")


@pytest.mark.parametrize("split", ["test", "train", "calib", ""])
def test_a_threshold_is_chosen_on_val_only(split):
    """A recipe that would choose it on the frames that prove it is refused, and the message says why."""
    with pytest.raises(CatalogError, match="frames that prove nothing"):
        decode(AcceptSpec, {"threshold_split": split}, where="recipe.toml", error=CatalogError)
    assert decode(AcceptSpec, {"threshold_split": "val"}, where="recipe.toml", error=CatalogError) == AcceptSpec()
