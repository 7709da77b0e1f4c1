"""Does the TensorRT that is installed build anything for this GPU? One convolution in each precision, built here.

A version that can be imported proves nothing: there are packages for this architecture that have no kernels for a Jetson's GPU and say so only when
they build (TensorRT 10.13.3 for servers, on an Orin).

Rules this file keeps:

1. Each precision is tried for itself; one that fails does not keep the next from being tried.
2. What was built is given back to the library and must be taken. It is not kept: the engine cache is neither read nor written.
3. It does not prove that a bundle's graph builds, nor that anything is computed right.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from edgekit.errors import EdgekitError, TargetError
from edgekit.runtime.engines import cuda as cuda_layer
from edgekit.runtime.engines import probe_graph, tensorrt_api
from edgekit.runtime.engines.tensorrt_api import Api, BuildOptions

FLAGS: Mapping[str, tuple[str, ...] | None] = {"fp32": (), "fp16": None, "int8": ("INT8",)}
"""Precision to what a builder before version 10 may use, None where no engine is built in it there; from then on the graph says it."""

NEEDS: Mapping[str, str] = {"tensorrt-int8": "int8", "tensorrt-fp16": "fp16"}
"""Engine to the precision that has to build for it to run here."""

_WORKSPACE_MIB = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One precision.

    Attributes:
        precision: "fp32", "fp16" or "int8".
        status: PASS, FAIL, or NOT RUN where there is no TensorRT, no GPU, or no engine of that precision in this version.
        seconds: How long the build took; None where it did not pass.
        reason: Why it is not PASS.
    """

    precision: str
    status: str
    seconds: float | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What the builder showed.

    Attributes:
        probes: One a precision, in the order of `FLAGS`.
        dla_cores: Deep learning accelerators that this TensorRT can use; None where it could not be asked.
    """

    probes: tuple[Probe, ...]
    dla_cores: int | None


def probe() -> Probed:
    """Tries every precision; never raises for what a device lacks."""
    try:
        api = tensorrt_api.open_api()
        cuda = cuda_layer.open_cuda()
    except EdgekitError as error:
        skipped = tuple(Probe(precision=name, status="NOT RUN", seconds=None, reason=error.message) for name in FLAGS)
        return Probed(probes=skipped, dla_cores=None)
    try:
        with cuda.active():
            return Probed(probes=tuple(_try(api, name) for name in FLAGS), dla_cores=_dla_cores(api))
    finally:
        cuda.close()


def _try(api: Api, precision: str) -> Probe:
    flags = FLAGS[precision]
    if flags is None and not tensorrt_api.is_strongly_typed(api):
        reason = f"TensorRT {api.text} chooses itself where it works in {precision}, so no engine is built in it"
        return Probe(precision=precision, status="NOT RUN", seconds=None, reason=reason)
    start = time.monotonic()
    try:
        _build(api, precision, flags or ())
    except EdgekitError as error:
        return Probe(precision=precision, status="FAIL", seconds=None, reason=error.message)
    return Probe(precision=precision, status="PASS", seconds=round(time.monotonic() - start, 3), reason="")


def _build(api: Api, precision: str, flags: tuple[str, ...]) -> None:
    options = BuildOptions(workspace_mib=_WORKSPACE_MIB, optimization_level=None, max_aux_streams=0, flags=flags)
    builder = tensorrt_api.make_builder(api)
    network = tensorrt_api.make_network(api, builder)
    parser = tensorrt_api.parse(api, network, probe_graph.one_convolution(precision, typed=tensorrt_api.is_strongly_typed(api)))
    config = tensorrt_api.make_config(api, builder, options, lambda _done, _total: None)
    plan = tensorrt_api.build(api, builder, network, config)
    del parser  # it owned the weights until here
    runtime, engine = tensorrt_api.load_plan(api, plan)
    del engine, runtime  # in this order: the engine belongs to the runtime


def _dla_cores(api: Api) -> int | None:
    try:
        return int(tensorrt_api.make_builder(api).num_DLA_cores)
    except TargetError:
        return None
