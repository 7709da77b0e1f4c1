"""Figures against scikit-learn's, and what is undefined."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference  # noqa: TID253 - the cross-check

from edgekit.errors import DataError, ModelError
from edgekit.evaluation.decision import probabilities
from edgekit.evaluation.metrics import Outcomes, calibration_error, class_figures, confusion, figures, weighted_auc
from edgekit.schema.model_io import OutputSpec

BINARY = OutputSpec(labels=("normal", "pneumonia"), task="binary", positive="pneumonia")
MULTICLASS = OutputSpec(labels=("a", "b", "c", "d"), task="multiclass")
POINTED = OutputSpec(labels=("a", "b", "c", "d"), task="multiclass", positive="c")
MULTILABEL = OutputSpec(labels=("x", "y", "z"), task="multilabel")


def outcomes(output, *, frames=300, seed=0, thresholds=None, decimals=2):
    """Frames of a mediocre model; probabilities are rounded, so that there are many ties."""
    random = np.random.default_rng(seed)
    labels = len(output.labels)
    if output.task == "multilabel":
        truth = random.random((frames, labels)) < [0.2, 0.5, 0.7]
    else:
        truth = np.eye(labels, dtype=bool)[random.choice(labels, size=frames, p=np.arange(1, labels + 1) / sum(range(1, labels + 1)))]
    logits = truth * 1.5 + random.normal(size=truth.shape)
    probability = np.round(probabilities(logits, output, outputs=labels), decimals)
    return Outcomes(probability=probability, truth=truth, output=output, thresholds=thresholds or {})


def plain(found):
    ones = np.ones((1, len(found.truth)))
    return {name: float(value[0]) for name, value in figures(found, ones, class_figures(found, ones)).items()}


def test_binary_figures_equal_scikit_learns():
    """precision, recall, f1 and auc are those of the positive label."""
    found = outcomes(BINARY)
    y, given, p = found.truth[:, 1], found.answers[:, 1], found.probability[:, 1]
    assert plain(found) == pytest.approx(
        {
            "accuracy": reference.accuracy_score(y, given),
            "balanced_accuracy": reference.balanced_accuracy_score(y, given),
            "auc": reference.roc_auc_score(y, p),
            "sensitivity": reference.recall_score(y, given),
            "specificity": reference.recall_score(~y, ~given),
            "precision": reference.precision_score(y, given),
            "recall": reference.recall_score(y, given),
            "f1": reference.f1_score(y, given),
            "ece": plain(found)["ece"],
        }
    )


def test_multiclass_figures_equal_scikit_learns():
    """Without a positive label everything is the mean over the classes."""
    found = outcomes(MULTICLASS)
    y, given = found.truth.argmax(1), found.answers.argmax(1)
    values = plain(found)
    expected = {
        "accuracy": reference.accuracy_score(y, given),
        "balanced_accuracy": reference.balanced_accuracy_score(y, given),
        "auc": np.mean([reference.roc_auc_score(found.truth[:, c], found.probability[:, c]) for c in range(4)]),
        "sensitivity": reference.recall_score(y, given, average="macro"),
        "specificity": np.mean([reference.recall_score(y != c, given != c) for c in range(4)]),
        "precision": reference.precision_score(y, given, average="macro"),
        "recall": reference.recall_score(y, given, average="macro"),
        "f1": reference.f1_score(y, given, average="macro"),
    }
    assert {name: values[name] for name in expected} == pytest.approx(expected)


def test_multilabel_figures_equal_scikit_learns():
    """Accuracy asks for all labels of a frame; the rest is the mean over labels, at their thresholds."""
    found = outcomes(MULTILABEL, thresholds={"x": 0.3, "y": 0.6})
    y, given = found.truth, found.answers
    assert np.array_equal(given, found.probability >= [0.3, 0.6, 0.5])
    values = plain(found)
    expected = {
        "accuracy": reference.accuracy_score(y, given),
        "balanced_accuracy": np.mean([reference.balanced_accuracy_score(y[:, c], given[:, c]) for c in range(3)]),
        "auc": reference.roc_auc_score(y, found.probability, average="macro"),
        "sensitivity": reference.recall_score(y, given, average="macro"),
        "specificity": reference.recall_score(~y, ~given, average="macro"),
        "precision": reference.precision_score(y, given, average="macro"),
        "f1": reference.f1_score(y, given, average="macro"),
    }
    assert {name: values[name] for name in expected} == pytest.approx(expected)


def test_class_figures_equal_scikit_learns():
    """Each label is judged against the rest, by the answers."""
    found = outcomes(POINTED, thresholds={"c": 0.1})
    table = class_figures(found, np.ones((1, 300)))
    for c in range(4):
        y, given = found.truth[:, c], found.answers[:, c]
        assert [table[name][0, c] for name in ("auc", "sensitivity", "specificity", "precision", "f1")] == pytest.approx(
            [
                reference.roc_auc_score(y, found.probability[:, c]),
                reference.recall_score(y, given),
                reference.recall_score(~y, ~given),
                reference.precision_score(y, given),
                reference.f1_score(y, given),
            ]
        )


def test_the_frozen_threshold_moves_sensitivity_and_nothing_else():
    """Sensitivity and specificity are about the positive label at or above its threshold; recall stays that of the answers."""
    loose, usual = (plain(outcomes(POINTED, thresholds=thresholds)) for thresholds in ({"c": 0.25}, {}))
    found = outcomes(POINTED)
    above = found.probability[:, 2] >= 0.25
    assert (found.probability[:, 2] == 0.25).any()
    assert loose["sensitivity"] == pytest.approx(reference.recall_score(found.truth[:, 2], above))
    assert loose["specificity"] == pytest.approx(reference.recall_score(~found.truth[:, 2], ~above))
    assert usual["sensitivity"] == pytest.approx(reference.recall_score(found.truth[:, 2], found.answers[:, 2]))
    assert loose["sensitivity"] > usual["sensitivity"]
    assert {name for name in loose if loose[name] != usual[name]} == {"sensitivity", "specificity"}


@pytest.mark.parametrize("output", [BINARY, MULTICLASS, POINTED, MULTILABEL], ids=lambda output: f"{output.task}-{output.positive}")
def test_weights_mean_copies(output):
    """A frame of weight 2 counts as two frames, one of weight 0 as none: this is what the bootstrap rests on."""
    found = outcomes(output, frames=120)
    times = np.random.default_rng(1).integers(0, 4, size=120)
    copies = Outcomes(
        probability=np.repeat(found.probability, times, axis=0), truth=np.repeat(found.truth, times, axis=0), output=output, thresholds={}
    )
    weights = np.stack([times, np.ones(120)]).astype(float)
    weighted = figures(found, weights, class_figures(found, weights))
    assert {name: value[0] for name, value in weighted.items()} == pytest.approx(plain(copies))
    assert {name: value[1] for name, value in weighted.items()} == pytest.approx(plain(found))


@pytest.mark.parametrize(
    ("score", "truth", "expected"),
    [
        ([1, 2, 3, 4], [0, 0, 1, 1], 1.0),
        ([4, 3, 2, 1], [0, 0, 1, 1], 0.0),
        ([1, 1, 1], [0, 1, 1], 0.5),
        ([1, 2, 2, 3], [0, 1, 0, 1], 0.875),
    ],
)
def test_auc_of_cases_counted_by_hand(score, truth, expected):
    """Pairs in the right order count one, ties a half."""
    assert weighted_auc(np.array(score, float), np.array(truth, bool), np.ones((1, len(score))))[0] == expected


def test_calibration_error_of_full_bins_is_the_textbooks():
    """Where the frames divide by 15 and no two confidences are equal, it is the mean gap of 15 bins of equal size."""
    random = np.random.default_rng(5)
    confidence, right = random.random(600), random.random(600) < 0.6
    bins = np.array_split(np.argsort(confidence), 15)
    expected = sum(len(b) / 600 * abs(confidence[b].mean() - right[b].mean()) for b in bins)
    assert calibration_error(confidence, right, np.ones((1, 600)))[0] == pytest.approx(expected, rel=1e-12)


def test_calibration_error_does_not_depend_on_the_order():
    """Frames of equal confidence are spread evenly over the bins they reach."""
    random = np.random.default_rng(6)
    confidence, right = np.round(random.random(200), 1), random.random(200) < 0.5
    shuffled = random.permutation(200)
    ones = np.ones((1, 200))
    assert calibration_error(confidence, right, ones)[0] == pytest.approx(calibration_error(confidence[shuffled], right[shuffled], ones)[0])


def test_calibration_error_of_cases_counted_by_hand():
    """All at 0.8 and 80 % right is calibrated; all at 0.9 and half right is off by 0.4; a frame on a border is shared."""
    ones = np.ones((1, 10))
    assert calibration_error(np.full(10, 0.8), np.arange(10) < 8, ones)[0] == pytest.approx(0, abs=1e-12)
    assert calibration_error(np.full(10, 0.9), np.arange(10) < 5, ones)[0] == pytest.approx(0.4)
    assert calibration_error(np.array([0.2, 0.7]), np.array([False, True]), np.ones((1, 2)))[0] == pytest.approx(
        (7 * 0.2 + 7 * 0.3 + (0.3 - 0.2) / 2) / 15
    )


def test_ece_is_about_the_top_label_and_for_multilabel_about_each():
    """The confidence is that of the answer; multilabel takes P(label) against the label."""
    found, many = outcomes(MULTICLASS), outcomes(MULTILABEL)
    top = found.probability.argmax(1)
    ones = np.ones((1, 300))
    assert plain(found)["ece"] == pytest.approx(calibration_error(found.probability.max(1), top == found.truth.argmax(1), ones)[0])
    each = [calibration_error(many.probability[:, c], many.truth[:, c], ones)[0] for c in range(3)]
    assert plain(many)["ece"] == pytest.approx(np.mean(each))


def test_confusion_tables_equal_scikit_learns():
    """The truth is in rows; multilabel has a table a label."""
    found, many = outcomes(MULTICLASS), outcomes(MULTILABEL)
    assert np.array_equal(confusion(found), reference.confusion_matrix(found.truth.argmax(1), found.answers.argmax(1)))
    assert np.array_equal(confusion(many), reference.multilabel_confusion_matrix(many.truth, many.answers))


def test_a_missing_class_makes_means_undefined():
    """A class nobody could judge must not drop out of a mean unseen."""
    probability = np.array([[0.7, 0.2, 0.1, 0.0], [0.2, 0.6, 0.1, 0.1], [0.1, 0.2, 0.6, 0.1]])
    found = Outcomes(probability=probability, truth=np.eye(4, dtype=bool)[:3], output=MULTICLASS, thresholds={})
    values = plain(found)
    assert {name for name, value in values.items() if np.isnan(value)} == {
        "balanced_accuracy",
        "auc",
        "sensitivity",
        "precision",
        "recall",
        "f1",
    }
    assert values["accuracy"] == 1


@pytest.mark.parametrize("always", [True, False])
def test_multilabel_means_are_over_the_labels_that_can_be_judged(always):
    """A label that is never or always present says nothing and leaves the mean of the others."""
    found = outcomes(MULTILABEL)
    truth = found.truth.copy()
    truth[:, 0] = always
    some = Outcomes(probability=found.probability, truth=truth, output=MULTILABEL, thresholds={})
    assert plain(some)["auc"] == pytest.approx(reference.roc_auc_score(truth[:, 1:], found.probability[:, 1:], average="macro"))
    none = Outcomes(probability=found.probability, truth=np.zeros_like(truth), output=MULTILABEL, thresholds={})
    assert np.isnan(plain(none)["auc"])


@pytest.mark.parametrize("broken", [np.nan, np.inf, -0.1, 1.1])
def test_impossible_probabilities_are_refused(broken):
    """NaN must not become an answer."""
    with pytest.raises(ModelError, match="first on frame 1"):
        Outcomes(probability=np.array([[0.5, 0.5], [broken, 0.5]]), truth=np.eye(2, dtype=bool), output=BINARY, thresholds={})


def test_impossible_truth_is_refused():
    """A frame of a single-label task has exactly one label, and there are frames."""
    with pytest.raises(DataError, match="exactly one"):
        Outcomes(probability=np.full((1, 2), 0.5), truth=np.ones((1, 2), dtype=bool), output=BINARY, thresholds={})
    with pytest.raises(DataError, match="no frames"):
        Outcomes(probability=np.zeros((0, 2)), truth=np.zeros((0, 2), dtype=bool), output=BINARY, thresholds={})
    with pytest.raises(ValueError, match="expected"):
        Outcomes(probability=np.zeros((2, 3)), truth=np.zeros((2, 3), dtype=bool), output=BINARY, thresholds={})
