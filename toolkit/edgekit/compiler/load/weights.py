"""Reads weights as tensors and nothing else, and fits them into a module.

Rules this file keeps:

1. safetensors, or a checkpoint read with `weights_only=True`: no code from a file is ever executed.
2. Wrappers and prefixes that training code usually adds are taken off (`state_dict`, `model`, EMA, `module.`); every step that had a choice is
   noted, and any tensor left over or missing afterwards is refused by name. Nothing is loaded partly.
3. A prefix is taken off only where the names do not fit with it: an architecture may have a part that is called `model` itself.
4. Half-precision tensors become float32: the reference is the FP32 model.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.errors import ModelError

if TYPE_CHECKING:
    import torch

# Where training code keeps the tensors inside a checkpoint; the averaged ones come first, as in timm.
WRAPPERS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "state_dict", "model_state_dict", "model", "net", "weights")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")

_SAFE_HINT = "save the tensors alone: safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"


def read(path: Path) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Reads a weights file.

    Returns:
        Name, as in the file, to tensor, and notes about what was unwrapped.

    Raises:
        ModelError: The file is missing, damaged, holds more than tensors, or holds no tensors.
    """
    if not path.is_file():
        raise ModelError(f"the weights {path} are not there", hint="give them with --set model.weights=FILE")
    notes: tuple[str, ...] = ()
    if path.suffix == ".safetensors":
        tensors = _read_safetensors(path)
    else:
        tensors, notes = _unwrap(_read_checkpoint(path), path)
    return {name: _float32(tensor) for name, tensor in tensors.items()}, notes


def fit(
    build: Callable[[int], torch.nn.Module], path: Path, outputs: tuple[int, ...], *, left_out: tuple[str, ...] = ()
) -> tuple[torch.nn.Module, tuple[str, ...]]:
    """Builds a module with as many outputs as the weights have, and loads them.

    Args:
        build: Makes the untrained module for a number of outputs.
        path: The weights.
        outputs: Numbers of outputs the recipe's labels allow, the likeliest first.
        left_out: Tensors that the file may hold and the logits do not need.

    Raises:
        ModelError: The weights do not fit the architecture; names the tensors.
    """
    tensors, notes = read(path)
    candidates = readings(tensors, left_out)
    problems = []
    for count in outputs:
        module = build(count)
        wanted = module.state_dict()
        given, more = min(candidates, key=lambda reading: len(wanted.keys() ^ reading[0].keys()))
        problem = misfit(wanted, given)
        if problem is None:
            module.load_state_dict(given, strict=True)
            return module, notes + more
        problems.append(problem)
    raise ModelError(
        f"{path.name} does not fit the architecture: {problems[0]}",
        hint="check model.source, the number of model.labels, and [input] channels",
    )


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is not a safetensors file: {error}", hint="the file is damaged or of another kind") from error


def _read_checkpoint(path: Path) -> object:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(f"{path} holds more than tensors and is not loaded, since that would execute code", hint=_SAFE_HINT) from error
    except Exception as error:  # damaged archives raise many kinds here
        raise ModelError(f"{path} is not a checkpoint that PyTorch can read: {type(error).__name__}", hint=_SAFE_HINT) from error


def _unwrap(loaded: object, path: Path) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    import torch

    notes: list[str] = []
    while isinstance(loaded, Mapping):
        if loaded and all(isinstance(value, torch.Tensor) for value in loaded.values()):
            return {str(name): value for name, value in loaded.items()}, tuple(notes)
        found = [key for key in WRAPPERS if isinstance(loaded.get(key), Mapping)]
        if not found:
            break
        if len(found) > 1:
            notes.append(f"{path.name} holds {', '.join(found)}; {found[0]} is used")
        loaded = loaded[found[0]]
    raise ModelError(f"{path} holds no table of tensors", hint=f"known places: {', '.join(WRAPPERS)}; or {_SAFE_HINT}")


def readings(tensors: Mapping[str, torch.Tensor], left_out: tuple[str, ...]) -> list[tuple[dict[str, torch.Tensor], tuple[str, ...]]]:
    """The ways to read a file's names: as they are, then with one common prefix after the other taken off; and what to note about each.

    Args:
        tensors: Name, as in the file, to tensor.
        left_out: Names that the logits do not need.
    """
    # Averaged models count their updates in a tensor of their own.
    names = {name: tensor for name, tensor in tensors.items() if name != "n_averaged"}
    notes: tuple[str, ...] = ()
    readings = []
    while True:
        kept = {name: tensor for name, tensor in names.items() if name not in left_out}
        readings.append((kept, notes + tuple(f"{name} was left out: edgekit works on logits" for name in names if name not in kept)))
        prefix = next((prefix for prefix in PREFIXES if names and all(name.startswith(prefix) for name in names)), None)
        if prefix is None:
            return readings
        names = {name.removeprefix(prefix): tensor for name, tensor in names.items()}
        notes = (*notes, f"the prefix {prefix!r} was taken off the weights' names")


def misfit(wanted: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> str | None:
    """What keeps the tensors of a file from being loaded into an architecture; None where they fit."""
    missing = [name for name in wanted if name not in given]
    extra = [name for name in given if name not in wanted]
    if missing or extra:
        parts = []
        if missing:
            parts.append(f"{len(missing)} tensors are missing ({missing[0]} …)")
        if extra:
            parts.append(f"{len(extra)} are not of this architecture ({extra[0]} …)")
        return " and ".join(parts)
    for name, tensor in wanted.items():
        if tensor.shape != given[name].shape:
            return f"{name} is {tuple(given[name].shape)} in the file and {tuple(tensor.shape)} in the architecture"
    return None


def _float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
