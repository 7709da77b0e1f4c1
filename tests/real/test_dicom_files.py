"""Every DICOM file of the real data set becomes the frames its manifest describes."""

# ruff: noqa: TID253 (pydicom is the second opinion here)
from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.pixels import pixel_array
from pydicom.pixels.processing import apply_color_lut, apply_voi_lut

from edgekit.imaging import frames

_ROOT = os.environ.get("EDGEKIT_REAL_DATA", "")
_FOLDER = Path(_ROOT) / "data" / "dicom"
pytestmark = pytest.mark.skipif(not _ROOT or not _FOLDER.is_dir(), reason="EDGEKIT_REAL_DATA names no folder with data/dicom")


def _manifest() -> list[dict[str, str]]:
    path = _FOLDER / "manifest.csv"
    if not _ROOT or not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


ROWS = _manifest()
by_name = pytest.mark.parametrize("row", ROWS, ids=[row["file"] for row in ROWS])
# Needs GDCM, and no other decoder here gives a second opinion.
_TWELVE_BIT_JPEG = "JPEG Extended (Process 2 and 4)"


def _read(name: str) -> np.ndarray:
    return np.stack([frame.pixels for frame in frames.read(_FOLDER / name)])


@by_name
def test_every_file_is_read(row):
    """Number of frames, rows, columns and colour are the manifest's, and the picture has contrast."""
    found = _read(row["file"])
    grey = row["photometric"].startswith("MONOCHROME")
    assert found.shape == (int(row["frames"]), int(row["rows"]), int(row["cols"]), *(() if grey else (3,)))
    assert found.dtype == np.uint8
    assert found.std() > 5


@by_name
def test_pixels_agree_with_pydicom(row):
    """Frames are what pydicom's own functions make of the file: exactly, and within a level or two where a lossy colour is converted."""
    if row["transfer_syntax"] == _TWELVE_BIT_JPEG:
        pytest.skip("pydicom does not decode JPEG with 12 bits")
    path = _FOLDER / row["file"]
    dataset, stored = dcmread(path), pixel_array(path)
    if row["photometric"] == "PALETTE COLOR":
        expected = apply_color_lut(stored, dataset) >> 8
    elif row["photometric"].startswith("MONOCHROME"):
        expected = np.rint(apply_voi_lut(stored, dataset) / (2**dataset.BitsStored - 1) * 255)
        expected = 255 - expected if row["photometric"] == "MONOCHROME1" else expected
    else:
        expected = stored
    tolerance = 2 if row["transfer_syntax"].startswith("JPEG Baseline") else 0
    found = _read(row["file"])
    assert np.abs(found.astype(int) - expected.reshape(found.shape)).max() <= tolerance


@pytest.mark.parametrize(
    ("one", "other", "mean"),
    [
        ("RG3_J2KR.dcm", "RG3_JLSL.dcm", 0.0),
        ("RG3_J2KR.dcm", "RG3_J2KI.dcm", 1.0),
        ("RG3_J2KR.dcm", "RG3_JPLY.dcm", 1.0),
        ("RG2_JPLL.dcm", "RG2_J2KI.dcm", 1.0),
        ("RG2_JPLL.dcm", "RG2_JPLY.dcm", 1.5),
        ("US1_UNCR.dcm", "US1_RLE.dcm", 0.0),
        ("US1_UNCR.dcm", "US1_J2KI.dcm", 3.0),
        ("US1_UNCR.dcm", "examples_jpeg2k.dcm", 0.0),
        ("OBXXXX1A_2frame.dcm", "OBXXXX1A_rle_2frame.dcm", 0.0),
        ("color-pl.dcm", "color-px.dcm", 0.0),
    ],
)
def test_one_picture_in_two_encodings_is_one_frame(one, other, mean):
    """The same picture gives the same frame in every lossless encoding, and nearly the same one in a lossy one."""
    difference = np.abs(_read(one).astype(int) - _read(other))
    assert difference.mean() <= mean


def test_folder_lists_every_file_of_the_manifest():
    """The folder stands for the manifest's files; the manifest itself is no frame."""
    assert [path.name for path in frames.expand([_FOLDER])] == sorted(row["file"] for row in ROWS)
