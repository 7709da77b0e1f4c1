"""A live stream for minutes: is it current, is every drop counted, does its memory grow, what does it do under load, and how soon is it back after its engine is lost?

    python benchmarks/stream.py BUNDLE [--minutes 10] [--fps 60] [--infer-ms 25] [--only alone|loaded|faults]

BUNDLE is any bundle that runs here. The classifier is supervised, as `edgekit run` has it for live inputs, and plays through the same `Stream` and `LatestFeed`.

- **The source** gives 64 phantom frames of 480 × 640 from memory, round and round, at `--fps`: no file is read, so nothing but the stream is measured. Each frame has
  its number written into its first pixels, and the number is read back from the frame that was handed to the classifier: drops are also counted by numbers.
- **A model that needs 25 ms.** The bundle answers each frame for real; where it was faster than `--infer-ms`, the call then sleeps until that time is over, as a caller does that
  waits for an accelerator. A bundle that is slower by itself is taken as it is. What the calls took is reported (`inference_ms`), and the limits use that.
- **alone**: frame age p99 ≤ 2 frame times + median inference; captured = processed + late + dropped + failed + no result; growth of the proportional set size of both
  processes after the first fifth ≤ 1 MiB (medians of the second and of the last fifth of the readings, one every two seconds; and the Theil–Sen slope over the same time).
- **loaded**: as many processes as there are cores count in a loop meanwhile. Reported are the ages, the share of results on each step, and the longest time without
  a line of result (alive) and without an answer.
- **faults**: the engine's process is killed, and stopped so that it hangs, five times each; the time from the signal to the next good result.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import save
from numpy.typing import NDArray

from edgekit.errors import EdgekitError
from edgekit.imaging import phantom
from edgekit.imaging.phantom_scanner import PhantomSpec
from edgekit.profiler.growth import theil_sen
from edgekit.profiler.memory import proportional_mib
from edgekit.runtime.feeds import LatestFeed
from edgekit.runtime.health import Health
from edgekit.runtime.sources import Picture
from edgekit.runtime.stream import Stream, StreamOptions
from edgekit.runtime.supervisor import Supervised, SupervisorOptions

FRAMES, DIGITS = 64, 4
FAULTS, BETWEEN_S = 5, 4.0
READ_S = 2.0
BACK_WITHIN_S, MOST_GROWTH_MIB = 3.0, 1.0


class Phantoms:
    """Frames from memory, each with its number in its first four pixels."""

    name, stalls = "phantoms", False

    def __init__(self, fps: float) -> None:
        spec = PhantomSpec(rows=480, columns=640)
        self.period_s = 1 / fps
        self._frames = [phantom.frame("b-lines", patient=0, index=index, seed=0, spec=spec) for index in range(FRAMES)]

    def pictures(self, wait_until: Callable[[float], bool]) -> Iterator[Picture]:
        for number in itertools.count():
            if not wait_until(number * self.period_s):
                return
            pixels = self._frames[number % FRAMES].copy()
            pixels[0, :DIGITS] = np.frombuffer(number.to_bytes(DIGITS, "little"), np.uint8)
            yield Picture(input=self.name, index=number, pixels=pixels)

    def close(self) -> None:
        """Nothing is held."""


class Timed:
    """A clip whose calls take at least `least_ms`; notes what they took and which frames they saw."""

    def __init__(self, clip: Any, least_ms: float, most: int) -> None:
        self._clip, self._least_ms = clip, least_ms
        # Filled, so that the memory is there from the beginning.
        self.took_ms, self.calls, self.last_seen = np.full(most, np.nan), 0, -1

    def predict(self, frame: NDArray[np.uint8], *, explain: bool = True) -> Any:
        begun = time.perf_counter()
        self.last_seen = int.from_bytes(frame[0, :DIGITS].tobytes(), "little")
        try:
            return self._clip.predict(frame, explain=explain)
        finally:
            left_s = self._least_ms / 1000 - (time.perf_counter() - begun)
            if left_s > 0:
                time.sleep(left_s)
            self.took_ms[self.calls] = (time.perf_counter() - begun) * 1000
            self.calls += 1


def main() -> None:
    parser = argparse.ArgumentParser(description="See the head of the script.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--fps", type=float, default=60.0)
    parser.add_argument("--infer-ms", type=float, default=25.0)
    parser.add_argument("--only", choices=["alone", "loaded", "faults"])
    asked = parser.parse_args()
    document: dict[str, Any] = {
        "bundle": asked.bundle.name,
        "fps": asked.fps,
        "least_inference_ms": asked.infer_ms,
        "minutes": asked.minutes,
    }
    if asked.only in (None, "alone"):
        document["alone"] = play(asked)
    if asked.only in (None, "loaded"):
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(len(os.sched_getaffinity(0)))]
        try:
            document["loaded"] = play(asked)
        finally:
            for process in busy:
                process.kill()
                process.wait()
    if asked.only in (None, "faults"):
        document["faults"] = {kind: faults(asked, number) for kind, number in (("killed", signal.SIGKILL), ("hung", signal.SIGSTOP))}
    print(document)
    save("stream" if asked.only is None else f"stream-{asked.only}", document)


def play(asked: argparse.Namespace) -> dict[str, Any]:
    """One run of `--minutes`."""
    seconds, health = asked.minutes * 60, Health()
    most = round(seconds * asked.fps) + 1000
    ages, steps = np.full(most, np.nan), Counter[str]()
    numbers, wrong, results = 0, 0, 0
    silent_s = unanswered_s = 0.0
    memory: list[tuple[float, float]] = []
    with Supervised(asked.bundle, on_restart=health.restarted) as classifier:
        clip, source = Timed(classifier.clip(), asked.infer_ms, most), Phantoms(asked.fps)
        stream = Stream(clip, health, StreamOptions(period_s=source.period_s, seconds=seconds))
        begun = line_at = answer_at = time.monotonic()
        for result in stream.play(LatestFeed(source, health)):
            now = time.monotonic()
            silent_s, line_at = max(silent_s, now - line_at), now
            steps[result.step] += 1
            numbers += 1 + result.dropped
            if result.prediction is not None:
                wrong += clip.last_seen != result.frame
                ages[results] = result.age_ms
                results += 1
                unanswered_s, answer_at = max(unanswered_s, now - answer_at), now
            if not memory or now - begun - memory[-1][0] >= READ_S:
                memory.append((now - begun, used_mib(classifier)))
    found = health.snapshot()
    took, shown = clip.took_ms[: clip.calls], ages[:results]
    counted = found.processed + found.late + found.dropped + found.failed + found.degraded_by_step.get("no-result", 0)
    limit_ms = 2000 / asked.fps + float(np.median(took))
    return {
        "age_ms": percentiles(shown),
        "age_limit_ms": limit_ms,
        "current": bool(np.percentile(shown, 99) <= limit_ms) if results else False,
        "inference_ms": percentiles(took),
        "captured": found.captured,
        "processed": found.processed,
        "dropped": found.dropped,
        "late": found.late,
        "failed": found.failed,
        "degraded": dict(found.degraded_by_step),
        "every_frame_is_counted": found.captured == counted,
        # The frames after the last one that was taken are in no result.
        "drops_by_number_differ_by": found.captured - numbers,
        "answers_of_another_frame": wrong,
        "share_of_results_on_step": {step: count / steps.total() for step, count in steps.items()},
        "longest_without_a_line_s": silent_s,
        "longest_without_an_answer_s": unanswered_s,
        **growth(memory),
    }


def used_mib(classifier: Supervised) -> float:
    """Proportional set size of this process and of the engine's."""
    own = proportional_mib() or float("nan")
    active = classifier._active  # noqa: SLF001 - no user needs its number
    other = None if active is None else proportional_mib(Path(f"/proc/{active.pid}"))
    return own + (other or float("nan"))


def growth(memory: list[tuple[float, float]]) -> dict[str, Any]:
    """What the memory did after the first fifth."""
    at, used = np.array(memory).T
    fifth = len(used) // 5
    if fifth < 2:
        return {"growth_mib": None, "growth": "too short to say"}
    grown = float(np.nanmedian(used[-fifth:]) - np.nanmedian(used[fifth : 2 * fifth]))
    known = np.isfinite(used) & (np.arange(len(used)) >= fifth)
    slope = theil_sen(at[known], used[known])
    kept = slope if isinstance(slope, str) else {"mib_an_hour": slope.value * 3600, "low": slope.low * 3600, "high": slope.high * 3600}
    return {"growth_mib": grown, "bounded": grown <= MOST_GROWTH_MIB, "slope": kept, "memory_mib": float(np.nanmedian(used[-fifth:]))}


def faults(asked: argparse.Namespace, number: signal.Signals) -> dict[str, Any]:
    """The engine's process is lost again and again."""
    health, back_s, restarts = Health(), list[float](), Counter[str]()
    options = SupervisorOptions(max_restarts=100)
    with Supervised(asked.bundle, options=options, on_restart=lambda reason: restarts.update([reason])) as classifier:
        source = Phantoms(asked.fps)
        stream = Stream(Timed(classifier.clip(), asked.infer_ms, 100_000), health, StreamOptions(period_s=source.period_s))
        struck_at, due = None, time.monotonic() + BETWEEN_S
        for result in stream.play(LatestFeed(source, health)):
            now = time.monotonic()
            if struck_at is not None and result.prediction is not None and result.captured_ns / 1e9 > struck_at:
                back_s.append(now - struck_at)
                struck_at, due = None, now + BETWEEN_S
                if len(back_s) == FAULTS:
                    break
            elif struck_at is None and now >= due:
                active = classifier._active  # noqa: SLF001 - the process to strike
                if active is not None:
                    struck_at = now
                    os.kill(active.pid, number)
    return {
        "back_after_s": back_s,
        "longest_s": max(back_s),
        "in_time": max(back_s) <= BACK_WITHIN_S,
        "restarts": dict(restarts),
        "standby": classifier.has_standby,
        "failed": health.snapshot().failed_by_kind,
    }


def percentiles(values: NDArray[np.float64]) -> dict[str, float | int]:
    """p50, p99 and the largest."""
    if not len(values):
        return {"samples": 0}
    p50, p99 = np.percentile(values, [50, 99])
    return {"p50": float(p50), "p99": float(p99), "max": float(values.max()), "samples": len(values)}


if __name__ == "__main__":
    try:
        main()
    except EdgekitError as error:
        sys.exit(f"error: {error.message}")
