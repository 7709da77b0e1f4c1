"""The numbers of an input gate, from frames the classifier was made for.

Rules this file keeps:

1. Components are fitted to the calibration frames; limits of distances are set on `val` alone, by `evaluation.ood.limit_of`. Foreign frames have no say.
2. Limits of image quality are the extremes of calibration and `val` frames with a wide margin: they are for frames that are no pictures.
3. Where there are too few frames, there is no gate, and the reason is kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.catalog.gate import GateSpec
from edgekit.compiler.stages.frames import PreparedSplit
from edgekit.compiler.stages.measure import Measured
from edgekit.evaluation.ood import limit_of
from edgekit.imaging.quality import TensorFigures, tensor_figures
from edgekit.runtime.input_gate import Components, unit_length
from edgekit.schema.input_gate import LEVELS, QualityLimits

FEWEST_CALIBRATION_FRAMES = 32
FEWEST_VAL_FRAMES = 20
FEWEST_VAL_GROUPS = 5
"""With fewer patients nobody knows how far the next one is from them."""

FEATURE_COMPONENTS = 64
BRIGHTNESS_COMPONENTS = 8
_FRAMES_PER_COMPONENT = 4
_LEAST_NOISE = 1e-3
"""Of the mean variance of a value: what was constant on the calibration frames may move a little."""

# Margins of image quality, in the words of rule 2.
_HALF = 0.5
_CHROMA_MARGIN_LEVELS = 8.0
_ASPECT_MARGIN = 1.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Limited:
    """A distribution with the largest distance from it that is answered."""

    components: Components
    limit: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FittedGate:
    """A gate for one engine.

    Attributes:
        quality: Limits of image quality.
        brightness: Of the bundle's frames.
        features: Of the engine's features, divided by their length; None where its graph gives none.
        frames: Of `val` that the limits are from.
        groups: They come from.
    """

    quality: QualityLimits
    brightness: Limited
    features: Limited | None
    frames: int
    groups: int

    def scores(self, features: NDArray[np.floating] | None, figures: Sequence[TensorFigures]) -> NDArray[np.float64]:
        """The larger distance in parts of its limit, float64 (frames,), from the features of frames and the figures of their tensors: above 1 a frame is refused."""
        found = self.brightness.components.distance(brightness_of(figures)) / self.brightness.limit
        if features is None or self.features is None:
            return found
        return np.maximum(found, self.features.components.distance(unit_length(features)) / self.features.limit)


def figures_of(tensors: NDArray[np.uint8]) -> list[TensorFigures]:
    """The figures of tensors, uint8 (frames, height, width, channels)."""
    return [tensor_figures(tensors[index : index + 1]) for index in range(len(tensors))]


def brightness_of(figures: Sequence[TensorFigures]) -> NDArray[np.float64]:
    """float64 (frames, bins)."""
    return np.stack([found.brightness for found in figures])


def why_no_gate(spec: GateSpec, calibration: PreparedSplit, val: PreparedSplit) -> str:
    """Why no gate can be fitted; empty where one can."""
    if not spec.enabled:
        return "the recipe asks for none"
    for what, found, least in (
        ("calibration frames", len(calibration.samples), FEWEST_CALIBRATION_FRAMES),
        ("frames of val", len(val.samples), FEWEST_VAL_FRAMES),
        ("patients or videos in val", len(set(val.groups)), FEWEST_VAL_GROUPS),
    ):
        if found < least:
            return f"{found} {what} are too few to fit one, which takes {least}"
    return ""


def fit(
    spec: GateSpec, calibration: tuple[PreparedSplit, NDArray[np.float32] | None], val: tuple[PreparedSplit, Measured], *, grey: bool
) -> FittedGate:
    """Fits a gate for an engine.

    Args:
        spec: The recipe's.
        calibration: The calibration frames, and the features that the engine gives on them; None where it gives none.
        val: The frames of `val`, and what the engine gives on them.
        grey: Whether the classifier takes grey frames.
    """
    (frames, features), (known, measured) = calibration, val
    on_calibration, on_val = figures_of(frames.tensors), figures_of(known.tensors)
    # Both distances may refuse, each its half of the frames that may be.
    given = features is not None and measured.features is not None
    quantile = 1 - (1 - spec.quantile) / (2 if given else 1)

    def limited(fitted: NDArray[np.float64], seen: NDArray[np.float64], most: int) -> Limited:
        found = components(fitted, most)
        return Limited(components=found, limit=limit_of(found.distance(seen), known.groups, quantile))

    return FittedGate(
        quality=quality_limits([*on_calibration, *on_val], _figures(frames, known), grey=grey),
        brightness=limited(brightness_of(on_calibration), brightness_of(on_val), BRIGHTNESS_COMPONENTS),
        features=None
        if features is None or measured.features is None
        else limited(unit_length(features), unit_length(measured.features), FEATURE_COMPONENTS),
        frames=len(known.samples),
        groups=len(set(known.groups)),
    )


def components(vectors: NDArray[np.float64], most: int) -> Components:
    """Probabilistic principal components (Tipping and Bishop 1999, by maximum likelihood: noise is the mean of the variances that are left out).

    The numbers are those that a bundle holds, in float32.

    Args:
        vectors: float64 (frames, values).
        most: Number of components, where there are four frames or more for each.
    """
    count, values = vectors.shape
    mean = vectors.mean(axis=0)
    _, singular, directions = np.linalg.svd(vectors - mean, full_matrices=False)
    variances = singular**2 / (count - 1)
    floor = _LEAST_NOISE * max(float(variances.sum()) / values, np.finfo(np.float32).tiny)
    wanted = min(most, count // _FRAMES_PER_COMPONENT, values // 2)
    kept = max(1, min(wanted, int((variances > floor).sum())))
    noise = max(floor, float(variances[kept:].sum()) / max(values - kept, 1))
    deviation = np.sqrt(np.maximum(variances[:kept, None], noise))
    return Components.of(np.vstack([mean, directions[:kept] / deviation]).astype(np.float32), noise)


def quality_limits(figures: Sequence[TensorFigures], frames: NDArray[np.float32], *, grey: bool) -> QualityLimits:
    """Limits of image quality from known frames (rule 2): half of the smallest contrast, half of what is left of black and white, half of the shortest side.

    Args:
        figures: Of their tensors.
        frames: Rows, columns and chroma of each, float32 (frames, 3).
        grey: Whether the classifier takes grey frames, and so does not see colours.
    """
    black, white = (max(getattr(found, name) for found in figures) for name in ("black_share", "white_share"))
    rows, columns, colour = frames.T.astype(np.float64)
    aspect = rows / columns
    return QualityLimits(
        least_deviation_levels=_HALF * min(found.deviation_levels for found in figures),
        most_black_share=1 - _HALF * (1 - black),
        most_white_share=1 - _HALF * (1 - white),
        most_chroma_levels=min(float(LEVELS), float(colour.max()) * _ASPECT_MARGIN + _CHROMA_MARGIN_LEVELS) if grey else None,
        least_side_px=max(1, math.floor(_HALF * float(np.minimum(rows, columns).min()))),
        aspect=(float(aspect.min()) / _ASPECT_MARGIN, float(aspect.max()) * _ASPECT_MARGIN),
    )


def _figures(*splits: PreparedSplit) -> NDArray[np.float32]:
    found = [split.figures for split in splits]
    known = [item for item in found if item is not None]
    if len(known) < len(found):
        raise ValueError("the frames' own figures are not known")
    return np.concatenate(known)
