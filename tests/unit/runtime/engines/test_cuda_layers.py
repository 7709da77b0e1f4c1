"""The adapters of the CUDA layer, each on a recording stand-in for its library, and the choice between them.

Does not prove that a GPU does what is asked: that is what runs on a device.
"""

from __future__ import annotations

import ctypes
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from edgekit.errors import MissingEngineError, TargetError
from edgekit.runtime.engines import cuda as cuda_layer
from edgekit.runtime.engines.cuda import cuda_python_layer, driver_graph, pycuda_layer
from edgekit.runtime.engines.cuda.base import CudaVersions, is_io_coherent


class Memory:
    """Real memory of this process, under addresses that an adapter may read and write."""

    def __init__(self):
        self.kept = {}
        self.freed = []

    def alloc(self, size):
        array = np.full(size, 0xA5, dtype=np.uint8)
        address = array.ctypes.data
        self.kept[address] = array
        return address, array


class PyCudaDriver:
    """What of `pycuda.driver` is used, with its signatures; a call outside a pushed context fails."""

    class Error(Exception):
        pass

    host_alloc_flags = SimpleNamespace(PORTABLE=1, DEVICEMAP=2, WRITECOMBINED=4)
    device_attribute = SimpleNamespace(INTEGRATED="integrated", MULTIPROCESSOR_COUNT="sms", CAN_MAP_HOST_MEMORY="maps")

    def __init__(self, fail=""):
        self.calls, self.depth, self.memory, self.fail = [], 0, Memory(), fail
        driver = self

        class Device:
            def __init__(self, ordinal):
                driver._called("Device", ordinal, anywhere=True)

            def retain_primary_context(self):
                return SimpleNamespace(push=driver._push)

            def compute_capability(self):
                return (8, 7)

            def get_attribute(self, kind):
                return {"integrated": 1, "sms": 8, "maps": 1}[kind]

            def total_memory(self):
                return 8 * 2**30

            def name(self):
                return "Orin"

        class Stream:
            def __init__(self, flags=0):
                driver._called("Stream", flags)
                self.handle = 77

            def synchronize(self):
                driver._called("synchronize")

            def __del__(self):
                driver.calls.append(("stream destroyed",))

        self.Device, self.Stream, self.Context = Device, Stream, SimpleNamespace(pop=self._pop)

    def _push(self):
        self.depth += 1

    def _pop(self):
        self.depth -= 1

    def _called(self, name, *arguments, anywhere=False):
        if not anywhere and not self.depth:
            raise AssertionError(f"{name} outside the context")
        self.calls.append((name, *arguments))
        if name == self.fail:
            raise self.Error(f"{name} failed: out of memory")

    def init(self):
        self._called("init", anywhere=True)

    def get_version(self):
        return (12, 6, 0)

    def get_driver_version(self):
        return 12080

    def pagelocked_empty(self, shape, dtype, order="C", mem_flags=0):
        assert (dtype, order) == (np.uint8, "C")
        self._called("pagelocked_empty", shape, mem_flags)
        allocation = Allocation(self, shape)
        return allocation.array

    def mem_alloc(self, size):
        self._called("mem_alloc", size)
        return Allocation(self, size)

    def memcpy_htod_async(self, dest, src, stream):
        self._called("memcpy_htod_async", stream.handle)
        self.memory.kept[dest][:] = src

    def memcpy_dtoh_async(self, dest, src, stream):
        self._called("memcpy_dtoh_async", stream.handle)
        dest[:] = self.memory.kept[src]


class Allocation:
    """What pycuda keeps memory by."""

    def __init__(self, driver, size):
        self.driver = driver
        self.address, real = driver.memory.alloc(size)
        self.array = real.view(Pinned)
        self.array.allocation = self

    def __int__(self):
        return self.address

    def get_device_pointer(self):
        self.driver._called("get_device_pointer")
        return self.address

    def free(self):
        self.driver._called("free", self.address)
        self.driver.memory.freed.append(self.address)


class Pinned(np.ndarray):
    """An array whose `base` is the allocation, as pycuda's is."""

    allocation = None

    @property
    def base(self):
        return self.allocation


class DriverLibrary:
    """What of libcuda is used for graphs."""

    def __init__(self, fail=""):
        self.calls, self.fail = [], fail
        for name in driver_graph._FUNCTIONS:
            setattr(self, name, self._function(name))

    def _function(self, name):
        def call(*arguments):
            if name == "cuGetErrorName":
                arguments[1]._obj.value = b"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"
                return 0
            self.calls.append((name, *[getattr(argument, "value", argument) for argument in arguments if not hasattr(argument, "_obj")]))
            if name == self.fail:
                return 901
            for argument in arguments:
                if hasattr(argument, "_obj"):
                    argument._obj.value = {"cuStreamEndCapture": 500, "cuGraphInstantiateWithFlags": 600}[name]
            return 0

        return call


class Runtime:
    """What of cuda-python's runtime is used; each call gives its status and then its result."""

    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice="in", cudaMemcpyDeviceToHost="out")  # noqa: N815 - the library's name
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal="thread")  # noqa: N815 - the library's name

    def __init__(self, fail=""):
        self.calls, self.memory, self.fail = [], Memory(), fail

    def cudaGetErrorName(self, status):  # noqa: N802 - the library's name
        assert status == 2
        return 0, b"cudaErrorMemoryAllocation"

    def __getattr__(self, name):
        if not name.startswith("cuda"):
            raise AttributeError(name)

        def call(*arguments):
            self.calls.append((name, *arguments))
            if name == self.fail:
                return (2,) if name not in RESULTS else (2, None)
            if name in ("cudaMalloc", "cudaHostAlloc"):
                return 0, self.memory.alloc(arguments[0])[0]
            if name == "cudaHostGetDevicePointer":
                return 0, arguments[0]
            if name in ("cudaFree", "cudaFreeHost"):
                self.memory.freed.append(arguments[0])
            if name == "cudaMemcpyAsync":
                ctypes.memmove(arguments[0], arguments[1], arguments[2])
            return (0, RESULTS[name]) if name in RESULTS else (0,)

        return call


RESULTS = {
    "cudaRuntimeGetVersion": 12060,
    "cudaDriverGetVersion": 13020,
    "cudaStreamCreateWithFlags": 77,
    "cudaStreamEndCapture": 500,
    "cudaGraphInstantiateWithFlags": 600,
    "cudaGetDeviceProperties": SimpleNamespace(
        name=b"NVIDIA H100\0\0",
        major=9,
        minor=0,
        multiProcessorCount=132,
        totalGlobalMem=80 * 2**30,
        integrated=0,
        canMapHostMemory=1,
    ),
    "cudaMalloc": None,
    "cudaHostAlloc": None,
}


@pytest.fixture(params=["pycuda", "cuda-python"])
def layer(request, monkeypatch):
    """An adapter, and the stand-in that it works on."""
    if request.param == "cuda-python":
        library = Runtime()
        return cuda_python_layer.CudaPython(library, "12.6"), library
    library = PyCudaDriver()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: DriverLibrary())
    return pycuda_layer.PyCuda(library, "2025.1"), library


def test_a_frames_way_through_memory(layer):
    """What is copied in can be copied out, in a stream of its own that does not wait for the default one; pinned memory begins as zeros."""
    cuda, library = layer
    with cuda.active():
        stream = cuda.stream()
        source, target = (cuda.host_alloc(16, mapped=False) for _ in range(2))
        between = cuda.device_alloc(16)
        assert (source.array.dtype, source.array.shape, int(source.array.sum())) == (np.uint8, (16,), 0)
        assert (stream.pointer, source.device_pointer, between.size_bytes) == (77, 0, 16)
        source.array[:] = np.arange(16)
        cuda.copy_to_device_async(between, source, stream)
        cuda.copy_to_host_async(target, between, stream)
        cuda.synchronize(stream)
        np.testing.assert_array_equal(target.array, np.arange(16))
    assert any(call[0] in ("Stream", "cudaStreamCreateWithFlags") and call[1] == 1 for call in library.calls)


def test_mapped_memory_has_an_address_for_the_gpu(layer):
    """Memory that was asked for mapped is the same for CPU and GPU."""
    cuda, library = layer
    with cuda.active():
        buffer = cuda.host_alloc(8, mapped=True)
        assert library.memory.kept[buffer.device_pointer].size == 8
        buffer.array[:] = 3
        assert library.memory.kept[buffer.device_pointer].tolist() == [3] * 8
    flags = next(call[2] for call in library.calls if call[0] in ("pagelocked_empty", "cudaHostAlloc"))
    assert flags == 3


def test_everything_can_be_freed_once(layer):
    """Each kind of resource is given back to the library that made it."""
    cuda, library = layer
    with cuda.active():
        host, device, stream = cuda.host_alloc(4, mapped=False), cuda.device_alloc(4), cuda.stream()
        cuda.begin_capture(stream)
        graph = cuda.end_capture(stream)
        for item in (graph, host, device, stream):
            cuda.free(item)
    cuda.close()
    assert len(library.memory.freed) == 2
    names = [call[0] for call in library.calls]
    assert names.count("stream destroyed") + names.count("cudaStreamDestroy") == 1


def test_a_graph_is_captured_and_launched(layer):
    """The recording of a stream becomes one launch in that stream."""
    cuda, library = layer
    with cuda.active():
        stream = cuda.stream()
        cuda.begin_capture(stream)
        graph = cuda.end_capture(stream)
        cuda.launch(graph, stream)
    calls = library.calls if isinstance(library, Runtime) else cuda._graphs._library.calls
    assert calls[-1] in (("cudaGraphLaunch", 600, 77), ("cuGraphLaunch", 600, 77))
    assert any(call in calls for call in (("cudaGraphDestroy", 500), ("cuGraphDestroy", 500)))
    assert any(call in calls for call in (("cudaStreamBeginCapture", 77, "thread"), ("cuStreamBeginCapture_v2", 77, 1)))


def test_facts_and_versions(layer):
    """Name, capability, memory and versions come from the library, as text that a cache can be keyed with."""
    cuda, library = layer
    facts = cuda.device()
    if isinstance(library, Runtime):
        assert (facts.name, facts.compute_capability, facts.multiprocessors, facts.integrated) == ("NVIDIA H100", "9.0", 132, False)
        assert (cuda.versions(), facts.io_coherent) == (CudaVersions(runtime="12.6", driver="13.2"), False)
        assert cuda.library == "cuda-python 12.6"
    else:
        assert (facts.name, facts.compute_capability, facts.multiprocessors, facts.integrated) == ("Orin", "8.7", 8, True)
        assert (cuda.versions(), facts.io_coherent) == (CudaVersions(runtime="12.6", driver="12.8"), True)
        assert cuda.library == "pycuda 2025.1"
    assert facts.maps_host_memory
    assert facts.memory_bytes in (8 * 2**30, 80 * 2**30)


FAILING = {
    "device_alloc": (("mem_alloc", "cudaMalloc"), lambda cuda, _: cuda.device_alloc(4)),
    "host_alloc": (("pagelocked_empty", "cudaHostAlloc"), lambda cuda, _: cuda.host_alloc(4, mapped=False)),
    "synchronize": (("synchronize", "cudaStreamSynchronize"), lambda cuda, stream: cuda.synchronize(stream)),
}


@pytest.mark.parametrize("method", FAILING)
def test_a_failure_of_cuda_is_an_error_of_the_device(layer, method):
    """Nothing of the library's own errors comes out."""
    cuda, library = layer
    names, call = FAILING[method]
    with cuda.active():
        stream = cuda.stream()
        library.fail = names[isinstance(library, Runtime)]
        with pytest.raises(TargetError, match=r"CUDA failed: .*(out of memory|cudaErrorMemoryAllocation)") as caught:
            call(cuda, stream)
    assert caught.value.hint


def test_pycuda_uses_the_context_only_while_it_is_active():
    """The context is pushed for the block and popped after it, also after an error; TensorRT's is the same, the primary one."""
    library = PyCudaDriver()
    cuda = pycuda_layer.PyCuda(library, "1")
    assert library.depth == 0
    with cuda.active(), cuda.active():
        assert library.depth == 2
    assert library.depth == 0
    with pytest.raises(AssertionError, match="outside"):
        cuda.device_alloc(4)

    def interrupted():
        with cuda.active():
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert library.depth == 0


@pytest.mark.parametrize("failure", ["init", "Device"])
def test_pycuda_without_a_gpu(failure):
    """A machine without a GPU is told as one."""
    with pytest.raises(TargetError, match="there is no GPU that pycuda can use"):
        pycuda_layer.PyCuda(PyCudaDriver(failure), "1")


def test_a_stream_that_was_given_back_is_not_used():
    """A freed stream is an error, not a crash."""
    cuda = pycuda_layer.PyCuda(PyCudaDriver(), "1")
    with cuda.active():
        stream = cuda.stream()
        cuda.free(stream)
        with pytest.raises(TargetError, match="was given back"):
            cuda.synchronize(stream)


def test_cuda_python_without_a_driver():
    """cuda-python tells a missing driver by a RuntimeError of its own."""

    class NoDriver(Runtime):
        def __getattr__(self, name):
            raise RuntimeError("Failed to dlopen libcuda.so.1")

    with pytest.raises(TargetError, match=r"cudaSetDevice: Failed to dlopen libcuda\.so\.1"):
        cuda_python_layer.CudaPython(NoDriver(), "1")


@pytest.mark.parametrize("name", ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags", "cuGraphLaunch"])
def test_a_failure_of_the_drivers_graphs(name):
    """Each step that fails names itself and the driver's error; the recorded graph is destroyed all the same."""
    library = DriverLibrary(name)
    graphs = driver_graph.DriverGraphs(library)

    def capture_and_launch():
        graphs.begin(77)
        graphs.launch(graphs.end(77), 77)

    with pytest.raises(TargetError, match=rf"{name}: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED \(901\)"):
        capture_and_launch()
    assert (("cuGraphDestroy", 500) in library.calls) == (name in ("cuGraphInstantiateWithFlags", "cuGraphLaunch"))


def test_a_driver_without_graphs():
    """A driver that is not there or too old is told; frames are then enqueued."""
    with pytest.raises(TargetError, match="this driver has no CUDA graphs"):
        driver_graph.DriverGraphs(SimpleNamespace())


def test_the_drivers_functions_have_their_types():
    """Handles are passed as pointers: an int argument of ctypes would cut them to 32 bits."""
    library = DriverLibrary()
    driver_graph.DriverGraphs(library)
    assert library.cuGraphLaunch.argtypes == (ctypes.c_void_p, ctypes.c_void_p)
    assert library.cuGraphInstantiateWithFlags.argtypes[2] is ctypes.c_ulonglong


@pytest.mark.parametrize(
    ("integrated", "capability", "coherent"),
    [
        (True, (5, 3), False),
        (True, (6, 2), False),
        (True, (7, 2), True),
        (True, (8, 7), True),
        (True, (11, 0), True),
        (False, (9, 0), False),
    ],
)
def test_where_pinned_memory_stays_cached(integrated, capability, coherent):
    """On Jetson from Xavier on, and nowhere else."""
    assert is_io_coherent(integrated=integrated, compute_capability=capability) == coherent


def pretend(monkeypatch, **modules):
    """Makes modules importable; None makes one missing."""
    for name in ("pycuda", "pycuda.driver", "cuda", "cuda.bindings", "cuda.bindings.runtime", "cuda.cudart"):
        monkeypatch.setitem(sys.modules, name, None)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name.replace("_", "."), module)


def pycuda_modules():
    package, driver = ModuleType("pycuda"), PyCudaDriver()
    package.VERSION_TEXT, package.driver = "2025.1", driver
    return {"pycuda": package, "pycuda_driver": driver}


def test_pycuda_comes_first(monkeypatch):
    """Where both bindings are there, pycuda is taken."""
    pretend(monkeypatch, **pycuda_modules(), cuda=ModuleType("cuda"), cuda_cudart=Runtime())
    assert cuda_layer.open_cuda().library == "pycuda 2025.1"


def test_cuda_python_in_both_forms(monkeypatch):
    """`cuda.bindings.runtime` is taken, and `cuda.cudart` where that is all there is."""
    old = ModuleType("cuda")
    old.__version__ = "12.2"
    pretend(monkeypatch, cuda=old, cuda_cudart=Runtime())
    assert cuda_layer.open_cuda().library == "cuda-python 12.2"
    new = ModuleType("cuda.bindings")
    new.__version__ = "13.0"
    pretend(monkeypatch, cuda=old, cuda_cudart=Runtime(), cuda_bindings=new, cuda_bindings_runtime=Runtime())
    assert cuda_layer.open_cuda().library == "cuda-python 13.0"


def test_no_binding_at_all(monkeypatch):
    """Without one the engine is missing: both are named, with the way to get one."""
    pretend(monkeypatch)
    with pytest.raises(MissingEngineError, match=r"pycuda: .*cuda-python: ") as caught:
        cuda_layer.open_cuda()
    assert "cuda-python==12.6.*" in caught.value.hint
    assert "comes with JetPack" in caught.value.hint
