"""Whole compiles for targets whose engines are not OpenVINO: what runs here runs, what does not is proven in the oracle, and several engines share a bundle."""
# ruff: noqa: TID253 - reads what was written

from __future__ import annotations

import json
import re

import numpy as np
import onnx
import pytest
from compile_builders import write_project

from edgekit.bundle.manifest import EngineSpec
from edgekit.bundle.reader import open_bundle
from edgekit.catalog.recipe import load_recipe
from edgekit.catalog.target import load_target
from edgekit.compiler import conformance, oracle
from edgekit.compiler.dialects.qdq import OnnxRuntimeDialect
from edgekit.compiler.pipeline import compile_recipe
from edgekit.compiler.progress import Silent
from edgekit.compiler.quantize.qdq import build
from edgekit.errors import CatalogError, ModelError, TargetError
from edgekit.profiler.host import fingerprint
from edgekit.runtime import selftest
from edgekit.runtime.classifier import Classifier
from edgekit.runtime.cpu import WHOLE_SUMS
from edgekit.runtime.engines import open_engine

JETSONS = ("jetson-orin-nano-8gb", "jetson-xavier-nx")
HERE = "x86-64-onnxruntime"
TARGETS = (*JETSONS, HERE)
everyone = pytest.mark.parametrize("target", TARGETS)
jetsons = pytest.mark.parametrize("target", JETSONS)


def compiled(project, target, *settings, name=None, workdir=None):
    recipe = load_recipe(project.recipe, settings=(f'targets=["{target}"]', *settings))
    out = project.folder / f"{name or target}.edgekit"
    (result,) = compile_recipe(recipe, out=out, workdir=workdir or project.workdir, progress=Silent())
    return result


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return write_project(tmp_path_factory.mktemp("targets"))


@pytest.fixture(scope="module")
def results(project):
    """A compile for every target, with one work folder."""
    return {target: compiled(project, target) for target in TARGETS}


def answers_in_oracle(bundle, spec: EngineSpec, tensors):
    members = {name: bundle.members[name] for name in spec.files.values()}
    engine = oracle.open_oracle(spec, members)
    return [engine.infer(np.ascontiguousarray(tensor[None])) for tensor in tensors]


def logits_in_oracle(bundle, spec: EngineSpec, tensors):
    return np.stack([raw.logits for raw in answers_in_oracle(bundle, spec, tensors)])


@everyone
def test_a_bundle_has_every_engine_of_its_target(results, target):
    """In the target's order, each with a file, golden logits and a tolerance of its own; the first with the bundle's gates, the others with their own."""
    result = results[target]
    assert result.accepted
    manifest = open_bundle(result.bundle).manifest
    assert [engine.name for engine in manifest.engines] == [choice.name for choice in load_target(target).engines]
    assert [engine.settings for engine in manifest.engines] == [dict(choice.settings) for choice in load_target(target).engines]
    assert set(manifest.golden.logits) == set(manifest.golden.tolerance) == {engine.name for engine in manifest.engines}
    assert len(set(manifest.golden.logits.values())) == len(set(manifest.cam.golden.values())) == len(manifest.engines)
    assert manifest.acceptance
    assert manifest.engines[0].acceptance == ()
    for engine in manifest.engines[1:]:
        assert {gate.name for gate in engine.acceptance} == {gate.name for gate in manifest.acceptance}
        assert all(gate.passed for gate in engine.acceptance)


@everyone
def test_golden_logits_are_those_of_each_engines_own_file(results, target):
    """Computed anew from the bundle's bytes."""
    bundle = open_bundle(results[target].bundle)
    tensors = bundle.load_array(bundle.manifest.golden.frames)
    found = {}
    for spec in bundle.manifest.engines:
        expected = bundle.load_array(bundle.manifest.golden.logits[spec.name])
        found[spec.name] = logits_in_oracle(bundle, spec, tensors)
        exactly = 1e-5 if spec.name != "onnxruntime" or target != HERE else bundle.manifest.golden.tolerance[spec.name]
        np.testing.assert_allclose(found[spec.name], expected, atol=exactly)
    if {"tensorrt-int8", "tensorrt-fp16"} <= set(found):
        assert np.abs(found["tensorrt-int8"] - found["tensorrt-fp16"]).max() > 1e-4


@everyone
def test_golden_maps_are_those_of_each_engines_own_file(results, target):
    """Computed anew from the bundle's bytes; a map that is mirrored is further off than any engine of the bundle may be."""
    bundle = open_bundle(results[target].bundle)
    tensors = bundle.load_array(bundle.manifest.golden.frames)
    for spec in bundle.manifest.engines:
        expected = bundle.load_array(bundle.manifest.cam.golden[spec.name])
        allowed = bundle.manifest.cam.golden_tolerance[spec.name]
        found = np.stack([raw.cam for raw in answers_in_oracle(bundle, spec, tensors)])
        exactly = 1e-5 if spec.name != "onnxruntime" or target != HERE else allowed
        assert off(found, expected) <= exactly
        assert off(expected[..., ::-1], expected) > allowed


def off(one, other):
    """How far the worst map is off: root mean square over its cells."""
    return np.sqrt(np.square(one - other).mean(axis=(2, 3))).max()


@jetsons
def test_a_device_may_round_float16_otherwise(results, target):
    """The tolerance of an engine that did not run has room for what float16's rounding makes of the golden frames, on either side."""
    bundle = open_bundle(results[target].bundle)
    tensors = bundle.load_array(bundle.manifest.golden.frames)
    for spec in (spec for spec in bundle.manifest.engines if spec.name.startswith("tensorrt")):
        members = {name: bundle.members[name] for name in spec.files.values()}
        engines = [oracle.open_oracle(spec, members, rounds_halves=rounds) for rounds in (True, False)]
        rounded, exact = ([engine.infer(np.ascontiguousarray(tensor[None])) for tensor in tensors] for engine in engines)
        apart = np.abs(np.stack([raw.logits for raw in rounded]) - np.stack([raw.logits for raw in exact])).max()
        assert (apart > 0) == load_target(target).tensorrt.strongly_typed
        assert bundle.manifest.golden.tolerance[spec.name] >= 2 * apart
        maps = off(np.stack([raw.cam for raw in rounded]), np.stack([raw.cam for raw in exact]))
        assert bundle.manifest.cam.golden_tolerance[spec.name] >= 2 * maps


def test_an_arm_may_round_in_the_order_of_its_kernels(project):
    """Its artefact was proven in the oracle, one operator at a time; as a device runs it, fused to kernels on integers, it passes its golden frames."""
    if not WHOLE_SUMS & set(fingerprint().instruction_sets or ()):
        pytest.skip("this CPU cuts sums of int8 products off, which no ARM does")
    bundle = open_bundle(compiled(project, "raspberry-pi-5").bundle)
    spec = bundle.manifest.engines[0]
    golden = selftest.read_golden(bundle, spec)
    engine = open_engine(spec, {name: bundle.members[name] for name in spec.files.values()})
    answers = selftest.answer_clip(engine, golden.frames)
    assert np.abs(np.stack([raw.logits for raw in answers]) - golden.logits).max() > 0
    assert selftest.compare(bundle.manifest, spec, golden, answers).status == "PASS"


@jetsons
def test_what_tensorrt_gets_conforms_to_every_version_of_the_target(results, target):
    """Opset, types and roundings: no finding that TensorRT refuses a graph for, in either file."""
    profile = load_target(target)
    bundle = open_bundle(results[target].bundle)
    for spec in (spec for spec in bundle.manifest.engines if spec.name.startswith("tensorrt")):
        proto = onnx.load_model_from_string(bytes(bundle.members[spec.files["onnx"]]))
        onnx.checker.check_model(proto, full_check=True)
        assert [entry.version for entry in proto.opset_import] == [profile.tensorrt.opset]
        assert [finding for finding in conformance.check(proto, profile) if finding.severity == "error"] == []
        assert any(node.op_type == "QuantizeLinear" for node in proto.graph.node) == (spec.name == "tensorrt-int8")


@jetsons
def test_what_did_not_run_is_not_timed_and_is_said(results, target, project):
    """No latency anywhere in the report, and the page says who computed what it shows."""
    document = results[target].document
    assert document["oracle"] == oracle.TITLE
    assert set(document["latency_ms"].values()) == {None, 0}
    assert [step["latency_ms"] for step in document["steps"]] == [None] * len(document["steps"])
    assert all(row["oracle"] for row in document["engines"] if row["name"].startswith("tensorrt"))
    page = results[target].outputs.report_html.read_text()
    assert oracle.TITLE in page
    assert not re.search(r"\d\s*ms\b", page)
    assert json.loads(results[target].outputs.report_json.read_text()) == document
    assert str(project.folder) not in open_bundle(results[target].bundle).members["report/summary.json"].tobytes().decode()


@everyone
def test_the_report_tells_of_every_engine(results, target):
    """Rung, precision, verdict and figures by engine, in the document and on the page."""
    rows = results[target].document["engines"]
    assert [row["name"] for row in rows] == [choice.name for choice in load_target(target).engines]
    assert all(row["accepted"] and row["frames"] == rows[0]["frames"] > 0 for row in rows)
    precisions = {row["name"]: (row["precision"], row["rung"]) for row in rows}
    assert precisions.get("tensorrt-int8", ("int8", "ptq")) == ("int8", "ptq")
    assert precisions.get("tensorrt-fp16", ("fp16", "float")) == ("fp16", "float")
    page = results[target].outputs.report_html.read_text()
    if len(rows) > 1:
        assert all(row["name"] in page for row in rows)


def test_what_runs_here_is_timed_and_answers(results, project):
    """The bundle for ONNX Runtime opens as on a device, passes its own golden frames and is timed; no oracle is named."""
    result = results[HERE]
    assert result.document["oracle"] is None
    assert result.document["latency_ms"]["p50"] > 0
    bundle = open_bundle(result.bundle)
    assert [check.status for check in selftest.run(bundle)] == ["PASS"]
    from PIL import Image

    prediction = Classifier(bundle).predict(np.asarray(Image.open(project.frame).convert("L")))
    assert prediction.engine == "onnxruntime"
    assert sum(prediction.probabilities.values()) == pytest.approx(1)
    assert prediction.cam is not None
    assert oracle.TITLE not in result.outputs.report_html.read_text()


def test_the_same_recipe_gives_the_same_bytes(results, project):
    """From the cache and made anew alike, for a target with all three files."""
    target = JETSONS[0]
    first = results[target].bundle.read_bytes()
    assert compiled(project, target, name=f"again-{target}").bundle.read_bytes() == first
    fresh = project.folder / f"fresh-{target}"
    assert compiled(project, target, name=f"fresh-{target}", workdir=fresh).bundle.read_bytes() == first


def spoiled(only):
    """`build.write` that turns the answers of graphs of one kind around."""
    write = build.write

    def turned(model, writing, path, *rest):
        wide = write(model, writing, path, *rest)
        proto = onnx.load(path)
        rounded = any(node.op_type == "QuantizeLinear" for node in proto.graph.node)
        kind = "onnxruntime" if rounded and writing.opset is None else "int8" if rounded else "fp16" if writing.opset else "f32"
        if kind == only:
            for item in proto.graph.initializer:
                if item.name.startswith("cam_head/") and len(item.dims) == 4:
                    values = -np.array(onnx.numpy_helper.to_array(item))
                    item.CopyFrom(onnx.numpy_helper.from_array(values, item.name))
            path.write_bytes(proto.SerializeToString(deterministic=True))
        return wide

    return turned


@pytest.mark.parametrize(("kind", "refused"), [("fp16", "tensorrt-fp16"), ("onnxruntime", "onnxruntime")])
def test_a_further_engine_that_the_gates_refuse_stays_out(project, tmp_path, monkeypatch, kind, refused):
    """The bundle is accepted for the others; of the refused one there is neither a file nor a golden answer, and the report says which gates it failed."""
    monkeypatch.setattr(build, "write", spoiled(kind))
    # Float32 stands in for a rung that is refused: what is left then is right.
    monkeypatch.setattr(OnnxRuntimeDialect, "ladder", lambda _, rungs: tuple(rung for rung in rungs if rung != "float"))
    result = compiled(project, JETSONS[0], "accept.max_flips=0.2", name=f"without-{kind}", workdir=tmp_path / "work")
    assert result.accepted
    manifest = open_bundle(result.bundle).manifest
    names = [engine.name for engine in manifest.engines]
    assert names == [choice.name for choice in load_target(JETSONS[0]).engines if choice.name != refused]
    assert set(manifest.golden.logits) == set(names)
    assert not [member for member in manifest.members if refused in member]
    row = next(row for row in result.document["engines"] if row["name"] == refused)
    assert not row["accepted"]
    assert "flips" in row["failed_gates"]
    assert refused in result.outputs.report_html.read_text()


def test_an_only_engine_that_the_gates_refuse_leaves_no_bundle(project, tmp_path, monkeypatch):
    """Nothing under the bundle's name, and a report that says which gates it failed."""
    monkeypatch.setattr(build, "write", spoiled("onnxruntime"))
    result = compiled(project, HERE, "accept.max_flips=0.2", name="refused", workdir=tmp_path / "work")
    assert not result.accepted
    assert result.bundle is None
    assert not (project.folder / "refused.edgekit").exists()
    assert [row["accepted"] for row in result.document["engines"]] == [False]
    assert "flips" in result.document["engines"][0]["failed_gates"]


def test_a_refused_engine_is_marked_where_refusal_is_not_enforced(project, tmp_path, monkeypatch):
    """Written, and not accepted."""
    monkeypatch.setattr(build, "write", spoiled("onnxruntime"))
    settings = ("accept.max_flips=0.2", "accept.enforce=false")
    result = compiled(project, HERE, *settings, name="marked", workdir=tmp_path / "work")
    manifest = open_bundle(result.bundle).manifest
    assert not manifest.accepted
    assert not all(gate.passed for gate in manifest.acceptance)


def test_several_targets_are_a_bundle_each(project, results):
    """One recipe, one call; what each holds is what it holds alone."""
    recipe = load_recipe(project.recipe, settings=(f"targets={json.dumps(TARGETS[:2])}",))
    made = compile_recipe(recipe, out=project.folder / "several", workdir=project.workdir, progress=Silent())
    for target, result in zip(TARGETS[:2], made, strict=True):
        assert result.bundle.name == f"tiny-phantom-{target}.edgekit"
        members = open_bundle(result.bundle).manifest.members
        alone = open_bundle(results[target].bundle).manifest.members
        assert {name: members[name] for name in members if name.startswith("model/")} == {
            name: alone[name] for name in alone if name.startswith("model/")
        }


def test_float16_leads_where_the_gates_refuse_int8(project, tmp_path, monkeypatch):
    """It was made and proven for the same GPU; that int8 was refused is in the report."""
    monkeypatch.setattr(build, "write", spoiled("int8"))
    result = compiled(project, JETSONS[0], "accept.max_flips=0.2", name="led-by-half", workdir=tmp_path / "work")
    assert result.accepted
    manifest = open_bundle(result.bundle).manifest
    assert [engine.name for engine in manifest.engines] == ["tensorrt-fp16", "onnxruntime"]
    assert manifest.engines[0].acceptance == ()
    rows = {row["name"]: row["accepted"] for row in result.document["engines"]}
    assert rows == {"tensorrt-fp16": True, "tensorrt-int8": False, "onnxruntime": True}
    assert result.document["precision"] == "fp16"


def test_a_bundle_for_a_gpu_is_not_led_by_the_cpu(project, tmp_path, monkeypatch):
    """Where nothing of TensorRT is accepted there is no bundle, whatever the module's CPU could do."""
    monkeypatch.setattr(build, "write", spoiled("int8"))
    result = compiled(project, JETSONS[1], "accept.max_flips=0.2", name="no-gpu", workdir=tmp_path / "work")
    assert not result.accepted
    assert result.bundle is None


def test_an_engine_that_cannot_be_made_stays_out(project, tmp_path, monkeypatch):
    """Hours of training do not end with an operator that a stand-in has not; the report says why it is missing."""
    write = build.write

    def failing(model, writing, *rest):
        rounded = any(node.op_type == "QuantizeLinear" for node in model.graph)
        if writing.opset is not None and not rounded:
            raise ModelError("the operator Strange has no form there")
        return write(model, writing, *rest)

    monkeypatch.setattr(build, "write", failing)
    result = compiled(project, JETSONS[0], name="without-half", workdir=tmp_path / "work")
    assert result.accepted
    assert [engine.name for engine in open_bundle(result.bundle).manifest.engines] == ["tensorrt-int8", "onnxruntime"]
    row = result.document["engines"][-1]
    assert (row["name"], row["reason"], row["accepted"]) == ("tensorrt-fp16", "the operator Strange has no form there", False)
    assert "left out: the operator Strange has no form there" in result.outputs.report_html.read_text()


def test_answers_that_are_no_numbers_count_as_not_tried(project, tmp_path, monkeypatch):
    """One rung that overflows does not end the climb."""
    write = build.write

    def poisoned(model, writing, path, *rest):
        wide = write(model, writing, path, *rest)
        proto = onnx.load(path)
        if any(node.op_type == "QuantizeLinear" for node in proto.graph.node) and not asked:
            asked.append(path)
            for item in proto.graph.initializer:
                if item.name.startswith("cam_head/") and len(item.dims) == 2:
                    values = np.full_like(onnx.numpy_helper.to_array(item), np.nan)
                    item.CopyFrom(onnx.numpy_helper.from_array(values, item.name))
            path.write_bytes(proto.SerializeToString(deterministic=True))
        return wide

    asked = []
    monkeypatch.setattr(build, "write", poisoned)
    ladder = 'compress.quantize.ladder=["ptq", "ptq-full"]'
    result = compiled(project, HERE, ladder, name="poisoned", workdir=tmp_path / "work")
    assert result.accepted
    first, second = result.document["ladder"]
    assert "NaN" in first["status"]
    assert second["chosen"]


def test_what_can_never_succeed_is_refused_at_the_start(project, tmp_path):
    """A ladder without int8 for int8, and a latency budget for a device that is not here."""
    with pytest.raises(CatalogError, match="no rung of the ladder"):
        compiled(project, JETSONS[0], 'compress.quantize.ladder=["float"]', workdir=tmp_path / "work")
    with pytest.raises(TargetError, match="latency cannot be measured on this machine"):
        compiled(project, JETSONS[0], "accept.max_latency_ms=5", workdir=tmp_path / "work")
    assert not (tmp_path / "work").exists()


@jetsons
def test_what_the_rules_warn_of_is_in_the_report(results, target):
    """Also where the stage came from the cache."""
    rows = results[target].document["engines"]
    assert all({finding["severity"] for finding in row["findings"]} <= {"warning", "info"} for row in rows)
    assert any(row["findings"] for row in rows)
    assert all(row["float32_operators"] == 0 for row in rows)


QAT = 'compress.quantize={ladder=["qat"],qat={epochs=1,batch=8,frames_per_epoch=16}}'


@pytest.mark.parametrize(("target", "kind"), [(JETSONS[0], np.int8), (JETSONS[1], np.int8), (HERE, np.uint8)])
def test_training_with_rounding_goes_to_every_engine(project, target, kind):
    """What was trained is written in the engine's own integers: int8 with zero points of 0 for TensorRT, uint8 for ONNX Runtime."""
    result = compiled(project, target, QAT, "accept.max_flips=0.2", "accept.enforce=false", name=f"qat-{target}")
    first = open_bundle(result.bundle)
    spec = first.manifest.engines[0]
    assert result.document["rung"] == "qat"
    assert [training["stage"] for training in result.document["training"]] == ["qat"]
    proto = onnx.load_model_from_string(bytes(first.members[spec.files["onnx"]]))
    constants = {item.name: onnx.numpy_helper.to_array(item) for item in proto.graph.initializer}
    pairs = [node for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    assert pairs
    assert {constants[node.input[2]].dtype.type for node in pairs} == {kind}
    if kind is np.int8:
        assert not any(constants[node.input[2]].any() for node in pairs)
    assert np.isfinite(logits_in_oracle(first, spec, first.load_array(first.manifest.golden.frames))).all()
