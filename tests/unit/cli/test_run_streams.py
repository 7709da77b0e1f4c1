"""`edgekit run` in the world: several patients in one folder, a pipe, a full disk, Ctrl-C, and an engine that needs long."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import assert_refused, edgekit
from device_bundles import TWO, clip_of, frame, logits_of, write_device_bundle
from dicom_builders import dicom_bytes
from PIL import Image

from edgekit.bundle import writer
from edgekit.cli import run as command
from edgekit.cli.run_clips import Live
from edgekit.errors import DataError, OutputError
from edgekit.runtime import supervisor
from edgekit.runtime.clip import Clip

FRAMES = np.stack([frame(number) for number in range(6)])
AT_ONCE = ("--no-supervise", "--deadline-ms", "60000")


@pytest.fixture
def bundle(tmp_path):
    return write_device_bundle(tmp_path / "x.edgekit", output=TWO)


@pytest.fixture
def study(tmp_path):
    """Two patients' pictures, three each, below one folder."""
    for number, pixels in enumerate(FRAMES):
        path = tmp_path / "study" / ("a" if number < 3 else "b") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path / "study"


def probabilities(pixels=FRAMES):
    """The positive label's, of the device bundle, by numpy."""
    benign, malignant = np.exp(np.stack([logits_of(each, 2) for each in pixels])).T
    return malignant / (benign + malignant)


@pytest.mark.parametrize("live", [(), ("--fps", "20", *AT_ONCE)])
def test_two_patients_are_never_combined(live, bundle, study, capfd):
    """Each folder is a clip of its own, named by the folder, and is smoothed from its own beginning; also where they are played live, one after the other."""
    lines = edgekit(capfd, "run", bundle, study, "--json", "--aggregate", "mean", "--smooth", "4", *live).lines
    clips = {line["input"]: line["clip"] for line in lines if "clip" in line}
    assert list(clips) == [str(study / "a"), str(study / "b")]
    for clip, mine in zip(clips.values(), (FRAMES[:3], FRAMES[3:]), strict=True):
        assert clip["frames"] + sum(clip["left_out"].values()) == 3
        if clip["frames"] == 3:
            assert clip["probabilities"]["malignant"] == pytest.approx(probabilities(mine).mean(), abs=1e-5)
    answered = [line for line in lines if "clip" not in line]
    for folder in ("a", "b"):
        first = next(line for line in answered if Path(line["input"]).parent.name == folder)
        assert first["smoothed"]["probabilities"] == pytest.approx(first["probabilities"])
    # The line of a clip is behind its last frame.
    kinds = ["clip" if "clip" in line else Path(line["input"]).parent.name for line in lines]
    assert kinds.index("clip") < kinds.index("b")


@pytest.mark.parametrize("live", [(), ("--fps", "20", *AT_ONCE)])
def test_a_recurrent_classifier_begins_anew_with_each_patient(live, tmp_path, study, capfd):
    """What it has seen of one is in no answer of the next."""
    recurrent = write_device_bundle(tmp_path / "r.edgekit", recurrent=True)
    lines = edgekit(capfd, "run", recurrent, study, "--json", *live).lines
    if len(lines) < 6 and live:
        pytest.skip("this machine was too busy to answer every frame")
    expected = np.concatenate([clip_of(list(FRAMES[:3]), 2)[0], clip_of(list(FRAMES[3:]), 2)[0]])
    np.testing.assert_allclose([list(line["logits"].values()) for line in lines], expected, atol=1e-4)


def test_pictures_in_dicom_are_pictures(tmp_path, bundle, capfd):
    """Objects of one frame each are one clip together, as PNGs are."""
    folder = tmp_path / "objects"
    folder.mkdir()
    for number, pixels in enumerate(FRAMES):
        (folder / f"{number}.dcm").write_bytes(dicom_bytes(pixels[None]))
    clips = [line for line in edgekit(capfd, "run", bundle, folder, "--json", "--aggregate", "mean").lines if "clip" in line]
    assert [(line["input"], line["clip"]["frames"]) for line in clips] == [(str(folder), 6)]
    assert clips[0]["clip"]["probabilities"]["malignant"] == pytest.approx(probabilities().mean(), abs=1e-5)


@pytest.mark.parametrize("rate", ["400", "20"])
def test_a_clip_counts_every_frame_that_was_captured(rate, bundle, tmp_path, capfd):
    """Those that were dropped after its last answer too."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(40):
        Image.fromarray(FRAMES[number % 6]).save(folder / f"{number:02d}.png")
    ran = edgekit(capfd, "run", bundle, folder, "--fps", rate, "--json", "--aggregate", "mean", *AT_ONCE)
    clip = ran.lines[-1]["clip"]
    captured = int(ran.starting("captured")[0].split()[1].rstrip(":"))
    assert clip["frames"] + sum(clip["left_out"].values()) == captured == 40


def test_live_smoothing_and_aggregates_are_over_the_time_of_capture(bundle, tmp_path, capfd):
    """Pictures have no time of their own; a live stream has one."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, pixels in enumerate(FRAMES):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    ran = edgekit(capfd, "run", bundle, folder, "--fps", "20", "--json", "--aggregate", "exponential", "--smooth", "0.1s", *AT_ONCE)
    assert ran.code == 0, ran.err
    *lines, clip = ran.lines
    assert clip["clip"]["probabilities"] == pytest.approx(lines[-1]["smoothed"]["probabilities"])
    assert clip["clip"]["frames"] == len(lines)


def started(bundle, *arguments):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command_line = [sys.executable, "-m", "edgekit", "run", bundle, *arguments]

    def hears_of_hangups():
        # A run of the tests that goes on after its terminal ignores them, and so would its processes.
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    return subprocess.Popen(
        command_line,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=hears_of_hangups,  # noqa: PLW1509 - the parent has no threads that hold locks here
    )


def test_a_line_is_in_the_pipe_when_it_is_printed(bundle, study):
    """For people as for scripts: whoever reads a live stream through a pipe reads it live, and not all of it at the end."""
    process = started(bundle, study, "--fps", "1", "--no-supervise")
    first = os.read(process.stdout.fileno(), 1 << 16)
    process.terminate()
    process.communicate(timeout=60)
    assert b"frame 0" in first
    assert first.count(b"\n") < len(FRAMES)
    assert process.returncode == 143


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_stream_that_is_stopped_concludes_its_clip(tmp_path, bundle, study, number):
    """Whole lines, the clip's with the frames so far and that it was interrupted, every captured frame accounted for, and the end in the log."""
    log = tmp_path / "events.jsonl"
    process = started(bundle, study, *[study] * 50, "--fps", "10", "--json", "--aggregate", "mean", "--log", log, "--deadline-ms", "60000")
    first = process.stdout.readline()
    process.send_signal(number)
    out, told = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    lines = [json.loads(line) for line in (first + out).splitlines()]
    clip = lines[-1]["clip"]
    assert clip["reason"].startswith("interrupted")
    assert clip["frames"] >= 1
    assert clip["label"] is not None
    stopped = json.loads(log.read_text().splitlines()[-1])
    assert stopped["event"] == "stop"
    assert stopped["captured"] == sum(stopped[name] for name in ("processed", "dropped", "late", "failed"))
    assert "Traceback" not in told


def test_a_file_that_is_interrupted_has_no_answer_for_its_clip(bundle, study, capfd, monkeypatch):
    """What was not looked at could have decided."""
    predict, seen = Clip.predict, []

    def interrupted(self, pixels, **options):
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return predict(self, pixels, **options)

    monkeypatch.setattr(Clip, "predict", interrupted)
    ran = edgekit(capfd, "run", bundle, study / "a", "--json", "--aggregate", "mean")
    assert ran.code == 130
    clip = ran.lines[-1]["clip"]
    assert (clip["label"], clip["frames"]) == (None, 0)
    assert clip["reason"].startswith("interrupted")


def test_a_full_disk_takes_no_answer_away(tmp_path, bundle, study, capfd, monkeypatch):
    """An overlay that cannot be written is an error beside the frame's answer, and the next frames are answered and drawn."""
    write, calls = writer.write_atomically, []

    def full(path, pieces):
        calls.append(path)
        if len(calls) == 2:
            raise OutputError(f"{path} cannot be written: No space left on device")
        write(path, pieces)

    monkeypatch.setattr(writer, "write_atomically", full)
    ran = edgekit(capfd, "run", bundle, study, "--json", "--overlay", tmp_path / "maps", "--aggregate", "mean")
    assert ran.code == 1
    answers = [line for line in ran.lines if "clip" not in line]
    assert [line["label"] is not None for line in answers] == [True] * 6
    assert [line["overlay"] is not None for line in answers] == [True, False, *[True] * 4]
    assert "No space left" in answers[1]["reason"]
    assert len(ran.starting("error:")) == 1
    assert ran.err.splitlines()[-1].startswith("1 file or frame could not be answered or drawn")
    assert [line["clip"]["frames"] for line in ran.lines if "clip" in line] == [3, 3]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
@pytest.mark.parametrize(
    "form", [("run", "x.edgekit", "study", "--json"), ("run", "x.edgekit", "study"), ("inspect", "x.edgekit"), ("targets",)]
)
@pytest.mark.usefixtures("bundle", "study")
def test_a_full_disk_behind_stdout_is_one_error(tmp_path, monkeypatch, form):
    """One message and exit 1, and nothing of Python's own at the end; also where it is only found out at the end."""
    monkeypatch.chdir(tmp_path)
    with Path("/dev/full").open("w") as full:
        command_line = [sys.executable, "-m", "edgekit", *form]
        ran = subprocess.run(command_line, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert ran.returncode == 1
    told = ran.stderr.splitlines()
    assert [line.split(":")[0] for line in told] == ["error", "hint"]
    assert "stdout cannot be written: No space left" in told[0]


def test_a_closed_stdout_is_one_error(bundle, study):
    """As a full one."""
    line = '"$0" -m edgekit run "$1" "$2" >&-'
    ran = subprocess.run(["sh", "-c", line, sys.executable, bundle, study], stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert ran.returncode == 1
    assert "stdout is closed" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("options", "asked"), [((), False), (("--json",), True), (("--overlay", "maps"), True), (("--fps", "50", *AT_ONCE), False)]
)
def test_maps_are_computed_where_somebody_sees_them(options, asked, bundle, study, capfd, monkeypatch, tmp_path):
    """A line for people says nothing of a map, and nothing of one that was not asked for."""
    monkeypatch.chdir(tmp_path)
    predict, explained = Clip.predict, []

    def spied(self, pixels, *, explain=True):
        explained.append(explain)
        return predict(self, pixels, explain=explain)

    monkeypatch.setattr(Clip, "predict", spied)
    ran = edgekit(capfd, "run", bundle, study, *options)
    assert ran.code == 0, ran.err
    assert set(explained) == {asked}
    assert "asked for" not in ran.out


@pytest.mark.parametrize(
    ("live", "expected"),
    [
        (Live(), 1000),
        (Live(fps=30), 1000),
        (Live(fps=30, deadline_ms=5000), 5000),
        (Live(native=True, deadline_ms=200), 1000),
        (Live(fps=1), 4000),
        (Live(fps=1 / 60), 60_000),
    ],
)
def test_a_frame_that_may_take_long_has_not_hung(live, expected):
    """The watchdog never waits less than the deadline that the user allows; what is named by hand holds."""
    assert command._frame_limit_ms(None, live, supervised=True) == expected
    assert command._frame_limit_ms(7000, live, supervised=True) == 7000
    for wrong in (0, -1, float("nan"), float("inf"), 1e9):
        with pytest.raises(DataError, match="--frame-limit-ms is above 0"):
            command._frame_limit_ms(wrong, live, supervised=True)


def test_the_limit_of_a_frame_reaches_the_watchdog(bundle, study, capfd, monkeypatch):
    """For the first frame it is never shorter."""
    opened, init = [], supervisor.Supervised.__init__

    def spied(self, *arguments, **options):
        opened.append(options["options"])
        init(self, *arguments, **options)

    monkeypatch.setattr(supervisor.Supervised, "__init__", spied)
    for options in (("--deadline-ms", "5000", "--fps", "20"), ("--supervise", "--frame-limit-ms", "1500")):
        assert edgekit(capfd, "run", bundle, study, *options).code == 0
    assert [(each.frame_limit_ms, each.first_frame_limit_ms) for each in opened] == [(5000, 5000), (1500, 2000)]
    assert_refused(edgekit(capfd, "run", bundle, study, "--frame-limit-ms", "1500"), "for an engine that is watched")


def test_a_file_with_times_that_cannot_be_played_does_not_end_the_others(tmp_path, bundle, capfd):
    """A cine whose frames are a year apart is one error; the next one is played."""
    folder = tmp_path / "cines"
    folder.mkdir()
    (folder / "a.dcm").write_bytes(dicom_bytes(FRAMES[:3], FrameTime="20"))
    (folder / "b.dcm").write_bytes(dicom_bytes(FRAMES[:3], FrameTime="70000"))
    (folder / "c.dcm").write_bytes(dicom_bytes(FRAMES[:3], FrameTime="20"))
    (folder / "d.dcm").write_bytes(dicom_bytes(FRAMES[:3], FrameTime="1e11"))
    ran = edgekit(capfd, "run", bundle, folder, "--fps", "native", "--json", *AT_ONCE)
    assert ran.code == 1
    assert "internal" not in ran.err
    errors = [(Path(line["input"]).name, line["frame"]) for line in ran.lines if "error" in line]
    assert errors == [("b.dcm", 1), ("d.dcm", 0)]
    assert any(line["input"].endswith("c.dcm") for line in ran.lines if "error" not in line)
