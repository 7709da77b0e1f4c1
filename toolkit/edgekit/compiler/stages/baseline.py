"""baseline: what the trained model itself answers on validation and test frames; everything later is compared with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler.load.source import RecurrentSource
from edgekit.compiler.progress import Progress
from edgekit.compiler.stages.frames import PreparedSplit
from edgekit.compiler.stages.load import FloatGraph, Opened
from edgekit.compiler.versions import versions
from edgekit.compiler.workspace import Stage
from edgekit.profiler.host import fingerprint
from edgekit.schema.decode import encode


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineStage(Stage[NDArray[np.float32]]):
    """Runs the trained model in its own framework, in float32: logits (frames, outputs)."""

    name: ClassVar[str] = "baseline"
    source: Opened
    graph: FloatGraph
    split: PreparedSplit

    def requires(self) -> Mapping[str, object]:
        return {
            "graph": self.graph.sha256,
            "frames": self.split.sha256,
            "clips": self.split.groups,
            "input": encode(self.source.spec),
            "versions": versions("torch", "onnxruntime", "numpy"),
            "instruction_sets": list(fingerprint().instruction_sets or ()),
        }

    def apply(self, folder: Path, progress: Progress) -> None:
        model, tensors = self.source.get(), self.split.tensors

        def on_frame(done: int) -> None:
            progress.step(done, len(tensors))

        if isinstance(model, RecurrentSource):
            logits = model.run_clips(tensors, self.split.groups, on_frame).logits
        else:
            logits = model.logits(tensors, on_frame)
        np.save(folder / "logits.npy", logits)

    def ensures(self, folder: Path) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = np.load(folder / "logits.npy", allow_pickle=False)
        return logits
