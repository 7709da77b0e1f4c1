"""From what an inference process sent to a `Prediction` of the supervisor's.

Rules this file keeps:

1. What is sent must be an answer of this bundle's model: its labels, its engines, maps of its size, numbers in their range. Anything else comes of a process that
   is not in its right mind, and is a `ValueError`.
2. The frame is the supervisor's own copy, so an overlay is drawn on the frame that was asked about.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.manifest import Manifest
from edgekit.evaluation import decision
from edgekit.runtime.prediction import Prediction
from edgekit.runtime.wire import Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the supervisor has of a frame.

    Attributes:
        frame: uint8 (rows, columns) or (rows, columns, 3), its own copy; None where no map was asked for.
        gate: Whether a frame that is not assessable goes unanswered.
        note: Said in `engine_notes`; empty for nothing.
        started_ns: When the frame came in, by `time.perf_counter_ns`.
    """

    frame: NDArray[np.uint8] | None
    gate: bool
    note: str
    started_ns: int


def prediction_of(answer: Answer, numbers: NDArray[np.float32], asked: Asked, manifest: Manifest) -> Prediction:
    """Puts an answer together.

    Args:
        answer: What was sent.
        numbers: float32 (count,), the maps that came behind it.
        asked: For which frame.
        manifest: Of the bundle.

    Returns:
        Its `latency_ms` is from the frame in to this answer out; the stage "transport" is what the way to the process and back took of it.

    Raises:
        ValueError: It is no answer of this model.
    """
    _check(answer, manifest, gate=asked.gate)
    maps = _maps(answer, numbers, manifest)
    latency_ms = (perf_counter_ns() - asked.started_ns) / 1e6
    return Prediction(
        label=_label(answer, manifest),
        probabilities=answer.probabilities,
        logits=answer.logits,
        accepted=answer.accepted,
        assessable=answer.assessable,
        reason=answer.reason,
        engine=answer.engine,
        engine_notes=(*answer.engine_notes, asked.note) if asked.note else answer.engine_notes,
        stages_ms={**answer.stages_ms, "transport": max(0.0, latency_ms - answer.latency_ms)},
        latency_ms=latency_ms,
        _maps=maps,
        _frame=asked.frame,
        _manifest=manifest,
    )


def _check(answer: Answer, manifest: Manifest, *, gate: bool) -> None:
    if answer.accepted != manifest.accepted:
        raise ValueError("it says something else than the manifest about the acceptance")
    if not all(math.isfinite(value) and value >= 0 for value in (answer.latency_ms, *answer.stages_ms.values())):
        raise ValueError("its times are no times")
    if answer.engine not in [engine.name for engine in manifest.engines]:
        raise ValueError("its engine is none of the bundle's")
    if not answer.assessable and not answer.reason:
        raise ValueError("a frame that is not assessable has a reason")
    if not answer.assessable and gate:
        if answer.labels is not None or answer.probabilities or answer.logits or answer.maps_shape is not None:
            raise ValueError("a frame that is not assessable has no answer")
        return
    _check_answer(answer, manifest)


def _check_answer(answer: Answer, manifest: Manifest) -> None:
    known = manifest.output.labels
    if answer.labels is None or not set(answer.labels) <= set(known) or len(set(answer.labels)) != len(answer.labels):
        raise ValueError("its labels are not the model's")
    if manifest.output.task != "multilabel" and len(answer.labels) != 1:
        raise ValueError("it has not one label")
    if tuple(answer.probabilities) != known or tuple(answer.logits) != known:
        raise ValueError("its labels are not the model's")
    if not all(0 <= value <= 1 for value in answer.probabilities.values()):
        raise ValueError("a probability is not between 0 and 1")
    if not all(math.isfinite(value) for value in answer.logits.values()):
        raise ValueError("a logit is no number")
    probability = np.array(list(answer.probabilities.values()))
    if answer.labels != decision.answered(probability, manifest.output, manifest.decision.thresholds):
        raise ValueError("its label is not that of its probabilities")


def _label(answer: Answer, manifest: Manifest) -> str | tuple[str, ...] | None:
    if answer.labels is None or manifest.output.task == "multilabel":
        return answer.labels
    return answer.labels[0]


def _maps(answer: Answer, numbers: NDArray[np.float32], manifest: Manifest) -> NDArray[np.float32] | None:
    spec, shape = manifest.cam, answer.maps_shape
    if numbers.size != (0 if shape is None else math.prod(shape)):
        raise ValueError("its maps do not have the size that it says")
    if shape is None:
        return None
    if spec is None or shape != (len(manifest.output.labels), spec.rows, spec.columns):
        raise ValueError("its maps are not of the model's size")
    if not np.isfinite(numbers).all():
        raise ValueError("a map has values that are no numbers")
    return numbers.reshape(shape)
