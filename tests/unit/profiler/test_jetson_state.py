"""Power mode and clocks, read from the texts and files of Jetsons."""

from __future__ import annotations

import pytest

from edgekit.profiler.jetson_state import PowerMode, ask_nvpmodel, parse_files, parse_query, read_clocks, read_power_mode

CONFIGURATION = """
# Copyright
< PARAM TYPE=FILE NAME=CPU_ONLINE >
CORE_0 /sys/devices/system/cpu/cpu0/online
###########################
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
GPU MAX_FREQ 612000000
< POWER_MODEL ID=1 NAME=25W >
  < POWER_MODEL ID=2 NAME=MAXN_SUPER >
# mandatory section to configure the default mode
< PM_CONFIG DEFAULT=1 >
"""


def machine(root, files):
    """A root folder with these files."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def nobody(_root):
    """Nvpmodel that gives no answer."""
    return ""


@pytest.mark.parametrize(
    ("answer", "number", "name"),
    [
        ("NV Power Mode: MAXN_SUPER\n2\n", 2, "MAXN_SUPER"),
        ("NV Power Mode: 15W\n0\n", 0, "15W"),
        ("NV Fan Mode:quiet\nNV Power Mode: MODE_15W_6CORE\n2\n", 2, "MODE_15W_6CORE"),
        ("NVPM VERB: Config file: /etc/nvpmodel.conf\nNVPM VERB: Current mode: NV Power Mode: MAXN\n0\nNVPM VERB: PARAM X\n", 0, "MAXN"),
        ("NVPM WARN: fan mode is not set!\nNV Power Mode: MODE_30W_ALL\n3", 3, "MODE_30W_ALL"),
    ],
)
def test_what_nvpmodel_answers(answer, number, name):
    """Number and name are those of the answer, whatever stands around them."""
    assert parse_query(answer) == PowerMode(id=number, name=name, source="nvpmodel -q")


@pytest.mark.parametrize("answer", ["", "NVPM ERROR: Error opening /var/lib/nvpmodel/status: 13\n", "NV Power Mode: 15W\n", "2\n"])
def test_no_mode_is_made_up(answer):
    """An error or half an answer is no mode."""
    assert parse_query(answer) is None


def test_the_files_of_nvpmodel():
    """The number is in one file and its name in another; a number without a name stays one."""
    assert parse_files("pmode:0002\n", CONFIGURATION) == PowerMode(id=2, name="MAXN_SUPER", source="/var/lib/nvpmodel/status")
    assert parse_files("pmode:0007\n", CONFIGURATION).name is None
    assert parse_files("", CONFIGURATION) is None


def test_the_answer_comes_before_the_files(tmp_path):
    """Nvpmodel's answer is taken where there is one, its files where there is none, and the reason where there is neither."""
    root = machine(tmp_path, {"var/lib/nvpmodel/status": "pmode:0001\n", "etc/nvpmodel.conf": CONFIGURATION})
    assert read_power_mode(root, lambda _: "NV Power Mode: 15W\n0\n")[0].name == "15W"
    assert read_power_mode(root, nobody)[0].name == "25W"
    assert read_power_mode(tmp_path / "bare", nobody) == (
        None,
        "nvpmodel -q gives no answer, and /var/lib/nvpmodel/status is not there",
    )


def test_nvpmodel_is_asked_and_nothing_else(tmp_path):
    """The program is called with -q alone; where it is missing or fails there is no answer."""
    program = tmp_path / "usr/sbin/nvpmodel"
    machine(tmp_path, {"usr/sbin/nvpmodel": '#!/bin/sh\necho "NV Power Mode: $#$1"\necho 4\n'})
    assert ask_nvpmodel(tmp_path) == ""
    program.chmod(0o755)
    assert parse_query(ask_nvpmodel(tmp_path)) == PowerMode(id=4, name="1-q", source="nvpmodel -q")
    assert ask_nvpmodel(tmp_path / "bare") == ""


CPU = "sys/devices/system/cpu/cpufreq/policy0/scaling_"
GPU = "sys/class/devfreq/17000000.gpu/"
ORIN = {
    f"{CPU}cur_freq": "1510400\n",
    f"{CPU}min_freq": "1510400\n",
    f"{CPU}max_freq": "1510400\n",
    f"{CPU}governor": "schedutil\n",
    f"{GPU}cur_freq": "624750000\n",
    f"{GPU}min_freq": "306000000\n",
    f"{GPU}max_freq": "624750000\n",
    f"{GPU}governor": "nvhost_podgov\n",
    "sys/class/devfreq/bwmgr/cur_freq": "1\n",
}


def clocks(root):
    return {clock.name: clock for clock in read_clocks(root)}


def test_the_clocks_of_an_orin(tmp_path):
    """Frequencies are in MHz, a clock with one frequency is locked, and other devices of devfreq are no GPU."""
    found = clocks(machine(tmp_path, ORIN))
    assert list(found) == ["cpu policy0", "gpu 17000000.gpu", "memory"]
    cpu, gpu = found["cpu policy0"], found["gpu 17000000.gpu"]
    assert (cpu.current_mhz, cpu.locked, cpu.governor, cpu.reason) == (1510.4, True, "schedutil", "")
    assert (gpu.current_mhz, gpu.lowest_mhz, gpu.highest_mhz, gpu.locked) == (624.75, 306.0, 624.75, False)
    assert (found["memory"].locked, "only root may read it" in found["memory"].reason) == (None, True)


@pytest.mark.parametrize(
    ("folder", "files"),
    [
        ("gpu-gpc-0", {}),
        ("gpu-nvd-0", {}),
        ("17000000.ga10b", {}),
        ("17000000.gv11b", {}),
        ("57000000.something", {"device/of_node/name": "gpu\0"}),
    ],
)
def test_gpus_by_name(tmp_path, folder, files):
    """The GPU is known by the name of its clock, or by its name in the device tree."""
    machine(tmp_path, {f"sys/class/devfreq/{folder}/{name}": text for name, text in {"cur_freq": "1", **files}.items()})
    assert f"gpu {folder}" in clocks(tmp_path)


def test_policies_are_in_the_order_of_their_numbers(tmp_path):
    """policy10 comes after policy8."""
    for number in (0, 10, 8):
        machine(tmp_path, {f"sys/devices/system/cpu/cpufreq/policy{number}/scaling_cur_freq": "1000\n"})
    assert [name for name in clocks(tmp_path) if name.startswith("cpu")] == ["cpu policy0", "cpu policy8", "cpu policy10"]


def test_what_cannot_be_read_says_why(tmp_path):
    """A file that is missing or holds no number leaves its figure None with the reason, and locked is not guessed."""
    found = clocks(machine(tmp_path, {**ORIN, f"{GPU}max_freq": "<unsupported>\n"}))["gpu 17000000.gpu"]
    assert (found.current_mhz, found.highest_mhz, found.locked) == (624.75, None, None)
    assert found.reason == "max_freq has no number"
    bare = clocks(tmp_path / "bare")
    assert [clock.current_mhz for clock in bare.values()] == [None, None, None]
    assert all(clock.reason for clock in bare.values())


def test_root_sees_the_clock_of_the_memory(tmp_path):
    """Where the file of the memory's clock can be read, its frequency is told, and nothing about locking."""
    found = clocks(machine(tmp_path, {"sys/kernel/debug/bpmp/debug/clk/emc/rate": "2133000000\n"}))["memory"]
    assert (found.current_mhz, found.locked) == (2133.0, None)
