"""Architectures from the model libraries, with the user's weights: timm, torchvision, torchxrayvision.

The libraries give the architecture; weights always come from a file, never from a hub: what is compiled is what was trained.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.catalog.recipe import ModelSpec
from edgekit.compiler.load import weights
from edgekit.compiler.load.torch_model import TorchModel
from edgekit.compiler.torchvision_ops import define_missing_operators
from edgekit.errors import CatalogError, MissingEngineError, ModelError, nearest
from edgekit.schema.model_io import InputSpec

if TYPE_CHECKING:
    import torch

_TIMM_LOADS = frozenset({"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"})
"""Arguments of timm's that fetch or read weights by themselves."""


Build = Callable[[int], "torch.nn.Module"]
"""Makes the untrained module for a number of outputs."""


def open_timm(name: str, model: ModelSpec, spec: InputSpec) -> TorchModel:
    """`timm:ARCHITECTURE`."""
    return _open(build_timm(name, model.arguments, spec), model, spec)


def open_torchvision(name: str, model: ModelSpec, spec: InputSpec) -> TorchModel:
    """`torchvision:ARCHITECTURE`."""
    return _open(build_torchvision(name, model.arguments, spec), model, spec)


def open_torchxrayvision(name: str, model: ModelSpec, spec: InputSpec) -> TorchModel:
    """`torchxrayvision:ARCHITECTURE`, for example `densenet`; a single grey channel in [-1024, 1024], which mean and std of `[input]` must make."""
    # The operating points turn logits into calibrated probabilities after the sigmoid.
    return _open(build_torchxrayvision(name, model.arguments, spec), model, spec, left_out=("op_threshs",))


def build_timm(name: str, arguments: Mapping[str, object], spec: InputSpec) -> Build:
    """An architecture of timm without weights.

    Raises:
        CatalogError: There is none of this name, or the arguments fetch weights.
    """
    define_missing_operators()
    timm = _library("timm", "edgekit-toolkit[compile]")
    if not timm.is_model(name):
        raise CatalogError(f"timm has no architecture {name!r}", hint=nearest(name, timm.list_models())[:200])
    loading = sorted(_TIMM_LOADS & arguments.keys())
    if loading:
        raise CatalogError(
            f"arguments: {loading[0]} is not taken; weights come from a file that the recipe names", hint=f"remove {loading[0]}"
        )
    return _checked(
        f"timm:{name}",
        arguments,
        lambda outputs: timm.create_model(name, pretrained=False, num_classes=outputs, in_chans=spec.channels, **arguments),
    )


def build_torchvision(name: str, arguments: Mapping[str, object], spec: InputSpec) -> Build:
    """An architecture of torchvision without weights.

    Raises:
        CatalogError: There is none of this name.
        ModelError: The recipe's frames have one channel.
    """
    define_missing_operators()
    torchvision = _library("torchvision", "edgekit-toolkit[compile]")
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise CatalogError(f"torchvision has no classifier {name!r}", hint=nearest(name, known)[:200])
    if spec.channels != 3:
        raise ModelError("torchvision's architectures take three channels", hint="set [input] channels = 3; a grey frame is repeated")
    given = dict(arguments)
    builder = torchvision.models.get_model_builder(name)
    if "aux_logits" in inspect.signature(builder).parameters or name in ("inception_v3", "googlenet"):
        # The auxiliary heads are for training; weights that hold them need `arguments = { aux_logits = true }`.
        given.setdefault("aux_logits", False)
        given.setdefault("init_weights", False)
    return _checked(f"torchvision:{name}", arguments, lambda outputs: builder(weights=None, num_classes=outputs, **given))


def build_torchxrayvision(name: str, arguments: Mapping[str, object], spec: InputSpec) -> Build:
    """An architecture of torchxrayvision without weights.

    Raises:
        CatalogError: There is none of this name.
        ModelError: The recipe's frames have three channels.
    """
    define_missing_operators()
    library = _library("torchxrayvision", "edgekit-toolkit[xrv]")
    builders = {"densenet": library.models.DenseNet}
    if name not in builders:
        raise CatalogError(f"torchxrayvision:{name} is not known here", hint=nearest(name, builders))
    if spec.channels != 1:
        raise ModelError("torchxrayvision's architectures take one channel", hint="set [input] channels = 1")
    return _checked(
        f"torchxrayvision:{name}", arguments, lambda outputs: builders[name](num_classes=outputs, in_channels=1, weights=None, **arguments)
    )


def _checked(source: str, arguments: Mapping[str, object], build: Build) -> Build:
    """Turns the library's own checks of its arguments into an error of the recipe."""

    def built(outputs: int) -> torch.nn.Module:
        try:
            return build(outputs)
        except Exception as error:
            raise CatalogError(
                f"{source} cannot be built with these arguments: {type(error).__name__}: {error}",
                hint="remove or correct them" if arguments else "the library cannot build this architecture from nothing",
            ) from error

    return built


def _open(build: Build, model: ModelSpec, spec: InputSpec, *, left_out: tuple[str, ...] = ()) -> TorchModel:
    if model.weights is None:
        raise ModelError(
            f"{model.source} is only an architecture; the trained weights are missing", hint="give them with --set model.weights=FILE"
        )
    outputs = (len(model.labels), 1) if model.task == "binary" else (len(model.labels),)
    module, notes = weights.fit(build, Path(model.weights), outputs, left_out=left_out)
    return TorchModel(module, spec, labels=len(model.labels), binary=model.task == "binary", notes=notes)


def _library(name: str, extra: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError, OSError) as error:  # an extension that was built for another PyTorch raises the latter two
        raise MissingEngineError(f"{name} cannot be loaded: {error}", hint=f"install the extra: {extra}") from error
