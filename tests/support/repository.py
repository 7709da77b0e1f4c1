"""The checkout as the packaging tests look at it: its files, its modules, its documents."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "toolkit" / "edgekit"

COMPILE_SIDE = ("cli", "compiler")
"""The packages that are not the device side; the command line reaches the compiler, but only inside its commands."""


@functools.cache
def files() -> tuple[str, ...]:
    """Every file that git keeps or would keep, relative to the checkout, sorted.

    An unpacked sdist has no git; there it is everything that no tool made.
    """
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
        return tuple(sorted(name for name in listed if name and (ROOT / name).is_file()))
    made = {"__pycache__", "dist", "build", "demo"}
    found = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()]
    return tuple(sorted(str(path) for path in found if not made & set(path.parts) and not path.parts[0].startswith(".")))


def texts(*folders: str) -> dict[str, str]:
    """The text files under some folders of the checkout, or all, by name."""
    found = {}
    for name in files():
        if folders and not name.startswith(tuple(f"{folder}/" for folder in folders)):
            continue
        data = (ROOT / name).read_bytes()
        if b"\0" not in data:
            found[name] = data.decode("utf-8")
    return found


def modules() -> dict[str, ast.Module]:
    """Every module of the package, parsed, by its file's name in the checkout."""
    return {name: ast.parse(text, name) for name, text in texts("toolkit").items() if name.endswith(".py")}


def packages() -> tuple[str, ...]:
    """The names directly under `edgekit`: packages and modules, without the dunder files."""
    found = [path for path in SOURCE.iterdir() if (path / "__init__.py").is_file() or path.suffix == ".py"]
    return tuple(sorted(path.stem for path in found if not path.stem.startswith("__")))


@functools.cache
def pyproject() -> dict[str, Any]:
    """The parsed `pyproject.toml`."""
    import tomllib  # Python 3.10, where only the device side's tests run, has none

    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def contracts() -> dict[str, dict[str, Any]]:
    """The contracts of import-linter by type."""
    return {contract["type"]: contract for contract in pyproject()["tool"]["importlinter"]["contracts"]}


def documents() -> dict[str, str]:
    """The Markdown files that a reader finds: at the top, under `docs/` and beside the recipes."""
    return {name: text for name, text in texts().items() if name.endswith(".md") and not name.startswith("tests/")}


def fences(text: str) -> list[tuple[str, str]]:
    """The fenced code blocks of a Markdown text: language (lower case, "" for none) and code."""
    return [
        (match[2].lower(), match[3]) for match in re.finditer(r"^(```+|~~~+) *([\w+-]*)[^\n]*\n(.*?)^\1 *$", text, re.MULTILINE | re.DOTALL)
    ]


def prose(text: str) -> str:
    """A Markdown text without its fenced code blocks."""
    return re.sub(r"^(```+|~~~+).*?^\1 *$", "", text, flags=re.MULTILINE | re.DOTALL)
