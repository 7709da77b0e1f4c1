"""A GPU made of numpy arrays, behind the protocol of `edgekit.runtime.engines.cuda`.

Rules this file keeps:

1. Work in a stream is put down and only done at `synchronize`: a result that is read before shows what was there before.
2. An address is a number that no memory of this process has. It leads to its bytes only while its buffer lives, and only where the GPU may reach it.
3. What a real GPU answers with undefined behaviour is a `MisuseError` here: a freed or foreign address, a buffer freed twice, a call outside `active`.
4. A capture records; nothing of it runs before `launch`, and then on the addresses of the recording. What cannot be captured makes it fail.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import TargetError
from edgekit.runtime.engines.cuda.base import CudaVersions, DeviceBuffer, DeviceFacts, Graph, HostBuffer, Resource, Stream

ALIGNMENT = 256
FAILURES = frozenset({"capture", "device_alloc", "free", "host_alloc", "launch", "stream", "synchronize"})
"""Methods that can be told to fail; "capture" is `end_capture`."""


class MisuseError(AssertionError):
    """Something was done that a real GPU or TensorRT answers with undefined behaviour."""


ORIN = DeviceFacts(
    name="Orin",
    compute_capability="8.7",
    multiprocessors=8,
    memory_bytes=8 * 2**30,
    integrated=True,
    maps_host_memory=True,
    io_coherent=True,
)
DISCRETE = DeviceFacts(
    name="NVIDIA H100 80GB HBM3",
    compute_capability="9.0",
    multiprocessors=132,
    memory_bytes=80 * 2**30,
    integrated=False,
    maps_host_memory=True,
    io_coherent=False,
)


@dataclass(slots=True)
class _Stream:
    """What is still to be done in a stream, and the recording, while there is one."""

    pending: list[Callable[[], None]] = field(default_factory=list)
    recording: list[Callable[[], None]] | None = None


class FakeCuda:
    """The first GPU.

    Args:
        facts: What the GPU is.
        versions: Of CUDA.
        fail: Of `FAILURES`.

    Attributes:
        calls: The names of the methods called, in order, `active` and the versions left out.
        live: Resources that were made and not freed yet.
        closed: Whether `close` was called.
    """

    def __init__(self, facts: DeviceFacts = ORIN, versions: CudaVersions | None = None, fail: Collection[str] = ()) -> None:
        if unknown := set(fail) - FAILURES:
            raise ValueError(f"{sorted(unknown)} cannot be made to fail: {sorted(FAILURES)}")
        self.facts = facts
        self.fail = set(fail)
        self.calls: list[str] = []
        self.live: list[Resource] = []
        self.closed = False
        self._versions = versions or CudaVersions(runtime="12.6", driver="12.6")
        self._memory: dict[int, NDArray[np.uint8]] = {}
        self._streams: dict[int, _Stream] = {}
        self._next = 0x7F00_0000_0000
        self._depth = 0

    @property
    def library(self) -> str:
        return "fake 1.0"

    @contextmanager
    def active(self) -> Iterator[None]:
        if self.closed:
            raise MisuseError("the GPU is used after `close`")
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def versions(self) -> CudaVersions:
        return self._versions

    def device(self) -> DeviceFacts:
        return self.facts

    def stream(self) -> Stream:
        self._called("stream")
        made = Stream(pointer=self._address(1), handle=object())
        self._streams[made.pointer] = _Stream()
        self.live.append(made)
        return made

    def host_alloc(self, size_bytes: int, *, mapped: bool) -> HostBuffer:
        self._called("host_alloc")
        if mapped and not self.facts.maps_host_memory:
            raise TargetError("cudaHostAlloc: this GPU cannot map host memory")
        array = np.zeros(size_bytes, dtype=np.uint8)
        address = self._address(size_bytes) if mapped else 0
        if mapped:
            self._memory[address] = array
        made = HostBuffer(array=array, device_pointer=address, handle=object())
        self.live.append(made)
        return made

    def device_alloc(self, size_bytes: int) -> DeviceBuffer:
        self._called("device_alloc")
        made = DeviceBuffer(pointer=self._address(size_bytes), size_bytes=size_bytes, handle=object())
        # What was in the memory before, so that reading it unwritten shows.
        self._memory[made.pointer] = np.full(size_bytes, 0xA5, dtype=np.uint8)
        self.live.append(made)
        return made

    def copy_to_device_async(self, target: DeviceBuffer, source: HostBuffer, stream: Stream) -> None:
        self._called("copy_to_device_async")
        self._check_live(target, source, stream)
        if source.array.nbytes > target.size_bytes:
            raise MisuseError(f"{source.array.nbytes} bytes are copied into a buffer of {target.size_bytes}")
        self.enqueue(stream.pointer, lambda: self._copy_in(target.pointer, source.array))

    def copy_to_host_async(self, target: HostBuffer, source: DeviceBuffer, stream: Stream) -> None:
        self._called("copy_to_host_async")
        self._check_live(target, source, stream)
        if target.array.nbytes > source.size_bytes:
            raise MisuseError(f"{target.array.nbytes} bytes are copied out of a buffer of {source.size_bytes}")
        self.enqueue(stream.pointer, lambda: self._copy_out(target.array, source.pointer))

    def synchronize(self, stream: Stream) -> None:
        self._called("synchronize")
        self._check_live(stream)
        state = self._streams[stream.pointer]
        if state.recording is not None:
            raise TargetError("cuStreamSynchronize: operation not permitted when stream is capturing")
        pending, state.pending = state.pending, []
        for work in pending:
            work()

    def begin_capture(self, stream: Stream) -> None:
        self._called("begin_capture")
        self._check_live(stream)
        if self._streams[stream.pointer].recording is not None:
            raise TargetError("cuStreamBeginCapture: the stream is capturing already")
        self._streams[stream.pointer].recording = []

    def end_capture(self, stream: Stream) -> Graph:
        self.calls.append("end_capture")
        self._check_live(stream)
        recording, self._streams[stream.pointer].recording = self._streams[stream.pointer].recording, None
        if recording is None:
            raise TargetError("cuStreamEndCapture: the stream is not capturing")
        if "capture" in self.fail:
            raise TargetError("cuStreamEndCapture: operation not permitted when stream is capturing")
        made = Graph(handle=tuple(recording))
        self.live.append(made)
        return made

    def launch(self, graph: Graph, stream: Stream) -> None:
        self._called("launch")
        self._check_live(graph, stream)
        works = graph.handle
        if not isinstance(works, tuple):
            raise MisuseError("the graph is not one that was captured here")
        for work in works:
            self.enqueue(stream.pointer, work)

    def free(self, item: Resource) -> None:
        self._called("free")
        self._check_live(item)
        self.live = [resource for resource in self.live if resource is not item]
        if isinstance(item, Stream):
            del self._streams[item.pointer]
        elif isinstance(item, DeviceBuffer):
            del self._memory[item.pointer]
        elif isinstance(item, HostBuffer) and item.device_pointer:
            del self._memory[item.device_pointer]

    def close(self) -> None:
        self.calls.append("close")
        if self.closed:
            raise MisuseError("`close` is called twice")
        self.closed = True

    def enqueue(self, stream_pointer: int, work: Callable[[], None]) -> None:
        """Puts work down in a stream, or into its recording.

        Raises:
            MisuseError: There is no such stream.
        """
        if stream_pointer not in self._streams:
            raise MisuseError(f"{stream_pointer:#x} is the handle of no stream that is alive")
        state = self._streams[stream_pointer]
        (state.pending if state.recording is None else state.recording).append(work)

    def capturing(self, stream_pointer: int) -> bool:
        """Whether what is put into a stream is recorded and not run."""
        return stream_pointer in self._streams and self._streams[stream_pointer].recording is not None

    def memory(self, address: int, size_bytes: int) -> NDArray[np.uint8]:
        """The bytes behind an address of the GPU; a view.

        Raises:
            MisuseError: The GPU cannot reach so many bytes there.
        """
        for start, array in self._memory.items():
            if start <= address < start + max(array.nbytes, 1):
                if address - start + size_bytes > array.nbytes:
                    raise MisuseError(
                        f"{size_bytes} bytes are used at {address:#x}, where {array.nbytes - (address - start)} are allocated"
                    )
                return array[address - start : address - start + size_bytes]
        raise MisuseError(f"the GPU has no memory at {address:#x}")

    def _copy_in(self, address: int, source: NDArray[np.uint8]) -> None:
        self.memory(address, source.nbytes)[:] = source

    def _copy_out(self, target: NDArray[np.uint8], address: int) -> None:
        target[:] = self.memory(address, target.nbytes)

    def _address(self, size_bytes: int) -> int:
        address = self._next
        self._next += (size_bytes // ALIGNMENT + 2) * ALIGNMENT
        return address

    def _called(self, method: str) -> None:
        if not self._depth:
            raise MisuseError(f"`{method}` is called outside `active`")
        self.calls.append(method)
        if method in self.fail:
            raise TargetError(f"{method}: out of memory")

    def _check_live(self, *items: Resource) -> None:
        for item in items:
            if not any(item is resource for resource in self.live):
                raise MisuseError(f"a {type(item).__name__} is used that was freed or that another GPU made")


def fake_cuda(facts: DeviceFacts = ORIN, versions: CudaVersions | None = None, fail: Collection[str] = ()) -> FakeCuda:
    """A GPU without a GPU; see `FakeCuda`."""
    return FakeCuda(facts, versions, fail)
