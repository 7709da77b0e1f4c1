"""Where the frames of a live stream come from: files that are played at a rate, or a camera.

Rules this file keeps:

1. A player keeps to the clock, not to its reader: frame i is due i frame times after the first one (or at its own time where the file is played at its own
   rate), and a slow frame does not delay those after it for ever. Where reading is too slow, frames come late, and the captured rate shows it.
2. A file that cannot be read is a shot with its error; the next file is played. So is a frame that arrived damaged.
3. An input has parts: each cine, each video, and the pictures of each folder. They may be of different patients, so each picture says which part it is of, and the parts
   are played one after the other.
4. The times in a file come from anywhere. A step above `LONGEST_STEP_S` or a rate above `MAX_FPS` is an error of that file.
5. Waiting is the caller's: it is told how long, and a stream that is stopped stops waiting.
"""

from __future__ import annotations

import math
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

LONGEST_STEP_S = 60.0
"""Longest from one frame to the next: who waits longer has lost the stream."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """What a source gives.

    Attributes:
        input: The file or the camera.
        index: The frame's place in the file, or in what the camera gave.
        pixels: As `Frame.pixels`; None where there is an error.
        time_s: As `Frame.time_s`.
        error: Why there is no frame.
        part: The file or the folder of pictures that it belongs to, where the input has several; empty where there is an error, or nothing to tell apart.
    """

    input: str
    index: int
    pixels: NDArray[np.uint8] | None = None
    time_s: float | None = None
    error: EdgekitError | None = None
    part: str = ""


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
    if not 1 / LONGEST_STEP_S <= fps <= MAX_FPS:
        raise DataError(
            f"a stream cannot be played at {fps:g} frames a second",
            hint=f"at least one in {LONGEST_STEP_S:g} s, at most {MAX_FPS} a second",
        )
    return fps


def parts_of(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """The parts that files stand for: what moves is one, and so are the pictures of one folder.

    A file that cannot be read is one of its own, so that its error is its own.

    Returns:
        Names of parts, a file's or a folder's, to their files, both in the order of the files.
    """
    parts: dict[str, list[Path]] = {}
    for path in paths:
        try:
            moving = frames.is_moving(path)
        except EdgekitError:
            moving = True
        parts.setdefault(str(path if moving else path.parent), []).append(path)
    return parts


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
        for part, paths in parts_of(self._paths).items():
            for path in paths:
                begun_s, first_s, index = due_s, None, 0
                try:
                    for frame in frames.read(path):
                        index = frame.index
                        if self._fps is None:
                            time_s = _known(path, frame.time_s)
                            first_s = time_s if first_s is None else first_s
                            due_s = _next_due_s(path, index, due_s, begun_s + time_s - first_s)
                        if not wait_until(due_s):
                            return
                        yield Picture(input=str(path), index=index, pixels=frame.pixels, time_s=frame.time_s, part=part)
                        index += 1
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
        period_s = camera.period_s
        if period_s is None or not 1 / MAX_FPS <= period_s <= LONGEST_STEP_S:
            period_s = None if fps is None else 1 / fps
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
    """Seconds between the first two frames of the first file that has two and can be played."""
    problem = _no_rate(name)
    for path in paths:
        times: list[float] = []
        try:
            for frame in frames.read(path):
                times.append(_known(path, frame.time_s))
                if len(times) == 2:
                    _next_due_s(path, 1, times[0], times[1])
                    break
        except EdgekitError as error:
            # It is reported when it is its turn to be played.
            problem = error if len(paths) == 1 else problem
            continue
        if len(times) == 2:
            return times[1] - times[0]
    raise problem


def _known(path: Path, time_s: float | None) -> float:
    if time_s is None or not math.isfinite(time_s):
        raise _no_rate(str(path))
    return time_s


def _next_due_s(path: Path, index: int, before_s: float, due_s: float) -> float:
    """When a frame is due, by its file's own times: never before the one before it.

    Raises:
        DataError: The file says that it is a minute or more later, or that its first two frames follow each other faster than anything is played.
    """
    step_s = due_s - before_s
    # Times are rounded, so one that is just at the limit is let in.
    if step_s > LONGEST_STEP_S or (index == 1 and step_s < 0.999 / MAX_FPS):
        raise DataError(
            f"{path}: frame {index} is to be shown {step_s:g} s after the one before it, which cannot be played",
            hint="name a rate: --fps 30",
        )
    return max(before_s, due_s)


def _no_rate(name: str) -> EdgekitError:
    return DataError(f"{name} does not say how fast it is to be played", hint="name the frames a second: --fps 30")
