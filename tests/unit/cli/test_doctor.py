"""`edgekit doctor`: what it says of a Jetson made of the fakes, of a machine without one, and its exit code."""

from __future__ import annotations

import importlib.util
import json
import platform
import sys
from pathlib import Path

import pytest
from command_line import assert_refused, edgekit
from trt_device import install

from edgekit.cli import doctor
from edgekit.profiler import probe_process
from edgekit.profiler.probe_process import probe_apart as apart
from edgekit.runtime.engines import ENGINES


def statuses(document):
    return {check["name"]: check["status"] for check in document["checks"]}


def test_a_jetson(monkeypatch, tmp_path, capfd):
    """Module, profile, system, versions and the builds of every precision are told, in the document and in lines."""
    install(monkeypatch, tmp_path / "cache")
    document = edgekit(capfd, "doctor", "--json").document
    assert (document["device"]["part_number"], document["device"]["profile"]) == ("p3767-0003", "jetson-orin-nano-8gb")
    assert (document["device"]["jetpack"], document["device"]["tensorrt"], document["dla_cores"]) == ("6.2", "10.3.0", 0)
    found = statuses(document)
    assert {name: status for name, status in found.items() if name.startswith("build")} == {
        f"build-one-convolution {precision}": "PASS" for precision in ("fp32", "fp16", "int8")
    }
    assert (found["engine tensorrt-int8"], found["engine tensorrt-fp16"]) == ("PASS", "PASS")
    ran = edgekit(capfd, "doctor")
    assert (ran.code, ran.err) == (0, "")
    lines = [line.split() for line in ran.out.splitlines()]
    assert ["profile", "jetson-orin-nano-8gb"] in lines
    assert any(line[:2] == ["system", "Linux"] and line[-2:] == ["JetPack", "6.2"] for line in lines)
    assert "PASS     build-one-convolution int8" in ran.out


def test_a_tensorrt_without_kernels_for_the_gpu(monkeypatch, tmp_path, capfd):
    """TensorRT that is installed and builds nothing is FAIL, and its engines cannot run; the others still can."""
    install(monkeypatch, tmp_path / "cache", fail=["build"])
    ran = edgekit(capfd, "doctor", "--json")
    found = statuses(ran.document)
    assert (found["build-one-convolution int8"], found["engine tensorrt-int8"]) == ("FAIL", "FAIL")
    assert (ran.code, ran.document["can_run"], found["engine openvino"]) == (0, True, "PASS")
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    ran = edgekit(capfd, "doctor", "--json")
    assert_refused(ran, "no engine can run here")
    assert ran.document["can_run"] is False


def test_a_machine_without_tensorrt(monkeypatch, capfd):
    """Everything of TensorRT is NOT RUN with the reason and the remedy, and every engine is in the document."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    document = edgekit(capfd, "doctor", "--json").document
    assert list(document["engines"]) == list(ENGINES)
    not_run = [check for check in document["checks"] if check["status"] == "NOT RUN"]
    assert [check["name"] for check in not_run if "tensorrt" in check["name"]] == ["engine tensorrt-int8", "engine tensorrt-fp16"]
    assert all("TensorRT cannot be loaded" in check["reason"] for check in not_run)
    assert all("--system-site-packages" in check["reason"] for check in not_run if check["name"].startswith("engine"))


def test_every_line_says_what_was_seen_or_why_not(monkeypatch, capfd):
    """No line of the device is empty or says that it does not know why."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    out = edgekit(capfd, "doctor").out
    lines = [line for line in out.splitlines() if "NOT RUN" in line]
    assert len(lines) > 8
    assert all(len(line.partition("NOT RUN")[2].strip(": ")) > 8 for line in lines)
    assert not [line for line in out.splitlines() if line.split()[-1] == "None"]


def test_nothing_tells_whose_machine_it_is(monkeypatch, tmp_path, capfd):
    """Neither host name nor home folder nor the folder of the cache is in the document."""
    install(monkeypatch, tmp_path / "cache")
    text = json.dumps(edgekit(capfd, "doctor", "--json").document)
    assert str(tmp_path) not in text
    assert str(Path.home()) + "/" not in text
    assert f'"{platform.node()}"' not in text


@pytest.mark.parametrize(
    ("architecture", "flags", "says"),
    [
        ("x86_64", ("avx2", "avx512_vnni"), "fast"),
        ("AMD64", ("avx2", "avx_vnni"), "fast"),
        ("x86_64", ("avx2", "fma"), "works"),
        ("x86_64", ("sse4_2",), "slow"),
        ("x86_64", None, "slow"),
        ("aarch64", ("asimd", "dotprod"), "fast"),
        ("arm64", ("asimd", "i8mm"), "fast"),
        ("aarch64", ("asimd",), "works"),
        ("aarch64", None, "not judged"),
        ("riscv64", ("v",), "not judged"),
    ],
)
def test_what_doctor_says_of_int8(architecture, flags, says):
    """The verdict follows the instruction sets."""
    assert doctor._acceleration(architecture, flags).startswith(says)


def test_the_modules_that_doctor_looks_for_exist():
    """Every module doctor looks for is one that its extra installs: a wrong name would always be missing."""
    optional = {"gdcm", "torchxrayvision"}
    for modules, _ in doctor._PARTS.values():
        for name in modules:
            assert importlib.util.find_spec(name) is not None or name in optional, name


def test_a_missing_part_names_its_extra():
    """A part whose module is missing is not ready and names the extra."""
    assert doctor._part(("numpy", "edgekit_is_not_called_so"), "edgekit-toolkit[x]") == {
        "ready": False,
        "missing": ["edgekit_is_not_called_so"],
        "hint": "install the extra: edgekit-toolkit[x]",
    }


def test_a_build_that_ends_its_process_does_not_end_the_examination(monkeypatch, tmp_path, capfd):
    """A TensorRT that crashes while it builds is FAIL for its engines; the others are examined, and the command ends as it should."""
    install(monkeypatch, tmp_path / "cache")
    monkeypatch.setattr(probe_process, "probe_apart", lambda: apart([sys.executable, "-c", "import os; os.abort()"]))
    ran = edgekit(capfd, "doctor", "--json")
    found = {check["name"]: check for check in ran.document["checks"]}
    assert found["build-one-convolution int8"]["reason"] == "the build ended its process (signal 6)"
    assert (found["engine tensorrt-int8"]["status"], found["engine openvino"]["status"], ran.code) == ("FAIL", "PASS", 0)


def test_before_version_10_there_is_no_float16_engine(monkeypatch, tmp_path, capfd):
    """What is never built is NOT RUN, with the reason, while int8 passes."""
    install(monkeypatch, tmp_path / "cache", "8.6")
    document = edgekit(capfd, "doctor", "--json").document
    found = {check["name"]: check for check in document["checks"]}
    assert (found["engine tensorrt-int8"]["status"], found["engine tensorrt-fp16"]["status"]) == ("PASS", "NOT RUN")
    assert "chooses itself where it works in fp16" in found["engine tensorrt-fp16"]["reason"]
