"""What stops a compile before a gate could hide it: the machine, the meaning of one logit, a teacher worse than guessing, a map that does not add up."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.bundle.manifest import CamSpec
from edgekit.catalog.recipe import ModelSpec
from edgekit.catalog.target import Target
from edgekit.compiler import checks
from edgekit.compiler.finish import check_identity
from edgekit.compiler.progress import Silent
from edgekit.compiler.stages.measure import Measured, map_likeness
from edgekit.errors import CatalogError, MissingEngineError, ModelError, TargetError
from edgekit.evaluation.intervals import Figure


class Notes(Silent):
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


def target(**changes):
    table = {"name": "t", "title": "T", "architectures": ("x86_64",), "engine": "openvino", "settings": {}}
    return Target(**{**table, **changes})


def binary(positive):
    return ModelSpec(source="timm:resnet18", labels=("clear", "pneumonia"), task="binary", positive=positive)


def test_one_logit_stands_for_the_second_label():
    """A logit above 0 means the second label, so it must be the positive one; otherwise every answer would be the wrong way round."""
    checks.check_meaning(binary("pneumonia"), outputs=1)
    with pytest.raises(CatalogError, match="one logit, which is high for 'pneumonia', but positive = 'clear'"):
        checks.check_meaning(binary("clear"), outputs=1)


def test_two_logits_have_any_positive_label():
    """With a logit a label the order is free."""
    for positive in ("clear", "pneumonia"):
        checks.check_meaning(binary(positive), outputs=2)


@pytest.mark.parametrize("high", [0.31, 0.49])
def test_a_teacher_worse_than_guessing_is_refused(high):
    """Every later gate only compares with it, so a swapped label order would pass them all."""
    auc = Figure(value=0.2, low=0.1, high=high)
    with pytest.raises(ModelError, match=r"AUC on val is 0\.200"):
        checks.check_above_chance(auc, enforce=True, progress=Silent())
    notes = Notes()
    checks.check_above_chance(auc, enforce=False, progress=notes)
    assert len(notes.said) == 1


@pytest.mark.parametrize(
    "auc", [Figure(value=0.45, low=0.3, high=0.6), Figure(value=None, low=None, high=None), Figure(value=0.9, low=0.8, high=0.95)]
)
def test_a_teacher_that_may_be_better_than_guessing_goes_on(auc):
    """A small val split does not tell; neither does one without an AUC."""
    notes = Notes()
    checks.check_above_chance(auc, enforce=True, progress=notes)
    assert notes.said == []


def test_a_machine_of_another_kind_is_refused_first(monkeypatch):
    """An artefact is proven where it runs."""
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(TargetError, match="this machine is aarch64"):
        checks.check_machine(target(), quantizes=True)


def test_a_missing_engine_is_refused_first(monkeypatch):
    """Before minutes of work, with the extra to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(MissingEngineError, match="needs openvino"):
        checks.check_machine(target(), quantizes=False)


def measured(*, off=0.0):
    maps = np.random.default_rng(0).normal(size=(6, 2, 3, 4)).astype(np.float32)
    return Measured(logits=maps.mean(axis=(2, 3)) + np.float32(0.5) + np.float32(off), maps=maps)


CAM = CamSpec(rows=3, columns=4, maps=2, kind="pooled-linear", bias=(0.5, 0.5), tolerance=1e-3, scale=1.0)


def test_a_map_that_does_not_add_up_is_no_bundle():
    """The logit as mean of the map + bias must hold in the artefact that is packed."""
    check_identity(measured(), CAM)
    with pytest.raises(ModelError, match="does not add up"):
        check_identity(measured(off=0.01), CAM)


def test_a_map_of_nan_is_no_bundle():
    """NaN fails the comparison too."""
    found = measured()
    found.maps[0] = np.nan
    with pytest.raises(ModelError, match="does not add up"):
        check_identity(found, CAM)


def test_likeness_is_the_correlation_of_the_answered_map():
    """1 for the same maps at another scale, lower for noise, None without maps."""
    exact = measured()
    scaled = Measured(logits=exact.logits, maps=exact.maps * 2 + 1)
    assert map_likeness(exact, scaled) == pytest.approx({"median": 1.0, "p5": 1.0})
    noise = Measured(logits=exact.logits, maps=np.random.default_rng(1).normal(size=exact.maps.shape).astype(np.float32))
    assert map_likeness(exact, noise)["median"] < 0.8
    assert map_likeness(exact, Measured(logits=exact.logits, maps=None)) is None
