"""Bad input: one clear line, a hint, the right exit code, no traceback, and nothing left behind. One table a kind of input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bundle_builders import tiny_bundle
from command_line import assert_refused, edgekit, files_below
from compile_builders import Project
from device_bundles import write_device_bundle
from PIL import Image

import edgekit as package
from edgekit.bundle import reader
from edgekit.cli.main import main
from edgekit.errors import DataError

FLIPPED_BITS = 200


def commands_on(bundle: Path, project: Project, out: Path) -> dict[str, list[object]]:
    """Every command that opens a bundle, with outputs that it would write below `out`."""
    return {
        "run": ["run", bundle, project.frame, "--overlay", out / "maps", "--json"],
        "evaluate": ["evaluate", bundle, "--data", project.manifest, "--json"],
        "profile": ["profile", bundle, "--seconds", "0.5", "--html", out / "page.html", "--json"],
        "inspect": ["inspect", bundle, "--json"],
        "verify": ["verify", bundle, "--json"],
    }


COMMANDS = ("run", "evaluate", "profile", "inspect", "verify")

BUNDLES = {
    "missing": (lambda _path, _good: None, "does not exist"),
    "a folder": (lambda path, _good: path.mkdir(), "is a folder"),
    "empty": (lambda path, _good: path.touch(), "is empty"),
    "text": (lambda path, _good: path.write_text("hello"), "is not an edgekit bundle"),
    "a picture": (lambda path, _good: Image.new("L", (9, 9)).save(path, "PNG"), "is not an edgekit bundle"),
    "cut in half": (lambda path, good: path.write_bytes(good[: len(good) // 2]), "is damaged"),
    "cut by a byte": (lambda path, good: path.write_bytes(good[:-1]), "is damaged"),
    "with more behind": (lambda path, good: path.write_bytes(good + b"\n"), "is damaged"),
    "another ZIP": (lambda path, _good: path.write_bytes(tiny_bundle("rezipped")), "was not written by edgekit"),
    "too new": (lambda path, _good: path.write_bytes(tiny_bundle("manifest-version-2")), "format version 2"),
    "with an unknown key": (lambda path, _good: path.write_bytes(tiny_bundle("manifest-unknown-key")), "tempature: unknown key"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", BUNDLES)
def test_a_bundle_that_is_none(kind, command, project, tmp_path, capfd):
    """What is no whole bundle is refused by every command, before anything is written."""
    spoil, says = BUNDLES[kind]
    path, out = tmp_path / "x.edgekit", tmp_path / "out"
    out.mkdir()
    spoil(path, project.bundle.read_bytes())
    ran = edgekit(capfd, *commands_on(path, project, out)[command])
    assert_refused(ran, says)
    assert str(path) in ran.err
    assert ran.out == ""
    assert files_below(out) == {}
    assert list(out.iterdir()) == []


def flipped_positions(bundle: Path) -> list[int]:
    """Bits over the whole file, and some in each kind of place: headers, manifest, model, weights, golden frames, directory."""
    data = bundle.read_bytes()
    spread = np.linspace(0, 8 * len(data) - 1, FLIPPED_BITS).astype(int).tolist()
    members = reader.open_bundle(bundle).members
    places = [0, 10, 26, 30, len(data) - 1, len(data) - 22, len(data) - 60]
    for name, content in members.items():
        start = data.index(bytes(content))
        places += [start - len(name) - 30, start - 1, start, start + len(content) // 2, start + len(content) - 1]
    return spread + [8 * place + place % 8 for place in places]


def test_a_flipped_bit_is_refused_wherever_it_is(project, tmp_path, capfd):
    """One flipped bit is refused: of a sample over the whole file, by the program as a user meets it."""
    data, path, out = bytearray(project.bundle.read_bytes()), tmp_path / "x.edgekit", tmp_path / "out"
    positions = flipped_positions(project.bundle)
    assert len(positions) > FLIPPED_BITS
    for number, position in enumerate(positions):
        data[position // 8] ^= 1 << position % 8
        path.write_bytes(data)
        data[position // 8] ^= 1 << position % 8
        ran = edgekit(capfd, *commands_on(path, project, out)[COMMANDS[number % len(COMMANDS)]])
        assert_refused(ran, str(path))
        assert ran.out == ""
    assert not out.exists()
    path.write_bytes(data)
    assert main(["inspect", str(path)]) == 0


ENGINES = {
    "unknown-engine": "'openvina' is not known",
    "engine-too-old": "is older than 9999.1",
    "other-architecture": "this machine is",
    "model-not-xml": "refuses the model",
    "more-outputs": "are not the 2 logits",
    "map-of-another-size": "computes maps of the shape",
    "other-input-size": "takes frames of the shape",
    "setting-that-writes": "'CACHE_DIR'",
    "precision-not-pinned": "does not pin",
}


@pytest.mark.parametrize("command", ["run", "evaluate", "profile"])
@pytest.mark.parametrize("fault", ENGINES)
def test_a_bundle_that_cannot_run_here(fault, command, project, tmp_path, capfd, monkeypatch):
    """A consistent bundle that this machine or this edgekit cannot run is refused with the reason."""
    monkeypatch.chdir(tmp_path)
    path = write_device_bundle(tmp_path / "x.edgekit", fault=fault)
    ran = edgekit(capfd, *commands_on(path, project, tmp_path / "out")[command])
    assert_refused(ran, ENGINES[fault])
    assert [item.name for item in tmp_path.iterdir()] == ["x.edgekit"]


FRAMES = {
    "NaN": (np.full((8, 8), np.nan, dtype=np.float32), "NaN or infinite"),
    "infinite": (np.full((8, 8), np.inf), "NaN or infinite"),
    "float": (np.zeros((8, 8)), "is uint8, not float64"),
    "16 bits": (np.zeros((8, 8), dtype=np.uint16), "is uint8, not uint16"),
    "no rows": (np.zeros((0, 8), dtype=np.uint8), "is empty"),
    "no columns": (np.zeros((8, 0, 3), dtype=np.uint8), "is empty"),
    "one axis": (np.zeros(8, dtype=np.uint8), "not (8,)"),
    "an alpha channel": (np.zeros((8, 8, 4), dtype=np.uint8), "not (8, 8, 4)"),
    "a batch": (np.zeros((1, 8, 8, 3), dtype=np.uint8), "not (1, 8, 8, 3)"),
    "too large": (np.broadcast_to(np.uint8(0), (10_000, 10_000)), "more than"),
    "a list": ([[0, 1], [2, 3]], "not list"),
    "nothing": (None, "not NoneType"),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_a_frame_that_is_none(kind, tmp_path):
    """`predict` refuses everything that is not a frame with a `DataError` that says what it got."""
    frame, says = FRAMES[kind]
    classifier = package.load(write_device_bundle(tmp_path / "x.edgekit"))
    with pytest.raises(DataError) as caught:
        classifier.predict(frame)
    assert says in caught.value.message


UNWRITABLE = {
    "below a file": lambda project, _tmp_path: project.recipe / "x",
    "where nothing can be made": lambda _project, _tmp_path: Path("/proc/edgekit/x"),
}

OUTPUTS = {
    "compile --out": lambda project, place, spare: ["compile", project.recipe, "--workdir", spare, "--out", f"{place}.edgekit"],
    "compile --out folder": lambda project, place, spare: ["compile", project.recipe, "--workdir", spare, "--out", place],
    "compile --workdir": lambda project, place, spare: ["compile", project.recipe, "--workdir", place, "--out", spare],
    "run --overlay": lambda project, place, _spare: ["run", project.bundle, project.frame, "--overlay", place],
    "profile --html": lambda project, place, _spare: ["profile", project.bundle, "--html", place],
    "demo --out": lambda _project, place, _spare: ["demo", "--out", place],
}


@pytest.mark.parametrize("where", UNWRITABLE)
@pytest.mark.parametrize("option", OUTPUTS)
def test_an_output_that_cannot_be_written(option, where, project, tmp_path, capfd):
    """An output that cannot be written is refused before any work: nothing is printed but the error, nothing is made."""
    place = UNWRITABLE[where](project, tmp_path)
    before = files_below(project.folder).keys()
    ran = edgekit(capfd, *OUTPUTS[option](project, place, tmp_path / "spare"))
    assert_refused(ran, str(place.parent))
    assert len(ran.err.splitlines()) == 2
    assert ran.out == ""
    assert list(tmp_path.iterdir()) == []
    assert files_below(project.folder).keys() == before


@pytest.mark.parametrize(("option", "taken"), [("compile --out", "x.edgekit"), ("profile --html", "x")], ids=["compile", "profile"])
def test_an_output_that_is_a_folder(option, taken, project, tmp_path, capfd):
    """A folder under the name of the result is refused before any work."""
    (tmp_path / taken).mkdir()
    ran = edgekit(capfd, *OUTPUTS[option](project, tmp_path / "x", tmp_path / "spare"))
    assert_refused(ran, f"{taken} is a folder")
    assert [path.name for path in tmp_path.iterdir()] == [taken]


def test_overlays_into_a_file(project, tmp_path, capfd):
    """A file where the folder of the overlays should be is named, and stays."""
    taken = tmp_path / "maps"
    taken.write_text("mine")
    assert_refused(edgekit(capfd, "run", project.bundle, project.frame, "--overlay", taken), "is a file, not a folder")
    assert taken.read_text() == "mine"


def test_overlays_of_a_bundle_without_maps(project, tmp_path, capfd):
    """Overlays of a model without a map are refused at once, with the reason."""
    path = write_device_bundle(tmp_path / "x.edgekit", cam=False)
    assert_refused(edgekit(capfd, "run", path, project.frame, "--overlay", tmp_path / "maps"), "the head is not linear")
    assert not (tmp_path / "maps").exists()


INPUTS = {
    "missing": (lambda _path: None, "no such file"),
    "empty": (lambda path: path.touch(), "is empty"),
    "text": (lambda path: path.write_text("hello"), "not a picture"),
    "an empty folder": (lambda path: path.mkdir(), "holds no frame"),
    "a PNG cut short": (lambda path: path.write_bytes(png()[:-20]), "is damaged or truncated"),
    "a PNG header": (lambda path: path.write_bytes(png()[:16]), "is damaged"),
    "a JPEG cut short": (lambda path: path.write_bytes(b"\xff\xd8\xff\xe0" + bytes(50)), "is damaged"),
    "a DICOM without pixels": (lambda path: path.write_bytes(bytes(128) + b"DICM"), ""),
    "a GIF": (lambda path: path.write_bytes(b"GIF89a" + bytes(50)), "GIF"),
    "a bundle": (lambda path: path.write_bytes(tiny_bundle()), "ZIP archive"),
}


def png() -> bytes:
    """A whole PNG of 8 × 8 random pixels."""
    import io

    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("command", ["run", "profile"])
def test_an_input_that_is_no_frame(kind, command, project, tmp_path, capfd):
    """A file that is no frame is refused with its name and what is wrong with it."""
    spoil, says = INPUTS[kind]
    path = tmp_path / "frame.png"
    spoil(path)
    ran = edgekit(capfd, *{"run": ["run", project.bundle, path], "profile": ["profile", project.bundle, "--frames", path]}[command])
    assert_refused(ran, says)
    assert str(path) in ran.err
    assert ran.out == ""


def test_names_of_files_cannot_write_on_the_terminal(project, tmp_path, capfd):
    """Line breaks and escape sequences in a name are spelled out, so an error stays one line."""
    path = tmp_path / "a\nerror: b\x1b[2J.png"
    path.write_text("hello")
    ran = edgekit(capfd, "run", project.bundle, path)
    assert_refused(ran, "\\x1b[2J.png")
    assert "\x1b" not in ran.err


LIMITS = {
    "latency_ms.p98 > 1": "'latency_ms.p98'",
    "banana": "'banana'",
    "latency_ms.p50 > soon": "soon",
}


@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_that_cannot_be_read(limit, project, capfd):
    """A limit that names no figure or is none is refused before anything is measured."""
    ran = edgekit(capfd, "profile", project.bundle, "--fail-if", limit)
    assert_refused(ran, LIMITS[limit])
    assert len(ran.err.splitlines()) == 2
