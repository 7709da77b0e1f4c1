"""Who may import whom: the contracts cover every package, and the device side starts where the compile side's libraries are missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import repository

FORBIDDEN = repository.contracts()["forbidden"]["forbidden_modules"]
DEVICE_SIDE = [name for name in repository.packages() if name not in repository.COMPILE_SIDE]

# Refuses the libraries, then imports each module as the first of its package, so that none leans on what another one imported.
REFUSING = """
import importlib, json, sys

forbidden, modules = json.loads(sys.argv[1]), json.loads(sys.argv[2])

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in forbidden:
            raise ModuleNotFoundError(f"{name} is refused here", name=name)

sys.meta_path.insert(0, Refuse())
for module in modules:
    for name in [name for name in sys.modules if name.partition(".")[0] == "edgekit"]:
        del sys.modules[name]
    try:
        importlib.import_module(module)
    except ImportError as error:
        sys.exit(f"{module}: {error}")
"""


def _modules(package: str) -> list[str]:
    """The importable names of a package and all below it, or of one module."""
    top = repository.SOURCE / package
    paths = sorted(top.rglob("*.py")) if top.is_dir() else [top.with_suffix(".py")]
    parts = [path.relative_to(repository.SOURCE.parent).with_suffix("").parts for path in paths]
    return [".".join(part[:-1] if part[-1] == "__init__" else part) for part in parts]


def _python(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=cwd, timeout=120, check=False)


def test_the_layers_name_every_package():
    """No package stands outside the layers, and none of the layers is a package that is gone."""
    layers = [name.strip() for layer in repository.contracts()["layers"]["layers"] for name in layer.split("|")]
    assert sorted(layers) == sorted(repository.packages())


def test_the_layers_are_exhaustive_for_the_linter_too():
    """`lint-imports` itself refuses a package that no layer names."""
    assert repository.contracts()["layers"]["exhaustive"] is True


def test_the_device_side_of_the_contract_is_everything_else():
    """Every package but the compiler and the command line is kept from the compile side's libraries."""
    assert sorted(repository.contracts()["forbidden"]["source_modules"]) == [f"edgekit.{name}" for name in DEVICE_SIDE]


def test_the_contract_forbids_what_only_compiling_needs():
    """The libraries of the `compile` extra and those of the tests are forbidden on the device side, the engines apart."""
    assert {"torch", "torchvision", "timm", "onnx", "onnx_ir", "onnxscript", "nncf", "scipy", "sklearn"} <= set(FORBIDDEN)


def test_heavy_libraries_are_banned_at_module_level():
    """What the device side must not import, no module imports at its top either."""
    banned = repository.pyproject()["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-module-level-imports"]
    assert set(FORBIDDEN) - {"onnxscript"} <= set(banned)


@pytest.mark.parametrize("package", DEVICE_SIDE)
def test_the_device_side_imports_without_the_libraries(package):
    """Each module of the device side imports by itself in a fresh interpreter that refuses torch and the rest."""
    ended = _python("-c", REFUSING, json.dumps(FORBIDDEN), json.dumps(_modules(package)))
    assert ended.returncode == 0, ended.stderr


def test_the_refusal_works():
    """The interpreter of the test above does refuse: the compiler cannot be imported whole in it."""
    ended = _python("-c", REFUSING, json.dumps(["edgekit"]), json.dumps(["edgekit.errors"]))
    assert "edgekit is refused here" in ended.stderr


def test_the_command_line_imports_without_the_libraries():
    """A device has the command line without the compiler's libraries: every command's module imports."""
    ended = _python("-c", REFUSING, json.dumps(FORBIDDEN), json.dumps(_modules("cli")))
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    "arguments", [["--help"], ["targets"], ["targets", "x86-64"], ["run", "--help"], ["compile", "--help"]], ids=" ".join
)
def test_the_command_line_answers_without_the_libraries(arguments):
    """Help and look-ups work on a device."""
    run = f"{REFUSING}\nfrom edgekit.cli.main import main\nsys.exit(main({arguments!r}))"
    ended = _python("-c", run, json.dumps(FORBIDDEN), "[]")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout


def test_importing_edgekit_costs_next_to_nothing():
    """`import edgekit` brings in no library at all, not even NumPy."""
    code = "import sys; before = set(sys.modules); import edgekit; print(*(set(sys.modules) - before))"
    loaded = set(_python("-c", code).stdout.split())
    assert "edgekit" in loaded
    assert {name.partition(".")[0] for name in loaded} <= {"edgekit", *sys.stdlib_module_names}


def test_the_errors_cost_no_library():
    """A script can catch edgekit's errors without loading anything else."""
    code = "import sys; from edgekit import EdgekitError; print(*sys.modules)"
    assert not {"numpy", "PIL", "typer", "openvino"} & set(_python("-c", code).stdout.split())
