"""Runs the command line in tests, in this process or as a user's shell does, and says what a refusal must look like."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgekit.cli.main import main


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What a command left on the terminal."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on stdout; anything before or after it fails."""
        document: dict[str, Any] = json.loads(self.out)
        return document

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The JSON Lines on stdout."""
        return [json.loads(line) for line in self.out.splitlines()]

    def starting(self, start: str) -> list[str]:
        """The lines on stderr that begin with `start`."""
        return [line for line in self.err.splitlines() if line.startswith(start)]


def edgekit(capfd: pytest.CaptureFixture[str], *arguments: object) -> Ran:
    """Runs a command in this process."""
    capfd.readouterr()
    code = main([str(argument) for argument in arguments])
    sys.stdout.flush()
    sys.stderr.flush()
    found = capfd.readouterr()
    return Ran(code=code, out=found.out, err=found.err)


def edgekit_process(
    *arguments: object, cwd: Path | None = None, environment: Mapping[str, str] | None = None, before: Sequence[str] = ()
) -> Ran:
    """Runs a command in a fresh interpreter.

    Args:
        arguments: Of the command.
        cwd: Working directory.
        environment: Added to this one's.
        before: Lines of Python that are run first, for example to take a library away.
    """
    code = "\n".join([*before, "from edgekit.cli.main import run_command_line", "run_command_line()"])
    ran = subprocess.run(
        [sys.executable, "-c", code, *[str(argument) for argument in arguments]],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        timeout=300,
        check=False,
    )
    return Ran(code=ran.returncode, out=ran.stdout, err=ran.stderr)


def assert_refused(ran: Ran, says: str, *, code: int = 1) -> None:
    """A refusal: the exit code, one line `error:` that says what is wrong, one line `hint:`, and no traceback."""
    assert ran.code == code, ran.err
    errors, hints = ran.starting("error:"), ran.starting("hint:")
    assert len(errors) == 1, ran.err
    assert says in errors[0]
    assert len(hints) == 1, ran.err
    assert len(hints[0]) > len("hint: ")
    assert "Traceback" not in ran.err + ran.out
    assert "internal error" not in ran.err


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, with its content: to show that nothing was left behind or changed."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
