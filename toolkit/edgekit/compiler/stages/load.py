"""load: the trained model becomes one float32 ONNX graph."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from edgekit.catalog.recipe import ModelSpec
from edgekit.compiler.load import open_source
from edgekit.compiler.load.source import OPSET, RecurrentSource, SourceModel
from edgekit.compiler.progress import Progress
from edgekit.compiler.versions import versions
from edgekit.compiler.workspace import Stage, file_digest
from edgekit.errors import ModelError
from edgekit.schema.decode import encode
from edgekit.schema.model_io import InputSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatGraph:
    """The float graph: where it is, its sha256, and what was decided while loading."""

    path: Path
    sha256: str
    notes: tuple[str, ...]


class Opened(Protocol):
    """What the stages ask of a model that is opened when it is first needed."""

    spec: InputSpec

    @property
    def repeatable(self) -> bool:
        """Whether `fingerprint` tells everything the model depends on."""

    def get(self) -> SourceModel | RecurrentSource:
        """The model itself."""

    def fingerprint(self) -> dict[str, object]:
        """What the model depends on, by content."""


class LazySource:
    """The trained model, opened when it is first needed: a compile whose stages are cached never imports torch."""

    def __init__(self, model: ModelSpec, spec: InputSpec) -> None:
        self.model = model
        self.spec = spec
        self._opened: SourceModel | RecurrentSource | None = None

    @property
    def repeatable(self) -> bool:
        # A factory's code may read anything; only running it tells what it makes.
        return not self.model.source.startswith("python:")

    def get(self) -> SourceModel | RecurrentSource:
        if self._opened is None:
            self._opened = open_source(self.model, self.spec)
        return self._opened

    def fingerprint(self) -> dict[str, object]:
        """What the model depends on: the files' contents, not their names."""
        kind, _, argument = self.model.source.partition(":")
        files = {}
        if self.model.weights is not None:
            files["weights"] = _digest(Path(self.model.weights))
        if kind in ("onnx", "pt2"):
            files["source"] = _digest(Path(argument))
        return {
            "kind": kind,
            "argument": "" if kind in ("onnx", "pt2") else argument,
            "files": files,
            "labels": list(self.model.labels),
            "task": self.model.task,
            "arguments": encode(self.model.arguments),
            "state": encode(self.model.state),
            "input": encode(self.spec),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadStage(Stage[FloatGraph]):
    """Opens the model and exports it."""

    name: ClassVar[str] = "load"
    source: Opened

    @property
    def repeatable(self) -> bool:
        return self.source.repeatable

    def requires(self) -> Mapping[str, object]:
        return {
            "source": self.source.fingerprint(),
            "opset": OPSET,
            "versions": versions("torch", "torchvision", "timm", "torchxrayvision", "onnx", "onnx-ir", "onnxscript"),
        }

    def apply(self, folder: Path, progress: Progress) -> None:
        model = self.source.get()
        for note in model.notes:
            progress.note(note)
        model.export(folder / "model.onnx")
        (folder / "notes.json").write_text(json.dumps(list(model.notes)))

    def ensures(self, folder: Path) -> FloatGraph:
        path = folder / "model.onnx"
        return FloatGraph(path=path, sha256=file_digest(path), notes=tuple(json.loads((folder / "notes.json").read_text())))


def _digest(path: Path) -> str:
    if not path.is_file():
        raise ModelError(
            f"the file {path} is not there", hint="give weights with --set model.weights=FILE; paths of a recipe are relative to it"
        )
    return file_digest(path)
