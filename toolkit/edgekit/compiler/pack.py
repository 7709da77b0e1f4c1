"""pack: a proven artefact becomes a bundle.

Nothing in a bundle was timed, names a path or shows a patient: golden frames are synthetic, the report holds aggregate figures.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

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
    StateSpec,
    TargetSummary,
)
from edgekit.catalog.gate import GateSpec
from edgekit.catalog.recipe import Recipe
from edgekit.catalog.target import Target
from edgekit.compiler.dialects import dialect_of
from edgekit.compiler.gate_fit import FittedGate
from edgekit.compiler.input_gate import gate_members
from edgekit.compiler.oracle import open_oracle
from edgekit.compiler.stages.explain import ExplainedGraph
from edgekit.compiler.stages.measure import Measured, open_artefact
from edgekit.compiler.stages.quantize import Artefact
from edgekit.compiler.versions import versions
from edgekit.errors import ModelError
from edgekit.evaluation.gates import GateResult
from edgekit.imaging import phantom
from edgekit.imaging.preprocess import preprocess
from edgekit.profiler.host import fingerprint
from edgekit.runtime.cpu import WHOLE_SUMS
from edgekit.runtime.engines.base import RawOutput
from edgekit.runtime.selftest import answer_clip
from edgekit.schema.input_gate import InputGateSpec
from edgekit.schema.model_io import InputSpec

GOLDEN_FRAMES_PER_LABEL = 2
GOLDEN_SEED = 20260101
FRAMES_MEMBER = "golden/frames.npy"
REPORT_MEMBER = "report/summary.json"

# Another CPU rounds int8 sums alike but float32 ones not: measured in parts of the spread, of logits or of maps' elements, on the validation frames. Of a map
# the root mean square over its cells counts: other instructions and other orders of rounding move it by less than half of this, a map that is mirrored or moved by a
# cell is off by several times as much.
_GOLDEN_TOLERANCE = 0.05
_GOLDEN_MAP_TOLERANCE = 0.1
_RESIDUAL_TOLERANCE = 1e-3
_LEAST_TOLERANCE = 1e-4
_ATTENTION_MARGIN = 2.0
_SCALE_PERCENTILE = 99.0


def engine_spec(target: Target, artefact: Artefact) -> EngineSpec:
    """The manifest's entry of an artefact for a target's first engine."""
    return dialect_of(target).spec(artefact)


def cam_spec(graph: ExplainedGraph, measured: Measured) -> CamSpec | None:
    """The manifest's entry of the map, its fixed scale taken from the validation frames; the golden maps come when it is packed.

    Full colour stands for the 99th percentile of the evidence for the answers given on `val`.
    """
    if measured.maps is None or not graph.kind:
        return None
    winners = np.abs(measured.logits).argmax(axis=1) if measured.logits.shape[1] == 1 else measured.logits.argmax(axis=1)
    evidence = np.abs(measured.maps[np.arange(len(winners)), winners])
    tolerance = max(_LEAST_TOLERANCE, _RESIDUAL_TOLERANCE * float(measured.logits.std()))
    if graph.kind == "attention":
        # The attention is computed again beside the one that answers, which is rounded on its way: what that leaves on `val`, and as much again.
        tolerance = max(tolerance, _ATTENTION_MARGIN * float(measured.residual(graph.bias).max()))
    return CamSpec(
        rows=graph.rows,
        columns=graph.columns,
        maps=measured.maps.shape[1],
        kind=graph.kind,
        bias=graph.bias,
        tolerance=tolerance,
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
        oracle: Whether it was run in the numerical oracle, because the engine cannot run here.
        graph: The explained float graph it was made from.
        measured_val: What it answered on `val`.
        measured_test: What it answered on `test`.
        temperature: Its logits are divided by this before they become probabilities.
        thresholds: Frozen.
        gates: Every gate but the budgets: a bundle holds nothing that was timed, and not its own size.
        within_budget: Whether the budgets of latency and size are kept.
        summary: Aggregate figures.
        sources: Digests of what it was made from.
        gate: The input gate; None where there is none.
        gate_reason: Why there is none; empty where there is one.
        gate_spec: The recipe's `[gate]`.
    """

    artefact: Artefact
    engine: EngineSpec
    oracle: bool
    graph: ExplainedGraph
    measured_val: Measured
    measured_test: Measured
    temperature: float
    thresholds: dict[str, float]
    gates: tuple[GateResult, ...]
    within_budget: bool
    summary: dict[str, object]
    sources: dict[str, str]
    gate: FittedGate | None = None
    gate_reason: str = ""
    gate_spec: GateSpec = field(default_factory=GateSpec)

    @property
    def accepted(self) -> bool:
        return self.within_budget and all(gate.passed for gate in self.gates)


def assemble(recipe: Recipe, target: Target, proofs: Sequence[Proof]) -> tuple[Manifest, dict[str, bytes]]:
    """The draft of the manifest (its members are filled in by the writer) and the members of a bundle.

    Args:
        recipe: What was compiled.
        target: For which device.
        proofs: One an engine; the first is what the bundle is made for, the others answer when it cannot.
    """
    first = proofs[0]
    tensors = golden_frames(recipe.input)
    members = {FRAMES_MEMBER: dump_array(tensors)}
    golden: dict[str, str] = {}
    tolerance: dict[str, float] = {}
    states: dict[str, NDArray[np.float32]] = {}
    cam = shared_cam(proofs)
    golden_maps: dict[str, str] = {}
    map_tolerance: dict[str, float] = {}
    for proof in proofs:
        answers = answer_clip(open_artefact(proof.artefact, proof.engine, oracle=proof.oracle), tensors)
        golden[proof.engine.name] = f"golden/{proof.engine.name}-logits.npy"
        tolerance[proof.engine.name], map_tolerance[proof.engine.name] = _tolerances(proof, tensors, answers)
        members[golden[proof.engine.name]] = dump_array(np.stack([raw.logits for raw in answers]))
        if cam is not None:
            golden_maps[proof.engine.name] = f"golden/{proof.engine.name}-maps.npy"
            members[golden_maps[proof.engine.name]] = dump_array(_maps(answers))
        if first.graph.state is not None:
            states[proof.engine.name] = np.stack([raw.next_state for raw in answers if raw.next_state is not None])
        members |= {proof.engine.files[role]: path.read_bytes() for role, path in proof.artefact.files.items()}
    members[REPORT_MEMBER] = (json.dumps(first.summary, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()
    state, golden_states = _state_spec(first.graph, states)
    members |= golden_states
    gate, gate_files = _gate(proofs)
    members |= gate_files
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        name=recipe.name,
        version=recipe.version,
        security_version=recipe.security_version,
        accepted=first.accepted,
        compatible=(target.name,),
        target=TargetSummary(
            name=target.name, title=target.title, architectures=target.architectures, instruction_sets=target.instruction_sets
        ),
        engines=(first.engine, *(_further(proof, first) for proof in proofs[1:])),
        input=recipe.input,
        output=recipe.model.output,
        decision=Decision(temperature=first.temperature, thresholds=first.thresholds),
        cam=None if cam is None else dataclasses.replace(cam, golden=golden_maps, golden_tolerance=map_tolerance),
        cam_reason=first.graph.reason,
        golden=GoldenSpec(
            frames=FRAMES_MEMBER,
            logits=golden,
            tolerance=tolerance,
        ),
        acceptance=_gates(first),
        sources=first.sources,
        made_with=made_with(),
        members={},
        gate=gate,
        gate_reason=first.gate_reason,
        state=state,
    )
    return manifest, members


def _gate(proofs: Sequence[Proof]) -> tuple[InputGateSpec | None, dict[str, bytes]]:
    """The input gate of a bundle and its members; it is fitted for every engine or for none, since frames decide that."""
    fitted = {proof.engine.name: proof.gate for proof in proofs if proof.gate is not None}
    return gate_members(fitted, proofs[0].gate_spec) if fitted else (None, {})


def _state_spec(graph: ExplainedGraph, states: Mapping[str, NDArray[np.float32]]) -> tuple[StateSpec | None, dict[str, bytes]]:
    """The manifest's entry of a recurrent graph's state, and the golden states by member; an element may be off by a part of all elements' spread, as a logit may."""
    if graph.state is None:
        return None, {}
    members = {name: f"golden/{name}-states.npy" for name in states}
    tolerance = {name: _LEAST_TOLERANCE + _GOLDEN_TOLERANCE * float(found.std()) for name, found in states.items()}
    spec = StateSpec(shape=graph.state, golden=members, tolerance=tolerance)
    return spec, {members[name]: dump_array(found) for name, found in states.items()}


def _tolerances(proof: Proof, tensors: NDArray[np.uint8], answers: Sequence[RawOutput]) -> tuple[float, float]:
    """How far logits may be from the golden ones on a device, and maps, root mean square over their cells; 0 for the maps where there is none.

    Where the engine did not run, twice what another way to round the same sums makes of the golden frames, if that is more: a device rounds in an order of its own,
    and each result may move an integer behind it by a step.
    """
    val = proof.measured_val
    logits = _GOLDEN_TOLERANCE * float(val.logits.std())
    maps = 0.0 if val.maps is None else _GOLDEN_MAP_TOLERANCE * float(val.maps.std())
    for others in _rounded_otherwise(proof, tensors):
        logits = max(logits, 2 * max(float(np.abs(one.logits - other.logits).max()) for one, other in zip(others, answers, strict=True)))
        if val.maps is not None:
            maps = max(maps, 2 * float(np.sqrt(np.square(_maps(others) - _maps(answers)).mean(axis=(2, 3))).max()))
    return _LEAST_TOLERANCE + logits, 0.0 if val.maps is None else _LEAST_TOLERANCE + maps


def _rounded_otherwise(proof: Proof, tensors: NDArray[np.uint8]) -> Iterator[Sequence[RawOutput]]:
    """The golden frames as other arithmetic answers them, of an artefact that its engine did not run.

    float16 results that are not rounded; and for ONNX Runtime this machine's own kernels on integers, where the oracle computes in float32 between roundings. Kernels that
    cut sums off are wrong and no other order, so they make no room for anything.
    """
    if not proof.oracle or proof.artefact.precision == "f32":
        return
    members = {proof.engine.files[role]: memoryview(path.read_bytes()) for role, path in proof.artefact.files.items()}
    yield answer_clip(open_oracle(proof.engine, members, rounds_halves=False), tensors)
    if proof.engine.name == "onnxruntime" and WHOLE_SUMS & set(fingerprint().instruction_sets or ()):
        yield answer_clip(open_artefact(proof.artefact, proof.engine), tensors)


def _maps(answers: Sequence[RawOutput]) -> NDArray[np.float32]:
    """The maps of answers that have them, float32 (frames, maps, rows, columns)."""
    return np.stack([raw.cam for raw in answers if raw.cam is not None])


def shared_cam(proofs: Sequence[Proof]) -> CamSpec | None:
    """The manifest's entry of the map: the first engine's scale, and a tolerance that holds for all.

    Raises:
        ModelError: The engines' graphs have maps of two kinds, as a head that one rung rounds and another does not may have: the manifest describes one.
    """
    found = [cam_spec(proof.graph, proof.measured_val) for proof in proofs]
    first = found[0]
    if len({None if cam is None else (cam.kind, cam.rows, cam.columns, bool(cam.bias)) for cam in found}) > 1:
        kinds = ", ".join(f"{proof.engine.name}: {proof.graph.kind or 'none'}" for proof in proofs)
        raise ModelError(
            f"the engines' graphs have maps of several kinds ({kinds})", hint="compile one target an engine, or take one ladder for all"
        )
    return None if first is None else dataclasses.replace(first, tolerance=max(cam.tolerance for cam in found if cam is not None))


def _further(proof: Proof, first: Proof) -> EngineSpec:
    """An engine that answers when the first cannot, with its own calibration and its own proof."""
    own = None if proof.temperature == first.temperature else proof.temperature
    return dataclasses.replace(proof.engine, temperature=own, acceptance=_gates(proof))


def _gates(proof: Proof) -> tuple[Gate, ...]:
    return tuple(Gate(name=gate.name, value=gate.value, bound=gate.bound, passed=gate.passed, status=gate.status) for gate in proof.gates)


def made_with() -> dict[str, str]:
    """Versions of what a bundle is made with."""
    return {"edgekit": __version__, **versions("openvino", "nncf", "torch", "torch-pruning", "onnx", "onnxruntime")}
