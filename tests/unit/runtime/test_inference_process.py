"""One process that answers frames: what it is given, how it ends, and with whom."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import supervised_runtime as runtime
from bundle_builders import write_tiny_bundle

from edgekit.errors import TargetError
from edgekit.runtime import inference_process as module
from edgekit.runtime.inference_process import InferenceProcess, LostError
from edgekit.runtime.supervisor import Supervised, SupervisorOptions
from edgekit.runtime.wire import Failure, FrameMemory, Reply, Request

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="an engine is supervised on Linux only")

SUPPORT = Path(runtime.__file__).parent
NOTHING = np.zeros(0, np.float32)


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT), prepend=os.pathsep)
    return write_tiny_bundle(tmp_path / "tiny.edgekit")


def is_gone(pid, seconds=10.0):
    """Whether a process ends within a time; a zombie of somebody else's has ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


class Held:
    """A process that the kernel does not let go of, with everything that belongs to it."""

    def __init__(self) -> None:
        self.gone, self.closed, self.waits = threading.Event(), [], []

    def kill(self):
        pass

    def wait(self, timeout=None):
        self.waits.append(timeout)
        if not self.gone.wait(timeout):
            raise subprocess.TimeoutExpired("engine", timeout)

    def close(self):
        self.closed.append(1)


def process_of(held, channel=None):
    process = InferenceProcess.__new__(InferenceProcess)
    process._process = process._lifeline = process._words = held
    process._channel = channel or held
    process._ended, process.was_asked = False, True
    return process


def test_a_process_that_does_not_die_is_not_waited_for(monkeypatch):
    """One that hangs in a driver is left to a thread, which reaps it when it goes; its descriptors are given back at once."""
    monkeypatch.setattr(module, "REAP_S", 0.01)
    held = Held()
    process_of(held).end()
    assert len(held.closed) == 3
    waiting = [thread for thread in threading.enumerate() if thread.name == "edgekit-reap"]
    assert [thread.daemon for thread in waiting] == [True]
    held.gone.set()
    waiting[0].join(10)
    assert not waiting[0].is_alive()
    assert held.waits == [0.01, None]


def test_the_answer_to_another_question_is_nonsense():
    """A number that was not asked for would be another frame's answer."""

    class Channel:
        def send(self, *_, **_options):
            pass

        def receive(self, *_, **_options):
            return Reply(number=7, failure=Failure(kinds=(), message="", hint="")), NOTHING

    request = Request(number=8, shape=(4, 4), explain=True, gate=True, clip=None, anew=False, ended=())
    with pytest.raises(LostError, match="answered request 7 when it was asked for 8") as caught:
        process_of(Held(), Channel()).ask(request, 1000)
    assert caught.value.kind == "nonsense"


CLOSED = """
import os, sys
from pathlib import Path
import numpy
from edgekit.runtime.supervisor import Supervised
for descriptor in (0, 1, 2):
    os.close(descriptor)
with Supervised(sys.argv[1], runtime="supervised_runtime") as supervised:
    Path(sys.argv[2]).write_text(supervised.predict(numpy.full((4, 4), 0, numpy.uint8)).label)
"""


def test_a_caller_without_standard_descriptors_is_answered(bundle, tmp_path):
    """What would get the numbers 0 to 2 is moved above them, or the new process would take it for its input and output."""
    subprocess.run([sys.executable, "-c", CLOSED, str(bundle), str(tmp_path / "answer")], timeout=60, check=False)
    assert (tmp_path / "answer").read_text() == "malignant"


def refusing(function, calls):
    """A function that works so many times, and then finds that there are too many open files."""
    left = iter([True] * calls)

    def called(*arguments):
        if not next(left, False):
            raise OSError(errno.EMFILE, "Too many open files")
        return function(*arguments)

    return called


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize(
    ("owner", "name", "calls"), [("socket", "socketpair", 0), ("os", "pipe", 0), *[("fcntl", "fcntl", calls) for calls in range(4)]]
)
def test_too_many_open_files_is_an_error_of_the_device(monkeypatch, owner, name, calls):
    """And what was opened until then is given back."""
    before = descriptors()
    with monkeypatch.context() as patched:
        patched.setattr(getattr(module, owner), name, refusing(getattr(getattr(module, owner), name), calls))
        with pytest.raises(TargetError, match="Too many open files"):
            module._descriptors()
    assert descriptors() == before


def test_memory_that_cannot_be_had_is_an_error_of_the_device(monkeypatch):
    """As files that cannot be opened are."""
    monkeypatch.setattr(os, "memfd_create", refusing(os.memfd_create, 0))
    with pytest.raises(TargetError, match="Too many open files"):
        FrameMemory()


ORPHAN = """
import sys, threading, time, numpy
from edgekit.runtime.supervisor import Supervised, SupervisorOptions
import supervised_runtime as runtime
options = SupervisorOptions(frame_limit_ms=60000, first_frame_limit_ms=60000, standby="always")
supervised = Supervised(sys.argv[1], options=options, runtime="supervised_runtime")
supervised._standby.wait_ready(60)
frame = numpy.full((4, 4), int(sys.argv[2]), numpy.uint8)
print(supervised._active.pid, supervised._standby.pid, flush=True)
supervised.predict(frame)
"""


@pytest.mark.parametrize("what", [runtime.HANG, runtime.HANG_IN_C])
def test_a_supervisor_that_is_killed_leaves_no_process(bundle, what):
    """Both its processes end with it, also the one in an engine's call that holds the interpreter."""
    arguments = [sys.executable, "-c", ORPHAN, str(bundle), str(what)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as killed:
        pids = [int(pid) for pid in killed.stdout.readline().split()]
        time.sleep(0.3)  # the frame is on its way
        killed.kill()
    assert len(pids) == 2
    assert all(is_gone(pid) for pid in pids)


def test_a_stopped_process_does_not_outlive_its_supervisor(bundle):
    """A debugger, or a full cgroup freezer, may hold it; the kernel kills it all the same."""
    arguments = [sys.executable, "-c", ORPHAN, str(bundle), str(runtime.HANG)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as killed:
        pids = [int(pid) for pid in killed.stdout.readline().split()]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        killed.kill()
    assert len(pids) == 2
    assert all(is_gone(pid) for pid in pids)


def test_a_process_outlives_the_thread_that_started_it(bundle):
    """A program that answers frames in threads that come and go keeps its engine."""
    opened = []
    options = SupervisorOptions(start_limit_s=30, standby="never")
    thread = threading.Thread(target=lambda: opened.append(Supervised(bundle, options=options, runtime="supervised_runtime")))
    thread.start()
    thread.join()
    with opened[0] as supervised:
        assert not is_gone(supervised._active.pid, 0.3)
        assert supervised.predict(np.zeros((4, 4), np.uint8)).label == "malignant"
        assert supervised.restarts == 0
