"""From what a process sent to a prediction: whatever is no answer of the bundle's model is refused."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter_ns

import numpy as np
import pytest
from device_bundles import MANY, TWO, write_device_bundle

from edgekit.bundle.reader import open_bundle
from edgekit.runtime.supervised_answer import Asked, prediction_of
from edgekit.runtime.wire import Answer

NOTHING = np.zeros(0, np.float32)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return open_bundle(write_device_bundle(tmp_path_factory.mktemp("two") / "x.edgekit", output=TWO)).manifest


def answer_of(manifest, **changed):
    spec = manifest.cam
    first, second = manifest.output.labels
    whole = Answer(
        labels=(second,),
        probabilities={first: 0.25, second: 0.75},
        logits={first: -0.5, second: 0.5},
        accepted=manifest.accepted,
        assessable=True,
        reason="",
        engine=manifest.engines[0].name,
        engine_notes=(),
        stages_ms={"infer": 1.0},
        latency_ms=2.0,
        maps_shape=(2, spec.rows, spec.columns),
    )
    return replace(whole, **changed)


def made(answer, manifest, numbers=None, *, gate=True):
    maps = np.zeros(np.prod(answer.maps_shape) if answer.maps_shape else 0, np.float32) if numbers is None else numbers
    asked = Asked(frame=np.zeros((4, 4), np.uint8), gate=gate, note="", started_ns=perf_counter_ns())
    return prediction_of(answer, maps, asked, manifest)


def test_a_whole_answer_is_a_prediction(manifest):
    """With its label, numbers and maps."""
    found = made(answer_of(manifest), manifest)
    assert (found.label, found.probabilities["malignant"], found.logits["malignant"]) == ("malignant", 0.75, 0.5)
    assert found.cam is not None


FAULTS = {
    "another acceptance": (lambda m: {"accepted": not m.accepted}, "about the acceptance"),
    "an engine of another bundle": (lambda _: {"engine": "abacus"}, "none of the bundle's"),
    "the other label": (lambda _: {"labels": ("benign",)}, "not that of its probabilities"),
    "both labels": (lambda _: {"labels": ("benign", "malignant")}, "not one label"),
    "no label": (lambda _: {"labels": None}, "not the model's"),
    "a foreign label": (lambda _: {"labels": ("cat",)}, "not the model's"),
    "labels in another order": (lambda _: {"probabilities": {"malignant": 0.75, "benign": 0.25}}, "not the model's"),
    "a probability above 1": (lambda _: {"probabilities": {"benign": 0.25, "malignant": 1.5}}, "between 0 and 1"),
    "an infinite logit": (lambda _: {"logits": {"benign": 0.0, "malignant": float("inf")}}, "a logit is no number"),
    "no time": (lambda _: {"latency_ms": float("nan")}, "no times"),
    "a stage before its begin": (lambda _: {"stages_ms": {"infer": -1.0}}, "no times"),
    "not assessable without a reason": (lambda _: {"assessable": False}, "has a reason"),
    "not assessable with an answer": (lambda _: {"assessable": False, "reason": "flat"}, "has no answer"),
    "maps of another size": (lambda _: {"maps_shape": (2, 1, 1)}, "not of the model's size"),
}


@pytest.mark.parametrize(("change", "says"), FAULTS.values(), ids=FAULTS)
def test_what_is_no_answer_of_the_model_is_refused(manifest, change, says):
    """Each is a sign that the process is not in its right mind."""
    with pytest.raises(ValueError, match=says):
        made(answer_of(manifest, **change(manifest)), manifest)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_map_has_numbers(manifest, value):
    """As many as it says, and each of them finite."""
    shape = answer_of(manifest).maps_shape
    numbers = np.zeros(np.prod(shape), np.float32)
    numbers[-1] = value
    with pytest.raises(ValueError, match="no numbers"):
        made(answer_of(manifest), manifest, numbers)
    with pytest.raises(ValueError, match="the size that it says"):
        made(answer_of(manifest), manifest, np.zeros(3, np.float32))


def test_multilabel_answers_are_those_above_their_thresholds(tmp_path):
    """None, one or several; another set is refused."""
    manifest = open_bundle(write_device_bundle(tmp_path / "x.edgekit", output=MANY)).manifest
    labels = manifest.output.labels
    above = {label: float(number > 0) for number, label in enumerate(labels)}
    whole = Answer(
        labels=labels[1:],
        probabilities=above,
        logits=dict.fromkeys(labels, 0.0),
        accepted=manifest.accepted,
        assessable=True,
        reason="",
        engine=manifest.engines[0].name,
        engine_notes=(),
        stages_ms={},
        latency_ms=1.0,
        maps_shape=None,
    )
    assert made(whole, manifest, NOTHING).label == labels[1:]
    with pytest.raises(ValueError, match="not that of its probabilities"):
        made(replace(whole, labels=labels), manifest, NOTHING)
