"""The host part of preprocessing: from a frame to the uint8 tensor the graph takes.

The same function runs at compile time and on the device (the rest, from channel repetition to mean and std, is inside the graph), so
there is nothing to keep in step. Resizing is Pillow's, which antialiases when it shrinks (`resize.py`); OpenCV's and torch's default do not, and
moving a model between them costs accuracy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from edgekit.errors import DataError
from edgekit.imaging.resize import Resize, resize
from edgekit.schema.model_io import InputSpec

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

MAX_FRAME_PIXELS = 64_000_000
"""Largest frame that is read or classified (8000 × 8000); a larger one is refused before it is decoded."""


def check_frame(frame: object) -> NDArray[np.uint8]:
    """Refuses everything that is not a frame.

    Args:
        frame: uint8 (rows, columns), or uint8 (rows, columns, 3) in RGB order.

    Returns:
        The same array.

    Raises:
        DataError: On another type, shape or size, naming what was found.
    """
    if not isinstance(frame, np.ndarray):
        raise DataError(f"a frame is a numpy array, not {type(frame).__name__}", hint="np.asarray(image) turns a Pillow image into one")
    if frame.dtype != np.uint8:
        broken = " with NaN or infinite values" if frame.dtype.kind == "f" and not np.isfinite(frame).all() else ""
        raise DataError(
            f"a frame is uint8, not {frame.dtype}{broken}", hint="scale it to 0..255 yourself: edgekit does not guess the range"
        )
    if frame.ndim not in (2, 3) or (frame.ndim == 3 and frame.shape[2] != 3):
        raise DataError(
            f"a frame is (rows, columns) or (rows, columns, 3), not {frame.shape}", hint="RGB order, no alpha channel, one frame at a time"
        )
    if 0 in frame.shape:
        raise DataError(f"the frame is empty: {frame.shape}")
    if frame.shape[0] * frame.shape[1] > MAX_FRAME_PIXELS:
        raise DataError(f"the frame has {frame.shape[0]} × {frame.shape[1]} pixels, more than {MAX_FRAME_PIXELS}")
    return frame


def preprocess(frame: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """Turns a frame into the tensor the graph takes.

    Args:
        frame: uint8 (rows, columns), or (rows, columns, 3) in RGB order.
        spec: The recipe's `[input]`.

    Returns:
        uint8 (1, height, width, channels), contiguous, with 1 channel for grey and 3 for RGB.

    Raises:
        DataError: When the frame is not one (see `check_frame`).
    """
    held = check_frame(frame)
    if held.ndim == 3 or spec.color != "grey" or spec.denoise_sigma > 0 or spec.equalize:
        held = np.asarray(_prepared(Image.fromarray(held), spec))
    top, left = crop_offset(spec)
    rows, columns = spec.size
    resized = resize(held, Resize(size=spec.resize, resample=_FILTERS[spec.interpolation], top=top, left=left, rows=rows, columns=columns))
    return np.ascontiguousarray(resized).reshape(1, rows, columns, spec.frame_channels)


def _prepared(image: Image.Image, spec: InputSpec) -> Image.Image:
    """What comes before the resize: colour, noise reduction, equalization."""
    image = _colour(image, spec.color)
    if spec.denoise_sigma > 0:
        image = image.filter(ImageFilter.GaussianBlur(spec.denoise_sigma))
    return _equalize(image) if spec.equalize else image


def crop_offset(spec: InputSpec) -> tuple[int, int]:
    """(top, left) in pixels of the resized frame where the centre crop begins; an odd remainder is rounded down."""
    return (spec.resize[0] - spec.size[0]) // 2, (spec.resize[1] - spec.size[1]) // 2


def crop_box(frame_shape: tuple[int, ...], spec: InputSpec) -> tuple[float, float, float, float]:
    """Where in the original frame the tensor comes from.

    Args:
        frame_shape: Shape of the frame, (rows, columns, ...).
        spec: The recipe's `[input]`.

    Returns:
        (left, top, right, bottom) in pixels of the original frame, pixel edges, not rounded.
    """
    vertical, horizontal = frame_shape[0] / spec.resize[0], frame_shape[1] / spec.resize[1]
    top, left = crop_offset(spec)
    return left * horizontal, top * vertical, (left + spec.size[1]) * horizontal, (top + spec.size[0]) * vertical


def _colour(image: Image.Image, color: str) -> Image.Image:
    # Luma is ITU-R BT.601, as in Pillow's "L" and in most training code.
    mode = "L" if color == "grey" else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _equalize(image: Image.Image) -> Image.Image:
    if image.mode == "L":
        return ImageOps.equalize(image)
    # Equalizing R, G and B apart would change the colour of the tissue and of Doppler.
    luma, blue, red = image.convert("YCbCr").split()
    return Image.merge("YCbCr", (ImageOps.equalize(luma), blue, red)).convert("RGB")
