"""The watchdog: what becomes of a frame whose engine hangs or dies, and of everything after it."""

from __future__ import annotations

import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import supervised_runtime as runtime
from bundle_builders import write_tiny_bundle
from device_bundles import MANY, THREE, TWO, clip_of, frame, write_device_bundle

import edgekit
from edgekit.errors import BundleError, DataError, EdgekitError, TargetError
from edgekit.runtime import supervisor as module
from edgekit.runtime.engines.base import EngineNotBuiltError
from edgekit.runtime.supervisor import EngineLostError, Follower, RestartBudget, Supervised, SupervisorOptions, WatchdogGaveUpError

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="an engine is supervised on Linux only")

SUPPORT = Path(runtime.__file__).parent
OPTIONS = SupervisorOptions(frame_limit_ms=800, first_frame_limit_ms=5000, start_limit_s=30, max_restarts=1000, standby="never")


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT), prepend=os.pathsep)
    return write_tiny_bundle(tmp_path / "tiny.edgekit")


@pytest.fixture
def supervise(bundle):
    """Opens supervisors on the stand-in runtime, and closes them."""
    opened = []

    def build(**options):
        told = {name: options.pop(name) for name in ("on_restart", "engine") if name in options}
        changed = {name: options.get(name, getattr(OPTIONS, name)) for name in SupervisorOptions.__dataclass_fields__}
        supervised = Supervised(bundle, options=SupervisorOptions(**changed), runtime="supervised_runtime", **told)
        opened.append(supervised)
        return supervised

    yield build
    for supervised in opened:
        supervised.close()


def asking(what, level=100):
    """A frame whose first pixel asks the stand-in for something."""
    pixels = np.full((4, 6), level, np.uint8)
    pixels[0, 0] = what
    return pixels


def lose(supervised, what, consumer=None):
    """Loses the process with a frame, after one that was answered, so that the limit is that of any frame."""
    (consumer or supervised).predict(asking(runtime.FINE))
    start = time.monotonic()
    with pytest.raises(EngineLostError) as caught:
        (consumer or supervised).predict(asking(what))
    assert time.monotonic() - start < 4
    return caught.value


def starts(bundle):
    return [int(line) for line in Path(f"{bundle}.starts").read_text().split()]


def descriptors():
    """How many this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


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


@pytest.mark.parametrize(("output", "cam"), [(TWO, True), (THREE, True), (MANY, True), (TWO, False)])
def test_it_answers_as_a_classifier_does(tmp_path, output, cam):
    """Labels, numbers, maps, overlay and what is said of the bundle are those of the same bundle opened here."""
    path = write_device_bundle(tmp_path / "x.edgekit", output=output, cam=cam, accepted=False)
    with edgekit.load(path) as plain, Supervised(path) as supervised:
        for name in ("manifest", "bundle_digest", "path", "size_bytes", "engine_name", "engine_notes"):
            assert getattr(supervised, name) == getattr(plain, name), name
        clip = supervised.clip()
        for predict in (supervised.predict, clip.predict):
            for pixels in (frame(1), np.repeat(frame(2)[::-1, ::2, None], 3, axis=2)):
                expected, found = plain.predict(pixels), predict(pixels)
                for name in ("label", "probabilities", "logits", "accepted", "assessable", "reason", "engine", "engine_notes", "cam_label"):
                    assert getattr(found, name) == getattr(expected, name), name
                if cam:
                    for label in output.labels:
                        assert np.array_equal(found.cam_for(label), expected.cam_for(label))
                    assert np.array_equal(found.overlay(), expected.overlay())
                assert set(found.stages_ms) == {*expected.stages_ms, "transport"}
                assert found.latency_ms >= sum(found.stages_ms.values()) * 0.99
        assert supervised.predict(frame(1), explain=False).cam is None
        assert supervised.predict(frame(1), explain=False).reason == plain.predict(frame(1), explain=False).reason


def test_this_process_loads_no_engine(tmp_path):
    """In a fresh interpreter, a frame is answered by OpenVINO without OpenVINO being imported."""
    path = write_device_bundle(tmp_path / "x.edgekit")
    code = (
        "import sys, numpy; from edgekit.runtime.supervisor import Supervised\n"
        f"with Supervised({str(path)!r}) as supervised: print(supervised.predict(numpy.eye(16, dtype=numpy.uint8)).engine)\n"
        "print('openvino' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout.split() == ["openvino", "False"], ended.stderr


def test_the_overlay_is_of_the_frame_that_was_asked_about(tmp_path):
    """The caller's buffer and the shared memory may be written to again; the prediction keeps its own frame."""
    with Supervised(write_device_bundle(tmp_path / "x.edgekit")) as supervised:
        pixels = frame(1)
        found = supervised.predict(pixels)
        before = found.overlay()
        pixels[:] = 0
        supervised.predict(frame(2))
        assert np.array_equal(found.overlay(), before)


LOSSES = {
    runtime.HANG: ("hang", "gave no answer within 800 ms", "--frame-limit-ms"),
    runtime.HANG_IN_C: ("hang", "gave no answer within 800 ms", "--no-supervise"),
    runtime.KILLED: ("death", r"ended \(signal 9, Killed\)", "it said nothing"),
    runtime.CRASH: ("death", r"ended \(exit status 1\)", "ValueError: an engine's own words"),
    runtime.FOREIGN_LABEL: ("nonsense", "labels are not the model's", ""),
}


def test_a_lost_engine_costs_one_frame(supervise, bundle):
    """Whether it hangs, dies, crashes or talks nonsense: the frame is an error that says what happened, in bounded time, and the next one is answered and says why."""
    told = []
    supervised = supervise(on_restart=told.append)
    for number, (what, (_, says, hint)) in enumerate(LOSSES.items(), start=1):
        error = lose(supervised, what)
        assert error.args[0].startswith("the inference process ")
        assert re.search(says, error.message), error.message
        assert hint in error.hint
        found = supervised.predict(asking(runtime.FINE))
        assert found.label == "malignant"
        assert "answered by a fresh process" in found.engine_notes[-1]
        assert supervised.restarts == number
    assert told == [kind for kind, _, _ in LOSSES.values()]
    assert all(is_gone(pid) for pid in starts(bundle)[:-1])


def test_a_number_that_is_none_is_a_loss(supervise):
    """A process that would send NaN ends instead, because JSON has none."""
    assert "ended" in lose(supervise(), runtime.NO_NUMBER).message


def test_an_edgekit_error_arrives_as_itself(supervise, bundle):
    """Kind, message and hint are those of the process, which goes on; a kind that is unknown here is the nearest one that is known."""
    supervised = supervise()
    for what, kind, message, hint in (
        (runtime.REFUSED, DataError, "no frame of mine", "another one"),
        (runtime.NOT_BUILT, EngineNotBuiltError, "build it first", "edgekit build"),
        (runtime.OWN_KIND, TargetError, "of its own kind", ""),
    ):
        with pytest.raises(EdgekitError) as caught:
            supervised.predict(asking(what))
        assert (type(caught.value), caught.value.message, caught.value.hint) == (kind, message, hint)
    assert supervised.predict(asking(runtime.FINE)).label == "malignant"
    assert (supervised.restarts, len(starts(bundle))) == (0, 1)


def test_what_is_no_frame_does_not_reach_the_process(supervise):
    """A wrong type is refused here, as a classifier refuses it."""
    with pytest.raises(DataError, match="a frame is uint8, not float64"):
        supervise().predict(np.zeros((4, 4)))


def test_a_frame_that_is_not_assessable_has_a_reason_and_nothing_else(supervise):
    """It comes through as such, from a clip too; who asks without the gate gets the answer beside the reason."""
    supervised = supervise()
    for asked in (supervised, supervised.clip()):
        found = asked.predict(asking(runtime.NOT_ASSESSABLE))
        assert (found.label, found.probabilities, found.logits, found.cam) == (None, {}, {}, None)
        assert (found.assessable, found.reason) == (False, "it is flat")
        told = asked.predict(asking(runtime.NOT_ASSESSABLE), gate=False)
        assert (told.label, told.assessable, told.reason) == ("malignant", False, "it is flat")


@pytest.mark.parametrize(
    ("fault", "kind", "says", "hint"),
    [
        ("refused", BundleError, "this bundle is damaged", "copy it again"),
        ("abort", TargetError, r"the inference process ended \(signal 6, Aborted\) before it was ready", ""),
        ("exception", TargetError, r"ended \(exit status 1\) before it was ready", "ValueError: a library's own words"),
        ("exit", TargetError, r"ended \(exit status 0\) before it was ready", ""),
        ("hang", TargetError, r"the inference process was not ready within 1.5 s$", ""),
    ],
)
def test_a_start_that_fails_is_one_clear_error(supervise, bundle, fault, kind, says, hint):
    """What the process meets when it opens the bundle is the constructor's error, and no process is left."""
    Path(f"{bundle}.fault").write_text(fault)
    with pytest.raises(kind, match=says) as caught:
        supervise(start_limit_s=1.5 if fault == "hang" else 30)
    assert type(caught.value) is kind
    assert hint in caught.value.hint
    assert all(is_gone(pid) for pid in starts(bundle))


def test_a_bundle_that_is_none_starts_no_process(bundle, tmp_path):
    """It is refused before."""
    with pytest.raises(BundleError, match="does not exist"):
        Supervised(tmp_path / "none.edgekit", runtime="supervised_runtime")
    assert not Path(f"{bundle}.starts").exists()


def test_an_engine_that_is_named_is_asked_for(supervise):
    """Its name reaches the process."""
    with pytest.raises(TargetError, match="no 'tensorrt' engine"):
        supervise(engine="tensorrt")


def test_the_first_frame_may_take_longer(supervise):
    """A frame that is too slow for any other is answered as the first one of a process, and hangs it as the second."""
    supervised = supervise()
    assert supervised.predict(asking(runtime.SLOW)).label == "malignant"
    with pytest.raises(EngineLostError):
        supervised.predict(asking(runtime.SLOW))


def test_a_process_that_ends_between_frames_costs_none(supervise):
    """Nothing was asked of it, so the next frame is answered by a fresh one, and says so."""
    told = []
    supervised = supervise(on_restart=told.append)
    os.kill(supervised._active.pid, signal.SIGKILL)
    supervised._active._process.wait()
    assert "ended while nothing was asked of it" in supervised.predict(asking(runtime.FINE)).engine_notes[-1]
    assert told == ["death"]


def test_a_clip_begins_anew_in_a_fresh_process(supervise):
    """State lives in the process: clips are apart, go on from frame to frame, and after a loss begin at nothing and say that what they had is gone."""
    supervised = supervise()
    one, other = supervised.clip(), supervised.clip()
    seen = [clip.predict(asking(runtime.FINE)).logits["malignant"] for clip in (one, one, other, one)]
    assert seen == [1, 2, 1, 3]
    one.reset()
    assert [clip.predict(asking(runtime.FINE)).logits["malignant"] for clip in (one, one, other)] == [1, 2, 2]
    lose(supervised, runtime.KILLED, one)
    for clip in (one, other):
        found = clip.predict(asking(runtime.FINE))
        assert found.logits["malignant"] == 1
        assert found.engine_notes[-1].endswith("what the clip had built up is gone")
        assert clip.predict(asking(runtime.FINE)).logits["malignant"] == 2
    assert "gone" not in supervised.clip().predict(asking(runtime.FINE)).engine_notes[-1]


def test_the_state_of_a_recurrent_bundle(tmp_path):
    """On OpenVINO: a clip carries it from frame to frame, and after a killed process answers as a new one does; a frame alone is refused."""
    frames = [frame(seed) for seed in range(3)]
    expected, _ = clip_of(frames, 2)

    def answers(clip):
        return np.array([list(clip.predict(pixels).logits.values()) for pixels in frames])

    with Supervised(write_device_bundle(tmp_path / "x.edgekit", recurrent=True), options=OPTIONS) as supervised:
        clip = supervised.clip()
        np.testing.assert_allclose(answers(clip), expected, atol=1e-4)
        assert np.abs(answers(clip)[0] - expected[0]).min() > 0.05
        os.kill(supervised._active.pid, signal.SIGKILL)
        supervised._active._process.wait()
        np.testing.assert_allclose(answers(clip), expected, atol=1e-4)
        with pytest.raises(TargetError, match="depends on the frames before it"):
            supervised.predict(frames[0])


@pytest.mark.parametrize(("clip", "more"), [(None, ""), (3, "; what the clip had built up is gone")])
def test_that_a_process_is_fresh_is_said_for_a_while(clip, more):
    """The first answer after a loss may be withheld as too late, so those of the next second say it too, and no longer; a further loss is said again."""
    follower = Follower(clip, 2)
    assert follower.note(2, "it hung", 10.0) == ""
    said = f"answered by a fresh process: it hung{more}"
    assert [follower.note(3, "it hung", now) for now in (10.0, 10.9, 11.0, 50.0)] == [said, said, "", ""]
    assert "it died" in follower.note(4, "it died", 60.0)


def test_clips_that_nobody_has_any_more_are_forgotten(supervise):
    """A folder of a thousand cines does not keep a thousand states."""
    supervised = supervise()
    for _ in range(20):
        supervised.clip().predict(asking(runtime.FINE))
    gc.collect()
    assert supervised.predict(asking(runtime.FINE)).engine_notes == ("0 clips",)


def test_the_budget_is_of_a_window():
    """Starts are counted in the last window only; a budget of none has none."""
    now = [0.0]
    budget = RestartBudget(2, 60, clock=lambda: now[0])
    assert [budget.spend(), budget.spend(), budget.spend()] == [True, True, False]
    now[0] = 59.9
    assert not budget.spend()
    now[0] = 60.0
    assert budget.spend()
    assert budget.spend()
    assert not budget.spend()
    assert not RestartBudget(0, 60).spend()


def test_an_engine_that_always_dies_is_given_up(supervise, bundle):
    """After the last start of the budget the error says so, is another kind, stays, and no process is left."""
    supervised = supervise(max_restarts=2)
    for _ in range(2):
        lose(supervised, runtime.KILLED)
    supervised.predict(asking(runtime.FINE))
    for _ in range(2):
        with pytest.raises(
            WatchdogGaveUpError, match=r"gave up: it had started the engine again 2 times within 60 s when the .* ended \(signal 9"
        ):
            supervised.predict(asking(runtime.KILLED))
    assert not issubclass(WatchdogGaveUpError, EngineLostError)
    assert len(starts(bundle)) == 3
    assert all(is_gone(pid) for pid in starts(bundle))


def test_a_fresh_process_that_cannot_start_is_told_as_itself(supervise, bundle):
    """What it meets is the frame's error; each further try is counted."""
    supervised = supervise(max_restarts=2)
    Path(f"{bundle}.fault").write_text("refused")
    lose(supervised, runtime.KILLED)
    for kind in (BundleError, BundleError, WatchdogGaveUpError):
        with pytest.raises(kind):
            supervised.predict(asking(runtime.FINE))
    assert supervised.restarts == 2


def test_a_bundle_that_was_replaced_does_not_go_on(supervise, bundle):
    """A fresh process that opens another bundle under the same name answers nothing."""
    supervised = supervise()
    write_device_bundle(bundle.with_name("other.edgekit")).replace(bundle)
    lose(supervised, runtime.KILLED)
    with pytest.raises(BundleError, match="was replaced while it was in use"):
        supervised.predict(asking(runtime.FINE))


def test_a_process_that_stands_by_takes_over_at_once(supervise, bundle):
    """It was ready before it was needed, is the one that answers, and another one takes its place."""
    supervised = supervise(standby="always")
    supervised._standby.wait_ready(30)
    waiting = supervised._standby.pid
    lose(supervised, runtime.KILLED)
    start = time.monotonic()
    supervised.predict(asking(runtime.FINE))
    assert time.monotonic() - start < supervised._active.start_s / 2
    assert supervised._active.pid == waiting
    assert supervised._standby.pid not in (waiting, starts(bundle)[0])


def test_one_that_died_while_it_stood_by_does_not_take_over(supervise):
    """A fresh one is started instead."""
    supervised = supervise(standby="always")
    dead = supervised._standby
    dead.kill()
    dead._process.wait()
    lose(supervised, runtime.KILLED)
    assert supervised.predict(asking(runtime.FINE)).label == "malignant"
    assert supervised._active is not dead
    assert supervised.restarts == 1


@pytest.mark.parametrize(
    ("standby", "within_s", "expected"), [("auto", 1e9, False), ("auto", 0.0, True), ("never", 0.0, False), ("always", 1e9, True)]
)
def test_whether_one_stands_by_depends_on_how_long_a_start_takes(supervise, monkeypatch, standby, within_s, expected):
    """By itself it is kept only where a fresh start would come too late."""
    monkeypatch.setattr(module, "BACK_WITHIN_S", within_s)
    supervised = supervise(standby=standby)
    assert supervised.has_standby is expected
    assert (supervised._standby is not None) is expected


def test_an_interrupted_wait_does_not_answer_the_next_frame(supervise, monkeypatch):
    """After Ctrl-C between question and answer, the next frame gets its own answer, of a fresh process."""
    supervised = supervise()
    clip = supervised.clip()
    clip.predict(asking(runtime.FINE, level=10))
    ask = supervised._active.ask

    def interrupted(request, limit_ms):
        ask(request, limit_ms)
        raise KeyboardInterrupt

    monkeypatch.setattr(supervised._active, "ask", interrupted)
    with pytest.raises(KeyboardInterrupt):
        clip.predict(asking(runtime.FINE, level=20))
    found = clip.predict(asking(runtime.FINE, level=30))
    assert found.logits["malignant"] == 1
    assert found.logits["benign"] == pytest.approx(-asking(runtime.FINE, level=30).mean())
    assert "was interrupted" in found.engine_notes[-1]


def test_what_an_engine_prints_does_not_stop_it(supervise):
    """Two megabytes on its output are read and thrown away."""
    supervised = supervise(frame_limit_ms=5000)
    for _ in range(3):
        assert supervised.predict(asking(runtime.LOUD)).label == "malignant"
    assert len(supervised._active._words._kept) <= 4096


def test_threads_get_their_own_answers(supervise):
    """Frames of several threads are answered one at a time, each with its own numbers."""
    supervised = supervise(frame_limit_ms=5000)
    wrong = []

    def work(level):
        for _ in range(30):
            pixels = asking(runtime.FINE, level)
            if supervised.predict(pixels).logits["benign"] != -float(pixels.mean()):
                wrong.append(level)

    threads = [threading.Thread(target=work, args=(level,)) for level in (50, 150, 250)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_terminals_signals_are_the_supervisors(supervise):
    """The process is in a group of its own, so Ctrl-C does not reach it."""
    assert os.getpgid(supervise()._active.pid) != os.getpgid(0)


def test_closing(supervise, bundle):
    """It ends the process, may be done twice, and no frame is answered afterwards."""
    supervised = supervise(standby="always")
    pids = {supervised._active.pid, supervised._standby.pid}
    supervised.close()
    supervised.close()
    assert all(is_gone(pid) for pid in pids)
    with pytest.raises(TargetError, match="the classifier was closed"):
        supervised.predict(asking(runtime.FINE))


def test_closing_does_not_wait_for_a_start(supervise, bundle):
    """A thread that waits for a fresh process is told, and nothing is started again."""
    supervised = supervise()
    Path(f"{bundle}.fault").write_text("hang")
    lose(supervised, runtime.KILLED)
    errors = []

    def wait():
        try:
            supervised.predict(asking(runtime.FINE))
        except EdgekitError as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while not supervised._lock.locked():
        time.sleep(0.01)
    start = time.monotonic()
    supervised.close()
    thread.join(10)
    assert time.monotonic() - start < 5
    assert [error.message for error in errors] == ["the classifier was closed"]
    assert all(is_gone(pid) for pid in starts(bundle))


@pytest.mark.parametrize("restarts", [6, pytest.param(50, marks=pytest.mark.slow)])
def test_restarts_leave_nothing(supervise, bundle, restarts):
    """Descriptors, threads, children and mappings are as many after many restarts as before."""
    supervised = supervise(first_frame_limit_ms=800)

    def children():
        return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()

    def held():
        gc.collect()
        maps = Path("/proc/self/maps").read_text().count("edgekit-frame")
        return descriptors(), threading.active_count(), len(children()), maps

    lose(supervised, runtime.KILLED)
    supervised.predict(asking(runtime.FINE))
    before = held()
    for number in range(restarts):
        lost = supervised._active.pid
        lose(supervised, runtime.HANG if number % 10 == 0 else runtime.KILLED)
        assert str(lost) not in children(), "a zombie"
    supervised.predict(asking(runtime.FINE))
    assert held() == before
    assert all(is_gone(pid) for pid in starts(bundle)[:-1])


def test_a_supervisor_that_nobody_has_any_more_leaves_nothing(bundle):
    """Without being closed, its process ends and its descriptors are given back when it is collected."""
    before = descriptors()
    supervised = Supervised(bundle, options=OPTIONS, runtime="supervised_runtime")
    pid = supervised._active.pid
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del supervised
        gc.collect()
    assert is_gone(pid)
    assert descriptors() <= before + 1  # the output's end is read by a thread until it ends


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("frame_limit_ms", 0),
        ("start_limit_s", float("inf")),
        ("restart_window_s", -1),
        ("first_frame_limit_ms", float("nan")),
        ("max_restarts", -1),
    ],
)
def test_limits_that_are_none_are_refused(name, value):
    """A wait without an end is no limit."""
    with pytest.raises(EdgekitError, match=name):
        SupervisorOptions(**{name: value})


def test_another_system_is_refused(bundle, monkeypatch):
    """Where there is no memory without a name, the error says what to do instead."""
    monkeypatch.delattr(os, "memfd_create")
    with pytest.raises(TargetError, match="on Linux only"):
        Supervised(bundle)


def test_a_frame_is_copied_only_where_an_overlay_may_need_it(supervise, monkeypatch):
    """Without a map the shared memory's copy is the only one."""

    class Counted(np.ndarray):
        copies = 0

        def copy(self, *_):
            Counted.copies += 1
            return np.array(self)

    monkeypatch.setattr(module, "check_frame", lambda pixels: pixels.view(Counted))
    supervised = supervise()
    supervised.predict(asking(runtime.FINE), explain=False)
    assert Counted.copies == 0
    supervised.predict(asking(runtime.FINE))
    assert Counted.copies == 1
