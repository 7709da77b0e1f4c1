"""Image quality: figures by hand, and a refusal for each limit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgekit.imaging import foreign
from edgekit.imaging.quality import BRIGHTNESS_BINS, chroma, frame_figures, tensor_figures, why_not
from edgekit.schema.input_gate import QualityLimits

LIMITS = QualityLimits(
    least_deviation_levels=5.0, most_black_share=0.8, most_white_share=0.2, most_chroma_levels=10.0, least_side_px=16, aspect=(0.5, 2.0)
)


def textured(rows=64, columns=64):
    return np.random.default_rng(0).integers(1, 255, (rows, columns), dtype=np.uint8)


def said(frame, limits=LIMITS, tensor=None):
    grey = frame if frame.ndim == 2 else frame.mean(axis=2).astype(np.uint8)
    return why_not(frame, tensor_figures(grey[None, ..., None] if tensor is None else tensor), limits)


def test_the_figures_are_numpys():
    """Deviation, black, white and the distribution of brightness, of a tensor of three channels."""
    tensor = np.random.default_rng(2).integers(0, 256, (1, 20, 30, 3), dtype=np.uint8)
    tensor[:, :5] = 0
    tensor[:, 5:7] = 255
    found = tensor_figures(tensor)
    assert found.deviation_levels == pytest.approx(tensor.std())
    assert found.black_share == pytest.approx((tensor == 0).mean())
    assert found.white_share == pytest.approx((tensor == 255).mean())
    expected = [(tensor <= 8 * index + 7).mean() for index in range(BRIGHTNESS_BINS)]
    assert found.brightness == pytest.approx(expected)


def test_chroma_is_the_distance_between_channels():
    """0 for grey in whatever shape, and the mean of largest less smallest for colours."""
    grey = textured()
    assert chroma(grey) == chroma(np.repeat(grey[..., None], 3, axis=2)) == 0
    assert chroma(np.broadcast_to(np.array([10, 60, 40], dtype=np.uint8), (300, 400, 3))) == 50
    assert frame_figures(grey) == (64, 64, 0.0)


REFUSED = {
    "flat": (np.full((64, 64), 90, dtype=np.uint8), "flat (standard deviation 0.0 grey levels, limit 5.0)"),
    "dark": (np.where(np.arange(4096).reshape(64, 64) % 10 == 0, 250, 0).astype(np.uint8), "too dark (90.0% of it is black, limit 80.0%)"),
    "white": (
        np.where(np.arange(4096).reshape(64, 64) % 2 == 0, 255, 90).astype(np.uint8),
        "saturated (50.0% of it is white, limit 20.0%)",
    ),
    "small": (textured(15, 20), "too small (15 × 20 pixels, the shortest side must be 16)"),
    "wide": (textured(20, 80), "of another shape (rows / columns 0.25, from 0.50 to 2.00 are known)"),
    "coloured": (
        np.stack([textured(), textured() // 2, textured() // 2], axis=2),
        "coloured (63.8 levels between its channels, limit 10.0)",
    ),
}


@pytest.mark.parametrize(("frame", "says"), REFUSED.values(), ids=REFUSED)
def test_each_limit_refuses_with_its_figure(frame, says):
    """What is wrong, what was found, and the limit."""
    assert said(frame) == says


def test_a_picture_passes():
    """Also in colour, where the classifier takes colour."""
    assert said(textured()) == ""
    coloured = REFUSED["coloured"][0]
    assert said(coloured, dataclasses.replace(LIMITS, most_chroma_levels=None)) == ""


def test_limits_that_mean_nothing_are_refused():
    """A limit outside of its range is no limit."""
    for changes in (
        {"most_black_share": 1.5},
        {"least_deviation_levels": -1.0},
        {"least_side_px": 0},
        {"aspect": (2.0, 0.5)},
        {"most_chroma_levels": 300.0},
    ):
        with pytest.raises(ValueError, match="must be"):
            dataclasses.replace(LIMITS, **changes)


@pytest.mark.parametrize("kind", foreign.KINDS)
def test_drawn_frames_are_the_same_for_a_seed(kind):
    """The pixels of a kind and a seed, and other ones for another seed; frames of a kind differ."""
    first, again, other = (foreign.frames(kind, 2, rows=60, columns=80, seed=seed) for seed in (0, 0, 1))
    assert first[0].dtype == np.uint8
    assert first[0].shape[:2] == (60, 80)
    assert all((one == two).all() for one, two in zip(first, again, strict=True))
    assert (first[0] != first[1]).any()
    assert (first[0] != other[0]).any()


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.int8, bool])
def test_a_tensor_of_another_type_is_refused(dtype):
    """Its bytes would be counted as grey levels."""
    with pytest.raises(TypeError, match="uint8"):
        tensor_figures(np.zeros((1, 8, 8, 1), dtype=dtype))
