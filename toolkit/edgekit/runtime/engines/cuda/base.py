"""What the TensorRT engine needs of CUDA, and no more: one small protocol that every adapter keeps.

Rules every adapter keeps:

1. It uses the device's primary context: TensorRT, which uses the runtime library, then works in the same one.
2. Everything but `active` is called inside `with cuda.active():`, by one thread at a time; which thread it is may change from call to call.
3. A failure of the driver is a `TargetError` that names the call; nothing of the adapted library's own errors comes out.
4. What is allocated is freed by `free`, once, in any order; `close` is called last. The context may stay until the process ends.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """The GPU.

    Attributes:
        name: As the driver gives it.
        compute_capability: "8.7", for example.
        multiprocessors: Streaming multiprocessors.
        memory_bytes: All of its memory; on a Jetson the memory that CPU and GPU share.
        integrated: Whether it shares its memory with the CPU.
        maps_host_memory: Whether it can work on pinned host memory without a copy.
        io_coherent: Whether pinned memory stays cached for the CPU (compute capability 7.2 and newer where `integrated`).
    """

    name: str
    compute_capability: str
    multiprocessors: int
    memory_bytes: int
    integrated: bool
    maps_host_memory: bool
    io_coherent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CudaVersions:
    """Versions, each "major.minor": of the runtime or toolkit that the adapter was built with, and the newest one that the driver supports."""

    runtime: str
    driver: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HostBuffer:
    """Pinned host memory.

    Attributes:
        array: uint8 (bytes,), writable; must not be touched after `free`.
        device_pointer: Address of the same memory for the GPU; 0 where it was not mapped.
        handle: What the adapter keeps the memory by.
    """

    array: NDArray[np.uint8]
    device_pointer: int
    handle: object


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeviceBuffer:
    """Memory of the GPU: its address, its size, and what the adapter keeps it by."""

    pointer: int
    size_bytes: int
    handle: object


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stream:
    """A stream: its handle as an integer, as TensorRT takes it, and what the adapter keeps it by."""

    pointer: int
    handle: object


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Graph:
    """A captured graph that can be launched, and what the adapter keeps it by."""

    handle: object


Resource = HostBuffer | DeviceBuffer | Stream | Graph


def is_io_coherent(*, integrated: bool, compute_capability: tuple[int, int]) -> bool:
    """Whether pinned memory stays cached for the CPU: on Tegra from Xavier on (CUDA for Tegra application note, "Memory Selection")."""
    return integrated and compute_capability >= (7, 2)


def dotted(version: int) -> str:
    """CUDA's integers as text: 12060 is "12.6"."""
    return f"{version // 1000}.{version % 1000 // 10}"


class Cuda(Protocol):
    """The first GPU of this machine."""

    @property
    def library(self) -> str:
        """Name and version of the adapted library, "pycuda 2025.1" for example."""

    def active(self) -> AbstractContextManager[None]:
        """Makes the GPU current in the calling thread, for as long as the block lasts."""

    def versions(self) -> CudaVersions:
        """Versions of CUDA."""

    def device(self) -> DeviceFacts:
        """What the GPU is."""

    def stream(self) -> Stream:
        """A new stream that does not wait for the default one."""

    def host_alloc(self, size_bytes: int, *, mapped: bool) -> HostBuffer:
        """Pinned host memory, zeroed; with an address for the GPU where `mapped`."""

    def device_alloc(self, size_bytes: int) -> DeviceBuffer:
        """Memory of the GPU."""

    def copy_to_device_async(self, target: DeviceBuffer, source: HostBuffer, stream: Stream) -> None:
        """Enqueues a copy of the whole of `source`."""

    def copy_to_host_async(self, target: HostBuffer, source: DeviceBuffer, stream: Stream) -> None:
        """Enqueues a copy that fills `target`."""

    def synchronize(self, stream: Stream) -> None:
        """Waits until everything in the stream is done."""

    def begin_capture(self, stream: Stream) -> None:
        """From now on what this thread enqueues in the stream is recorded, not run; anything that cannot be recorded fails."""

    def end_capture(self, stream: Stream) -> Graph:
        """Ends the recording, also of one that failed, and gives the graph. The stream can be used again whatever comes out.

        Raises:
            TargetError: Something could not be recorded.
        """

    def launch(self, graph: Graph, stream: Stream) -> None:
        """Enqueues the recorded work."""

    def free(self, item: Resource) -> None:
        """Frees what one of the methods above made."""

    def close(self) -> None:
        """Ends the use of the GPU by this object."""
