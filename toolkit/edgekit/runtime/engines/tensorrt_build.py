"""Builds TensorRT engines on the device that will run them, and keeps them in the engine cache.

Rules this file keeps:

1. It builds from the bundle's ONNX, whose bytes were checked and ask for nothing outside themselves; nothing is downloaded and no plan comes from anywhere
   else.
2. A bundle chooses among the settings that are listed here and no others.
3. The key holds everything that decides whether the plan runs here; with the same key nothing is built again, and nothing is written. The power mode only
   decides how fast it is: it is written down beside the plan.
4. One process builds an engine at a time; one that waited takes what the other built.
5. Only what was proven is built: before version 10 the builder chooses the types of a float16 graph itself, so there is no such engine there.
6. The plan is kept first. Timings only save time: where they cannot be kept, that is a note.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Protocol

from edgekit.bundle.manifest import EngineSpec
from edgekit.errors import BundleError, EdgekitError, TargetError, nearest
from edgekit.runtime import jetson
from edgekit.runtime.engines import cuda as cuda_layer
from edgekit.runtime.engines import tensorrt_api
from edgekit.runtime.engines.base import check_version
from edgekit.runtime.engines.cache_keys import DeviceKey, Entry, EntryKey, Unusable
from edgekit.runtime.engines.choice_file import Power, parse_power
from edgekit.runtime.engines.cuda.base import Cuda
from edgekit.runtime.engines.engine_cache import EngineCache
from edgekit.runtime.engines.onnx_wire import check_self_contained
from edgekit.runtime.engines.tensorrt_api import Api, BuildOptions

ROLE = "onnx"
PRECISIONS: Mapping[str, tuple[str, ...] | None] = {"tensorrt-int8": ("INT8",), "tensorrt-fp16": None}
"""Engine to the precisions beside float32 that a builder before version 10 may use, None where it is not built there; from then on the graph says it."""

TIMINGS = "tensorrt-timings"
_AGAIN = "compile the bundle again"


def is_tensorrt(name: str) -> bool:
    """Whether an engine of a manifest is built on the device by TensorRT."""
    return name in PRECISIONS


def _integer(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError(f"{value} is not between {low} and {high}")
        return value

    return read


def _truth(text: str) -> int:
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return int(text == "true")


SETTINGS: Mapping[str, Callable[[str], int]] = {
    "CUDA_GRAPH": _truth,
    "MAX_AUX_STREAMS": _integer(0, 7),
    "OPTIMIZATION_LEVEL": _integer(0, 5),
    "WORKSPACE_MIB": _integer(1, 65536),
}
"""What a bundle may choose, and how it is written."""

# Left to itself, a builder takes all the memory there is.
_PINNED = ("WORKSPACE_MIB",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a bundle: what the builder is told, and whether a CUDA graph is captured."""

    build: BuildOptions
    cuda_graph: bool

    @property
    def options(self) -> dict[str, str]:
        """What a plan depends on, as text."""
        build = self.build
        return {
            "FLAGS": " ".join(build.flags),
            "MAX_AUX_STREAMS": str(build.max_aux_streams),
            "OPTIMIZATION_LEVEL": "default" if build.optimization_level is None else str(build.optimization_level),
            "WORKSPACE_MIB": str(build.workspace_mib),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """An engine in the cache.

    Attributes:
        engine: Name of the engine.
        entry: Name of the cache's entry.
        sha256: Of the plan.
        size_bytes: Of the plan.
        cached: Whether it was there already.
        build_seconds: How long the build took, now or then.
        reason: Why it was built: what was wrong with what the cache held. Empty where nothing was built.
        power: In which it was built, as far as that was known.
    """

    engine: str
    entry: str
    sha256: str
    size_bytes: int
    cached: bool
    build_seconds: float
    reason: str
    power: Power = field(default_factory=Power)


class Progress(Protocol):
    """Is told how far a build is."""

    def begin(self, stage: str, *, cached: bool) -> None:
        """A stage begins; `cached` where its result is there already."""

    def step(self, done: int, total: int) -> None:
        """So much of the stage is done."""

    def note(self, text: str) -> None:
        """Something worth knowing."""

    def end(self) -> None:
        """The stage is done."""


def check_spec(spec: EngineSpec) -> None:
    """Refuses an engine's entry in a manifest that is not one for TensorRT.

    Raises:
        BundleError: It names other files, or another engine.
    """
    if spec.name not in PRECISIONS:
        raise BundleError(f"{spec.name!r} is no engine of TensorRT", hint=nearest(spec.name, PRECISIONS))
    if sorted(spec.files) != [ROLE]:
        raise BundleError(f"TensorRT needs the file {ROLE}, the manifest names {sorted(spec.files)}", hint=_AGAIN)


def check_version_of(api: Api, spec: EngineSpec) -> None:
    """Refuses a TensorRT that cannot run what was proven (rule 5).

    Raises:
        TargetError: It is older than the bundle asks for, or chooses the types itself.
    """
    check_version("TensorRT", api.text, spec)
    if PRECISIONS[spec.name] is None and not tensorrt_api.is_strongly_typed(api):
        raise TargetError(
            f"TensorRT {api.text} chooses itself where {spec.name} works in float16, so that could not be proven",
            hint="tensorrt-int8 is built on TensorRT before version 10; float16 needs JetPack 6.1 or newer",
        )


def read_model(spec: EngineSpec, members: Mapping[str, memoryview]) -> memoryview:
    """The ONNX of an engine (rule 1).

    Raises:
        BundleError: The manifest's entry is not one for TensorRT, or the model asks for something outside itself.
    """
    check_spec(spec)
    onnx = members[spec.files[ROLE]]
    check_self_contained(onnx)
    return onnx


def read_settings(spec: EngineSpec) -> Settings:
    """The settings of a bundle.

    Raises:
        BundleError: One is not one that a bundle may choose, has no such value, or is not pinned.
    """
    found = {}
    for key, text in spec.settings.items():
        if key not in SETTINGS:
            raise BundleError(f"the setting {key!r} of TensorRT is not one a bundle may choose", hint=nearest(key, SETTINGS))
        try:
            found[key] = SETTINGS[key](text)
        except ValueError as error:
            raise BundleError(f"the setting {key} of TensorRT: {error}", hint=_AGAIN) from error
    for key in _PINNED:
        if key not in found:
            raise BundleError(f"the manifest does not pin {key}", hint=_AGAIN)
    build = BuildOptions(
        workspace_mib=found["WORKSPACE_MIB"],
        optimization_level=found.get("OPTIMIZATION_LEVEL"),
        max_aux_streams=found.get("MAX_AUX_STREAMS", 0),
        flags=PRECISIONS[spec.name] or (),
    )
    return Settings(build=build, cuda_graph=bool(found.get("CUDA_GRAPH", 1)))


def device_key(api: Api, cuda: Cuda) -> DeviceKey:
    """What plans depend on, of this device."""
    facts, versions, module = cuda.device(), cuda.versions(), jetson.read_module()
    return DeviceKey(
        tensorrt=api.text,
        cuda_runtime=versions.runtime,
        cuda_driver=versions.driver,
        compute_capability=facts.compute_capability,
        gpu=facts.name,
        multiprocessors=facts.multiprocessors,
        module=module.part_number,
        l4t=module.l4t,
    )


def this_device() -> DeviceKey:
    """What plans depend on, of this device.

    Raises:
        MissingEngineError: TensorRT or a binding of CUDA is not installed.
        TargetError: There is no GPU.
    """
    api = tensorrt_api.open_api()
    cuda = cuda_layer.open_cuda()
    try:
        return device_key(api, cuda)
    finally:
        cuda.close()


def entry_key(spec: EngineSpec, onnx: memoryview, settings: Settings, device: DeviceKey) -> EntryKey:
    """What the plan of an engine depends on."""
    return EntryKey(kind=spec.name, model_sha256=hashlib.sha256(onnx).hexdigest(), options=settings.options, device=device)


def find(spec: EngineSpec, members: Mapping[str, memoryview], cache: EngineCache, device: DeviceKey) -> Built | Unusable:
    """What the cache holds of an engine for a device; reads only.

    Raises:
        BundleError: The manifest's entry is not one for TensorRT, or the model asks for something outside itself.
        TargetError: The cache may be written by others.
    """
    onnx = read_model(spec, members)
    key = entry_key(spec, onnx, read_settings(spec), device)
    found = cache.load(key)
    return found if isinstance(found, Unusable) else built_of(key, found, "")


def build(
    spec: EngineSpec, members: Mapping[str, memoryview], cache: EngineCache, progress: Progress, *, power: Power | None = None
) -> Built:
    """Builds an engine of a bundle and keeps it, or finds it in the cache.

    Args:
        spec: The engine's entry in the manifest.
        members: Member name to its checked bytes.
        cache: Where plans are kept.
        progress: Is told how far it is.
        power: The device's now, where it is known.

    Raises:
        MissingEngineError: TensorRT or a binding of CUDA is not installed.
        TargetError: This device cannot build it, or TensorRT is not one that was proven.
        ModelRefusedError: TensorRT refuses the model; the message names the node.
        BundleError: The manifest's entry is not one for TensorRT, or the model asks for something outside itself.
        OutputError: The cache cannot be written.
    """
    onnx = read_model(spec, members)
    settings = read_settings(spec)
    api = tensorrt_api.open_api()
    check_version_of(api, spec)
    cuda = cuda_layer.open_cuda()
    try:
        with cuda.active():
            key = entry_key(spec, onnx, settings, device_key(api, cuda))
            job = _Job(api=api, cache=cache, key=key, onnx=onnx, options=settings.build, progress=progress, power=power or Power())
            found = cache.load(key)
            if isinstance(found, Entry):
                return _told(job, found)
            with cache.locked(key, waiting=lambda: progress.note(f"another process builds {spec.name}; waiting for it")):
                return _build_locked(job)
    finally:
        cuda.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One build: with what, from what, under which key, who is told, and in which power mode."""

    api: Api
    cache: EngineCache
    key: EntryKey
    onnx: memoryview
    options: BuildOptions
    progress: Progress
    power: Power


def _told(job: _Job, found: Entry) -> Built:
    """What was found, told as a stage that took no time."""
    job.progress.begin(f"build {job.key.kind}", cached=True)
    job.progress.end()
    return built_of(job.key, found, "")


def built_of(key: EntryKey, found: Entry, reason: str) -> Built:
    """An entry of the cache, as it is told of; `reason` says why it was made now, and is empty where it was there."""
    return Built(
        engine=key.kind,
        entry=key.name,
        sha256=found.sha256,
        size_bytes=len(found.payload),
        cached=not reason,
        build_seconds=float(found.facts.get("build_seconds", 0.0)),
        reason=reason,
        power=parse_power(found.facts.get("power", {})) or Power(),
    )


def _build_locked(job: _Job) -> Built:
    key, progress = job.key, job.progress
    found = job.cache.load(key)
    if isinstance(found, Entry):
        return _told(job, found)
    progress.begin(f"build {key.kind}", cached=False)
    if not tensorrt_api.tells_progress(job.api):
        progress.note(f"TensorRT {job.api.text} does not tell how far it is; a build takes minutes")
    # Timings are of the device, its library and its power mode, not of a model: another model's build finds its layers timed.
    mode = {"POWER_MODE": job.power.mode} if job.power.mode else {}
    timings = EntryKey(kind=TIMINGS, model_sha256="", options=mode, device=key.device)
    start = time.monotonic()
    plan, timed = _plan(job, job.cache.load(timings))
    facts = {
        "build_seconds": round(time.monotonic() - start, 3),
        "built_at": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        "power": asdict(job.power),
    }
    stored = job.cache.store(key, plan, facts)
    _keep_timings(job, timings, timed)
    progress.end()
    return built_of(key, stored, found.reason)


def _plan(job: _Job, kept: Entry | Unusable) -> tuple[bytes, bytes]:
    """The plan, and the builder's timings."""
    api = job.api
    builder = tensorrt_api.make_builder(api)
    network = tensorrt_api.make_network(api, builder)
    parser = tensorrt_api.parse(api, network, bytes(job.onnx))
    config = tensorrt_api.make_config(api, builder, job.options, job.progress.step)
    tensorrt_api.set_timings(config, kept.payload if isinstance(kept, Entry) else b"")
    plan = tensorrt_api.build(api, builder, network, config)
    del parser  # it owned the weights until here
    return plan, tensorrt_api.get_timings(config)


def _keep_timings(job: _Job, key: EntryKey, timed: bytes) -> None:
    """Keeps timings (rule 6), under their own lock: engines that are built at once share them."""
    if not timed:
        return
    try:
        with job.cache.locked(key):
            job.cache.store(key, timed, {})
    except EdgekitError as error:
        job.progress.note(f"the next build is not faster, the builder's timings were not kept: {error.message}")
