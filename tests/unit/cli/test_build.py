"""`edgekit build`, and what `edgekit run` says of the engine that answers."""

from __future__ import annotations

import dataclasses
import os
import re
import sys

import pytest
from command_line import assert_refused, edgekit
from device_bundles import frame, write_device_bundle
from PIL import Image
from trt_device import engines_of_the_bundle, install, numpy_engine, write_built_bundle

from edgekit.cli import build
from edgekit.errors import TargetError
from edgekit.profiler import engine_choice
from edgekit.profiler.clock import Budget
from edgekit.runtime.classifier import load


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(engine_choice, "BUDGET", Budget(seconds=0.0, min_samples=40, max_seconds=20.0))


@pytest.fixture
def path(tmp_path):
    return write_built_bundle(tmp_path / "x.edgekit")


@pytest.fixture
def picture(tmp_path):
    Image.fromarray(frame()).save(tmp_path / "frame.png")
    return tmp_path / "frame.png"


def prepared(monkeypatch, tmp_path, **engines):
    return install(monkeypatch, tmp_path / "cache", engine=engines_of_the_bundle(**engines))


def test_a_bundle_is_made_ready(monkeypatch, tmp_path, path, capfd):
    """Each engine is a line that says PASS, what was built, how near it is and how fast; the last one says which answers."""
    device = prepared(monkeypatch, tmp_path, float16=numpy_engine(seconds=0.004))
    ran = edgekit(capfd, "build", path)
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert [line.split(";")[0] for line in lines[:2]] == ["PASS  tensorrt-int8", "PASS  tensorrt-fp16"]
    assert "3 golden frames, largest difference 0" in lines[0]
    assert "built in 0 s (it was not built here yet)" in lines[0]
    assert "ms a frame" in lines[0]
    assert lines[2] == f"tensorrt-int8 answers from now on; engines are kept in {device.cache}"
    again = edgekit(capfd, "build", path).out
    assert "nothing was done: what an earlier build found still holds" in again
    assert again.splitlines()[:2] == [re.sub(r"built in .*?\), ", "already built, ", line) for line in lines[:2]]
    assert "nothing was done" not in edgekit(capfd, "build", path, "--again").out


def test_the_document(monkeypatch, tmp_path, path, capfd):
    """With --json stdout is one document: bundle, digest, cache, engines and their order."""
    device = prepared(monkeypatch, tmp_path, int8=numpy_engine(off=0.5))
    ran = edgekit(capfd, "build", path, "--json")
    assert ran.code == 0
    document = ran.document
    assert set(document) == {"bundle", "digest", "cache", "engines", "order", "notes"}
    assert (document["order"], document["cache"]) == (["tensorrt-fp16"], str(device.cache))
    first, second = document["engines"]
    assert (first["status"], first["latency_ms"], second["status"]) == ("FAIL", None, "PASS")
    assert first["reason"] == "this machine's arithmetic differs from the one the bundle was proven with"
    assert set(second["built"]) == {"engine", "entry", "sha256", "size_bytes", "cached", "build_seconds", "reason", "power"}


def test_what_a_line_says_of_the_maps():
    """The largest difference of a map stands beside that of the logits, where maps were compared."""
    one = engine_choice.Tried(engine="x", status="PASS", reason="", built=None, frames=3, max_difference=0.25, tolerance=0.5)
    logits = "PASS  x; 3 golden frames, largest difference 0.25 logit units of 0.5 allowed"
    assert build._line(one) == logits
    assert build._line(dataclasses.replace(one, max_map_difference=0.125)) == f"{logits}, of a map 0.125"


def test_where_none_passes(monkeypatch, tmp_path, path, capfd):
    """The exit code is 1, each engine says why, and the document is whole all the same."""
    prepared(monkeypatch, tmp_path, int8=numpy_engine(off=0.5), float16=numpy_engine(off=-0.5))
    ran = edgekit(capfd, "build", path)
    assert_refused(ran, "no engine of")
    assert ran.out.count("FAIL") == 2
    ran = edgekit(capfd, "build", path, "--json")
    assert (ran.code, ran.document["order"]) == (1, [])


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("library", "TensorRT cannot be loaded"),
        ("other-engine", "no engine that is built on the device, only openvina"),
        ("folder", "others than its owner may write"),
    ],
)
def test_what_cannot_be_done_is_one_error(monkeypatch, tmp_path, path, capfd, fault, says):
    """A missing library, a bundle for another device and an unsafe cache are refused with a hint, and no document."""
    device = prepared(monkeypatch, tmp_path)
    if fault == "library":
        monkeypatch.setitem(sys.modules, "tensorrt", None)
    if fault == "other-engine":
        write_device_bundle(path, fault="unknown-engine")
    if fault == "folder":
        device.cache.mkdir()
        device.cache.chmod(0o777)
    ran = edgekit(capfd, "build", path, "--json")
    assert_refused(ran, says)
    assert ran.out == ""


def test_answers_say_which_engine_gave_them(monkeypatch, tmp_path, path, picture, capfd):
    """Before the build the fallback answers and the reason names the engines that did not; after it the reason is empty."""
    prepared(monkeypatch, tmp_path)
    line = edgekit(capfd, "run", path, picture, "--json").lines[0]
    assert line["engine"] == "openvino"
    assert line["reason"].startswith(
        "answered by openvino, because tensorrt-int8: the bundle's engines were not built and tried on this device yet; "
    )
    assert "[answered by openvino, because" in edgekit(capfd, "run", path, picture).out
    edgekit(capfd, "build", path)
    line = edgekit(capfd, "run", path, picture, "--json").lines[0]
    assert (line["engine"].partition("-")[0], line["reason"]) == ("tensorrt", "")


def test_what_libraries_print_is_not_in_the_document(monkeypatch, tmp_path, path, capfd):
    """A library that writes to stdout while it builds does not spoil the document; its words are on stderr."""
    device = prepared(monkeypatch, tmp_path)
    real = device.trt.Builder.build_serialized_network

    def chatty(*arguments):
        os.write(1, b"[TRT] building\n")
        return real(*arguments)

    monkeypatch.setattr(device.trt.Builder, "build_serialized_network", chatty)
    ran = edgekit(capfd, "build", path, "--json")
    assert ran.document["order"]
    assert "[TRT] building" in ran.err


def test_a_named_engine_that_was_refused_does_not_run(monkeypatch, tmp_path, path, picture, capfd):
    """After a build that refused the int8 engine, the library's `load` with its name is an error with the reason."""
    prepared(monkeypatch, tmp_path, int8=numpy_engine(off=0.5))
    edgekit(capfd, "build", path)
    with pytest.raises(TargetError, match="refused when it was built here"):
        load(path, engine="tensorrt-int8")
