"""The scripts in benchmarks/ can be started, and the one of live streams finds what it is there to find."""

from __future__ import annotations

import argparse
import importlib
import math
import os
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import repository

from edgekit.errors import DataError
from edgekit.runtime.health import Health

FOLDER = repository.ROOT / "benchmarks"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py"))
HELPERS = {"padded_runtime", "peer_grad_cam", "peer_openvino_xai"}
"""Scripts that another one starts."""


@pytest.fixture
def imported(monkeypatch):
    """Imports scripts as Python does that runs one of them, and forgets them: their names are plain words."""
    monkeypatch.syspath_prepend(FOLDER)
    for script in SCRIPTS:
        monkeypatch.delitem(sys.modules, script, raising=False)
    yield importlib.import_module
    for script in SCRIPTS:
        sys.modules.pop(script, None)


def test_every_script_has_its_row():
    """The table of `benchmarks/README.md` has each script that is started by itself, and no other."""
    rows = re.findall(r"^\| `(\w+)\.py", (FOLDER / "README.md").read_text("utf-8"), re.MULTILINE)
    started = {name for name in SCRIPTS if '__name__ == "__main__"' in (FOLDER / f"{name}.py").read_text("utf-8")}
    assert sorted(rows) == sorted(started - HELPERS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_can_be_imported(script, imported):
    """What it takes from edgekit is still there; one whose peer is not installed says what to install."""
    try:
        imported(script)
    except SystemExit as needs:
        if "pip install" not in str(needs.code):
            raise
        pytest.skip(str(needs.code))


class Recorded:
    """A run of the stream's benchmark by hand: a source that gave `given` frames, and what a caller saw of them."""

    def __init__(self, imported, given=100) -> None:
        self.stream, self.parts = imported("stream"), imported("stream_parts")
        self.source, self.health = SimpleNamespace(given=given), Health()
        self.told = self.parts.Told(logits=np.arange(2.0 * self.parts.FRAMES).reshape(-1, 2), within=0.1)
        self.seen = self.parts.Seen(ages_ms=np.full(given + 10, np.nan))

    def answer(self, number, *, dropped=0, of=None, age_ms=1.0):
        """Frame `number` gets the answer of frame `of`."""
        logits = self.told.logits[(number if of is None else of) % self.parts.FRAMES]
        prediction = SimpleNamespace(logits=dict(zip("ab", logits, strict=True)), cam=None)
        captured_ns = time.monotonic_ns() - round(age_ms * 1e6)
        self.health.captured(1 + dropped)
        self.health.dropped(dropped)
        self.health.processed(latency_ms=1.0, age_ms=age_ms)
        result = SimpleNamespace(step="full", dropped=dropped, frame=number, prediction=prediction, captured_ns=captured_ns)
        self.seen.add(result, self.told, draw=None)

    def verdicts(self):
        asked = argparse.Namespace(fps=60.0)
        return self.stream.judged(asked, self.source, self.health, self.seen, np.full(self.seen.lines, 25.0))["verdicts"]


def test_a_stream_that_is_as_it_should_be_misses_no_goal(imported):
    """Every frame seen or counted, each with its own answer; memory is not judged in so short a time."""
    run = Recorded(imported)
    for number in range(1, 100, 2):
        run.answer(number, dropped=1)
    assert run.verdicts() == {"current": True, "counted": True, "own_answers": True, "bounded": None}


@pytest.mark.parametrize(
    ("goal", "fault"),
    [
        ("own_answers", {"of": 41}),
        ("own_answers", {"of": 43}),
        ("counted", {"dropped": 1}),
        ("current", {"age_ms": 200.0}),
    ],
)
def test_a_stream_that_is_not_misses_the_goal_and_that_alone(imported, goal, fault):
    """The answer of the frame before or after, a drop that is none, old answers."""
    run = Recorded(imported)
    for number in range(100):
        run.answer(number, **(fault if number in (42, 43) or goal == "current" else {}))
    assert [name for name, met in run.verdicts().items() if met is False] == [goal]


@pytest.mark.parametrize("given", [99, 101, 111])
def test_frames_that_nobody_counted_are_found(imported, given):
    """The source's own count is not the feed's: frames lost on the way are no captured ones, so the two differ."""
    run = Recorded(imported)
    for number in range(100):
        run.answer(number)
    run.source.given = given
    assert run.verdicts()["counted"] is False


def test_nothing_at_all_is_a_missed_goal_and_no_crash(imported):
    """A stream without an answer."""
    run = Recorded(imported, given=0)
    assert run.verdicts()["current"] is False
    assert run.stream.percentiles(np.array([])) == {"samples": 0}


def test_missed_goals_are_counted(imported, capsys):
    """Each has its line; one that cannot be judged is none."""
    verdicts = {"current": False, "bounded": None, "counted": True}
    document = {"bundle": "x", "alone": {"verdicts": verdicts}, "faults": {"killed": {"verdicts": {"back_in_time": False}}}}
    assert imported("stream").tell(document) == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines if line.startswith(("alone", "faults"))] == ["MISSED", "short)", "met", "MISSED"]


def test_memory_is_that_of_every_process_below(imported):
    """A child counts, and a foreign one does not; growth is judged by what they hold of their own."""
    parts = imported("stream_parts")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert child.pid in parts.below(os.getpid())
        both, alone = parts.used_mib([]), parts.used_mib([child.pid])
        assert both[2] == alone[2] + 1
        assert both[0] > alone[0]
        child.communicate(b"\n")
    grown = parts.growth([(float(at), 100 + 0.5 * at, 0.0, 2) for at in range(50)])
    assert not grown["bounded"]
    assert grown["slope"]["mib_an_hour"] == pytest.approx(1800)
    # Shared pages move with the neighbours.
    assert parts.growth([(float(at), 100.0, 100.0 + at, 2) for at in range(50)])["bounded"]


def test_answers_that_cannot_be_told_apart_are_refused(imported):
    """Else every answer would be its own frame's."""
    parts = imported("stream_parts")
    same = SimpleNamespace(manifest=SimpleNamespace(state=None), predict=lambda _, **_options: SimpleNamespace(logits={"a": 1.0, "b": 2.0}))
    with pytest.raises(DataError, match="alike"):
        parts.Told.by(same, [np.zeros((2, 2), np.uint8)] * 3)
    same.manifest.state = object()
    with pytest.raises(DataError, match="recurrent"):
        parts.Told.by(same, [])


def test_the_padding_is_work_and_not_a_pause(imported):
    """CPU time of the thread that answers, so other work makes it longer."""
    clip = SimpleNamespace(predict=lambda _frame, **_: "answer")
    padded = imported("padded_runtime").PaddedClip(clip, 20.0)
    before = time.thread_time()
    assert padded.predict(None) == "answer"
    assert math.isclose(time.thread_time() - before, 0.02, abs_tol=0.01)
