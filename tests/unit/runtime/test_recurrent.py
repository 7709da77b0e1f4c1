"""A recurrent bundle on the device: the state goes from frame to frame of a clip and nowhere else."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from command_line import assert_refused
from command_line import edgekit as command
from device_bundles import STATE_FAULTS, THREE, clip_of, frame, write_device_bundle
from PIL import Image

import edgekit
from edgekit.bundle.reader import open_bundle
from edgekit.errors import BundleError, DataError, TargetError
from edgekit.runtime import selftest
from edgekit.runtime.classifier import Classifier
from edgekit.runtime.clip import FirstFrames
from edgekit.runtime.evaluate import evaluate_split
from edgekit.schema.data import Columns

FRAMES = [frame(seed) for seed in range(4)]


@pytest.fixture
def classifier(tmp_path):
    return edgekit.load(write_device_bundle(tmp_path / "x.edgekit", recurrent=True))


def answers(clip, frames):
    """Logits (frames, labels)."""
    return np.array([list(clip.predict(pixels).logits.values()) for pixels in frames])


def test_an_answer_depends_on_the_frames_before(classifier):
    """A clip answers as numpy does that carries the state; the same frame later in it is answered otherwise."""
    expected, _ = clip_of(FRAMES, 2)
    np.testing.assert_allclose(answers(classifier.clip(), FRAMES), expected, atol=1e-4)
    twice = answers(classifier.clip(), [FRAMES[0], FRAMES[0]])
    assert np.abs(twice[0] - twice[1]).min() > 0.05


def test_reset_makes_a_clip_new(classifier):
    """After `reset` a clip answers as a fresh one."""
    clip = classifier.clip()
    before = answers(clip, FRAMES)
    clip.reset()
    np.testing.assert_array_equal(answers(clip, FRAMES), before)


def test_two_clips_do_not_see_each_other(classifier):
    """Frames of two sources in turn are answered as each source alone."""
    one, other = classifier.clip(), classifier.clip()
    found = [
        (list(one.predict(a).logits.values()), list(other.predict(b).logits.values())) for a, b in zip(FRAMES, FRAMES[::-1], strict=True)
    ]
    alone = np.stack([answers(classifier.clip(), FRAMES), answers(classifier.clip(), FRAMES[::-1])], axis=1)
    np.testing.assert_array_equal(np.array(found), alone)


def test_a_frame_alone_is_refused(classifier):
    """`predict` has no answer for a frame alone, and says who has."""
    with pytest.raises(TargetError, match="depends on the frames before it") as caught:
        classifier.predict(FRAMES[0])
    assert "classifier.clip()" in caught.value.hint


def test_a_frame_that_fails_makes_the_clip_new(classifier):
    """What was before a gap is not carried over it."""
    clip = classifier.clip()
    first = answers(clip, FRAMES[:3])
    with pytest.raises(DataError):
        clip.predict(np.zeros((4, 4)))
    np.testing.assert_array_equal(answers(clip, FRAMES[:1]), first[:1])


def test_a_state_that_is_no_number_ends_the_clip(tmp_path):
    """A next state that is NaN or infinite is no answer, and is not handed on."""
    classifier = edgekit.load(write_device_bundle(tmp_path / "x.edgekit", recurrent=True))
    endless = np.full((1, 2), np.inf, dtype=np.float32)
    with pytest.raises(TargetError, match="NaN or infinite"):
        classifier.step(FRAMES[0], endless)


@pytest.mark.parametrize("wrong", [None, np.zeros((1, 3), np.float32)], ids=["none", "shape"])
def test_a_step_wants_a_state(classifier, wrong):
    """Without its state, or with another's, a frame is refused."""
    with pytest.raises(DataError, match="takes a state of the shape"):
        classifier.step(FRAMES[0], wrong)


def test_a_plain_classifier_has_no_state(tmp_path):
    """Clips of a plain classifier answer as `predict` does."""
    classifier = edgekit.load(write_device_bundle(tmp_path / "x.edgekit"))
    assert classifier.initial_state() is None
    clip = classifier.clip()
    for pixels in FRAMES:
        assert clip.predict(pixels).logits == classifier.predict(pixels).logits


def test_first_frames_are_each_the_first_of_a_clip(classifier):
    """What is timed answers any frame alike, however often."""
    timed = FirstFrames(classifier)
    for pixels in (FRAMES[0], FRAMES[1], FRAMES[0]):
        expected = list(classifier.clip().predict(pixels).logits.values())
        assert list(timed.predict(pixels).logits.values()) == expected


def test_the_golden_frames_are_one_clip(tmp_path):
    """The self-test passes where logits and states along the golden frames are the proven ones."""
    path = write_device_bundle(tmp_path / "x.edgekit", recurrent=True)
    (found,) = selftest.run(open_bundle(path))
    assert (found.status, found.reason, found.frames) == ("PASS", "", 3)


def test_a_state_that_differs_fails_the_self_test(tmp_path):
    """The logits may be right while what is carried on is not."""
    path = write_device_bundle(tmp_path / "x.edgekit", recurrent=True, fault="golden-states-of-another-machine")
    (found,) = selftest.run(open_bundle(path))
    assert found.status == "FAIL"
    assert "the state that is carried is off by 0.5, 0.001 allowed" in found.reason


def test_another_state_than_the_manifest_says_is_refused(tmp_path):
    """A graph whose state is not the manifest's does not open, and its golden states do not fit."""
    path = write_device_bundle(tmp_path / "x.edgekit", recurrent=True, fault="state-of-another-shape")
    with pytest.raises(BundleError, match=r"carries a state of the shape \(1, 2\), the manifest says \(1, 3\)"):
        edgekit.load(path)
    with pytest.raises(BundleError, match="golden states"):
        selftest.run(open_bundle(path))


def test_a_state_that_the_manifest_does_not_say_is_refused(tmp_path):
    """Nothing runs a recurrent graph as if it were a plain one."""
    path = write_device_bundle(tmp_path / "x.edgekit", recurrent=True, state=None, more={"golden/states.npy": None})
    with pytest.raises(BundleError, match="the manifest says None"):
        Classifier(open_bundle(path))


def test_every_fault_of_a_state_is_tested():
    """The faults of the builder are those of the tests above."""
    assert STATE_FAULTS == ("golden-states-of-another-machine", "state-of-another-shape")


def test_evaluation_runs_clips_in_the_manifests_order(tmp_path):
    """Each group is a clip of its own from a fresh state, also where its frames stand between those of another."""
    classifier = edgekit.load(write_device_bundle(tmp_path / "x.edgekit", output=THREE, recurrent=True))
    rows = []
    for index in range(6):
        Image.fromarray(frame(index)).save(tmp_path / f"{index}.png")
        rows.append((f"{index}.png", "abc"[index % 3], "test", f"clip-{index % 2}"))
    with (tmp_path / "data.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("file", "label", "split", "patient_or_video_id"), *rows])
    seen = []

    class Recorded(Classifier):
        def step(self, pixels, state, **options):
            seen.append(state.copy())
            return super().step(pixels, state, **options)

    classifier.__class__ = Recorded
    evaluate_split(classifier, tmp_path / "data.csv", split="test", columns=Columns(), on_frame=lambda *_: None)
    states = [clip_of([frame(index) for index in range(first, 6, 2)], 3)[1] for first in (0, 1)]
    for index, state in enumerate(seen):
        before = np.zeros(3) if index < 2 else states[index % 2][index // 2 - 1]
        np.testing.assert_allclose(state[0], before, atol=1e-4)


def test_maps_of_a_recurrent_bundle_are_not_tested_by_changing_frames(tmp_path, capfd):
    """`evaluate --explanations` says so at once, before it reads a frame."""
    path = write_device_bundle(tmp_path / "x.edgekit", recurrent=True)
    ran = command(capfd, "evaluate", path, "--data", tmp_path / "nothing.csv", "--explanations")
    assert_refused(ran, "is recurrent: its maps are not tested")
