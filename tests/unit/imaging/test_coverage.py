"""What the cells of a map see of a mask, and a map at the pixels of its frame."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.imaging import overlay
from edgekit.imaging.coverage import at_pixels, cells_of
from edgekit.imaging.preprocess import crop_box, preprocess
from edgekit.schema.model_io import InputSpec

WHOLE = (0.0, 0.0, 8.0, 8.0)


def test_cells_cut_through_pixels():
    """A mask of one pixel is shared among the cells by area."""
    mask = np.zeros((3, 3), dtype=bool)
    mask[1, 1] = True
    covered, centre = cells_of(mask, (0.0, 0.0, 3.0, 3.0), (2, 2))
    assert covered == pytest.approx(np.full((2, 2), 0.25 / 2.25))
    assert not centre.any()
    assert cells_of(mask, (0.0, 0.0, 3.0, 3.0), (1, 1))[1].all()


def test_a_crop_sees_only_its_part():
    """What lies outside the box is not covered, and the centre of a cell is looked up in the frame."""
    mask = np.zeros((8, 8), dtype=bool)
    mask[:, :4] = True
    covered, centre = cells_of(mask, (2.0, 2.0, 6.0, 6.0), (2, 2))
    assert covered == pytest.approx(np.array([[1, 0], [1, 0]]))
    assert centre.tolist() == [[True, False], [True, False]]
    assert not cells_of(mask, (5.0, 0.0, 8.0, 8.0), (2, 2))[0].any()


@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1),
    st.floats(0, 5), st.floats(0, 5), st.floats(6, 13), st.floats(6, 11),
)  # fmt: skip
def test_the_cells_add_up_to_the_box(rows, columns, seed, left, top, right, bottom):
    """The mean over the cells is the share of the box in the mask, whatever the grid."""
    mask = np.random.default_rng(seed).integers(0, 2, size=(11, 13)).astype(bool)
    whole = cells_of(mask, (left, top, right, bottom), (1, 1))[0][0, 0]
    assert cells_of(mask, (left, top, right, bottom), (rows, columns))[0].mean() == pytest.approx(whole, abs=1e-9)


def test_the_geometry_is_that_of_preprocessing():
    """A bright square in a frame and the same square as a mask fall into the same cells of the tensor and of the map."""
    spec = InputSpec(color="grey", channels=1, resize=(80, 80), crop=(64, 64), mean=(0.0,), std=(1.0,))
    frame = np.zeros((120, 200), dtype=np.uint8)
    frame[30:60, 50:130] = 255
    tensor = preprocess(frame, spec)[0, ..., 0].reshape(8, 8, 8, 8).mean(axis=(1, 3)) / 255
    covered, _ = cells_of(frame > 0, crop_box(frame.shape, spec), (8, 8))
    assert np.abs(tensor - covered).max() < 0.03
    assert covered.max() == pytest.approx(1)


def test_a_map_is_drawn_where_it_is_measured():
    """Both leave the same pixels out: those whose centre lies outside the box."""
    frame = np.full((60, 90), 100, dtype=np.uint8)
    cam = np.random.default_rng(1).uniform(0.2, 1, size=(5, 4)).astype(np.float32)
    box = (10.5, 7.0, 81.0, 52.25)
    placed = at_pixels(cam, box, frame.shape)
    drawn = overlay.render(frame, cam, box=box, scale=1.0)
    changed = (drawn != frame[..., None]).any(axis=2)
    assert (changed == ~np.isnan(placed)).all()


def test_a_cells_centre_has_its_value():
    """Between centres values are bilinear, beyond the outer ones they stay."""
    cam = np.array([[0.0, 4.0]])
    placed = at_pixels(cam, WHOLE, (8, 8))
    assert placed[0] == pytest.approx([0, 0, 0.5, 1.5, 2.5, 3.5, 4, 4])
    assert np.isnan(at_pixels(cam, (0.0, 2.0, 8.0, 8.0), (8, 8))[:2]).all()
