"""What a compressed model must keep to be accepted: the recipe's `[accept]`.

`evaluation/gates.py`, `evaluation/further_gates.py` and `evaluation/map_gates.py` hold a model against these limits; `docs/evaluation.md` says what each one
does not prove.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MAX_FLIPS = 0.02
"""The default of `max_flips` where the trained network itself is quantized."""

MAX_FLIPS_NEW_NETWORK = 0.05
"""The default of `max_flips` where the recipe prunes or trains a new student: another network legitimately answers a few frames differently."""

MAX_SUBGROUP_FLIPS = 0.05
"""The least default of `max_subgroup_flips`: a subgroup has fewer frames than all together, so chance moves its share more."""

CamGate = Literal["cam_pearson", "cam_pearson_p5", "cam_overlap", "cam_peak", "cam_residual", "cam_pointing_game", "cam_control"]
"""The gates about the class activation map; a recipe may waive each."""

_MARGINS = ("auc_margin", "sensitivity_margin", "specificity_margin", "cam_pointing_margin")
_SHARES = (
    "max_harmful_flips",
    "max_flips",
    "max_net_harm",
    "max_subgroup_flips",
    "max_ece_increase",
    "min_cam_overlap",
    "min_cam_peak_kept",
    "max_cam_residual",
)
_CORRELATIONS = ("min_cam_pearson", "min_cam_pearson_p5")
_BUDGETS = ("max_latency_ms", "max_size_mb")


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptSpec:
    """The acceptance gates.

    Attributes:
        enforce: Whether a refused model is not written at all; otherwise it is written, marked as not accepted.
        auc_margin: The lower bound of ΔAUC (device − reference, one-sided 97.5 %) must be above −auc_margin. In (0, 0.5].
        sensitivity_margin: The difference of sensitivity at the frozen threshold is demonstrated where its one-sided 97.5 % lower bound is
            above −sensitivity_margin, and worse where the difference itself is below it. In (0, 0.5].
        specificity_margin: The same of the specificity.
        require_demonstrated: Whether a difference of sensitivity, specificity or AUC, or a gate about the map, that the frames are too few to prove fails.
        max_harmful_flips: Largest accepted share of frames that the reference answers right and the device wrong. In [0, 1].
        max_flips: Largest accepted share of frames whose answer changes at all, in [0, 1]; None for the default of `flips_allowed`.
        max_net_harm: Largest accepted (harmful − helpful flips) in parts of the frames. In [0, 1].
        max_subgroup_flips: Largest accepted share of flips in every subgroup, in [0, 1]; None for the default of `subgroup_flips_allowed`.
        subgroup_minimum: Frames from which on a subgroup is held against `max_subgroup_flips`; smaller ones are only reported.
        max_ece_increase: Largest accepted increase of the expected calibration error (device − reference), each after its own temperature. In [0, 1].
        min_cam_pearson: Least accepted median of Pearson's correlation between the device's map and FP32's. In [-1, 1].
        min_cam_pearson_p5: Least accepted 5th percentile of the same. In [-1, 1].
        min_cam_overlap: Least accepted median overlap (intersection over union) of the largest tenth of both maps. In [0, 1].
        min_cam_peak_kept: Least accepted share of frames whose map keeps its peak: within one cell of FP32's, or where FP32's map is nearly as high. In [0, 1].
        max_cam_residual: Largest accepted |mean of the map + offset − logit| on the device, in parts of the logit's standard deviation. In [0, 1].
        cam_pointing_margin: The difference of the pointing game (device − FP32) is demonstrated where its one-sided 97.5 % lower bound is above
            −cam_pointing_margin. In (0, 0.5].
        waive_cam: Gates about the map that the model is not held against; their figures are reported all the same.
        max_latency_ms: Largest accepted median latency in milliseconds, on the compile's host and no other device; None for no budget.
        max_size_mb: Largest accepted size of the bundle in megabytes of 1 000 000 bytes; None for no budget.
        threshold_split: Where thresholds are chosen. Only val: a threshold that saw the frames of the proof proves nothing.
    """

    enforce: bool = True
    auc_margin: float = 0.01
    sensitivity_margin: float = 0.05
    specificity_margin: float = 0.05
    require_demonstrated: bool = False
    max_harmful_flips: float = 0.01
    max_flips: float | None = None
    max_net_harm: float = 0.005
    max_subgroup_flips: float | None = None
    subgroup_minimum: int = 50
    max_ece_increase: float = 0.02
    min_cam_pearson: float = 0.95
    min_cam_pearson_p5: float = 0.85
    min_cam_overlap: float = 0.7
    min_cam_peak_kept: float = 0.9
    max_cam_residual: float = 0.02
    cam_pointing_margin: float = 0.05
    waive_cam: tuple[CamGate, ...] = ()
    max_latency_ms: float | None = None
    max_size_mb: float | None = None
    threshold_split: str = "val"

    def __post_init__(self) -> None:
        # NaN fails every comparison, and so is refused too.
        for name in _MARGINS:
            if not 0 < (value := getattr(self, name)) <= 0.5:
                raise ValueError(f"{name} must be above 0 and at most 0.5, not {value}")
        for name in _SHARES:
            if (value := getattr(self, name)) is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} is a share, between 0 and 1, not {value}")
        self._check_cam()
        for name in _BUDGETS:
            if (value := getattr(self, name)) is not None and not 0 < value <= 1e6:
                raise ValueError(f"{name} must be above 0 and at most 1 000 000, not {value}")
        if not 1 <= self.subgroup_minimum <= 1_000_000:
            raise ValueError(f"subgroup_minimum must be 1 to 1 000 000 frames, not {self.subgroup_minimum}")
        if self.threshold_split != "val":
            raise ValueError(
                f"threshold_split must be 'val', not {self.threshold_split!r}: the threshold must be chosen on frames that prove nothing, "
                "and test proves the result"
            )

    def _check_cam(self) -> None:
        for name in _CORRELATIONS:
            if not -1 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name} is a correlation, between -1 and 1, not {value}")
        if len(set(self.waive_cam)) != len(self.waive_cam):
            raise ValueError(f"waive_cam names a gate twice: {list(self.waive_cam)}")

    def flips_allowed(self, new_network: bool) -> float:  # noqa: FBT001 - the one thing that is asked
        """Largest accepted share of frames whose answer changes.

        Args:
            new_network: Whether the recipe prunes, distills or takes another student (`CompressSpec.makes_new_network`).
        """
        if self.max_flips is not None:
            return self.max_flips
        return MAX_FLIPS_NEW_NETWORK if new_network else MAX_FLIPS

    def subgroup_flips_allowed(self, new_network: bool) -> float:  # noqa: FBT001 - as above
        """Largest accepted share of flips in a subgroup: a stated limit as it stands, else 0.05 or what all frames are allowed, if that is more."""
        if self.max_subgroup_flips is not None:
            return self.max_subgroup_flips
        return max(MAX_SUBGROUP_FLIPS, self.flips_allowed(new_network))
