"""The TensorRT engine on fakes of every version: how it opens, what it runs, what it gives back, and what it never loads."""

from __future__ import annotations

import contextlib
import gc
import json
import sys
import threading

import numpy as np
import pytest
import trt_device
from device_bundles import clip_of, logits_of, maps_of
from fake_cuda import DISCRETE, ORIN
from trt_device import Progress, install, members_of, numpy_engine, spec_of, tensor
from trt_fake import FakeEngine, FakeTensor, versions

from edgekit.errors import BundleError, DataError, MissingEngineError, TargetError
from edgekit.runtime.engines import cuda as cuda_layer
from edgekit.runtime.engines import tensorrt_build
from edgekit.runtime.engines.base import EngineNotBuiltError
from edgekit.runtime.engines.engine_cache import EngineCache
from edgekit.runtime.engines.tensorrt_engine import TensorRtEngine


@pytest.fixture
def device(monkeypatch, tmp_path):
    return install(monkeypatch, tmp_path / "cache")


def build(spec=None, members=None):
    spec = spec or spec_of()
    return tensorrt_build.build(spec, members or members_of(spec.name), EngineCache(), Progress())


def built_and_opened(**changes):
    spec = spec_of(**changes)
    build(spec)
    return TensorRtEngine.open(spec, members_of(spec.name))


@pytest.mark.parametrize("facts", [ORIN, DISCRETE], ids=["mapped", "copied"])
@pytest.mark.parametrize("version", versions())
def test_the_answers_are_right_on_every_version(monkeypatch, tmp_path, version, facts):
    """One code path answers as numpy does on TensorRT 8.5 to 11, with memory that is mapped and with memory that is copied."""
    install(monkeypatch, tmp_path / "cache", version, facts=facts)
    engine = built_and_opened()
    for seed in range(4):
        raw = engine.infer(tensor(seed))
        assert (raw.logits.dtype, raw.logits.shape, raw.cam.dtype, raw.cam.shape) == (np.float32, (2,), np.float32, (2, 4, 4))
        np.testing.assert_allclose(raw.logits, logits_of(tensor(seed)[0, ..., 0], 2), atol=1e-5)
        np.testing.assert_allclose(raw.cam, maps_of(tensor(seed)[0, ..., 0], 2), atol=1e-5)
    assert engine.describe()["cuda_graph"] == "captured"
    assert (engine.input_shape, engine.map_shape) == ((1, 16, 16, 1), (2, 4, 4))


@pytest.mark.parametrize("facts", [ORIN, DISCRETE], ids=["mapped", "copied"])
@pytest.mark.parametrize("version", versions())
def test_a_state_goes_in_and_comes_out(monkeypatch, tmp_path, version, facts):
    """A recurrent engine is given the state and gives the next one, whatever the order of its tensors, with a CUDA graph as without."""

    def compute(taken):
        logits = logits_of(taken["frame"][0, ..., 0], 2)[None] + taken["state"]
        return {"logits": logits, "next_state": logits / 2}

    frame, state, following, logits = (
        FakeTensor(name=name, dtype="UINT8" if name == "frame" else "FLOAT", shape=(1, 16, 16, 1) if name == "frame" else (1, 2))
        for name in ("frame", "state", "next_state", "logits")
    )
    fake = FakeEngine(inputs=(state, frame), outputs=(following, logits), compute=compute)
    install(monkeypatch, tmp_path / "cache", version, engine=fake, facts=facts)
    engine = built_and_opened()
    assert (engine.state_shape, engine.map_shape) == ((1, 2), None)
    expected, states = clip_of([tensor(seed)[0, ..., 0] for seed in range(3)], 2)
    held = engine.initial_state()
    for seed in range(3):
        raw = engine.infer(tensor(seed), held)
        held = raw.next_state
        np.testing.assert_allclose(raw.logits, expected[seed], atol=1e-5)
        np.testing.assert_allclose(held[0], states[seed], atol=1e-5)
    assert engine.describe()["cuda_graph"] == "captured"


def test_opening_never_builds(device):
    """Without a plan in the cache, opening is refused with the command that builds; the builder is not made."""
    with pytest.raises(EngineNotBuiltError, match="tensorrt-int8 is not built on this device: no engine was built here yet") as caught:
        TensorRtEngine.open(spec_of(), members_of())
    assert caught.value.hint == "edgekit build BUNDLE"
    assert "Builder" not in device.world.names()
    assert not device.cache.exists()


def damage(path, change):
    path.write_bytes(change(path.read_bytes()))


PLAN_FAULTS = {
    "cut-short": (lambda plan: plan[:-1], "bytes, not the"),
    "empty": (lambda plan: plan[:0], "has 0 bytes"),
    "flipped": (lambda plan: plan[:40] + bytes([plan[40] ^ 1]) + plan[41:], "not the one that was built"),
    "another": (lambda plan: b"x" * len(plan), "not the one that was built"),
}


@pytest.mark.parametrize("fault", PLAN_FAULTS)
def test_a_damaged_plan_is_never_loaded_and_built_again(device, fault):
    """A plan whose bytes are not those that were built reaches no library; opening tells why, and a build replaces it."""
    build()
    change, says = PLAN_FAULTS[fault]
    (plan,) = device.cache.glob("tensorrt-int8-*.plan")
    damage(plan, change)
    device.world.calls.clear()
    with pytest.raises(EngineNotBuiltError, match=says):
        TensorRtEngine.open(spec_of(), members_of())
    assert not [name for name in device.world.names() if "deserialize" in name]
    assert says in build().reason
    assert TensorRtEngine.open(spec_of(), members_of()).infer(tensor()).logits.shape == (2,)


def test_a_plan_of_another_version_is_never_loaded(monkeypatch, tmp_path):
    """After an update of TensorRT the plan of before is told and not loaded, and a build makes a new one."""
    install(monkeypatch, tmp_path / "cache", "10.3")
    build()
    after = install(monkeypatch, tmp_path / "cache", "10.13")
    with pytest.raises(EngineNotBuiltError, match=r"was built with tensorrt 10\.3\.0, here 10\.13"):
        TensorRtEngine.open(spec_of(), members_of())
    assert not [name for name in after.world.names() if "deserialize" in name]
    assert not build().cached
    TensorRtEngine.open(spec_of(), members_of())


def test_a_plan_that_the_library_does_not_take_is_an_error_of_the_device(device):
    """Where the library refuses a whole plan, its own words are told."""
    build()
    device.world.fail.add("deserialize")
    with pytest.raises(TargetError, match="does not take the plan that was built here: Cuda failure: out of memory"):
        TensorRtEngine.open(spec_of(), members_of())
    assert (device.cuda.live, device.cuda.users) == ([], 0)


@pytest.mark.parametrize("failure", ["context", "runtime"])
def test_what_fails_at_opening_frees_everything(device, failure):
    """No memory, no stream and no user of the GPU is left when opening fails half-way."""
    build()
    device.world.fail.add(failure)
    with pytest.raises(TargetError, match="cannot run"):
        TensorRtEngine.open(spec_of(), members_of())
    assert (device.cuda.live, device.cuda.users) == ([], 0)


def test_everything_is_given_back(device):
    """`close` frees all memory, stream and graph once; so does losing the engine; a closed engine answers no more."""
    engine = built_and_opened()
    assert device.cuda.live
    engine.close()
    engine.close()
    assert (device.cuda.live, device.cuda.users) == ([], 0)
    with pytest.raises(TargetError, match="was closed"):
        engine.infer(tensor())
    lost = TensorRtEngine.open(spec_of(), members_of())
    assert device.cuda.live
    del lost
    gc.collect()
    assert (device.cuda.live, device.cuda.users) == ([], 0)


def test_nothing_is_allocated_for_a_frame(device):
    """After opening, a frame is one launch and one wait, and no memory is taken."""
    engine = built_and_opened()
    device.cuda.calls.clear()
    device.world.calls.clear()
    engine.infer(tensor())
    assert device.cuda.calls == ["launch", "synchronize"]
    assert device.world.names() == []


def test_without_a_graph_each_frame_is_copied_and_enqueued(monkeypatch, tmp_path):
    """On a GPU with memory of its own a frame goes in, is computed, and logits and maps come out, in this order on one stream."""
    device = install(monkeypatch, tmp_path / "cache", facts=DISCRETE)
    engine = built_and_opened(settings={**trt_device.SETTINGS, "CUDA_GRAPH": "false"})
    device.cuda.calls.clear()
    engine.infer(tensor())
    assert device.cuda.calls == ["copy_to_device_async", "copy_to_host_async", "copy_to_host_async", "synchronize"]
    assert engine.describe()["cuda_graph"] == "not wanted by the bundle"


@pytest.mark.parametrize(("where", "failure"), [("cuda", "capture"), ("cuda", "launch"), ("world", "execute_capture")])
def test_where_no_graph_can_be_captured_frames_are_enqueued(device, where, failure):
    """A capture or a launch that fails is told in `describe`, and the answers are right all the same."""
    build()
    getattr(device, where).fail.add(failure)
    engine = TensorRtEngine.open(spec_of(), members_of())
    assert engine.describe()["cuda_graph"].startswith("not used: ")
    np.testing.assert_allclose(engine.infer(tensor(1)).logits, logits_of(tensor(1)[0, ..., 0], 2), atol=1e-5)
    device.cuda.calls.clear()
    engine.infer(tensor(2))
    assert "launch" not in device.cuda.calls
    engine.close()
    assert device.cuda.live == []


def test_a_graph_that_answers_otherwise_is_not_used(monkeypatch, tmp_path):
    """A graph whose answer differs from a plain run's is dropped, and `describe` says so."""
    device = install(monkeypatch, tmp_path / "cache")
    build()
    launch = device.cuda.launch

    def spoilt(graph, stream):
        launch(graph, stream)
        device.cuda.enqueue(stream.pointer, lambda: next(iter(device.cuda._memory.values())).__setitem__(0, 0))
        for item in device.cuda.live:
            array = getattr(item, "array", None)
            if array is not None and array.nbytes == 8:
                device.cuda.enqueue(stream.pointer, lambda array=array: array.view(np.float32).__iadd__(1))

    monkeypatch.setattr(device.cuda, "launch", spoilt)
    engine = TensorRtEngine.open(spec_of(), members_of())
    assert "differ from a plain run's" in engine.describe()["cuda_graph"]
    np.testing.assert_allclose(engine.infer(tensor(1)).logits, logits_of(tensor(1)[0, ..., 0], 2), atol=1e-5)


def test_a_frame_that_fails_is_an_error_of_the_device(device):
    """What the library or the GPU says about a frame comes out as one error."""
    engine = built_and_opened(settings={**trt_device.SETTINGS, "CUDA_GRAPH": "false"})
    device.world.fail.add("execute")
    with pytest.raises(TargetError, match="TensorRT failed on a frame: Cuda failure: unspecified launch failure"):
        engine.infer(tensor())
    device.world.fail.clear()
    device.cuda.fail.add("synchronize")
    with pytest.raises(TargetError, match="synchronize"):
        engine.infer(tensor())


@pytest.mark.parametrize("off", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_no_answer(monkeypatch, tmp_path, off):
    """A model that answers with NaN or infinity is an error, not an answer; it opens all the same."""
    install(monkeypatch, tmp_path / "cache", engine=numpy_engine(off=off))
    engine = built_and_opened()
    with pytest.raises(TargetError, match="NaN or infinite logits"):
        engine.infer(tensor())


def test_answers_are_the_callers_own(device):
    """An answer stays what it is when the next frame comes."""
    engine = built_and_opened()
    raw = engine.infer(tensor(1))
    kept = raw.logits.copy(), raw.cam.copy()
    engine.infer(tensor(2))
    np.testing.assert_array_equal(raw.logits, kept[0])
    np.testing.assert_array_equal(raw.cam, kept[1])
    raw.logits[:], raw.cam[:] = 0, 0
    np.testing.assert_array_equal(engine.infer(tensor(1)).logits, kept[0])


def test_frames_may_come_from_another_thread(device):
    """The GPU is made current in the thread that a frame comes in."""
    engine = built_and_opened()
    found = []
    thread = threading.Thread(target=lambda: found.append(engine.infer(tensor(3)).logits))
    thread.start()
    thread.join()
    np.testing.assert_allclose(found[0], logits_of(tensor(3)[0, ..., 0], 2), atol=1e-5)


def test_another_tensor_is_refused(device):
    """A tensor that does not fit the graph is a data error."""
    with pytest.raises(DataError, match="the graph takes uint8"):
        built_and_opened().infer(np.zeros((1, 16, 16, 3), np.uint8))


FRAME = FakeTensor(name="frame", dtype="UINT8", shape=(1, 16, 16, 1))
LOGITS = FakeTensor(name="logits", dtype="FLOAT", shape=(1, 2))
CAM = FakeTensor(name="cam", dtype="FLOAT", shape=(1, 2, 4, 4))
GRAPHS = {
    "float-input": ((FakeTensor(name="frame", dtype="FLOAT", shape=(1, 16, 16, 1)),), (LOGITS,), "inputs"),
    "two-inputs": ((FRAME, FakeTensor(name="more", dtype="UINT8", shape=(1, 16, 16, 1))), (LOGITS,), "inputs"),
    "flat-input": ((FakeTensor(name="frame", dtype="UINT8", shape=(1, 256)),), (LOGITS,), "inputs"),
    "no-outputs": ((FRAME,), (), "2 logits"),
    "half-logits": ((FRAME,), (FakeTensor(name="logits", dtype="HALF", shape=(1, 2)),), "not float32"),
    "three-logits": ((FRAME,), (FakeTensor(name="logits", dtype="FLOAT", shape=(1, 3)),), "2 logits"),
    "half-maps": ((FRAME,), (LOGITS, FakeTensor(name="cam", dtype="HALF", shape=(1, 2, 4, 4))), "not float32"),
    "one-map": ((FRAME,), (LOGITS, FakeTensor(name="cam", dtype="FLOAT", shape=(1, 1, 4, 4))), "a map each"),
    "another-output": ((FRAME,), (LOGITS, CAM, FakeTensor(name="more", dtype="FLOAT", shape=(1, 2))), "outputs are logits, cam, more; a"),
    "offset-without-maps": ((FRAME,), (LOGITS, FakeTensor(name="offset", dtype="FLOAT", shape=(1, 2))), "an offset each"),
    "one-offset": ((FRAME,), (LOGITS, CAM, FakeTensor(name="offset", dtype="FLOAT", shape=(1, 1))), "an offset each"),
}


@pytest.mark.parametrize("fault", GRAPHS)
def test_a_graph_of_another_kind_is_refused(monkeypatch, tmp_path, fault):
    """An engine that is not one uint8 tensor in, float32 logits and at most their maps and offset out, is not run."""
    inputs, outputs, says = GRAPHS[fault]
    device = install(monkeypatch, tmp_path / "cache", engine=FakeEngine(inputs=inputs, outputs=outputs, compute=dict))
    with pytest.raises(BundleError, match=says):
        built_and_opened()
    assert (device.cuda.live, device.cuda.users) == ([], 0)


def test_maps_may_come_before_logits(monkeypatch, tmp_path):
    """Outputs are known by their names, whatever order the builder gives them."""
    made = numpy_engine()
    install(monkeypatch, tmp_path / "cache", engine=FakeEngine(inputs=made.inputs, outputs=made.outputs[::-1], compute=made.compute))
    np.testing.assert_allclose(built_and_opened().infer(tensor(1)).logits, logits_of(tensor(1)[0, ..., 0], 2), atol=1e-5)


def test_a_graph_without_maps(monkeypatch, tmp_path):
    """Logits alone are an answer too."""
    install(monkeypatch, tmp_path / "cache", engine=numpy_engine(cam=False))
    engine = built_and_opened()
    assert (engine.map_shape, engine.infer(tensor()).cam) == (None, None)


def test_it_says_what_is_in_use(device):
    """`describe` names engine, version, device, precision, memory and graph."""
    assert built_and_opened().describe() == {
        "name": "tensorrt-int8",
        "version": "10.3.0",
        "device": "Orin, compute capability 8.7",
        "precision": "int8",
        "threads": "one stream",
        "memory": "the host's, mapped",
        "cuda_graph": "captured",
        "cuda": "12.6 by fake 1.0, driver for 12.6",
    }
    assert TensorRtEngine.available().version == "10.3.0"
    gc.collect()
    assert device.cuda.users == 0


@pytest.mark.parametrize("version", versions())
def test_it_says_what_the_builder_made_of_the_graph(monkeypatch, tmp_path, version):
    """The layers of the engine can be read in every version."""
    install(monkeypatch, tmp_path / "cache", version)
    assert json.loads(built_and_opened().layers())["Layers"] == [{"Name": "conv", "LayerType": "CaskConvolution"}]


def test_a_library_that_is_not_there(device, monkeypatch):
    """Without TensorRT or without a binding of CUDA the engine is missing, with the way to get it, and `available` says the same."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingEngineError, match="TensorRT cannot be loaded") as caught:
        TensorRtEngine.open(spec_of(), members_of())
    assert "JetPack" in caught.value.hint
    assert TensorRtEngine.available().version is None


def test_a_binding_that_is_not_there(device, monkeypatch):
    """Without pycuda and cuda-python the engine is missing."""

    def missing():
        raise MissingEngineError("no Python binding of CUDA can be loaded", hint="install one")

    monkeypatch.setattr(cuda_layer, "open_cuda", missing)
    with pytest.raises(MissingEngineError, match="no Python binding"):
        TensorRtEngine.open(spec_of(), members_of())
    found = TensorRtEngine.available()
    assert (found.version, found.hint) == (None, "install one")


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        ({"minimum_version": "10.9"}, TargetError, r"TensorRT 10\.3\.0 is older than 10\.9"),
        ({"files": {"model": "model/x"}}, BundleError, "needs the file onnx"),
        ({"name": "tensorrt-int4"}, BundleError, "no engine of TensorRT"),
        ({"settings": {}}, BundleError, "does not pin WORKSPACE_MIB"),
        (
            {"settings": {**trt_device.SETTINGS, "PLUGIN_PATH": "x"}},
            BundleError,
            "'PLUGIN_PATH' of TensorRT is not one a bundle may choose",
        ),
        ({"settings": {**trt_device.SETTINGS, "OPTIMIZATION_LEVEL": "6"}}, BundleError, "6 is not between 0 and 5"),
        ({"settings": {**trt_device.SETTINGS, "WORKSPACE_MIB": "much"}}, BundleError, "WORKSPACE_MIB of TensorRT"),
        ({"settings": {**trt_device.SETTINGS, "CUDA_GRAPH": "yes"}}, BundleError, "neither true nor false"),
    ],
)
def test_an_entry_that_cannot_run_here_is_refused(device, changes, kind, says):
    """What the manifest says wrongly, or this device does not have, is refused before anything is looked for or built."""
    for call in (lambda spec: TensorRtEngine.open(spec, members_of()), lambda spec: build(spec, members_of())):
        with pytest.raises(kind, match=says) as caught:
            call(spec_of(**changes))
        assert caught.value.hint
    assert not device.cache.exists()


def test_giving_back_goes_on_and_hides_no_error(device):
    """After an error that the GPU does not survive, everything is still given back as far as it goes, and the error of the frame is the one that is told."""
    engine = built_and_opened(settings={**trt_device.SETTINGS, "CUDA_GRAPH": "false"})
    held = len(device.cuda.live)
    device.cuda.fail = {"synchronize", "free"}
    device.cuda.calls.clear()

    def frame_and_close():
        try:
            engine.infer(tensor())
        finally:
            engine.close()

    with pytest.raises(TargetError, match="synchronize"):
        frame_and_close()
    assert device.cuda.calls.count("free") == held > 1
    assert device.cuda.users == 0


def test_opening_that_fails_tells_its_own_error(device):
    """Where memory is missing and cannot be given back either, what was missing is told."""
    build()
    device.cuda.fail = {"host_alloc", "free"}
    with pytest.raises(TargetError, match="host_alloc"):
        TensorRtEngine.open(spec_of(), members_of())
    assert device.cuda.users == 0


def test_a_gpu_that_cannot_be_made_current_any_more(device, monkeypatch):
    """Closing then raises nothing, and the library's objects and the use of the GPU are given up all the same."""
    engine = built_and_opened()

    @contextlib.contextmanager
    def gone():
        raise TargetError("the context is gone")
        yield

    monkeypatch.setattr(device.cuda, "active", gone)
    engine.close()
    assert (engine._program._objects, device.cuda.users) == ([], 0)


def test_a_plan_that_must_be_another_is_not_loaded(device):
    """Where the sha256 of the plan is given, no other one is loaded, however whole it is."""
    built = build()
    assert TensorRtEngine.open(spec_of(), members_of(), plan_sha256=built.sha256).infer(tensor()).logits.shape == (2,)
    device.world.calls.clear()
    with pytest.raises(EngineNotBuiltError, match="not the one that reproduced the golden frames"):
        TensorRtEngine.open(spec_of(), members_of(), plan_sha256="0" * 64)
    assert not [name for name in device.world.names() if "deserialize" in name]
