"""The part of a graph that answers and explains: its names, and what was found about it.

Rules this file keeps:

1. Every node of the head has a name that starts with `PREFIX`; no other node of the graph has.
2. What has such a name is never quantized and never float16: logit = mean of the map + bias then holds to float32 rounding, in every engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekit.bundle.manifest import OUTPUT_NAMES, CamKind

if TYPE_CHECKING:
    import onnx_ir as ir

LOGITS, CAM, OFFSET, FEATURES, NEXT_STATE = OUTPUT_NAMES
PREFIX = "cam_head/"


class UnknownHeadError(Exception):
    """Why there is no map: what was found in the head that no rule is known for. Never leaves this folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A head that explains itself.

    Attributes:
        kind: What its map is; see `CamSpec`.
        rows: Rows of the map.
        columns: Columns of the map.
        bias: What is added to the mean of the map to make the logit, an output; empty where it depends on the frame and is an output of the graph.
        title: How the head is built, for people.
        multiplications: Multiply-accumulate operations that the map costs a frame, about.
    """

    kind: CamKind
    rows: int
    columns: int
    bias: tuple[float, ...]
    title: str
    multiplications: int


def in_head(node: ir.Node) -> bool:
    """Whether a node belongs to the head (rule 1)."""
    return str(node.name).startswith(PREFIX)


def free_prefix(model: ir.Model) -> None:
    """Renames nodes and values of the model's own that are named like the head's (rule 1)."""
    for node in model.graph:
        if in_head(node):
            node.name = f"model/{node.name}"
    values = [*model.graph.inputs, *model.graph.initializers.values(), *(value for node in model.graph for value in node.outputs)]
    for value in values:
        if str(value.name).startswith(PREFIX):
            value.name = f"model/{value.name}"


def boundary(model: ir.Model) -> frozenset[str]:
    """Names of the values that the head reads and does not make, and of the outputs that it does not make."""
    outside = [value for node in model.graph if not in_head(node) for value in node.outputs]
    read = {value for node in model.graph if in_head(node) for value in node.inputs} | set(model.graph.outputs)
    return frozenset(str(value.name) for value in outside if value in read)
