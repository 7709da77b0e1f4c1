"""`edgekit run` on cines, videos, folders played live and cameras: what each line says, what a clip says, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from command_line import assert_refused, edgekit
from device_bundles import MANY, TWO, frame, logits_of, write_device_bundle
from dicom_builders import dicom_bytes
from PIL import Image
from video_builders import broken_in_the_middle, noise, write_video

from edgekit.cli import run_clips
from edgekit.errors import TargetError

CINE = np.stack([frame(number) for number in range(12)])
LIVE_KEYS = ["captured_at", "age_ms", "dropped", "late", "degraded"]
AT_ONCE = ("--no-supervise", "--deadline-ms", "60000")
"""In this process, and with a deadline that no busy machine misses."""


@pytest.fixture
def bundle(tmp_path):
    return write_device_bundle(tmp_path / "x.edgekit", output=TWO)


@pytest.fixture
def cine(tmp_path):
    path = tmp_path / "cine.dcm"
    path.write_bytes(dicom_bytes(CINE, FrameTime="20"))
    return path


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "frames").mkdir()
    for number, pixels in enumerate(CINE):
        Image.fromarray(pixels).save(tmp_path / "frames" / f"{number:02d}.png")
    return tmp_path / "frames"


def expected(pixels):
    """The positive label's probability of the device bundle, by numpy."""
    benign, malignant = np.exp(logits_of(pixels, 2))
    return malignant / (benign + malignant)


def frames_of(lines):
    return [line for line in lines if "clip" not in line and "error" not in line]


def test_a_cine_is_answered_frame_by_frame_with_its_times(bundle, cine, capfd):
    """Without --fps every frame, in order, with its time in the cine; nothing of a live line is in it."""
    lines = edgekit(capfd, "run", bundle, cine, "--json").lines
    assert [line["frame"] for line in lines] == list(range(12))
    assert [line["time_s"] for line in lines] == pytest.approx([0.02 * number for number in range(12)])
    assert not set(LIVE_KEYS) & set(lines[0])
    for line, pixels in zip(lines, CINE, strict=True):
        assert line["probabilities"]["malignant"] == pytest.approx(expected(pixels), abs=1e-5)


def test_a_video_is_answered_as_its_frames_are(tmp_path, bundle, capfd):
    """A lossless grey video and its frames as pictures have the same answers; overlays are drawn on their own frames."""
    video = write_video(tmp_path / "clip.mkv", list(CINE))
    lines = edgekit(capfd, "run", bundle, video, "--json", "--overlay", tmp_path / "maps", "--min-probability", "1").lines
    assert [line["frame"] for line in lines] == list(range(12))
    for line, pixels in zip(lines, CINE, strict=True):
        assert line["probabilities"]["malignant"] == pytest.approx(expected(pixels), abs=1e-5)
        # No label is that probable, so the overlay is the bare frame.
        np.testing.assert_array_equal(np.asarray(Image.open(line["overlay"])), np.repeat(pixels[:, :, None], 3, axis=2))


AGGREGATES = {
    "mean": ((), lambda p: p.mean()),
    "max": ((), lambda p: p.max()),
    "topk": (("--top-k", "3"), lambda p: np.sort(p)[::-1][:3].mean()),
    "exponential": (
        ("--smooth", "4"),
        lambda p: (np.exp(-np.arange(12)[::-1] / 4) * p).sum() / np.exp(-np.arange(12) / 4).sum(),
    ),
}


@pytest.mark.parametrize("aggregate", sorted(AGGREGATES))
def test_a_clip_has_an_answer_of_its_own(aggregate, bundle, cine, capfd):
    """After its frames, one line for the clip, by the formula; the frames' own answers are as without it."""
    options, formula = AGGREGATES[aggregate]
    *lines, last = edgekit(capfd, "run", bundle, cine, "--json", "--aggregate", aggregate, *options).lines
    each = np.array([expected(pixels) for pixels in CINE])
    assert [line["probabilities"]["malignant"] for line in lines] == pytest.approx(each, abs=1e-5)
    assert list(last) == ["input", "clip", "bundle", "accepted"]
    clip = last["clip"]
    assert clip["probabilities"]["malignant"] == pytest.approx(formula(each), abs=1e-5)
    assert (clip["aggregate"], clip["of"], clip["frames"], clip["reason"]) == (aggregate, "probabilities", 12, "")
    assert clip["label"] == max(clip["probabilities"], key=clip["probabilities"].get)
    assert set(clip["left_out"].values()) == {0}


def test_which_frames_are_a_clip(tmp_path, bundle, cine, folder, capfd):
    """Each cine and each video is one; the pictures of a folder are one together; pictures that are named one by one are not."""
    (folder / "sub").mkdir()
    (folder / "sub" / "cine.dcm").write_bytes(cine.read_bytes())
    write_video(folder / "05x.mkv", noise(3))
    names = (folder / "00.png", folder, cine)
    lines = edgekit(capfd, "run", bundle, *names, "--json", "--aggregate", "mean").lines
    clips = [(line["input"], line["clip"]["frames"]) for line in lines if "clip" in line]
    video = str(folder / "05x.mkv")
    assert clips == [(str(names[0]), 1), (str(folder), 12), (video, 3), (str(folder / "sub" / "cine.dcm"), 12), (str(cine), 12)]


def test_a_clip_that_breaks_has_no_answer(tmp_path, bundle, capfd):
    """What is missing could have decided; the frames before the damage have theirs."""
    broken = broken_in_the_middle(write_video(tmp_path / "clip.mkv", noise(20, 16, 16)))
    ran = edgekit(capfd, "run", bundle, broken, "--json", "--aggregate", "max")
    assert ran.code == 1
    *frames, error, last = ran.lines
    assert frames
    assert list(error) == ["input", "error"]
    assert "damaged at frame" in error["error"]
    assert (last["clip"]["label"], last["clip"]["probabilities"]) == (None, {})
    assert last["clip"]["reason"] == "a part of the clip could not be answered"


def test_a_damaged_picture_leaves_the_others_answered_and_their_clip_without_an_answer(bundle, folder, capfd):
    """A picture that breaks inside is found when it is read; those after it are answered all the same."""
    whole = (folder / "03.png").read_bytes()
    (folder / "03.png").write_bytes(whole[:-20])
    ran = edgekit(capfd, "run", bundle, folder, "--json", "--aggregate", "mean")
    assert ran.code == 1
    *lines, last = ran.lines
    assert [("error" in line, Path(line["input"]).stem) for line in lines] == [(number == 3, f"{number:02d}") for number in range(12)]
    assert last["clip"]["label"] is None
    assert last["clip"]["left_out"]["failed"] == 1


def test_smoothing_stands_beside_the_answer(bundle, cine, capfd):
    """The raw answer is untouched, the smoothed one has a key of its own; over seconds by the cine's own times."""
    plain = edgekit(capfd, "run", bundle, cine, "--json").lines
    for time_constant in ("4", "0.08s"):
        lines = edgekit(capfd, "run", bundle, cine, "--json", "--smooth", time_constant).lines
        assert [line["probabilities"] for line in lines] == [line["probabilities"] for line in plain]
        weights = np.exp(-np.arange(12)[::-1] / 4)
        each = np.array([line["probabilities"]["malignant"] for line in plain])
        assert lines[-1]["smoothed"]["probabilities"]["malignant"] == pytest.approx((weights * each).sum() / weights.sum())
        assert lines[0]["smoothed"]["probabilities"]["malignant"] == pytest.approx(each[0])


def test_a_folder_played_live_has_live_lines(tmp_path, bundle, folder, capfd):
    """Each line has the time of capture in UTC, the age, drops, lateness and degradation; every frame is answered or dropped, and a summary is told."""
    before = datetime.now(timezone.utc)
    ran = edgekit(capfd, "run", bundle, folder, "--fps", "40", "--json", "--aggregate", "mean", *AT_ONCE)
    assert ran.code == 0, ran.err
    *lines, clip = ran.lines
    assert all(list(line)[-5:] == LIVE_KEYS for line in lines)
    times = [datetime.fromisoformat(line["captured_at"]) for line in lines]
    assert before.replace(microsecond=0) <= times[0] <= times[-1] <= datetime.now(timezone.utc)
    assert times == sorted(times)
    dropped = 12 - len(lines)
    assert [Path(line["input"]).stem for line in lines] == sorted(Path(line["input"]).stem for line in lines)
    assert clip["clip"]["frames"] == len(lines)
    assert clip["input"] == str(folder)
    captured = ran.starting("captured")
    assert captured[0].startswith(f"captured 12: {len(lines)} processed, {dropped} dropped, 0 late, 0 failed; degraded 0")
    for line in lines:
        pixels = np.asarray(Image.open(line["input"]))
        assert line["probabilities"]["malignant"] == pytest.approx(expected(pixels), abs=1e-5)
        assert line["age_ms"] >= line["latency_ms"]


def test_a_cine_is_played_at_its_own_rate(bundle, cine, capfd):
    """`--fps native` takes the times of the object: 12 frames of 20 ms take no less than 11 of them."""
    begun = time.monotonic()
    ran = edgekit(capfd, "run", bundle, cine, "--fps", "native", "--json", *AT_ONCE)
    assert time.monotonic() - begun >= 0.22
    assert ran.code == 0
    assert ran.lines[-1]["frame"] == 11


def test_a_late_result_is_withheld(tmp_path, bundle, cine, capfd):
    """No label, no probabilities, no overlay; the reason says how old it was."""
    ran = edgekit(
        capfd, "run", bundle, cine, "--fps", "15", "--json", "--no-supervise", "--deadline-ms", "0.001", "--overlay", tmp_path / "maps"
    )
    assert ran.code == 0
    assert ran.lines
    for line in ran.lines:
        assert (line["label"], line["probabilities"], line["logits"], line["cam"], line["overlay"]) == (None, {}, {}, None, None)
        assert re.match(r"late: |no result: ", line["reason"])
    assert ran.lines[0]["late"]
    assert {"fewer-maps", "no-maps"} & {line["degraded"] for line in ran.lines}
    assert not (tmp_path / "maps").exists() or not list((tmp_path / "maps").iterdir())
    assert "no result" in edgekit(capfd, "run", bundle, cine, "--fps", "15", "--no-supervise", "--deadline-ms", "0.001").out


def test_a_bad_file_does_not_end_a_live_folder(bundle, folder, capfd):
    """It is one line with its error, the others go on, exit 1 comes at the end."""
    (folder / "03.png").write_bytes(b"damaged")
    ran = edgekit(capfd, "run", bundle, folder, "--fps", "100", "--json", *AT_ONCE)
    assert ran.code == 1
    errors = [line for line in ran.lines if "error" in line]
    assert [line["input"] for line in errors] == [str(folder / "03.png")]
    assert list(errors[0])[:2] == ["input", "error"]
    assert frames_of(ran.lines)[-1]["input"] == str(folder / "11.png")
    assert "1 failed" in ran.starting("captured")[0]


class FakeCamera:
    """Gives `count` frames, then is unplugged; a None in between is a frame that arrived damaged."""

    period_s = 0.02

    def __init__(self, name, *, fps=None) -> None:
        self.name, self.fps = name, fps

    def frames(self):
        for pixels in CINE[:5]:
            yield pixels
            time.sleep(0.02)
        raise TargetError(f"{self.name}: the camera gives no more frames: No such device", hint="check its cable")

    def close(self):
        pass


def test_a_camera_that_is_unplugged_is_one_error_after_what_was_done(bundle, capfd, monkeypatch):
    """The frames before it are answered, then one line with the error; the summary is told, exit 1."""
    monkeypatch.setattr(run_clips, "Camera", FakeCamera)
    ran = edgekit(capfd, "run", bundle, "camera:0", "--json", *AT_ONCE)
    assert ran.code == 1
    assert {line["input"] for line in ran.lines} == {"camera:0"}
    assert [line.get("error") for line in ran.lines if "error" in line] == ["camera:0: the camera gives no more frames: No such device"]
    assert "error" in ran.lines[-1]
    assert frames_of(ran.lines)
    assert ran.starting("captured 5:")


def test_a_camera_that_is_not_there_is_an_error_and_the_next_input_is_answered(bundle, folder, capfd):
    """As any other bad input."""
    ran = edgekit(capfd, "run", bundle, "camera:77", folder / "00.png", "--json", "--no-supervise", "--aggregate", "mean")
    assert ran.code == 1
    assert [line["input"] for line in ran.lines] == ["camera:77", str(folder / "00.png"), str(folder / "00.png")]
    assert "there is no /dev/video77" in ran.lines[0]["error"]


REFUSED = {
    "a deadline without a live input": (("--deadline-ms", "100"), "are for live inputs"),
    "seconds without a live input": (("--seconds", "5"), "are for live inputs"),
    "no deadline": (("--fps", "30", "--deadline-ms", "0"), "deadline"),
    "no time": (("--fps", "30", "--seconds", "-1"), "cannot run for"),
    "no rate": (("--fps", "0"), "cannot be played at"),
    "a word for a rate": (("--fps", "fast"), "cannot be played at"),
    "no such aggregate": (("--aggregate", "median"), "no aggregate 'median'"),
    "k without top-k": (("--top-k", "3"), "--aggregate topk"),
    "k below 1": (("--aggregate", "topk", "--top-k", "0"), "below 1"),
    "no time constant": (("--smooth", "soon"), "no time to smooth over"),
}


@pytest.mark.parametrize(("options", "words"), REFUSED.values(), ids=REFUSED)
def test_options_that_make_no_sense_are_refused_before_any_frame(options, words, bundle, cine, capfd):
    """One message, no output."""
    ran = edgekit(capfd, "run", bundle, cine, "--json", *options)
    assert_refused(ran, words)
    assert ran.out == ""


def test_pictures_have_no_rate_of_their_own(bundle, folder, capfd):
    """`--fps native` needs a file that says one."""
    assert "how fast it is to be played" in edgekit(capfd, "run", bundle, folder, "--fps", "native", "--no-supervise").err


def test_multilabel_clips(tmp_path, cine, capfd):
    """The labels of a clip are a list, and may be none."""
    many = write_device_bundle(tmp_path / "many.edgekit", output=MANY)
    clip = edgekit(capfd, "run", many, cine, "--json", "--aggregate", "max").lines[-1]["clip"]
    assert isinstance(clip["label"], list)
    assert "clip" in edgekit(capfd, "run", many, cine, "--aggregate", "max").out


def test_health_is_served_while_it_runs(bundle, cine, capfd):
    """On the loopback, on a port that was asked for, and told on stderr."""
    ran = edgekit(capfd, "run", bundle, cine, "--health", "0", "--json")
    assert ran.code == 0
    assert re.match(r"health: http://127\.0\.0\.1:\d+/health", ran.err)


def test_a_log_of_events_holds_no_name_and_no_answer(tmp_path, bundle, folder, capfd):
    """Start, steps, errors and the counters at the end, without the name of a file; it is added to."""
    secret = folder / "DOE^JANE.png"
    secret.write_bytes(b"damaged")
    log = tmp_path / "events.jsonl"
    for _ in range(2):
        edgekit(capfd, "run", bundle, folder, "--fps", "50", "--log", log, "--json", "--no-supervise", "--deadline-ms", "0.001")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    names = [event["event"] for event in events]
    assert names.count("start") == names.count("stop") == 2
    assert {"step", "error"} <= set(names)
    assert events[-1]["captured"] == 13
    for word in ("DOE", "JANE", "frames", "malignant", "benign"):
        assert word not in log.read_text()


def test_a_log_that_cannot_be_written_is_refused_before_any_frame(tmp_path, bundle, cine, capfd):
    """One message."""
    assert_refused(edgekit(capfd, "run", bundle, cine, "--log", tmp_path, "--json"), "log")


@pytest.mark.parametrize("supervised", [(), ("--no-supervise",)])
def test_ctrl_c_stops_a_live_run_cleanly(tmp_path, bundle, folder, supervised):
    """Whole lines, the summary, one word on stderr, the shell's exit code, and no process left behind."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edgekit", "run", bundle, *[folder] * 500, "--fps", "30", "--json", *supervised],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    first = process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    out, told = process.communicate(timeout=60)
    assert process.returncode == 130
    for line in (first + out).splitlines():
        json.loads(line)
    assert "Traceback" not in told.decode()
    assert told.decode().splitlines()[-1] == "interrupted"
    assert "captured" in told.decode()
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_a_live_run_ends_at_its_time(bundle, folder, capfd):
    """`--seconds` counts for each live input."""
    ran = edgekit(capfd, "run", bundle, folder, "--fps", "2", "--seconds", "0.7", "--json", *AT_ONCE)
    assert ran.code == 0
    assert len(ran.lines) == 2
