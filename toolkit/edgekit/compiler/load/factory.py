"""A model from the user's own Python: `python:module:factory`.

The one source that executes code, and only code the user names: the module is imported from the Python path and the working directory, the factory is called
with the recipe's `[model] arguments` and returns a torch module. Weights are loaded into it when the recipe names them.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.catalog.recipe import ModelSpec
from edgekit.compiler.load import weights
from edgekit.compiler.load.recurrent import RecurrentTorchModel, torch_source
from edgekit.compiler.load.torch_model import TorchModel
from edgekit.compiler.torchvision_ops import define_missing_operators
from edgekit.errors import CatalogError, ModelError, nearest
from edgekit.schema.model_io import InputSpec

if TYPE_CHECKING:
    import torch


def open_factory(argument: str, model: ModelSpec, spec: InputSpec) -> TorchModel | RecurrentTorchModel:
    """`python:MODULE:FUNCTION`."""
    module = build_factory(argument, model.arguments, spec)(len(model.labels))
    notes: tuple[str, ...] = ()
    if model.weights is not None:
        built = module
        outputs = len(model.labels)
        module, notes = weights.fit(lambda _: built, Path(model.weights), (outputs,))
    return torch_source(module.float(), model, spec, notes=notes)


def build_factory(argument: str, arguments: Mapping[str, object], spec: InputSpec) -> Callable[[int], torch.nn.Module]:
    """What the user's function makes; the number of outputs, and the frames, are the function's own business.

    What is returned raises CatalogError where the argument is not MODULE:FUNCTION, and ModelError where there is no such function, it fails, or it
    returns no module.
    """
    del spec

    def build(outputs: int) -> torch.nn.Module:
        import torch

        del outputs
        define_missing_operators()
        with _working_directory_on_path():
            module = _call(_find(argument), argument, arguments)
        if not isinstance(module, torch.nn.Module):
            raise ModelError(f"python:{argument} returned {type(module).__name__}, not a torch.nn.Module")
        return module

    return build


def _find(argument: str) -> Any:
    name, separator, function = argument.partition(":")
    if not separator or not name or not function:
        raise CatalogError(f"python:{argument} is not python:MODULE:FUNCTION", hint="for example python:my_models.lung:build")
    try:
        found = importlib.import_module(name)
    except (Exception, SystemExit) as error:  # the user's own code
        raise ModelError(
            f"the module {name!r} cannot be imported: {type(error).__name__}: {error}",
            hint="run edgekit from the folder it is in, or set PYTHONPATH",
        ) from error
    factory = getattr(found, function, None)
    if not callable(factory):
        own = [item for item, value in vars(found).items() if callable(value) and getattr(value, "__module__", None) == name]
        raise ModelError(f"{name} has no function {function!r}", hint=nearest(function, own))
    return factory


@contextlib.contextmanager
def _working_directory_on_path() -> Iterator[None]:
    """As `python -m` has it; a factory may import more when it is called."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _call(factory: Any, argument: str, arguments: Mapping[str, object]) -> object:
    try:
        return factory(**arguments)
    except (Exception, SystemExit) as error:  # the user's own code
        raise ModelError(f"python:{argument} failed: {type(error).__name__}: {error}", hint="call it by itself to see where") from error
