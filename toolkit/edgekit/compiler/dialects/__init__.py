"""What each engine's artefact is and who makes it: one row an engine of the runtime.

`DIALECTS` is the extension point of the compile side, as `runtime.engines.ENGINES` is of the device's.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from edgekit.catalog.target import EngineChoice, Target
from edgekit.compiler.dialects.base import Dialect
from edgekit.errors import CatalogError, nearest

DIALECTS: Mapping[str, str] = {
    "openvino": "edgekit.compiler.dialects.openvino:OpenVinoDialect",
    "onnxruntime": "edgekit.compiler.dialects.qdq:OnnxRuntimeDialect",
    "tensorrt-int8": "edgekit.compiler.dialects.qdq:TensorRtInt8Dialect",
    "tensorrt-fp16": "edgekit.compiler.dialects.qdq:TensorRtHalfDialect",
}


def dialect_of(target: Target, choice: EngineChoice | None = None) -> Dialect:
    """The dialect of an engine of a target; of its first engine where none is named.

    Raises:
        CatalogError: No such engine can be compiled for.
    """
    chosen = target.engine if choice is None else choice
    if chosen.name not in DIALECTS:
        raise CatalogError(f"the target {target.name} names the engine {chosen.name!r}", hint=nearest(chosen.name, DIALECTS))
    module, _, attribute = DIALECTS[chosen.name].partition(":")
    found: Dialect = getattr(importlib.import_module(module), attribute)(target, chosen)
    return found
