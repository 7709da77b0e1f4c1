"""McNemar's test: published tables, the definition by enumeration, and its size by simulation where frames are clustered."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import binomtest, chi2  # noqa: TID253 - the cross-check

from edgekit.evaluation.mcnemar import exact_p_values, exchange_p_value, mcnemar, obuchowski_p_value
from edgekit.evaluation.metrics import Outcomes
from edgekit.schema.model_io import OutputSpec

BINARY = OutputSpec(labels=("n", "p"), task="binary", positive="p")
MULTILABEL = OutputSpec(labels=("x", "y"), task="multilabel")

PUBLISHED = {
    # Fagerland, Lydersen & Laake 2014 (Bentur et al. 2009): airway responsiveness of 21 children before and after a transplantation.
    "bentur": (1, 7, 0.0703, 0.0391, 4),
    # Fagerland, Lydersen & Laake 2017, chapter 8 (Cavo et al. 2012): response before and after consolidation therapy, 161 patients.
    "cavo": (6, 16, 0.052479, 0.034690, 6),
}


@pytest.mark.parametrize(("harmful", "helpful", "exact", "mid", "digits"), PUBLISHED.values(), ids=PUBLISHED)
def test_published_tables(harmful, helpful, exact, mid, digits):
    """The exact and the mid-p value as published."""
    assert exact_p_values(harmful, helpful) == (pytest.approx(exact, abs=10.0**-digits), pytest.approx(mid, abs=10.0**-digits))


def test_approval_ratings():
    """Agresti's table of 1600 voters (150 against 86 changed): the test is Obuchowski's with every voter a cluster, and McNemar's z² is 17.36."""
    net = np.concatenate([np.ones(150), -np.ones(86), np.zeros(1600 - 236)])
    assert obuchowski_p_value(net) == pytest.approx(chi2.sf(17.3559 * 1599 / 1600, 1), rel=1e-4)
    assert exact_p_values(150, 86)[0] == pytest.approx(binomtest(86, 236).pvalue)


@pytest.mark.parametrize(("harmful", "helpful"), [(0, 0), (1, 0), (3, 3), (2, 9), (400, 300)])
def test_the_exact_test_is_the_binomial(harmful, helpful):
    """Two-sided with one half; without a discordant pair it is 1, and the mid-p value is never larger."""
    exact, mid = exact_p_values(harmful, helpful)
    total = harmful + helpful
    assert exact == pytest.approx(binomtest(harmful, total).pvalue if total else 1.0)
    assert mid <= exact
    assert mid == 1.0 if not total else mid > 0


def test_the_mid_p_value_of_equal_counts():
    """Fagerland et al. 2013: one minus half the probability of what was observed."""
    assert exact_p_values(2, 2)[1] == pytest.approx(1 - 6 / 16 / 2)


@pytest.mark.parametrize("net", [[3, -1, 2], [1, 1, 1, -1], [5], [2, -2], [4, 1, 1, -3, 2]])
def test_the_clustered_test_is_every_exchange_of_signs(net):
    """The share of all sign patterns whose sum is at least as far from 0."""
    sizes = np.abs(net)
    sums = [abs(int(np.dot(signs, sizes))) for signs in itertools.product((-1, 1), repeat=len(net))]
    assert exchange_p_value(np.array(net, dtype=float)) == pytest.approx(np.mean(np.array(sums) >= abs(sum(net))))


@pytest.mark.parametrize(("harmful", "helpful"), [(1, 7), (6, 16), (5, 5)])
def test_one_frame_a_group_is_mcnemars(harmful, helpful):
    """The clustered test includes the exact one."""
    net = np.concatenate([np.ones(harmful), -np.ones(helpful), np.zeros(50)])
    assert exchange_p_value(net) == pytest.approx(exact_p_values(harmful, helpful)[0])


def test_obuchowskis_statistic_by_its_variances():
    """Obuchowski 1998 written out: the difference of two clustered proportions over its variance with both at their mean."""
    random = np.random.default_rng(0)
    sizes = random.integers(1, 8, 30)
    first, second = random.binomial(sizes, 0.7), random.binomial(sizes, 0.5)
    total, clusters = sizes.sum(), len(sizes)
    pooled = (first.sum() + second.sum()) / (2 * total)
    a, b = first - sizes * pooled, second - sizes * pooled
    scale = clusters / (clusters - 1) / total**2
    variance = scale * ((a**2).sum() + (b**2).sum() - 2 * (a * b).sum())
    statistic = ((first.sum() - second.sum()) / total) ** 2 / variance
    assert obuchowski_p_value((first - second).astype(float)) == pytest.approx(chi2.sf(statistic, 1), rel=1e-6)


def answered(right, truth):
    probability = np.where(right == truth, 0.9, 0.1)
    return Outcomes(
        probability=np.stack([1 - probability, probability], 1), truth=np.stack([~truth, truth], 1), output=BINARY, thresholds={}
    )


def test_it_counts_frames_and_says_which_test_it_reports():
    """One frame a group: exact; several: clustered, over the groups."""
    truth = np.arange(8) % 2 == 0
    reference, device = np.array([1, 1, 1, 1, 0, 0, 1, 1], bool), np.array([0, 0, 0, 1, 1, 0, 1, 1], bool)
    alone = mcnemar(answered(reference, truth), answered(device, truth), groups=[f"p{i}" for i in range(8)])
    assert (alone.test, alone.unit, alone.pairs, alone.harmful, alone.helpful, alone.groups) == ("exact", "frames", 8, 3, 1, 8)
    assert alone.p_value == alone.exact_p_value == 0.625
    grouped = mcnemar(answered(reference, truth), answered(device, truth), groups=list("aaabbccc"))
    assert (grouped.test, grouped.groups, grouped.p_value) == ("clustered", 3, exchange_p_value(np.array([3.0, -1.0])))
    assert grouped.exact_p_value == alone.exact_p_value


def test_multilabel_pairs_are_labels_of_frames():
    """A frame with one label better and one worse is one pair of each, and the frame's labels are clustered."""
    truth = np.ones((4, 2), bool)
    first, second = np.array([[0.9, 0.1]] * 4), np.array([[0.1, 0.9], [0.9, 0.1], [0.9, 0.1], [0.9, 0.1]])
    models = [Outcomes(probability=p, truth=truth, output=MULTILABEL, thresholds={}) for p in (first, second)]
    found = mcnemar(*models, groups=list("abcd"))
    assert (found.unit, found.pairs, found.harmful, found.helpful, found.test, found.p_value) == (
        "labels of frames",
        8,
        1,
        1,
        "clustered",
        1.0,
    )


def test_models_on_different_frames_are_refused():
    """A pairing that is none must not give a number."""
    truth = np.arange(4) % 2 == 0
    with pytest.raises(ValueError, match="same frames"):
        mcnemar(answered(truth, truth), answered(truth, ~truth), groups=list("abcd"))


def test_clustered_frames_do_not_reject_too_often():
    """Equal models whose frames change together by patient: the clustered test rejects in at most 5 % of samples, the naive one in many more."""
    random = np.random.default_rng(3)
    clustered, naive = [], []
    for _ in range(400):
        patients = random.choice([-5.0, 0.0, 5.0], p=[0.15, 0.7, 0.15], size=40)
        clustered.append(exchange_p_value(patients))
        naive.append(exact_p_values(int(-patients[patients < 0].sum()), int(patients[patients > 0].sum()))[0])
    assert np.mean(np.array(clustered) < 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
    assert np.mean(np.array(naive) < 0.05) > 0.2
