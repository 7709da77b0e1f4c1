"""The contract of a dialect: what the compile side has to know of an engine.

Rules every dialect keeps:

1. It makes artefacts by stages of the workspace and does nothing by itself.
2. What it cannot make it says why, in a sentence for the report.
3. An artefact is proven by what the device will run: by the engine itself where this machine can run it, else by the numerical oracle, and that is said.
"""

from __future__ import annotations

import platform
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.manifest import EngineSpec
from edgekit.catalog.compress import Rung
from edgekit.catalog.target import EngineChoice, Target
from edgekit.compiler.quantize.rungs import TrainedIntegers
from edgekit.compiler.stages.explain import ExplainedGraph
from edgekit.compiler.stages.frames import PreparedSplit
from edgekit.compiler.stages.quantize import Artefact
from edgekit.compiler.stages.rank import Ranking
from edgekit.compiler.workspace import Stage


class Dialect(ABC):
    """An engine of a target, as the compile side sees it."""

    members: ClassVar[Mapping[str, str]]
    """Role of each of an artefact's files (see `EngineSpec.files`) to the bundle's member."""
    precision: ClassVar[str] = "int8"
    """Of a quantized artefact."""

    def __init__(self, target: Target, choice: EngineChoice) -> None:
        self.target = target
        self.choice = choice

    @property
    def oracle(self) -> bool:
        """Whether artefacts run in the numerical oracle here, because the engine cannot."""
        return platform.machine().lower() not in self.target.architectures

    @property
    def integers(self) -> TrainedIntegers:
        """What the rung that trains rounds to."""
        return TrainedIntegers()

    def ladder(self, rungs: Sequence[Rung]) -> tuple[Rung, ...]:
        """The rungs of a recipe, or what stands for them."""
        return tuple(rungs)

    def why_not(self, rung: Rung, graph: ExplainedGraph | None = None) -> str:  # noqa: ARG002 - what most have nothing to say to
        """Why a rung of post-training quantization has nothing of its own to try; empty where it has, or where only the graph could tell."""
        return ""

    @abstractmethod
    def exact(self, graph: ExplainedGraph) -> Stage[Artefact]:
        """Makes the artefact that is not quantized, in float32, which all others are compared with."""

    @abstractmethod
    def make(self, graph: ExplainedGraph, rung: Rung, calibration: PreparedSplit, float_layers: Sequence[str] = ()) -> Stage[Artefact]:
        """Makes a rung's artefact from calibration frames."""

    @abstractmethod
    def trained(self, graph: ExplainedGraph, calibration: PreparedSplit) -> Stage[Artefact]:
        """Makes an artefact from an explained graph that was trained with its roundings."""

    @abstractmethod
    def rank(
        self,
        graph: ExplainedGraph,
        base: Rung,
        artefacts: tuple[Artefact, Artefact],
        calibration: PreparedSplit,
        tensors: NDArray[np.uint8],
    ) -> Stage[Ranking]:
        """Ranks the layers of a rung's artefact; `artefacts` are the exact one and the rung's, `tensors` uint8 (frames, height, width, channels)."""

    @abstractmethod
    def minimum_version(self) -> str:
        """The oldest version of the engine that may run its artefacts."""

    def spec(self, artefact: Artefact) -> EngineSpec:
        """The manifest's entry of an artefact: pinned settings, and the oldest engine allowed."""
        return EngineSpec(
            name=self.choice.name,
            files=dict(self.members),
            minimum_version=self.minimum_version(),
            precision=artefact.precision,
            settings=dict(self.choice.settings),
            outputs=artefact.outputs,
        )
