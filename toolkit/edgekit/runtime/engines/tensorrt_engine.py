"""TensorRT on a GPU of NVIDIA's: a Jetson, or a PC.

Rules this file keeps:

1. Opening never builds: a build takes minutes and belongs to the installation (`edgekit build BUNDLE`). What is opened is the plan in the cache whose key
   is this device's and whose sha256 is right, and, where frames will be answered, which is the one that was seen to reproduce the golden frames; otherwise
   it is told that there is none, and why.
2. Everything is allocated once, before the first frame. Where CPU and GPU share memory and the CPU's cache stays valid, the GPU works on the host's
   memory; elsewhere a frame is copied in and the answer out, on the same stream.
3. A frame is one launch of a CUDA graph, captured after one plain run and compared with it; where that does not work, `describe` says why, and each frame
   is enqueued.
4. The context of the GPU is made current for each frame, in whichever thread it comes.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.manifest import EngineSpec
from edgekit.errors import BundleError, EdgekitError, TargetError
from edgekit.runtime.engines import cuda as cuda_layer
from edgekit.runtime.engines import tensorrt_api, tensorrt_build
from edgekit.runtime.engines.base import STATE, Availability, Engine, EngineNotBuiltError, RawOutput, check_shapes, in_order
from edgekit.runtime.engines.cache_keys import EntryKey, Unusable
from edgekit.runtime.engines.cuda.base import Cuda, DeviceBuffer, DeviceFacts, Graph, HostBuffer, Resource, Stream
from edgekit.runtime.engines.engine_cache import EngineCache
from edgekit.runtime.engines.tensorrt_api import TensorFacts

_Resource = TypeVar("_Resource", bound=Resource)
_AGAIN = "compile the bundle again"
_DTYPES: Mapping[str, type[np.generic]] = {"uint8": np.uint8, "float32": np.float32}


class TensorRtEngine(Engine):
    """A plan that was built on this device."""

    def __init__(self, program: _Program, spec: EngineSpec, version: str, *, cuda_graph: bool) -> None:
        self._program = program
        self._spec = spec
        self._version = version
        self._free = weakref.finalize(self, program.free)
        program.warm_up(cuda_graph=cuda_graph)

    @classmethod
    def open(cls, spec: EngineSpec, members: Mapping[str, memoryview], *, plan_sha256: str = "") -> TensorRtEngine:
        """Loads the plan of a model.

        Args:
            spec: The engine's entry in the manifest.
            members: Member name to its checked bytes.
            plan_sha256: Of the plan that it must be; empty for any that was built here for this model, to try it.

        Raises:
            MissingEngineError: TensorRT or a binding of CUDA is not installed.
            EngineNotBuiltError: There is no such plan in the cache.
            TargetError: TensorRT is not one that was proven, or this device cannot run the plan.
            BundleError: The model is not what the manifest says, or a setting is not one that a bundle may choose.
        """
        onnx = tensorrt_build.read_model(spec, members)
        settings = tensorrt_build.read_settings(spec)
        api = tensorrt_api.open_api()
        tensorrt_build.check_version_of(api, spec)
        cuda = cuda_layer.open_cuda()
        program = _Program(api, cuda)
        try:
            key = tensorrt_build.entry_key(spec, onnx, settings, tensorrt_build.device_key(api, cuda))
            program.load(_cached_plan(key, plan_sha256), spec)
            return cls(program, spec, api.text, cuda_graph=settings.cuda_graph)
        except BaseException:
            program.free()
            raise

    @staticmethod
    def available() -> Availability:
        try:
            api = tensorrt_api.open_api()
            cuda_layer.open_cuda().close()
        except EdgekitError as error:
            return Availability(version=None, reason=error.message, hint=error.hint or "edgekit doctor shows what this machine has")
        return Availability(version=api.text)

    def describe(self) -> dict[str, str]:
        program = self._program
        return {
            "name": self._spec.name,
            "version": self._version,
            "device": f"{program.device.name}, compute capability {program.device.compute_capability}",
            "precision": self._spec.precision,
            "threads": "one stream",
            "memory": "the host's, mapped" if program.mapped else "the device's, copied to and from pinned memory",
            "cuda_graph": program.no_graph or "captured",
            "cuda": program.cuda_versions,
        }

    def layers(self) -> str:
        """What the builder made of the graph: the engine inspector's JSON, whose keys are the library's; each layer has its precision and kernel."""
        return self._program.layers()

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self._program.taken.facts.shape

    @property
    def output_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {port.facts.name: port.facts.shape for port in self._program.outputs}

    @property
    def state_shape(self) -> tuple[int, ...] | None:
        state = self._program.state
        return None if state is None else state.facts.shape

    def close(self) -> None:
        self._free()

    def _infer(self, tensor: NDArray[np.uint8], state: NDArray[np.float32] | None) -> RawOutput:
        if not self._free.alive:
            raise TargetError("the engine was closed", hint="open the bundle again")
        return RawOutput.of(self._program.run(tensor, state))


def _cached_plan(key: EntryKey, sha256: str) -> bytes:
    """The plan, whose key and sha256 were found right (rule 1)."""
    found = EngineCache().load(key)
    if isinstance(found, Unusable):
        raise EngineNotBuiltError(f"{key.kind} is not built on this device: {found.reason}", hint="edgekit build BUNDLE")
    if sha256 and found.sha256 != sha256:
        raise EngineNotBuiltError(
            f"the plan of {key.kind} in the cache is not the one that reproduced the golden frames here", hint="edgekit build BUNDLE"
        )
    return found.payload


class _Port:
    """One input or output: pinned memory of the host, and memory of the device where that is not mapped."""

    def __init__(self, facts: TensorFacts, host: HostBuffer, device: DeviceBuffer | None) -> None:
        self.facts = facts
        self.host = host
        self.device = device
        self.address = host.device_pointer if device is None else device.pointer
        self.array: NDArray[Any] = host.array.view(_DTYPES[facts.dtype]).reshape(facts.shape)


class _Program:
    """A loaded plan with its memory and its stream."""

    taken: _Port
    state: _Port | None
    outputs: list[_Port]
    stream: Stream

    def __init__(self, api: tensorrt_api.Api, cuda: Cuda) -> None:
        self._api = api
        self._cuda = cuda
        self._held: list[Resource] = []
        self._objects: list[Any] = []  # of the library; the last one made is the first to go
        self._graph: Graph | None = None
        self._closed = False
        self.no_graph = "not captured yet"
        self.device: DeviceFacts = cuda.device()
        self.mapped = self.device.integrated and self.device.maps_host_memory and self.device.io_coherent
        versions = cuda.versions()
        self.cuda_versions = f"{versions.runtime} by {cuda.library}, driver for {versions.driver}"

    def load(self, plan: bytes, spec: EngineSpec) -> None:
        """Loads a plan and binds its inputs and outputs.

        Raises:
            TargetError: The library or the device does not take it.
            BundleError: Its inputs and outputs are not those of a bundle.
        """
        api = self._api
        with self._cuda.active():
            self._objects += tensorrt_api.load_plan(api, plan)
            engine = self._objects[-1]
            inputs, outputs = _sorted_tensors(tensorrt_api.tensors(engine), spec)
            context = engine.create_execution_context()
            if context is None:
                raise TargetError(
                    f"TensorRT {api.text} cannot run the engine: {api.why()}", hint="end other programs: memory may have run out"
                )
            self._objects.append(context)
            self.stream = self._hold(self._cuda.stream())
            ports = [self._port(facts) for facts in inputs]
            self.taken, self.state = ports[0], ports[1] if len(ports) > 1 else None
            self.outputs = [self._port(facts) for facts in outputs]
            for facts in inputs:
                if not context.set_input_shape(facts.name, facts.shape):
                    raise TargetError(f"TensorRT does not take the shape {facts.shape} of its own input", hint="edgekit build BUNDLE")
            for port in (*ports, *self.outputs):
                if not context.set_tensor_address(port.facts.name, port.address):
                    raise TargetError(f"TensorRT does not take the memory of {port.facts.name!r}: {api.why()}", hint="report this")

    def warm_up(self, *, cuda_graph: bool) -> None:
        """Runs once as it is, and then captures a graph that must give the same answer (rule 3)."""
        frame = np.arange(self.taken.array.size, dtype=np.uint32).astype(np.uint8).reshape(self.taken.array.shape)
        state = None if self.state is None else np.zeros(self.state.facts.shape, np.float32)
        expected = self.run(frame, state)
        if not cuda_graph:
            self.no_graph = "not wanted by the bundle"
            return
        try:
            self._graph = self._capture()
            found = self.run(frame, state)
            self.no_graph = "" if _same(found, expected) else "not used: its answers differ from a plain run's"
        except TargetError as error:
            self.no_graph = f"not used: {error.message}"
        if self.no_graph:
            self._graph = None
            # What failed may have left the context unusable; better to know now than at the first frame.
            if not _same(self.run(frame, state), expected):
                raise TargetError("TensorRT gives another answer after a CUDA graph could not be captured", hint="report this")

    def run(self, tensor: NDArray[np.uint8], state: NDArray[np.float32] | None) -> dict[str, NDArray[np.float32]]:
        """Outputs of one frame by name, as fresh arrays of the engine's shapes.

        Raises:
            TargetError: The device or the library failed.
        """
        with self._cuda.active():
            self.taken.array[...] = tensor
            if self.state is not None:
                self.state.array[...] = state
            if self._graph is None:
                self._enqueue()
            else:
                self._cuda.launch(self._graph, self.stream)
            self._cuda.synchronize(self.stream)
            return {port.facts.name: port.array.copy() for port in self.outputs}

    def layers(self) -> str:
        """The engine inspector's JSON."""
        _, engine, _ = self._objects
        with self._cuda.active():
            return tensorrt_api.layers(engine)

    def free(self) -> None:
        """Gives everything back; again does nothing.

        It goes on after what cannot be given back, and never raises for it: after an error of the GPU that is everything, and the error that led here is the
        one to tell.
        """
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(TargetError), self._cuda.active():
            while self._objects:
                self._objects.pop()
            while self._held:
                item = self._held.pop()
                with contextlib.suppress(TargetError):
                    self._cuda.free(item)
        # Where the GPU cannot be made current any more, the library's objects go all the same, in their order.
        while self._objects:
            self._objects.pop()
        with contextlib.suppress(TargetError):
            self._cuda.close()

    def _enqueue(self) -> None:
        for port in (self.taken, self.state):
            if port is not None and port.device is not None:
                self._cuda.copy_to_device_async(port.device, port.host, self.stream)
        if not self._objects[-1].execute_async_v3(self.stream.pointer):
            raise TargetError(f"TensorRT failed on a frame: {self._api.why()}", hint="edgekit doctor shows what this machine can run")
        for port in self.outputs:
            if port.device is not None:
                self._cuda.copy_to_host_async(port.host, port.device, self.stream)

    def _capture(self) -> Graph:
        with self._cuda.active():
            self._cuda.begin_capture(self.stream)
            try:
                self._enqueue()
            except BaseException:
                _end_failed_capture(self._cuda, self.stream)
                raise
            return self._hold(self._cuda.end_capture(self.stream))

    def _port(self, facts: TensorFacts) -> _Port:
        size = int(np.prod(facts.shape)) * np.dtype(_DTYPES[facts.dtype]).itemsize
        host = self._hold(self._cuda.host_alloc(size, mapped=self.mapped))
        return _Port(facts, host, None if self.mapped else self._hold(self._cuda.device_alloc(size)))

    def _hold(self, item: _Resource) -> _Resource:
        self._held.append(item)
        return item


def _end_failed_capture(cuda: Cuda, stream: Stream) -> None:
    """Brings the stream back to work; what failed is told by the error that led here."""
    try:
        cuda.free(cuda.end_capture(stream))
    except TargetError:
        return


def _same(found: Mapping[str, NDArray[np.float32]], expected: Mapping[str, NDArray[np.float32]]) -> bool:
    """Whether two answers are the same, bit for bit but for NaN, which is judged with the frames."""
    return all(np.array_equal(found[name], expected[name], equal_nan=True) for name in expected)


def _sorted_tensors(found: tuple[TensorFacts, ...], spec: EngineSpec) -> tuple[list[TensorFacts], list[TensorFacts]]:
    """The inputs, the frame first, and the outputs in the order of `OUTPUT_NAMES`; refuses an engine that does not have those of a bundle."""
    taken = sorted((facts for facts in found if facts.is_input), key=lambda facts: facts.name == STATE)
    given = {facts.name: facts for facts in found if not facts.is_input}
    if any(facts.dtype != ("float32" if facts.name == STATE else "uint8") for facts in taken):
        listed = [(facts.dtype, facts.shape) for facts in taken]
        raise BundleError(f"the model's inputs {listed} are not one uint8 tensor (1, rows, columns, channels)", hint=_AGAIN)
    if any(facts.dtype != "float32" for facts in given.values()):
        raise BundleError(f"the model's outputs {[(facts.dtype, facts.shape) for facts in given.values()]} are not float32", hint=_AGAIN)
    shapes = {name: facts.shape for name, facts in given.items()}
    check_shapes({facts.name: facts.shape for facts in taken}, shapes, spec)
    return taken, [given[name] for name in in_order(shapes)]
