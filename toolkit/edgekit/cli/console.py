"""What every command prints with: results on stdout, everything else on stderr.

An error is one line and a hint is one line, whatever a file's name or a library's message holds: control characters are spelled out, so a name can
neither forge a second line nor write on the operator's terminal.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO

from edgekit.errors import (
    BundleError,
    CatalogError,
    DataError,
    EdgekitError,
    MissingEngineError,
    ModelError,
    NotFiniteError,
    OutputError,
    RegressionError,
    TargetError,
)

_BAR_WIDTH = 24
_REDRAW_SECONDS = 0.1
_LINE_SECONDS = 15.0
_CLEAR_LINE = "\r\x1b[2K"

# For an error that has no better one: who must act is its kind.
_HINTS: Mapping[type[EdgekitError], str] = {
    BundleError: "copy the original bundle again, or compile it again",
    CatalogError: "edit the file that is named",
    DataError: "check the file or value that is named, or leave it out",
    MissingEngineError: "edgekit doctor shows what is missing and how to get it",
    ModelError: "check [model] and [input] of the recipe, and the weights",
    OutputError: "choose another place for the result",
    RegressionError: "look at what changed; on a machine that was busy, measure again",
    TargetError: "edgekit doctor shows what this machine can run",
    NotFiniteError: "edgekit verify BUNDLE compares the model with its golden frames",
}


def print_json(document: Mapping[str, Any], *, line: bool = False) -> None:
    """One JSON document on stdout, in ASCII; `line` puts it on one line, for JSON Lines. NaN is never written."""
    _write(json.dumps(document, indent=None if line else 2, allow_nan=False) + "\n", flush=True)


@contextlib.contextmanager
def only_a_document() -> Iterator[None]:
    """Sends to stderr what the user's own code or a library prints while a command works, so that stdout holds the document alone."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def say(text: str = "", *, flush: bool = False) -> None:
    """A line for people, on stdout; `flush` where it must be seen at once, also through a pipe."""
    _write(_printable(text) + "\n", flush=flush)


def _write(text: str, *, flush: bool) -> None:
    """On stdout; errors as in `flush_stdout`, and where it is closed."""
    stdout: TextIO | None = sys.stdout
    if stdout is None:  # what Python makes of a descriptor that was closed before the start
        raise OutputError("stdout is closed, so results cannot be printed", hint="leave it open, or send it to a file")
    with _full_is_an_error():
        stdout.write(text)
    if flush:
        flush_stdout()


def flush_stdout() -> None:
    """Writes what waits in the buffer.

    Raises:
        OutputError: Its disk is full.
        BrokenPipeError: Whoever read it has gone; the command line ends quietly then.
    """
    stdout: TextIO | None = sys.stdout
    if stdout is not None:
        with _full_is_an_error():
            stdout.flush()


@contextlib.contextmanager
def _full_is_an_error() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        give_up_stdout()
        raise OutputError(f"stdout cannot be written: {error.strerror or error}", hint="is the disk full?") from error


def give_up_stdout() -> None:
    """Sends what is still in its buffer nowhere: at its end Python would try to write that again, and fail again."""
    stdout: TextIO | None = sys.stdout
    with contextlib.suppress(OSError, ValueError, AttributeError), open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - not a path of ours
        os.dup2(nowhere.fileno(), stdout.fileno() if stdout is not None else 1)


def tell(text: str) -> None:
    """A line about the work itself, on stderr; on a terminal it takes the place of a bar that was not finished."""
    sys.stderr.write((_CLEAR_LINE if sys.stderr.isatty() else "") + _printable(text) + "\n")
    sys.stderr.flush()


def report_error(error: EdgekitError) -> None:
    """One message and one hint, on stderr."""
    tell("error: " + " ".join(error.message.splitlines()))
    hint = error.hint or _HINTS.get(type(error), "")
    if hint:
        tell("hint: " + " ".join(hint.splitlines()))


def table(rows: Iterable[Sequence[str]], *, header: Sequence[str], words: int = 1) -> str:
    """Columns aligned with spaces; the first `words` of them to the left, the others, which are figures, to the right."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    shown = []
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line[:words], widths[:words], strict=True)]
        cells += [cell.rjust(width) for cell, width in zip(line[words:], widths[words:], strict=True)]
        shown.append("  ".join(cells).rstrip())
    return "\n".join(shown)


def figure(item: Mapping[str, Any]) -> str:
    """A figure with its interval: `0.943 (0.912–0.967)`, or `undefined`."""
    if item["value"] is None:
        return "undefined"
    if item["low"] is None or item["high"] is None:
        return f"{item['value']:.3f}"
    return f"{item['value']:.3f} ({item['low']:.3f}–{item['high']:.3f})"


def _printable(text: str) -> str:
    return "".join(sign if sign.isprintable() or sign == "\n" else ascii(sign)[1:-1] for sign in text)


class TerminalProgress:
    """Draws the stages of a compile on stderr: a bar on a terminal; elsewhere a line a stage, and one every quarter of a minute."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._stage = ""
        self._started = self._pass_started = 0.0
        self._drawn = 0.0
        self._done = 0

    def begin(self, stage: str, *, cached: bool) -> None:
        self._stage = f"{stage} (cached)" if cached else stage
        self._started = self._pass_started = time.monotonic()
        self._drawn = 0.0 if self._terminal else self._started
        self._done = 0
        if self._terminal:
            self._draw("")

    def step(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done < self._done:  # another pass over the same frames
            self._pass_started = now
        self._done = done
        if now - self._drawn < (_REDRAW_SECONDS if self._terminal else _LINE_SECONDS) and (done < total or not self._terminal):
            return
        self._drawn = now
        if not self._terminal:
            tell(f"  {self._stage:<44} {done}/{total}")
            return
        filled = _BAR_WIDTH * done // max(1, total)
        elapsed = now - self._pass_started
        left = elapsed / done * (total - done) if done else 0.0
        self._draw(f"[{'█' * filled}{'·' * (_BAR_WIDTH - filled)}] {done}/{total}  {left:.0f} s left")

    def note(self, text: str) -> None:
        tell(f"  note: {text}")

    def end(self) -> None:
        tell(f"  {self._stage:<44} {time.monotonic() - self._started:7.1f} s")

    def _draw(self, text: str) -> None:
        sys.stderr.write(f"{_CLEAR_LINE}  {self._stage:<44} {text}")
        sys.stderr.flush()
