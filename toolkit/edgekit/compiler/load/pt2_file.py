"""A model from a `.pt2` archive of torch.export: `pt2:PATH`.

What PyTorch loads is not the file but what `pt2_archive` kept of it; see there for why.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.catalog.recipe import ModelSpec
from edgekit.compiler.load import pt2_archive
from edgekit.compiler.load.torch_model import TorchModel
from edgekit.errors import ModelError
from edgekit.schema.model_io import InputSpec

if TYPE_CHECKING:
    import torch


def open_pt2(argument: str, model: ModelSpec, spec: InputSpec) -> TorchModel:
    """`pt2:PATH`."""
    import torch

    if model.weights is not None:
        raise ModelError("a .pt2 archive holds its own weights; remove model.weights")
    path = Path(argument)
    clean = pt2_archive.checked(path)
    try:
        with _quiet():
            program = torch.export.load(io.BytesIO(clean))
            # The guards are code from the archive; they were taken out, and would be executed here.
            module = program.module(check_guards=False)
    except Exception as error:  # PyTorch raises many kinds for a damaged archive
        raise ModelError(
            f"{path} cannot be loaded: {type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}",
            hint=pt2_archive.HINT,
        ) from error
    return TorchModel(_Evaluated(module), spec, labels=len(model.labels), binary=model.task == "binary")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps PyTorch's traceback of a failed load off the user's terminal; it still comes out as an exception."""
    logger = logging.getLogger("torch.export")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _Evaluated(module: torch.nn.Module) -> torch.nn.Module:  # noqa: N802 - makes a module class lazily, since torch is imported lazily
    import torch

    class Evaluated(torch.nn.Module):
        """An exported program, which has no train and eval modes and is fixed to its batch."""

        def __init__(self) -> None:
            super().__init__()
            self.program = module

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.program(x)
            return result

        def train(self, mode: bool = True) -> Evaluated:  # noqa: FBT001, FBT002, ARG002
            return self

    return Evaluated()
