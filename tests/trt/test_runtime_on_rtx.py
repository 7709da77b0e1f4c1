"""The runtime's own code drives NVIDIA's real library: names, arguments, lifetimes and error paths of TensorRT 11, as far as there is no GPU."""

from __future__ import annotations

import pytest
import trt_rtx
from trt_graphs import quantized_network


@pytest.fixture(scope="module")
def driven():
    return trt_rtx.drive_runtime(quantized_network().SerializeToString())


def test_the_runtime_builds_with_the_real_library(driven):
    """Parser, network, configuration and builder take what the runtime gives them, and a plan comes out."""
    assert driven.plan_bytes > 0
    assert driven.reached == "load"


def test_the_real_library_tells_the_progress(driven):
    """The progress monitor is called by the real builder, step by step up to the last."""
    assert driven.progress
    assert list(driven.progress) == sorted(driven.progress)
    done, total = driven.progress[-1]
    assert done == total


def test_without_a_gpu_loading_is_told_as_the_devices_fault(driven):
    """A plan that the real library cannot load ends in a TargetError that says why, and in nothing worse."""
    assert driven.error.startswith("TargetError: ")
    assert "CUDA" in driven.error


def test_a_refused_model_is_told_with_its_node():
    """What the real parser refuses ends in a ModelRefusedError that names the node and the reason."""
    driven = trt_rtx.drive_runtime(quantized_network(fault="scale-0").SerializeToString())
    assert driven.reached == "parse"
    assert driven.error.startswith("ModelRefusedError: ")
    assert "/r2.q (QuantizeLinear)" in driven.error
    assert "must all be positive" in driven.error


def test_a_refused_build_is_told_with_its_reason():
    """What the real builder refuses ends in a TargetError with the reason out of the library's log."""
    driven = trt_rtx.drive_runtime(quantized_network(fault="open-batch").SerializeToString())
    assert driven.reached == "build"
    assert driven.error.startswith("TargetError: ")
    assert "optimization profile" in driven.error
