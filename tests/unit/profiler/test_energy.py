"""Meters of energy, on made-up file systems and a program that stands for `tegrastats`."""

from __future__ import annotations

import stat

import pytest

from edgekit.errors import TargetError
from edgekit.profiler import energy
from edgekit.profiler.energy import NOTHING, PowerMeter, find_meter, parse_tegrastats, rail_scope
from edgekit.profiler.pacing import Clock

ORIN = (
    "11-28-2024 10:12:01 RAM 2448/7620MB (lfb 2x4MB) SWAP 0/3810MB (cached 0MB) CPU [12%@1510,5%@1510,off,off] GR3D_FREQ 45%[611] "
    "cpu@48.5C soc2@47.1C tj@49.2C VDD_IN 4876mW/4700mW VDD_CPU_GPU_CV 1080mW/1001mW VDD_SOC 1400mW/1390mW"
)
NANO = "RAM 1903/3956MB (lfb 3x2MB) CPU [4%@921,off] EMC_FREQ 0% GR3D_FREQ 0% thermal@33.5C POM_5V_IN 2062/2062 POM_5V_GPU 0/0 POM_5V_CPU 331/331"


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def zone(number, name, energy_uj, wraps="262143328850"):
    folder = f"sys/class/powercap/intel-rapl:{number}"
    return {f"{folder}/name": f"{name}\n", f"{folder}/energy_uj": f"{energy_uj}\n", f"{folder}/max_energy_range_uj": f"{wraps}\n"}


class Ticking:
    """A machine whose counters of RAPL rise while one waits, by 1 µJ a time; those in `dead` do not."""

    def __init__(self, root, dead=()):
        self.root, self.dead, self.now = root, dead, 0
        self.clock = Clock(now_ns=lambda: self.now, sleep=self._sleep)

    def _sleep(self, seconds):
        self.now += round(seconds * 1e9)
        for zone in (self.root / "sys/class/powercap").glob("intel-rapl:*"):
            if (zone / "name").read_text().strip() not in self.dead:
                (zone / "energy_uj").write_text(f"{int((zone / 'energy_uj').read_text()) + 1}\n")

    def meter(self):
        return find_meter(self.root, clock=self.clock)


def rail(device, channel, label, millivolts, milliamperes):
    folder = f"sys/class/hwmon/hwmon{device}"
    return {
        f"{folder}/name": "ina3221\n",
        f"{folder}/in{channel}_label": f"{label}\n",
        f"{folder}/in{channel}_input": f"{millivolts}\n",
        f"{folder}/curr{channel}_input": f"{milliamperes}\n",
    }


def test_rapl_adds_packages_and_memory(tmp_path):
    """Microjoules of two packages and the memory of one; cores and graphics are within the package and not added again."""
    root = write(
        tmp_path, {**zone("0", "package-0", 1000), **zone("1", "package-1", 5000), **zone("0:0", "core", 1), **zone("0:1", "dram", 70)}
    )
    meter = Ticking(root).meter()
    assert (meter.source, meter.scope) == ("RAPL", "processor package and memory")
    assert meter.joules(0.0) == 0.0
    write(
        root,
        {
            **zone("0", "package-0", 3_001_001),
            **zone("1", "package-1", 1_005_001),
            **zone("0:0", "core", 9_000_000),
            **zone("0:1", "dram", 500_071),
        },
    )
    assert meter.joules(1.0) == pytest.approx(4.5)


def test_a_counter_that_wraps_goes_on(tmp_path):
    """From 100 below its range to 400 above zero are 500 µJ, each time."""
    root = write(tmp_path, zone("0", "package-0", 999_899, wraps="1000000"))
    meter = Ticking(root).meter()
    for turn in (1, 2):
        write(root, zone("0", "package-0", 400, wraps="1000000"))
        assert meter.joules(1.0) == pytest.approx(turn * 500e-6 + (turn - 1) * 999_500e-6)
        write(root, zone("0", "package-0", 999_900, wraps="1000000"))
        assert meter.joules(2.0) == pytest.approx(turn * 1.0)


def test_the_counter_of_the_platform_sees_more_than_the_package(tmp_path):
    """The zone psys is taken alone where there is one."""
    meter = Ticking(write(tmp_path, {**zone("0", "package-0", 0), **zone("1", "psys", 0)})).meter()
    assert meter.scope == "whole platform (psys)"


@pytest.mark.parametrize(
    ("dead", "scope"),
    [
        (["psys"], "processor package and memory"),
        (["psys", "dram"], "processor package"),
        (["psys", "package-0"], None),
        (["psys", "package-1", "dram"], None),
    ],
    ids=["platform", "platform and memory", "one package", "another and memory"],
)
def test_a_counter_that_stands_still_measures_nothing(tmp_path, dead, scope):
    """The next one that sees less is taken, without what is dead beside it; where a package is, there is no figure and no 0.0 mJ."""
    zones = {**zone("0", "package-0", 0), **zone("0:1", "dram", 0), **zone("1", "package-1", 7), **zone("2", "psys", 0)}
    found = Ticking(write(tmp_path, zones), dead).meter()
    if scope is None:
        assert "whole platform (psys), stands still" in found
        assert "processor package, stands still" in found
    else:
        assert found.scope == scope


def test_a_counter_that_may_not_be_read_is_a_reason(tmp_path, monkeypatch):
    """The kernel's refusal, as on every system since 2020."""

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(energy, "_microjoules", refuse)
    assert "only root may read" in find_meter(write(tmp_path, zone("0", "package-0", 0)))


def test_an_ina3221_that_feeds_the_board_is_the_whole_board(tmp_path):
    """5 V times 1 A for two seconds are ten joules; the rails behind VDD_IN are not added again."""
    root = write(tmp_path, {**rail(1, 1, "VDD_IN", 5000, 1000), **rail(1, 2, "VDD_CPU_GPU_CV", 5000, 400)})
    meter = find_meter(root)
    assert (meter.source, meter.scope) == ("INA3221", "whole board (VDD_IN)")
    assert meter.joules(10.0) == 0.0
    assert meter.joules(12.0) == pytest.approx(10.0)
    write(root, rail(1, 1, "VDD_IN", 5000, 3000))
    assert meter.joules(13.0) == pytest.approx(20.0)


def test_rails_without_one_for_the_board_say_what_they_are(tmp_path):
    """An AGX Orin has no VDD_IN; a channel that is not connected is left out."""
    root = write(
        tmp_path,
        {**rail(1, 1, "VDD_GPU_SOC", 1000, 1000), **rail(1, 2, "NC", 9000, 9000), **rail(2, 1, "VIN_SYS_5V0", 5000, 1000)},
    )
    meter = find_meter(root)
    assert meter.scope == "the rails VDD_GPU_SOC, VIN_SYS_5V0; not the whole board"
    meter.joules(0.0)
    assert meter.joules(1.0) == pytest.approx(6.0)


def test_a_meter_that_goes_away_is_an_error(tmp_path):
    """It is not read as zero."""
    root = write(tmp_path, rail(1, 1, "VDD_IN", 5000, 1000))
    meter = find_meter(root)
    (root / "sys/class/hwmon/hwmon1/curr1_input").unlink()
    with pytest.raises(TargetError, match="can no longer be read"):
        meter.joules(0.0)


@pytest.mark.parametrize(
    ("line", "rails"),
    [
        (ORIN, {"VDD_IN": 4.876, "VDD_CPU_GPU_CV": 1.08, "VDD_SOC": 1.4}),
        (NANO, {"POM_5V_IN": 2.062, "POM_5V_GPU": 0.0, "POM_5V_CPU": 0.331}),
        ("RAM 2448/7620MB SWAP 0/3810MB", {}),
        ("", {}),
    ],
    ids=["orin", "nano", "memory only", "empty"],
)
def test_the_power_in_a_line_of_tegrastats(line, rails):
    """Rails with and without a unit; memory is no rail."""
    assert parse_tegrastats(line) == rails
    if rails:
        assert rail_scope(list(rails))[1] == f"whole board ({next(iter(rails))})"


def tegrastats(root, body):
    path = root / "usr/bin/tegrastats"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return root


def test_tegrastats_is_the_last_resort(tmp_path):
    """It runs beside the measurement, and ends with it."""
    meter = find_meter(tegrastats(tmp_path, f"echo '{ORIN}'; exec sleep 60"))
    assert (meter.source, meter.scope) == ("tegrastats", "whole board (VDD_IN)")
    meter.joules(0.0)
    assert meter.joules(2.0) == pytest.approx(2 * 4.876)
    meter.close()
    with pytest.raises(TargetError, match="stopped telling"):
        meter.joules(3.0)


@pytest.mark.parametrize("body", ["exit 1", "echo nothing of power; exit 0"])
def test_a_tegrastats_that_tells_no_power_is_a_reason(tmp_path, body):
    """It ends, or prints something else."""
    assert "tells no power" in find_meter(tegrastats(tmp_path, body))


def test_no_meter_is_a_reason(tmp_path):
    """Which names what was looked for."""
    assert find_meter(tmp_path) == NOTHING


def test_power_is_integrated_by_trapezoids():
    """A power that rises from 1 to 3 W over two seconds has done four joules."""
    powers = iter([1.0, 3.0, 3.0])
    meter = PowerMeter("x", "y", lambda: next(powers))
    assert [meter.joules(now) for now in (5.0, 7.0, 8.0)] == [0.0, 4.0, 7.0]
