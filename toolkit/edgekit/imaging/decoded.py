"""From a frame that FFmpeg decoded to the pixels that are classified; shared by video files and cameras.

Rules this file keeps:

1. Grey stays grey: a stream whose pixel format is grey gives one plane, anything else gives RGB.
2. Range and matrix are the stream's own. What it leaves open is what FFmpeg takes then: limited range and BT.601 for Y'CbCr, the full range for grey.
   Transfer functions and primaries are not applied, as colour profiles of pictures are not.
3. Chroma is interpolated and rounded exactly (FFmpeg's `accurate_rnd` and `full_chroma_int`), so every CPU gives the same pixels.
4. A frame is turned as its display matrix says, so that what is classified is what a player shows. Non-square pixels are not stretched and
   interlaced frames are not taken apart.
5. The caller owns the pixels; no buffer of FFmpeg's is kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError
from edgekit.imaging.preprocess import MAX_FRAME_PIXELS

_LIMITED_LOW, _LIMITED_SPAN = 16, 219  # ITU-R BT.601-7, 2.5.3: black is 16 and white 235 of 8 bits
_QUARTER_DEGREES = 90
# libswscale/swscale.h: bilinear, full_chroma_int, accurate_rnd, bitexact. PyAV for Python 3.10 has no names for the last three.
_SCALER = 0x2 | 0x2000 | 0x40000 | 0x80000


def pixels_of(name: str, frame: Any) -> NDArray[np.uint8]:
    """The pixels of a decoded frame.

    Args:
        name: Of the source, for messages.
        frame: A `VideoFrame` of PyAV.

    Returns:
        uint8 (rows, columns) for a grey pixel format, 255 is white; else uint8 (rows, columns, 3) in RGB order.

    Raises:
        DataError: The frame is too large, see-through, or turned by an angle that is no quarter.
    """
    if frame.width * frame.height > MAX_FRAME_PIXELS:
        raise DataError(f"{name}: a frame has {frame.height} × {frame.width} pixels, more than {MAX_FRAME_PIXELS}")
    layout = frame.format
    if _has_alpha(layout):
        raise DataError(f"{name}: the video is see-through ({layout.name})", hint="export it without an alpha channel")
    found = _grey(name, frame) if layout.name.startswith("gray") else _colour(frame)
    turns = frame.rotation / _QUARTER_DEGREES
    if turns != int(turns):
        raise DataError(f"{name}: the video is turned by {frame.rotation}°", hint="export it upright")
    return np.ascontiguousarray(np.rot90(found, int(turns))) if turns % 4 else found


def _has_alpha(layout: Any) -> bool:
    return str(layout.name).startswith(("yuva", "ya8", "ya16", "rgba", "bgra", "argb", "abgr", "gbrap", "pal8", "ayuv", "vuya"))


def _grey(name: str, frame: Any) -> NDArray[np.uint8]:
    from av.video.reformatter import ColorRange

    stored = frame.to_ndarray()
    if stored.dtype.kind != "u":
        raise DataError(f"{name}: grey video of floating-point numbers is not read", hint="export it with 8 to 16 bits")
    bits = frame.format.components[0].bits
    values, top = stored.astype(np.float64), float((1 << bits) - 1)
    low, span = 0.0, top
    if frame.color_range == ColorRange.MPEG:
        scale = 1 << (bits - 8)
        low, span = float(_LIMITED_LOW * scale), float(_LIMITED_SPAN * scale)
    elif bits == 8:
        return np.array(stored, dtype=np.uint8)
    shown: NDArray[np.uint8] = np.rint((values - low) * 255 / span).clip(0, 255).astype(np.uint8)
    return shown


def _colour(frame: Any) -> NDArray[np.uint8]:
    from av.video.reformatter import ColorRange

    picture = frame.reformat(format="rgb24", interpolation=_SCALER, dst_color_range=ColorRange.JPEG, threads=1)
    return np.array(picture.to_ndarray(), dtype=np.uint8)
