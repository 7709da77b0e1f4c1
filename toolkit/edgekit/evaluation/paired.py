"""Compares the device with the reference frame by frame: which answers change, and how far probabilities and logits move.

An AUC can stay the same while single patients get another answer; this file counts those patients.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import ModelError
from edgekit.evaluation.decision import probabilities
from edgekit.schema.model_io import OutputSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Flips:
    """Frames whose answer differs between reference and device; indices count from 0 in the order of the frames.

    Attributes:
        frames: Number of frames compared.
        harmful: The reference was right, the device is wrong. Multilabel: at least one label that was right became wrong.
        helpful: The reference was wrong, the device is right. Multilabel: labels changed, and all of them for the better.
        neither: Both wrong in different ways; never for multilabel.
    """

    frames: int
    harmful: tuple[int, ...]
    helpful: tuple[int, ...]
    neither: tuple[int, ...]

    @property
    def indices(self) -> tuple[int, ...]:
        """Every frame whose answer changed, ascending."""
        return tuple(sorted((*self.harmful, *self.helpful, *self.neither)))

    @property
    def rate(self) -> float | None:
        """Share of frames whose answer changed; None without frames."""
        return len(self.indices) / self.frames if self.frames else None

    @property
    def harmful_rate(self) -> float | None:
        """Share of frames that the device made wrong; None without frames."""
        return len(self.harmful) / self.frames if self.frames else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far the device is from the reference on the same frames; smaller is nearer, 0 is equal.

    Attributes:
        mean_kl: Mean over frames of KL(reference ‖ device) in nats; multilabel: of the sum of the labels' Bernoulli divergences.
        mean_abs_probability: Mean |Δp| over frames and labels.
        max_abs_logit: Largest |Δlogit| over frames and labels.
    """

    mean_kl: float
    mean_abs_probability: float
    max_abs_logit: float


def compare_answers(reference: NDArray[np.bool_], device: NDArray[np.bool_], truth: NDArray[np.bool_], output: OutputSpec) -> Flips:
    """Finds the frames whose answer changed.

    Args:
        reference: bool (frames, labels), from `decision.answers`.
        device: The same of the device.
        truth: bool (frames, labels).
        output: The meaning of the outputs.
    """
    if not reference.shape == device.shape == truth.shape:
        raise ValueError(f"shapes differ: reference {reference.shape}, device {device.shape}, truth {truth.shape}")
    changed = (reference != device).any(axis=1)
    if output.task == "multilabel":
        harmful = ((reference == truth) & (device != truth)).any(axis=1)
        helpful = changed & ~harmful
    else:
        reference_right, device_right = (reference == truth).all(axis=1), (device == truth).all(axis=1)
        harmful, helpful = reference_right & ~device_right, ~reference_right & device_right
    return Flips(
        frames=len(truth),
        harmful=_indices(harmful),
        helpful=_indices(helpful),
        neither=_indices(changed & ~harmful & ~helpful),
    )


def agreement(  # noqa: PLR0913 - what each of two models is read with
    reference: NDArray[np.floating],
    device: NDArray[np.floating],
    output: OutputSpec,
    *,
    outputs: int,
    temperature: float = 1.0,
    device_outputs: int | None = None,
    device_temperature: float | None = None,
) -> Agreement:
    """Measures how far the device is from the reference; needs no labels.

    Args:
        reference: float (frames, labels), from `decision.logits_by_label`.
        device: The same of the device.
        output: The meaning of the outputs.
        outputs: Number of raw outputs of the reference (see `decision.probabilities`).
        temperature: Above 0; divides the reference's logits before the probabilities, not in `max_abs_logit`.
        device_outputs: Number of raw outputs of the device; None where it is the same number. Where it is another one, `max_abs_logit` compares numbers of
            different meaning.
        device_temperature: The device's temperature; None where it is the same.

    Raises:
        ModelError: There are no frames, or a logit is NaN or infinite.
    """
    if reference.shape != device.shape:
        raise ValueError(f"shapes differ: reference {reference.shape}, device {device.shape}")
    if not reference.size:
        raise ModelError("no frames to compare")
    for name, logits in (("reference", reference), ("device", device)):
        if not np.isfinite(logits).all():
            frame = int(np.flatnonzero(~np.isfinite(logits).all(axis=1))[0])
            raise ModelError(
                f"the {name} model gave NaN or infinite logits, first on frame {frame}", hint="check its weights and precision"
            )
    sides = (
        (reference, outputs, temperature),
        (device, outputs if device_outputs is None else device_outputs, temperature if device_temperature is None else device_temperature),
    )
    p, q = (probabilities(logits, output, outputs=count, temperature=value) for logits, count, value in sides)
    log_p, log_q = (_log_probabilities(logits, output, count, value) for logits, count, value in sides)
    divergence = (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)
    return Agreement(
        # A divergence is never negative; rounding can make it so where the two agree.
        mean_kl=max(0.0, float(divergence.mean())),
        mean_abs_probability=float(np.abs(p - q).mean()),
        max_abs_logit=float(np.abs(reference.astype(np.float64) - device.astype(np.float64)).max()),
    )


def _log_probabilities(logits: NDArray[np.floating], output: OutputSpec, outputs: int, temperature: float) -> NDArray[np.float64]:
    # Taken from the logits, because the logarithm of a probability that was rounded to 0 is lost.
    scaled = logits.astype(np.float64) / temperature
    if output.task == "multilabel":
        scaled = np.concatenate([scaled, -scaled], axis=-1)
    if output.task == "multilabel" or outputs == 1:
        return np.asarray(-np.logaddexp(0.0, -scaled))
    return np.asarray(scaled - np.logaddexp.reduce(scaled, axis=-1, keepdims=True))


def _indices(chosen: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(index) for index in np.flatnonzero(chosen))
