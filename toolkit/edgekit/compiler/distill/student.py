"""A student's network: an architecture with the recipe's labels, from nothing or from weights of another task.

Rules this file keeps:

1. The same seed gives the same new weights.
2. Weights that fit are loaded whole. Where only the head does not fit, the classes of another task, everything else is loaded, and what was left out is noted.
3. The head is what changes its shape with the number of outputs; it is not guessed from names.
4. A file in which anything else is missing, left over or of another shape is refused: a network that is loaded partly looks like one that is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.catalog.compress import NetworkSpec
from edgekit.catalog.recipe import ModelSpec
from edgekit.compiler import load
from edgekit.compiler.load import weights
from edgekit.errors import ModelError
from edgekit.schema.model_io import InputSpec

if TYPE_CHECKING:
    import torch


def build_student(spec: NetworkSpec, model: ModelSpec, frames: InputSpec, seed: int) -> tuple[torch.nn.Module, tuple[str, ...]]:
    """Builds a student.

    Args:
        spec: Its architecture, and weights to start from.
        model: The recipe's model; the student answers with the same labels. A binary student has two logits, unless its weights have one.
        frames: The recipe's `[input]`.
        seed: Of new weights.

    Returns:
        The module in evaluation mode, and notes about what was decided.

    Raises:
        CatalogError: The architecture is unknown or cannot be built so.
        ModelError: It does not take the frames or answers with another number of outputs, or the weights do not fit.
    """
    from edgekit.compiler.load.torch_model import TorchModel

    architecture = load.builder(spec.source, spec.arguments, frames)
    outputs = len(model.labels)
    notes: tuple[str, ...] = ()
    if spec.weights is None:
        module = _seeded(architecture, outputs, seed)
    else:
        module, notes = _with_weights(architecture, Path(spec.weights), (outputs, 1) if model.task == "binary" else (outputs,), seed)
    checked = TorchModel(module.float(), frames, labels=outputs, binary=model.task == "binary")
    return checked.module, notes


def _seeded(build: Callable[[int], torch.nn.Module], outputs: int, seed: int) -> torch.nn.Module:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(outputs)


def _with_weights(
    build: Callable[[int], torch.nn.Module], path: Path, outputs: tuple[int, ...], seed: int
) -> tuple[torch.nn.Module, tuple[str, ...]]:
    tensors, notes = weights.read(path)
    readings = weights.readings(tensors, ())
    for count in outputs:
        module = _seeded(build, count, seed)
        wanted = module.state_dict()
        given, more = _nearest(readings, wanted)
        if weights.misfit(wanted, given) is None:
            module.load_state_dict(given, strict=True)
            return module, notes + more
    module = _seeded(build, outputs[0], seed)
    wanted = module.state_dict()
    given, more = _nearest(readings, wanted)
    head = _head(build, wanted)
    left_out = sorted(head & given.keys())
    body = {name: tensor for name, tensor in wanted.items() if name not in head}
    kept = {name: tensor for name, tensor in given.items() if name not in head}
    problem = weights.misfit(body, kept)
    if problem is not None:
        raise ModelError(f"{path.name} does not fit the student, its head apart: {problem}", hint=_hint(body, kept))
    module.load_state_dict({**wanted, **kept}, strict=True)
    return module, (*notes, *more, f"{path.name} is of another task: {', '.join(left_out) or 'a head, which it lacks,'} starts anew")


def _nearest(
    readings: list[tuple[dict[str, torch.Tensor], tuple[str, ...]]], wanted: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    return min(readings, key=lambda reading: len(wanted.keys() ^ reading[0].keys()))


def _head(build: Callable[[int], torch.nn.Module], wanted: Mapping[str, torch.Tensor]) -> set[str]:
    """Names of the tensors that change their shape with the number of outputs."""
    # More outputs than anything else in a classifier has of anything, so that no shape can agree by chance.
    other = _seeded(build, 7919, 0).state_dict()
    return {name for name, tensor in wanted.items() if name not in other or other[name].shape != tensor.shape}


def _hint(wanted: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> str:
    for name, tensor in wanted.items():
        if name in given and tensor.ndim == given[name].ndim == 4 and tensor.shape[1] != given[name].shape[1]:
            planes, channels = given[name].shape[1], tensor.shape[1]
            if {planes, channels} == {1, 3} and tensor.shape[0] == given[name].shape[0]:
                return f"the weights take frames of {planes} channels: set [input] channels = {planes}" + (
                    "; a grey frame is repeated" if planes == 3 else ""
                )
    return "check the student's source and arguments: the weights must be of the same architecture, the number of classes apart"
