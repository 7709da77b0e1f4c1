"""The map of a head that reads one token: what every patch adds to the logits through the last attention.

The patches' last values reach the logits only through the attention of the last block, from the token that the head reads (a class token). At the input x of that attention the
gradient has a closed form, with no gradient kept anywhere: for a head of attention with row a = softmax(s · q₀Kᵀ), and u the gradient of a logit with respect to that
head's output,

    R_j = Σ_heads  a_j · u·(v_j − b_v)  +  ds_j · s · q₀·(k_j − b_k),   ds_j = a_j · (u·v_j − Σ_m a_m · u·v_m)

is gradient · x_j, summed over channels: HiResCAM (Draelos and Carin 2020) at the first normalization of the last block. b_v and b_k are what values and keys are for x = 0.
The row a is computed again beside the network's own attention, which stays as it is and may be fused.

Rules this file keeps:

1. The map is (1, outputs, rows, columns) with M_j = N · R_j for the N patches; class tokens are left out.
2. What the row that was computed again gives must be what the network's attention gave: the offset holds Σ a_j · u·v_j − u·o, with o from the network. A map of
   another attention than the one that answered does not add up to the logit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler import graph as g
from edgekit.compiler.explain.algebra import Operand, shape_of
from edgekit.compiler.explain.backward import RESHAPING, Reverse, Spot
from edgekit.compiler.explain.head import UnknownHeadError
from edgekit.compiler.explain.pooling import ancestors, grid_of

if TYPE_CHECKING:
    import onnx_ir as ir

# A linear function of one value, where their other inputs are constant.
_LINEAR = frozenset({"Add", "Div", "Gather", "Gemm", "MatMul", "Mul", "Slice", "Split", "Sub", "Transpose", *RESHAPING})
_MOST_EXTRA_TOKENS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """An attention as found.

    Attributes:
        queries: (heads, tokens, size), up to leading axes of 1.
        keys: (heads, size, tokens), turned.
        values: (heads, tokens, size).
        scale: What scores are multiplied by.
        bias: Added to the scores, (heads, tokens, tokens) when spread out; None where nothing is.
        x: What keys and values are linear functions of.
    """

    queries: ir.Value
    keys: ir.Value
    values: ir.Value
    scale: float
    bias: NDArray[np.float64] | None
    x: ir.Value


def selected_token(node: ir.Node) -> tuple[ir.Value, Spot] | None:
    """The list of tokens that a node takes one of, and which; None where it does something else."""
    value, before, after = node.inputs[0], g.shape(node.inputs[0]), g.shape(node.outputs[0])
    if node.op_type not in ("Gather", "Slice") or value is None or before is None or after is None:
        return None
    if node.op_type == "Gather":
        index = g.constant(node.inputs[1])
        axis = (node.attributes["axis"].as_int() if "axis" in node.attributes else 0) % len(before)
        token = None if index is None or index.size != 1 else int(index.item())
    else:
        parts = [g.constant(part) for part in node.inputs[1:]]
        if len(parts) < 3 or any(part is None or part.size != 1 for part in parts):
            return None
        starts, _, axes = (int(part.item()) for part in parts[:3] if part is not None)
        axis = axes % len(before)
        token = starts if after[axis] == 1 else None
    others = [size for other, size in enumerate(before) if other != axis and size > 1]
    if token is None or before[axis] == 1 or len(others) != 1 or math.prod(after) != others[0]:
        return None
    return value, Spot(axis, token % before[axis])


def attention_of(node: ir.Node) -> Attention | None:
    """The attention whose last product a node is; None where it is another operator.

    Raises:
        UnknownHeadError: It is an attention of another form than the closed form is for.
    """
    softmax = _softmax_before(node)
    if softmax is None:
        return None
    scores, scale, bias = _scores(softmax)
    product = None if scores is None else scores.producer()
    if product is None or product.op_type != "MatMul":
        raise UnknownHeadError("the last attention's scores are not queries times keys")
    queries, keys = product.inputs
    values = node.inputs[1]
    if queries is None or keys is None or values is None:
        raise UnknownHeadError("the last attention lacks an input")
    x = _source(values)
    if _source(keys) is not x:
        raise UnknownHeadError("the last attention's keys and values are not linear functions of one value")
    return Attention(queries=queries, keys=keys, values=values, scale=scale, bias=bias, x=x)


def _scores(softmax: ir.Node) -> tuple[ir.Value | None, float, NDArray[np.float64] | None]:
    """Queries times keys, what they are multiplied by, and what is added behind."""
    rank = len(g.shape(softmax.outputs[0]) or ())
    if "axis" in softmax.attributes and softmax.attributes["axis"].as_int() not in (-1, rank - 1):
        raise UnknownHeadError("the last attention's softmax is not over its keys")
    scores, scale = softmax.inputs[0], 1.0
    bias: NDArray[np.float64] | None = None
    while scores is not None:
        made = scores.producer()
        if made is None or made.op_type not in ("Add", "Div", "Mul"):
            break
        constants = [g.constant(value) for value in made.inputs]
        constant = next((np.asarray(found, dtype=np.float64) for found in constants if found is not None), None)
        if constant is None or (made.op_type == "Div" and constants[1] is None):
            raise UnknownHeadError("the last attention's scores have a part that depends on the frame")
        if made.op_type == "Add":
            bias = constant * scale + (0 if bias is None else bias)
        elif constant.size == 1:
            scale *= float(constant.item()) if made.op_type == "Mul" else 1 / float(constant.item())
        else:
            raise UnknownHeadError("the last attention's scores have a scale of their own each")
        scores = made.inputs[0] if constants[0] is None else made.inputs[1]
    return scores, scale, bias


def _softmax_before(node: ir.Node) -> ir.Node | None:
    if node.op_type != "MatMul":
        return None
    made = g.skip_reshaping(node.inputs[0])
    softmax = made.producer() if made is not None else None
    return softmax if softmax is not None and softmax.op_type == "Softmax" else None


def _source(value: ir.Value) -> ir.Value:
    """The nearest value above that this one is not a linear function of the values above of."""
    while True:
        node = value.producer()
        if node is None or node.op_type not in _LINEAR:
            return value
        depends = [read for read in node.inputs if read is not None and g.stored(read) is None]
        if len(depends) != 1 or (node.op_type == "Div" and depends[0] is node.inputs[1]):
            return value
        value = depends[0]


def map_of_attention(reverse: Reverse, node: ir.Node, attention: Attention) -> tuple[Operand, Operand, int, int]:
    """The map of the patches, what the offset has to hold beside (rule 2), rows and columns.

    Raises:
        UnknownHeadError: The patches' places are not known.
    """
    algebra = reverse.algebra
    heads, tokens, size = _sizes(node, attention)
    queries = algebra.reshape(attention.queries, (heads, tokens, size))
    keys = algebra.reshape(attention.keys, (heads, size, tokens))
    values_shape = (heads, tokens, size)
    values = algebra.reshape(attention.values, values_shape)
    key_bias, value_bias = (_at_zero(attention.x, value) for value in (attention.keys, attention.values))
    rows, columns = _grid(attention.x, tokens)
    if any(spot is not None and spot.token >= tokens - rows * columns for spot in reverse.gradients(node.outputs[0])):
        # Through its query and past the attention it adds more than the closed form has.
        raise UnknownHeadError("the token that the head reads is a patch")
    total: Operand = np.zeros((reverse.outputs, tokens))
    apart: Operand = np.zeros((1, reverse.outputs))
    for spot, gradient in reverse.gradients(node.outputs[0]).items():
        if spot is None or shape_of(node.outputs[0])[spot.axis] != tokens:
            raise UnknownHeadError("the head reads more than tokens of the last attention")
        u = algebra.transpose(algebra.reshape(gradient, (reverse.outputs, heads, size)), [1, 0, 2])
        query = algebra.part(queries, 1, spot.token, spot.token + 1)
        products = algebra.multiply(algebra.matmul(query, keys), np.array(attention.scale))
        scores = products
        if attention.bias is not None:
            spread = _spread(attention.bias, (heads, tokens, tokens))
            scores = algebra.add(scores, spread[:, spot.token : spot.token + 1])
        row = algebra.softmax(scores)
        by_value = algebra.matmul(u, algebra.turn(values))
        weighted = algebra.multiply(row, by_value)
        through_values = algebra.sum(weighted, [2])
        slope = algebra.multiply(row, algebra.subtract(by_value, through_values))
        # What values and keys are for x = 0 adds nothing that a patch could claim.
        patch_values = algebra.subtract(
            weighted, algebra.multiply(row, algebra.matmul(u, _narrow(value_bias.reshape(values_shape).transpose(0, 2, 1))))
        )
        by_bias = algebra.matmul(query, _narrow(key_bias.reshape(heads, size, tokens)))
        patch_keys = algebra.subtract(products, algebra.multiply(by_bias, np.array(attention.scale)))
        parts = algebra.add(patch_values, algebra.multiply(slope, patch_keys))
        total = algebra.add(total, algebra.sum(parts, [0], keep=False))
        # Over both axes at once: where a sum's column (outputs, 1) is reshaped to a row, OpenVINO 2026.4.1 drops the reshape, and a difference behind it is (outputs, outputs).
        recomputed = algebra.reshape(algebra.sum(weighted, [0, 2], keep=False), (1, reverse.outputs))
        apart = algebra.add(apart, algebra.subtract(recomputed, _own_answer(reverse, node, spot, gradient)))
    patches = algebra.part(total, 1, tokens - rows * columns, tokens)
    scaled = algebra.multiply(patches, np.array(float(rows * columns)))
    return algebra.reshape(scaled, (1, reverse.outputs, rows, columns)), apart, rows, columns


def _sizes(node: ir.Node, attention: Attention) -> tuple[int, int, int]:
    """Heads, tokens, and the size of a head's part of a token."""
    found = [g.shape(value) for value in (node.outputs[0], attention.queries, attention.keys, attention.values)]
    answers, queries, keys, values = (None if sizes is None or len(sizes) < 2 else (1, *sizes) for sizes in found)
    if answers is None or queries is None or keys is None or values is None:
        raise UnknownHeadError("the last attention has no static shape")
    heads, tokens, size = answers[-3:]
    if math.prod(answers) != heads * tokens * size:
        raise UnknownHeadError("the last attention is on several groups of tokens")
    if queries[-2] != tokens or keys[-1] != tokens or values[-2] != tokens:
        raise UnknownHeadError("the last attention has keys and values of other tokens than it answers")
    if any(math.prod(sizes) != heads * tokens * size for sizes in (queries, keys, values)):
        raise UnknownHeadError("the last attention's queries, keys and values differ in size")
    return heads, tokens, size


def _spread(bias: NDArray[np.float64], sizes: tuple[int, ...]) -> NDArray[np.float64]:
    """What is added to the scores, for every score."""
    while bias.ndim > len(sizes) and len(bias) == 1:
        bias = bias[0]
    try:
        return np.broadcast_to(bias, sizes)
    except ValueError:
        raise UnknownHeadError("the last attention's scores have a bias of another shape") from None


def _narrow(bias: NDArray[np.float64]) -> NDArray[np.float64]:
    """(heads, size, tokens), or (heads, size, 1) where it is the same for all tokens."""
    return bias[:, :, :1] if (bias == bias[:, :, :1]).all() else bias


def _own_answer(reverse: Reverse, node: ir.Node, spot: Spot, gradient: Operand) -> Operand:
    """The product u · o with o from the network's own attention, read where heads are joined again: before, it would keep the attention from being fused."""
    value, place = node.outputs[0], spot
    while True:
        readers = [use.node for use in value.uses() if use.node.graph is not None and use.node.op_type in ("Reshape", "Transpose")]
        found = next(
            (
                (reader.outputs[0], other)
                for reader in readers
                for other in reverse.gradients(reader.outputs[0])
                if other is not None and other.token == spot.token
            ),
            None,
        )
        if found is None:
            return reverse.dot(gradient, reverse.vector(value, place))
        value, place = found


def _at_zero(x: ir.Value, value: ir.Value) -> NDArray[np.float64]:
    """What a linear function of x is for x = 0, by the nodes between."""
    import onnx
    import onnx_ir as ir
    from onnx.reference import ReferenceEvaluator

    nodes: list[ir.Node] = []
    constants: dict[str, NDArray[np.generic]] = {}
    reached = value
    while reached is not x:
        node = reached.producer()
        if node is None:
            raise UnknownHeadError("the last attention's keys and values are not linear functions of one value")
        nodes.insert(0, node)
        for read in node.inputs:
            found = g.constant(read)
            found = g.stored(read) if found is None else found
            if read is not None and found is not None:
                constants[str(read.name)] = found.astype(np.float32) if found.dtype == np.float64 else found
        reached = next(read for read in node.inputs if read is not None and g.stored(read) is None)
    graph = onnx.helper.make_graph(
        [ir.to_proto(node) for node in nodes],
        "linear",
        [onnx.helper.make_tensor_value_info(str(x.name), onnx.TensorProto.FLOAT, shape_of(x))],
        [onnx.helper.make_tensor_value_info(str(value.name), onnx.TensorProto.FLOAT, shape_of(value))],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    owner = nodes[0].graph
    opset = owner.opset_imports.get("", 0) if isinstance(owner, ir.Graph) else 0
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    (found,) = ReferenceEvaluator(model).run(None, {str(x.name): np.zeros(shape_of(x), dtype=np.float32)})
    return np.asarray(found, dtype=np.float64)


def _grid(x: ir.Value, tokens: int) -> tuple[int, int]:
    """Rows and columns of the patches among tokens: they come last, behind the class tokens, as the network joined them."""
    channels = math.prod(shape_of(x)) // tokens
    for value in ancestors(x):
        node, sizes = value.producer(), g.shape(value)
        if node is None or node.op_type != "Concat" or sizes is None or tokens not in sizes:
            continue
        axis = node.attributes["axis"].as_int() % len(sizes)
        last = node.inputs[-1]
        count = 0 if last is None else shape_of(last)[axis]
        if last is not None and sizes[axis] == tokens and 0 < tokens - count <= _MOST_EXTRA_TOKENS and g.constant(last) is None:
            return grid_of(last, count, channels)
    return grid_of(x, tokens, channels)
