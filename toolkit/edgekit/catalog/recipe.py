"""The recipe: what to compile, from what, for which devices, and what it must keep.

Rules this file keeps:

1. Unknown keys are refused with the nearest known one.
2. Paths in a recipe are relative to the recipe's folder; paths given by `--set` are relative to the working directory.
3. Where a recipe makes a new network and says nothing about `max_flips`, the wider default for new networks holds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgekit.catalog import files
from edgekit.catalog.compress import CompressSpec
from edgekit.catalog.explain import ExplainSpec
from edgekit.catalog.gate import GateSpec
from edgekit.errors import CatalogError, nearest
from edgekit.schema.accept import AcceptSpec
from edgekit.schema.data import Columns
from edgekit.schema.decode import decode
from edgekit.schema.model_io import InputSpec, OutputSpec, Task, check_state_shape

# What the manifest of a bundle will take, asked for before anything is compiled.
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_SECURITY_VERSION = 2**31 - 1
_PATH_SOURCES = ("onnx:", "pt2:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the teacher is known to score; a mismatch stops the compile before it can hide behind a later gate.

    Attributes:
        split: The split the figures are of.
        auc: AUC as `evaluate` states it; None where unknown.
        accuracy: Accuracy; None where unknown.
        tolerance: Largest accepted difference of either.
    """

    split: Literal["val", "test"] = "test"
    auc: float | None = None
    accuracy: float | None = None
    tolerance: float = 0.005

    def __post_init__(self) -> None:
        if self.auc is None and self.accuracy is None:
            raise ValueError("expected states neither auc nor accuracy")
        for name, value in (("auc", self.auc), ("accuracy", self.accuracy), ("tolerance", self.tolerance)):
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} is between 0 and 1, not {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """The trained model.

    Attributes:
        source: `KIND:ARGUMENT`; the kinds are listed in `compiler/load`.
        weights: safetensors, or a checkpoint that holds tensors only; None where the source holds them.
        labels: In output order.
        task: multiclass, binary or multilabel.
        positive: See `OutputSpec`.
        expected: What the teacher is known to score.
        arguments: Further keyword arguments of the model's constructor.
        state: Shape of the state of a recurrent model, whose forward takes (frame, state) and returns (logits, next state); None where a frame is all it takes.
    """

    source: str
    weights: str | None = None
    labels: tuple[str, ...]
    task: Task
    positive: str | None = None
    expected: Expected | None = None
    arguments: dict[str, object] = field(default_factory=dict)
    state: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if ":" not in self.source:
            raise ValueError(f"source = {self.source!r} is not KIND:ARGUMENT, for example timm:resnet18")
        _ = self.output
        if self.state is not None:
            check_state_shape(self.state)

    @property
    def output(self) -> OutputSpec:
        """The meaning of the logits, as it travels to the device."""
        return OutputSpec(labels=self.labels, task=self.task, positive=self.positive)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSpec:
    """The data manifest and the names of its columns."""

    manifest: str
    columns: Columns = field(default_factory=Columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationRef:
    """Which file of `calibration/` to use."""

    recipe: str = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A whole recipe.

    Attributes:
        name: Names the bundle: lower-case letters, digits, dot, underscore, hyphen.
        version: For people: letters, digits, dot, underscore, hyphen.
        security_version: Counts up with every release that must not be rolled back.
        targets: Names of files in `targets/`.
    """

    name: str
    version: str
    security_version: int = 1
    targets: tuple[str, ...]
    model: ModelSpec
    input: InputSpec
    data: DataSpec
    calibration: CalibrationRef = field(default_factory=CalibrationRef)
    explain: ExplainSpec = field(default_factory=ExplainSpec)
    gate: GateSpec = field(default_factory=GateSpec)
    compress: CompressSpec = field(default_factory=CompressSpec)
    accept: AcceptSpec = field(default_factory=AcceptSpec)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name = {self.name!r} must be lower-case letters, digits, '.', '_' or '-'")
        if not self.targets or len(set(self.targets)) != len(self.targets):
            raise ValueError("targets is empty or repeats a name")
        if not _VERSION.fullmatch(self.version):
            raise ValueError(f"version = {self.version!r} must be letters, digits, '.', '_' or '-'")
        if not 0 <= self.security_version <= _MAX_SECURITY_VERSION:
            raise ValueError(f"security_version must be between 0 and {_MAX_SECURITY_VERSION}, not {self.security_version}")


def load_recipe(path: str | os.PathLike[str], *, settings: Sequence[str] = (), targets: Sequence[str] = ()) -> Recipe:
    """Reads a recipe and applies the caller's changes.

    Args:
        path: The TOML file, or the name of a recipe in `models/`.
        settings: `key=value` changes; the key is a dotted path, the value TOML or a plain string.
        targets: Replaces the recipe's targets when not empty.

    Raises:
        CatalogError: The file or a change is wrong; names the key.
    """
    file = Path(path)
    if file.suffix != ".toml" and len(file.parts) == 1 and not files.is_file(file):
        file = files.find("models", str(path))
    table = files.read_toml(file)
    _resolve_paths(table, file.resolve().parent)
    for setting in settings:
        _apply(table, setting)
    if targets:
        table["targets"] = list(targets)
    recipe = decode(Recipe, table, where=str(file), error=CatalogError)
    for name in recipe.targets:
        files.find("targets", name)
    files.find("calibration", recipe.calibration.recipe)
    return recipe


def _resolve_paths(table: dict[str, Any], base: Path) -> None:
    """Makes every path of a table absolute against `base`, in place."""
    data = table.get("data")
    if isinstance(data, dict) and isinstance(data.get("manifest"), str):
        data["manifest"] = str(base / data["manifest"])
    gate = table.get("gate")
    if isinstance(gate, dict) and isinstance(gate.get("foreign"), list):
        gate["foreign"] = [str(base / path) if isinstance(path, str) else path for path in gate["foreign"]]
    for network in _networks(table):
        if isinstance(network.get("weights"), str):
            network["weights"] = str(base / network["weights"])
        source = network.get("source")
        for kind in _PATH_SOURCES:
            if isinstance(source, str) and source.startswith(kind):
                network["source"] = kind + str(base / source[len(kind) :])


def _networks(table: dict[str, Any]) -> list[dict[str, Any]]:
    """The tables of a recipe that name a network: the model, the student, further teachers. What is not a table is left to the decoder to refuse."""
    compress = table.get("compress")
    parts = compress if isinstance(compress, dict) else {}
    distill = parts.get("distill")
    teachers = distill.get("teachers") if isinstance(distill, dict) else None
    found = [table.get("model"), parts.get("student"), *(teachers if isinstance(teachers, list) else [])]
    return [network for network in found if isinstance(network, dict)]


def _apply(table: dict[str, Any], setting: str) -> None:
    key, separator, text = setting.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise CatalogError(f"--set {setting!r} is not key=value", hint="for example --set model.weights=lung.safetensors")
    change: dict[str, Any] = {parts[-1]: _value(text.strip())}
    for part in reversed(parts[:-1]):
        change = {part: change}
    _resolve_paths(change, Path.cwd())
    _merge(table, change, setting)


def _merge(table: dict[str, Any], change: dict[str, Any], setting: str) -> None:
    for key, value in change.items():
        if isinstance(value, dict):
            inner = table.setdefault(key, {})
            if not isinstance(inner, dict):
                raise CatalogError(f"--set {setting!r}: {key} is a value, not a table", hint=nearest(key, table))
            _merge(inner, value, setting)
        else:
            table[key] = value


def _value(text: str) -> object:
    """A TOML value where the text is one, else the text itself: paths need no quotes."""
    try:
        return files.parse_toml(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
