"""Where the frames of a live stream come from: files that are played at a rate, or a camera.

Rules this file keeps:

1. A player keeps to the clock, not to its reader: frame i is due i frame times after the first one (or at its own time where the file is played at its own
   rate), and a slow frame does not delay those after it for ever. Where reading is too slow, frames come late, and the captured rate shows it.
2. A file that cannot be read is a shot with its error; the next file is played. So is a frame that arrived damaged.
3. Waiting is the caller's: it is told how long, and a stream that is stopped stops waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError, EdgekitError
from edgekit.imaging import frames
from edgekit.imaging.camera import Camera

NATIVE = "native"
"""In place of a rate: each file at its own."""

MAX_FPS = 1000
"""Fastest that files are played."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """What a source gives.

    Attributes:
        input: The file or the camera.
        index: The frame's place in the file, or in what the camera gave.
        pixels: As `Frame.pixels`; None where there is an error.
        time_s: As `Frame.time_s`.
        error: Why there is no frame.
    """

    input: str
    index: int
    pixels: NDArray[np.uint8] | None = None
    time_s: float | None = None
    error: EdgekitError | None = None


class Source(Protocol):
    """A live source; its pictures are read and it is closed by one thread."""

    @property
    def name(self) -> str:
        """As the user named it."""

    @property
    def period_s(self) -> float:
        """Seconds from one frame to the next."""

    @property
    def stalls(self) -> bool:
        """Whether it is a device that may fall silent, so that waiting for it has to end."""

    def pictures(self, wait_until: Callable[[float], bool]) -> Iterator[Picture]:
        """Gives pictures at the times they are due.

        Args:
            wait_until: Waits until so many seconds after the start, and says whether to go on.
        """

    def close(self) -> None:
        """Gives back what it holds."""


def check_fps(fps: float) -> float:
    """A rate at which files can be played.

    Raises:
        DataError: It is none.
    """
    if not 0 < fps <= MAX_FPS:
        raise DataError(f"a stream cannot be played at {fps:g} frames a second", hint=f"above 0, at most {MAX_FPS}; or {NATIVE}")
    return fps


def in_order(paths: Sequence[Path]) -> Iterator[Picture]:
    """Every frame of files, as fast as they are asked for; a file that cannot be read is one picture with its error."""
    for path in paths:
        index = 0
        try:
            for frame in frames.read(path):
                yield Picture(input=str(path), index=frame.index, pixels=frame.pixels, time_s=frame.time_s)
                index = frame.index + 1
        except EdgekitError as error:
            yield Picture(input=str(path), index=index, error=error)


class Player:
    """Files, played one after the other.

    Args:
        name: Of the input they come from.
        paths: The files, in order.
        fps: Frames a second; None for each file's own rate, which each must tell.

    Raises:
        DataError: The rate is none, or the first file does not tell its own.
    """

    stalls = False

    def __init__(self, name: str, paths: Sequence[Path], *, fps: float | None) -> None:
        self.name, self._paths = name, paths
        self._fps = None if fps is None else check_fps(fps)
        self.period_s = 1 / fps if fps is not None else _own_period_s(name, paths)

    def pictures(self, wait_until: Callable[[float], bool]) -> Iterator[Picture]:
        due_s = 0.0
        for path in self._paths:
            begun_s, first_s, index = due_s, None, 0
            try:
                for frame in frames.read(path):
                    if self._fps is None and frame.time_s is None:
                        raise _no_rate(str(path))
                    if self._fps is None and frame.time_s is not None:
                        first_s = frame.time_s if first_s is None else first_s
                        due_s = max(begun_s + frame.time_s - first_s, due_s)
                    if not wait_until(due_s):
                        return
                    index = frame.index
                    yield Picture(input=str(path), index=index, pixels=frame.pixels, time_s=frame.time_s)
                    due_s += self.period_s if self._fps is not None else 0.0
            except EdgekitError as error:
                yield Picture(input=str(path), index=index, error=error)
            if self._fps is None:
                due_s += self.period_s

    def close(self) -> None:
        """Nothing is held between two frames but the file that is being read."""


class CameraSource:
    """A camera as a source."""

    stalls = True

    def __init__(self, camera: Camera, *, fps: float | None = None) -> None:
        self.name = camera.name
        period_s = camera.period_s if fps is None or camera.period_s is not None else 1 / fps
        if period_s is None:
            camera.close()
            raise DataError(f"{camera.name}: the camera does not say how many frames a second it gives", hint="name them with --fps")
        self.period_s = period_s
        self._camera = camera

    def pictures(self, wait_until: Callable[[float], bool]) -> Iterator[Picture]:
        for index, found in enumerate(self._camera.frames()):
            if not wait_until(0.0):
                return
            if isinstance(found, DataError):
                yield Picture(input=self.name, index=index, error=found)
            else:
                yield Picture(input=self.name, index=index, pixels=found)

    def close(self) -> None:
        self._camera.close()


def _own_period_s(name: str, paths: Sequence[Path]) -> float:
    """Seconds between the first two frames of the first file that has two and can be read."""
    for path in paths:
        times: list[float | None] = []
        try:
            for frame in frames.read(path):
                times.append(frame.time_s)
                if len(times) == 2:
                    break
        except EdgekitError:
            # It is reported when it is its turn to be played.
            continue
        if len(times) == 2:
            first, second = times
            if first is None or second is None or second <= first:
                raise _no_rate(str(path))
            return second - first
    raise _no_rate(name)


def _no_rate(name: str) -> DataError:
    return DataError(f"{name} does not say how fast it is to be played", hint="name the frames a second: --fps 30")
