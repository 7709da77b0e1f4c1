"""states: what a recurrent model is given with each calibration frame, found by running the trained model through the whole clips they are of.

Ranges that were measured from states of zeros would be those of first frames. The trained model's own states stand for the quantized one's, which differ from
them as far as its answers do.
"""

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
from edgekit.errors import ModelError
from edgekit.profiler.host import fingerprint
from edgekit.schema.decode import encode


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StatesStage(Stage[NDArray[np.float32]]):
    """Runs the trained model through clips: float32 (chosen frames, *shape of the state).

    Attributes:
        source: The trained model.
        graph: Its float graph, which stands for what it is.
        clips: All frames of the clips.
        chosen: Which of them are wanted, by their place.
    """

    name: ClassVar[str] = "states"
    source: Opened
    graph: FloatGraph
    clips: PreparedSplit
    chosen: tuple[int, ...]

    def requires(self) -> Mapping[str, object]:
        return {
            "graph": self.graph.sha256,
            "frames": self.clips.sha256,
            "clips": self.clips.groups,
            "chosen": list(self.chosen),
            "input": encode(self.source.spec),
            "versions": versions("torch", "numpy"),
            "instruction_sets": list(fingerprint().instruction_sets or ()),
        }

    def apply(self, folder: Path, progress: Progress) -> None:
        model, tensors = self.source.get(), self.clips.tensors
        if not isinstance(model, RecurrentSource):
            raise ModelError("the model has no state", hint="leave [model] state out")
        found = model.run_clips(tensors, self.clips.groups, lambda done: progress.step(done, len(tensors)))
        np.save(folder / "states.npy", found.states[list(self.chosen)])

    def ensures(self, folder: Path) -> NDArray[np.float32]:
        states: NDArray[np.float32] = np.load(folder / "states.npy", allow_pickle=False)
        return states
