"""One try of NVIDIA's TensorRT for RTX on this GPU, through the engine that runs on a Jetson; both outcomes are put down.

It is another product than TensorRT for Jetson and for other GPUs, with the names of TensorRT 11. Where it runs, edgekit's engine has built, cached, opened, captured
and run with a library of NVIDIA's on a GPU of NVIDIA's. Where it refuses, that is told as the device's fault, as on a Jetson.

Does not prove anything of the builder, the kernels or the speed of a Jetson's TensorRT.
"""

from __future__ import annotations

import gpu_rtx
import pytest
from gpu import need_driver, read_gpu

ENGINES = ("tensorrt-fp16", "tensorrt-int8")


@pytest.fixture(scope="module")
def gpu():
    """The GPU; without one, without NVIDIA's packages or without a binding of CUDA the tests are skipped, before anything is exported."""
    found = read_gpu(need_driver())
    gpu_rtx.trt_rtx.folder("rtx")
    gpu_rtx.need_binding()
    pytest.importorskip("onnx")
    return found


@pytest.fixture(scope="module")
def graph(gpu, tmp_path_factory):
    """The explained graph of a small residual network, and its input."""
    import half_checks

    return half_checks.explained_by_hand(tmp_path_factory.mktemp("network"))


@pytest.mark.parametrize("engine", ENGINES)
def test_tensorrt_for_rtx_answers_or_says_why_not(gpu, graph, engine, tmp_path, record_property):
    """On a GPU that the product is for it answers as the oracle foresaw; on another it may refuse, and then edgekit's own error says why."""
    import half_checks
    from gpu_rtx_checks import check_outcome

    written = half_checks.write(*graph, engine, tmp_path)
    outcome = gpu_rtx.try_it(written.spec, written.content, written.tensors)
    check_outcome(outcome, gpu.compute_capability, written, record_property)
