"""Cameras: `camera:N` is the Video4Linux device /dev/videoN, read with PyAV.

Rules this file keeps:

1. A frame that arrives damaged is one lost frame, and the next one is read: a USB camera under load has such frames. A camera that answers no more is an error.
2. Format and size are what the device is set to. The frame rate is asked for where the caller names one; what the driver makes of it is what it tells.
3. Frames become pixels as those of video files do (`decoded.py`); only decoders that cameras need may run.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError, TargetError
from edgekit.imaging.decoded import pixels_of
from edgekit.imaging.video import decoder_options, load_library

CODECS = ("rawvideo", "mjpeg", "h264")
"""Names of FFmpeg's decoders that a camera may need."""

OPEN_S, READ_S = 10.0, 5.0
"""Longest that opening the device may take, and reading one frame, where the driver lets itself be interrupted."""

_NAME = re.compile(r"camera:(\d{1,3})")

Opener = Callable[[str, "float | None"], Any]
"""Opens a device at a frame rate, or at the device's own: a container of PyAV."""


def is_camera(name: str) -> bool:
    """Whether an input names a camera, well or badly."""
    return name.startswith("camera:")


class Camera:
    """An opened camera. It is read and closed by one thread.

    Args:
        name: `camera:N`.
        fps: Frames a second to ask the device for; None for what it is set to.
        opener: Opens the device; for tests.

    Raises:
        DataError: The name is no camera's.
        TargetError: There is no such device, it cannot be opened, or this system has no Video4Linux.
        MissingEngineError: PyAV is not installed.
    """

    def __init__(self, name: str, *, fps: float | None = None, opener: Opener | None = None) -> None:
        self.name = name
        found = _NAME.fullmatch(name)
        if found is None:
            raise DataError(f"{name}: a camera is camera:N, N the number of /dev/videoN", hint="for example camera:0")
        self._av = load_library(name)
        try:
            self._container = (opener or self._open)(f"/dev/video{found[1]}", fps)
        except (self._av.FFmpegError, ValueError) as error:
            raise TargetError(
                f"{name}: the camera cannot be opened: {_text(error)}", hint="is it in use, and may this user read it?"
            ) from error
        if not self._container.streams.video:
            self.close()
            raise TargetError(f"{name}: the device gives no video", hint="one camera often has several devices; try the next number")
        self._stream = self._container.streams.video[0]
        self._stream.codec_context.thread_count = 1

    def __enter__(self) -> Camera:  # noqa: PYI034 - typing.Self came with Python 3.11
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def period_s(self) -> float | None:
        """Seconds between two frames, as the driver says; None where it says nothing."""
        rate = self._stream.average_rate or self._stream.guessed_rate
        return float(1 / rate) if rate else None

    def close(self) -> None:
        """Gives the device back; again does nothing."""
        self._container.close()

    def frames(self) -> Iterator[NDArray[np.uint8] | DataError]:
        """Waits for frames, for as long as the camera gives any.

        Yields:
            The pixels as `decoded.pixels_of` gives them, or the error of a frame that was lost.

        Raises:
            TargetError: The camera gives no more frames: it was unplugged, or its driver failed.
        """
        packets = self._container.demux(self._stream)
        while True:
            try:
                with self._av.logging.Capture():
                    packet = next(packets, None)
            except (self._av.FFmpegError, ValueError) as error:
                raise TargetError(f"{self.name}: the camera gives no more frames: {_text(error)}", hint="check its cable") from error
            if packet is None or packet.size == 0:
                raise TargetError(f"{self.name}: the camera has ended", hint="check its cable")
            yield from self._decoded(packet)

    def _decoded(self, packet: Any) -> Iterator[NDArray[np.uint8] | DataError]:
        try:
            with self._av.logging.Capture() as logs:
                decoded = packet.decode()
        except (self._av.FFmpegError, ValueError) as error:
            yield self._lost(_text(error))
            return
        said = [message for level, _, message in logs if level <= self._av.logging.ERROR]
        if said or packet.is_corrupt or any(frame.is_corrupt for frame in decoded):
            yield self._lost(said[0].strip() if said else "it is incomplete")
            return
        for frame in decoded:
            try:
                yield pixels_of(self.name, frame)
            except DataError as error:
                yield error

    def _lost(self, why: str) -> DataError:
        return DataError(f"{self.name}: a frame arrived damaged: {why}", hint="other devices on the same bus may leave it too little")

    def _open(self, device: str, fps: float | None) -> Any:
        if sys.platform != "linux":
            raise TargetError(
                f"{self.name}: cameras are read through Video4Linux, which {sys.platform} has not", hint="record a video and run that"
            )
        if not Path(device).exists():
            raise TargetError(f"{self.name}: there is no {device}", hint=_known())
        options = {**decoder_options(), "codec_whitelist": ",".join(CODECS)} | ({} if fps is None else {"framerate": f"{fps:g}"})
        with self._av.logging.Capture():
            return self._av.open(device, format="v4l2", options=options, timeout=(OPEN_S, READ_S))


def _known() -> str:
    found = sorted(str(path) for path in Path("/dev").glob("video*"))
    return f"there are: {', '.join(found)}" if found else "no camera is plugged in, or its driver is missing"


def _text(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).splitlines()[0]
