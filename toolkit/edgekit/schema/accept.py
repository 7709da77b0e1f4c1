"""What a compressed model must keep to be accepted: the recipe's `[accept]`."""

from __future__ import annotations

from dataclasses import dataclass

MAX_FLIPS_NEW_NETWORK = 0.05
"""The default of `max_flips` where the recipe prunes or trains a new student: another network legitimately answers a few frames differently."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptSpec:
    """The acceptance gates.

    Attributes:
        enforce: Whether a refused model is not written at all; otherwise it is written, marked as not accepted.
        auc_margin: The lower bound of ΔAUC (device − reference, one-sided 97.5 %) must be above −auc_margin. In (0, 0.5].
        max_harmful_flips: Largest accepted share of frames that the reference answers right and the device wrong. In [0, 1].
        max_flips: Largest accepted share of frames whose answer changes at all. In [0, 1].
    """

    enforce: bool = True
    auc_margin: float = 0.01
    max_harmful_flips: float = 0.01
    max_flips: float = 0.02

    def __post_init__(self) -> None:
        # NaN fails both comparisons, and so is refused too.
        if not 0 < self.auc_margin <= 0.5:
            raise ValueError(f"auc_margin must be above 0 and at most 0.5, not {self.auc_margin}")
        for name, value in (("max_harmful_flips", self.max_harmful_flips), ("max_flips", self.max_flips)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is a share of the frames, between 0 and 1, not {value}")
