"""The numerical oracle: what an engine computes that cannot run here.

ONNX Runtime without optimization executes a Q/DQ graph as it is written: every QuantizeLinear rounds half to even and saturates, every operator between computes
in float. That is what TensorRT's explicit quantization means too, up to the order of summation and the accumulation of float16 (which is float32 here).

Does not prove that a device computes the same: its kernels round float16 sums in their own order. `edgekit verify` on the device compares golden frames.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgekit.bundle.manifest import EngineSpec
from edgekit.runtime.engines.base import Engine
from edgekit.runtime.engines.onnxruntime import OnnxRuntimeEngine, load_library

TITLE = "ONNX Runtime without optimization, as the numerical oracle"


def open_oracle(spec: EngineSpec, members: Mapping[str, memoryview]) -> Engine:
    """Opens the model of an engine that reads ONNX.

    A model that is not quantized is run with optimization, which changes nothing but the time.

    Raises:
        BundleError: ONNX Runtime refuses the model.
    """
    import dataclasses

    level = "all" if spec.precision == "f32" else "disabled"
    version = load_library().__version__
    return OnnxRuntimeEngine.open(dataclasses.replace(spec, settings={"GRAPH_OPTIMIZATION": level}, minimum_version=version), members)
