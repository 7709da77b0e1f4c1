"""Temperatures and clocks, from a file system made by the test."""

from __future__ import annotations

import pytest

from edgekit.runtime import sensors
from edgekit.runtime.sensors import read_sensors


def put(root, files):
    for name, text in files.items():
        path = root / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


ZONES = {
    "class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "class/thermal/thermal_zone0/temp": "48500\n",
    "class/thermal/thermal_zone2/type": "gpu-thermal\n",
    "class/thermal/thermal_zone2/temp": "-1500\n",
    "class/thermal/thermal_zone10/type": "cpu-thermal\n",
    "class/thermal/thermal_zone10/temp": "51000\n",
}
HWMON = {
    "class/hwmon/hwmon3/name": "k10temp\n",
    "class/hwmon/hwmon3/temp1_input": "61250\n",
    "class/hwmon/hwmon3/temp1_label": "Tctl\n",
    "class/hwmon/hwmon3/temp2_input": "40000\n",
}
CLOCKS = {
    "devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "1510400\n",
    "devices/system/cpu/cpufreq/policy4/scaling_cur_freq": "729600\n",
    "class/devfreq/17000000.gpu/cur_freq": "306000000\n",
}


def test_zones_are_read_in_degrees_and_told_apart(tmp_path):
    """Millidegrees become degrees, below zero too, and two zones of one type keep both their values."""
    found = read_sensors(put(tmp_path, ZONES))
    assert found.temperatures_c == {"cpu-thermal": 48.5, "gpu-thermal": -1.5, "cpu-thermal 2": 51.0}


def test_hwmon_stands_in_where_there_is_no_zone(tmp_path):
    """A processor whose driver has no thermal zone is read from hwmon, by chip and label."""
    assert read_sensors(put(tmp_path, HWMON)).temperatures_c == {"k10temp Tctl": 61.25, "k10temp temp2": 40.0}
    assert "k10temp Tctl" not in read_sensors(put(tmp_path, ZONES)).temperatures_c


def test_clocks_are_megahertz(tmp_path):
    """Kilohertz of cpufreq and hertz of devfreq come out in one unit."""
    found = read_sensors(put(tmp_path, CLOCKS))
    assert found.clocks_mhz == {"cpu policy0": 1510.4, "cpu policy4": 729.6, "devfreq 17000000.gpu": 306.0}


def test_what_the_system_does_not_tell_has_a_reason(tmp_path):
    """On a machine without either there is no number, and each reason names where it was looked for."""
    found = read_sensors(tmp_path)
    assert (found.temperatures_c, found.clocks_mhz) == ({}, {})
    assert "/sys/class/thermal" in found.unavailable["temperatures_c"]
    assert "cpufreq" in found.unavailable["clocks_mhz"]
    assert read_sensors(put(tmp_path, ZONES | CLOCKS)).unavailable == {}


@pytest.mark.parametrize("text", ["", "N/A\n", "48.5\n", "4_0\n", "99999999999\n"])
def test_what_is_no_number_is_no_temperature(tmp_path, text):
    """A zone that says something else than whole millidegrees is left out."""
    put(tmp_path, {"class/thermal/thermal_zone0/type": "cpu\n", "class/thermal/thermal_zone0/temp": text})
    assert read_sensors(tmp_path).temperatures_c == {}


def test_a_zone_that_cannot_be_read_is_left_out(tmp_path):
    """A zone whose file gives an error (here it is a folder) does not hide the others."""
    put(tmp_path, ZONES)
    (tmp_path / "sys/class/thermal/thermal_zone1/temp").mkdir(parents=True)
    assert len(read_sensors(tmp_path).temperatures_c) == 3


def test_hundreds_of_cores_are_not_all_read(tmp_path):
    """At most the first `MAX_SENSORS` clocks are told."""
    put(tmp_path, {f"devices/system/cpu/cpufreq/policy{core}/scaling_cur_freq": "1000000\n" for core in range(40)})
    assert list(read_sensors(tmp_path).clocks_mhz) == [f"cpu policy{core}" for core in range(sensors.MAX_SENSORS)]
