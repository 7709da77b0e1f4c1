"""The watch beside a series, and what is made of its readings."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgekit.errors import TargetError
from edgekit.profiler import observation
from edgekit.profiler.energy import PowerMeter
from edgekit.profiler.observation import Observed, rest_power, sustained_ratio
from edgekit.profiler.pacing import Clock
from edgekit.profiler.throttle import ThrottleFiles
from edgekit.profiler.watch import Eyes, Watch, open_eyes
from edgekit.runtime.sensors import Sensors

SECOND = 1_000_000_000


class Machine:
    """A made-up machine whose clock the test turns: 10 W at work, a degree a second, memory that grows by 6 MiB a minute."""

    def __init__(self, root, *, watts=10.0, meter=True, throttle=True):
        self.root, self.now, self.watts = root, 0, watts
        self.process = root / "proc/self"
        self.process.mkdir(parents=True)
        self.counter = root / "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
        if throttle:
            self.counter.parent.mkdir(parents=True)
            self.counter.write_text("5\n")
        self.meter = PowerMeter("INA3221", "whole board (VDD_IN)", lambda: self.watts) if meter else None

    def eyes(self):
        return Eyes(
            throttle=ThrottleFiles(self.root),
            sensors=self.sensors,
            process=self.process,
            meter=self.meter,
            no_meter="" if self.meter else "there is none",
            now_ns=lambda: self.now,
        )

    def sensors(self):
        return Sensors(temperatures_c={"cpu": 40.0 + self.now / SECOND}, clocks_mhz={}, unavailable={"clocks_mhz": "no clocks"})

    def watched(self, seconds, *, between=lambda _second: None):
        """A watch that has read once a second."""
        watch = Watch(eyes=self.eyes())
        for second in range(seconds + 1):
            self.now = second * SECOND
            held = 100 * 1024 + round(102.4 * second)
            shared = 50 * 1024 if second < seconds / 2 else 90 * 1024
            (self.process / "smaps_rollup").write_text(f"Pss: {held + shared} kB\nAnonymous: {held - 1024} kB\nSwap: 1024 kB\n")
            between(second)
            watch.read()
        return watch

    def observed(self, seconds=60, *, per_second=10, rest_w=4.0, **options):
        starts = np.arange(seconds * per_second) / per_second
        return Observed(
            watch=self.watched(seconds, **options), begin_ns=0, starts_s=starts, milliseconds=np.full(starts.size, 20.0), rest_w=rest_w
        )


def test_energy_a_frame_is_all_of_it_and_what_is_above_rest(tmp_path):
    """10 W over 10 frames a second are 1 J a frame; with 4 W at rest, 0.6 J of it are the frame's."""
    found, reasons = observation.energy(Machine(tmp_path).observed())
    assert found["mj_per_frame"] == pytest.approx(1000.0)
    assert found["mj_per_frame_above_idle"] == pytest.approx(600.0)
    assert (found["source"], found["scope"], found["frames"]) == ("INA3221", "whole board (VDD_IN)", 600)
    assert (found["idle_w"], found["busy_w"]) == (4.0, pytest.approx(10.0))
    assert reasons == {}


def test_energy_without_a_meter_is_not_available_and_says_why(tmp_path):
    """Every figure has the reason."""
    found, reasons = observation.energy(Machine(tmp_path, meter=False).observed())
    assert set(found.values()) == {None}
    assert set(reasons) == set(observation.ENERGY_KEYS)
    assert set(reasons.values()) == {"there is none"}


def test_a_meter_that_fails_meanwhile_ends_the_energy_and_not_the_measurement(tmp_path):
    """Its last words are the reason."""
    machine = Machine(tmp_path)

    def unplug(second):
        if second == 30:

            def gone():
                raise TargetError("the meter was unplugged")

            machine.meter._watts = gone

    found, reasons = observation.energy(machine.observed(between=unplug))
    assert found["mj_per_frame"] is None
    assert "unplugged" in reasons["mj_per_frame"]


def waiting(machine, slept):
    def sleep(seconds):
        slept.append(seconds)
        machine.now += round(seconds * SECOND)

    return Clock(now_ns=lambda: machine.now, sleep=sleep)


def test_power_at_rest_is_that_while_nothing_is_done(tmp_path):
    """Read several times, by waiting alone; who waits sees how far it is."""
    machine = Machine(tmp_path, watts=3.5)
    slept, told = [], []
    assert rest_power(machine.meter, 2.0, clock=waiting(machine, slept), on_progress=told.append) == pytest.approx(3.5)
    assert sum(slept) == pytest.approx(2.0)
    assert len(slept) >= 4
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(told) >= 4


@pytest.mark.parametrize("after", [0, 3])
def test_a_meter_that_fails_at_rest_is_a_reason(tmp_path, after):
    """At its first reading or later: the profile goes on."""
    machine = Machine(tmp_path)
    readings = iter([10.0] * after)

    def watts():
        if (found := next(readings, None)) is None:
            raise TargetError("the meter was unplugged")
        return found

    machine.meter = PowerMeter("INA3221", "whole board (VDD_IN)", watts)
    assert rest_power(machine.meter, 2.0, clock=waiting(machine, [])) == "the power at rest is not known: the meter was unplugged"


def test_energy_without_a_power_at_rest_is_all_of_it_and_says_why(tmp_path):
    """What is above rest is null with the reason, and not measured from 0 W."""
    found, reasons = observation.energy(Machine(tmp_path).observed(rest_w="the power at rest is not known: unplugged"))
    assert found["mj_per_frame"] == pytest.approx(1000.0)
    assert (found["idle_w"], found["mj_per_frame_above_idle"]) == (None, None)
    assert set(reasons) == {"idle_w", "mj_per_frame_above_idle"}
    assert set(reasons.values()) == {"the power at rest is not known: unplugged"}


def test_frames_before_the_first_reading_are_not_of_its_energy(tmp_path):
    """Only those begun between the first reading and the last."""
    machine = Machine(tmp_path)
    whole = machine.observed(20)
    watch = Watch(eyes=whole.watch.eyes, readings=whole.watch.readings[5:16])
    found, _ = observation.energy(dataclasses.replace(whole, watch=watch))
    assert found["frames"] == 100
    assert found["mj_per_frame"] == pytest.approx(1000.0)


def test_the_timeline_has_every_reading_on_the_clock_of_the_series(tmp_path):
    """Temperatures rise, the hottest is told; what the machine does not have has the reason."""
    found, reasons = observation.timeline(Machine(tmp_path).observed(20))
    assert found["t_s"] == list(range(21))
    assert found["temperatures_c"] == {"cpu": [40.0 + second for second in range(21)]}
    assert found["hottest_c"] == 60.0
    assert found["energy_j"] == pytest.approx([10.0 * second for second in range(21)])
    assert (found["throttled"], found["throttled_by"]) == (False, "")
    assert found["throttle_sources"] == ["core counter"]
    assert reasons == {"clocks_mhz": "no clocks"}


def test_a_counter_that_rises_is_throttling(tmp_path):
    """By as much as it rose meanwhile, not by what was there before."""
    machine = Machine(tmp_path)
    found, _ = observation.timeline(machine.observed(20, between=lambda second: machine.counter.write_text(f"{5 + second // 10}\n")))
    assert (found["throttled"], found["throttled_by"]) == (True, "2 throttle events")
    assert found["throttle_events"] == [0] * 10 + [1] * 10 + [2]


def cooling(machine, state):
    folder = machine.root / "sys/class/thermal/cooling_device0"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "type").write_text("cpufreq-cpu0\n")
    (folder / "cur_state").write_text(f"{state}\n")


def test_a_state_is_told_for_each_reading(tmp_path):
    """When the machine held itself back, not only that it did."""
    machine = Machine(tmp_path)
    cooling(machine, 0)
    found, _ = observation.timeline(machine.observed(4, between=lambda second: cooling(machine, 2 if second in {2, 3} else 0)))
    assert found["throttle_states"] == [[], [], ["cpufreq-cpu0 at 2"], ["cpufreq-cpu0 at 2"], []]
    assert (found["throttled"], found["throttled_by"]) == (True, "cpufreq-cpu0 at 2")


def test_what_can_no_longer_be_read_does_not_become_unthrottled(tmp_path):
    """Nobody knows then, and the reason names it; what was seen before counts all the same."""
    for name, seen in (("quiet", False), ("held", True)):
        machine = Machine(tmp_path / name, throttle=False)
        cooling(machine, 0)

        def fade(second, machine=machine, seen=seen):
            if second == 1 and seen:
                cooling(machine, 1)
            if second == 3:
                (machine.root / "sys/class/thermal/cooling_device0/cur_state").unlink()

        found, reasons = observation.timeline(machine.observed(5, between=fade))
        assert found["throttled"] is (True if seen else None)
        assert seen or "cpufreq-cpu0 (cooling_device0) could not be read" in reasons["throttled"]


def test_a_machine_that_does_not_tell_is_not_unthrottled(tmp_path):
    """None, and the reason."""
    found, reasons = observation.timeline(Machine(tmp_path, throttle=False).observed(20))
    assert found["throttled"] is None
    assert "no throttle counter" in reasons["throttled"]


def test_growth_is_the_slope_after_the_warm_up(tmp_path):
    """6 MiB a minute of its own, and what the profile keeps of 600 frames a minute beside it; a program that ends and shared 40 MiB is no growth."""
    found, reasons = observation.growth(Machine(tmp_path).observed(60), excluded=100)
    assert found["mib_per_minute"] == pytest.approx(6.0, rel=0.01)
    assert found["low"] <= found["mib_per_minute"] <= found["high"]
    assert found["readings"] == 51
    assert found["kept_mib_per_minute"] == pytest.approx(600 * 40 / 2**20, rel=0.01)
    assert reasons == {}


def test_growth_of_a_short_run_is_not_known(tmp_path):
    """Nine readings; the number that there are stays."""
    found, reasons = observation.growth(Machine(tmp_path).observed(8), excluded=0)
    assert (found["mib_per_minute"], found["readings"]) == (None, 9)
    assert "needs 10 readings, there are 9" in reasons["low"]


def test_growth_where_the_system_tells_no_memory(tmp_path):
    """A kernel without smaps_rollup."""
    machine = Machine(tmp_path)
    found, reasons = observation.growth(machine.observed(20, between=lambda _: (machine.process / "smaps_rollup").unlink()), excluded=0)
    assert found["mib_per_minute"] is None
    assert "does not tell" in reasons["mib_per_minute"]


def test_the_sustained_ratio_is_the_last_third_by_the_first():
    """A machine that is half as fast after a minute has 2; too few frames have a reason."""
    starts = np.arange(90.0)
    ratio, _ = sustained_ratio(starts, np.repeat([10.0, 15.0, 20.0], 30))
    assert ratio == 2.0
    assert "are too few" in sustained_ratio(starts[:12], np.full(12, 1.0))[1]


class Ticker:
    """Counts what is read, on a clock that the test turns; a reading takes 10 ms."""

    def __init__(self, root):
        self.machine = Machine(root)
        eyes = self.machine.eyes()
        self.watch = Watch(eyes=dataclasses.replace(eyes, sensors=self._sensors))
        self.watch.read()

    def _sensors(self):
        self.machine.now += 10_000_000
        return self.machine.sensors()

    def at(self, seconds):
        self.machine.now = round(seconds * SECOND)

    @property
    def count(self):
        return len(self.watch.readings)


def test_a_look_reads_once_a_second(tmp_path):
    """However often it is asked, counted from the reading before."""
    ticker = Ticker(tmp_path)
    for seconds, count in ((0.5, 1), (0.99, 1), (1.0, 2), (1.5, 2), (1.99, 2), (2.0, 3), (9.0, 4), (9.9, 4)):
        ticker.at(seconds)
        ticker.watch.look()
        assert ticker.count == count


def test_a_look_that_does_not_fit_is_left_out(tmp_path):
    """A reading took 10 ms: within 19 ms there is none, within 20 ms there is."""
    ticker = Ticker(tmp_path)
    ticker.at(5.0)
    ticker.watch.look_within(19_000_000)
    assert ticker.count == 1
    ticker.watch.look_within(20_000_000)
    assert ticker.count == 2


def test_one_slow_reading_does_not_end_the_others(tmp_path):
    """Where another watch has found what a reading usually takes, that counts and not the last one."""
    ticker = Ticker(tmp_path)
    ticker.watch.usual_ns = 1_000_000
    ticker.at(5.0)
    ticker.watch.look_within(2_000_000)
    assert ticker.count == 2


def test_the_eyes_of_this_machine_are_opened_under_a_root(tmp_path):
    """Without a meter they say why; nothing outside the root is read."""
    eyes = open_eyes(tmp_path, meter="no meter here")
    assert (eyes.meter, eyes.no_meter) == (None, "no meter here")
    assert not eyes.throttle.tells
    assert eyes.sensors().temperatures_c == {}
