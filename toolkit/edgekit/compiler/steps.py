"""What each step of the compression bought and cost, for the report: latency and size of what an engine runs, AUC and answers on `val`.

Every latency is measured interleaved with the final artefact, on the compile's host; answers and AUC are those of calibrated probabilities, as in the
gates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler import ladder, timing
from edgekit.compiler.checks import point_figures
from edgekit.compiler.network import public_title
from edgekit.compiler.progress import Progress
from edgekit.compiler.proof import Proving
from edgekit.compiler.stages.quantize import Artefact
from edgekit.evaluation import decision
from edgekit.evaluation.acceptance import device_temperature
from edgekit.evaluation.paired import compare_answers

UNPRUNED = "INT8, unpruned"


def measure(proving: Proving, progress: Progress) -> list[dict[str, Any]]:
    """The steps in order; each as `report.steps` takes it."""
    compressed, candidate = proving.compressed, proving.candidate
    final = candidate.chosen.artefact
    rows: list[tuple[str, str, Artefact | None, NDArray[np.float32] | None]] = [
        (
            "teacher",
            f"trained model, PyTorch or ONNX Runtime, FP32 ({public_title(proving.recipe.model.source)})",
            None,
            proving.prepared.reference["val"],
        ),
        ("FP32", "trained model in the engine, FP32", candidate.teacher.artefact, candidate.teacher.val.logits),
    ]
    if compressed.int8_reference is not None:
        rows.append((UNPRUNED, "what was pruned, before that, INT8 (ptq)", compressed.int8_reference, None))
    if compressed.is_new:
        rows.append(("student, FP32", "the network that is quantized, FP32", candidate.exact.artefact, candidate.exact.val.logits))
    rows.append((final.precision.upper(), f"what was packed: rung {candidate.chosen.rung}", final, candidate.chosen.measured.logits))
    progress.begin("steps", cached=False)
    found, medians = [], []
    for index, (name, title, artefact, logits) in enumerate(rows):
        timed = None if artefact is None or artefact is final or candidate.dialect.oracle else _timed(proving, artefact)
        medians += [] if timed is None else [timed.reference_ms]
        own = float(np.median(medians)) if medians else None
        latency = own if artefact is final else None if timed is None else timed.latency_ms
        size = None if artefact is None else artefact.size_bytes
        measured = {"latency_ms": latency, "size_bytes": size, "parameters": None}
        found.append({"name": name, "title": title, **measured, **_answers(proving, logits)})
        progress.step(index + 1, len(rows))
    progress.end()
    return found


def against_target(proving: Proving, made: list[dict[str, Any]]) -> dict[str, Any]:
    """The report's `pruning` and `notes`, with the share of the latency that the packed artefact came to: another rung may be slower than the probe was."""
    pruning, notes = proving.compressed.pruning, proving.notes
    unpruned = next((step["latency_ms"] for step in made if step["name"] == UNPRUNED), None)
    if pruning is None or unpruned is None or made[-1]["latency_ms"] is None:
        return {"pruning": pruning, "notes": notes}
    packed, target = made[-1]["latency_ms"] / unpruned, pruning["target"]
    if pruning["measure"] == "latency" and target is not None and packed > target:
        notes = [*notes, f"the packed artefact takes {packed:.1%} of the unpruned INT8 latency, more than the {target:.1%} asked for"]
    return {"pruning": {**pruning, "packed_share": packed}, "notes": notes}


def _timed(proving: Proving, artefact: Artefact) -> timing.LatencyShare:
    """An artefact beside the final one, which every other is timed with."""
    candidate = proving.candidate
    frame = np.ascontiguousarray(proving.prepared.splits["val"].tensors[:1])
    specs = (candidate.spec_of(artefact), candidate.engine)
    return timing.latency_share(artefact, candidate.chosen.artefact, specs, frame, tries=1)


def _answers(proving: Proving, logits: NDArray[np.float32] | None) -> dict[str, Any]:
    if logits is None:
        return {"auc": None, "flips": None, "frames": None}
    val, output = proving.prepared.splits["val"], proving.recipe.model.output
    thresholds = proving.acceptance.thresholds
    fitted = proving.prepared.temperature
    own = device_temperature(decision.logits_by_label(logits, output), val.truth, output, outputs=logits.shape[1], reference=fitted)
    before, after = (
        ladder.outcomes(item, val, output, thresholds, temperature=value)
        for item, value in ((proving.prepared.reference["val"], fitted.value), (logits, own.value))
    )
    flips = compare_answers(before.answers, after.answers, val.truth, output)
    return {"auc": point_figures(after)["auc"], "flips": len(flips.indices), "frames": flips.frames}
