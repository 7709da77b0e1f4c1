"""Where a trained model comes from: one file a kind of source, behind one contract.

`SOURCES` is the extension point: `KIND:ARGUMENT` in a recipe names a function `open(argument, model, spec) -> SourceModel`. A kind that can give its
architecture without weights, for a student to start from, also stands in `BUILDERS`: `build(argument, arguments, spec)` returns a function that makes the
module for a number of outputs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

from edgekit.catalog.recipe import ModelSpec
from edgekit.compiler.load.source import RecurrentSource, SourceModel
from edgekit.errors import CatalogError, nearest
from edgekit.schema.model_io import InputSpec

if TYPE_CHECKING:
    import torch

Opener = Callable[[str, ModelSpec, InputSpec], "SourceModel | RecurrentSource"]

SOURCES: Mapping[str, str] = {
    "timm": "edgekit.compiler.load.zoo:open_timm",
    "torchvision": "edgekit.compiler.load.zoo:open_torchvision",
    "torchxrayvision": "edgekit.compiler.load.zoo:open_torchxrayvision",
    "python": "edgekit.compiler.load.factory:open_factory",
    "onnx": "edgekit.compiler.load.onnx_file:open_onnx",
    "pt2": "edgekit.compiler.load.pt2_file:open_pt2",
}

RECURRENT = ("python",)
"""Kinds whose models may take a state beside the frame (`RecurrentSource`): a factory can wrap any module so that it does."""

BUILDERS: Mapping[str, str] = {
    "timm": "edgekit.compiler.load.zoo:build_timm",
    "torchvision": "edgekit.compiler.load.zoo:build_torchvision",
    "torchxrayvision": "edgekit.compiler.load.zoo:build_torchxrayvision",
    "python": "edgekit.compiler.load.factory:build_factory",
}


def opener(source: str) -> tuple[Opener, str]:
    """The function and the argument of a `KIND:ARGUMENT`.

    Raises:
        CatalogError: The kind is unknown.
    """
    kind, argument = split_source(source)
    return cast("Opener", _named(SOURCES[kind])), argument


def builder(source: str, arguments: Mapping[str, object], spec: InputSpec) -> Callable[[int], torch.nn.Module]:
    """What makes the architecture of a `KIND:ARGUMENT` without weights, for a number of outputs.

    Raises:
        CatalogError: The kind is unknown, or has no architecture without weights.
    """
    kind, argument = split_source(source)
    if kind not in BUILDERS:
        raise CatalogError(
            f"source = {source!r}: a model from {kind}: cannot start as a new network", hint=f"kinds that can: {', '.join(BUILDERS)}"
        )
    return cast("Callable[[int], torch.nn.Module]", _named(BUILDERS[kind])(argument, arguments, spec))


def split_source(source: str) -> tuple[str, str]:
    """Kind and argument of a `KIND:ARGUMENT`.

    Raises:
        CatalogError: The kind is unknown, or nothing stands after it.
    """
    kind, _, argument = source.partition(":")
    if kind not in SOURCES:
        raise CatalogError(f"source: the kind {kind!r} is not known", hint=nearest(kind, SOURCES))
    if not argument:
        raise CatalogError(f"source = {source!r} names nothing after the colon", hint="for example timm:resnet18")
    return kind, argument


def _named(entry: str) -> Callable[..., object]:
    module, _, attribute = entry.partition(":")
    return cast("Callable[..., object]", getattr(importlib.import_module(module), attribute))


def open_source(model: ModelSpec, spec: InputSpec) -> SourceModel | RecurrentSource:
    """Opens the trained model a recipe names, with its weights; a `RecurrentSource` exactly where the recipe gives a state.

    Raises:
        CatalogError: The recipe gives a state, and models of this kind take none.
        ModelError: The architecture, the weights or the labels do not fit together.
        MissingEngineError: The library the source needs is not installed.
    """
    kind, _ = split_source(model.source)
    if model.state is not None and kind not in RECURRENT:
        raise CatalogError(
            f"[model] state is given, but a model from {kind}: takes a frame alone",
            hint=f'a factory may wrap any module: source = "{RECURRENT[0]}:module:factory"',
        )
    open_model, argument = opener(model.source)
    return open_model(argument, model, spec)
