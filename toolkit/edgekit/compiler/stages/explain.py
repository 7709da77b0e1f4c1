"""explain: preprocessing and the class activation map become part of the graph, before anything is quantized."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgekit.compiler import graph as g
from edgekit.compiler.explain import pooled_linear
from edgekit.compiler.export import preamble
from edgekit.compiler.progress import Progress
from edgekit.compiler.stages.load import FloatGraph
from edgekit.compiler.versions import versions
from edgekit.compiler.workspace import Stage, file_digest
from edgekit.errors import ModelError
from edgekit.schema.decode import encode
from edgekit.schema.model_io import InputSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedGraph:
    """The graph as it will run: uint8 frame in, logits and map out, still in float32.

    Attributes:
        path: The ONNX file.
        sha256: Of the file.
        rows: Rows of the map; 0 where there is none.
        columns: Columns of the map; 0 where there is none.
        bias: The head's bias an output; empty where there is no map.
        outputs: Number of logits.
        reason: Why there is no map; empty where there is one.
    """

    path: Path
    sha256: str
    rows: int
    columns: int
    bias: tuple[float, ...]
    outputs: int
    reason: str

    @property
    def has_map(self) -> bool:
        return self.rows > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainStage(Stage[ExplainedGraph]):
    """Rewrites the float graph. `cam=False` leaves the head alone, for comparison."""

    name: ClassVar[str] = "explain"
    graph: FloatGraph
    input: InputSpec
    cam: bool = True

    def requires(self) -> Mapping[str, object]:
        return {"graph": self.graph.sha256, "input": encode(self.input), "cam": self.cam, "versions": versions("onnx-ir", "onnx")}

    def apply(self, folder: Path, progress: Progress) -> None:
        import onnx
        import onnx_ir as ir

        model = ir.load(self.graph.path)
        sizes = g.shape(model.graph.outputs[0])
        if sizes is None or len(sizes) != 2:
            raise ModelError("the model's output has no static shape (1, outputs)", hint="export it with a batch of 1 and static shapes")
        preamble.attach(model, self.input)
        head = pooled_linear.find(model.graph.outputs[0]) if self.cam else "the map was not asked for"
        if isinstance(head, str):
            g.free_name(model.graph, pooled_linear.LOGITS)
            model.graph.outputs[0].name = pooled_linear.LOGITS
            facts: dict[str, object] = {"rows": 0, "columns": 0, "bias": [], "reason": head}
            progress.note(f"no class activation map: {head}")
        else:
            pooled_linear.attach(model, head)
            facts = {"rows": head.rows, "columns": head.columns, "bias": head.bias.tolist(), "reason": ""}
        facts["outputs"] = sizes[1]
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
        )
