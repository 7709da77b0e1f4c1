"""One file an inference engine, behind one contract.

`ENGINES` is the extension point: a new engine is one file and one line here, named by the manifest's `engines[].name`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from edgekit.bundle.manifest import EngineSpec
from edgekit.errors import nearest
from edgekit.runtime.engines.base import Engine, ModelRefusedError

ENGINES: Mapping[str, str] = {
    "openvino": "edgekit.runtime.engines.openvino:OpenVinoEngine",
    "onnxruntime": "edgekit.runtime.engines.onnxruntime:OnnxRuntimeEngine",
    "tensorrt-int8": "edgekit.runtime.engines.tensorrt_engine:TensorRtEngine",
    "tensorrt-fp16": "edgekit.runtime.engines.tensorrt_engine:TensorRtEngine",
}


def engine_class(name: str) -> type[Engine]:
    """The class of an engine by its name in the manifest.

    Raises:
        ModelRefusedError: No engine of that name is known to this edgekit.
    """
    if name not in ENGINES:
        raise ModelRefusedError(f"the engine {name!r} is not known to this edgekit", hint=nearest(name, ENGINES))
    module, _, attribute = ENGINES[name].partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if not (isinstance(found, type) and issubclass(found, Engine)):
        raise TypeError(f"{ENGINES[name]} is not an Engine")
    return found


def open_engine(spec: EngineSpec, members: Mapping[str, memoryview]) -> Engine:
    """Opens the engine a manifest names on the model it names."""
    return engine_class(spec.name).open(spec, members)
