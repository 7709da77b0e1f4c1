"""The [gate] part of a recipe: whether the bundle refuses frames it was not made for, and what that is tried on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSpec:
    """The input gate.

    Attributes:
        enabled: Whether the bundle has one.
        quantile: Share of frames like those of `val` that are to be answered; the limit is set on `val` alone.
        frozen_frames: A clip is frozen after as many frames in a row that are the same.
        frozen_s: It is also frozen where the same frame lasts as long, in seconds.
        foreign: Data manifests, or CSVs with a column of files, of frames that are to be refused. They are for the report and never set a limit.
        foreign_frames: Frames of each of them that are run; more are drawn from at random.
    """

    enabled: bool = True
    quantile: float = 0.99
    frozen_frames: int = 30
    frozen_s: float = 2.0
    foreign: tuple[str, ...] = ()
    foreign_frames: int = 200

    def __post_init__(self) -> None:
        if not 0.5 <= self.quantile < 1:
            raise ValueError(f"quantile must be between 0.5 and 1, not {self.quantile}")
        if not 2 <= self.frozen_frames <= 10_000:
            raise ValueError(f"frozen_frames must be between 2 and 10000, not {self.frozen_frames}")
        if not 0 < self.frozen_s <= 3600:
            raise ValueError(f"frozen_s must be above 0 and at most 3600, not {self.frozen_s}")
        if len(set(self.foreign)) != len(self.foreign):
            raise ValueError("foreign names a set twice")
        if not 1 <= self.foreign_frames <= 10_000:
            raise ValueError(f"foreign_frames must be between 1 and 10000, not {self.foreign_frames}")
