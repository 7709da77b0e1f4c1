"""The ladder of a stream: it gives up one thing after another under load, and takes each back when the load is gone."""

from __future__ import annotations

import pytest

from edgekit.runtime.degradation import FEWER_MAPS, FULL, LOWER_RATE, NO_MAPS, NO_RESULT, STEPS, Ladder, LadderOptions

DEADLINE_MS = 100.0
OPTIONS = LadderOptions(hold_s=2.0, longest_hold_s=16.0)


class World:
    """A source of 20 frames a second; each frame is as old at its end as the load says for what was done with it."""

    def __init__(self, ladder: Ladder) -> None:
        self.ladder, self.now_s = ladder, 0.0
        self.steps = [ladder.step]

    def run(self, seconds: float, age_ms) -> list:
        """Plays on; returns the plans."""
        plans, end = [], self.now_s + seconds
        while self.now_s < end:
            plan = self.ladder.plan(self.now_s)
            plans.append(plan)
            if plan.infer:
                self.ladder.observe(now_s=self.now_s, age_ms=age_ms(plan), deadline_ms=DEADLINE_MS)
            if self.ladder.step != self.steps[-1]:
                self.steps.append(self.ladder.step)
            self.now_s += 0.05 * self.ladder.frame_times
        return plans


def test_a_planted_load_walks_down_every_step_and_back():
    """From full to no result and back to full, one step at a time, none left out."""
    world = World(Ladder(OPTIONS))
    world.run(2, lambda _: 40)
    assert world.steps == [FULL]
    world.run(20, lambda _: 150)
    assert world.steps == list(STEPS)
    world.run(60, lambda _: 40)
    assert world.steps == [*STEPS, *reversed(STEPS[:-1])]


def test_each_step_gives_up_what_it_says():
    """All maps; one in four; none; none and fewer frames; no result."""
    ladder = Ladder(OPTIONS)
    seen = {}
    for step in STEPS:
        assert ladder.step == step
        seen[step] = [ladder.plan(0.0) for _ in range(8)]
        for _ in range(OPTIONS.strikes):
            ladder.observe(now_s=0.0, age_ms=150, deadline_ms=DEADLINE_MS)
    assert [sum(plan.explain for plan in seen[step]) for step in STEPS] == [8, 2, 0, 0, 0]
    assert [sum(plan.infer for plan in seen[step]) for step in STEPS] == [8, 8, 8, 8, 0]
    assert all(plan.show == (step != NO_RESULT) and plan.step == step for step in STEPS for plan in seen[step])
    assert ladder.step == NO_RESULT


def test_the_rate_is_lower_from_the_fourth_step_on():
    """Fewer frames are taken, so that the machine has time for its other work."""
    ladder = Ladder(OPTIONS)
    times = []
    for _ in STEPS:
        times.append(ladder.frame_times)
        for _ in range(OPTIONS.strikes):
            ladder.observe(now_s=0.0, age_ms=150, deadline_ms=DEADLINE_MS)
    assert times == [1, 1, 1, OPTIONS.rate_every, OPTIONS.rate_every]


def test_one_slow_frame_costs_nothing():
    """A single frame that was held up is no load."""
    world, frames = World(Ladder(OPTIONS)), iter(range(10_000))
    world.run(30, lambda _: 500 if next(frames) % OPTIONS.window == 0 else 40)
    assert world.steps == [FULL]


def test_maps_that_alone_are_too_slow_are_the_only_thing_given_up():
    """Where answers without maps are in time, maps go and answers stay."""
    world = World(Ladder(OPTIONS))
    plans = world.run(10, lambda plan: 150 if plan.explain else 40)
    assert world.steps[:3] == [FULL, FEWER_MAPS, NO_MAPS]
    assert LOWER_RATE not in world.steps
    assert all(plan.infer for plan in plans)


def test_a_load_that_stays_is_tried_ever_more_rarely():
    """The ladder does not flicker: climbs that are undone wait twice as long for the next, up to a limit."""
    world = World(Ladder(OPTIONS))
    world.run(600, lambda plan: 150 if plan.step == FULL else 40)
    tries = world.steps.count(FULL) - 1
    assert 600 / (OPTIONS.longest_hold_s + 2) - 3 <= tries <= 600 / OPTIONS.longest_hold_s + 6


def test_a_climb_that_lasts_forgives():
    """After a load that is over the next climb waits no longer than the first one did."""
    world = World(Ladder(OPTIONS))
    world.run(120, lambda plan: 150 if plan.step == FULL else 40)
    world.run(60, lambda _: 40)
    assert world.steps[-1] == FULL
    world.run(0.3, lambda plan: 150 if plan.step == FULL else 40)
    assert world.steps[-1] == FEWER_MAPS
    world.run(OPTIONS.hold_s + 0.2, lambda _: 40)
    assert world.steps[-1] == FULL


def test_no_result_is_probed_and_nothing_else_is_inferred():
    """About one frame a second is measured, and none of them is shown."""
    world = World(Ladder(OPTIONS))
    world.run(20, lambda _: 150)
    plans = world.run(30, lambda _: 150)
    assert {plan.step for plan in plans} == {NO_RESULT}
    assert 20 <= sum(plan.infer for plan in plans) <= 31
    assert not any(plan.show or plan.explain for plan in plans)


@pytest.mark.parametrize("age_ms", [1, 10_000])
def test_a_ladder_that_is_off_stays_on_the_first_step(age_ms):
    """Files that are not played live are answered whole, however long it takes."""
    world = World(Ladder(OPTIONS, enabled=False))
    assert all(plan.explain and plan.show for plan in world.run(60, lambda _: age_ms))
    assert world.steps == [FULL]


def test_a_climb_waits_until_it_was_calm_for_the_whole_hold():
    """Frames between the two marks begin the wait again."""
    world = World(Ladder(OPTIONS))
    world.run(0.15, lambda _: 150)
    assert world.steps[-1] == FEWER_MAPS
    world.run(1.5, lambda _: 40)
    world.run(0.15, lambda _: 75)
    world.run(1.9, lambda _: 40)
    assert world.steps[-1] == FEWER_MAPS
    world.run(1.0, lambda _: 40)
    assert world.steps[-1] == FULL


def test_an_answer_that_is_in_time_is_never_given_up():
    """Above the mark and below the deadline: maps and frames go, answers stay; and they come back when a probe is in time."""
    world = World(Ladder(OPTIONS))
    assert all(plan.show for plan in world.run(60, lambda _: 95))
    assert world.steps[-1] == LOWER_RATE
    world.run(5, lambda _: 150)
    assert world.steps[-1] == NO_RESULT
    world.run(10, lambda _: 95)
    assert world.steps[-2:] == [NO_RESULT, LOWER_RATE]


def test_without_maps_there_are_no_steps_that_give_them_up():
    """From full to fewer frames."""
    world = World(Ladder(OPTIONS, maps=False))
    world.run(20, lambda _: 150)
    world.run(60, lambda _: 40)
    assert world.steps == [FULL, LOWER_RATE, NO_RESULT, LOWER_RATE, FULL]
