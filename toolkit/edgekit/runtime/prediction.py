"""The answer for one frame, and its explanation.

Rules this file keeps:

1. A prediction owns everything it holds, the frame included: a camera may reuse its buffer, and an overlay is never drawn on another frame.
2. The map is signed and in logit units; its scale is fixed for the bundle, so frames can be compared by eye.
3. A frame that is not assessable has no answer: nothing here could be taken for one, and `reason` says why.
4. A map that does not add up to its logit is not shown: `cam` is None and `reason` says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.manifest import Manifest
from edgekit.errors import DataError, nearest
from edgekit.imaging import annotate, overlay
from edgekit.imaging.preprocess import crop_box


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How `Prediction.overlay` draws.

    Attributes:
        options: Colour map, opacity, area or contours.
        against: Draw what speaks for the label rather than for this one; None for the label's own map.
        min_probability: Draw nothing where the label's probability is below this, in [0, 1]. A map of a label that was not found shows where the
            model looked for it, and is easily read as a finding (Saporta et al. 2022, Nature Machine Intelligence 4:867, gate their maps likewise).
        colorbar: Put a colour bar with the scale in logit units to the right of the frame.
        caption: Put label, probability and logit below the frame.
    """

    options: overlay.OverlayOptions = overlay.DEFAULT
    against: str | None = None
    min_probability: float = 0.0
    colorbar: bool = False
    caption: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.min_probability <= 1:
            raise DataError(f"the least probability of an overlay must be between 0 and 1, not {self.min_probability}")


PLAIN = Drawing()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What the classifier says about one frame.

    Attributes:
        label: The most probable label; for multilabel the tuple of labels at or above their frozen threshold (may be empty). None where the frame is not assessable.
        probabilities: Label to probability in [0, 1]; empty where the frame is not assessable.
        logits: Label to logit; a binary model with one output z has -z and z. Empty where the frame is not assessable.
        accepted: Whether the bundle passed its acceptance gate; an answer of a bundle that did not says so on every frame.
        assessable: Whether the frame is one that the classifier was made for, as far as the bundle's input gate can tell; True where the bundle has none. Only where
            the gate was told not to withhold (`predict(frame, gate=False)`) is there an answer beside False.
        reason: Why something is missing (no map, not assessable); empty otherwise.
        engine: Name of the engine that answered.
        engine_notes: Why the engines before it in the bundle did not; empty where it is the first.
        stages_ms: Stage to milliseconds: preprocess, infer, cam.
        latency_ms: Milliseconds from the frame in to the answer out, without overlay.
    """

    label: str | tuple[str, ...] | None
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
    _frame: NDArray[np.uint8] | None = field(repr=False)
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

    def cam_against(self, label: str, other: str) -> NDArray[np.float32] | None:
        """What speaks for one label rather than for another: the difference of their maps.

        Args:
            label: One of the model's labels.
            other: Another one.

        Returns:
            float32 (rows, columns) in logit units, signed; with the difference of the biases its mean is the difference of the logits. Owned by the
            caller; None where the head allows no map.

        Raises:
            DataError: One is not a label of the model's, or they are the same.
        """
        if label == other:
            raise DataError(f"{label!r} against itself is nothing", hint="name two labels of the model")
        one, two = self.cam_for(label), self.cam_for(other)
        return None if one is None or two is None else one - two

    def overlay(self, label: str | None = None, drawing: Drawing = PLAIN) -> NDArray[np.uint8]:
        """The frame with the evidence for a label drawn on it.

        Args:
            label: The label to explain; None for `cam_label`.
            drawing: How. Below its `min_probability` nothing is drawn, and the caption says why; so does `why_not_drawn`.

        Returns:
            uint8 (rows, columns, 3) in RGB order; it owns its pixels. It has the frame's own size, or with a colour bar or a caption is larger, and the
            frame is its upper left part.

        Raises:
            DataError: There is no map to draw, or a label is not one of the model's.
        """
        chosen = self._explained(label)
        found = self.cam_for(chosen) if drawing.against is None else self.cam_against(chosen, drawing.against)
        spec = self._manifest.cam
        if found is None or spec is None or self._frame is None:
            raise self._no_map()
        withheld = self.why_not_drawn(chosen, drawing)
        picture = overlay.render(
            self._frame,
            np.zeros_like(found) if withheld else found,
            box=crop_box(self._frame.shape, self._manifest.input),
            scale=spec.scale,
            options=drawing.options,
        )
        if not (drawing.colorbar or drawing.caption):
            return picture
        bar = annotate.ColourBar(scale=spec.scale, options=drawing.options) if drawing.colorbar else None
        return annotate.annotate(picture, bar=bar, caption=self._caption(chosen, drawing, withheld) if drawing.caption else ())

    def why_not_drawn(self, label: str | None = None, drawing: Drawing = PLAIN) -> str:
        """Why `overlay` with the same arguments shows the bare frame; empty where it does not. A map without evidence is drawn, and shows none.

        Raises:
            DataError: There is no map at all, or the label is not one of the model's.
        """
        chosen = self._explained(label)
        probability = self.probabilities[chosen]
        if probability >= drawing.min_probability:
            return ""
        return f"the map of {chosen} is not drawn: its probability {probability:.3f} is below {drawing.min_probability:g}"

    def _explained(self, label: str | None) -> str:
        chosen = self.cam_label if label is None else label
        if chosen is None or not self.probabilities:
            raise self._no_map()
        if chosen not in self.probabilities:
            raise DataError(f"{chosen!r} is not a label of this model", hint=nearest(chosen, self._manifest.output.labels))
        return chosen

    def _no_map(self) -> DataError:
        return DataError(f"there is no map to draw: {self.reason}", hint="check prediction.cam before asking for an overlay")

    def _caption(self, label: str, drawing: Drawing, withheld: str) -> list[str]:
        shown = f"{label}  p = {self.probabilities[label]:.3f}  logit {self.logits[label]:+.2f}"
        if drawing.against is not None:
            shown = f"{label} against {drawing.against}  p = {self.probabilities[label]:.3f} and {self.probabilities[drawing.against]:.3f}"
        unproven = "" if self.accepted else "NOT ACCEPTED by its acceptance gate"
        return [line for line in (shown, withheld, unproven) if line]
