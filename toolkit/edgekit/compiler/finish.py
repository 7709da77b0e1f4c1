"""gate and write: the proof on `test`, the bundle, and the report beside it."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.bundle.manifest import CamSpec, Manifest
from edgekit.bundle.reader import open_bundle
from edgekit.bundle.writer import write_atomically, write_bundle
from edgekit.catalog.recipe import Recipe
from edgekit.catalog.target import Target
from edgekit.compiler import pack, steps, timing
from edgekit.compiler.dialects.base import Dialect
from edgekit.compiler.oracle import TITLE
from edgekit.compiler.prepare import source_digests
from edgekit.compiler.progress import Progress
from edgekit.compiler.proof import Proving, missing_row
from edgekit.compiler.stages.measure import Measured
from edgekit.compiler.stages.methods import MethodComparison
from edgekit.compiler.workspace import Workspace
from edgekit.errors import ModelError
from edgekit.evaluation.further_gates import Budgets, budget_gates
from edgekit.evaluation.gates import GateResult
from edgekit.imaging import phantom
from edgekit.imaging.phantom_scanner import PhantomSpec
from edgekit.profiler.clock import Budget
from edgekit.profiler.percentiles import SHARES, latency
from edgekit.profiler.stages import measure_predict
from edgekit.profiler.warmup import steady_state
from edgekit.report import compile_page
from edgekit.runtime import selftest
from edgekit.runtime.classifier import Classifier
from edgekit.runtime.clip import FirstFrames
from edgekit.schema.decode import encode

LATENCY_BUDGET = Budget(seconds=2.0, min_samples=100, max_seconds=20.0)
LATENCY_FRAME = PhantomSpec(rows=480, columns=640)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Where a target's results go."""

    bundle: Path
    report_html: Path
    report_json: Path

    @classmethod
    def beside(cls, bundle: Path) -> Outputs:
        """The reports stand beside the bundle, under its name."""
        return cls(bundle=bundle, report_html=bundle.with_suffix(".report.html"), report_json=bundle.with_suffix(".report.json"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A target's result: the bundle where one was written, the gate's verdict, and the report's document."""

    bundle: Path | None
    accepted: bool
    gates: tuple[GateResult, ...]
    outputs: Outputs
    document: dict[str, Any]


def finish(  # noqa: PLR0913, PLR0917 - what was judged, where it goes, and who is told
    provings: Sequence[Proving],
    left_out: Mapping[str, str],
    outputs: Outputs,
    workspace: Workspace,
    progress: Progress,
    methods: MethodComparison | None = None,
) -> Finished:
    """Writes the bundle where it may be written, and the report in any case.

    A bundle is drafted first, opened as a device would and timed, where this machine can; the budgets of latency and size are held against that draft.

    Args:
        provings: One an engine of the target. The first decides; of the others those are packed that the gates accept.
        left_out: Name of an engine that nothing could be made for, to the reason.
        outputs: Where to.
        workspace: Knows what the stages cost.
        progress: Told of the rest.
        methods: The device's map beside other explanation methods, for the report; None where the recipe names none.
    """
    proving = provings[0]
    prepared, candidate, acceptance = proving.prepared, proving.candidate, proving.acceptance
    recipe = prepared.recipe
    proofs = [_proof(found) for found in provings if found is proving or found.accepted]
    with tempfile.TemporaryDirectory(prefix="edgekit-pack-") as folder:
        draft = Path(folder) / outputs.bundle.name
        manifest = _write(draft, recipe, candidate.target, proofs)
        timed = _check_and_time(draft, [found.candidate.dialect for found in provings], progress)
        gates = (*acceptance.gates, *budget_gates(recipe.accept, _budgets(draft, timed)))
        if not all(gate.passed for gate in gates) and manifest.accepted:
            manifest = _write(draft, recipe, candidate.target, [dataclasses.replace(proofs[0], within_budget=False), *proofs[1:]])
        content = draft.read_bytes()
    written = manifest.accepted or not recipe.accept.enforce
    made = steps.measure(proving, progress)
    document = {
        **proving.document(),
        **steps.against_target(proving, made),
        "accepted": manifest.accepted,
        "gates": encode(gates),
        "bundles": [str(outputs.bundle)] if written else [],
        "size_bytes": len(content),
        "steps": made,
        "engines": [*(found.engine_row() for found in provings), *(missing_row(name, reason) for name, reason in left_out.items())],
        "methods": None if methods is None else methods.document,
        "stages": [encode(record) for record in workspace.records],
        **timed,
    }
    page = compile_page.render(
        document,
        proving.flipped_frames(),
        proving.flipped_overlays(manifest.cam),
        proving.worst_maps(manifest.cam),
        () if methods is None else methods.strips,
    )
    if written:
        write_atomically(outputs.bundle, [content])
    write_atomically(outputs.report_html, [page.encode()])
    write_atomically(outputs.report_json, [(json.dumps(document, indent=2, allow_nan=False) + "\n").encode()])
    return Finished(bundle=outputs.bundle if written else None, accepted=manifest.accepted, gates=gates, outputs=outputs, document=document)


def _proof(proving: Proving) -> pack.Proof:
    candidate, acceptance = proving.candidate, proving.acceptance
    return pack.Proof(
        artefact=candidate.chosen.artefact,
        engine=candidate.engine,
        oracle=candidate.dialect.oracle,
        graph=proving.graph,
        measured_val=candidate.chosen.measured,
        measured_test=candidate.test,
        temperature=acceptance.temperature,
        thresholds=acceptance.thresholds,
        gates=acceptance.gates,
        within_budget=True,
        summary=proving.summary(),
        gate=candidate.gate.fitted,
        gate_reason=candidate.gate.reason,
        gate_spec=proving.recipe.gate,
        sources={**source_digests(proving.prepared), "network": proving.compressed.graph.sha256},
    )


def _write(draft: Path, recipe: Recipe, target: Target, proofs: Sequence[pack.Proof]) -> Manifest:
    manifest, members = pack.assemble(recipe, target, proofs)
    if manifest.cam is not None:
        for proof in proofs:
            for measured in (proof.measured_val, proof.measured_test):
                check_identity(measured, manifest.cam)
    write_bundle(draft, manifest, members)
    return manifest


def _budgets(draft: Path, timed: Mapping[str, Any]) -> Budgets:
    return Budgets(latency_ms=timed["latency_ms"]["p50"], size_bytes=draft.stat().st_size, host=timing.host_name())


def check_identity(measured: Measured, cam: CamSpec) -> None:
    """Stops when logit = mean of the map + bias does not hold in the artefact: the device would withhold every map.

    Raises:
        ModelError: Names the largest residual.
    """
    worst = float(measured.residual(cam.bias).max())
    if not worst <= cam.tolerance:
        raise ModelError(
            f"the map does not add up to the logit in the compiled model: off by {worst:.3g}, allowed {cam.tolerance:.3g}",
            hint="the head of the map was quantized; please report the architecture",
        )


def _check_and_time(draft: Path, dialects: Sequence[Dialect], progress: Progress) -> dict[str, Any]:
    """Opens the bundle as a device would, runs its golden frames, and times it on this host, as far as the engines run here."""
    bundle = open_bundle(draft)
    here = {dialect.choice.name for dialect in dialects if not dialect.oracle}
    for spec in bundle.manifest.engines:
        if spec.name not in here:
            continue
        check = selftest.check(bundle, spec)
        if check.status != "PASS":
            raise ModelError(
                f"the finished bundle fails its own golden frames on {check.engine}: {check.reason}",
                hint="the engine is not deterministic here",
            )
    first = bundle.manifest.engines[0]
    if first.name not in here:
        untimed = {**dict.fromkeys(SHARES), "max": None, "samples": 0}
        engine = {
            "name": first.name,
            "version": f"{first.minimum_version} or newer",
            "device": dialects[0].target.title,
            "precision": first.precision,
            "threads": "",
        }
        return {"latency_ms": untimed, "engine": engine, "oracle": TITLE}
    classifier = Classifier(bundle, engine=first.name)
    frames = [phantom.frame(label, patient=0, index=0, seed=0, spec=LATENCY_FRAME) for label in phantom.LABELS]
    progress.begin("latency", cached=False)
    predicted = measure_predict(FirstFrames(classifier), frames, LATENCY_BUDGET)
    values = predicted.samples.milliseconds
    found = latency(values[steady_state(values).excluded :])
    progress.end()
    return {"latency_ms": found.figures(), "engine": classifier.engine.describe(), "oracle": None}
