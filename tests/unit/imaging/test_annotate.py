"""The margin beside an overlay: it covers nothing, its bar has the overlay's own colours, its text is where the frame is not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.imaging.annotate import ColourBar, annotate
from edgekit.imaging.overlay import OverlayOptions, render


def speckled(rows, columns):
    return np.random.default_rng(0).integers(0, 256, (rows, columns, 3), dtype=np.uint8)


def bar(**options):
    return ColourBar(scale=3.0, options=OverlayOptions(**options))


@given(
    rows=st.integers(1, 300),
    columns=st.integers(1, 300),
    has_bar=st.booleans(),
    caption=st.lists(st.text(max_size=30), max_size=3),
)
@settings(max_examples=60, deadline=None)
def test_the_frame_is_the_upper_left_part_bit_for_bit(rows, columns, has_bar, caption):
    """Nothing covers a pixel of the frame, whatever its size and the text."""
    picture = speckled(rows, columns)
    shown = annotate(picture, bar=bar() if has_bar else None, caption=caption)
    assert (shown[:rows, :columns] == picture).all()
    assert shown.flags.owndata
    assert not np.shares_memory(shown, picture)


def test_what_was_not_asked_for_takes_no_room():
    """The bar widens the picture, the caption makes it higher; neither does the other's."""
    picture = speckled(240, 320)
    with_bar, with_caption = annotate(picture, bar=bar()), annotate(picture, caption=["benign"])
    assert (with_bar.shape[0], with_bar.shape[1] > 320) == (240, True)
    assert (with_caption.shape[0] > 240, with_caption.shape[1]) == (True, 320)


@pytest.mark.parametrize("colormap", ["inferno", "coolwarm"])
def test_the_bar_has_the_colours_of_the_overlay(colormap):
    """Some column of the margin is, from top to bottom, what `render` makes of the whole range of the scale on dark grey."""
    options = OverlayOptions(colormap=colormap)
    margin = annotate(np.zeros((480, 10, 3), dtype=np.uint8), bar=ColourBar(scale=3.0, options=options))[:, 10:]
    grey = np.full((1, 256), 32, dtype=np.uint8)
    lowest = -3.0 if colormap == "coolwarm" else 0.0
    for value in (3.0, lowest + 0.6 * (3.0 - lowest)):
        # Rows of the bar that are looked up together are two levels of 255 from their own at most.
        near = [value - shift * 3.0 / 255 for shift in (-2, -1, 0, 1, 2)]
        colours = [render(grey, np.full((1, 1), at, np.float32), box=(0, 0, 256, 1), scale=3.0, options=options)[0, 0] for at in near]
        assert any((np.abs(margin.astype(int) - colour).max(axis=2) <= 1).any() for colour in colours), value


def test_the_bar_of_contours_has_their_lines():
    """Lines that are drawn on the frame can be found on the bar, in their colour and as wide."""
    frame = np.full((480, 640), 32, dtype=np.uint8)
    options = OverlayOptions(contours=True)
    ramp = np.linspace(0, 4, 640, dtype=np.float32)[None, :]
    drawn = render(frame, ramp, box=(0, 0, 640, 480), scale=3.0, options=options)
    lines = {tuple(color) for color in drawn[0] if np.ptp(color)}
    margin = annotate(drawn, bar=ColourBar(scale=3.0, options=options))[:, 640:]
    counted = {color: (margin == color).all(axis=2).any(axis=1).sum() for color in lines}
    # The line at the whole scale is the bar's upper edge.
    assert len(counted) == 4
    assert sorted(counted.values())[1:] == [2, 2, 2]


def test_numbers_are_the_scale():
    """Another scale is another picture of the bar; the frame beside it is not looked at."""
    black = np.zeros((200, 50, 3), dtype=np.uint8)
    one, two = (annotate(black, bar=ColourBar(scale=scale, options=OverlayOptions())) for scale in (3.0, 8.0))
    assert one.shape != two.shape or (one != two).any()
    assert (annotate(black + 90, bar=bar())[:, 50:] == annotate(black, bar=bar())[:, 50:]).all()


def test_signs_the_font_does_not_have():
    """Accents are left out and other signs are question marks, on one line."""
    black = np.zeros((50, 400, 3), dtype=np.uint8)
    assert (annotate(black, caption=["léger 肺\n"]) == annotate(black, caption=["leger ??"])).all()
    assert (annotate(black, caption=["leger"]) != annotate(black, caption=["lager"])).any()
