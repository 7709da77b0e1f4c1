"""A network on its way from the trained model to the small one: how it is built again, at any time and in any process.

Rules this file keeps:

1. A network is an architecture, perhaps a channel plan, and weights. A stage's result holds the last two as JSON and safetensors, and never an object.
2. What it depends on is known by content: `sha256` covers architecture, plan and weights.
3. `build` gives a new module each time; whoever trains or prunes it changes no other.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.catalog.compress import NetworkSpec
from edgekit.catalog.recipe import ModelSpec
from edgekit.compiler.stages.load import FloatGraph, LazySource
from edgekit.compiler.workspace import digest, file_digest
from edgekit.errors import ModelError
from edgekit.schema.decode import encode
from edgekit.schema.model_io import InputSpec

if TYPE_CHECKING:
    import torch

    from edgekit.compiler.load.torch_model import TorchModel

PLAN = "plan.json"
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Architecture:
    """What a network is built from.

    Attributes:
        title: For people.
        build: Makes the unpruned network, with the weights it starts from.
        sha256: Of everything that decides what `build` makes, as far as files and names tell it.
        repeatable: Whether they tell everything; the user's own code may read anything.
        notes: Tells what was decided while building; empty before the first `build`.
    """

    title: str
    build: Callable[[], torch.nn.Module]
    sha256: str
    repeatable: bool
    notes: Callable[[], tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Network:
    """A network: its architecture, and the folder of its plan and weights; None where the architecture's own weights are meant."""

    architecture: Architecture
    folder: Path | None = None

    @property
    def sha256(self) -> str:
        parts = {"architecture": self.architecture.sha256}
        if self.folder is not None:
            parts |= {name: file_digest(self.folder / name) for name in (PLAN, WEIGHTS) if (self.folder / name).is_file()}
        return digest(parts)

    @property
    def pruned(self) -> bool:
        """Whether channels were taken out."""
        return self.folder is not None and (self.folder / PLAN).is_file()

    def build(self) -> torch.nn.Module:
        """The module, in evaluation mode.

        Raises:
            ModelError: Plan or weights do not fit the architecture.
        """
        if self.folder is None:
            return self.architecture.build().eval()
        if self.pruned:
            from edgekit.compiler.prune import plan

            return plan.load(self.architecture.build, self.folder)
        module = self.architecture.build()
        load_weights(module, self.folder / WEIGHTS)
        return module.eval()


def of_teacher(source: LazySource, graph: FloatGraph) -> Architecture:
    """The trained model as an architecture to start from."""

    def build() -> torch.nn.Module:
        found: torch.nn.Module = copy.deepcopy(module_of(source))
        return found

    return Architecture(
        title=source.model.source,
        build=build,
        sha256=digest({"graph": graph.sha256, "source": source.fingerprint()}),
        repeatable=True,  # the graph stands for what a factory made
        notes=lambda: (),
    )


def of_student(spec: NetworkSpec, model: ModelSpec, frames: InputSpec, seed: int) -> Architecture:
    """A student's architecture with the recipe's labels."""
    told: list[tuple[str, ...]] = []

    def build() -> torch.nn.Module:
        from edgekit.compiler.distill.student import build_student

        module, notes = build_student(spec, model, frames, seed)
        told[:] = [notes]
        return module

    source = LazySource(further_model(model, spec), frames)
    return Architecture(
        title=spec.source,
        build=build,
        sha256=digest({"student": source.fingerprint(), "seed": seed}),
        repeatable=source.repeatable,
        notes=lambda: told[0] if told else (),
    )


def further_model(model: ModelSpec, spec: NetworkSpec) -> ModelSpec:
    """A further network of a recipe as a model of the same labels."""
    return ModelSpec(
        source=spec.source,
        weights=spec.weights,
        labels=model.labels,
        task=model.task,
        positive=model.positive,
        arguments=dict(spec.arguments),
    )


def public_title(source: str) -> str:
    """A source for the report: without the folder of a file on this machine."""
    kind, _, argument = source.partition(":")
    return f"{kind}:{Path(argument).name}" if kind in ("onnx", "pt2") else source


def module_of(source: LazySource) -> Any:
    """The torch module of a source.

    Raises:
        ModelError: The source is no network of PyTorch.
    """
    module = getattr(source.get(), "module", None)
    if module is None:
        kind = source.model.source.partition(":")[0]
        raise ModelError(
            f"a model from {kind}: cannot be pruned or trained",
            hint="give the network itself, with source = timm:, torchvision: or python:, or quantize alone",
        )
    return module


def load_weights(module: torch.nn.Module, path: Path) -> None:
    """Loads a whole state dictionary from safetensors.

    Raises:
        ModelError: A tensor is missing, left over or of another shape.
    """
    from safetensors.torch import load_file

    try:
        module.load_state_dict(load_file(path), strict=True)
    except RuntimeError as error:
        raise ModelError(
            f"{path} does not fit the network: {str(error).splitlines()[0]}", hint="remove the work folder and compile again"
        ) from error


def save_weights(module: torch.nn.Module, path: Path) -> None:
    """Writes a state dictionary as safetensors; shared tensors are written once for each of their names."""
    from safetensors.torch import save_file

    save_file({name: tensor.detach().cpu().clone().contiguous() for name, tensor in module.state_dict().items()}, path)


class NetworkSource:
    """A network as a source: exported and run like a trained model."""

    def __init__(self, network: Network, model: ModelSpec, spec: InputSpec) -> None:
        self.network = network
        self.spec = spec
        self._model = model
        self._opened: TorchModel | None = None

    def get(self) -> TorchModel:
        if self._opened is None:
            from edgekit.compiler.load.torch_model import TorchModel

            module = self.network.build()
            self._opened = TorchModel(
                module,
                self.spec,
                labels=len(self._model.labels),
                binary=self._model.task == "binary",
                notes=self.network.architecture.notes(),
            )
        return self._opened

    @property
    def repeatable(self) -> bool:
        return self.network.architecture.repeatable

    def fingerprint(self) -> dict[str, object]:
        return {"network": self.network.sha256, "labels": list(self._model.labels), "input": encode(self.spec)}
