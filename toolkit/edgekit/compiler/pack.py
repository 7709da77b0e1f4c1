"""pack: a proven artefact becomes a bundle.

Nothing in a bundle was timed, names a path or shows a patient: golden frames are synthetic, the report holds aggregate figures.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit import __version__
from edgekit.bundle.arrays import dump_array
from edgekit.bundle.manifest import (
    FORMAT_VERSION,
    CamSpec,
    Decision,
    EngineSpec,
    Gate,
    GoldenSpec,
    Manifest,
    TargetSummary,
)
from edgekit.catalog.recipe import Recipe
from edgekit.catalog.target import Target
from edgekit.compiler.stages.explain import ExplainedGraph
from edgekit.compiler.stages.measure import Measured, open_artefact
from edgekit.compiler.stages.quantize import Artefact
from edgekit.compiler.versions import versions
from edgekit.evaluation.gates import GateResult
from edgekit.imaging import phantom
from edgekit.imaging.preprocess import preprocess
from edgekit.runtime.engines import engine_class
from edgekit.schema.model_io import InputSpec

GOLDEN_FRAMES_PER_LABEL = 2
GOLDEN_SEED = 20260101
FRAMES_MEMBER = "golden/frames.npy"
REPORT_MEMBER = "report/summary.json"

_MEMBER_OF_ROLE = {"xml": "model/openvino.xml", "bin": "model/openvino.bin"}

# Another CPU rounds int8 sums alike but float32 ones not: measured in parts of the logits' spread on the validation frames.
_GOLDEN_TOLERANCE = 0.05
_RESIDUAL_TOLERANCE = 1e-3
_LEAST_TOLERANCE = 1e-4
_SCALE_PERCENTILE = 99.0


def engine_spec(target: Target, artefact: Artefact) -> EngineSpec:
    """The manifest's entry of an artefact: pinned settings, and the engine version it was proven with as the oldest allowed."""
    return EngineSpec(
        name=target.engine.name,
        files=dict(_MEMBER_OF_ROLE),
        minimum_version=engine_class(target.engine.name).available().version or "",
        precision=artefact.precision,
        settings=dict(target.engine.settings),
        outputs=artefact.outputs,
    )


def cam_spec(graph: ExplainedGraph, measured: Measured) -> CamSpec | None:
    """The manifest's entry of the map, its fixed scale taken from the validation frames.

    Full colour stands for the 99th percentile of the evidence for the answers given on `val`.
    """
    if measured.maps is None:
        return None
    winners = np.abs(measured.logits).argmax(axis=1) if measured.logits.shape[1] == 1 else measured.logits.argmax(axis=1)
    evidence = np.abs(measured.maps[np.arange(len(winners)), winners])
    spread = float(measured.logits.std())
    return CamSpec(
        rows=graph.rows,
        columns=graph.columns,
        maps=measured.maps.shape[1],
        kind="pooled-linear",
        bias=graph.bias,
        tolerance=max(_LEAST_TOLERANCE, _RESIDUAL_TOLERANCE * spread),
        scale=max(_LEAST_TOLERANCE, float(np.percentile(evidence, _SCALE_PERCENTILE))),
    )


def golden_frames(spec: InputSpec) -> NDArray[np.uint8]:
    """Synthetic tensors, uint8 (frames, height, width, channels): seeded phantoms of every kind, preprocessed as the recipe says."""
    tensors = [
        preprocess(phantom.frame(label, patient=patient, index=0, seed=GOLDEN_SEED), spec)[0]
        for label in phantom.LABELS
        for patient in range(GOLDEN_FRAMES_PER_LABEL)
    ]
    return np.stack(tensors)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Proof:
    """Everything that was found out about an artefact, as far as it goes into the bundle.

    Attributes:
        artefact: The engine's model.
        engine: How it runs.
        graph: The explained float graph it was made from.
        measured_val: What it answered on `val`.
        temperature: Its logits are divided by this before they become probabilities.
        thresholds: Frozen.
        gates: Every gate but the budgets: a bundle holds nothing that was timed, and not its own size.
        within_budget: Whether the budgets of latency and size are kept.
        summary: Aggregate figures.
        sources: Digests of what it was made from.
    """

    artefact: Artefact
    engine: EngineSpec
    graph: ExplainedGraph
    measured_val: Measured
    temperature: float
    thresholds: dict[str, float]
    gates: tuple[GateResult, ...]
    within_budget: bool
    summary: dict[str, object]
    sources: dict[str, str]

    @property
    def accepted(self) -> bool:
        return self.within_budget and all(gate.passed for gate in self.gates)


def assemble(recipe: Recipe, target: Target, proof: Proof) -> tuple[Manifest, dict[str, bytes]]:
    """The draft of the manifest (its members are filled in by the writer) and the members of a bundle."""
    tensors = golden_frames(recipe.input)
    engine = open_artefact(proof.artefact, proof.engine)
    expected = np.stack([engine.infer(np.ascontiguousarray(tensor[None])).logits for tensor in tensors])
    logits_member = f"golden/{proof.engine.name}-logits.npy"
    members = {proof.engine.files[role]: path.read_bytes() for role, path in proof.artefact.files.items()}
    members[FRAMES_MEMBER] = dump_array(tensors)
    members[logits_member] = dump_array(expected)
    members[REPORT_MEMBER] = (json.dumps(proof.summary, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()
    cam = cam_spec(proof.graph, proof.measured_val)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        name=recipe.name,
        version=recipe.version,
        security_version=recipe.security_version,
        accepted=proof.accepted,
        compatible=(target.name,),
        target=TargetSummary(name=target.name, title=target.title, architectures=target.architectures),
        engines=(proof.engine,),
        input=recipe.input,
        output=recipe.model.output,
        decision=Decision(temperature=proof.temperature, thresholds=proof.thresholds),
        cam=cam,
        cam_reason=proof.graph.reason,
        golden=GoldenSpec(
            frames=FRAMES_MEMBER,
            logits={proof.engine.name: logits_member},
            tolerance={proof.engine.name: _LEAST_TOLERANCE + _GOLDEN_TOLERANCE * float(proof.measured_val.logits.std())},
        ),
        acceptance=tuple(
            Gate(name=gate.name, value=gate.value, bound=gate.bound, passed=gate.passed, status=gate.status) for gate in proof.gates
        ),
        sources=proof.sources,
        made_with=made_with(),
        members={},
    )
    return manifest, members


def made_with() -> dict[str, str]:
    """Versions of what a bundle is made with."""
    return {"edgekit": __version__, **versions("openvino", "nncf", "torch", "torch-pruning", "onnx", "onnxruntime")}
