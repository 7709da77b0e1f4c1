"""The ONNX Runtime engine: what a bundle may choose, and what is refused before it runs."""

from __future__ import annotations

import dataclasses

import device_onnx
import numpy as np
import pytest
from device_bundles import SIDE, frame
from device_onnx import model, node, port, tensor

from edgekit.bundle.manifest import EngineSpec
from edgekit.errors import BundleError, MissingEngineError, TargetError
from edgekit.runtime.engines import onnxruntime as engine
from edgekit.runtime.engines.onnxruntime import SETTINGS, OnnxRuntimeEngine, session_options

library = pytest.importorskip("onnxruntime")

SPEC = EngineSpec(
    name="onnxruntime",
    files={"onnx": "model/x.onnx"},
    minimum_version="1.10",
    precision="int8",
    settings={"INTRA_OP_NUM_THREADS": "1"},
    outputs=2,
)
FRAME = port("frame", "uint8", (1, SIDE, SIDE, 1))
LOGITS = port("logits", "float32", (1, 2))
CAM = port("cam", "float32", (1, 2, 4, 4))


def opened(data=None, **changes):
    content = device_onnx.graph(outputs=2)["onnx"] if data is None else data
    return OnnxRuntimeEngine.open(dataclasses.replace(SPEC, **changes), {"model/x.onnx": memoryview(content)})


def constant_graph(taken, given, *, kinds=None, extra=(), domains=()):
    """A graph with these inputs and outputs; outputs are zeros, whatever comes in."""
    nodes, tensors = list(extra), []
    for name, (kind, shape) in (kinds or {}).items():
        tensors.append(tensor(f"{name}_zero", np.zeros(shape, dtype=kind)))
        nodes.append(node("Identity", [f"{name}_zero"], name))
    return model(nodes, tensors, taken, given, domains=domains)


TWO_LOGITS = {"logits": ("float32", (1, 2))}
WITH_CAM = {**TWO_LOGITS, "cam": ("float32", (1, 2, 4, 4))}


@pytest.mark.parametrize("key", sorted(SETTINGS))
@pytest.mark.parametrize("value", ["", "on", "-1", "1e3", "257", "ORT_DISABLE_ALL"])
def test_a_value_that_a_setting_does_not_have_is_refused(key, value):
    """The error names the setting."""
    with pytest.raises(BundleError, match=f"the setting {key} of ONNX Runtime"):
        opened(settings={key: value})


@pytest.mark.parametrize(
    "key",
    [
        "PROFILING",
        "enable_profiling",
        "OPTIMIZED_MODEL_FILEPATH",
        "optimized_model_filepath",
        "CUSTOM_OPS_LIBRARY",
        "session.x",
        "allow_spinning",
    ],
)
def test_a_setting_that_is_not_listed_is_refused(key):
    """ONNX Runtime has settings that write files or load libraries."""
    with pytest.raises(BundleError, match="not one a bundle may choose"):
        opened(settings={key: "1"})


def test_settings_reach_the_session():
    """What the bundle pins is what ONNX Runtime is told."""
    options = session_options(
        {
            "ALLOW_SPINNING": "1",
            "EXECUTION_MODE": "parallel",
            "GRAPH_OPTIMIZATION": "disabled",
            "INTER_OP_NUM_THREADS": "2",
            "INTRA_OP_NUM_THREADS": "3",
        }
    )
    assert options.execution_mode == library.ExecutionMode.ORT_PARALLEL
    assert options.graph_optimization_level == library.GraphOptimizationLevel.ORT_DISABLE_ALL
    assert (options.inter_op_num_threads, options.intra_op_num_threads) == (2, 3)
    assert [options.get_session_config_entry(f"session.{scope}_op.allow_spinning") for scope in ("intra", "inter")] == ["1", "1"]


def test_threads_sleep_where_a_bundle_says_nothing():
    """Spinning takes a core from everything else; a bundle has to ask for it."""
    options = session_options({})
    assert [options.get_session_config_entry(f"session.{scope}_op.allow_spinning") for scope in ("intra", "inter")] == ["0", "0"]
    assert options.execution_mode == library.ExecutionMode.ORT_SEQUENTIAL
    assert options.graph_optimization_level == library.GraphOptimizationLevel.ORT_ENABLE_ALL


def test_threads_are_told():
    """`describe` says how many, or that there is one a core."""
    assert opened().describe()["threads"] == "1"
    assert opened(settings={}).describe()["threads"] == "one a core"


def test_another_provider_is_refused(monkeypatch):
    """What was proven is the CPU's arithmetic; a session that came up elsewhere does not run."""
    monkeypatch.setattr(library.InferenceSession, "get_providers", lambda _: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    with pytest.raises(TargetError, match="CUDAExecutionProvider"):
        opened()


def test_the_provider_in_use_is_told():
    """`describe` reads it back from the session."""
    assert opened().describe()["device"] == "CPUExecutionProvider"


WRONG = {
    "float-input": ([port("frame", "float32", (1, SIDE, SIDE, 1))], [LOGITS], TWO_LOGITS, "one uint8 tensor"),
    "flat-input": ([port("frame", "uint8", (1, SIDE))], [LOGITS], TWO_LOGITS, "one uint8 tensor"),
    "open-input": ([port("frame", "uint8", ("batch", SIDE, SIDE, 1))], [LOGITS], TWO_LOGITS, "one uint8 tensor"),
    "two-inputs": ([FRAME, port("other", "uint8", (1, SIDE, SIDE, 1))], [LOGITS], TWO_LOGITS, "one uint8 tensor"),
    "more-logits": ([FRAME], [port("logits", "float32", (1, 3))], {"logits": ("float32", (1, 3))}, "not the 2 logits"),
    "flat-logits": ([FRAME], [port("logits", "float32", (2,))], {"logits": ("float32", (2,))}, "not the 2 logits"),
    "integer-logits": ([FRAME], [port("logits", "int64", (1, 2))], {"logits": ("int64", (1, 2))}, "not the 2 logits"),
    "unknown-output": ([FRAME], [port("answer", "float32", (1, 2))], {"answer": ("float32", (1, 2))}, "outputs are answer; a bundle's are"),
    "two-maps": (
        [FRAME],
        [LOGITS, CAM, port("more", "float32", (1, 2, 4, 4))],
        {**WITH_CAM, "more": ("float32", (1, 2, 4, 4))},
        "outputs are logits, cam, more; a bundle's are",
    ),
    "a-map-for-another-number": (
        [FRAME],
        [LOGITS, port("cam", "float32", (1, 3, 4, 4))],
        {**TWO_LOGITS, "cam": ("float32", (1, 3, 4, 4))},
        "a map each",
    ),
    "flat-map": ([FRAME], [LOGITS, port("cam", "float32", (1, 2, 4))], {**TWO_LOGITS, "cam": ("float32", (1, 2, 4))}, "a map each"),
}


@pytest.mark.parametrize(("taken", "given", "kinds", "says"), WRONG.values(), ids=WRONG)
def test_other_inputs_and_outputs_are_refused(taken, given, kinds, says):
    """One static uint8 frame in, the manifest's number of logits and at most a map for each out."""
    with pytest.raises(BundleError, match=says):
        opened(constant_graph(taken, given, kinds=kinds))


def test_the_constant_graph_is_fine_where_nothing_is_wrong():
    """What the cases above are broken from opens and answers."""
    raw = opened(constant_graph([FRAME], [LOGITS, CAM], kinds=WITH_CAM)).infer(np.ascontiguousarray(frame()[None, ..., None]))
    assert raw.logits.tolist() == [0, 0]
    assert raw.cam.shape == (2, 4, 4)


def test_operators_of_others_are_refused_before_onnx_runtime_sees_them(monkeypatch):
    """ONNX Runtime has operators of its own, and would run them."""
    monkeypatch.setattr(library, "InferenceSession", lambda *_, **__: pytest.fail("ONNX Runtime saw the model"))
    extra = [node("Gelu", ["logits_zero"], "unread", domain="com.microsoft")]
    with pytest.raises(BundleError, match=r"operators of the domain 'com\.microsoft'"):
        opened(constant_graph([FRAME], [LOGITS], kinds=TWO_LOGITS, extra=extra, domains=("com.microsoft",)))


def test_weights_in_another_file_are_refused_before_onnx_runtime_sees_them(monkeypatch, tmp_path):
    """A path in the model could name any file of the device."""
    from device_onnx import field

    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_bytes(np.ones(2, dtype=np.float32).tobytes())
    monkeypatch.setattr(library, "InferenceSession", lambda *_, **__: pytest.fail("ONNX Runtime saw the model"))
    dims = field(1, 1) + field(1, 2)
    outside = dims + field(2, 1) + field(8, "logits_zero") + field(13, field(1, "location") + field(2, "weights.bin")) + field(14, 1)
    with pytest.raises(BundleError, match="weights in another file"):
        opened(model([node("Identity", ["logits_zero"], "logits")], [outside], [FRAME], [LOGITS]))


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_no_answer(poison):
    """They are an error of the device, not a classification."""
    broken = opened(device_onnx.graph(outputs=2, poison=poison)["onnx"])
    with pytest.raises(TargetError, match="NaN or infinite"):
        broken.infer(np.ascontiguousarray(frame()[None, ..., None]))


def test_a_library_that_cannot_be_loaded_is_told(monkeypatch):
    """What is missing, and how to get it; `available` says the same without raising."""
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingEngineError, match="cannot be loaded") as caught:
        opened()
    assert "onnxruntime" in caught.value.hint
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda _: object())
    assert OnnxRuntimeEngine.available().version is None
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda _: None)
    assert OnnxRuntimeEngine.available().reason == "not installed"


def test_telemetry_is_off(monkeypatch):
    """It is switched off before the first session."""
    called = []
    monkeypatch.setattr(library, "disable_telemetry_events", lambda: called.append("off"))
    real = library.InferenceSession
    monkeypatch.setattr(library, "InferenceSession", lambda *args, **more: called.append("session") or real(*args, **more))
    opened()
    assert called[0] == "off"
    assert "session" in called


def test_files_of_the_device_are_left_alone(tmp_path, monkeypatch):
    """Opening and running writes no profile and no optimized model."""
    monkeypatch.chdir(tmp_path)
    opened().infer(np.ascontiguousarray(frame()[None, ..., None]))
    assert list(tmp_path.iterdir()) == []
