"""What a frame costs after a pause: clocks have gone down, caches are cold, threads sleep.

Rules this file keeps:

1. A gap is waited out before each call, outside the clock. No ratio to the saturated loop is given: that was measured at another moment, on a machine
   that may have been warmer or busier.
2. A median needs as many calls as anywhere (11), so a gap is measured only where twice the seconds of the profile hold them; else it is null, and why.
3. Nothing is excluded: each of these calls is one that a device in use makes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.profiler.clock import Progress
from edgekit.profiler.pacing import Clock, figures
from edgekit.profiler.percentiles import SHARES, minimum_samples

GAPS_S = (0.033, 1.0, 10.0)
"""The pause at 30 frames a second, that of a hand which moves the probe, and that of a conversation."""

MOST_CALLS = 64
STRETCH = 2.0
"""A gap may take this many times the seconds of the profile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """Calls after one gap.

    Attributes:
        gap_s: The pause before each.
        milliseconds: float64 (calls,); None where there was no time for as many as a median needs.
        reason: Why there are none.
    """

    gap_s: float
    milliseconds: NDArray[np.float64] | None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """One entry of the part ``idle_wake`` of a profile."""
        if self.milliseconds is None:
            return {
                "gap_s": self.gap_s,
                "p50_ms": None,
                "interval_ms": None,
                "max_ms": None,
                "samples": 0,
                "reason": self.reason,
            }
        found = figures(self.milliseconds)
        return {
            "gap_s": self.gap_s,
            "p50_ms": found.values["p50"],
            "interval_ms": found.intervals["p50"],
            "max_ms": found.values["max"],
            "samples": found.values["samples"],
            "reason": "",
        }


def calls_for(gap_s: float, seconds: float) -> int:
    """How many calls after a gap the time allows; 0 where they are fewer than a median needs (rule 2)."""
    count = min(MOST_CALLS, int(STRETCH * seconds / gap_s))
    return count if count >= minimum_samples(SHARES["p50"]) else 0


def measure_wakes(
    call: Callable[[], object], *, seconds: float, clock: Clock | None = None, on_progress: Progress | None = None
) -> tuple[Wake, ...]:
    """Times a call after each of `GAPS_S`.

    Args:
        call: Answers one frame.
        seconds: Those of the profile.
        clock: Time and waiting.
        on_progress: Told the share that is done.
    """
    clock = clock or Clock()
    counts = {gap: calls_for(gap, seconds) for gap in GAPS_S}
    total = sum(gap * count for gap, count in counts.items())
    found = []
    spent = 0.0
    for gap, count in counts.items():
        taken: list[float] = []
        for _ in range(count):
            clock.wait_until(clock.now_ns() + round(gap * 1e9))
            start = clock.now_ns()
            call()
            taken.append((clock.now_ns() - start) / 1e6)
            spent += gap
            if on_progress is not None:
                on_progress(min(spent / total, 1.0))
        fewest = minimum_samples(SHARES["p50"])
        reason = "" if count else f"{fewest} pauses of {gap:g} s need --seconds {fewest * gap / STRETCH:g} or more"
        found.append(Wake(gap_s=gap, milliseconds=np.array(taken, np.float64) if count else None, reason=reason))
    if on_progress is not None:
        on_progress(1.0)
    return tuple(found)
