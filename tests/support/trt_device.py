"""A device with TensorRT and a GPU, made of the fakes: installs them for a test, and the specs and models of its engines.

The engine computes the hand-made graph of `device_bundles` in numpy, so its answers can be worked out with a pencil.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import device_onnx
import numpy as np
import pytest
from device_bundles import CELLS, SIDE, logits_of, maps_of, write_device_bundle
from device_bundles import SETTINGS as OPENVINO
from fake_cuda import ORIN, DeviceFacts, FakeCuda, MisuseError
from trt_fake import FakeEngine, FakeTensor, World, fake_tensorrt, world_of

from edgekit.bundle.manifest import EngineSpec, Gate, GoldenSpec
from edgekit.bundle.reader import open_bundle
from edgekit.profiler import engine_choice, probe_process
from edgekit.profiler.clock import Budget
from edgekit.profiler.engine_choice import Outcome
from edgekit.runtime import jetson
from edgekit.runtime.engines import cuda as cuda_layer
from edgekit.runtime.engines import tensorrt_probe
from edgekit.runtime.engines.engine_cache import EngineCache

SETTINGS = {"CUDA_GRAPH": "true", "MAX_AUX_STREAMS": "0", "OPTIMIZATION_LEVEL": "3", "WORKSPACE_MIB": "512"}
PASSED = (Gate(name="flips", value=0.0, bound=0.5, passed=True),)
MODELS = {name: device_onnx.graph(outputs=2)["onnx"] + device_onnx.field(6, name) for name in ("tensorrt-int8", "tensorrt-fp16")}
"""Whole ONNX files that differ in their description: the fake tells them apart by their bytes."""


class SharedCuda(FakeCuda):
    """One GPU that several users open and close."""

    users = 0

    def close(self) -> None:
        if self.users < 1:
            raise MisuseError("`close` is called more often than the GPU was opened")
        self.users -= 1


@dataclasses.dataclass(slots=True, kw_only=True)
class Device:
    """What a test can look at and change."""

    trt: ModuleType
    world: World
    cuda: SharedCuda
    cache: Path


class Progress:
    """Puts down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def begin(self, stage: str, *, cached: bool) -> None:
        self.told.append(("begin", stage, cached))

    def step(self, done: int, total: int) -> None:
        self.told.append(("step", done, total))

    def note(self, text: str) -> None:
        self.told.append(("note", text))

    def end(self) -> None:
        self.told.append(("end",))


def numpy_engine(*, outputs: int = 2, cam: bool = True, off: float = 0.0, seconds: float = 0.0) -> FakeEngine:
    """The hand-made graph, as an engine.

    Args:
        outputs: Number of logits.
        cam: Whether the maps are an output.
        off: Added to every logit.
        seconds: How long it takes for a frame.
    """

    def compute(taken: dict[str, Any]) -> dict[str, Any]:
        pixels = taken["frame"][0, ..., 0]
        time.sleep(seconds)
        given = {"logits": (logits_of(pixels, outputs) + off)[None]}
        return {**given, "cam": maps_of(pixels, outputs)[None]} if cam else given

    maps = (FakeTensor(name="cam", dtype="FLOAT", shape=(1, outputs, CELLS, CELLS)),) if cam else ()
    return FakeEngine(
        inputs=(FakeTensor(name="frame", dtype="UINT8", shape=(1, SIDE, SIDE, 1)),),
        outputs=(FakeTensor(name="logits", dtype="FLOAT", shape=(1, outputs)), *maps),
        compute=compute,
    )


def install(
    monkeypatch: pytest.MonkeyPatch, cache: Path, version: str = "10.3", *, engine: Any = None, facts: DeviceFacts = ORIN, **options: Any
) -> Device:
    """Makes this process one on a device.

    Args:
        monkeypatch: Of the test.
        cache: Folder of the engine cache.
        version: Of TensorRT.
        engine: What is built; None for `numpy_engine`.
        facts: Of the GPU.
        options: More for `fake_tensorrt`.
    """
    gpu = SharedCuda(facts)

    def open_cuda() -> SharedCuda:
        gpu.users += 1
        return gpu

    trt = fake_tensorrt(version, engine=engine or numpy_engine(), cuda=gpu, **options)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setattr(cuda_layer, "open_cuda", open_cuda)
    monkeypatch.setattr(jetson, "read_module", lambda: jetson.Module(part_number="p3767-0003", model="Orin Nano", l4t="36.4.3"))
    monkeypatch.setenv("EDGEKIT_ENGINE_CACHE", str(cache))
    # A process of its own would not have the fakes.
    monkeypatch.setattr(probe_process, "probe_apart", tensorrt_probe.probe)
    return Device(trt=trt, world=world_of(trt), cuda=gpu, cache=cache)


def spec_of(name: str = "tensorrt-int8", **changes: Any) -> EngineSpec:
    """The manifest's entry of an engine with two outputs."""
    spec = EngineSpec(
        name=name,
        files={"onnx": f"model/{name}.onnx"},
        minimum_version="8.5",
        precision="int8" if name == "tensorrt-int8" else "float16",
        settings=SETTINGS,
        outputs=2,
    )
    return dataclasses.replace(spec, **changes)


def members_of(name: str = "tensorrt-int8") -> dict[str, memoryview]:
    """The member with the engine's model."""
    return {f"model/{name}.onnx": memoryview(MODELS[name])}


def tensor(seed: int = 0) -> Any:
    """uint8 (1, 16, 16, 1) of random grey levels."""
    return np.random.default_rng(seed).integers(0, 256, size=(1, SIDE, SIDE, 1), dtype=np.uint8)


def write_built_bundle(path: Path, *, fallback: bool = True, **changes: Any) -> Path:
    """A bundle for a Jetson: int8 and float16 for TensorRT, and OpenVINO after them.

    Args:
        path: Where to.
        fallback: Whether it has OpenVINO.
        changes: Fields of the manifest.
    """
    engines = [
        spec_of("tensorrt-int8"),
        spec_of("tensorrt-fp16", acceptance=PASSED),
    ]
    if fallback:
        engines.append(
            EngineSpec(
                name="openvino",
                files={"xml": "model/openvino.xml", "bin": "model/openvino.bin"},
                minimum_version="2024.1",
                precision="f32",
                settings=OPENVINO,
                outputs=2,
                acceptance=PASSED,
            )
        )
    golden = GoldenSpec(
        frames="golden/frames.npy",
        logits={engine.name: "golden/logits.npy" for engine in engines},
        tolerance={engine.name: 1e-3 for engine in engines},
    )
    more: dict[str, bytes | None] = {f"model/{name}.onnx": model for name, model in MODELS.items()}
    if not fallback:
        more |= {"model/openvino.xml": None, "model/openvino.bin": None}
    return write_device_bundle(path, more=more, **{"engines": tuple(engines), "golden": golden, **changes})


def engines_of_the_bundle(*, int8: FakeEngine | None = None, float16: FakeEngine | None = None) -> dict[bytes, FakeEngine]:
    """What the fake builds of the two models of `write_built_bundle`; both answer rightly unless told otherwise."""
    return {MODELS["tensorrt-int8"]: int8 or numpy_engine(), MODELS["tensorrt-fp16"]: float16 or numpy_engine()}


QUICK = Budget(seconds=0.0, min_samples=40, max_seconds=20.0)


def prepared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **engines: FakeEngine) -> Device:
    """A device whose builder makes the engines of `write_built_bundle`, with its cache under a folder."""
    return install(monkeypatch, tmp_path / "cache", engine=engines_of_the_bundle(**engines))


def choose(path: Path, progress: Progress | None = None, *, again: bool = False) -> Outcome:
    """What `edgekit build` makes of a bundle, timed in no time."""
    return engine_choice.choose(open_bundle(path), EngineCache(), progress or Progress(), budget=QUICK, again=again)


def statuses(outcome: Outcome) -> list[tuple[str, str, bool]]:
    """Name and status of each engine, and whether an earlier build found it."""
    return [(one.engine, one.status, one.earlier) for one in outcome.tried]
