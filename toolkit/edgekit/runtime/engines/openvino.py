"""OpenVINO on a CPU, and on an Intel GPU or NPU where the bundle was proven on one.

Rules this file keeps:

1. Nothing is sent: `import openvino` loads a telemetry package, which is kept out (see `load_library`).
2. Precision is pinned: OpenVINO chooses bfloat16 by itself on CPUs that have it, and that moves logits; the setting that was proven is set
   and then read back. So is the device: OpenVINO may otherwise run on another one than was meant.
3. A bundle chooses among the settings that are listed here and no others: OpenVINO has some that write files or load code.
4. One request, reused, on memory that is bound to it once: no dictionary is built and no tensor is made a frame. Outputs are copied out because that memory
   is overwritten by the next frame.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.manifest import INPUT_NAMES, OUTPUT_NAMES, EngineSpec
from edgekit.errors import BundleError, MissingEngineError, TargetError, nearest
from edgekit.runtime.engines import openvino_cache
from edgekit.runtime.engines.base import STATE, Availability, Engine, ModelRefusedError, RawOutput, check_shapes, check_version
from edgekit.runtime.engines.cache_keys import Unusable

DEVICES = ("CPU", "GPU", "NPU")
"""What the setting DEVICE may be; the first where it is left out."""

_Make = Callable[[Any, EngineSpec, Mapping[str, memoryview], str], tuple[Any, str]]
"""Takes the core, the manifest's entry, the members and the device; gives the compiled model and where it comes from."""

COMPILED_AHEAD = "compiled ahead"
"""What `describe` says of a model that was read from the cache."""

_INSTALL = "install the extra: edgekit-toolkit[openvino]"
_AGAIN = "compile the bundle again"
# Read back after compiling: a device that cannot honour them must not run the bundle.
_VERIFIED = ("INFERENCE_PRECISION_HINT",)
# Not CACHE_DIR and its like, which make the engine write where the bundle says.
_SETTINGS = frozenset(
    {
        "DEVICE",
        "ENABLE_CPU_PINNING",
        "ENABLE_HYPER_THREADING",
        "EXECUTION_MODE_HINT",
        "INFERENCE_NUM_THREADS",
        "INFERENCE_PRECISION_HINT",
        "NUM_STREAMS",
        "PERFORMANCE_HINT",
        "SCHEDULING_CORE_TYPE",
    }
)
_ROLES = ("bin", "xml")


def load_library() -> Any:
    """Imports OpenVINO without its telemetry and its conversion tools.

    `openvino/__init__` imports its model converter, which imports `openvino_telemetry` and sends an "import" event; both are guarded there by
    `except ImportError`, so hiding them for the duration of the import is within what the package expects. It also saves a third of the
    import time. The telemetry package stays hidden for the life of the process.

    Raises:
        MissingEngineError: OpenVINO is not installed or cannot be loaded.
    """
    with _hidden("openvino.tools.ovc"):
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None is the documented way to block an import
        try:
            import openvino
        except ImportError as error:
            raise MissingEngineError(f"OpenVINO cannot be loaded: {error}", hint=_INSTALL) from error
    return openvino


@functools.cache
def shared_core() -> Any:
    """The one core of this process, never released.

    On CPUs with AMX the CPU plugin gives the thread a signal stack of its own, and when it is released puts back the one it found. With a core a
    classifier, that may be the stack of a plugin released before, and the next signal (Ctrl-C) ends the process with a segmentation fault.
    """
    return load_library().Core()


@contextmanager
def _hidden(module: str) -> Iterator[None]:
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]


class OpenVinoEngine(Engine):
    """An OpenVINO IR compiled for the CPU."""

    def __init__(self, compiled: Any, version: str, origin: str) -> None:
        self._compiled = compiled
        self._origin = origin
        self._request = compiled.create_infer_request()
        self._version = version
        self._on_cpu = compiled.get_property("EXECUTION_DEVICES") == ["CPU"]
        library = load_library()
        inputs, outputs = _named(compiled.inputs, INPUT_NAMES), _named(compiled.outputs, OUTPUT_NAMES)
        taken = [name for name in inputs if name != STATE]
        self._frame = np.zeros(_static_shape(inputs[taken[0]]), np.uint8)
        self._state = np.zeros(_static_shape(inputs[STATE]), np.float32) if STATE in inputs else None
        self._given = {name: np.zeros(_static_shape(outputs[name]), np.float32) for name in OUTPUT_NAMES if name in outputs}
        for name, port in inputs.items():
            self._request.set_tensor(port, library.Tensor(self._state if name == STATE else self._frame, shared_memory=True))
        for name, memory in self._given.items():
            self._request.set_tensor(outputs[name], library.Tensor(memory, shared_memory=True))

    @classmethod
    def open(cls, spec: EngineSpec, members: Mapping[str, memoryview]) -> OpenVinoEngine:
        return cls._opened(spec, members, _ready)

    @classmethod
    def compile(cls, spec: EngineSpec, members: Mapping[str, memoryview]) -> OpenVinoEngine:
        """As `open`, from the bundle's own model and never from the cache: what is kept there must not be made from what is kept there."""
        return cls._opened(spec, members, lambda *given: (_compile(*given), "compiled now"))

    @classmethod
    def _opened(cls, spec: EngineSpec, members: Mapping[str, memoryview], make: _Make) -> OpenVinoEngine:
        _check_spec(spec)
        version = load_library().__version__.split("-")[0]
        check_version("OpenVINO", version, spec)
        core = shared_core()
        device = spec.settings.get("DEVICE", DEVICES[0])
        check_device(device)
        compiled, origin = make(core, spec, members, device)
        for key in _VERIFIED:
            _check_setting(compiled, key, spec.settings[key])
        _check_execution(compiled, device)
        return cls(compiled, version, origin)

    @staticmethod
    def available() -> Availability:
        if importlib.util.find_spec("openvino") is None:
            return Availability(version=None, reason="not installed", hint=_INSTALL)
        try:
            library = load_library()
        except MissingEngineError as error:
            return Availability(version=None, reason=error.message, hint=error.hint)
        return Availability(version=library.__version__.split("-")[0])

    def describe(self) -> dict[str, str]:
        compiled = self._compiled
        return {
            "name": "openvino",
            "version": self._version,
            "device": ", ".join(compiled.get_property("EXECUTION_DEVICES")),
            "precision": compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name(),
            "threads": str(compiled.get_property("INFERENCE_NUM_THREADS")) if self._on_cpu else "",
            "model": self._origin,
        }

    def export(self) -> bytes:
        """The compiled model, for `openvino_cache`."""
        return openvino_cache.export(self._compiled)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self._frame.shape

    @property
    def output_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: memory.shape for name, memory in self._given.items()}

    @property
    def state_shape(self) -> tuple[int, ...] | None:
        return None if self._state is None else self._state.shape

    def _infer(self, tensor: NDArray[np.uint8], state: NDArray[np.float32] | None) -> RawOutput:
        np.copyto(self._frame, tensor)
        if self._state is not None and state is not None:
            np.copyto(self._state, state)
        try:
            self._request.start_async()
            self._request.wait()
        except RuntimeError as error:
            raise TargetError(
                f"OpenVINO failed on a frame: {_first_line(error)}", hint="edgekit doctor shows what this machine can run"
            ) from error
        return RawOutput.of(self._given)


def _ready(core: Any, spec: EngineSpec, members: Mapping[str, memoryview], device: str) -> tuple[Any, str]:
    """The compiled model, and how it came about: read where it was compiled ahead for this CPU, else compiled now."""
    if device != DEVICES[0]:
        return _compile(core, spec, members, device), "compiled at opening"
    found = openvino_cache.find(spec, members, load_library().__version__)
    if isinstance(found, Unusable):
        return _compile(core, spec, members, device), f"compiled at opening: {found.reason}"
    try:
        compiled = openvino_cache.load(core, found, device, _plugin_settings(spec))
        _check_graph(compiled, spec)
    except (RuntimeError, BundleError) as error:
        reason = error.message if isinstance(error, BundleError) else _first_line(error)
        return _compile(core, spec, members, device), f"compiled at opening: the one compiled ahead is refused: {reason}"
    return compiled, COMPILED_AHEAD


def _compile(core: Any, spec: EngineSpec, members: Mapping[str, memoryview], device: str) -> Any:
    openvino = load_library()
    try:
        weights = openvino.Tensor(np.frombuffer(members[spec.files["bin"]], dtype=np.uint8))
        model = core.read_model(bytes(members[spec.files["xml"]]), weights)
        _check_graph(model, spec)
        return core.compile_model(model, device, _plugin_settings(spec))
    except RuntimeError as error:
        version = openvino.__version__.split("-")[0]
        raise ModelRefusedError(
            f"OpenVINO {version} refuses the model: {_first_line(error)}", hint="compile the bundle again, or update openvino"
        ) from error


def _plugin_settings(spec: EngineSpec) -> dict[str, str]:
    return {key: value for key, value in spec.settings.items() if key != "DEVICE"}


def _check_spec(spec: EngineSpec) -> None:
    if sorted(spec.files) != sorted(_ROLES):
        raise BundleError(f"OpenVINO needs the files {' and '.join(_ROLES)}, the manifest names {sorted(spec.files)}", hint=_AGAIN)
    for key in spec.settings:
        if key not in _SETTINGS:
            raise BundleError(f"the setting {key!r} of OpenVINO is not one a bundle may choose", hint=nearest(key, _SETTINGS))
    if spec.settings.get("DEVICE", DEVICES[0]) not in DEVICES:
        raise BundleError(f"OpenVINO has no device {spec.settings['DEVICE']!r}", hint=nearest(spec.settings["DEVICE"], DEVICES))
    for key in _VERIFIED:
        if key not in spec.settings:
            raise BundleError(f"the manifest does not pin {key}", hint=_AGAIN)


def _check_graph(model: Any, spec: EngineSpec) -> None:
    """Refuses a graph that is not one uint8 tensor in, logits and at most maps and their offset out."""
    inputs, outputs = _named(model.inputs, INPUT_NAMES), _named(model.outputs, OUTPUT_NAMES)
    taken, given = ({name: _static_shape(port) for name, port in ports.items()} for ports in (inputs, outputs))
    if any(port.get_element_type().get_type_name() != ("f32" if name == STATE else "u8") for name, port in inputs.items()):
        raise BundleError(f"the model's inputs {taken} are not one uint8 tensor (1, rows, columns, channels)", hint=_AGAIN)
    check_shapes(taken, given, spec)


def _named(ports: Sequence[Any], known: Sequence[str]) -> dict[str, Any]:
    """Inputs or outputs by name: by the one that is known where a value has several; two of one name are refused by the place of the second."""
    found: dict[str, Any] = {}
    for place, port in enumerate(ports):
        names = sorted(port.get_names())
        name = next((one for one in known if one in names), names[0] if names else "")
        found[name if name and name not in found else f"{name} at {place}"] = port
    return found


def _static_shape(port: Any) -> tuple[int, ...]:
    """Shape of an input or output; empty where it is left open."""
    shape = port.get_partial_shape()
    return tuple(int(side) for side in shape.to_shape()) if shape.is_static else ()


def check_device(device: str) -> None:
    """Refuses a device that OpenVINO does not find on this machine.

    Args:
        device: One of `DEVICES`.

    Raises:
        TargetError: It is not there, or its driver is not.
        MissingEngineError: OpenVINO is not installed.
    """
    found = shared_core().available_devices
    # With two GPUs they are called GPU.0 and GPU.1.
    if not any(name.partition(".")[0] == device for name in found):
        raise TargetError(
            f"OpenVINO finds no {device} here, only {', '.join(found)}",
            hint=f"install the driver of the {device}, or use a bundle for the CPU",
        )


def _check_execution(compiled: Any, device: str) -> None:
    devices = [str(name).strip("()").partition(".")[0] for name in compiled.get_property("EXECUTION_DEVICES")]
    if devices != [device]:
        raise TargetError(f"OpenVINO runs the model on {', '.join(devices)}, it was proven on {device}", hint="edgekit doctor")


def _check_setting(compiled: Any, key: str, wanted: str) -> None:
    found = compiled.get_property(key).get_type_name()
    if found != wanted:
        raise TargetError(f"this device runs {key} = {found}, the bundle was proven with {wanted}", hint="compile it for this target")


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
