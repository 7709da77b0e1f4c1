"""quantize: one rung of the ladder, as the engine's own artefact."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgekit.catalog.compress import Rung
from edgekit.compiler.progress import Progress
from edgekit.compiler.quantize import openvino_ptq
from edgekit.compiler.quantize.rungs import RUNGS, RungSettings
from edgekit.compiler.stages.explain import ExplainedGraph
from edgekit.compiler.versions import versions
from edgekit.compiler.workspace import Stage, file_digest
from edgekit.profiler.host import fingerprint
from edgekit.schema.decode import encode

FILES = {"xml": openvino_ptq.XML, "bin": openvino_ptq.BIN}
"""Role (see `EngineSpec.files`) to the name of the file in a stage's folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """An engine's model.

    Attributes:
        files: Role to file (see `EngineSpec.files`).
        sha256: Of all of them together.
        precision: Of the layers that are quantized, or of all where none is.
        outputs: Number of logits.
        fallback: The layers that were left in float32 because they hurt most, for the report, JSON-ready: the rung that they were found in (`base`), the
            error of its outputs (`base_error`), and `layers` with `name`, `type` and the `error` that went when each alone went back to float32; None
            where no layer was left out for that.
        graph: The explained graph it was made from, where that is not the float network's: a rung that trains makes one of its own.
        facts: What was found while it was written, for the report, JSON-ready: `float32_operators` (kept out of float16 because of their values) and `findings` of
            the conformance rules; empty where there is nothing of the kind.
        training: How it was trained, for the report, JSON-ready; empty for post-training quantization.
    """

    files: Mapping[str, Path]
    sha256: str
    precision: str
    outputs: int
    fallback: Mapping[str, object] | None = None
    graph: ExplainedGraph | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    training: tuple[Mapping[str, object], ...] = ()

    @property
    def size_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files.values())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QuantizeStage(Stage[Artefact]):
    """Quantizes for OpenVINO.

    Attributes:
        graph: The explained float graph.
        rung: One that NNCF makes, or `float`.
        calibration: uint8 (frames, height, width, channels).
        calibration_sha256: Of the calibration frames.
        float_layers: Names of operations that stay in float32.
        half_weights: Weights use half of their range.
    """

    name: ClassVar[str] = "quantize"
    graph: ExplainedGraph
    rung: Rung
    calibration: NDArray[np.uint8]
    calibration_sha256: str
    float_layers: tuple[str, ...] = ()
    half_weights: bool = False

    @property
    def settings(self) -> RungSettings:
        """The rung's, with the layers that stay in float32 and the weights' range."""
        return dataclasses.replace(RUNGS[self.rung], float_layers=self.float_layers, half_weights=self.half_weights)

    def requires(self) -> Mapping[str, object]:
        return {
            "graph": self.graph.sha256,
            "rung": self.rung,
            "settings": encode(self.settings),
            "calibration": self.calibration_sha256,
            "versions": versions("openvino", "nncf", "numpy"),
            # Calibration runs on this CPU, and rounds as it rounds.
            "instruction_sets": list(fingerprint().instruction_sets or ()),
        }

    def apply(self, folder: Path, progress: Progress) -> None:
        openvino_ptq.build_ir(self.graph.path, self.settings, self.calibration, folder, progress)

    def ensures(self, folder: Path) -> Artefact:
        files = {role: folder / name for role, name in FILES.items()}
        return Artefact(
            files=files,
            sha256="-".join(file_digest(path) for path in files.values()),
            precision="int8" if RUNGS[self.rung].quantize else "f32",
            outputs=self.graph.outputs,
        )
