"""CUDA graphs by the driver's own functions, for bindings that have none: released versions of pycuda cannot capture a stream.

Source: CUDA driver API, "Stream Management" and "Graph Management"; the functions are those of CUDA 11.4 and newer.
"""

from __future__ import annotations

import ctypes
from typing import Any

from edgekit.errors import TargetError

LIBRARY = "libcuda.so.1"

# CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do with CUDA meanwhile does not end the recording.
_THREAD_LOCAL = 1

_POINTER, _OUT = ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "cuStreamBeginCapture_v2": (_POINTER, ctypes.c_int),
    "cuStreamEndCapture": (_POINTER, _OUT),
    "cuGraphInstantiateWithFlags": (_OUT, _POINTER, ctypes.c_ulonglong),
    "cuGraphLaunch": (_POINTER, _POINTER),
    "cuGraphExecDestroy": (_POINTER,),
    "cuGraphDestroy": (_POINTER,),
    "cuGetErrorName": (ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)),
}


class DriverGraphs:
    """Capture and launch, on streams given by their handles.

    Args:
        library: The driver's library; None loads it.

    Raises:
        TargetError: The driver is not there, or too old for one of the functions.
    """

    def __init__(self, library: Any = None) -> None:
        try:
            loaded = ctypes.CDLL(LIBRARY) if library is None else library
            for name, arguments in _FUNCTIONS.items():
                function = getattr(loaded, name)
                function.argtypes, function.restype = arguments, ctypes.c_int
        except (OSError, AttributeError) as error:
            raise TargetError(f"this driver has no CUDA graphs: {error}", hint="update JetPack or the driver") from error
        self._library = loaded

    def begin(self, stream: int) -> None:
        """Begins the recording of a stream."""
        self._call("cuStreamBeginCapture_v2", stream, _THREAD_LOCAL)

    def end(self, stream: int) -> int:
        """Ends it and gives a graph that can be launched."""
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuStreamEndCapture", stream, ctypes.byref(graph))
        try:
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, 0)
        finally:
            self._call("cuGraphDestroy", graph)
        return executable.value or 0

    def launch(self, executable: int, stream: int) -> None:
        """Enqueues a graph."""
        self._call("cuGraphLaunch", executable, stream)

    def destroy(self, executable: int) -> None:
        """Frees a graph."""
        self._call("cuGraphExecDestroy", executable)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            told = ctypes.c_char_p()
            self._library.cuGetErrorName(status, ctypes.byref(told))
            raise TargetError(f"{name}: {(told.value or b'unknown error').decode('ascii', 'replace')} ({status})", hint="edgekit doctor")
