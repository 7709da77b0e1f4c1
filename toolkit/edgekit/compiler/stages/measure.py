"""measure: the engine's own artefact, run by the device's own code on the frames of a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.manifest import EngineSpec
from edgekit.compiler.clips import HeldStates
from edgekit.compiler.oracle import open_oracle
from edgekit.compiler.progress import Progress
from edgekit.compiler.stages.quantize import Artefact
from edgekit.compiler.versions import versions
from edgekit.compiler.workspace import Stage
from edgekit.evaluation.fidelity import answered_maps, compare_frames, values
from edgekit.profiler.host import fingerprint
from edgekit.runtime.engines import open_engine
from edgekit.runtime.engines.base import Engine
from edgekit.schema.decode import encode

_MAPS, _OFFSETS, _FEATURES = "maps.npy", "offsets.npy", "features.npy"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """What the artefact answered.

    Attributes:
        logits: float32 (frames, outputs).
        maps: float32 (frames, outputs, rows, columns); None where the graph has no map.
        offset: float32 (frames, outputs), what the mean of a map lacks to the logit; None where that is a constant of the graph.
        features: float32 (frames, channels), what the input gate judges; None where the graph gives none.
    """

    logits: NDArray[np.float32]
    maps: NDArray[np.float32] | None
    offset: NDArray[np.float32] | None = None
    features: NDArray[np.float32] | None = None

    def residual(self, bias: tuple[float, ...]) -> NDArray[np.float32]:
        """|mean of the map + bias − logit|, float32 (frames, outputs); empty where there is no map. The frames' own offset stands for a bias that is empty."""
        if self.maps is None:
            return np.zeros((0, self.logits.shape[1]), dtype=np.float32)
        added = self.offset if self.offset is not None else np.asarray(bias, dtype=np.float32)
        found: NDArray[np.float32] = np.abs(self.maps.mean(axis=(2, 3)) + added - self.logits)
        return found


LIKENESS_FIGURES = {"median": "pearson_median", "p5": "pearson_p5", "overlap": "overlap_median", "peak_kept": "peak_kept"}
"""What `map_likeness` tells, by its name in `evaluation.fidelity`."""


def map_likeness(exact: Measured, quantized: Measured) -> dict[str, float] | None:
    """How near the maps for the label that the first one answers are, over frames: Pearson's correlation (`median`, `p5`), `overlap` and `peak_kept`.

    None where there is no map, or nothing to compare in any (`evaluation.fidelity`).
    """
    if exact.maps is None or quantized.maps is None:
        return None
    found = values(compare_frames(*answered_maps(exact.logits, exact.maps, quantized.maps)))
    figures = {name: found[figure] for name, figure in LIKENESS_FIGURES.items()}
    known = {name: value for name, value in figures.items() if value is not None}
    return known if len(known) == len(figures) else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeasureStage(Stage[Measured]):
    """Runs an artefact on frames.

    Attributes:
        artefact: The engine's model.
        engine: How it runs.
        tensors: uint8 (frames, height, width, channels).
        tensors_sha256: Of the frames.
        oracle: Whether it runs in the numerical oracle, because the engine cannot run here.
        clips: The clip of each frame, for an engine that carries a state: it goes from frame to frame of a clip.
    """

    name: ClassVar[str] = "measure"
    artefact: Artefact
    engine: EngineSpec
    tensors: NDArray[np.uint8]
    tensors_sha256: str
    oracle: bool = False
    clips: tuple[str, ...] = ()

    def requires(self) -> Mapping[str, object]:
        return {
            "artefact": self.artefact.sha256,
            # The oracle knows neither the engine's name nor its settings.
            "engine": {"precision": self.engine.precision, "outputs": self.engine.outputs} if self.oracle else encode(self.engine),
            "frames": self.tensors_sha256,
            "count": len(self.tensors),
            "clips": list(self.clips),
            "oracle": self.oracle,
            "versions": versions("openvino", "onnxruntime"),
            "instruction_sets": list(fingerprint().instruction_sets or ()),
        }

    def apply(self, folder: Path, progress: Progress) -> None:
        engine = open_artefact(self.artefact, self.engine, oracle=self.oracle)
        logits, found = [], dict[str, list[NDArray[np.float32]]]()
        held = None if engine.state_shape is None else HeldStates(engine.state_shape, self.clips)
        for index in range(len(self.tensors)):
            raw = engine.infer(np.ascontiguousarray(self.tensors[index : index + 1]), None if held is None else held.before(index))
            if held is not None and raw.next_state is not None:
                held.after(index, raw.next_state)
            logits.append(raw.logits)
            for name, array in ((_MAPS, raw.cam), (_OFFSETS, raw.offset), (_FEATURES, raw.features)):
                if array is not None:
                    found.setdefault(name, []).append(array)
            progress.step(index + 1, len(self.tensors))
        np.save(folder / "logits.npy", np.stack(logits))
        for name, arrays in found.items():
            np.save(folder / name, np.stack(arrays))

    def ensures(self, folder: Path) -> Measured:
        maps, offset, features = (
            np.load(path, allow_pickle=False) if (path := folder / name).exists() else None for name in (_MAPS, _OFFSETS, _FEATURES)
        )
        return Measured(logits=np.load(folder / "logits.npy", allow_pickle=False), maps=maps, offset=offset, features=features)


def open_artefact(artefact: Artefact, spec: EngineSpec, *, oracle: bool = False) -> Engine:
    """Opens an artefact as the device would, from bytes in memory, by the manifest's engine specification; or in the numerical oracle."""
    opened = open_oracle if oracle else open_engine
    return opened(spec, {spec.files[role]: memoryview(path.read_bytes()) for role, path in artefact.files.items()})
