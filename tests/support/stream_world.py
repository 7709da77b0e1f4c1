"""A simulated world for live streams: a clock that only work moves, a source at a frame rate, a classifier that takes as long as it is told.

Nothing sleeps and nothing runs beside anything else, so a test of hours takes milliseconds and comes out the same each time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import numpy as np

from edgekit.runtime.feeds import Clocks, Shot
from edgekit.runtime.health import Health
from edgekit.runtime.sensors import Sensors
from edgekit.runtime.sources import Picture

START = datetime(2026, 1, 1, tzinfo=timezone.utc)


@dataclass
class World:
    """The clock."""

    now_ns: int = 0

    @property
    def clocks(self) -> Clocks:
        return Clocks(monotonic_ns=lambda: self.now_ns, utc=lambda: START + timedelta(microseconds=self.now_ns / 1000))

    def work(self, milliseconds: float) -> None:
        """Time that passes."""
        self.now_ns += round(milliseconds * 1e6)

    def health(self) -> Health:
        return Health(clock_ns=lambda: self.now_ns, sensors=lambda: Sensors(temperatures_c={}, clocks_mhz={}, unavailable={}))


@dataclass
class FakeClip:
    """Answers each frame with the frame's own value, after `ms(explain)`; `fails` holds numbers of calls, or everything."""

    world: World
    ms: Callable[[bool], float] = lambda _: 10.0
    fails: Callable[[int], Exception | None] = lambda _: None
    assessable: Callable[[int], bool] = lambda _: True
    calls: list[bool] = field(default_factory=list)
    resets: list[int] = field(default_factory=list)

    def reset(self) -> None:
        self.resets.append(len(self.calls))

    def predict(self, frame: np.ndarray, *, explain: bool = True) -> Any:
        call = len(self.calls)
        self.calls.append(explain)
        before = self.world.now_ns
        self.world.work(self.ms(explain))
        error = self.fails(call)
        if error is not None:
            raise error
        seen = self.assessable(call)
        value = float(frame.flat[0]) / 255
        return SimpleNamespace(
            seen=frame.copy(),
            latency_ms=(self.world.now_ns - before) / 1e6,
            assessable=seen,
            probabilities={"benign": 1 - value, "malignant": value} if seen else {},
        )


@dataclass
class FakeFeed:
    """The latest frame of a source at `fps`, by the simulated clock: what `LatestFeed` does, without a thread. Frame n holds n (mod 256)."""

    world: World
    health: Health
    fps: float
    frames: int
    given: int = 0
    captured: int = 0
    closed: int = 0

    def _due_ns(self, number: int) -> int:
        return round(number * 1e9 / self.fps)

    def take(self, *, not_before_ns: int = 0, until_ns: int | None = None) -> Shot | None:
        world = self.world
        world.now_ns = max(world.now_ns, not_before_ns)
        if self.given < self.frames and self._due_ns(self.given) > world.now_ns:
            world.now_ns = self._due_ns(self.given)
        if self.given >= self.frames or (until_ns is not None and world.now_ns >= until_ns):
            return None
        newest = self.given
        while newest + 1 < self.frames and self._due_ns(newest + 1) <= world.now_ns:
            newest += 1
        self.health.captured(newest + 1 - self.given)
        self.health.dropped(newest - self.given)
        self.given = newest + 1
        due = self._due_ns(newest)
        pixels = np.full((4, 4), newest % 256, dtype=np.uint8)
        picture = Picture(input="source", index=newest, pixels=pixels)
        return Shot(
            picture=picture,
            number=newest,
            frame_number=newest,
            captured_ns=due,
            captured_at=START + timedelta(microseconds=due / 1000),
        )

    def close(self) -> None:
        self.closed += 1
