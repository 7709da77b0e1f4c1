"""Answers the frames of one source while they come.

```python
stream = Stream(classifier.clip(), Health(), StreamOptions(period_s=1 / 30, deadline_ms=135))
for result in stream.play(LatestFeed(source, health)):
    print(result.frame_id, result.age_ms, result.prediction)
```

Rules this file keeps:

1. A result belongs to one frame: it has the frame's place and its time of capture, and its overlay is drawn on that frame's own pixels, which the prediction owns.
2. A result that is older than the deadline is withheld, and says so. So is a probe's (`degradation.py`).
3. Each result says on which step of the ladder it was made. What the caller does with a result, such as drawing it, is work too: the ladder sees how old the
   frame was when the next one is asked for.
4. Smoothing never hides the frame's own answer, and there is no smoothed answer where the frame has none.
5. A frame that fails is reported and the stream goes on, as a scanner does; `MAX_FAILURES` in a row end it with the last error.
   Anything that is not edgekit's error ends it at once.
6. Every captured frame is counted once: captured = processed + late + dropped + failed + those degraded to no result. One whose answer was interrupted has failed.
7. Where another part of the input begins, such as the next patient's folder, everything that was built up is forgotten.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError, EdgekitError
from edgekit.runtime.degradation import NO_RESULT, Ladder, LadderOptions, Plan
from edgekit.runtime.feeds import REAL, Clocks, Feed, Shot
from edgekit.runtime.temporal import Combined, Combiner, Evidence

if TYPE_CHECKING:
    from edgekit.runtime.health import Health
    from edgekit.runtime.prediction import Prediction

MAX_FAILURES = 30
"""Frames of one input in a row that may fail before a live stream gives up."""

DEADLINE_FRAMES, LEAST_DEADLINE_MS = 4, 100.0
"""The deadline where none is named: four frame times, and not less than what a person takes for immediate (Miller 1968, AFIPS 33:267: 0.1 s)."""


LONGEST_DEADLINE_MS, LONGEST_S = 60_000.0, 30 * 86_400.0
"""Longest deadline, and longest time that a stream may be told to run."""

INTERRUPTED = "interrupted"
"""Kind of failure of a frame whose answer nobody waited for."""


class Predictor(Protocol):
    """What answers: a `Clip`."""

    def predict(self, frame: NDArray[np.uint8], *, explain: bool = True) -> Prediction:
        """Answers the next frame of the source."""

    def reset(self) -> None:
        """Begins anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOptions:
    """How a stream is played.

    Attributes:
        period_s: Seconds from one frame to the next; None where frames are not paced, and then nothing is late and nothing is given up.
        deadline_ms: A result that is older is withheld; None for the default of the frame time.
        seconds: Longest that the stream runs; None for no limit.
        explain: Whether maps are wanted.
        ladder: When it steps down and comes back.
    """

    period_s: float | None = None
    deadline_ms: float | None = None
    seconds: float | None = None
    explain: bool = True
    ladder: LadderOptions = field(default_factory=LadderOptions)

    def __post_init__(self) -> None:
        if self.deadline_ms is not None and not 0 < self.deadline_ms <= LONGEST_DEADLINE_MS:
            limits = f"above 0 and at most {LONGEST_DEADLINE_MS:.0f} milliseconds"
            raise DataError(f"a deadline is {limits}, not {self.deadline_ms:g}", hint="for instance 100")
        if self.seconds is not None and not 0 < self.seconds <= LONGEST_S:
            raise DataError(
                f"a stream cannot run for {self.seconds:g} seconds", hint=f"above 0, at most {LONGEST_S:.0f}, which are 30 days"
            )

    @property
    def limit_ms(self) -> float | None:
        """The deadline that holds; None where nothing is late."""
        if self.period_s is None:
            return None
        return self.deadline_ms or max(DEADLINE_FRAMES * self.period_s * 1000, LEAST_DEADLINE_MS)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StreamResult:
    """What became of one frame.

    Attributes:
        input: The file or the camera.
        frame: The frame's place in it, from 0.
        number: Its place in the stream, from 0.
        time_s: Its time in the cine or the video, in seconds; None where there is none.
        captured_ns: When it was captured, by the monotonic clock.
        captured_at: The same in UTC.
        age_ms: Milliseconds from its capture to this result.
        dropped: Frames since the result before this one that nobody looked at.
        part: The part of the input it belongs to, as `Picture.part`.
        dropped_in_part: How many of `dropped` are of this part; the others are of those before it.
        step: Step of the ladder it was made on.
        late: Whether it was older than the deadline, and so withheld.
        prediction: The answer; None where there is none to show.
        reason: Why there is none; empty where there is.
        error: What the frame failed with; None where it did not.
        smoothed: The answer of this frame and those before it; None where smoothing is off or the frame has no answer.
    """

    input: str
    frame: int
    number: int
    time_s: float | None
    captured_ns: int
    captured_at: datetime
    age_ms: float
    dropped: int
    step: str
    late: bool = False
    prediction: Prediction | None = None
    reason: str = ""
    error: EdgekitError | None = None
    smoothed: Combined | None = None
    part: str = ""
    dropped_in_part: int = 0


class Stream:
    """The frames of one source on one predictor.

    Args:
        predictor: A clip of the classifier; nothing else may use it while the stream plays.
        health: Records what becomes of the frames.
        options: Deadline, ladder, length.
        smoother: Combines the answers as they come; None for no smoothing.
        clocks: The time.
    """

    def __init__(
        self,
        predictor: Predictor,
        health: Health,
        options: StreamOptions,
        *,
        smoother: Combiner | None = None,
        clocks: Clocks = REAL,
    ) -> None:
        self._predictor, self._health, self._options = predictor, health, options
        self._smoother, self._clocks = smoother, clocks
        self._ladder = Ladder(options.ladder, enabled=options.period_s is not None, maps=options.explain)
        self._next_frame_number, self._part = 0, ""
        self._failures, self._failing = 0, ""

    def play(self, feed: Feed) -> Generator[StreamResult, None, None]:
        """Takes frames from a feed until it ends, and closes it then, or when the iterator is closed.

        Yields:
            What became of each frame that was taken, in the order of capture. The next frame is taken when the next result is asked for.

        Raises:
            EdgekitError: The source ended with it, or `MAX_FAILURES` frames in a row did.
        """
        seconds = self._options.seconds
        until_ns = None if seconds is None else self._clocks.monotonic_ns() + round(seconds * 1e9)
        not_before_ns = 0
        # The recorder may still stand where the input before this one left it.
        self._health.at_step(self._ladder.step)
        try:
            while (shot := feed.take(not_before_ns=not_before_ns, until_ns=until_ns)) is not None:
                taken_ns = self._clocks.monotonic_ns()
                result, inferred = self._answer(shot)
                yield result
                self._check_failures(result)
                if inferred:
                    self._observe(shot)
                not_before_ns = self._not_before(taken_ns)
        finally:
            feed.close()

    def _answer(self, shot: Shot) -> tuple[StreamResult, bool]:
        """The result, and whether anything was inferred for it."""
        plan = self._ladder.plan(self._now_s())
        bare = self._bare(shot, plan)
        pixels = shot.picture.pixels
        if shot.picture.error is not None or pixels is None:
            error = shot.picture.error or DataError(f"{shot.picture.input}: there is no picture")
            self._health.failed(type(error).__name__)
            return replace(bare, error=error), False
        if not plan.infer:
            self._health.degraded(plan.step)
            return replace(bare, reason=_NO_RESULT), False
        self._begin(shot.picture.part)
        try:
            prediction = self._predictor.predict(pixels, explain=plan.explain and self._options.explain)
        except EdgekitError as error:
            self._health.failed(type(error).__name__)
            return replace(bare, error=error, age_ms=self._age_ms(shot)), True
        except BaseException as error:
            self._health.failed(type(error).__name__ if isinstance(error, Exception) else INTERRUPTED)
            raise
        return self._judged(shot, plan, replace(bare, age_ms=self._age_ms(shot)), prediction), True

    def _begin(self, part: str) -> None:
        """Forgets what was built up where another part begins (rule 7)."""
        if self._part not in ("", part):
            self._predictor.reset()
            if self._smoother is not None:
                self._smoother.reset()
        self._part = part

    def _judged(self, shot: Shot, plan: Plan, bare: StreamResult, prediction: Prediction) -> StreamResult:
        """Shows an answer, or withholds it (rule 2)."""
        limit_ms = self._options.limit_ms
        if not plan.show:
            self._health.degraded(plan.step)
            return replace(bare, reason=_NO_RESULT)
        if limit_ms is not None and bare.age_ms > limit_ms:
            self._health.late()
            return replace(bare, late=True, reason=f"late: {bare.age_ms:.0f} ms old, the deadline is {limit_ms:.0f} ms")
        self._health.processed(latency_ms=prediction.latency_ms, age_ms=bare.age_ms)
        self._health.degraded(plan.step)
        smoothed = None
        if not prediction.assessable:
            self._health.not_assessable()
        elif self._smoother is not None:
            paced = self._options.period_s is not None
            time_s = shot.captured_ns / 1e9 if paced else shot.picture.time_s
            smoothed = self._smoother.add(Evidence(probabilities=prediction.probabilities, number=shot.number, time_s=time_s))
        return replace(bare, prediction=prediction, smoothed=smoothed)

    def _bare(self, shot: Shot, plan: Plan) -> StreamResult:
        picture = shot.picture
        dropped = 0
        if picture.error is None:
            dropped, self._next_frame_number = shot.frame_number - self._next_frame_number, shot.frame_number + 1
        return StreamResult(
            input=picture.input,
            frame=picture.index,
            number=shot.number,
            time_s=picture.time_s,
            captured_ns=shot.captured_ns,
            captured_at=shot.captured_at,
            age_ms=self._age_ms(shot),
            dropped=dropped,
            step=plan.step,
            part=picture.part,
            dropped_in_part=min(dropped, shot.part_number),
        )

    def _observe(self, shot: Shot) -> None:
        """Tells the ladder how old the frame is now that its caller is done with it (rule 3)."""
        limit_ms = self._options.limit_ms
        if limit_ms is not None:
            self._ladder.observe(now_s=self._now_s(), age_ms=self._age_ms(shot), deadline_ms=limit_ms)
            self._health.at_step(self._ladder.step)

    def _not_before(self, taken_ns: int) -> int:
        """When the next frame may be taken; 0 for at once."""
        times, period_s = self._ladder.frame_times, self._options.period_s
        return 0 if period_s is None or times == 1 else taken_ns + round(times * period_s * 1e9)

    def _check_failures(self, result: StreamResult) -> None:
        # A file that cannot be read is one failure, however many follow it.
        in_a_row = self._failures + 1 if result.input == self._failing else 1
        self._failures, self._failing = (0, "") if result.error is None else (in_a_row, result.input)
        if self._options.period_s is not None and result.error is not None and self._failures >= MAX_FAILURES:
            raise type(result.error)(
                f"{result.input}: {self._failures} frames in a row failed, the last one with: {result.error.message}",
                hint=result.error.hint,
            ) from result.error

    def _age_ms(self, shot: Shot) -> float:
        return (self._clocks.monotonic_ns() - shot.captured_ns) / 1e6

    def _now_s(self) -> float:
        return self._clocks.monotonic_ns() / 1e9


_NO_RESULT = f"no result: this machine cannot keep up with the stream (step {NO_RESULT})"
