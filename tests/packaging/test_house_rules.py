"""Rules of the house that no linter knows: over the sources, and over every file of the repository."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import repository

import edgekit
from edgekit.catalog import files as catalog_files

MODULES = repository.modules()
MAX_LINES = 400


def _found(pattern: str, texts: dict[str, str], flags: int = 0) -> list[str]:
    """Where a pattern occurs: file, line and what was found."""
    return [
        f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {match[0]}"
        for name, text in texts.items()
        for match in re.finditer(pattern, text, flags)
    ]


@pytest.mark.parametrize("name", MODULES)
def test_a_module_keeps_the_rules(name):
    """A module says what it is for, stays under 400 lines, has no `assert` (validation is code) and prints only as the command line does."""
    tree = MODULES[name]
    assert ast.get_docstring(tree), "no docstring"
    assert len((repository.ROOT / name).read_text("utf-8").splitlines()) <= MAX_LINES
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)], "assert"
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    assert not [node.lineno for node in calls if node.func.id == "print"], "print"


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_finished(name):
    """Nothing is left to do and nothing pretends: no marker of unfinished work, nothing that is not implemented."""
    text = (repository.ROOT / name).read_text("utf-8")
    assert not re.findall(r"\b(?:TODO|FIXME|XXX|HACK)\b|\braise NotImplementedError\b", text)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_executes_nothing_that_a_file_says(name):
    """No `eval`, no `exec`, nothing of `pickle` but its errors; `torch.load` takes weights only and `numpy.load` no objects."""
    for node in ast.walk(MODULES[name]):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert called not in {"eval", "exec", "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads"}, node.lineno
        assert called != "torch.load" or options.get("weights_only") == "True", node.lineno
        assert called not in {"np.load", "numpy.load"} or options.get("allow_pickle") == "False", node.lineno


def test_no_path_of_a_machine():
    """No file names a folder of the machine it was written on."""
    pattern = r"(?<![\w.:/<>}-])/(?:work(?![\w-])|root/[\w.]|home/[\w-]+/|Users/[\w-]+/)"
    assert not _found(pattern, repository.texts())


def test_the_distribution_is_never_called_by_the_commands_name():
    """On PyPI the bare name belongs to somebody else: no file tells anybody to install that."""
    assert not _found(r"\bpip3?\s+install\s+(?:-\S+\s+)*[\"']?edgekit(?!-toolkit)\b", repository.texts(), re.IGNORECASE)


def test_extras_that_are_named_exist():
    """Every extra that a hint or a document tells somebody to install is one of the distribution's."""
    known = set(repository.pyproject()["project"]["optional-dependencies"])
    texts = [text for name, text in repository.texts().items() if not name.startswith("tests/")]
    named = re.findall(r"edgekit-toolkit\[([\w, -]+)\]", "\n".join(texts))
    assert named
    assert {extra.strip() for group in named for extra in group.split(",")} <= known


def test_real_data_is_for_tests_and_benchmarks():
    """Neither the package nor its catalogue knows of the folder with real data."""
    assert not _found("EDGEKIT_REAL_DATA", repository.texts("toolkit", "targets", "models", "calibration"))


def test_nothing_of_real_data_is_kept():
    """No weights, images, DICOM files or bundles are in the repository, documents' pictures and small test files apart."""
    allowed = ("docs/", "tests/golden/")
    kinds = (
        ".safetensors",
        ".pt",
        ".pth",
        ".pt2",
        ".onnx",
        ".dcm",
        ".edgekit",
        ".bin",
        ".npy",
        ".npz",
        ".png",
        ".jpg",
        ".jpeg",
        ".mp4",
        ".avi",
    )
    assert not [name for name in repository.files() if name.endswith(kinds) and not name.startswith(allowed)]


def test_decisions_are_numbered_once():
    """Each decision record has a number of its own and carries it in its title."""
    records = [Path(name) for name in repository.files() if name.startswith("docs/adr/") and Path(name).name != "README.md"]
    numbers = [path.name[:4] for path in records]
    assert len(set(numbers)) == len(numbers)
    for path, number in zip(records, numbers, strict=True):
        assert (repository.ROOT / path).read_text("utf-8").startswith(f"# {number}: "), path


def test_every_test_says_what_must_hold():
    """Each test function has a one-sentence docstring."""
    silent = [
        f"{name}: {node.name}"
        for name, text in repository.texts("tests").items()
        if name.endswith(".py")
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert not silent


def test_what_is_tested_is_what_was_meant():
    """The suite runs against the checkout, and under `make test-wheel` against the installed wheel with its packed catalogue."""
    import os
    import sys

    package = Path(edgekit.__file__).resolve().parent
    if os.environ.get("EDGEKIT_UNDER_TEST") == "wheel":
        assert package.is_relative_to(Path(sys.prefix).resolve())
        assert catalog_files.folder("targets") == package / "_catalog" / "targets"
    else:
        assert package == repository.SOURCE.resolve()
        assert catalog_files.folder("targets") == repository.ROOT / "targets"
