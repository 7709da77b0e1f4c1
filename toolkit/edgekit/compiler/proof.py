"""The artefact against the trained model: what was measured on `test`, as the verdict, the figures that travel, and the report's document.

Rules this file keeps:

1. The verdict is `evaluation.acceptance`'s; this file only gives it what both models said and writes down what it found.
2. What travels in the bundle is aggregate: no frame is named, nothing was timed.
3. Maps are judged against those of the network that is quantized, as its float32 engine computes them on the same frames (`maps`). Where that is another network
   than the trained model, how near they are to the trained model's own is told beside it, and nothing is asked of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.manifest import CamSpec, EngineSpec
from edgekit.catalog.target import Target
from edgekit.compiler import ladder, pack
from edgekit.compiler.compress import Compressed, titles
from edgekit.compiler.dialects.base import Dialect
from edgekit.compiler.input_gate import GateProof
from edgekit.compiler.maps import MapProof
from edgekit.compiler.network import public_title
from edgekit.compiler.prepare import Prepared, split_counts
from edgekit.compiler.stages.explain import ExplainedGraph
from edgekit.compiler.stages.frames import PreparedSplit
from edgekit.compiler.stages.measure import Measured, map_likeness
from edgekit.compiler.stages.quantize import Artefact
from edgekit.evaluation import decision
from edgekit.evaluation.acceptance import Acceptance, Evidence, SplitEvidence, judge
from edgekit.evaluation.fidelity import by_label
from edgekit.evaluation.metrics import Outcomes
from edgekit.evaluation.paired import agreement
from edgekit.imaging import overlay
from edgekit.profiler.host import fingerprint
from edgekit.report.curves import reliability_bins, roc_points
from edgekit.schema.decode import encode

Picture = NDArray[np.uint8]

WORST_FRAMES = 8
"""Frames whose maps are least alike that the report shows."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Side:
    """A network in the engine, not quantized: its artefact, and what it answered on `val` and, where it was run there, on `test`."""

    artefact: Artefact
    val: Measured
    test: Measured | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """What a target's ladder came to.

    Attributes:
        dialect: The engine's.
        chosen: The rung that goes on.
        tried: Every rung, also those that were skipped.
        teacher: The trained model.
        exact: The network that is quantized: the trained model, or what was made from it.
        test: What the chosen artefact answered on `test`.
        maps: What was found out about its maps; None where there are none.
        gate: Its input gate.
    """

    dialect: Dialect
    chosen: ladder.RungResult
    tried: tuple[ladder.RungResult | ladder.Skipped, ...]
    teacher: Side
    exact: Side
    test: Measured
    maps: MapProof | None
    gate: GateProof

    @property
    def target(self) -> Target:
        """The device profile."""
        return self.dialect.target

    def spec_of(self, artefact: Artefact) -> EngineSpec:
        """How an artefact runs."""
        return self.dialect.spec(artefact)

    @property
    def engine(self) -> EngineSpec:
        """How the chosen artefact runs."""
        return self.spec_of(self.chosen.artefact)


class Proving:
    """The artefact against the reference on `test`."""

    def __init__(self, prepared: Prepared, compressed: Compressed, candidate: Candidate) -> None:
        self.recipe = prepared.recipe
        self.prepared = prepared
        self.compressed = compressed
        self.candidate = candidate
        self.split = prepared.splits["test"]
        self.acceptance: Acceptance = judge(self.recipe.accept, self._evidence())

    @property
    def graph(self) -> ExplainedGraph:
        """The explained graph the artefact was made from: a rung that trains has made one of its own."""
        own = self.candidate.chosen.artefact.graph
        return self.compressed.explained if own is None else own

    @property
    def accepted(self) -> bool:
        """Whether every gate that is judged on frames was passed."""
        return all(gate.passed for gate in self.acceptance.gates)

    def engine_row(self) -> dict[str, Any]:
        """What an engine of the target came to, for the report."""
        found, chosen = self.acceptance, self.candidate.chosen
        facts = chosen.artefact.facts
        teacher = self.candidate.teacher.test
        return {
            "name": self.candidate.dialect.choice.name,
            "rung": chosen.rung,
            "precision": chosen.artefact.precision,
            "oracle": self.candidate.dialect.oracle,
            "accepted": self.accepted,
            "failed_gates": [gate.name for gate in found.gates if not gate.passed],
            "auc": found.device.figures["auc"].value,
            "auc_lower_bound": found.auc_difference.lower_bound,
            "frames": found.flips.frames,
            "flips": len(found.flips.indices),
            "harmful_flips": len(found.flips.harmful),
            "cam": None if teacher is None else map_likeness(teacher, self.candidate.test),
            "size_bytes": chosen.artefact.size_bytes,
            "reason": "",
            "float32_operators": facts.get("float32_operators"),
            "findings": facts.get("findings", []),
        }

    @property
    def notes(self) -> list[str]:
        """What was decided that the user should know."""
        return [*self.prepared.notes, *self.compressed.notes]

    def _evidence(self) -> Evidence:
        prepared, output = self.prepared, self.recipe.model.output
        device = {"val": self.candidate.chosen.measured.logits, "test": self.candidate.test.logits}
        sides = {
            name: SplitEvidence(
                reference=decision.logits_by_label(prepared.reference[name], output),
                device=decision.logits_by_label(device[name], output),
                truth=split.truth,
                groups=split.groups,
                extra=[sample.extra for sample in split.samples],
            )
            for name, split in prepared.splits.items()
        }
        return Evidence(
            output=output,
            outputs=device["test"].shape[1],
            reference_outputs=prepared.reference["test"].shape[1],
            val=sides["val"],
            test=sides["test"],
            new_network=self.compressed.is_new,
            maps=None if self.candidate.maps is None else self.candidate.maps.evidence,
        )

    def summary(self) -> dict[str, object]:
        """The aggregate figures that travel in the bundle: nothing timed, no file names."""
        chosen = self.candidate.chosen
        return {"split": "test", "rung": chosen.rung, "fallback": chosen.artefact.fallback, **self.acceptance.to_json()}

    def document(self) -> dict[str, Any]:
        """The report: the keys of the command line's contract, and what a reader needs to judge them."""
        found, recipe, candidate = self.acceptance, self.recipe, self.candidate
        return {
            "enforce": recipe.accept.enforce,
            "reference": found.reference.to_json(),
            "device": found.device.to_json(),
            "name": recipe.name,
            "version": recipe.version,
            "target": encode(candidate.target),
            "task": recipe.model.task,
            "positive": recipe.model.positive,
            "made_with": pack.made_with(),
            "source": recipe.model.source.partition(":")[0],
            "student": None if recipe.compress.student is None else public_title(recipe.compress.student.source),
            "ensemble": titles(self.compressed.teachers) or None,
            "rung": candidate.chosen.rung,
            "precision": candidate.chosen.artefact.precision,
            "ladder": ladder.describe_all(candidate.tried, candidate.chosen),
            "fallback": candidate.chosen.artefact.fallback,
            "auc_difference": encode(found.auc_difference),
            "mcnemar": encode(found.mcnemar),
            "operating_point": encode(found.operating_point),
            "subgroups": encode(found.subgroups),
            "roc": self._roc(),
            "reliability": self._reliability(),
            "test_agreement": self._agreement(),
            "flips": [self._flip(index) for index in found.flips.indices],
            "cam": self._cam(),
            "input_gate": {"reason": candidate.gate.reason, "found": candidate.gate.document},
            "training": [*self.compressed.training, *candidate.chosen.artefact.training],
            "search": self.compressed.search,
            "temperature": found.temperature,
            "thresholds": found.thresholds,
            "data": split_counts(self.prepared.data, recipe.model.labels),
            "calibration_frames": len(self.prepared.calibration.samples),
            "host": encode(fingerprint()),
        }

    def _roc(self) -> list[dict[str, Any]]:
        before, after, thresholds = self.acceptance.before, self.acceptance.after, self.acceptance.thresholds
        curves = []
        columns = range(len(self.recipe.model.labels)) if before.output.task == "multilabel" else before.judged_labels
        for column in columns:
            label = self.recipe.model.labels[column]
            threshold = thresholds.get(label)
            truth = before.truth[:, column]
            sides = {
                name: roc_points(model.probability[:, column], truth, threshold)
                for name, model in (("reference", before), ("device", after))
            }
            operating = {name: points.pop("operating") for name, points in sides.items()} | {"threshold": threshold}
            curves.append({"label": label, **sides, "operating": operating})
        return curves

    def _reliability(self) -> dict[str, Any]:
        found = self.acceptance
        (sure_before, right_before), (sure_after, right_after) = (_confidence(model) for model in (found.before, found.after))
        return {
            "bins": reliability_bins(sure_before, right_before, sure_after, right_after),
            "temperature": {"reference": found.temperatures.reference.value, "device": found.temperatures.device.value},
            "ece": encode(found.ece),
        }

    def _agreement(self) -> dict[str, Any]:
        output = self.recipe.model.output
        reference, device = self.prepared.reference["test"], self.candidate.test.logits
        before, after = (decision.logits_by_label(logits, output) for logits in (reference, device))
        temperatures = self.acceptance.temperatures
        found: dict[str, Any] = encode(
            agreement(
                before,
                after,
                output,
                outputs=reference.shape[1],
                device_outputs=device.shape[1],
                temperature=temperatures.reference.value,
                device_temperature=temperatures.device.value,
            )
        )
        return found

    def _cam(self) -> dict[str, Any]:
        graph, candidate = self.graph, self.candidate
        return {
            "rows": graph.rows,
            "columns": graph.columns,
            "reason": graph.reason,
            "largest_residual": float(candidate.test.residual(graph.bias).max()) if graph.has_map else None,
            "likeness_on_val": map_likeness(candidate.exact.val, candidate.chosen.measured),
            "agreement": None if candidate.teacher.test is None else map_likeness(candidate.teacher.test, candidate.test),
            "new_network": self.compressed.is_new,
            "waived": list(self.recipe.accept.waive_cam),
            "found": None if candidate.maps is None else candidate.maps.evidence.to_json(),
            "worst": [self._worst(index) for index in self._worst_indices()],
        }

    def _worst_indices(self) -> list[int]:
        """Frames of `test` whose maps are least alike, the least first; frames on which neither map says anything are not among them."""
        if self.candidate.maps is None:
            return []
        pearson = self.candidate.maps.frames.pearson
        return [int(index) for index in np.argsort(pearson, kind="stable")[:WORST_FRAMES] if not np.isnan(pearson[index])]

    def _worst(self, index: int) -> dict[str, object]:
        maps, sample = self._maps(), self.split.samples[index]
        frames = {"pearson": maps.frames.pearson, "overlap": maps.frames.overlap, "peak_shift": maps.frames.peak_shift}
        label = self.recipe.model.labels[maps.answered[index]]
        return {"file": sample.file, "group": sample.group, "label": label, **{name: float(found[index]) for name, found in frames.items()}}

    def _maps(self) -> MapProof:
        if self.candidate.maps is None:
            raise ValueError("there are no maps")
        return self.candidate.maps

    def worst_maps(self, cam: CamSpec | None) -> dict[str, tuple[Picture, Picture, Picture]]:
        """File to frame, frame under the map before quantization, and frame under the device's map of the same label, of the frames least alike."""
        drawn: dict[str, tuple[Picture, Picture, Picture]] = {}
        if cam is None:
            return drawn
        for index in self._worst_indices():
            frame, maps = _picture(self.split, index), self._maps()
            box = (0.0, 0.0, float(frame.shape[1]), float(frame.shape[0]))
            before, after = (overlay.render(frame, side[index], box=box, scale=cam.scale) for side in (maps.reference, maps.device))
            drawn[self.split.samples[index].file] = (frame, before, after)
        return drawn

    def _flip(self, index: int) -> dict[str, object]:
        labels, found = self.recipe.model.labels, self.acceptance

        def named(row: np.ndarray[Any, Any]) -> list[str]:
            return [label for label, chosen in zip(labels, row, strict=True) if chosen]

        kind = "harmful" if index in found.flips.harmful else "helpful" if index in found.flips.helpful else "neither"
        before, after = self._shown(index)
        return {
            "file": self.split.samples[index].file,
            "group": self.split.samples[index].group,
            "kind": kind,
            "truth": named(self.split.truth[index]),
            "reference": named(found.before.answers[index]),
            "device": named(found.after.answers[index]),
            "reference_probability": float(found.before.probability[index, before]),
            "device_probability": float(found.after.probability[index, after]),
            "cam_label": labels[before] if before == after else None,
        }

    def _shown(self, index: int) -> tuple[int, int]:
        """Columns whose probability and map are shown of a flip, before and after: each one's answer; multilabel: the label that changed, a harmful one first."""
        before, after, truth = (item[index] for item in (self.acceptance.before.answers, self.acceptance.after.answers, self.split.truth))
        if self.recipe.model.task != "multilabel":
            return int(before.argmax()), int(after.argmax())
        changed = np.flatnonzero(before != after)
        harmful = [column for column in changed if before[column] == truth[column]]
        column = int((harmful or list(changed))[0])
        return column, column

    def flipped_frames(self) -> dict[str, Picture]:
        """File to the preprocessed frame, uint8 (height, width) or (height, width, 3), of every flip."""
        return {self.split.samples[index].file: _picture(self.split, index) for index in self.acceptance.flips.indices}

    def flipped_overlays(self, cam: CamSpec | None) -> dict[str, tuple[Picture, Picture]] | None:
        """File to the frame under the map of the trained model's answer and under that of the device's answer, of every flip; None without maps."""
        teacher = self.candidate.teacher.test
        if cam is None or teacher is None or teacher.maps is None or self.candidate.test.maps is None:
            return None
        drawn = {}
        for index in self.acceptance.flips.indices:
            frame = _picture(self.split, index)
            box = (0.0, 0.0, float(frame.shape[1]), float(frame.shape[0]))
            shown = zip((teacher, self.candidate.test), self._shown(index), strict=True)
            pair = [overlay.render(frame, _evidence_for(measured, index, column), box=box, scale=cam.scale) for measured, column in shown]
            drawn[self.split.samples[index].file] = (pair[0], pair[1])
        return drawn


def missing_row(name: str, reason: str) -> dict[str, Any]:
    """An engine that nothing could be made for, with the keys of `Proving.engine_row`."""
    figures = dict.fromkeys(("auc", "auc_lower_bound", "frames", "flips", "harmful_flips", "cam", "size_bytes", "float32_operators"))
    return {
        "name": name,
        "rung": "",
        "precision": "",
        "oracle": False,
        "accepted": False,
        "failed_gates": [],
        **figures,
        "reason": reason,
        "findings": [],
    }


def _picture(split: PreparedSplit, index: int) -> Picture:
    frame = np.asarray(split.tensors[index])
    return frame.squeeze(axis=-1) if frame.shape[-1] == 1 else frame


def _evidence_for(measured: Measured, index: int, column: int) -> NDArray[np.float32]:
    """The map of a label on a frame; one logit stands for the second label, and evidence for the first is its negative."""
    if measured.maps is None:
        raise ValueError("there are no maps")
    return np.asarray(by_label(measured.maps[index : index + 1])[0, column], dtype=np.float32)


def _confidence(model: Outcomes) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """How sure each answer was and whether it was right; multilabel: every label of every frame."""
    if model.output.task == "multilabel":
        return model.probability.ravel(), model.truth.ravel()
    rows, top = np.arange(len(model.probability)), model.probability.argmax(axis=1)
    return model.probability[rows, top], model.truth[rows, top]
