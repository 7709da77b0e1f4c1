"""`docs/examples/classify.cpp` compiles here against the pip package of OpenVINO, and answers as edgekit does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import repository
from compile_builders import write_project
from device_bundles import MANY, THREE, TWO, write_device_bundle

import edgekit
from edgekit.bundle.manifest import Decision
from edgekit.bundle.reader import open_bundle
from edgekit.cli.main import main

EXAMPLES = repository.ROOT / "docs" / "examples"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed"),
    pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler is installed"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    """The compiled example; a warning of the compiler is an error."""
    build = tmp_path_factory.mktemp("example")
    openvino = Path(find_spec("openvino").submodule_search_locations[0])
    configure = ["cmake", "-S", str(EXAMPLES), "-B", str(build), f"-DOpenVINO_DIR={openvino / 'cmake'}", "-DCMAKE_CXX_FLAGS=-Werror"]
    for command in (configure, ["cmake", "--build", str(build)]):
        ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    return build / "classify"


@pytest.fixture(scope="module")
def quantized(tmp_path_factory) -> Path:
    """A compiled bundle, int8 with a map."""
    project = write_project(tmp_path_factory.mktemp("project"))
    assert main(["compile", str(project.recipe), "--workdir", str(project.workdir), "--out", str(project.bundle)]) == 0
    return project.bundle


def _unpacked(bundle: Path, folder: Path) -> Path:
    command = [sys.executable, str(EXAMPLES / "unpack.py"), str(bundle), str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return folder


def _arguments(folder: Path) -> list[str]:
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    settings = [f"{key}={value}" for key, value in manifest["engines"][0]["settings"].items()]
    return [manifest["output"]["task"], str(manifest["decision"]["temperature"]), *settings]


def _run(program: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(program), str(folder / "model/openvino.xml"), str(folder / "golden/frames.npy"), *(arguments or _arguments(folder))]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def _answers(program: Path, folder: Path) -> list[dict]:
    ended = _run(program, folder)
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def test_it_answers_as_edgekit_does(program, quantized, tmp_path):
    """On each golden frame of an int8 bundle the logits, the maps' means and their peaks are edgekit's, and the logits are the golden ones."""
    classifier, opened = edgekit.load(quantized), open_bundle(quantized)
    golden = opened.load_array(opened.manifest.golden.frames)
    expected = opened.load_array(opened.manifest.golden.logits["openvino"])
    found = _answers(program, _unpacked(quantized, tmp_path / "bundle"))
    assert [answer["frame"] for answer in found] == list(range(len(golden)))
    for answer, frame, logits in zip(found, golden, expected, strict=True):
        raw = classifier.engine.infer(np.ascontiguousarray(frame[None]))
        np.testing.assert_allclose(answer["logits"], raw.logits, rtol=0, atol=1e-5)
        np.testing.assert_allclose(answer["logits"], logits, rtol=0, atol=opened.manifest.golden.tolerance["openvino"])
        np.testing.assert_allclose(answer["map"]["means"], raw.cam.mean(axis=(1, 2)), rtol=0, atol=1e-4)
        assert [answer["map"]["rows"], answer["map"]["columns"]] == list(raw.cam.shape[1:])
        assert answer["map"]["peak_cells"] == [int(cam.argmax()) for cam in raw.cam]


@pytest.mark.parametrize(
    ("output", "outputs"), [(THREE, 3), (TWO, 2), (TWO, 1), (MANY, 3)], ids=["multiclass", "binary-two", "binary-one", "multilabel"]
)
def test_probabilities_of_every_task(program, tmp_path, output, outputs):
    """Softmax or sigmoid, by task and number of outputs, of the logits over the temperature: the probabilities are edgekit's."""
    bundle = write_device_bundle(
        tmp_path / "by-hand.edgekit", output=output, outputs=outputs, decision=Decision(temperature=1.75, thresholds={})
    )
    classifier, opened = edgekit.load(bundle), open_bundle(bundle)
    golden = opened.load_array(opened.manifest.golden.frames)
    for answer, frame in zip(_answers(program, _unpacked(bundle, tmp_path / "bundle")), golden, strict=True):
        probability = list(classifier.predict(frame[..., 0]).probabilities.values())
        np.testing.assert_allclose(answer["probabilities"], probability[-outputs:], rtol=0, atol=1e-6)


def test_a_bundle_without_a_map(program, tmp_path):
    """Where the graph has no map, none is printed."""
    bundle = write_device_bundle(tmp_path / "by-hand.edgekit", output=THREE, cam=False)
    assert all("map" not in answer for answer in _answers(program, _unpacked(bundle, tmp_path / "bundle")))


def test_a_precision_that_is_not_pinned_is_refused(program, quantized, tmp_path):
    """Without the pinned precision the program does not answer: the CPU might choose another than the proven one."""
    folder = _unpacked(quantized, tmp_path / "bundle")
    arguments = [argument for argument in _arguments(folder) if not argument.startswith("INFERENCE_PRECISION_HINT")]
    ended = _run(program, folder, *arguments)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert "the bundle pins" in ended.stderr


def test_frames_of_another_size_are_refused(program, quantized, tmp_path):
    """Bytes that are no whole number of frames end the program with a message."""
    folder = _unpacked(quantized, tmp_path / "bundle")
    frames = folder / "golden/frames.npy"
    frames.write_bytes(frames.read_bytes()[:-1])
    ended = _run(program, folder)
    assert ended.returncode == 1
    assert "frames of the size the graph takes" in ended.stderr
