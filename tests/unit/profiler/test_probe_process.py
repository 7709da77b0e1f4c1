"""Builds in a process of their own: what comes back from one that answers, and from one that does not."""

from __future__ import annotations

import sys

import pytest

from edgekit.profiler.probe_process import MARK, probe_apart

PYTHON = (sys.executable, "-c")
ANSWER = '{"probes": [{"precision": "fp32", "status": "PASS", "seconds": 0.5, "reason": ""}], "dla_cores": 2}'


def statuses(found):
    return {(one.precision, one.status) for one in found.probes}


EVERY_FAIL = {("fp32", "FAIL"), ("fp16", "FAIL"), ("int8", "FAIL")}


def test_without_tensorrt_the_real_process_says_so():
    """The process that is started by default answers; without TensorRT every precision is NOT RUN with the reason."""
    found = probe_apart()
    assert statuses(found) == {("fp32", "NOT RUN"), ("fp16", "NOT RUN"), ("int8", "NOT RUN")}
    assert "TensorRT cannot be loaded" in found.probes[0].reason


def test_nothing_of_the_working_folder_is_executed(tmp_path, monkeypatch):
    """A file that lies where the command is started and is named like a module that the process imports is not that module."""
    for name in ("json", "edgekit", "tensorrt", "numpy"):
        (tmp_path / f"{name}.py").write_text("import pathlib; pathlib.Path(__file__).with_suffix('.executed').touch()")
    monkeypatch.chdir(tmp_path)
    assert "TensorRT cannot be loaded" in probe_apart().probes[0].reason
    assert list(tmp_path.glob("*.executed")) == []


def test_an_answer_among_a_librarys_words():
    """What libraries print around the answer is not taken for it."""
    found = probe_apart([*PYTHON, f"print('[TRT] hello'); print('{MARK}' + '''{ANSWER}'''); print('bye')"])
    assert (statuses(found), found.probes[0].seconds, found.dla_cores) == ({("fp32", "PASS")}, 0.5, 2)


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("import os; os.abort()", "ended its process (signal 6)"),
        ("import os; os.kill(os.getpid(), 11)", "ended its process (signal 11)"),
        ("raise SystemExit(3)", "ended its process (exit status 3)"),
        (f"print('{MARK}' + '''{ANSWER}'''); import os, sys; sys.stdout.flush(); os.abort()", "(signal 6)"),
        ("print('nothing')", "gave no answer"),
        (f"print('{MARK}' + '{{')", "gave no answer"),
        (f"print('{MARK}' + '{{\"probes\": 1}}')", "gave no answer"),
    ],
)
def test_a_process_that_does_not_answer_fails_every_precision(program, says):
    """A crash inside a library, at whatever moment, is FAIL with how it ended, and nothing is raised."""
    found = probe_apart([*PYTHON, program])
    assert statuses(found) == EVERY_FAIL
    assert all(says in one.reason for one in found.probes)
    assert found.dla_cores is None


def test_a_process_that_hangs_is_ended():
    """A build that does not end is FAIL after the time that it has."""
    found = probe_apart([*PYTHON, "import time; time.sleep(60)"], timeout_s=0.5)
    assert (statuses(found), found.probes[0].reason) == (EVERY_FAIL, "the build did not end within 0.5 s")


def test_a_process_that_cannot_be_started():
    """Where there is no interpreter, that is told."""
    assert "no process could be started" in probe_apart(["/nowhere/python"]).probes[0].reason
