"""The manifest of a bundle: everything the device needs to know, in one strict JSON document.

Rules this file keeps:

1. Unknown keys are refused: a device that does not understand a field must not run as if it did. A new field means a new `format_version`.
2. Every other member of the bundle is listed with its size and sha256, here and nowhere else.
3. Nothing in it was timed and nothing in it names a path or a patient, so the same inputs give the same bytes.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from edgekit.errors import BundleError
from edgekit.schema.decode import decode, encode
from edgekit.schema.model_io import InputSpec, OutputSpec

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member of the bundle: `sha256` as 64 lower-case hex digits, `size_bytes` as stored."""

    sha256: str
    size_bytes: int

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256):
            raise ValueError("sha256 must be 64 lower-case hex digits")
        if self.size_bytes < 0:
            raise ValueError("size_bytes must not be negative")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """One engine the bundle was proven with.

    Attributes:
        name: Key of the runtime's engine table.
        files: Role to member name, for example ``{"xml": "model/openvino.xml", "bin": "model/openvino.bin"}``.
        minimum_version: Oldest engine version that may run it.
        precision: What the weights and activations are, for people ("int8", "f32").
        settings: The engine's own configuration keys, pinned to what was proven.
        outputs: Number of raw logits.
    """

    name: str
    files: dict[str, str]
    minimum_version: str
    precision: str
    settings: dict[str, str]
    outputs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CamSpec:
    """The class activation map inside the graph.

    Attributes:
        rows: Rows of the map.
        columns: Columns of the map.
        maps: Maps the graph computes: one a raw logit.
        kind: ``"pooled-linear"``: logit = mean over the map + bias, computed in that order in the graph.
        bias: The bias a raw logit, so that the device can check logit = mean + bias on every frame.
        tolerance: Largest |mean + bias − logit| in logit units that the device accepts as rounding.
        scale: Logit units shown as full colour; fixed for the bundle so that frames can be compared.
    """

    rows: int
    columns: int
    maps: int
    kind: str
    bias: tuple[float, ...]
    tolerance: float
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """How probabilities become an answer: temperature of the softmax or sigmoid, and frozen thresholds by label."""

    temperature: float
    thresholds: dict[str, float]

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError("temperature must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenSpec:
    """Synthetic frames with the outputs each engine gave when it was proven.

    Attributes:
        frames: Member with uint8 (frames, rows, columns, channels) tensors, as `.npy`.
        logits: Engine name to member with float32 (frames, outputs).
        tolerance: Engine name to the largest accepted |Δlogit| on another machine.
    """

    frames: str
    logits: dict[str, str]
    tolerance: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One acceptance gate as it was measured: `value` against `bound`."""

    name: str
    value: float | None
    bound: float
    passed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSummary:
    """The device profile the bundle was compiled for, resolved at compile time."""

    name: str
    title: str
    architectures: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything in a bundle that is not a tensor.

    Attributes:
        format_version: Version of this schema.
        name: Name of the model, as in the recipe.
        version: Version of the model, as in the recipe; for people.
        security_version: Counts up with every release that must not be rolled back.
        accepted: Whether every acceptance gate passed.
        compatible: Names of the targets it may run on.
        target: The target profile.
        engines: In order of preference.
        input: Preprocessing.
        output: Meaning of the logits.
        decision: Temperature and thresholds.
        cam: The map in the graph; None where the head allows none.
        cam_reason: Why there is no map; empty where there is one.
        golden: Frames for the self-test.
        acceptance: The gates as measured.
        sources: Name to sha256 of what it was compiled from (weights, data manifest, recipe).
        made_with: Library to version.
        members: Member name to size and digest; everything but the manifest itself.
    """

    format_version: int
    name: str
    version: str
    security_version: int
    accepted: bool
    compatible: tuple[str, ...]
    target: TargetSummary
    engines: tuple[EngineSpec, ...]
    input: InputSpec
    output: OutputSpec
    decision: Decision
    cam: CamSpec | None
    cam_reason: str
    golden: GoldenSpec
    acceptance: tuple[Gate, ...]
    sources: dict[str, str]
    made_with: dict[str, str]
    members: dict[str, Member]


def parse(data: bytes, *, where: str) -> Manifest:
    """Reads a manifest strictly.

    Args:
        data: The bytes of `manifest.json`.
        where: The bundle, for the message.

    Raises:
        BundleError: Not UTF-8 JSON, a repeated or unknown key, a wrong type, or a `format_version` this edgekit does not know.
    """
    try:
        table = json.loads(data.decode("utf-8"), object_pairs_hook=_no_repeats, parse_constant=_no_constants)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where}: {MANIFEST_NAME} is not valid JSON: {error}", hint="the bundle is damaged; copy it again") from error
    version = table.get("format_version") if isinstance(table, dict) else None
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{where}: format version {version!r} is not one this edgekit reads ({FORMAT_VERSION})",
            hint="update edgekit on this machine, or compile the bundle again with this edgekit",
        )
    return decode(Manifest, table, where=f"{where}: {MANIFEST_NAME}", error=BundleError)


def serialize(manifest: Manifest) -> bytes:
    """Writes a manifest; the same manifest gives the same bytes (sorted keys, UTF-8, two-space indent, final newline)."""
    text = json.dumps(encode(manifest), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode("utf-8")


def _no_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key is repeated")
    return table


def _no_constants(name: str) -> float:
    raise ValueError(f"{name} is not a number")
