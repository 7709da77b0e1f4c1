"""The device as doctor tells it: an Orin made of files and fakes, and machines that are none."""

from __future__ import annotations

import json
import sys

import pytest
from trt_device import install

from edgekit.catalog import files
from edgekit.catalog.target import load_target
from edgekit.profiler import jetson_state
from edgekit.profiler.device import driver_version, jetpack_of, loaded_libraries, profile_of, read_device, remarks
from edgekit.runtime.jetson import Module
from edgekit.schema.decode import encode

ORIN = Module(part_number="p3767-0003", model="NVIDIA Jetson Orin Nano Developer Kit", l4t="36.4.3")
FILES = {
    "proc/meminfo": "MemTotal:        7802164 kB\nMemAvailable:    4194304 kB\nSwapTotal:       3901080 kB\nSwapFree:        2097152 kB\n",
    "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build  (buildbrain@mobile-u64)\n",
    "proc/self/maps": (
        "ffff8000-ffff9000 r-xp 00000000 b3:01 1 /usr/lib/aarch64-linux-gnu/libnvinfer.so.10.3.0\n"
        "ffff9000-ffffa000 r-xp 00000000 b3:01 1 /usr/lib/aarch64-linux-gnu/libnvinfer.so.10.3.0\n"
        "ffffa000-ffffb000 r-xp 00000000 b3:01 2 /usr/lib/aarch64-linux-gnu/nvidia/libcuda.so.1.1\n"
        "ffffb000-ffffc000 r-xp 00000000 b3:01 3 /usr/lib/aarch64-linux-gnu/libc.so.6\n"
    ),
    "var/lib/nvpmodel/status": "pmode:0000\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\n",
    "sys/class/devfreq/17000000.gpu/cur_freq": "306000000\n",
    "sys/class/devfreq/17000000.gpu/min_freq": "306000000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "624750000\n",
}


@pytest.fixture
def orin(monkeypatch, tmp_path):
    """The root folder of an Orin, with TensorRT and a GPU."""
    for name, content in FILES.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.setattr(jetson_state, "ask_nvpmodel", lambda _root: "")
    install(monkeypatch, tmp_path / "cache")
    return tmp_path / "root"


def test_an_orin(orin):
    """Everything that can be seen is told as it is, and what cannot be has its reason."""
    found = read_device(orin, ORIN)
    assert (found.part_number, found.profile, found.l4t, found.jetpack) == ("p3767-0003", "jetson-orin-nano-8gb", "36.4.3", "6.2")
    assert (found.tensorrt, found.driver, found.libraries) == ("10.3.0", "540.4.0", ("libcuda.so.1.1", "libnvinfer.so.10.3.0"))
    assert (found.gpu.compute_capability, found.dla_cores) == ("8.7", 0)
    assert (found.power_mode.name, found.power_mode.id) == ("15W", 0)
    assert (found.memory_available_mib, found.swap_free_mib) == (4096.0, 2048.0)
    assert found.cache_free_mib > 0
    assert found.unavailable == {}


def test_what_does_not_fit_together_is_remarked(orin, monkeypatch, tmp_path):
    """Another TensorRT than the JetPack's and clocks that move are told; what fits is not."""
    told = " | ".join(remarks(read_device(orin, ORIN)))
    assert "not locked: gpu 17000000.gpu" in told
    assert "comes with TensorRT" not in told
    install(monkeypatch, tmp_path / "cache", "10.13")
    told = " | ".join(remarks(read_device(orin, ORIN)))
    assert "JetPack 6.2 comes with TensorRT 10.3.0, loaded is 10.13" in told


def test_a_machine_that_is_no_jetson(monkeypatch, tmp_path):
    """Nothing is made up: every figure that is None has a reason, and nothing is remarked."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setenv("EDGEKIT_ENGINE_CACHE", str(tmp_path / "not" / "there"))
    found = read_device(tmp_path, Module(part_number="", model="", l4t=""))
    empty = {name for name, value in encode(found).items() if value is None}
    assert {"part_number", "profile", "l4t", "jetpack", "tensorrt", "driver", "power_mode", "memory_available_mib"} <= empty
    assert empty == set(found.unavailable)
    assert all(found.unavailable.values())
    assert found.cache_free_mib is not None
    assert remarks(found) == ()


def test_a_module_without_a_profile(orin):
    """A module that no file of targets/ has is told with its number, and so is a release that its profile does not list."""
    found = read_device(orin, Module(part_number="p3701-0000", model="AGX Orin", l4t="36.4.3"))
    assert (found.part_number, found.profile, found.dla_cores) == ("p3701-0000", None, None)
    assert found.unavailable["profile"] == "no profile in targets/ has the module p3701-0000"
    found = read_device(orin, Module(part_number="p3767-0003", model="Orin Nano", l4t="35.4.1"))
    assert (found.profile, found.jetpack) == ("jetson-orin-nano-8gb", None)
    assert "35.4.1" in found.unavailable["jetpack"]


@pytest.mark.parametrize("name", [name for name in files.names("targets") if load_target(name).jetson is not None])
def test_every_profile_is_found_by_its_modules(name):
    """Each part number leads to its own profile, and each of its releases to its JetPack."""
    target = load_target(name)
    for number in target.jetson.part_numbers:
        assert profile_of(number).name == name
    for release in target.jetson.jetpacks:
        assert jetpack_of(Module(part_number="x", model="", l4t=release.l4t), target) == release.version
    assert profile_of("") is None


def test_the_document_tells_no_device_from_another(orin):
    """No folder and nothing of the kernel's builder is in the facts."""
    text = json.dumps(encode(read_device(orin, ORIN)))
    assert str(orin.parent) not in text
    assert "buildbrain" not in text
    assert "/usr/lib" not in text


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (FILES["proc/driver/nvidia/version"], "540.4.0"),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.216.03  Thu Apr  3 01:14:19 UTC 2025\n", "535.216.03"),
        ("NVRM version: NVIDIA UNIX Kernel Module for aarch64  34.1.1  Release Build  (x@y)\n", "34.1.1"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.142  Release Build\n", "580.142"),
        ("", None),
        ("NVRM version: none\n", None),
    ],
)
def test_the_version_of_the_driver(text, version):
    """The version is the number after the module's kind."""
    assert driver_version(text) == version


def test_libraries_of_no_interest_are_left_out():
    """Only NVIDIA's libraries are told, without folders, and one that was deleted on the disk too."""
    maps = "1-2 r 0 0:0 1 /opt/a b/libcudart.so.12.6.68\n2-3 r 0 0:0 2 /lib/libnvinfer_plugin.so.10 (deleted)\n3-4 r 0 0:0 3 /lib/libcurl.so.4\n"
    assert loaded_libraries(maps) == ("libcudart.so.12.6.68", "libnvinfer_plugin.so.10")
