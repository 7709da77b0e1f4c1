"""A `tensorrt` without TensorRT: `fake_tensorrt("10.3", engine=...)` gives a module for `sys.modules["tensorrt"]`.

    engine = FakeEngine(
        inputs=(FakeTensor(name="frame", dtype="UINT8", shape=(1, 8, 8, 1)),),
        outputs=(FakeTensor(name="logits", dtype="FLOAT", shape=(1, 2)),),
        compute=lambda tensors: {"logits": ...},
    )
    cuda = fake_cuda()
    trt = fake_tensorrt("10.3", engine=engine, cuda=cuda)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    ...
    assert world_of(trt).names() == ["Logger", "Builder", ...]

Rules this file keeps:

1. The module has the names of the manifest of its version and no others, so that code written for another version fails as it would there.
2. It says nothing on what TensorRT computes or accepts: what comes out is what the test put in.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import ModuleType
from typing import Any

import trt_fake_build
import trt_fake_run
from fake_cuda import DISCRETE, ORIN, FakeCuda, MisuseError, fake_cuda
from trt_fake_api import Call, FakeObject, always, make_class, make_enum, manifest, versions
from trt_fake_world import FAILURES, FakeEngine, FakeTensor, World

__all__ = [
    "DISCRETE",
    "FAILURES",
    "ORIN",
    "Call",
    "FakeCuda",
    "FakeEngine",
    "FakeTensor",
    "MisuseError",
    "World",
    "fake_cuda",
    "fake_tensorrt",
]
__all__ += ["versions", "world_of"]

_WORLDS: dict[int, World] = {}


def fake_tensorrt(
    version: str,
    *,
    engine: FakeEngine | Mapping[bytes, FakeEngine],
    cuda: FakeCuda | None = None,
    fail: Collection[str] = (),
    parse_error: tuple[str, str] = ("Unsupported operation", "/conv/Conv"),
) -> ModuleType:
    """A module that passes for the given version of TensorRT.

    Args:
        version: One of `versions()`.
        engine: What every ONNX file's bytes are built into, or a table of bytes and engines; what is not in the table cannot be parsed.
        cuda: The GPU that engines are executed on.
        fail: Keys of `FAILURES`; `world_of(module).fail` may be changed later.
        parse_error: Description and node of the error where `fail` has "parse".
    """
    if unknown := set(fail) - set(FAILURES):
        raise ValueError(f"{sorted(unknown)} cannot be made to fail: {sorted(FAILURES)}")
    api = manifest(version)
    engines = {b"": engine} if isinstance(engine, FakeEngine) else dict(engine)
    world = World(version=version, full_version=api["version"], engines=engines, cuda=cuda, fail=set(fail), parse_error=parse_error)
    module = ModuleType("tensorrt")
    world.module = module
    module.__version__ = api["version"]  # type: ignore[attr-defined]
    behaviour = {**trt_fake_build.table(world), **trt_fake_run.table(world)}
    for name, kind in _classes(api, behaviour, world).items():
        if "." not in name:
            setattr(module, name, kind)
    _fill_module(module, api)
    _WORLDS[id(module)] = world
    return module


def world_of(module: ModuleType) -> World:
    """What stands behind a module of `fake_tensorrt`: the calls, the log, what fails."""
    return _WORLDS[id(module)]


def _classes(api: Mapping[str, Any], behaviour: Mapping[str, Any], world: World) -> dict[str, type]:
    made: dict[str, type] = {}
    # Bases first: a base has fewer bases.
    for name, entry in sorted(api["classes"].items(), key=lambda item: len(item[1]["bases"])):
        if entry["values"]:
            made[name] = make_enum(name, entry)
        elif name == "IHostMemory":
            made[name] = _host_memory(entry)
        else:
            bases = (made[entry["bases"][0]],) if entry["bases"] else (FakeObject,)
            made[name] = make_class(name, entry, bases, behaviour.get(name, {}), world.record)
    for name, entry in api["classes"].items():
        for attribute, kind in entry["attributes"].items():
            alias = kind.removeprefix("class ")
            if alias in made:
                setattr(made[name], attribute, made[alias] if kind.startswith("class ") else getattr(made[alias], attribute))
    return made


def _host_memory(entry: Mapping[str, Any]) -> type:
    """Bytes that can be read as a buffer and have none of the methods of `bytes`."""
    names = {*entry["methods"], *entry["properties"]}

    def look_up(self: Any, name: str) -> Any:
        if not name.startswith("__") and name not in names:
            raise AttributeError(f"'IHostMemory' object has no attribute {name!r}")
        return bytes.__getattribute__(self, name)

    space = {
        "__slots__": (),
        "__getattribute__": look_up,
        "__len__": None,
        "__getitem__": None,
        "__iter__": None,
        "nbytes": property(bytes.__len__),
    }
    return type("IHostMemory", (bytes,), space)


def _fill_module(module: ModuleType, api: Mapping[str, Any]) -> None:
    """The functions and constants; one that is not modelled raises when it is called."""
    kinds = {"float32": "FLOAT", "float16": "HALF", "int8": "INT8", "int32": "INT32", "int64": "INT64", "bool": "BOOL", "uint8": "UINT8"}
    for name, member in kinds.items():
        if name in api["constants"]:
            setattr(module, name, getattr(module.DataType, member))
    modelled = {
        "nptype": trt_fake_build.numpy_type,
        "volume": trt_fake_build.volume,
        "init_libnvinfer_plugins": always(True),
    }
    for name in api["functions"]:
        setattr(module, name, modelled.get(name) or _unmodelled(name))


def _unmodelled(name: str) -> Any:
    def call(*arguments: Any, **keywords: Any) -> Any:
        raise NotImplementedError(f"the fake does not model tensorrt.{name}")

    return call
