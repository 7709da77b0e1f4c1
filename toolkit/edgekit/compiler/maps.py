"""What is found out about a compiled network's maps: likeness on `test`, the control with random weights, and the lesions that the data manifest marks.

Rules this file keeps:

1. The reference is the network that is quantized, before it was, in the same engine: what is asked is what quantization does to its explanations.
2. Likeness is measured on `test`, like everything that proves.
3. Frames with masks are taken from every split. They are few everywhere, and what is compared are two renderings of one network: no claim is made of how well it
   points on frames it has not seen, and neither side has an advantage on those it has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler.prepare import Prepared
from edgekit.compiler.stages.control import ControlStage
from edgekit.compiler.stages.explain import ExplainedGraph
from edgekit.compiler.stages.frames import FramesStage, PreparedSplit, calibration_indices
from edgekit.compiler.stages.masks import MasksStage
from edgekit.compiler.stages.measure import Measured
from edgekit.compiler.stages.quantize import Artefact
from edgekit.compiler.workspace import Workspace
from edgekit.evaluation.dataset import Sample
from edgekit.evaluation.fidelity import FrameFidelity, answered_maps, by_label, compare_frames, residual_share, summarize, values
from edgekit.evaluation.localisation import Lesions, Localisation, compare
from edgekit.evaluation.map_gates import Control, MapEvidence, RandomDraw, wants_control

CONTROL_FRAMES = 64
"""Frames of `test` that the random networks are run on."""

MASKED_FRAMES = 512
"""Frames with a mask that are compared; more are drawn from evenly."""

SEVERAL_LABELS = "not exactly one label"
NOT_DRAWN = f"beyond the {MASKED_FRAMES} that are compared"

_NO_LESIONS = Lesions(covered=np.zeros((0, 1, 1)), centre=np.zeros((0, 1, 1), dtype=bool))

Measure = Callable[[Artefact, str, PreparedSplit], Measured]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MapProof:
    """What was found.

    Attributes:
        evidence: What the gates judge.
        frames: Each frame of `test`, in its order.
        reference: float32 (frames, rows, columns), the maps of the label that the reference answers.
        device: The same of the device.
        answered: intp (frames,): that label's column.
    """

    evidence: MapEvidence
    frames: FrameFidelity
    reference: NDArray[np.float32]
    device: NDArray[np.float32]
    answered: NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rendering:
    """A network in an engine.

    Attributes:
        artefact: Its artefact.
        graph: The explained float graph that was made from.
        test: What it answered on `test`; None where it was not run there.
    """

    artefact: Artefact
    graph: ExplainedGraph
    test: Measured | None


def examine(prepared: Prepared, exact: Rendering, device: Rendering, measure: Measure, workspace: Workspace) -> MapProof | None:
    """Compares the maps of an artefact with those of the network it was made from.

    Args:
        prepared: The frames.
        exact: The network in the engine, not quantized.
        device: The artefact; a rung that trains has made a graph of its own.
        measure: Runs an artefact on frames.
        workspace: Runs the stages.

    Returns:
        None where there is no map.
    """
    if exact.test is None or device.test is None or exact.test.maps is None or device.test.maps is None:
        return None
    test, accept = prepared.splits["test"], prepared.recipe.accept
    before, after = answered_maps(exact.test.logits, exact.test.maps, device.test.maps)
    found = compare_frames(before, after)
    control = _control(exact.graph, exact.test, test, workspace) if wants_control(accept) else None
    evidence = MapEvidence(
        fidelity=summarize(found, test.groups),
        residual_share=residual_share(device.test.residual(device.graph.bias), exact.test.logits),
        control=control,
        localisation=_localise(prepared, exact, device, measure, workspace),
    )
    answered = by_label(exact.test.logits).argmax(axis=1)
    return MapProof(evidence=evidence, frames=found, reference=before, device=after, answered=answered)


def _control(graph: ExplainedGraph, exact: Measured, test: PreparedSplit, workspace: Workspace) -> Control:
    indices = calibration_indices(test.samples, count=CONTROL_FRAMES, seed=0)
    stage = ControlStage(graph=graph, tensors=test.tensors, tensors_sha256=test.sha256, indices=tuple(indices))
    draws = []
    for drawn in workspace.run(stage, label="random weights on test"):
        figures: dict[str, float | None] = values(_nothing(len(indices)))
        if drawn.maps is not None and exact.maps is not None:
            figures = values(compare_frames(*answered_maps(exact.logits[indices], exact.maps[indices], drawn.maps)))
        draws.append(RandomDraw(what=drawn.what, seed=drawn.seed, figures=figures))
    return Control(frames=len(indices), draws=tuple(draws))


def _nothing(frames: int) -> FrameFidelity:
    empty = np.full(frames, np.nan)
    return FrameFidelity(pearson=empty, overlap=empty, peak_shift=empty, peak_kept=empty, sign=empty)


def _localise(prepared: Prepared, exact: Rendering, device: Rendering, measure: Measure, workspace: Workspace) -> Localisation | None:
    recipe = prepared.recipe
    masked = [sample for sample in prepared.data.samples if sample.mask is not None]
    if not masked:
        return None
    single = [sample for sample in masked if len(sample.labels) == 1]
    drawn = [single[index] for index in calibration_indices(single, count=MASKED_FRAMES, seed=0)]
    left_out = Counter({SEVERAL_LABELS: len(masked) - len(single), NOT_DRAWN: len(single) - len(drawn)})
    if not drawn:
        return _compared(prepared, _NO_LESIONS, (), (), left_out)
    stage = MasksStage(samples=tuple(drawn), input=recipe.input, size=(exact.graph.rows, exact.graph.columns))
    masks = workspace.run(stage, label="of every split")
    left_out.update(reason for reason in masks.reasons if reason)
    kept = [index for index, reason in enumerate(masks.reasons) if not reason]
    lesions = Lesions(covered=masks.lesions.covered[kept], centre=masks.lesions.centre[kept])
    if not kept:
        return _compared(prepared, _NO_LESIONS, (), (), left_out)
    samples = tuple(drawn[index] for index in kept)
    split = workspace.run(FramesStage(samples=samples, input=recipe.input, output=recipe.model.output), label="with masks")
    sides = ((exact, "before quantization"), (device, "as compiled"))
    measured = [measure(side.artefact, f"{title}, on frames with masks", split) for side, title in sides]
    return _compared(prepared, lesions, samples, measured, left_out)


def _compared(
    prepared: Prepared, lesions: Lesions, samples: Sequence[Sample], measured: Sequence[Measured], left_out: Counter[str]
) -> Localisation:
    labels = prepared.recipe.model.labels
    columns = [labels.index(sample.labels[0]) for sample in samples]
    maps = [by_label(side.maps)[np.arange(len(columns)), columns] for side in measured if side.maps is not None]
    maps = maps or [np.zeros((0, 1, 1), dtype=np.float32)] * 2
    return compare(
        maps[0],
        maps[1],
        lesions,
        groups=[sample.group for sample in samples],
        splits=[sample.split for sample in samples],
        left_out={reason: number for reason, number in left_out.items() if number},
        margin=prepared.recipe.accept.cam_pointing_margin,
    )
