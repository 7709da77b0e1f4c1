"""Reads a meter of power at moments that the frames do not choose.

A watch reads between two frames. The power of that moment is that of a machine that has just finished or is waiting: integrated over a run it would be far
below the truth. A counter of energy does not mind when it is read; a power does. Rules this file keeps:

1. A thread reads the power four times a second. The pauses are drawn by chance, so that they cannot fall in with the rhythm of the frames.
2. It reads two small files (or the last line of a program) and nothing else: what a frame loses to it is some ten microseconds, a few times a second.
3. A meter that fails raises where the energy is asked for, with its own error; nothing vanishes with the thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgekit.errors import TargetError
from edgekit.profiler.energy import Meter, PowerMeter, find_meter

PAUSES_S = (0.15, 0.35)
"""Shortest and longest pause between two readings."""


class Sampler:
    """A meter of power, read by a thread.

    Args:
        meter: The meter.
        pauses_s: Shortest and longest pause.

    Raises:
        TargetError: The meter cannot be read.
    """

    def __init__(self, meter: PowerMeter, pauses_s: tuple[float, float] = PAUSES_S) -> None:
        self.source, self.scope = meter.source, meter.scope
        self._meter, self._pauses_s = meter, pauses_s
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._error: BaseException | None = None
        self._sample()
        self._thread = threading.Thread(target=self._run, name="edgekit-power", daemon=True)
        self._thread.start()

    def joules(self, now_s: float) -> float:
        """Energy since the first reading, up to now at the power of the last one.

        Args:
            now_s: Seconds on the clock of `time.perf_counter`.

        Raises:
            TargetError: The meter can no longer be read.
        """
        if self._error is not None:
            raise self._error
        with self._lock:
            return self._joules + self._meter.last_w * (now_s - self._at_s)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._meter.close()

    def _sample(self) -> None:
        with self._lock:
            now_s = time.perf_counter()
            self._joules, self._at_s = self._meter.joules(now_s), now_s

    def _run(self) -> None:
        drawn = np.random.default_rng()
        try:
            while not self._stop.wait(drawn.uniform(*self._pauses_s)):
                self._sample()
        except BaseException as error:  # noqa: BLE001 - raised where the energy is asked for (rule 3)
            self._error = error


def open_meter(root: Path = Path("/"), *, find: Callable[[Path], Meter | str] = find_meter) -> Meter | str:
    """The meter of this machine, ready to be read at any moment, or why there is none.

    Args:
        root: Where the file system begins.
        find: Finds it.
    """
    found = find(root)
    if not isinstance(found, PowerMeter):
        return found
    try:
        return Sampler(found)
    except TargetError as error:
        found.close()
        return error.message
