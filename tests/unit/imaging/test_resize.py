"""Bit for bit what Pillow makes of a frame, whatever is left out on the way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgekit.imaging.resize import Resize, resize

FILTERS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
SIDES = st.integers(1, 150)


def by_pillow(frame, to):
    """Rows first, then columns, each by Pillow on the whole picture."""
    rows, columns = to.size
    picture = Image.fromarray(frame).resize((columns, frame.shape[0]), to.resample).resize((columns, rows), to.resample)
    return np.asarray(picture)[to.top : to.top + to.rows, to.left : to.left + to.columns]


@st.composite
def cases(draw):
    """A noisy frame of any shape, or one of extremes only, and any centre crop of any resize."""
    shape = (draw(SIDES), draw(SIDES), *draw(st.sampled_from([(), (3,)])))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    frame = generator.choice(draw(st.sampled_from([np.arange(256), np.array([0, 255])])), size=shape).astype(np.uint8)
    size = (draw(SIDES), draw(SIDES))
    kept = (draw(st.integers(1, size[0])), draw(st.integers(1, size[1])))
    top, left = ((whole - part) // 2 for whole, part in zip(size, kept, strict=True))
    return frame, Resize(size=size, resample=draw(st.sampled_from(FILTERS)), top=top, left=left, rows=kept[0], columns=kept[1])


@settings(max_examples=300, deadline=None)
@given(cases())
def test_every_byte_is_pillows(case):
    """Four rows and four columns at once, and without what the crop leaves out, give the bytes of the whole."""
    frame, to = case
    np.testing.assert_array_equal(resize(frame, to), by_pillow(frame, to))


@pytest.mark.parametrize("shape", [(480, 640), (768, 1024), (1200, 1600)])
@pytest.mark.parametrize("resample", FILTERS)
def test_one_call_of_pillow_gives_the_same_where_it_goes_along_rows_first(shape, resample):
    """Frames that are wider than high, as a scanner gives them, are what `Image.resize` makes of them in Pillow 12 and 13."""
    frame = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    to = Resize(size=(40, 40), resample=resample, top=4, left=4, rows=32, columns=32)
    picture = Image.fromarray(frame).resize((40, 40), resample).crop((4, 4, 36, 36))
    np.testing.assert_array_equal(resize(frame, to), np.asarray(picture))


def test_a_frame_of_the_right_size_is_not_touched():
    """Where nothing has to be computed, what is kept is a view of the frame."""
    frame = np.arange(64, dtype=np.uint8).reshape(8, 8)
    found = resize(frame, Resize(size=(8, 8), resample=FILTERS[0], top=2, left=2, rows=4, columns=4))
    assert found.base is not None
    np.testing.assert_array_equal(found, frame[2:6, 2:6])


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, bool])
def test_a_frame_of_another_type_is_refused(dtype):
    """Its bytes would be read as grey levels."""
    with pytest.raises(TypeError, match="uint8"):
        resize(np.zeros((8, 8), dtype=dtype), Resize(size=(4, 4), resample=FILTERS[0], top=0, left=0, rows=4, columns=4))


@pytest.mark.parametrize(
    "view", [lambda frame: frame[::-1], lambda frame: frame[:, ::2], lambda frame: frame.T], ids=["turned", "strided", "transposed"]
)
def test_where_a_frame_lies_in_memory_changes_nothing(view):
    """A view of another frame, which nobody may write to, gives the bytes of its copy."""
    frame = view(np.random.default_rng(0).integers(0, 256, (90, 122), dtype=np.uint8))
    frame.flags.writeable = False
    to = Resize(size=(40, 40), resample=FILTERS[0], top=4, left=4, rows=32, columns=32)
    np.testing.assert_array_equal(resize(frame, to), by_pillow(frame.copy(), to))
