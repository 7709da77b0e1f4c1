"""What one fake `tensorrt` is about: the engine that it pretends to build, what it is told to fail at, and what was done with it.

Rules this file keeps:

1. Nothing here is looked up by name from outside: the API is made from the manifest, this is what stands behind it.
2. A plan is bound to the version that made it and to its own bytes, as with TensorRT: a foreign, cut or changed plan gives no engine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from fake_cuda import FakeCuda
from numpy.typing import NDArray
from trt_fake_api import Call

Arrays = dict[str, NDArray[Any]]

NUMPY_TYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
    "UINT8": np.uint8,
}
FAILURES = {
    "builder": "`Builder(...)` finds no GPU",
    "runtime": "`Runtime(...)` finds no GPU",
    "parse": "the parser refuses the graph, with an error that names a node",
    "build": "no engine comes out of the build",
    "timing_cache": "the timing cache's bytes are refused",
    "deserialize": "no engine comes out of the plan, though it is whole",
    "context": "there is no memory for the execution context",
    "execute": "`execute_async_v3` answers False",
    "execute_capture": "`execute_async_v3` answers False while the stream is capturing",
}
_MAGIC = b"ftrt"


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeTensor:
    """One input or output of an engine.

    Attributes:
        name: As in the graph.
        dtype: Of `NUMPY_TYPES`.
        shape: −1 where it is left open.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeEngine:
    """An engine that computes in numpy.

    Attributes:
        inputs: In the order of the graph.
        outputs: In the order of the graph.
        compute: Takes the inputs by name and gives the outputs by name; a computation of any kind may stand behind it.
        layers: What the engine inspector tells of each layer.
        device_memory_bytes: Memory that an execution context takes.
    """

    inputs: tuple[FakeTensor, ...]
    outputs: tuple[FakeTensor, ...]
    compute: Callable[[Arrays], Arrays]
    layers: tuple[Mapping[str, object], ...] = ({"Name": "conv", "LayerType": "CaskConvolution"},)
    device_memory_bytes: int = 4096

    def tensor(self, name: str) -> FakeTensor | None:
        """The input or output of that name."""
        return next((item for item in (*self.inputs, *self.outputs) if item.name == name), None)

    def is_input(self, name: str) -> bool:
        """Whether it is an input."""
        return any(item.name == name for item in self.inputs)


@dataclass(slots=True, kw_only=True)
class World:
    """Everything that the objects of one fake module share.

    Attributes:
        version: Key of the manifest.
        full_version: `tensorrt.__version__`.
        engines: What comes out of building an ONNX file's bytes; under b"" for every other.
        cuda: The GPU, where something is to be executed.
        fail: Keys of `FAILURES`; may be changed between calls.
        parse_error: The description and the node of the error for "parse".
        calls: What was done, in order.
        messages: What was logged: the severity's name and the text.
        module: The module itself.
    """

    version: str
    full_version: str
    engines: dict[bytes, FakeEngine]
    cuda: FakeCuda | None
    fail: set[str]
    parse_error: tuple[str, str]
    calls: list[Call] = field(default_factory=list)
    messages: list[tuple[str, str]] = field(default_factory=list)
    module: Any = None

    @property
    def major(self) -> int:
        """Of the version."""
        return int(self.version.partition(".")[0])

    def record(self, call: Call) -> None:
        """Puts a call down; the special methods of Python are left out."""
        if "__" not in call.name:
            self.calls.append(call)

    def names(self) -> list[str]:
        """The names of the calls, in order."""
        return [call.name for call in self.calls]

    def engine_for(self, digest: str) -> FakeEngine | None:
        """The engine of an ONNX file by the digest of its bytes."""
        match = [engine for data, engine in self.engines.items() if hashlib.sha256(data).hexdigest() == digest]
        return match[0] if match else self.engines.get(b"")

    def log(self, logger: Any, severity: str, text: str) -> None:
        """Writes as TensorRT does: through the `log` of the logger that the object was made with."""
        logger.log(getattr(self.module.ILogger.Severity, severity), text)

    def plan(self, content: Mapping[str, object]) -> bytes:
        """The bytes of an engine: the same for the same content, other for any other."""
        body = json.dumps({"version": self.full_version, **content}, sort_keys=True).encode()
        return _MAGIC + hashlib.sha256(body).digest() + body

    def read_plan(self, data: bytes) -> dict[str, Any]:
        """The content of a plan.

        Raises:
            ValueError: These are not the bytes of a whole plan of this version; the text is what is logged.
        """
        body = data[36:]
        if data[:4] != _MAGIC:
            raise ValueError("Serialization assertion magicTagRead == kMAGIC_TAG failed. Magic tag does not match")
        if hashlib.sha256(body).digest() != data[4:36]:
            raise ValueError("Serialization assertion failed. Corrupted plan")
        content: dict[str, Any] = json.loads(body)
        if content["version"] != self.full_version:
            raise ValueError(
                f"The engine plan file is not compatible with this version of TensorRT, expecting library version {self.full_version}"
            )
        return content
