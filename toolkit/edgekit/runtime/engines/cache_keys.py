"""What an entry of the engine cache was made from, and what looking for one gives.

Rules this file keeps:

1. A key holds everything a plan depends on. Two keys that differ in anything have different names.
2. A name is made of digests and of the engine's name alone, so that it cannot lead to another folder.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgekit.errors import TargetError

SCHEMA = 1
"""Raised when a plan of before must not be used any more, whatever it was made from."""

_KIND = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceKey:
    """What a plan, its timings and a choice between plans depend on, of the device.

    Attributes:
        tensorrt: Full version.
        cuda_runtime: Of the Python binding.
        cuda_driver: Newest CUDA that the driver supports.
        compute_capability: Of the GPU.
        gpu: Its name.
        multiprocessors: Its streaming multiprocessors.
        module: Part number of the Jetson module; empty on other machines.
        l4t: Version of Linux for Tegra; empty on other machines.
        schema: `SCHEMA`.
    """

    tensorrt: str
    cuda_runtime: str
    cuda_driver: str
    compute_capability: str
    gpu: str
    multiprocessors: int
    module: str
    l4t: str
    schema: int = SCHEMA

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostKey:
    """What a compiled model depends on, of the machine.

    Attributes:
        openvino: Full version, with the build's number.
        architecture: Of the machine.
        cpu: Name of the processor.
        instruction_sets: Those that inference kernels are chosen by.
        cores: Hardware threads that this process may use.
        schema: `SCHEMA`.
    """

    openvino: str
    architecture: str
    cpu: str
    instruction_sets: tuple[str, ...]
    cores: int
    schema: int = SCHEMA

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "openvino": self.openvino,
            "architecture": self.architecture,
            "cpu": self.cpu,
            "instruction_sets": list(self.instruction_sets),
            "cores": self.cores,
            "schema": self.schema,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryKey:
    """What an entry was made from: its kind ("tensorrt-int8"), the sha256 of the model, the options it was made with, and the device."""

    kind: str
    model_sha256: str
    options: Mapping[str, str]
    device: DeviceKey | HostKey

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "kind": self.kind,
            "model_sha256": self.model_sha256,
            "options": dict(sorted(self.options.items())),
            "device": self.device.document(),
        }

    @property
    def name(self) -> str:
        """Name of the entry's files, without the ending."""
        if not _KIND.fullmatch(self.kind):
            raise TargetError(f"{self.kind!r} is no kind of cached engine", hint="use the engines' names")
        return f"{self.kind}-{canonical_digest(self.document())[:40]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A payload that may be used, and what its sidecar says about the making."""

    payload: bytes
    sha256: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """Why there is no payload."""

    reason: str


def canonical_digest(document: Mapping[str, Any]) -> str:
    """The sha256 of a document, whatever the order of its keys."""
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def difference(found: object, wanted: Mapping[str, Any]) -> str:
    """What another device had, in words."""
    listed = found if isinstance(found, dict) else {}
    return ", ".join(f"{name} {listed.get(name)!s:.80}, here {value}" for name, value in wanted.items() if listed.get(name) != value)
