"""Can these frames calibrate a quantized network: refuses black, repeated and one-sided frames before ranges are measured on them.

Rules this file keeps:

1. Ranges that were measured on frames unlike the patients' clip the patients' activations. What no patient's frame looks like is refused, not
   warned about.
2. The check sees the preprocessed frames, as the network does: a preprocessing that blackens every frame is found here too.
3. Frames are equal when every byte is.

Passing does not prove that the frames are typical of the patients.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError
from edgekit.schema.model_io import OutputSpec

FLAT_DEVIATION = 2.0
"""A frame is flat when its grey levels (of 255) deviate by less than this (standard deviation)."""

MOST_REPEATED = 0.5
"""Largest share of frames that may be copies of an earlier one."""


class CalibrationLimits(Protocol):
    """What a calibration recipe asks of its frames (`catalog.calibration.Calibration` has these)."""

    @property
    def minimum(self) -> int:
        """Fewest frames."""

    @property
    def minimum_per_label(self) -> int:
        """Fewest frames of each label."""

    @property
    def max_flat(self) -> float:
        """Largest share of flat frames."""


def check_calibration(tensors: NDArray[np.uint8], labels: Sequence[tuple[str, ...]], limits: CalibrationLimits, output: OutputSpec) -> None:
    """Refuses frames that cannot calibrate.

    Args:
        tensors: uint8 (frames, height, width, channels), preprocessed; may be a memory map, which is read frame by frame.
        labels: The labels of each frame, as in `dataset.Sample`.
        limits: Of the calibration recipe.
        output: The labels that the model knows.

    Raises:
        DataError: Says what is wrong with the frames and how many they are.
    """
    if len(labels) != len(tensors):
        raise ValueError(f"{len(labels)} rows of labels for {len(tensors)} frames")
    frames = len(tensors)
    if frames < max(1, limits.minimum):
        raise DataError(
            f"{frames} calibration frames, fewer than the {limits.minimum} that the calibration recipe asks for",
            hint="label more frames with the split calib, or choose another [calibration] recipe",
        )
    _check_labels(labels, limits, output)
    flat = sum(float(np.asarray(tensor).astype(np.float64).mean(axis=-1).std()) < FLAT_DEVIATION for tensor in tensors)
    if flat > limits.max_flat * frames:
        raise DataError(
            f"{flat} of {frames} calibration frames are black or of one grey level; at most {limits.max_flat:.0%} may be",
            hint="look at the frames of the splits calib and train, and at [input]: does preprocessing blacken them?",
        )
    distinct = len({hashlib.sha256(np.ascontiguousarray(tensor).tobytes()).digest() for tensor in tensors})
    if frames - distinct > MOST_REPEATED * frames:
        raise DataError(
            f"the {frames} calibration frames are only {distinct} different ones; the others are exact copies",
            hint="take frames of more patients, or fewer frames of each video",
        )


def _check_labels(labels: Sequence[tuple[str, ...]], limits: CalibrationLimits, output: OutputSpec) -> None:
    counts = Counter(label for row in labels for label in row)
    least = limits.minimum_per_label
    if output.task == "multilabel":
        # A rare finding may be absent; but where no label is both present and absent, all frames look alike to the network.
        if not any(least <= counts[label] <= len(labels) - least for label in output.labels):
            raise DataError(
                f"the calibration frames are one-sided: no label is present on {least} of them and absent from {least}",
                hint="calibration needs frames with and without findings",
            )
        return
    rare = [label for label in output.labels if counts[label] < least]
    if rare:
        found = ", ".join(f"{label!r} {counts[label]}" for label in rare)
        raise DataError(
            f"the calibration frames are one-sided: fewer than {least} frames of a label ({found})",
            hint="label frames of it with the split calib; calibration needs frames of every kind",
        )
