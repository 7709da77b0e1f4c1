"""The OpenVINO engine: what it refuses, what it pins, and that it keeps to itself."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from device_bundles import SETTINGS, frame, graph, logits_of, write_device_bundle

from edgekit.bundle.manifest import EngineSpec
from edgekit.errors import BundleError, DataError, MissingEngineError, TargetError
from edgekit.runtime.engines import openvino as module
from edgekit.runtime.engines.openvino import OpenVinoEngine, load_library

SPEC = EngineSpec(
    name="openvino",
    files={"xml": "model/openvino.xml", "bin": "model/openvino.bin"},
    minimum_version="2024.1",
    precision="f32",
    settings=SETTINGS,
    outputs=2,
)


def members(files=None):
    files = files or graph(outputs=2)
    return {name: memoryview(files[role]) for role, name in SPEC.files.items()}


def ir_of(model, tmp_path):
    """The members of any OpenVINO model."""
    load_library().save_model(model, tmp_path / "model.xml", compress_to_fp16=False)
    return members({role: (tmp_path / f"model.{role}").read_bytes() for role in ("xml", "bin")})


def test_the_precision_is_pinned_and_read_back():
    """What runs is float32 on one stream, as the bundle says, and `describe` says what is really in use."""
    engine = OpenVinoEngine.open(SPEC, members())
    found = engine.describe()
    assert (found["name"], found["device"], found["precision"]) == ("openvino", "CPU", "f32")
    assert found["version"] == load_library().__version__.split("-")[0]
    assert int(found["threads"]) >= 1
    assert list(found) == ["name", "version", "device", "precision", "threads", "model"]


def test_a_device_that_takes_another_precision_is_refused(monkeypatch):
    """Where the device answers with another precision than was asked for, the bundle does not run."""

    class Stubborn:
        """A core whose device runs bfloat16, whatever it is told."""

        available_devices = ("CPU",)

        def read_model(self, *arguments):
            return load_library().Core().read_model(*arguments)

        def compile_model(self, *_):
            return self

        def get_property(self, _):
            return load_library().Type.bf16

    monkeypatch.setattr(module, "shared_core", Stubborn)
    with pytest.raises(TargetError, match="runs INFERENCE_PRECISION_HINT = bf16, the bundle was proven with f32"):
        OpenVinoEngine.open(SPEC, members())


class Machine:
    """A core of a machine with some devices; what it compiles runs where `runs` says."""

    def __init__(self, devices, runs):
        self.available_devices = devices
        self.runs = runs
        self.asked = []

    def read_model(self, *arguments):
        return load_library().Core().read_model(*arguments)

    def compile_model(self, model, device, settings):
        self.asked.append((device, settings))
        compiled = load_library().Core().compile_model(model, "CPU", {**settings, "INFERENCE_PRECISION_HINT": "f32"})
        return Compiled(compiled, self.runs)


class Compiled:
    """A compiled model that says where it runs."""

    def __init__(self, compiled, runs):
        self._compiled, self._runs = compiled, runs

    def __getattr__(self, name):
        return getattr(self._compiled, name)

    def get_property(self, name):
        return self._runs if name == "EXECUTION_DEVICES" else self._compiled.get_property(name)


@pytest.mark.parametrize(
    ("devices", "runs", "says"),
    [
        (["CPU"], ["GPU"], "OpenVINO finds no GPU here, only CPU"),
        (["CPU", "GPU.0", "GPU.1"], ["CPU"], "runs the model on CPU, it was proven on GPU"),
        (["CPU", "GPU"], ["(CPU)"], "runs the model on CPU, it was proven on GPU"),
    ],
)
def test_another_device_than_the_proven_one_is_refused(monkeypatch, devices, runs, says):
    """A device that is not there, and one that hands the model to the CPU, do not answer for it."""
    monkeypatch.setattr(module, "shared_core", lambda: Machine(devices, runs))
    with pytest.raises(TargetError, match=says):
        OpenVinoEngine.open(dataclasses.replace(SPEC, settings={**SETTINGS, "DEVICE": "GPU"}), members())


def test_the_device_that_was_proven_is_asked_for(monkeypatch):
    """The device is no setting of the plugin's, and threads are told of a CPU only."""
    machine = Machine(["CPU", "GPU.0"], ["GPU.0"])
    monkeypatch.setattr(module, "shared_core", lambda: machine)
    engine = OpenVinoEngine.open(dataclasses.replace(SPEC, settings={**SETTINGS, "DEVICE": "GPU"}), members())
    assert machine.asked == [("GPU", SETTINGS)]
    assert (engine.describe()["device"], engine.describe()["threads"]) == ("GPU.0", "")


def test_a_device_that_openvino_does_not_have_is_a_fault_of_the_bundle():
    """Nothing but the three names reaches the library."""
    with pytest.raises(BundleError, match="no device 'GNA'"):
        OpenVinoEngine.open(dataclasses.replace(SPEC, settings={**SETTINGS, "DEVICE": "GNA"}), members())


@pytest.mark.parametrize("key", ["CACHE_DIR", "LOG_LEVEL", "INFERENCE_PRECISION", "DEVICE_ID"])
def test_settings_a_bundle_may_not_choose(key):
    """A setting that is not in the list is refused before the library sees it; the nearest is named."""
    spec = dataclasses.replace(SPEC, settings={**SETTINGS, key: "x"})
    with pytest.raises(BundleError, match=f"{key!r} of OpenVINO is not one a bundle may choose") as caught:
        OpenVinoEngine.open(spec, members())
    assert "INFERENCE_PRECISION_HINT" in caught.value.hint


def test_the_settings_of_every_target_are_allowed():
    """Every target of the catalogue that runs on OpenVINO has settings that a bundle may choose."""
    from edgekit.catalog import files
    from edgekit.catalog.target import load_target

    engines = [engine for name in files.names("targets") for engine in load_target(name).engines if engine.name == "openvino"]
    assert engines
    for engine in engines:
        module._check_spec(dataclasses.replace(SPEC, settings=engine.settings))


def dynamic_input(ops, openvino):
    taken = ops.parameter([-1, 16, 16, 1], openvino.Type.u8)
    return openvino.Model([ops.reduce_mean(ops.convert(taken, "f32"), np.array([1, 2]))], [taken], "dynamic")


def float_input(ops, openvino):
    taken = ops.parameter([1, 16, 16, 1], openvino.Type.f32)
    return openvino.Model([ops.reduce_mean(taken, np.array([1, 2]))], [taken], "float")


def two_inputs(ops, openvino):
    taken = [ops.parameter([1, 16, 16, 1], openvino.Type.u8) for _ in range(2)]
    return openvino.Model([ops.reduce_mean(ops.convert(ops.add(*taken), "f32"), np.array([1, 2]))], taken, "two")


def flat_map(ops, openvino):
    taken = ops.parameter([1, 16, 16, 1], openvino.Type.u8)
    logits = ops.concat([ops.reduce_mean(ops.convert(taken, "f32"), np.array([1, 2]))] * 2, 1)
    maps = ops.multiply(logits, logits)
    for value, name in ((logits, "logits"), (maps, "cam")):
        value.output(0).get_tensor().set_names({name})
    return openvino.Model([logits, maps], [taken], "flat")


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (dynamic_input, r"inputs \{.*: \(\)\} are not one uint8 tensor"),
        (float_input, "are not one uint8 tensor"),
        (two_inputs, r"inputs \{.*: \(1, 16, 16, 1\), .*: \(1, 16, 16, 1\)\} are not one"),
        (flat_map, r"'cam': \(1, 2\)\} are not 2 logits and a map each"),
    ],
)
def test_graphs_of_another_shape(build, says, tmp_path):
    """A graph that is not one uint8 tensor in, logits and maps out, is refused."""
    openvino = load_library()
    with pytest.raises(BundleError, match=says) as caught:
        OpenVinoEngine.open(SPEC, ir_of(build(openvino.opset13, openvino), tmp_path))
    assert caught.value.hint


@pytest.mark.parametrize("version", ["2024.1", "2026.1.0", "999.9", "0.0.0.0.1"])
def test_versions_that_will_do(version):
    """A library as old as the one it was proven with, or newer, runs it."""
    OpenVinoEngine.open(dataclasses.replace(SPEC, minimum_version=version), members())


def test_outputs_are_the_callers_own():
    """What one frame answered does not change with the next frame."""
    engine = OpenVinoEngine.open(SPEC, members())
    first = engine.infer(frame(0)[None, ..., None])
    logits, cam = first.logits.copy(), first.cam.copy()
    engine.infer(frame(1)[None, ..., None])
    np.testing.assert_array_equal(first.logits, logits)
    np.testing.assert_array_equal(first.cam, cam)
    np.testing.assert_allclose(logits, logits_of(frame(0), 2), atol=1e-5)
    first.logits[:] = 0
    np.testing.assert_array_equal(engine.infer(frame(0)[None, ..., None]).logits, logits)


def test_a_library_that_fails_on_a_frame(monkeypatch):
    """A failure inside the library is an error of the target with the library's last line."""
    engine = OpenVinoEngine.open(SPEC, members())

    class Failing:
        def start_async(self):
            raise RuntimeError("Exception from src/x.cpp:1:\n\nout of resources\n")

    engine._request = Failing()
    with pytest.raises(TargetError, match="OpenVINO failed on a frame: out of resources"):
        engine.infer(frame()[None, ..., None])


def test_a_library_that_is_not_installed(monkeypatch):
    """Without the library, opening names the extra, and `available` says so without raising."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingEngineError, match="OpenVINO cannot be loaded") as caught:
        OpenVinoEngine.open(SPEC, members())
    assert caught.value.hint == "install the extra: edgekit-toolkit[openvino]"
    found = OpenVinoEngine.available()
    assert (found.version, found.hint) == (None, caught.value.hint)
    assert found.reason


def test_a_tensor_that_does_not_fit():
    """Another type or shape than the graph's is refused before the library sees it."""
    engine = OpenVinoEngine.open(SPEC, members())
    for tensor in (np.zeros((1, 16, 16, 1), np.float32), np.zeros((16, 16, 1), np.uint8), np.zeros((1, 16, 16, 3), np.uint8)):
        with pytest.raises(DataError, match="the graph takes uint8"):
            engine.infer(tensor)


def test_loading_the_library_sends_nothing_and_loads_no_converter():
    """In a fresh process, the telemetry package and the model converter are not imported, and stay away."""
    code = (
        "import sys, json\nfrom edgekit.runtime.engines.openvino import load_library\nload_library()\nimport openvino\n"
        "print(sys.modules['openvino_telemetry'])\n"
        "print(json.dumps(sorted(name for name, found in sys.modules.items() if found and ('telemetry' in name or 'tools.ovc' in name))))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    blocked, found = ran.stdout.splitlines()
    assert (blocked, json.loads(found)) == ("None", [])


RELEASED = """
import gc, os, signal, sys
import edgekit
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append("handled"))
first, second = (edgekit.load(sys.argv[1]) for _ in range(2))
del first
gc.collect()
del second
gc.collect()
os.kill(os.getpid(), signal.SIGTERM)
print(told)
"""


def test_a_signal_after_classifiers_were_released(tmp_path):
    """Classifiers that are released in the order they were opened leave a process that a signal can reach (it ended with a segmentation fault)."""
    path = write_device_bundle(tmp_path / "x.edgekit")
    ran = subprocess.run([sys.executable, "-c", RELEASED, str(path)], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "['handled']\n")
