"""The [explain] part of a recipe: which map the graph gets, and which methods of the literature it is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MAX_FRAMES = 256

MapChoice = Literal["auto", "masking", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainSpec:
    """How answers are explained.

    Attributes:
        map: "auto" puts the head's own map into the graph where there is one, and says why where there is none; "masking" falls back to masking the
            features one position at a time, which costs as many passes of the head as the map has positions; "none" leaves the graph without a map.
        compare: Methods of the literature that the device's map is compared with in the report; see `compiler/explain/methods`.
        compare_frames: Frames of `test` that the comparison is made on.
    """

    map: MapChoice = "auto"
    compare: tuple[str, ...] = ()
    compare_frames: int = 16

    def __post_init__(self) -> None:
        if len(set(self.compare)) != len(self.compare):
            raise ValueError("compare names a method twice")
        if not 1 <= self.compare_frames <= MAX_FRAMES:
            raise ValueError(f"compare_frames must be between 1 and {MAX_FRAMES}, not {self.compare_frames}")
