"""What a stream gives up, step by step, when it cannot keep up, and how it comes back: a state machine without clocks and threads.

Rules this file keeps:

1. The steps are those of `STEPS`, in this order, one at a time in both directions: all maps, a map every few frames, no maps, fewer frames, no result.
   The answer itself is given up last, and openly.
2. What is observed is a frame's age when all work on it is done, overlay included, against the deadline. A frame above `high` of the deadline weighs the
   stream down; `strikes` of the last `window` frames on one step take it a step down. The answer itself is given up only where frames are past the
   deadline, and comes back where a probe's are not: an answer in time is worth more than the margin.
3. It climbs a step when for `hold_s` fewer frames than that were above `low`. A climb that is undone within its hold doubles the next hold, up to
   `longest_hold_s`; one that lasts brings it back. So a load that stays costs a short try now and then, not a flicker.
4. Where no maps are wanted there are no steps that give them up.
5. On the last step nothing is inferred but a probe every `probe_s`, whose result is measured and not shown: without it nobody would know that the load is gone.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

FULL, FEWER_MAPS, NO_MAPS, LOWER_RATE, NO_RESULT = "full", "fewer-maps", "no-maps", "lower-rate", "no-result"
STEPS = (FULL, FEWER_MAPS, NO_MAPS, LOWER_RATE, NO_RESULT)


@dataclass(frozen=True, slots=True, kw_only=True)
class LadderOptions:
    """When a stream steps down and comes back.

    Attributes:
        high: Share of the deadline above which a frame weighs the stream down.
        low: Share above which it keeps the stream from climbing.
        window: Frames that are looked at.
        strikes: How many of them must be above.
        hold_s: Seconds that must go well before a climb.
        longest_hold_s: The same after climbs that were undone.
        map_every: On the second step every n-th frame has a map.
        rate_every: From the fourth step on at most one frame in n frame times is taken.
        probe_s: Seconds between two probes on the last step.
    """

    high: float = 0.8
    low: float = 0.7
    window: int = 8
    strikes: int = 2
    hold_s: float = 2.0
    longest_hold_s: float = 60.0
    map_every: int = 4
    rate_every: int = 4
    probe_s: float = 1.0


DEFAULT = LadderOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do with a frame.

    Attributes:
        step: The step it is done on.
        infer: Whether the classifier sees it.
        explain: Whether a map is computed.
        show: Whether the result is shown; False for a probe.
    """

    step: str
    infer: bool
    explain: bool
    show: bool


class Ladder:
    """The steps of one stream. Times are seconds of any clock that never goes back."""

    def __init__(self, options: LadderOptions = DEFAULT, *, enabled: bool = True, maps: bool = True) -> None:
        self._options, self._enabled = options, enabled
        self._steps = STEPS if maps else (FULL, LOWER_RATE, NO_RESULT)
        self._step = 0
        self._frames = 0
        self._above_high: deque[bool] = deque(maxlen=options.window)
        self._above_low: deque[bool] = deque(maxlen=options.window)
        self._calm_since_s: float | None = None
        self._climbed_s: float | None = None
        self._hold_s = options.hold_s
        self._probe_due_s = 0.0

    @property
    def step(self) -> str:
        """Name of the step it stands on."""
        return self._steps[self._step]

    @property
    def frame_times(self) -> int:
        """Frame times from one frame that is taken to the next, at least."""
        return self._options.rate_every if self.step in (LOWER_RATE, NO_RESULT) else 1

    def plan(self, now_s: float) -> Plan:
        """Says what to do with the frame that was just taken."""
        step, number = self.step, self._frames
        self._frames += 1
        if step == NO_RESULT:
            probe = now_s >= self._probe_due_s
            if probe:
                self._probe_due_s = now_s + self._options.probe_s
            return Plan(step=step, infer=probe, explain=False, show=False)
        explain = step == FULL or (step == FEWER_MAPS and number % self._options.map_every == 0)
        return Plan(step=step, infer=True, explain=explain, show=True)

    def observe(self, *, now_s: float, age_ms: float, deadline_ms: float) -> None:
        """Learns how old a frame was when all work on it was done.

        Args:
            now_s: The time.
            age_ms: Milliseconds since its capture.
            deadline_ms: Milliseconds it may take.
        """
        if not self._enabled:
            return
        options = self._options
        high = 1.0 if self.step in (LOWER_RATE, NO_RESULT) else options.high
        low = 1.0 if self.step == NO_RESULT else options.low
        self._above_high.append(age_ms > high * deadline_ms)
        self._above_low.append(age_ms > low * deadline_ms)
        if self._climbed_s is not None and now_s - self._climbed_s >= self._hold_s:
            # The climb lasted.
            self._climbed_s, self._hold_s = None, options.hold_s
        if sum(self._above_high) >= options.strikes:
            self._down(now_s)
        elif sum(self._above_low) >= options.strikes:
            self._calm_since_s = None
        else:
            self._maybe_up(now_s)

    def _down(self, now_s: float) -> None:
        if self._climbed_s is not None:
            self._climbed_s, self._hold_s = None, min(2 * self._hold_s, self._options.longest_hold_s)
        self._move(min(self._step + 1, len(self._steps) - 1))
        self._probe_due_s = now_s + self._options.probe_s

    def _maybe_up(self, now_s: float) -> None:
        if self._calm_since_s is None:
            self._calm_since_s = now_s
        if self._step and now_s - self._calm_since_s >= self._hold_s:
            self._move(self._step - 1)
            self._climbed_s = now_s

    def _move(self, step: int) -> None:
        self._step = step
        self._calm_since_s = None
        # What was seen on another step says nothing about this one.
        self._above_high.clear()
        self._above_low.clear()
