"""rank: which layers of a quantized artefact hurt most, measured with the device's own engine on some calibration frames."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.manifest import EngineSpec
from edgekit.compiler.progress import Progress
from edgekit.compiler.quantize import fallback, openvino_ptq
from edgekit.compiler.stages.measure import Measured
from edgekit.compiler.stages.quantize import Artefact
from edgekit.compiler.versions import versions
from edgekit.compiler.workspace import Stage
from edgekit.profiler.host import fingerprint
from edgekit.runtime.engines import open_engine
from edgekit.runtime.engines.openvino import load_library
from edgekit.schema.decode import encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The quantized layers of an artefact, the worst first.

    Attributes:
        error: Of the artefact's outputs against the float network's; see `fallback.output_error`.
        layers: What of it goes with each layer alone.
    """

    error: float
    layers: tuple[fallback.LayerError, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankStage(Stage[Ranking]):
    """Ranks the layers of `base`, an artefact of the same explained graph as `exact`, which is not quantized."""

    name: ClassVar[str] = "rank"
    exact: Artefact
    base: Artefact
    engine: EngineSpec
    tensors: NDArray[np.uint8]
    tensors_sha256: str

    def requires(self) -> Mapping[str, object]:
        return {
            "exact": self.exact.sha256,
            "base": self.base.sha256,
            "engine": encode(self.engine),
            "frames": self.tensors_sha256,
            "versions": versions("openvino", "numpy"),
            "instruction_sets": list(fingerprint().instruction_sets or ()),
        }

    def apply(self, folder: Path, progress: Progress) -> None:
        exact, base = (openvino_ptq.read_ir(artefact.files["xml"]) for artefact in (self.exact, self.base))
        error, layers = fallback.rank(exact, base, self._answers, progress.step)
        found = {"error": error, "layers": [encode(layer) for layer in layers]}
        (folder / "ranking.json").write_text(json.dumps(found, indent=1, allow_nan=False))

    def ensures(self, folder: Path) -> Ranking:
        found = json.loads((folder / "ranking.json").read_text())
        return Ranking(error=found["error"], layers=tuple(fallback.LayerError(**layer) for layer in found["layers"]))

    def _answers(self, model: Any) -> Measured:
        """Runs a graph as the device would run it: written, and opened from bytes by the manifest's engine specification."""
        with tempfile.TemporaryDirectory(prefix="edgekit-rank-") as name:
            files = {"xml": Path(name) / openvino_ptq.XML, "bin": Path(name) / openvino_ptq.BIN}
            load_library().serialize(model, str(files["xml"]), str(files["bin"]))
            members = {self.engine.files[role]: memoryview(path.read_bytes()) for role, path in files.items()}
        engine = open_engine(self.engine, members)
        answers = [engine.infer(np.ascontiguousarray(tensor[None])) for tensor in self.tensors]
        maps = [answer.cam for answer in answers if answer.cam is not None]
        return Measured(logits=np.stack([answer.logits for answer in answers]), maps=np.stack(maps) if maps else None)
