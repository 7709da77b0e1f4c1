"""ONNX files as a source: what is taken, what is taken off, and what is refused at any depth."""
# ruff: noqa: TID253 - the tests of what loads onnx load onnx

from __future__ import annotations

import contextlib
import math

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from network_builders import (
    SIDE,
    binary_spec,
    classifier_nodes,
    frames,
    input_spec,
    model_spec,
    onnx_model,
    run_onnx,
    tiny_onnx,
    write_onnx,
)
from onnx import TensorProto, helper, numpy_helper

from edgekit.compiler.load.onnx_file import open_onnx
from edgekit.compiler.load.source import normalize
from edgekit.errors import EdgekitError, ModelError


def opened(path, model=None, spec=None):
    return open_onnx(str(path), model or model_spec(f"onnx:{path}"), spec or input_spec())


def frame_of(*sizes, kind=TensorProto.FLOAT, name="x"):
    return [helper.make_tensor_value_info(name, kind, list(sizes))]


def static_input(path):
    """The sizes of the only input of a written graph."""
    value = onnx.load(path).graph.input[0]
    return [entry.dim_value for entry in value.type.tensor_type.shape.dim]


def test_the_exported_graph_is_the_model(tmp_path):
    """Its logits are those of the file, by ONNX Runtime, on normalized frames."""
    path = write_onnx(tmp_path / "net.onnx", tiny_onnx())
    spec = input_spec()
    tensors = frames(spec)
    source = opened(path)
    source.export(tmp_path / "out.onnx")
    expected = run_onnx(path, normalize(tensors, spec))[0]
    done = []
    assert source.logits(tensors, done.append) == pytest.approx(expected, abs=1e-6)
    assert run_onnx(tmp_path / "out.onnx", normalize(tensors, spec))[0] == pytest.approx(expected, abs=1e-6)
    assert (done, source.notes) == ([1, 2], ())


@pytest.mark.parametrize("batch", ["N", None, 1, 8])
def test_the_batch_is_fixed_to_one(tmp_path, batch):
    """Whatever the file says, and whatever shapes it wrote for another batch."""
    model = tiny_onnx(inputs=frame_of(batch, 3, SIDE, SIDE), outputs=frame_of(batch, 3, name="y"))
    model.graph.value_info.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, [batch, 4, SIDE, SIDE]))
    source = opened(write_onnx(tmp_path / "net.onnx", model))
    source.export(tmp_path / "out.onnx")
    assert static_input(tmp_path / "out.onnx") == [1, 3, SIDE, SIDE]
    assert source.logits(frames(input_spec()), lambda _: None).shape == (2, 3)


def with_tail(*nodes, last, initializers=()):
    body, weights = classifier_nodes()
    return onnx_model(
        [*body, *nodes], [*weights, *initializers], outputs=[helper.make_tensor_value_info(last, TensorProto.FLOAT, [None, None])]
    )


TAILS = {
    "softmax": [helper.make_node("Softmax", ["y"], ["p"], axis=1)],
    "sigmoid": [helper.make_node("Sigmoid", ["y"], ["p"])],
    "softmax-identity": [helper.make_node("Softmax", ["y"], ["q"]), helper.make_node("Identity", ["q"], ["p"])],
    "softmax-flatten": [helper.make_node("Softmax", ["y"], ["q"]), helper.make_node("Flatten", ["q"], ["p"])],
}


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
def test_probabilities_are_taken_off(tmp_path, tail):
    """The logits below them are the output, it is noted, and the operator is gone."""
    body, weights = classifier_nodes()
    body[2].output[0] = "pooled"
    body[3].input[0] = "pooled"
    model = onnx_model([*body, *tail], weights, outputs=[helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, None])])
    task = "multilabel" if tail[0].op_type == "Sigmoid" else "multiclass"
    source = opened(write_onnx(tmp_path / "net.onnx", model), model_spec(task=task))
    source.export(tmp_path / "out.onnx")
    assert source.notes == (f"the {tail[0].op_type} at the output was taken off: edgekit works on logits",)
    assert tail[0].op_type not in {node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node}
    plain = write_onnx(tmp_path / "plain.onnx", tiny_onnx())
    tensors = frames(input_spec())
    assert source.logits(tensors, lambda _: None) == pytest.approx(opened(plain).logits(tensors, lambda _: None), abs=1e-6)


OTHER_TASKS = {
    "softmax-of-findings-that-may-be-together": ("Softmax", 3, model_spec(task="multilabel")),
    "sigmoid-of-classes": ("Sigmoid", 3, model_spec()),
    "sigmoid-of-two-logits": ("Sigmoid", 2, binary_spec()),
    "softmax-of-one-logit": ("Softmax", 1, binary_spec()),
}


@pytest.mark.parametrize(("operator", "outputs", "recipe"), OTHER_TASKS.values(), ids=OTHER_TASKS)
def test_probabilities_of_another_task_are_refused(tmp_path, operator, outputs, recipe):
    """Without them the logits would mean something else than the model was trained to mean."""
    nodes, weights = classifier_nodes(outputs=outputs)
    nodes.append(helper.make_node(operator, ["y"], ["z"]))
    model = onnx_model(nodes, weights, outputs=[helper.make_tensor_value_info("z", TensorProto.FLOAT, [None, None])])
    with pytest.raises(ModelError, match=rf"ends in a {operator} of {outputs} outputs, which is not what task = '{recipe.task}' means"):
        opened(write_onnx(tmp_path / "net.onnx", model), recipe)


@pytest.mark.parametrize(("operator", "outputs"), [("Sigmoid", 1), ("Softmax", 2)])
def test_probabilities_of_a_binary_model_are_taken_off(tmp_path, operator, outputs):
    """A sigmoid of one logit and a softmax of two mean the same."""
    nodes, weights = classifier_nodes(outputs=outputs)
    nodes.append(helper.make_node(operator, ["y"], ["z"]))
    model = onnx_model(nodes, weights, outputs=[helper.make_tensor_value_info("z", TensorProto.FLOAT, [None, None])])
    assert len(opened(write_onnx(tmp_path / "net.onnx", model), binary_spec()).notes) == 1


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_binary_model_has_one_logit_or_two(tmp_path, outputs):
    """The labels are two either way."""
    nodes, weights = classifier_nodes(outputs=outputs)
    path = write_onnx(tmp_path / "net.onnx", onnx_model(nodes, weights))
    assert opened(path, binary_spec(f"onnx:{path}")).logits(frames(input_spec()), lambda _: None).shape == (2, outputs)


def external(tensor, location="weights.bin"):
    """Moves a tensor's bytes out of the file."""
    tensor = onnx.TensorProto.FromString(tensor.SerializeToString())
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


OUTSIDE = numpy_helper.from_array(np.ones(3, dtype=np.float32), "outside")


def external_initializer():
    nodes, weights = classifier_nodes()
    return onnx_model(nodes, [external(weights[0]), *weights[1:]])


def external_in_a_constant():
    constant = helper.make_node("Constant", [], ["k"], value=external(OUTSIDE))
    return with_tail(constant, helper.make_node("Add", ["y", "k"], ["z"]), last="z")


def branch(initializer, name):
    node = helper.make_node("Add", ["y", "outside"], [name])
    return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3])], [initializer])


def conditional(*branches):
    truth = helper.make_node("Constant", [], ["truth"], value=numpy_helper.from_array(np.array(True), "t"))
    return with_tail(truth, helper.make_node("If", ["truth"], ["z"], then_branch=branches[0], else_branch=branches[1]), last="z")


def external_in_a_branch():
    return conditional(branch(OUTSIDE, "one"), branch(external(OUTSIDE), "two"))


def external_in_a_constant_of_a_branch():
    nodes = [helper.make_node("Constant", [], ["k"], value=external(OUTSIDE)), helper.make_node("Add", ["y", "k"], ["two"])]
    graph = helper.make_graph(nodes, "two", [], [helper.make_tensor_value_info("two", TensorProto.FLOAT, [1, 3])])
    return conditional(branch(OUTSIDE, "one"), graph)


def external_in_a_sparse_initializer():
    model = tiny_onnx()
    indices = numpy_helper.from_array(np.arange(3, dtype=np.int64), "indices")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(external(OUTSIDE), indices, [3]))
    return model


def external_in_a_function():
    constant = helper.make_node("Constant", [], ["k"], value=external(OUTSIDE))
    function = helper.make_function(
        "own", "F", ["a"], ["b"], [constant, helper.make_node("Add", ["a", "k"], ["b"])], [helper.make_opsetid("", 20)]
    )
    model = with_tail(helper.make_node("F", ["y"], ["z"], domain="own"), last="z")
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.functions.append(function)
    return model


def external_by_its_entries_alone():
    """The location is given while the field says that the data is inside."""
    nodes, weights = classifier_nodes()
    tensor = external(weights[0])
    tensor.data_location = TensorProto.DEFAULT
    return onnx_model(nodes, [tensor, *weights[1:]])


EXTERNAL = [
    external_initializer,
    external_in_a_constant,
    external_in_a_branch,
    external_in_a_constant_of_a_branch,
    external_in_a_sparse_initializer,
    external_in_a_function,
    external_by_its_entries_alone,
]


@pytest.mark.parametrize("build", EXTERNAL)
def test_external_data_is_refused_wherever_it_hides(tmp_path, monkeypatch, build):
    """It could name any path of this machine; the file it names here exists, so that only the refusal keeps it out."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_bytes(bytes(4096))
    with pytest.raises(ModelError, match="keeps its weights in another file"):
        opened(write_onnx(tmp_path / "net.onnx", build()))


def test_external_data_saved_by_onnx_is_refused(tmp_path):
    """As exporters write it, with a hint how not to."""
    onnx.save(tiny_onnx(), tmp_path / "net.onnx", save_as_external_data=True, location="net.onnx.data", size_threshold=0)
    with pytest.raises(ModelError, match="keeps its weights in another file") as caught:
        opened(tmp_path / "net.onnx")
    assert "external_data=False" in caught.value.hint


def custom_operator():
    model = with_tail(helper.make_node("Own", ["y"], ["z"], domain="com.example"), last="z")
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    return model


def custom_operator_in_a_branch():
    node = helper.make_node("Own", ["y"], ["two"], domain="com.example")
    graph = helper.make_graph([node], "two", [], [helper.make_tensor_value_info("two", TensorProto.FLOAT, [1, 3])])
    model = conditional(branch(OUTSIDE, "one"), graph)
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    return model


def machine_learning_operator():
    model = with_tail(helper.make_node("Normalizer", ["y"], ["z"], domain="ai.onnx.ml", norm="L2"), last="z")
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    return model


def own_function():
    body = [helper.make_node("Relu", ["a"], ["b"])]
    function = helper.make_function("own", "F", ["a"], ["b"], body, [helper.make_opsetid("", 20)])
    model = with_tail(helper.make_node("F", ["y"], ["z"], domain="own"), last="z")
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.functions.append(function)
    return model


def reshape_to_batch_of_eight():
    shape = numpy_helper.from_array(np.array([8, -1], dtype=np.int64), "shape")
    body, weights = classifier_nodes()
    body[3] = helper.make_node("Reshape", ["p", "shape"], ["f"])
    return onnx_model(body, [*weights, shape], inputs=frame_of(8, 3, SIDE, SIDE))


def without_gemm(count, last):
    nodes, weights = classifier_nodes()
    return onnx_model(nodes[:count], weights[:1], outputs=[helper.make_tensor_value_info(last, TensorProto.FLOAT, [None] * 4)])


def two_inputs():
    model = with_tail(helper.make_node("Add", ["y", "age"], ["z"]), last="z")
    model.graph.input.append(helper.make_tensor_value_info("age", TensorProto.FLOAT, [1, 3]))
    return model


def two_outputs():
    model = tiny_onnx()
    model.graph.output.append(helper.make_tensor_value_info("f", TensorProto.FLOAT, [1, 4]))
    return model


def cast_output():
    model = with_tail(helper.make_node("Cast", ["y"], ["z"], to=TensorProto.DOUBLE), last="z")
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    return model


def half_input():
    nodes, weights = classifier_nodes()
    first = helper.make_node("Cast", ["h"], ["x"], to=TensorProto.FLOAT)
    return onnx_model([first, *nodes], weights, inputs=frame_of(1, 3, SIDE, SIDE, kind=TensorProto.FLOAT16, name="h"))


REFUSED = {
    "custom-operator": (custom_operator, r"uses operators of \['com\.example'\]"),
    "custom-operator-in-a-branch": (custom_operator_in_a_branch, r"uses operators of \['com\.example'\]"),
    "machine-learning-operator": (machine_learning_operator, r"uses operators of \['ai\.onnx\.ml'\]"),
    "own-function": (own_function, "has functions of its own, 'F' first"),
    "old-opset": (lambda: tiny_onnx(opset=9), "is of opset 9, older than 11"),
    "any-height": (lambda: tiny_onnx(inputs=frame_of(1, 3, "H", SIDE)), "takes frames of any size"),
    "any-width": (lambda: tiny_onnx(inputs=frame_of(1, 3, SIDE, None)), "takes frames of any size"),
    "any-channels": (lambda: tiny_onnx(inputs=frame_of(1, "C", SIDE, SIDE)), "takes frames of any size"),
    "no-frame": (lambda: tiny_onnx(inputs=frame_of(1, 3, SIDE)), "not \\(batch, channels, height, width\\)"),
    "half-precision-frame": (half_input, "h is FLOAT16, not FLOAT"),
    "double-precision-logits": (cast_output, "z is DOUBLE, not FLOAT"),
    "two-inputs": (two_inputs, "has 2 inputs and 1 outputs"),
    "two-outputs": (two_outputs, "has 1 inputs and 2 outputs"),
    "four-classes": (lambda: onnx_model(*classifier_nodes(outputs=4)), "has 4 outputs, the recipe names 3 labels"),
    "features": (lambda: without_gemm(2, "r"), "returns a tensor of shape"),
    "reshape-to-another-batch": (reshape_to_batch_of_eight, "shape|fit with a batch of one"),
    "no-such-operator": (lambda: with_tail(helper.make_node("Klassify", ["y"], ["z"]), last="z"), "is not a valid ONNX model"),
    "value-from-nowhere": (lambda: with_tail(helper.make_node("Add", ["y", "nowhere"], ["z"]), last="z"), "is not a valid ONNX model"),
    "no-graph": (onnx.ModelProto, "is not a valid ONNX model"),
}


@pytest.mark.parametrize(("build", "message"), REFUSED.values(), ids=REFUSED)
def test_what_no_engine_could_run_is_refused(tmp_path, build, message):
    """Here, with what to change, and not by an engine later."""
    with pytest.raises(ModelError, match=message):
        opened(write_onnx(tmp_path / "net.onnx", build()))


@pytest.mark.parametrize("data", [b"", b"no model", bytes(range(256)) * 8, b"\x08\x07"])
def test_bytes_that_are_no_model_are_refused(tmp_path, data):
    """Protobuf reads some of them without complaint."""
    (tmp_path / "net.onnx").write_bytes(data)
    with pytest.raises(ModelError, match=r"net\.onnx is not a valid ONNX model"):
        opened(tmp_path / "net.onnx")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=4), st.integers(1, 1 << 20))
def test_a_damaged_file_never_raises_anything_but_edgekits_error(tmp_path, changes, length):
    """A truncated or changed file either still is a model, or is refused."""
    data = bytearray(tiny_onnx().SerializeToString())
    for place, byte in changes:
        data[place % len(data)] = byte
    path = tmp_path / "net.onnx"
    path.write_bytes(bytes(data[: max(1, length % (2 * len(data)))]))
    with contextlib.suppress(EdgekitError):
        source = opened(path)
        source.export(tmp_path / "out.onnx")
        source.logits(frames(input_spec(), count=1), lambda _: None)


def test_weights_beside_an_onnx_file_are_refused(tmp_path):
    """The file holds its own; which ones were meant cannot be known."""
    path = write_onnx(tmp_path / "net.onnx", tiny_onnx())
    with pytest.raises(ModelError, match="holds its own weights"):
        opened(path, model_spec(f"onnx:{path}", "w.safetensors"))


def test_a_missing_file_is_named(tmp_path):
    """With the rule for its path."""
    with pytest.raises(ModelError, match=r"gone\.onnx is not there"):
        opened(tmp_path / "gone.onnx")


def test_infinite_logits_are_refused(tmp_path):
    """A reference that answers with nothing cannot be compared with anything."""
    scale = numpy_helper.from_array(np.array(math.inf, dtype=np.float32), "scale")
    path = write_onnx(tmp_path / "net.onnx", with_tail(helper.make_node("Mul", ["y", "scale"], ["z"]), last="z", initializers=[scale]))
    with pytest.raises(ModelError, match="NaN or infinite logits"):
        opened(path).logits(frames(input_spec()), lambda _: None)


def test_frames_of_another_size_are_refused_by_name(tmp_path):
    """ONNX Runtime's own error does not come out."""
    path = write_onnx(tmp_path / "net.onnx", tiny_onnx())
    spec = input_spec(resize=(16, 16))
    with pytest.raises(ModelError, match="ONNX Runtime cannot run the model"):
        opened(path, spec=spec).logits(frames(spec), lambda _: None)
