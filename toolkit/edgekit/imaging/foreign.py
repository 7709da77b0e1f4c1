"""Pictures that no classifier of medical frames was made for, drawn from a seed: what an input gate is tried on where no other data is at hand.

Rules this file keeps:

1. The same seed gives the same pixels.
2. Every kind is a row of `KINDS`; a further one is a function and a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Frame = NDArray[np.uint8]

_WORDS = (
    "Patient",
    "Name",
    "Settings",
    "Save",
    "Gain",
    "Depth",
    "Export",
    "Archive",
    "Network",
    "Cancel",
    "Report",
    "Connect",
    "Battery",
    "Error",
    "08:41",
)


def noise(random: np.random.Generator, rows: int, columns: int) -> Frame:
    """Every pixel by itself: an input without a signal."""
    return random.integers(0, 256, size=(rows, columns), dtype=np.uint8)


def flat(random: np.random.Generator, rows: int, columns: int) -> Frame:
    """One grey level with the noise of a sensor: a covered camera, a lost signal."""
    level = random.integers(0, 256)
    return np.clip(np.rint(random.normal(level, 1.0, size=(rows, columns))), 0, 255).astype(np.uint8)


def ramp(random: np.random.Generator, rows: int, columns: int) -> Frame:
    """Brightness that rises across the frame: a test picture."""
    angle = random.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    rise = np.cos(angle) * x + np.sin(angle) * y
    return np.asarray(np.rint(255 * (rise - rise.min()) / np.ptp(rise)), dtype=np.uint8)


def screenshot(random: np.random.Generator, rows: int, columns: int) -> Frame:
    """A user interface: windows, buttons and text."""
    dark = bool(random.integers(2))
    paper, ink = ((28, 30, 34), (230, 230, 230)) if dark else ((246, 246, 248), (24, 24, 28))
    image = Image.new("RGB", (columns, rows), paper)
    draw = ImageDraw.Draw(image)
    accent = tuple(int(level) for level in random.integers(40, 220, size=3))
    draw.rectangle((0, 0, columns, rows // 14), fill=accent)
    for _ in range(int(random.integers(3, 7))):
        left, top = int(random.integers(0, columns * 3 // 4)), int(random.integers(rows // 12, rows * 3 // 4))
        right, bottom = left + int(random.integers(columns // 8, columns // 2)), top + int(random.integers(rows // 10, rows // 3))
        shade = int(random.integers(-14, 15))
        draw.rectangle((left, top, right, bottom), fill=tuple(min(255, max(0, level + shade)) for level in paper), outline=accent)
        for line in range(top + 6, bottom - 8, 14):
            words = " ".join(str(word) for word in random.choice(_WORDS, size=4))
            draw.text((left + 6, line), words, fill=ink)
    return np.asarray(image, dtype=np.uint8)


KINDS: Mapping[str, Callable[[np.random.Generator, int, int], Frame]] = {
    "noise": noise,
    "flat": flat,
    "ramp": ramp,
    "screenshot": screenshot,
}
"""Name to what draws one frame, uint8 (rows, columns) or (rows, columns, 3), from a generator and a size."""


def frames(kind: str, count: int, *, rows: int = 480, columns: int = 640, seed: int = 0) -> list[Frame]:
    """Draws frames of a kind in `KINDS`."""
    return [KINDS[kind](np.random.default_rng([seed, index]), rows, columns) for index in range(count)]
