"""The input gate on a device: scores by hand, what is refused, and what a refused frame leaves."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from device_bundles import SIDE, frame, write_device_bundle
from fake_engines import FakeEngine
from PIL import Image

from edgekit.bundle.arrays import dump_array
from edgekit.bundle.reader import open_bundle
from edgekit.errors import BundleError, DataError
from edgekit.imaging.quality import BRIGHTNESS_BINS, tensor_figures
from edgekit.runtime.classifier import load
from edgekit.runtime.clip import Clip
from edgekit.runtime.evaluate import evaluate_split
from edgekit.runtime.input_gate import Components, FrozenWatch, InputGate, unit_length
from edgekit.schema.data import Columns
from edgekit.schema.input_gate import InputGateSpec, QualityLimits, Subspace

BRIGHTNESS = "gate/brightness.npy"
QUALITY = QualityLimits(
    least_deviation_levels=5.0, most_black_share=0.5, most_white_share=0.5, most_chroma_levels=12.0, least_side_px=8, aspect=(0.5, 2.0)
)


def brightness_array():
    """A mean of brightness spread evenly, and one component."""
    mean = (np.arange(BRIGHTNESS_BINS) + 1) / BRIGHTNESS_BINS
    direction = np.zeros(BRIGHTNESS_BINS)
    direction[3] = 1 / 0.05
    return np.stack([mean, direction]).astype(np.float32)


def gate(*, limit=1.0, features=None, **changes):
    fields = {
        "quality": QUALITY,
        "brightness": Subspace(member=BRIGHTNESS, noise=0.01, limit=limit),
        "features": {} if features is None else {"openvino": features},
        "frozen_frames": 4,
        "frozen_s": 10.0,
        "frames": 50,
        "groups": 10,
        "quantile": 0.99,
    }
    return InputGateSpec(**{**fields, **changes})


def bundle(path, spec=None, more=None, **changes):
    members = {BRIGHTNESS: dump_array(brightness_array()), **(more or {})}
    return write_device_bundle(path / "x.edgekit", gate=spec or gate(), more=members, **changes)


FLAT = np.full((SIDE, SIDE), 100, dtype=np.uint8)


def test_the_distance_is_mahalanobis():
    """Under the covariance Σ v vᵀ σ² + noise (I − Σ v vᵀ), per value, by numpy's inverse."""
    random = np.random.default_rng(0)
    directions = np.linalg.qr(random.normal(size=(5, 5)))[0][:2]
    deviation, noise, mean = np.array([2.0, 0.5]), 0.3, random.normal(size=5)
    covariance = (directions.T * deviation**2) @ directions + noise * (np.eye(5) - directions.T @ directions)
    vectors = random.normal(size=(7, 5))
    apart = vectors - mean
    expected = np.sqrt(np.einsum("ni,ij,nj->n", apart, np.linalg.inv(covariance), apart) / 5)
    found = Components(mean=mean, directions=directions / deviation[:, None], noise=noise).distance(vectors)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_each_distance_has_its_limit(tmp_path):
    """Features are judged at length 1, by the statistics of the engine that answered, and brightness beside them; a vector of zeros is a vector."""
    assert unit_length(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist() == [[0.6, 0.8], [0.0, 0.0]]
    known = Components(mean=np.array([1.0, 0.0]), directions=np.array([[0.0, 1.0]]), noise=1.0)
    spec = gate(limit=9.0, features=Subspace(member="gate/f.npy", noise=1.0, limit=0.5))
    opened = InputGate(spec, Components.of(brightness_array(), 0.01), {"openvino": known})
    figures = tensor_figures(frame()[None, ..., None])
    assert opened.after("openvino", FakeEngine([0.0, 1.0], None, features=[7.0, 0.0]).raw, figures) == ""
    strange = FakeEngine([0.0, 1.0], None, features=[0.0, 7.0]).raw
    assert "(distance of its features 1.00, limit 0.50)" in opened.after("openvino", strange, figures)
    assert opened.after("onnxruntime", strange, figures) == "", "another engine's statistics are not its own"
    dark = dataclasses.replace(figures, brightness=np.ones(BRIGHTNESS_BINS) * 9)
    assert "distance of its brightness" in opened.after("onnxruntime", strange, dark)


def test_a_known_frame_is_answered(tmp_path):
    """As without a gate, to the bit."""
    (tmp_path / "plain").mkdir()
    expected = load(write_device_bundle(tmp_path / "plain" / "x.edgekit")).predict(frame())
    found = load(bundle(tmp_path)).predict(frame())
    assert found.assessable
    assert (found.label, found.probabilities, found.logits, found.reason) == (
        expected.label,
        expected.probabilities,
        expected.logits,
        expected.reason,
    )


REFUSED = {
    "quality": (gate(), FLAT, r"not assessable: the frame is flat \(standard deviation 0.0 grey levels, limit 5.0\)"),
    "score": (
        gate(limit=0.01),
        frame(),
        r"not assessable: the frame is unlike those .* \(distance of its brightness \d+\.\d\d, limit 0.01\)",
    ),
}


@pytest.mark.parametrize(("spec", "pixels", "says"), REFUSED.values(), ids=REFUSED)
def test_a_refused_frame_has_no_answer(tmp_path, spec, pixels, says):
    """No label, probability, logit or map, and no overlay of any label; the reason names check, figure and limit."""
    found = load(bundle(tmp_path, spec)).predict(pixels)
    assert (found.assessable, found.label, found.probabilities, found.logits, found.cam, found.cam_label) == (
        False,
        None,
        {},
        {},
        None,
        None,
    )
    assert found.cam_for("benign") is None
    for label in (None, "benign"):
        with pytest.raises(DataError, match="there is no map to draw: not assessable"):
            found.overlay(label)
    assert re.fullmatch(says, found.reason)
    assert found.engine == "openvino"
    assert set(found.stages_ms) == {"preprocess", "infer", "cam"}


@pytest.mark.parametrize(("spec", "pixels", "says"), REFUSED.values(), ids=REFUSED)
def test_engineers_may_have_the_answer(tmp_path, spec, pixels, says):
    """With gate=False the frame is judged all the same, and answered."""
    found = load(bundle(tmp_path, spec)).predict(pixels, gate=False)
    assert not found.assessable
    assert found.label in ("benign", "malignant")
    assert found.cam is not None
    assert found.reason.startswith("not assessable")


def test_a_refused_frame_is_not_given_to_the_engine(tmp_path):
    """What is no picture costs no inference."""
    classifier = load(bundle(tmp_path))
    classifier.engine.infer = None
    assert not classifier.predict(FLAT).assessable


def test_a_score_that_is_no_number_refuses(tmp_path):
    """Features that are not finite are not known ones."""
    opened = InputGate.open(open_bundle(bundle(tmp_path)))
    figures = dataclasses.replace(tensor_figures(frame()[None, ..., None]), brightness=np.full(BRIGHTNESS_BINS, np.nan))
    raw = FakeEngine([0.0, 1.0], None).raw
    assert "brightness nan" in opened.after("openvino", raw, figures)


BROKEN = {
    "float64": brightness_array().astype(np.float64),
    "flat": brightness_array().ravel(),
    "other-length": brightness_array()[:, :8],
    "mean-alone": brightness_array()[:1],
    "not-finite": np.where(np.arange(BRIGHTNESS_BINS) == 3, np.nan, brightness_array()).astype(np.float32),
    "no-direction": np.stack([brightness_array()[0], np.zeros(BRIGHTNESS_BINS, dtype=np.float32)]),
}


@pytest.mark.parametrize("array", BROKEN.values(), ids=BROKEN)
def test_statistics_that_are_none_are_refused(tmp_path, array):
    """When the bundle is opened, not at the first frame."""
    path = bundle(tmp_path, more={BRIGHTNESS: dump_array(array)})
    with pytest.raises(BundleError, match=r"the member 'gate/brightness.npy'"):
        load(path)


def test_features_that_the_graph_does_not_give_are_refused(tmp_path):
    """A gate on features needs a graph that has them, as many as it was fitted to."""
    member = "gate/openvino-features.npy"
    spec = gate(features=Subspace(member=member, noise=1.0, limit=1.0))
    path = bundle(tmp_path, spec, more={member: dump_array(np.eye(3, dtype=np.float32)[:2])})
    with pytest.raises(BundleError, match=r"gives features of the shape None, its input gate judges \(1, 3\)"):
        load(path)


def test_a_member_that_no_gate_names_is_refused(tmp_path):
    """As any other member that nothing uses."""
    with pytest.raises(BundleError, match=r"nothing uses the member 'gate/more\.npy'"):
        bundle(tmp_path, more={"gate/more.npy": dump_array(brightness_array())})


def test_a_gate_judges_engines_of_the_bundle(tmp_path):
    """The manifest is refused otherwise."""
    with pytest.raises(ValueError, match="gate judges features of"):
        bundle(tmp_path, dataclasses.replace(gate(), features={"onnxruntime": Subspace(member=BRIGHTNESS, noise=1.0, limit=1.0)}))


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_source_is_frozen_by_frames_or_by_time():
    """After so many that are the same, or after so long over three or more; another picture ends it."""
    watch, picture, other = FrozenWatch(5, 2.0), frame(0)[None], frame(1)[None]
    assert [watch.see(picture.copy(), 0.1 * index) for index in range(4)] == [""] * 4
    assert watch.see(picture, 0.4) == "not assessable: the source is frozen (the same picture for 5 frames, 0.4 s)"
    assert watch.see(other, 0.5) == ""
    assert watch.see(other, 9.5) == "", "two frames are too few for time alone"
    assert "3 frames, 9.1 s" in watch.see(other, 9.6)
    assert watch.see(picture, 9.7) == ""


def test_a_clip_withholds_a_frozen_source(tmp_path):
    """From the frame that makes it frozen, until the picture changes; `reset` begins to count anew, and the classifier itself counts nothing."""
    classifier, clock = load(bundle(tmp_path)), Clock()
    clip = Clip(classifier, clock=clock)
    answers = [clip.predict(frame()) for _ in range(5)]
    assert [answer.assessable for answer in answers] == [True, True, True, False, False]
    assert answers[3].label is None
    assert clip.predict(frame(), gate=False).label is not None
    assert clip.predict(frame(1)).assessable
    assert all(clip.predict(frame(1)).assessable for _ in range(2))
    clip.reset()
    assert all(clip.predict(frame(1)).assessable for _ in range(3))
    assert all(classifier.predict(frame()).assessable for _ in range(6))


def test_two_clips_do_not_count_together(tmp_path):
    """Each source has its own watch."""
    classifier = load(bundle(tmp_path))
    one, two = (Clip(classifier, clock=Clock()) for _ in range(2))
    assert all(clip.predict(frame()).assessable for _ in range(3) for clip in (one, two))


def test_a_refused_frame_ends_the_sequence_of_a_recurrent_classifier(tmp_path):
    """The frame behind it is answered as the first of a clip: the state does not reach over a frame that does not belong."""
    classifier = load(bundle(tmp_path, recurrent=True))
    clip, fresh = classifier.clip(), classifier.clip()
    clip.predict(frame(0))
    assert not clip.predict(FLAT).assessable
    assert clip.predict(frame(1)).logits == fresh.predict(frame(1)).logits


def test_an_evaluation_counts_what_would_be_refused(tmp_path):
    """Its figures are the classifier's own, on all frames; beside them stands how many the gate refuses, and nothing where there is none."""
    rows = ["file,label,split,patient_or_video_id"]
    for index in range(8):
        pixels = np.full((SIDE, SIDE), 30 * index, dtype=np.uint8) if index < 3 else frame(index)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
        rows.append(f"{index}.png,{'benign' if index % 2 else 'malignant'},test,p{index}")
    data = tmp_path / "manifest.csv"
    data.write_text("\n".join(rows) + "\n")
    (tmp_path / "plain").mkdir()
    judged, plain = (
        evaluate_split(load(path), data, split="test", columns=Columns(), on_frame=lambda *_: None)
        for path in (bundle(tmp_path), write_device_bundle(tmp_path / "plain" / "x.edgekit"))
    )
    assert (judged.not_assessable, judged.to_json()["not_assessable"]) == (3, 3)
    assert "not_assessable" not in plain.to_json()
    assert {**judged.to_json(), "not_assessable": None} == {**plain.to_json(), "not_assessable": None}
