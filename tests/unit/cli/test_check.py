"""`edgekit check`: one line a finding, one document with --json, exit code 1 when the graph does not conform."""

from __future__ import annotations

import numpy as np
import pytest
from command_line import assert_refused, edgekit
from conformance_builders import TYPED, append, residual, set_constant, write

from edgekit.catalog import target as target_module


@pytest.fixture
def known_target(monkeypatch):
    """The name `a-jetson` is a target, whatever is in targets/."""
    monkeypatch.setattr(target_module, "load_target", lambda name: {"a-jetson": TYPED}[name])


def broken():
    model = residual()
    append(model, "Softmax", ["a1_dq"], "softened")
    set_constant(model, "a1_zero", np.array(3, np.int8))
    return model


@pytest.mark.usefixtures("known_target")
def test_a_graph_that_conforms(tmp_path, capfd):
    """Nothing but the verdict, what it does not prove, and exit code 0."""
    path = write(residual(), tmp_path / "net.onnx")
    ran = edgekit(capfd, "check", path, "--target", "a-jetson")
    assert ran.code == 0, ran.err
    assert ran.out.splitlines() == [
        f"{path} conforms to a-jetson (TensorRT 10.3, 10.16, 11.4): 0 errors, 0 warnings",
        "conformance-checked only: the device's own parser and builder have the last word",
    ]


@pytest.mark.usefixtures("known_target")
def test_findings_for_people(tmp_path, capfd):
    """The most severe first, each with its rule, its place and its fix; the exit code is that of an error, with one clear line."""
    ran = edgekit(capfd, "check", write(broken(), tmp_path / "net.onnx"), "--target", "a-jetson")
    assert_refused(ran, "breaks the rules of a-jetson in 2 places")
    lines = ran.out.splitlines()
    assert [line.split()[:3] for line in lines[:6:2]] == [
        ["error", "Q1", "a1_q:"],
        ["error", "Q1", "a1_dq:"],
        ["warning", "P7", "softened:"],
    ]
    assert all(line.strip().startswith("fix: ") for line in lines[1:6:2])
    assert "does not conform to a-jetson" in lines[-1]


@pytest.mark.usefixtures("known_target")
def test_the_document(tmp_path, capfd):
    """On stdout is one document with the findings, also where the graph does not conform."""
    path = write(broken(), tmp_path / "net.onnx")
    ran = edgekit(capfd, "check", path, "--target", "a-jetson", "--json")
    assert ran.code == 1
    document = ran.document
    assert (document["model"], document["target"], document["conforms"]) == (str(path), "a-jetson", False)
    assert [(item["rule"], item["severity"]) for item in document["findings"]] == [("Q1", "error"), ("Q1", "error"), ("P7", "warning")]
    assert document["findings"][0]["versions"] == ["10.3", "10.16", "11.4"]
    assert set(document["findings"][0]) == {"rule", "severity", "node", "message", "fix", "versions"}


@pytest.mark.usefixtures("known_target")
def test_warnings_are_no_errors(tmp_path, capfd):
    """A graph with warnings only conforms."""
    model = residual()
    append(model, "Softmax", ["a1_dq"], "softened")
    ran = edgekit(capfd, "check", write(model, tmp_path / "net.onnx"), "--target", "a-jetson", "--json")
    assert (ran.code, ran.document["conforms"]) == (0, True)


@pytest.mark.usefixtures("known_target")
def test_a_name_cannot_forge_a_line(tmp_path, capfd):
    """A node whose name has a line break or a control character stays on one line, spelled out."""
    model = residual()
    append(model, "Softmax", ["a1_dq"], "x\nerror    Q9  forged\x1b[2K")
    ran = edgekit(capfd, "check", write(model, tmp_path / "net.onnx"), "--target", "a-jetson")
    assert ran.code == 0, ran.err
    assert len(ran.out.splitlines()) == 4
    assert "\x1b" not in ran.out


@pytest.mark.usefixtures("known_target")
@pytest.mark.parametrize("content", [None, b"no model"], ids=["missing", "garbage"])
def test_a_bad_file(tmp_path, capfd, content):
    """A file that is not there or no model is refused in one line, and stdout stays empty under --json."""
    path = tmp_path / "net.onnx"
    if content is not None:
        path.write_bytes(content)
    ran = edgekit(capfd, "check", path, "--target", "a-jetson", "--json")
    assert_refused(ran, str(path))
    assert ran.out == ""


def test_a_target_without_tensorrt(tmp_path, capfd):
    """The rules are TensorRT's: another target is refused by name."""
    ran = edgekit(capfd, "check", write(residual(), tmp_path / "net.onnx"), "--target", "x86-64")
    assert_refused(ran, "'x86-64' has no TensorRT")


def test_the_target_must_be_named(tmp_path, capfd):
    """Without --target the command line itself is wrong."""
    assert edgekit(capfd, "check", tmp_path / "net.onnx").code == 2
