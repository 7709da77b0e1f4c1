"""methods: maps of the literature's explanation methods on a few frames of test, beside the device's map.

Rules this file keeps:

1. Frames are drawn evenly over the labels and within a label over the groups, always the same ones; the label explained is the one the trained model answers.
2. A method runs on the trained model in PyTorch, the device's map is the compiled artefact's. So a distance is the method's and quantization's together, and
   where another network was compiled (pruned, student) also that network's.
3. Two maps are compared as the fidelity gate compares them (`evaluation.fidelity`): at the smaller of their sizes, with its rules for ties and flat maps.
4. A frame on which a method is refused counts as such and is left out of its figures; nothing stands in for its map.

It is a comparison for readers, not a gate: no method is the truth about another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgekit.catalog.recipe import Recipe
from edgekit.compiler.checks import untrainable
from edgekit.compiler.explain.methods import METHODS, OF_CAPTUM, TITLES, Question, check_methods
from edgekit.compiler.load.source import normalize
from edgekit.compiler.load.torch_model import quiet
from edgekit.compiler.network import module_of
from edgekit.compiler.prepare import Prepared
from edgekit.compiler.progress import Progress
from edgekit.compiler.stages.frames import PreparedSplit, calibration_indices
from edgekit.compiler.stages.load import FloatGraph, LazySource
from edgekit.compiler.stages.measure import Measured
from edgekit.compiler.versions import versions
from edgekit.compiler.workspace import Stage, Workspace
from edgekit.errors import CatalogError, ModelError
from edgekit.evaluation.fidelity import by_label, compare_frames, values
from edgekit.profiler.host import fingerprint
from edgekit.report.methods import Strip
from edgekit.schema.decode import encode

_SEED = 0

Maps = NDArray[np.float32]


def check_comparison(recipe: Recipe) -> None:
    """Checks `explain.compare` before any work.

    Raises:
        CatalogError: There is no such method, or the model is no network of PyTorch.
        MissingEngineError: A method needs a library that does not load.
    """
    names = recipe.explain.compare
    check_methods(names)
    if names and untrainable(recipe.model.source):
        kind = recipe.model.source.partition(":")[0]
        raise CatalogError(
            f"explain.compare: a model from {kind}: is no network that PyTorch can differentiate",
            hint="give the network itself, with source = timm:, torchvision: or python:, or leave compare empty",
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MethodMaps:
    """What a method answered.

    Attributes:
        maps: float32 (frames, rows, columns); NaN on frames that it was refused on. None where it was refused on all.
        refused: Why, of the first such frame; empty where there is none.
    """

    maps: Maps | None
    refused: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MethodsStage(Stage[MethodMaps]):
    """Computes the maps of one method.

    Attributes:
        method: A name in `METHODS`.
        source: The trained model.
        graph: Its float graph, which stands for its content.
        split: Where the frames are.
        frames: Indices of the frames.
        columns: The label that is explained on each, an index into the recipe's labels.
    """

    name: ClassVar[str] = "methods"
    method: str
    source: LazySource
    graph: FloatGraph
    split: PreparedSplit
    frames: tuple[int, ...]
    columns: tuple[int, ...]

    def requires(self) -> Mapping[str, object]:
        return {
            "method": self.method,
            "graph": self.graph.sha256,
            "input": encode(self.source.spec),
            "frames": [self.split.sha256, list(self.frames)],
            "columns": list(self.columns),
            "versions": versions("torch", "numpy", *(["captum"] if self.method in OF_CAPTUM else [])),
            "instruction_sets": list(fingerprint().instruction_sets or ()),
        }

    def apply(self, folder: Path, progress: Progress) -> None:
        import torch

        module = module_of(self.source).eval()
        found: list[Maps | None] = []
        refused = ""
        for step, (index, column) in enumerate(zip(self.frames, self.columns, strict=True)):
            planes = normalize(np.asarray(self.split.tensors[index : index + 1]), self.source.spec)
            black = normalize(np.zeros_like(self.split.tensors[index : index + 1]), self.source.spec)
            with torch.no_grad(), quiet():
                outputs = module(torch.from_numpy(planes)).shape[1]
            # One logit stands for the second label, its negative for the first.
            single = outputs == 1
            question = Question(
                module=module,
                frame=torch.from_numpy(planes),
                black=torch.from_numpy(black),
                output=0 if single else column,
                negative=single and column == 0,
            )
            try:
                found.append(METHODS[self.method](question))
            except ModelError as error:
                found.append(None)
                refused = refused or error.message
            progress.step(step + 1, len(self.frames))
        known = [item for item in found if item is not None]
        if known:
            nothing = np.full_like(known[0], np.nan)
            np.save(folder / "maps.npy", np.stack([nothing if item is None else item for item in found]))
        (folder / "refused.json").write_text(json.dumps(refused))

    def ensures(self, folder: Path) -> MethodMaps:
        path = folder / "maps.npy"
        maps = np.load(path, allow_pickle=False) if path.exists() else None
        return MethodMaps(maps=maps, refused=json.loads((folder / "refused.json").read_text()))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MethodComparison:
    """The device's map beside the literature's.

    Attributes:
        document: For the report and the command line: `frames`, and a row a method.
        strips: The pictures of each frame.
    """

    document: dict[str, Any]
    strips: tuple[Strip, ...]


def compare_methods(prepared: Prepared, device: Measured, workspace: Workspace) -> MethodComparison | None:
    """Computes the maps that the recipe's `[explain]` asks for, and compares them with the device's.

    Args:
        prepared: The model and the data.
        device: What the chosen artefact answered on `test`.
        workspace: Runs the stages.

    Returns:
        None where the recipe names no method.
    """
    spec, split = prepared.recipe.explain, prepared.splits["test"]
    if not spec.compare:
        return None
    frames = tuple(calibration_indices(split.samples, count=spec.compare_frames, seed=_SEED))
    columns = tuple(by_label(prepared.reference["test"][list(frames)]).argmax(axis=1).tolist())
    maps = (
        None
        if device.maps is None
        else np.stack([by_label(device.maps[index : index + 1])[0, column] for index, column in _pairs(frames, columns)])
    )
    answered = {}
    for name in spec.compare:
        stage = MethodsStage(method=name, source=prepared.source, graph=prepared.graph, split=split, frames=frames, columns=columns)
        answered[name] = workspace.run(stage, label=name)
    rows = [_row(name, answer, maps) for name, answer in answered.items()]
    strips = tuple(
        _strip(prepared, (index, column), place, maps, answered) for place, (index, column) in enumerate(_pairs(frames, columns))
    )
    return MethodComparison(document={"frames": len(frames), "has_map": maps is not None, "methods": rows}, strips=strips)


def _row(name: str, answer: MethodMaps, device: Maps | None) -> dict[str, Any]:
    """A method's row of the table; figures are None where there is nothing to compare."""
    kept = [] if answer.maps is None else [place for place, item in enumerate(answer.maps) if not np.isnan(item).any()]
    row: dict[str, Any] = {
        "method": name,
        "title": TITLES[name],
        "rows": None if answer.maps is None else answer.maps.shape[1],
        "columns": None if answer.maps is None else answer.maps.shape[2],
        "frames": len(kept),
        "refused": answer.refused,
        **dict.fromkeys(("pearson_median", "pearson_p5", "peak_shift_median", "peak_near")),
    }
    if answer.maps is None or device is None:
        return row
    found = compare_frames(answer.maps[kept], device[kept])
    shifts = found.peak_shift[~np.isnan(found.peak_shift)]
    figures = values(found)
    row |= {name: figures[name] for name in ("pearson_median", "pearson_p5", "peak_near")}
    row["peak_shift_median"] = float(np.median(shifts)) if len(shifts) else None
    return row


def _strip(prepared: Prepared, at: tuple[int, int], place: int, device: Maps | None, answered: Mapping[str, MethodMaps]) -> Strip:
    index, column = at
    split = prepared.splits["test"]
    frame = np.asarray(split.tensors[index])
    maps: dict[str, Maps | None] = {} if device is None else {"device": device[place]}
    for name, answer in answered.items():
        if answer.maps is not None:
            maps[TITLES[name]] = None if np.isnan(answer.maps[place]).any() else answer.maps[place]
    return Strip(
        file=split.samples[index].file,
        label=prepared.recipe.model.labels[column],
        frame=frame.squeeze(axis=-1) if frame.shape[-1] == 1 else frame,
        maps=maps,
    )


def _pairs(frames: Sequence[int], columns: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(frames, columns, strict=True))
