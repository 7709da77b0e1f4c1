"""A classifier in a process of its own, watched: an engine that hangs or dies costs one frame and a second or two, not the program.

```python
with Supervised("lung.edgekit") as classifier:
    prediction = classifier.predict(frame)
```

Rules this file keeps:

1. Every frame has an answer or an error within a bounded time: its own limit, and that of a start where one is due.
2. Where the process hung, died or talked nonsense, it is killed, the frame gets an `EngineLostError`, and a fresh process takes over. It was given nothing of the
   old one: what a clip had built up is gone, and the next answers say so in their `engine_notes`. A frame is never tried twice: it may be what killed the engine.
3. Starts are counted. More than `max_restarts` in `restart_window_s` and the supervisor gives up for good (`WatchdogGaveUpError`): a scanner whose engine dies all
   the time must say so, not flicker.
4. A fresh process must open the same bundle, by its digest: a file that was replaced meanwhile is refused.
5. A `Prediction` is a whole one: the supervisor has the frame and the manifest, the process sends the rest. What is sent is checked against the manifest.
6. This process never loads an engine.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from types import TracebackType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.manifest import Manifest
from edgekit.bundle.reader import open_bundle
from edgekit.errors import BundleError, EdgekitError, TargetError
from edgekit.imaging.preprocess import check_frame
from edgekit.runtime.inference_process import RUNTIME, Command, InferenceProcess, LostError
from edgekit.runtime.prediction import Prediction
from edgekit.runtime.supervised_answer import Asked, prediction_of
from edgekit.runtime.wire import FrameMemory, Ready, Reply, Request

BACK_WITHIN_S = 3.0
"""Within this time of an engine that hangs or dies the next answer is to be there."""
SLOWER = 1.5
"""A start in trouble is taken to last this much longer than the first one did."""
NOTED_S = 1.0
"""For this long after the first answer of a fresh process the answers say that it is one."""


class EngineLostError(TargetError):
    """The process that ran the engine was lost with this frame; the next frame is asked of a fresh one."""


class WatchdogGaveUpError(TargetError):
    """The engine was lost too often; no frame is answered any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorOptions:
    """Limits of a supervisor.

    Attributes:
        frame_limit_ms: A frame that is not answered in this time has hung its engine.
        first_frame_limit_ms: The same for the first frame of a process.
        start_limit_s: A process that is not ready in this time after its start has hung. A TensorRT engine that is not in its cache must be built before
            (`edgekit build`).
        standby: Whether a second process waits, ready, to take over at once: it costs as much memory again. "auto" keeps one where a fresh start would be too
            slow to be back within `BACK_WITHIN_S`, judged by how long the first start took.
        max_restarts: Fresh processes after the first one, in a window; one more and the supervisor gives up.
        restart_window_s: Length of the window.
    """

    frame_limit_ms: float = 1000.0
    first_frame_limit_ms: float = 2000.0
    start_limit_s: float = 60.0
    standby: Literal["auto", "always", "never"] = "auto"
    max_restarts: int = 5
    restart_window_s: float = 60.0

    def __post_init__(self) -> None:
        for name in ("frame_limit_ms", "first_frame_limit_ms", "start_limit_s", "restart_window_s"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise EdgekitError(f"{name} of a supervisor must be above 0, not {value}")
        if self.max_restarts < 0:
            raise EdgekitError(f"max_restarts of a supervisor must not be below 0, not {self.max_restarts}")


DEFAULT = SupervisorOptions()
_LOOK = "edgekit verify BUNDLE, and the memory and temperature of the device; for a model that needs longer see frame_limit_ms (--frame-limit-ms)"


class RestartBudget:
    """How many fresh starts are left in a window of time (rule 3).

    Args:
        limit: Starts in a window.
        window_s: Its length.
        clock: Seconds that never go back.
    """

    def __init__(self, limit: int, window_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._window_s, self._clock = limit, window_s, clock
        self._starts: deque[float] = deque(maxlen=limit)

    def spend(self) -> bool:
        """Takes one; False, and none is taken, where none is left."""
        now = self._clock()
        if len(self._starts) == self._limit and (not self._starts or now - self._starts[0] < self._window_s):
            return False
        self._starts.append(now)
        return True


class Supervised:
    """A bundle on an engine in a process of its own; answers as a `Classifier` does. It may be used as a context manager, which closes it."""

    def __init__(
        self,
        bundle_path: str | os.PathLike[str],
        *,
        engine: str | None = None,
        options: SupervisorOptions = DEFAULT,
        on_restart: Callable[[str], None] | None = None,
        runtime: str = RUNTIME,
    ) -> None:
        """Opens the bundle, starts the process and waits until it is ready.

        Args:
            bundle_path: The `.edgekit` file.
            engine: Name of the engine to use; None for the first one of the bundle that can run here.
            options: Limits.
            on_restart: Told the reason of every fresh start: "hang", "death", "nonsense", or "start" where one failed or was interrupted. Called in the thread that asked for the frame.
            runtime: The module whose `load` opens the bundle in the process.

        Raises:
            EdgekitError: What the process met when it opened the bundle, as itself (`edgekit.load` says which).
            TargetError: The process ended or hung before it was ready, or this system cannot run one.
        """
        if not hasattr(os, "memfd_create"):
            raise TargetError("an engine can be supervised on Linux only", hint="open the bundle with edgekit.load")
        bundle = open_bundle(bundle_path)
        self.manifest: Manifest = bundle.manifest
        self.bundle_digest, self.path, self.size_bytes = bundle.digest, bundle.path, bundle.size_bytes
        del bundle
        self.engine_name, self.engine_notes = "", list[str]()
        self.restarts, self.has_standby = 0, False
        self._command = Command(bundle=Path(os.path.abspath(self.path)), engine=engine, runtime=runtime)  # noqa: PTH100 - a link stays a link
        self._options, self._on_restart = options, on_restart
        self._lock = threading.Lock()
        self._closed = False
        self._given_up = ""
        self._budget = RestartBudget(options.max_restarts, options.restart_window_s)
        self._requests, self._clips = itertools.count(1), itertools.count(1)
        self._ended_clips: deque[int] = deque()
        self._plain = Follower(None, 0)
        self._lost = ""
        self._memory = FrameMemory()
        self._standby: InferenceProcess | None = None
        self._active: InferenceProcess | None = None
        try:
            self._open_first()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Supervised:  # noqa: PYI034 - typing.Self came with Python 3.11
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process, after the frame that is being answered; again does nothing. No frame is answered afterwards."""
        self._closed = True
        limit_s = self._options.frame_limit_ms / 1e3
        if not self._lock.acquire(timeout=limit_s):
            # Somebody waits for a start: it ends at once, and so does the wait.
            for process in (self._active, self._standby):
                if process is not None:
                    process.kill()
            self._lock.acquire()
        try:
            self._end_all(kindly=True)
            self._memory.close()
        finally:
            self._lock.release()

    def predict(self, frame: NDArray[np.uint8], *, explain: bool = True, gate: bool = True) -> Prediction:
        """Classifies one frame.

        Args:
            frame: As in `Classifier.predict`.
            explain: Whether the answer has its map.
            gate: Whether a frame that is not assessable goes unanswered.

        Raises:
            DataError: The frame is not one.
            EngineLostError: The process was lost with this frame, or a fresh one before it was ready; the next frame may be answered.
            WatchdogGaveUpError: It was lost too often; nothing will be answered.
            EdgekitError: As `Classifier.predict` raises it, in the process.
        """
        return self.answer(frame, self._plain, explain=explain, gate=gate)

    def clip(self) -> SupervisedClip:
        """A clip in progress, as `Classifier.clip`; what it builds up is in the process, and is lost with it."""
        return SupervisedClip(self, next(self._clips), self._ended_clips)

    def answer(self, frame: NDArray[np.uint8], follower: Follower, *, explain: bool, gate: bool) -> Prediction:
        """One frame for a sequence of them, for `SupervisedClip`. Arguments and errors as in `predict`."""
        started_ns = perf_counter_ns()
        checked = check_frame(frame)
        # Only an overlay needs it later.
        held = checked.copy() if explain else checked
        with self._lock:
            process = self._serving()
            request = follower.request(next(self._requests), held, self._ended_clips, explain=explain, gate=gate)
            reply, numbers = self._ask(process, request, held)
            if reply.failure is not None:
                raise reply.failure.error()
            note = follower.note(self.restarts, self._lost, time.monotonic())
            asked = Asked(frame=held if explain else None, gate=gate, note=note, started_ns=started_ns)
            try:
                found = prediction_of(reply.asked_for(), numbers, asked, self.manifest)
            except ValueError as error:
                raise self._replaced(LostError("nonsense", f"gave an answer that is none: {error}", "")) from error
            self.engine_name, self.engine_notes = found.engine, list(found.engine_notes)
            self._keep_standby(process)
        return found

    def _open_first(self) -> None:
        self._active = InferenceProcess(self._command, self._memory)
        try:
            ready = self._active.wait_ready(self._options.start_limit_s)
        except LostError as lost:
            early = " before it was ready" if lost.kind == "death" else ""
            raise TargetError(f"{self.path}: the inference process {lost.what}{early}", hint=lost.words) from lost
        self._check_digest(ready)
        self.engine_name, self.engine_notes = ready.engine, list(ready.engine_notes)
        back_s = self._options.frame_limit_ms / 1e3 + SLOWER * self._active.start_s
        self.has_standby = self._options.standby == "always" or (self._options.standby == "auto" and back_s > BACK_WITHIN_S)
        self._keep_standby(self._active)

    def _serving(self) -> InferenceProcess:
        """The process that answers, ready; under the lock."""
        if self._closed:
            raise _closed()
        if self._given_up:
            raise WatchdogGaveUpError(self._given_up, hint=_LOOK)
        if self._active is not None and not self._active.is_alive:
            # No frame was lost with it, so this one need not be an error.
            error = self._replaced(LostError("death", "ended while nothing was asked of it", ""))
            if not isinstance(error, EngineLostError):
                raise error
        process = self._active
        if process is None:
            # What should have taken over could not be started, or was interrupted.
            process = self._start_anew("start")
        try:
            ready = process.wait_ready(self._options.start_limit_s)
            self._check_digest(ready)
        except LostError as lost:
            raise self._replaced(lost) from lost
        except BaseException:
            self._lost = "the inference process could not be started"
            self._drop()
            raise
        return process

    def _ask(self, process: InferenceProcess, request: Request, held: NDArray[np.uint8]) -> tuple[Reply, NDArray[np.float32]]:
        limit_ms = self._options.frame_limit_ms if process.was_asked else self._options.first_frame_limit_ms
        self._memory.write(held)
        try:
            return process.ask(request, limit_ms)
        except LostError as lost:
            raise self._replaced(lost) from lost
        except BaseException:
            # Interrupted between question and answer: the answer would be taken for that of the next frame.
            self._lost = "the wait for the inference process was interrupted"
            self._drop()
            raise

    def _replaced(self, lost: LostError) -> EdgekitError:
        """Ends the process and has another one take its place (rule 2); returns what to raise for the frame."""
        self._drop()
        if self._closed:
            return _closed()
        self._lost = f"the inference process {lost.what}"
        try:
            self._start_anew(lost.kind)
        except EdgekitError as error:
            return error
        return EngineLostError(f"{self._lost}; a fresh one takes over", hint=lost.words)

    def _start_anew(self, kind: str) -> InferenceProcess:
        """The process that stands by, or a fresh one, takes over; counted (rule 3)."""
        if not self._budget.spend():
            self._end_all()
            spent = f"{self._options.max_restarts} times within {self._options.restart_window_s:g} s"
            self._given_up = f"the watchdog gave up: it had started the engine again {spent} when {self._lost}"
            raise WatchdogGaveUpError(self._given_up, hint=_LOOK)
        self.restarts += 1
        if self._standby is not None and not self._standby.is_alive:
            self._standby.end()
            self._standby = None
        self._active, self._standby = self._standby or InferenceProcess(self._command, self._memory), None
        if self._on_restart is not None:
            self._on_restart(kind)
        return self._active

    def _keep_standby(self, process: InferenceProcess) -> None:
        """Starts the process that stands by, where one is wanted and not there; never two at once, which would make the first one slow."""
        if self.has_standby and self._standby is None and process is self._active:
            self._standby = InferenceProcess(self._command, self._memory)

    def _check_digest(self, ready: Ready) -> None:
        if ready.bundle_digest != self.bundle_digest:
            raise BundleError(
                f"{self.path} was replaced while it was in use: its digest is {ready.bundle_digest[:12]} …, it was {self.bundle_digest[:12]} …",
                hint="close and open the bundle again",
            )

    def _drop(self) -> None:
        if self._active is not None:
            self._active.end()
            self._active = None

    def _end_all(self, *, kindly: bool = False) -> None:
        for process in (self._active, self._standby):
            if process is not None and kindly:
                process.leave()
            elif process is not None:
                process.end()
        self._active = self._standby = None


def _closed() -> TargetError:
    return TargetError("the classifier was closed", hint="open the bundle again")


class Follower:
    """A sequence of frames: a clip, or those that belong to none. It knows which process it last had an answer from."""

    def __init__(self, clip: int | None, restarts: int) -> None:
        self._clip, self._restarts = clip, restarts
        self._note, self._noted_until_s = "", 0.0
        self.anew = False

    def request(self, number: int, frame: NDArray[np.uint8], ended: deque[int], *, explain: bool, gate: bool) -> Request:
        """Asks for the next frame, and tells which clips are over."""
        gone = tuple(ended.popleft() for _ in range(len(ended)))
        asked = Request(number=number, shape=frame.shape, explain=explain, gate=gate, clip=self._clip, anew=self.anew, ended=gone)
        self.anew = False
        return asked

    def note(self, restarts: int, lost: str, now_s: float) -> str:
        """What an answer must say: that another process gives it than the one before; empty where it is the same.

        It is said for `NOTED_S`: the first answer after a loss has waited for the start, and whoever plays a stream may withhold it as too late.

        Args:
            restarts: Starts until now.
            lost: Why the last one was needed.
            now_s: By a clock that never goes back.
        """
        if restarts != self._restarts:
            what = "" if self._clip is None else "; what the clip had built up is gone"
            self._restarts, self._noted_until_s = restarts, now_s + NOTED_S
            self._note = f"answered by a fresh process: {lost}{what}"
        return self._note if now_s < self._noted_until_s else ""


class SupervisedClip:
    """The frames of one source on a supervised classifier; made by `Supervised.clip`. As a `Clip`, for one thread at a time."""

    def __init__(self, supervised: Supervised, number: int, ended: deque[int]) -> None:
        self._supervised = supervised
        self._follower = Follower(number, supervised.restarts)
        weakref.finalize(self, ended.append, number)

    def reset(self) -> None:
        """Begins anew, as after a change of patient, of view, or after a gap."""
        self._follower.anew = True

    def predict(self, frame: NDArray[np.uint8], *, explain: bool = True, gate: bool = True) -> Prediction:
        """Answers the next frame of the clip. Arguments and errors as in `Supervised.predict`."""
        return self._supervised.answer(frame, self._follower, explain=explain, gate=gate)
