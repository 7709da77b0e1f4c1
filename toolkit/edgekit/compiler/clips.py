"""States of a recurrent model while frames of several clips are run: each clip has its own, from zeros.

A clip is what the data manifest calls a group: a video, or a patient with one video. Its frames stand in the manifest in their order; frames of other clips may
stand between them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class HeldStates:
    """The state of each clip, of frames that are run in the manifest's order."""

    def __init__(self, shape: tuple[int, ...], clips: Sequence[str]) -> None:
        """Takes the state's shape, and the clip of each frame."""
        self._clips = clips
        self._shape = shape
        self._held: dict[str, NDArray[np.float32]] = {}

    def before(self, index: int) -> NDArray[np.float32]:
        """The state that a frame is given: zeros for the first of its clip."""
        held = self._held.get(self._clips[index])
        return np.zeros(self._shape, dtype=np.float32) if held is None else held

    def after(self, index: int, state: NDArray[np.float32]) -> None:
        """Keeps what a frame gave, for the next one of its clip."""
        self._held[self._clips[index]] = state
