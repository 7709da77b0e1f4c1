"""What every command prints with: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgekit.errors import EdgekitError

_BAR_WIDTH = 24
_REDRAW_SECONDS = 0.1


def print_json(document: Mapping[str, Any], *, line: bool = False) -> None:
    """One JSON document on stdout; `line` puts it on one line, for JSON Lines. NaN is never written."""
    sys.stdout.write(json.dumps(document, indent=None if line else 2, ensure_ascii=False, allow_nan=False) + "\n")
    sys.stdout.flush()


def say(text: str = "") -> None:
    """A line for people, on stdout."""
    sys.stdout.write(text + "\n")


def tell(text: str) -> None:
    """A line about the work itself, on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def report_error(error: EdgekitError) -> None:
    """One message and one hint, on stderr."""
    tell(f"error: {error.message}")
    if error.hint:
        tell(f"hint: {error.hint}")


def table(rows: Iterable[Sequence[str]], *, header: Sequence[str]) -> str:
    """Columns aligned with spaces; the first one to the left, the others to the right."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    shown = []
    for line in lines:
        cells = [line[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        shown.append("  ".join(cells).rstrip())
    return "\n".join(shown)


def figure(item: Mapping[str, Any]) -> str:
    """A figure with its interval: `0.943 (0.912–0.967)`, or `undefined`."""
    if item["value"] is None:
        return "undefined"
    if item["low"] is None or item["high"] is None:
        return f"{item['value']:.3f}"
    return f"{item['value']:.3f} ({item['low']:.3f}–{item['high']:.3f})"


class TerminalProgress:
    """Draws the stages of a compile on stderr: a bar on a terminal, a line a stage elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._stage = ""
        self._started = 0.0
        self._drawn = 0.0

    def begin(self, stage: str, *, cached: bool) -> None:
        self._stage = f"{stage} (cached)" if cached else stage
        self._started = time.monotonic()
        self._drawn = 0.0
        if self._terminal:
            self._draw("")

    def step(self, done: int, total: int) -> None:
        now = time.monotonic()
        if not self._terminal or (now - self._drawn < _REDRAW_SECONDS and done < total):
            return
        self._drawn = now
        filled = _BAR_WIDTH * done // max(1, total)
        elapsed = now - self._started
        left = elapsed / done * (total - done) if done else 0.0
        self._draw(f"[{'█' * filled}{'·' * (_BAR_WIDTH - filled)}] {done}/{total}  {left:.0f} s left")

    def note(self, text: str) -> None:
        self._clear()
        tell(f"  note: {text}")

    def end(self) -> None:
        self._clear()
        tell(f"  {self._stage:<44} {time.monotonic() - self._started:7.1f} s")

    def _draw(self, text: str) -> None:
        sys.stderr.write(f"\r\x1b[2K  {self._stage:<44} {text}")
        sys.stderr.flush()

    def _clear(self) -> None:
        if self._terminal:
            sys.stderr.write("\r\x1b[2K")
