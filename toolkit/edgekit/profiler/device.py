"""The device, as far as an accelerator's answers and latencies depend on it: module, system, libraries, GPU, power mode, clocks, memory.

Rules this file keeps:

1. It holds nothing that tells one device from another of its kind: no serial number, host name, user name, address or path.
2. What could not be looked at is None, and `unavailable` has the reason; nothing is filled in from what the module ought to have.
3. Versions are those of the libraries that this process has loaded, not of packages that are installed.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from edgekit.catalog import files
from edgekit.catalog.target import Target, load_target
from edgekit.errors import EdgekitError
from edgekit.profiler.jetson_state import Clock, PowerMode, read_clocks, read_power_mode
from edgekit.profiler.memory import MIB
from edgekit.runtime import jetson
from edgekit.runtime.engines import cuda as cuda_layer
from edgekit.runtime.engines import tensorrt_api
from edgekit.runtime.engines.cuda.base import CudaVersions, DeviceFacts
from edgekit.runtime.engines.engine_cache import default_folder
from edgekit.runtime.jetson import Module

T = TypeVar("T")

ROOT = Path("/")
_NO_JETSON = "this is no Jetson"
# Files of the libraries that matter, as the process has them mapped: name and version are in the file's own name.
_LIBRARY = re.compile(r"/(lib(?:nvinfer|nvonnxparser|cudart|cuda|cudnn|nvdla)[\w-]*\.so[\w.]*)")
_DRIVER = re.compile(r"^NVRM version:.*?\s(\d+(?:\.\d+)+)\s", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """The GPU and the CUDA that reaches it.

    Attributes:
        name: As the driver gives it.
        compute_capability: "8.7".
        multiprocessors: Those that are switched on.
        binding: The Python binding and its version.
        cuda_runtime: CUDA version of the binding.
        cuda_driver: Newest CUDA that the driver supports.
    """

    name: str
    compute_capability: str
    multiprocessors: int
    binding: str
    cuda_runtime: str
    cuda_driver: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device.

    Attributes:
        model: As the device tree has it.
        part_number: Of the Jetson module.
        profile: Name of the file in `targets/` that has this module.
        l4t: Version of Linux for Tegra.
        jetpack: Version of JetPack that has it, by `targets/`.
        tensorrt: Version of the TensorRT that was loaded.
        libraries: File names of NVIDIA's libraries that are loaded, with their versions.
        gpu: The GPU.
        driver: Version of NVIDIA's kernel module.
        dla_cores: Deep learning accelerators of the module, by its profile.
        power_mode: The mode it works in.
        clocks: Of CPU, GPU and memory.
        memory_available_mib: Memory that a program can still have.
        swap_free_mib: Swap that is left.
        cache_free_mib: Free on the disk of the engine cache.
        unavailable: Field name to the reason why it is None.
    """

    model: str | None
    part_number: str | None
    profile: str | None
    l4t: str | None
    jetpack: str | None
    tensorrt: str | None
    libraries: tuple[str, ...] | None
    gpu: Gpu | None
    driver: str | None
    dla_cores: int | None
    power_mode: PowerMode | None
    clocks: tuple[Clock, ...]
    memory_available_mib: float | None
    swap_free_mib: float | None
    cache_free_mib: float | None
    unavailable: dict[str, str]


def read_device(root: Path = ROOT, module: Module | None = None) -> Device:
    """Looks at the device.

    Args:
        root: Where `/proc`, `/sys`, `/etc` and `/var` are.
        module: The module, where it was read before; None to read it.
    """
    reader = _Reader(root)
    module = jetson.read_module() if module is None else module
    target = profile_of(module.part_number)
    is_jetson = bool(module.part_number)
    tensorrt, gpu = reader.tensorrt(), reader.gpu()
    power, why_not = read_power_mode(root) if is_jetson else (None, _NO_JETSON)
    no_profile = f"no profile in targets/ has the module {module.part_number}" if is_jetson else _NO_JETSON
    return Device(
        model=reader.noted("model", module.model or None, _NO_JETSON),
        part_number=reader.noted("part_number", module.part_number or None, _NO_JETSON),
        profile=reader.noted("profile", None if target is None else target.name, no_profile),
        l4t=reader.noted("l4t", module.l4t or None, "there is no Linux for Tegra"),
        jetpack=reader.noted("jetpack", jetpack_of(module, target), _why_no_jetpack(module)),
        tensorrt=tensorrt,
        libraries=reader.libraries(),
        gpu=gpu,
        driver=reader.driver(),
        dla_cores=reader.noted("dla_cores", None if target is None or target.jetson is None else target.jetson.dla_cores, no_profile),
        power_mode=reader.noted("power_mode", power, why_not),
        clocks=read_clocks(root),
        memory_available_mib=reader.meminfo("memory_available_mib", "MemAvailable"),
        swap_free_mib=reader.meminfo("swap_free_mib", "SwapFree"),
        cache_free_mib=reader.cache_free_mib(),
        unavailable=reader.unavailable,
    )


def profile_of(part_number: str) -> Target | None:
    """The profile that has a module; None where none does."""
    if not part_number:
        return None
    found = (load_target(name) for name in files.names("targets"))
    return next((target for target in found if target.jetson is not None and part_number in target.jetson.part_numbers), None)


def jetpack_of(module: Module, target: Target | None) -> str | None:
    """The JetPack with the module's Linux for Tegra, by the profile of the module; None where it lists none."""
    if target is None or target.jetson is None:
        return None
    return next((release.version for release in target.jetson.jetpacks if release.l4t == module.l4t), None)


def loaded_libraries(maps: str) -> tuple[str, ...]:
    """NVIDIA's libraries in a `/proc/self/maps`, as file names without folders, sorted, each once."""
    return tuple(sorted(set(_LIBRARY.findall(maps))))


def driver_version(text: str) -> str | None:
    """The version in a `/proc/driver/nvidia/version`; None where there is none in it."""
    found = _DRIVER.search(text)
    return found[1] if found else None


def _why_no_jetpack(module: Module) -> str:
    return f"the module's profile lists no JetPack with Linux for Tegra {module.l4t}" if module.l4t else "there is no Linux for Tegra"


@dataclass(slots=True)
class _Reader:
    """Looks things up and notes why they are None."""

    root: Path
    unavailable: dict[str, str] = field(default_factory=dict)

    def noted(self, name: str, value: T | None, reason: str) -> T | None:
        if value is None:
            self.unavailable.setdefault(name, reason)
        return value

    def tensorrt(self) -> str | None:
        try:
            return tensorrt_api.open_api().text
        except EdgekitError as error:
            return self.noted("tensorrt", None, error.message)

    def gpu(self) -> Gpu | None:
        try:
            cuda = cuda_layer.open_cuda()
        except EdgekitError as error:
            return self.noted("gpu", None, error.message)
        try:
            facts, versions = cuda.device(), cuda.versions()
            return _gpu(facts, versions, cuda.library)
        except EdgekitError as error:
            return self.noted("gpu", None, error.message)
        finally:
            cuda.close()

    def libraries(self) -> tuple[str, ...] | None:
        text = self._text("libraries", "proc/self/maps")
        return self.noted("libraries", loaded_libraries(text or "") or None, "none of NVIDIA's is loaded")

    def driver(self) -> str | None:
        text = self._text("driver", "proc/driver/nvidia/version")
        return self.noted("driver", driver_version(text or ""), "/proc/driver/nvidia/version names no version")

    def meminfo(self, name: str, key: str) -> float | None:
        found = re.search(rf"^{key}:\s+(\d+) kB", self._text(name, "proc/meminfo") or "", re.MULTILINE)
        return self.noted(name, int(found[1]) / 1024 if found else None, f"/proc/meminfo has no {key}")

    def cache_free_mib(self) -> float | None:
        try:
            folder = default_folder()
            # It is made by the first build; until then the disk is that of the folder above it.
            existing = next(path for path in (folder, *folder.parents) if path.exists())
            return shutil.disk_usage(existing).free / MIB
        except EdgekitError as error:
            return self.noted("cache_free_mib", None, error.message)
        except (OSError, StopIteration):
            return self.noted("cache_free_mib", None, "the disk of the engine cache cannot be looked at")

    def _text(self, name: str, path: str) -> str | None:
        try:
            return (self.root / path).read_text("utf-8", "replace")
        except OSError as error:
            return self.noted(name, None, f"/{path} cannot be read: {error.strerror or error}")


def _gpu(facts: DeviceFacts, versions: CudaVersions, binding: str) -> Gpu:
    return Gpu(
        name=facts.name,
        compute_capability=facts.compute_capability,
        multiprocessors=facts.multiprocessors,
        binding=binding,
        cuda_runtime=versions.runtime,
        cuda_driver=versions.driver,
    )


def remarks(device: Device) -> tuple[str, ...]:
    """What does not fit together: a library that is not the JetPack's, fewer multiprocessors than the module has, clocks that move."""
    target = None if device.profile is None else load_target(device.profile)
    if target is None or target.jetson is None:
        return ()
    found = []
    release = next((one for one in target.jetson.jetpacks if one.l4t == device.l4t), None)
    if release is not None and device.tensorrt is not None and not f"{device.tensorrt}.".startswith(f"{release.tensorrt}."):
        found.append(f"JetPack {release.version} comes with TensorRT {release.tensorrt}, loaded is {device.tensorrt}")
    if device.gpu is not None and device.gpu.multiprocessors < target.jetson.multiprocessors:
        found.append(f"{device.gpu.multiprocessors} of the GPU's {target.jetson.multiprocessors} multiprocessors are switched on")
    moving = [clock.name for clock in device.clocks if clock.locked is False]
    if moving:
        found.append(f"not locked: {', '.join(moving)}; latencies move with them (jetson_clocks locks them)")
    return tuple(found)
