"""What a training is given and what it tells: settings, frames, history. Nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.catalog.compress import AugmentSpec, DistillSpec, Precision
from edgekit.errors import DataError
from edgekit.schema.model_io import InputSpec, OutputSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """Settings of one training; those that a recipe has are as in `DistillSpec` and `QatSpec`.

    Attributes:
        epochs: Most passes over the frames of `train`.
        frames_per_epoch: Frames of one pass, drawn anew for each; None for all.
        batch: Frames a step, over all processes. Frames that do not fill a last batch wait for another epoch.
        learning_rate: Largest, of a one-cycle schedule.
        weight_decay: Of AdamW, on matrices and kernels; not on biases, normalizations and scales.
        temperature: Of the softened answers.
        soft_weight: Of the divergence from the teachers' answers.
        hard_weight: Of the cross-entropy with the labels.
        logit_weight: Of the squared distance from the teachers' logits.
        cam_weight: Of the distance between the maps.
        feature_weight: Of the distance between the pooled features.
        class_weighting: Whether rare labels weigh more in the cross-entropy.
        patience: Epochs without a better loss on `val` before training stops.
        seed: Of order, augmentation, dropout and projections.
        precision: Of the arithmetic.
        augment: How frames are varied; None for not at all.
        freeze_batch_norm: Whether batch normalizations keep their running figures, and use them: for short recoveries.
        gradient_norm: Largest norm of all gradients together; larger ones are scaled down.
    """

    epochs: int
    frames_per_epoch: int | None = None
    batch: int = 32
    learning_rate: float = 5e-4
    weight_decay: float = 0.02
    temperature: float = 2.0
    soft_weight: float = 1.0
    hard_weight: float = 0.5
    logit_weight: float = 0.0
    cam_weight: float = 1.0
    feature_weight: float = 0.0
    class_weighting: bool = True
    patience: int = 5
    seed: int = 0
    precision: Precision = "auto"
    augment: AugmentSpec | None = field(default_factory=AugmentSpec)
    freeze_batch_norm: bool = False
    gradient_norm: float = 1.0

    def __post_init__(self) -> None:
        if not self.soft_weight + self.hard_weight + self.logit_weight > 0:
            raise ValueError("soft_weight, hard_weight or logit_weight must be above 0: maps and features alone do not fix an answer")


def settings_of(spec: DistillSpec) -> TrainSettings:
    """The settings of a recipe's `distill`; its further teachers are the caller's business."""
    return TrainSettings(
        epochs=spec.epochs,
        frames_per_epoch=spec.frames_per_epoch,
        batch=spec.batch,
        learning_rate=spec.learning_rate,
        weight_decay=spec.weight_decay,
        temperature=spec.temperature,
        soft_weight=spec.soft_weight,
        hard_weight=spec.hard_weight,
        cam_weight=spec.cam_weight,
        feature_weight=spec.feature_weight,
        class_weighting=spec.class_weighting,
        patience=spec.patience,
        seed=spec.seed,
        precision=spec.precision,
        augment=spec.augment,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frames:
    """Labelled frames.

    Attributes:
        tensors: uint8 (frames, height, width, channels); may be a read-only memory map.
        truth: bool (frames, labels).
    """

    tensors: NDArray[np.uint8]
    truth: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainData:
    """What is trained on, and what chooses between epochs.

    Attributes:
        train: Frames to learn from.
        val: Frames that decide which epoch is the best; never of the split that proves the result.
        input: How frames become what the networks take.
        output: What the logits mean.

    Raises:
        DataError: A split is empty, or its frames and labels are not those of `input` and `output`.
    """

    train: Frames
    val: Frames
    input: InputSpec
    output: OutputSpec

    def __post_init__(self) -> None:
        shape = (*self.input.size, self.input.frame_channels)
        for name, frames in (("train", self.train), ("val", self.val)):
            if not len(frames.tensors):
                raise DataError(f"there are no frames of the split {name!r} to train with", hint="the manifest's split column names it")
            if frames.tensors.shape[1:] != shape or frames.tensors.dtype != np.uint8:
                raise DataError(f"the frames of {name} are {frames.tensors.dtype} {frames.tensors.shape[1:]}, not uint8 {shape}")
            if frames.truth.shape != (len(frames.tensors), len(self.output.labels)):
                raise DataError(f"{name} has {len(frames.tensors)} frames and labels of shape {frames.truth.shape}")
            if self.output.task != "multilabel" and (frames.truth.sum(axis=1) != 1).any():
                raise DataError(f"a frame of {name} does not have exactly one true label")


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """How a training went.

    Attributes:
        start: `val_loss` and `val_auc` (or None) of the network as it was given.
        epochs: An epoch each: `epoch` from 1, `train_loss`, `parts` (name to unweighted mean), `val_loss`, `val_parts`, `val_auc` or None,
            `learning_rate` at its end, `seconds`.
        best_epoch: Whose weights the network has now; 0 where no epoch was better than the start.
        stopped: Why there were no more epochs.
        is_main: Whether this process is the one that writes results.
    """

    start: dict[str, Any]
    epochs: tuple[dict[str, Any], ...]
    best_epoch: int
    stopped: str
    is_main: bool = True

    def to_json(self) -> dict[str, Any]:
        """As a JSON document; the same from every process."""
        return {"start": self.start, "epochs": list(self.epochs), "best_epoch": self.best_epoch, "stopped": self.stopped}
