"""A network that keeps every rule, broken in one place, breaks exactly that rule."""
# ruff: noqa: TID253 - the tests of what reads onnx make onnx

from __future__ import annotations

import numpy as np
import onnx
import pytest
from conformance_builders import (
    TYPED,
    UNTYPED,
    WIDTH,
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
)
from onnx import TensorProto, helper

from edgekit.compiler.conformance import RULES, check

DLA1 = {"dla_cores": 2, "dla_generation": 1}
DLA2 = {"dla_cores": 2, "dla_generation": 2}


def shifted(model):
    set_constant(model, "a1_zero", np.array(3, np.int8))


def shifted_weight(model):
    set_constant(model, "conv2_zero", np.eye(1, WIDTH, 5, dtype=np.int8)[0])


def no_zero_point(model):
    for name in ("a1_q", "a1_dq"):
        del node(model, name).input[2]


def unsigned(model):
    set_constant(model, "a1_zero", np.array(0, np.uint8))


def scale(value):
    return lambda model: set_constant(model, "a1_scale", np.array(value, np.float16))


def zero_scale_of_a_channel(model):
    values = get_constant(model, "conv2_scale").copy()
    values[7] = 0
    set_constant(model, "conv2_scale", values)


def scale_that_underflows(model):
    set_constant(model, "a1_float", np.array(1e-9, np.float32))
    insert(model, "a1_q", "Cast", ["a1_float"], ["a1_cast"], to=TensorProto.FLOAT16)
    for name in ("a1_q", "a1_dq"):
        read_instead(model, name, "a1_scale", "a1_cast")


def computed_scale(model):
    insert(model, "a1_q", "ReduceMax", ["half"], ["a1_computed"], keepdims=0)
    read_instead(model, "a1_q", "a1_scale", "a1_computed")


def activation_per_channel(model):
    set_constant(model, "a1_scale", np.full(WIDTH, 0.05, np.float16))
    set_constant(model, "a1_zero", np.zeros(WIDTH, np.int8))


def weight_axis(model):
    set_attribute(node(model, "conv2_dq"), axis=1)


def negative_weight_axis(model):
    set_attribute(node(model, "conv2_dq"), axis=-3)


def classifier_axis(model):
    _float_weight_pair(model, "fc", axis=1, count=WIDTH)


def _float_weight_pair(model, name, *, axis, count):
    parts = [
        set_constant(model, f"{name}_scale", np.full(count, 0.01, np.float16)),
        set_constant(model, f"{name}_zero", np.zeros(count, np.int8)),
    ]
    insert(model, "features", "QuantizeLinear", [f"{name}_weight", *parts], [f"{name}_q"], axis=axis)
    insert(model, "features", "DequantizeLinear", [f"{name}_q", *parts], [f"{name}_dq"], axis=axis)
    read_instead(model, "scores", f"{name}_weight", f"{name}_dq")
    insert_pair(model, "scores", "features", "a4")
    read_instead(model, "scores", "features", "a4_dq")


def integer_bias(model):
    parts = [set_constant(model, "b_int", np.zeros(WIDTH, np.int32)), set_constant(model, "b_scale", np.full(WIDTH, 0.01, np.float16))]
    insert(model, "conv2", "DequantizeLinear", parts, ["b_dq"], axis=0)
    read_instead(model, "conv2", "conv2_bias", "b_dq")


def quantized_bias(model):
    insert_pair(model, "conv2", "conv2_bias", "b")
    read_instead(model, "conv2", "conv2_bias", "b_dq")


def bias_behind_matmul(model):
    set_constant(model, "m", np.ones((WIDTH, 4), np.float16))
    append(model, "MatMul", ["features", "m"], "product")
    insert_pair(model, None, set_constant(model, "b", np.ones(4, np.float16)), "b")
    append(model, "Add", ["product", "b_dq"], "product_bias")


def integer_operator(model):
    append(model, "DynamicQuantizeLinear", ["normalized"], "y", "y_scale", "y_zero")


def float_bias_of_half_convolution(model):
    set_constant(model, "conv2_bias", np.zeros(WIDTH, np.float32))


def mixed_sum(model):
    append(model, "Add", ["half", "normalized"], "mixed")


def float_scale_of_half(model):
    read_instead(model, "a3_q", "a3_scale", set_constant(model, "a3_float", np.array(0.05, np.float32)))


def half_scale_in_old_opset(model):
    set_constant(model, "a1_scale", np.array(0.05, np.float16))


def more_zero_points(model):
    set_constant(model, "a1_zero", np.zeros(2, np.int8))


def fewer_scales(model):
    set_constant(model, "conv2_scale", np.full(WIDTH // 2, 0.01, np.float16))
    set_constant(model, "conv2_zero", np.zeros(WIDTH // 2, np.int8))


def scale_matrix(model):
    set_constant(model, "a1_scale", np.full((1, 1), 0.05, np.float16))


def quantized_number(model):
    append(model, "ReduceMax", ["half"], "number", keepdims=0)
    append(model, "Relu", [insert_pair(model, None, "number", "n")], "number_again")


def transposed_integers(model):
    insert(model, "conv2_dq", "Transpose", ["conv2_weight"], ["turned"], perm=[0, 1, 3, 2])
    read_instead(model, "conv2_dq", "conv2_weight", "turned")


def moved_integers(model):
    insert(model, "a1_dq", "Reshape", ["a1_q", set_constant(model, "same", np.array([1, WIDTH, 16, 16]))], ["a1_moved"])
    read_instead(model, "a1_dq", "a1_q", "a1_moved")


def integer_weight(model):
    values = np.random.default_rng(1).integers(-127, 128, (WIDTH, WIDTH, 3, 3))
    read_instead(model, "conv2_dq", "conv2_q", set_constant(model, "conv2_integers", values.astype(np.int8)))
    model.graph.node.remove(node(model, "conv2_q"))


def asymmetric_weight(model):
    values = get_constant(model, "conv2_weight").copy()
    values[3, 4, 0, 0] = -128
    set_constant(model, "conv2_weight", values)


def dynamic_height(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "height"


def batch_of_two(model):
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 2


def weights_elsewhere(model):
    (tensor,) = [item for item in model.graph.initializer if item.name == "conv2_bias"]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")


def foreign_operator(model):
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    append(model, "Sharpen", ["half"], "sharper", domain="com.example")


def own_function(model):
    body = [helper.make_node("Relu", ["x"], ["y"])]
    model.functions.append(helper.make_function("own", "Twice", ["x"], ["y"], body, [helper.make_opsetid("", 19)]))


def branch(model, op_type="Relu"):
    value = helper.make_tensor_value_info("inside", TensorProto.FLOAT, None)
    body = helper.make_graph([helper.make_node(op_type, ["normalized"], ["inside"])], "body", [], [value])
    append(model, "If", [set_constant(model, "yes", np.array(True))], "chosen", then_branch=body, else_branch=body)


def never_supported(model):
    append(model, "Bernoulli", ["normalized"], "noise")


def layer_normalization(model, *outputs):
    gamma = set_constant(model, "gamma", np.ones(16, np.float32))
    append(model, "LayerNormalization", ["normalized", gamma], "normal", *outputs)


def swish(model):
    set_opset(model, 24)
    append(model, "Swish", ["half"], "swished")


def opset(version):
    return lambda model: set_opset(model, version)


def pool(**attributes):
    return lambda model: append(model, "MaxPool", ["normalized"], "pooled", kernel_shape=[2, 2], **attributes)


def pool_with_indices(model):
    append(model, "MaxPool", ["normalized"], "pooled", "indices", kernel_shape=[2, 2])


def pool_of_lines(model):
    append(model, "Reshape", ["normalized", set_constant(model, "lines_shape", np.array([1, 16, 16]))], "lines")
    append(model, "MaxPool", ["lines"], "pooled", kernel_shape=[2])


def resize(**attributes):
    def mutate(model):
        sizes = set_constant(model, "sizes", np.array([1, 1, 8, 8]))
        append(model, "Resize", ["normalized", "", "", sizes], "resized", **attributes)

    return mutate


def grid_sample_of_volumes(model):
    set_opset(model, 20)
    append(model, "Reshape", ["normalized", set_constant(model, "volume_shape", np.array([1, 1, 1, 16, 16]))], "volume")
    append(model, "GridSample", ["volume", set_constant(model, "grid", np.zeros((1, 1, 4, 4, 3), np.float32))], "sampled", mode="linear")


def double_precision(model):
    append(model, "Cast", ["normalized"], "precise", to=TensorProto.DOUBLE)


def computed_axis(model):
    append(model, "Cast", ["normalized"], "whole", to=TensorProto.INT64)
    append(model, "ReduceMax", ["whole"], "axis", keepdims=0)
    append(model, "CumSum", ["normalized", "axis"], "summed")


def computed_slice_axes(model):
    append(model, "Cast", ["normalized"], "whole", to=TensorProto.INT64)
    append(model, "ReduceMax", ["whole"], "number", keepdims=0)
    append(model, "Reshape", ["number", set_constant(model, "one", np.array([1]))], "axes")
    append(model, "Slice", ["normalized", "one", "one", "axes"], "sliced")


def transposed_bytes(model):
    append(model, "Transpose", ["frame"], "turned", perm=[0, 3, 1, 2])


def infinite_bias(model):
    set_constant(model, "fc_bias", np.array([0, np.inf, 0], np.float16))


def infinite_constant_node(model):
    value = onnx.numpy_helper.from_array(np.array(-np.inf, np.float32))
    append(model, "Constant", [], "mask", value=value)


def bias_too_large_for_its_cast(model):
    set_constant(model, "b_float", np.full(WIDTH, 1e6, np.float32))
    insert(model, "conv2", "Cast", ["b_float"], ["b_half"], to=TensorProto.FLOAT16)
    read_instead(model, "conv2", "conv2_bias", "b_half")


def bias_too_large(model):
    set_constant(model, "conv2_bias", np.full(WIDTH, 1e6, np.float32))


def transposed_weight_axis(model):
    """The classifier's weight as PyTorch stores it, turned behind its pair; its scales run along what is summed over."""
    parts = [
        set_constant(model, "t_integers", np.ones((WIDTH, WIDTH), np.int8)),
        set_constant(model, "t_scale", np.full(WIDTH, 0.01, np.float16)),
        set_constant(model, "t_zero", np.zeros(WIDTH, np.int8)),
    ]
    append(model, "DequantizeLinear", parts, "t_dq", axis=1)
    append(model, "Transpose", ["t_dq"], "t_turned", perm=[1, 0])
    insert_pair(model, None, "features", "t_in")
    append(model, "Reshape", ["t_in_dq", set_constant(model, "t_shape", np.array([1, 1, WIDTH]))], "t_row")
    append(model, "MatMul", ["t_row", "t_turned"], "t_product")


def moved_bias(model):
    parts = [set_constant(model, "b_int", np.zeros(WIDTH, np.int8)), set_constant(model, "b_scale", np.array(0.01, np.float16))]
    insert(model, "conv2", "DequantizeLinear", [*parts, set_constant(model, "b_zero", np.array(0, np.int8))], ["b_dq"])
    insert(model, "conv2", "Identity", ["b_dq"], ["b_same"])
    read_instead(model, "conv2", "conv2_bias", "b_same")


def constant_per_channel(model):
    parts = [
        set_constant(model, "c_integers", np.ones((1, WIDTH, 1, 1), np.int8)),
        set_constant(model, "c_scale", np.full(WIDTH, 0.01, np.float16)),
        set_constant(model, "c_zero", np.zeros(WIDTH, np.int8)),
    ]
    append(model, "DequantizeLinear", parts, "c_dq", axis=1)
    append(model, "Add", ["relu2", "c_dq"], "c_sum")


def cast_to(kind):
    return lambda model: append(model, "Cast", ["normalized"], "other", to=kind)


def bytes_as_integers(model):
    append(model, "Cast", ["frame"], "numbers", to=TensorProto.INT32)


def infinite_factor(model):
    append(model, "Mul", ["normalized", set_constant(model, "factor", np.array(np.inf, np.float32))], "endless")


def mask(model, value=-np.inf):
    values = np.zeros((1, 1, 16, 16), np.float32)
    values[..., 8:] = value
    append(model, "Add", ["normalized", set_constant(model, "mask", values)], "masked")


def infinite_bias_behind_matmul(model):
    set_constant(model, "m", np.ones((WIDTH, 4), np.float16))
    append(model, "MatMul", ["features", "m"], "product")
    append(model, "Add", ["product", set_constant(model, "b", np.array([0, -np.inf, 0, 0], np.float16))], "product_bias")


def calculated_axes(model):
    append(model, "Add", [set_constant(model, "one", np.array([1])), set_constant(model, "two", np.array([2]))], "three")
    append(model, "ReduceSum", ["normalized", "three"], "summed")


def unsqueezed_axes(model):
    append(model, "Unsqueeze", [set_constant(model, "two", np.array(2)), set_constant(model, "at", np.array([0]))], "axes")
    append(model, "ReduceSum", ["normalized", "axes"], "summed")


def reshaped_weight(model, axis=0):
    """A linear layer's weight that a convolution reads."""
    parts = [
        set_constant(model, "r_integers", np.ones((WIDTH, WIDTH), np.int8)),
        set_constant(model, "r_scale", np.full(WIDTH, 0.01, np.float16)),
        set_constant(model, "r_zero", np.zeros(WIDTH, np.int8)),
    ]
    append(model, "DequantizeLinear", parts, "r_dq", axis=axis)
    append(model, "Reshape", ["r_dq", set_constant(model, "r_shape", np.array([WIDTH, WIDTH, 1, 1]))], "r_kernel")
    append(model, "Conv", ["relu2", "r_kernel"], "pointwise", kernel_shape=[1, 1])


def calculated_weight(model):
    """A convolution's weight as a product of constants, with a pair behind it."""
    append(
        model,
        "Mul",
        [
            set_constant(model, "v", np.ones((WIDTH, WIDTH, 3, 3), np.float16)),
            set_constant(model, "g", np.full((WIDTH, 1, 1, 1), 0.5, np.float16)),
        ],
        "w",
    )
    parts = [set_constant(model, "w_scale", np.full(WIDTH, 0.01, np.float16)), set_constant(model, "w_zero", np.zeros(WIDTH, np.int8))]
    append(model, "QuantizeLinear", ["w", *parts], "w_q", axis=0)
    append(model, "DequantizeLinear", ["w_q", *parts], "w_dq", axis=0)
    append(model, "Conv", ["a1_dq", "w_dq"], "calculated", kernel_shape=[3, 3])


def state_of_two_layers(model):
    model.graph.input.append(helper.make_tensor_value_info("state", TensorProto.FLOAT, [2, 1, 8]))
    append(model, "Tanh", ["state"], "next_state")


def float_weight(model):
    read_instead(model, "conv2", "conv2_dq", set_constant(model, "w", np.ones((WIDTH, WIDTH, 3, 3), np.float16)))


def float_input(model):
    read_instead(model, "conv2", "a1_dq", "relu1")


def both_inputs_of_the_sum(model):
    insert_pair(model, "sum", "conv3", "a4")
    read_instead(model, "sum", "conv3", "a4_dq")


def float_skip(model):
    read_instead(model, "sum", "a1_dq", "relu1")


def wrong_input_of_the_sum(model):
    both_inputs_of_the_sum(model)
    float_skip(model)


def pair_before_activation(model):
    insert_pair(model, "relu2", "conv2", "a4")
    read_instead(model, "relu2", "conv2", "a4_dq")


def unfolded_normalization(model):
    ones = set_constant(model, "ones", np.ones(WIDTH, np.float16))
    insert(model, "relu2", "BatchNormalization", ["conv2", ones, ones, ones, ones], ["batch_norm"])
    read_instead(model, "relu2", "conv2", "batch_norm")


def concat_of_scales(model):
    set_constant(model, "a2_scale", np.array(0.1, np.float16))
    append(model, "Concat", ["a1_dq", "a2_dq"], "joined", axis=1)


def pool_between_scales(model):
    append(model, "MaxPool", ["a1_dq"], "pooled", kernel_shape=[2, 2])
    append(model, "Relu", [insert_pair(model, None, "pooled", "a4", scale=0.1)], "pooled_again")


def _convolution(model, *shape, **attributes):
    count = shape[0]
    parts = [
        set_constant(model, "w", np.ones(shape, np.int8)),
        set_constant(model, "w_scale", np.full(count, 0.01, np.float16)),
        set_constant(model, "w_zero", np.zeros(count, np.int8)),
    ]
    append(model, "DequantizeLinear", parts, "w_dq", axis=0)
    append(model, "Conv", ["a1_dq", "w_dq"], "small", kernel_shape=list(shape[2:]), **attributes)


def narrow_convolution(model):
    _convolution(model, 8, WIDTH, 1, 3)


def narrow_grouped_convolution(model):
    _convolution(model, 8, WIDTH // 4, 1, 1, group=4)


def depthwise_convolution(model):
    _convolution(model, WIDTH, 1, 3, 3, group=WIDTH)


def quantized_classifier(model):
    _float_weight_pair(model, "fc", axis=0, count=3)


def quantized_softmax(model):
    append(model, "Softmax", ["a1_dq"], "softened")


def quantized_twice(model):
    append(model, "Relu", [insert_pair(model, None, "a1_dq", "a4")], "again")


def quantized_for_nobody(model):
    append(model, "QuantizeLinear", ["relu2", "a1_scale", "a1_zero"], "unread")


def dequantized_for_float(model):
    append(model, "Erf", [insert_pair(model, None, "relu2", "a4")], "float_only")


def large_tensor(model):
    shape = set_constant(model, "large", np.array([1, 9000]))
    append(model, "ConstantOfShape", [shape], "zeros")


def nothing(_model):
    pass


def plain():
    return residual(typed=False)


def half():
    return residual(quantized=False)


def single():
    return residual(typed=False, quantized=False)


OLD = target("8.5", opset=17, typed=False)

# The rule, the network, what is done to it, and the target.
MUTATIONS = [
    ("Q1", residual, shifted, TYPED),
    ("Q1", residual, shifted_weight, TYPED),
    ("Q1", plain, shifted, UNTYPED),
    ("Q2", residual, no_zero_point, TYPED),
    ("Q2", residual, unsigned, TYPED),
    ("Q2", plain, no_zero_point, UNTYPED),
    ("Q3", residual, scale(0), TYPED),
    ("Q3", residual, scale(-0.1), TYPED),
    ("Q3", residual, scale(np.nan), TYPED),
    ("Q3", residual, scale(np.inf), TYPED),
    ("Q3", residual, zero_scale_of_a_channel, TYPED),
    ("Q3", residual, scale_that_underflows, TYPED),
    ("Q3", residual, computed_scale, TYPED),
    ("Q4", residual, activation_per_channel, TYPED),
    ("Q4", residual, constant_per_channel, TYPED),
    ("Q5", residual, weight_axis, TYPED),
    ("Q5", residual, negative_weight_axis, TYPED),
    ("Q5", plain, weight_axis, UNTYPED),
    ("Q5", residual, transposed_weight_axis, TYPED),
    ("Q5", residual, lambda model: reshaped_weight(model, axis=1), TYPED),
    ("Q6", residual, integer_bias, TYPED),
    ("Q6", residual, quantized_bias, TYPED),
    ("Q6", residual, bias_behind_matmul, TYPED),
    ("Q6", residual, moved_bias, TYPED),
    ("Q7", residual, integer_operator, TYPED),
    ("Q8", residual, float_bias_of_half_convolution, TYPED),
    ("Q8", residual, mixed_sum, TYPED),
    ("Q8", residual, float_scale_of_half, TYPED),
    ("Q9", plain, half_scale_in_old_opset, UNTYPED),
    ("Q10", residual, more_zero_points, TYPED),
    ("Q10", residual, fewer_scales, TYPED),
    ("Q10", residual, scale_matrix, TYPED),
    ("Q10", residual, quantized_number, TYPED),
    ("Q11", residual, transposed_integers, TYPED),
    ("Q11", residual, moved_integers, TYPED),
    ("Q12", residual, asymmetric_weight, TYPED),
    ("Q14", plain, integer_weight, UNTYPED),
    ("Q14", plain, integer_weight, OLD),
    ("Q13", residual, dynamic_height, TYPED),
    ("G1", residual, batch_of_two, TYPED),
    ("G2", residual, weights_elsewhere, TYPED),
    ("G3", residual, foreign_operator, TYPED),
    ("G3", residual, own_function, TYPED),
    ("G4", residual, branch, TYPED),
    ("O1", residual, never_supported, TYPED),
    ("O2", plain, layer_normalization, OLD),
    ("O3", residual, swish, target("10.16", "11.4")),
    ("O4", residual, opset(21), target("10.3", "10.16")),
    ("O4", plain, opset(18), UNTYPED),
    ("R1", residual, pool(dilations=[2, 2]), TYPED),
    ("R2", residual, pool_with_indices, TYPED),
    ("R3", residual, resize(mode="linear", antialias=1), TYPED),
    ("R3", residual, resize(mode="nearest", coordinate_transformation_mode="half_pixel_symmetric"), TYPED),
    ("R3", residual, resize(mode="linear", keep_aspect_ratio_policy="not_larger"), TYPED),
    ("R4", residual, lambda model: layer_normalization(model, "mean"), TYPED),
    ("R5", residual, grid_sample_of_volumes, TYPED),
    ("R6", residual, double_precision, TYPED),
    ("R7", residual, pool_of_lines, TYPED),
    ("R8", residual, computed_axis, TYPED),
    ("R8", residual, calculated_axes, TYPED),
    ("R8", residual, unsqueezed_axes, TYPED),
    ("R8", plain, computed_slice_axes, UNTYPED),
    ("R9", residual, transposed_bytes, TYPED),
    ("R9", residual, bytes_as_integers, TYPED),
    ("R11", residual, cast_to(TensorProto.INT16), TYPED),
    ("R11", residual, cast_to(TensorProto.UINT32), TYPED),
    ("R11", plain, cast_to(TensorProto.BFLOAT16), UNTYPED),
    ("R10", residual, resize(mode="cubic"), TYPED),
    ("F1", residual, infinite_bias, TYPED),
    ("F1", residual, infinite_constant_node, TYPED),
    ("F1", residual, infinite_factor, TYPED),
    ("F1", residual, infinite_bias_behind_matmul, TYPED),
    ("F1", residual, lambda model: mask(model, np.inf), TYPED),
    ("F1", residual, lambda model: mask(model, np.nan), TYPED),
    ("F2", residual, bias_too_large_for_its_cast, TYPED),
    ("F3", plain, bias_too_large, UNTYPED),
    ("F4", residual, scale(1e-6), TYPED),
    ("P1", residual, float_weight, TYPED),
    ("P1", residual, float_input, TYPED),
    ("P2", residual, both_inputs_of_the_sum, TYPED),
    ("P2", residual, float_skip, TYPED),
    ("P2", residual, wrong_input_of_the_sum, TYPED),
    ("P3", residual, pair_before_activation, TYPED),
    ("P3", residual, unfolded_normalization, TYPED),
    ("P4", residual, concat_of_scales, TYPED),
    ("P5", residual, pool_between_scales, TYPED),
    ("P6", residual, narrow_convolution, TYPED),
    ("P6", residual, narrow_grouped_convolution, TYPED),
    ("P7", residual, quantized_classifier, TYPED),
    ("P7", residual, quantized_softmax, TYPED),
    ("P8", residual, quantized_twice, TYPED),
    ("P8", residual, quantized_for_nobody, TYPED),
    ("P8", residual, dequantized_for_float, TYPED),
    ("P9", residual, depthwise_convolution, TYPED),
    ("D1", plain, nothing, target("8.5", opset=17, typed=False, **DLA1)),
    ("D2", half, nothing, target("10.3", **DLA2)),
    ("D3", single, large_tensor, target("8.5", opset=17, typed=False, **DLA1)),
    ("D4", residual, nothing, target("10.16", **DLA2)),
    ("S1", residual, nothing, target("10.3", sparsity_2_4=True)),
]


def found(model, aim):
    return {finding.rule for finding in check(model, aim)}


@pytest.mark.parametrize(
    ("model", "aim"),
    [(residual, TYPED), (plain, UNTYPED), (plain, OLD), (half, TYPED), (single, UNTYPED)],
    ids=["int8-typed", "int8-8.6", "int8-8.5", "half", "single"],
)
def test_a_network_that_keeps_every_rule(model, aim):
    """Nothing is found in the networks that the mutations start from, and ONNX's own checker takes them."""
    built = model()
    onnx.checker.check_model(built, full_check=True)
    assert check(built, aim) == ()


@pytest.mark.parametrize(
    ("mutate", "aim"),
    [
        (mask, TYPED),
        (calculated_weight, TYPED),
        (cast_to(TensorProto.BFLOAT16), TYPED),
        (state_of_two_layers, TYPED),
        (reshaped_weight, TYPED),
    ],
)
def test_what_tensorrt_takes_is_left_alone(mutate, aim):
    """An infinite mask, a weight that is calculated from constants, bfloat16 where the version has it, and a state of two layers break no rule."""
    model = residual()
    mutate(model)
    assert found(model, aim) == set()


@pytest.mark.parametrize(("rule", "base", "mutate", "aim"), MUTATIONS, ids=[f"{row[0]}-{index}" for index, row in enumerate(MUTATIONS)])
def test_one_fault_breaks_one_rule(rule, base, mutate, aim):
    """Exactly the rule that was broken is found, with its severity and its fix, and no other one."""
    model = base()
    mutate(model)
    findings = check(model, aim)
    assert {finding.rule for finding in findings} == {rule}
    for finding in findings:
        assert (finding.severity, finding.fix) == (RULES[rule].severity, RULES[rule].fix)
        assert finding.message
        assert set(finding.versions) <= set(aim.tensorrt.versions)
        assert finding.versions


def test_every_rule_has_a_mutation():
    """No rule is without a network that breaks it, and no mutation is of a rule that is gone."""
    assert {row[0] for row in MUTATIONS} == set(RULES)
