"""What a supervisor and its inference process say to each other: short tables as JSON and, behind an answer, the maps as plain numbers.

Rules this file keeps:

1. Nothing that is received is executed: no pickle, no object but the dataclasses of this file, decoded strictly. A process whose memory a faulty engine has
   overwritten may send anything; what does not fit is a `BrokenChannelError`, and its sender is not listened to again.
2. Every wait is bounded by the caller, and every length is checked before memory is spent on it.
3. Frames are not sent: they lie in memory that both processes see (`FrameMemory`), because a frame through a pipe is copied twice more.
4. A message is whole or none: a header (`<4sIQ`: mark, bytes of JSON, bytes of numbers), the JSON, the numbers as little-endian float32.
"""

from __future__ import annotations

import fcntl
import json
import math
import mmap
import os
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgekit import errors
from edgekit.errors import EdgekitError, TargetError
from edgekit.imaging.preprocess import MAX_FRAME_PIXELS
from edgekit.runtime.engines.base import EngineNotBuiltError, ModelRefusedError
from edgekit.schema.decode import decode, encode

T = TypeVar("T")

MAX_TABLE_BYTES = 4 << 20
MAX_NUMBER_BYTES = 256 << 20
_HEADER = struct.Struct("<4sIQ")
_MARK = b"ekw1"

_KINDS: dict[str, type[EdgekitError]] = {
    kind.__name__: kind
    for kind in (*vars(errors).values(), EngineNotBuiltError, ModelRefusedError)
    if isinstance(kind, type) and issubclass(kind, EdgekitError)
}


class BrokenChannelError(Exception):
    """The other side is gone, or says what no version of it says."""


class HungUpError(BrokenChannelError):
    """The other side is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A frame to answer; its pixels are in the shared memory.

    Attributes:
        number: Of this request; the reply has the same.
        shape: Of the frame, (rows, columns) or (rows, columns, 3).
        explain: As in `Classifier.predict`.
        gate: As in `Classifier.predict`.
        clip: The clip it belongs to, by a number that its owner gave it; None for none.
        anew: Whether the clip is reset before.
        ended: Clips that nobody will ask for again.
    """

    number: int
    shape: tuple[int, ...]
    explain: bool
    gate: bool
    clip: int | None
    anew: bool
    ended: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The inference process can answer.

    Attributes:
        bundle_digest: Of the bundle it opened.
        engine: Name of its engine.
        engine_notes: Why not those before it.
        at_ns: When that was, by `time.monotonic_ns`, one clock for all processes.
    """

    bundle_digest: str
    engine: str
    engine_notes: tuple[str, ...]
    at_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A `Prediction` without what its owner has: the frame, the manifest, the maps (which follow as numbers).

    Attributes:
        labels: The label, or for multilabel the labels; None where the frame is not assessable.
        maps_shape: (labels, rows, columns) of the maps that follow; None where there are none.
        The others: As in `Prediction`.
    """

    labels: tuple[str, ...] | None
    probabilities: dict[str, float]
    logits: dict[str, float]
    accepted: bool
    assessable: bool
    reason: str
    engine: str
    engine_notes: tuple[str, ...]
    stages_ms: dict[str, float]
    latency_ms: float
    maps_shape: tuple[int, int, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An edgekit error: the names of its kind and of that one's bases, nearest first, and its texts."""

    kinds: tuple[str, ...]
    message: str
    hint: str

    @classmethod
    def of(cls, error: EdgekitError) -> Failure:
        """The error, to be sent."""
        kinds = tuple(kind.__name__ for kind in type(error).__mro__ if issubclass(kind, EdgekitError))
        return cls(kinds=kinds, message=error.message, hint=error.hint)

    def error(self) -> EdgekitError:
        """The error again, of the nearest kind that is known here."""
        kind = next((_KINDS[name] for name in self.kinds if name in _KINDS), EdgekitError)
        return kind(self.message, hint=self.hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the inference process says: one of the three. Number 0 is its start, every other one that of a request."""

    number: int
    ready: Ready | None = None
    answer: Answer | None = None
    failure: Failure | None = None

    def __post_init__(self) -> None:
        if sum(part is not None for part in (self.ready, self.answer, self.failure)) != 1:
            raise ValueError("a reply is one of ready, answer and failure")

    def asked_for(self) -> Answer:
        """The answer.

        Raises:
            ValueError: It is none.
        """
        if self.answer is None:
            raise ValueError("a frame was asked for")
        return self.answer


class Channel:
    """One end of a connection between the two processes; for one thread at a time."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def close(self) -> None:
        """Hangs up; the other side sees the end."""
        self._socket.close()

    def send(self, message: Request | Reply, numbers: NDArray[np.float32] | None = None, *, deadline_s: float | None = None) -> None:
        """Sends a message.

        Args:
            message: One of the dataclasses above.
            numbers: float32 of any shape, sent in C order.
            deadline_s: When to give up, by `time.monotonic`; None for never.

        Raises:
            BrokenChannelError: The other side is gone.
            TimeoutError: It did not take the message in time.
        """
        table = json.dumps(encode(message), allow_nan=False, ensure_ascii=True).encode()
        tail = b"" if numbers is None else np.ascontiguousarray(numbers, dtype="<f4").tobytes()
        try:
            self._socket.settimeout(_left_s(deadline_s))
            self._socket.sendall(_HEADER.pack(_MARK, len(table), len(tail)) + table + tail)
        except TimeoutError:
            raise
        except OSError as error:
            raise HungUpError(error.strerror or str(error)) from error

    def receive(self, kind: type[T], *, deadline_s: float | None = None) -> tuple[T, NDArray[np.float32]]:
        """Waits for a message.

        Args:
            kind: The dataclass it must be.
            deadline_s: When to give up, by `time.monotonic`; None for never.

        Returns:
            The message, and the numbers behind it: float32 (count,), owned by the caller.

        Raises:
            BrokenChannelError: The other side is gone, or what it says is no such message.
            TimeoutError: Nothing whole came in time.
        """
        mark, table_bytes, number_bytes = _HEADER.unpack(self._exactly(_HEADER.size, deadline_s))
        if mark != _MARK or table_bytes > MAX_TABLE_BYTES or number_bytes > MAX_NUMBER_BYTES or number_bytes % 4:
            raise BrokenChannelError("it sent no message of this version")
        text = self._exactly(table_bytes, deadline_s)
        numbers = np.frombuffer(self._exactly(number_bytes, deadline_s), dtype="<f4").astype(np.float32, copy=False)
        try:
            return decode(kind, json.loads(text, parse_constant=_refuse), where="a message", error=TargetError), numbers
        except (ValueError, RecursionError, TargetError) as error:
            raise BrokenChannelError(f"it sent a message that cannot be understood ({error})") from error

    def _exactly(self, count: int, deadline_s: float | None) -> bytearray:
        data = bytearray(count)
        left = memoryview(data)
        while left:
            try:
                self._socket.settimeout(_left_s(deadline_s))
                received = self._socket.recv_into(left)
            except TimeoutError:
                raise
            except OSError as error:
                raise HungUpError(error.strerror or str(error)) from error
            if received == 0:
                raise HungUpError("it hung up")
            left = left[received:]
        return data


def _left_s(deadline_s: float | None) -> float | None:
    if deadline_s is None:
        return None
    left = deadline_s - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is no number")


class FrameMemory:
    """Memory for one frame, that a supervisor writes and its inference processes read.

    It has no name, so nothing of it can be left behind, and is as large as the largest frame; only pages that were written to exist. It is sealed: nobody can
    make it shorter under somebody who reads it.
    """

    SIZE = MAX_FRAME_PIXELS * 3

    def __init__(self, descriptor: int | None = None) -> None:
        """Makes it, or opens what a supervisor made.

        Args:
            descriptor: Of the supervisor's; owned by this object from now on. None to make one.
        """
        access = mmap.PROT_READ if descriptor is not None else mmap.PROT_READ | mmap.PROT_WRITE
        self._file = os.fdopen(_sealed_memory(self.SIZE) if descriptor is None else descriptor, "rb", buffering=0)
        self._mapped = mmap.mmap(self.descriptor, self.SIZE, flags=mmap.MAP_SHARED, prot=access)
        self._pixels = np.frombuffer(self._mapped, dtype=np.uint8)

    @property
    def descriptor(self) -> int:
        """Of the memory, to be given to a process."""
        return self._file.fileno()

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Copies a checked frame in."""
        self._pixels[: frame.size].reshape(frame.shape)[...] = frame

    def read(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """The frame that is in it: uint8 of that shape, read-only, valid until the reply to its request.

        Raises:
            BrokenChannelError: The shape is none of a frame that fits.
        """
        size = math.prod(shape)
        if len(shape) not in (2, 3) or min(shape) < 1 or size > self.SIZE:
            raise BrokenChannelError(f"no frame has the shape {shape}")
        return self._pixels[:size].reshape(shape)

    def close(self) -> None:
        """Gives it back; again does nothing."""
        if not self._mapped.closed:
            del self._pixels
            self._mapped.close()
            self._file.close()


def _sealed_memory(size: int) -> int:
    try:
        made = os.memfd_create("edgekit-frame", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            # Not 0, 1 or 2: see `inference_process._descriptors`.
            descriptor = fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, 3)
        finally:
            os.close(made)
    except OSError as error:
        raise TargetError(
            f"no memory for frames can be had: {error.strerror or error}", hint="close files, or raise the limit (ulimit -n)"
        ) from error
    try:
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
