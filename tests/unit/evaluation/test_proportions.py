"""Paired differences of sensitivity and specificity: published intervals, statuses, and by simulation coverage and false demonstrations."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar  # noqa: TID253 - the cross-check
from scipy.stats import t as student  # noqa: TID253 - the cross-check

from edgekit.evaluation.exact import student_quantile
from edgekit.evaluation.metrics import Outcomes
from edgekit.evaluation.proportions import design_effect, operating_points, paired_difference, tango_interval
from edgekit.schema.model_io import OutputSpec

Z = NormalDist().inv_cdf(0.975)
BINARY = OutputSpec(labels=("n", "p"), task="binary", positive="p")
MULTICLASS = OutputSpec(labels=("a", "b", "c"), task="multiclass")
MULTILABEL = OutputSpec(labels=("x", "y"), task="multilabel")

PUBLISHED = {
    # Fagerland, Lydersen & Laake 2014 (Bentur et al. 2009).
    "bentur": (1, 7, 21, (-0.517, -0.026), 3),
    # Fagerland, Lydersen & Laake 2017, chapter 8 (Cavo et al. 2012).
    "cavo": (6, 16, 161, (-0.1240, -0.0054), 4),
}


@pytest.mark.parametrize(("first", "second", "total", "limits", "digits"), PUBLISHED.values(), ids=PUBLISHED)
def test_published_intervals(first, second, total, limits, digits):
    """Tango's interval as published."""
    assert tango_interval(first, second, total, quantile=Z) == pytest.approx(limits, abs=0.6 * 10.0**-digits)


@pytest.mark.parametrize(("first", "second", "total"), [(3, 8, 60), (0, 4, 44), (25, 28, 618), (1, 0, 12)])
def test_the_interval_is_the_score_tests(first, second, total):
    """Where (b − c − nΔ)² / variance, at the numerically most likely cells under Δ, is z²."""

    def statistic(delta):
        def deviance(q):
            p = q + delta
            rest = 1 - p - q
            cells = [(first, p), (second, q), (total - first - second, rest)]
            return -sum(count * np.log(max(share, 1e-300)) for count, share in cells if count)

        q = minimize_scalar(deviance, bounds=(max(0, -delta), (1 - delta) / 2), method="bounded", options={"xatol": 1e-12}).x
        return (first - second - total * delta) / np.sqrt(total * (2 * q + delta - delta**2))

    estimate = (first - second) / total
    low, high = tango_interval(first, second, total, quantile=Z)
    assert low == pytest.approx(brentq(lambda d: statistic(d) - Z, -0.9, estimate), abs=2e-4)
    assert high == pytest.approx(brentq(lambda d: statistic(d) + Z, estimate, 0.9), abs=2e-4)


@pytest.mark.parametrize("total", [5, 31, 640])
def test_no_change_still_has_a_bound(total):
    """±z² / (n + z²): few frames prove little, even when none changes."""
    bound = Z**2 / (total + Z**2)
    assert tango_interval(0, 0, total, quantile=Z) == (pytest.approx(-bound), pytest.approx(bound))


def test_every_frame_changed_stays_in_the_range():
    """The interval ends at −1."""
    low, high = tango_interval(0, 5, 5, quantile=Z)
    assert low == -1.0
    assert -1 < high < 0


@pytest.mark.parametrize("degrees", [1, 2, 9, 250])
def test_students_quantile(degrees):
    """As scipy has it."""
    assert student_quantile(degrees) == pytest.approx(student.ppf(0.975, degrees), rel=1e-9)


def changed(frames, *, lost, gained=0, wrong=5, group=None):
    """(reference right, device right, group of each frame), the changed frames first."""
    reference, device = np.ones(frames, bool), np.ones(frames, bool)
    reference[lost : lost + gained] = False
    device[:lost] = False
    reference[frames - wrong :] = device[frames - wrong :] = False
    return reference, device, np.arange(frames) if group is None else np.arange(frames) // group


STATUSES = {
    "nothing-changed-in-many": (changed(200, lost=0), "demonstrated"),
    "nothing-changed-in-few": (changed(31, lost=0, wrong=2), "not demonstrated"),
    "few-lost-of-many": (changed(640, lost=8, gained=2), "demonstrated"),
    "some-lost": (changed(200, lost=6), "not demonstrated"),
    "as-many-gained": (changed(200, lost=20, gained=20), "not demonstrated"),
    "more-than-the-margin": (changed(200, lost=12), "worse"),
    "clearly-more": (changed(200, lost=60), "worse"),
    "one-of-ten": (changed(10, lost=1, wrong=1), "not demonstrated"),
    "one-of-ten-net": (changed(10, lost=2, gained=1, wrong=1), "not demonstrated"),
    "two-of-ten": (changed(10, lost=2, wrong=1), "worse"),
    "four-of-nineteen": (changed(19, lost=4, wrong=1), "worse"),
    "nine-of-ten": (changed(10, lost=9, wrong=1), "worse"),
    "better": (changed(200, lost=0, gained=12), "demonstrated"),
}


@pytest.mark.parametrize(("case", "status"), STATUSES.values(), ids=STATUSES)
def test_statuses(case, status):
    """Margin 0.05: the bound clears it, the frames cannot tell, or the loss is larger; one frame of ten is no evidence of a loss, two are."""
    found = paired_difference(*case, margin=0.05)
    assert found.status == status
    assert (found.lower_bound > -0.05) == (status == "demonstrated")
    assert found.low == found.lower_bound <= found.difference <= found.high
    assert found.difference == pytest.approx(found.device - found.reference)
    assert (found.frames_needed is None) == (status != "not demonstrated" or found.difference <= -0.05)


def test_the_margin_itself_is_not_cleared():
    """A loss of exactly the margin is neither demonstrated nor more than it."""
    found = paired_difference(*changed(200, lost=10), margin=0.05)
    assert (found.difference, found.status, found.frames_needed) == (-0.05, "not demonstrated", None)


def test_the_frames_needed_demonstrate_it_four_times_of_five():
    """Fresh test splits of that size, at the observed rates, are demonstrated in about 80 %."""
    found = paired_difference(*changed(150, lost=4, gained=2), margin=0.05)
    assert found.status == "not demonstrated"
    random = np.random.default_rng(0)
    draws = random.multinomial(found.frames_needed, [4 / 150, 2 / 150, 144 / 150], size=400)
    proven = [tango_interval(gained, lost, found.frames_needed, quantile=Z)[0] > -0.05 for lost, gained, _ in draws]
    assert np.mean(proven) == pytest.approx(0.8, abs=0.08)
    nothing = paired_difference(*changed(31, lost=0, wrong=2), margin=0.05)
    assert (
        tango_interval(0, 0, nothing.frames_needed, quantile=Z)[0] >= -0.05 > tango_interval(0, 0, nothing.frames_needed - 1, quantile=Z)[0]
    )


def test_frames_that_change_together_count_as_one():
    """Ten frames a patient that change together: the interval is nearly that of patients, and it takes ten times the frames."""
    reference, device = np.ones(600, bool), np.repeat(np.arange(60) >= 6, 10)
    grouped = paired_difference(reference, device, np.arange(600) // 10, margin=0.2)
    alone = paired_difference(reference, device, np.arange(600), margin=0.2)
    assert alone.design_effect == 1.0
    assert grouped.design_effect == pytest.approx(10 * 60 / 59)
    assert grouped.groups == 60
    assert grouped.low < tango_interval(0, 6, 60, quantile=Z)[0] < alone.low


def test_the_design_effect_by_its_definition():
    """Variance over groups (Obuchowski 1998) over that of independent frames."""
    random = np.random.default_rng(1)
    sizes = random.integers(1, 9, 50).astype(float)
    net = np.array([random.integers(-size, size + 1) if random.random() < 0.4 else 0 for size in sizes.astype(int)], dtype=float)
    frames, difference = sizes.sum(), net.sum() / sizes.sum()
    over = 50 / 49 * sum((n - s * difference) ** 2 for n, s in zip(net, sizes, strict=True)) / frames**2
    independent = (np.abs(net).sum() / frames - difference**2) / frames
    assert design_effect(sizes, net, np.abs(net)) == pytest.approx(max(1.0, over / independent))


@pytest.mark.parametrize("changed_groups", [0, 1, 4])
def test_too_few_changes_to_know_count_patients(changed_groups):
    """The largest effect there can be: Σ n² / Σ n; one lost frame must not prove more than none."""
    net = np.zeros(20)
    net[:changed_groups] = -1
    assert design_effect(np.full(20, 5.0), net, np.abs(net)) == 5.0


def test_no_frames_have_no_difference():
    """A label that no frame carries has no sensitivity."""
    none = np.zeros(0, bool)
    found = paired_difference(none, none, np.zeros(0, int), margin=0.05)
    assert (found.frames, found.difference, found.low, found.status, found.frames_needed) == (0, None, None, "not demonstrated", None)


def test_one_group_proves_nothing():
    """Any number of frames of one patient leave the whole range open."""
    found = paired_difference(*changed(300, lost=0, group=300), margin=0.05)
    assert (found.low, found.high, found.status) == (-1.0, 1.0, "not demonstrated")


def outcomes(probability, truth, output, thresholds):
    return Outcomes(probability=np.array(probability), truth=np.array(truth, bool), output=output, thresholds=thresholds)


def names(count):
    return [f"p{index}" for index in range(count)]


def test_the_frozen_threshold_decides():
    """At 0.3 the device loses one positive frame that the argmax calls negative on both; a probability at the threshold is positive."""
    truth = [[0, 1], [0, 1], [1, 0], [1, 0]]
    before = outcomes([[0.65, 0.35], [0.2, 0.8], [0.9, 0.1], [0.8, 0.2]], truth, BINARY, {"p": 0.3})
    after = outcomes([[0.75, 0.25], [0.7, 0.3], [0.9, 0.1], [0.65, 0.35]], truth, BINARY, {"p": 0.3})
    (point,) = operating_points(before, after, groups=names(4), sensitivity_margin=0.05, specificity_margin=0.1)
    assert (point.label, point.threshold) == ("p", 0.3)
    assert (point.sensitivity.reference, point.sensitivity.device, point.sensitivity.lost, point.sensitivity.margin) == (1.0, 0.5, 1, 0.05)
    assert (point.specificity.reference, point.specificity.device, point.specificity.frames, point.specificity.margin) == (1.0, 0.5, 2, 0.1)


def test_labels_that_have_a_point():
    """Multilabel: every label at its own threshold; multiclass without a positive label: every label by the answers, without a threshold."""
    many = outcomes([[0.6, 0.2], [0.4, 0.2]], [[1, 0], [0, 0]], MULTILABEL, {"x": 0.5, "y": 0.1})
    points = operating_points(many, many, groups=names(2), sensitivity_margin=0.05, specificity_margin=0.05)
    assert [(point.label, point.threshold, point.sensitivity.frames) for point in points] == [("x", 0.5, 1), ("y", 0.1, 0)]
    single = outcomes([[0.5, 0.3, 0.2]], [[1, 0, 0]], MULTICLASS, {})
    points = operating_points(single, single, groups=names(1), sensitivity_margin=0.05, specificity_margin=0.05)
    assert [(point.label, point.threshold, point.specificity.reference) for point in points] == [
        ("a", None, None),
        ("b", None, 1.0),
        ("c", None, 1.0),
    ]


def test_different_thresholds_or_frames_are_refused():
    """A frozen threshold is shared, and a pairing that is none gives no number."""
    truth = [[0, 1], [1, 0]]
    one, other = (outcomes([[0.4, 0.6]] * 2, truth, BINARY, {"p": t}) for t in (0.5, 0.6))
    with pytest.raises(ValueError, match="thresholds"):
        operating_points(one, other, groups=names(2), sensitivity_margin=0.05, specificity_margin=0.05)
    turned = outcomes([[0.4, 0.6]] * 2, truth[::-1], BINARY, {"p": 0.5})
    with pytest.raises(ValueError, match="same frames"):
        operating_points(one, turned, groups=names(2), sensitivity_margin=0.05, specificity_margin=0.05)


def simulated(random, *, frames, per_group, loss, gain, together):
    """Frames of patients; a patient's frames change together with the probability `together`, else each on its own."""
    groups = np.arange(frames) // per_group
    count = groups.max() + 1
    own, common = random.random(frames), random.random(count)[groups]
    uniform = np.where((random.random(count) < together)[groups], common, own)
    reference, device = np.ones(frames, bool), np.ones(frames, bool)
    device[uniform < loss] = False
    reference[uniform > 1 - gain] = False
    return reference, device, groups


def coverage(runs, **world):
    """(share of intervals that hold the true difference, share demonstrated with a margin of exactly the true loss)."""
    random, true = np.random.default_rng(5), world["gain"] - world["loss"]
    found = [paired_difference(*simulated(random, **world), margin=-true) for _ in range(runs)]
    return np.mean([part.low <= true <= part.high for part in found]), np.mean([part.status == "demonstrated" for part in found])


WORLDS = {
    "one-frame-a-group": {"frames": 200, "per_group": 1, "loss": 0.08, "gain": 0.03, "together": 0.0},
    "groups-of-independent-frames": {"frames": 400, "per_group": 4, "loss": 0.08, "gain": 0.03, "together": 0.0},
    "groups-that-change-together": {"frames": 800, "per_group": 8, "loss": 0.08, "gain": 0.03, "together": 0.6},
    "all-frames-together": {"frames": 600, "per_group": 10, "loss": 0.12, "gain": 0.04, "together": 1.0},
}


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_coverage_and_false_demonstrations(world):
    """95 % of the intervals hold the truth, and a loss of exactly the margin is demonstrated away in 2.5 %, both up to chance."""
    runs = 250
    covered, wrong = coverage(runs, **world)
    assert covered >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / runs)
    assert wrong <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / runs)


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_coverage_and_false_demonstrations_at_length(world):
    """The same with a chance error of a fifth of a per cent."""
    runs = 5000
    covered, wrong = coverage(runs, **world)
    assert covered >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / runs) - 0.005  # a score interval is not exact
    assert wrong <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / runs) + 0.005
