"""The commands' contract: what scripts read from stdout, and nothing else there; exit codes."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from command_line import assert_refused, edgekit, edgekit_process
from PIL import Image

import edgekit as package
from edgekit.imaging import phantom
from edgekit.runtime.engines import ENGINES

RUN_KEYS = [
    "input",
    "frame",
    "label",
    "probabilities",
    "logits",
    "latency_ms",
    "cam",
    "overlay",
    "engine",
    "bundle",
    "accepted",
    "assessable",
    "reason",
]
FIGURES = ["accuracy", "balanced_accuracy", "auc", "sensitivity", "specificity", "precision", "recall", "f1", "ece", "confusion"]
# As where it is not installed.
BLOCK_OPENVINO = ["import sys", "sys.modules['openvino'] = None"]
PERCENTILES = ["p50", "p90", "p95", "p99", "max", "samples"]


def test_run_json_has_the_keys_of_the_contract(project, tmp_path):
    """`run --json` prints one line a frame, with the contract's keys and consistent values, and nothing else on stdout."""
    ran = edgekit_process("run", project.bundle, project.frame, project.frame.parent, "--overlay", tmp_path / "maps", "--json")
    assert ran.code == 0
    assert ran.err == ""
    assert len(ran.lines) == 25
    for line in ran.lines:
        assert list(line) == RUN_KEYS
        assert line["label"] == max(line["probabilities"], key=line["probabilities"].get)
        assert list(line["probabilities"]) == list(line["logits"]) == list(phantom.LABELS)
        assert sum(line["probabilities"].values()) == pytest.approx(1)
        assert line["cam"]["class"] == line["label"]
        assert line["cam"]["shape"] == [2, 2]
        assert all(0 <= place < 2 for place in line["cam"]["peak"])
        assert np.asarray(Image.open(line["overlay"])).shape == (*np.asarray(Image.open(line["input"])).shape, 3)
        assert (line["frame"], line["engine"], line["accepted"], line["assessable"], line["reason"]) == (0, "openvino", True, True, "")
        assert line["latency_ms"] > 0
    assert len({line["overlay"] for line in ran.lines}) == 25
    assert ran.lines[0]["input"] == str(project.frame)
    assert len(list((tmp_path / "maps").iterdir())) == 25
    assert {line["bundle"] for line in ran.lines} == {package.load(project.bundle).bundle_digest}


def test_run_goes_on_after_a_bad_input(project, tmp_path, capfd):
    """A bad input is one line with its error; the others are answered; exit 1 comes at the end."""
    empty, foreign = tmp_path / "empty.png", tmp_path / "foreign.png"
    empty.touch()
    foreign.write_text("hello")
    missing = tmp_path / "missing.png"
    ran = edgekit(capfd, "run", project.bundle, empty, project.frame, missing, foreign, project.frame, "--json")
    assert ran.code == 1
    assert [line["input"] for line in ran.lines] == [str(path) for path in (empty, project.frame, missing, foreign, project.frame)]
    bad = [line for line in ran.lines if "error" in line]
    assert [list(line) for line in bad] == [["input", "error"]] * 3
    assert ["empty" in bad[0]["error"], "no such file" in bad[1]["error"], "not a picture" in bad[2]["error"]] == [True] * 3
    assert [line["label"] for line in ran.lines if "error" not in line] == ["b-lines"] * 2
    assert len(ran.starting("error:")) == len(ran.starting("hint:")) == 3
    assert ran.err.splitlines()[-1] == "3 files or frames could not be answered or drawn"


def test_run_goes_on_in_a_folder(project, tmp_path, capfd):
    """A damaged frame among the frames of a folder is an error line of its own, and notes are left out."""
    shutil.copytree(project.frame.parent, tmp_path / "frames")
    (tmp_path / "frames" / "p003_f000.png").write_bytes(b"hello")
    (tmp_path / "frames" / "notes.txt").write_text("hello")
    ran = edgekit(capfd, "run", project.bundle, tmp_path / "frames", "--json")
    assert ran.code == 1
    assert [("error" in line, line["input"].endswith("p003_f000.png")) for line in ran.lines].count((True, True)) == 1
    assert sum("label" in line for line in ran.lines) == 23


def test_run_answers_people(project, capfd):
    """Without --json, a line a frame says label, probabilities and time."""
    ran = edgekit(capfd, "run", project.bundle, project.frame)
    assert ran.code == 0
    assert re.fullmatch(r".*p000_f000\.png  frame 0  b-lines  \(b-lines 0\.\d{3}  .*\)  \d+\.\d ms\n", ran.out)


def test_an_unaccepted_bundle_says_so_in_every_answer(project, capfd):
    """Bundle, every answer and stderr say that the gate refused it."""
    ran = edgekit(capfd, "run", project.unaccepted, project.frame, project.frame, "--json")
    assert [line["accepted"] for line in ran.lines] == [False, False]
    assert len(ran.starting("warning:")) == 1
    assert "NOT ACCEPTED" in ran.err
    assert "NOT ACCEPTED" in edgekit(capfd, "evaluate", project.unaccepted, "--data", project.manifest).err
    assert "NOT ACCEPTED" in edgekit(capfd, "inspect", project.unaccepted).out


def test_evaluate_json_has_the_figures_of_the_contract(project):
    """`evaluate --json` prints one document: n and every figure with its interval."""
    ran = edgekit_process("evaluate", project.bundle, "--data", project.manifest, "--json")
    assert ran.code == 0
    document = ran.document
    assert document["n"] == 18
    for name in FIGURES:
        assert list(document[name]) == ["value", "low", "high"]
    assert np.array(document["confusion"]["value"]).sum() == 18
    assert list(document["per_class"]) == list(phantom.LABELS)
    assert "test frames" in ran.err


def test_evaluate_puts_the_maps_to_the_test_where_asked(project, capfd):
    """`--explanations` adds insertion, deletion, drop and increase, of the map and of a random order; without it nothing of it is there."""
    arguments = ("evaluate", project.bundle, "--data", project.manifest)
    found = edgekit(capfd, *arguments, "--explanations", "--explanation-frames", "3", "--json").document["explanations"]
    assert found["frames"] + found["without_map"] == 3
    for side in ("own", "random", "difference"):
        assert set(found[side]) == {"insertion", "deletion", "drop", "increase"}
    for name in ("insertion", "deletion", "drop", "increase"):
        assert 0 <= found["own"][name]["value"] <= 1
        assert found["difference"][name]["value"] == pytest.approx(found["own"][name]["value"] - found["random"][name]["value"])
    assert "explanations" not in edgekit(capfd, *arguments, "--json").document
    assert "its cells at random" in edgekit(capfd, *arguments, "--explanations", "--explanation-frames", "1").out


def test_evaluate_agrees_with_run_and_with_the_report(project, capfd):
    """The figures of `evaluate` are those of the compile's report, and the accuracy is the share of right answers of `run`."""
    found = edgekit(capfd, "evaluate", project.bundle, "--data", project.manifest, "--json").document
    report = json.loads(project.bundle.with_suffix(".report.json").read_text())
    assert {name: found[name] for name in FIGURES} == {name: report["device"][name] for name in FIGURES}
    rows = [line.split(",") for line in project.manifest.read_text().splitlines()[1:]]
    rows = [row for row in rows if row[3] == "test"]
    answers = edgekit(capfd, "run", project.bundle, *[project.manifest.parent / row[0] for row in rows], "--json").lines
    right = sum(answer["label"] == row[1] for answer, row in zip(answers, rows, strict=True))
    assert found["accuracy"]["value"] == pytest.approx(right / len(rows))


def test_compile_json_has_the_keys_of_the_contract(project, tmp_path):
    """`compile --json` prints one document; progress goes to stderr; the stages of an unchanged recipe are cached."""
    out = tmp_path / "new" / "folder"
    out.mkdir(parents=True)
    ran = edgekit_process("compile", project.recipe, "--out", out, "--workdir", project.workdir, "--json")
    assert ran.code == 0
    document = ran.document
    bundle = out / "tiny-phantom.edgekit"
    assert document["bundles"] == [str(bundle)]
    assert document["accepted"] is True
    assert [gate["name"] for gate in document["gates"]] == [
        *("auc_difference_lower_bound", "harmful_flips", "flips", "net_harm"),
        *("sensitivity", "specificity", "subgroup_flips", "ece_increase"),
        *("cam_pearson", "cam_pearson_p5", "cam_overlap", "cam_peak", "cam_residual", "cam_control"),
    ]
    assert all({"name", "value", "bound", "passed"} <= set(gate) for gate in document["gates"])
    for side in ("reference", "device"):
        assert document[side]["n"] == 18
        assert set(FIGURES) <= set(document[side])
    assert list(document["latency_ms"]) == PERCENTILES
    assert document["size_bytes"] == bundle.stat().st_size
    assert {"load", "baseline val", "explain", "quantize ptq, x86-64, openvino"} <= {stage["name"] for stage in document["stages"]}
    assert all(stage["cached"] for stage in document["stages"])
    assert "load (cached)" in ran.err
    assert sorted(path.name for path in out.iterdir()) == [
        "tiny-phantom.edgekit",
        "tiny-phantom.report.html",
        "tiny-phantom.report.json",
    ]


def test_profile_json_has_the_keys_of_the_contract(project, tmp_path):
    """`profile --json` prints one document, `--html` writes a page that needs nothing else, and a limit that holds ends with 4."""
    page = tmp_path / "profile.html"
    ran = edgekit_process(
        "profile",
        project.bundle,
        "--seconds",
        "0.5",
        "--json",
        "--html",
        page,
        "--fail-if",
        "latency_ms.p50 > 0.0001",
        "--fail-if",
        "latency_ms.p50 > 60000",
    )
    assert_refused(ran, "latency_ms.p50", code=4)
    document = ran.document
    assert list(document["latency_ms"]) == PERCENTILES
    assert document["latency_ms"]["samples"] > 10
    assert (document["latency_ms"]["p99"] is None) == (document["latency_ms"]["samples"] < 662)
    assert {"preprocess", "infer", "cam", "overlay"} <= set(document["stages_ms"])
    assert document["cold_start_ms"]["total"] > 0
    assert document["peak_memory_mib"] > 10
    assert {"host", "bundle"} <= set(document)
    assert document["bundle"]["size_bytes"] == project.bundle.stat().st_size
    assert_self_contained(page.read_text())


def test_reports_are_self_contained(project):
    """The report beside a bundle loads nothing from anywhere."""
    assert_self_contained(project.bundle.with_suffix(".report.html").read_text())


def assert_self_contained(page):
    """A page without a reference to anything outside it."""
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert re.findall(r"""(?:src|href|srcset|action|data)\s*=\s*["']?(?!#|data:|["'])[^\s>]+""", page) == []
    assert not re.search(r"<(script|link|iframe|object|embed|base)\b|@import|url\((?!#|data:)", page)


def test_inspect_json_shows_the_manifest(project, capfd):
    """`inspect --json` prints one document with digest, size and the whole manifest."""
    document = edgekit(capfd, "inspect", project.bundle, "--json").document
    assert list(document) == ["path", "digest", "size_bytes", "manifest"]
    assert document["manifest"]["name"] == "tiny-phantom"
    assert document["manifest"]["accepted"] is True
    assert document["digest"] == package.load(project.bundle).bundle_digest
    people = edgekit(capfd, "inspect", project.bundle).out
    assert document["digest"] in people
    assert "a-lines, b-lines, consolidation" in people


def test_verify_json_says_what_was_checked(project, capfd):
    """`verify --json` prints one document: bundle, edgekit, time, device, and every engine on the golden frames with its latency."""
    ran = edgekit(capfd, "verify", project.bundle, "--json")
    assert ran.code == 0
    document = ran.document
    assert (document["digest"], document["edgekit"]) == (package.load(project.bundle).bundle_digest, package.__version__)
    assert {"time", "passed", "host", "device", "checks"} <= set(document)
    found = {check["name"]: check for check in document["checks"]}
    assert (found["digests"]["status"], found["golden-frames openvino"]["status"]) == ("PASS", "PASS")
    assert found["golden-frames openvino"]["value"] <= found["golden-frames openvino"]["bound"]
    assert found["latency-ms openvino"]["value"] > 0
    assert found["answering-engine"]["value"] == "openvino"


def test_doctor_json_says_what_is_installed(capfd):
    """`doctor --json` prints one document: every engine with its version or the reason and the remedy, parts with what is missing."""
    ran = edgekit(capfd, "doctor", "--json")
    assert ran.code == 0
    document = ran.document
    assert list(document["engines"]) == list(ENGINES)
    assert document["engines"]["openvino"]["version"]
    assert all(found["version"] or (found["reason"] and found["hint"]) for found in document["engines"].values())
    assert document["parts"]["compile"] == {"ready": True, "missing": [], "hint": ""}
    assert document["parts"]["DICOM"]["missing"] == []


def test_doctor_where_one_engine_is_missing(tmp_path):
    """Where OpenVINO is missing and another engine can run, `doctor` names the remedy, and is no error."""
    ran = edgekit_process("doctor", "--json", before=BLOCK_OPENVINO)
    assert ran.code == 0
    engine = ran.document["engines"]["openvino"]
    assert engine["version"] is None
    assert "edgekit-toolkit[openvino]" in engine["hint"]


def test_doctor_where_no_engine_can_run(tmp_path):
    """Where no engine can run, the document is whole, the exit code is 1, and the error says so."""
    blocked = ["import sys", *(f"sys.modules['{name}'] = None" for name in ("openvino", "onnxruntime", "tensorrt"))]
    ran = edgekit_process("doctor", "--json", before=blocked)
    assert_refused(ran, "no engine can run here")
    assert ran.document["can_run"] is False
    assert not [check for check in ran.document["checks"] if check["status"] == "PASS"]


@pytest.mark.parametrize("command", ["run", "evaluate", "profile", "verify"])
def test_an_engine_that_is_not_installed(project, command, tmp_path):
    """Without the engine, every command that needs it names the remedy; `verify` still checks the digests."""
    arguments = {"run": [project.frame], "evaluate": ["--data", project.manifest], "profile": [], "verify": []}[command]
    ran = edgekit_process(command, project.bundle, *arguments, before=BLOCK_OPENVINO)
    if command == "verify":
        assert_refused(ran, "not every engine of it passes here")
        assert "NOT RUN  golden-frames openvino" in ran.out
        assert "edgekit-toolkit[openvino]" in ran.out
    else:
        assert_refused(ran, "OpenVINO cannot be loaded")
        assert "edgekit-toolkit[openvino]" in ran.err


def test_exit_codes_of_usage(capfd):
    """Help and version are 0; an unknown command, option or missing argument is 2, and nothing is printed on stdout."""
    assert edgekit(capfd, "--version").out == f"edgekit {package.__version__}\n"
    for command in ([], ["run"], ["compile"], ["profile"]):
        ran = edgekit(capfd, *command, "--help")
        assert (ran.code, ran.err) == (0, "")
        assert "Usage: edgekit" in ran.out
    for wrong in (["rum"], ["run"], ["run", "--jsn"], ["profile", "x", "--seconds", "0"], ["profile", "x", "--seconds", "soon"]):
        ran = edgekit(capfd, *wrong)
        assert (ran.code, ran.out) == (2, "")
        assert "Traceback" not in ran.err


def test_compile_for_a_named_recipe_needs_its_data(capfd, tmp_path):
    """A recipe of models/ is found by its name; what it leaves out is named."""
    ran = edgekit(capfd, "compile", "phantom-lung", "--workdir", tmp_path, "--out", tmp_path)
    assert_refused(ran, "'manifest' is missing")


def test_init_makes_a_project_that_compiles_up_to_the_guesses(project, tmp_path, capfd):
    """`init` on class folders writes a manifest that `evaluate` can use and a recipe that `compile` reads."""
    folder = tmp_path / "frames"
    for label in phantom.LABELS:
        shutil.copytree(project.frame.parents[1] / label, folder / label)
    ran = edgekit(capfd, "init", folder, "--group", r"(p\d+)_")
    assert ran.code == 0, ran.err
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == ["manifest.csv", "recipe.toml"]
    assert edgekit(capfd, "evaluate", project.bundle, "--data", folder / "manifest.csv", "--json").document["n"] > 0
    assert_refused(edgekit(capfd, "init", folder), "is there already")
    assert edgekit(capfd, "init", folder, "--force", "--group", r"(p\d+)_").code == 0
    compiled = edgekit(capfd, "compile", folder / "recipe.toml", "--workdir", tmp_path / "work", "--out", tmp_path)
    assert_refused(compiled, "model.safetensors is not there")


def test_targets_lists_and_shows(capfd):
    """`targets` lists the catalogue, `targets NAME` shows one, and an unknown name comes with the nearest."""
    assert re.search(r"^x86-64\s+openvino\s+x86-64 CPU", edgekit(capfd, "targets").out, re.MULTILINE)
    assert "INFERENCE_PRECISION_HINT = f32" in edgekit(capfd, "targets", "x86-64").out
    ran = edgekit(capfd, "targets", "x86-46")
    assert_refused(ran, "'x86-46'")
    assert "did you mean 'x86-64'?" in ran.err
