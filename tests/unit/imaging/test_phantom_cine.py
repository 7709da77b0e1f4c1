"""Cines of the phantom: repeatable, alike in every single frame, told apart by movement alone."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from edgekit.errors import DataError, OutputError
from edgekit.imaging import phantom, phantom_cine
from edgekit.imaging.phantom_cine import LABELS, cine, write_cines
from edgekit.imaging.phantom_scanner import PhantomSpec

SPEC = PhantomSpec(rows=48, columns=64, lines=48, samples=96)
PATIENTS = 12


@pytest.fixture(scope="module")
def cines():
    """Label to cines of the same patients, uint8 (patients, frames, rows, columns)."""
    return {label: np.stack([cine(label, patient=patient, seed=4, frames=5, spec=SPEC) for patient in range(PATIENTS)]) for label in LABELS}


def changes(clips):
    """Mean change of grey from frame to frame, by patient."""
    return np.abs(np.diff(clips.astype(np.int16), axis=1)).mean(axis=(1, 2, 3))


def test_the_same_arguments_give_the_same_cine():
    """Bytes depend on label, patient and seed, and each of them counts."""
    first = cine("sliding", patient=1, seed=2, frames=3, spec=SPEC)
    assert (first.dtype, first.shape) == (np.uint8, (3, 48, 64))
    np.testing.assert_array_equal(first, cine("sliding", patient=1, seed=2, frames=3, spec=SPEC))
    for label, patient, seed in (("no-sliding", 1, 2), ("sliding", 2, 2), ("sliding", 1, 3)):
        assert not np.array_equal(first, cine(label, patient=patient, seed=seed, frames=3, spec=SPEC))


def test_movement_tells_the_classes_apart(cines):
    """Every sliding lung changes more from frame to frame than the same patient's still one, and the still one changes too."""
    still, slides = (changes(cines[label]) for label in LABELS)
    assert (slides > 1.2 * still).all()
    assert (still > 1).all()


def test_a_single_frame_tells_nothing(cines):
    """Brightness, contrast and texture of single frames of the same patients are alike: their differences are the draw's."""
    for figure in (np.mean, np.std, lambda frame: np.abs(np.diff(frame.astype(np.int16), axis=1)).mean()):
        found = {label: np.array([[figure(frame) for frame in clip] for clip in clips]).mean(axis=1) for label, clips in cines.items()}
        apart = found["sliding"] - found["no-sliding"]
        spread = found["no-sliding"].std()
        assert abs(apart.mean()) < 0.1 * spread


def test_the_wall_stands_still(cines):
    """What lies above the lung does not move with it."""
    rows = slice(2, 8)  # skin and wall of every patient
    still, slides = (changes(cines[label][:, :, rows]) for label in LABELS)
    np.testing.assert_allclose(slides.mean(), still.mean(), rtol=0.1)


@pytest.mark.parametrize(
    ("label", "numbers", "says"),
    [
        ("slidin", {}, "no label 'slidin'"),
        ("sliding", {"patient": -1}, "must not be negative"),
        ("sliding", {"seed": -1}, "must not be negative"),
        ("sliding", {"frames": 0}, "at least 1"),
    ],
)
def test_wrong_arguments(label, numbers, says):
    """A wrong label or number is a data error."""
    with pytest.raises(DataError, match=says):
        cine(label, **{"patient": 0, "seed": 0, "frames": 1, **numbers}, spec=SPEC)


def test_a_data_set_has_its_clips_in_order(tmp_path):
    """Each patient has one clip of one class in one split, whose frames stand in the manifest in their order and are those of the cine."""
    manifest = write_cines(tmp_path / "data", patients_per_class=4, frames=3, seed=1, spec=SPEC)
    with manifest.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 4 * len(LABELS) * 3
    assert {row["split"] for row in rows} == {"train", "calib", "val", "test"}
    for start in range(0, len(rows), 3):
        clip = rows[start : start + 3]
        assert len({(row["label"], row["patient_or_video_id"], row["split"]) for row in clip}) == 1
        assert [row["file"][-8:] for row in clip] == ["f000.png", "f001.png", "f002.png"]
        frames = np.stack([np.asarray(Image.open(manifest.parent / row["file"])) for row in clip])
        patient = int(clip[0]["patient_or_video_id"].removeprefix("phantom-"))
        np.testing.assert_array_equal(frames, cine(clip[0]["label"], patient=patient, seed=1, frames=3, spec=SPEC))


def test_a_folder_that_is_in_use_is_left_alone(tmp_path):
    """Nothing is written beside what is there, and too few patients are refused before anything is written."""
    (tmp_path / "x").write_text("")
    with pytest.raises(OutputError, match="is not empty"):
        write_cines(tmp_path, patients_per_class=4, frames=1, seed=1, spec=SPEC)
    with pytest.raises(DataError, match="at least 4 patients"):
        write_cines(tmp_path / "new", patients_per_class=3, frames=1, seed=1, spec=SPEC)
    assert not (tmp_path / "new").exists()


def test_the_cine_is_not_the_frames_of_the_still_phantom():
    """Its draws are its own: no frame of a training set of stills comes again in a cine."""
    frame = phantom.frame("a-lines", patient=0, index=0, seed=0, spec=SPEC)
    assert not np.array_equal(frame, phantom_cine.cine("no-sliding", patient=0, seed=0, frames=1, spec=SPEC)[0])
