"""How training frames are varied: mirror, shift, gain, offset, speckle.

Rules this file keeps:

1. What happens to a frame depends on the seed, the epoch and the frame's index in its split, on nothing else: a resumed training, and one in several
   processes, sees the same frames.
2. The result is uint8 like any frame: what a device could have seen, rounded and clipped as it would be.
3. Student and teachers get the same varied frame; the teacher's answer to it is what is learned.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekit.catalog.compress import AugmentSpec


def varied(frame: NDArray[np.uint8], spec: AugmentSpec, *, seed: int, epoch: int, index: int) -> NDArray[np.uint8]:
    """A variation of a frame.

    Args:
        frame: uint8 (height, width, channels); not changed.
        spec: What is done and how much.
        seed: Of the training.
        epoch: From 1.
        index: Of the frame in its split.

    Returns:
        uint8 (height, width, channels).
    """
    draw = np.random.default_rng((seed, epoch, index))
    # Everything is drawn, used or not, so that a change of one setting leaves the others' draws alone.
    mirrored = bool(draw.integers(2))
    down, right = draw.uniform(-1, 1, size=2)
    gain, offset = draw.uniform(-1, 1, size=2)
    if spec.flip and mirrored:
        frame = frame[:, ::-1]
    frame = _shifted(frame, round(down * spec.shift * frame.shape[0]), round(right * spec.shift * frame.shape[1]))
    levels = np.arange(256) * (1 + gain * spec.gain) + offset * spec.offset
    if not spec.speckle:
        plain: NDArray[np.uint8] = np.take(_uint8(levels), frame)
        return plain
    # One grain for all channels: speckle is a property of the echo, not of the display's colours.
    grain = 1 + spec.speckle * draw.standard_normal(frame.shape[:2], dtype=np.float32)
    return _uint8(np.take(levels.astype(np.float32), frame) * grain[:, :, None])


def _shifted(frame: NDArray[np.uint8], down: int, right: int) -> NDArray[np.uint8]:
    height, width = frame.shape[:2]
    if down:
        frame = frame[np.clip(np.arange(height) - down, 0, height - 1)]
    if right:
        frame = frame[:, np.clip(np.arange(width) - right, 0, width - 1)]
    return frame


def _uint8(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    result: NDArray[np.uint8] = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return result
