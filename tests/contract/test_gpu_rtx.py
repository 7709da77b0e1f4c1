"""The try of TensorRT for RTX, on the fake TensorRT and the fake GPU: each outcome is judged, and an outcome that must not be is found."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import half_checks
import numpy as np
import pytest
import trt_device
from fake_cuda import DISCRETE
from gpu_rtx import Outcome, drive, gpus_of
from gpu_rtx_checks import check_outcome
from trt_fake import FakeEngine, FakeTensor

ADA, HOPPER = "8.9", "9.0"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A small residual network in float16."""
    graph = half_checks.explained_by_hand(tmp_path_factory.mktemp("network"))
    return half_checks.write(*graph, "tensorrt-fp16", tmp_path_factory.mktemp("tensorrt-fp16"))


@pytest.fixture
def drive_fake(written, monkeypatch, tmp_path):
    """Drives the engine with a fake library that computes the graph in PyTorch."""
    from onnx_on_torch import Program

    def run(off=0.0, **options):
        program = Program(written.content, "cpu")

        def compute(taken):
            given = program(taken["frame"])
            return {**given, "logits": given["logits"] + np.float32(off)}

        shapes = {name: value.shape for name, value in program(np.ascontiguousarray(written.tensors[:1])).items()}
        engine = FakeEngine(
            inputs=(FakeTensor(name="frame", dtype="UINT8", shape=written.tensors[:1].shape),),
            outputs=tuple(FakeTensor(name=name, dtype="FLOAT", shape=shape) for name, shape in shapes.items()),
            compute=compute,
        )
        trt_device.install(monkeypatch, tmp_path / "cache", "11.4", engine=engine, facts=DISCRETE, **options)
        told = Outcome(product="1.7.1", gpus=["7.5", ADA])
        drive(told, written.spec, written.content, written.tensors)
        return told

    return run


def test_an_answer_is_judged_by_the_oracle(drive_fake, written):
    """A library that runs reaches the end through a CUDA graph, and its answers pass."""
    told, noted = drive_fake(), {}
    assert (told.reached, told.error, told.described["cuda_graph"]) == ("done", "", "captured")
    check_outcome(told, ADA, written, noted.__setitem__)
    assert "RAN" in noted["outcome"]
    assert "this GPU has 8.9" in noted["outcome"]


def test_a_wrong_answer_is_found(drive_fake, written):
    """Logits that are off fail, also on a GPU that the product is not for."""
    told = drive_fake(off=1.0)
    for gpu in (ADA, HOPPER):
        with pytest.raises(AssertionError):
            check_outcome(told, gpu, written, {}.__setitem__)


def test_a_refusal_is_an_outcome_where_the_product_is_not_for_the_gpu(drive_fake, written):
    """It is put down with the step and the reason; where the product is for the GPU it is a failure."""
    told, noted = drive_fake(fail={"build"}), {}
    assert told.reached == "build"
    check_outcome(told, HOPPER, written, noted.__setitem__)
    assert "REFUSED at 'build': TargetError: TensorRT 11.4" in noted["outcome"]
    with pytest.raises(AssertionError):
        check_outcome(told, ADA, written, noted.__setitem__)


@pytest.mark.parametrize("changes", [{"error": "BundleError: no"}, {"reached": "frames", "answers": []}])
def test_no_other_end_passes(drive_fake, written, changes):
    """An error that blames the bundle, and a run that did not get to its end, are failures."""
    told = dataclasses.replace(drive_fake(), **changes)
    with pytest.raises(AssertionError):
        check_outcome(told, HOPPER, written, {}.__setitem__)


def test_the_gpus_of_the_product():
    """Compute capabilities are read out of the library's names, and nothing else is taken for one."""
    library = SimpleNamespace(ComputeCapability=SimpleNamespace(NONE=0, CURRENT=1, SM75=75, SM120=120))
    assert gpus_of(library) == ["7.5", "12.0"]
