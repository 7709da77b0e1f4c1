"""The input gate: refuses to classify frames that the classifier was not made for.

A classifier answers with one of its labels whatever it is shown. The gate looks first: is the frame a picture (`imaging.quality`), and does it look, to the
network and by its brightness, like the frames it was compiled with?

A frame has two distances: of the engine's own features, divided by their length, from those of the calibration frames, and of the distribution of its brightness. Each is a Mahalanobis distance under
probabilistic principal components, per value, so that a frame of the known kind has about 1, and each has its limit:

    d² = (Σ_j (w_j · x)² + (‖x‖² − Σ_j (v_j · x)²) / noise) / values,    x the distance from the mean, v_j a direction, w_j = v_j / σ_j.

Sources: Lee et al. 2018 (Mahalanobis distance of features, NeurIPS), Wang et al. 2022 (residual beside the principal space, CVPR), Tipping and Bishop 1999 (probabilistic
principal components, J. R. Stat. Soc. B 61); docs/adr/0023-input-gate.md says what else was measured.

Rules this file keeps:

1. A refusal names the check, what was found and the limit. A figure that is no number refuses.
2. Statistics and limit of features are those of the engine that answered.
3. Everything is checked when the bundle is opened: shapes, numbers, that the graph gives what is judged.

Does not prove that a frame which passes is one that the classifier was made for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.reader import Bundle
from edgekit.errors import BundleError
from edgekit.imaging.quality import BRIGHTNESS_BINS, TensorFigures, why_not
from edgekit.runtime.engines.base import Engine, RawOutput
from edgekit.schema.input_gate import InputGateSpec, Subspace

_FEWEST_REPEATS = 3
"""Frames that are the same before time alone makes a clip frozen."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Components:
    """A fitted distribution of vectors.

    Attributes:
        mean: float64 (values,).
        directions: float64 (components, values), orthogonal, each divided by the standard deviation along it. In float32 the two large sums below, which nearly
            cancel, would leave four digits.
        noise: Variance along each of the other directions.
        weights: float64 (components,): what the square along a direction counts beside its share of the length. Made here, since a frame should not pay for it.
    """

    mean: NDArray[np.float64]
    directions: NDArray[np.float64]
    noise: float
    weights: NDArray[np.float64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # A direction that was divided by σ has the length 1 / σ.
        variances = 1 / (self.directions**2).sum(axis=1)
        object.__setattr__(self, "weights", 1 - variances / self.noise)

    @classmethod
    def of(cls, stored: NDArray[np.floating], noise: float) -> Components:
        """As a bundle holds them (`Subspace`)."""
        array = np.asarray(stored, dtype=np.float64)
        return cls(mean=array[0], directions=np.ascontiguousarray(array[1:]), noise=float(noise))

    def distance(self, vectors: NDArray[np.floating]) -> NDArray[np.float64]:
        """Distances, float64 (vectors,), of vectors (vectors, values): each computed as on the device, one by one."""
        return np.array([self.distance_of(vector) for vector in vectors])

    def distance_of(self, vector: NDArray[np.floating]) -> float:
        """The distance of one vector, (values,)."""
        apart = vector - self.mean
        along = self.directions @ apart
        squared = float((along * along) @ self.weights) + float(apart @ apart) / self.noise
        return math.nan if math.isnan(squared) else math.sqrt(max(squared, 0.0) / len(self.mean))


def unit_length(features: NDArray[np.floating]) -> NDArray[np.float64]:
    """Vectors (vectors, values) divided by their length; one of zeros stays."""
    return np.stack([unit_vector(vector) for vector in features])


def unit_vector(vector: NDArray[np.floating]) -> NDArray[np.float64]:
    """A vector (values,) divided by its length; one of zeros stays."""
    array = vector.astype(np.float64)
    length = math.sqrt(array @ array)
    return array / length if length != 0 else array


class InputGate:
    """The gate of an opened bundle."""

    def __init__(self, spec: InputGateSpec, brightness: Components, features: Mapping[str, Components]) -> None:
        self.spec = spec
        self._brightness = brightness
        self._features = features

    @classmethod
    def open(cls, bundle: Bundle) -> InputGate | None:
        """Reads the gate of a bundle; None where it has none.

        Raises:
            BundleError: Its members are not what the manifest says.
        """
        spec = bundle.manifest.gate
        if spec is None:
            return None
        brightness = _components(bundle, spec.brightness, values=BRIGHTNESS_BINS)
        features = {name: _components(bundle, found) for name, found in spec.features.items()}
        return cls(spec, brightness, features)

    def check_graph(self, name: str, engine: Engine, path: Path) -> None:
        """Refuses an engine that does not give what its gate judges.

        Raises:
            BundleError: Its features are missing or of another length.
        """
        known = self._features.get(name)
        given = engine.output_shapes.get("features")
        if known is not None and given != (1, len(known.mean)):
            raise BundleError(
                f"{path}: the model gives features of the shape {given}, its input gate judges {(1, len(known.mean))}",
                hint="compile the bundle again",
            )

    def before(self, frame: NDArray[np.uint8], figures: TensorFigures) -> str:
        """Why a frame need not be asked about, as a sentence for `Prediction.reason`; empty where nothing speaks against it."""
        found = why_not(frame, figures, self.spec.quality)
        return f"not assessable: the frame is {found}" if found else ""

    def after(self, name: str, raw: RawOutput, figures: TensorFigures) -> str:
        """Why a frame is not to be answered, by its distances; empty where it is.

        Args:
            name: The engine that answered.
            raw: What it gave.
            figures: Of the frame's tensor.
        """
        if name in self._features and raw.features is not None:
            found, limit = self._features[name].distance_of(unit_vector(raw.features)), self.spec.features[name].limit
            if not found <= limit:  # so that NaN is refused
                return _unlike("features", found, limit)
        found, limit = self._brightness.distance_of(figures.brightness), self.spec.brightness.limit
        return "" if found <= limit else _unlike("brightness", found, limit)


def _unlike(what: str, found: float, limit: float) -> str:
    return f"not assessable: the frame is unlike those the classifier was made for (distance of its {what} {found:.2f}, limit {limit:.2f})"


def _components(bundle: Bundle, spec: Subspace, *, values: int | None = None) -> Components:
    array = bundle.load_array(spec.member)
    wanted = values if values is not None or array.ndim != 2 else array.shape[1]
    if array.dtype != np.float32 or array.ndim != 2 or array.shape[1] != wanted or not 2 <= len(array) <= array.shape[1] + 1:
        raise BundleError(
            f"{bundle.path}: the member {spec.member!r} holds {array.dtype} {array.shape}, not float32 of a mean and components",
            hint="compile it again",
        )
    if not np.isfinite(array).all() or not (array[1:] != 0).any(axis=1).all():
        raise BundleError(f"{bundle.path}: the member {spec.member!r} has values that are no statistics", hint="compile it again")
    return Components.of(array, spec.noise)


class FrozenWatch:
    """Tells a frozen source: the same tensor again and again. One belongs to a clip.

    An ultrasound scanner that is frozen goes on sending its last picture; so does a grabber that lost its signal.
    """

    def __init__(self, frames: int, seconds: float) -> None:
        self._limit_frames = frames
        self._limit_seconds = seconds
        self._last: NDArray[np.uint8] | None = None
        self._since = 0.0
        self._repeats = 0

    def see(self, tensor: NDArray[np.uint8], now: float) -> str:
        """Why a tensor is of a frozen source, as a sentence for `Prediction.reason`; empty where it is not known to be.

        Args:
            tensor: uint8, from `preprocess`. It is kept, and must not be written to afterwards.
            now: Seconds of a clock that only goes forward.
        """
        if self._last is None or tensor.shape != self._last.shape or not np.array_equal(tensor, self._last):
            self._last, self._since, self._repeats = tensor, now, 1
            return ""
        self._repeats += 1
        lasted = now - self._since
        if self._repeats < self._limit_frames and not (self._repeats >= _FEWEST_REPEATS and lasted >= self._limit_seconds):
            return ""
        return f"not assessable: the source is frozen (the same picture for {self._repeats} frames, {lasted:.1f} s)"
