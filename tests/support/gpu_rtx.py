"""NVIDIA's TensorRT for RTX on a GPU, driven by edgekit's own TensorRT engine: build, cache, open, CUDA graph, frames.

Rules this file keeps:

1. The library and the GPU are used in a process of their own, so that what they do to a process ends with it.
2. Nothing of the engine is replaced. The library is put in the place of `tensorrt` under the version of the API that it has.
3. Which GPUs the product is for is asked of the product.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trt_rtx
from numpy.typing import NDArray

from edgekit.bundle.manifest import EngineSpec
from edgekit.errors import EdgekitError, MissingEngineError
from edgekit.runtime.engines import cuda as cuda_layer
from edgekit.runtime.engines.engine_cache import ENVIRONMENT, EngineCache

API_VERSION = "11.1.0"
"""The version of TensorRT whose names the library has; its own number is another product's."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of it.

    Attributes:
        product: The library's own version.
        gpus: Compute capabilities that the product says it is for, "8.9" for example.
        reached: The last step that was begun: "build", "open", "frames" or "done".
        error: Kind and message of edgekit's error that ended it; empty where none did.
        build_seconds: How long the build took.
        described: What the engine says of itself.
        answers: For each frame the outputs by name, as lists.
    """

    product: str = ""
    gpus: list[str] = field(default_factory=list)
    reached: str = "build"
    error: str = ""
    build_seconds: float = 0.0
    described: dict[str, str] = field(default_factory=dict)
    answers: list[dict[str, Any]] = field(default_factory=list)

    def is_for(self, compute_capability: str) -> bool:
        """Whether the product says that it is for a GPU."""
        return compute_capability in self.gpus

    def answer(self, index: int) -> Mapping[str, NDArray[np.float32]]:
        """The outputs for a frame, as a batch of one."""
        return {name: np.asarray(values, dtype=np.float32)[None] for name, values in self.answers[index].items()}


def need_binding() -> None:
    """The test is skipped where no Python binding of CUDA is installed."""
    try:
        cuda_layer.open_cuda().close()
    except MissingEngineError as error:
        pytest.skip(error.message)


def try_it(spec: EngineSpec, content: bytes, tensors: NDArray[np.uint8]) -> Outcome:
    """Builds, opens and runs a model; the test is skipped where the library is not installed."""
    packages = trt_rtx.folder("rtx")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "spec.json").write_text(json.dumps(asdict(spec)))
        (folder / "model.onnx").write_bytes(content)
        np.save(folder / "frames.npy", tensors, allow_pickle=False)
        # The rest of the path is the one of this process: edgekit may be found by it, and so may the binding of CUDA.
        path = os.pathsep.join([str(packages), *filter(None, sys.path)])
        environment = {**os.environ, "PYTHONPATH": path, ENVIRONMENT: str(folder / "cache")}
        command = [sys.executable, __file__, str(folder)]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=trt_rtx.TIMEOUT_SECONDS, check=False)
        answer = folder / "answer.json"
        if ended.returncode or not answer.is_file():
            raise RuntimeError(f"the process of TensorRT for RTX ended with {ended.returncode}:\n{ended.stderr}")
        return Outcome(**json.loads(answer.read_text()))


def gpus_of(library: Any) -> list[str]:
    """Compute capabilities out of the library's names for them: SM120 is "12.0"."""
    names = [name for name in dir(library.ComputeCapability) if name.startswith("SM") and name[2:].isdecimal()]
    return [f"{name[2:-1]}.{name[-1]}" for name in sorted(names, key=lambda name: int(name[2:]))]


def drive(told: Outcome, spec: EngineSpec, content: bytes, tensors: NDArray[np.uint8]) -> None:
    """Everything that a device does with a bundle's engine; an error of edgekit's own is put down and ends it."""
    from edgekit.compiler.progress import Silent
    from edgekit.runtime.engines import tensorrt_build
    from edgekit.runtime.engines.tensorrt_engine import TensorRtEngine

    members = {spec.files[tensorrt_build.ROLE]: memoryview(content)}
    try:
        built = tensorrt_build.build(spec, members, EngineCache(), Silent())
        told.build_seconds, told.reached = built.build_seconds, "open"
        engine = TensorRtEngine.open(spec, members, plan_sha256=built.sha256)
        with contextlib.closing(engine):
            told.described, told.reached = engine.describe(), "frames"
            for tensor in tensors:
                given = engine.infer(np.ascontiguousarray(tensor[None]))
                maps = {} if given.cam is None else {"cam": given.cam.tolist()}
                told.answers.append({"logits": given.logits.tolist(), **maps})
        told.reached = "done"
    except EdgekitError as error:
        told.error = f"{type(error).__name__}: {error.message}"


def _main(folder: Path) -> None:
    """Runs in the process of its own."""
    import tensorrt_rtx_libs  # noqa: F401, I001 - loads the libraries that the bindings need
    import tensorrt_rtx_bindings as library

    told = Outcome(product=library.__version__, gpus=gpus_of(library))
    library.__version__ = API_VERSION
    sys.modules["tensorrt"] = library
    spec = EngineSpec(**json.loads((folder / "spec.json").read_text()))
    drive(told, spec, (folder / "model.onnx").read_bytes(), np.load(folder / "frames.npy", allow_pickle=False))
    (folder / "answer.json").write_text(json.dumps(asdict(told)))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
