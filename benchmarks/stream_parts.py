"""What `stream.py` measures with: frames from memory, a clip with a clock, the frames' own answers, what a caller sees, and memory.

Nothing here asks the stream or its health: what they say is compared with this.
"""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError
from edgekit.imaging import phantom
from edgekit.imaging.phantom_scanner import PhantomSpec
from edgekit.profiler.growth import theil_sen
from edgekit.profiler.memory import held_mib
from edgekit.runtime.prediction import Drawing
from edgekit.runtime.sources import Picture
from edgekit.runtime.stream import StreamResult
from edgekit.runtime.supervisor import Supervised

FRAMES = 64
MOST_GROWTH_MIB = 1.0
BARE = Drawing(min_probability=1.0)
"""No label is that probable, so the frame itself is drawn."""
Document = dict[str, Any]


class Phantoms:
    """Frames from memory, numbered and counted."""

    name, stalls = "phantoms", False

    def __init__(self, fps: float) -> None:
        spec = PhantomSpec(rows=480, columns=640)
        self.period_s, self.given = 1 / fps, 0
        self.frames = [phantom.frame("b-lines", patient=index // 8, index=index % 8, seed=0, spec=spec) for index in range(FRAMES)]

    def pictures(self, wait_until: Callable[[float], bool]) -> Iterator[Picture]:
        for number in itertools.count():
            if not wait_until(number * self.period_s):
                return
            yield Picture(input=self.name, index=number, pixels=self.frames[number % FRAMES].copy())
            # Whoever took it has come back: it is not one that was left on the way.
            self.given += 1

    def close(self) -> None:
        """Nothing is held."""


class Timed:
    """A clip that notes what its calls took."""

    def __init__(self, clip: Any, most: int) -> None:
        self._clip = clip
        # Filled, so that the memory is there from the beginning.
        self._took_ms, self._calls = np.full(most, np.nan), 0

    @property
    def took_ms(self) -> NDArray[np.float64]:
        return self._took_ms[: self._calls]

    def predict(self, frame: NDArray[np.uint8], *, explain: bool = True) -> Any:
        begun = time.perf_counter()
        try:
            return self._clip.predict(frame, explain=explain, gate=False)
        finally:
            self._took_ms[self._calls % len(self._took_ms)] = (time.perf_counter() - begun) * 1000
            self._calls = min(self._calls + 1, len(self._took_ms))


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The frames' own logits, computed before: float64 (frames, labels), and how far an answer may be from them."""

    logits: NDArray[np.float64]
    within: float

    @classmethod
    def by(cls, classifier: Supervised, frames: list[NDArray[np.uint8]]) -> Told:
        """Asks for every frame alone.

        Raises:
            DataError: The classifier is recurrent, or answers two of them alike.
        """
        if classifier.manifest.state is not None:
            raise DataError("the answers of a recurrent classifier depend on the frames before", hint="name another bundle")
        logits = np.array([list(classifier.predict(frame, gate=False).logits.values()) for frame in frames], dtype=np.float64)
        apart = np.abs(logits[:, None] - logits[None]).max(axis=2)
        nearest = float(apart[~np.eye(len(frames), dtype=bool)].min())
        if not nearest > 0:
            raise DataError("this bundle answers two different phantom frames alike, so its answers cannot be told apart")
        return cls(logits=logits, within=nearest / 10)

    def is_own(self, result: StreamResult) -> bool:
        """Whether an answer is that of its frame."""
        if result.prediction is None:
            return False
        found = np.array(list(result.prediction.logits.values()))
        return bool(np.abs(found - self.logits[result.frame % FRAMES]).max() <= self.within)


@dataclass(slots=True, kw_only=True)
class Seen:
    """What a caller saw of a stream."""

    ages_ms: NDArray[np.float64]
    drawn_ms: list[float] = field(default_factory=list)
    shown: int = 0
    lines: int = 0
    foreign: int = 0
    foreign_overlays: int = 0
    dropped: int = 0
    gaps: int = 0
    last_frame: int = -1
    steps: Counter[str] = field(default_factory=Counter)
    line_at_s: float = field(default_factory=time.monotonic)
    answer_at_s: float = field(default_factory=time.monotonic)
    silent_s: float = 0.0
    unanswered_s: float = 0.0
    memory: list[tuple[float, float, float, int]] = field(default_factory=list)

    @property
    def shown_ms(self) -> NDArray[np.float64]:
        """Milliseconds from the capture of each answered frame to its answer in the caller's hands."""
        return self.ages_ms[: min(self.shown, len(self.ages_ms))]

    def tick(self, *, answered: bool, line: bool) -> None:
        """Time has passed since the last line and the last answer."""
        now_s = time.monotonic()
        self.silent_s, self.unanswered_s = max(self.silent_s, now_s - self.line_at_s), max(self.unanswered_s, now_s - self.answer_at_s)
        self.line_at_s = now_s if line else self.line_at_s
        self.answer_at_s = now_s if answered else self.answer_at_s

    def add(self, result: StreamResult, told: Told, *, draw: list[NDArray[np.uint8]] | None) -> None:
        """One more result; `draw` are the frames where overlays are drawn."""
        self.tick(answered=result.prediction is not None, line=True)
        self.steps[result.step] += 1
        self.lines += 1
        self.dropped += result.dropped
        self.gaps += result.frame - self.last_frame - 1
        self.last_frame = result.frame
        if result.prediction is None:
            return
        self.foreign += not told.is_own(result)
        self.ages_ms[self.shown % len(self.ages_ms)] = (self.line_at_s - result.captured_ns / 1e9) * 1000
        self.shown += 1
        if draw is not None and result.prediction.cam is not None:
            begun = time.perf_counter()
            result.prediction.overlay()
            self.drawn_ms.append((time.perf_counter() - begun) * 1000)
            own = np.repeat(draw[result.frame % FRAMES][:, :, None], 3, axis=2)
            self.foreign_overlays += not np.array_equal(result.prediction.overlay(None, BARE), own)


def used_mib(foreign: list[int]) -> tuple[float, float, int]:
    """(own, proportional) memory of this process and of all below it but the foreign ones, in MiB, and how many processes that are."""
    pids = [pid for pid in below(os.getpid()) if pid not in foreign]
    held = [held_mib(Path(f"/proc/{pid}")) for pid in pids]
    own, proportional = (sum(part[index] or 0.0 for part in held) for index in (1, 0))
    return own, proportional, len(pids)


def below(pid: int) -> list[int]:
    """A process and every one that it or those below it started."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            started = task.read_text().split()
        except OSError:  # the thread has ended
            continue
        for child in started:
            found += below(int(child))
    return found


def growth(memory: list[tuple[float, float, float, int]]) -> Document:
    """What the memory did after the first fifth."""
    fifth = len(memory) // 5
    if fifth < 2:
        return {"growth_mib": None, "growth": "too short to say"}
    at, own, proportional, processes = np.array(memory).T
    grown = float(np.median(own[-fifth:]) - np.median(own[fifth : 2 * fifth]))
    slope = theil_sen(at[fifth:], own[fifth:])
    kept = slope if isinstance(slope, str) else {"mib_an_hour": slope.value * 3600, "low": slope.low * 3600, "high": slope.high * 3600}
    return {
        "growth_mib": grown,
        "bounded": grown <= MOST_GROWTH_MIB,
        "slope": kept,
        "own_mib": float(np.median(own[-fifth:])),
        "proportional_mib": float(np.median(proportional[-fifth:])),
        "processes": sorted({int(count) for count in processes}),
    }


def percentiles(values: NDArray[np.float64]) -> Document:
    """p50, p99 and the largest; of nothing, none."""
    if not len(values):
        return {"samples": 0}
    p50, p99 = np.percentile(values, [50, 99])
    return {"p50": float(p50), "p99": float(p99), "max": float(values.max()), "samples": len(values)}
