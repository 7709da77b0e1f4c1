"""What the conformance check says beside the rule: for which versions, in which order, how many; and which files and targets it refuses."""
# ruff: noqa: TID253 - the tests of what reads onnx make onnx

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from conformance_builders import (
    TYPED,
    UNTYPED,
    append,
    get_constant,
    insert,
    insert_pair,
    node,
    read_instead,
    residual,
    set_attribute,
    set_constant,
    set_opset,
    target,
    write,
)
from onnx import TensorProto, helper

from edgekit.catalog.target import EngineChoice
from edgekit.compiler.conformance import RULES, check, check_file
from edgekit.compiler.conformance.finding import SEVERITIES
from edgekit.compiler.conformance.operators_table import INTEGER, NEVER, SINCE
from edgekit.errors import CatalogError, ModelError

SPARSE = target("10.3", sparsity_2_4=True)


def only(findings, rule):
    (found,) = [finding for finding in findings if finding.rule == rule]
    return found


def test_the_versions_that_an_operator_is_not_in():
    """An operator is missed in the older versions of the target only."""
    model = residual()
    set_opset(model, 20)
    append(model, "DeformConv", ["half", "half", "half"], "deformed")
    append(model, "HannWindow", [set_constant(model, "size", np.array(8))], "window")
    assert only(check(model, target("10.3", "10.16")), "O2").versions == ("10.3",)


def test_the_versions_are_compared_as_numbers():
    """10.16 is newer than 10.3: slices with computed axes are refused by neither, padding with computed axes by the older one."""
    model = residual()
    append(model, "Cast", ["normalized"], "whole", to=TensorProto.INT64)
    append(model, "ReduceMax", ["whole"], "number", keepdims=0)
    append(model, "Reshape", ["number", set_constant(model, "one", np.array([1]))], "axes")
    append(model, "Slice", ["normalized", "one", "one", "axes"], "sliced")
    append(model, "Pad", ["normalized", set_constant(model, "pads", np.array([1, 1])), "", "axes"], "padded")
    finding = only(check(model, target("10.3", "10.16")), "R8")
    assert (finding.node, finding.versions) == ("padded", ("10.3",))


def test_opsets_that_are_read():
    """TensorRT 10.3 reads opsets up to 20, 10.13 and newer up to 24."""
    model = residual()
    for version, aim, refused in [
        (20, target("10.3"), False),
        (21, target("10.3"), True),
        (24, target("10.13", "11.4"), False),
        (25, target("11.4"), True),
    ]:
        set_opset(model, version)
        assert ("O4" in {finding.rule for finding in check(model, aim)}) == refused, version


def test_the_most_severe_comes_first():
    """Errors stand before warnings, warnings before what is only told."""
    model = residual()
    append(model, "Cast", ["normalized"], "precise", to=TensorProto.DOUBLE)
    set_constant(model, "a1_zero", np.array(3, np.int8))
    found = [SEVERITIES[finding.severity] for finding in check(model, SPARSE)]
    assert found == sorted(found)
    assert set(found) == {0, 1, 2}


def test_types_are_the_builders_where_the_network_is_not_strongly_typed():
    """Mixed operand types are no fault for TensorRT 8.6, whose builder chooses."""
    model = residual(typed=False)
    append(model, "Cast", ["normalized"], "half", to=TensorProto.FLOAT16)
    append(model, "Add", ["half", "normalized"], "mixed")
    assert check(model, UNTYPED) == ()


def test_mixed_batch_normalization():
    """A BatchNormalization of mixed types is refused by versions before 10.7 only."""
    model = residual()
    one = set_constant(model, "unit", np.ones(1, np.float32))
    append(model, "BatchNormalization", ["half", one, one, one, one], "normal")
    assert only(check(model, target("10.3", "10.16")), "Q8").versions == ("10.3",)
    assert check(model, target("10.16")) == ()


@pytest.mark.parametrize("quantized", [True, False])
def test_sparse_layers_are_counted(quantized):
    """A weight with two zeros in four input channels counts, one with a single number too many does not."""
    model = residual(quantized=quantized)
    assert only(check(model, SPARSE), "S1").message.startswith("0 of 4 layers")
    for name in ("conv2", "conv3"):
        values = get_constant(model, f"{name}_weight").copy()
        values[:, ::2] = 0
        set_constant(model, f"{name}_weight", values)
    assert only(check(model, SPARSE), "S1").message.startswith("2 of 4 layers")
    values = get_constant(model, "conv3_weight").copy()
    values[5, 0:4, 1, 1] = [1, 1, 0, 1]
    set_constant(model, "conv3_weight", values)
    assert only(check(model, SPARSE), "S1").message.startswith("1 of 4 layers")


def test_weights_that_round_to_zero_are_sparse():
    """A float weight is counted as its quantizer rounds it."""
    model = residual(quantized=False)
    values = np.ones((32, 32, 3, 3), np.float16)
    values[:, ::2] = 0.004
    set_constant(model, "conv2_weight", values)
    assert only(check(model, SPARSE), "S1").message.startswith("0 of 4 layers")
    insert_pair(model, "conv2", "conv2_weight", "w", scale=0.01)
    read_instead(model, "conv2", "conv2_weight", "w_dq")
    assert only(check(model, SPARSE), "S1").message.startswith("1 of 4 layers")


def test_transposed_convolutions_count_channels_on_axis_one():
    """A ConvTranspose's output channels are axis 1, and axis 0 is a fault."""
    for axis, rules in [(1, set()), (0, {"Q5"})]:
        model = residual()
        weight = set_constant(model, "up_weight", np.ones((32, 32, 2, 2), np.int8))
        scales = set_constant(model, "up_scale", np.full(32, 0.01, np.float16))
        append(model, "DequantizeLinear", [weight, scales, set_constant(model, "up_zero", np.zeros(32, np.int8))], "up_dq", axis=axis)
        append(model, "ConvTranspose", ["a1_dq", "up_dq"], "up", kernel_shape=[2, 2], strides=[2, 2])
        assert {finding.rule for finding in check(model, TYPED)} == rules


def test_an_axis_may_be_counted_from_the_end():
    """Axis -4 of a convolution's weight is axis 0."""
    model = residual()
    set_attribute(node(model, "conv2_dq"), axis=-4)
    assert check(model, TYPED) == ()


def test_the_first_convolution_may_be_narrow():
    """From the frame to 8 channels is no fault; from 8 to 8 channels further on is one."""
    model = residual()
    for name, inputs, source in [("first", 1, "a0_dq"), ("second", 8, "first_pair_dq")]:
        weight = set_constant(model, f"{name}_w", np.ones((8, inputs, 3, 3), np.int8))
        scales = set_constant(model, f"{name}_s", np.full(8, 0.01, np.float16))
        append(model, "DequantizeLinear", [weight, scales, set_constant(model, f"{name}_z", np.zeros(8, np.int8))], f"{name}_dq", axis=0)
        append(model, "Conv", [source, f"{name}_dq"], name, kernel_shape=[3, 3])
        insert_pair(model, None, name, f"{name}_pair")
    append(model, "Relu", ["second_pair_dq"], "last")
    assert {(finding.rule, finding.node) for finding in check(model, TYPED) if finding.rule == "P6"} == {("P6", "second")}


def test_weights_per_tensor_conform():
    """One scale for a whole weight is no fault."""
    model = residual()
    set_constant(model, "conv2_scale", np.array(0.01, np.float16))
    set_constant(model, "conv2_zero", np.array(0, np.int8))
    assert check(model, TYPED) == ()


def test_operators_inside_bodies_are_found():
    """An operator that TensorRT does not have is found inside the body of an If, too."""
    model = residual()
    value = helper.make_tensor_value_info("inside", TensorProto.FLOAT, None)
    body = helper.make_graph([helper.make_node("Bernoulli", ["normalized"], ["inside"], name="deep")], "body", [], [value])
    append(model, "If", [set_constant(model, "yes", np.array(True))], "chosen", then_branch=body, else_branch=body)
    assert {finding.rule for finding in check(model, TYPED)} == {"O1", "G4"}


def test_the_model_is_left_as_it_is():
    """Checking changes no byte of the model."""
    model = residual()
    before = model.SerializeToString(deterministic=True)
    check(model, SPARSE)
    assert model.SerializeToString(deterministic=True) == before


def test_a_circle_ends():
    """A graph that goes round in a circle, which ONNX forbids, is checked or refused, and does not hang."""
    model = residual()
    append(model, "Identity", ["second"], "first")
    append(model, "Identity", ["first"], "second")
    for name in ("a1_q", "a1_dq"):
        read_instead(model, name, "a1_scale", "second")
    assert "Q3" in {finding.rule for finding in check(model, TYPED)}


def test_a_cast_to_a_type_that_is_none():
    """A scale that is cast to a type ONNX does not have is no constant; nothing breaks over it."""
    model = residual()
    insert(model, "a1_q", "Cast", ["a1_scale"], ["a1_cast"], to=999)
    read_instead(model, "a1_q", "a1_scale", "a1_cast")
    assert "Q3" in {finding.rule for finding in check(model, TYPED)}


def test_the_tables_of_operators_do_not_overlap():
    """No operator is both there and never there, and all are ONNX's own."""
    assert not set(SINCE) & NEVER
    assert not set(INTEGER) & (set(SINCE) | NEVER)
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}
    assert not (set(SINCE) | NEVER | set(INTEGER)) - known


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.id)
def test_a_rule_is_complete(rule):
    """Each rule has a title, a fix and a source, and is listed under its own id."""
    assert RULES[rule.id] is rule
    assert rule.title
    assert rule.fix
    assert rule.source


def test_a_target_without_tensorrt_is_refused(tmp_path):
    """It is the target's author who must act, and the hint says where others are; a file is not even read."""
    other = dataclasses.replace(TYPED, tensorrt=None, engines=(EngineChoice(name="openvino", settings={}),), jetson=None)
    with pytest.raises(CatalogError, match="no TensorRT") as refused:
        check(residual(), other)
    assert "edgekit targets" in refused.value.hint
    with pytest.raises(CatalogError, match="no TensorRT"):
        check_file(tmp_path / "missing.onnx", other)


def test_a_file_is_checked(tmp_path):
    """A file has the findings of its model."""
    model = residual()
    set_attribute(node(model, "conv2_dq"), axis=1)
    findings = check_file(write(model, tmp_path / "net.onnx"), TYPED)
    assert findings == check(model, TYPED)
    assert [finding.rule for finding in findings] == ["Q5"]


def external(model):
    (tensor,) = [item for item in model.graph.initializer if item.name == "conv2_bias"]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")


def damaged_weight(model):
    (tensor,) = [item for item in model.graph.initializer if item.name == "conv2_bias"]
    tensor.raw_data = tensor.raw_data[:5]


def unconnected(model):
    read_instead(model, "relu1", "stem", "nowhere")


@pytest.mark.parametrize(
    ("mutate", "says"),
    [(external, "another file"), (damaged_weight, "not a valid ONNX model"), (unconnected, "not a valid ONNX model")],
    ids=["external", "damaged", "unconnected"],
)
def test_a_bad_file_is_refused(tmp_path, mutate, says):
    """A file that ONNX's checker refuses, or that names other files, is an error of the model, not a list of findings."""
    model = residual()
    mutate(model)
    with pytest.raises(ModelError, match=says):
        check_file(write(model, tmp_path / "net.onnx"), TYPED)


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"not a model"], ids=["empty", "zeros", "text"])
def test_what_is_no_model_is_refused(tmp_path, content):
    """Bytes that are no model are an error of the model."""
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError):
        check_file(path, TYPED)


def test_a_damaged_constant_is_refused():
    """A model in memory whose constant has too few bytes is an error of the model."""
    model = residual()
    (tensor,) = [item for item in model.graph.initializer if item.name == "a1_scale"]
    tensor.raw_data = tensor.raw_data[:1]
    with pytest.raises(ModelError, match="a1_scale"):
        check(model, TYPED)
