"""Videos written in tests with PyAV, and the same with one named fault."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RANGES = {"limited": 1, "full": 2}  # AVCOL_RANGE_MPEG, AVCOL_RANGE_JPEG
MATRICES = {"bt709": 1, "bt601": 5}  # SWS_CS_ITU709, SWS_CS_ITU601


def write_video(
    path: Path,
    frames: Sequence[NDArray[np.uint8]],
    *,
    codec: str = "ffv1",
    container: str = "matroska",
    pix_fmt: str = "gray",
    fps: int = 25,
    colours: tuple[str, str] | None = None,
    **options: str,
) -> Path:
    """Encodes frames.

    Args:
        path: Where to.
        frames: uint8 (rows, columns), or (rows, columns, 3) in RGB order.
        codec: FFmpeg's encoder.
        container: FFmpeg's muxer.
        pix_fmt: What is stored.
        fps: Frames a second.
        colours: Range and matrix that the stream is converted to and tagged with.
        options: The encoder's.
    """
    import av

    tags = None if colours is None else (RANGES[colours[0]], MATRICES[colours[1]])
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        if tags is not None:
            stream.codec_context.color_range, stream.codec_context.colorspace = tags
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="gray" if pixels.ndim == 2 else "rgb24")
            if frame.format.name != pix_fmt:
                how = {} if tags is None else {"dst_color_range": tags[0], "dst_colorspace": tags[1]}
                frame = frame.reformat(format=pix_fmt, **how)
            frame.pts = number
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def noise(count: int, rows: int = 48, columns: int = 64, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Grey frames of noise, uint8 (rows, columns) each: nothing of them can be guessed from the frame before."""
    return list(np.random.default_rng(seed).integers(0, 256, size=(count, rows, columns), dtype=np.uint8))


def broken_in_the_middle(path: Path, size: int = 300) -> Path:
    """The same file with some bytes of noise in its middle, as `broken` beside it."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + size] = np.random.default_rng(1).integers(0, 256, size, dtype=np.uint8).tobytes()
    to = path.with_name("broken")
    to.write_bytes(data)
    return to
