"""Finding and reading the TOML files of the content folders, and the calibration recipes in them."""

from __future__ import annotations

import pytest

from edgekit.catalog import files
from edgekit.catalog.calibration import load_calibration
from edgekit.catalog.target import load_target
from edgekit.errors import CatalogError


@pytest.fixture
def section(tmp_path, monkeypatch):
    """A content folder to write into, found in place of the installed one."""
    monkeypatch.setattr(files, "folder", lambda _: tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", files.names("calibration"))
def test_every_calibration_recipe_is_whole(name):
    """It never looks at val or test."""
    calibration = load_calibration(name)
    assert calibration.name == name
    assert set(calibration.splits) <= {"calib", "train"}


def test_the_content_folders_are_not_empty():
    """The tests above would pass on nothing."""
    assert "x86-64" in files.names("targets")
    assert "default" in files.names("calibration")
    assert "phantom-lung" in files.names("models")


@pytest.mark.parametrize(("load", "name", "nearest"), [(load_target, "x86_64", "x86-64"), (load_calibration, "defaults", "default")])
def test_an_unknown_name_lists_the_nearest(load, name, nearest):
    """And everything that is there."""
    with pytest.raises(CatalogError, match="is not in ") as caught:
        load(name)
    assert caught.value.hint.startswith(f"did you mean {nearest!r}? available: ")


@pytest.mark.parametrize("name", ["../pyproject", "x86-64.toml", "", "targets/x86-64", "x\0"])
def test_a_name_is_never_a_path(name):
    """Only the names of files in the folder are known."""
    with pytest.raises(CatalogError, match="is not in targets/"):
        load_target(name)


BAD_FILES = {
    "not-toml": (b"a = ?\n", r"x\.toml is not TOML.*line 1"),
    "not-utf-8": (b'a = "\xff"', r"x\.toml is not TOML"),
    "empty": (b"", "is missing"),
    "too-large": (b"#" * (files.MAX_TOML_BYTES + 1), "is larger than"),
    "deep": (b"a = " + b"[" * 20_000, r"x\.toml is not TOML"),
    "key-twice": (b"title = '1'\ntitle = '2'", r"x\.toml is not TOML"),
}


@pytest.mark.parametrize("load", [load_target, load_calibration])
@pytest.mark.parametrize(("content", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_that_is_no_toml_is_refused(section, load, content, message):
    """With the file's name and, where there is one, the line."""
    (section / "x.toml").write_bytes(content)
    with pytest.raises(CatalogError, match=message):
        load("x")


def test_a_file_that_cannot_be_read_is_refused(section):
    """A folder has a name that ends in .toml like any other."""
    (section / "x.toml").mkdir()
    with pytest.raises(CatalogError, match="cannot be read"):
        load_target("x")


def test_a_missing_content_folder_is_a_broken_installation(monkeypatch, tmp_path):
    """Neither the packaged nor the checkout's folder is there."""
    monkeypatch.setattr(files, "_PACKAGE", tmp_path / "toolkit" / "edgekit")
    with pytest.raises(CatalogError, match=r"the folder targets/ is missing"):
        files.names("targets")


def test_the_packaged_folder_wins_over_the_checkout(monkeypatch, tmp_path):
    """In a wheel the folders stand inside the package."""
    package = tmp_path / "toolkit" / "edgekit"
    for root in (package / "_catalog", tmp_path):
        (root / "targets").mkdir(parents=True)
    monkeypatch.setattr(files, "_PACKAGE", package)
    assert files.folder("targets") == package / "_catalog" / "targets"
    (package / "_catalog" / "targets").rmdir()
    assert files.folder("targets") == tmp_path / "targets"


CALIBRATION = 'title = "t"\nsplits = ["calib"]\nsamples = 10\nminimum = 1\nseed = 0\n'
BAD_CALIBRATIONS = {
    "sees-test": ('["calib"]', '["calib", "test"]', "val and test must stay unseen"),
    "sees-val": ('["calib"]', '["val"]', "val and test must stay unseen"),
    "sees-nothing": ('["calib"]', "[]", "val and test must stay unseen"),
    "minimum-above-samples": ("minimum = 1", "minimum = 11", "minimum must be at least 1"),
    "minimum-of-zero": ("minimum = 1", "minimum = 0", "minimum must be at least 1"),
    "negative-seed": ("seed = 0", "seed = -1", "seed must not be negative"),
    "unknown-key": ("seed = 0", "sead = 0", "sead: unknown key"),
}


@pytest.mark.parametrize(("old", "new", "message"), BAD_CALIBRATIONS.values(), ids=BAD_CALIBRATIONS)
def test_a_calibration_that_cheats_or_misspells_is_refused(section, old, new, message):
    """Frames that choose or prove the settings must not shape them."""
    (section / "x.toml").write_text(CALIBRATION)
    assert load_calibration("x").name == "x"
    (section / "x.toml").write_text(CALIBRATION.replace(old, new))
    with pytest.raises(CatalogError, match=message):
        load_calibration("x")
