"""A bundle's maps put to the test on labelled frames: what its answers do when the pixels that its maps name are shown or hidden.

Every perturbed frame goes through `predict`, as a frame on the device does. That is some seventy answers a frame, so it is asked for by itself and on few frames.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from edgekit.errors import DataError
from edgekit.evaluation.dataset import load_manifest
from edgekit.evaluation.perturbation import Perturbation, Perturbed, perturb, shuffled, summarize
from edgekit.imaging.coverage import at_pixels
from edgekit.imaging.frames import only_frame
from edgekit.imaging.preprocess import crop_box
from edgekit.runtime.classifier import Classifier
from edgekit.schema.data import Columns

BLUR_SHARE = 0.1
"""Standard deviation of the blur that hides, in parts of the frame's longer side."""

BASELINE = f"the frame blurred, standard deviation {BLUR_SHARE:.0%} of its longer side"


def check_explainable(classifier: Classifier) -> None:
    """Refuses a bundle whose maps cannot be tested by changing a frame, before any work.

    Raises:
        DataError: It has no map, or it is recurrent: what a changed frame does then depends on the frames before it.
    """
    manifest = classifier.manifest
    if manifest.state is not None:
        raise DataError(
            f"{classifier.path} is recurrent: its maps are not tested by changing one frame of a clip", hint="leave out --explanations"
        )
    if manifest.cam is None:
        raise DataError(
            f"{classifier.path} has no map to test: {manifest.cam_reason or 'no reason was given'}", hint="leave out --explanations"
        )


def explain_split(  # noqa: PLR0913 - what `evaluate_split` takes, and how many frames
    classifier: Classifier, data: Path, *, split: str, columns: Columns, frames: int, on_frame: Callable[[int, int], None]
) -> Perturbation:
    """Perturbs frames of a split by the map of each one's most probable label.

    Args:
        classifier: An opened bundle.
        data: The data manifest.
        split: Which rows to use.
        columns: Which column holds what.
        frames: How many, drawn at random with a fixed seed; all where there are fewer.
        on_frame: Called with the frames done and their number.

    Raises:
        DataError: The manifest is wrong, or a frame cannot be read; or as `check_explainable`.
    """
    check_explainable(classifier)
    manifest = classifier.manifest
    samples = load_manifest(data, columns, manifest.output, splits=(split,)).split(split)
    drawn = sorted(np.random.default_rng(0).permutation(len(samples))[:frames].tolist())
    found, groups = [], []
    for done, index in enumerate(drawn):
        perturbed = explain_frame(classifier, only_frame(samples[index].path), seed=index)
        if perturbed is not None:
            found.append(perturbed)
            groups.append(samples[index].group)
        on_frame(done + 1, len(drawn))
    return summarize(found, groups, without_map=len(drawn) - len(found), baseline=BASELINE)


def explain_frame(classifier: Classifier, frame: NDArray[np.uint8], *, seed: int) -> Perturbed | None:
    """Perturbs one frame; None where its answer comes without a map.

    Args:
        classifier: An opened bundle with maps.
        frame: uint8 (rows, columns) or (rows, columns, 3).
        seed: Of the random order that the map is compared with.
    """
    prediction = classifier.predict(frame, gate=False)
    label = max(prediction.probabilities, key=lambda name: prediction.probabilities[name])
    cam = prediction.cam_for(label)
    if cam is None:
        return None
    box, hidden = crop_box(frame.shape, classifier.manifest.input), blurred(frame)

    def score(changed: NDArray[np.uint8]) -> float:
        return float(classifier.predict(changed, explain=False, gate=False).probabilities[label])

    own, other = (perturb(frame, hidden, at_pixels(item, box, frame.shape[:2]), score) for item in (cam, shuffled(cam, seed=seed)))
    return Perturbed(own=own, random=other)


def blurred(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The frame without what it shows: its brightness and colours stay, its structure goes."""
    return np.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(BLUR_SHARE * max(frame.shape[:2]))), dtype=np.uint8)
