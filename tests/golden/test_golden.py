"""Bytes that must not change by accident: preprocessing, overlay, and the bundle format. `regenerate.py` writes them anew."""

from __future__ import annotations

import golden_cases
import numpy as np
import pytest
from bundle_builders import tiny_members
from PIL import Image

from edgekit.bundle.reader import open_bundle


@pytest.mark.parametrize("name", golden_cases.PICTURES)
def test_pictures(name):
    """Preprocessing and overlay of the golden frame give the golden pixels, bit for bit."""
    expected = np.asarray(Image.open(golden_cases.FOLDER / f"{name}.png"))
    np.testing.assert_array_equal(golden_cases.PICTURES[name](), expected)


def test_cases_differ():
    """No two settings give the same picture: each case of this suite can fail by itself."""
    pictures = [make().tobytes() for make in golden_cases.PICTURES.values()]
    assert len(set(pictures)) == len(pictures)


def test_there_are_no_other_files():
    """Every golden file belongs to a case."""
    known = {"frame", *golden_cases.PICTURES}
    assert {path.stem for path in golden_cases.FOLDER.glob("*.png")} == known
    assert [path.name for path in golden_cases.FOLDER.glob("*.edgekit*")] == ["tiny.edgekit.golden"]


def test_the_writer_writes_the_golden_bundle(tmp_path):
    """The same manifest and members give the bytes they gave when the file was made."""
    golden_cases.write_golden_bundle(tmp_path / "tiny.edgekit")
    assert (tmp_path / "tiny.edgekit").read_bytes() == golden_cases.BUNDLE.read_bytes()


def test_the_golden_bundle_opens():
    """A bundle of format version 1 opens, with this digest, as long as edgekit reads that version."""
    bundle = open_bundle(golden_cases.BUNDLE)
    assert bundle.digest == "d23521f96c338efdb766237a1d59d2dd3df4f1be091a87deed153c69584d8a04"
    assert {name: bytes(data) for name, data in bundle.members.items() if name != "manifest.json"} == tiny_members()
