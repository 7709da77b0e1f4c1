"""The inference process of a supervisor: opens a bundle and answers its frames, one at a time.

Run as ``python -m edgekit.runtime.supervised_child CHANNEL,FRAMES,LIFELINE,BOUND RUNTIME BUNDLE ENGINE`` by `inference_process.py`; no use of its own. The first three are
descriptors; BOUND is 1 where the thread that started it lives as long as its process; an empty ENGINE is none.

Rules this file keeps:

1. It ends with its supervisor, whatever it is doing: the kernel ends it when the lifeline's other end is closed, also in the middle of an engine's call that
   never returns (signal-driven I/O: fcntl(2), F_SETOWN and O_ASYNC; the default action of SIGIO is to end the process). A process that was stopped does not
   see that signal. prctl(2)'s PR_SET_PDEATHSIG kills it too, but at the end of the *thread* that started it, so it is a second line and for BOUND alone.
2. An edgekit error is a reply, and the process goes on. Any other exception ends it with its traceback: a process in a state nobody foresaw answers no more.
3. It says that it is ready after it has answered a frame (a synthetic one), so that the first real one is as quick as those after it.
4. It has the frame's pixels and nothing else about it: no name, no place, no time.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import select
import signal
import socket
import sys
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import EdgekitError
from edgekit.imaging import phantom
from edgekit.runtime.wire import Answer, BrokenChannelError, Channel, Failure, FrameMemory, Ready, Reply, Request

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(descriptors: str, runtime: str, bundle: str, engine: str) -> int:
    """Answers until the supervisor hangs up; returns the exit status."""
    channel, frames, lifeline, bound = map(int, descriptors.split(","))
    if bound:
        die_with_parent()
    end_with(lifeline)
    line = Channel(socket.socket(fileno=channel))
    memory = FrameMemory(frames)
    try:
        classifier = importlib.import_module(runtime).load(bundle, engine=engine or None)
        classifier.clip().predict(phantom.frame(phantom.LABELS[0], patient=0, index=0, seed=0), gate=False)
    except EdgekitError as error:
        line.send(Reply(number=0, failure=Failure.of(error)))
        return 1
    ready = Ready(
        bundle_digest=classifier.bundle_digest,
        engine=classifier.engine_name,
        engine_notes=tuple(classifier.engine_notes),
        at_ns=time.monotonic_ns(),
    )
    try:
        line.send(Reply(number=0, ready=ready))
        _serve(line, memory, classifier)
    except BrokenChannelError:
        # The supervisor hung up. Nobody is left to tell.
        classifier.close()
    return 0


def die_with_parent() -> None:
    """Has the kernel kill this process when the thread that started it ends (rule 1)."""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def end_with(lifeline: int) -> None:
    """Has the kernel end this process when the other end of the lifeline is closed (rule 1).

    Args:
        lifeline: The end of a pipe that is read from; nothing is ever written to the other.
    """
    # Whoever started the supervisor may have had the signal ignored or held back, and both are inherited.
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGIO])
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    # It may have been closed before the kernel was asked to tell.
    if select.select([lifeline], [], [], 0)[0]:
        sys.exit(0)


def _serve(line: Channel, memory: FrameMemory, classifier: Any) -> None:
    clips: dict[int, Any] = {}
    while True:
        request, _ = line.receive(Request)
        for number in request.ended:
            clips.pop(number, None)
        frame = memory.read(request.shape)
        try:
            prediction = _asked(request, classifier, clips).predict(frame, explain=request.explain, gate=request.gate)
        except EdgekitError as error:
            line.send(Reply(number=request.number, failure=Failure.of(error)))
            continue
        maps = _maps(prediction, tuple(classifier.manifest.output.labels))
        line.send(Reply(number=request.number, answer=_answer(prediction, maps)), maps)


def _asked(request: Request, classifier: Any, clips: dict[int, Any]) -> Any:
    """What answers: the classifier, or the clip that is asked for, which begins here where it is not known."""
    if request.clip is None:
        return classifier
    if request.clip not in clips:
        clips[request.clip] = classifier.clip()
    elif request.anew:
        clips[request.clip].reset()
    return clips[request.clip]


def _maps(prediction: Any, labels: tuple[str, ...]) -> NDArray[np.float32] | None:
    if prediction.cam is None:
        return None
    return np.stack([prediction.cam_for(label) for label in labels])


def _answer(prediction: Any, maps: NDArray[np.float32] | None) -> Answer:
    label = prediction.label
    return Answer(
        labels=(label,) if isinstance(label, str) else label,
        probabilities=prediction.probabilities,
        logits=prediction.logits,
        accepted=prediction.accepted,
        assessable=prediction.assessable,
        reason=prediction.reason,
        engine=prediction.engine,
        engine_notes=tuple(prediction.engine_notes),
        stages_ms=prediction.stages_ms,
        latency_ms=prediction.latency_ms,
        maps_shape=None if maps is None else maps.shape,
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
