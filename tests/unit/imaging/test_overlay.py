"""The overlay: exact geometry, a fixed scale, untouched pixels where there is no evidence, and refusal of maps that mean nothing."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgekit.errors import DataError
from edgekit.imaging import colormaps, composite, contours, overlay, preprocess
from edgekit.imaging.overlay import OverlayOptions, render
from edgekit.schema.model_io import InputSpec

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


def assert_blended(picture, frame, share, colormap, opacity):
    """The picture is the blend at the level of each pixel's own share, or at one of the two on either side, but for the rounding of two products."""
    level = share * 255
    expected = []
    for near in (-2, -1, 0, 1, 2):
        shown = np.clip(np.rint(level) + near, 0, 255)
        weight = opacity * shown[..., None] / 255
        expected.append(as_rgb(frame) * (1 - weight) + weight * overlay.colormaps.colors(colormap).astype(float)[shown.astype(int)])
    expected = np.stack(expected)
    assert (picture >= expected.min(axis=0) - 1.51).all()
    assert (picture <= expected.max(axis=0) + 1.51).all()


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
    assert_blended(render(frame, cam, box=box, scale=scale), frame, share, "inferno", 0.6)


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


@pytest.mark.parametrize("columns", [69, 70])
@pytest.mark.parametrize("colormap", ["inferno", "coolwarm"])
@pytest.mark.parametrize("peak", [0.2, 2.0, 40.0])
def test_a_grey_frame_and_its_rgb_copy_give_one_picture(columns, colormap, peak):
    """The two ways through the code draw the same, for flat maps and steep ones, for odd widths, and for frames that are views."""
    frame = speckled(180, columns)[::2, ::-1]
    cam = (np.random.default_rng(1).normal(0, peak, (7, 7))).astype(np.float32)
    for box in ((3.2, 1.7, 61.0, 80.5), (4.0, 0.0, 60.0, 90.0), whole(frame)):
        for seen in (frame, np.ascontiguousarray(frame)):
            pictures = [
                render(pixels, cam, box=box, scale=1.5, options=OverlayOptions(colormap=colormap)) for pixels in (seen, as_rgb(seen))
            ]
            assert (pictures[0] == pictures[1]).all()


@pytest.mark.parametrize("rgb", [False, True])
@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_the_mixture_is_in_integers(rgb, share):
    """Value f and colour C at weight m are (f·(256 − m) >> 8) + (C·m + 255 >> 8), on every machine."""
    frame = np.resize(np.arange(256, dtype=np.uint8), (256, 6, 3) if rgb else (256, 6))
    picture = render(frame, np.full((2, 2), share, np.float32), box=whole(frame), scale=1.0, options=OverlayOptions(colormap="viridis"))
    level = round(share * 255)
    weight = round(256 * 0.6 * level / 255)
    colour = colormaps.colors("viridis")[level].astype(int)
    assert (picture == (as_rgb(frame).astype(int) * (256 - weight) >> 8) + (colour * weight + 255 >> 8)).all()


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


@given(
    rows=st.integers(1, 60),
    columns=st.integers(1, 60),
    resize=st.tuples(st.integers(8, 40), st.integers(8, 40)),
    part=st.tuples(st.floats(0.2, 1), st.floats(0.2, 1)),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_the_map_of_a_resized_and_cropped_frame_lies_where_its_pixels_came_from(rows, columns, resize, part, seed):
    """Through resize and centre crop back to the frame: the blend at each pixel is that of the place in the tensor it was resampled to."""
    crop = tuple(max(1, int(side * share)) for side, share in zip(resize, part, strict=True))
    spec = InputSpec(color="grey", channels=1, mean=(0.0,), std=(1.0,), resize=resize, crop=crop)
    frame = speckled(rows, columns, seed=seed)
    cam = np.random.default_rng(seed).normal(0, 2, (4, 5)).astype(np.float32)
    # The tensor's own geometry, by its definition: a frame's pixel lies in the resized frame in proportion, the crop cuts whole pixels off both sides.
    share = np.zeros((rows, columns))
    for y in range(rows):
        for x in range(columns):
            v, u = (y + 0.5) * resize[0] / rows - (resize[0] - crop[0]) // 2, (x + 0.5) * resize[1] / columns - (resize[1] - crop[1]) // 2
            if 0 <= v < crop[0] and 0 <= u < crop[1]:
                share[y, x] = evidence(cam.astype(float), (-u + 0.5, -v + 0.5, crop[1] - u + 0.5, crop[0] - v + 0.5), (1, 1))[0, 0]
    picture = render(frame, cam, box=preprocess.crop_box(frame.shape, spec), scale=3.0)
    assert_blended(picture, frame, np.clip(share / 3.0, 0, 1), "inferno", 0.6)


@pytest.mark.parametrize("rgb", [False, True])
@pytest.mark.parametrize("peak", [0.04, 0.3, 1.0, 3.0])
def test_pixels_that_are_looked_up_together_are_off_by_two_levels_at_most(rgb, peak):
    """On a large frame, where neighbours have nearly the same evidence, each pixel is still the blend of its own, and zero is still zero."""
    frame = speckled(900, 70, rgb=rgb)
    cam = (np.random.default_rng(3).normal(0, 1, (3, 4)) * peak).astype(np.float32)
    value = evidence(cam.astype(float), whole(frame), frame.shape[:2])
    picture = render(frame, cam, box=whole(frame), scale=3.0)
    assert_blended(picture, frame, np.clip(value / 3.0, 0, 1), "inferno", 0.6)
    assert (picture[value <= 0] == as_rgb(frame)[value <= 0]).all()


@pytest.mark.parametrize("rgb", [False, True])
def test_bytes_do_not_depend_on_block_sizes_or_threads(rgb, monkeypatch):
    """The same picture comes out whatever is worked on at once, and from eight threads at a time."""
    frame = speckled(211, 173, rgb=rgb)
    # Steep maps, and flat ones whose rows are drawn together.
    cams = [(np.random.default_rng(seed).normal(0, 2, (7, 7)) * (0.1 if seed % 2 else 1)).astype(np.float32) for seed in range(16)]
    usual = [render(frame, cam, box=whole(frame), scale=4.0) for cam in cams]
    for pixels in (1, 500, 7_001, 10_000_000):
        monkeypatch.setattr(composite, "_BLOCK_PIXELS", pixels)
        assert all((render(frame, cam, box=whole(frame), scale=4.0) == before).all() for cam, before in zip(cams, usual, strict=True))
    monkeypatch.undo()
    with ThreadPoolExecutor(8) as pool:
        again = list(pool.map(lambda cam: render(frame, cam, box=whole(frame), scale=4.0), cams * 4))
    assert all((after == before).all() for after, before in zip(again, usual * 4, strict=True))


@pytest.mark.parametrize("rgb", [False, True])
@pytest.mark.parametrize("columns", [1, 2, 3, 640, 641])
def test_full_weight_is_the_colour_and_every_value_mixes_within_its_ends(rgb, columns):
    """At weight 256 a pixel is the colour; on the way it never leaves the range between the frame's value and the colour by more than one."""
    frame = np.resize(np.arange(256, dtype=np.uint8), (256, columns, 3) if rgb else (256, columns))
    for share in (0.01, 0.3, 0.77, 1.0):
        picture = render(
            frame, np.full((2, 2), share, np.float32), box=whole(frame), scale=1.0, options=OverlayOptions(opacity=1.0)
        ).astype(int)
        color = colormaps.colors("inferno")[round(share * 255)].astype(int)
        assert (picture >= np.minimum(as_rgb(frame), color) - 1).all()
        assert (picture <= np.maximum(as_rgb(frame), color) + 1).all()
    assert (picture == color).all()


@given(rows=SIDES, columns=SIDES, cam=MAPS, box=boxes(), rgb=st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_diverging_map_draws_both_signs(rows, columns, cam, box, rgb):
    """Positive evidence is drawn in one half of the colours, negative in the other, and zero is the frame."""
    frame = speckled(rows, columns, rgb=rgb)
    options = OverlayOptions(colormap="coolwarm")
    picture = render(frame, cam, box=box, scale=9.0, options=options)
    value = np.nan_to_num(evidence(cam.astype(float), box, (rows, columns)))
    unsure = np.abs(value) < 1e-4
    for sign, part in ((1, value > 0), (-1, value < 0)):
        alone = render(frame, sign * np.abs(cam) * (np.sign(cam) == sign), box=box, scale=9.0, options=options)
        only = part & ~unsure & (np.sign(cam).min() == np.sign(cam).max())
        assert (picture[only] == alone[only]).all()
    swapped = render(frame, -cam, box=box, scale=9.0, options=options)
    strong = np.abs(value) > 2
    if strong.any() and (as_rgb(frame)[strong].max() < 200):
        assert (picture[strong] != swapped[strong]).any()
    assert (picture[value == 0] == as_rgb(frame)[value == 0]).all()


def test_a_diverging_map_is_blue_below_and_red_above():
    """The sign can be read off the colour."""
    frame = np.full((8, 80), 90, dtype=np.uint8)
    picture = render(frame, np.array([[-3.0, 3.0]], np.float32), box=whole(frame), scale=3.0, options=OverlayOptions(colormap="coolwarm"))
    assert picture[0, 0, 2] > picture[0, 0, 0] + 40
    assert picture[0, -1, 0] > picture[0, -1, 2] + 40


@given(rows=SIDES, columns=SIDES, cam=MAPS, box=boxes(), rgb=st.booleans(), width=st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_contours_are_the_inner_borders_of_what_is_above_and_nothing_else(rows, columns, cam, box, rgb, width):
    """A pixel is on a line if it is at or above the value and another inside the map, at most `width` steps away, is not; every other is the frame."""
    frame = speckled(rows, columns, rgb=rgb)
    picture = render(frame, cam, box=box, scale=8.0, options=OverlayOptions(contours=True, line_px=width))
    value = evidence(cam.astype(float), box, (rows, columns))
    line = np.full((rows, columns), np.nan)
    for share in contours.SHARES:
        edge = 8.0 * share
        # Where rounding could decide, the test does not.
        assume(not (np.abs(value - edge) < 1e-4).any())
        for y, x in np.argwhere(value >= edge):
            near = [
                value[v, u]
                for v in range(max(0, y - width), min(rows, y + width + 1))
                for u in range(max(0, x - width), min(columns, x + width + 1))
                if abs(v - y) + abs(u - x) <= width
            ]
            if any(other < edge for other in near):
                line[y, x] = share
    off = np.isnan(line)
    assert (picture[off] == as_rgb(frame)[off]).all()
    for share in contours.SHARES:
        assert (picture[line == share] == colormaps.colors("inferno")[round((0.4 + 0.6 * share) * 255)]).all()


def test_contours_of_both_signs_and_of_none():
    """A diverging map has lines below zero too; a map without evidence has none, and a map above every value has no border either."""
    frame = speckled(40, 60)
    ramp = np.linspace(-4, 4, 60, dtype=np.float32)[None, :]
    signed, plain = (
        (render(frame, ramp, box=whole(frame), scale=4.0, options=OverlayOptions(colormap=name, contours=True)) != as_rgb(frame)).any(
            axis=2
        )[0]
        for name in ("coolwarm", "viridis")
    )
    assert signed[:30].sum() == signed[30:].sum() > 0
    assert plain[:30].sum() == 0 < plain[30:].sum()
    for value in (-1.0, 0.0, 9.0):
        flat = np.full((3, 3), value, dtype=np.float32)
        assert (render(frame, flat, box=whole(frame), scale=4.0, options=OverlayOptions(contours=True)) == as_rgb(frame)).all()


@pytest.mark.parametrize(("shape", "width"), [((16, 16), 1), ((480, 640), 2), ((2500, 2048), 6)])
def test_contours_are_thin_on_every_frame(shape, width):
    """A line grows with the frame, so that it can be seen on one that is shown smaller, and stays thin."""
    assert contours.width_px(shape) == width


def test_a_contour_without_width_is_refused():
    """A line has at least one pixel."""
    with pytest.raises(DataError, match="at least 1 pixel"):
        OverlayOptions(contours=True, line_px=0)
