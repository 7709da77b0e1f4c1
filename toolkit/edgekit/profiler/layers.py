"""`--layers`: where the time goes inside the engine, layer by layer, and in which precision each one works.

Rules this file keeps:

1. It is a run of its own on an engine of its own: counting costs time, and nothing that was counted is in any latency. The sum of the layers is
   therefore not the latency of `infer`.
2. The engine is opened with the bundle's own settings, and counting on top. What is told is what the library really did: names and kinds are its own,
   after it has fused and reordered the graph.
3. What a library does not tell is None and has a reason; precision is what the library says a layer works in, not what the graph asked for.

TensorRT tells its layers and their formats without times: its times need a callback in the library's own language around each layer.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.manifest import EngineSpec
from edgekit.bundle.reader import Bundle
from edgekit.errors import EdgekitError, TargetError
from edgekit.profiler import anonymous
from edgekit.profiler.engine_layers import layer_rows
from edgekit.runtime.engines import onnxruntime, openvino, tensorrt_build
from edgekit.runtime.engines.tensorrt_engine import TensorRtEngine

REPEATS = 50
WARM_UP = 5
_NO_TIMES = "TensorRT tells the times of layers only to a callback, which is not used here"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer as the engine executes it.

    Attributes:
        name: The library's.
        kind: What it computes, in the library's words.
        precision: What it works in, in the library's words; None where it does not tell.
        kernel: The implementation, where the library names it; else empty.
        median_ms: Median over the repetitions; None where it was not measured.
    """

    name: str
    kind: str
    precision: str | None
    kernel: str
    median_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTable:
    """The layers of one engine.

    Attributes:
        engine: Name of the engine.
        repeats: Frames the medians are of; 0 where nothing was timed.
        layers: In the order the library tells them.
        reason: Why there are no layers, or no times.
    """

    engine: str
    repeats: int
    layers: tuple[Layer, ...]
    reason: str

    def to_json(self) -> dict[str, Any]:
        """The part ``layers`` of a profile."""
        by_precision: dict[str, float] = {}
        for layer in self.layers:
            if layer.median_ms is not None:
                key = layer.precision or "not known"
                by_precision[key] = by_precision.get(key, 0.0) + layer.median_ms
        return {
            "engine": self.engine,
            "repeats": self.repeats,
            "sum_ms": sum(by_precision.values()) if by_precision else None,
            "by_precision_ms": by_precision,
            "table": [
                {name: getattr(layer, name) for name in ("name", "kind", "precision", "kernel", "median_ms")} for layer in self.layers
            ],
            "reason": self.reason,
        }


def measure_layers(bundle: Bundle, engine: str) -> LayerTable:
    """Runs a bundle's engine with counting on, on its own golden frame.

    Args:
        bundle: The bundle, opened.
        engine: Name of the engine that answers here.
    """
    spec = next(spec for spec in bundle.manifest.engines if spec.name == engine)
    tensor = np.ascontiguousarray(bundle.load_array(bundle.manifest.golden.frames)[:1])
    try:
        if engine == "openvino":
            return LayerTable(engine=engine, repeats=REPEATS, layers=_openvino(spec, bundle.members, tensor), reason="")
        if engine == "onnxruntime":
            return LayerTable(engine=engine, repeats=REPEATS, layers=_onnxruntime(spec, bundle.members, tensor), reason="")
        if tensorrt_build.is_tensorrt(engine):
            return _tensorrt(spec, bundle.members)
    except EdgekitError as error:
        return LayerTable(engine=engine, repeats=0, layers=(), reason=f"not available: {anonymous.text(error.message)}")
    return LayerTable(engine=engine, repeats=0, layers=(), reason=f"not available: nothing is known of the layers of {engine}")


def _openvino(spec: EngineSpec, members: Mapping[str, memoryview], tensor: NDArray[np.uint8]) -> tuple[Layer, ...]:
    library = openvino.load_library()
    core = openvino.shared_core()
    settings = {key: value for key, value in spec.settings.items() if key != "DEVICE"}
    weights = library.Tensor(np.frombuffer(members[spec.files["bin"]], dtype=np.uint8))
    try:
        model = core.read_model(bytes(members[spec.files["xml"]]), weights)
        compiled = core.compile_model(model, spec.settings.get("DEVICE", openvino.DEVICES[0]), {**settings, "PERF_COUNT": "YES"})
        request = compiled.create_infer_request()
        # Beside the frame stands at most the state of a recurrent classifier, which is 0 before a clip.
        given = [
            tensor if port.get_element_type().get_type_name() == "u8" else np.zeros(port.shape, np.float32) for port in compiled.inputs
        ]
        runs = []
        for index in range(WARM_UP + REPEATS):
            request.infer(dict(zip(compiled.inputs, given, strict=True)))
            if index >= WARM_UP:
                runs.append(list(request.profiling_info))
        executed = {node.get_friendly_name(): node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()}
    except RuntimeError as error:
        raise TargetError(f"OpenVINO cannot count its layers: {str(error).strip().splitlines()[-1]}") from error
    return openvino_layers(
        [[(item.node_name, item.node_type, item.exec_type, item.real_time.total_seconds() * 1e3) for item in run] for run in runs],
        {name: str(info["runtimePrecision"].astype(str)) for name, info in executed.items() if "runtimePrecision" in info},
    )


def openvino_layers(runs: Sequence[Sequence[tuple[str, str, str, float]]], precisions: Mapping[str, str]) -> tuple[Layer, ...]:
    """Layers out of OpenVINO's counters.

    Args:
        runs: For each frame (name, kind, kernel, milliseconds) of each layer, in one order.
        precisions: Name to what the executed graph says a layer works in.
    """
    layers = []
    for index, (name, kind, kernel, _) in enumerate(runs[0]):
        times = [run[index][3] for run in runs]
        if not any(times):
            # Constants, and layers that were fused into others.
            continue
        layers.append(Layer(name=name, kind=kind, precision=precisions.get(name), kernel=kernel, median_ms=float(np.median(times))))
    return tuple(layers)


def _onnxruntime(spec: EngineSpec, members: Mapping[str, memoryview], tensor: NDArray[np.uint8]) -> tuple[Layer, ...]:
    library = onnxruntime.load_library()
    options = onnxruntime.session_options(spec.settings)
    with tempfile.TemporaryDirectory(prefix="edgekit-layers-") as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "layers")
        try:
            session = library.InferenceSession(bytes(members[spec.files[onnxruntime.ROLE]]), options, providers=[onnxruntime.PROVIDER])
            # Beside the frame stands at most the state of a recurrent classifier, which is 0 before a clip.
            feed = {port.name: tensor if "uint8" in port.type else np.zeros(port.shape, np.float32) for port in session.get_inputs()}
            for _ in range(WARM_UP + REPEATS):
                session.run(None, feed)
            events = json.loads(Path(session.end_profiling()).read_bytes())
        except Exception as error:  # the library raises many kinds
            raise TargetError(f"ONNX Runtime cannot count its layers: {onnxruntime.first_line(error)}") from error
    return onnxruntime_layers(events)


def onnxruntime_layers(events: Sequence[Mapping[str, Any]]) -> tuple[Layer, ...]:
    """Layers out of ONNX Runtime's profile.

    Args:
        events: As its file has them; each run of a node is one event ``NAME_kernel_time`` of the category ``Node``, in microseconds.
    """
    suffix = "_kernel_time"
    times: dict[str, list[float]] = {}
    first: dict[str, Mapping[str, Any]] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") != "Node" or not name.endswith(suffix):
            continue
        key = name.removesuffix(suffix)
        times.setdefault(key, []).append(float(event["dur"]) / 1e3)
        first.setdefault(key, event.get("args", {}))
    return tuple(
        Layer(
            name=name,
            kind=str(first[name].get("op_name", "")),
            precision=_type_of(first[name]),
            kernel=str(first[name].get("provider", "")),
            median_ms=float(np.median(taken[WARM_UP:] or taken)),
        )
        for name, taken in times.items()
    )


def _type_of(arguments: Mapping[str, Any]) -> str | None:
    """Type of the first tensor a node takes, which is what it computes on: ``[{"uint8": [1, 3, 224, 224]}, …]``."""
    taken = arguments.get("input_type_shape") or arguments.get("output_type_shape")
    if isinstance(taken, list) and taken and isinstance(taken[0], Mapping) and taken[0]:
        return str(next(iter(taken[0])))
    return None


def _tensorrt(spec: EngineSpec, members: Mapping[str, memoryview]) -> LayerTable:
    engine = TensorRtEngine.open(spec, members)
    try:
        rows = layer_rows(engine.layers())
    finally:
        engine.close()
    if isinstance(rows, str):
        return LayerTable(engine=spec.name, repeats=0, layers=(), reason=f"not available: {rows}")
    layers = tuple(Layer(name=name, kind=kind, precision=taken or None, kernel="", median_ms=None) for name, kind, taken in rows)
    return LayerTable(engine=spec.name, repeats=0, layers=layers, reason=_NO_TIMES)
