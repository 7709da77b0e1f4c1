"""OpenVINO: an IR, quantized by NNCF, run by the engine itself."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgekit.catalog.compress import Rung
from edgekit.compiler.dialects.base import Dialect
from edgekit.compiler.quantize import openvino_ptq
from edgekit.compiler.quantize.rungs import FULL_RANGE, HALF_RANGE, RUNGS, TrainedIntegers
from edgekit.compiler.stages.explain import ExplainedGraph
from edgekit.compiler.stages.frames import PreparedSplit
from edgekit.compiler.stages.qat import RoundedIrStage
from edgekit.compiler.stages.quantize import Artefact, QuantizeStage
from edgekit.compiler.stages.rank import Ranking, RankStage
from edgekit.compiler.workspace import Stage
from edgekit.runtime.engines import engine_class


class OpenVinoDialect(Dialect):
    """OpenVINO on the CPU."""

    members = {"xml": "model/openvino.xml", "bin": "model/openvino.bin"}  # noqa: RUF012 - a literal table that nobody changes

    @property
    def integers(self) -> TrainedIntegers:
        return TrainedIntegers(weights=HALF_RANGE if self.target.int8_saturates else FULL_RANGE)

    def exact(self, graph: ExplainedGraph) -> Stage[Artefact]:
        return QuantizeStage(graph=graph, rung="float", calibration=np.zeros((0,), dtype=np.uint8), calibration_sha256="")

    def make(self, graph: ExplainedGraph, rung: Rung, calibration: PreparedSplit, float_layers: Sequence[str] = ()) -> Stage[Artefact]:
        return QuantizeStage(
            graph=graph,
            rung=rung,
            calibration=calibration.tensors,
            calibration_sha256=calibration.sha256,
            float_layers=tuple(float_layers),
            half_weights=self.target.int8_saturates,
        )

    def why_not(self, rung: Rung, graph: ExplainedGraph | None = None) -> str:
        if graph is not None and not RUNGS[rung].smooth_quant and not openvino_ptq.has_attention(graph.path):
            return "no attention: the same as ptq-full"
        return ""

    def trained(self, graph: ExplainedGraph, calibration: PreparedSplit) -> Stage[Artefact]:  # noqa: ARG002 - every range is trained
        return RoundedIrStage(graph=graph)

    def rank(
        self,
        graph: ExplainedGraph,  # noqa: ARG002 - the artefacts tell
        base: Rung,  # noqa: ARG002
        artefacts: tuple[Artefact, Artefact],
        calibration: PreparedSplit,  # noqa: ARG002
        tensors: NDArray[np.uint8],
    ) -> Stage[Ranking]:
        exact, quantized = artefacts
        digest = hashlib.sha256(tensors.tobytes()).hexdigest()
        return RankStage(exact=exact, base=quantized, engine=self.spec(quantized), tensors=tensors, tensors_sha256=digest)

    def minimum_version(self) -> str:
        """The version that proves it."""
        return engine_class(self.choice.name).available().version or ""
