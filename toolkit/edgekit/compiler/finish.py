"""gate and write: the proof on `test`, the bundle, and the report beside it."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.bundle.manifest import CamSpec, EngineSpec
from edgekit.bundle.reader import open_bundle
from edgekit.bundle.writer import write_atomically, write_bundle
from edgekit.catalog.target import Target
from edgekit.compiler import ladder, pack
from edgekit.compiler.prepare import Prepared, source_digests, split_counts
from edgekit.compiler.progress import Progress
from edgekit.compiler.stages.measure import Measured, map_likeness
from edgekit.compiler.workspace import Workspace
from edgekit.errors import ModelError
from edgekit.evaluation import decision
from edgekit.evaluation import evaluate as evaluation
from edgekit.evaluation.delong import paired_auc_difference
from edgekit.evaluation.gates import GateResult, apply_gates
from edgekit.evaluation.metrics import Outcomes
from edgekit.evaluation.paired import Flips, agreement, compare_answers
from edgekit.imaging import phantom
from edgekit.imaging.phantom_scanner import PhantomSpec
from edgekit.profiler.clock import Budget
from edgekit.profiler.host import fingerprint
from edgekit.profiler.percentiles import latency
from edgekit.profiler.stages import measure_predict
from edgekit.profiler.warmup import steady_state
from edgekit.report import compile_page
from edgekit.runtime import selftest
from edgekit.runtime.classifier import Classifier
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """What a target's ladder came to.

    Attributes:
        target: The device profile.
        engine: How the artefact runs.
        chosen: The rung that goes on.
        tried: Every rung that was measured on `val`.
        exact: What the engine answered on `val` without quantization.
        test: What the chosen artefact answered on `test`.
    """

    target: Target
    engine: EngineSpec
    chosen: ladder.RungResult
    tried: tuple[ladder.RungResult, ...]
    exact: Measured
    test: Measured


def finish(prepared: Prepared, candidate: Candidate, outputs: Outputs, workspace: Workspace, progress: Progress) -> Finished:
    """Applies the gate, writes the bundle where it may be written, and the report in any case."""
    proving = _Proving(prepared, candidate)
    proof = pack.Proof(
        artefact=candidate.chosen.artefact,
        engine=candidate.engine,
        graph=prepared.explained,
        measured_val=candidate.chosen.measured,
        thresholds=prepared.thresholds,
        gates=proving.gates,
        summary=proving.summary(),
        sources=source_digests(prepared),
    )
    manifest, members = pack.assemble(prepared.recipe, candidate.target, proof)
    if manifest.cam is not None:
        for measured in (candidate.chosen.measured, candidate.test):
            check_identity(measured, manifest.cam)
    with tempfile.TemporaryDirectory(prefix="edgekit-pack-") as folder:
        draft = Path(folder) / outputs.bundle.name
        write_bundle(draft, manifest, members)
        timed = _check_and_time(draft, progress)
        content = draft.read_bytes()
    written = manifest.accepted or not prepared.recipe.accept.enforce
    document = {
        **proving.document(),
        "bundles": [str(outputs.bundle)] if written else [],
        "size_bytes": len(content),
        "stages": [encode(record) for record in workspace.records],
        **timed,
    }
    if written:
        write_atomically(outputs.bundle, [content])
    page = compile_page.render(document, proving.flipped_frames())
    write_atomically(outputs.report_html, [page.encode()])
    write_atomically(outputs.report_json, [(json.dumps(document, indent=2, allow_nan=False) + "\n").encode()])
    return Finished(
        bundle=outputs.bundle if written else None, accepted=manifest.accepted, gates=proving.gates, outputs=outputs, document=document
    )


class _Proving:
    """The artefact against the reference on `test`."""

    def __init__(self, prepared: Prepared, candidate: Candidate) -> None:
        self.recipe = recipe = prepared.recipe
        self.prepared = prepared
        self.candidate = candidate
        self.split = prepared.splits["test"]
        self.test = test = candidate.test
        output = recipe.model.output
        reference = prepared.reference["test"]
        self.before: Outcomes = ladder.outcomes(reference, self.split, output, prepared.thresholds)
        self.after: Outcomes = ladder.outcomes(test.logits, self.split, output, prepared.thresholds)
        self.difference = paired_auc_difference(self.before, self.after, groups=self.split.groups)
        self.flips: Flips = compare_answers(self.before.answers, self.after.answers, self.split.truth, output)
        self.agreement = agreement(
            decision.logits_by_label(reference, output), decision.logits_by_label(test.logits, output), output, outputs=reference.shape[1]
        )
        self.gates = apply_gates(recipe.accept, self.difference, self.flips)
        self.reference = evaluation.evaluate(self.before, groups=self.split.groups).to_json()
        self.device = evaluation.evaluate(self.after, groups=self.split.groups).to_json()

    def summary(self) -> dict[str, object]:
        """The aggregate figures that travel in the bundle: nothing timed, no file names."""
        return {
            "split": "test",
            "reference": self.reference,
            "device": self.device,
            "auc_difference": encode(self.difference),
            "flips": {
                "frames": self.flips.frames,
                "total": len(self.flips.indices),
                "harmful": len(self.flips.harmful),
                "helpful": len(self.flips.helpful),
            },
            "gates": [encode(gate) for gate in self.gates],
            "rung": self.candidate.chosen.rung,
        }

    def document(self) -> dict[str, Any]:
        """The report: the keys of the command line's contract, and what a reader needs to judge them."""
        graph = self.prepared.explained
        return {
            "accepted": all(gate.passed for gate in self.gates),
            "enforce": self.recipe.accept.enforce,
            "gates": [encode(gate) for gate in self.gates],
            "reference": self.reference,
            "device": self.device,
            "name": self.recipe.name,
            "version": self.recipe.version,
            "target": encode(self.candidate.target),
            "task": self.recipe.model.task,
            "positive": self.recipe.model.positive,
            "made_with": pack.made_with(),
            "source": self.recipe.model.source.partition(":")[0],
            "rung": self.candidate.chosen.rung,
            "precision": self.candidate.chosen.artefact.precision,
            "ladder": [ladder.describe(result, self.candidate.chosen) for result in self.candidate.tried],
            "auc_difference": encode(self.difference),
            "test_agreement": encode(self.agreement),
            "flips": [self._flip(index) for index in self.flips.indices],
            "cam": {
                "rows": graph.rows,
                "columns": graph.columns,
                "reason": graph.reason,
                "largest_residual": float(self.test.residual(graph.bias).max()) if graph.has_map else None,
                "likeness_on_val": map_likeness(self.candidate.exact, self.candidate.chosen.measured),
            },
            "thresholds": self.prepared.thresholds,
            "data": split_counts(self.prepared.data, self.recipe.model.labels),
            "calibration_frames": len(self.prepared.calibration.samples),
            "notes": list(self.prepared.notes),
            "host": encode(fingerprint()),
        }

    def _flip(self, index: int) -> dict[str, object]:
        labels = self.recipe.model.labels

        def named(row: np.ndarray[Any, Any]) -> list[str]:
            return [label for label, chosen in zip(labels, row, strict=True) if chosen]

        kind = "harmful" if index in self.flips.harmful else "helpful" if index in self.flips.helpful else "neither"
        return {
            "file": self.split.samples[index].file,
            "group": self.split.samples[index].group,
            "kind": kind,
            "truth": named(self.split.truth[index]),
            "reference": named(self.before.answers[index]),
            "device": named(self.after.answers[index]),
            "reference_probability": float(self.before.probability[index].max()),
            "device_probability": float(self.after.probability[index].max()),
        }

    def flipped_frames(self) -> dict[str, np.ndarray[Any, np.dtype[np.uint8]]]:
        """File to the preprocessed frame, uint8 (height, width) or (height, width, 3), of every flip."""
        return {
            self.split.samples[index].file: np.asarray(self.split.tensors[index]).squeeze(axis=-1)
            if self.split.tensors.shape[-1] == 1
            else np.asarray(self.split.tensors[index])
            for index in self.flips.indices
        }


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


def _check_and_time(draft: Path, progress: Progress) -> dict[str, object]:
    """Opens the bundle as a device would, runs its golden frames, and times it on this host."""
    bundle = open_bundle(draft)
    for check in selftest.run(bundle):
        if check.status != "PASS":
            raise ModelError(
                f"the finished bundle fails its own golden frames on {check.engine}: {check.reason}",
                hint="the engine is not deterministic here",
            )
    classifier = Classifier(bundle)
    frames = [phantom.frame(label, patient=0, index=0, seed=0, spec=LATENCY_FRAME) for label in phantom.LABELS]
    progress.begin("latency", cached=False)
    predicted = measure_predict(classifier, frames, LATENCY_BUDGET)
    values = predicted.samples.milliseconds
    found = latency(values[steady_state(values).excluded :])
    progress.end()
    return {"latency_ms": found.figures(), "engine": classifier.engine.describe()}
