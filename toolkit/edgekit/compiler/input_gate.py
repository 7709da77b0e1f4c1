"""The input gate of an artefact: fitted on calibration and `val`, tried on `test` and on foreign frames.

Rules this file keeps:

1. `test` and foreign frames are looked at when everything is set, and change nothing.
2. A frame that image quality refuses counts as refused, with an infinite score.
3. What is drawn without data is tried for every bundle; sets that the recipe names, for the engine that leads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.arrays import dump_array
from edgekit.catalog.gate import GateSpec
from edgekit.compiler.gate_fit import FittedGate, Limited, figures_of, fit, why_no_gate
from edgekit.compiler.prepare import Prepared
from edgekit.compiler.stages.frames import FramesStage, PreparedSplit
from edgekit.compiler.stages.gate_frames import DrawnStage, named_samples
from edgekit.compiler.stages.measure import Measured
from edgekit.compiler.stages.quantize import Artefact
from edgekit.compiler.workspace import Workspace, digest
from edgekit.evaluation.dataset import Sample
from edgekit.evaluation.ood import refused_share, separate
from edgekit.imaging import foreign
from edgekit.imaging.quality import why_not_of
from edgekit.schema.decode import encode
from edgekit.schema.input_gate import InputGateSpec, Subspace

BRIGHTNESS_MEMBER = "gate/brightness.npy"
INVERTED = "test, inverted"

Measure = Callable[[Artefact, str, PreparedSplit], Measured]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GateProof:
    """What came of it.

    Attributes:
        fitted: The gate; None where there is none.
        reason: Why there is none; empty where there is one.
        document: For the report, JSON-ready; None where there is no gate.
    """

    fitted: FittedGate | None
    reason: str
    document: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Set:
    """Frames that the gate is tried on: their tensors, their own figures, and what the artefact gives."""

    title: str
    split: PreparedSplit
    measured: Measured


def examine_input(  # noqa: PLR0913 - what is judged, on what it gave, how more is measured, and where it happens
    prepared: Prepared, artefact: Artefact, known: tuple[Measured, Measured], measure: Measure, workspace: Workspace, *, leads: bool
) -> GateProof:
    """Fits the gate of an artefact and tries it.

    Args:
        prepared: Recipe and frames.
        artefact: What is proven.
        known: What it gives on `val` and on `test`.
        measure: Runs an artefact on frames.
        workspace: Runs the stages.
        leads: Whether its engine is the first of the target.
    """
    recipe, (val, test) = prepared.recipe, known
    reason = why_no_gate(recipe.gate, prepared.calibration, prepared.splits["val"])
    if reason:
        return GateProof(fitted=None, reason=reason, document=None)
    features = None if val.features is None else measure(artefact, "calibration frames", prepared.calibration).features
    gate = fit(recipe.gate, (prepared.calibration, features), (prepared.splits["val"], val), grey=recipe.input.color == "grey")
    sets = [
        _Set(title=title, split=split, measured=measure(artefact, f"{title}, foreign", split))
        for title, split in _foreign(prepared, workspace, named=leads)
    ]
    tried = {name: _Set(title=name, split=prepared.splits[name], measured=found) for name, found in (("val", val), ("test", test))}
    return GateProof(fitted=gate, reason="", document=_document(gate, tried, sets, reason_of_features=_why_no_features(prepared, val)))


def _why_no_features(prepared: Prepared, val: Measured) -> str:
    return "" if val.features is not None else prepared.explained.features_reason or "the graph gives none"


def _foreign(prepared: Prepared, workspace: Workspace, *, named: bool) -> list[tuple[str, PreparedSplit]]:
    recipe, found = prepared.recipe, []
    for kind in foreign.KINDS:
        drawn = workspace.run(DrawnStage(kind=kind, input=recipe.input), label=kind)
        samples = tuple(_drawn_sample(kind, index) for index in range(len(drawn.tensors)))
        truth = np.zeros((len(samples), len(recipe.model.labels)), dtype=bool)
        split = PreparedSplit(tensors=drawn.tensors, truth=truth, samples=samples, sha256=drawn.sha256, figures=drawn.figures)
        found.append((kind, split))
    test = prepared.splits["test"]
    inverted = np.asarray(255 - np.asarray(test.tensors), dtype=np.uint8)
    found.append((INVERTED, dataclasses.replace(test, tensors=inverted, sha256=digest(["inverted", test.sha256]))))
    for path in map(Path, recipe.gate.foreign if named else ()):
        samples = named_samples(path, recipe.data.columns, count=recipe.gate.foreign_frames)
        title = f"{path.parent.name}/{path.name}"
        found.append((title, workspace.run(FramesStage(samples=samples, input=recipe.input, output=recipe.model.output), label=title)))
    return found


def _drawn_sample(kind: str, index: int) -> Sample:
    name = f"{kind}-{index}"
    return Sample(path=Path(name), file=name, labels=(), split="foreign", group=name, mask=None, extra={}, line=index + 1)


def _document(gate: FittedGate, known: dict[str, _Set], sets: Sequence[_Set], *, reason_of_features: str) -> dict[str, Any]:
    judged = {name: _judged(gate, item) for name, item in known.items()}
    groups = {name: item.split.groups for name, item in known.items()}
    rows = []
    for item in sets:
        values = _judged(gate, item)
        found = separate(judged["test"], values, groups["test"], item.split.groups, limit=1.0)
        rows.append({"set": item.title, **encode(found), "by_quality": float(np.isinf(values).mean())})
    return {
        "limits": {"features": None if gate.features is None else gate.features.limit, "brightness": gate.brightness.limit},
        "frames": gate.frames,
        "groups": gate.groups,
        "components": 0 if gate.features is None else len(gate.features.components.directions),
        "features": 0 if gate.features is None else len(gate.features.components.mean),
        "features_reason": reason_of_features,
        "quality": encode(gate.quality),
        "known": [
            {
                "split": name,
                "frames": len(values),
                "groups": len(set(groups[name])),
                "refused": encode(refused_share(values, groups[name], limit=1.0)),
                "by_quality": float(np.isinf(values).mean()),
            }
            for name, values in judged.items()
        ],
        "foreign": rows,
    }


def _judged(gate: FittedGate, item: _Set) -> NDArray[np.float64]:
    """The score of each frame, infinite where image quality refuses it."""
    figures = figures_of(item.split.tensors)
    values = gate.scores(item.measured.features if gate.features is not None else None, figures)
    if item.split.figures is None:
        raise ValueError("the frames' own figures are not known")
    seen = [tuple(map(float, row)) for row in item.split.figures]
    refused = [
        bool(why_not_of((rows, columns, colour), found, gate.quality)) for (rows, columns, colour), found in zip(seen, figures, strict=True)
    ]
    return np.where(refused, np.inf, values)


def gate_members(proofs: dict[str, FittedGate], spec: GateSpec) -> tuple[InputGateSpec, dict[str, bytes]]:
    """The manifest's entry and the members of a bundle's gate.

    Args:
        proofs: Name of each engine of the bundle to its gate, the first engine first; what does not depend on the engine is the first one's.
        spec: The recipe's `[gate]`.
    """
    first = next(iter(proofs.values()))
    members = {BRIGHTNESS_MEMBER: dump_array(_stored(first.brightness))}
    features = {}
    for name, gate in proofs.items():
        if gate.features is not None:
            member = f"gate/{name}-features.npy"
            members[member] = dump_array(_stored(gate.features))
            features[name] = _subspace(member, gate.features)
    return InputGateSpec(
        quality=first.quality,
        brightness=_subspace(BRIGHTNESS_MEMBER, first.brightness),
        features=features,
        frozen_frames=spec.frozen_frames,
        frozen_s=spec.frozen_s,
        frames=first.frames,
        groups=first.groups,
        quantile=spec.quantile,
    ), members


def _subspace(member: str, found: Limited) -> Subspace:
    return Subspace(member=member, noise=found.components.noise, limit=found.limit)


def _stored(found: Limited) -> NDArray[np.float32]:
    return np.vstack([found.components.mean, found.components.directions]).astype(np.float32)
