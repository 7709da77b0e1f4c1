"""How a model is made smaller: the recipe's `[compress]`.

Rules this file keeps:

1. Every part is optional; quantization alone is the default.
2. A knob that would tune on frames that prove the result does not exist: training sees `train`, choices are made on `val`.
3. Parts that need each other are checked together here, so that a recipe is refused before anything is computed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Rung = Literal["ptq", "ptq-full", "ptq-asymmetric", "ptq-no-smoothquant", "float-fallback", "qat", "float"]
Criterion = Literal["l1", "l2", "taylor", "bn-scale"]
Scope = Literal["isomorphic", "global"]
PruneMeasure = Literal["latency", "macs"]
Precision = Literal["auto", "f32", "bf16", "f16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentSpec:
    """How training frames are varied; every frame keeps its label under all of them.

    Attributes:
        flip: Whether half of the frames are mirrored left to right.
        shift: Largest shift in either direction, in parts of the side; what moves in is a copy of the edge.
        gain: Largest relative change of brightness: factors between 1 − gain and 1 + gain.
        offset: Largest offset, in grey levels of 255.
        speckle: Standard deviation of multiplicative noise, in parts of the pixel's value.
    """

    flip: bool = True
    shift: float = 0.05
    gain: float = 0.2
    offset: float = 15.0
    speckle: float = 0.0

    def __post_init__(self) -> None:
        for name, value, most in (
            ("shift", self.shift, 0.5),
            ("gain", self.gain, 0.9),
            ("offset", self.offset, 128),
            ("speckle", self.speckle, 1),
        ):
            if not 0 <= value <= most:
                raise ValueError(f"{name} must be between 0 and {most}, not {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneSpec:
    """Structured pruning: which channels go, and how many.

    Attributes:
        criterion: What a channel is worth; a name of `compiler/prune/criteria.py`.
        scope: Whether channels compete within structures of one kind (isomorphic) or across the whole network (global).
        latency_target: Latency of the pruned INT8 model in parts of the unpruned INT8 model's, both measured on the compile's host. In (0, 1); None where
            multiply-accumulates decide.
        macs_target: Multiply-accumulates of the pruned network in parts of the unpruned one's, for a target whose latency cannot be measured on the compile's
            host. In (0, 1); None where the latency decides.
        steps: Steps in which the channels are taken out, with a recovery between them.
        recovery_epochs: Epochs of distillation after every step but the last.
        max_ratio: Largest share of channels that may be taken out of one structure. In (0, 1).
        round_to: Channel counts are multiples of this; None for what the target's engine runs well.
    """

    criterion: Criterion = "taylor"
    scope: Scope = "isomorphic"
    latency_target: float | None = None
    macs_target: float | None = None
    steps: int = 3
    recovery_epochs: int = 1
    max_ratio: float = 0.9
    round_to: int | None = None

    def __post_init__(self) -> None:
        if (self.latency_target is None) == (self.macs_target is None):
            raise ValueError("prune needs one of latency_target and macs_target, which say how much goes")
        if not 0 < self.target < 1:
            raise ValueError(f"{self.measure}_target is a share of the unpruned network's, above 0 and below 1, not {self.target}")
        if not 1 <= self.steps <= 50 or not 0 <= self.recovery_epochs <= 1000:
            raise ValueError("steps must be 1 to 50 and recovery_epochs 0 to 1000")
        if not 0 < self.max_ratio < 1:
            raise ValueError(f"max_ratio must be above 0 and below 1, not {self.max_ratio}")
        if self.round_to is not None and not 1 <= self.round_to <= 256:
            raise ValueError(f"round_to must be between 1 and 256 channels, not {self.round_to}")

    @property
    def measure(self) -> PruneMeasure:
        """What says how much goes."""
        return "latency" if self.latency_target is not None else "macs"

    @property
    def target(self) -> float:
        """What is asked for, in parts of the unpruned network's."""
        return self.latency_target if self.latency_target is not None else self.macs_target or 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    """A further network: a student's architecture, or another teacher of the same labels.

    Attributes:
        source: `KIND:ARGUMENT`, as in `[model]`.
        weights: A weights file. For a student it may be of another task: a head that does not fit is left out, and that is said.
        arguments: Further keyword arguments of the constructor.
    """

    source: str
    weights: str | None = None
    arguments: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if ":" not in self.source:
            raise ValueError(f"source = {self.source!r} is not KIND:ARGUMENT, for example timm:resnet18")


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillSpec:
    """Training of the student on the teacher's answers.

    Attributes:
        epochs: Passes over the frames of `train`.
        frames_per_epoch: Frames of one pass, drawn anew for each; None for all.
        batch: Frames a step, over all processes.
        learning_rate: Largest, of a one-cycle schedule.
        weight_decay: Of AdamW.
        temperature: Of the softened answers (Hinton et al. 2015).
        soft_weight: Of the divergence from the teacher's answers.
        hard_weight: Of the cross-entropy with the labels.
        cam_weight: Of the distance between the student's map and the teacher's.
        feature_weight: Of the distance between the features that the heads pool, after a learned projection.
        class_weighting: Whether rare labels weigh more in the cross-entropy.
        patience: Epochs without a better loss on `val` before training stops.
        seed: Of the order, the augmentation and new weights.
        precision: Of the arithmetic; auto is f16 or bf16 on a GPU that has it, f32 elsewhere.
        augment: How frames are varied.
        teachers: Further teachers, whose answers are averaged with the model's.
    """

    epochs: int = 10
    frames_per_epoch: int | None = None
    batch: int = 32
    learning_rate: float = 5e-4
    weight_decay: float = 0.02
    temperature: float = 2.0
    soft_weight: float = 1.0
    hard_weight: float = 0.5
    cam_weight: float = 1.0
    feature_weight: float = 0.0
    class_weighting: bool = True
    patience: int = 5
    seed: int = 0
    precision: Precision = "auto"
    augment: AugmentSpec = field(default_factory=AugmentSpec)
    teachers: tuple[NetworkSpec, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.epochs <= 10_000 or self.patience < 1:
            raise ValueError("epochs must be 1 to 10 000 and patience at least 1")
        if not 1 <= self.batch <= 4096 or (self.frames_per_epoch is not None and self.frames_per_epoch < self.batch):
            raise ValueError("batch must be 1 to 4096, and frames_per_epoch at least one batch")
        if not 0 < self.learning_rate <= 1 or not 0 <= self.weight_decay <= 1:
            raise ValueError("learning_rate must be above 0 and at most 1, weight_decay between 0 and 1")
        if not 0 < self.temperature <= 100:
            raise ValueError(f"temperature must be above 0 and at most 100, not {self.temperature}")
        weights = (self.soft_weight, self.hard_weight, self.cam_weight, self.feature_weight)
        if min(weights) < 0 or self.soft_weight + self.hard_weight == 0:
            raise ValueError("the weights must not be negative, and soft_weight or hard_weight must be above 0")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, but is {self.seed}")


@dataclass(frozen=True, slots=True, kw_only=True)
class QatSpec:
    """Quantization-aware training: a few passes in which the network learns to live with rounding. It imitates the float network and needs no labels.

    Attributes:
        epochs: Passes over the frames of `train`.
        frames_per_epoch: Frames of one pass, drawn anew for each; None for all.
        batch: Frames a step.
        learning_rate: Largest.
        logit_weight: Of the squared distance of the logits.
        cam_weight: Of the squared distance of the maps, in parts of their variance.
        seed: Of the order and the augmentation.
    """

    epochs: int = 4
    frames_per_epoch: int | None = 1000
    batch: int = 16
    learning_rate: float = 3e-5
    logit_weight: float = 0.05
    cam_weight: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.epochs <= 10_000 or not 1 <= self.batch <= 4096:
            raise ValueError("epochs must be 1 to 10 000 and batch 1 to 4096")
        if self.frames_per_epoch is not None and self.frames_per_epoch < self.batch:
            raise ValueError("frames_per_epoch must be at least one batch")
        if not 0 < self.learning_rate <= 1 or self.logit_weight < 0 or self.cam_weight < 0 or self.seed < 0:
            raise ValueError("learning_rate must be above 0 and at most 1; the weights and the seed must not be negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeSpec:
    """The rungs that are tried, in this order; see `compiler/quantize/rungs.py`.

    Attributes:
        ladder: The rungs.
        fallback_layers: Most layers that `float-fallback` leaves in floating point.
        qat: Of the rung `qat`.
    """

    ladder: tuple[Rung, ...] = ("ptq", "ptq-full")
    fallback_layers: int = 8
    qat: QatSpec = field(default_factory=QatSpec)

    def __post_init__(self) -> None:
        if not self.ladder:
            raise ValueError('the ladder is empty; ["float"] compiles without quantization')
        if len(set(self.ladder)) != len(self.ladder):
            raise ValueError("a rung is repeated")
        if not 1 <= self.fallback_layers <= 1000:
            raise ValueError(f"fallback_layers must be between 1 and 1000, not {self.fallback_layers}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySpec:
    """The budget and the space of a search.

    Attributes:
        trials: Points to try, over all processes that share the study.
        storage: Where trials are kept: an Optuna storage URL that several machines share; None for a file in the work folder.
        criteria: Criteria to try.
        ratios: Smallest and largest share of channels to take out.
        rungs: Rungs to try.
        epochs: Epochs of a trial's training; the chosen point gets the recipe's.
        max_auc_loss: The chosen point is the fastest of the front whose AUC on `val` is at most this below the teacher's.
        seed: Of the sampler.
    """

    trials: int = 12
    storage: str | None = None
    criteria: tuple[Criterion, ...] = ("taylor", "l2", "bn-scale")
    ratios: tuple[float, float] = (0.1, 0.7)
    rungs: tuple[Rung, ...] = ("ptq", "ptq-full")
    epochs: int = 2
    max_auc_loss: float = 0.005
    seed: int = 0

    def __post_init__(self) -> None:
        low, high = self.ratios
        if not 0 <= low < high < 1:
            raise ValueError("ratios are two shares of the channels, the lower one first, from 0 and below 1")
        if not 1 <= self.trials <= 10_000 or not 1 <= self.epochs <= 10_000 or self.seed < 0:
            raise ValueError("trials and epochs must be 1 to 10 000, and the seed not negative")
        for name, values in (("criteria", self.criteria), ("rungs", self.rungs)):
            if not values or len(set(values)) != len(values):
                raise ValueError(f"{name} is empty or repeats a name")
        if slow := [rung for rung in self.rungs if rung in ("qat", "float-fallback")]:
            raise ValueError(f"rungs of a search are quick ones; {slow[0]} is a rung of the ladder that the chosen point then climbs")
        if not 0 <= self.max_auc_loss <= 0.5:
            raise ValueError(f"max_auc_loss must be between 0 and 0.5, not {self.max_auc_loss}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressSpec:
    """How the model is made smaller: prune → distill → quantize.

    Attributes:
        student: A different, smaller architecture to train; None to keep the model's own.
        prune: Structured pruning; None for none.
        distill: Training of the student on the teacher's answers; None for none.
        quantize: The ladder.
        search: Whether criterion, ratio and rung are searched for, by latency; the target of `prune` then has no say.
        study: Of the search.
    """

    student: NetworkSpec | None = None
    prune: PruneSpec | None = None
    distill: DistillSpec | None = None
    quantize: QuantizeSpec = field(default_factory=QuantizeSpec)
    search: bool = False
    study: StudySpec = field(default_factory=StudySpec)

    def __post_init__(self) -> None:
        if self.student is not None and self.distill is None and self.student.weights is None:
            raise ValueError("student has neither weights nor a distill part to train it with")
        if self.prune is not None and self.distill is None:
            raise ValueError("prune needs a distill part: a pruned network has to be trained again")
        if self.search and self.prune is None:
            raise ValueError("search varies prune, so the recipe needs a prune part to start from")

    @property
    def makes_new_network(self) -> bool:
        """Whether what is quantized is not the trained model itself."""
        return self.student is not None or self.prune is not None or self.distill is not None
