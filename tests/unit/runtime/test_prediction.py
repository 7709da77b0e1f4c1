"""`predict`: what a prediction promises, with a graph whose answers numpy can work out."""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from device_bundles import BIASES, MANY, THREE, TWO, frame, logits_of, maps_of, write_device_bundle
from fake_engines import FakeEngine

from edgekit.bundle.manifest import Decision
from edgekit.errors import DataError
from edgekit.imaging import annotate
from edgekit.runtime.classifier import load
from edgekit.runtime.engines import choice
from edgekit.runtime.prediction import Drawing

# Grey levels for which each of the three labels wins: logits are 1·g + 0.375, −2·g + 1.25, 3·g − 0.5 of the mean grey g.
WINNERS = {"b": 0, "c": 255}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.edgekit"


def test_a_prediction_has_the_types_of_the_contract(path):
    """Label, probabilities, logits, map and overlay have the contract's types, shapes and values."""
    pixels = frame(1)
    prediction = load(write_device_bundle(path, output=THREE)).predict(pixels)
    expected = logits_of(pixels, 3)
    assert list(prediction.logits) == list(prediction.probabilities) == ["a", "b", "c"]
    assert all(type(value) is float for value in (*prediction.logits.values(), *prediction.probabilities.values()))
    np.testing.assert_allclose(list(prediction.logits.values()), expected, atol=1e-5)
    softmax = np.exp(expected) / np.exp(expected).sum()
    np.testing.assert_allclose(list(prediction.probabilities.values()), softmax, atol=1e-6)
    assert prediction.label == "abc"[expected.argmax()]
    assert (prediction.accepted, prediction.assessable, prediction.reason) == (True, True, "")
    assert list(prediction.stages_ms) == ["preprocess", "infer", "cam"]
    assert prediction.latency_ms == pytest.approx(sum(prediction.stages_ms.values()))
    assert (prediction.cam.dtype, prediction.cam.shape) == (np.float32, (4, 4))
    picture = prediction.overlay()
    assert (picture.dtype, picture.shape) == (np.uint8, (16, 16, 3))


@pytest.mark.parametrize("label", WINNERS)
def test_the_label_is_the_most_probable(path, label):
    """The label is the argmax, and the map is that label's."""
    pixels = np.full((16, 16), WINNERS[label], dtype=np.uint8)
    prediction = load(write_device_bundle(path, output=THREE)).predict(pixels)
    assert prediction.label == prediction.cam_label == label
    assert max(prediction.probabilities, key=prediction.probabilities.get) == label
    np.testing.assert_allclose(prediction.cam, maps_of(pixels, 3)["abc".index(label)], atol=1e-5)


@pytest.mark.parametrize("output", [THREE, TWO, MANY], ids=["multiclass", "binary", "multilabel"])
def test_map_and_logit_cannot_disagree(path, output):
    """For every label, the mean of its map plus its bias is its logit."""
    prediction = load(write_device_bundle(path, output=output)).predict(frame(2))
    for label, bias in zip(output.labels, BIASES, strict=False):
        assert prediction.cam_for(label).mean() + bias == pytest.approx(prediction.logits[label], abs=1e-4)


def test_binary_with_one_logit(path):
    """One logit z is two labels with −z and z, a sigmoid, and two maps of opposite sign."""
    pixels = frame(3)
    prediction = load(write_device_bundle(path, output=TWO, outputs=1)).predict(pixels)
    z = logits_of(pixels, 1)[0]
    assert prediction.logits == pytest.approx({"benign": -z, "malignant": z}, abs=1e-5)
    assert prediction.probabilities == pytest.approx({"benign": 1 / (1 + np.exp(z)), "malignant": 1 / (1 + np.exp(-z))}, abs=1e-6)
    assert sum(prediction.probabilities.values()) == pytest.approx(1)
    assert prediction.label == "malignant"
    np.testing.assert_allclose(prediction.cam_for("malignant"), maps_of(pixels, 1)[0], atol=1e-5)
    np.testing.assert_array_equal(prediction.cam_for("benign"), -prediction.cam_for("malignant"))


def test_binary_with_two_logits(path):
    """Two logits are a softmax; each label has a map of its own."""
    pixels = frame(3)
    prediction = load(write_device_bundle(path)).predict(pixels)
    first, second = logits_of(pixels, 2)
    assert prediction.probabilities["malignant"] == pytest.approx(1 / (1 + np.exp(first - second)), abs=1e-6)
    assert not np.allclose(prediction.cam_for("benign"), -prediction.cam_for("malignant"))


@pytest.mark.parametrize(
    ("thresholds", "expected"),
    [
        ({}, ("cyst", "calcification")),
        ({"cyst": 0.99}, ("calcification",)),
        ({"cyst": 0.99, "calcification": 0.99}, ()),
        ({"mass": 0.0}, ("cyst", "mass", "calcification")),
    ],
)
def test_multilabel_answers_by_the_frozen_thresholds(path, thresholds, expected):
    """Multilabel answers with every label at or above its threshold (0.5 without one), perhaps none; the map is the likeliest label's."""
    pixels = np.full((16, 16), 200, dtype=np.uint8)
    made = write_device_bundle(path, output=MANY, decision=Decision(temperature=1.0, thresholds=thresholds))
    prediction = load(made).predict(pixels)
    assert prediction.label == expected
    np.testing.assert_allclose(list(prediction.probabilities.values()), 1 / (1 + np.exp(-logits_of(pixels, 3))), atol=1e-6)
    assert prediction.cam_label == "calcification"


def test_the_map_is_of_a_label_that_was_answered(path):
    """The likeliest label explains nothing when its threshold was not reached: the map is the answer's."""
    pixels = np.full((16, 16), 200, dtype=np.uint8)
    made = write_device_bundle(path, output=MANY, decision=Decision(temperature=1.0, thresholds={"calcification": 0.99}))
    prediction = load(made).predict(pixels)
    assert max(prediction.probabilities, key=prediction.probabilities.get) == "calcification"
    assert (prediction.label, prediction.cam_label) == (("cyst",), "cyst")


def test_the_temperature_softens_and_does_not_change_the_answer(path):
    """Probabilities are those of the logits divided by the temperature; logits and label stay."""
    pixels = frame(4)
    plain = load(write_device_bundle(path, output=THREE)).predict(pixels)
    soft = load(write_device_bundle(path, output=THREE, decision=Decision(temperature=2.0, thresholds={}))).predict(pixels)
    halved = np.exp(np.array(list(plain.logits.values())) / 2)
    np.testing.assert_allclose(list(soft.probabilities.values()), halved / halved.sum(), atol=1e-9)
    assert (soft.label, soft.logits) == (plain.label, plain.logits)


def test_a_map_that_does_not_add_up_is_withheld(path):
    """A map that breaks the identity is not shown, and why is said; the answer is kept."""
    prediction = load(write_device_bundle(path, fault="map-does-not-add-up")).predict(frame())
    assert prediction.label in TWO.labels
    assert (prediction.cam, prediction.cam_label, prediction.cam_for("benign")) == (None, None, None)
    assert prediction.reason == "the map does not add up to the logit and is withheld (off by 0.5 logit units)"
    with pytest.raises(DataError, match="does not add up"):
        prediction.overlay()


def test_a_model_without_a_map_says_so(path):
    """Where the head allows no map, `cam` is None with the manifest's reason."""
    prediction = load(write_device_bundle(path, cam=False)).predict(frame())
    assert (prediction.cam, prediction.reason) == (None, "the head is not linear")
    with pytest.raises(DataError, match="the head is not linear"):
        prediction.overlay()


def with_engine(path, engine, monkeypatch, **options):
    monkeypatch.setattr(choice, "open_engine", lambda *_: engine)
    return load(write_device_bundle(path, **options))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_map_that_is_not_finite_is_withheld(path, monkeypatch, value):
    """NaN and infinity in a map are withheld like any other map that does not add up."""
    cam = np.zeros((2, 4, 4))
    cam[0, 1, 2] = value
    prediction = with_engine(path, FakeEngine(np.array(BIASES[:2]), cam, lambda: None), monkeypatch).predict(frame())
    assert prediction.cam is None
    assert "withheld" in prediction.reason
    assert prediction.label == "benign"


@pytest.mark.parametrize(("off", "shown"), [(0.9e-4, True), (1.1e-4, False)])
def test_the_tolerance_of_the_map(path, monkeypatch, off, shown):
    """A residual up to the manifest's tolerance is rounding; more is not."""
    logits = np.array(BIASES[:2]) + off
    prediction = with_engine(path, FakeEngine(logits, np.zeros((2, 4, 4))), monkeypatch).predict(frame())
    assert (prediction.cam is not None) == shown


def test_a_prediction_owns_its_frame(path):
    """The caller's buffer may change afterwards: the overlay is drawn on the frame that was classified."""
    pixels = frame(5)
    prediction = load(write_device_bundle(path)).predict(pixels)
    before = prediction.overlay()
    pixels[:] = 0
    np.testing.assert_array_equal(prediction.overlay(), before)
    before[:] = 0
    assert prediction.overlay().any()


def test_a_camera_that_writes_while_the_model_runs(path, monkeypatch):
    """A buffer that changes during inference does not reach the overlay: it shows the frame that was classified."""
    pixels = np.full((16, 16), 77, dtype=np.uint8)

    def overwrite():
        pixels[:] = 0

    engine = FakeEngine(np.array(BIASES[:2]), np.zeros((2, 4, 4)), overwrite)
    prediction = with_engine(path, engine, monkeypatch).predict(pixels)
    assert (prediction.overlay() == 77).all()


def test_maps_are_the_callers_own(path):
    """Changing a map that was handed out changes nothing in the prediction."""
    prediction = load(write_device_bundle(path)).predict(frame())
    kept = prediction.cam.copy()
    prediction.cam[:] = 0
    np.testing.assert_array_equal(prediction.cam, kept)


def test_maps_of_other_labels(path):
    """`cam_for` and `overlay` take any label; an unknown one comes with the nearest."""
    pixels = np.full((16, 16), 255, dtype=np.uint8)
    prediction = load(write_device_bundle(path, output=THREE)).predict(pixels)
    assert prediction.label == "c"
    np.testing.assert_allclose(prediction.cam_for("b"), maps_of(pixels, 3)[1], atol=1e-5)
    assert (prediction.overlay("c") != prediction.overlay("b")).any()
    np.testing.assert_array_equal(prediction.overlay("b"), np.repeat(pixels[..., None], 3, axis=2))
    for ask in (prediction.cam_for, prediction.overlay):
        with pytest.raises(DataError, match="'d' is not a label") as caught:
            ask("d")
        assert "a, b, c" in caught.value.hint


def test_colour_frames_and_other_sizes(path):
    """A frame of any size and colour is answered; the overlay has the frame's own size."""
    classifier = load(write_device_bundle(path))
    for shape in ((480, 640), (480, 640, 3), (1, 1), (3, 5, 3)):
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        assert classifier.predict(pixels).overlay().shape == (*shape[:2], 3)
        assert classifier.predict(np.asfortranarray(pixels)).logits == classifier.predict(pixels).logits


def test_threads_get_the_answers_of_one(path):
    """Eight threads on one classifier get for each frame what one thread gets."""
    classifier = load(write_device_bundle(path, output=THREE))
    pixels = [frame(seed) for seed in range(64)]
    alone = [classifier.predict(item) for item in pixels]
    barrier = threading.Barrier(8)

    def work(start):
        barrier.wait()
        return [(index, classifier.predict(pixels[index])) for index in np.roll(np.arange(64), start).tolist()]

    with ThreadPoolExecutor(8) as pool:
        for answers in pool.map(work, range(8)):
            for index, prediction in answers:
                assert prediction.logits == alone[index].logits
                np.testing.assert_array_equal(prediction.cam, alone[index].cam)
                np.testing.assert_array_equal(prediction.overlay(), alone[index].overlay())


def test_several_classifiers_in_one_process(tmp_path):
    """Classifiers of other labels and sizes do not disturb each other."""
    made = [load(write_device_bundle(tmp_path / f"{len(output.labels)}-{output.task}", output=output)) for output in (TWO, THREE, MANY)]
    pixels = frame(9)
    first = [classifier.predict(pixels).logits for classifier in made]
    second = [classifier.predict(pixels).logits for classifier in reversed(made)][::-1]
    assert first == second
    assert [list(item) for item in first] == [list(output.labels) for output in (TWO, THREE, MANY)]


def test_the_scale_of_the_overlay_is_the_bundles(path):
    """Full colour means the same on every frame: a larger scale in the manifest paints paler."""
    pixels = np.full((16, 16), 100, dtype=np.uint8)
    strong, pale = (load(write_device_bundle(path, scale=scale)).predict(pixels).overlay("malignant") for scale in (1.0, 100.0))
    assert np.abs(strong.astype(int) - 100).max() > 3 * np.abs(pale.astype(int) - 100).max()


def test_a_map_below_the_least_probability_is_not_drawn(path):
    """Under the cut-off the overlay is the bare frame, and why is said; at it, the map is drawn."""
    pixels = np.full((16, 16), 255, dtype=np.uint8)
    prediction = load(write_device_bundle(path, output=THREE)).predict(pixels)
    probability = prediction.probabilities["c"]
    at, above = Drawing(min_probability=probability), Drawing(min_probability=min(1.0, probability + 1e-6))
    assert (prediction.overlay("c", at) == prediction.overlay("c")).all()
    assert prediction.why_not_drawn("c", at) == prediction.why_not_drawn("c") == ""
    np.testing.assert_array_equal(prediction.overlay("c", above), np.repeat(pixels[..., None], 3, axis=2))
    assert prediction.why_not_drawn("c", above) == prediction.why_not_drawn(drawing=above)
    assert "the map of c is not drawn: its probability" in prediction.why_not_drawn("c", above)
    captioned = prediction.overlay("c", Drawing(min_probability=above.min_probability, caption=True))
    assert captioned.shape[0] > prediction.overlay("c", Drawing(caption=True)).shape[0]


def test_the_contrast_of_two_labels_is_the_difference_of_their_maps(path):
    """Its mean is the difference of the logits but for the biases, and both orders are one picture with its colours swapped."""
    prediction = load(write_device_bundle(path, output=THREE)).predict(frame(2))
    contrast = prediction.cam_against("c", "b")
    np.testing.assert_array_equal(contrast, prediction.cam_for("c") - prediction.cam_for("b"))
    np.testing.assert_array_equal(contrast, -prediction.cam_against("b", "c"))
    assert contrast.mean() + BIASES[2] - BIASES[1] == pytest.approx(prediction.logits["c"] - prediction.logits["b"], abs=1e-4)
    drawn = prediction.overlay("c", Drawing(against="b"))
    assert (drawn != prediction.overlay("c")).any()
    for label, other, message in (("c", "c", "against itself"), ("c", "d", "'d' is not a label"), ("d", "c", "'d' is not a label")):
        for ask in (prediction.cam_against, lambda one, two: prediction.overlay(one, Drawing(against=two))):
            with pytest.raises(DataError, match=message):
                ask(label, other)


def test_one_logit_against_the_other_is_twice_its_map(path):
    """A binary model with one output z has −z and z, so the contrast is 2z."""
    prediction = load(write_device_bundle(path, output=TWO, outputs=1)).predict(frame(3))
    np.testing.assert_array_equal(prediction.cam_against("malignant", "benign"), 2 * prediction.cam_for("malignant"))


def test_bar_and_caption_stand_beside_the_frame(path):
    """The picture grows to the right and below, and its upper left part is the plain overlay."""
    prediction = load(write_device_bundle(path, output=THREE)).predict(frame(1))
    plain = prediction.overlay()
    for drawing, grows in ((Drawing(colorbar=True), (False, True)), (Drawing(caption=True), (True, False)), (Drawing(), (False, False))):
        shown = prediction.overlay(drawing=drawing)
        np.testing.assert_array_equal(shown[:16, :16], plain)
        assert shown.flags.owndata
        if not any(grows):
            assert shown.shape == plain.shape
    with_bar = prediction.overlay(drawing=Drawing(colorbar=True))
    assert with_bar.shape[1] > 16


def test_a_caption_says_that_a_bundle_was_not_accepted(path, monkeypatch):
    """A picture travels without its JSON: that its bundle passed no gate stands on it, beside label, probability and logit."""
    lines = []
    monkeypatch.setattr(annotate, "annotate", lambda picture, **margin: lines.append(margin["caption"]) or picture)
    for accepted in (True, False):
        prediction = load(write_device_bundle(path, output=THREE)).predict(frame(1))
        dataclasses.replace(prediction, accepted=accepted).overlay("b", Drawing(caption=True, against="c" if accepted else None))
    contrast, alone = lines
    assert contrast[0].startswith("b against c  p = ")
    assert len(contrast) == 1
    assert alone == [
        f"b  p = {prediction.probabilities['b']:.3f}  logit {prediction.logits['b']:+.2f}",
        "NOT ACCEPTED by its acceptance gate",
    ]


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_least_probability_that_is_none_is_refused(value):
    """A cut-off is a probability."""
    with pytest.raises(DataError, match="between 0 and 1"):
        Drawing(min_probability=value)


def test_no_map_is_no_overlay_however_it_is_drawn(path):
    """Without a map, every way to draw it is refused with the reason."""
    prediction = load(write_device_bundle(path, cam=False)).predict(frame())
    assert prediction.cam_against("benign", "malignant") is None
    for drawing in (Drawing(min_probability=1.0, caption=True), Drawing(against="benign")):
        with pytest.raises(DataError, match="the head is not linear"):
            prediction.overlay("malignant", drawing)
    with pytest.raises(DataError, match="the head is not linear"):
        prediction.why_not_drawn()
