"""Input and output specification, columns and gates: what a type cannot say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import CatalogError
from edgekit.schema.accept import AcceptSpec
from edgekit.schema.data import Columns
from edgekit.schema.decode import decode, encode
from edgekit.schema.model_io import MAX_SIDE_PX, InputSpec, OutputSpec

INPUT = {"color": "grey", "channels": 3, "resize": [248, 248], "mean": [127.5] * 3, "std": [127.5] * 3}
LABELS = ["benign", "malignant", "normal"]


def read(kind, table):
    return decode(kind, table, where="recipe.toml", error=CatalogError)


def test_a_crop_is_what_the_graph_takes():
    """Without a crop it is the whole resized frame."""
    assert read(InputSpec, INPUT).size == (248, 248)
    assert read(InputSpec, {**INPUT, "crop": [224, 200]}).size == (224, 200)


@pytest.mark.parametrize(("color", "channels", "expected"), [("grey", 1, 1), ("grey", 3, 1), ("rgb", 3, 3)])
def test_a_grey_frame_has_one_channel_whatever_the_model_takes(color, channels, expected):
    """Repetition happens in the graph."""
    values = [0.5] * channels
    assert read(InputSpec, {**INPUT, "color": color, "channels": channels, "mean": values, "std": values}).frame_channels == expected


BAD_INPUTS = {
    "two-channels": ({"channels": 2}, "channels must be 1 or 3, not 2"),
    "rgb-into-one-channel": ({"color": "rgb", "channels": 1, "mean": [0.0], "std": [1.0]}, "an rgb frame needs channels = 3"),
    "mean-too-short": ({"mean": [0.0]}, "mean needs 3 values"),
    "std-too-long": ({"std": [1.0] * 4}, "std needs 3 values"),
    "std-of-zero": ({"std": [1.0, 0.0, 1.0]}, "std must be between"),
    "negative-std": ({"std": [1.0, -1.0, 1.0]}, "std must be between"),
    "std-that-float32-loses": ({"std": [1e-300] * 3}, "std must be between"),
    "mean-that-float32-loses": ({"mean": [1e300] * 3}, "mean must be between"),
    "no-pixels": ({"resize": [0, 248]}, "resize must be between 1 and"),
    "negative-crop": ({"crop": [-1, 224]}, "crop must be between 1 and"),
    "too-many-pixels": ({"resize": [MAX_SIDE_PX + 1, 8]}, "resize must be between 1 and"),
    "crop-higher-than-the-frame": ({"crop": [249, 224]}, "larger than resize"),
    "crop-wider-than-the-frame": ({"crop": [224, 249]}, "larger than resize"),
    "negative-denoising": ({"denoise_sigma": -0.1}, "denoise_sigma must be between"),
    "denoising-everything-away": ({"denoise_sigma": 51}, "denoise_sigma must be between"),
    "unknown-filter": ({"interpolation": "nearest"}, "interpolation: str 'nearest' is not known here"),
    "unknown-colour": ({"color": "gray"}, "color: str 'gray' is not known here"),
}


@pytest.mark.parametrize(("change", "message"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_an_input_that_cannot_be_is_refused(change, message):
    """Each limit holds by itself."""
    with pytest.raises(CatalogError, match=message):
        read(InputSpec, {**INPUT, **change})


BAD_OUTPUTS = {
    "repeated-label": ({"labels": ["a", "a"], "task": "multiclass"}, "labels are repeated"),
    "empty-label": ({"labels": ["a", ""], "task": "multiclass"}, "a label is empty"),
    "spaced-label": ({"labels": ["a", " b"], "task": "multiclass"}, "spaces around it"),
    "control-character": ({"labels": ["a", "b\x1b[2Jc"], "task": "multiclass"}, "cannot be printed"),
    "text-that-runs-backwards": ({"labels": ["a", "b\u202ec"], "task": "multiclass"}, "cannot be printed"),
    "essay": ({"labels": ["a", "b" * 201], "task": "multiclass"}, "longer than 200 characters"),
    "one-class": ({"labels": ["a"], "task": "multiclass"}, "needs more labels"),
    "no-label": ({"labels": [], "task": "multilabel"}, "needs more labels"),
    "binary-of-three": ({"labels": LABELS, "task": "binary", "positive": "normal"}, "two labels"),
    "binary-without-positive": ({"labels": ["n", "p"], "task": "binary"}, "needs positive"),
    "multilabel-with-positive": ({"labels": ["n", "p"], "task": "multilabel", "positive": "p"}, "leave positive out"),
    "foreign-positive": ({"labels": LABELS, "task": "multiclass", "positive": "cyst"}, "is not one of the labels"),
}


@pytest.mark.parametrize(("table", "message"), BAD_OUTPUTS.values(), ids=BAD_OUTPUTS)
def test_an_output_that_means_nothing_is_refused(table, message):
    """Labels, task and positive must fit together."""
    with pytest.raises(CatalogError, match=message):
        read(OutputSpec, table)


LOGITS = {
    "multiclass": ({"labels": LABELS, "task": "multiclass"}, {3}),
    "binary": ({"labels": ["n", "p"], "task": "binary", "positive": "p"}, {1, 2}),
    "binary-with-the-positive-first": ({"labels": ["p", "n"], "task": "binary", "positive": "p"}, {2}),
    "multilabel": ({"labels": ["n", "p"], "task": "multilabel"}, {2}),
}


@pytest.mark.parametrize(("table", "accepted"), LOGITS.values(), ids=LOGITS)
def test_logits_are_counted_against_the_labels(table, accepted):
    """One logit stands for two labels only in a binary model, and is the log-odds of the second."""
    output = read(OutputSpec, table)
    assert {count for count in range(6) if output.accepts_logits(count)} == accepted


def test_columns_must_differ():
    """One column cannot be label and group at once; an optional one takes part."""
    with pytest.raises(CatalogError, match="cannot serve twice"):
        read(Columns, {"label": "file"})
    with pytest.raises(CatalogError, match="cannot serve twice"):
        read(Columns, {"mask": "label"})
    with pytest.raises(CatalogError, match="is empty"):
        read(Columns, {"group": " "})
    assert read(Columns, {"mask": "lesion"}).named() == ("file", "label", "split", "patient_or_video_id", "lesion")


@pytest.mark.parametrize(
    "change", [{"auc_margin": 0.0}, {"auc_margin": 0.6}, {"max_flips": -0.1}, {"max_flips": 1.1}, {"max_harmful_flips": 2}]
)
def test_a_gate_that_lets_all_or_nothing_through_is_refused(change):
    """A share of frames is between 0 and 1; a margin of 0 could never be shown."""
    with pytest.raises(CatalogError, match=next(iter(change))):
        read(AcceptSpec, change)


@st.composite
def input_specs(draw):
    color, channels = draw(st.sampled_from([("grey", 1), ("grey", 3), ("rgb", 3)]))
    height, width = draw(st.tuples(*[st.integers(1, MAX_SIDE_PX)] * 2))
    crop = st.tuples(st.integers(1, height), st.integers(1, width))
    return InputSpec(
        color=color,
        channels=channels,
        resize=(height, width),
        crop=draw(st.none() | crop),
        interpolation=draw(st.sampled_from(["bilinear", "bicubic"])),
        denoise_sigma=draw(st.floats(0, 50)),
        equalize=draw(st.booleans()),
        mean=draw(st.tuples(*[st.floats(-1e6, 1e6)] * channels)),
        std=draw(st.tuples(*[st.floats(1e-3, 1e6)] * channels)),
    )


@st.composite
def output_specs(draw):
    task = draw(st.sampled_from(["multiclass", "binary", "multilabel"]))
    name = st.text(min_size=1).filter(lambda text: text == text.strip() and text.isprintable())
    least, most = {"multiclass": (2, 6), "binary": (2, 2), "multilabel": (1, 6)}[task]
    labels = tuple(draw(st.lists(name, min_size=least, max_size=most, unique=True)))
    positive = st.sampled_from(labels)
    return OutputSpec(
        labels=labels, task=task, positive=draw({"binary": positive, "multiclass": st.none() | positive, "multilabel": st.none()}[task])
    )


@given(input_specs() | output_specs())
def test_a_specification_survives_the_manifest(spec):
    """What travels to the device comes out as it went in."""
    assert read(type(spec), encode(spec)) == spec
