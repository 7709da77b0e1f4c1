"""Which Jetson module this is, and which Linux for Tegra runs on it; read from files, no program is started.

Does not prove that the hardware is what it says: whoever is root on the device can write anything there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_PART_NUMBER = re.compile(r"p\d{4}-\d{4}")
# The file's first line begins so: R36 (release), REVISION: 4.3
_RELEASE = re.compile(r"# R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)")
# The package database, where JetPack no longer writes the file above; its version is that of Linux for Tegra, a hyphen and the date of the build.
_PACKAGE = re.compile(r"^Package: nvidia-l4t-core\n(?:\S.*\n|[ \t].*\n)*?Version: (\d+(?:\.\d+)*)", re.MULTILINE)
_MAX_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A module.

    Attributes:
        part_number: "p3767-0003", for example; empty where this is no Jetson.
        model: As the device tree tells it, for people; empty where there is none.
        l4t: Version of Linux for Tegra, "36.4.3"; empty where there is none.
    """

    part_number: str
    model: str
    l4t: str


def read_module(root: Path = Path("/")) -> Module:
    """This machine's module.

    Args:
        root: Where the file system begins.
    """
    compatible = _text(root / "proc/device-tree/compatible")
    tegra = "nvidia,tegra" in compatible
    return Module(
        part_number=_part_number(compatible) if tegra else "",
        model=_text(root / "proc/device-tree/model").strip("\0\n") if tegra else "",
        l4t=_l4t(root),
    )


def _part_number(compatible: str) -> str:
    """Of the module: "nvidia,p3768-0000+p3767-0005" names the carrier board first and the module last."""
    for entry in compatible.split("\0"):
        found = _PART_NUMBER.findall(entry)
        if found:
            return str(found[-1])
    return ""


def _l4t(root: Path) -> str:
    release = _RELEASE.search(_text(root / "etc/nv_tegra_release"))
    if release:
        return f"{release[1]}.{release[2]}"
    package = _PACKAGE.search(_text(root / "var/lib/dpkg/status"))
    return package[1] if package else ""


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
