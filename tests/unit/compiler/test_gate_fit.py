"""How an input gate is fitted: components by hand, limits of quality, and when there is no gate."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekit.catalog.gate import GateSpec
from edgekit.compiler.gate_fit import (
    BRIGHTNESS_COMPONENTS,
    FEATURE_COMPONENTS,
    brightness_of,
    components,
    figures_of,
    fit,
    quality_limits,
    why_no_gate,
)
from edgekit.compiler.input_gate import BRIGHTNESS_MEMBER, gate_members
from edgekit.compiler.progress import Silent
from edgekit.compiler.stages.frames import PreparedSplit
from edgekit.compiler.stages.gate_frames import DRAWN_FRAMES, DrawnStage, named_samples
from edgekit.compiler.stages.measure import Measured
from edgekit.errors import DataError
from edgekit.evaluation.dataset import Sample
from edgekit.evaluation.ood import limit_of
from edgekit.runtime.input_gate import unit_length
from edgekit.schema.data import Columns
from edgekit.schema.model_io import InputSpec

SPEC = InputSpec(color="grey", channels=1, resize=(16, 16), mean=(127.5,), std=(127.5,))


def split(count, name, *, groups=None, seed=0):
    random = np.random.default_rng(seed)
    level = random.uniform(80, 120, (count, 1, 1, 1))
    tensors = np.clip(level + random.normal(0, 25, (count, 16, 16, 1)), 1, 254).astype(np.uint8)
    samples = tuple(
        Sample(
            path=Path(f"{index}.png"),
            file=f"{index}.png",
            labels=("a",),
            split=name,
            group=f"p{index % (groups or count)}",
            mask=None,
            extra={},
            line=index + 2,
        )
        for index in range(count)
    )
    figures = np.tile(np.array([48, 64, 0], dtype=np.float32), (count, 1))
    return PreparedSplit(tensors=tensors, truth=np.zeros((count, 1), dtype=bool), samples=samples, sha256=name, figures=figures)


def features(count, seed=1):
    """They vary along eight of 40 directions."""
    random = np.random.default_rng(seed)
    basis = np.random.default_rng(99).normal(size=(8, 40))
    return (5 + random.normal(size=(count, 8)) @ basis + 0.1 * random.normal(size=(count, 40))).astype(np.float32)


def fitted(spec=None, *, given=True):
    calibration, val = split(200, "calib"), split(80, "val", seed=2)
    measured = Measured(logits=np.zeros((80, 2), dtype=np.float32), maps=None, features=features(80, 3) if given else None)
    return fit(spec or GateSpec(), (calibration, features(200) if given else None), (val, measured), grey=True), val, measured


def test_components_are_the_covariance_that_is_most_likely():
    """Directions and variances are the covariance's largest, noise is the mean of the others (Tipping and Bishop 1999)."""
    vectors = features(400).astype(np.float64)
    found = components(vectors, 8)
    values, directions = np.linalg.eigh(np.cov(vectors.T))
    assert found.noise == pytest.approx(values[:-8].mean(), rel=1e-5)
    assert 1 / (found.directions**2).sum(axis=1) == pytest.approx(values[::-1][:8], rel=1e-5)
    assert np.abs(found.directions[0] @ directions[:, -1]) == pytest.approx(1 / np.sqrt(values[-1]), rel=1e-5)
    distances = found.distance(vectors)
    assert np.sqrt((distances**2).mean()) == pytest.approx(1.0, rel=0.01), "a known vector has about 1"


def test_few_frames_make_few_components():
    """Four frames or more for each, half of the values at most, and one at least."""
    assert len(components(features(400).astype(np.float64), 64).directions) == 20
    assert len(components(features(33).astype(np.float64), 64).directions) == 8
    constant = np.ones((40, 6))
    found = components(constant, 4)
    assert len(found.directions) == 1
    assert np.isfinite(found.distance(constant + 1)).all()


def test_a_value_that_never_moved_may_move_a_little():
    """Noise has a floor, so that a constant is not an infinite distance away."""
    vectors = np.concatenate([features(200).astype(np.float64)[:, :4], np.zeros((200, 40))], axis=1)
    moved = vectors[:1] + np.concatenate([np.zeros(4), np.full(40, 1e-3)])
    assert components(vectors, 8).distance(moved)[0] < 3


def test_limits_are_set_on_val_alone():
    """Each distance has the limit that `limit_of` gives for val, and its half of the frames that may be refused; known frames pass."""
    gate, val, measured = fitted()
    figures = figures_of(val.tensors)
    apart = gate.features.components.distance(unit_length(measured.features))
    assert gate.features.limit == limit_of(apart, val.groups, 0.995)
    assert gate.brightness.limit == limit_of(gate.brightness.components.distance(brightness_of(figures)), val.groups, 0.995)
    assert (gate.scores(measured.features, figures) <= 1).all()
    assert (gate.frames, gate.groups) == (80, 80)
    assert len(gate.features.components.directions) == 20 <= FEATURE_COMPONENTS
    assert len(gate.brightness.components.directions) <= BRIGHTNESS_COMPONENTS
    strange = np.random.default_rng(0).normal(size=(50, 40)).astype(np.float32)
    assert gate.scores(strange, figures_of(split(50, "new", seed=9).tensors)).min() > 1


def test_brightness_alone_makes_a_gate():
    """Where the graph gives no features."""
    gate, val, _ = fitted(given=False)
    assert gate.features is None
    bright = (split(20, "bright").tensors // 4 + 190).astype(np.uint8)
    assert gate.brightness.limit == limit_of(gate.brightness.components.distance(brightness_of(figures_of(val.tensors))), val.groups, 0.99)
    assert (gate.scores(None, figures_of(val.tensors)) <= 1).all()
    assert (gate.scores(None, figures_of(bright)) > 1).all()


def test_limits_of_quality_have_a_margin():
    """Half of the contrast, half of what is left of black and white, one and a half of the shape, half of the side; chroma for grey classifiers alone."""
    tensors = np.zeros((2, 10, 10, 1), dtype=np.uint8)
    tensors[0, :4] = 200
    tensors[1, :6] = 255
    figures = figures_of(tensors)
    frames = np.array([[100, 200, 2], [300, 200, 4]], dtype=np.float32)
    found = quality_limits(figures, frames, grey=True)
    assert found.most_black_share == pytest.approx(0.8)
    assert found.most_white_share == pytest.approx(0.8)
    assert found.least_deviation_levels == pytest.approx(min(tensors[0].std(), tensors[1].std()) / 2)
    assert found.most_chroma_levels == pytest.approx(14)
    assert found.least_side_px == 50
    assert found.aspect == pytest.approx((0.5 / 1.5, 1.5 * 1.5))
    assert quality_limits(figures, frames, grey=False).most_chroma_levels is None


def test_too_few_frames_make_no_gate():
    """Frames to fit to, frames and patients to set a limit on, and the recipe's word."""
    enough, val = split(32, "calib"), split(20, "val")
    assert why_no_gate(GateSpec(), enough, val) == ""
    assert why_no_gate(GateSpec(enabled=False), enough, val) == "the recipe asks for none"
    assert why_no_gate(GateSpec(), split(31, "calib"), val) == "31 calibration frames are too few to fit one, which takes 32"
    assert why_no_gate(GateSpec(), enough, split(19, "val")) == "19 frames of val are too few to fit one, which takes 20"
    assert (
        why_no_gate(GateSpec(), enough, split(40, "val", groups=4)) == "4 patients or videos in val are too few to fit one, which takes 5"
    )


def test_what_travels_in_the_bundle():
    """Statistics of each engine as a member of its own, brightness once, the recipe's words on a frozen source; all below half a megabyte."""
    gate, _, _ = fitted()
    spec, members = gate_members(
        {"openvino": gate, "onnxruntime": dataclasses.replace(gate, features=dataclasses.replace(gate.features, limit=9.0))},
        GateSpec(frozen_frames=7, frozen_s=3.0),
    )
    assert set(members) == spec.members == {BRIGHTNESS_MEMBER, "gate/openvino-features.npy", "gate/onnxruntime-features.npy"}
    assert {name: found.limit for name, found in spec.features.items()} == {"openvino": gate.features.limit, "onnxruntime": 9.0}
    assert spec.brightness.limit == gate.brightness.limit
    assert (spec.frozen_frames, spec.frozen_s, spec.frames, spec.groups) == (7, 3.0, 80, 80)
    assert max(map(len, members.values())) < 500_000


def test_unit_length_is_what_is_fitted():
    """Brighter frames of the same pattern have the same features, as far as the gate is concerned."""
    gate, val, measured = fitted()
    figures = figures_of(val.tensors)
    np.testing.assert_allclose(gate.scores(3 * measured.features, figures), gate.scores(measured.features, figures), rtol=1e-6)
    assert np.linalg.norm(unit_length(measured.features), axis=1) == pytest.approx(1)


def test_drawn_frames_are_preprocessed(tmp_path):
    """As many as are promised, of the classifier's size, with the figures of the frames before."""
    stage = DrawnStage(kind="screenshot", input=SPEC)
    stage.apply(tmp_path, Silent())
    found = stage.ensures(tmp_path)
    assert found.tensors.shape == (DRAWN_FRAMES, 16, 16, 1)
    assert found.figures.shape == (DRAWN_FRAMES, 3)
    assert (found.figures[:, :2] == (480, 640)).all()


def test_a_set_of_foreign_frames_needs_no_labels(tmp_path):
    """A column of files is enough; a group is read where there is one, and at most so many are drawn, the same ones each time."""
    for index in range(6):
        Image.new("L", (4, 4)).save(tmp_path / f"{index}.png")
    plain, grouped = tmp_path / "plain.csv", tmp_path / "grouped.csv"
    plain.write_text("file\n" + "".join(f"{index}.png\n" for index in range(6)))
    grouped.write_text("file,patient_or_video_id,label\n" + "".join(f"{index}.png,p{index % 2},whatever\n" for index in range(6)))
    found = named_samples(plain, Columns(), count=4)
    assert len(found) == 4
    assert [sample.file for sample in found] == [sample.file for sample in named_samples(plain, Columns(), count=4)]
    assert {sample.group for sample in found} == {sample.file for sample in found}
    assert {sample.group for sample in named_samples(grouped, Columns(), count=99)} == {"p0", "p1"}


WRONG = {
    "no-column": ("name\na.png\n", "the column 'file' is missing"),
    "no-rows": ("file\n", "it has no rows"),
    "no-file": ("file\nthere-is-none.png\n", "1 frame files are not there"),
    "not-text": (b"\xff\xfe\x00", "cannot read the set of foreign frames"),
}


@pytest.mark.parametrize(("content", "says"), WRONG.values(), ids=WRONG)
def test_a_set_that_cannot_be_read_is_refused(tmp_path, content, says):
    """With the file's name and what is wrong."""
    path = tmp_path / "set.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=says):
        named_samples(path, Columns(), count=5)
