"""How near the maps of one network are to those of another on the same frames: is the device's explanation still the trained model's?

Rules this file keeps:

1. Both maps of a frame are of the label that the reference answers. Maps of two sizes are compared at the smaller one (area mean).
2. A map whose values are all alike, up to the rounding of float32, says nothing about a place. Where both maps of a frame are such, there is nothing to
   compare: the frame is left out of every likeness, and counted. Where one is, the likeness is 0 and the peak lies as far off as the map is large.
3. Ties are not broken by the order of the cells. Cells that tie at the edge of the largest tenth share the room that is left; of several peaks the one
   counts that lies farthest from the other map's nearest peak.
4. The largest tenth is taken of the map as it is drawn, with bilinear values between the centres of its cells: of 49 cells a tenth is five, and an overlap of
   five cells knows three values above a half.
5. A peak is kept where it stays within one cell, and where it moves to a cell in which the reference itself is nearly at its largest: on a fine map several cells are often as good as each other, and which of them
   wins is rounding.
6. Intervals draw whole groups, as everywhere (`intervals`).

Likeness to another map does not prove that either shows what a clinician would call the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import ModelError
from edgekit.evaluation.intervals import REPLICATES, Figure, bootstrap, figure, group_indices

Floats = NDArray[np.float64]
Maps = NDArray[np.floating]

TOP_SHARE = 0.1
LOW_SHARE = 0.05
NEAR_CELLS = 1
TIE = 0.05
"""In parts of a map's range: the overlay's colours of two such cells can hardly be told apart."""

DRAWN_STEPS = 8
"""Points a cell in each direction that the largest tenth is taken of."""

_FLAT = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameFidelity:
    """Each frame's maps against each other; NaN where there is nothing to compare (rule 2).

    Attributes:
        pearson: float64 (frames,), Pearson's correlation over the cells.
        overlap: float64 (frames,), intersection over union of the largest tenth of either map as it is drawn. In [0, 1].
        peak_shift: float64 (frames,), from peak to peak in cells, the larger of the two directions (Chebyshev).
        peak_kept: float64 (frames,), 1 where every peak of the device is within `NEAR_CELLS` of one of the reference's, or in a cell where the reference is at most `TIE` of its
            range below its largest value; 0 elsewhere.
        sign: float64 (frames,), share of the reference's |evidence| that lies in cells whose sign is the same on the device. In [0, 1]. Weighted, because a
            cell near zero changes its sign by rounding and means nothing.
    """

    pearson: Floats
    overlap: Floats
    peak_shift: Floats
    peak_kept: Floats
    sign: Floats


FRAME_FIGURES = ("pearson", "overlap", "peak_shift", "peak_kept", "sign")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """The frames of a split together.

    Attributes:
        frames: Frames that were compared.
        groups: Groups they come from.
        featureless: Frames on which neither map says anything about a place, which are not among `frames`.
        pearson_median: Median of Pearson's correlation.
        pearson_p5: Its 5th percentile.
        overlap_median: Median overlap of the largest tenth.
        peak_near: Share of frames whose peak lies within one cell of the reference's.
        peak_kept: Share of frames whose peak is kept (rule 5).
        sign_median: Median agreement of the signs, weighted by evidence.
        spared: Each figure with the one frame left out that is worst for it: what a single frame does to it. Empty where there is no other frame.
    """

    frames: int
    groups: int
    featureless: int
    pearson_median: Figure
    pearson_p5: Figure
    overlap_median: Figure
    peak_near: Figure
    peak_kept: Figure
    sign_median: Figure
    spared: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Counts, and each figure as ``{value, low, high}``."""
        counts = {"frames": self.frames, "groups": self.groups, "featureless": self.featureless}
        return {**counts, **{name: getattr(self, name).to_json() for name in FIGURES}}


FIGURES = ("pearson_median", "pearson_p5", "overlap_median", "peak_near", "peak_kept", "sign_median")


def by_label(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits or maps with one entry a label in their second axis: a single one stands for the second label, its negative for the first."""
    return np.concatenate([-values, values], axis=1) if values.shape[1] == 1 else values


def answered_maps(
    logits: NDArray[np.float32], reference: NDArray[np.float32], device: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Both maps of the label that the reference answers.

    Args:
        logits: float32 (frames, outputs) of the reference.
        reference: float32 (frames, outputs, rows, columns).
        device: The same of the device; its outputs may be of another number (one logit for two labels), its maps of another size.

    Returns:
        float32 (frames, rows, columns) of either, each of its own size.
    """
    rows, answered = np.arange(len(logits)), by_label(logits).argmax(axis=1)
    first, second = (by_label(maps)[rows, answered] for maps in (reference, device))
    return first, second


def compare_frames(reference: Maps, device: Maps) -> FrameFidelity:
    """Compares maps frame by frame.

    Args:
        reference: float (frames, rows, columns).
        device: The same of the device; rows and columns may be others.

    Raises:
        ModelError: A map has NaN or infinite values.
    """
    if len(reference) != len(device) or reference.ndim != 3 or device.ndim != 3:
        raise ValueError(f"maps of the same frames are needed, not {reference.shape} and {device.shape}")
    for name, maps in (("reference", reference), ("device", device)):
        if not np.isfinite(maps).all():
            frame = int(np.flatnonzero(~np.isfinite(maps).all(axis=(1, 2)))[0])
            raise ModelError(
                f"the {name} model gave a map with NaN or infinite values, first on frame {frame}", hint="check its weights and precision"
            )
    size = (min(reference.shape[1], device.shape[1]), min(reference.shape[2], device.shape[2]))
    first, second = (at_size(maps, size) for maps in (reference, device))
    flat = np.stack([is_flat(first), is_flat(second)])
    one, both = flat.any(axis=0) & ~flat.all(axis=0), flat.all(axis=0)
    found = {
        "pearson": np.where(one, 0.0, _pearson(first, second)),
        "overlap": np.where(one, 0.0, _overlap(first, second)),
        "peak_shift": np.where(one, max(size) - 1.0, _peak_shift(first, second)),
        "peak_kept": np.where(one, 0.0, _peak_kept(first, second)),
        "sign": _sign_agreement(first, second),
    }
    return FrameFidelity(**{name: np.where(both, np.nan, values) for name, values in found.items()})


def summarize(found: FrameFidelity, groups: Sequence[str], *, replicates: int = REPLICATES, seed: int = 0) -> Fidelity:
    """Medians, the 5th percentile and the share within one cell, with intervals over groups.

    Args:
        found: From `compare_frames`.
        groups: The patient or video of each frame.
        replicates: Draws of the bootstrap.
        seed: Of the bootstrap.
    """
    usable = ~np.isnan(found.pearson)
    if not usable.any():
        undefined = Figure(value=None, low=None, high=None)
        return Fidelity(frames=0, groups=0, featureless=len(usable), spared={}, **dict.fromkeys(FIGURES, undefined))
    index = group_indices([group for group, keep in zip(groups, usable, strict=True) if keep])
    kept = FrameFidelity(**{name: getattr(found, name)[usable] for name in FRAME_FIGURES})
    draws = bootstrap(lambda weights: _figures(kept, weights), index, replicates=replicates, seed=seed)
    count, plain = int(index.max()) + 1, values(found)
    figures = {name: figure(np.nan if (value := plain[name]) is None else value, draws[name], count) for name in FIGURES}
    return Fidelity(frames=len(index), groups=count, featureless=int((~usable).sum()), spared=_without_the_worst(kept), **figures)


def values(found: FrameFidelity) -> dict[str, float | None]:
    """The figures of `FIGURES` on all frames, without intervals; None where there is nothing to compare."""
    usable = ~np.isnan(found.pearson)
    plain = _figures(found, usable[None].astype(np.float64))
    return {name: None if np.isnan(plain[name][0]) else float(plain[name][0]) for name in FIGURES}


def residual_share(residual: NDArray[np.floating], logits: NDArray[np.floating]) -> float | None:
    """How far the device's maps are from adding up to its logits: the largest deviation in parts of the logit's standard deviation.

    Args:
        residual: float (frames, outputs), |mean of the map + offset − logit| on the device.
        logits: float (frames, outputs) of the reference on the same frames, whose spread is the measure.

    Returns:
        The largest over frames and outputs; None without frames, and where an output deviates that does not vary at all.
    """
    if not residual.size:
        return None
    largest, spread = residual.max(axis=0).astype(np.float64), logits.std(axis=0).astype(np.float64)
    if ((spread == 0) & (largest > 0)).any():
        return None
    return float(np.divide(largest, spread, out=np.zeros_like(largest), where=spread > 0).max())


def is_flat(maps: Maps) -> NDArray[np.bool_]:
    """Where the values of a map are alike up to the rounding of float32: bool (frames,)."""
    wide = maps.astype(np.float64)
    flat: NDArray[np.bool_] = np.ptp(wide, axis=(1, 2)) <= _FLAT * np.abs(wide).max(axis=(1, 2))
    return flat


def at_size(maps: Maps, size: tuple[int, int]) -> Floats:
    """Maps (frames, rows, columns) shrunk to (rows, columns) by area mean."""
    wide = maps.astype(np.float64)
    if maps.shape[1:] == size:
        return wide
    rows, columns = (_area_mean(cells, wanted) for cells, wanted in zip(maps.shape[1:], size, strict=True))
    shrunk: Floats = rows @ wide @ columns.T
    return shrunk


def peaks(values: Floats) -> NDArray[np.intp]:
    """The cells of the largest value of a map (rows, columns): intp (peaks, 2), rows and columns."""
    return np.argwhere(values == values.max())


def _area_mean(cells: int, wanted: int) -> Floats:
    """float64 (wanted, cells): the share of each cell in each of as many equal stretches."""
    edges, old = np.linspace(0, cells, wanted + 1), np.arange(cells)
    shared = np.minimum(edges[1:, None], old + 1) - np.maximum(edges[:-1, None], old)
    part: Floats = np.clip(shared, 0, None) * wanted / cells
    return part


def _pearson(first: Floats, second: Floats) -> Floats:
    before, after = (_centred(maps) for maps in (first, second))
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    found = np.divide((before * after).sum(axis=1), norms, out=np.zeros(len(first)), where=norms > 0)
    clipped: Floats = np.clip(found, -1, 1)
    return clipped


def _centred(maps: Floats) -> Floats:
    flat = maps.reshape(len(maps), -1)
    # The square of a value below 1e-154 is 0, and no map's correlation hangs on its unit.
    largest = np.abs(flat).max(axis=1, keepdims=True)
    scaled = np.divide(flat, largest, out=np.zeros_like(flat), where=largest > 0)
    centred: Floats = scaled - scaled.mean(axis=1, keepdims=True)
    return centred


def _overlap(first: Floats, second: Floats) -> Floats:
    before, after = (_largest_tenth(_drawn(maps)) for maps in (first, second))
    found: Floats = np.minimum(before, after).sum(axis=1) / np.maximum(before, after).sum(axis=1)
    return found


def _largest_tenth(maps: Floats) -> Floats:
    """float64 (frames, points) in [0, 1]: how far each point belongs to the largest tenth; its sum is the tenth (rule 3)."""
    flat = maps.reshape(len(maps), -1)
    room = TOP_SHARE * flat.shape[1]
    edge = -np.partition(-flat, int(np.ceil(room)) - 1, axis=1)[:, int(np.ceil(room)) - 1, None]
    above, ties = flat > edge, flat == edge
    left = (room - above.sum(axis=1, keepdims=True)) / ties.sum(axis=1, keepdims=True)
    member: Floats = above + ties * left
    return member


def _drawn(maps: Floats) -> Floats:
    """Maps (frames, rows, columns) at `DRAWN_STEPS` points a cell in each direction, as `imaging.overlay` draws them."""
    rows, columns = (_bilinear(cells) for cells in maps.shape[1:])
    drawn: Floats = rows @ maps @ columns.T
    return drawn


def _bilinear(cells: int) -> Floats:
    """float64 (points, cells): the weight of each cell's value at each point; beyond the outer centres the outer value holds."""
    places = np.clip((np.arange(cells * DRAWN_STEPS) + 0.5) / DRAWN_STEPS - 0.5, 0, cells - 1)
    weights: Floats = np.clip(1 - np.abs(places[:, None] - np.arange(cells)), 0, None)
    return weights


def _peak_shift(first: Floats, second: Floats) -> Floats:
    shifts = np.zeros(len(first))
    for index, (before, after) in enumerate(zip(first, second, strict=True)):
        distance = np.abs(peaks(before)[:, None, :] - peaks(after)[None, :, :]).max(axis=2)
        shifts[index] = max(distance.min(axis=0).max(), distance.min(axis=1).max())
    return shifts


def _peak_kept(reference: Floats, device: Floats) -> Floats:
    """Of the maps of two networks, (frames, rows, columns) each: 1 where every peak of the device is kept (rule 5)."""
    kept = np.zeros(len(reference))
    for index, (before, after) in enumerate(zip(reference, device, strict=True)):
        found = peaks(after)
        distance = np.abs(peaks(before)[:, None, :] - found[None, :, :]).max(axis=2).min(axis=0)
        below = before.max() - before[found[:, 0], found[:, 1]]
        kept[index] = ((distance <= NEAR_CELLS) | (below <= TIE * np.ptp(before))).all()
    return kept


def _sign_agreement(first: Floats, second: Floats) -> Floats:
    weight = np.abs(first)
    alike = (weight * (np.sign(first) == np.sign(second))).sum(axis=(1, 2))
    total = weight.sum(axis=(1, 2))
    share: Floats = np.divide(alike, total, out=np.full(len(first), np.nan), where=total > 0)
    return share


def _figures(found: FrameFidelity, weights: Floats) -> dict[str, Floats]:
    """The figures of each draw, float64 (draws,), from weights (draws, frames)."""
    near, total = np.nan_to_num(found.peak_shift, nan=np.inf) <= NEAR_CELLS, weights.sum(axis=1)
    kept = np.nan_to_num(found.peak_kept, nan=0.0)
    return {
        "pearson_median": _quantile(found.pearson, weights, 0.5),
        "pearson_p5": _quantile(found.pearson, weights, LOW_SHARE),
        "overlap_median": _quantile(found.overlap, weights, 0.5),
        "peak_near": np.divide(weights @ near, total, out=np.full(len(weights), np.nan), where=total > 0),
        "peak_kept": np.divide(weights @ kept, total, out=np.full(len(weights), np.nan), where=total > 0),
        # Where the reference's map is zero all over it has no sign, and the frame no part in this figure.
        "sign_median": _quantile(found.sign, weights, 0.5),
    }


def _without_the_worst(found: FrameFidelity) -> dict[str, float]:
    spared = {}
    worth = {
        "pearson_median": found.pearson,
        "pearson_p5": found.pearson,
        "overlap_median": found.overlap,
        "peak_near": -found.peak_shift,
        "peak_kept": found.peak_kept,
    }
    for name, worths in worth.items():
        weights = np.ones((1, len(worths)))
        weights[0, int(worths.argmin())] = 0
        if weights.any():
            spared[name] = float(_figures(found, weights)[name][0])
    return spared


def _quantile(sample: Floats, weights: Floats, share: float) -> Floats:
    """The quantile of each draw as `numpy.quantile` has it (linear), of values that count as often as their whole weights say; NaN has no part.

    Args:
        sample: float64 (frames,).
        weights: float64 (draws, frames), whole numbers.
        share: In [0, 1].

    Returns:
        float64 (draws,); NaN for a draw without values.
    """
    defined = np.flatnonzero(~np.isnan(sample))
    order = defined[np.argsort(sample[defined], kind="stable")]
    if not len(order):
        return np.full(len(weights), np.nan)
    upto = np.cumsum(weights[:, order], axis=1)
    place = np.maximum(upto[:, -1] - 1, 0) * share
    low, high = (
        sample[order][np.minimum((upto <= whole[:, None]).sum(axis=1), len(order) - 1)] for whole in (np.floor(place), np.ceil(place))
    )
    found: Floats = np.where(upto[:, -1] > 0, low + (place - np.floor(place)) * (high - low), np.nan)
    return found
