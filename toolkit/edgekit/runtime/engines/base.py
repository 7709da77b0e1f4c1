"""The contract of an inference engine.

Rules every engine keeps:

1. It runs exactly the settings of its `EngineSpec`: the precision that was proven is the precision that runs, or it refuses to open.
2. It takes the model from verified bytes in memory, never from a path.
3. `infer` checks the tensor, calls `_infer`, and refuses logits that are no numbers; outputs are fresh arrays the caller owns.
4. It sends nothing anywhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.manifest import EngineSpec
from edgekit.errors import BundleError, DataError, NotFiniteError, TargetError


@dataclass(frozen=True, slots=True, kw_only=True)
class RawOutput:
    """What the graph computed for one frame.

    Attributes:
        logits: float32 (outputs,), finite.
        cam: float32 (outputs, rows, columns) in logit units; None where the graph has no map.
        offset: float32 (outputs,), what the mean of a map lacks to the logit on this frame; None where that is a constant of the manifest.
    """

    logits: NDArray[np.float32]
    cam: NDArray[np.float32] | None
    offset: NDArray[np.float32] | None = None

    @classmethod
    def of(cls, outputs: Sequence[NDArray[np.generic]]) -> RawOutput:
        """Copies what an engine gives, in the graph's order, each with the batch's axis."""
        logits, cam, offset, *_ = (*(np.array(output[0], dtype=np.float32) for output in outputs), None, None)
        if logits is None:
            raise ValueError("there are no outputs")
        return cls(logits=logits, cam=cam, offset=offset)


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
    def map_shape(self) -> tuple[int, ...] | None:
        """Shape of the maps the graph computes, (outputs, rows, columns); None where it computes none."""

    @property
    @abstractmethod
    def gives_offset(self) -> bool:
        """Whether the graph computes what the mean of a map lacks to the logit."""

    def close(self) -> None:
        """Gives back what the engine holds beside memory of this process; it answers no more. Without it, that happens when it is collected.

        It never raises: what cannot be given back goes with the process, and an error of before must not be replaced.
        """
        return

    @abstractmethod
    def _infer(self, tensor: NDArray[np.uint8]) -> RawOutput: ...

    def infer(self, tensor: NDArray[np.uint8]) -> RawOutput:
        """Runs one frame.

        Args:
            tensor: uint8 (1, rows, columns, channels) from `imaging.preprocess`, contiguous.

        Raises:
            DataError: The tensor does not fit the graph.
            NotFiniteError: A logit is NaN or infinite.
            TargetError: The engine failed.
        """
        if tensor.dtype != np.uint8 or tensor.shape != self.input_shape:
            raise DataError(
                f"the graph takes uint8 {self.input_shape}, not {tensor.dtype} {tensor.shape}", hint="`imaging.preprocess` makes the tensor"
            )
        raw = self._infer(tensor)
        maps = None if raw.cam is None else raw.cam.shape
        if raw.logits.ndim != 1 or maps != self.map_shape or (raw.offset is not None and raw.offset.shape != raw.logits.shape):
            # An engine's optimizer that gets a shape wrong gives what the graph does not say.
            found = [None if output is None else output.shape for output in (raw.logits, raw.cam, raw.offset)]
            raise TargetError(f"the engine gives outputs of the shapes {found}, which the graph does not have", hint="report this")
        if not np.isfinite(raw.logits).all():
            raise NotFiniteError(
                "the model answered with NaN or infinite logits", hint="edgekit verify BUNDLE compares it with its golden frames"
            )
        return raw


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


def check_shapes(taken: Sequence[tuple[int, ...]], given: Sequence[tuple[int, ...]], spec: EngineSpec) -> None:
    """Refuses a graph that is not one tensor (1, rows, columns, channels) in, logits and at most maps and their offset out.

    Args:
        taken: Shapes of the inputs; empty where one is left open.
        given: Shapes of the outputs.
        spec: The manifest's entry.

    Raises:
        BundleError: Names what was found.
    """
    again = "compile the bundle again"
    if len(taken) != 1 or len(taken[0]) != 4:
        raise BundleError(f"the model's inputs {list(taken)} are not one uint8 tensor (1, rows, columns, channels)", hint=again)
    logits, maps, offset = given[:1], given[1:2], given[2:]
    if list(logits) != [(1, spec.outputs)]:
        raise BundleError(f"the model's outputs {list(given)} are not the {spec.outputs} logits that the manifest names", hint=again)
    if any(len(shape) != 4 or shape[:2] != (1, spec.outputs) for shape in maps) or list(offset) not in ([], [(1, spec.outputs)]):
        raise BundleError(
            f"the model's outputs {list(given)} are not {spec.outputs} logits, a map each and at most an offset each", hint=again
        )
