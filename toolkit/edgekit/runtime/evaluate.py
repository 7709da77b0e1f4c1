"""A bundle on the labelled frames of a split, by the code that answers on the device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgekit.evaluation import evaluate as evaluation
from edgekit.evaluation.dataset import load_manifest, require_splits, truth_matrix
from edgekit.evaluation.metrics import Outcomes
from edgekit.imaging.frames import only_frame
from edgekit.runtime.classifier import Classifier
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
    for index, sample in enumerate(samples):
        probability[index] = list(classifier.predict(only_frame(sample.path)).probabilities.values())
        on_frame(index + 1, len(samples))
    outcomes = Outcomes(
        probability=probability, truth=truth_matrix(samples, output), output=output, thresholds=classifier.manifest.decision.thresholds
    )
    return evaluation.evaluate(outcomes, groups=[sample.group for sample in samples])
