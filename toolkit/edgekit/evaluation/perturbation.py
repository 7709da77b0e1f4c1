"""What happens to an answer when the pixels that its map names are shown or hidden: insertion, deletion, average drop, increase.

Rules this file keeps:

1. Insertion and deletion (Petsiuk et al. 2018, RISE): pixels are put into a baseline, or replaced by it, in the order of the map, the strongest evidence first; the
   figure is the area under the probability of the label over the share of pixels. High is good for insertion, low for deletion. Only the order of the map counts.
2. Average drop and increase (Chattopadhay et al. 2018, Grad-CAM++): the frame faded into the baseline where the positive map, in parts of its own maximum, is weak. Drop is
   the mean loss of the label's probability, in parts of it; increase the share of frames whose probability rises.
3. Beside the map stands the same map with its cells in a random order, seeded: a figure that is no better than that says nothing for the map. The difference
   has an interval over groups.

A frame that is part blur is none the model was trained on: these figures measure how it answers such frames as much as where it looked. Figures of different
baselines disagree (Sturmfels et al. 2020), and so do different figures (Tomsett et al. 2020). They compare maps of one model; none of them proves a map right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.evaluation.intervals import REPLICATES, Figure, bootstrap, figure, group_indices

Floats = NDArray[np.float64]
Frame = NDArray[np.uint8]
Score = Callable[[Frame], float]

STEPS = 16
"""Shares of the pixels at which the probability is taken, beside none of them."""

_ROUNDING = 1e-12

FIGURES = ("insertion", "deletion", "drop", "increase")


@dataclass(frozen=True, slots=True, kw_only=True)
class Perturbed:
    """A frame: each of `FIGURES` with the map, and with its cells in a random order."""

    own: Mapping[str, float]
    random: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Perturbation:
    """The frames of a split together.

    Attributes:
        frames: Frames that were perturbed.
        groups: Groups they come from.
        without_map: Frames whose answer came without a map.
        baseline: What hidden pixels are replaced by.
        own: Each of `FIGURES`, mean over frames.
        random: The same of the map in a random order.
        difference: own − random, paired.
    """

    frames: int
    groups: int
    without_map: int
    baseline: str
    own: Mapping[str, Figure]
    random: Mapping[str, Figure]
    difference: Mapping[str, Figure]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, each figure as ``{value, low, high}``."""
        sides = {"own": self.own, "random": self.random, "difference": self.difference}
        return {
            "frames": self.frames,
            "groups": self.groups,
            "without_map": self.without_map,
            "baseline": self.baseline,
            **{name: {title: item.to_json() for title, item in side.items()} for name, side in sides.items()},
        }


def perturb(frame: Frame, baseline: Frame, evidence: Floats, score: Score) -> dict[str, float]:
    """Measures one map of one frame.

    Args:
        frame: uint8 (rows, columns) or (rows, columns, 3).
        baseline: The same without what it shows.
        evidence: float64 (rows, columns): the map at every pixel; NaN where it covers none.
        score: From a frame to the probability of the label.
    """
    ranked = np.flatnonzero(~np.isnan(evidence))
    order = ranked[np.argsort(-evidence.reshape(-1)[ranked], kind="stable")]
    curves: dict[str, list[float]] = {"insertion": [], "deletion": []}
    for step in range(STEPS + 1):
        strongest = np.zeros(evidence.size, dtype=bool)
        strongest[order[: round(step / STEPS * len(order))]] = True
        chosen = _for_channels(strongest.reshape(evidence.shape), frame)
        curves["insertion"].append(score(np.where(chosen, frame, baseline)))
        curves["deletion"].append(score(np.where(chosen, baseline, frame)))
    areas = {name: float(np.mean((np.array(curve[1:]) + np.array(curve[:-1])) / 2)) for name, curve in curves.items()}
    whole, faded = curves["deletion"][0], score(_faded(frame, baseline, evidence))
    return {**areas, "drop": max(0.0, whole - faded) / whole if whole > 0 else 0.0, "increase": float(faded > whole)}


def shuffled(cam: NDArray[np.floating], *, seed: int) -> NDArray[np.floating]:
    """A map (rows, columns) with its cells in a random order."""
    return np.random.default_rng(seed).permutation(cam.reshape(-1)).reshape(cam.shape)


def summarize(
    found: Sequence[Perturbed], groups: Sequence[str], *, without_map: int, baseline: str, replicates: int = REPLICATES
) -> Perturbation:
    """Means over frames with intervals over groups; every figure is None without frames.

    Args:
        found: One a frame.
        groups: The patient or video of each of them.
        without_map: Frames that are not among them, because their answer came without a map.
        baseline: What hidden pixels were replaced by, for people.
        replicates: Draws of the bootstrap.
    """
    undefined = dict.fromkeys(FIGURES, Figure(value=None, low=None, high=None))
    sides = {"own": undefined, "random": undefined, "difference": undefined}
    count = 0
    if found:
        index = group_indices(groups)
        count = int(index.max()) + 1
        tables = {name: np.array([[getattr(item, name)[title] for title in FIGURES] for item in found]) for name in ("own", "random")}
        tables["difference"] = tables["own"] - tables["random"]
        draws = bootstrap(
            lambda weights: {name: weights @ table / weights.sum(axis=1, keepdims=True) for name, table in tables.items()},
            index,
            replicates=replicates,
        )
        sides = {
            name: {title: _mean(table[:, column], draws[name][:, column], count, name) for column, title in enumerate(FIGURES)}
            for name, table in tables.items()
        }
    return Perturbation(frames=len(found), groups=count, without_map=without_map, baseline=baseline, **sides)


def _mean(values: Floats, draws: Floats, groups: int, side: str) -> Figure:
    if side == "difference" and np.ptp(draws) < _ROUNDING:
        # The exact interval that `figure` gives where nothing varies is one of shares, and a difference is none.
        return Figure(value=float(values.mean()), low=None, high=None)
    return figure(float(values.mean()), draws, groups)


def _faded(frame: Frame, baseline: Frame, evidence: Floats) -> Frame:
    positive = np.clip(evidence, 0, None)
    largest = np.nanmax(positive, initial=0.0)
    # Outside the map nothing reaches the model; a map without positive evidence shows nothing at all.
    weight = np.divide(positive, largest, out=np.zeros_like(positive), where=(positive > 0) & (largest > 0))
    share = weight if frame.ndim == 2 else weight[..., None]
    mixed: Frame = np.rint(baseline + share * (frame.astype(np.float64) - baseline)).astype(np.uint8)
    return mixed


def _for_channels(chosen: NDArray[np.bool_], frame: Frame) -> NDArray[np.bool_]:
    return chosen if frame.ndim == 2 else chosen[..., None]
