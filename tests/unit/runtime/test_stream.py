"""A live stream: current, bounded, honest. The clock is simulated (`stream_world.py`)."""

from __future__ import annotations

import itertools
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pytest
from device_bundles import TWO
from stream_world import START, FakeClip, FakeFeed, World

from edgekit.errors import DataError, TargetError
from edgekit.runtime.degradation import FEWER_MAPS, FULL, LOWER_RATE, NO_MAPS, NO_RESULT, STEPS
from edgekit.runtime.feeds import EveryFeed
from edgekit.runtime.sources import Picture
from edgekit.runtime.stream import INTERRUPTED, MAX_FAILURES, Stream, StreamOptions
from edgekit.runtime.temporal import Combiner, TimeConstant

FPS = 60.0
LIVE = StreamOptions(period_s=1 / FPS)


class Setup:
    """A stream over `frames` frames at 60 a second."""

    def __init__(self, frames: int, options: StreamOptions = LIVE, smoother: Combiner | None = None, **clip) -> None:
        self.world = World()
        self.health = self.world.health()
        self.clip = FakeClip(self.world, **clip)
        self.feed = FakeFeed(self.world, self.health, FPS, frames)
        self.stream = Stream(self.clip, self.health, options, smoother=smoother, clocks=self.world.clocks)

    def play(self):
        return self.stream.play(self.feed)

    def balance(self) -> tuple[int, int]:
        """Captured, and everything that became of it."""
        found = self.health.snapshot()
        none = found.degraded_by_step.get(NO_RESULT, 0)
        return found.captured, found.processed + found.late + found.dropped + found.failed + none


def test_a_slow_model_stays_current_and_each_drop_is_counted():
    """25 ms at 60 frames a second: no frame older than a frame time and the inference, and captured = processed + dropped, to the frame."""
    setup = Setup(6000, ms=lambda _: 25.0)
    results = list(setup.play())
    assert max(result.age_ms for result in results) <= 1000 / FPS + 25 + 1e-6
    found = setup.health.snapshot()
    assert (found.late, found.failed, found.degraded) == (0, 0, 0)
    assert found.captured == 6000 == found.processed + found.dropped
    assert sum(result.dropped for result in results) == found.dropped > 1900
    assert [result.number for result in results] == sorted({result.number for result in results})
    assert setup.feed.closed == 1


def test_a_result_is_its_own_frames():
    """Place, time of capture and pixels are of one frame, whatever was dropped around it."""
    setup = Setup(200, ms=lambda _: 40.0)
    for result in setup.play():
        assert (result.prediction.seen == result.number % 256).all()
        assert result.captured_ns == round(result.number * 1e9 / FPS)
        assert abs((result.captured_at - START) - timedelta(seconds=result.number / FPS)) < timedelta(microseconds=2)
        assert result.age_ms >= 40


def test_what_is_past_its_deadline_is_withheld_and_says_so():
    """A late answer is no answer: no prediction, no smoothed one, and the age and the deadline in the reason."""
    smoother = Combiner("exponential", TWO, {}, tau=TimeConstant(value=5))
    setup = Setup(40, StreamOptions(period_s=1 / FPS, deadline_ms=50), smoother, ms=lambda _: 60.0)
    first = next(setup.play())
    assert first.late
    assert first.prediction is None
    assert first.smoothed is None
    assert first.reason == "late: 60 ms old, the deadline is 50 ms"
    assert setup.health.snapshot().late == 1
    assert smoother.result() is None


def test_the_deadline_of_a_live_stream_is_a_few_frame_times():
    """Four frame times, not under 100 ms, unless it is named; without a rate nothing is late."""
    assert StreamOptions(period_s=1 / 10).limit_ms == pytest.approx(400)
    assert StreamOptions(period_s=1 / 60).limit_ms == 100
    assert StreamOptions(period_s=1 / 10, deadline_ms=50).limit_ms == 50
    assert StreamOptions().limit_ms is None


def test_a_load_is_seen_in_the_results_and_so_is_its_end():
    """Planted load walks down every step and back; the step is in each result and in the health, and every frame is accounted for."""
    setup = Setup(60 * 120)
    setup.clip.ms = lambda _: 200.0 if 5e9 < setup.world.now_ns < 30e9 else 20.0
    results = list(setup.play())
    steps = [step for step, _ in itertools.groupby(result.step for result in results)]
    assert steps == [*STEPS, *reversed(STEPS[:-1])]
    assert {result.prediction for result in results if result.step == NO_RESULT} == {None}
    assert all("cannot keep up" in result.reason for result in results if result.step == NO_RESULT)
    found = setup.health.snapshot()
    assert found.step == FULL
    shown = [result for result in results if result.prediction is not None]
    for step in STEPS[1:4]:
        assert found.degraded_by_step.get(step, 0) == sum(result.step == step for result in shown)
    captured, accounted = setup.balance()
    assert captured == accounted == 60 * 120


def test_maps_are_not_asked_for_where_they_are_given_up():
    """A map that costs too much is computed for one frame in four, then for none, and answers go on."""
    setup = Setup(600, StreamOptions(period_s=1 / FPS, deadline_ms=60), ms=lambda explain: 80.0 if explain else 5.0)
    results = list(setup.play())
    by_step = {step: [explain for explain, result in zip(setup.clip.calls, results, strict=True) if result.step == step] for step in STEPS}
    assert all(by_step[FULL])
    assert 0 < sum(by_step[FEWER_MAPS]) <= len(by_step[FEWER_MAPS]) // 2
    assert by_step[NO_MAPS]
    assert not any(by_step[NO_MAPS])
    assert not by_step[NO_RESULT]


def test_what_the_caller_does_with_a_result_counts():
    """A slow overlay takes maps away, although the classifier alone is fast enough."""
    setup = Setup(300)
    seen = []
    for result in setup.play():
        seen.append(result.step)
        setup.world.work(150 if setup.clip.calls[-1] else 1)
    assert FEWER_MAPS in seen
    assert not setup.health.snapshot().late


def test_every_frame_of_a_file_is_answered_however_long_it_takes():
    """Without a rate nothing is dropped, late or given up."""
    world = World()
    health, clip = world.health(), FakeClip(world, ms=lambda _: 10_000.0)
    pictures = [Picture(input="cine", index=index, pixels=np.full((4, 4), index, np.uint8), time_s=index / 5) for index in range(50)]
    stream = Stream(clip, health, StreamOptions(), clocks=world.clocks)
    results = list(stream.play(EveryFeed(iter(pictures), health, world.clocks)))
    assert [(result.frame, result.step, result.late, result.dropped) for result in results] == [
        (index, FULL, False, 0) for index in range(50)
    ]
    assert all(clip.calls)
    found = health.snapshot()
    assert (found.captured, found.processed, found.dropped) == (50, 50, 0)


def test_a_frame_that_fails_is_reported_and_the_next_is_answered():
    """As a scanner goes on; the kind of the error is counted."""
    setup = Setup(20, fails=lambda call: TargetError("hung") if call == 3 else None)
    results = list(setup.play())
    assert [result.number for result in results if result.error is not None] == [3]
    assert len(results) == 20
    assert setup.health.snapshot().failed_by_kind == {"TargetError": 1}
    assert setup.balance() == (20, 20)


def test_frames_that_fail_in_a_row_end_the_stream():
    """An engine that answers nothing is not asked for ever; the last error says what it was, and the source is closed."""
    setup = Setup(1000, fails=lambda call: TargetError("broken", hint="mend it") if call >= 5 else None)
    seen = []
    with pytest.raises(TargetError, match=f"{MAX_FAILURES} frames in a row failed, the last one with: broken") as caught:
        seen.extend(setup.play())
    assert caught.value.hint == "mend it"
    assert len(seen) == 5 + MAX_FAILURES
    assert setup.feed.closed == 1


def test_what_is_no_error_of_edgekit_ends_the_stream_at_once():
    """A defect is not taken for a frame that failed."""
    setup = Setup(10, fails=lambda call: ZeroDivisionError("defect") if call == 2 else None)
    with pytest.raises(ZeroDivisionError):
        list(setup.play())
    assert setup.feed.closed == 1


def test_files_that_cannot_be_read_do_not_end_a_stream():
    """A folder of broken files is one error a file, and the whole ones are answered."""
    world = World()
    health, clip = world.health(), FakeClip(world)
    pictures = [Picture(input=f"{index}", index=0, error=DataError("damaged")) for index in range(2 * MAX_FAILURES)]
    pictures.append(Picture(input="whole", index=0, pixels=np.zeros((4, 4), np.uint8)))
    results = list(Stream(clip, health, LIVE, clocks=world.clocks).play(EveryFeed(iter(pictures), health, world.clocks)))
    assert results[-1].prediction is not None
    assert results[-1].dropped == 0
    assert sum(result.error is not None for result in results) == 2 * MAX_FAILURES


def test_a_smoothed_answer_stands_beside_the_raw_one():
    """The frame's own answer is untouched, frames that are not assessable are left out, and have no smoothed answer either."""
    smoother = Combiner("exponential", TWO, {}, tau=TimeConstant(value=3))
    setup = Setup(30, smoother=smoother, assessable=lambda call: call != 10)
    results = list(setup.play())
    assert all(result.prediction.probabilities["malignant"] == result.number / 255 for result in results if result.prediction.assessable)
    assert results[10].smoothed is None
    assert results[20].smoothed.frames == 20
    assert results[20].smoothed.probabilities["malignant"] < results[20].prediction.probabilities["malignant"]
    assert setup.health.snapshot().not_assessable == 1


def test_seconds_end_a_stream():
    """It stops at its time, and what was captured is accounted for."""
    setup = Setup(10_000, StreamOptions(period_s=1 / FPS, seconds=5))
    results = list(setup.play())
    assert 5 * FPS - 2 <= len(results) <= 5 * FPS
    assert setup.feed.closed == 1


def test_a_stream_that_is_left_closes_its_source():
    """Ctrl-C, or a caller that has enough."""
    setup = Setup(1000)
    playing = setup.play()
    next(playing)
    playing.close()
    assert setup.feed.closed == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        *[({"deadline_ms": value}, "deadline") for value in (0, float("nan"), float("inf"), 60_001)],
        *[({"seconds": value}, "cannot run") for value in (-1, float("nan"), float("inf"), 1e10)],
    ],
)
def test_options_that_make_no_sense_are_refused(options, words):
    """Before any frame."""
    with pytest.raises(DataError, match=words):
        StreamOptions(**options)


def test_a_frame_whose_answer_is_interrupted_is_counted():
    """Ctrl-C, or a defect, in the middle of an answer: the frame was captured, so it became something."""
    for stop, kind in ((KeyboardInterrupt(), INTERRUPTED), (ZeroDivisionError(), "ZeroDivisionError")):
        setup = Setup(20, fails=lambda call, stop=stop: stop if call == 3 else None)
        with pytest.raises(type(stop)):
            list(setup.play())
        assert setup.health.snapshot().failed_by_kind == {kind: 1}
        assert setup.balance() == (4, 4)
        assert setup.feed.closed == 1


def test_the_health_stands_where_the_ladder_stands():
    """At each result; and a stream that begins stands on its own first step, not where the one before it ended."""
    setup = Setup(600, ms=lambda _: 300.0)
    assert all(setup.health.snapshot().step == result.step for result in setup.play())
    assert setup.health.snapshot().step == NO_RESULT
    for options in (LIVE, StreamOptions()):
        setup.health.at_step(NO_RESULT)
        playing = Stream(FakeClip(setup.world), setup.health, options, clocks=setup.world.clocks).play(
            FakeFeed(setup.world, setup.health, FPS, 5)
        )
        next(playing)
        assert setup.health.snapshot().step == FULL


def test_an_inference_that_fails_slowly_is_a_load():
    """The ladder sees how old the frame is that got an error, as that of any other."""
    setup = Setup(1000, ms=lambda _: 200.0, fails=lambda call: TargetError("slow") if call < MAX_FAILURES - 1 else None)
    assert next(result.step for result in setup.play() if result.error is None) != FULL


def test_live_answers_are_smoothed_over_the_time_of_capture():
    """Over seconds, whatever times a file has or has not: drops are gaps."""
    tau_s = 0.2
    smoother = Combiner("exponential", TWO, {}, tau=TimeConstant(value=tau_s, unit="seconds"))
    setup = Setup(40, smoother=smoother, ms=lambda _: 40.0)
    results = list(setup.play())
    at_s = np.array([result.captured_ns for result in results]) / 1e9
    weights, values = np.exp(-(at_s[-1] - at_s) / tau_s), np.array([result.number / 255 for result in results])
    assert results[-1].smoothed.probabilities["malignant"] == pytest.approx((weights * values).sum() / weights.sum())


def parted(parts):
    return [Picture(input=part, index=index, pixels=np.full((4, 4), index, np.uint8), part=part) for index, part in enumerate(parts)]


def test_another_part_begins_anew():
    """What was built up for one patient's frames is in none of the next one's; an error in between begins nothing."""
    world = World()
    health, clip = world.health(), FakeClip(world)
    smoother = Combiner("exponential", TWO, {}, tau=TimeConstant(value=5))
    pictures = [*parted("aa"), Picture(input="bad", index=0, error=DataError("damaged")), *parted("abb")]
    stream = Stream(clip, health, LIVE, smoother=smoother, clocks=world.clocks)
    results = list(stream.play(EveryFeed(iter(pictures), health, world.clocks)))
    assert clip.resets == [3]
    assert [None if result.smoothed is None else result.smoothed.frames for result in results] == [1, 2, None, 3, 1, 2]
    assert [result.part for result in results] == ["a", "a", "", "a", "b", "b"]


def test_drops_are_told_apart_by_their_part():
    """Those at the beginning of a part are its own, those before it are of what was before."""
    world = World()
    feed = EveryFeed(iter(parted("aaaabbbb")), world.health(), world.clocks)
    shots = [feed.take() for _ in range(8)]
    taken = [shots[0], shots[2], shots[6], shots[7]]
    chosen = SimpleNamespace(take=lambda **_: taken.pop(0) if taken else None, close=lambda: None)
    results = list(Stream(FakeClip(world), world.health(), LIVE, clocks=world.clocks).play(chosen))
    assert [(result.dropped, result.dropped_in_part) for result in results] == [(0, 0), (1, 1), (3, 2), (0, 0)]


def test_maps_that_nobody_wants_are_never_asked_for():
    """And there is no step that gives them up."""
    setup = Setup(600, StreamOptions(period_s=1 / FPS, explain=False), ms=lambda _: 300.0)
    steps = {result.step for result in setup.play()}
    assert not any(setup.clip.calls)
    assert steps == {FULL, LOWER_RATE, NO_RESULT}
