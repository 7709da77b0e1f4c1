"""What is known about a device: one TOML in `targets/` each.

Rules this file keeps:

1. A profile says what a device has, never how fast it is: latencies are measured on the device in the hand.
2. Everything a profile relies on is a fact with its source.
3. What contradicts itself is refused: a profile is read by the compiler, the conformance checks and the device alike.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgekit.catalog import files
from edgekit.errors import CatalogError
from edgekit.schema.decode import decode

_DOTTED = re.compile(r"\d+(\.\d+)+")
_PART_NUMBER = re.compile(r"p\d{4}-\d{4}")


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version, for comparing."""
    return tuple(int(part) for part in version.split("."))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing the profile relies on, and where it was read or measured."""

    statement: str
    source: str

    def __post_init__(self) -> None:
        if not self.statement.strip() or not self.source.strip():
            raise ValueError("a fact needs a statement and its source")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """An engine that bundles for the device are made for.

    Attributes:
        name: Name of the runtime's engine.
        settings: The engine's configuration keys; pinned in every bundle.
    """

    name: str
    settings: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class JetPack:
    """A release of NVIDIA's system for Jetson that the device runs.

    Attributes:
        version: Of JetPack.
        l4t: Version of Linux for Tegra, as `/etc/nv_tegra_release` gives it.
        tensorrt: Version of TensorRT in it.
        cuda: Version of CUDA in it.
        python: Version of the system's Python.
    """

    version: str
    l4t: str
    tensorrt: str
    cuda: str
    python: str

    def __post_init__(self) -> None:
        for key in ("version", "l4t", "tensorrt", "cuda", "python"):
            if not _DOTTED.fullmatch(getattr(self, key)):
                raise ValueError(f"{key} {getattr(self, key)!r} is not numbers with dots between")


@dataclass(frozen=True, slots=True, kw_only=True)
class Jetson:
    """A Jetson module.

    Attributes:
        part_numbers: As in `/proc/device-tree/compatible`, without `nvidia,`; several where one profile stands for several boards, whose smallest it
            then describes.
        soc: Name of the system on chip.
        compute_capability: Of its GPU.
        multiprocessors: Streaming multiprocessors of its GPU. Smaller power modes switch some of them off, so a device may show fewer.
        memory_mib: Memory that CPU and GPU share, as it is sold; the system shows less.
        dla_cores: Deep learning accelerators; 0 where there is none.
        dla_generation: 1 or 2; 0 where there is none.
        sparsity_2_4: Whether its tensor cores use 2:4 structured sparsity.
        io_coherent: Whether pinned host memory stays cached for the CPU, so that input and output need no copy.
        jetpacks: The releases it runs, the oldest first by `l4t`.
    """

    part_numbers: tuple[str, ...]
    soc: str
    compute_capability: str
    multiprocessors: int
    memory_mib: int
    dla_cores: int
    dla_generation: int
    sparsity_2_4: bool
    io_coherent: bool
    jetpacks: tuple[JetPack, ...]

    def __post_init__(self) -> None:
        if not self.part_numbers or not self.jetpacks:
            raise ValueError("part_numbers and jetpacks must not be empty")
        for number in self.part_numbers:
            if not _PART_NUMBER.fullmatch(number) or self.part_numbers.count(number) > 1:
                raise ValueError(f"part number {number!r} is not of the form p3767-0003, or there twice")
        releases = [_numbers(jetpack.l4t) for jetpack in self.jetpacks]
        if releases != sorted(set(releases)):
            raise ValueError("jetpacks must be in the order of their l4t, each once")
        if not _DOTTED.fullmatch(self.compute_capability):
            raise ValueError(f"compute_capability {self.compute_capability!r} is not numbers with a dot between")
        if self.multiprocessors < 1 or self.memory_mib < 1:
            raise ValueError("multiprocessors and memory_mib must be above 0")
        if self.dla_generation not in (0, 1, 2) or (self.dla_cores == 0) != (self.dla_generation == 0) or self.dla_cores < 0:
            raise ValueError(f"dla_cores = {self.dla_cores} and dla_generation = {self.dla_generation} contradict each other")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRt:
    """What graphs for the device have to keep to.

    Attributes:
        versions: TensorRT versions that every exported graph must conform to, "major.minor", the oldest first.
        opset: ONNX opset of exported graphs.
        strongly_typed: Whether every tensor's type is in the graph (TensorRT 10 and newer), rather than chosen by the builder.
    """

    versions: tuple[str, ...]
    opset: int
    strongly_typed: bool

    def __post_init__(self) -> None:
        if not self.versions or any(not re.fullmatch(r"\d+\.\d+", version) for version in self.versions):
            raise ValueError(f"versions {list(self.versions)} must be one or more of the form major.minor")
        numbers = [_numbers(version) for version in self.versions]
        if numbers != sorted(set(numbers)):
            raise ValueError(f"versions {list(self.versions)} must be in order, each once")
        if not 13 <= self.opset <= 24:
            raise ValueError(f"opset must be between 13 and 24, not {self.opset}")
        if self.strongly_typed and (self.opset < 19 or numbers[0] < (10, 0)):
            raise ValueError("strongly_typed needs TensorRT 10 and opset 19, the first with float16 scales")
        if not self.strongly_typed and numbers[-1] >= (11, 0):
            raise ValueError("TensorRT 11 builds nothing but strongly typed graphs")
        if numbers[0] < (10, 0) and self.opset > 17:
            raise ValueError(f"TensorRT {self.versions[0]} reads ONNX up to opset 17, not {self.opset}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A device profile.

    Attributes:
        name: Name of the file, without `.toml`.
        title: For people.
        architectures: `platform.machine()` in lower case of the machines it stands for.
        engines: The first is what a bundle is made for and must be accepted with. The others travel in the bundle too, each with its own artefact, where the
            gate accepts that; they answer when the first cannot.
        channel_multiple: Pruned channel counts are multiples of this, so that the engine's vector units are full.
        instruction_sets: What the CPU must have, of the names that `edgekit doctor` tells; any one of them will do. Empty where every CPU of the
            architectures will do.
        int8_saturates: Whether a CPU of this profile may sum pairs of int8 products in 16 bits, and so cut off large sums unseen; weights then use half of
            the range.
        jetson: The module, where it is one.
        tensorrt: What graphs for TensorRT keep to, where the device has it.
        facts: What the profile relies on.
    """

    name: str
    title: str
    architectures: tuple[str, ...]
    engines: tuple[EngineChoice, ...]
    channel_multiple: int = 1
    instruction_sets: tuple[str, ...] = ()
    int8_saturates: bool = False
    jetson: Jetson | None = None
    tensorrt: TensorRt | None = None
    facts: tuple[Fact, ...] = ()

    def __post_init__(self) -> None:
        if not self.architectures:
            raise ValueError("architectures is empty")
        names = [engine.name for engine in self.engines]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"engines is empty or names one twice: {names}")
        if not 1 <= self.channel_multiple <= 256:
            raise ValueError(f"channel_multiple must be between 1 and 256, not {self.channel_multiple}")
        if (self.tensorrt is not None) != any(name.startswith("tensorrt") for name in names):
            raise ValueError("a target has a table [tensorrt] exactly when TensorRT is among its engines")
        if self.tensorrt is not None and self.jetson is not None:
            for jetpack in self.jetson.jetpacks:
                if ".".join(jetpack.tensorrt.split(".")[:2]) not in self.tensorrt.versions:
                    raise ValueError(f"JetPack {jetpack.version} has TensorRT {jetpack.tensorrt}, which is not in [tensorrt] versions")

    @property
    def engine(self) -> EngineChoice:
        """The engine that bundles are made for."""
        return self.engines[0]


def load_target(name: str) -> Target:
    """Reads a target by its name.

    Raises:
        CatalogError: The name is unknown, or its file is wrong.
    """
    path = files.find("targets", name)
    return decode(Target, {"name": name, **files.read_toml(path)}, where=str(path), error=CatalogError)
