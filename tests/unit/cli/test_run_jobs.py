"""`edgekit run --jobs N`: the same lines and the same overlays, in the same order."""

from __future__ import annotations

import numpy as np
import pytest
from command_line import assert_refused, edgekit
from device_bundles import frame, write_device_bundle
from PIL import Image


@pytest.fixture
def path(tmp_path):
    return write_device_bundle(tmp_path / "x.edgekit")


@pytest.fixture
def folder(tmp_path):
    """Twelve frames, one of them broken, two of them of the same name."""
    place = tmp_path / "frames"
    (place / "more").mkdir(parents=True)
    for seed in range(10):
        Image.fromarray(frame(seed)).save(place / f"{seed}.png")
    (place / "4.png").write_bytes((place / "4.png").read_bytes()[:60])
    for seed in (20, 21):
        Image.fromarray(frame(seed)).save(place / "more" / f"{seed - 20}.png")
    return place


def told(ran):
    """The lines without what was timed, and without the overlay's folder."""
    lines = []
    for line in ran.lines:
        line.pop("latency_ms", None)
        lines.append({**line, "overlay": line["overlay"].rsplit("/", 1)[1] if line.get("overlay") else None})
    return lines


def test_lines_and_overlays_are_the_same(path, folder, tmp_path, capfd):
    """Three at a time give what one after the other gives: order, answers, the error in its place, names and pixels of overlays, and the exit code."""
    single = edgekit(capfd, "run", path, folder, "--json", "--overlay", tmp_path / "one")
    several = edgekit(capfd, "run", path, folder, "--json", "--overlay", tmp_path / "three", "--jobs", "3")
    assert told(several) == told(single)
    assert (single.code, several.code, len(single.lines)) == (1, 1, 12)
    assert sum("error" in line for line in single.lines) == 1
    drawn = sorted(picture.name for picture in (tmp_path / "one").iterdir())
    assert drawn == sorted(picture.name for picture in (tmp_path / "three").iterdir())
    assert "0-0000~2.png" in drawn
    for name in drawn:
        np.testing.assert_array_equal(*(np.asarray(Image.open(tmp_path / place / name)) for place in ("one", "three")))


def test_sentences_are_the_same(path, folder, capfd):
    """What people read, and what they are told of errors, does not depend on the number of jobs but for the time."""
    single, several = (edgekit(capfd, "run", path, folder, "--jobs", str(jobs)) for jobs in (1, 3))
    without_time = [[line.split("  ")[:4] for line in ran.out.splitlines()] for ran in (single, several)]
    assert without_time[0] == without_time[1]
    assert single.err == several.err


@pytest.mark.parametrize("option", [("--fps", "30"), ("--aggregate", "mean"), ("--smooth", "4"), ("--supervise",)])
def test_what_needs_an_order_is_refused(path, folder, capfd, option):
    """A live source and a clip have one frame after the other."""
    assert_refused(edgekit(capfd, "run", path, folder, "--jobs", "2", *option), "--jobs answers files each for itself")
