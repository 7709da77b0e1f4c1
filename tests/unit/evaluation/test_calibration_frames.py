"""Which frames may calibrate, fault by fault."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.catalog.calibration import Calibration, load_calibration
from edgekit.errors import CatalogError, DataError
from edgekit.evaluation.calibration_frames import check_calibration
from edgekit.schema.decode import decode
from edgekit.schema.model_io import OutputSpec

BINARY = OutputSpec(labels=("n", "p"), task="binary", positive="p")
MULTILABEL = OutputSpec(labels=("x", "y"), task="multilabel")
LIMITS = Calibration(name="test", title="", splits=("calib",), samples=40, minimum=8, seed=0)


def frames(count=40, *, flat=0, copies=0, channels=1):
    """Noise; `flat` frames are black and `copies` are the first frame again."""
    tensors = np.random.default_rng(0).integers(0, 256, (count, 8, 8, channels), dtype=np.uint8)
    tensors[count - copies :] = tensors[:1]
    tensors[:flat] = 0
    return tensors


def labels(count=40, positive=20):
    return [("p",) if index < positive else ("n",) for index in range(count)]


@pytest.mark.parametrize("channels", [1, 3])
def test_good_frames_pass(channels):
    """At every limit: a tenth flat, half copies, four of a label."""
    check_calibration(frames(channels=channels), labels(), LIMITS, BINARY)
    check_calibration(frames(flat=1, copies=20), labels(positive=4), LIMITS, BINARY)
    check_calibration(frames(flat=4), labels(), LIMITS, BINARY)


FAULTS = {
    "black": (frames(flat=40), labels(), "40 of 40 calibration frames are black"),
    "some-black": (frames(flat=5), labels(), "5 of 40 calibration frames are black"),
    "nearly-black": (frames() // 128, labels(), "black or of one grey level"),
    "white": (np.full((40, 8, 8, 3), 255, np.uint8), labels(), "of one grey level"),
    "copies": (frames(copies=22), labels(), "only 18 different"),
    "one-sided": (frames(), labels(positive=3), "fewer than 4 frames of a label ('p' 3)"),
    "one-label": (frames(), labels(positive=40), "('n' 0)"),
    "too-few": (frames(7), labels(7, 4), "7 calibration frames, fewer than the 8"),
    "none": (frames(0), [], "0 calibration frames"),
}


@pytest.mark.parametrize(("tensors", "names", "message"), FAULTS.values(), ids=FAULTS)
def test_bad_frames_are_refused(tensors, names, message):
    """The message says what is wrong with how many, the hint what to do."""
    with pytest.raises(DataError) as caught:
        check_calibration(tensors, names, LIMITS, BINARY)
    assert message in str(caught.value)
    assert caught.value.hint


def test_a_colour_of_one_brightness_is_flat():
    """Grey levels count, not the difference between channels."""
    tensors = np.broadcast_to(np.array([10, 200, 90], np.uint8), (40, 8, 8, 3))
    with pytest.raises(DataError, match="one grey level"):
        check_calibration(tensors, labels(), LIMITS, BINARY)


@pytest.mark.parametrize(("present", "good"), [(0, False), (3, False), (4, True), (36, True), (37, False), (40, False)])
def test_multilabel_needs_one_label_on_both_sides(present, good):
    """A rare finding may be absent, as long as another is present and absent."""
    names = [("x",) if index < present else () for index in range(40)]
    if good:
        check_calibration(frames(), names, LIMITS, MULTILABEL)
    else:
        with pytest.raises(DataError, match="one-sided"):
            check_calibration(frames(), names, LIMITS, MULTILABEL)


def test_labels_of_other_frames_are_refused():
    """A count of the wrong frames is worse than none."""
    with pytest.raises(ValueError, match="3 rows of labels for 40 frames"):
        check_calibration(frames(), labels(3), LIMITS, BINARY)


@pytest.mark.parametrize(
    "change",
    [
        {"minimum_per_label": 0},
        {"minimum_per_label": 41},
        {"max_flat": 1.0},
        {"max_flat": -0.1},
        {"splits": ["val"]},
        {"splits": ["calib", "test"]},
    ],
)
def test_impossible_recipes_are_refused(change):
    """A limit that nothing could fail is none, and what proves or chooses may not calibrate."""
    table = {"name": "t", "title": "", "splits": ["calib"], "samples": 40, "minimum": 8, "seed": 0, **change}
    with pytest.raises(CatalogError):
        decode(Calibration, table, where="t.toml", error=CatalogError)


def test_the_recipes_of_the_catalog():
    """Both ask for several frames of each label, and the large one for more."""
    default, large = load_calibration("default"), load_calibration("large")
    assert (default.minimum_per_label, default.max_flat) == (4, 0.1)
    assert large.samples == 1000
    assert large.minimum > default.minimum
    assert large.minimum_per_label > default.minimum_per_label
