"""The fingerprint of machines made up in a folder."""

from __future__ import annotations

import getpass
import platform
import socket

import pytest

from edgekit.profiler import cgroup, host
from edgekit.runtime import cpu
from edgekit.schema.decode import encode

XEON = """processor\t: 0
model name\t: Intel(R) Xeon(R) Processor
flags\t\t: fpu sse2 avx2 avx512f avx512_vnni amx_int8 hypervisor

processor\t: 1
model name\t: Intel(R) Xeon(R) Processor
flags\t\t: fpu sse2 avx2 avx512f avx512_vnni amx_int8 hypervisor
"""
ORIN = """processor\t: 0
Features\t: fp asimd aes asimdhp asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd42
"""
MIXED = """CPU implementer\t: 0x41
CPU part\t: 0xd03

CPU implementer\t: 0x41
CPU part\t: 0xfff
"""


def machine(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("cpuinfo", "model", "sets"),
    [
        (XEON, "Intel(R) Xeon(R) Processor", ("avx2", "avx512f", "avx512_vnni", "amx_int8")),
        (ORIN, "Arm Cortex-A78AE", ("asimd", "dotprod", "fp16")),
        (MIXED, "Arm Cortex-A53 + Arm implementer 0x41 part 0xfff", None),
        ("flags\t: fpu\n", None, ()),
        ("", None, None),
    ],
    ids=["x86", "ARM", "unknown core", "no model", "empty"],
)
def test_the_processor_is_named_from_cpuinfo(cpuinfo, model, sets):
    """x86 by name, ARM by number; an unknown number is shown, not guessed; no flags differ from none that matter."""
    assert cpu.cpu_model(cpuinfo) == model
    assert cpu.instruction_sets(cpuinfo) == sets


@pytest.mark.parametrize(
    ("files", "cores", "mebibytes"),
    [
        (
            {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n", "sys/fs/cgroup/memory.max": "1073741824\n"},
            1.5,
            1024.0,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n", "sys/fs/cgroup/memory.max": "max\n"}, None, None),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/a/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/a/memory.max": "2097152\n",
            },
            2.0,
            2.0,
        ),
        (
            {"proc/self/cgroup": "0::/docker/not-here\n", "sys/fs/cgroup/cpu.max": "50000 100000\n", "sys/fs/cgroup/memory.max": "max"},
            0.5,
            None,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/\n2:cpu,cpuacct:/\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            3.0,
            None,
        ),
        (
            {
                "proc/self/cgroup": "2:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
            None,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "what\n", "sys/fs/cgroup/memory.max": "ever\n"}, None, None),
        ({"proc/self/cgroup": "0::/../../../etc\n", "etc/cpu.max": "1 1\n", "sys/fs/cgroup/empty": ""}, None, None),
        ({}, None, None),
    ],
    ids=["v2", "v2 unlimited", "v2 nested", "path of the host", "v1", "v1 unlimited", "unreadable", "path that climbs", "none"],
)
def test_limits_of_a_container_are_found(tmp_path, files, cores, mebibytes):
    """Versions 1 and 2; the smallest limit on the way up holds; without one there is a reason."""
    machine(tmp_path, files)
    limit, why = cgroup.cpu_limit(tmp_path)
    assert limit == cores
    assert bool(why) == (cores is None)
    memory, why = cgroup.memory_limit(tmp_path)
    assert (None if memory is None else memory / 2**20) == mebibytes
    assert bool(why) == (mebibytes is None)


def test_a_jetson_is_recognized(tmp_path):
    """Board, cores, clock, governor and memory are read from where Linux keeps them."""
    files = {
        "proc/cpuinfo": ORIN,
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
        "proc/loadavg": "0.25 0.30 0.28 1/300 4242\n",
        "proc/meminfo": "MemTotal:        7802880 kB\nMemFree: 1 kB\n",
        "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "729600\n",
        "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "1510400\n",
        "sys/devices/system/cpu/cpu0/topology/thread_siblings_list": "0-1\n",
        "sys/devices/system/cpu/cpu1/topology/thread_siblings_list": "0-1\n",
        "sys/devices/system/cpu/cpu2/topology/thread_siblings_list": "2\n",
    }
    found = host.fingerprint(machine(tmp_path, files))
    assert found.device_model == "NVIDIA Jetson Orin Nano Developer Kit"
    assert (found.cpu_model, found.governor, found.system) == ("Arm Cortex-A78AE", "schedutil", "Ubuntu 22.04.5 LTS")
    assert (found.frequency_mhz, found.frequency_max_mhz, found.load_average) == (729.6, 1510.4, 0.25)
    assert (found.cores_physical, found.memory_mib) == (2, 7620.0)
    assert {name for name in found.unavailable if "." not in name} == {"cpu_limit", "memory_limit_mib"}


def test_on_an_unknown_system_everything_is_none_with_a_reason(tmp_path):
    """An empty root gives no figure that would have to be read from it, and a reason for each."""
    found = host.fingerprint(tmp_path)
    empty = {name for name, value in encode(found).items() if value is None}
    assert empty == {name for name in found.unavailable if "." not in name}
    assert {"cpu_model", "instruction_sets", "cores_physical", "memory_mib", "governor", "system", "device_model"} <= empty


def test_versions_come_without_importing_the_libraries(tmp_path):
    """A missing package is None with its reason."""
    found = host.fingerprint(tmp_path)
    assert found.packages["numpy"] == __import__("numpy").__version__
    assert {"edgekit", "pillow", "openvino", "onnxruntime", "tensorrt"} < set(found.packages)
    assert all(found.unavailable[f"packages.{name}"] == "not installed" for name, version in found.packages.items() if version is None)


def test_the_fingerprint_identifies_nobody():
    """No field is for a name, and no value is the host's or the user's name or a path in a home folder."""
    found = encode(host.fingerprint())
    values = [str(value) for value in (*found.values(), *found["packages"].values())]
    assert not {"hostname", "node", "user", "address", "serial"} & set(found)
    assert not {socket.gethostname(), platform.node(), getpass.getuser()} & set(values)
    assert not [value for value in values if "/home/" in value or "/root/" in value]
