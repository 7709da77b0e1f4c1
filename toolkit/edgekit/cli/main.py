"""The command line: one module a command; this one puts them together and is the one place that catches errors and sets exit codes.

Exit codes: 0 done; 1 an edgekit error (one clear message, a hint, no traceback); 2 usage; 3 refused by the acceptance gate; 4 a limit or comparison found
a regression; 129 the terminal was closed, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable, Mapping
from types import FrameType

import typer

from edgekit import __version__
from edgekit.cli import build, check, demo, doctor, evaluate, init, inspect, profile, run, targets, verify
from edgekit.cli import compile as compile_command
from edgekit.cli.console import flush_stdout, give_up_stdout, report_error, tell
from edgekit.errors import EdgekitError

HUNG_UP, INTERRUPTED, TERMINATED = 129, 130, 143

# All unwind the stack, so that nothing half-written stays; the code is the shell's own, 128 + the signal.
_STOPPED = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}
if hasattr(signal, "SIGHUP"):
    _STOPPED[signal.SIGHUP] = HUNG_UP

app = typer.Typer(
    name="edgekit",
    help="Compile a trained medical image classifier into a proven device bundle, run it without PyTorch, and measure it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS: Mapping[str, Callable[..., None]] = {
    "init": init.init,
    "compile": compile_command.compile_,
    "run": run.run,
    "evaluate": evaluate.evaluate,
    "profile": profile.profile,
    "inspect": inspect.inspect,
    "verify": verify.verify,
    "check": check.check,
    "build": build.build,
    "targets": targets.targets,
    "doctor": doctor.doctor,
    "demo": demo.demo,
}
for name, command in COMMANDS.items():
    app.command(name=name)(command)


@app.callback(invoke_without_command=True)
def _options(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        typer.echo(f"edgekit {__version__}")
        raise typer.Exit


def run_command_line() -> None:
    """The console script."""
    for number in _STOPPED:
        # nohup has it ignored, and means it.
        if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    # A name of a file that is no text, or a terminal that has no such sign, must not end the work.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    code = main(sys.argv[1:])
    try:
        flush_stdout()
    except EdgekitError as error:
        report_error(error)
        code = code or error.exit_code
    except BrokenPipeError:
        give_up_stdout()
        code = code or 1
    sys.exit(code)


def main(arguments: list[str]) -> int:
    """Runs one command and returns its exit code; prints every error as one message and a hint."""
    try:
        app(args=arguments, prog_name="edgekit", standalone_mode=True)
    except _Stopped as stop:
        tell("interrupted" + ("; the same command goes on where it stopped" if arguments[:1] == ["compile"] else ""))
        return stop.code
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except EdgekitError as error:
        report_error(error)
        return error.exit_code
    except MemoryError as error:
        report_error(EdgekitError("this machine has not enough memory for that", hint=f"{error}" or "try fewer or smaller inputs"))
        return 1
    except Exception as error:
        if os.environ.get("EDGEKIT_DEBUG"):
            raise
        report_error(
            EdgekitError(
                f"internal error: {type(error).__name__}: {error}",
                hint="this is a defect of edgekit; run it again with EDGEKIT_DEBUG=1 and report the traceback",
            )
        )
        return 1
    return 0


class _Stopped(BaseException):
    """A signal; no `except` of a model's own code or of a library catches it."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code


def _stop(number: int, _frame: FrameType | None) -> None:
    # Nothing is written here: the interrupted code may be in the middle of writing to the same stream.
    raise _Stopped(_STOPPED[signal.Signals(number)])
