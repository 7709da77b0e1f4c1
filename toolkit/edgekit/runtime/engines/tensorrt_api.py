"""Every call of TensorRT whose name or meaning depends on the version, 8.5 to 11, in one place.

Rules this file keeps:

1. I/O has names and is run with `execute_async_v3`: the one way that all of these versions have.
2. A name that not every version has is in `GATES`, and is used only after `Api.has`.
3. From version 10 on a network is strongly typed: every tensor has the type that the graph gives it, which is what was proven. Before, the builder needs a
   flag for each precision it may use, and what it then chooses itself cannot be known before.
4. TF32 is off: what the graph says is float32 is computed in float32.
5. A plan is loaded from bytes, never from a path; no plugin library is loaded, and code that a plan may carry is not allowed.
6. No Python error goes through the library: one that is raised inside a build (a progress that cannot be written) stops the build and is raised after it.
   A signal that Python handles is held while the library parses or builds; it stops the build and is handled when the library has returned.
"""

from __future__ import annotations

import contextlib
import functools
import re
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgekit.errors import MissingEngineError, TargetError
from edgekit.runtime.engines.base import ModelRefusedError

if TYPE_CHECKING:
    import tensorrt as trt

Version = tuple[int, int]

OLDEST: Version = (8, 5)
"""The first with I/O by name; JetPack 5.1 has it."""

GATES: Mapping[str, tuple[Version, Version | None]] = {
    "BuilderFlag.FP16": ((8, 5), (11, 0)),
    "BuilderFlag.INT8": ((8, 5), (11, 0)),
    "IBuilderConfig.builder_optimization_level": ((8, 6), None),
    "IBuilderConfig.max_aux_streams": ((8, 6), None),
    "IBuilderConfig.progress_monitor": ((10, 0), None),
    "IProgressMonitor": ((10, 0), None),
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH": ((8, 5), (10, 0)),
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED": ((10, 0), (11, 0)),
    "ParserError.node_name": ((10, 0), None),
    "ParserError.node_operator": ((10, 0), None),
}
"""Name to the first version that it is used in, and the first that it is not used in any more."""

INSTALL = "TensorRT comes with JetPack (python3-libnvinfer); in a virtual environment made with --system-site-packages it can be imported"
_KEPT_MESSAGES = 20
# Windows has no SIGHUP.
_STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Api:
    """A TensorRT that was imported.

    Attributes:
        text: Its full version.
        version: Its major and minor version.
        log: What it writes to; one a process, because the library keeps the first one it sees.
        messages: Its last errors.
        stopped: What was raised inside a build.
        held: Signals that came inside a call of the library.
    """

    text: str
    version: Version
    log: trt.ILogger
    messages: deque[str]
    stopped: list[BaseException]
    held: list[int]

    def has(self, name: str) -> bool:
        """Whether this version has a name of `GATES`."""
        first, gone = GATES[name]
        return first <= self.version and (gone is None or self.version < gone)

    def why(self) -> str:
        """The last error that the library told, for a message; empties the list."""
        found = self.messages[-1] if self.messages else "it did not say why"
        self.messages.clear()
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What the builder is told.

    Attributes:
        workspace_mib: Memory that a layer may use for itself; the library's default is all there is, which CPU and GPU share.
        optimization_level: 0 to 5; None for the library's default.
        max_aux_streams: Streams beside the one; each needs memory of its own.
        flags: Precisions that the builder may use, for versions before 10.
    """

    workspace_mib: int
    optimization_level: int | None
    max_aux_streams: int
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFacts:
    """An input or output of an engine: `dtype` is "uint8" or "float32" or the library's name of another one."""

    name: str
    is_input: bool
    dtype: str
    shape: tuple[int, ...]


Stepped = Callable[[int, int], object]
"""Takes steps done and steps in all."""


def open_api() -> Api:
    """Imports TensorRT.

    Raises:
        MissingEngineError: It is not installed or cannot be loaded.
        TargetError: It is older than 8.5.
    """
    try:
        import tensorrt as trt
    except (ImportError, OSError) as error:  # OSError: a library that it links is missing or another one
        raise MissingEngineError(f"TensorRT cannot be loaded: {error}", hint=INSTALL) from error
    found: Api = _wrap(trt)
    if found.version < OLDEST:
        raise TargetError(f"TensorRT {found.text} is older than 8.5", hint="update JetPack to 5.1 or newer")
    return found


@functools.lru_cache(maxsize=1)
def _wrap(library: Any) -> Api:
    text = str(library.__version__)
    numbers = re.match(r"(\d+)\.(\d+)", text)
    messages: deque[str] = deque(maxlen=_KEPT_MESSAGES)
    version = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    return Api(text=text, version=version, log=_log(messages), messages=messages, stopped=[], held=[])


def _log(messages: deque[str]) -> trt.ILogger:
    import tensorrt as trt

    errors = (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR)

    class Log(trt.ILogger):  # type: ignore[misc]  # the library is not typed
        """Keeps errors for our own messages, and keeps everything off the terminal: stdout belongs to the answers."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            if severity in errors:
                messages.append(" ".join(str(msg).split())[:500])

    return Log()


def make_builder(api: Api) -> trt.Builder:
    """A builder.

    Raises:
        TargetError: The library finds no GPU that it supports.
    """
    import tensorrt as trt

    try:
        return trt.Builder(api.log)
    except (TypeError, RuntimeError) as error:  # TypeError: the factory returned nothing
        raise TargetError(
            f"TensorRT {api.text} cannot build here: {api.why()}", hint="edgekit doctor shows what this machine has"
        ) from error


def make_network(api: Api, builder: trt.Builder) -> trt.INetworkDefinition:
    """An empty network definition (rule 3)."""
    import tensorrt as trt

    flags = 0
    if api.has("NetworkDefinitionCreationFlag.STRONGLY_TYPED"):
        flags |= 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    if api.has("NetworkDefinitionCreationFlag.EXPLICIT_BATCH"):
        flags |= 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
    return builder.create_network(flags)


def is_strongly_typed(api: Api) -> bool:
    """Whether networks of this version have the types that the graph gives (rule 3)."""
    return api.version >= (10, 0)


def parse(api: Api, network: trt.INetworkDefinition, onnx: bytes) -> trt.OnnxParser:
    """Reads an ONNX model into a network.

    Returns:
        The parser: it owns the weights until the network is built.

    Raises:
        ModelRefusedError: The parser refuses it; the message names the nodes.
    """
    import tensorrt as trt

    parser = trt.OnnxParser(network, api.log)
    with _signals_held(api):
        if parser.parse(onnx):
            return parser
    told = [_parser_error(api, parser.get_error(index)) for index in range(min(3, parser.num_errors))]
    raise ModelRefusedError(
        f"TensorRT {api.text} refuses the model: {'; '.join(told) or api.why()}",
        hint="edgekit check MODEL.onnx --target NAME says which rule it breaks; compile the bundle again",
    )


def _parser_error(api: Api, error: trt.ParserError) -> str:
    where = f"node {error.node()}"
    if api.has("ParserError.node_name") and error.node_name():
        where = f"node {error.node_name()}"
    if api.has("ParserError.node_operator") and error.node_operator():
        where += f" ({error.node_operator()})"
    return f"{where}: {' '.join(str(error.desc()).split())[:300]}"


def make_config(api: Api, builder: trt.Builder, options: BuildOptions, stepped: Stepped) -> trt.IBuilderConfig:
    """The builder's configuration."""
    import tensorrt as trt

    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib * 2**20)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.clear_flag(trt.BuilderFlag.TF32)
    if api.has("IBuilderConfig.max_aux_streams"):
        config.max_aux_streams = options.max_aux_streams
    if api.has("IBuilderConfig.builder_optimization_level") and options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if not is_strongly_typed(api):
        _allow_precisions(api, config, options.flags)
    monitor = _monitor(api, stepped)
    if monitor is not None and api.has("IBuilderConfig.progress_monitor"):
        config.progress_monitor = monitor
    return config


def _allow_precisions(api: Api, config: trt.IBuilderConfig, flags: tuple[str, ...]) -> None:
    import tensorrt as trt

    if "FP16" in flags and api.has("BuilderFlag.FP16"):
        config.set_flag(trt.BuilderFlag.FP16)
    if "INT8" in flags and api.has("BuilderFlag.INT8"):
        config.set_flag(trt.BuilderFlag.INT8)


def tells_progress(api: Api) -> bool:
    """Whether this version says how far a build is."""
    return api.has("IBuilderConfig.progress_monitor")


def _monitor(api: Api, stepped: Stepped) -> trt.IProgressMonitor | None:
    if not api.has("IProgressMonitor"):
        return None
    import tensorrt as trt

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the library is not typed
        """Tells the steps of the outermost phase; those inside it come and go. Its answer False ends the build (rule 6)."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.outer = ""
            self.steps = 1

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if not parent_phase:
                self.outer, self.steps = phase_name, max(1, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name == self.outer:
                _step(api, stepped, min(step + 1, self.steps), self.steps)
            return not (api.stopped or api.held)

        def phase_finish(self, phase_name: str) -> None:
            if phase_name == self.outer:
                _step(api, stepped, self.steps, self.steps)

    return Monitor()


def _step(api: Api, stepped: Stepped, done: int, total: int) -> None:
    """Tells a step, and keeps what that raises (rule 6)."""
    if api.stopped or api.held:
        return
    try:
        stepped(done, total)
    except BaseException as error:  # noqa: BLE001 - whatever it is, `build` raises it
        api.stopped.append(error)


def set_timings(config: trt.IBuilderConfig, kept: bytes) -> None:
    """Gives the builder the timings of earlier builds; empty bytes for none. Those that it does not take are left out: they only save time."""
    for content in (kept, b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, False):
            return


def get_timings(config: trt.IBuilderConfig) -> bytes:
    """The timings to keep; empty where there are none."""
    cache = config.get_timing_cache()
    return b"" if cache is None else bytes(memoryview(cache.serialize()))


def build(api: Api, builder: trt.Builder, network: trt.INetworkDefinition, config: trt.IBuilderConfig) -> bytes:
    """Builds a plan.

    Raises:
        TargetError: The builder gave none.
        BaseException: What the handler of a signal raises, KeyboardInterrupt for Ctrl-C. Before version 10 the library is not to be stopped, and it is raised
            when the build ends.
    """
    api.messages.clear()
    api.stopped.clear()
    with _signals_held(api) as came:
        plan = builder.build_serialized_network(network, config)
    if api.stopped:
        raise api.stopped[0]
    why = f"{' and '.join(signal.Signals(one).name for one in came)} stopped it" if came else api.why()
    if plan is None:
        raise TargetError(
            f"TensorRT {api.text} cannot build the engine: {why}",
            hint="where memory ran out, end other programs or add swap; edgekit doctor shows what this machine can build",
        )
    return bytes(memoryview(plan))


@contextlib.contextmanager
def _signals_held(api: Api) -> Iterator[list[int]]:
    """Holds signals until the library has returned, and then lists them: Python would handle them in whichever function it calls next, and raise through it."""
    came: list[int] = []
    # Only the main thread handles signals. A handler that Python did not set cannot be put back, and what is ignored stays ignored.
    stopping = _STOPPING if threading.current_thread() is threading.main_thread() else ()
    before: dict[int, Callable[[int, Any], Any]] = {one: kept for one in stopping if callable(kept := signal.getsignal(one))}
    api.held[:] = [one for one in api.held if one not in before]  # a second one can come while the first is handed over
    with contextlib.ExitStack() as after:
        after.callback(_handle_held, api, before, came)
        for number, kept in before.items():
            after.callback(signal.signal, number, kept)
            signal.signal(number, lambda number, _frame: api.held.append(number))
        yield came


def _handle_held(api: Api, before: Mapping[int, Callable[[int, Any], Any]], came: list[int]) -> None:
    came += dict.fromkeys(api.held)
    api.held[:] = [one for one in api.held if one not in before]  # before a handler raises: a later build, in any thread, is not stopped
    for number in (one for one in came if one in before):
        before[number](number, None)


def load_plan(api: Api, plan: bytes) -> tuple[trt.Runtime, trt.ICudaEngine]:
    """Runtime and engine of a plan that was checked.

    Raises:
        TargetError: The library does not take it.
    """
    import tensorrt as trt

    api.messages.clear()
    try:
        runtime = trt.Runtime(api.log)
    except (TypeError, RuntimeError) as error:
        raise TargetError(f"TensorRT {api.text} cannot run here: {api.why()}", hint="edgekit doctor shows what this machine has") from error
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise TargetError(f"TensorRT {api.text} does not take the plan that was built here: {api.why()}", hint="edgekit build BUNDLE")
    return runtime, engine


def tensors(engine: trt.ICudaEngine) -> tuple[TensorFacts, ...]:
    """Inputs and outputs of an engine, in its order."""
    import tensorrt as trt

    known = {trt.DataType.UINT8: "uint8", trt.DataType.FLOAT: "float32"}
    found = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        dtype = engine.get_tensor_dtype(name)
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        shape = tuple(int(side) for side in engine.get_tensor_shape(name))
        found.append(TensorFacts(name=name, is_input=is_input, dtype=known.get(dtype, str(dtype)), shape=shape))
    return tuple(found)


def layers(engine: trt.ICudaEngine) -> str:
    """What the builder made of the graph, as the library's JSON: for people and for `edgekit verify`."""
    import tensorrt as trt

    return str(engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))
