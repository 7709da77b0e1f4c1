"""Where a trained model comes from: one file a kind of source, behind one contract.

`SOURCES` is the extension point: `KIND:ARGUMENT` in a recipe names a function `open(argument, model, spec) -> SourceModel`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import cast

from edgekit.catalog.recipe import ModelSpec
from edgekit.compiler.load.source import SourceModel
from edgekit.errors import CatalogError, nearest
from edgekit.schema.model_io import InputSpec

Opener = Callable[[str, ModelSpec, InputSpec], SourceModel]

SOURCES: Mapping[str, str] = {
    "timm": "edgekit.compiler.load.zoo:open_timm",
    "torchvision": "edgekit.compiler.load.zoo:open_torchvision",
    "torchxrayvision": "edgekit.compiler.load.zoo:open_torchxrayvision",
    "python": "edgekit.compiler.load.factory:open_factory",
    "onnx": "edgekit.compiler.load.onnx_file:open_onnx",
    "pt2": "edgekit.compiler.load.pt2_file:open_pt2",
}


def opener(source: str) -> tuple[Opener, str]:
    """The function and the argument of a `KIND:ARGUMENT`.

    Raises:
        CatalogError: The kind is unknown.
    """
    kind, _, argument = source.partition(":")
    if kind not in SOURCES:
        raise CatalogError(f"model.source: the kind {kind!r} is not known", hint=nearest(kind, SOURCES))
    if not argument:
        raise CatalogError(f"model.source = {source!r} names nothing after the colon", hint="for example timm:resnet18")
    module, _, attribute = SOURCES[kind].partition(":")
    return cast("Opener", getattr(importlib.import_module(module), attribute)), argument


def open_source(model: ModelSpec, spec: InputSpec) -> SourceModel:
    """Opens the trained model a recipe names, with its weights.

    Raises:
        ModelError: The architecture, the weights or the labels do not fit together.
        MissingEngineError: The library the source needs is not installed.
    """
    open_model, argument = opener(model.source)
    return open_model(argument, model, spec)
