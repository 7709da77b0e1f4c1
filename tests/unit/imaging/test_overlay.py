"""The overlay: exact geometry, a fixed scale, untouched pixels where there is no evidence, and refusal of maps that mean nothing."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgekit.errors import DataError
from edgekit.imaging import overlay
from edgekit.imaging.overlay import OverlayOptions, render

SIDES = st.integers(1, 40)
MAPS = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.floats(-50, 50, width=32))
)


def speckled(rows, columns, *, rgb=False, seed=0):
    """A frame in which no two neighbours are alike."""
    return np.random.default_rng(seed).integers(0, 256, (rows, columns, 3) if rgb else (rows, columns), dtype=np.uint8)


def as_rgb(frame):
    return frame if frame.ndim == 3 else np.repeat(frame[..., None], 3, axis=2)


def whole(frame):
    return (0.0, 0.0, float(frame.shape[1]), float(frame.shape[0]))


def evidence(cam, box, shape):
    """The map at every pixel's centre by the definition, one pixel at a time; NaN outside the box."""
    left, top, right, bottom = box
    result = np.full(shape, np.nan)
    rows, columns = cam.shape
    for y in range(shape[0]):
        for x in range(shape[1]):
            if left <= x + 0.5 < right and top <= y + 0.5 < bottom:
                v = np.clip((y + 0.5 - top) / (bottom - top) * rows - 0.5, 0, rows - 1)
                u = np.clip((x + 0.5 - left) / (right - left) * columns - 0.5, 0, columns - 1)
                i, j = int(v), int(u)
                k, m = min(i + 1, rows - 1), min(j + 1, columns - 1)
                above = cam[i, j] + (cam[i, m] - cam[i, j]) * (u - j)
                below = cam[k, j] + (cam[k, m] - cam[k, j]) * (u - j)
                result[y, x] = above + (below - above) * (v - i)
    return result


@st.composite
def boxes(draw):
    left, top = draw(st.floats(-10, 30)), draw(st.floats(-10, 30))
    return left, top, left + draw(st.floats(0.5, 50)), top + draw(st.floats(0.5, 50))


@given(rows=SIDES, columns=SIDES, cam=MAPS, box=boxes(), rgb=st.booleans(), scale=st.floats(0.1, 20))
@settings(max_examples=120, deadline=None)
# A neighbour that is some hundred times beyond the scale still counts in full.
@example(rows=1, columns=2, cam=np.array([[1.0, 1.0], [-400.0, 1.0]], dtype=np.float32), box=(0.0, 0.0, 5.0, 1.0), rgb=False, scale=0.125)
def test_every_pixel_is_the_blend_of_its_own_evidence(rows, columns, cam, box, rgb, scale):
    """A pixel takes the map's bilinear value at its own centre, positive part over the scale, as the weight and place of its colour."""
    frame = speckled(rows, columns, rgb=rgb)
    share = np.clip(np.nan_to_num(evidence(cam.astype(float), box, (rows, columns)), nan=0.0) / scale, 0, 1)
    picture = render(frame, cam, box=box, scale=scale)
    color = overlay.colormaps.colors("inferno").astype(float)[np.rint(share * 255).astype(int)]
    expected = as_rgb(frame) * (1 - 0.6 * share[..., None]) + 0.6 * share[..., None] * color
    # One level of the 256 and rounding to integers.
    assert np.abs(picture - expected).max() < 4


@given(rows=SIDES, columns=SIDES, cam=MAPS, box=boxes(), rgb=st.booleans())
@settings(max_examples=80, deadline=None)
def test_pixels_without_evidence_are_unchanged(rows, columns, cam, box, rgb):
    """Where the map is zero or negative and outside its box, every bit of the frame is as it was."""
    frame = speckled(rows, columns, rgb=rgb)
    untouched = ~(evidence(cam.astype(float), box, (rows, columns)) > 1e-5)
    assert (render(frame, cam, box=box, scale=3.0)[untouched] == as_rgb(frame)[untouched]).all()


@pytest.mark.parametrize("rgb", [False, True])
@pytest.mark.parametrize("value", [0.0, -0.0, -4.0, -1e30])
def test_a_map_without_positive_evidence_is_the_frame(rgb, value):
    """A negative frame gets no red wash."""
    frame = speckled(48, 64, rgb=rgb)
    assert (render(frame, np.full((7, 7), value, dtype=np.float32), box=whole(frame), scale=1.0) == as_rgb(frame)).all()


@given(row=st.integers(0, 6), column=st.integers(0, 4), left=st.floats(0, 20), top=st.floats(0, 20))
@settings(max_examples=40, deadline=None)
def test_one_lit_cell_lights_exactly_its_place(row, column, left, top):
    """A cell is brightest at its centre and reaches to the centres of its neighbours, no farther."""
    frame = np.zeros((120, 120), dtype=np.uint8)
    cam = np.zeros((7, 5), dtype=np.float32)
    cam[row, column] = 1.0
    lit = render(frame, cam, box=(left, top, left + 80, top + 84), scale=1.0).max(axis=2) > 0
    height, width = 84 / 7, 80 / 5
    y, x = np.nonzero(lit)
    centre_y, centre_x = top + (row + 0.5) * height, left + (column + 0.5) * width
    assert lit[int(centre_y), int(centre_x)]
    assert (np.abs(y + 0.5 - centre_y) < height).all()
    assert (np.abs(x + 0.5 - centre_x) < width).all()
    inside = (y.min() + 0.5 >= top) and (x.min() + 0.5 >= left) and (y.max() + 0.5 < top + 84) and (x.max() + 0.5 < left + 80)
    assert inside


@pytest.mark.parametrize("rgb", [False, True])
def test_colour_means_the_same_on_every_frame(rgb):
    """Half the scale is half the colour whatever else the map holds: nothing is stretched to the map's own maximum."""
    frame = np.full((20, 20, 3) if rgb else (20, 20), 90, dtype=np.uint8)
    alone = render(frame, np.full((1, 1), 1.0, dtype=np.float32), box=(0, 0, 10, 20), scale=2.0)
    beside = np.array([[1.0, 1.0, 1.0, 40.0]], dtype=np.float32)
    assert (alone[:, 0] == render(frame, beside, box=whole(frame), scale=2.0)[:, 0]).all()


def test_more_evidence_is_never_darker_on_black_and_never_less_drawn():
    """Colour and opacity rise together with the evidence and stop at full colour."""
    frame = np.zeros((1, 600), dtype=np.uint8)
    ramp = np.linspace(-1, 3, 600, dtype=np.float32)[None, :]
    luma = render(frame, ramp, box=(0, 0, 600, 1), scale=2.0)[0].astype(float) @ [0.299, 0.587, 0.114]
    assert (np.diff(luma) >= -1).all()
    assert luma[0] == 0
    assert luma[-1] > 120
    assert np.ptp(luma[ramp[0] > 2.01]) == 0


@pytest.mark.parametrize("rgb", [False, True])
@pytest.mark.parametrize("value", [0.0, 2.0])
def test_the_picture_owns_its_pixels(rgb, value):
    """A camera that reuses its buffer cannot change a picture that was made, nor the picture the buffer."""
    frame = speckled(30, 40, rgb=rgb)
    before = frame.copy()
    picture = render(frame, np.full((3, 3), value, dtype=np.float32), box=whole(frame), scale=1.0)
    assert not np.shares_memory(picture, frame)
    assert picture.flags.c_contiguous
    assert picture.flags.owndata
    picture[:] = 7
    assert (frame == before).all()


def test_a_grey_frame_and_its_rgb_copy_give_one_picture():
    """The two ways through the code draw the same, also for frames that are views."""
    frame = speckled(90, 70)[::2, ::-1]
    cam = np.random.default_rng(1).normal(0, 2, (7, 7)).astype(np.float32)
    box = (3.2, 1.7, 61.0, 40.5)
    assert (render(frame, cam, box=box, scale=1.5) == render(as_rgb(frame), cam, box=box, scale=1.5)).all()


def test_options_change_colour_and_opacity():
    """Full opacity at full evidence is the end of the chosen colour map."""
    frame = np.full((4, 4), 50, dtype=np.uint8)
    picture = render(
        frame, np.full((1, 1), 9.0, np.float32), box=whole(frame), scale=9.0, options=OverlayOptions(colormap="jet", opacity=1.0)
    )
    assert (picture == overlay.colormaps.colors("jet")[255]).all()


BAD = {
    "NaN in the map": ({"cam": np.array([[np.nan, 1.0]], dtype=np.float32)}, "NaN or infinite"),
    "infinity in the map": ({"cam": np.array([[-np.inf]], dtype=np.float32)}, "NaN or infinite"),
    "integer map": ({"cam": np.ones((2, 2), dtype=np.int32)}, "int32"),
    "map of all classes": ({"cam": np.ones((3, 7, 7), dtype=np.float32)}, r"\(3, 7, 7\)"),
    "empty map": ({"cam": np.ones((0, 7), dtype=np.float32)}, r"\(0, 7\)"),
    "no map": ({"cam": None}, "NoneType"),
    "float frame": ({"frame": np.zeros((4, 4), dtype=np.float32)}, "uint8"),
    "zero scale": ({"scale": 0.0}, "scale"),
    "NaN scale": ({"scale": float("nan")}, "scale"),
    "box without width": ({"box": (3.0, 0.0, 3.0, 4.0)}, "box"),
    "box upside down": ({"box": (0.0, 4.0, 4.0, 0.0)}, "box"),
    "infinite box": ({"box": (0.0, 0.0, float("inf"), 4.0)}, "box"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_drawn_is_refused(change, message):
    """A map or frame that means nothing is refused with what was found, never drawn."""
    good = {"frame": np.zeros((4, 4), dtype=np.uint8), "cam": np.ones((2, 2), dtype=np.float32), "scale": 1.0, "box": (0.0, 0.0, 4.0, 4.0)}
    arguments = good | change
    with pytest.raises(DataError, match=message):
        render(arguments.pop("frame"), arguments.pop("cam"), **arguments)


@pytest.mark.parametrize("opacity", [0.0, 1.2, float("nan")])
def test_an_opacity_that_hides_or_overshoots_is_refused(opacity):
    """Opacity is a weight."""
    with pytest.raises(DataError, match="opacity"):
        OverlayOptions(opacity=opacity)


def test_an_unknown_colour_map_is_refused_before_drawing():
    """The options know which maps there are."""
    with pytest.raises(DataError, match="colour map"):
        OverlayOptions(colormap="rainbow")
