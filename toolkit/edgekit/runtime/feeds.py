"""How frames get from a source to the stream that answers them: every one in order, or the latest alone.

Rules this file keeps:

1. Every frame is told when it was captured: when the source gave it, by a monotonic clock and by UTC. What happened to it before, in a cable or in a driver, is not known.
2. `EveryFeed` reads a frame when it is asked for one: nothing is lost, and nothing is read ahead.
3. `LatestFeed` reads in a thread of its own that never waits for the taker (`mailbox.py`). Each frame that was overwritten is counted, the one that was
   waiting at the end too: captured = taken + dropped.
4. An error of the source, of any kind, ends the feed, after what was captured before it; the taker gets it. A source that falls silent is an error too.
5. `close` returns within `STOP_S`, also where a driver does not: its thread is left behind, and ends with the process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Protocol

from edgekit.errors import TargetError
from edgekit.runtime.health import Health
from edgekit.runtime.mailbox import Mailbox, TimedOutError
from edgekit.runtime.sources import Picture, Source

STOP_S = 2.0
"""Longest that closing waits for the thread that reads."""

STALL_S = 5.0
"""A device that gives no frame for this long, or for `STALL_FRAMES` frame times where that is longer, is taken for dead."""
STALL_FRAMES = 10


def _utc_now() -> datetime:
    return datetime.now(timezone.utc)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """The time: nanoseconds that never go back, and UTC."""

    monotonic_ns: Callable[[], int] = time.monotonic_ns
    utc: Callable[[], datetime] = _utc_now


REAL = Clocks()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shot:
    """A picture, with its place and its time.

    Attributes:
        picture: What the source gave.
        number: Its place in the stream, from 0, those with an error included.
        frame_number: Its place among those without.
        part_number: Its place among those of its part.
        captured_ns: When the source gave it, by the monotonic clock.
        captured_at: The same in UTC.
    """

    picture: Picture
    number: int
    frame_number: int
    captured_ns: int
    captured_at: datetime
    part_number: int = 0


class Feed(Protocol):
    """Where a stream takes its frames from; used by one thread."""

    def take(self, *, not_before_ns: int = 0, until_ns: int | None = None) -> Shot | None:
        """Waits for a frame.

        Args:
            not_before_ns: Wait at least until then, and take what is the latest frame then.
            until_ns: Wait no longer than until then.

        Returns:
            None where the source has ended or the time is over.
        """

    def close(self) -> None:
        """Ends the source; again does nothing."""


@dataclass(slots=True)
class _Counter:
    """Numbers pictures as they come, and tells the recorder."""

    health: Health
    clocks: Clocks
    number: int = 0
    frame_number: int = 0
    part: str = ""
    part_number: int = 0

    def shot(self, picture: Picture) -> Shot:
        if picture.error is None and picture.part != self.part:
            self.part, self.part_number = picture.part, 0
        made = Shot(
            picture=picture,
            number=self.number,
            frame_number=self.frame_number,
            part_number=self.part_number,
            captured_ns=self.clocks.monotonic_ns(),
            captured_at=self.clocks.utc(),
        )
        self.number += 1
        self.frame_number += picture.error is None
        self.part_number += picture.error is None
        self.health.captured()
        return made


class EveryFeed:
    """Every frame, in order."""

    def __init__(self, pictures: Iterator[Picture], health: Health, clocks: Clocks = REAL) -> None:
        self._pictures: Iterator[Picture] | None = pictures
        self._counter, self._clocks = _Counter(health, clocks), clocks

    def take(self, *, not_before_ns: int = 0, until_ns: int | None = None) -> Shot | None:
        """The next frame; a rate is never lowered here, so `not_before_ns` is nothing to wait for."""
        del not_before_ns
        if until_ns is not None and self._clocks.monotonic_ns() >= until_ns:
            return None
        picture = None if self._pictures is None else next(self._pictures, None)
        return None if picture is None else self._counter.shot(picture)

    def close(self) -> None:
        self._pictures = None


@dataclass(slots=True)
class LatestFeed:
    """The latest frame alone, read in a thread."""

    source: Source
    health: Health
    clocks: Clocks = REAL
    _mailbox: Mailbox[Shot] = field(default_factory=Mailbox, init=False)
    _stop: threading.Event = field(default_factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)
    _started_ns: int | None = field(default=None, init=False)

    def take(self, *, not_before_ns: int = 0, until_ns: int | None = None) -> Shot | None:
        """The latest frame; the first call starts the source.

        Raises:
            TargetError: The source fell silent.
            Exception: What the source ended with.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._read, name=f"capture {self.source.name}", daemon=True)
            self._thread.start()
        now_ns = self.clocks.monotonic_ns()
        if until_ns is not None and max(now_ns, not_before_ns) >= until_ns:
            self._stop.wait(max(until_ns - now_ns, 0) / 1e9)
            return None
        if not_before_ns > now_ns:
            self._stop.wait((not_before_ns - now_ns) / 1e9)
        return self._await(until_ns)

    def close(self) -> None:
        self._stop.set()
        self._mailbox.close()
        if self._mailbox.discard():
            self.health.dropped()
        if self._thread is not None:
            self._thread.join(timeout=STOP_S)

    def _await(self, until_ns: int | None) -> Shot | None:
        stall_s = max(STALL_S, STALL_FRAMES * self.source.period_s) if self.source.stalls else None
        left_s = None if until_ns is None else (until_ns - self.clocks.monotonic_ns()) / 1e9
        waits = [seconds for seconds in (stall_s, left_s) if seconds is not None]
        try:
            return self._mailbox.take(timeout_s=max(min(waits), 0.0) if waits else None)
        except TimedOutError as error:
            if left_s is not None and (stall_s is None or left_s <= stall_s):
                return None
            raise TargetError(f"{self.source.name}: no frame came for {stall_s:g} seconds", hint="is the device still there?") from error

    def _read(self) -> None:
        counter = _Counter(self.health, self.clocks)
        ended: BaseException | None = None
        try:
            for picture in self.source.pictures(self._wait_until):
                if self._stop.is_set():
                    break
                self._leave(counter.shot(picture))
        except BaseException as error:  # noqa: BLE001 - it is raised again in the thread that takes
            ended = error
        finally:
            try:
                self.source.close()
            finally:
                self._mailbox.close(ended)

    def _leave(self, shot: Shot) -> None:
        if shot.picture.error is None:
            if self._mailbox.put(shot):
                self.health.dropped()
        elif not self._mailbox.note(shot):
            # Nobody will hear of it but the recorder.
            self.health.failed(type(shot.picture.error).__name__)

    def _wait_until(self, seconds: float) -> bool:
        now_ns = self.clocks.monotonic_ns()
        if self._started_ns is None:
            self._started_ns = now_ns
        left_s = seconds - (now_ns - self._started_ns) / 1e9
        return not (self._stop.wait(left_s) if left_s > 0 else self._stop.is_set())
