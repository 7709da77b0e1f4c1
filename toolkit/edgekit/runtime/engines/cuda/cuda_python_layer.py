"""The CUDA layer by way of cuda-python (the runtime's API), in both of its forms: `cuda.bindings.runtime`, and `cuda.cudart` of before 12.6."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from edgekit.errors import MissingEngineError, TargetError
from edgekit.runtime.engines.cuda.base import (
    CudaVersions,
    DeviceBuffer,
    DeviceFacts,
    Graph,
    HostBuffer,
    Resource,
    Stream,
    dotted,
    is_io_coherent,
)

_FORMS = ("cuda.bindings.runtime", "cuda.cudart")
_DEVICE = 0
# cudaStreamNonBlocking; cudaHostAllocPortable and cudaHostAllocMapped; no flags of cudaGraphInstantiateWithFlags
_NON_BLOCKING, _PORTABLE, _MAPPED, _PLAIN = 1, 1, 2, 0


def open_cuda() -> CudaPython:
    """The first GPU.

    Raises:
        MissingEngineError: cuda-python is not installed.
        TargetError: There is no GPU or no driver.
    """
    reasons = []
    for form in _FORMS:
        try:
            runtime = importlib.import_module(form)
        except (ImportError, OSError) as error:
            reasons.append(str(error))
        else:
            parent = importlib.import_module(form.rpartition(".")[0])
            return CudaPython(runtime, str(getattr(parent, "__version__", "of unknown version")))
    raise MissingEngineError(f"cuda-python cannot be loaded: {'; '.join(reasons)}")


class CudaPython:
    """The protocol `Cuda` on cuda-python.

    Args:
        runtime: The module with the functions of the runtime.
        version: Of cuda-python.
    """

    def __init__(self, runtime: Any, version: str) -> None:
        self._runtime = runtime
        self._version = version
        with self.active():
            self._facts = self._read_facts()

    @property
    def library(self) -> str:
        return f"cuda-python {self._version}"

    @contextmanager
    def active(self) -> Iterator[None]:
        self._call("cudaSetDevice", _DEVICE)
        yield

    def versions(self) -> CudaVersions:
        return CudaVersions(runtime=dotted(self._call("cudaRuntimeGetVersion")), driver=dotted(self._call("cudaDriverGetVersion")))

    def device(self) -> DeviceFacts:
        return self._facts

    def stream(self) -> Stream:
        made = self._call("cudaStreamCreateWithFlags", _NON_BLOCKING)
        return Stream(pointer=int(made), handle=made)

    def host_alloc(self, size_bytes: int, *, mapped: bool) -> HostBuffer:
        pointer = int(self._call("cudaHostAlloc", size_bytes, _PORTABLE | _MAPPED if mapped else _PORTABLE))
        array = np.ctypeslib.as_array((ctypes.c_uint8 * size_bytes).from_address(pointer))
        array[...] = 0
        on_device = int(self._call("cudaHostGetDevicePointer", pointer, 0)) if mapped else 0
        return HostBuffer(array=array, device_pointer=on_device, handle=pointer)

    def device_alloc(self, size_bytes: int) -> DeviceBuffer:
        pointer = int(self._call("cudaMalloc", size_bytes))
        return DeviceBuffer(pointer=pointer, size_bytes=size_bytes, handle=pointer)

    def copy_to_device_async(self, target: DeviceBuffer, source: HostBuffer, stream: Stream) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", target.pointer, source.handle, source.array.nbytes, kind, stream.handle)

    def copy_to_host_async(self, target: HostBuffer, source: DeviceBuffer, stream: Stream) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", target.handle, source.pointer, target.array.nbytes, kind, stream.handle)

    def synchronize(self, stream: Stream) -> None:
        self._call("cudaStreamSynchronize", stream.handle)

    def begin_capture(self, stream: Stream) -> None:
        # Thread-local: what other threads do with CUDA meanwhile does not end the recording.
        self._call("cudaStreamBeginCapture", stream.handle, self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)

    def end_capture(self, stream: Stream) -> Graph:
        graph = self._call("cudaStreamEndCapture", stream.handle)
        try:
            return Graph(handle=self._call("cudaGraphInstantiateWithFlags", graph, _PLAIN))
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: Graph, stream: Stream) -> None:
        self._call("cudaGraphLaunch", graph.handle, stream.handle)

    def free(self, item: Resource) -> None:
        for kind, function in _FREE.items():
            if isinstance(item, kind):
                self._call(function, item.handle)

    def close(self) -> None:
        """The runtime keeps the primary context until the process ends: others in it may use the GPU too."""

    def _read_facts(self) -> DeviceFacts:
        found = self._call("cudaGetDeviceProperties", _DEVICE)
        capability = (int(found.major), int(found.minor))
        name = found.name
        return DeviceFacts(
            name=name.decode("utf-8", "replace").rstrip("\0") if isinstance(name, bytes) else str(name),
            compute_capability=f"{capability[0]}.{capability[1]}",
            multiprocessors=int(found.multiProcessorCount),
            memory_bytes=int(found.totalGlobalMem),
            integrated=bool(found.integrated),
            maps_host_memory=bool(found.canMapHostMemory),
            io_coherent=is_io_coherent(integrated=bool(found.integrated), compute_capability=capability),
        )

    def _call(self, name: str, *arguments: Any) -> Any:
        """Calls a function of the runtime, and gives its result; each gives its status before that."""
        try:
            status, *results = getattr(self._runtime, name)(*arguments)
        except RuntimeError as error:  # so cuda-python tells that the driver's library is not there
            raise TargetError(f"CUDA failed: {name}: {error}", hint="edgekit doctor shows what this machine has") from error
        if int(status) != 0:
            _, told = self._runtime.cudaGetErrorName(status)
            text = told.decode("ascii", "replace") if isinstance(told, bytes) else str(told)
            raise TargetError(f"CUDA failed: {name}: {text}", hint="edgekit doctor shows what this machine has")
        return results[0] if results else None


_FREE: dict[type, str] = {HostBuffer: "cudaFreeHost", DeviceBuffer: "cudaFree", Stream: "cudaStreamDestroy", Graph: "cudaGraphExecDestroy"}
