"""The wheel and the sdist: what is in them, what they say about themselves, and that the wheel works where it is unpacked."""

from __future__ import annotations

import configparser
import email
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import repository

import edgekit

SECTIONS = ("targets", "models", "calibration")
INFO = f"edgekit_toolkit-{edgekit.__version__}.dist-info"
SDIST = f"edgekit_toolkit-{edgekit.__version__}"


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """A folder with the sdist and the wheel that is built from that sdist, as `make wheel` builds them."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(repository.ROOT)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(dist):
    """The wheel's members by name."""
    (path,) = dist.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def sdist(dist):
    """The sdist's files by name, without its top folder."""
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        members = archive.getmembers()
    assert all(member.isfile() and member.name.startswith(f"{SDIST}/") for member in members)
    return {member.name.removeprefix(f"{SDIST}/") for member in members}


@pytest.fixture
def unpacked(wheel, tmp_path):
    """The wheel's package in a folder far from the checkout."""
    for name, data in wheel.items():
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "site"


def _expected() -> dict[str, str]:
    """Every file that the wheel must have outside its metadata, with the file of the checkout that it is a copy of."""
    expected = {}
    for name in repository.files():
        if name.startswith("toolkit/"):
            expected[name.removeprefix("toolkit/")] = name
        elif name.startswith(tuple(f"{section}/" for section in SECTIONS)) and Path(name).name != "README.md":
            expected[f"edgekit/_catalog/{name}"] = name
    return expected


def _run(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, *arguments], cwd=site, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_wheels_files(wheel):
    """The wheel holds the package, the three content folders as its catalogue, the metadata, and nothing else."""
    metadata = {f"{INFO}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    assert set(wheel) == set(_expected()) | metadata


def test_the_wheels_files_are_the_checkouts(wheel):
    """Each packed file is the checkout's, byte for byte."""
    assert not [name for name, origin in _expected().items() if wheel[name] != (repository.ROOT / origin).read_bytes()]


def test_the_wheels_kinds_of_files(wheel):
    """Python, the typing marker, TOML and model cards: a weight, an image or a library that slipped in would be another kind."""
    kinds = {Path(name).suffix for name in wheel if name.startswith("edgekit/") and Path(name).name != "py.typed"}
    assert kinds <= {".py", ".toml", ".md"}
    assert "edgekit/py.typed" in wheel


@pytest.mark.parametrize("section", SECTIONS)
def test_the_wheel_has_the_catalogue(wheel, section):
    """Each content folder arrives with the files that are in it."""
    there = {Path(name).stem for name in wheel if name.startswith(f"edgekit/_catalog/{section}/") and name.endswith(".toml")}
    assert there == {path.stem for path in (repository.ROOT / section).glob("*.toml")}
    assert there


def test_the_sdists_files(sdist):
    """The sdist is the repository without the runner's script: from it alone the wheel can be built and the tests run."""
    assert sdist == {name for name in repository.files() if not name.startswith(".ci/")} | {"PKG-INFO"}


def test_the_metadata(wheel):
    """Name, version, licence, Python and description are what the project says."""
    metadata = email.message_from_bytes(wheel[f"{INFO}/METADATA"])
    project = repository.pyproject()["project"]
    assert metadata["Name"] == "edgekit-toolkit"
    assert metadata["Version"] == edgekit.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["Summary"] == project["description"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload(decode=True).decode("utf-8").strip() == (repository.ROOT / "README.md").read_text("utf-8").strip()
    assert wheel[f"{INFO}/licenses/LICENSE"] == (repository.ROOT / "LICENSE").read_bytes()


def test_the_requirements(wheel):
    """Outside the extras a device gets NumPy, Pillow, typer and cryptography, and nothing of the compiler."""
    metadata = email.message_from_bytes(wheel[f"{INFO}/METADATA"])
    required = [text for text in metadata.get_all("Requires-Dist") if "extra ==" not in text]
    names = {re.match(r"[\w.-]+", text)[0].lower() for text in required}
    assert names == {"numpy", "pillow", "typer", "cryptography", "tomli"}


def test_the_extras(wheel):
    """The extras of the wheel are the project's, and an engine is one of them."""
    extras = set(email.message_from_bytes(wheel[f"{INFO}/METADATA"]).get_all("Provides-Extra"))
    assert extras == set(repository.pyproject()["project"]["optional-dependencies"])
    assert {"openvino", "dicom", "compile", "dev"} <= extras


def test_the_console_script(wheel):
    """The one script is `edgekit`, and the function it calls exists."""
    scripts = configparser.ConfigParser()
    scripts.read_string(wheel[f"{INFO}/entry_points.txt"].decode())
    assert {section: dict(scripts[section]) for section in scripts.sections()} == {
        "console_scripts": {"edgekit": "edgekit.cli.main:run_command_line"}
    }
    from edgekit.cli import main

    assert callable(main.run_command_line)


def test_the_installed_script_answers():
    """The script stands beside the interpreter and tells the version."""
    script = Path(sys.executable).with_name("edgekit")
    ended = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == f"edgekit {edgekit.__version__}\n"


def test_the_tag(wheel):
    """The wheel is pure Python: one file for every device."""
    assert email.message_from_bytes(wheel[f"{INFO}/WHEEL"])["Tag"] == "py3-none-any"


def test_the_packed_catalogue_is_read(unpacked):
    """A wheel's edgekit finds its own catalogue, not a checkout's, and reads every file of it."""
    code = "\n".join(
        [
            "import edgekit",
            "from edgekit.catalog import files",
            "from edgekit.catalog.target import load_target",
            "print(edgekit.__file__)",
            f"for section in {SECTIONS}: print(files.folder(section), *files.names(section))",
            "for name in files.names('targets'): load_target(name)",
        ]
    )
    ended = _run(unpacked, "-c", code)
    assert ended.returncode == 0, ended.stderr
    first, *rest = ended.stdout.splitlines()
    assert Path(first) == unpacked / "edgekit" / "__init__.py"
    for section, line in zip(SECTIONS, rest, strict=True):
        folder, *names = line.split()
        assert Path(folder) == unpacked / "edgekit" / "_catalog" / section
        assert names == sorted(path.stem for path in (repository.ROOT / section).glob("*.toml"))


def test_the_command_line_reads_the_packed_catalogue(unpacked):
    """`edgekit targets` of an installed wheel lists the devices."""
    ended = _run(unpacked, "-m", "edgekit", "targets")
    assert ended.returncode == 0, ended.stderr
    assert all(path.stem in ended.stdout for path in (repository.ROOT / "targets").glob("*.toml"))


def test_a_wheel_without_its_catalogue_says_so(unpacked):
    """Where neither the packed folders nor a checkout's are, one clear line names the distribution to install again."""
    shutil.rmtree(unpacked / "edgekit" / "_catalog")
    ended = _run(unpacked, "-m", "edgekit", "targets")
    assert ended.returncode == 1
    assert "targets/ is missing from this installation" in ended.stderr
    assert "edgekit-toolkit" in ended.stderr
    assert "Traceback" not in ended.stderr
