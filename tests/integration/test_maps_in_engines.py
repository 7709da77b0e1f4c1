"""From a hand-made network of every kind of head to the engines' own answers: what is quantized, what adds up, and what a device does with a map that does not."""
# ruff: noqa: TID253 - the tests of what writes graphs read them

from __future__ import annotations

import dataclasses
import functools

import device_bundles as d
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from qdq_builders import Sketch, frames

import edgekit
from edgekit.bundle.manifest import CamSpec
from edgekit.bundle.reader import open_bundle
from edgekit.bundle.writer import write_bundle
from edgekit.catalog.target import load_target
from edgekit.compiler.dialects import dialect_of
from edgekit.compiler.explain.find import explain
from edgekit.compiler.explain.head import PREFIX
from edgekit.compiler.pack import cam_spec
from edgekit.compiler.progress import Silent
from edgekit.compiler.stages.explain import ExplainedGraph
from edgekit.compiler.stages.frames import PreparedSplit
from edgekit.compiler.stages.measure import Measured, open_artefact
from edgekit.compiler.workspace import file_digest
from edgekit.errors import BundleError
from edgekit.runtime.classifier import completeness_residual
from edgekit.runtime.engines.openvino import shared_core

SIDE, WIDTH, CLASSES = d.SIDE, 16, 3
TENSORS = frames(6, SIDE)


def network(opset=20):
    """Two convolutions: (1, 16, 8, 8) features."""
    s = Sketch(SIDE, opset=opset)
    first = s.relu(s.conv("planes", "stem", WIDTH, 1, strides=[2, 2]))
    s.relu(s.conv(first, "second", WIDTH, WIDTH))
    return s


def last(s, source, taken=WIDTH):
    """The layer of the logits."""
    parts = [source, s.constant("fc.weight", s.noise(taken, CLASSES)), s.constant("fc.bias", s.noise(CLASSES))]
    s.add("Gemm", parts, "y")
    s.outputs = ["y"]
    return s


def pooled(s, kind="GlobalAveragePool", features="second_relu"):
    return s.add("Flatten", [s.add(kind, [features], kind)], f"{kind}_flat")


def layer(s, source, name, taken=WIDTH, given=WIDTH):
    return s.add("Gemm", [source, s.constant(f"{name}.weight", s.noise(taken, given)), s.constant(f"{name}.bias", s.noise(given))], name)


def linear():
    s = network()
    return last(s, pooled(s))


def normalized():
    s = network()
    s.relu(s.conv("second_relu", "third", WIDTH, WIDTH, kernel=1))
    return last(
        s,
        s.add(
            "LayerNormalization",
            [pooled(s, features="third_relu"), s.constant("scale", s.noise(WIDTH)), s.constant("shift", s.noise(WIDTH))],
            "norm",
        ),
    )


def perceptron(activation="Relu"):
    s = network()
    return last(s, s.add(activation, [layer(s, pooled(s), "hidden")], "active"))


def generalized_mean():
    s = network()
    clipped = s.add("Clip", ["second_relu", s.constant("least", 1e-3)], "clipped")
    raised = s.add("Pow", [clipped, s.constant("three", 3.0)], "raised")
    return last(
        s, s.add("Pow", [s.add("Flatten", [s.add("GlobalAveragePool", [raised], "mean")], "flat"), s.constant("third", 1 / 3)], "root")
    )


def mean_and_maximum():
    s = network()
    both = s.add("Concat", [pooled(s), pooled(s, "GlobalMaxPool")], "both", axis=1)
    return last(s, both, 2 * WIDTH)


def every_position():
    s = network()
    small = s.add("MaxPool", ["second_relu"], "small", kernel_shape=[2, 2], strides=[2, 2])
    return last(s, s.add("Relu", [layer(s, s.add("Flatten", [small], "flat"), "hidden", WIDTH * 16)], "active"))


def attention():
    """A class token, one block, and the token that is read."""
    s, heads, size = network(), 2, WIDTH // 2
    tokens = SIDE * SIDE // 4 + 1
    rows = s.add("Reshape", ["second_relu", s.constant("list", [1, WIDTH, tokens - 1], np.int64)], "list_of_positions")
    patches = s.add("Transpose", [rows], "patches", perm=[0, 2, 1])
    stream = s.add("Concat", [s.constant("class_token", s.noise(1, 1, WIDTH)), patches], "tokens", axis=1)

    def norm(source, name):
        return s.add(
            "LayerNormalization",
            [source, s.constant(f"{name}.scale", 1 + s.noise(WIDTH) / 4), s.constant(f"{name}.shift", s.noise(WIDTH))],
            name,
        )

    x, sizes = norm(stream, "first_norm"), s.constant("sizes", [1, tokens, heads, size], np.int64)
    parts = {}
    for name, order in (("queries", [0, 2, 1, 3]), ("keys", [0, 2, 3, 1]), ("values", [0, 2, 1, 3])):
        parts[name] = s.add(
            "Transpose", [s.add("Reshape", [s.linear(x, name, WIDTH, WIDTH), sizes], f"{name}_split")], f"{name}_turned", perm=order
        )
    scores = s.add("Mul", [s.add("MatMul", [parts["queries"], parts["keys"]], "products"), s.constant("scale", size**-0.5)], "scores")
    attended = s.add("MatMul", [s.add("Softmax", [scores], "weights", axis=-1), parts["values"]], "attended")
    whole = s.constant("whole", [1, tokens, WIDTH], np.int64)
    joined = s.add("Reshape", [s.add("Transpose", [attended], "attended_turned", perm=[0, 2, 1, 3]), whole], "joined")
    # Small beside the stream, as in trained networks: a residual of the map is what the rounding of `joined` makes of a logit.
    branch = s.add("Mul", [s.linear(joined, "projection", WIDTH, WIDTH), s.constant("layer_scale", np.full(WIDTH, 0.1))], "branch")
    stream = s.add("Add", [stream, branch], "stream")
    inner = s.add("Gelu", [s.linear(norm(stream, "second_norm"), "up", 2 * WIDTH, WIDTH)], "gelu")
    stream = s.add("Add", [stream, s.linear(inner, "down", WIDTH, 2 * WIDTH)], "stream_after")
    return last(s, s.add("Gather", [norm(stream, "last_norm"), s.constant("first", 0, np.int64)], "token", axis=1))


def unknown():
    """A pooling that no rule is known for."""
    s = network()
    return last(s, s.add("Flatten", [s.add("ReduceLogSumExp", ["second_relu", s.constant("axes", [2, 3], np.int64)], "pooled")], "flat"))


HEADS = {
    "pooled-linear": (linear, "pooled-linear"),
    "complete-normalized": (normalized, "complete"),
    "complete-perceptron": (perceptron, "complete"),
    "complete-generalized-mean": (generalized_mean, "complete"),
    "complete-mean-and-maximum": (mean_and_maximum, "complete"),
    "complete-every-position": (every_position, "complete"),
    "gradient": (lambda: perceptron("HardSwish"), "gradient"),
    "attention": (attention, "attention"),
    "masking": (unknown, "masking"),
}
HIDDEN = ("complete-perceptron", "complete-every-position", "gradient")
"""Heads with a layer before that of the logits."""

# Target and engine, in what is packed for them; opset 17 has no Gelu and, before 8.6, no LayerNormalization.
ENGINES = {
    "openvino": ("x86-64", "openvino", "ptq"),
    "onnxruntime": ("x86-64-onnxruntime", "onnxruntime", "ptq"),
    "tensorrt-int8": ("jetson-orin-nano-8gb", "tensorrt-int8", "ptq"),
    "tensorrt-fp16": ("jetson-orin-nano-8gb", "tensorrt-fp16", "float"),
    "tensorrt-8.5": ("jetson-xavier-nx", "tensorrt-int8", "ptq"),
}


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """Explained graphs by head."""
    folder = tmp_path_factory.mktemp("graphs")

    @functools.cache
    def graph(name):
        build, kind = HEADS[name]
        model = build().model()
        head = explain(model, "masking")
        assert not isinstance(head, str), head
        assert head.kind == kind
        path = folder / f"{name}.onnx"
        proto = ir.to_proto(model)
        onnx.checker.check_model(proto, full_check=True)
        path.write_bytes(proto.SerializeToString())
        return ExplainedGraph(
            path=path, sha256=file_digest(path), rows=head.rows, columns=head.columns, bias=head.bias, outputs=CLASSES, reason="", kind=head.kind,
        )  # fmt: skip

    return graph


@pytest.fixture(scope="module")
def made(graphs, tmp_path_factory):
    """The dialect and an artefact, by engine and head."""

    @functools.cache
    def artefact(engine, name):
        target, choice, rung = ENGINES[engine]
        found = load_target(target)
        dialect = dialect_of(found, next(item for item in found.engines if item.name == choice))
        split = PreparedSplit(tensors=TENSORS, truth=np.zeros((len(TENSORS), 2), dtype=bool), samples=(), sha256="frames")
        stage = dialect.make(graphs(name), rung, split)
        folder = tmp_path_factory.mktemp("artefact")
        stage.apply(folder, Silent())
        return dialect, stage.ensures(folder)

    return artefact


def answers(dialect, artefact):
    """What the engine, or where it cannot run here the oracle, gives for every frame."""
    engine = open_artefact(artefact, dialect.spec(artefact), oracle=dialect.oracle)
    try:
        return [engine.infer(np.ascontiguousarray(tensor[None])) for tensor in TENSORS]
    finally:
        engine.close()


def measured(raw):
    offset = None if raw[0].offset is None else np.stack([one.offset for one in raw])
    return Measured(logits=np.stack([one.logits for one in raw]), maps=np.stack([one.cam for one in raw]), offset=offset)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("engine", ENGINES)
def test_map_and_rest_add_up_to_the_logit_in_every_engine(engine, name, graphs, made):
    """To rounding, on every frame; of an attention, whose row is computed twice, within what the manifest will allow. The graph conforms where the target has rules."""
    dialect, artefact = made(engine, name)
    raw = answers(dialect, artefact)
    spec = cam_spec(graphs(name), measured(raw))
    residual = np.stack([completeness_residual(one, spec) for one in raw])
    assert (raw[0].offset is None) == bool(spec.bias)
    assert np.ptp(measured(raw).logits, axis=0).max() > 1e-3
    assert np.abs(measured(raw).maps).max() > 1e-3
    assert residual.max() <= (spec.tolerance if spec.kind == "attention" else 1e-5)


def heads_nodes(proto):
    """Nodes of an ONNX graph's head, and who makes each value."""
    return [part for part in proto.graph.node if part.name.startswith(PREFIX)], {
        name: part for part in proto.graph.node for name in part.output
    }


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("engine", [engine for engine in ENGINES if engine != "openvino"])
def test_nothing_of_the_head_is_quantized_or_float16(engine, name, made):
    """No rounding reads what the head makes, none restores its weights, and its values are float32."""
    _, artefact = made(engine, name)
    proto = onnx.shape_inference.infer_shapes(onnx.load(artefact.files["onnx"]), data_prop=True)
    head, made_by = heads_nodes(proto)
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    kinds = {info.name: info.type.tensor_type.elem_type for info in (*proto.graph.value_info, *proto.graph.output)}
    floating = (onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.BOOL)
    assert len(head) > 1
    for part in head:
        assert part.op_type not in ("QuantizeLinear", "DequantizeLinear")
        assert all(kinds[value] in floating for value in part.output), part.name
        for value in part.input:
            if value in constants:
                assert constants[value].data_type in floating
            elif value in made_by and made_by[value].op_type == "DequantizeLinear":
                assert made_by[value].input[0] not in constants
    inside = {value for part in head for value in part.output}
    assert not [part.name for part in proto.graph.node if part.op_type == "QuantizeLinear" and part.input[0] in inside]
    rounded = [part for part in proto.graph.node if part.op_type == "QuantizeLinear"]
    assert bool(rounded) == (engine != "tensorrt-fp16")


@pytest.mark.parametrize("name", HEADS)
def test_nothing_of_the_head_is_quantized_in_openvinos_graph(name, made):
    """No FakeQuantize is behind an operation of the head, or between one and its constants."""
    _, artefact = made("openvino", name)
    model = shared_core().read_model(str(artefact.files["xml"]))
    # What makes an output has the output's name.
    given = {result.input_value(0).get_node() for result in model.get_results()[1:]}
    named = {part for part in model.get_ordered_ops() if part.get_friendly_name().startswith(PREFIX) and part.get_type_name() != "Constant"}
    head = sorted(given | named, key=lambda part: part.get_friendly_name())
    assert len(head) > 1
    behind = set(head)
    for part in model.get_ordered_ops():
        if any(value.get_node() in behind for value in part.input_values()):
            behind.add(part)
    assert not [part.get_friendly_name() for part in behind if part.get_type_name() == "FakeQuantize"]
    assert [part for part in model.get_ordered_ops() if part.get_type_name() == "FakeQuantize"]
    for part in head:
        for value in part.input_values():
            assert not _is_rounded_constant(value.get_node()), part.get_friendly_name()


def _is_rounded_constant(operation):
    """Whether an operation makes a constant that was rounded: nothing above it is a parameter, and something is of 8 bits, or rounds."""
    above, rounded = [operation], False
    for part in above:
        if part.get_type_name() == "Parameter":
            return False
        rounded |= part.get_type_name() == "FakeQuantize" or part.get_output_element_type(0).size == 1
        above.extend(value.get_node() for value in part.input_values())
    return rounded


@pytest.mark.parametrize("name", HIDDEN)
@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_hidden_layers_of_a_head_are_quantized(engine, name, made):
    """They only decide which gates are open; they are not part of the sum."""
    _, artefact = made(engine, name)
    if engine == "openvino":
        model = shared_core().read_model(str(artefact.files["xml"]))
        hidden = next(
            part for part in model.get_ordered_ops() if part.get_friendly_name().startswith("hidden") and part.get_type_name() == "MatMul"
        )
        assert hidden.input_value(0).get_node().get_type_name() in ("FakeQuantize", "Reshape")
        assert _is_rounded_constant(hidden.input_value(1).get_node())
    else:
        _, made_by = heads_nodes(proto := onnx.load(artefact.files["onnx"]))
        hidden = next(part for part in proto.graph.node if part.name == "hidden")
        assert [made_by[value].op_type for value in hidden.input[:2]] == ["DequantizeLinear"] * 2


def bundle_of(path, files, cam):
    """A bundle of these engine files; the golden frames are another model's, which only `verify` asks for."""
    d.write_device_bundle(path, output=d.THREE, more={f"model/openvino.{role}": files[role].read_bytes() for role in ("xml", "bin")})
    written = open_bundle(path)
    golden = written.manifest.cam
    cam = dataclasses.replace(cam, golden=golden.golden, golden_tolerance=golden.golden_tolerance)
    manifest = dataclasses.replace(written.manifest, cam=cam, members={})
    members = {name: bytes(written.members[name]) for name in written.manifest.members}
    path.unlink()
    write_bundle(path, manifest, members)
    return path


def float_files(graph, folder, change=None):
    """OpenVINO's files of an explained graph that is not quantized; `change` may tamper with it first."""
    model = ir.load(graph.path)
    if change is not None:
        change(model)
        path = folder / "changed.onnx"
        path.write_bytes(ir.to_proto(model).SerializeToString())
        graph = dataclasses.replace(graph, path=path, sha256=file_digest(path))
    target = load_target("x86-64")
    stage = dialect_of(target, target.engines[0]).exact(graph)
    stage.apply(folder, Silent())
    return stage.ensures(folder).files


def spec_of(graph, **changes):
    fields = {
        "rows": graph.rows,
        "columns": graph.columns,
        "maps": CLASSES,
        "kind": graph.kind,
        "bias": graph.bias,
        "tolerance": 1e-3,
        "scale": 1.0,
    }
    return CamSpec(**{**fields, **changes})


@pytest.mark.parametrize("name", HEADS)
def test_a_bundle_of_every_kind_answers_with_a_map(name, graphs, made, tmp_path):
    """Opened and asked as a device does it, quantized: a map a label that adds up, and an overlay."""
    graph = graphs(name)
    dialect, artefact = made("openvino", name)
    cam = cam_spec(graph, measured(answers(dialect, artefact)))
    with edgekit.load(bundle_of(tmp_path / "a.edgekit", artefact.files, cam)) as classifier:
        prediction = classifier.predict(TENSORS[0, :, :, 0])
        assert prediction.reason == ""
        assert prediction.cam.shape == (graph.rows, graph.columns)
        assert prediction.overlay().shape == (SIDE, SIDE, 3)


def tamper(model):
    """The graph adds something else to the mean of the map than it says."""
    output = model.graph.outputs[2]
    half = ir.Value(name="half", shape=ir.Shape((1, 1)), type=ir.TensorType(ir.DataType.FLOAT))
    half.const_value = ir.tensor(np.full((1, 1), 0.5, dtype=np.float32), name="half")
    model.graph.register_initializer(half)
    output.name = "offset_before"
    moved = ir.node("Add", [output, half], name="tampered")
    moved.outputs[0].name, moved.outputs[0].shape, moved.outputs[0].type = "offset", output.shape, output.type
    model.graph.append(moved)
    model.graph.outputs[2] = moved.outputs[0]


@pytest.mark.parametrize("name", ["complete-perceptron", "complete-every-position", "gradient", "attention", "masking"])
def test_a_map_whose_offset_is_not_its_own_is_withheld(name, graphs, tmp_path):
    """The answer stays, and says why there is no map."""
    graph = graphs(name)
    whole = float_files(graph, tmp_path)
    with edgekit.load(bundle_of(tmp_path / "whole.edgekit", whole, spec_of(graph))) as classifier:
        expected = classifier.predict(TENSORS[0, :, :, 0])
        assert expected.reason == ""
    with edgekit.load(bundle_of(tmp_path / "a.edgekit", float_files(graph, tmp_path, tamper), spec_of(graph))) as classifier:
        prediction = classifier.predict(TENSORS[0, :, :, 0])
    assert prediction.reason == "the map does not add up to the logit and is withheld (off by 0.5 logit units)"
    assert prediction.cam is None
    assert prediction.logits == pytest.approx(expected.logits, abs=1e-5)


LIES = {
    "an-offset-that-is-not-there": ("pooled-linear", {"kind": "gradient", "bias": ()}, "adds to a map's mean a constant, the manifest says an offset"),
    "a-constant-for-an-offset": ("gradient", {"bias": (0.0,) * CLASSES}, "adds to a map's mean an offset, the manifest says a constant"),
    "another-size": ("complete-generalized-mean", {"rows": 7}, "computes maps of the shape"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "message"), LIES.values(), ids=LIES)
def test_a_manifest_that_says_another_map_than_the_graphs_is_refused(name, changes, message, graphs, tmp_path):
    """Before a frame is answered: the check of every frame would compare with the wrong thing."""
    graph = graphs(name)
    path = bundle_of(tmp_path / "a.edgekit", float_files(graph, tmp_path), spec_of(graph, **changes))
    with pytest.raises(BundleError, match=message):
        edgekit.load(path)
