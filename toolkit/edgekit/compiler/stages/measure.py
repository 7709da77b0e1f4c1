"""measure: the engine's own artefact, run by the device's own code on the frames of a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.manifest import EngineSpec
from edgekit.compiler.progress import Progress
from edgekit.compiler.stages.quantize import Artefact
from edgekit.compiler.versions import versions
from edgekit.compiler.workspace import Stage
from edgekit.profiler.host import fingerprint
from edgekit.runtime.engines import open_engine
from edgekit.runtime.engines.base import Engine
from edgekit.schema.decode import encode


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """What the artefact answered.

    Attributes:
        logits: float32 (frames, outputs).
        maps: float32 (frames, outputs, rows, columns); None where the graph has no map.
    """

    logits: NDArray[np.float32]
    maps: NDArray[np.float32] | None

    def residual(self, bias: tuple[float, ...]) -> NDArray[np.float32]:
        """|mean of the map + bias − logit|, float32 (frames, outputs); empty where there is no map."""
        if self.maps is None:
            return np.zeros((0, len(bias)), dtype=np.float32)
        found: NDArray[np.float32] = np.abs(self.maps.mean(axis=(2, 3)) + np.asarray(bias, dtype=np.float32) - self.logits)
        return found


def map_likeness(exact: Measured, quantized: Measured) -> dict[str, float] | None:
    """Pearson correlation of the maps for the answered output, unquantized against quantized, over frames: median and 5th percentile.

    None where there is no map. A constant map has no correlation and counts as 0.
    """
    if exact.maps is None or quantized.maps is None:
        return None
    rows, answered = np.arange(len(exact.logits)), exact.logits.argmax(axis=1)
    pair = [maps[rows, answered].reshape(len(rows), -1).astype(np.float64) for maps in (exact.maps, quantized.maps)]
    before, after = (part - part.mean(axis=1, keepdims=True) for part in pair)
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    pearson = np.divide((before * after).sum(axis=1), norms, out=np.zeros(len(rows)), where=norms > 0)
    return {"median": float(np.median(pearson)), "p5": float(np.percentile(pearson, 5))}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeasureStage(Stage[Measured]):
    """Runs an artefact on frames."""

    name: ClassVar[str] = "measure"
    artefact: Artefact
    engine: EngineSpec
    tensors: NDArray[np.uint8]
    tensors_sha256: str

    def requires(self) -> Mapping[str, object]:
        return {
            "artefact": self.artefact.sha256,
            "engine": encode(self.engine),
            "frames": self.tensors_sha256,
            "count": len(self.tensors),
            "versions": versions("openvino"),
            "instruction_sets": list(fingerprint().instruction_sets or ()),
        }

    def apply(self, folder: Path, progress: Progress) -> None:
        engine = open_artefact(self.artefact, self.engine)
        logits, maps = [], []
        for index in range(len(self.tensors)):
            raw = engine.infer(np.ascontiguousarray(self.tensors[index : index + 1]))
            logits.append(raw.logits)
            if raw.cam is not None:
                maps.append(raw.cam)
            progress.step(index + 1, len(self.tensors))
        np.save(folder / "logits.npy", np.stack(logits))
        if maps:
            np.save(folder / "maps.npy", np.stack(maps))

    def ensures(self, folder: Path) -> Measured:
        maps = folder / "maps.npy"
        return Measured(
            logits=np.load(folder / "logits.npy", allow_pickle=False),
            maps=np.load(maps, allow_pickle=False) if maps.exists() else None,
        )


def open_artefact(artefact: Artefact, spec: EngineSpec) -> Engine:
    """Opens an artefact as the device would: from bytes in memory, by the manifest's engine specification."""
    return open_engine(spec, {spec.files[role]: memoryview(path.read_bytes()) for role, path in artefact.files.items()})
