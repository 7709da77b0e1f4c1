"""The first lines of the README run as they are written, on what `make demo` leaves behind."""

from __future__ import annotations

import re
import shlex

import pytest
import repository
from compile_builders import write_project

from edgekit.cli.main import main

README = (repository.ROOT / "README.md").read_text("utf-8")
FIRST_SCREEN = README.partition("\n## ")[0]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A folder with `demo/` as `edgekit demo` makes it, with a smaller model and fewer frames."""
    folder = tmp_path_factory.mktemp("checkout")
    project = write_project(folder / "demo")
    bundle = folder / "demo" / "phantom-lung.edgekit"
    assert main(["compile", str(project.recipe), "--workdir", str(project.workdir), "--out", str(bundle)]) == 0
    return folder


def _block(language: str) -> str:
    (code,) = [code for found, code in repository.fences(FIRST_SCREEN) if found == language]
    return code


def test_the_commands(checkout, monkeypatch, capfd):
    """`make` comes first, then edgekit's commands, each of which succeeds on the demonstration's files."""
    monkeypatch.chdir(checkout)
    lines = [shlex.split(line, comments=True) for line in _block("bash").splitlines()]
    assert lines[0] == ["make", "demo"]
    assert ["make", "test"] in lines
    calls = [line[1:] for line in lines if line[0] == "edgekit"]
    assert len(calls) >= 2
    for arguments in calls:
        assert main(arguments) == 0, capfd.readouterr().err
    assert list((checkout / "demo" / "maps").glob("*.png"))


def test_the_python(checkout, monkeypatch, capfd):
    """The Python block runs, prints an answer with its map, and writes the overlay."""
    monkeypatch.chdir(checkout)
    names: dict = {}
    exec(compile(_block("python"), "README.md", "exec"), names)
    assert names["prediction"].label in capfd.readouterr().out
    assert names["prediction"].cam.ndim == 2
    assert (checkout / "demo" / "overlay.png").stat().st_size > 0


def test_ten_lines():
    """The first screen's Python is about ten lines, and its picture is small and in the repository."""
    assert len(_block("python").splitlines()) <= 11
    (picture,) = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", FIRST_SCREEN)
    assert (repository.ROOT / picture).stat().st_size < 200_000


def test_few_badges():
    """At most three badges."""
    assert len(re.findall(r"shields\.io|badge", README)) <= 3
