"""Building on the device: what the library is told in each version, what is kept, and what is built again."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import multiprocessing
import os
import re
import threading

import device_onnx
import pytest
import trt_device
from trt_device import Progress, install, members_of, spec_of
from trt_fake import versions

from edgekit.errors import BundleError, MissingEngineError, OutputError, TargetError
from edgekit.runtime import jetson
from edgekit.runtime.engines import cuda as cuda_layer
from edgekit.runtime.engines import tensorrt_api, tensorrt_build
from edgekit.runtime.engines.cache_keys import DeviceKey, EntryKey
from edgekit.runtime.engines.engine_cache import EngineCache
from edgekit.runtime.engines.tensorrt_engine import TensorRtEngine


@pytest.fixture
def device(monkeypatch, tmp_path):
    return install(monkeypatch, tmp_path / "cache")


def build(progress=None, name="tensorrt-int8", members=None, **changes):
    return tensorrt_build.build(spec_of(name, **changes), members or members_of(name), EngineCache(), progress or Progress())


def settings_of(device):
    """What the builder was told, as the fake's plan has it."""
    (plan,) = device.cache.glob("tensorrt-[if]*.plan")
    return json.loads(plan.read_bytes()[36:])


def flags_of(device):
    """Names of the builder's flags."""
    value = int(settings_of(device)["settings"]["flags"])
    return {name for name, member in device.trt.BuilderFlag.__members__.items() if value >> int(member) & 1}


STRONG = [version for version in versions() if int(version.split(".")[0]) >= 10]
WEAK = [version for version in versions() if version not in STRONG]


@pytest.mark.parametrize("version", STRONG)
def test_from_version_10_on_the_graph_says_the_types(monkeypatch, tmp_path, version):
    """Networks are strongly typed, and the builder gets no precision of its own."""
    device = install(monkeypatch, tmp_path / "cache", version)
    build()
    flag = device.trt.NetworkDefinitionCreationFlag.__members__["STRONGLY_TYPED"]
    assert settings_of(device)["network_flags"] == (1 << int(flag) if int(version.split(".")[0]) < 11 else 0)
    assert flags_of(device) == set()


@pytest.mark.parametrize("version", WEAK)
def test_before_version_10_the_builder_may_use_int8_alone(monkeypatch, tmp_path, version):
    """Networks have an explicit batch, and the builder may use int8 beside float32 and no float16, which was not proven."""
    device = install(monkeypatch, tmp_path / "cache", version)
    build()
    assert settings_of(device)["network_flags"] == 1 << int(device.trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
    assert flags_of(device) == {"INT8"}


@pytest.mark.parametrize("version", versions())
def test_float16_is_built_from_version_10_on(monkeypatch, tmp_path, version):
    """Before version 10 the builder would choose the types itself, so the float16 engine is refused, at building and at opening."""
    device = install(monkeypatch, tmp_path / "cache", version)
    if version in STRONG:
        assert not build(name="tensorrt-fp16").cached
        return
    for call in (build, lambda name: TensorRtEngine.open(spec_of(name), members_of(name))):
        with pytest.raises(TargetError, match=r"chooses itself where tensorrt-fp16 works in float16") as caught:
            call(name="tensorrt-fp16")
        assert "tensorrt-int8" in caught.value.hint
    assert not device.cache.exists()
    assert "Builder" not in device.world.names()


@pytest.mark.parametrize("version", versions())
def test_the_builder_is_told_the_settings_of_the_bundle(monkeypatch, tmp_path, version):
    """Workspace, level and streams are the bundle's, where the version has them; TF32 is off."""
    device = install(monkeypatch, tmp_path / "cache", version)
    build(settings={"WORKSPACE_MIB": "300", "OPTIMIZATION_LEVEL": "2", "MAX_AUX_STREAMS": "1"})
    told = {call.name: call for call in device.world.calls}
    assert 300 * 2**20 in told["IBuilderConfig.set_memory_pool_limit"].arguments.values()
    assert device.trt.BuilderFlag.TF32 in told["IBuilderConfig.clear_flag"].arguments.values()
    found = settings_of(device)["settings"]
    if version == "8.5":
        assert "builder_optimization_level" not in device.trt.IBuilderConfig.__dict__
    else:
        assert (found["builder_optimization_level"], found["max_aux_streams"]) == ("2", "1")


def test_what_is_kept(device):
    """A plan, byte for byte as it was built, and a sidecar with the key, the digest, the size and how long it took."""
    built = build()
    sidecar = json.loads((device.cache / f"{built.entry}.json").read_text())
    assert sidecar["key"] == {
        "kind": "tensorrt-int8",
        "model_sha256": hashlib.sha256(trt_device.MODELS["tensorrt-int8"]).hexdigest(),
        "options": {"FLAGS": "INT8", "MAX_AUX_STREAMS": "0", "OPTIMIZATION_LEVEL": "3", "WORKSPACE_MIB": "512"},
        "device": {
            "tensorrt": "10.3.0",
            "cuda_runtime": "12.6",
            "cuda_driver": "12.6",
            "compute_capability": "8.7",
            "gpu": "Orin",
            "multiprocessors": 8,
            "module": "p3767-0003",
            "l4t": "36.4.3",
            "schema": 1,
        },
    }
    plan = (device.cache / f"{built.entry}.plan").read_bytes()
    assert (len(plan), built.size_bytes) == (sidecar["size_bytes"], sidecar["size_bytes"])
    assert built.sha256 == sidecar["sha256"] == hashlib.sha256(plan).hexdigest()
    assert plan.startswith(b"ftrt")
    assert sidecar["build_seconds"] >= 0


def test_what_is_there_is_not_built_again(device):
    """A second build finds the plan; nothing of TensorRT is asked."""
    first = build()
    device.world.calls.clear()
    progress = Progress()
    second = build(progress)
    assert (first.cached, second.cached) == (False, True)
    assert (second.sha256, second.build_seconds, second.reason) == (first.sha256, first.build_seconds, "")
    assert device.world.names() == []
    assert progress.told == [("begin", "build tensorrt-int8", True), ("end",)]
    assert device.cuda.users == 0


def test_the_precisions_do_not_get_in_each_others_way(device):
    """Both engines of a bundle are kept side by side."""
    assert build().entry != build(name="tensorrt-fp16").entry
    assert build().cached
    assert build(name="tensorrt-fp16").cached


def change_the_gpu(monkeypatch, device):
    device.cuda.facts = dataclasses.replace(device.cuda.facts, multiprocessors=16)


def change_the_driver(monkeypatch, device):
    device.cuda._versions = dataclasses.replace(device.cuda._versions, driver="12.8")


def change_the_system(monkeypatch, device):
    monkeypatch.setattr(jetson, "read_module", lambda: jetson.Module(part_number="p3767-0003", model="x", l4t="36.5.0"))


def change_the_module(monkeypatch, device):
    monkeypatch.setattr(jetson, "read_module", lambda: jetson.Module(part_number="p3767-0005", model="x", l4t="36.4.3"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (change_the_gpu, "multiprocessors 8, here 16"),
        (change_the_driver, r"cuda_driver 12\.6, here 12\.8"),
        (change_the_system, r"l4t 36\.4\.3, here 36\.5\.0"),
        (change_the_module, "module p3767-0003, here p3767-0005"),
    ],
)
def test_another_device_builds_its_own(device, monkeypatch, change, says):
    """Whatever a plan depends on of the device is in the key; the reason of the new build tells what differs."""
    build()
    change(monkeypatch, device)
    again = build()
    assert not again.cached
    assert re.search(says, again.reason)


@pytest.mark.parametrize("settings", [{"WORKSPACE_MIB": "513"}, {"OPTIMIZATION_LEVEL": "4"}, {"MAX_AUX_STREAMS": "2"}])
def test_other_options_build_another_plan(device, settings):
    """What the builder is told is in the key; whether a CUDA graph is captured is not."""
    build()
    again = build(settings={**trt_device.SETTINGS, **settings})
    assert (again.cached, again.reason) == (False, "the one that is cached was built with other options")
    assert build(settings={**trt_device.SETTINGS, "CUDA_GRAPH": "false"}).cached


def test_another_model_builds_another_plan(device):
    """The model's bytes are in the key."""
    build()
    again = build(members={"model/tensorrt-int8.onnx": memoryview(trt_device.MODELS["tensorrt-fp16"])})
    assert (again.cached, again.reason) == (False, "it was not built here yet")


def timings_given(device):
    """The serialized timings that builders were given."""
    calls = [call for call in device.world.calls if call.name == "IBuilderConfig.create_timing_cache"]
    return [bytes(argument) for call in calls for argument in call.arguments.values()]


def test_timings_are_kept_for_the_next_build(device):
    """A build begins with the timings of the one before; those that the library refuses are left out, and the build goes on."""
    build()
    (kept,) = device.cache.glob("tensorrt-timings-*.plan")
    content = kept.read_bytes()
    build(name="tensorrt-fp16")
    assert content in timings_given(device)
    assert kept.read_bytes() != content
    kept.write_bytes(b"10.3.0\0spoilt")
    device.world.calls.clear()
    build(settings={"WORKSPACE_MIB": "1"})
    assert timings_given(device) == [b""]


@pytest.mark.parametrize("all_refused", [False, True])
def test_timings_that_the_library_refuses_only_cost_time(device, all_refused):
    """A build goes on without timings that the library does not take, and where it takes none at all."""
    build()
    (sidecar,) = device.cache.glob("tensorrt-timings-*.json")
    listed = json.loads(sidecar.read_text())["key"]
    key = EntryKey(kind=tensorrt_build.TIMINGS, model_sha256="", options={}, device=DeviceKey(**listed["device"]))
    EngineCache().store(key, b"of another version", {})
    device.world.calls.clear()
    device.world.fail |= {"timing_cache"} if all_refused else set()
    assert not build(name="tensorrt-fp16").cached
    assert timings_given(device) == [b"of another version", b""]
    assert (b"of another version" in sidecar.with_suffix(".plan").read_bytes()) == all_refused


@pytest.mark.parametrize("version", versions())
def test_progress(monkeypatch, tmp_path, version):
    """From version 10 on a build tells how far it is; before, it says that it will not."""
    install(monkeypatch, tmp_path / "cache", version)
    progress = Progress()
    build(progress)
    steps = [told for told in progress.told if told[0] == "step"]
    notes = [told for told in progress.told if told[0] == "note"]
    if version in STRONG:
        assert steps == [("step", 1, 2), ("step", 2, 2), ("step", 2, 2)]
        assert not notes
    else:
        assert not steps
        assert "does not tell how far it is" in notes[0][1]


@pytest.mark.parametrize("version", versions())
def test_a_model_that_the_parser_refuses(monkeypatch, tmp_path, version):
    """The error names the node, is the bundle's, and nothing is kept."""
    device = install(monkeypatch, tmp_path / "cache", version, fail={"parse"})
    where = r"/conv/Conv \(Conv\)" if version in STRONG else "0"
    with pytest.raises(BundleError, match=rf"refuses the model: node {where}: Unsupported operation") as caught:
        build()
    assert "edgekit check" in caught.value.hint
    assert not list(device.cache.glob("*.plan"))
    assert device.cuda.users == 0


@pytest.mark.parametrize(
    ("failure", "says"),
    [("build", "cannot build the engine: Could not find any implementation for node conv"), ("builder", "cannot build here")],
)
def test_a_build_that_fails_is_an_error_of_the_device(device, failure, says):
    """What the library says is told; nothing is kept, and the GPU is given back."""
    device.world.fail.add(failure)
    with pytest.raises(TargetError, match=says):
        build()
    assert not list(device.cache.glob("*.plan"))
    assert device.cuda.users == 0


def test_an_old_library_is_refused(device):
    """TensorRT before 8.5 has no inputs and outputs by name."""
    device.trt.__version__ = "8.4.3"
    tensorrt_api._wrap.cache_clear()
    with pytest.raises(TargetError, match=r"TensorRT 8\.4\.3 is older than 8\.5"):
        build()
    tensorrt_api._wrap.cache_clear()


def test_a_folder_that_cannot_be_written_is_told_before_the_build(device, monkeypatch):
    """A cache on a read-only disk is one clear error, at once and not after minutes, and names the way out."""
    device.cache.mkdir()
    real = os.open

    def refuse(path, flags, *rest, **more):
        if str(path).startswith(str(device.cache)) and flags & os.O_CREAT:
            raise OSError(30, "Read-only file system")
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OutputError, match="cannot be written to: Read-only file system") as caught:
        build()
    assert "EDGEKIT_ENGINE_CACHE" in caught.value.hint
    assert "Builder" not in device.world.names()


def test_two_processes_do_not_build_at_once(device, monkeypatch):
    """Who comes second waits, says so, and takes what the first has built."""
    entered, go = threading.Event(), threading.Event()
    real = tensorrt_api.build

    def slow(*arguments):
        entered.set()
        assert go.wait(20)
        return real(*arguments)

    monkeypatch.setattr(tensorrt_api, "build", slow)
    found = []
    first = threading.Thread(target=lambda: found.append(build()))
    first.start()
    assert entered.wait(20)
    progress = Progress()
    waiting = threading.Event()
    note = progress.note
    progress.note = lambda text: (note(text), waiting.set())
    second = threading.Thread(target=lambda: found.append(build(progress)))
    second.start()
    assert waiting.wait(20)
    go.set()
    first.join()
    second.join()
    # Who came first may be the second to say so.
    assert sorted(built.cached for built in found) == [False, True]
    assert ("note", "another process builds tensorrt-int8; waiting for it") in progress.told


def hold_and_die(folder, ready):
    os.environ["EDGEKIT_ENGINE_CACHE"] = str(folder)
    from edgekit.runtime.engines.cache_keys import DeviceKey, EntryKey

    key = EntryKey(
        kind="tensorrt-int8",
        model_sha256="0" * 64,
        options={},
        device=DeviceKey(
            tensorrt="1", cuda_runtime="1", cuda_driver="1", compute_capability="1", gpu="g", multiprocessors=1, module="", l4t=""
        ),
    )
    with EngineCache().locked(key):
        ready.set()
        os._exit(9)


def test_a_process_that_dies_gives_the_lock_back(tmp_path):
    """A build that was killed does not keep others from building."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold_and_die, args=(tmp_path / "cache", ready))
    process.start()
    process.join(60)
    assert process.exitcode == 9
    assert ready.is_set()
    (lock,) = (tmp_path / "cache").glob("*.lock")
    descriptor = os.open(lock, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


def test_nothing_is_built_without_a_binding_of_cuda(device, monkeypatch):
    """A missing library is the installer's to mend, not the device's."""

    def missing():
        raise MissingEngineError("none")

    monkeypatch.setattr(cuda_layer, "open_cuda", missing)
    with pytest.raises(MissingEngineError):
        build()


def test_every_gate_is_true_of_the_manifests(monkeypatch, tmp_path):
    """A name of the table exists in every version that it is used in."""
    for version in versions():
        device = install(monkeypatch, tmp_path / version, version)
        api = tensorrt_api.open_api()
        for name in tensorrt_api.GATES:
            kind, _, attribute = name.partition(".")
            found = getattr(device.trt, kind, None)
            there = found is not None and (not attribute or hasattr(found, attribute))
            assert there or not api.has(name), (version, name)


def test_the_terminal_is_left_alone(device, capfd):
    """What the library logs stays off stdout and stderr; its errors are in ours."""
    device.world.fail.add("build")
    with pytest.raises(TargetError):
        build()
    assert capfd.readouterr() == ("", "")


OUTSIDE = {
    "weights-elsewhere": (
        device_onnx.field(7, device_onnx.field(5, device_onnx.field(8, "w") + device_onnx.field(14, 1))),
        "weights in another file",
    ),
    "operators-of-its-own": (
        device_onnx.model([device_onnx.node("Plug", ["frame"], "logits", domain="com.example")], [], [], []),
        "operators of the domain 'com.example'",
    ),
    "no-onnx": (b"the int8 graph", "not an ONNX file"),
}


@pytest.mark.parametrize("fault", OUTSIDE)
def test_a_model_that_asks_for_anything_outside_itself_reaches_no_parser(device, fault):
    """The bytes are looked through before TensorRT has them: at building, at opening, and where the cache is asked."""
    data, says = OUTSIDE[fault]
    members = {"model/tensorrt-int8.onnx": memoryview(data)}
    for call in (
        lambda: build(members=members),
        lambda: TensorRtEngine.open(spec_of(), members),
        lambda: tensorrt_build.find(spec_of(), members, EngineCache(), tensorrt_build.this_device()),
    ):
        with pytest.raises(BundleError, match=says):
            call()
    assert not {"Builder", "OnnxParser", "Runtime"} & set(device.world.names())
    assert not device.cache.exists()


def test_the_plan_is_kept_though_the_timings_are_not(device, monkeypatch):
    """Timings that cannot be stored cost the next build time, not this one its plan; why is a note."""
    store = EngineCache.store

    def full(self, key, payload, facts):
        if key.kind == tensorrt_build.TIMINGS:
            raise OutputError("No space left on device")
        return store(self, key, payload, facts)

    monkeypatch.setattr(EngineCache, "store", full)
    progress = Progress()
    assert not build(progress).cached
    assert [told for told in progress.told if told[0] == "note"] == [
        ("note", "the next build is not faster, the builder's timings were not kept: No space left on device")
    ]
    assert build().cached


def test_timings_have_their_own_lock(device, monkeypatch):
    """While timings are written, their lock is held beside the engine's."""
    store, held = EngineCache.store, {}

    def looking(self, key, payload, facts):
        held[key.kind] = sorted(path.name.rpartition("-")[0] for path in self.folder.glob("*.lock") if locked_by_another(path))
        return store(self, key, payload, facts)

    monkeypatch.setattr(EngineCache, "store", looking)
    build()
    assert held == {"tensorrt-int8": ["tensorrt-int8"], tensorrt_build.TIMINGS: ["tensorrt-int8", tensorrt_build.TIMINGS]}


def locked_by_another(path):
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), BrokenPipeError("stderr is gone")], ids=["ctrl-c", "broken-pipe"])
def test_what_is_raised_inside_a_build_stops_it_and_comes_out_after_it(device, error):
    """The monitor never raises into the library: it asks for an end, and the build raises what was raised."""
    progress = Progress()
    returned = []

    def stop(done, total):
        raise error

    progress.step = stop
    real = device.trt.Builder.build_serialized_network
    device.trt.Builder.build_serialized_network = lambda *arguments: returned.append(real(*arguments)) or returned[0]
    with pytest.raises(type(error)):
        build(progress)
    assert returned == [None]
    assert not list(device.cache.glob("*.plan"))
    assert device.cuda.users == 0
    device.trt.Builder.build_serialized_network = real
    assert not build().cached
