"""`edgekit init`: class folders become a data manifest with grouped splits, and a starter recipe."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import typer

from edgekit.cli.console import say, table, tell
from edgekit.errors import OutputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit.evaluation.splits import SplitPlan

_THUMBNAIL_PX = 32

_RECIPE = """\
# A starter recipe. Everything marked CHANGE is a guess that only you can replace.
name = "{name}"
version = "0.1.0"
targets = ["x86-64"]                          # `edgekit targets` lists them

[model]
source = "timm:tf_efficientnet_lite0"         # CHANGE: timm: torchvision: torchxrayvision: python: onnx: pt2:
weights = "model.safetensors"                 # CHANGE: safetensors, or a checkpoint that holds tensors only
labels = {labels}    # CHANGE: in the order of the model's outputs
task = "{task}"
positive = {positive}    # CHANGE: the label that sensitivity is about
# expected = {{ split = "test", auc = 0.95 }}   # what the model is known to score; a mismatch stops the compile

[input]                                       # CHANGE: exactly what the model was trained with
color = "grey"
channels = 3
resize = [256, 256]
crop = [224, 224]
mean = [123.675, 116.28, 103.53]              # in uint8 units
std = [58.395, 57.12, 57.375]

[data]
manifest = "manifest.csv"
"""


def init(
    folder: Path = typer.Argument(metavar="FOLDER", help="A folder with one folder a class, or train/val/test folders of those."),
    group: str | None = typer.Option(
        None, "--group", metavar="REGEX", help="Finds the patient or video in a path; its one group is the name."
    ),
    seed: int = typer.Option(0, "--seed", help="Seed of the split."),
    force: bool = typer.Option(False, "--force", help="Replace an existing manifest.csv and recipe.toml."),
) -> None:
    """Write manifest.csv and a starter recipe for a folder of frames."""
    from edgekit.bundle.writer import check_writable, write_atomically
    from edgekit.evaluation.splits import SplitOptions, plan_splits, write_manifest

    recipe, manifest = folder / "recipe.toml", folder / "manifest.csv"
    for path in (recipe, manifest) if folder.is_dir() else ():
        if path.exists() and not force:
            raise OutputError(f"{path} is there already", hint="move it away, or use --force to replace it")
        check_writable(path)
    plan = plan_splits(folder, thumbnail=_thumbnail, options=SplitOptions(seed=seed, pattern=group))
    write_manifest(manifest, plan.rows, force=force)
    write_atomically(recipe, [_starter(folder, plan).encode()])
    _report(plan, manifest, recipe)


def _thumbnail(path: Path) -> NDArray[np.float32]:
    from PIL import Image

    from edgekit.imaging.frames import read

    pixels = next(iter(read(path))).pixels
    image = Image.fromarray(pixels).convert("L").resize((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.float32)


def _starter(folder: Path, plan: SplitPlan) -> str:
    labels = list(plan.labels)
    name = re.sub(r"[^a-z0-9._-]+", "-", folder.resolve().name.lower()).strip("-._") or "model"
    return _RECIPE.format(
        name=name,
        labels=json.dumps(labels, ensure_ascii=False),
        task="binary" if len(labels) == 2 else "multiclass",
        positive=json.dumps(labels[-1], ensure_ascii=False),
    )


def _report(plan: SplitPlan, manifest: Path, recipe: Path) -> None:
    counts = plan.counts()
    rows = [(label, *[str(counts[split][label]) for split in counts]) for label in plan.labels]
    say(table(rows, header=("frames", *counts)))
    tell(plan.grouping.describe())
    if plan.skipped:
        tell(f"{plan.skipped} files are no frames and were left out")
    say(f"wrote {manifest} and {recipe}; read the lines marked CHANGE, then: edgekit compile {recipe}")
