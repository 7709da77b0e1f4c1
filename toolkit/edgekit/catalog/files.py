"""Finds the TOML files of the three content folders and reads them without trusting them.

The folders stand at the top of a checkout and are packed as `edgekit/_catalog/` in a wheel; this file has the one branch that costs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

from edgekit.errors import CatalogError, nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Section = Literal["targets", "models", "calibration"]

MAX_TOML_BYTES = 1_000_000
"""Largest TOML file that is read; a recipe is a few kilobytes."""

_PACKAGE = Path(__file__).resolve().parents[1]


def folder(section: Section) -> Path:
    """The folder of a section: the packaged one, else the checkout's.

    Raises:
        CatalogError: Neither is there; the installation is broken.
    """
    for root in (_PACKAGE / "_catalog", _PACKAGE.parents[1]):
        if (root / section).is_dir():
            return root / section
    raise CatalogError(f"the folder {section}/ is missing from this installation", hint="install edgekit-toolkit again")


def names(section: Section) -> tuple[str, ...]:
    """Every name in a section, sorted: the files' names without `.toml`."""
    return tuple(sorted(path.stem for path in folder(section).glob("*.toml")))


def find(section: Section, name: str) -> Path:
    """The file of a name in a section.

    Raises:
        CatalogError: No file has that name; the hint lists the nearest.
    """
    known = names(section)
    if name not in known:
        raise CatalogError(f"{name!r} is not in {section}/", hint=nearest(name, known))
    return folder(section) / f"{name}.toml"


def is_file(path: Path) -> bool:
    """Whether a path is a file; a name that no file can have is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a TOML file.

    Raises:
        CatalogError: The file is missing, too large, not UTF-8 or not TOML (with line and column).
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TOML_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL in it
        reason = error.strerror if isinstance(error, OSError) else error
        raise CatalogError(f"{path} cannot be read: {reason}", hint="check the path") from error
    if len(data) > MAX_TOML_BYTES:
        raise CatalogError(f"{path} is larger than {MAX_TOML_BYTES} bytes and no recipe")
    try:
        return parse_toml(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CatalogError(f"{path} is not TOML: {error}", hint="docs/adding-a-model.md shows a whole recipe") from error


def parse_toml(text: str) -> dict[str, Any]:
    """Parses TOML text; raises ValueError."""
    table: dict[str, Any] = tomllib.loads(text)
    return table
