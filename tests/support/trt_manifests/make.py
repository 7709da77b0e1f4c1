"""Makes the API manifests of TensorRT again, or unpacks what they are made from.

    python tests/support/trt_manifests/make.py write --wheels /tmp/wheels --python310 python3.10 [VERSION …]
    python tests/support/trt_manifests/make.py unpack --wheels /tmp/wheels FOLDER

Rules this file keeps:

1. A manifest holds names: of classes, members, enum values and parameters, and where they were read. Nothing else of NVIDIA's gets into the repository.
2. The names come out of NVIDIA's own bindings, imported over empty libraries (see `trt_stubs`): what a manifest lists is what the real module has.
3. Wheels come from PyPI by exact version, with `--no-deps`; they stay in the folder given by `--wheels`.

TensorRT 8.5 has no wheel for Python 3.11, and its only one on PyPI has 550 MB, because its libraries are in it.
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

RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
OLD = "3.10"
"""The Python for which every version has a wheel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """Where the names of one version are read.

    Attributes:
        requirement: The wheel, as pip takes it.
        folder: Folder of the bindings in it.
        newest: The newest Python that it is made for, as the second number of its version.
    """

    requirement: str
    folder: str = "tensorrt_bindings"
    newest: int = 13

    @property
    def runs_here(self) -> bool:
        """Whether there is a wheel for this Python."""
        return sys.version_info.minor <= self.newest


WHEELS = {
    "8.5": Wheel(requirement="tensorrt==8.5.2.2", folder="tensorrt", newest=10),
    "8.6": Wheel(requirement="tensorrt-bindings==8.6.1", newest=11),
    "10.3": Wheel(requirement="tensorrt-cu12-bindings==10.3.0", newest=12),
    "10.13": Wheel(requirement="tensorrt-cu12-bindings==10.13.0.35"),
    "10.16": Wheel(requirement="tensorrt-cu12-bindings==10.16.1.11"),
    "11.4": Wheel(requirement="tensorrt-cu12-bindings==11.4.0.106"),
}


def unpack(wheel: Wheel, wheels: Path, into: Path) -> Path:
    """Downloads a wheel where it is missing and unpacks the bindings in it, without any library.

    Returns:
        Folder of the bindings.
    """
    python = RUNNING if wheel.runs_here else OLD
    command = ["download", "--quiet", "--only-binary", ":all:", "--no-deps", "--python-version", python, "--dest", str(wheels)]
    subprocess.run([sys.executable, "-m", "pip", *command, wheel.requirement], check=True)
    name, _, version = wheel.requirement.partition("==")
    (path,) = wheels.glob(f"{name.replace('-', '_')}-{version}-cp{python.replace('.', '')}-*.whl")
    with zipfile.ZipFile(path) as archive:
        chosen = [member for member in archive.namelist() if member.startswith(f"{wheel.folder}/") and "/lib" not in member]
        archive.extractall(into, chosen)
    return into / wheel.folder


def read(version: str, wheels: Path, python310: str) -> dict[str, object]:
    """The manifest of one version.

    Args:
        version: Key of `WHEELS`.
        wheels: Folder for the downloaded wheels.
        python310: A Python 3.10, for a version without a wheel for this one.
    """
    wheel = WHEELS[version]
    with tempfile.TemporaryDirectory() as folder:
        bindings = unpack(wheel, wheels, Path(folder))
        trt_stubs.build(bindings, Path(folder))
        names = trt_stubs.introspect(bindings, Path(folder), sys.executable if wheel.runs_here else python310)
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


def _write(chosen: argparse.Namespace) -> None:
    if missing := trt_stubs.missing_tool():
        sys.exit(f"{missing} is not installed; the libraries that the bindings are imported over cannot be made")
    for version in chosen.versions or WHEELS:
        (HERE / f"{version}.json").write_text(render(read(version, chosen.wheels, chosen.python310)))


def _unpack(chosen: argparse.Namespace) -> None:
    for version, wheel in WHEELS.items():
        if wheel.runs_here:
            unpack(wheel, chosen.wheels, chosen.folder / version)
        else:
            sys.stderr.write(f"TensorRT {version}: no bindings for Python {RUNNING}; the tests that need them will be skipped\n")


def main() -> None:
    """Writes the manifests, or unpacks the bindings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    write = commands.add_parser("write")
    write.add_argument("versions", nargs="*", help=f"of {', '.join(WHEELS)}; all where none is given")
    write.add_argument("--python310", default=f"python{OLD}", help="a Python 3.10, for versions without bindings for a newer one")
    write.set_defaults(run=_write)
    unpacking = commands.add_parser("unpack")
    unpacking.add_argument("folder", type=Path, help="gets a folder a version")
    unpacking.set_defaults(run=_unpack)
    for command in (write, unpacking):
        command.add_argument("--wheels", type=Path, required=True, help="folder for the downloaded wheels")
    chosen = parser.parse_args()
    chosen.wheels.mkdir(parents=True, exist_ok=True)
    chosen.run(chosen)


if __name__ == "__main__":
    main()
