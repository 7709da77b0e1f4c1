"""What an answer is: the same for one frame and for many."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.evaluation import decision
from edgekit.schema.model_io import OutputSpec

LABELS = ("a", "b", "c")
# Few values, so that ties and probabilities that are just a threshold come up.
ROWS = st.lists(st.lists(st.sampled_from([0.0, 0.25, 0.3, 0.5, 0.75, 1.0, math.nan]), min_size=3, max_size=3), min_size=1, max_size=4)
THRESHOLDS = st.dictionaries(st.sampled_from(LABELS), st.sampled_from([0.25, 0.3, 0.75]))


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@given(rows=ROWS, thresholds=THRESHOLDS)
def test_a_frame_alone_is_answered_as_among_others(task, rows, thresholds):
    """`answered` names the labels that `answers` has for each frame."""
    output = OutputSpec(task=task, labels=LABELS)
    probability = np.array(rows)
    among = decision.answers(probability, output, thresholds)
    for row, chosen in zip(probability, among, strict=True):
        assert decision.answered(row, output, thresholds) == tuple(np.array(LABELS)[chosen])


@pytest.mark.parametrize(
    ("task", "probability", "labels"),
    [
        ("multiclass", [0.2, 0.4, 0.4], ("b",)),
        ("multilabel", [0.5, 0.49, 0.7], ("a",)),
        ("multilabel", [0.1, 0.1, 0.1], ()),
    ],
)
def test_the_labels_of_an_answer(task, probability, labels):
    """Ties go to the first label; a threshold is reached by what equals it, and is 0.5 where none is set."""
    assert decision.answered(np.array(probability), OutputSpec(task=task, labels=LABELS), {"c": 0.71}) == labels
