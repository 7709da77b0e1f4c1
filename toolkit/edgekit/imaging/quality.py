"""Image quality: whether a frame is a picture at all, before a classifier is asked about it.

Everything is read from one histogram of the preprocessed tensor and from the frame's size and colours; limits are the bundle's (`QualityLimits`).

Rules this file keeps:

1. A refusal names the check, what was found and the limit.
2. The figures are the same at compile time, when limits are fitted, and on the device.

Does not prove that a frame can be read by a clinician: a frame with good figures may show nothing of use.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgekit.schema.input_gate import LEVELS, QualityLimits

BRIGHTNESS_BINS = 32
"""Bins of the distribution of brightness that the gate's score reads."""

_LEVELS = np.arange(LEVELS + 1.0)
_READ = np.vstack([_LEVELS, _LEVELS**2, np.arange(BRIGHTNESS_BINS)[:, None] >= _LEVELS // ((LEVELS + 1) // BRIGHTNESS_BINS)])
"""float64 (2 + `BRIGHTNESS_BINS`, levels): times a histogram, the sums of the levels and of their squares, and the counts up to the end of each bin."""

_CHROMA_PIXELS = 64
"""Rows and columns of the grid of pixels that colours are read at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFigures:
    """What the histogram of a tensor says.

    Attributes:
        deviation_levels: Standard deviation, in grey levels.
        black_share: Share of the values that are 0.
        white_share: Share of the values that are 255.
        brightness: float64 (`BRIGHTNESS_BINS`,): share of the values up to the end of each bin.
    """

    deviation_levels: float
    black_share: float
    white_share: float
    brightness: NDArray[np.float64]


def tensor_figures(tensor: NDArray[np.uint8]) -> TensorFigures:
    """Reads a tensor, uint8 (1, height, width, channels) from `preprocess`; the channels of a colour tensor are counted together.

    Raises:
        TypeError: It is not uint8.
    """
    if tensor.dtype != np.uint8:
        raise TypeError(f"a tensor is uint8, not {tensor.dtype}")
    size = (tensor.size // tensor.shape[1], tensor.shape[1])
    counts = Image.frombuffer("L", size, np.ascontiguousarray(tensor), "raw", "L", 0, 1).histogram()
    found = _READ @ np.array(counts, dtype=np.float64) / tensor.size
    mean, squares = found[:2].tolist()
    return TensorFigures(
        deviation_levels=math.sqrt(max(squares - mean * mean, 0.0)),
        black_share=counts[0] / tensor.size,
        white_share=counts[LEVELS] / tensor.size,
        brightness=found[2:],
    )


def chroma(frame: NDArray[np.uint8]) -> float:
    """How coloured a frame is: mean distance between its lightest and its darkest channel, in levels, on a grid of pixels; 0 for a grey one.

    Args:
        frame: uint8 (rows, columns), or (rows, columns, 3) in RGB order.
    """
    if frame.ndim == 2:
        return 0.0
    rows, columns = (np.linspace(0, size - 1, min(size, _CHROMA_PIXELS)).astype(np.intp) for size in frame.shape[:2])
    seen = frame[rows[:, None], columns]
    # Channel by channel: a reduction along an axis of three takes ten times as long.
    red, green, blue = (seen[..., channel] for channel in range(3))
    apart = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    return float(apart.mean())


def frame_figures(frame: NDArray[np.uint8]) -> tuple[int, int, float]:
    """What of a frame is not in its tensor: rows, columns, and `chroma`."""
    return frame.shape[0], frame.shape[1], chroma(frame)


def why_not(frame: NDArray[np.uint8], figures: TensorFigures, limits: QualityLimits) -> str:
    """Why a frame is not to be classified, with the figure and its limit; empty where nothing speaks against it.

    Args:
        frame: uint8 (rows, columns), or (rows, columns, 3) in RGB order.
        figures: Of its tensor.
        limits: The bundle's.
    """
    colour = 0.0 if limits.most_chroma_levels is None else chroma(frame)
    return why_not_of((frame.shape[0], frame.shape[1], colour), figures, limits)


def why_not_of(seen: tuple[float, float, float], figures: TensorFigures, limits: QualityLimits) -> str:
    """`why_not` of a frame that is no longer there, from its `frame_figures`."""
    rows, columns, colour = seen
    low, high = limits.aspect
    if min(rows, columns) < limits.least_side_px:
        return f"too small ({rows:.0f} × {columns:.0f} pixels, the shortest side must be {limits.least_side_px})"
    if not low <= rows / columns <= high:
        return f"of another shape (rows / columns {rows / columns:.2f}, from {low:.2f} to {high:.2f} are known)"
    if figures.deviation_levels < limits.least_deviation_levels:
        return f"flat (standard deviation {figures.deviation_levels:.1f} grey levels, limit {limits.least_deviation_levels:.1f})"
    if figures.black_share > limits.most_black_share:
        return f"too dark ({figures.black_share:.1%} of it is black, limit {limits.most_black_share:.1%})"
    if figures.white_share > limits.most_white_share:
        return f"saturated ({figures.white_share:.1%} of it is white, limit {limits.most_white_share:.1%})"
    if limits.most_chroma_levels is not None and colour > limits.most_chroma_levels:
        return f"coloured ({colour:.1f} levels between its channels, limit {limits.most_chroma_levels:.1f})"
    return ""
