"""qdq: the explained graph as the ONNX file that an engine reads, quantized or not; and which layers of it hurt most."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.catalog.compress import Rung
from edgekit.catalog.target import Target
from edgekit.compiler.progress import Progress, Silent
from edgekit.compiler.quantize import fallback
from edgekit.compiler.quantize.qdq.build import Rounding, Writing
from edgekit.compiler.quantize.qdq.rules import RULES
from edgekit.compiler.stages.explain import ExplainedGraph
from edgekit.compiler.stages.quantize import Artefact
from edgekit.compiler.stages.rank import Ranking
from edgekit.compiler.versions import versions
from edgekit.compiler.workspace import Stage, file_digest
from edgekit.errors import ModelError
from edgekit.profiler.host import fingerprint
from edgekit.schema.decode import encode

ROLE = "onnx"
FILE = "model.onnx"
FACTS = "facts.json"
Precision = Literal["f32", "fp16", "int8"]
_METHODS: Mapping[Rung, Literal["extremes", "least-error"]] = {"ptq": "extremes", "ptq-full": "least-error"}
_WORST_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What an engine that reads ONNX wants.

    Attributes:
        rules: A name of `quantize.qdq.rules.RULES`.
        writing: Types and opset of what is packed; the float32 graph that everything is compared with is not written so.
        weight_limit: Largest weight as an integer.
        target: Whose conformance rules the graph is held to; None where the engine has none.
    """

    rules: str
    writing: Writing
    weight_limit: int
    target: Target | None = None

    def key(self) -> dict[str, object]:
        """What a result depends on, JSON-ready."""
        writing = {**dataclasses.asdict(self.writing), "without": sorted(self.writing.without)}
        checked = None if self.target is None else encode(self.target.tensorrt)
        return {"rules": encode(RULES[self.rules]), "writing": writing, "weight_limit": self.weight_limit, "conformance": checked}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QdqStage(Stage[Artefact]):
    """Writes a graph for an engine that reads ONNX.

    Attributes:
        graph: The explained graph; of a rung that trains, with its roundings.
        dialect: How.
        precision: "int8" quantizes, "fp16" only types, "f32" leaves the graph as it is.
        rung: How ranges are found; of no account where nothing is quantized.
        calibration: uint8 (frames, height, width, channels).
        calibration_sha256: Of the calibration frames.
        float_layers: Names of layers that stay in float.
        trained: Whether the graph brings its roundings.
    """

    name: ClassVar[str] = "qdq"
    graph: ExplainedGraph
    dialect: Dialect
    precision: Precision
    rung: Rung
    calibration: NDArray[np.uint8]
    calibration_sha256: str
    float_layers: tuple[str, ...] = ()
    trained: bool = False

    def requires(self) -> Mapping[str, object]:
        return {
            "graph": self.graph.sha256,
            "dialect": self.dialect.key(),
            "precision": self.precision,
            "rung": self.rung,
            "calibration": self.calibration_sha256,
            "float_layers": list(self.float_layers),
            "trained": self.trained,
            "versions": versions("onnx", "onnx-ir", "onnxruntime", "numpy"),
            "instruction_sets": list(fingerprint().instruction_sets or ()),
        }

    def rounding(self) -> Rounding:
        """How the graph is quantized."""
        return Rounding(
            rules=RULES[self.dialect.rules],
            method=_METHODS.get(self.rung, "least-error"),
            weight_limit=self.dialect.weight_limit,
            float_layers=self.float_layers,
        )

    def apply(self, folder: Path, progress: Progress) -> None:
        from edgekit.compiler.quantize.qdq import build
        from edgekit.compiler.quantize.qdq.opened import open_graph

        writing = self.dialect.writing if self.precision != "f32" else Writing()
        if self.precision == "int8":
            make = build.rewrite_trained if self.trained else build.quantize
            model = make(self.graph.path, self.rounding(), writing, self.calibration, progress)
        else:
            model = open_graph(self.graph.path, typed=writing.typed)
        wide = build.write(model, writing, folder / FILE, self.calibration, progress)
        checked = self.precision != "f32" and self.dialect.target is not None
        findings = check_conformance(folder / FILE, self.dialect.target) if checked and self.dialect.target is not None else []
        (folder / FACTS).write_text(json.dumps({"float32_operators": wide, "findings": findings}, indent=1))

    def ensures(self, folder: Path) -> Artefact:
        path = folder / FILE
        return Artefact(
            files={ROLE: path},
            sha256=file_digest(path),
            precision=self.precision,
            outputs=self.graph.outputs,
            graph=self.graph if self.trained else None,
            facts=json.loads((folder / FACTS).read_text()),
        )


def check_conformance(path: Path, target: Target) -> list[dict[str, object]]:
    """Holds a graph to the conformance rules of a target's TensorRT versions.

    Returns:
        What to know about it, JSON-ready: the findings that are no errors.

    Raises:
        ModelError: It breaks a rule that TensorRT refuses graphs for.
    """
    import onnx

    from edgekit.compiler import conformance

    findings = conformance.check(onnx.load(path), target)
    broken = [finding for finding in findings if finding.severity == "error"]
    if broken:
        shown = "; ".join(f"{finding.rule} {finding.node}: {finding.message}" for finding in broken[:_WORST_SHOWN])
        raise ModelError(
            f"the graph breaks {len(broken)} rules of TensorRT {', '.join(target.tensorrt.versions if target.tensorrt else ())}: {shown}",
            hint=broken[0].fix,
        )
    found: list[dict[str, object]] = encode(findings)
    return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankQdqStage(Stage[Ranking]):
    """Which layers of a quantized graph hurt most: each alone goes back to float, and the whole graph runs.

    Attributes:
        base: What makes the quantized graph, with no layer in float.
        tensors: uint8 (frames, height, width, channels).
        tensors_sha256: Of the frames.
    """

    name: ClassVar[str] = "rank-qdq"
    base: QdqStage
    tensors: NDArray[np.uint8]
    tensors_sha256: str

    def requires(self) -> Mapping[str, object]:
        return {"base": dict(self.base.requires()), "frames": self.tensors_sha256}

    def apply(self, folder: Path, progress: Progress) -> None:
        from edgekit.compiler.quantize.qdq import build
        from edgekit.compiler.quantize.qdq.opened import open_graph
        from edgekit.compiler.quantize.qdq.rank import rank

        path = self.base.graph.path
        # Corrected biases hold for the layers before them as rounded: with one of those in float, they would make the answers worse.
        rounding = dataclasses.replace(self.base.rounding(), correct_biases=False)
        rounded = build.quantize(path, rounding, self.base.dialect.writing, self.base.calibration, Silent())
        error, layers = rank(open_graph(path, typed=self.base.dialect.writing.typed), rounded, self.tensors, progress.step)
        found = {"error": error, "layers": [encode(layer) for layer in layers]}
        (folder / "ranking.json").write_text(json.dumps(found, indent=1, allow_nan=False))

    def ensures(self, folder: Path) -> Ranking:
        found = json.loads((folder / "ranking.json").read_text())
        return Ranking(error=found["error"], layers=tuple(fallback.LayerError(**layer) for layer in found["layers"]))
