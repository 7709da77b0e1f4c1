"""What tells of throttling, on made-up file systems."""

from __future__ import annotations

import pytest

from edgekit.profiler.throttle import ThrottleFiles, events


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def x86(cores=2, packages=1, threads=2, *, core=0, package=0):
    """Counters of every hardware thread, as the kernel has them: each thread of a package tells what its package counted."""
    files = {}
    for cpu in range(packages * cores * threads):
        folder = f"sys/devices/system/cpu/cpu{cpu}"
        files[f"{folder}/topology/physical_package_id"] = f"{cpu // (cores * threads)}\n"
        files[f"{folder}/topology/core_id"] = f"{cpu // threads % cores}\n"
        files[f"{folder}/thermal_throttle/core_throttle_count"] = f"{core}\n"
        files[f"{folder}/thermal_throttle/package_throttle_count"] = f"{package}\n"
    return files


X86 = x86()


def test_an_event_of_a_package_is_one_event(tmp_path):
    """Two packages of four threads each, whose eight files all count one: two events. So it is with two threads of a core."""
    files = ThrottleFiles(write(tmp_path, x86(packages=2)))
    first = files.read()
    assert files.sources == ("core counter × 4", "package counter × 2")
    write(tmp_path, x86(packages=2, package=1))
    assert events(first, files.read()) == 2
    write(tmp_path, x86(packages=2, package=1, core=1))
    assert events(first, files.read()) == 6


def test_a_counter_is_compared_with_itself(tmp_path):
    """One that goes away, or starts anew, does not take away what another one counted."""
    files = ThrottleFiles(write(tmp_path, x86(core=9, package=50)))
    first = files.read()
    write(tmp_path, x86(core=3, package=53))
    assert events(first, files.read()) == 3
    (tmp_path / "sys/devices/system/cpu/cpu2/thermal_throttle/core_throttle_count").unlink()
    now = files.read()
    assert events(first, now) == 3
    assert now.lost == ("core counter of package 0 core 1",)


def test_threads_without_a_topology_stand_for_themselves(tmp_path):
    """Nothing is missed."""
    known = {name: text for name, text in X86.items() if "topology" not in name}
    files = ThrottleFiles(write(tmp_path, known))
    first = files.read()
    write(tmp_path, {"sys/devices/system/cpu/cpu3/thermal_throttle/core_throttle_count": "1\n"})
    assert events(first, files.read()) == 1


def test_counters_alone_have_no_states(tmp_path):
    """Cores and package of an x86 machine."""
    found = ThrottleFiles(write(tmp_path, X86))
    assert found.tells
    assert found.read().states is None
    assert set(found.read().counts.values()) == {0}


def test_over_current_events_of_a_jetson_count(tmp_path):
    """`oc1_event_cnt` of its soctherm driver."""
    found = ThrottleFiles(write(tmp_path, {"sys/class/hwmon/hwmon2/oc1_event_cnt": "7\n", "sys/class/hwmon/hwmon2/oc2_event_cnt": "0\n"}))
    assert sum(found.read().counts.values()) == 7


@pytest.mark.parametrize(
    ("kind", "state", "states"),
    [
        ("cpufreq-cpu0", "2", ("cpufreq-cpu0 at 2",)),
        ("Processor", "1", ("Processor at 1",)),
        ("devfreq-17000000.gpu", "0", ()),
        ("cpu-throttle-alert", "1", ("cpu-throttle-alert at 1",)),
        ("intel_powerclamp", "40", ("intel_powerclamp at 40",)),
        ("intel_powerclamp", "-1", ()),
        ("Processor", "-1", ()),
    ],
)
def test_a_cooling_device_that_slows_a_clock_is_a_state(tmp_path, kind, state, states):
    """Where its state is above 0."""
    folder = "sys/class/thermal/cooling_device0"
    found = ThrottleFiles(write(tmp_path, {f"{folder}/type": kind + "\n", f"{folder}/cur_state": state + "\n"}))
    assert (found.read().counts, found.read().states) == ({}, states)
    assert found.sources == (f"cooling device {kind}",)


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
    before = found.read()
    write(tmp_path, {"sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "5\n"})
    assert events(before, found.read()) == 5


@pytest.mark.parametrize(
    "file",
    ["sys/devices/platform/soc/soc_fw/get_throttled", "sys/class/thermal/cooling_device0/cur_state"],
)
def test_a_file_that_can_no_longer_be_read_is_told(tmp_path, file):
    """It does not become "not throttled"."""
    files = {"sys/class/thermal/cooling_device0/type": "Processor\n", file: "0\n"}
    found = ThrottleFiles(write(tmp_path, files))
    assert found.read().lost == ()
    (tmp_path / file).unlink()
    assert len(found.read().lost) == 1


def test_what_was_looked_at_is_told(tmp_path):
    """A machine with nothing but ACPI's processors says so."""
    files = {}
    for index in range(4):
        files |= {
            f"sys/class/thermal/cooling_device{index}/type": "Processor\n",
            f"sys/class/thermal/cooling_device{index}/cur_state": "0\n",
        }
    assert ThrottleFiles(write(tmp_path, files)).sources == ("cooling device Processor × 4",)
