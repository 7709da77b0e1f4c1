"""What the commands print with: one line an error, aligned tables, JSON that any parser reads, a bar on a terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest

from edgekit import errors
from edgekit.cli import console
from edgekit.errors import BundleError, EdgekitError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EdgekitError)]


def test_an_error_is_one_line_and_a_hint_is_one_line(capfd):
    """Line breaks and control characters of names and of libraries' messages are spelled out."""
    console.report_error(BundleError("a\nb\x1b[2Jc\x85d\u202ee", hint="do\r\nthis\x07"))
    assert capfd.readouterr().err == "error: a b\\x1b[2Jc d\\u202ee\nhint: do this\\x07\n"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in (EdgekitError, errors.AcceptanceError)])
def test_every_kind_of_error_has_a_hint(kind, capfd):
    """An error without a hint of its own gets that of its kind: who must act, and how."""
    console.report_error(kind("x"))
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "error: x"
    assert lines[1].startswith("hint: ")
    assert len(lines) == 2


def test_a_hint_of_its_own_is_kept(capfd):
    """The kind's hint does not replace the error's own."""
    console.report_error(BundleError("x", hint="try y"))
    assert capfd.readouterr().err == "error: x\nhint: try y\n"


def test_signs_that_print_are_kept(capfd):
    """Umlauts, arrows and other scripts are no control characters."""
    console.say("é → 480 × 640 肺\x1b[1m")
    console.tell("a\nb")
    found = capfd.readouterr()
    assert (found.out, found.err) == ("é → 480 × 640 肺\\x1b[1m\n", "a\nb\n")


def test_json_is_ascii_and_complete(capfd):
    """A document comes back as it was, also with other scripts and names that are no text; it is one line where lines are wanted."""
    document = {"label": "肺", "name": "\udcff.png", "none": None, "list": [1, 2.5]}
    console.print_json(document, line=True)
    line = capfd.readouterr().out
    assert line.isascii()
    assert line.count("\n") == 1
    assert json.loads(line) == document
    console.print_json(document)
    assert json.loads(capfd.readouterr().out) == document


def test_json_never_has_nan():
    """NaN is no JSON: it is a defect of the caller, not something a script has to cope with."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        console.print_json({"x": float("nan")})


def test_tables_are_aligned():
    """Words to the left, figures to the right, no spaces at the end."""
    rows = [("auc", "0.9", "1"), ("accuracy", "0.875", "10")]
    assert console.table(rows, header=("", "value", "n")) == "          value   n\nauc         0.9   1\naccuracy  0.875  10"
    assert console.table([("a", "bb", "c")], header=("name", "x", ""), words=3) == "name  x\na     bb  c"


@pytest.mark.parametrize(
    ("item", "shown"),
    [
        ({"value": 0.9427, "low": 0.9, "high": 0.97}, "0.943 (0.900–0.970)"),
        ({"value": 0.5, "low": None, "high": None}, "0.500"),
        ({"value": None, "low": None, "high": None}, "undefined"),
        ({"value": 0.0, "low": 0.0, "high": 0.0}, "0.000 (0.000–0.000)"),
    ],
)
def test_figures(item, shown):
    """A figure shows its interval where it has one, and says when it is undefined."""
    assert console.figure(item) == shown


def test_progress_elsewhere_is_a_line_a_stage(capfd):
    """Where stderr is no terminal, each stage is one line when it is finished; steps print nothing."""
    progress = console.TerminalProgress()
    progress.begin("load", cached=False)
    progress.step(1, 2)
    progress.note("unwrapped")
    progress.end()
    progress.begin("explain", cached=True)
    progress.end()
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "  note: unwrapped"
    assert lines[1].split() == ["load", "0.0", "s"]
    assert lines[2].split() == ["explain", "(cached)", "0.0", "s"]


DRAWN = """
import time
from edgekit.cli.console import TerminalProgress, report_error
from edgekit.errors import DataError
progress = TerminalProgress()
progress.begin("frames", cached=False)
progress.step(1, 4)
time.sleep(0.12)
progress.step(2, 4)
report_error(DataError("x.png is damaged", hint="copy it again"))
"""


def test_progress_on_a_terminal_is_a_bar_that_an_error_replaces():
    """On a terminal a bar is drawn in place, and an error never stands behind half a bar."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", DRAWN], stderr=theirs)
    os.close(theirs)
    drawn = b""
    try:
        while part := os.read(ours, 4096):
            drawn += part
    except OSError:  # Linux: the other side was closed
        pass
    assert process.wait() == 0
    os.close(ours)
    text = drawn.decode()
    assert "[████████████············] 2/4" in text
    assert "s left" in text
    # What is left on each line after the last clearing of it.
    lines = [line.rpartition("\r\x1b[2K")[2] for line in text.replace("\r\n", "\n").split("\n")]
    assert lines == ["error: x.png is damaged", "hint: copy it again", ""]
