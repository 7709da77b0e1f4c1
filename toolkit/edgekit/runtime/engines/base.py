"""The contract of an inference engine.

Rules every engine keeps:

1. It runs exactly the settings of its `EngineSpec`: the precision that was proven is the precision that runs, or it refuses to open.
2. It takes the model from verified bytes in memory, never from a path.
3. `infer` checks the tensor, calls `_infer`, and refuses logits that are no numbers; outputs are fresh arrays the caller owns.
4. Inputs and outputs are known by their names (`INPUT_NAMES`, `OUTPUT_NAMES`), never by their place.
5. It keeps nothing from frame to frame: the state of a recurrent classifier is given and given back.
6. It sends nothing anywhere.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.manifest import INPUT_NAMES, OUTPUT_NAMES, EngineSpec
from edgekit.errors import BundleError, DataError, NotFiniteError, TargetError

STATE = INPUT_NAMES[1]
_OUTPUTS = attrgetter(*OUTPUT_NAMES)


@dataclass(frozen=True, slots=True, kw_only=True)
class RawOutput:
    """What the graph computed for one frame.

    Attributes:
        logits: float32 (outputs,), finite.
        cam: float32 (outputs, rows, columns) in logit units; None where the graph has no map.
        offset: float32 (outputs,), what the mean of a map lacks to the logit on this frame; None where that is a constant of the manifest.
        features: float32 (channels,), the features that the input gate judges; None where the graph gives none.
        next_state: float32, the shape of the graph's input `state`: what a recurrent classifier is given with the next frame; None where it is not recurrent.
    """

    logits: NDArray[np.float32]
    cam: NDArray[np.float32] | None
    offset: NDArray[np.float32] | None = None
    features: NDArray[np.float32] | None = None
    next_state: NDArray[np.float32] | None = None

    @classmethod
    def of(cls, outputs: Mapping[str, NDArray[np.generic]]) -> RawOutput:
        """Copies what an engine gives, by the names of the graph's outputs, each with the batch's axis; a state keeps it."""
        owned = {name: np.array(output if name == "next_state" else output[0], dtype=np.float32) for name, output in outputs.items()}
        return cls(
            logits=owned["logits"],
            cam=owned.get("cam"),
            offset=owned.get("offset"),
            features=owned.get("features"),
            next_state=owned.get("next_state"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """Whether an engine can run here: its version, or the reason and the remedy."""

    version: str | None
    reason: str = ""
    hint: str = ""


class EngineNotBuiltError(TargetError):
    """The engine has to be built on this device first: `edgekit build BUNDLE`."""


class ModelRefusedError(BundleError):
    """The libraries of this machine do not take what is whole and is what the manifest says; another engine of the bundle may run."""


class Engine(ABC):
    """A model, ready to run on one device. Not thread-safe: the classifier serializes access."""

    @classmethod
    @abstractmethod
    def open(cls, spec: EngineSpec, members: Mapping[str, memoryview]) -> Engine:
        """Loads the model.

        Raises:
            MissingEngineError: The engine's library is not installed.
            TargetError: The library is too old, or this device cannot run what was proven.
            ModelRefusedError: The library refuses the model.
            BundleError: The model is not what the manifest says, or a setting is not one that a bundle may choose.
        """

    @staticmethod
    @abstractmethod
    def available() -> Availability:
        """Whether the engine's library can be loaded here; never raises."""

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """What is really in use: name, version, device, precision, threads."""

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the uint8 tensor the graph takes, (1, rows, columns, channels)."""

    @property
    @abstractmethod
    def output_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name of an output, one of `OUTPUT_NAMES`, to its shape with the batch's axis; of the outputs that the graph has."""

    @property
    def state_shape(self) -> tuple[int, ...] | None:
        """Shape of the float32 state the graph takes with a frame; None where it takes none."""
        return None

    def initial_state(self) -> NDArray[np.float32] | None:
        """The state that the graph takes with the first frame of a clip, a new array of zeros; None where it takes none."""
        return None if self.state_shape is None else np.zeros(self.state_shape, dtype=np.float32)

    @property
    def map_shape(self) -> tuple[int, ...] | None:
        """Shape of the maps the graph computes, (outputs, rows, columns); None where it computes none."""
        shape = self.output_shapes.get("cam")
        return None if shape is None else shape[1:]

    @property
    def gives_offset(self) -> bool:
        """Whether the graph computes what the mean of a map lacks to the logit."""
        return "offset" in self.output_shapes

    def close(self) -> None:
        """Gives back what the engine holds beside memory of this process; it answers no more. Without it, that happens when it is collected.

        It never raises: what cannot be given back goes with the process, and an error of before must not be replaced.
        """
        return

    @abstractmethod
    def _infer(self, tensor: NDArray[np.uint8], state: NDArray[np.float32] | None) -> RawOutput: ...

    def infer(self, tensor: NDArray[np.uint8], state: NDArray[np.float32] | None = None) -> RawOutput:
        """Runs one frame.

        Args:
            tensor: uint8 (1, rows, columns, channels) from `imaging.preprocess`, contiguous.
            state: float32 of `state_shape`, contiguous, finite: `next_state` of the frame before, or what the manifest says of the first; None where the
                graph takes none.

        Raises:
            DataError: The tensor or the state does not fit the graph.
            NotFiniteError: A logit or the next state is NaN or infinite.
            TargetError: The engine failed.
        """
        if tensor.dtype != np.uint8 or tensor.shape != self.input_shape:
            raise DataError(
                f"the graph takes uint8 {self.input_shape}, not {tensor.dtype} {tensor.shape}", hint="`imaging.preprocess` makes the tensor"
            )
        given = None if state is None else state.shape
        if given != self.state_shape or (state is not None and state.dtype != np.float32):
            raise DataError(
                f"the graph takes a state of the shape {self.state_shape}, not {given}", hint="`Classifier.clip` keeps the state of a clip"
            )
        raw = self._infer(tensor, state)
        self._check(raw)
        return raw

    @cached_property
    def _promised(self) -> tuple[tuple[int, ...] | None, ...]:
        """Shapes of the fields of `RawOutput` in the order of `OUTPUT_NAMES`; None for an output that the graph does not have."""
        shapes = self.output_shapes
        return tuple(shapes.get(name) if name == "next_state" or name not in shapes else shapes[name][1:] for name in OUTPUT_NAMES)

    def _check(self, raw: RawOutput) -> None:
        """An engine's optimizer that gets a shape wrong gives what the graph does not say."""
        found = tuple(None if output is None else output.shape for output in _OUTPUTS(raw))
        if found != self._promised:
            named = {name: shape for name, shape in zip(OUTPUT_NAMES, found, strict=True) if shape is not None}
            raise TargetError(f"the engine gives outputs of the shapes {named}, which the graph does not have", hint="report this")
        # A few numbers: asking numpy takes longer.
        if not all(map(math.isfinite, raw.logits.tolist())) or (raw.next_state is not None and not np.isfinite(raw.next_state).all()):
            raise NotFiniteError(
                "the model answered with NaN or infinite logits", hint="edgekit verify BUNDLE compares it with its golden frames"
            )


def check_version(library: str, version: str, spec: EngineSpec) -> None:
    """Refuses a library that is older than the one a bundle was proven with.

    Raises:
        TargetError: It is older.
    """
    if _numbers(version) < _numbers(spec.minimum_version):
        raise TargetError(
            f"{library} {version} is older than {spec.minimum_version}, which the bundle was proven with", hint=f"update {library}"
        )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def check_shapes(taken: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]], spec: EngineSpec) -> None:
    """Refuses a graph that is not a frame and at most a state in, and what `OUTPUT_NAMES` lists out.

    Args:
        taken: Name of an input to its shape; empty where one is left open.
        given: Name of an output to its shape.
        spec: The manifest's entry.

    Raises:
        BundleError: Names what was found.
    """
    again = "compile the bundle again"
    frames, state = dict(taken), taken.get("state")
    frames.pop("state", None)
    if len(frames) != 1 or any(len(shape) != 4 or 0 in shape for shape in frames.values()):
        raise BundleError(f"the model's inputs {dict(taken)} are not one uint8 tensor (1, rows, columns, channels)", hint=again)
    unknown = [name for name in given if name not in OUTPUT_NAMES]
    if unknown:
        raise BundleError(f"the model's outputs are {', '.join(given)}; a bundle's are among {', '.join(OUTPUT_NAMES)}", hint=again)
    if given.get("logits") != (1, spec.outputs):
        raise BundleError(f"the model's outputs {dict(given)} are not the {spec.outputs} logits that the manifest names", hint=again)
    maps, offset, features = given.get("cam"), given.get("offset"), given.get("features")
    if maps is not None and (len(maps) != 4 or maps[:2] != (1, spec.outputs) or 0 in maps):
        raise BundleError(f"the model's outputs {dict(given)} are not {spec.outputs} logits and a map each", hint=again)
    if offset is not None and (maps is None or offset != (1, spec.outputs)):
        raise BundleError(f"the model's outputs {dict(given)} are not {spec.outputs} logits, a map each and an offset each", hint=again)
    if features is not None and (len(features) != 2 or features[0] != 1 or features[1] < 1):
        raise BundleError(f"the model's features {features} are not one vector", hint=again)
    if given.get("next_state") != state:
        raise BundleError(f"the model takes a state {state} and gives {given.get('next_state')}", hint=again)


def in_order(outputs: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The outputs in the order of `OUTPUT_NAMES`."""
    return {name: outputs[name] for name in OUTPUT_NAMES if name in outputs}
