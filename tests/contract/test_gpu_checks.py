"""The checks that are run on a GPU, on the fake one: a GPU that is right passes each, and one that is broken in one place is found by the check that is there for it.

So what runs on a machine with a GPU is known to run, and to be able to fail.
"""

from __future__ import annotations

import ctypes
import mmap

import gpu_checks
import numpy as np
import pytest
from fake_cuda import DISCRETE, ORIN, FakeCuda
from gpu import _FUNCTIONS, FACTOR, TERM, Driver, DriverError, DriverKernel, Gpu, Rig, free_bytes, read_gpu
from gpu_checks import CHECKS

from edgekit.errors import TargetError
from edgekit.runtime.engines.cuda.base import CudaVersions, DeviceBuffer, HostBuffer, Stream

LEAK_BYTES = 16 * 1024


class Card(FakeCuda):
    """A fake GPU that has an end to its memory; how much is taken is counted over all that use it."""

    taken = 0

    def device_alloc(self, size_bytes):
        if size_bytes > self.facts.memory_bytes - Card.taken:
            raise TargetError("CUDA failed: cudaMalloc: out of memory", hint="end other programs")
        Card.taken += size_bytes
        return super().device_alloc(size_bytes)

    def host_alloc(self, size_bytes, *, mapped):
        if size_bytes > 2**40:
            raise TargetError("CUDA failed: cudaHostAlloc: out of memory", hint="end other programs")
        return super().host_alloc(size_bytes, mapped=mapped)

    def free(self, item):
        super().free(item)
        if isinstance(item, DeviceBuffer):
            Card.taken -= item.size_bytes


class Numpy:
    """The stand-in kernel in numpy."""

    def __init__(self, cuda):
        self.cuda = cuda

    def __call__(self, stream, *, target, source, runs, count):
        def work():
            values = self.cuda.memory(source, count).astype(np.uint32)
            self.cuda.memory(target, count)[:] = (values * FACTOR + TERM).astype(np.uint8)
            self.cuda.memory(runs, 4).view(np.uint32)[0] += 1

        self.cuda.enqueue(stream.pointer, work)


def rig(kind=Card, facts=DISCRETE):
    """A fake GPU as the checks take it."""
    Card.taken = 0
    gpu = Gpu(name=facts.name, compute_capability=facts.compute_capability, memory_bytes=facts.memory_bytes, cuda="12.6")
    return Rig(open=lambda: kind(facts), kernel=Numpy, free_bytes=lambda _: facts.memory_bytes - Card.taken, gpu=gpu)


@pytest.fixture
def noted(monkeypatch):
    """What a check puts down. The fake needs no twenty thousand launches: it leaks in big pieces."""
    monkeypatch.setattr(gpu_checks, "REPLAYS", 100)
    monkeypatch.setattr(gpu_checks, "SOAK_REPLAYS", 1000)
    monkeypatch.setattr(gpu_checks, "SOAK_OPENS", 20)
    return {}


@pytest.mark.parametrize("facts", [DISCRETE, ORIN], ids=["discrete", "integrated"])
@pytest.mark.parametrize("check", CHECKS)
def test_a_gpu_that_is_right_passes(check, facts, noted):
    """Every check passes on the fake GPU, with memory of its own and with the CPU's."""
    CHECKS[check](rig(facts=facts), noted.__setitem__)
    assert Card.taken == 0


class OtherName(Card):
    def device(self):
        return ORIN


class OldDriver(Card):
    def versions(self):
        return CudaVersions(runtime="12.6", driver="11.4")


class LosesTheLastByte(Card):
    def copy_to_host_async(self, target, source, stream):
        super().copy_to_host_async(target, source, stream)
        self.enqueue(stream.pointer, lambda: target.array.__setitem__(-1, 0))


class Dirty(Card):
    def host_alloc(self, size_bytes, *, mapped):
        made = super().host_alloc(size_bytes, mapped=mapped)
        made.array[:] = 0xFF
        return made


class MapsOtherMemory(Card):
    def host_alloc(self, size_bytes, *, mapped):
        made = super().host_alloc(size_bytes, mapped=mapped)
        if not mapped:
            return made
        self._memory[made.device_pointer] = made.array.copy()
        return made


class MapsNothing(Card):
    def host_alloc(self, size_bytes, *, mapped):
        made = super().host_alloc(size_bytes, mapped=mapped)
        return HostBuffer(array=made.array, device_pointer=0, handle=made.handle) if mapped else made

    def free(self, item):
        if isinstance(item, HostBuffer) and not any(item is resource for resource in self.live):
            return
        super().free(item)


class OutOfOrder(Card):
    def synchronize(self, stream):
        self._streams[stream.pointer].pending.reverse()
        super().synchronize(stream)


class RunsWhatItRecords(Card):
    def end_capture(self, stream):
        made = super().end_capture(stream)
        for work in made.handle:
            work()
        return made


class LaunchesNothing(Card):
    def launch(self, graph, stream):
        self._check_live(graph, stream)


class LaunchesTwice(Card):
    def launch(self, graph, stream):
        super().launch(graph, stream)
        super().launch(graph, stream)


class LosesTheStream(Card):
    def end_capture(self, stream):
        failed = bool(getattr(self, "refused", False))
        made = super().end_capture(stream)
        if failed:
            self._streams[stream.pointer].recording = []
        return made

    def synchronize(self, stream):
        self.refused = self._streams[stream.pointer].recording is not None
        super().synchronize(stream)


class CapturesEveryThread(Card):
    def device_alloc(self, size_bytes):
        if any(state.recording is not None for state in self._streams.values()):
            raise TargetError("CUDA failed: cudaMalloc: cudaErrorStreamCaptureUnsupported", hint="none")
        return super().device_alloc(size_bytes)


class OneThread(Card):
    def active(self):
        import threading

        if threading.current_thread() is not threading.main_thread():
            raise TargetError("CUDA failed: invalid device context", hint="none")
        return super().active()


class WithoutHint(Card):
    def device_alloc(self, size_bytes):
        try:
            return super().device_alloc(size_bytes)
        except TargetError as error:
            raise TargetError(error.message, hint="") from error


class OwnError(Card):
    def host_alloc(self, size_bytes, *, mapped):
        if size_bytes > 2**40:
            raise MemoryError("cuMemHostAlloc failed: out of memory")
        return super().host_alloc(size_bytes, mapped=mapped)


class KeepsMemory(Card):
    def free(self, item):
        super().free(item)
        if isinstance(item, DeviceBuffer):
            Card.taken += item.size_bytes


class LaunchesLeak(Card):
    def launch(self, graph, stream):
        super().launch(graph, stream)
        Card.taken += LEAK_BYTES


class LaunchesLeakHere(Card):
    kept: list = []  # noqa: RUF012 - a leak

    def launch(self, graph, stream):
        super().launch(graph, stream)
        # Pages of its own: the heap may have as much that was freed before.
        page = mmap.mmap(-1, LEAK_BYTES)
        page.write(b"x" * LEAK_BYTES)
        self.kept.append(page)


BROKEN = [
    (OtherName, "facts"),
    (OldDriver, "facts"),
    (LosesTheLastByte, "copies"),
    (Dirty, "pinned-memory-starts-as-zeros"),
    (MapsOtherMemory, "mapped-memory"),
    (MapsNothing, "mapped-memory"),
    (OutOfOrder, "stream-order"),
    (RunsWhatItRecords, "graph-replay"),
    (LaunchesNothing, "graph-replay"),
    (LaunchesTwice, "graph-replay"),
    (LosesTheStream, "failed-capture"),
    (CapturesEveryThread, "capture-beside-another-thread"),
    (OneThread, "any-thread"),
    (WithoutHint, "errors"),
    (OwnError, "errors"),
    (KeepsMemory, "memory-comes-back"),
    (LaunchesLeak, "soak-replays"),
    (LaunchesLeakHere, "soak-replays"),
    (LaunchesNothing, "soak-replays"),
    (KeepsMemory, "soak-opens"),
]


@pytest.mark.parametrize(("kind", "check"), BROKEN, ids=lambda value: value if isinstance(value, str) else value.__name__)
def test_a_gpu_that_is_broken_is_found(kind, check, noted):
    """Each check fails on a GPU with the fault that it is there for."""
    with pytest.raises((AssertionError, TargetError, MemoryError)):
        CHECKS[check](rig(kind), noted.__setitem__)
    LaunchesLeakHere.kept.clear()


def test_no_check_is_without_a_fault():
    """Every check is known to find something."""
    assert {check for _, check in BROKEN} == set(CHECKS)


def test_the_soaks_are_as_long_as_was_promised():
    """Twenty thousand launches and two hundred openings."""
    assert (gpu_checks.REPLAYS, gpu_checks.SOAK_REPLAYS, gpu_checks.SOAK_OPENS) == (1000, 20_000, 200)


class Library:
    """What of the driver's library is asked, as functions that take what ctypes would give them."""

    def __init__(self, fail=""):
        self.launched, self.fail = [], fail
        for name in _FUNCTIONS:
            setattr(self, name, self._function(name))

    def _function(self, name):
        def call(*arguments):
            if name == "cuGetErrorName":
                arguments[1]._obj.value = b"CUDA_ERROR_UNKNOWN"
                return 0
            if name == self.fail:
                return 999
            if name == "cuLaunchKernel":
                kinds = (ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint32)
                read = [kind.from_address(address).value for kind, address in zip(kinds, arguments[9], strict=True)]
                self.launched.append((arguments[1:9], read))
            elif name == "cuDeviceGetName":
                arguments[0].value = b"NVIDIA RTX"
            elif name == "cuDeviceGetAttribute":
                arguments[0]._obj.value = {75: 8, 76: 6}[arguments[1]]
            else:
                out = {"cuDriverGetVersion": 13010, "cuDeviceTotalMem_v2": 24 * 2**30, "cuMemGetInfo_v2": 5 * 2**30}
                arguments[0]._obj.value = out.get(name, 0)
            return 0

        return call


def test_the_gpu_is_read_from_the_driver():
    """Name, capability, memory and version come from the driver's functions."""
    asked = Driver(Library())
    assert read_gpu(asked) == Gpu(name="NVIDIA RTX", compute_capability="8.6", memory_bytes=24 * 2**30, cuda="13.1")
    assert free_bytes(asked) == 5 * 2**30


def test_the_kernel_is_launched_with_its_parameters():
    """The grid covers every byte, and the parameters lie where the kernel reads them, 64 bits an address."""
    library = Library()
    kernel = DriverKernel(Driver(library))
    kernel(Stream(pointer=77, handle=None), target=2**40 + 1, source=2**41, runs=2**42, count=257)
    assert library.launched == [((2, 1, 1, 256, 1, 1, 0, 77), [2**40 + 1, 2**41, 2**42, 257])]


def test_a_driver_that_fails_is_no_driver_that_is_missing():
    """A failure of the driver comes out with its name: it is no reason to skip."""
    with pytest.raises(DriverError, match="cuModuleLoadData: CUDA_ERROR_UNKNOWN"):
        DriverKernel(Driver(Library("cuModuleLoadData")))
