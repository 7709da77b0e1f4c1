"""Two checks that stop a compile before any gate could hide the fault: the teacher's known score, and the export."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgekit.catalog.recipe import ModelSpec
from edgekit.compiler import ladder
from edgekit.compiler.progress import Progress
from edgekit.compiler.stages.frames import PreparedSplit
from edgekit.compiler.stages.measure import Measured
from edgekit.errors import ModelError
from edgekit.evaluation import metrics

EXPORT_TOLERANCE = 2e-3
"""Largest |Δlogit| between the trained model and the unquantized engine, in parts of the largest |logit| (at least of 1)."""


def check_expected(model: ModelSpec, splits: Mapping[str, PreparedSplit], reference: Mapping[str, NDArray[np.float32]]) -> None:
    """Stops when the reference does not score what the recipe says it scored where it was trained.

    Wrong preprocessing, a wrong order of labels or the wrong weights would otherwise be compressed faithfully.

    Raises:
        ModelError: Names both figures.
    """
    expected = model.expected
    if expected is None:
        return
    split = splits[expected.split]
    found = _figures(ladder.outcomes(reference[expected.split], split, model.output, {}))
    for name, wanted in (("auc", expected.auc), ("accuracy", expected.accuracy)):
        # Written so that an undefined figure, which is NaN here, is a mismatch.
        if wanted is not None and not abs(found[name] - wanted) <= expected.tolerance:
            raise ModelError(
                f"the trained model's {name} on {expected.split} is {found[name]:.4f}, the recipe expects {wanted:.4f} ± {expected.tolerance}",
                hint="check the order of [model] labels, [input], the weights and the data manifest, in this order",
            )


def check_export(reference: NDArray[np.float32], engine: Measured, progress: Progress) -> None:
    """Stops when the unquantized engine does not compute what the trained model computes.

    Raises:
        ModelError: Names the largest difference and the frame.
    """
    difference = np.abs(reference - engine.logits).max(axis=1)
    allowed = EXPORT_TOLERANCE * max(1.0, float(np.abs(reference).max()))
    worst = int(difference.argmax())
    if not difference[worst] <= allowed:
        raise ModelError(
            f"the exported graph answers frame {worst} of val with logits off by {difference[worst]:.4g} (allowed {allowed:.4g})",
            hint="the export changed the model: look for code that depends on the training mode, the batch or random numbers",
        )
    progress.note(
        f"the exported graph reproduces the trained model to {float(difference[worst]):.2g} logit units on {len(reference)} frames"
    )


def _figures(outcomes: metrics.Outcomes) -> dict[str, float]:
    weights = np.ones((1, len(outcomes.truth)))
    table = metrics.figures(outcomes, weights, metrics.class_figures(outcomes, weights))
    return {name: float(values[0]) for name, values in table.items()}
