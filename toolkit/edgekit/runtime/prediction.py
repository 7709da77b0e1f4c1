"""The answer for one frame, and its explanation.

Rules this file keeps:

1. A prediction owns everything it holds, the frame included: a camera may reuse its buffer, and an overlay is never drawn on another frame.
2. The map is signed and in logit units; its scale is fixed for the bundle, so frames can be compared by eye.
3. A map that does not add up to its logit is not shown: `cam` is None and `reason` says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.manifest import Manifest
from edgekit.errors import DataError, nearest
from edgekit.imaging import overlay
from edgekit.imaging.preprocess import crop_box


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What the classifier says about one frame.

    Attributes:
        label: The most probable label; for multilabel the tuple of labels at or above their frozen threshold (may be empty).
        probabilities: Label to probability in [0, 1].
        logits: Label to logit; a binary model with one output z has -z and z.
        accepted: Whether the bundle passed its acceptance gate; an answer of a bundle that did not says so on every frame.
        assessable: Whether the frame can be answered at all; always True in this version, which does not judge frames.
        reason: Why something is missing (no map, not assessable); empty otherwise.
        engine: Name of the engine that answered.
        engine_notes: Why the engines before it in the bundle did not; empty where it is the first.
        stages_ms: Stage to milliseconds: preprocess, infer, cam.
        latency_ms: Milliseconds from the frame in to the answer out, without overlay.
    """

    label: str | tuple[str, ...]
    probabilities: dict[str, float]
    logits: dict[str, float]
    accepted: bool
    assessable: bool
    reason: str
    engine: str
    engine_notes: tuple[str, ...]
    stages_ms: dict[str, float]
    latency_ms: float
    _maps: NDArray[np.float32] | None = field(repr=False)
    _frame: NDArray[np.uint8] = field(repr=False)
    _manifest: Manifest = field(repr=False)

    @property
    def cam_label(self) -> str | None:
        """The label `cam` and `overlay` explain: the answer; None where there is no map.

        For multilabel the most probable one of the labels answered with, and where there is none, the most probable label.
        """
        if self._maps is None:
            return None
        if isinstance(self.label, str):
            return self.label
        return max(self.label or self.probabilities, key=lambda name: self.probabilities[name])

    @property
    def cam(self) -> NDArray[np.float32] | None:
        """float32 (rows, columns) in logit units, signed, for `cam_label`; its mean plus the bias is the logit. None where the head allows none."""
        return None if self.cam_label is None else self.cam_for(self.cam_label)

    def cam_for(self, label: str) -> NDArray[np.float32] | None:
        """The map of any label.

        Args:
            label: One of the model's labels.

        Returns:
            float32 (rows, columns), owned by the caller; None where the head allows no map.

        Raises:
            DataError: The label is not one of the model's.
        """
        labels = self._manifest.output.labels
        if label not in labels:
            raise DataError(f"{label!r} is not a label of this model", hint=nearest(label, labels))
        if self._maps is None:
            return None
        found: NDArray[np.float32] = self._maps[labels.index(label)].copy()
        return found

    def overlay(self, label: str | None = None) -> NDArray[np.uint8]:
        """The frame with the evidence for a label drawn on it.

        Args:
            label: The label to explain; None for `cam_label`.

        Returns:
            uint8 (rows, columns, 3) in RGB order, of the frame's own size; it owns its pixels.

        Raises:
            DataError: There is no map to draw, or the label is not one of the model's.
        """
        chosen = self.cam_label if label is None else label
        cam = None if chosen is None else self.cam_for(chosen)
        spec = self._manifest.cam
        if cam is None or spec is None:
            raise DataError(f"there is no map to draw: {self.reason}", hint="check prediction.cam before asking for an overlay")
        drawn: NDArray[np.uint8] = overlay.render(self._frame, cam, box=crop_box(self._frame.shape, self._manifest.input), scale=spec.scale)
        return drawn
