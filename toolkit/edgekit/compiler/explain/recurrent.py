"""The recurrent part of a graph, which stays in float32 in every engine.

Rules this file keeps:

1. It is what depends on the state, and the layers on vectors before that: from the pooled features on. An error of rounding in it would be carried from frame to
   frame, and it costs next to nothing beside the convolutions.
2. Its nodes are named as those of the head are (`head.PREFIX`), which every dialect leaves alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.compiler import graph as g
from edgekit.compiler.explain.head import PREFIX, in_head

if TYPE_CHECKING:
    import onnx_ir as ir


def keep_in_float(model: ir.Model) -> None:
    """Names the nodes of the recurrent part of a graph with the inputs `frame` and `state`."""
    nodes = list(model.graph)
    behind: set[ir.Value] = set(model.graph.inputs[1:])
    kept: set[ir.Node] = set()
    for node in nodes:
        if behind.intersection(value for value in node.inputs if value is not None):
            kept.add(node)
            behind.update(node.outputs)
    wanted = {value for node in kept for value in node.inputs if value is not None}
    for node in reversed(nodes):
        reads = [value for value in node.inputs if value is not None and g.constant(value) is None]
        if wanted.intersection(node.outputs) and all(map(_is_vector, reads)):
            kept.add(node)
            wanted.update(reads)
    for index, node in enumerate(nodes):
        if node in kept and not in_head(node):
            node.name = f"{PREFIX}recurrent/{node.name or f'{node.op_type}_{index}'}"


def _is_vector(value: ir.Value) -> bool:
    """Whether a value has no positions: at most one axis that is longer than 1."""
    sizes = g.shape(value)
    return sizes is not None and sum(size > 1 for size in sizes) <= 1
