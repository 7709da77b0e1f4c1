"""The gates about the map: at, above and below their limits, on few patients, with a control that passes, and waived."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from edgekit.evaluation.fidelity import FIGURES, FrameFidelity, summarize
from edgekit.evaluation.intervals import Figure
from edgekit.evaluation.localisation import Lesions, compare
from edgekit.evaluation.map_gates import Control, MapEvidence, RandomDraw, is_alike, map_gates
from edgekit.schema.accept import AcceptSpec

PERFECT = dict.fromkeys(FIGURES, 1.0)
NONE = dict.fromkeys(FIGURES)
UNLIKE = {**PERFECT, "pearson_p5": -0.3}


def frames(count=40, pearson=None, shift=None, groups=None):
    """A summary of frames that are perfect but for what is named."""
    ones = np.ones(count)
    found = FrameFidelity(
        pearson=ones if pearson is None else np.array(pearson, dtype=float),
        overlap=ones,
        peak_shift=np.zeros(count) if shift is None else np.array(shift, dtype=float),
        peak_kept=np.ones(count) if shift is None else (np.array(shift, dtype=float) <= 1).astype(float),
        sign=ones,
    )
    return summarize(found, [str(index if groups is None else index % groups) for index in range(count)], replicates=50)


def lesions(lost):
    before, mask = np.zeros((80, 2, 2)), np.zeros((80, 2, 2), dtype=bool)
    before[:, 0, 0], mask[:, 0, 0] = 1, True
    after = before.copy()
    after[:lost] = after[:lost, ::-1]
    names = [str(index) for index in range(80)]
    seen = Lesions(covered=mask.astype(float), centre=mask)
    return compare(before, after, seen, groups=names, splits=["val"] * 80, left_out={}, margin=0.05, replicates=50)


def evidence(fidelity=None, *, residual=0.001, draws=(UNLIKE, NONE), lost=None):
    drawn = tuple(RandomDraw(what="head", seed=index, figures=figures) for index, figures in enumerate(draws))
    return MapEvidence(
        fidelity=frames() if fidelity is None else fidelity,
        residual_share=residual,
        control=Control(frames=16, draws=drawn),
        localisation=None if lost is None else lesions(lost),
    )


def statuses(found, **limits):
    return {gate.name: gate.status for gate in map_gates(AcceptSpec(**limits), found, new_network=False)}


def test_a_faithful_map_passes():
    """Every gate passes, in this order, and lesions are asked for only where masks are."""
    names = ["cam_pearson", "cam_pearson_p5", "cam_overlap", "cam_peak", "cam_residual", "cam_control"]
    assert statuses(evidence()) == dict.fromkeys(names, "passed")
    assert statuses(evidence(lost=0)) == dict.fromkeys([*names, "cam_pointing_game"], "passed")


CASES = {
    "median at the limit": (frames(pearson=[0.95] * 40), {"cam_pearson": "passed"}),
    "median below": (frames(pearson=[0.94] * 40), {"cam_pearson": "failed", "cam_pearson_p5": "passed"}),
    "a twentieth below": (frames(pearson=[0.5] * 4 + [0.99] * 36), {"cam_pearson": "passed", "cam_pearson_p5": "failed"}),
    "one of forty below": (frames(pearson=[0.5] + [0.99] * 39), {"cam_pearson_p5": "passed"}),
    "peaks at the limit": (frames(shift=[2] * 4 + [1] * 36), {"cam_peak": "passed"}),
    "peaks beyond it": (frames(shift=[2] * 5 + [0] * 35), {"cam_peak": "failed"}),
    "few patients": (frames(groups=19), {"cam_pearson": "not demonstrated", "cam_peak": "not demonstrated"}),
    "enough patients": (frames(groups=20), {"cam_pearson": "passed", "cam_peak": "passed"}),
    "few patients, one frame": (frames(10, shift=[5] + [0] * 9), {"cam_peak": "not demonstrated"}),
    "few patients, two frames": (frames(10, shift=[5, 5] + [0] * 8), {"cam_peak": "failed"}),
    "many patients, one frame of few": (frames(20, shift=[5] * 3 + [0] * 17), {"cam_peak": "failed"}),
}


@pytest.mark.parametrize(("fidelity", "expected"), CASES.values(), ids=CASES)
def test_likeness(fidelity, expected):
    """A figure is held against its limit as measured; fewer than twenty patients cannot tell one frame in twenty."""
    found = statuses(evidence(fidelity))
    assert {name: found[name] for name in expected} == expected


def test_nothing_to_compare_fails():
    """Maps that never have any structure are not called faithful."""
    empty = np.full(30, np.nan)
    nothing = summarize(FrameFidelity(pearson=empty, overlap=empty, peak_shift=empty, peak_kept=empty, sign=empty), ["a"] * 30)
    found = statuses(evidence(nothing))
    assert [found[name] for name in ("cam_pearson", "cam_pearson_p5", "cam_overlap", "cam_peak")] == ["failed"] * 4


@pytest.mark.parametrize(("value", "status"), [(0.02, "passed"), (0.0201, "failed"), (None, "failed")])
def test_the_residual(value, status):
    """2 % of the logit's standard deviation is allowed; what cannot be measured fails."""
    assert statuses(evidence(residual=value))["cam_residual"] == status


def test_a_control_that_passes_is_said():
    """One random network whose map passes every limit takes the gates' meaning away; a strict recipe refuses it."""
    found = evidence(draws=(UNLIKE, PERFECT))
    (gate,) = [gate for gate in map_gates(AcceptSpec(), found, new_network=False) if gate.name == "cam_control"]
    assert (gate.status, gate.value, gate.bound) == ("not demonstrated", 0.5, 0.0)
    assert "say nothing" in gate.explanation
    assert statuses(found, require_demonstrated=True)["cam_control"] == "failed"


def test_a_control_that_was_not_made_fails():
    """Without a random network nobody knows what the gates of likeness are worth."""
    for control in (None, Control(frames=0, draws=())):
        assert statuses(dataclasses.replace(evidence(), control=control))["cam_control"] == "failed"


def test_alike_means_every_limit_that_is_held():
    """A random network fails by one limit; where that one is waived it does not."""
    assert is_alike(AcceptSpec(), PERFECT)
    assert not is_alike(AcceptSpec(), UNLIKE)
    assert not is_alike(AcceptSpec(), NONE)
    assert is_alike(AcceptSpec(waive_cam=("cam_pearson_p5",)), UNLIKE)


@pytest.mark.parametrize(("lost", "status"), [(0, "passed"), (3, "not demonstrated"), (8, "failed")])
def test_the_pointing_game(lost, status):
    """A loss of peaks inside the lesions fails; what the frames cannot exclude is not demonstrated."""
    assert statuses(evidence(lost=lost))["cam_pointing_game"] == status


def test_waived_gates_are_not_there():
    """The recipe may waive each, and without a gate of likeness there is nothing that a control would control."""
    every = ("cam_pearson", "cam_pearson_p5", "cam_overlap", "cam_peak")
    assert "cam_peak" not in statuses(evidence(lost=0), waive_cam=("cam_peak",))
    assert set(statuses(evidence(lost=0), waive_cam=every)) == {"cam_residual", "cam_pointing_game"}
    assert statuses(evidence(lost=0), waive_cam=(*every, "cam_residual", "cam_pointing_game", "cam_control")) == {}


def test_what_travels_is_aggregate():
    """The JSON has figures with intervals and no list as long as the frames."""
    found = evidence(lost=0).to_json()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found["fidelity"]) == {"frames", "groups", "featureless", *FIGURES}
    assert Figure(**found["fidelity"]["pearson_median"]).value == 1.0


LIMITS = [{"min_cam_pearson": 1.1}, {"min_cam_overlap": -0.1}, {"max_cam_residual": float("nan")}, {"cam_pointing_margin": 0.0}]


@pytest.mark.parametrize("limits", [*LIMITS, {"waive_cam": ("cam_peak", "cam_peak")}])
def test_limits_that_mean_nothing_are_refused(limits):
    """Each limit has a range, and a gate is waived once."""
    with pytest.raises(ValueError, match=next(iter(limits))):
        AcceptSpec(**limits)
