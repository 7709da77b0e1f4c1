"""explain: preprocessing and the class activation map become part of the graph, before anything is quantized."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from edgekit.bundle.manifest import CamKind
from edgekit.catalog.explain import MapChoice
from edgekit.compiler import graph as g
from edgekit.compiler.explain import read
from edgekit.compiler.explain.find import explain
from edgekit.compiler.explain.head import LOGITS, free_prefix
from edgekit.compiler.explain.recurrent import keep_in_float
from edgekit.compiler.export import preamble
from edgekit.compiler.progress import Progress
from edgekit.compiler.stages.load import FloatGraph
from edgekit.compiler.versions import versions
from edgekit.compiler.workspace import Stage, file_digest
from edgekit.errors import ModelError
from edgekit.schema.decode import encode
from edgekit.schema.model_io import InputSpec

_WORTH_A_NOTE = 20_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedGraph:
    """The graph as it will run: uint8 frame in, logits, map and features out, still in float32.

    Attributes:
        path: The ONNX file.
        sha256: Of the file.
        rows: Rows of the map; 0 where there is none.
        columns: Columns of the map; 0 where there is none.
        bias: What is added to the mean of the map to make the logit, an output; empty where there is no map, or where that is an output of the graph.
        outputs: Number of logits.
        reason: Why there is no map; empty where there is one.
        kind: How the map comes about (`CamSpec.kind`); empty where there is none.
        multiplications: Multiply-accumulate operations that the map costs a frame, about.
        features: Values of the features that the input gate judges; 0 where there are none.
        features_reason: Why there are none; empty where there are.
        state: Shape of what it carries from frame to frame; None where it is not recurrent.
    """

    path: Path
    sha256: str
    rows: int
    columns: int
    bias: tuple[float, ...]
    outputs: int
    reason: str
    kind: CamKind | Literal[""] = ""
    multiplications: int = 0
    features: int = 0
    features_reason: str = ""
    state: tuple[int, ...] | None = None

    @property
    def has_map(self) -> bool:
        return self.rows > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainStage(Stage[ExplainedGraph]):
    """Rewrites the float graph; `map` as in a recipe's [explain], `state` as in its [model]."""

    name: ClassVar[str] = "explain"
    graph: FloatGraph
    input: InputSpec
    map: MapChoice = "auto"
    state: tuple[int, ...] | None = None

    def requires(self) -> Mapping[str, object]:
        return {
            "graph": self.graph.sha256,
            "input": encode(self.input),
            "map": self.map,
            "state": encode(self.state),
            "versions": versions("onnx-ir", "onnx"),
        }

    def apply(self, folder: Path, progress: Progress) -> None:
        import onnx
        import onnx_ir as ir

        model = ir.load(self.graph.path)
        sizes = g.shape(model.graph.outputs[0])
        if sizes is None or len(sizes) != 2:
            raise ModelError("the model's output has no static shape (1, outputs)", hint="export it with a batch of 1 and static shapes")
        preamble.attach(model, self.input, self.state)
        parts = read.find(model.graph.outputs[0])
        head = explain(model, self.map)
        if isinstance(head, str):
            free_prefix(model)
            g.free_name(model.graph, LOGITS)
            model.graph.outputs[0].name = LOGITS
            facts: dict[str, object] = {"rows": 0, "columns": 0, "bias": [], "reason": head, "kind": "", "multiplications": 0}
            progress.note(f"no class activation map: {head}")
        else:
            facts = {"rows": head.rows, "columns": head.columns, "bias": head.bias, "reason": "", "kind": head.kind}
            facts["multiplications"] = head.multiplications
            if head.multiplications >= _WORTH_A_NOTE:
                progress.note(
                    f"the class activation map ({head.kind}) costs {head.multiplications / 1e6:.0f} million multiplications a frame; the head: {head.title}"
                )
        facts["outputs"] = sizes[1]
        facts["features"] = 0 if isinstance(parts, str) else read.attach(model, parts)
        facts["features_reason"] = parts if isinstance(parts, str) else "" if facts["features"] else "the map's head does not read them"
        facts["state"] = self.state
        if self.state is not None:
            keep_in_float(model)
        proto = ir.to_proto(model)
        try:
            onnx.checker.check_model(proto, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise ModelError(
                f"the rewritten graph is not valid ONNX: {str(error).splitlines()[0]}", hint="please report the architecture"
            ) from error
        (folder / "graph.onnx").write_bytes(proto.SerializeToString(deterministic=True))
        (folder / "head.json").write_text(json.dumps(facts))

    def ensures(self, folder: Path) -> ExplainedGraph:
        facts = json.loads((folder / "head.json").read_text())
        path = folder / "graph.onnx"
        return ExplainedGraph(
            path=path,
            sha256=file_digest(path),
            rows=facts["rows"],
            columns=facts["columns"],
            bias=tuple(facts["bias"]),
            outputs=facts["outputs"],
            reason=facts["reason"],
            kind=facts["kind"],
            multiplications=facts["multiplications"],
            features=facts["features"],
            features_reason=facts["features_reason"],
            state=None if facts["state"] is None else tuple(facts["state"]),
        )
