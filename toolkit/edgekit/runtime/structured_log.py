"""A log of what happens to a stream, for the people who look after the device: JSON Lines, one event a line.

```python
log = EventLog.to_file(Path("stream.jsonl"))
health = Health(events=log.record)        # steps of the ladder, restarts and errors are logged by themselves
log.started(bundle_digest=…, engine=…)
…
log.stopped(health.snapshot())
log.close()
```

Rules this file keeps:

1. Nothing about a patient gets in, because nothing free gets in: an event is one of `EVENTS` with the facts listed there; a fact is a number, a digest or the name of a
   kind (`health.kind_name`). No file names, no messages of errors, no frames, no labels, no probabilities. Whatever else comes is written as "other".
2. It stays small: a file of at most `MAX_BYTES` and `KEPT` older ones; an error that repeats is one line a kind in `REPEAT_S`, with how often it came.
3. A file has one writer: another run that is given the same one is refused, because the two would move it away from each other.
4. A log that cannot be written does not stop the stream: how many lines were lost, and why, is in `lost` and `problem`, to be said at the end.
5. Times are UTC, to the millisecond.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from edgekit import __version__
from edgekit.errors import OutputError
from edgekit.runtime.health import OTHER, HealthSnapshot, kind_name

MAX_BYTES = 1 << 20
KEPT = 3
REPEAT_S = 10.0

EVENTS: dict[str, tuple[str, ...]] = {
    "start": ("bundle", "edgekit", "engine"),
    "engine": ("before", "engine"),
    "step": ("before", "step"),
    "restart": ("reason",),
    "error": ("kind", "count"),
    "stop": ("captured", "processed", "dropped", "late", "not_assessable", "failed", "degraded", "restarts", "uptime_s"),
}
"""Name of an event to the facts it has."""

# Facts that are no kinds.
_FORMS = {"bundle": re.compile(r"[0-9a-f]{64}"), "edgekit": re.compile(r"[0-9]+(?:\.[0-9a-z+]{1,12}){0,4}")}


class EventLog:
    """Writes events. Thread-safe.

    Args:
        handler: Where they go; it is closed with the log.
        clock: Seconds that never go back, for what repeats.
    """

    def __init__(self, handler: logging.Handler, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._handler, self._clock = handler, clock
        self._handler.setFormatter(JsonLines())
        # Not one of logging's named loggers: nobody else's settings or messages reach it, and its events reach nobody else.
        self._logger = logging.Logger("edgekit.events")  # noqa: LOG001 - as said
        self._logger.addHandler(handler)
        self._lock = threading.Lock()
        self._engine = ""
        self._repeated: dict[str, tuple[float, int]] = {}

    @classmethod
    def to_file(cls, path: Path, *, max_bytes: int = MAX_BYTES, kept: int = KEPT) -> EventLog:
        """A log in a file, added to what is there; older ones are `path.1`, `path.2` and so on.

        Args:
            path: The file.
            max_bytes: Its size, at most.
            kept: Number of older ones.

        Raises:
            OutputError: It cannot be written.
        """
        try:
            return cls(_File(path, maxBytes=max_bytes, backupCount=kept, encoding="utf-8"))
        except OSError as error:
            why = "another run is writing it" if isinstance(error, BlockingIOError) else error.strerror or error
            raise OutputError(f"the log {path} cannot be written: {why}", hint="choose another file") from error

    @property
    def lost(self) -> int:
        """Number of lines that could not be written."""
        return self._handler.lost if isinstance(self._handler, _File) else 0

    @property
    def problem(self) -> str:
        """Why the last of them could not; empty where all could."""
        return self._handler.problem if isinstance(self._handler, _File) else ""

    def started(self, *, bundle_digest: str, engine: str) -> None:
        """A stream begins.

        Args:
            bundle_digest: sha256 of the bundle that answers.
            engine: Name of the engine.
        """
        self._engine = engine
        self._write("start", {"bundle": bundle_digest, "edgekit": __version__, "engine": engine})

    def engine(self, name: str) -> None:
        """An engine answered; logged where it is another one than before."""
        if name != self._engine:
            self._write("engine", {"before": self._engine, "engine": name})
            self._engine = name

    def record(self, event: str, facts: Mapping[str, str]) -> None:
        """What `Health` tells: "step", "restart" and "error"."""
        if event == "error":
            self._error(facts.get("kind", OTHER))
        else:
            self._write(event, facts)

    def stopped(self, snapshot: HealthSnapshot) -> None:
        """A stream has ended; its counters."""
        with self._lock:
            open_kinds = {kind: count for kind, (_, count) in self._repeated.items() if count}
            self._repeated.clear()
        for kind, count in open_kinds.items():
            self._write("error", {"kind": kind, "count": count})
        self._write("stop", {name: getattr(snapshot, name) for name in EVENTS["stop"]})

    def close(self) -> None:
        """Ends the log; again does nothing."""
        self._logger.removeHandler(self._handler)
        self._handler.close()

    def _error(self, kind: str) -> None:
        """The first one at once, those after it together (rule 2)."""
        now = self._clock()
        with self._lock:
            written_s, count = self._repeated.get(kind, (-REPEAT_S, 0))
            if now - written_s < REPEAT_S:
                self._repeated[kind] = written_s, count + 1
                return
            self._repeated[kind] = now, 0
        self._write("error", {"kind": kind, "count": count + 1})

    def _write(self, event: str, facts: Mapping[str, object]) -> None:
        known = EVENTS.get(event, ())
        kept = {name: _safe(name, facts[name]) for name in known if name in facts}
        self._logger.info(event if event in EVENTS else OTHER, extra={"facts": kept})


def _safe(name: str, value: object) -> object:
    """A fact as it may be written (rule 1)."""
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return round(value, 3)
    text = str(value)
    return text if name in _FORMS and _FORMS[name].fullmatch(text) else kind_name(text)


class JsonLines(logging.Formatter):
    """One event a line: time, event, facts."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        at = datetime.fromtimestamp(record.created, tz=timezone.utc).isoformat(timespec="milliseconds")
        facts: Mapping[str, Any] = getattr(record, "facts", {})
        return json.dumps({"time": at.replace("+00:00", "Z"), "event": record.msg, **facts}, allow_nan=False)


class _File(RotatingFileHandler):
    """A file that counts what it could not write, instead of printing a traceback a line."""

    lost, problem = 0, ""

    def _open(self) -> TextIOWrapper:
        """Opens it for this writer alone (rule 3); the lock goes with the descriptor, however the process ends."""
        import fcntl

        stream = super()._open()
        try:
            fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            stream.close()
            raise
        return stream

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - the base class's signature
        """Called in the middle of an exception."""
        import sys

        error = sys.exc_info()[1]
        self.lost += 1
        self.problem = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
