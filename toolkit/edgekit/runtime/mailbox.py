"""The place between a source that does not wait and a classifier that cannot keep up: room for one frame, the newest.

A queue would answer frames that are old, and older with each one. Here a frame that nobody has taken is overwritten by the next, and counted.

Rules this file keeps:

1. `put` never waits, whatever the taker does.
2. A frame is taken once, whole, and never after one that is newer. What was overwritten is told to the one who put the newer.
3. Notices (a file that cannot be read, a frame that arrived damaged) are not overwritten: they come out in order, before the frame. At most `MAX_NOTICES`
   wait; `note` says whether there was room.
4. After `close` nothing is accepted; what is inside can still be taken, then `take` gives None, or raises the error it was closed with.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_NOTICES = 256
"""Notices that wait; a damaged camera must not fill the memory."""


class TimedOutError(Exception):
    """Nothing came within the time that `take` was given."""


class Mailbox(Generic[T]):
    """Room for one item, shared by one thread that puts and one that takes."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._slot: T | None = None
        self._notices: deque[T] = deque()
        self._closed = False
        self._error: BaseException | None = None

    def put(self, item: T) -> bool:
        """Leaves an item, in place of one that was not taken.

        Returns:
            Whether an item was lost: the one before, or after `close` this one.
        """
        with self._changed:
            if self._closed:
                return True
            lost, self._slot = self._slot is not None, item
            self._changed.notify()
            return lost

    def note(self, item: T) -> bool:
        """Leaves an item that is not to be overwritten; False where there was no room, or after `close`."""
        with self._changed:
            if self._closed or len(self._notices) >= MAX_NOTICES:
                return False
            self._notices.append(item)
            self._changed.notify()
            return True

    def take(self, *, timeout_s: float | None = None) -> T | None:
        """Waits for an item and takes it.

        Args:
            timeout_s: Longest to wait; None for as long as it takes.

        Returns:
            The oldest notice, else the item; None after `close`, once nothing is left.

        Raises:
            TimedOutError: Nothing came in time.
            BaseException: What the mailbox was closed with, once nothing is left.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._closed or self._slot is not None or self._notices, timeout=timeout_s):
                raise TimedOutError
            if self._notices:
                return self._notices.popleft()
            item, self._slot = self._slot, None
            if item is None and self._error is not None:
                raise self._error
            return item

    def close(self, error: BaseException | None = None) -> None:
        """Accepts nothing more; the first error that is given is what `take` ends with."""
        with self._changed:
            self._closed = True
            self._error = self._error or error
            self._changed.notify_all()

    def discard(self) -> bool:
        """Throws away the item that was not taken; whether there was one."""
        with self._changed:
            lost, self._slot = self._slot is not None, None
            return lost
