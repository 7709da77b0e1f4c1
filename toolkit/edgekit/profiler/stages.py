"""Times the parts of answering a frame: predict with its own split, and reading and drawing around it.

Rules this file keeps:

1. Latency is `predict` on a frame that is already in memory, its map included; reading a file and drawing the overlay are timed apart.
2. Frames take turns, so that no cache holds the only one.
3. The split of predict (preprocess, infer, cam) is the one predict measures itself, on the very calls that make the latency.
4. Every overlay is drawn from a prediction that was not drawn before: one that keeps its picture must not look instant.
"""

from __future__ import annotations

import itertools
import math
import tempfile
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgekit.errors import DataError
from edgekit.imaging import frames as imaging_frames
from edgekit.profiler.clock import Budget, Progress, Samples, measure

STAGES = ("read", "preprocess", "infer", "cam", "overlay")
"""In the order a frame goes through them."""

PREDICT_STAGES = ("preprocess", "infer", "cam")

Frame = NDArray[np.uint8]


class Answer(Protocol):
    """What a profile needs of a prediction."""

    @property
    def stages_ms(self) -> Mapping[str, float]:
        """Milliseconds of preprocess, infer and cam, measured inside predict."""

    def overlay(self) -> Frame:
        """The frame with its map drawn over it."""


class Predictor(Protocol):
    """What a profile needs of a classifier."""

    def predict(self, frame: Frame, *, gate: bool = True) -> Answer:
        """Answers one frame; without a gate also one that is not assessable, as frames of a profile may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictSamples:
    """One series of predict calls.

    Attributes:
        samples: The whole calls.
        stages_ms: Stage to float64 (samples,), of the same calls; a stage that predict does not have is missing.
    """

    samples: Samples
    stages_ms: dict[str, NDArray[np.float64]]


def measure_predict(
    classifier: Predictor,
    frames: Sequence[Frame],
    budget: Budget,
    *,
    after: Callable[[], object] | None = None,
    on_progress: Progress | None = None,
) -> PredictSamples:
    """Times `predict` on frames in memory, one after the other.

    Args:
        classifier: What is timed.
        frames: They take turns.
        budget: When to stop.
        after: Called after each frame, outside the clock.
        on_progress: Told how far it is.
    """
    loop = _Loop(classifier, frames)
    splits = {stage: array("d") for stage in PREDICT_STAGES}

    def keep() -> None:
        found = loop.answer.stages_ms
        for stage, values in splits.items():
            values.append(found.get(stage, math.nan))
        if after is not None:
            after()

    samples = measure(loop.predict, budget, after=keep, on_progress=on_progress)
    split = {stage: np.array(values, np.float64) for stage, values in splits.items()}
    return PredictSamples(samples=samples, stages_ms={stage: values for stage, values in split.items() if not np.isnan(values).any()})


def measure_overlay(classifier: Predictor, frames: Sequence[Frame], budget: Budget, *, on_progress: Progress | None = None) -> Samples:
    """Times `overlay` of a fresh prediction each time; the prediction is made outside the clock."""
    loop = _Loop(classifier, frames)
    return measure(loop.draw, budget, before=loop.predict, on_progress=on_progress)


def measure_read(frames: Sequence[Frame], files: Sequence[Path], budget: Budget, *, on_progress: Progress | None = None) -> Samples:
    """Times decoding the first frame of files; they are in the operating system's cache after the first round.

    Args:
        frames: Written as PNG into a temporary folder when there are no files.
        files: What to read, in turn.
        budget: When to stop.
        on_progress: Told how far it is.
    """
    with tempfile.TemporaryDirectory(prefix="edgekit-read-") as folder:
        turns = itertools.cycle(files or write_png(frames, Path(folder)))
        return measure(lambda: read_first(next(turns)), budget, on_progress=on_progress)


def in_turn(classifier: Predictor, frames: Sequence[Frame]) -> Callable[[], object]:
    """A call that predicts the next of the frames each time."""
    return _Loop(classifier, frames).predict


def write_png(frames: Sequence[Frame], folder: Path) -> list[Path]:
    """Writes frames as `0.png`, `1.png`, … and gives their paths."""
    paths = [folder / f"{index}.png" for index in range(len(frames))]
    for path, frame in zip(paths, frames, strict=True):
        Image.fromarray(frame).save(path)
    return paths


def read_first(path: Path) -> Frame:
    """Decodes the first frame of a file, as `edgekit run` does.

    Raises:
        DataError: When the file is not one that edgekit reads.
    """
    for frame in imaging_frames.read(path):
        return frame.pixels
    raise DataError(f"{path}: the file holds no frame")


class _Loop:
    """Predicts the frames in turn and keeps the last answer."""

    def __init__(self, classifier: Predictor, frames: Sequence[Frame]) -> None:
        if not frames:
            raise DataError("there is no frame to measure with", hint="give at least one frame")
        self._classifier = classifier
        self._turns = itertools.cycle(frames)
        self.answer: Answer

    def predict(self) -> None:
        self.answer = self._classifier.predict(next(self._turns), gate=False)

    def draw(self) -> None:
        self.answer.overlay()
