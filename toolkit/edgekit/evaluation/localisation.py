"""Does the map point at the lesion, and does it still after quantization: pointing game and energy inside, against masks.

Rules this file keeps:

1. Both networks are judged on the same frames, by the map of the label that the frame is annotated with. What counts is the difference; the figures
   themselves describe these frames alone.
2. A mask is what the cells of the map see of it (`imaging.coverage`), so that geometry is exact through resize and crop.
3. Pointing game (Zhang et al. 2018, Excitation Backprop), with a tolerance of zero: a hit where the pixel below the centre of the map's largest cell is in the
   mask. Of several largest cells at least half must hit; a map that is the same everywhere points nowhere and misses.
4. Energy inside (Wang et al. 2020, Score-CAM): positive evidence inside the mask in parts of all positive evidence, each cell's spread evenly over the pixels it
   covers. A map without positive evidence has none inside: 0.
5. The pointing game is a paired proportion and gets Tango's interval with the design effect of the groups (`proportions`); energies get the
   bootstrap over groups.

A peak inside a lesion does not prove that the lesion is the reason, and a map of 7 × 7 cells cannot point at what is smaller than a cell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.evaluation.fidelity import is_flat
from edgekit.evaluation.intervals import REPLICATES, Figure, bootstrap, figure, group_indices
from edgekit.evaluation.proportions import ProportionDifference, paired_difference

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lesions:
    """Masks of frames as the cells of a map see them.

    Attributes:
        covered: float64 (frames, rows, columns): share of each cell's area that lies in the mask. In [0, 1].
        centre: bool (frames, rows, columns): whether the pixel below the cell's centre is in the mask.
    """

    covered: Floats
    centre: Bools


@dataclass(frozen=True, slots=True, kw_only=True)
class Localisation:
    """FP32 against the device on frames with masks.

    Attributes:
        frames: Frames that were compared.
        groups: Groups they come from.
        splits: Split to number of frames.
        left_out: Reason to number of frames that have a mask and were not compared.
        chance: Hits that a peak in a cell drawn at random would make, as a share.
        pointing: Share of hits, device − FP32, paired.
        energy_reference: Mean energy inside, FP32.
        energy_device: The same of the device.
        energy_difference: Device − FP32, paired.
    """

    frames: int
    groups: int
    splits: Mapping[str, int]
    left_out: Mapping[str, int]
    chance: float | None
    pointing: ProportionDifference
    energy_reference: Figure
    energy_device: Figure
    energy_difference: Figure


def hits(maps: NDArray[np.floating], lesions: Lesions) -> Bools:
    """Whether each map (frames, rows, columns) points into its lesion: bool (frames,)."""
    top = maps == maps.max(axis=(1, 2), keepdims=True)
    share = (top & lesions.centre).sum(axis=(1, 2)) / top.sum(axis=(1, 2))
    found: Bools = (share >= 0.5) & ~is_flat(maps)
    return found


def energy_inside(maps: NDArray[np.floating], lesions: Lesions) -> Floats:
    """Share of each map's positive evidence that lies in its lesion: float64 (frames,) in [0, 1]."""
    positive = np.clip(maps.astype(np.float64), 0, None)
    total = positive.sum(axis=(1, 2))
    share: Floats = np.divide((positive * lesions.covered).sum(axis=(1, 2)), total, out=np.zeros(len(maps)), where=total > 0)
    return share


def compare(  # noqa: PLR0913 - two models, what they are about, and how the frames belong together
    reference: NDArray[np.floating],
    device: NDArray[np.floating],
    lesions: Lesions,
    *,
    groups: Sequence[str],
    splits: Sequence[str],
    left_out: Mapping[str, int],
    margin: float,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Localisation:
    """Compares two networks' maps with the same lesions.

    Args:
        reference: float (frames, rows, columns), the maps of the annotated labels.
        device: The same of the device; of the same size, as it is the same network.
        lesions: As the cells of the maps see them.
        groups: The patient or video of each frame.
        splits: The split of each frame.
        left_out: Reason to number of frames with a mask that are not among these.
        margin: Of the pointing game.
        replicates: Draws of the bootstrap.
        seed: Of the bootstrap.
    """
    index = group_indices(groups) if len(reference) else np.zeros(0, dtype=np.intp)
    pointing = paired_difference(hits(reference, lesions), hits(device, lesions), index, margin=margin)
    counts = {split: splits.count(split) for split in dict.fromkeys(splits)}
    if not len(reference):
        undefined = Figure(value=None, low=None, high=None)
        return Localisation(
            frames=0, groups=0, splits={}, left_out=left_out, chance=None, pointing=pointing,
            energy_reference=undefined, energy_device=undefined, energy_difference=undefined,
        )  # fmt: skip
    before, after = energy_inside(reference, lesions), energy_inside(device, lesions)
    energies = {"reference": before, "device": after, "difference": after - before}
    draws = bootstrap(
        lambda w: {name: w @ item / w.sum(axis=1) for name, item in energies.items()}, index, replicates=replicates, seed=seed
    )
    count = int(index.max()) + 1
    figures = {name: figure(float(item.mean()), draws[name], count) for name, item in energies.items()}
    if np.ptp(draws["difference"]) < _ROUNDING:
        # Nothing varies: the exact interval that `figure` gives then is one of shares, and a difference is none.
        figures["difference"] = Figure(value=float(energies["difference"].mean()), low=None, high=None)
    return Localisation(
        frames=len(reference),
        groups=count,
        splits=counts,
        left_out=left_out,
        chance=float(lesions.centre.mean()),
        pointing=pointing,
        energy_reference=figures["reference"],
        energy_device=figures["device"],
        energy_difference=figures["difference"],
    )
