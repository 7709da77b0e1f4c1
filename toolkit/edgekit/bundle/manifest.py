"""The manifest of a bundle: everything the device needs to know, in one strict JSON document.

Rules this file keeps:

1. Unknown keys are refused: a device that does not understand a field must not run as if it did. A new field means a new
   `format_version`, from the first release on; until then a field that may be missing is added to version 1.
2. Every other member of the bundle is listed with its size and sha256, here and nowhere else; one that no engine and no golden frame uses
   is refused, except for people's reports.
3. Nothing in it was timed and nothing in it names a path or a patient, so the same inputs give the same bytes.
4. What two places say about the same thing must agree: outputs with labels, maps with outputs, golden logits with engines.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from edgekit.bundle.archive import check_names
from edgekit.schema.input_gate import InputGateSpec
from edgekit.schema.model_io import MAX_SIDE_PX, InputSpec, OutputSpec, check_state_shape

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
TEMPERATURES = (0.01, 100.0)
"""Smallest and largest temperature; beyond them the softmax overflows or says nothing."""
MODEL_FOLDER, GOLDEN_FOLDER, GATE_FOLDER, REPORT_FOLDER = "model/", "golden/", "gate/", "report/"

MAX_SECURITY_VERSION = 2**31 - 1
"""Largest security version; it leaves no room to lock a device out of every later release by one huge number."""

INPUT_NAMES = ("frame", "state")
"""What a graph's inputs are called; the second where the classifier is recurrent."""

OUTPUT_NAMES = ("logits", "cam", "offset", "features", "next_state")
"""What a graph's outputs are called, in their order; every graph has the first. The others are there where there are maps, where the bias of the maps depends
on the frame, where the input gate judges features, and where the classifier is recurrent."""

CamKind = Literal["pooled-linear", "complete", "gradient", "attention", "masking"]
"""What a map is; `CamSpec` says what each means."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DOTTED_VERSION = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9}){0,4}")


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
class Gate:
    """One acceptance gate as it was measured, `value` against `bound`; a `status` that is left out is passed or failed, as `passed` says."""

    name: str
    value: float | None
    bound: float
    passed: bool
    status: Literal["passed", "failed", "not demonstrated"] | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a gate has no name")
        object.__setattr__(self, "status", self.status or ("passed" if self.passed else "failed"))
        if self.passed != (self.status != "failed"):
            raise ValueError(f"the gate {self.name!r} has the status {self.status!r}, but passed is {str(self.passed).lower()}")
        if not math.isfinite(self.bound) or (self.value is not None and not math.isfinite(self.value)):
            raise ValueError(f"value and bound of the gate {self.name!r} must be finite; a figure that could not be measured is null")


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
        temperature: Its own, where its logits are calibrated otherwise than the first engine's; None for the decision's.
        acceptance: The gates as measured with its artefact, where it is not the first engine; empty for the first, whose gates are the manifest's.
    """

    name: str
    files: dict[str, str]
    minimum_version: str
    precision: str
    settings: dict[str, str]
    outputs: int
    temperature: float | None = None
    acceptance: tuple[Gate, ...] = ()

    def __post_init__(self) -> None:
        _check_slug("the engine's name", self.name)
        if not self.files:
            raise ValueError("an engine needs at least one file")
        if not _DOTTED_VERSION.fullmatch(self.minimum_version):
            raise ValueError(f"minimum_version {self.minimum_version!r} is not numbers with dots between")
        if not self.precision:
            raise ValueError("precision is empty")
        if self.outputs < 1:
            raise ValueError(f"outputs must be at least 1, not {self.outputs}")
        if self.temperature is not None:
            _check_temperature(self.temperature)


@dataclass(frozen=True, slots=True, kw_only=True)
class CamSpec:
    """The class activation map inside the graph.

    Attributes:
        rows: Rows of the map.
        columns: Columns of the map.
        maps: Maps the graph computes: one a raw logit.
        kind: How the map comes about. For all of them logit = mean over the map + bias, and a map is gradient · features summed over channels.

            - ``"pooled-linear"``: a linear head behind a mean; its weights times the features (CAM). Logits are computed from the map.
            - ``"complete"``: a head that is linear once its gates and divisors are held as they are on the frame. Logits are computed from the map.
            - ``"gradient"``: a first-order explanation; the bias holds what it leaves out.
            - ``"attention"``: what the patches add to the token that is read, through the last attention; the bias holds the rest of the network.
            - ``"masking"``: the head's answer to each position alone, beside its answer to none; the bias holds the rest.
        bias: The bias a raw logit, so that the device can check logit = mean + bias on every frame; empty where it depends on the frame: the graph then has
            a third output ``offset`` in its place.
        tolerance: Largest |mean + bias − logit| in logit units that the device accepts as rounding.
        scale: Logit units shown as full colour; fixed for the bundle so that frames can be compared.
        golden: Engine name to member with float32 (frames, maps, rows, columns): the maps of each golden frame. Of all engines; empty in a bundle from before there
            were golden maps.
        golden_tolerance: Engine name to how far a map may be off on another machine, in logit units, root mean square over its cells.
    """

    rows: int
    columns: int
    maps: int
    kind: CamKind
    bias: tuple[float, ...]
    tolerance: float
    scale: float
    golden: dict[str, str] = field(default_factory=dict)
    golden_tolerance: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (1 <= self.rows <= MAX_SIDE_PX and 1 <= self.columns <= MAX_SIDE_PX):
            raise ValueError(f"rows and columns must be between 1 and {MAX_SIDE_PX}, not {self.rows} × {self.columns}")
        if self.maps < 1:
            raise ValueError(f"maps must be at least 1, not {self.maps}")
        if self.bias and len(self.bias) != self.maps:
            raise ValueError(f"bias needs {self.maps} values, one a map, or none, not {len(self.bias)}")
        if self.kind == "pooled-linear" and not self.bias:
            raise ValueError("a pooled linear head has a constant bias, and there is none")
        if not all(map(math.isfinite, self.bias)):
            raise ValueError("bias must be finite")
        _check_tolerance("tolerance", self.tolerance)
        if set(self.golden) != set(self.golden_tolerance):
            raise ValueError("golden and golden_tolerance must name the same engines")
        for engine, tolerance in self.golden_tolerance.items():
            _check_tolerance(f"the golden_tolerance of {engine!r}", tolerance)
        if not 0 < self.scale < math.inf:
            raise ValueError(f"scale must be above 0, not {self.scale}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """How probabilities become an answer: temperature of the softmax or sigmoid, and frozen thresholds by label."""

    temperature: float
    thresholds: dict[str, float]

    def __post_init__(self) -> None:
        _check_temperature(self.temperature)
        for label, threshold in self.thresholds.items():
            if not 0 <= threshold <= 1:
                raise ValueError(f"the threshold of {label!r} must be between 0 and 1, not {threshold}")


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

    def __post_init__(self) -> None:
        if set(self.logits) != set(self.tolerance):
            raise ValueError("logits and tolerance must name the same engines")
        for engine, tolerance in self.tolerance.items():
            _check_tolerance(f"the tolerance of {engine!r}", tolerance)


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSpec:
    """What a recurrent classifier carries from frame to frame: zeros before the first frame of a clip, then what the graph gave for the frame before.

    Attributes:
        shape: Of the graph's input `state` and its output `next_state`, float32.
        golden: Engine name to member with float32 (frames, *shape): the state after each golden frame, which are one clip in their order.
        tolerance: Engine name to the largest accepted difference of an element on another machine.
    """

    shape: tuple[int, ...]
    golden: dict[str, str]
    tolerance: dict[str, float]

    def __post_init__(self) -> None:
        check_state_shape(self.shape)
        if set(self.golden) != set(self.tolerance):
            raise ValueError("golden and tolerance must name the same engines")
        for engine, tolerance in self.tolerance.items():
            _check_tolerance(f"the tolerance of {engine!r}", tolerance)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSummary:
    """The device profile the bundle was compiled for, resolved at compile time.

    Attributes:
        name: Of the profile.
        title: For people.
        architectures: `platform.machine()` in lower case of the machines it stands for.
        instruction_sets: The CPU must have one of these; empty where any CPU will do.
    """

    name: str
    title: str
    architectures: tuple[str, ...]
    instruction_sets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_slug("the target's name", self.name)
        if not self.architectures:
            raise ValueError("a target needs at least one architecture")


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
        state: What is carried from frame to frame; None where every frame is answered by itself.
        gate: The input gate; None where frames are not judged.
        gate_reason: Why they are not, where a gate was asked for or is usual; empty where there is one.
        acceptance: The gates as measured.
        sources: Name to sha256 of what it was compiled from (weights, data manifest, recipe).
        made_with: Library to version.
        members: Member name to size and digest; everything but the manifest itself. Empty only in a draft that `write_bundle` is given.
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
    state: StateSpec | None = None
    gate: InputGateSpec | None = None
    gate_reason: str = ""

    def __post_init__(self) -> None:
        if self.format_version != FORMAT_VERSION:
            raise ValueError(f"format_version must be {FORMAT_VERSION}, not {self.format_version}")
        _check_slug("name", self.name)
        _check_slug("version", self.version)
        if not 0 <= self.security_version <= MAX_SECURITY_VERSION:
            raise ValueError(f"security_version must be between 0 and {MAX_SECURITY_VERSION}, not {self.security_version}")
        _check_unique("compatible", self.compatible)
        _check_unique("engines", [engine.name for engine in self.engines])
        self._check_proof()
        if (self.cam is None) == (not self.cam_reason):
            raise ValueError("cam_reason says why there is no map: it is empty exactly when there is one")
        if self.gate is not None and self.gate_reason:
            raise ValueError("gate_reason says why there is no input gate, and there is one")
        for source, digest in self.sources.items():
            if not _SHA256.fullmatch(digest):
                raise ValueError(f"the source {source!r} needs a sha256 of 64 lower-case hex digits")
        self._check_outputs()
        self._check_engines()
        if self.members:
            self._check_members()

    def _check_proof(self) -> None:
        if self.accepted and not (self.acceptance and all(gate.passed for gate in self.acceptance)):
            raise ValueError("accepted is true, but a gate was not passed, or there is none")
        if self.engines[0].acceptance or self.engines[0].temperature is not None:
            raise ValueError("gates and temperature of the first engine are the manifest's own; they stand there and nowhere else")
        for engine in self.engines[1:]:
            if self.accepted and not (engine.acceptance and all(gate.passed for gate in engine.acceptance)):
                raise ValueError(f"accepted is true, but the engine {engine.name!r} has a gate that was not passed, or none")

    def _check_outputs(self) -> None:
        for engine in self.engines:
            if not self.output.accepts_logits(engine.outputs):
                raise ValueError(f"the engine {engine.name!r} has {engine.outputs} outputs for the labels {list(self.output.labels)}")
            if engine.outputs != self.engines[0].outputs:
                raise ValueError(f"the engines {self.engines[0].name!r} and {engine.name!r} differ in their number of outputs")
            if self.cam is not None and self.cam.maps != engine.outputs:
                raise ValueError(f"cam has {self.cam.maps} maps for the {engine.outputs} outputs of the engine {engine.name!r}")
        for label in self.decision.thresholds:
            if label not in self.output.labels:
                raise ValueError(f"decision.thresholds names {label!r}, which is not one of the labels {list(self.output.labels)}")

    def _check_engines(self) -> None:
        engines = {engine.name for engine in self.engines}
        if set(self.golden.logits) != engines:
            raise ValueError(f"golden has logits of {sorted(self.golden.logits)} for the engines {sorted(engines)}")
        if self.gate is not None and not set(self.gate.features) <= engines:
            raise ValueError(f"gate judges features of {sorted(self.gate.features)}, the engines are {sorted(engines)}")
        maps, states = (None if part is None else part.golden for part in (self.cam, self.state))
        if maps and set(maps) != engines:
            raise ValueError(f"cam has golden maps of {sorted(maps)} for the engines {sorted(engines)}")
        if states is not None and set(states) != engines:
            raise ValueError(f"state has golden states of {sorted(states)} for the engines {sorted(engines)}")

    def _check_members(self) -> None:
        check_names([*self.members, MANIFEST_NAME])
        used = {name for engine in self.engines for name in engine.files.values()}
        states = () if self.state is None else self.state.golden.values()
        maps = () if self.cam is None else self.cam.golden.values()
        golden = {self.golden.frames, *self.golden.logits.values(), *maps, *states}
        gate = frozenset() if self.gate is None else self.gate.members
        for folder, names in ((MODEL_FOLDER, used), (GOLDEN_FOLDER, golden), (GATE_FOLDER, gate)):
            for name in sorted(names):
                if not name.startswith(folder):
                    raise ValueError(f"{name!r} must be a member under {folder}")
                if name not in self.members:
                    raise ValueError(f"{name!r} is used but is not listed in members")
        for name in self.members:
            if name not in used | golden | gate and not name.startswith(REPORT_FOLDER):
                raise ValueError(f"nothing uses the member {name!r}; only {REPORT_FOLDER} may hold such members")


def _check_slug(what: str, text: str) -> None:
    if not _NAME.fullmatch(text):
        raise ValueError(f"{what} {text!r} must be 1 to 64 letters, digits, dots, underscores and hyphens, starting with a letter or digit")


def _check_temperature(value: float) -> None:
    low, high = TEMPERATURES
    if not low <= value <= high:
        raise ValueError(f"temperature must be between {low:g} and {high:g}, not {value}")


def _check_unique(what: str, names: Iterable[str]) -> None:
    if not (listed := list(names)):
        raise ValueError(f"{what} is empty")
    if len(set(listed)) != len(listed):
        raise ValueError(f"{what} names one twice: {listed}")


def _check_tolerance(what: str, tolerance: float) -> None:
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"{what} must not be negative, not {tolerance}")
