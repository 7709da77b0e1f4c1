"""The CUDA layer by way of pycuda (the driver's API)."""

from __future__ import annotations

import contextlib
import functools
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
from edgekit.runtime.engines.cuda.driver_graph import DriverGraphs

# CU_STREAM_NON_BLOCKING
_NON_BLOCKING = 1


def open_cuda() -> PyCuda:
    """The first GPU.

    Raises:
        MissingEngineError: pycuda is not installed, or the driver's library is not there.
        TargetError: There is no GPU.
    """
    try:
        import pycuda
        import pycuda.driver
    except (ImportError, OSError) as error:
        raise MissingEngineError(f"pycuda cannot be loaded: {error}") from error
    return PyCuda(pycuda.driver, pycuda.VERSION_TEXT)


class PyCuda:
    """The protocol `Cuda` on pycuda.

    Args:
        driver: The module `pycuda.driver`.
        version: Of pycuda.
    """

    def __init__(self, driver: Any, version: str) -> None:
        self._driver = driver
        self._version = version
        self._graphs: DriverGraphs | None = None
        with self._told("there is no GPU that pycuda can use"):
            self._device, self._context = _primary_context(driver)

    @property
    def library(self) -> str:
        return f"pycuda {self._version}"

    @contextmanager
    def active(self) -> Iterator[None]:
        with self._told("the context of the GPU"):
            self._context.push()
        try:
            yield
        except BaseException:
            # What failed is what is told, not that the context cannot be left after it.
            with contextlib.suppress(self._driver.Error):
                self._driver.Context.pop()
            raise
        with self._told("leaving the context of the GPU"):
            self._driver.Context.pop()

    def versions(self) -> CudaVersions:
        with self._told("the version of CUDA"):
            major, minor = self._driver.get_version()[:2]
            return CudaVersions(runtime=f"{major}.{minor}", driver=dotted(self._driver.get_driver_version()))

    def device(self) -> DeviceFacts:
        with self._told("the facts of the GPU"):
            kinds, device = self._driver.device_attribute, self._device
            capability = device.compute_capability()
            integrated = bool(device.get_attribute(kinds.INTEGRATED))
            return DeviceFacts(
                name=device.name(),
                compute_capability=f"{capability[0]}.{capability[1]}",
                multiprocessors=device.get_attribute(kinds.MULTIPROCESSOR_COUNT),
                memory_bytes=int(device.total_memory()),
                integrated=integrated,
                maps_host_memory=bool(device.get_attribute(kinds.CAN_MAP_HOST_MEMORY)),
                io_coherent=is_io_coherent(integrated=integrated, compute_capability=tuple(capability)),
            )

    def stream(self) -> Stream:
        with self._told("a stream"):
            made = self._driver.Stream(_NON_BLOCKING)
            # pycuda destroys a stream with its last reference, so `free` must be able to drop it.
            return Stream(pointer=int(made.handle), handle=[made])

    def host_alloc(self, size_bytes: int, *, mapped: bool) -> HostBuffer:
        kinds = self._driver.host_alloc_flags
        with self._told(f"{size_bytes} bytes of pinned memory"):
            flags = kinds.PORTABLE | kinds.DEVICEMAP if mapped else kinds.PORTABLE
            array = self._driver.pagelocked_empty(size_bytes, np.uint8, mem_flags=flags)
            array[...] = 0
            allocation = array.base
            return HostBuffer(array=array, device_pointer=int(allocation.get_device_pointer()) if mapped else 0, handle=allocation)

    def device_alloc(self, size_bytes: int) -> DeviceBuffer:
        with self._told(f"{size_bytes} bytes of the GPU's memory"):
            allocation = self._driver.mem_alloc(size_bytes)
            return DeviceBuffer(pointer=int(allocation), size_bytes=size_bytes, handle=allocation)

    def copy_to_device_async(self, target: DeviceBuffer, source: HostBuffer, stream: Stream) -> None:
        with self._told("a copy to the GPU"):
            self._driver.memcpy_htod_async(target.pointer, source.array, _only(stream))

    def copy_to_host_async(self, target: HostBuffer, source: DeviceBuffer, stream: Stream) -> None:
        with self._told("a copy from the GPU"):
            self._driver.memcpy_dtoh_async(target.array, source.pointer, _only(stream))

    def synchronize(self, stream: Stream) -> None:
        with self._told("waiting for the GPU"):
            _only(stream).synchronize()

    def begin_capture(self, stream: Stream) -> None:
        if self._graphs is None:
            self._graphs = DriverGraphs()
        self._graphs.begin(stream.pointer)

    def end_capture(self, stream: Stream) -> Graph:
        return Graph(handle=self._captured().end(stream.pointer))

    def launch(self, graph: Graph, stream: Stream) -> None:
        self._captured().launch(_executable(graph), stream.pointer)

    def free(self, item: Resource) -> None:
        with self._told("giving memory back"):
            if isinstance(item, Graph):
                self._captured().destroy(_executable(item))
            elif isinstance(item, Stream):
                _held(item).clear()
            else:
                allocation: Any = item.handle
                allocation.free()

    def close(self) -> None:
        """The primary context stays until the process ends: pycuda, when it gives one back, leaves it current in the thread."""

    def _captured(self) -> DriverGraphs:
        if self._graphs is None:
            raise TargetError("nothing was captured", hint="begin with begin_capture")
        return self._graphs

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._driver.Error as error:
            raise TargetError(f"CUDA failed: {what}: {error}", hint="edgekit doctor shows what this machine has") from error


@functools.cache
def _primary_context(driver: Any) -> tuple[Any, Any]:
    """Device and context, one a process. Not `make_context`: TensorRT uses the runtime's API, whose context is the primary one."""
    driver.init()
    device = driver.Device(0)
    return device, device.retain_primary_context()


def _executable(graph: Graph) -> int:
    if not isinstance(graph.handle, int):
        raise TargetError("the graph is not one that was captured here", hint="open the bundle again")
    return graph.handle


def _held(stream: Stream) -> list[Any]:
    handle = stream.handle
    return handle if isinstance(handle, list) else []


def _only(stream: Stream) -> Any:
    held = _held(stream)
    if not held:
        raise TargetError("the stream was given back", hint="open the bundle again")
    return held[0]
