"""Preprocessing: where the tensor comes from, colour, noise reduction, equalization, and what is not a frame."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import DataError
from edgekit.imaging.preprocess import MAX_FRAME_PIXELS, check_frame, crop_box, crop_offset, preprocess
from edgekit.schema.model_io import InputSpec

GREY = InputSpec(color="grey", channels=3, resize=(32, 40), mean=(127.5,) * 3, std=(127.5,) * 3)
RGB = dataclasses.replace(GREY, color="rgb")


@st.composite
def specs(draw):
    """Input specifications with a resize and, mostly, a smaller centre crop."""
    height, width = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    crop = draw(st.none() | st.tuples(st.integers(1, height), st.integers(1, width)))
    return dataclasses.replace(GREY, resize=(height, width), crop=crop)


@given(spec=specs(), rows=st.integers(1, 300), columns=st.integers(1, 300))
@settings(max_examples=150, deadline=None)
def test_the_box_lies_in_the_frame_and_has_the_tensors_share_of_it(spec, rows, columns):
    """The box has the size of the crop in the frame's own pixels, and lies in the middle to within the pixel an odd remainder leaves."""
    left, top, right, bottom = crop_box((rows, columns), spec)
    assert left >= 0
    assert top >= 0
    assert right <= columns + 1e-9
    assert bottom <= rows + 1e-9
    assert right - left == pytest.approx(columns * spec.size[1] / spec.resize[1])
    assert bottom - top == pytest.approx(rows * spec.size[0] / spec.resize[0])
    assert -1e-9 <= (columns - right) - left <= columns / spec.resize[1] + 1e-9
    assert -1e-9 <= (rows - bottom) - top <= rows / spec.resize[0] + 1e-9


@given(spec=specs(), factor=st.integers(1, 4), data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_box_is_where_the_tensor_comes_from(spec, factor, data):
    """A bright patch of the frame arrives at the place of the tensor that the box says, for frames a whole number of times the resize."""
    frame = np.zeros((spec.resize[0] * factor, spec.resize[1] * factor), dtype=np.uint8)
    row, column = data.draw(st.integers(0, spec.size[0] - 1)), data.draw(st.integers(0, spec.size[1] - 1))
    left, top, right, bottom = crop_box(frame.shape, spec)
    y, x = top + (row + 0.5) * (bottom - top) / spec.size[0], left + (column + 0.5) * (right - left) / spec.size[1]
    frame[int(y - factor / 2) : int(y - factor / 2) + factor, int(x - factor / 2) : int(x - factor / 2) + factor] = 255
    tensor = preprocess(frame, spec)[0, ..., 0]
    assert np.unravel_index(tensor.argmax(), tensor.shape) == (row, column)


@given(spec=specs(), rows=st.integers(1, 50), columns=st.integers(1, 50), rgb_frame=st.booleans(), color=st.sampled_from(["grey", "rgb"]))
@settings(max_examples=60, deadline=None)
def test_every_frame_gives_the_tensor_the_graph_takes(spec, rows, columns, rgb_frame, color):
    """Whatever the frame's size and colours, the tensor is contiguous uint8 NHWC of the specified size."""
    spec = dataclasses.replace(spec, color=color)
    frame = np.zeros((rows, columns, 3) if rgb_frame else (rows, columns), dtype=np.uint8)
    tensor = preprocess(frame, spec)
    assert (tensor.shape, tensor.dtype) == ((1, *spec.size, 1 if color == "grey" else 3), np.uint8)
    assert tensor.flags.c_contiguous


def test_an_odd_remainder_is_cut_at_the_end():
    """A crop of 4 out of 7 starts at 1, as in torchvision's rounding down."""
    assert crop_offset(dataclasses.replace(GREY, resize=(7, 8), crop=(4, 4))) == (1, 2)


def test_nothing_is_done_to_a_frame_that_fits():
    """A frame of the right size and colour arrives bit for bit."""
    frame = np.random.default_rng(0).integers(0, 256, (32, 40), dtype=np.uint8)
    assert (preprocess(frame, GREY)[0, ..., 0] == frame).all()


def test_colour_becomes_luma_and_grey_becomes_three_equal_channels():
    """Grey is the luma of ITU-R BT.601; a grey frame for an RGB model has R = G = B."""
    red = np.zeros((32, 40, 3), dtype=np.uint8)
    red[..., 0] = 200
    assert np.unique(preprocess(red, GREY)).tolist() == [round(0.299 * 200)]
    assert np.unique(preprocess(red, RGB)[0].reshape(-1, 3), axis=0).tolist() == [[200, 0, 0]]
    grey = np.full((32, 40), 77, dtype=np.uint8)
    assert np.unique(preprocess(grey, RGB)).tolist() == [77]


def test_shrinking_is_antialiased():
    """A checkerboard of single pixels becomes its mean, not a pattern of which pixels were picked."""
    frame = (np.indices((320, 400)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert np.abs(preprocess(frame, GREY)[0, 2:-2, 2:-2, 0].astype(int) - 127).max() <= 2


def test_noise_reduction_smooths_before_the_resize_and_keeps_the_mean():
    """Speckle loses contrast and no brightness; without a sigma nothing happens."""
    frame = np.random.default_rng(0).integers(0, 256, (32, 40), dtype=np.uint8)
    smoothed = preprocess(frame, dataclasses.replace(GREY, denoise_sigma=1.5))[0, ..., 0]
    assert smoothed.std() < 0.4 * frame.std()
    assert abs(smoothed.mean() - frame.mean()) < 4


def test_equalization_spreads_a_dull_frame_over_all_greys():
    """A frame that uses a narrow range of greys uses the whole range afterwards, in the same order."""
    frame = np.random.default_rng(0).integers(90, 110, (32, 40), dtype=np.uint8)
    equalized = preprocess(frame, dataclasses.replace(GREY, equalize=True))[0, ..., 0]
    assert (equalized.min(), equalized.max()) == (0, 255)
    order = np.argsort(frame.reshape(-1), kind="stable")
    assert (np.diff(equalized.reshape(-1)[order].astype(int)) >= 0).all()


def test_equalization_of_colour_keeps_the_hue():
    """Only the luma is spread: what was redder than grey stays so, and grey stays grey."""
    frame = np.random.default_rng(0).integers(90, 110, (32, 40), dtype=np.uint8)[..., None].repeat(3, axis=2)
    frame[:16, :, 0] += 30
    equalized = preprocess(frame, dataclasses.replace(RGB, equalize=True))[0].astype(int)
    assert (equalized[:16, :, 0] >= equalized[:16, :, 2]).all()
    assert np.abs(equalized[16:, :, 0] - equalized[16:, :, 2]).max() <= 2
    assert equalized[..., 1].max() - equalized[..., 1].min() > 150


def test_interpolation_is_the_one_asked_for():
    """Bicubic overshoots at an edge where bilinear cannot."""
    frame = np.full((16, 20), 50, dtype=np.uint8)
    frame[:, 10:] = 200
    assert preprocess(frame, GREY).max() == 200
    assert preprocess(frame, dataclasses.replace(GREY, interpolation="bicubic")).max() > 200


def test_a_view_is_a_frame_and_the_tensor_does_not_follow_it():
    """A flipped or cut-out view of a buffer works, and the tensor stays as it is when the camera writes the next frame there."""
    buffer = np.random.default_rng(0).integers(0, 256, (64, 80), dtype=np.uint8)
    before = buffer.copy()
    tensor = preprocess(buffer[::-2, ::2], GREY)
    assert (tensor[0, ..., 0] == before[::-2, ::2]).all()
    whole = preprocess(buffer[:32, :40], GREY)
    buffer[:] = 0
    assert (tensor[0, ..., 0] == before[::-2, ::2]).all()
    assert (whole[0, ..., 0] == before[:32, :40]).all()


NO_FRAMES = {
    "list": ([[1, 2]], "not list"),
    "float": (np.zeros((4, 4)), "float64"),
    "NaN": (np.full((4, 4), np.nan, dtype=np.float32), "with NaN or infinite values"),
    "infinity": (np.full((4, 4), np.inf), "with NaN or infinite values"),
    "16 bit": (np.zeros((4, 4), dtype=np.uint16), "uint16"),
    "bool": (np.zeros((4, 4), dtype=bool), "bool"),
    "objects": (np.full((4, 4), None), "object"),
    "RGBA": (np.zeros((4, 4, 4), dtype=np.uint8), r"\(4, 4, 4\)"),
    "channels first": (np.zeros((3, 4, 4), dtype=np.uint8), r"\(3, 4, 4\)"),
    "a batch": (np.zeros((1, 4, 4, 3), dtype=np.uint8), r"\(1, 4, 4, 3\)"),
    "a line": (np.zeros(4, dtype=np.uint8), r"\(4,\)"),
    "no rows": (np.zeros((0, 4), dtype=np.uint8), "empty"),
    "no columns": (np.zeros((4, 0, 3), dtype=np.uint8), "empty"),
    "too large": (np.broadcast_to(np.uint8(0), (1, MAX_FRAME_PIXELS + 1)), "more than"),
}


@pytest.mark.parametrize(("frame", "message"), NO_FRAMES.values(), ids=NO_FRAMES)
@pytest.mark.parametrize("check", [check_frame, lambda frame: preprocess(frame, GREY)], ids=["check", "preprocess"])
def test_what_is_not_a_frame_is_refused(check, frame, message):
    """Each refusal is the data's owner's to mend and names what was found."""
    with pytest.raises(DataError, match=message):
        check(frame)


def test_a_frame_passes_the_check_itself():
    """The check returns the very array, not a copy."""
    frame = np.zeros((1, 1, 3), dtype=np.uint8)
    assert check_frame(frame) is frame
