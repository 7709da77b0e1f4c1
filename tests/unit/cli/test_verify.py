"""`edgekit verify`: its lines, its document, its exit code."""

from __future__ import annotations

import datetime as dt
import json
import platform
import sys
from pathlib import Path

import pytest
from command_line import assert_refused, edgekit
from device_bundles import write_device_bundle
from trt_device import engines_of_the_bundle, install, numpy_engine, write_built_bundle

from edgekit.bundle.reader import open_bundle
from edgekit.errors import MissingEngineError
from edgekit.profiler import engine_choice, verification
from edgekit.profiler.clock import Budget
from edgekit.runtime.engines import cuda as cuda_layer


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    quick = Budget(seconds=0.0, min_samples=120, max_seconds=20.0)  # half may be told as warm-up, and a median wants fifty
    monkeypatch.setattr(engine_choice, "BUDGET", quick)
    monkeypatch.setattr(verification, "BUDGET", quick)


@pytest.fixture
def path(monkeypatch, tmp_path, capfd):
    """A bundle whose engines were built on a device made of the fakes."""
    engines = {**engines_of_the_bundle(), b"": numpy_engine()}
    install(monkeypatch, tmp_path / "cache", engine=engines)
    bundle = write_built_bundle(tmp_path / "x.edgekit")
    assert edgekit(capfd, "build", bundle).code == 0
    return bundle


@pytest.mark.parametrize(
    ("fault", "status"), [("nan-logits", "FAIL"), ("golden-of-another-machine", "FAIL"), ("engine-too-old", "NOT RUN")]
)
def test_a_bundle_that_does_not_pass(tmp_path, capfd, fault, status):
    """A bundle that is whole but does not pass here: both are said, and the exit code is 1, in lines as in the document."""
    bundle = write_device_bundle(tmp_path / "x.edgekit", fault=fault)
    ran = edgekit(capfd, "verify", bundle)
    assert_refused(ran, "is whole, but not every engine of it passes here")
    assert ran.out.startswith("PASS     digests: ")
    assert f"\n{status:<7}  golden-frames openvino" in ran.out
    assert ran.out.endswith("\nFAIL\n")
    ran = edgekit(capfd, "verify", bundle, "--json")
    assert_refused(ran, "is whole, but not every engine of it passes here")
    assert ran.document["passed"] is False
    assert {check["name"]: check["status"] for check in ran.document["checks"]}["golden-frames openvino"] == status


def test_the_report_that_is_sent_back(monkeypatch, path, capfd, tmp_path):
    """One document: which bundle, which edgekit, when, the device, and every check with status, value, bound and reason."""
    ran = edgekit(capfd, "verify", path, "--json")
    assert (ran.code, ran.err) == (0, "")
    document = ran.document
    assert (document["bundle"], document["digest"], document["passed"]) == ("x.edgekit", open_bundle(path).digest, True)
    assert dt.datetime.fromisoformat(document["time"]).utcoffset() == dt.timedelta(0)
    assert (document["device"]["profile"], document["device"]["tensorrt"]) == ("jetson-orin-nano-8gb", "10.3.0")
    assert all(list(check) == ["name", "status", "value", "bound", "reason"] for check in document["checks"] + document["builds"])
    assert [check["status"] for check in document["builds"]] == ["PASS"] * 3
    text = json.dumps(document)
    assert str(tmp_path) not in text
    assert f'"{platform.node()}"' not in text


def test_full_tries_the_faults(path, capfd):
    """With --full damaged and foreign plans are tried, without it they are not in the report."""
    assert "corrupt-plan" not in edgekit(capfd, "verify", path).out
    out = edgekit(capfd, "verify", path, "--full").out
    for fault in ("corrupt-plan", "truncated-plan", "foreign-version"):
        assert f"PASS     {fault} tensorrt-int8: refused" in out
    assert out.endswith("\nPASS\n")


def test_a_fallback_must_be_allowed(monkeypatch, path, capfd):
    """Without TensorRT the exit code is 1, also where the fallback passed; with --allow-fallback it is 0, and NOT RUN is still said."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    ran = edgekit(capfd, "verify", path)
    assert_refused(ran, "not every engine of it passes here")
    assert "tensorrt-int8, tensorrt-fp16" in ran.err
    ran = edgekit(capfd, "verify", path, "--allow-fallback", "--json")
    assert (ran.code, ran.document["passed"], ran.document["allow_fallback"]) == (0, True, True)
    found = {check["name"]: check for check in ran.document["checks"]}
    assert found["golden-frames tensorrt-int8"]["status"] == "NOT RUN"
    assert found["answering-engine"]["value"] == "openvino"


def test_nothing_of_a_library_s_words_tells_whose_device_it_is(monkeypatch, path, capfd):
    """A reason that quotes a file of the user's comes without folder and name, in every part of the document."""

    def broken():
        raise MissingEngineError(f"pycuda: {Path('/home')}/alice/scanner/lib/pycuda/_driver.so: undefined symbol: cuX")

    monkeypatch.setattr(cuda_layer, "open_cuda", broken)
    document = edgekit(capfd, "verify", path, "--json").document
    text = json.dumps(document)
    assert "alice" not in text
    assert "/home" not in text
    assert text.count("pycuda: _driver.so: undefined symbol: cuX") > 4
    assert "_driver.so" in document["device"]["unavailable"]["gpu"]
    assert "_driver.so" in document["builds"][0]["reason"]
