"""Finds out how a graph's logits come from its features, and puts the class activation map into it.

The head is inspected, not named: the reverse pass starts at the logits and ends where it meets positions. What it met there decides the map; what it passed on the way decides
whether the map is complete:

| kind | heads | what is added to the mean of the map |
|---|---|---|
| pooled-linear | linear behind a mean: the gradient is constant | a constant bias |
| complete | linear once gates, divisors and places of maxima are held: layer normalization, ReLU, GeM, maxima, layers on all positions | biases, as far as gates are open |
| gradient | other activations, products of features | the same, and what a first order leaves out |
| attention | one token of a transformer | what did not come from the patches through the last attention |

Anything else has no map here, and the answer says what was found instead.

All logits but those of an attention are computed from the map in the graph: the mean of the map plus the rest, so decision and map cannot disagree. Hidden layers of a head are not
part of this: they may be quantized, and then only decide which gates are open. The linear part of the logit is exact all the same, so their rounding matters in second order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgekit.bundle.manifest import CamKind
from edgekit.catalog.explain import MapChoice
from edgekit.compiler import graph as g
from edgekit.compiler.explain import attention as att
from edgekit.compiler.explain import masking, pooling
from edgekit.compiler.explain.algebra import Algebra, Operand, shape_of
from edgekit.compiler.explain.backward import Reverse
from edgekit.compiler.explain.head import CAM, LOGITS, OFFSET, PREFIX, Head, UnknownHeadError, free_prefix

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(slots=True)
class _Found:
    """What the pass met: maps to be summed, the nodes of the head, what an attention's offset needs beside, and whether there were means with constant weights alone."""

    maps: list[Operand] = field(default_factory=list)
    passed: list[ir.Node] = field(default_factory=list)
    apart: Operand | None = None
    weighted_means: bool = True


def explain(model: ir.Model, choice: MapChoice = "auto") -> Head | str:
    """Puts the map into a graph whose first output is the logits, (1, outputs); a string says why there is none, and the graph is unchanged.

    The graph's outputs are then `logits`, `cam` (1, outputs, rows, columns), where the bias depends on the frame, `offset` (1, outputs), and the others it had.
    """
    if choice == "none":
        return "the recipe asks for none"
    try:
        return _explain(model)
    except UnknownHeadError as error:
        if choice != "masking" and len(model.graph.inputs) > 1:
            return str(error)
        if choice != "masking":
            return f'{error}; [explain] map = "masking" makes one by masking the features one position at a time'
    try:
        return _explain_by_masking(model)
    except UnknownHeadError as error:
        return str(error)


def _explain_by_masking(model: ir.Model) -> Head | str:
    if len(model.graph.inputs) > 1:
        raise UnknownHeadError("a recurrent model's features are not masked: its state would have to be that of each masked frame")
    algebra = Algebra(model)
    built = masking.build(model, algebra)
    if isinstance(built, str):
        return built
    maps, offset, head = built
    _attach(model, algebra, [model.graph.outputs[0], maps, offset])
    return head


def _explain(model: ir.Model) -> Head:
    output = model.graph.outputs[0]
    outputs = shape_of(output)[1]
    algebra = Algebra(model)
    nodes = list(model.graph)
    reverse = Reverse(algebra, output, outputs, freeze=not _reads_a_token(output))
    found = _run(reverse, nodes)
    if not found.maps:
        raise UnknownHeadError("the logits come from the frame without any pooling, so there are no features to show")
    whole = found.maps[0]
    for part in found.maps[1:]:
        if shape_of(part) != shape_of(whole):
            raise UnknownHeadError("the head reads features of two sizes")
        whole = algebra.add(whole, part)
    for state in model.graph.inputs[1:]:
        # What the frames before add is in no map of this frame.
        for spot, gradient in reverse.gradients(state).items():
            reverse.add_offset(gradient, reverse.vector(state, spot))
    _, _, rows, columns = shape_of(whole)
    kind = _kind(reverse, found)
    offset, logits = _complete(reverse, found, kind, output, whole)
    bias = tuple(np.asarray(offset, dtype=np.float32).ravel().tolist()) if isinstance(offset, np.ndarray) else ()
    head = Head(kind=kind, rows=rows, columns=columns, bias=bias, title=_title(found), multiplications=algebra.multiplications)
    _attach(model, algebra, [logits, whole, *([] if isinstance(offset, np.ndarray) else [offset])])
    return head


def _reads_a_token(output: ir.Value) -> bool:
    """Whether the logits come from chosen tokens: looks up to the nearest operators that read positions."""
    seen, waiting = {output}, [output]
    for value in waiting:
        node = value.producer()
        if node is None or not node.inputs:
            continue
        if att.selected_token(node) is not None:
            return True
        if any(meets(node) is not None for meets in (pooling.pool_of, pooling.flattened, pooling.whole_convolution)):
            continue
        waiting.extend(read for read in node.inputs if read is not None and read not in seen)
        seen.update(waiting)
    return False


def _run(reverse: Reverse, nodes: Sequence[ir.Node]) -> _Found:
    found = _Found()
    for node in reversed(nodes):
        if not reverse.reached(node):
            continue
        found.passed.append(node)
        if _meets_positions(reverse, node, found):
            continue
        attention = att.attention_of(node)
        if attention is not None:
            whole, found.apart, _, _ = att.map_of_attention(reverse, node, attention)
            found.maps.append(whole)
            break
        reverse.follow(node)
    return found


def _meets_positions(reverse: Reverse, node: ir.Node, found: _Found) -> bool:
    """Handles a node that reads positions; False where it reads none."""
    gradients = reverse.gradients(node.outputs[0])
    if set(gradients) != {None}:
        return False
    gradient, maps = gradients[None], len(found.maps)
    met = _maps_of(reverse, node, gradient, found)
    pool = pooling.pool_of(node) if len(found.maps) > maps else None
    found.weighted_means &= len(found.maps) == maps or (pool is not None and not pool.maximum and isinstance(gradient, np.ndarray))
    return met


def _maps_of(reverse: Reverse, node: ir.Node, gradient: Operand, found: _Found) -> bool:
    algebra = reverse.algebra
    root = pooling.generalized_mean(node)
    if root is not None:
        found.maps.append(pooling.map_of_generalized_mean(algebra, root[0], root[1], gradient))
        return True
    pool = pooling.pool_of(node)
    if pool is not None and pool.features.positions == 1:
        reverse.give(node.inputs[0], None, gradient)
        return True
    if pool is not None:
        taken = pooling.map_of_mean(algebra, pool.features, gradient)
        if pool.maximum:
            taken = pooling.map_of_maximum(algebra, pool.features, gradient)
        found.maps.append(taken)
        return True
    layer = pooling.whole_convolution(node)
    if layer is not None:
        features, kernel, bias = layer
        if bias is not None:
            reverse.add_offset(gradient, bias[None])
        found.maps.append(pooling.map_of_flattened(algebra, features, algebra.matmul(gradient, kernel)))
        return True
    laid_out = pooling.flattened(node)
    if laid_out is not None:
        found.maps.append(pooling.map_of_flattened(algebra, laid_out, gradient))
        return True
    token = att.selected_token(node)
    if token is not None:
        reverse.give(*token, gradient)
        return True
    return False


def _kind(reverse: Reverse, found: _Found) -> CamKind:
    if found.apart is not None:
        return "attention"
    if reverse.first_order:
        return "gradient"
    return "pooled-linear" if found.weighted_means and isinstance(reverse.offset, np.ndarray) else "complete"


def _complete(reverse: Reverse, found: _Found, kind: CamKind, output: ir.Value, whole: Operand) -> tuple[Operand, Operand]:
    """What is added to the mean of the map, and the logits."""
    algebra = reverse.algebra
    mean = algebra.mean(whole, [2, 3], keep=False)
    if kind == "attention":
        rest = algebra.subtract(output, mean)
        return (rest if found.apart is None else algebra.add(rest, found.apart)), output
    return reverse.offset, algebra.add(mean, reverse.offset)


def _title(found: _Found) -> str:
    """The operators of the head in the order in which a frame meets them."""
    kinds = [node.op_type for node in reversed(found.passed)]
    return " → ".join(
        kind for kind in kinds if kind not in ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Transpose")
    )


def _attach(model: ir.Model, algebra: Algebra, results: Sequence[Operand]) -> None:
    """Makes logits, map and offset the graph's outputs.

    Raises:
        UnknownHeadError: One is known already; the graph is unchanged.
    """
    import onnx_ir as ir

    known = [operand for operand in results if not isinstance(operand, np.ndarray)]
    if len(known) < len(results):
        raise UnknownHeadError("the logits do not depend on the frame")
    graph = model.graph
    free_prefix(model)
    nodes = algebra.emit()
    made = {value for node in nodes for value in node.outputs}
    outputs = []
    for name, operand in zip((LOGITS, CAM, OFFSET), known, strict=False):
        value = operand
        if (value not in made and name != LOGITS) or value in outputs:
            # The features themselves are the map.
            nodes.append(ir.node("Identity", [operand], name=f"{PREFIX}{name}"))
            value = nodes[-1].outputs[0]
        sizes = shape_of(operand)
        g.free_name(graph, name)
        value.name, value.shape, value.type = name, ir.Shape(sizes), ir.TensorType(ir.DataType.FLOAT)
        outputs.append(value)
    # What is no logit stays an output: the next state of a recurrent model.
    g.insert_before_output(graph, nodes, [*outputs, *list(graph.outputs)[1:]])
    g.tidy(model)
