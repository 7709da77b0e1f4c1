"""The set-up: exact versions for everything that is installed, and the targets that people and the runner call."""

from __future__ import annotations

import os
import re
import subprocess

import pytest
import repository
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PYPROJECT = repository.pyproject()
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
MAKEFILE = (repository.ROOT / "Makefile").read_text("utf-8")


def _pins(name: str) -> dict[str, Version]:
    """The pinned versions of a constraints file by canonical name."""
    lines = [line for line in (repository.ROOT / name).read_text("utf-8").splitlines() if line and not line.startswith("#")]
    assert not [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line)], (
        "a line that pins no exact, public version"
    )
    return {canonicalize_name(line.partition("==")[0]): Version(line.partition("==")[2]) for line in lines}


def _required(extras: str) -> list[Requirement]:
    """What some extras of a list in the Makefile ask for, the extras that they name included."""
    names = re.search(rf"^{extras} := (.*)$", MAKEFILE, re.MULTILINE)[1].split(",")
    found = [Requirement(text) for text in PYPROJECT["project"]["dependencies"]]
    while names:
        for requirement in map(Requirement, EXTRAS[names.pop()]):
            if requirement.name == PYPROJECT["project"]["name"]:
                names += requirement.extras
            else:
                found.append(requirement)
    return found


@pytest.mark.parametrize(
    ("file", "extras", "python"), [("constraints.txt", "EXTRAS", "3.11"), ("constraints-py310.txt", "DEVICE_EXTRAS", "3.10")]
)
def test_the_pins_meet_the_requirements(file, extras, python):
    """Each library that a set-up asks for is pinned, to a version that `pyproject.toml` allows."""
    pins = _pins(file)
    for requirement in _required(extras):
        if requirement.marker is None or requirement.marker.evaluate({"python_version": python}):
            assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_the_device_side_is_not_pinned_to_the_compiler():
    """The Python 3.10 environment is a device's: it has none of the compiler's libraries."""
    assert not {"torch", "torchvision", "timm", "nncf", "onnx", "onnxruntime"} & set(_pins("constraints-py310.txt"))


def test_edgekit_is_not_pinned():
    """What is set up is the checkout, whatever its version."""
    assert not {"edgekit", "edgekit-toolkit"} & (set(_pins("constraints.txt")) | set(_pins("constraints-py310.txt")))


def test_the_targets():
    """Every target that documents and the runner name is there and described."""
    described = set(re.findall(r"^([a-z0-9-]+):.*## ", MAKEFILE, re.MULTILINE))
    assert {"help", "setup", "demo", "test", "test-slow", "test-wheel", "test-py310", "lint", "bench", "clean"} <= described


def test_make_test_runs_every_check():
    """`make test` without its commands being run: the five static checks, the wheel, and the suite of the checkout at the end."""
    command = ["make", "--dry-run", "--always-make", "--no-print-directory", "test"]
    # The options of the make that runs this test are none of this one's.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    ended = subprocess.run(command, cwd=repository.ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True)
    lines = ended.stdout.splitlines()
    called = [
        tool
        for tool in ("ruff check", "ruff format --check", "mypy", "lint-imports", "vermin")
        if any(f"/{tool}" in line for line in lines)
    ]
    assert len(called) == 5
    suites = [line for line in lines if "-m pytest" in line]
    assert [".venv-wheel/" in line for line in suites] == [True, False]
    assert lines[-1] == suites[-1]


def test_the_runners_script():
    """The runner's script can be executed and calls `make test`."""
    script = repository.ROOT / ".ci" / "run"
    if not script.exists():
        pytest.skip("an unpacked sdist has no runner's script")
    assert os.access(script, os.X_OK)
    assert re.search(r"^make .*\btest\b", script.read_text("utf-8"), re.MULTILINE)
    subprocess.run(["bash", "-n", script], check=True, timeout=30)


def test_slow_tests_are_left_out_unless_asked_for():
    """`pytest` alone is the fast suite; the marker of the slow ones is registered."""
    options = PYPROJECT["tool"]["pytest"]["ini_options"]
    assert options["addopts"][-2:] == ["-m", "not slow"]
    assert [marker.partition(":")[0] for marker in options["markers"]] == ["slow"]
