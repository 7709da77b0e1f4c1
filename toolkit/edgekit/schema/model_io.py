"""What goes into a classifier and what its outputs mean: the part of a recipe that travels to the device unchanged.

The same two values are read from the recipe at compile time and from the manifest on the device, so preprocessing and the meaning of an
output cannot drift apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Color = Literal["grey", "rgb"]
Task = Literal["multiclass", "binary", "multilabel"]

STD_RANGE = (1e-3, 1e6)
"""Smallest and largest std and |mean|: beyond them float32 has no digits left for the pixels."""

MAX_LABEL_CHARACTERS = 200
"""Longest label; it stands in tables and on the operator's screen."""

MAX_SIDE_PX = 4096
"""Largest side of a resized frame; an untrusted manifest must not ask the device for gigabytes."""


MAX_STATE_AXES, MAX_STATE_ELEMENTS = 4, 2**20
"""Largest state of a recurrent classifier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """How a frame becomes the tensor the model takes.

    Host part, in this order: colour, noise reduction, equalization, resize, centre crop. Graph part: channel repetition, mean, std.

    Attributes:
        color: What the frame is turned into: one luma channel or three RGB channels.
        channels: Channels the model takes; a grey frame is repeated to that number inside the graph.
        resize: (height, width) in pixels the frame is resized to; the aspect ratio is not kept.
        crop: (height, width) in pixels of the centre crop after the resize; None for the whole resized frame.
        interpolation: Pillow's filter; both are antialiased when they shrink.
        denoise_sigma: Standard deviation in source pixels of a Gaussian noise reduction before the resize; 0 for none.
        equalize: Histogram equalization (of the luma, where the frame is RGB) before the resize.
        mean: Subtracted per model channel, in uint8 units.
        std: Divided by per model channel, in uint8 units.
    """

    color: Color
    channels: int
    resize: tuple[int, int]
    crop: tuple[int, int] | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    denoise_sigma: float = 0.0
    equalize: bool = False
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, not {self.channels}")
        if self.color == "rgb" and self.channels != 3:
            raise ValueError("an rgb frame needs channels = 3")
        self._check_normalization()
        for name, size in (("resize", self.resize), ("crop", self.size)):
            if not all(1 <= side <= MAX_SIDE_PX for side in size):
                raise ValueError(f"{name} must be between 1 and {MAX_SIDE_PX} pixels, not {list(size)}")
        if self.size[0] > self.resize[0] or self.size[1] > self.resize[1]:
            raise ValueError(f"crop {list(self.size)} is larger than resize {list(self.resize)}")
        if not 0 <= self.denoise_sigma <= 50:
            raise ValueError(f"denoise_sigma must be between 0 and 50 pixels, not {self.denoise_sigma}")

    def _check_normalization(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise ValueError(f"{name} needs {self.channels} values, one a channel, not {len(values)}")
        lowest, highest = STD_RANGE
        if not all(lowest <= value <= highest for value in self.std):
            raise ValueError(f"std must be between {lowest} and {highest}, not {list(self.std)}")
        if not all(abs(value) <= highest for value in self.mean):
            raise ValueError(f"mean must be between -{highest} and {highest}, not {list(self.mean)}")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels of what the graph takes."""
        return self.crop if self.crop is not None else self.resize

    @property
    def frame_channels(self) -> int:
        """Channels of the uint8 tensor the graph takes: 1 for grey, 3 for RGB."""
        return 1 if self.color == "grey" else 3


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSpec:
    """What the logits mean.

    Attributes:
        labels: Names in output order. Binary with one logit: (negative, positive).
        task: multiclass (softmax), binary (sigmoid of one logit, or softmax of two), multilabel (a sigmoid each).
        positive: The label that sensitivity and the frozen threshold are about. None only for multilabel, where every label has its own,
            and for multiclass models without one; sensitivity is then the mean over the labels.
    """

    labels: tuple[str, ...]
    task: Task
    positive: str | None = None

    def __post_init__(self) -> None:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"labels are repeated: {list(self.labels)}")
        if any(not label.strip() or label != label.strip() for label in self.labels):
            raise ValueError("a label is empty or has spaces around it")
        if not all(label.isprintable() and len(label) <= MAX_LABEL_CHARACTERS for label in self.labels):
            raise ValueError(f"a label is longer than {MAX_LABEL_CHARACTERS} characters or holds one that cannot be printed")
        if len(self.labels) < (1 if self.task == "multilabel" else 2):
            raise ValueError(f"a {self.task} model needs more labels than {list(self.labels)}")
        if self.task == "binary" and len(self.labels) != 2:
            raise ValueError(f"a binary model has two labels (negative, positive), not {len(self.labels)}")
        if self.task == "binary" and self.positive is None:
            raise ValueError("a binary model needs positive = the label that sensitivity is about")
        if self.task == "multilabel" and self.positive is not None:
            raise ValueError("a multilabel model has no single positive label; leave positive out")
        if self.positive is not None and self.positive not in self.labels:
            raise ValueError(f"positive = {self.positive!r} is not one of the labels {list(self.labels)}")

    def accepts_logits(self, count: int) -> bool:
        """Whether a model with `count` outputs can have this meaning."""
        # One logit is the log-odds of the second label.
        return count == len(self.labels) or (self.task == "binary" and count == 1 and self.positive == self.labels[1])


def check_state_shape(shape: tuple[int, ...]) -> None:
    """Refuses what is no shape of a state.

    Raises:
        ValueError: It has no axis or more than `MAX_STATE_AXES`, an empty axis, or more elements than `MAX_STATE_ELEMENTS`.
    """
    if not 1 <= len(shape) <= MAX_STATE_AXES or min(shape) < 1 or math.prod(shape) > MAX_STATE_ELEMENTS:
        raise ValueError(
            f"a state has 1 to {MAX_STATE_AXES} axes, none of them empty, and at most {MAX_STATE_ELEMENTS} elements, not {list(shape)}"
        )
