"""Makes the API manifests of TensorRT again: `python tests/support/trt_manifests/make.py`.

Rules this file keeps:

1. A manifest holds names: of classes, members, enum values and parameters, and where they were read. Nothing else of NVIDIA's gets into the repository.
2. The names come out of NVIDIA's own bindings, imported over empty libraries (see `trt_stubs`): what a manifest lists is what the real module has.
3. Wheels come from PyPI by exact version, with `--no-deps`; they stay in the folder given by `--wheels` and go nowhere else.

TensorRT 8.5 needs a Python 3.10 (`--python310`), and its only wheel on PyPI has 550 MB, because its libraries are in it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import trt_stubs  # noqa: E402 - a script: its folder is not on the path before


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """Where the names of one version are read.

    Attributes:
        requirement: The wheel, as pip takes it.
        folder: Folder of the bindings in it.
        python: Version of Python that it is made for, as pip takes it.
    """

    requirement: str
    folder: str = "tensorrt_bindings"
    python: str = "3.11"


WHEELS = {
    "8.5": Wheel(requirement="tensorrt==8.5.2.2", folder="tensorrt", python="3.10"),
    "8.6": Wheel(requirement="tensorrt-bindings==8.6.1"),
    "10.3": Wheel(requirement="tensorrt-cu12-bindings==10.3.0"),
    "10.13": Wheel(requirement="tensorrt-cu12-bindings==10.13.0.35"),
    "10.16": Wheel(requirement="tensorrt-cu12-bindings==10.16.1.11"),
    "11.4": Wheel(requirement="tensorrt-cu12-bindings==11.4.0.106"),
}


def unpack(wheel: Wheel, wheels: Path, into: Path) -> Path:
    """Downloads a wheel where it is missing and unpacks the bindings in it, without any library.

    Returns:
        Folder of the bindings.
    """
    command = ["download", "--quiet", "--only-binary", ":all:", "--no-deps", "--python-version", wheel.python, "--dest", str(wheels)]
    subprocess.run([sys.executable, "-m", "pip", *command, wheel.requirement], check=True)
    name, _, version = wheel.requirement.partition("==")
    (path,) = wheels.glob(f"{name.replace('-', '_')}-{version}-cp{wheel.python.replace('.', '')}-*.whl")
    with zipfile.ZipFile(path) as archive:
        chosen = [member for member in archive.namelist() if member.startswith(f"{wheel.folder}/") and "/lib" not in member]
        archive.extractall(into, chosen)
    return into / wheel.folder


def read(version: str, wheels: Path, python: str) -> dict[str, object]:
    """The manifest of one version.

    Args:
        version: Key of `WHEELS`.
        wheels: Folder for the downloaded wheels.
        python: Interpreter of the wheel's version.
    """
    wheel = WHEELS[version]
    with tempfile.TemporaryDirectory() as folder:
        bindings = unpack(wheel, wheels, Path(folder))
        trt_stubs.build(bindings, Path(folder))
        names = trt_stubs.introspect(bindings, Path(folder), python)
    return {"source": f"introspected: {wheel.requirement} (PyPI, x86-64), imported over empty libraries", **names}


def render(manifest: dict[str, object]) -> str:
    """The manifest as its file holds it: one class a line, so that a change of the API is a readable difference."""
    lines = []
    for key, value in manifest.items():
        if isinstance(value, dict):
            inner = ",\n".join(f"  {json.dumps(name)}: {json.dumps(member)}" for name, member in value.items())
            lines.append(f" {json.dumps(key)}: {{\n{inner}\n }}")
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> None:
    """Writes the manifests that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", default=list(WHEELS), help=f"of {', '.join(WHEELS)}; all where none is given")
    parser.add_argument("--wheels", type=Path, required=True, help="folder for the downloaded wheels, outside the checkout")
    parser.add_argument("--python310", default="python3.10", help="a Python 3.10, for TensorRT 8.5")
    chosen = parser.parse_args()
    if missing := trt_stubs.missing_tool():
        sys.exit(f"{missing} is not installed; the libraries that the bindings are imported over cannot be made")
    for version in chosen.versions:
        python = chosen.python310 if WHEELS[version].python == "3.10" else sys.executable
        (HERE / f"{version}.json").write_text(render(read(version, chosen.wheels, python)))


if __name__ == "__main__":
    main()
