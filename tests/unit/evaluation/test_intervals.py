"""Intervals that respect groups, their exact form, and the evaluation that carries them."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from scipy import stats  # noqa: TID253 - the cross-check

from edgekit.evaluation.evaluate import evaluate
from edgekit.evaluation.exact import beta_quantile, clopper_pearson, incomplete_beta
from edgekit.evaluation.intervals import bootstrap, figure, group_indices
from edgekit.evaluation.metrics import CLASS_FIGURES, FIGURES, Outcomes
from edgekit.schema.model_io import OutputSpec

BINARY = OutputSpec(labels=("normal", "pneumonia"), task="binary", positive="pneumonia")
MULTICLASS = OutputSpec(labels=("a", "b", "c"), task="multiclass")
MULTILABEL = OutputSpec(labels=("x", "y"), task="multilabel")


def binary(p, truth, thresholds=None):
    p, truth = np.asarray(p, float), np.asarray(truth, bool)
    return Outcomes(probability=np.stack([1 - p, p], 1), truth=np.stack([~truth, truth], 1), output=BINARY, thresholds=thresholds or {})


@pytest.mark.parametrize("a", [0.5, 1, 3.7, 40, 2500])
@pytest.mark.parametrize("b", [0.5, 1, 8.2, 1000])
def test_the_beta_function_and_its_inverse_equal_scipys(a, b):
    """Without scipy at run time, to ten digits."""
    for x in (1e-6, 0.01, 0.3, a / (a + b), 0.9, 0.9999):
        assert incomplete_beta(x, a, b) == pytest.approx(stats.beta.cdf(x, a, b), rel=1e-9, abs=1e-14)
    for p in (0.025, 0.5, 0.975):
        assert beta_quantile(p, a, b) == pytest.approx(stats.beta.ppf(p, a, b), rel=1e-9, abs=1e-14)


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (1, 1), (0, 30), (30, 30), (7, 30), (875, 876), (3, 5)])
def test_clopper_pearson_equals_scipys(successes, trials):
    """The exact limits of a proportion."""
    exact = stats.binomtest(successes, trials).proportion_ci(0.95, method="exact")
    assert clopper_pearson(successes, trials) == pytest.approx((exact.low, exact.high), abs=1e-10)


@pytest.mark.parametrize(("successes", "trials"), [(-1, 5), (6, 5), (0, 0), (float("nan"), 5)])
def test_impossible_proportions_are_refused(successes, trials):
    """More successes than trials is a fault of the caller."""
    with pytest.raises(ValueError, match="successes"):
        clopper_pearson(successes, trials)


def test_whole_groups_are_drawn():
    """All frames of a group have one weight, and the weights of the groups sum to their number."""
    index = group_indices(["p2", "p1", "p2", "p3", "p1", "p2"])
    assert index.tolist() == [1, 0, 1, 2, 0, 1]
    weights = bootstrap(lambda weights: {"w": weights}, index, replicates=500, seed=1)["w"]
    assert weights.shape == (500, 6)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 1] == weights[:, 4]).all()
    assert (weights[:, [0, 1, 3]].sum(1) == 3).all()
    assert weights[:, 3].mean() == pytest.approx(1, abs=0.15)
    assert weights[:, 3].var() == pytest.approx(2 / 3, abs=0.15)  # binomial (3, 1/3)


def test_slices_join_to_all_replicates(monkeypatch):
    """Many frames are drawn in slices of bounded memory."""
    monkeypatch.setattr("edgekit.evaluation.intervals._SLICE", 50)
    shapes = []

    def statistic(weights):
        shapes.append(weights.shape)
        return {"sum": weights.sum(1)}

    draws = bootstrap(statistic, np.arange(20), replicates=7, seed=0)
    assert shapes == [(2, 20), (2, 20), (2, 20), (1, 20)]
    assert (draws["sum"] == 20).all()


def test_the_interval_of_a_mean_is_the_normal_one():
    """With many groups of one frame the interval of the accuracy is ±1.96 standard errors."""
    random = np.random.default_rng(0)
    truth = random.random(2000) < 0.5
    p = np.where(random.random(2000) < 0.8, truth, ~truth) * 0.8 + 0.1
    accuracy = evaluate(binary(p, truth), groups=[str(i) for i in range(2000)]).figures["accuracy"]
    error = np.sqrt(accuracy.value * (1 - accuracy.value) / 2000)
    assert (accuracy.value - accuracy.low, accuracy.high - accuracy.value) == pytest.approx((1.96 * error, 1.96 * error), rel=0.1)


def test_groups_widen_the_interval():
    """Ten equal frames a patient hold the information of one."""
    random = np.random.default_rng(1)
    truth = np.repeat(random.random(100) < 0.5, 10)
    p = np.clip(np.repeat(np.where(random.random(100) < 0.8, 1.0, 0.0), 10) * (truth * 0.8 + 0.1) + 0.05, 0, 1)
    grouped, alone = (
        evaluate(binary(p, truth), groups=groups).figures["accuracy"]
        for groups in ([str(i // 10) for i in range(1000)], [str(i) for i in range(1000)])
    )
    assert (grouped.high - grouped.low) / (alone.high - alone.low) == pytest.approx(np.sqrt(10), rel=0.15)


def test_figures_that_never_vary_get_exact_limits_over_their_groups():
    """A perfect model on 8 patients with and 4 without pneumonia: each figure rests on the groups it could have failed on."""
    truth = np.repeat([True] * 8 + [False] * 4, 5)
    found = evaluate(binary(np.where(truth, 0.9, 0.1), truth), groups=[str(i // 5) for i in range(60)]).figures
    rests = {"accuracy": 12, "sensitivity": 8, "recall": 8, "precision": 8, "f1": 8, "specificity": 4, "auc": 4, "balanced_accuracy": 4}
    for name, groups in rests.items():
        item = found[name]
        assert (item.value, item.low, item.high) == (1.0, pytest.approx(clopper_pearson(groups, groups)[0]), 1.0), name


def test_one_patient_is_no_evidence():
    """With one group every draw is the same; the interval is that of one trial, not of width zero."""
    found = evaluate(binary([0.9, 0.9, 0.2, 0.2], [1, 1, 1, 0]), groups=["p"] * 4).figures["accuracy"]
    assert found.value == 0.75
    assert found.low < 0.1
    assert found.high == pytest.approx(1, abs=0.02)


def test_undefined_figures_are_none():
    """Without positives there is no sensitivity; nothing is NaN or 0 in its place."""
    found = evaluate(binary([0.2, 0.3, 0.1], [0, 0, 0]), groups=["a", "b", "c"])
    for name in ("sensitivity", "auc", "precision", "recall", "f1", "balanced_accuracy"):
        assert found.figures[name].to_json() == {"value": None, "low": None, "high": None}, name
    assert found.value("specificity") == 1.0


def test_too_many_undefined_replicates_give_no_interval():
    """One positive patient of 20 is missing from every third draw."""
    truth = [True] + [False] * 19
    found = evaluate(binary(np.linspace(0.9, 0.1, 20), truth), groups=[str(i) for i in range(20)]).figures["auc"]
    assert (found.value, found.low, found.high) == (1.0, None, None)


@pytest.mark.parametrize(("undefined", "there"), [(100, True), (101, False)])
def test_the_limit_of_undefined_replicates_is_five_percent(undefined, there):
    """Exactly 95 % defined is enough, fewer is not, and the undefined ones are left out."""
    draws = np.concatenate([np.full(undefined, np.nan), np.linspace(0, 1, 2000 - undefined)])
    found = figure(0.5, draws, 10)
    assert (found.low is not None) == there
    if there:
        assert (found.low, found.high) == pytest.approx((0.025, 0.975))


def test_the_document_has_the_contract_keys_and_no_nan():
    """Scripts read these names; `n` is a plain number, the table of counts has no interval."""
    random = np.random.default_rng(2)
    truth = np.eye(3, dtype=bool)[random.integers(0, 3, 90)]
    probability = random.dirichlet(np.ones(3), 90) * 0.5 + truth * 0.5
    found = evaluate(
        Outcomes(probability=probability, truth=truth, output=MULTICLASS, thresholds={}), groups=[str(i // 3) for i in range(90)]
    )
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert list(document) == ["n", *FIGURES, "confusion", "per_class", "labels", "groups"]
    assert (document["n"], document["groups"], document["labels"]) == (90, 30, ["a", "b", "c"])
    assert all(set(document[name]) == {"value", "low", "high"} for name in (*FIGURES, "confusion"))
    assert (document["confusion"]["low"], np.sum(document["confusion"]["value"])) == (None, 90)
    assert list(document["per_class"]["b"]) == ["support", *CLASS_FIGURES]
    assert sum(item["support"] for item in document["per_class"].values()) == 90


def test_multilabel_documents_are_json():
    """A table of counts a label, and plain numbers throughout."""
    truth = np.array([[1, 0], [0, 0], [1, 1], [0, 1]], dtype=bool)
    found = evaluate(Outcomes(probability=truth * 0.8 + 0.1, truth=truth, output=MULTILABEL, thresholds={"x": 0.4}), groups=list("abcd"))
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["confusion"]["value"] == [[[2, 0], [0, 2]], [[2, 0], [0, 2]]]


def test_the_seed_decides():
    """The same seed gives the same document, another seed another interval around the same value."""
    random = np.random.default_rng(3)
    truth = random.random(100) < 0.4
    found = binary(np.clip(truth * 0.3 + random.random(100) * 0.7, 0, 1), truth)
    first, again, other = (evaluate(found, groups=[str(i) for i in range(100)], seed=seed).figures["auc"] for seed in (0, 0, 1))
    assert first == again
    assert first.value == other.value
    assert first.low != other.low


def test_an_evaluation_takes_seconds_at_most():
    """876 frames × 3 labels with 2000 replicates; the limit has room for a busy machine (0.4 s when idle)."""
    random = np.random.default_rng(4)
    truth = np.eye(3, dtype=bool)[random.integers(0, 3, 876)]
    probability = random.dirichlet(np.ones(3), 876) * 0.7 + truth * 0.3
    found = Outcomes(probability=probability, truth=truth, output=MULTICLASS, thresholds={})
    start = time.process_time()
    evaluate(found, groups=[str(i // 2) for i in range(876)])
    assert time.process_time() - start < 6
