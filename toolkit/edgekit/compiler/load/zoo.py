"""Architectures from the model libraries, with the user's weights: timm, torchvision, torchxrayvision.

The libraries give the architecture; weights always come from a file, never from a hub: what is compiled is what was trained.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.catalog.recipe import ModelSpec
from edgekit.compiler.load import weights
from edgekit.compiler.load.torch_model import TorchModel
from edgekit.compiler.torchvision_ops import define_missing_operators
from edgekit.errors import CatalogError, MissingEngineError, ModelError, nearest
from edgekit.schema.model_io import InputSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch


_TIMM_LOADS = frozenset({"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"})
"""Arguments of timm's that fetch or read weights by themselves."""


def open_timm(name: str, model: ModelSpec, spec: InputSpec) -> TorchModel:
    """`timm:ARCHITECTURE`."""
    define_missing_operators()
    timm = _library("timm", "edgekit-toolkit[compile]")
    if not timm.is_model(name):
        raise CatalogError(f"timm has no architecture {name!r}", hint=nearest(name, timm.list_models())[:200])
    loading = sorted(_TIMM_LOADS & model.arguments.keys())
    if loading:
        raise CatalogError(f"[model] arguments: {loading[0]} is not taken; weights come from model.weights", hint=f"remove {loading[0]}")
    return _open(
        lambda outputs: timm.create_model(name, pretrained=False, num_classes=outputs, in_chans=spec.channels, **model.arguments),
        model,
        spec,
    )


def open_torchvision(name: str, model: ModelSpec, spec: InputSpec) -> TorchModel:
    """`torchvision:ARCHITECTURE`."""
    define_missing_operators()
    torchvision = _library("torchvision", "edgekit-toolkit[compile]")
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise CatalogError(f"torchvision has no classifier {name!r}", hint=nearest(name, known)[:200])
    if spec.channels != 3:
        raise ModelError("torchvision's architectures take three channels", hint="set [input] channels = 3; a grey frame is repeated")
    arguments = dict(model.arguments)
    builder = torchvision.models.get_model_builder(name)
    if "aux_logits" in inspect.signature(builder).parameters or name in ("inception_v3", "googlenet"):
        # The auxiliary heads are for training; weights that hold them need `arguments = { aux_logits = true }`.
        arguments.setdefault("aux_logits", False)
        arguments.setdefault("init_weights", False)
    return _open(lambda outputs: builder(weights=None, num_classes=outputs, **arguments), model, spec)


def open_torchxrayvision(name: str, model: ModelSpec, spec: InputSpec) -> TorchModel:
    """`torchxrayvision:ARCHITECTURE`, for example `densenet`; a single grey channel in [-1024, 1024], which mean and std of `[input]` must make."""
    define_missing_operators()
    library = _library("torchxrayvision", "edgekit-toolkit[xrv]")
    builders = {"densenet": library.models.DenseNet}
    if name not in builders:
        raise CatalogError(f"torchxrayvision:{name} is not known here", hint=nearest(name, builders))
    if spec.channels != 1:
        raise ModelError("torchxrayvision's architectures take one channel", hint="set [input] channels = 1")
    return _open(
        lambda outputs: builders[name](num_classes=outputs, in_channels=1, weights=None, **model.arguments),
        model,
        spec,
        # The operating points turn logits into calibrated probabilities after the sigmoid.
        left_out=("op_threshs",),
    )


def _open(build: Callable[[int], torch.nn.Module], model: ModelSpec, spec: InputSpec, *, left_out: tuple[str, ...] = ()) -> TorchModel:
    if model.weights is None:
        raise ModelError(
            f"{model.source} is only an architecture; the trained weights are missing", hint="give them with --set model.weights=FILE"
        )
    outputs = (len(model.labels), 1) if model.task == "binary" else (len(model.labels),)

    def built(count: int) -> torch.nn.Module:
        try:
            return build(count)
        except Exception as error:  # the library's own checks of its arguments
            raise CatalogError(
                f"{model.source} cannot be built with these [model] arguments: {type(error).__name__}: {error}",
                hint="remove or correct them" if model.arguments else "the library cannot build this architecture from nothing",
            ) from error

    module, notes = weights.fit(built, Path(model.weights), outputs, left_out=left_out)
    return TorchModel(module, spec, labels=len(model.labels), binary=model.task == "binary", notes=notes)


def _library(name: str, extra: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError, OSError) as error:  # an extension that was built for another PyTorch raises the latter two
        raise MissingEngineError(f"{name} cannot be loaded: {error}", hint=f"install the extra: {extra}") from error
