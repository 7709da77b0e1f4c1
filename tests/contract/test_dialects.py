"""One suite over the table of dialects: what the compile side knows of every engine (`edgekit.compiler.dialects.base`)."""

from __future__ import annotations

import dataclasses
import platform
import re

import numpy as np
import onnx  # noqa: TID253 - reads what was written
import onnx_ir as ir  # noqa: TID253 - as above
import pytest
from qdq_builders import frames, residual

from edgekit.catalog import files
from edgekit.catalog.target import EngineChoice, load_target
from edgekit.compiler.dialects import DIALECTS, dialect_of
from edgekit.compiler.dialects.base import Dialect
from edgekit.compiler.progress import Silent
from edgekit.compiler.quantize.openvino_ptq import read_ir
from edgekit.compiler.quantize.rungs import RUNGS, TrainedIntegers
from edgekit.compiler.stages.explain import ExplainedGraph
from edgekit.compiler.stages.frames import PreparedSplit
from edgekit.compiler.stages.measure import open_artefact
from edgekit.compiler.workspace import Stage
from edgekit.errors import CatalogError
from edgekit.runtime.engines import ENGINES

everyone = pytest.mark.parametrize("name", DIALECTS)
TARGETS = {
    "openvino": "x86-64",
    "onnxruntime": "x86-64-onnxruntime",
    "tensorrt-int8": "jetson-orin-nano-8gb",
    "tensorrt-fp16": "jetson-orin-nano-8gb",
}
"""A target of every engine; a new one adds a row."""


def made(name, target=None):
    """The dialect of an engine on a target."""
    found = load_target(target or TARGETS[name])
    return dialect_of(found, next(choice for choice in found.engines if choice.name == name))


@pytest.fixture
def explained(tmp_path):
    """The residual network, explained."""
    path = residual().save(tmp_path / "graph.onnx")
    bias = onnx.numpy_helper.to_array(next(item for item in onnx.load(path).graph.initializer if item.name == "cam_head/bias"))
    return ExplainedGraph(path=path, sha256="graph", rows=8, columns=8, bias=tuple(bias.tolist()), outputs=3, reason="")


@pytest.fixture
def calibration():
    """Eight frames of noise."""
    tensors = frames(8)
    return PreparedSplit(samples=(), tensors=tensors, sha256="frames", truth=np.zeros((8, 3), dtype=bool))


def run_stage(stage, folder):
    folder.mkdir()
    stage.apply(folder, Silent())
    return stage.ensures(folder)


def test_every_engine_has_a_dialect_and_every_dialect_an_engine():
    """What the runtime can open the compiler can make, and the other way round."""
    assert set(DIALECTS) == set(ENGINES) == set(TARGETS)


@everyone
def test_the_table_names_dialects(name):
    """Every row is a `Dialect` of its engine and target."""
    found = made(name)
    assert isinstance(found, Dialect)
    assert found.choice.name == name
    assert found.target.name == TARGETS[name]


def test_the_first_engine_is_the_default():
    """A target's bundle is made for its first engine."""
    assert dialect_of(load_target("jetson-orin-nano-8gb")).choice.name == "tensorrt-int8"


def test_an_unknown_engine_comes_with_the_nearest():
    """A target that names another one is the catalog's error."""
    with pytest.raises(CatalogError, match="tensorrt-int4") as caught:
        dialect_of(load_target("x86-64"), EngineChoice(name="tensorrt-int4", settings={}))
    assert "tensorrt-int8" in caught.value.hint


def test_no_two_engines_write_the_same_member():
    """Their artefacts lie beside each other in a bundle."""
    members = [member for name in DIALECTS for member in made(name).members.values()]
    assert len(set(members)) == len(members)
    assert all(member.startswith("model/") for member in members)
    assert made("tensorrt-int8").members == {"onnx": "model/tensorrt-int8.onnx"}
    assert made("tensorrt-fp16").members == {"onnx": "model/tensorrt-fp16.onnx"}


@everyone
@pytest.mark.parametrize("rungs", [("ptq",), ("ptq", "ptq-full", "float-fallback", "qat"), ("ptq", "float")])
def test_a_ladder_is_one_of_rungs(name, rungs):
    """Every rung of it is known, and there is one."""
    found = made(name).ladder(rungs)
    assert found
    assert set(found) <= set(RUNGS)
    assert [rung for rung in found if rung in rungs] == [rung for rung in rungs if rung in found]


def test_tensorrt_int8_takes_no_ladder_of_floats():
    """Its artefact would not be what its name says."""
    with pytest.raises(CatalogError, match="quantize"):
        made("tensorrt-int8").ladder(("float",))
    assert made("tensorrt-int8").ladder(("ptq", "float")) == ("ptq",)
    assert made("tensorrt-fp16").ladder(("ptq", "qat")) == ("float",)


@everyone
def test_the_exact_artefact_is_float32(name, explained, tmp_path):
    """It answers what the network does, and its entry in the manifest is pinned to the target's settings."""
    dialect = made(name)
    stage = dialect.exact(explained)
    assert isinstance(stage, Stage)
    artefact = run_stage(stage, tmp_path / "exact")
    spec = dialect.spec(artefact)
    assert (spec.name, spec.precision, spec.outputs) == (name, "f32", 3)
    assert spec.files == dict(dialect.members)
    assert set(artefact.files) == set(dialect.members)
    assert spec.settings == dict(dialect.choice.settings)
    assert re.fullmatch(r"\d+(\.\d+)+", spec.minimum_version)
    from qdq_builders import run

    expected = run(ir.load(explained.path), frames(3))
    engine = open_artefact(artefact, spec, oracle=dialect.oracle)
    for index, frame in enumerate(frames(3)):
        raw = engine.infer(np.ascontiguousarray(frame[None]))
        np.testing.assert_allclose(raw.logits, expected[0][index], atol=1e-4)
        np.testing.assert_allclose(raw.cam, expected[1][index], atol=1e-3)


@everyone
def test_the_first_rung_answers_alike_and_is_repeatable(name, explained, calibration, tmp_path):
    """Every logit is the mean of its map and a bias; the same inputs give the same bytes, and are asked for by the same key."""
    dialect = made(name)
    rung = dialect.ladder(("ptq",))[0]
    stages = [dialect.make(explained, rung, calibration) for _ in range(2)]
    artefacts = [run_stage(stage, tmp_path / f"run{index}") for index, stage in enumerate(stages)]
    assert artefacts[0].sha256 == artefacts[1].sha256
    assert dict(stages[0].requires()) == dict(stages[1].requires())
    assert artefacts[0].precision == dialect.precision
    engine = open_artefact(artefacts[0], dialect.spec(artefacts[0]), oracle=dialect.oracle)
    exact = open_artefact(run_stage(dialect.exact(explained), tmp_path / "exact"), dialect.spec(artefacts[0]), oracle=dialect.oracle)
    for frame in frames(4):
        before, after = (one.infer(np.ascontiguousarray(frame[None])) for one in (exact, engine))
        assert np.abs(before.logits - after.logits).max() < 0.1
        np.testing.assert_allclose(after.cam.mean(axis=(1, 2)) + explained.bias, after.logits, atol=1e-4)


@everyone
def test_a_layer_in_float_is_another_key(name, explained, calibration):
    """A cached artefact is never taken for one with other layers, another rung or other frames."""
    dialect = made(name)
    if dialect.ladder(("ptq",)) != ("ptq",):
        with pytest.raises(CatalogError, match="not quantized"):
            dialect.make(explained, "ptq", calibration)
        return
    other = dataclasses.replace(calibration, sha256="others")
    stages = [
        dialect.make(explained, "ptq", calibration),
        dialect.make(explained, "ptq-full", calibration),
        dialect.make(explained, "ptq", calibration, ("inner",)),
        dialect.make(explained, "ptq", other),
        dialect.make(dataclasses.replace(explained, sha256="another"), "ptq", calibration),
    ]
    keys = [str(sorted(stage.requires().items())) for stage in stages]
    assert len(set(keys)) == len(keys)


def weights_of(path):
    """All integers of weights in a graph."""
    restoring = [item for item in ir.load(path).graph if item.op_type == "DequantizeLinear"]
    stored = [item.inputs[0].const_value for item in restoring if item.inputs[0].dtype == ir.DataType.INT8]
    found = [value.numpy().astype(int).ravel() for value in stored if value is not None]
    return np.concatenate(found)


@pytest.mark.parametrize("target", [name for name in files.names("targets") if load_target(name).engines[0].name == "onnxruntime"])
def test_weights_keep_to_half_of_their_range_where_sums_saturate(target, explained, calibration, tmp_path):
    """Without VNNI a CPU sums two products in 16 bits: 2 · 255 · 63 fits, 2 · 255 · 127 does not."""
    dialect = made("onnxruntime", target)
    limit = 63 if dialect.target.int8_saturates else 127
    artefact = run_stage(dialect.make(explained, "ptq", calibration), tmp_path / "made")
    assert np.abs(weights_of(artefact.files["onnx"])).max() == limit
    assert dialect.integers == TrainedIntegers(weights=limit)


@pytest.mark.parametrize(("target", "limit"), [("x86-64", 63), ("arm64", 127)])
def test_openvino_gets_weights_of_the_range_that_the_target_sums_whole(target, limit, explained, calibration, tmp_path):
    """In every layer, not the first alone; and training keeps to the same."""
    dialect = dialect_of(load_target(target), EngineChoice(name="openvino", settings={"INFERENCE_PRECISION_HINT": "f32"}))
    artefact = run_stage(dialect.make(explained, "ptq", calibration), tmp_path / "made")
    stored = [operation for operation in read_ir(artefact.files["xml"]).get_ordered_ops() if operation.get_type_name() == "Constant"]
    integers = [operation.data for operation in stored if operation.get_element_type().get_type_name() == "i8"]
    assert len(integers) > 1
    assert [int(np.abs(whole.astype(int)).max()) for whole in integers] == pytest.approx([limit] * len(integers), abs=1)
    assert dialect.integers == TrainedIntegers(weights=limit)


def test_tensorrt_trains_signed_integers_of_the_whole_range():
    """int8, also where a value cannot be negative; the first layer's weights too."""
    assert made("tensorrt-int8").integers == TrainedIntegers(signed=True, weights=127)


ON_JETSON = [
    (choice.name, target)
    for target in files.names("targets")
    for choice in load_target(target).engines
    if choice.name.startswith("tensorrt")
]


@pytest.mark.parametrize(("name", "target"), ON_JETSON)
def test_what_tensorrt_gets_has_the_opset_and_types_of_its_target(name, target, explained, calibration, tmp_path):
    """The target's opset; float16 in the graph exactly where TensorRT takes its types from it; the oldest version it conforms to."""
    dialect = made(name, target)
    rules = dialect.target.tensorrt
    rung = dialect.ladder(("ptq",))[0]
    artefact = run_stage(dialect.make(explained, rung, calibration), tmp_path / "made")
    proto = onnx.load(artefact.files["onnx"])
    assert [entry.version for entry in proto.opset_import] == [rules.opset]
    kinds = {item.data_type for item in proto.graph.initializer}
    assert (onnx.TensorProto.FLOAT16 in kinds) == rules.strongly_typed
    assert dialect.spec(artefact).minimum_version == rules.versions[0]
    assert dialect.oracle
    assert any(item.op_type == "QuantizeLinear" for item in proto.graph.node) == (name == "tensorrt-int8")


def test_the_oracle_stands_in_for_another_architecture():
    """ONNX Runtime on this machine proves what runs on this machine, and no other."""
    here, elsewhere = made("onnxruntime"), made("onnxruntime", "jetson-orin-nano-8gb")
    assert here.oracle == (platform.machine().lower() not in here.target.architectures)
    assert elsewhere.oracle == (platform.machine().lower() not in elsewhere.target.architectures)


@everyone
def test_what_cannot_be_tried_has_a_reason(name, explained):
    """A sentence for the report, or nothing; ptq and ptq-full are always tried where something is quantized."""
    dialect = made(name)
    assert dialect.why_not("ptq", explained) == dialect.why_not("ptq-full", explained) == ""
    assert dialect.why_not("ptq-no-smoothquant", explained)
