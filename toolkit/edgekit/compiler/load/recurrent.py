"""A recurrent model in PyTorch as a source: its state is an argument and a result, and nothing of it is kept in the module.

Rules this file keeps:

1. `forward(frame, state)` returns `(logits, next_state)`; the state is one float32 tensor of the recipe's shape, zeros before the first frame of a clip. What has
   several parts, as the h and c of an LSTM, travels as one tensor that the module joins and splits.
2. Clips do not see each other, in whatever order their frames come.
3. A module that answers alike whatever the state is not recurrent, or has lost it: that is refused here, where nothing else would notice.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.catalog.recipe import ModelSpec
from edgekit.compiler.clips import HeldStates
from edgekit.compiler.load.source import ClipAnswers, OnFrames, normalize
from edgekit.compiler.load.torch_model import TorchModel, check_outputs, example_frame, export_module, first_line, quiet
from edgekit.errors import ModelError
from edgekit.schema.model_io import InputSpec

if TYPE_CHECKING:
    import torch

_FORWARD = "forward(frame, state) returns (logits, next_state); see docs/recurrent-classifiers.md"


class RecurrentTorchModel:
    """A torch module in evaluation mode that takes a frame and a state.

    Attributes:
        module: The module itself.
        state: Shape of its state.
    """

    def __init__(self, module: torch.nn.Module, model: ModelSpec, spec: InputSpec, *, notes: tuple[str, ...] = ()) -> None:
        """Checks that the module takes the recipe's frames and states, and answers with the recipe's labels and a state.

        Args:
            module: From float32 (1, channels, height, width) and float32 of the state's shape to (1, outputs) and the state's shape.
            model: The recipe's `[model]`, with a state.
            spec: The recipe's `[input]`.
            notes: What was decided while loading.

        Raises:
            ModelError: It fails on a frame, its outputs are not one logit a label and a state, or the state changes nothing.
        """
        if model.state is None:
            raise ValueError("the recipe gives no state")
        self.notes = notes
        self.module = module.eval()
        self.state = model.state
        self._spec = spec
        self._check(len(model.labels), binary=model.task == "binary")

    def export(self, path: Path) -> None:
        export_module(self.module, self._examples(), path)

    def run_clips(self, tensors: NDArray[np.uint8], clips: Sequence[str], on_frame: OnFrames) -> ClipAnswers:
        import torch

        held = HeldStates(self.state, clips)
        logits = np.zeros((len(tensors), self._outputs), dtype=np.float32)
        states = np.zeros((len(tensors), *self.state), dtype=np.float32)
        with torch.inference_mode():
            for index in range(len(tensors)):
                states[index] = held.before(index)
                frame = normalize(np.asarray(tensors[index : index + 1]), self._spec)
                found, following = self.module(torch.from_numpy(frame), torch.from_numpy(states[index]))
                logits[index] = found.float().numpy()[0]
                held.after(index, following.float().numpy())
                on_frame(index + 1)
        if not np.isfinite(logits).all() or not np.isfinite(states).all():
            raise ModelError(
                "the trained model answers with NaN or infinite logits or states on its own data", hint="check [input] mean and std"
            )
        return ClipAnswers(logits=logits, states=states)

    def _examples(self) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        return example_frame(self._spec), torch.rand(self.state, generator=torch.Generator().manual_seed(1))

    def _check(self, labels: int, *, binary: bool) -> None:
        import torch

        frame, state = self._examples()
        with torch.inference_mode(), quiet():
            try:
                given, fresh = self.module(frame, state), self.module(frame, torch.zeros_like(state))
            except Exception as error:  # the model's own code
                raise ModelError(
                    f"the model fails on a frame of {self._spec.channels} × {self._spec.size[0]} × {self._spec.size[1]} "
                    f"and a state of {list(self.state)}: {first_line(error)}",
                    hint=_FORWARD,
                ) from error
        if not isinstance(given, (tuple, list)) or len(given) != 2 or not all(isinstance(part, torch.Tensor) for part in given):
            raise ModelError("the recurrent model does not return two tensors", hint=_FORWARD)
        logits, following = given
        check_outputs(tuple(logits.shape), labels, binary=binary)
        if tuple(following.shape) != self.state:
            raise ModelError(f"the model returns a state of {list(following.shape)}, [model] state is {list(self.state)}", hint=_FORWARD)
        if torch.equal(logits, fresh[0]):
            raise ModelError("the model answers alike whatever the state", hint="leave [model] state out, or let the logits depend on it")
        self._outputs = int(logits.shape[1])


def torch_source(
    module: torch.nn.Module, model: ModelSpec, spec: InputSpec, *, notes: tuple[str, ...] = ()
) -> TorchModel | RecurrentTorchModel:
    """A module as the kind of source that the recipe says it is."""
    if model.state is None:
        return TorchModel(module, spec, labels=len(model.labels), binary=model.task == "binary", notes=notes)
    return RecurrentTorchModel(module, model, spec, notes=notes)
