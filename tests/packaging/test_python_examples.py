"""The Python programs of `docs/examples/` check, unpack and answer as edgekit does, without importing it."""

from __future__ import annotations

import ast
import hashlib
import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import repository
from bundle_builders import FAULTS, write_tiny_bundle
from device_bundles import MANY, THREE, TWO, write_device_bundle
from PIL import Image

import edgekit
from edgekit.bundle.manifest import Decision
from edgekit.bundle.reader import open_bundle

EXAMPLES = repository.ROOT / "docs" / "examples"


def _python(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def _unpack(bundle: Path, folder: Path) -> Path:
    ended = _python("unpack.py", bundle, folder)
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.mark.parametrize("program", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_edgekit_is_not_imported(program):
    """No example needs edgekit."""
    tree = ast.parse((EXAMPLES / program).read_text("utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not [name for name in imported if name.split(".")[0] == "edgekit"]


def test_unpacking(tmp_path):
    """A whole bundle is written member by member, and its digest printed."""
    bundle = write_tiny_bundle(tmp_path / "tiny.edgekit")
    ended = _python("unpack.py", bundle, tmp_path / "out")
    opened = open_bundle(bundle)
    assert ended.stdout.split() == ["digest", opened.digest]
    written = {str(path.relative_to(tmp_path / "out")): path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert hashlib.sha256(written.pop("manifest.json")).hexdigest() == opened.digest
    assert written == {name: bytes(data) for name, data in opened.members.items() if name != "manifest.json"}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_bundle_is_never_half_believed(tmp_path, fault):
    """With any fault of the container or the manifest there is a message, or exactly the members that the manifest lists with their digests."""
    bundle = write_tiny_bundle(tmp_path / "tiny.edgekit", fault)
    read_bundle = runpy.run_path(str(EXAMPLES / "unpack.py"))["read_bundle"]
    try:
        content = read_bundle(bundle)
    except SystemExit as stop:
        message = str(stop.code)
    else:
        message = ""
    if message:
        assert str(bundle) in message
        return
    listed = json.loads(content.pop("manifest.json"))["members"]
    assert {name: hashlib.sha256(data).hexdigest() for name, data in content.items()} == {
        name: entry["sha256"] for name, entry in listed.items()
    }


@pytest.mark.parametrize(
    "fault",
    [
        "truncated",
        "flipped-byte",
        "missing-member",
        "unlisted-member",
        "duplicate-member",
        "replaced-member",
        "name-parent",
        "name-absolute",
    ],
)
def test_a_damaged_bundle_is_not_unpacked(tmp_path, fault):
    """Nothing is written of a bundle that is not what its manifest lists, or whose names lead out of the folder."""
    bundle = write_tiny_bundle(tmp_path / "tiny.edgekit", fault)
    ended = _python("unpack.py", bundle, tmp_path / "out")
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("output", "outputs"), [(THREE, 3), (TWO, 2), (TWO, 1), (MANY, 3)], ids=["multiclass", "binary-two", "binary-one", "multilabel"]
)
def test_answers_are_edgekits(tmp_path, output, outputs):
    """Probabilities, answer and the peak of the map of a picture are edgekit's."""
    thresholds = dict.fromkeys(output.labels, 0.6) if output is MANY else {}
    decision = Decision(temperature=1.75, thresholds=thresholds)
    bundle = write_device_bundle(tmp_path / "by-hand.edgekit", output=output, outputs=outputs, decision=decision)
    pixels = np.random.default_rng(5).integers(0, 256, size=(37, 53, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "frame.png")
    prediction = edgekit.load(bundle).predict(pixels)
    ended = _python("classify.py", _unpack(bundle, tmp_path / "bundle"), tmp_path / "frame.png")
    assert ended.returncode == 0, ended.stderr
    probabilities, answer, peak = ended.stdout.splitlines()
    assert ast.literal_eval(probabilities) == pytest.approx(prediction.probabilities, abs=1e-12)
    assert answer == (str(list(prediction.label)) if output is MANY else prediction.label)
    row, column = divmod(int(prediction.cam.argmax()), prediction.cam.shape[1])
    assert peak.startswith(f"strongest evidence for {prediction.cam_label}: cell {row}, {column},")


def test_a_map_that_does_not_add_up_is_not_shown(tmp_path):
    """The example withholds what edgekit withholds."""
    bundle = write_device_bundle(tmp_path / "by-hand.edgekit", output=THREE, fault="map-does-not-add-up")
    Image.new("L", (16, 16), 90).save(tmp_path / "frame.png")
    ended = _python("classify.py", _unpack(bundle, tmp_path / "bundle"), tmp_path / "frame.png")
    assert "must not be shown" in ended.stdout
    assert "strongest evidence" not in ended.stdout
