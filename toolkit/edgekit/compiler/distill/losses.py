"""What a student is asked to do: answer as its teachers, see what they see, and be right.

Rules this file keeps:

1. Every part is a mean over frames, and every scale in it is fixed before training. The loss of a batch is then the mean of the losses of its halves,
   so several processes that average their gradients train as one, and losses of two epochs can be compared.
2. Answers of a binary network with one logit and of one with two are compared as log-odds; apart from that, teachers and student have the same outputs.
3. Teachers are averaged in what is compared: softened probabilities, logits, maps in logit units. A teacher without maps has no say in the maps.
4. Maps and features of two sizes are compared at the smaller one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from edgekit.compiler.distill.settings import TrainSettings
from edgekit.schema.model_io import OutputSpec

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from edgekit.compiler.distill.answer import Answer

FLOOR = 0.01
"""Smallest variance of an output's maps, in parts of the mean over the outputs: an output that is nearly constant must not outweigh all others."""
TINY = 1e-6
"""Smallest variance that is divided by."""


class Target(NamedTuple):
    """What the teachers, together, say about a batch.

    Attributes:
        soft: float32 (frames, outputs), softened probabilities.
        logits: float32 (frames, outputs).
        maps: float32 (frames, outputs, rows, columns); None where no teacher has maps.
        features: float32 (frames, channels, rows, columns) of each teacher, None where it pools none.
    """

    soft: torch.Tensor
    logits: torch.Tensor
    maps: torch.Tensor | None
    features: tuple[torch.Tensor | None, ...]


class Loss(NamedTuple):
    """A loss and what it is made of, before weighting: `soft`, `hard`, `logits`, `maps`, `features`."""

    total: torch.Tensor
    parts: dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scales:
    """What maps and features are measured in, so that a weight means the same for every teacher.

    Attributes:
        maps: float32 (outputs,), variance of the teachers' maps over frames and positions, `floored`; None where there are none.
        features: Variance of each teacher's features.
    """

    maps: torch.Tensor | None = None
    features: tuple[float, ...] = ()


class Objective:
    """The loss of a training."""

    def __init__(self, settings: TrainSettings, output: OutputSpec, *, class_weights: torch.Tensor | None, scales: Scales) -> None:
        """Puts the parts together.

        Args:
            settings: Weights and temperature.
            output: The meaning of the outputs.
            class_weights: From `class_weights`; None for none.
            scales: From `Validation.ask`.
        """
        self._settings = settings
        self._output = output
        self._class_weights = class_weights
        self._scales = scales

    def __call__(self, student: Answer, teachers: Sequence[Answer], truth: torch.Tensor, hints: Sequence[torch.Tensor | None] = ()) -> Loss:
        """The loss of a batch.

        Args:
            student: The student's answer.
            teachers: Each teacher's answer to the same frames.
            truth: bool (frames, labels).
            hints: The student's features projected to each teacher's channels; without them there is no part `features`.
        """
        target = combine(teachers, self._output, self._settings.temperature, student.logits.shape[1])
        return self.loss(student, target, truth, hints)

    def loss(self, student: Answer, target: Target, truth: torch.Tensor, hints: Sequence[torch.Tensor | None] = ()) -> Loss:
        """As a call, with what the teachers say already put together."""
        settings, scales = self._settings, self._scales
        parts: dict[str, tuple[float, torch.Tensor]] = {}
        outputs = target.logits.shape[1]
        logits = _like(student.logits, outputs)
        if settings.soft_weight:
            parts["soft"] = settings.soft_weight, soft_loss(logits, target.soft, self._output, settings.temperature)
        if settings.hard_weight:
            parts["hard"] = settings.hard_weight, hard_loss(student.logits, truth, self._output, self._class_weights)
        if settings.logit_weight:
            parts["logits"] = settings.logit_weight, ((logits - target.logits) ** 2).mean()
        if settings.cam_weight and student.maps is not None and target.maps is not None and scales.maps is not None:
            parts["maps"] = settings.cam_weight, map_loss(_like(student.maps, outputs), target.maps, scales.maps)
        if settings.feature_weight and hints:
            pairs = [
                feature_loss(hint, features, variance)
                for hint, features, variance in zip(hints, target.features, scales.features, strict=True)
                if hint is not None and features is not None
            ]
            if pairs:
                parts["features"] = settings.feature_weight, sum(pairs[1:], start=pairs[0]) / len(pairs)
        weighted = [weight * value for weight, value in parts.values()]
        return Loss(sum(weighted[1:], start=weighted[0]), {name: value.detach() for name, (_, value) in parts.items()})


def combine(teachers: Sequence[Answer], output: OutputSpec, temperature: float, outputs: int) -> Target:
    """Averages teachers (rule 3).

    Args:
        teachers: At least one answer, all to the same frames.
        output: The meaning of the outputs.
        temperature: Of the softened probabilities.
        outputs: Number of the student's outputs.
    """
    import torch

    outputs = min(outputs, *(answer.logits.shape[1] for answer in teachers))
    logits = [_like(answer.logits, outputs) for answer in teachers]
    soft = [(z / temperature).sigmoid() if _is_sigmoid(output, outputs) else (z / temperature).softmax(dim=1) for z in logits]
    maps = [_like(answer.maps, outputs) for answer in teachers if answer.maps is not None]
    size = (min(item.shape[2] for item in maps), min(item.shape[3] for item in maps)) if maps else (0, 0)
    return Target(
        soft=torch.stack(soft).mean(dim=0),
        logits=torch.stack(logits).mean(dim=0),
        maps=torch.stack([_resized(item, size) for item in maps]).mean(dim=0) if maps else None,
        features=tuple(answer.features for answer in teachers),
    )


def soft_loss(logits: torch.Tensor, soft: torch.Tensor, output: OutputSpec, temperature: float) -> torch.Tensor:
    """Divergence of the student from softened answers, times T² (Hinton et al. 2015, section 2).

    Kullback–Leibler for a softmax; for sigmoids the mean over the outputs of the same between two Bernoulli distributions: the cross-entropy on soft labels
    less their entropy, which has the same gradient and is 0 where student and teacher agree.

    Args:
        logits: float32 (frames, outputs) of the student.
        soft: float32 (frames, outputs), the teachers' probabilities at the same temperature.
        output: The meaning of the outputs.
        temperature: T.
    """
    import torch
    import torch.nn.functional as F  # noqa: N812 - the name everybody knows

    scaled = logits / temperature
    if _is_sigmoid(output, logits.shape[1]):
        entropy = -(torch.xlogy(soft, soft) + torch.xlogy(1 - soft, 1 - soft))
        divergence = (F.binary_cross_entropy_with_logits(scaled, soft, reduction="none") - entropy).mean(dim=1)
    else:
        divergence = F.kl_div(scaled.log_softmax(dim=1), soft, reduction="none").sum(dim=1)
    return divergence.mean() * temperature**2


def hard_loss(logits: torch.Tensor, truth: torch.Tensor, output: OutputSpec, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Cross-entropy with the labels; for sigmoids the mean over the outputs.

    Args:
        logits: float32 (frames, outputs).
        truth: bool (frames, labels).
        output: The meaning of the outputs.
        weights: From `class_weights`.
    """
    import torch.nn.functional as F  # noqa: N812 - the name everybody knows

    if not _is_sigmoid(output, logits.shape[1]):
        classes = truth.to(logits.device).int().argmax(dim=1)
        losses = F.cross_entropy(logits, classes, reduction="none")
        return (losses if weights is None else losses * weights[classes]).mean()
    present = truth[:, -logits.shape[1] :].to(logits.device, logits.dtype)
    losses = F.binary_cross_entropy_with_logits(logits, present, reduction="none")
    return (losses if weights is None else losses * (present * weights[1] + (1 - present) * weights[0])).mean()


def class_weights(truth: NDArray[np.bool_], output: OutputSpec, outputs: int) -> torch.Tensor:
    """Weights by inverse frequency with a mean of 1 over the frames, so that a batch's loss keeps its size.

    Args:
        truth: bool (frames, labels) of `train`.
        output: The meaning of the outputs.
        outputs: Number of the student's outputs.

    Returns:
        float32 (labels,) for a softmax; (2, outputs) for sigmoids, absent before present. A label, or an outcome of it, that does not occur weighs 0;
        an output of which every frame is alike weighs 1.
    """
    import numpy as np
    import torch

    if not _is_sigmoid(output, outputs):
        counts = truth.sum(axis=0).astype(np.float64)
        return torch.tensor(_balanced(counts), dtype=torch.float32)
    present = truth[:, -outputs:].sum(axis=0).astype(np.float64)
    columns = [_balanced(np.array([len(truth) - count, count])) for count in present]
    return torch.tensor(np.stack(columns, axis=1), dtype=torch.float32)


def _balanced(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    occurring = int((counts > 0).sum())
    result: NDArray[np.float64] = np.divide(counts.sum() / occurring, counts, out=np.zeros_like(counts), where=counts > 0)
    return result


def map_loss(student: torch.Tensor, teacher: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """CAM consistency: squared distance of the maps in parts of the variance of the teacher's, averaged over positions and outputs.

    0 where the maps agree, 1 where the student's is everywhere the teacher's mean.

    Args:
        student: float32 (frames, outputs, rows, columns).
        teacher: float32 (frames, outputs, rows, columns), of any size.
        variance: float32 (outputs,), as in `Scales`.
    """
    size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
    squared = (_resized(student, size) - _resized(teacher, size)) ** 2
    return (squared.mean(dim=(0, 2, 3)) / variance).mean()


def feature_loss(hint: torch.Tensor, teacher: torch.Tensor, variance: float) -> torch.Tensor:
    """Feature hint: squared distance of projected features in parts of the variance of the teacher's (after Romero et al. 2015, equation 3).

    Args:
        hint: float32 (frames, channels, rows, columns), the student's features after the learned 1 × 1 projection.
        teacher: float32 (frames, channels, rows, columns), of any size.
        variance: As in `Scales`.
    """
    size = (min(hint.shape[2], teacher.shape[2]), min(hint.shape[3], teacher.shape[3]))
    return ((_resized(hint, size) - _resized(teacher, size)) ** 2).mean() / variance


def floored(variance: torch.Tensor) -> torch.Tensor:
    """The variance (outputs,) of the teachers' maps over frames and positions, with a floor that keeps a nearly constant output from outweighing all others."""
    return variance.clamp(min=max(FLOOR * float(variance.mean()), TINY))


def _is_sigmoid(output: OutputSpec, outputs: int) -> bool:
    return output.task == "multilabel" or outputs == 1


def _like(values: torch.Tensor, outputs: int) -> torch.Tensor:
    """Logits or maps of two outputs as those of one, where one is wanted: the log-odds of the second label (rule 2)."""
    return values[:, 1:] - values[:, :1] if values.shape[1] == 2 and outputs == 1 else values


def _resized(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    import torch.nn.functional as F  # noqa: N812 - the name everybody knows

    if tuple(maps.shape[2:]) == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False, antialias=True)
