"""One process that answers frames, seen from its supervisor: started, asked, ended.

Rules this file keeps:

1. It is a fresh interpreter, never a fork: an engine's threads do not survive a fork, and locks that they held stay locked.
2. Every wait has an end. Whoever is not answered in time gets a `LostError`, and the process is then to be ended: an answer that comes late would be taken for that of
   the next frame.
3. `end` leaves nothing: the process is killed and reaped, each descriptor closed. One that does not even die is left to a thread that waits for it. A supervisor that is itself killed leaves nothing either (see rule 1 of
   `supervised_child.py`).
4. It has a session of its own: Ctrl-C in a terminal is the supervisor's to answer.
5. It runs in the root folder, so that no file beside the caller can be imported by accident.
6. What it writes is read and thrown away but for the last words, so that it can never wait for a reader.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import TargetError
from edgekit.runtime.wire import BrokenChannelError, Channel, FrameMemory, HungUpError, Ready, Reply, Request

CHILD = "edgekit.runtime.supervised_child"
RUNTIME = "edgekit"
MAX_QUOTED = 400
"""Characters of the process's last words that are quoted."""
GRACE_S = 1.0
"""How long a process that was asked to go may take to give its engine back."""
REAP_S = 2.0
"""How long a killed process is waited for: one that the kernel holds in a driver's call ends when that does."""
SLOW_HINT = "if it needs longer, raise frame_limit_ms (--frame-limit-ms), or run it unwatched (--no-supervise)"
_KEPT_BYTES = 4096

LossKind = Literal["hang", "death", "nonsense"]


class LostError(Exception):
    """The process does not answer any more.

    Attributes:
        kind: "hang" (it was not in time), "death" (it ended) or "nonsense" (what it said cannot be understood).
        what: What happened, to follow "the inference process".
        words: Its last words, to be a hint.
    """

    def __init__(self, kind: LossKind, what: str, words: str) -> None:
        super().__init__(what)
        self.kind, self.what, self.words = kind, what, words


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to start.

    Attributes:
        bundle: Absolute path.
        engine: Its engine's name; None for the first that can run.
        runtime: The module whose `load` opens it.
    """

    bundle: Path
    engine: str | None
    runtime: str


class InferenceProcess:
    """A process that was started; whether it became ready, `wait_ready` says."""

    def __init__(self, command: Command, memory: FrameMemory) -> None:
        """Starts it and does not wait.

        Args:
            command: What it opens.
            memory: Where it finds the frames.

        Raises:
            TargetError: No process can be started.
        """
        self.ready: Ready | None = None
        self.was_asked = False
        ours, theirs, lifeline, held = _descriptors()
        self._lifeline = os.fdopen(held, "wb", buffering=0)
        given = (theirs.fileno(), memory.descriptor, lifeline)
        bound = int(threading.current_thread() is threading.main_thread())
        arguments = [",".join(map(str, (*given, bound))), command.runtime, str(command.bundle), command.engine or ""]
        self.started_ns = time.monotonic_ns()
        try:
            self._process = subprocess.Popen(  # noqa: S603  the command is this interpreter and our own module
                [sys.executable, "-m", CHILD, *arguments],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=given,
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            self._lifeline.close()
            raise TargetError(
                f"cannot start a process for the engine: {error.strerror or error}", hint=f"tried {sys.executable}"
            ) from error
        finally:
            theirs.close()
            os.close(lifeline)
        self._channel = Channel(ours)
        self._words = _LastWords(self._process)
        self._ended = False

    @property
    def pid(self) -> int:
        """Its number with the operating system."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process is there, whatever it does."""
        return self._process.poll() is None

    @property
    def start_s(self) -> float:
        """Seconds from its start to its being ready; infinite where it is not."""
        return float("inf") if self.ready is None else (self.ready.at_ns - self.started_ns) / 1e9

    def wait_ready(self, limit_s: float) -> Ready:
        """Waits until it can answer; at once where it could before.

        Args:
            limit_s: Longest time from its start.

        Raises:
            LostError: It ended, or was not ready in time.
            EdgekitError: What it met when it opened the bundle, as itself.
        """
        if self.ready is None:
            reply, _ = self._receive(self.started_ns / 1e9 + limit_s, f"was not ready within {limit_s:g} s")
            if reply.failure is not None:
                raise reply.failure.error()
            if reply.ready is None or reply.number != 0:
                raise LostError("nonsense", "answered before it was asked", "")
            self.ready = reply.ready
        return self.ready

    def ask(self, request: Request, limit_ms: float) -> tuple[Reply, NDArray[np.float32]]:
        """Has a frame answered that is in the frame memory.

        Args:
            request: What is asked.
            limit_ms: Longest time.

        Returns:
            The reply, an answer or a failure, and the maps behind it: float32 (count,).

        Raises:
            LostError: It gave no answer to this request.
        """
        deadline_s = time.monotonic() + limit_ms / 1e3
        late = f"gave no answer within {limit_ms:g} ms"
        self.was_asked = True
        try:
            self._channel.send(request, deadline_s=deadline_s)
        except TimeoutError:
            raise LostError("hang", late, SLOW_HINT) from None
        except BrokenChannelError as error:
            raise self._gone(error) from error
        reply, numbers = self._receive(deadline_s, late, SLOW_HINT)
        if reply.ready is not None or reply.number != request.number:
            raise LostError("nonsense", f"answered request {reply.number} when it was asked for {request.number}", "")
        return reply, numbers

    def end(self) -> None:
        """Kills it and gives back what it held; again does nothing."""
        if self._ended:
            return
        self._ended = True
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        try:
            self._process.wait(REAP_S)
        except subprocess.TimeoutExpired:
            threading.Thread(target=self._process.wait, name="edgekit-reap", daemon=True).start()
        self._channel.close()
        self._lifeline.close()
        self._words.close()

    def leave(self) -> None:
        """Lets it give its engine back, as long as that takes no more than `GRACE_S`; then `end`."""
        if not self._ended:
            self._channel.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_S)
        self.end()

    def kill(self) -> None:
        """Kills it and no more; for another thread than the one that waits for an answer, which then gets a `LostError`."""
        self._process.kill()

    def _receive(self, deadline_s: float, late: str, hint: str = "") -> tuple[Reply, NDArray[np.float32]]:
        try:
            return self._channel.receive(Reply, deadline_s=deadline_s)
        except TimeoutError:
            raise LostError("hang", late, "; ".join(filter(None, (self._words.quoted(), hint)))) from None
        except BrokenChannelError as error:
            raise self._gone(error) from error

    def _gone(self, error: BrokenChannelError) -> LostError:
        """Whether it ended, and how; one that talks nonsense, or hung up and is still there, is not listened to any more."""
        try:
            status = self._process.wait(GRACE_S if isinstance(error, HungUpError) else 0)
        except subprocess.TimeoutExpired:
            return LostError("nonsense", f"is not to be understood: {error}", "")
        self._words.close()
        how = f"signal {-status}, {signal.strsignal(-status)}" if status < 0 else f"exit status {status}"
        return LostError("death", f"ended ({how})", self._words.quoted())


def _descriptors() -> tuple[socket.socket, socket.socket, int, int]:
    """A connection's two ends and a pipe's, none of them 0, 1 or 2: where a caller has closed those, the new process would take them for its own.

    Raises:
        TargetError: There are no more.
    """
    taken = list[int]()
    try:
        first, second = socket.socketpair()
        taken += (first.detach(), second.detach())
        taken += os.pipe()
        for place, descriptor in enumerate(taken):
            taken[place] = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
            os.close(descriptor)
    except OSError as error:
        for descriptor in taken:
            os.close(descriptor)
        raise TargetError(
            f"cannot start a process for the engine: {error.strerror or error}", hint="close files, or raise the limit (ulimit -n)"
        ) from error
    ours, theirs, lifeline, held = taken
    return socket.socket(fileno=ours), socket.socket(fileno=theirs), lifeline, held


class _LastWords:
    """The end of what a process writes, read by a thread that ends with it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._kept = bytearray()
        self._thread = threading.Thread(target=_drain, args=(process, self._kept), name="edgekit-last-words", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Waits for the end of a process that was ended; a grandchild that holds the pipe open is not waited for."""
        self._thread.join(GRACE_S)

    def quoted(self) -> str:
        """The last line, as a hint."""
        lines = [line.strip() for line in bytes(self._kept).decode("utf-8", "replace").splitlines() if line.strip()]
        return f"its last words: {lines[-1][:MAX_QUOTED]}" if lines else "it said nothing"


def _drain(process: subprocess.Popen[bytes], kept: bytearray) -> None:
    stream = process.stdout
    if stream is None:
        return
    with stream:
        while block := os.read(stream.fileno(), _KEPT_BYTES):
            kept += block
            del kept[:-_KEPT_BYTES]
