"""ONNX Runtime and TensorRT: one ONNX file, quantized by `quantize/qdq`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgekit.catalog.compress import Rung
from edgekit.catalog.target import EngineChoice, Target, TensorRt
from edgekit.compiler.dialects.base import Dialect
from edgekit.compiler.quantize.qdq.build import Writing
from edgekit.compiler.quantize.rungs import FULL_RANGE, HALF_RANGE, RUNGS, TrainedIntegers
from edgekit.compiler.stages import qdq as q
from edgekit.compiler.stages.explain import ExplainedGraph
from edgekit.compiler.stages.frames import PreparedSplit
from edgekit.compiler.stages.quantize import Artefact
from edgekit.compiler.stages.rank import Ranking
from edgekit.compiler.workspace import Stage
from edgekit.errors import CatalogError
from edgekit.runtime.engines.onnxruntime import OLDEST

_NO_LAYER_NORM_BEFORE = (8, 6)
_NO_INT8_CONSTANTS_BEFORE = (10, 0)


class _QdqDialect(Dialect):
    """What both have in common."""

    rules = ""

    @property
    def weight_limit(self) -> int:
        """Largest weight as an integer."""
        return FULL_RANGE

    @property
    def writing(self) -> Writing:
        """Types and opset of the file."""
        return Writing()

    @property
    def dialect(self) -> q.Dialect:
        """What the stages are told."""
        target = self.target if self.target.tensorrt is not None and self.choice.name.startswith("tensorrt") else None
        return q.Dialect(rules=self.rules, writing=self.writing, weight_limit=self.weight_limit, target=target)

    def exact(self, graph: ExplainedGraph) -> Stage[Artefact]:
        return q.QdqStage(
            graph=graph,
            dialect=self.dialect,
            precision="f32",
            rung="float",
            calibration=np.zeros((0,), dtype=np.uint8),
            calibration_sha256="",
        )

    def make(self, graph: ExplainedGraph, rung: Rung, calibration: PreparedSplit, float_layers: Sequence[str] = ()) -> Stage[Artefact]:
        if not RUNGS[rung].quantize:
            return self.exact(graph)
        return self._stage(graph, rung, calibration, float_layers)

    def _stage(
        self, graph: ExplainedGraph, rung: Rung, calibration: PreparedSplit, float_layers: Sequence[str] = (), *, trained: bool = False
    ) -> q.QdqStage:
        return q.QdqStage(
            graph=graph,
            dialect=self.dialect,
            precision="int8",
            rung=rung,
            calibration=calibration.tensors,
            calibration_sha256=calibration.sha256,
            float_layers=tuple(float_layers),
            trained=trained,
        )

    def why_not(self, rung: Rung, graph: ExplainedGraph | None = None) -> str:  # noqa: ARG002 - the graph has no say
        if RUNGS[rung].asymmetric:
            return "the same as ptq-full: this engine's activations have zero points of their own, or none"
        if not RUNGS[rung].smooth_quant:
            return "the same as ptq-full: this dialect has no SmoothQuant"
        return ""

    def trained(self, graph: ExplainedGraph, calibration: PreparedSplit) -> Stage[Artefact]:
        return self._stage(graph, "qat", calibration, trained=True)

    def rank(
        self,
        graph: ExplainedGraph,
        base: Rung,
        artefacts: tuple[Artefact, Artefact],  # noqa: ARG002 - made again, before types are given
        calibration: PreparedSplit,
        tensors: NDArray[np.uint8],
    ) -> Stage[Ranking]:
        digest = hashlib.sha256(tensors.tobytes()).hexdigest()
        return q.RankQdqStage(base=self._stage(graph, base, calibration), tensors=tensors, tensors_sha256=digest)


class OnnxRuntimeDialect(_QdqDialect):
    """ONNX Runtime on the CPU."""

    def ladder(self, rungs: Sequence[Rung]) -> tuple[Rung, ...]:
        if not any(self.why_not(rung) == "" for rung in rungs):
            raise CatalogError(
                f"no rung of the ladder {list(rungs)} is one of onnxruntime, an engine of the target {self.target.name}",
                hint="add ptq to the ladder",
            )
        return tuple(rungs)

    members = {"onnx": "model/onnxruntime.onnx"}  # noqa: RUF012 - a literal table that nobody changes
    rules = "onnxruntime"

    @property
    def weight_limit(self) -> int:
        return HALF_RANGE if self.target.int8_saturates else FULL_RANGE

    @property
    def integers(self) -> TrainedIntegers:
        return TrainedIntegers(weights=self.weight_limit)

    def minimum_version(self) -> str:
        """Not the version that proves it: a device's Python may have an older one, and golden frames show what it computes."""
        return OLDEST


class _TensorRtDialect(_QdqDialect):
    """TensorRT, which never runs where bundles are compiled."""

    rules = "tensorrt"

    @property
    def oracle(self) -> bool:
        return True

    @property
    def device(self) -> TensorRt:
        """What the target says of TensorRT."""
        if self.target.tensorrt is None:
            raise CatalogError(f"the target {self.target.name} has no table [tensorrt]", hint="edgekit targets lists those that have")
        return self.target.tensorrt

    @property
    def writing(self) -> Writing:
        oldest = tuple(int(part) for part in self.device.versions[0].split("."))
        without = frozenset({"LayerNormalization"}) if oldest < _NO_LAYER_NORM_BEFORE else frozenset[str]()
        return Writing(
            opset=self.device.opset,
            typed=self.device.strongly_typed,
            without=without,
            integer_weights=oldest >= _NO_INT8_CONSTANTS_BEFORE,
        )

    @property
    def integers(self) -> TrainedIntegers:
        return TrainedIntegers(signed=True)

    def minimum_version(self) -> str:
        """The oldest version that the graph conforms to."""
        return self.device.versions[0]


class TensorRtInt8Dialect(_TensorRtDialect):
    """Explicitly quantized."""

    members = {"onnx": "model/tensorrt-int8.onnx"}  # noqa: RUF012 - a literal table that nobody changes

    def ladder(self, rungs: Sequence[Rung]) -> tuple[Rung, ...]:
        quantizing = tuple(rung for rung in rungs if RUNGS[rung].quantize)
        if not any(self.why_not(rung) == "" for rung in quantizing):
            raise CatalogError(
                f"no rung of the ladder {list(rungs)} quantizes for tensorrt-int8, an engine of the target {self.target.name}",
                hint="add ptq to the ladder; where int8 is refused by the gates, float16 leads the bundle",
            )
        return quantizing


class TensorRtHalfDialect(_TensorRtDialect):
    """float16 without quantization; the builder may be faster with it than with int8."""

    members = {"onnx": "model/tensorrt-fp16.onnx"}  # noqa: RUF012 - a literal table that nobody changes
    precision = "fp16"

    def __init__(self, target: Target, choice: EngineChoice) -> None:
        super().__init__(target, choice)
        if not self.device.strongly_typed:
            raise CatalogError(
                f"the target {target.name} names tensorrt-fp16, but before TensorRT 10 the builder chooses where it computes in float16, which nobody can prove here",
                hint="name tensorrt-int8 and onnxruntime",
            )

    def ladder(self, rungs: Sequence[Rung]) -> tuple[Rung, ...]:  # noqa: ARG002 - there is nothing to climb
        return ("float",)

    def make(self, graph: ExplainedGraph, rung: Rung, calibration: PreparedSplit, float_layers: Sequence[str] = ()) -> Stage[Artefact]:
        if float_layers or RUNGS[rung].quantize:
            raise CatalogError(f"tensorrt-fp16 is not quantized, so it has no rung {rung}", hint="use tensorrt-int8")
        return q.QdqStage(
            graph=graph,
            dialect=self.dialect,
            precision="fp16",
            rung=rung,
            calibration=calibration.tensors,
            calibration_sha256=calibration.sha256,
        )
