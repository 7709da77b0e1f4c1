"""The public names: what `edgekit.__all__` lists is there, is all there is, and is typed."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest
import repository

import edgekit

PUBLIC = {"Classifier", "EdgekitError", "Prediction", "__version__", "load"}


def test_the_public_names():
    """A new public name is a promise: it is added here on purpose."""
    assert set(edgekit.__all__) == PUBLIC
    assert edgekit.__all__ == sorted(edgekit.__all__)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_public_name_is_importable_and_documented(name):
    """Each listed name can be imported from `edgekit` and says what it is."""
    found = getattr(edgekit, name)
    assert name == "__version__" or found.__doc__


def test_from_edgekit_import_everything():
    """`from edgekit import *` in a fresh interpreter gives the listed names."""
    code = "from edgekit import *; print(*sorted(name for name in globals() if not name.startswith('__')), __version__)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.split() == [*sorted(PUBLIC - {"__version__"}), edgekit.__version__]


def test_dir_lists_the_public_names():
    """`dir(edgekit)` and so a shell's completion know the names before their first use."""
    ended = subprocess.run(
        [sys.executable, "-c", "import edgekit; print(*dir(edgekit))"], capture_output=True, text=True, check=True, timeout=60
    )
    assert set(ended.stdout.split()) >= PUBLIC


def test_no_other_name_looks_public():
    """What a reader can reach without an underscore is listed, or is a module."""
    others = {name for name in vars(edgekit) if not name.startswith("_")} - PUBLIC - set(repository.packages())
    assert others <= {"annotations", "TYPE_CHECKING", "Any"}


def test_an_unknown_name_is_an_attribute_error():
    """A name that does not exist fails as it does for any module."""
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        _ = edgekit.laod  # codespell:ignore laod


def test_type_checkers_see_the_same_names():
    """The names that are loaded on first use are declared for type checkers, from the modules that have them."""
    tree = repository.modules()["toolkit/edgekit/__init__.py"]
    guarded = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    declared = {alias.asname: node.module for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(declared) == PUBLIC - {"__version__"}
    for name, module in declared.items():
        assert getattr(edgekit, name) is getattr(sys.modules[module], name)
