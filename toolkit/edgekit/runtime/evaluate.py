"""A bundle on the labelled frames of a split, by the code that answers on the device.

The figures are the classifier's own: a frame that the input gate refuses is answered for them all the same, and counted.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgekit.evaluation import evaluate as evaluation
from edgekit.evaluation.dataset import load_manifest, require_splits, truth_matrix
from edgekit.evaluation.metrics import Outcomes
from edgekit.imaging.frames import only_frame
from edgekit.runtime.classifier import Classifier
from edgekit.runtime.clip import Clip
from edgekit.schema.data import Columns


def evaluate_split(
    classifier: Classifier, data: Path, *, split: str, columns: Columns, on_frame: Callable[[int, int], None]
) -> evaluation.Evaluation:
    """Answers every frame of a split and evaluates the answers.

    Args:
        classifier: An opened bundle.
        data: The data manifest.
        split: Which rows to use.
        columns: Which column holds what.
        on_frame: Called with the frames done and their number.

    Raises:
        DataError: The manifest is wrong, the split is empty or holds one class only, or a frame cannot be read.
    """
    output = classifier.manifest.output
    manifest = load_manifest(data, columns, output, splits=(split,))
    require_splits(manifest, (split,), output)
    samples = manifest.split(split)
    probability = np.zeros((len(samples), len(output.labels)))
    # A recurrent classifier is shown each patient's or video's frames in the manifest's order, from a fresh state.
    not_assessable = 0
    clips: defaultdict[str, Clip] | None = defaultdict(classifier.clip) if classifier.manifest.state is not None else None
    for index, sample in enumerate(samples):
        predict = classifier.predict if clips is None else clips[sample.group].predict
        answer = predict(only_frame(sample.path), explain=False, gate=False)
        probability[index] = list(answer.probabilities.values())
        not_assessable += not answer.assessable
        on_frame(index + 1, len(samples))
    outcomes = Outcomes(
        probability=probability, truth=truth_matrix(samples, output), output=output, thresholds=classifier.manifest.decision.thresholds
    )
    found = evaluation.evaluate(outcomes, groups=[sample.group for sample in samples])
    return found if classifier.manifest.gate is None else dataclasses.replace(found, not_assessable=not_assessable)
