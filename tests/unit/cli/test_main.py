"""The one place that catches errors: exit codes, and what is said of defects, full pipes and memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import typer
from command_line import assert_refused, edgekit, edgekit_process
from device_bundles import frame, write_device_bundle
from PIL import Image

from edgekit import errors
from edgekit.cli import main as module
from edgekit.cli.main import COMMANDS
from edgekit.errors import EdgekitError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EdgekitError)]


@pytest.fixture
def failing(monkeypatch):
    """Makes `edgekit doctor` raise what a test wants."""

    def fail_with(error):
        app = typer.Typer()

        def doctor():
            raise error

        app.command()(doctor)
        app.command(name="other")(lambda: None)
        monkeypatch.setattr(module, "app", app)

    return fail_with


@pytest.mark.parametrize("kind", KINDS)
def test_the_exit_code_is_the_kinds(kind, failing, capfd):
    """Every kind of error ends with its own code, one message and its hint."""
    failing(kind("it broke", hint="mend it"))
    ran = edgekit(capfd, "doctor")
    assert_refused(ran, "it broke", code=kind.exit_code)
    assert ran.err == "error: it broke\nhint: mend it\n"


def test_the_codes_of_the_contract():
    """3 is the acceptance gate, 4 a regression, everything else 1."""
    codes = {kind.__name__: kind.exit_code for kind in KINDS}
    assert {name for name, code in codes.items() if code != 1} == {"AcceptanceError", "RegressionError"}
    assert (codes["AcceptanceError"], codes["RegressionError"]) == (3, 4)


def test_a_defect_is_said_to_be_one(failing, capfd):
    """An error that is not edgekit's is reported as a defect, in one line, without a traceback."""
    failing(KeyError("bin"))
    ran = edgekit(capfd, "doctor")
    assert (ran.code, ran.out) == (1, "")
    assert ran.starting("error:") == ["error: internal error: KeyError: 'bin'"]
    assert "defect of edgekit" in ran.starting("hint:")[0]
    assert "Traceback" not in ran.err


def test_a_defect_can_be_debugged(failing, monkeypatch, capfd):
    """With EDGEKIT_DEBUG the traceback comes out."""
    monkeypatch.setenv("EDGEKIT_DEBUG", "1")
    failing(KeyError("bin"))
    with pytest.raises(KeyError):
        edgekit(capfd, "doctor")


def test_too_little_memory_is_no_defect(failing, capfd):
    """A MemoryError is said in words a user can act on."""
    failing(MemoryError())
    assert_refused(edgekit(capfd, "doctor"), "not enough memory")


def test_every_command_has_help(capfd):
    """Each command explains itself and each of its options, and needs no library to do so."""
    for command in COMMANDS:
        ran = edgekit(capfd, command, "-h")
        assert (ran.code, ran.err) == (0, "")
        assert f"Usage: edgekit {command}" in ran.out
        assert "None" not in ran.out


def test_the_commands_of_the_contract():
    """The names that scripts depend on are there."""
    assert set(COMMANDS) >= {"init", "compile", "run", "evaluate", "profile", "inspect", "verify", "targets", "doctor", "demo"}


def test_a_reader_that_goes_away(tmp_path):
    """`edgekit run … | head -1` ends quietly."""
    bundle = write_device_bundle(tmp_path / "x.edgekit")
    Image.fromarray(frame()).save(tmp_path / "x.png")
    process = subprocess.Popen(
        [sys.executable, "-m", "edgekit", "run", bundle, *[tmp_path / "x.png"] * 2000, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline().startswith(b'{"input"')
    process.stdout.close()
    told = process.stderr.read().decode()
    assert process.wait(timeout=60) == 1
    assert "Traceback" not in told
    assert "error" not in told


@pytest.mark.parametrize(("command", "more"), [("compile", "; the same command goes on where it stopped"), ("run", "")])
def test_signals_unwind(command, more, monkeypatch, capfd):
    """A signal ends the command with the shell's code, after what was open has been cleaned up."""
    cleaned = []
    app = typer.Typer()

    def work():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            cleaned.append(True)

    app.command(name=command)(work)
    app.command(name="other")(lambda: None)
    monkeypatch.setattr(module, "app", app)
    before = signal.signal(signal.SIGTERM, module._stop)
    try:
        ran = edgekit(capfd, command)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ran.code == 143
    assert cleaned == [True]
    assert ran.err == f"interrupted{more}\n"


def test_a_terminal_without_the_signs(tmp_path):
    """Where stdout is ASCII, and where a file's name is no text, answers still come out, and JSON is the same."""
    bundle = write_device_bundle(tmp_path / "x.edgekit")
    name = os.fsdecode(b"\xff\xe9.png")
    Image.fromarray(frame()).save(tmp_path / "x.png")
    (tmp_path / "x.png").rename(tmp_path / name)
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    ran = edgekit_process("run", bundle, tmp_path / name, "--overlay", tmp_path / "maps", environment=ascii_only)
    assert ran.code == 0, ran.err
    assert "\\udcff" in ran.out
    ran = edgekit_process("run", bundle, tmp_path / name, "--json")
    assert ran.document["input"] == str(tmp_path / name)
