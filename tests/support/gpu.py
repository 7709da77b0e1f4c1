"""An NVIDIA GPU for tests, where there is one: what it is, a stand-in for TensorRT's kernels, and the skip with its reason where there is none.

Rules this file keeps:

1. The driver is asked by its own functions, through ctypes: what an adapter says about the GPU is compared with that, and nothing has to be installed to tell
   why a test is skipped.
2. The stand-in kernel is PTX, which every driver compiles for its GPU. It is given what TensorRT is given, the handle of a stream and addresses, and knows
   nothing of the adapter that made them.
3. A GPU that is there and fails is no reason to skip.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from edgekit.errors import MissingEngineError
from edgekit.runtime.engines.cuda import ADAPTERS
from edgekit.runtime.engines.cuda.base import Cuda, Stream

LIBRARY = "libcuda.so.1"
FACTOR, TERM = 7, 3
"""What the kernel does to a byte: times the one, plus the other, and the lowest eight bits are kept."""

_THREADS = 256
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
# Failures of cuInit and cuDeviceGetCount that say that there is nothing to test: the driver's stub, no device, a driver of another system.
_NOTHING_THERE = {"CUDA_ERROR_STUB_LIBRARY", "CUDA_ERROR_NO_DEVICE", "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"}

# target[i] = source[i] * 7 + 3 for all i < count; runs[0] += 1. Turing is the oldest that current drivers support.
PTX = b"""\
.version 7.0
.target sm_75
.address_size 64
.visible .entry stand_in(.param .u64 target, .param .u64 source, .param .u64 runs, .param .u32 count)
{
    .reg .pred %p<3>;
    .reg .b32 %r<10>;
    .reg .b64 %rd<7>;
    ld.param.u64 %rd1, [target];
    ld.param.u64 %rd2, [source];
    ld.param.u64 %rd3, [runs];
    ld.param.u32 %r1, [count];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.u32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %p1, %r5, %r1;
    @%p1 bra DONE;
    cvt.u64.u32 %rd4, %r5;
    add.u64 %rd5, %rd2, %rd4;
    ld.global.u8 %r6, [%rd5];
    mad.lo.u32 %r7, %r6, 7, 3;
    add.u64 %rd6, %rd1, %rd4;
    st.global.u8 [%rd6], %r7;
    setp.ne.u32 %p2, %r5, 0;
    @%p2 bra DONE;
    ld.global.u32 %r8, [%rd3];
    add.u32 %r9, %r8, 1;
    st.global.u32 [%rd3], %r9;
DONE:
    ret;
}
\0"""

_POINTER, _INT, _UNSIGNED, _SIZE = ctypes.c_void_p, ctypes.c_int, ctypes.c_uint, ctypes.c_size_t
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "cuInit": (_UNSIGNED,),
    "cuDriverGetVersion": (ctypes.POINTER(_INT),),
    "cuDeviceGetCount": (ctypes.POINTER(_INT),),
    "cuDeviceGet": (ctypes.POINTER(_INT), _INT),
    "cuDeviceGetName": (ctypes.c_char_p, _INT, _INT),
    "cuDeviceTotalMem_v2": (ctypes.POINTER(_SIZE), _INT),
    "cuDeviceGetAttribute": (ctypes.POINTER(_INT), _INT, _INT),
    "cuMemGetInfo_v2": (ctypes.POINTER(_SIZE), ctypes.POINTER(_SIZE)),
    "cuModuleLoadData": (ctypes.POINTER(_POINTER), ctypes.c_char_p),
    "cuModuleGetFunction": (ctypes.POINTER(_POINTER), _POINTER, ctypes.c_char_p),
    "cuLaunchKernel": (_POINTER, *[_UNSIGNED] * 7, _POINTER, ctypes.POINTER(_POINTER), ctypes.POINTER(_POINTER)),
    "cuGetErrorName": (_INT, ctypes.POINTER(ctypes.c_char_p)),
}


class DriverError(Exception):
    """A function of the driver failed; `name` is the driver's name of the error."""

    def __init__(self, function: str, name: str) -> None:
        super().__init__(f"{function}: {name}")
        self.name = name


class Driver:
    """The functions of the driver that tests need.

    Args:
        library: The loaded library.
    """

    def __init__(self, library: Any) -> None:
        for name, arguments in _FUNCTIONS.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, _INT
        self._library = library

    def call(self, name: str, *arguments: Any) -> None:
        """Calls a function; whatever it does not give as its status is an out argument."""
        status = getattr(self._library, name)(*arguments)
        if status:
            told = ctypes.c_char_p()
            self._library.cuGetErrorName(status, ctypes.byref(told))
            raise DriverError(name, (told.value or b"unknown error").decode("ascii", "replace"))

    def integer(self, name: str, *arguments: int, kind: Any = _INT) -> int:
        """The integer that a function gives in its first argument."""
        found = kind()
        self.call(name, ctypes.byref(found), *arguments)
        return int(found.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """The first GPU, as the driver tells it; `cuda` is the newest version of CUDA that the driver supports."""

    name: str
    compute_capability: str
    memory_bytes: int
    cuda: str


@functools.cache
def driver() -> Driver | str:
    """The driver, initialized, or why there is none.

    Raises:
        DriverError: There is one, and it fails.
    """
    try:
        found = Driver(ctypes.CDLL(LIBRARY))
    except (OSError, AttributeError) as error:
        return f"needs an NVIDIA GPU: {error}"
    try:
        found.call("cuInit", 0)
        count = found.integer("cuDeviceGetCount")
    except DriverError as error:
        if error.name not in _NOTHING_THERE:
            raise
        return f"needs an NVIDIA GPU: {error}"
    return found if count else "needs an NVIDIA GPU: the driver sees none"


def need_driver() -> Driver:
    """The driver; the test is skipped where there is none."""
    found = driver()
    if isinstance(found, str):
        pytest.skip(found)
    return found


def read_gpu(asked: Driver) -> Gpu:
    """What the first GPU is."""
    device = asked.integer("cuDeviceGet", 0)
    name = ctypes.create_string_buffer(256)
    asked.call("cuDeviceGetName", name, len(name), device)
    capability = [asked.integer("cuDeviceGetAttribute", kind, device) for kind in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR)]
    version = asked.integer("cuDriverGetVersion")
    return Gpu(
        name=name.value.decode("utf-8", "replace"),
        compute_capability=f"{capability[0]}.{capability[1]}",
        memory_bytes=asked.integer("cuDeviceTotalMem_v2", device, kind=_SIZE),
        cuda=f"{version // 1000}.{version % 1000 // 10}",
    )


class Kernel(Protocol):
    """The stand-in for TensorRT's kernels."""

    def __call__(self, stream: Stream, *, target: int, source: int, runs: int, count: int) -> None:
        """Enqueues `target[i] = source[i] * FACTOR + TERM` for the first `count` bytes, and `runs += 1`, a uint32; all are addresses for the GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    """A GPU to try an adapter on.

    Attributes:
        open: Opens the adapter.
        kernel: Compiles the stand-in kernel; called inside `active`.
        free_bytes: Free memory of the GPU; called inside `active`.
        gpu: What the GPU is.
    """

    open: Callable[[], Cuda]
    kernel: Callable[[Cuda], Kernel]
    free_bytes: Callable[[Cuda], int]
    gpu: Gpu


def rig_of(adapter: str) -> Rig:
    """The GPU of this machine by way of an adapter of `edgekit.runtime.engines.cuda`; the test is skipped where GPU or library is missing."""
    asked = need_driver()
    module = importlib.import_module(ADAPTERS[adapter])
    try:
        module.open_cuda().close()
    except MissingEngineError as error:
        pytest.skip(f"needs {adapter}: {error.message}")
    return Rig(open=module.open_cuda, kernel=lambda _: _kernel(asked), free_bytes=lambda _: free_bytes(asked), gpu=read_gpu(asked))


@functools.cache
def _kernel(asked: Driver) -> DriverKernel:
    """Compiled once: a module stays in the context, which stays in the process, and would pass for memory that a soak does not give back."""
    return DriverKernel(asked)


def free_bytes(asked: Driver) -> int:
    """Free memory of the GPU whose context is current."""
    free, whole = _SIZE(), _SIZE()
    asked.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(whole))
    return free.value


class DriverKernel:
    """The stand-in kernel, compiled by the driver for the GPU whose context is current."""

    def __init__(self, asked: Driver) -> None:
        self._driver = asked
        module, self._function = _POINTER(), _POINTER()
        asked.call("cuModuleLoadData", ctypes.byref(module), PTX)
        asked.call("cuModuleGetFunction", ctypes.byref(self._function), module, b"stand_in")

    def __call__(self, stream: Stream, *, target: int, source: int, runs: int, count: int) -> None:
        values = (ctypes.c_uint64(target), ctypes.c_uint64(source), ctypes.c_uint64(runs), ctypes.c_uint32(count))
        parameters = (_POINTER * len(values))(*[ctypes.addressof(value) for value in values])
        blocks = -(-count // _THREADS)
        self._driver.call("cuLaunchKernel", self._function, blocks, 1, 1, _THREADS, 1, 1, 0, stream.pointer, parameters, None)
