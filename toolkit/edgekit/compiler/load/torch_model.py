"""A model in PyTorch as a source: exported by torch.export's ONNX exporter, and run eagerly as the reference."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler import graph as g
from edgekit.compiler.load.source import OPSET, OnFrames, normalize
from edgekit.errors import ModelError
from edgekit.schema.model_io import InputSpec

if TYPE_CHECKING:
    import torch

BATCH = 8


class TorchModel:
    """A torch module in evaluation mode.

    Attributes:
        module: The module itself, for stages that prune or train; they work on a copy.
    """

    def __init__(self, module: torch.nn.Module, spec: InputSpec, *, labels: int, binary: bool, notes: tuple[str, ...] = ()) -> None:
        """Checks that the module takes the recipe's frames and answers with the recipe's labels.

        Args:
            module: Any module from float32 (N, channels, height, width) to (N, outputs).
            spec: The recipe's `[input]`.
            labels: Number of labels.
            binary: Whether one output may stand for two labels.
            notes: What was decided while loading.

        Raises:
            ModelError: It fails on a frame, or its output is not one logit a label.
        """
        self.notes = notes
        self.module = module.eval()
        self._spec = spec
        self._batch = BATCH
        self._check(labels, binary=binary)

    def export(self, path: Path) -> None:
        export_module(self.module, (self._example(),), path)

    def logits(self, tensors: NDArray[np.uint8], on_frame: OnFrames) -> NDArray[np.float32]:
        import torch

        parts = []
        with torch.inference_mode():
            for start in range(0, len(tensors), self._batch):
                part = normalize(np.asarray(tensors[start : start + self._batch]), self._spec)
                parts.append(self.module(torch.from_numpy(part)).float().numpy())
                on_frame(min(start + self._batch, len(tensors)))
        logits: NDArray[np.float32] = np.concatenate(parts).astype(np.float32, copy=False)
        if not np.isfinite(logits).all():
            raise ModelError("the trained model answers with NaN or infinite logits on its own data", hint="check [input] mean and std")
        return logits

    def _example(self) -> torch.Tensor:
        return example_frame(self._spec)

    def _check(self, labels: int, *, binary: bool) -> None:
        import torch

        with torch.inference_mode(), quiet():
            try:
                output = self.module(self._example())
            except Exception as error:  # the model's own code
                raise ModelError(
                    f"the model fails on a frame of {self._spec.channels} × {self._spec.size[0]} × {self._spec.size[1]}: {first_line(error)}",
                    hint="channels, resize and crop in [input] must be what the model was trained with",
                ) from error
        check_outputs(tuple(output.shape) if isinstance(output, torch.Tensor) else None, labels, binary=binary)
        if not self._takes_batches(output.shape[1]):
            self._batch = 1

    def _takes_batches(self, outputs: int) -> bool:
        """Whether several frames at once give what each gives alone; a program of torch.export, for one, is fixed to the batch it was traced with."""
        import torch

        example = self._example()
        frames = torch.cat([example, example.flip(-1)])
        with torch.inference_mode(), quiet():
            try:
                together = self.module(frames)
                alone = torch.cat([self.module(frame[None]) for frame in frames])
            except Exception:  # noqa: BLE001 - the model's own code; one frame at a time works, as was just seen
                return False
        return tuple(together.shape) == (2, outputs) and bool(torch.allclose(together, alone, rtol=1e-3, atol=1e-4))


def example_frame(spec: InputSpec) -> torch.Tensor:
    """A frame to trace with, float32 (1, channels, height, width), always the same."""
    import torch

    return torch.rand((1, spec.channels, *spec.size), generator=torch.Generator().manual_seed(0))


def export_module(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], path: Path) -> None:
    """Writes a module as ONNX.

    Args:
        module: In evaluation mode; its first output is the logits.
        inputs: To trace it with.
        path: The file.

    Raises:
        ModelError: The exporter cannot, or the module returns probabilities.
    """
    import torch

    with quiet():
        try:
            program = torch.onnx.export(module, inputs, dynamo=True, opset_version=OPSET, external_data=False, verbose=False)
        except Exception as error:  # the exporter raises whatever the model's code raises under tracing
            raise ModelError(
                f"PyTorch cannot export the model to ONNX: {first_line(error)}",
                hint='export it yourself and use source = "onnx:PATH", or rewrite the part torch.export stumbles over',
            ) from error
    if program is None:
        raise ModelError("PyTorch's exporter returned nothing")
    probabilities = g.final_probabilities(program.model.graph.outputs[0])
    if probabilities is not None:
        raise ModelError(
            f"the model ends in a {probabilities.op_type}, so it returns probabilities",
            hint="leave it out of forward(): edgekit works on logits",
        )
    program.save(str(path), include_initializers=True, keep_initializers_as_inputs=False, external_data=False)


def check_outputs(shape: tuple[int, ...] | None, labels: int, *, binary: bool) -> None:
    """Refuses a model whose output is not one logit a label.

    Raises:
        ModelError: Names what was found and what the recipe says.
    """
    if shape is None or len(shape) != 2 or shape[0] != 1:
        raise ModelError(
            f"the model returns {'no single tensor' if shape is None else f'a tensor of shape {shape}'}, not one vector of logits a frame",
            hint='wrap it in a factory that returns the logits alone, and use source = "python:module:factory"',
        )
    if shape[1] != labels and not (binary and shape[1] == 1):
        raise ModelError(
            f"the model has {shape[1]} outputs, the recipe names {labels} labels",
            hint="[model] labels must name every output, in output order",
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the exporter's chatter off the user's terminal; errors still come out as exceptions."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
"""What colours a terminal; the exporter writes for one."""


def first_line(error: BaseException) -> str:
    """The kind of an error and the first line it says, for a message of one line."""
    plain = _COLOURS.sub("", str(error))
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}"[:300] if lines else type(error).__name__
