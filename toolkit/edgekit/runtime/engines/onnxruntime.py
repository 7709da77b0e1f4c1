"""ONNX Runtime on a CPU, x86-64 or ARM.

Rules this file keeps:

1. The provider is pinned and read back: a session that came up on another one than the CPU's would not be the arithmetic that was proven.
2. A bundle chooses among the settings that are listed here and no others: ONNX Runtime has some that write files or load libraries.
3. Idle threads sleep: ONNX Runtime's spin by default, which takes a core from everything else on a scanner.
4. The graph is self-contained: external data and operators of other domains are refused before ONNX Runtime sees them.
5. Telemetry events are switched off. On Linux there are none; a build for another system has them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.manifest import EngineSpec
from edgekit.errors import BundleError, MissingEngineError, TargetError, nearest
from edgekit.runtime.engines.base import STATE, Availability, Engine, ModelRefusedError, RawOutput, check_shapes, check_version, in_order
from edgekit.runtime.engines.onnx_wire import check_self_contained

PROVIDER = "CPUExecutionProvider"
OLDEST = "1.22"
"""The oldest version that bundles open on: it has every operator that edgekit writes. JetPack 6 has Python 3.10, for which 1.23 is the newest."""

ROLE = "onnx"
_INSTALL = "install the extra: edgekit-toolkit[onnxruntime]"
_AGAIN = "compile the bundle again"


def _integer(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError(f"{value} is not between {low} and {high}")
        return value

    return read


def _choice(**values: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in values:
            raise ValueError(f"{text!r} is not one of {', '.join(values)}")
        return values[text]

    return read


_LEVELS = _choice(disabled="ORT_DISABLE_ALL", basic="ORT_ENABLE_BASIC", extended="ORT_ENABLE_EXTENDED", all="ORT_ENABLE_ALL")
SETTINGS: Mapping[str, Callable[[str], object]] = {
    "ALLOW_SPINNING": _choice(**{"0": "0", "1": "1"}),
    "EXECUTION_MODE": _choice(sequential="ORT_SEQUENTIAL", parallel="ORT_PARALLEL"),
    "GRAPH_OPTIMIZATION": _LEVELS,
    "INTER_OP_NUM_THREADS": _integer(0, 256),
    "INTRA_OP_NUM_THREADS": _integer(0, 256),
}
"""What a bundle may choose, and how it is written. 0 threads: as many as there are cores."""


def load_library() -> Any:
    """Imports ONNX Runtime.

    Raises:
        MissingEngineError: It is not installed or cannot be loaded.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingEngineError(f"ONNX Runtime cannot be loaded: {error}", hint=_INSTALL) from error
    onnxruntime.disable_telemetry_events()
    # 3 is errors only: warnings about graphs belong to who compiles them.
    onnxruntime.set_default_logger_severity(3)
    return onnxruntime


def session_options(settings: Mapping[str, str]) -> Any:
    """`SessionOptions` of the settings of a bundle.

    Raises:
        BundleError: A setting is not one that a bundle may choose, or has no such value.
    """
    library = load_library()
    options = library.SessionOptions()
    chosen = {"ALLOW_SPINNING": "0", "EXECUTION_MODE": "sequential", "GRAPH_OPTIMIZATION": "all", **settings}
    read = {key: _read_setting(key, text) for key, text in chosen.items()}
    for scope in ("intra", "inter"):
        options.add_session_config_entry(f"session.{scope}_op.allow_spinning", read["ALLOW_SPINNING"])
    options.execution_mode = getattr(library.ExecutionMode, str(read["EXECUTION_MODE"]))
    options.graph_optimization_level = getattr(library.GraphOptimizationLevel, str(read["GRAPH_OPTIMIZATION"]))
    options.intra_op_num_threads = read.get("INTRA_OP_NUM_THREADS", 0)
    options.inter_op_num_threads = read.get("INTER_OP_NUM_THREADS", 0)
    return options


class OnnxRuntimeEngine(Engine):
    """An ONNX graph in a session on the CPU."""

    def __init__(self, session: Any, version: str, settings: Mapping[str, str], precision: str) -> None:
        self._session = session
        self._version = version
        self._settings = dict(settings)
        self._precision = precision
        inputs = {port.name: tuple(port.shape) for port in session.get_inputs()}
        self._state_shape = inputs.pop(STATE, None)
        self._input, self._shape = next(iter(inputs.items()))
        self._output_shapes = in_order({port.name: tuple(port.shape) for port in session.get_outputs()})

    @classmethod
    def open(cls, spec: EngineSpec, members: Mapping[str, memoryview]) -> OnnxRuntimeEngine:
        if sorted(spec.files) != [ROLE]:
            raise BundleError(f"ONNX Runtime needs the file {ROLE}, the manifest names {sorted(spec.files)}", hint=_AGAIN)
        library = load_library()
        options = session_options(spec.settings)
        version = library.__version__
        check_version("ONNX Runtime", version, spec)
        model = members[spec.files[ROLE]]
        check_self_contained(model)
        try:
            session = library.InferenceSession(bytes(model), options, providers=[PROVIDER])
        except Exception as error:  # the library raises many kinds
            raise ModelRefusedError(
                f"ONNX Runtime {version} refuses the model: {first_line(error)}", hint="compile the bundle again, or update onnxruntime"
            ) from error
        _check_session(session, spec)
        return cls(session, version, spec.settings, spec.precision)

    @staticmethod
    def available() -> Availability:
        if importlib.util.find_spec("onnxruntime") is None:
            return Availability(version=None, reason="not installed", hint=_INSTALL)
        try:
            library = load_library()
        except MissingEngineError as error:
            return Availability(version=None, reason=error.message, hint=error.hint)
        return Availability(version=library.__version__)

    def describe(self) -> dict[str, str]:
        options = self._session.get_session_options()
        return {
            "name": "onnxruntime",
            "version": self._version,
            "device": ", ".join(self._session.get_providers()),
            "precision": self._precision,
            "threads": str(options.intra_op_num_threads or "one a core"),
        }

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def output_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self._output_shapes

    @property
    def state_shape(self) -> tuple[int, ...] | None:
        return self._state_shape

    def _infer(self, tensor: NDArray[np.uint8], state: NDArray[np.float32] | None) -> RawOutput:
        names = list(self._output_shapes)
        try:
            results = self._session.run(names, {self._input: tensor} if state is None else {self._input: tensor, STATE: state})
        except Exception as error:  # the library raises many kinds
            raise TargetError(
                f"ONNX Runtime failed on a frame: {first_line(error)}", hint="edgekit doctor shows what this machine can run"
            ) from error
        return RawOutput.of(dict(zip(names, results, strict=True)))


def first_line(error: BaseException) -> str:
    """The first line of a library's message."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _read_setting(key: str, text: str) -> Any:
    if key not in SETTINGS:
        raise BundleError(f"the setting {key!r} of ONNX Runtime is not one a bundle may choose", hint=nearest(key, SETTINGS))
    try:
        return SETTINGS[key](text)
    except ValueError as error:
        raise BundleError(f"the setting {key} of ONNX Runtime: {error}", hint=_AGAIN) from error


def _check_session(session: Any, spec: EngineSpec) -> None:
    """Refuses another provider, and a graph that is not one uint8 tensor in, logits and at most the maps out."""
    providers = session.get_providers()
    if providers != [PROVIDER]:
        raise TargetError(f"ONNX Runtime runs the model on {', '.join(providers)}, it was proven on {PROVIDER}", hint="edgekit doctor")
    taken, given = ({port.name: _static(port) for port in ports} for ports in (session.get_inputs(), session.get_outputs()))
    kinds = {port.name: port.type for port in session.get_inputs()}
    if any(kind != ("tensor(float)" if name == STATE else "tensor(uint8)") for name, kind in kinds.items()):
        raise BundleError(f"the model's inputs {taken} are not one uint8 tensor (1, rows, columns, channels)", hint=_AGAIN)
    if any(port.type != "tensor(float)" for port in session.get_outputs()):
        raise BundleError(f"the model's outputs {given} are not the {spec.outputs} logits, and a map each, in float32", hint=_AGAIN)
    check_shapes(taken, given, spec)


def _static(port: Any) -> tuple[int, ...]:
    """Shape of an input or output; empty where it is left open."""
    shape = tuple(port.shape)
    return shape if all(isinstance(side, int) for side in shape) else ()
