"""What an ONNX file asks for, found in its bytes."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import BundleError
from edgekit.runtime.engines.onnx_wire import MAX_DEPTH, check_self_contained

onnx = pytest.importorskip("onnx", reason="makes the files; a device does not have it")
TensorProto, helper, numpy_helper = onnx.TensorProto, onnx.helper, onnx.numpy_helper


def model(*nodes, initializers=(), sparse=(), functions=()):
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"]), *nodes],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        list(initializers),
        sparse_initializer=list(sparse),
    )
    return helper.make_model(graph, functions=list(functions))


def external(name="weights", *, location=True, data=True):
    made = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2])
    if location:
        made.data_location = TensorProto.EXTERNAL
    if data:
        entry = made.external_data.add()
        entry.key, entry.value = "location", "/etc/passwd"
    return made


def branch(*nodes, initializers=()):
    """An If whose branch holds the nodes."""
    output = helper.make_tensor_value_info("z", TensorProto.FLOAT, [2])
    inner = helper.make_graph([*nodes, helper.make_node("Identity", ["x"], ["z"])], "inner", [], [output], list(initializers))
    return helper.make_node("If", ["c"], ["z"], then_branch=inner)


def function():
    return helper.make_function("mine", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 20)])


def sparse():
    values, indices = external(), numpy_helper.from_array(np.array([0, 1]))
    return helper.make_sparse_tensor(values, indices, [4])


custom = helper.make_node("Gelu", ["x"], ["z"], domain="com.microsoft")
constant = helper.make_node("Constant", [], ["w"], value=external())
FILE = "another file"
REFUSED = {
    "external-weight": (model(initializers=[external()]), FILE),
    "external-by-its-location-alone": (model(initializers=[external(data=False)]), FILE),
    "external-by-its-path-alone": (model(initializers=[external(location=False)]), FILE),
    "external-constant": (model(constant), FILE),
    "external-sparse": (model(sparse=[sparse()]), FILE),
    "external-in-a-branch": (model(branch(initializers=[external()])), FILE),
    "external-constant-in-a-branch-of-a-branch": (model(branch(branch(constant))), FILE),
    "operator-of-microsoft": (model(custom), "the domain 'com.microsoft'"),
    "operator-in-a-branch": (model(branch(custom)), "the domain 'com.microsoft'"),
    "operator-of-an-unprintable-domain": (
        model(helper.make_node("X", ["x"], ["z"], domain="\x1b[31m")),
        r"domain '\\x1b\[31m'|domain '\\\\x1b",
    ),
    "function": (model(functions=[function()]), "functions of its own"),
}


@pytest.mark.parametrize(("made", "says"), REFUSED.values(), ids=REFUSED)
def test_what_is_outside_the_file_is_refused(made, says):
    """Wherever in the file it is asked for."""
    with pytest.raises(BundleError, match=says):
        check_self_contained(memoryview(made.SerializeToString()))


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_a_model_of_its_own_is_fine(domain):
    """Standard operators under either of their domain's names, weights inside, branches too."""
    inside = numpy_helper.from_array(np.ones(3, np.float32), "weights")
    made = model(helper.make_node("Relu", ["x"], ["z"], domain=domain), branch(), initializers=[inside])
    check_self_contained(memoryview(made.SerializeToString()))


def test_a_second_graph_in_the_file_is_looked_at_too():
    """Of a field that is written twice protobuf merges both."""
    twice = model().SerializeToString() + model(initializers=[external()]).SerializeToString()
    with pytest.raises(BundleError, match=FILE):
        check_self_contained(memoryview(twice))


def test_nesting_has_a_limit():
    """A file cannot exhaust the stack."""
    made = custom
    for _ in range(MAX_DEPTH):
        made = branch(made)
    with pytest.raises(BundleError, match="nested deeper"):
        check_self_contained(memoryview(model(made).SerializeToString()))


@pytest.mark.parametrize("data", [b"\x0a", b"\x08\xff", b"\x0a\x05ab", b"\x0b", b"\x3a\x04\x0a\x7f\x00\x00", b"\xff" * 11, b"\x38\x01"])
def test_what_is_no_message_is_refused(data):
    """Cut off, of a wire type that protobuf no longer has, or a number where the graph is expected."""
    with pytest.raises(BundleError, match="not an ONNX file"):
        check_self_contained(memoryview(data))


@given(st.binary(max_size=200))
def test_noise_is_read_or_refused(data):
    """Nothing but a bundle error comes out."""
    with contextlib.suppress(BundleError):
        check_self_contained(memoryview(data))


@settings(max_examples=200)
@given(st.data())
def test_a_flipped_byte_never_hides_external_data_from_us_alone(data):
    """What protobuf still reads as external data, we refuse."""
    raw = bytearray(model(initializers=[external()]).SerializeToString())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    from google.protobuf.message import DecodeError

    read = onnx.ModelProto()
    try:
        read.ParseFromString(bytes(raw))
    except DecodeError:
        return
    if any(tensor.external_data or tensor.data_location == TensorProto.EXTERNAL for tensor in read.graph.initializer):
        with pytest.raises(BundleError):
            check_self_contained(memoryview(bytes(raw)))
