"""Layers of an engine: OpenVINO and ONNX Runtime for real on hand-made graphs, TensorRT on the fakes."""

from __future__ import annotations

import dataclasses

import device_onnx
import pytest
from device_bundles import write_device_bundle
from trt_device import Progress, engines_of_the_bundle, install, numpy_engine, write_built_bundle

from edgekit.bundle.manifest import EngineSpec
from edgekit.bundle.reader import open_bundle
from edgekit.profiler import engine_choice
from edgekit.profiler.clock import Budget
from edgekit.profiler.engine_layers import layer_rows
from edgekit.profiler.layers import REPEATS, measure_layers, onnxruntime_layers, openvino_layers
from edgekit.runtime.engines.engine_cache import EngineCache


def onnx_bundle(path):
    """A bundle that runs on ONNX Runtime alone."""
    spec = EngineSpec(
        name="onnxruntime",
        files={"onnx": "model/x.onnx"},
        minimum_version="1.10",
        precision="f32",
        settings={"INTRA_OP_NUM_THREADS": "1"},
        outputs=2,
    )
    members = {"model/x.onnx": device_onnx.graph(outputs=2)["onnx"], "model/openvino.xml": None, "model/openvino.bin": None}
    golden = dataclasses.replace(
        open_bundle(write_device_bundle(path)).manifest.golden, logits={"onnxruntime": "golden/logits.npy"}, tolerance={"onnxruntime": 1e-3}
    )
    return open_bundle(write_device_bundle(path, more=members, engines=(spec,), golden=golden))


def test_openvino_tells_its_layers(tmp_path):
    """Each has a kind, a kernel, a precision and a time; the pooling of the hand-made graph is among them."""
    found = measure_layers(open_bundle(write_device_bundle(tmp_path / "x.edgekit")), "openvino")
    assert (found.engine, found.repeats, found.reason) == ("openvino", REPEATS, "")
    pooling = [layer for layer in found.layers if "Pool" in layer.kind]
    assert len(pooling) == 1
    assert pooling[0].precision == "f32"
    document = found.to_json()
    assert document["sum_ms"] == pytest.approx(sum(layer.median_ms for layer in found.layers))
    assert document["sum_ms"] == pytest.approx(sum(document["by_precision_ms"].values()))
    assert [row["name"] for row in document["table"]] == [layer.name for layer in found.layers]


def test_onnxruntime_tells_its_layers_and_leaves_no_file(tmp_path, monkeypatch):
    """Its profile goes to a folder of its own, which is gone afterwards."""
    pytest.importorskip("onnxruntime")
    working = tmp_path / "working"
    working.mkdir()
    monkeypatch.chdir(working)
    found = measure_layers(onnx_bundle(tmp_path / "x.edgekit"), "onnxruntime")
    assert {"AveragePool", "ReduceMean"} <= {layer.kind for layer in found.layers}
    assert all(layer.median_ms is not None and layer.kernel == "CPUExecutionProvider" for layer in found.layers)
    casts = [layer.precision for layer in found.layers if layer.kind == "Cast"]
    assert casts == ["uint8"]
    assert list(working.iterdir()) == []


def test_counters_of_openvino_are_medians_and_what_was_never_run_is_left_out():
    """Constants and fused layers have no time in any run."""
    runs = [
        [("c", "Const", "", 0.0), ("conv", "Convolution", "brgconv_I8", time), ("odd", "Other", "ref", time)] for time in (1.0, 9.0, 2.0)
    ]
    found = openvino_layers(runs, {"conv": "i8"})
    assert [(layer.name, layer.precision, layer.kernel, layer.median_ms) for layer in found] == [
        ("conv", "i8", "brgconv_I8", 2.0),
        ("odd", None, "ref", 2.0),
    ]


def test_events_of_onnxruntime_are_microseconds_without_the_warm_up():
    """Only the kernels of nodes count; the first five are warm-up."""
    node = {
        "cat": "Node",
        "name": "conv_kernel_time",
        "args": {"op_name": "QLinearConv", "provider": "CPU", "input_type_shape": [{"uint8": [1]}]},
    }
    events = [{**node, "dur": 90_000}] * 5 + [{**node, "dur": 2000}, {**node, "dur": 4000}, {**node, "dur": 3000}]
    others = [{"cat": "Session", "name": "model_run", "dur": 5}, {"cat": "Node", "name": "conv_fence_before", "dur": 5}]
    (found,) = onnxruntime_layers([*others, *events])
    assert (found.name, found.kind, found.precision, found.median_ms) == ("conv", "QLinearConv", "uint8", 3.0)


@pytest.mark.parametrize("arguments", [{}, {"input_type_shape": []}, {"input_type_shape": ["x"]}, {"input_type_shape": [{}]}])
def test_a_node_that_tells_no_type_has_none(arguments):
    """It is not guessed."""
    (found,) = onnxruntime_layers([{"cat": "Node", "name": "x_kernel_time", "dur": 1, "args": arguments}])
    assert found.precision is None


def test_tensorrt_tells_its_layers_without_times(tmp_path, monkeypatch):
    """Names, kinds and formats are there; that there are no times has a reason, and no sum is made of none."""
    layers = ({"Name": "c1", "LayerType": "CaskConvolution", "Inputs": [{"Format/Datatype": "Row major Int8 format"}]},)
    install(monkeypatch, tmp_path / "cache", engine=engines_of_the_bundle(int8=dataclasses.replace(numpy_engine(), layers=layers)))
    bundle = open_bundle(write_built_bundle(tmp_path / "x.edgekit", fallback=True))
    engine_choice.choose(bundle, EngineCache(), Progress(), budget=Budget(seconds=0.0, min_samples=75, max_seconds=20.0))
    found = measure_layers(bundle, "tensorrt-int8")
    assert [(layer.name, layer.kind, layer.precision, layer.median_ms) for layer in found.layers] == [
        ("c1", "CaskConvolution", "row major int8 format", None)
    ]
    document = found.to_json()
    assert (document["sum_ms"], document["by_precision_ms"], document["repeats"]) == (None, {}, 0)
    assert "callback" in document["reason"]


def test_an_engine_that_cannot_be_opened_is_a_reason(tmp_path, monkeypatch):
    """As on a machine where its library is missing."""
    from edgekit.errors import MissingEngineError
    from edgekit.runtime.engines import openvino

    def missing():
        raise MissingEngineError("OpenVINO cannot be loaded: none here")

    bundle = open_bundle(write_device_bundle(tmp_path / "x.edgekit"))
    monkeypatch.setattr(openvino, "load_library", missing)
    found = measure_layers(bundle, "openvino")
    assert (found.layers, found.reason) == ((), "not available: OpenVINO cannot be loaded: none here")


def test_rows_of_the_inspector_have_the_same_refusals_as_its_counts():
    """No JSON, no layers, only names."""
    assert "did not answer with JSON" in layer_rows("x")
    assert "has no layers" in layer_rows("{}")
    assert "only their names" in layer_rows('{"Layers": ["a"], "Bindings": []}')
