"""The acceptance gate: a refused model leaves a report and no bundle; enforce = false leaves a bundle that says what it is."""

from __future__ import annotations

import json
import shutil

import pytest
from command_line import assert_refused, edgekit, files_below
from compile_builders import REFUSING

from edgekit.bundle.reader import open_bundle

GATES = [part for setting in REFUSING for part in ("--set", setting)]


@pytest.fixture
def refused(project, tmp_path, capfd):
    """A compile whose gates refuse the model, with its output folder."""
    arguments = ("--workdir", project.workdir, "--out", tmp_path / "out" / "x.edgekit", *GATES)
    return edgekit(capfd, "compile", project.recipe, *arguments, "--json"), tmp_path / "out"


def test_a_refused_model_is_no_bundle(refused):
    """Exit code 3, no bundle, and both reports say why."""
    ran, out = refused
    assert_refused(ran, "refused by the acceptance gate (auc_difference_lower_bound)", code=3)
    assert sorted(files_below(out)) == ["x.report.html", "x.report.json"]
    assert str(out / "x.report.html") in ran.starting("hint:")[0]
    document = ran.document
    assert (document["accepted"], document["bundles"]) == (False, [])
    assert [gate["name"] for gate in document["gates"] if not gate["passed"]] == ["auc_difference_lower_bound"]
    report = json.loads((out / "x.report.json").read_text())
    assert report["accepted"] is False
    assert report["gates"] == document["gates"]
    page = (out / "x.report.html").read_text()
    assert document["gates"][0]["explanation"].split(",")[0] in page


def test_a_refused_model_beside_an_older_bundle(project, tmp_path, capfd):
    """A bundle of an earlier compile stays as it was, and the user is told that it is not this model."""
    out = tmp_path / "x.edgekit"
    shutil.copy(project.bundle, out)
    ran = edgekit(capfd, "compile", project.recipe, "--workdir", project.workdir, "--out", out, *GATES)
    assert ran.code == 3
    assert out.read_bytes() == project.bundle.read_bytes()
    assert ran.starting("warning:") == [f"warning: {out} is from an earlier compile; it is not the model that was refused"]


def test_enforce_false_writes_a_marked_bundle(project):
    """With enforce = false the bundle is written; its manifest and its report say that it was not accepted, and by which gate."""
    manifest = open_bundle(project.unaccepted).manifest
    assert manifest.accepted is False
    assert [gate.name for gate in manifest.acceptance if not gate.passed] == ["auc_difference_lower_bound"]
    report = json.loads(project.unaccepted.with_suffix(".report.json").read_text())
    assert (report["accepted"], report["enforce"], report["bundles"]) == (False, False, [str(project.unaccepted)])


def test_the_gate_is_what_differs(project):
    """The same model under other gates is the same model: only the verdict and the gates' bounds differ."""
    accepted, unaccepted = (open_bundle(path) for path in (project.bundle, project.unaccepted))
    assert accepted.manifest.accepted is True
    for name in ("model/openvino.xml", "model/openvino.bin", "golden/frames.npy"):
        assert bytes(accepted.members[name]) == bytes(unaccepted.members[name])


def test_nothing_of_a_patient_travels(project):
    """A bundle names no file, no group and no path of the machine it was made on."""
    data = project.bundle.read_bytes()
    rows = [line.split(",") for line in project.manifest.read_text().splitlines()[1:]]
    for row in rows:
        assert row[0].encode() not in data
        assert row[2].encode() not in data
    assert str(project.folder).encode() not in data
    assert b"manifest.csv" not in data
