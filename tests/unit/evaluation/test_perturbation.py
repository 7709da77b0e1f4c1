"""Showing and hiding what a map names: a map that knows what the score looks at, and one that does not."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.evaluation.perturbation import FIGURES, STEPS, Perturbed, perturb, shuffled, summarize

FRAME = np.zeros((8, 8), dtype=np.uint8)
FRAME[2:4, 2:4] = 200
HIDDEN = np.zeros((8, 8), dtype=np.uint8)


def score(frame):
    """What the square at (2, 2) holds of its brightness: a model whose only reason is known."""
    return float(frame[2:4, 2:4].mean()) / 200


def evidence(row, column):
    found = np.zeros((8, 8))
    found[row : row + 2, column : column + 2] = 1.0
    return found


def test_a_map_that_names_the_reason():
    """Shown first, the probability is there at once; hidden first, it is gone at once; nothing is lost when the rest fades."""
    found = perturb(FRAME, HIDDEN, evidence(2, 2), score)
    assert found["insertion"] == pytest.approx(1 - 0.5 / STEPS)
    assert found["deletion"] == pytest.approx(0.5 / STEPS)
    assert (found["drop"], found["increase"]) == (0.0, 0.0)


def test_a_map_that_names_something_else():
    """It hides the reason only late, and what it keeps does not bear the answer."""
    found, right = perturb(FRAME, HIDDEN, evidence(6, 6), score), perturb(FRAME, HIDDEN, evidence(2, 2), score)
    assert found["insertion"] < right["insertion"] - 0.1
    assert found["deletion"] > right["deletion"] + 0.1
    assert found["drop"] == 1.0


def test_an_answer_that_becomes_surer():
    """Where the rest of the frame spoke against the label, fading it is an increase and no drop."""
    found = perturb(FRAME, HIDDEN, evidence(2, 2), lambda frame: score(frame) / 2 + float((frame[6:] == 0).all()) / 4)
    assert (found["drop"], found["increase"]) == (0.0, 0.0)
    noisy = FRAME.copy()
    noisy[7] = 90
    found = perturb(noisy, HIDDEN, evidence(2, 2), lambda frame: score(frame) / 2 + float((frame[6:] == 0).all()) / 4)
    assert (found["drop"], found["increase"]) == (0.0, 1.0)


def test_pixels_outside_the_map_stay():
    """What the map does not cover is never ranked: insertion never shows it and deletion never hides it."""
    seen = []
    part = evidence(2, 2)
    part[5:] = np.nan
    bright = np.full((8, 8), 50, dtype=np.uint8)
    perturb(bright, HIDDEN, part, lambda frame: seen.append(frame[6, 6]) or 0.5)
    assert set(seen[0 : 2 * (STEPS + 1) : 2]) == {0}
    assert set(seen[1 : 2 * (STEPS + 1) : 2]) == {50}


def test_a_map_without_positive_evidence_keeps_nothing():
    """It names no pixel for the label, so all of the answer is lost; colour frames are treated alike."""
    colour = np.repeat(FRAME[..., None], 3, axis=2)
    found = perturb(colour, np.zeros_like(colour), -evidence(2, 2), lambda frame: score(frame[..., 0]))
    assert found["drop"] == 1.0


def test_the_summary_is_paired():
    """Means of either order and their difference with an interval over groups; frames without a map are counted."""
    random = np.random.default_rng(0)
    frames = []
    for _ in range(30):
        base = {name: float(random.uniform()) for name in FIGURES}
        frames.append(Perturbed(own={**base, "insertion": base["insertion"] + float(random.uniform(0.1, 0.3))}, random=base))
    found = summarize(frames, [str(index // 2) for index in range(30)], without_map=3, baseline="blur").to_json()
    assert (found["frames"], found["groups"], found["without_map"]) == (30, 15, 3)
    assert (
        0.1
        < found["difference"]["insertion"]["low"]
        < found["difference"]["insertion"]["value"]
        < found["difference"]["insertion"]["high"]
        < 0.3
    )
    assert found["own"]["insertion"]["high"] - found["own"]["insertion"]["low"] > 0.1
    assert found["difference"]["deletion"] == {"value": 0.0, "low": None, "high": None}
    empty = summarize([], [], without_map=2, baseline="blur").to_json()
    assert empty["own"]["insertion"] == {"value": None, "low": None, "high": None}


def test_a_random_order_keeps_the_cells():
    """The same values at other places, the same for a seed."""
    cam = np.arange(12.0).reshape(3, 4)
    assert (shuffled(cam, seed=1) == shuffled(cam, seed=1)).all()
    assert (np.sort(shuffled(cam, seed=1), axis=None) == cam.ravel()).all()
    assert (shuffled(cam, seed=1) != cam).any()
