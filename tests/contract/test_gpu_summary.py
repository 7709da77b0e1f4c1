"""The summary of a run on a GPU: it is printed, and it hides nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import gpu_summary
import pytest
import repository
from gpu_summary import Line


@pytest.fixture
def machine(monkeypatch):
    """A machine that is always the same."""
    monkeypatch.setattr(gpu_summary, "machine", lambda: ["- GPU: one"])


def test_a_row_a_test_and_a_row_a_reason(machine):
    """What ran has a row of its own with what was measured; what was skipped for one reason is counted in one."""
    lines = [
        Line(test="a.py::one", outcome="passed", told="replays: 1000"),
        Line(test="a.py::two", outcome="failed", told="a | b"),
        Line(test="a.py::three", outcome="skipped", told="needs pycuda"),
        Line(test="a.py::four", outcome="skipped", told="needs pycuda"),
        Line(test="b.py::five", outcome="skipped", told="needs pycuda"),
    ]
    assert gpu_summary.summary(lines)[2:] == [
        "- GPU: one",
        "- 1 passed, 1 failed, 3 skipped",
        "",
        "| test | outcome | measured, or why |",
        "|---|---|---|",
        "| `a.py::one` | PASSED | replays: 1000 |",
        "| `a.py::two` | FAILED | a / b |",
        "| `a.py` (2 tests) | SKIPPED | needs pycuda |",
        "| `b.py` | SKIPPED | needs pycuda |",
    ]


@pytest.mark.parametrize(
    ("longrepr", "expected"),
    [
        (("file.py", 7, "Skipped: needs pycuda: no module"), "needs pycuda: no module"),
        ("def test():\n>   assert 1 == 2\nE   assert 1 == 2\nE    +  where\nfile.py:3: AssertionError", "assert 1 == 2"),
        ("Interrupted", "Interrupted"),
    ],
)
def test_why(longrepr, expected):
    """A skip tells its reason, a failure its assertion."""
    assert gpu_summary.reason(longrepr) == expected


def test_a_run_ends_with_it():
    """With a GPU or without one, `pytest tests/gpu` ends with the machine, the counts and the reason of each skip."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-k", "facts", "tests/gpu"]
    ended = subprocess.run(command, cwd=repository.ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    told = ended.stdout[ended.stdout.index("### edgekit on an NVIDIA GPU") :]
    assert re.search(r"^- GPU: \S", told, re.MULTILINE)
    counts = [int(number) for number in re.search(r"^- (\d+) passed, (\d+) failed, (\d+) skipped$", told, re.MULTILINE).groups()]
    assert sum(counts) == 2
    assert ended.returncode == (1 if counts[1] else 0)
    assert re.search(r"^\| `test_cuda_layer\.py.*\| (PASSED|FAILED|SKIPPED) \| \S.* \|$", told, re.MULTILINE)
