"""The module and its Linux for Tegra, read from the files of JetPacks."""

from __future__ import annotations

import pytest

from edgekit.runtime.jetson import Module, read_module

ORIN_NANO = b"nvidia,p3768-0000+p3767-0003\0nvidia,p3767-0003\0nvidia,tegra234\0"


def machine(root, *, compatible=None, model=None, release=None, packages=None):
    """A root folder with the files of a device."""
    files = {
        "proc/device-tree/compatible": compatible,
        "proc/device-tree/model": model,
        "etc/nv_tegra_release": release,
        "var/lib/dpkg/status": packages,
    }
    for name, content in files.items():
        if content is not None:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
    return root


def test_an_orin_nano(tmp_path):
    """The part number is the module's, not the carrier board's."""
    release = b"# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n"
    root = machine(tmp_path, compatible=ORIN_NANO, model=b"NVIDIA Jetson Orin Nano Developer Kit\0", release=release)
    assert read_module(root) == Module(part_number="p3767-0003", model="NVIDIA Jetson Orin Nano Developer Kit", l4t="36.4.3")


@pytest.mark.parametrize(
    ("compatible", "part_number"),
    [
        (b"nvidia,p3737-0000+p3701-0005\0nvidia,p3701-0005\0nvidia,tegra234\0", "p3701-0005"),
        (b"nvidia,p2972-0000\0nvidia,tegra194\0", "p2972-0000"),
        (b"nvidia,p3509-0000+p3668-0001\0nvidia,tegra194\0", "p3668-0001"),
        (b"vendor,board\0nvidia,p3767-0000\0nvidia,tegra234\0", "p3767-0000"),
        (b"vendor,board\0nvidia,tegra234\0", ""),
        (b"raspberrypi,5-model-b\0brcm,bcm2712\0", ""),
        (b"", ""),
        (b"\xff\xfe\0", ""),
    ],
)
def test_part_numbers(tmp_path, compatible, part_number):
    """The last part number of the first entry that has one; none on other machines."""
    assert read_module(machine(tmp_path, compatible=compatible)).part_number == part_number


def test_the_package_tells_where_the_file_is_gone(tmp_path):
    """Without the release file the version is that of the package, not of another one nearby."""
    packages = (
        b"Package: nvidia-l4t-cuda\nStatus: install ok installed\nVersion: 1.2.3-1\n\n"
        b"Package: nvidia-l4t-core\nStatus: install ok installed\nDescription: x\n continued\nVersion: 39.2.0-20260101000000\n\n"
        b"Package: other\nVersion: 9.9\n"
    )
    assert read_module(machine(tmp_path, compatible=ORIN_NANO, packages=packages)).l4t == "39.2.0"
    none = b"Package: nvidia-l4t-core\nStatus: deinstall\n\nPackage: other\nVersion: 9.9\n"
    assert read_module(machine(tmp_path / "b", compatible=ORIN_NANO, packages=none)).l4t == ""


def test_a_machine_that_is_no_jetson(tmp_path):
    """Nothing is made up."""
    assert read_module(tmp_path) == Module(part_number="", model="", l4t="")
