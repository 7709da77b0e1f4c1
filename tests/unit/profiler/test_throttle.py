"""What tells of throttling, on made-up file systems."""

from __future__ import annotations

import pytest

from edgekit.profiler.throttle import ThrottleFiles


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


X86 = {
    "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3\n",
    "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count": "40\n",
    "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "1\n",
}


def test_counters_are_added_up_and_have_no_states(tmp_path):
    """Cores and package of an x86 machine."""
    found = ThrottleFiles(write(tmp_path, X86))
    assert found.tells
    assert (found.read().events, found.read().states) == (44, None)


def test_over_current_events_of_a_jetson_count(tmp_path):
    """`oc1_event_cnt` of its soctherm driver."""
    found = ThrottleFiles(write(tmp_path, {"sys/class/hwmon/hwmon2/oc1_event_cnt": "7\n", "sys/class/hwmon/hwmon2/oc2_event_cnt": "0\n"}))
    assert found.read().events == 7


@pytest.mark.parametrize(
    ("kind", "state", "states"),
    [
        ("cpufreq-cpu0", "2", ("cpufreq-cpu0 at 2",)),
        ("Processor", "1", ("Processor at 1",)),
        ("devfreq-17000000.gpu", "0", ()),
        ("cpu-throttle-alert", "1", ("cpu-throttle-alert at 1",)),
    ],
)
def test_a_cooling_device_that_slows_a_clock_is_a_state(tmp_path, kind, state, states):
    """Where its state is above 0."""
    folder = "sys/class/thermal/cooling_device0"
    found = ThrottleFiles(write(tmp_path, {f"{folder}/type": kind + "\n", f"{folder}/cur_state": state + "\n"}))
    assert (found.read().events, found.read().states) == (None, states)


def test_a_fan_is_no_throttle(tmp_path):
    """It cools, and slows nothing down."""
    folder = "sys/class/thermal/cooling_device0"
    assert not ThrottleFiles(write(tmp_path, {f"{folder}/type": "pwm-fan\n", f"{folder}/cur_state": "3\n"})).tells


@pytest.mark.parametrize(
    ("bits", "states"),
    [
        ("0x0", ()),
        ("50005", ("under-voltage", "throttled")),
        ("0x50000", ()),
        ("8", ("soft temperature limit",)),
        ("2", ("frequency capped",)),
    ],
)
def test_the_bits_of_a_raspberry_pi_that_stand_now(tmp_path, bits, states):
    """Bits 16 and above are history and no throttling of this run."""
    found = ThrottleFiles(write(tmp_path, {"sys/devices/platform/soc/soc:firmware/get_throttled": bits + "\n"}))
    assert found.read().states == states


@pytest.mark.parametrize("text", ["", "not a number\n"])
def test_a_machine_that_tells_nothing_tells_nothing(tmp_path, text):
    """No files, or files without a number, are no "not throttled"."""
    files = dict.fromkeys(X86, text) if text else {}
    assert not ThrottleFiles(write(tmp_path, files)).tells


def test_counters_are_read_afresh(tmp_path):
    """The place is found once, the number each time."""
    found = ThrottleFiles(write(tmp_path, X86))
    before = found.read().events
    write(tmp_path, {"sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "6\n"})
    assert found.read().events == before + 5
