"""What an adapter of the CUDA layer must do on a GPU, as checks that take the GPU.

`tests/gpu` runs them on real ones, and `tests/contract/test_gpu_checks.py` on the fake one and on fakes that are broken in one place, so that each check is known
to find what it is there for.

Rules this file keeps:

1. A check gets a `Rig` and a `note` to put down what it measured. It fails by an AssertionError or by the adapter's error.
2. It leaves nothing behind.
3. Everything is compared for being equal: bytes are moved, and integers are computed.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pytest
from gpu import FACTOR, TERM, Kernel, Rig
from numpy.typing import NDArray

from edgekit.errors import TargetError
from edgekit.profiler import memory
from edgekit.runtime.engines.cuda.base import Cuda, DeviceBuffer, Graph, HostBuffer, Resource, Stream

Note = Callable[[str, object], None]
_Made = TypeVar("_Made", bound=Resource)

FRAME_BYTES = 224 * 224 * 3 + 1
"""A frame, and one more: nothing fits a block or a page."""

REPLAYS = 1000
SOAK_REPLAYS = 20_000
SOAK_OPENS = 200
GROWTH_MIB = 8.0
"""What a soak may leave: far less than a kilobyte a replay or a buffer an opening would."""

_MIB = 2.0**20
_WARM_UP = 0.1
_BEYOND_HOST_MEMORY = 2**50


@dataclass(slots=True)
class _Desk:
    """An open adapter with a stream and the kernel; what is made on it is freed with it."""

    cuda: Cuda
    kernel: Kernel
    stream: Stream
    held: list[Resource] = field(default_factory=list)

    def hold(self, item: _Made) -> _Made:
        self.held.append(item)
        return item

    def host(self, size: int = FRAME_BYTES, *, mapped: bool = False) -> HostBuffer:
        return self.hold(self.cuda.host_alloc(size, mapped=mapped))

    def device(self, size: int = FRAME_BYTES) -> DeviceBuffer:
        return self.hold(self.cuda.device_alloc(size))

    def frame(self) -> _Frame:
        return _Frame(self)

    def round_trip(self, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bytes that went to the GPU and came back."""
        there, back, between = self.host(values.size), self.host(values.size), self.device(values.size)
        there.array[...] = values
        self.cuda.copy_to_device_async(between, there, self.stream)
        self.cuda.copy_to_host_async(back, between, self.stream)
        self.cuda.synchronize(self.stream)
        return back.array.copy()


class _Frame:
    """The way of a frame in the engine: pinned memory, a copy in, the kernel, a copy out; and a counter of the kernel's runs."""

    def __init__(self, desk: _Desk) -> None:
        self.desk = desk
        self.taken, self.given, self.counted = desk.host(), desk.host(), desk.host(4)
        self.source, self.target, self.runs = desk.device(), desk.device(), desk.device(4)
        desk.cuda.copy_to_device_async(self.runs, self.counted, desk.stream)
        desk.cuda.synchronize(desk.stream)

    def enqueue(self) -> None:
        cuda, stream = self.desk.cuda, self.desk.stream
        cuda.copy_to_device_async(self.source, self.taken, stream)
        self.desk.kernel(
            stream, target=self.target.pointer, source=self.source.pointer, runs=self.runs.pointer, count=self.taken.array.size
        )
        cuda.copy_to_host_async(self.given, self.target, stream)

    def capture(self) -> Graph:
        self.desk.cuda.begin_capture(self.desk.stream)
        self.enqueue()
        return self.desk.hold(self.desk.cuda.end_capture(self.desk.stream))

    def replay(self, graph: Graph, seed: int) -> None:
        """One launch on bytes of its own, which must give exactly what the kernel computes."""
        self.taken.array[...] = _noise(seed)
        self.desk.cuda.launch(graph, self.desk.stream)
        self.desk.cuda.synchronize(self.desk.stream)
        np.testing.assert_array_equal(self.given.array, _computed(self.taken.array))

    def count(self) -> int:
        """How often the kernel ran."""
        self.desk.cuda.copy_to_host_async(self.counted, self.runs, self.desk.stream)
        self.desk.cuda.synchronize(self.desk.stream)
        return int(self.counted.array.view(np.uint32)[0])


@contextlib.contextmanager
def _desk(rig: Rig) -> Iterator[_Desk]:
    cuda = rig.open()
    try:
        with cuda.active():
            desk = _Desk(cuda, rig.kernel(cuda), cuda.stream())
            desk.held.append(desk.stream)
            try:
                yield desk
            finally:
                while desk.held:
                    cuda.free(desk.held.pop())
    finally:
        cuda.close()


def _noise(seed: int, size: int = FRAME_BYTES) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def _computed(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return (values.astype(np.uint32) * FACTOR + TERM).astype(np.uint8)


def facts(rig: Rig, note: Note) -> None:
    """The adapter tells the GPU as the driver does; versions are numbers that a cache can be keyed with."""
    with _desk(rig) as desk:
        found, versions = desk.cuda.device(), desk.cuda.versions()
    assert (found.name, found.compute_capability) == (rig.gpu.name, rig.gpu.compute_capability)
    assert found.memory_bytes == rig.gpu.memory_bytes
    assert found.multiprocessors > 0
    assert versions.driver == rig.gpu.cuda
    assert re.fullmatch(r"\d+\.\d+", versions.runtime)
    note("adapter", f"{desk.cuda.library}, CUDA {versions.runtime}")


def copies(rig: Rig, note: Note) -> None:
    """Bytes go to the GPU and come back as they were; buffers of one byte and of many do."""
    with _desk(rig) as desk:
        for size in (1, 3, 4096, FRAME_BYTES, 8 * 2**20 + 1):
            values = _noise(size, size)
            np.testing.assert_array_equal(desk.round_trip(values), values)


def pinned_memory_starts_as_zeros(rig: Rig, note: Note) -> None:
    """Pinned memory is zeros, also where somebody wrote into it before."""
    with _desk(rig) as desk:
        for mapped in (False, _maps(desk)):
            for _ in range(8):
                buffer = desk.cuda.host_alloc(FRAME_BYTES, mapped=mapped)
                nonzero = int(np.count_nonzero(buffer.array))
                buffer.array[...] = 0xFF
                desk.cuda.free(buffer)
                assert nonzero == 0


def mapped_memory(rig: Rig, note: Note) -> None:
    """The GPU works on mapped memory itself, under the address it was given: no copy, and the CPU reads what the kernel wrote."""
    with _desk(rig) as desk:
        if not _maps(desk):
            pytest.skip(f"{rig.gpu.name} does not map host memory")
        source, target, runs = desk.host(mapped=True), desk.host(mapped=True), desk.host(4, mapped=True)
        assert 0 not in {source.device_pointer, target.device_pointer, runs.device_pointer}
        for seed in range(8):
            source.array[...] = _noise(seed)
            desk.kernel(
                desk.stream,
                target=target.device_pointer,
                source=source.device_pointer,
                runs=runs.device_pointer,
                count=source.array.size,
            )
            desk.cuda.synchronize(desk.stream)
            np.testing.assert_array_equal(target.array, _computed(source.array))
        assert int(runs.array.view(np.uint32)[0]) == 8


def _maps(desk: _Desk) -> bool:
    """Whether the GPU can work on the host's memory."""
    return desk.cuda.device().maps_host_memory


def stream_order(rig: Rig, note: Note) -> None:
    """What is put into a stream is done in its order, copies and another library's kernel alike: a chain of kernels gives what the chain computes."""
    with _desk(rig) as desk:
        frame = desk.frame()
        frame.taken.array[...] = _noise(0)
        desk.cuda.copy_to_device_async(frame.source, frame.taken, desk.stream)
        expected = frame.taken.array.copy()
        buffers = [frame.source.pointer, frame.target.pointer]
        for _ in range(63):
            desk.kernel(desk.stream, target=buffers[1], source=buffers[0], runs=frame.runs.pointer, count=FRAME_BYTES)
            buffers.reverse()
            expected = _computed(expected)
        desk.cuda.copy_to_host_async(frame.given, frame.target, desk.stream)
        desk.cuda.synchronize(desk.stream)
        np.testing.assert_array_equal(frame.given.array, expected)
        assert frame.count() == 63


def graph_replay(rig: Rig, note: Note) -> None:
    """A recording runs nothing; each launch of it runs everything once, on what is in the memory then."""
    with _desk(rig) as desk:
        frame = desk.frame()
        frame.taken.array[...] = _noise(0)
        frame.given.array[...] = 0xEE
        graph = frame.capture()
        assert frame.count() == 0
        assert set(frame.given.array.tolist()) == {0xEE}
        for seed in range(REPLAYS):
            frame.replay(graph, seed)
        assert frame.count() == REPLAYS
        note("replays", REPLAYS)


def failed_capture(rig: Rig, note: Note) -> None:
    """What cannot be recorded is an error of the device, and the stream works again when the recording was ended."""
    with _desk(rig) as desk:
        frame = desk.frame()
        desk.cuda.begin_capture(desk.stream)
        with pytest.raises(TargetError):
            desk.cuda.synchronize(desk.stream)
        try:
            desk.cuda.free(desk.cuda.end_capture(desk.stream))
            note("end of a failed recording", "a graph")
        except TargetError as error:
            note("end of a failed recording", error.message)
        frame.taken.array[...] = _noise(1)
        frame.enqueue()
        desk.cuda.synchronize(desk.stream)
        np.testing.assert_array_equal(frame.given.array, _computed(frame.taken.array))
        frame.replay(frame.capture(), 2)


def capture_beside_another_thread(rig: Rig, note: Note) -> None:
    """Memory that another thread takes and gives back meanwhile does not end a recording."""

    def elsewhere() -> None:
        with desk.cuda.active():
            desk.cuda.free(desk.cuda.device_alloc(FRAME_BYTES))

    with _desk(rig) as desk:
        frame = desk.frame()
        desk.cuda.begin_capture(desk.stream)
        try:
            frame.enqueue()
            _in_a_thread(elsewhere)
        finally:
            graph = desk.hold(desk.cuda.end_capture(desk.stream))
        frame.replay(graph, 3)


def any_thread(rig: Rig, note: Note) -> None:
    """A frame can come in any thread: what one made another uses."""
    with _desk(rig) as desk:
        frame = desk.frame()
        graph = frame.capture()

        def elsewhere() -> None:
            with desk.cuda.active():
                frame.replay(graph, 4)

        _in_a_thread(elsewhere)
        frame.replay(graph, 5)


def _in_a_thread(work: Callable[[], None]) -> None:
    """Runs something in a thread of its own; what it raises is raised here."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - it is raised again
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def errors(rig: Rig, note: Note) -> None:
    """More memory than there is is an error of the device with a hint; after it everything works as before."""
    with _desk(rig) as desk:
        for ask in (
            lambda: desk.cuda.device_alloc(2 * rig.gpu.memory_bytes),
            lambda: desk.cuda.host_alloc(_BEYOND_HOST_MEMORY, mapped=False),
        ):
            with pytest.raises(TargetError) as caught:
                ask()
            assert caught.value.hint
            note("too much memory", caught.value.message)
        values = _noise(6)
        np.testing.assert_array_equal(desk.round_trip(values), values)


def memory_comes_back(rig: Rig, note: Note) -> None:
    """What is freed is free memory of the GPU again."""
    size = 256 * 2**20
    with _desk(rig) as desk:
        before = rig.free_bytes(desk.cuda)
        buffer = desk.cuda.device_alloc(size)
        during = rig.free_bytes(desk.cuda)
        desk.cuda.free(buffer)
        after = rig.free_bytes(desk.cuda)
    assert before - during >= size - GROWTH_MIB * _MIB
    assert abs(after - before) <= GROWTH_MIB * _MIB


def soak_replays(rig: Rig, note: Note) -> None:
    """Launch after launch takes no more memory, of the GPU or of the process, and every one of them runs."""
    with _desk(rig) as desk:
        frame = desk.frame()
        graph = frame.capture()
        for seed in range(int(_WARM_UP * REPLAYS)):
            frame.replay(graph, seed)
        with _no_growth(rig, desk.cuda, note):
            for _ in range(SOAK_REPLAYS):
                desk.cuda.launch(graph, desk.stream)
                desk.cuda.synchronize(desk.stream)
        frame.replay(graph, 7)
        assert frame.count() == int(_WARM_UP * REPLAYS) + SOAK_REPLAYS + 1
        note("replays", SOAK_REPLAYS)


def soak_opens(rig: Rig, note: Note) -> None:
    """Opened, used and closed again and again, as by a program that changes bundles, it takes no more memory."""

    def use() -> None:
        with _desk(rig) as desk:
            frame = desk.frame()
            desk.device(4 * 2**20)
            frame.replay(frame.capture(), 8)

    for _ in range(int(_WARM_UP * SOAK_OPENS)):
        use()
    # The context of the GPU is the process's, so a look at its memory is no part of what is counted.
    with _desk(rig) as watch, _no_growth(rig, watch.cuda, note):
        for _ in range(SOAK_OPENS):
            use()
    note("opens", SOAK_OPENS)


@contextlib.contextmanager
def _no_growth(rig: Rig, cuda: Cuda, note: Note) -> Iterator[None]:
    """The memory that is taken inside is given back inside."""
    before, resident = rig.free_bytes(cuda), _proportional_mib()
    yield
    device, host = (before - rig.free_bytes(cuda)) / _MIB, _proportional_mib() - resident
    note("growth", f"GPU {device:+.2f} MiB, PSS {host:+.2f} MiB")
    assert device <= GROWTH_MIB
    assert host <= GROWTH_MIB


def _proportional_mib() -> float:
    found = memory.read()
    if found.proportional_mib is None:
        pytest.skip(found.unavailable["proportional_mib"])
    return found.proportional_mib


CHECKS: Mapping[str, Callable[[Rig, Note], Any]] = {
    check.__name__.replace("_", "-"): check
    for check in (
        facts,
        copies,
        pinned_memory_starts_as_zeros,
        mapped_memory,
        stream_order,
        graph_replay,
        failed_capture,
        capture_beside_another_thread,
        any_thread,
        errors,
        memory_comes_back,
        soak_replays,
        soak_opens,
    )
}
"""Name to check."""
