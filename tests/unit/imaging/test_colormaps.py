"""Colour maps: the published colours, steady lightness, and refusal of unknown names."""

import numpy as np
import pytest

from edgekit.errors import DataError
from edgekit.imaging import colormaps

# Position (of 255) to RGB in 0..1, from the tables that van der Walt and Smith published under CC0.
PUBLISHED = {
    "inferno": {
        0: (0.001462, 0.000466, 0.013866),
        127: (0.729909, 0.212759, 0.333861),
        255: (0.988362, 0.998364, 0.644924),
    },
    "viridis": {0: (0.267004, 0.004874, 0.329415), 127: (0.128729, 0.563265, 0.551229), 255: (0.993248, 0.906157, 0.143936)},
    "cividis": {0: (0.0, 0.135112, 0.304751), 127: (0.485141, 0.482451, 0.470384), 255: (0.995737, 0.909344, 0.217772)},
    # Moreland's own table, in 0..255: the ends, both sides of the middle, and a quarter of the way from each end.
    "coolwarm": {
        place: tuple(value / 255 for value in color)
        for place, color in {
            0: (59, 76, 192),
            64: (141, 176, 254),
            127: (220, 221, 221),
            128: (221, 220, 220),
            192: (244, 152, 122),
            255: (180, 4, 38),
        }.items()
    },
    "jet": {0: (0, 0, 0.5), 255: (0.5, 0, 0)},
}


def lightness(table):
    """CIE L* of sRGB colours."""
    linear = np.where(table <= 10, table / 3294.6, ((table / 255 + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    return np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)


@pytest.mark.parametrize("name", colormaps.COLORMAPS)
def test_a_table_is_256_read_only_rgb_colours(name):
    """Whoever draws with a table cannot change it for the next one."""
    table = colormaps.colors(name)
    assert (table.shape, table.dtype) == ((256, 3), np.uint8)
    with pytest.raises(ValueError, match="read-only"):
        table[0] = 0


@pytest.mark.parametrize(("name", "place", "color"), [(n, p, c) for n, places in PUBLISHED.items() for p, c in places.items()])
def test_colours_are_the_published_ones(name, place, color):
    """A map that bears a known name has that map's colours, to a few levels."""
    assert np.abs(colormaps.colors(name)[place] - np.array(color) * 255).max() <= 7


@pytest.mark.parametrize("name", ["inferno", "viridis", "cividis"])
def test_lightness_rises_steadily(name):
    """More evidence is lighter, also for a reader who cannot tell the hues apart; no step is a visible border."""
    steps = np.diff(lightness(colormaps.colors(name).astype(float)))
    assert steps.min() > -0.3
    assert steps.max() < 1.2


def test_the_default_is_perceptually_uniform():
    """The map nobody asked for is not jet."""
    assert colormaps.DEFAULT in {"inferno", "viridis"}


def test_an_unknown_name_is_refused_with_the_nearest():
    """A misspelt name says what was meant."""
    with pytest.raises(DataError, match="'infermo'") as caught:
        colormaps.colors("infermo")
    assert "did you mean 'inferno'" in caught.value.hint


@pytest.mark.parametrize("name", sorted(colormaps.DIVERGING))
def test_a_diverging_map_falls_evenly_from_its_middle(name):
    """Zero is the lightest colour and has no hue, and more evidence of either sign is darker by the same, so that no sign looks stronger."""
    for is_negative in (False, True):
        half = colormaps.ramp(name, is_negative=is_negative).astype(float)
        assert np.ptp(half[0]) <= 2
        assert np.diff(lightness(half)).max() < 0.35
    ends = [lightness(colormaps.ramp(name, is_negative=is_negative).astype(float))[-1] for is_negative in (False, True)]
    assert abs(ends[0] - ends[1]) < 3


@pytest.mark.parametrize("name", colormaps.COLORMAPS)
def test_a_ramp_goes_from_none_to_full(name):
    """A map of one direction is its own ramp; a diverging one has two, which begin together and end at its ends."""
    table, ramp = colormaps.colors(name), colormaps.ramp(name)
    assert (ramp[-1] == table[-1]).all()
    if name not in colormaps.DIVERGING:
        assert (ramp == table).all()
        with pytest.raises(DataError, match="no colours below zero"):
            colormaps.ramp(name, is_negative=True)
    else:
        below = colormaps.ramp(name, is_negative=True)
        assert (below[-1] == table[0]).all()
        assert (below[0] == ramp[0]).all()
