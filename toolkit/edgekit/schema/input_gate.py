"""What the input gate of a bundle holds a frame against: the numbers that were fitted when it was compiled.

Rules this file keeps:

1. Every limit is a figure of frames the classifier was made for, with a margin; none is a guess about frames that nobody has seen.
2. Units are in the names: grey levels 0 to 255, shares 0 to 1, pixels, seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

LEVELS = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityLimits:
    """Limits of image quality.

    Attributes:
        least_deviation_levels: Smallest standard deviation of the tensor, in grey levels: below, the frame is flat.
        most_black_share: Largest share of the tensor's values that are 0.
        most_white_share: Largest share that are 255.
        most_chroma_levels: Largest mean distance between the lightest and the darkest colour channel of the frame, in levels; None where the classifier takes
            colour, and so judges it itself.
        least_side_px: Shortest side of a frame.
        aspect: Smallest and largest rows / columns of a frame.
    """

    least_deviation_levels: float
    most_black_share: float
    most_white_share: float
    most_chroma_levels: float | None
    least_side_px: int
    aspect: tuple[float, float]

    def __post_init__(self) -> None:
        for name, value in (("least_deviation_levels", self.least_deviation_levels), ("most_chroma_levels", self.most_chroma_levels)):
            if value is not None and not 0 <= value <= LEVELS:
                raise ValueError(f"{name} must be between 0 and {LEVELS}, not {value}")
        for name, share in (("most_black_share", self.most_black_share), ("most_white_share", self.most_white_share)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must be between 0 and 1, not {share}")
        if self.least_side_px < 1:
            raise ValueError(f"least_side_px must be at least 1, not {self.least_side_px}")
        low, high = self.aspect
        if not 0 < low <= high < math.inf:
            raise ValueError(f"aspect must be two rising numbers above 0, not {self.aspect}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subspace:
    """Frames the classifier was made for, as probabilistic principal components (Tipping and Bishop 1999).

    Attributes:
        member: float32 (1 + components, values), `.npy`: the mean, then each component's direction divided by the standard deviation along it.
        noise: Variance along each of the other directions.
        limit: Largest distance, per value, of a frame that is answered.
    """

    member: str
    noise: float
    limit: float

    def __post_init__(self) -> None:
        for name, value in (("noise", self.noise), ("limit", self.limit)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be above 0, not {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputGateSpec:
    """The input gate of a bundle.

    Attributes:
        quality: Limits of image quality.
        brightness: How brightness is distributed in frames.
        features: Name of an engine to the features that its graph gives, since its integers give features of its own; without those whose graph gives none, where
            brightness alone is judged.
        frozen_frames: A clip is frozen after as many frames in a row whose tensors are the same.
        frozen_s: It is also frozen where the same tensor lasts as long, in seconds, over three frames or more.
        frames: Frames of `val` that the limits of both distances were taken from.
        groups: Patients or videos they come from.
        quantile: Share of such frames that are to be answered.
    """

    quality: QualityLimits
    brightness: Subspace
    features: dict[str, Subspace]
    frozen_frames: int
    frozen_s: float
    frames: int
    groups: int
    quantile: float

    def __post_init__(self) -> None:
        if self.frozen_frames < 2:
            raise ValueError(f"frozen_frames must be at least 2, not {self.frozen_frames}")
        if not 0 < self.frozen_s < math.inf:
            raise ValueError(f"frozen_s must be above 0, not {self.frozen_s}")
        if not 1 <= self.groups <= self.frames:
            raise ValueError(f"{self.groups} groups of {self.frames} frames")
        if not 0 < self.quantile < 1:
            raise ValueError(f"quantile must be between 0 and 1, not {self.quantile}")

    @property
    def members(self) -> frozenset[str]:
        """The members of the bundle that it uses."""
        return frozenset({self.brightness.member, *(found.member for found in self.features.values())})
