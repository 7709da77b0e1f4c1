"""`edgekit run --overlay`: its options reach the picture, are said in the answer, and are checked before any work."""

import numpy as np
import pytest
from command_line import assert_refused, edgekit
from device_bundles import THREE, frame, write_device_bundle
from PIL import Image

from edgekit.imaging import colormaps


@pytest.fixture
def bundle(tmp_path):
    return write_device_bundle(tmp_path / "x.edgekit", output=THREE)


@pytest.fixture
def image(tmp_path):
    Image.fromarray(np.full((16, 16), 255, dtype=np.uint8)).save(tmp_path / "x.png")
    return tmp_path / "x.png"


def drawn(capfd, bundle, image, folder, *options):
    """The picture and the line of its answer."""
    line = edgekit(capfd, "run", bundle, image, "--overlay", folder, "--json", *options).lines[0]
    return np.asarray(Image.open(line["overlay"])), line


def test_each_option_changes_the_picture(tmp_path, bundle, image, capfd):
    """No option is accepted and forgotten."""
    Image.fromarray(frame(1)).save(image)
    ways = [
        (),
        ("--colormap", "cividis"),
        ("--colormap", "coolwarm"),
        ("--contours",),
        ("--annotate",),
        ("--explain", "b"),
        ("--explain", "c", "--against", "b"),
        ("--explain", "a", "--min-probability", "1"),
    ]
    pictures = [drawn(capfd, bundle, image, tmp_path / str(index), *way)[0] for index, way in enumerate(ways)]
    assert len({picture.tobytes() for picture in pictures}) == len(ways)


def test_an_overlay_that_is_left_empty_says_so(tmp_path, bundle, image, capfd):
    """Below the least probability the picture is the frame, and `reason` says why, in JSON and in words."""
    options = ("--explain", "b", "--min-probability", "0.5")
    picture, line = drawn(capfd, bundle, image, tmp_path / "maps", *options)
    assert (picture == 255).all()
    assert line["label"] == "c"
    assert line["reason"].startswith("the map of b is not drawn: its probability")
    assert "[the map of b is not drawn" in edgekit(capfd, "run", bundle, image, "--overlay", tmp_path / "maps", *options).out
    assert drawn(capfd, bundle, image, tmp_path / "maps", "--min-probability", "0.5")[1]["reason"] == ""


REFUSED = {
    "no folder": (("--contours",), "need --overlay"),
    "no folder, but a default": (("--colormap", "inferno"), "need --overlay"),
    "unknown colours": (("--overlay", "maps", "--colormap", "rainbow"), "no colour map 'rainbow'"),
    "no probability": (("--overlay", "maps", "--min-probability", "50"), "between 0 and 1"),
    "unknown label": (("--overlay", "maps", "--explain", "d"), "--explain: 'd' is not a label"),
    "unknown other label": (("--overlay", "maps", "--explain", "a", "--against", "d"), "--against: 'd' is not a label"),
    "against alone": (("--overlay", "maps", "--against", "a"), "needs --explain"),
    "against itself": (("--overlay", "maps", "--explain", "a", "--against", "a"), "needs --explain with another"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_drawn_is_refused_before_any_frame(options, message, tmp_path, bundle, image, capfd, monkeypatch):
    """A wrong option ends the command with one message; no frame is answered and nothing is written."""
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert_refused(edgekit(capfd, "run", bundle, image, *options), message)
    assert sorted(tmp_path.iterdir()) == before


def test_the_help_names_every_colour_map(capfd, monkeypatch):
    """Who reads `--help` knows what may be asked for."""
    monkeypatch.setenv("COLUMNS", "300")
    shown = edgekit(capfd, "run", "--help").out
    assert all(name in shown for name in colormaps.COLORMAPS)
