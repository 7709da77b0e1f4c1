"""Operators and opsets that the parsers of a target's TensorRT versions have."""

from __future__ import annotations

from collections.abc import Iterator

from edgekit.catalog.target import Target
from edgekit.compiler.conformance.finding import Hit, Rule, below, number, versions_of
from edgekit.compiler.conformance.operators_table import INTEGER, NEVER, OPSETS, SINCE, SOURCE
from edgekit.compiler.conformance.view import STANDARD_DOMAINS, GraphView, label

_INSTEAD = {
    "Gelu": "x · (1 + erf(x / √2)) / 2",
    "GroupNormalization": "Reshape and InstanceNormalization",
    "LayerNormalization": "ReduceMean, Sub, Mul, Sqrt and Div",
    "Mish": "x · tanh(softplus(x))",
    "RMSNormalization": "Mul, ReduceMean, Sqrt and Div",
}


def never(view: GraphView, _target: Target) -> Iterator[Hit]:
    """O1."""
    for node in view.every_node():
        if node.domain in STANDARD_DOMAINS and node.op_type in NEVER:
            yield Hit(node=label(node), message=f"no TensorRT has the operator {node.op_type}")


def not_yet(view: GraphView, target: Target) -> Iterator[Hit]:
    """O2."""
    for node in view.every_node():
        if node.domain not in STANDARD_DOMAINS or node.op_type not in SINCE:
            continue
        since = SINCE[node.op_type]
        missing = below(target, since)
        if missing:
            instead = f"; instead: {_INSTEAD[node.op_type]}" if node.op_type in _INSTEAD else ""
            yield Hit(node=label(node), message=f"the operator {node.op_type} is there from TensorRT {since} on{instead}", versions=missing)


def unknown(view: GraphView, _target: Target) -> Iterator[Hit]:
    """O3."""
    known = {*SINCE, *NEVER, *INTEGER}
    for node in view.every_node():
        if node.domain in STANDARD_DOMAINS and node.op_type not in known:
            yield Hit(node=label(node), message=f"the operator {node.op_type} is unknown: not listed by onnx-tensorrt")


def opset(view: GraphView, target: Target) -> Iterator[Hit]:
    """O4."""
    for version in versions_of(target):
        known = [entry for entry in OPSETS if number(entry[0]) <= number(version)]
        if not known:
            yield Hit(node="", message=f"nothing is known about the opsets of TensorRT {version}", versions=(version,))
            continue
        _, oldest, newest = known[-1]
        if not oldest <= view.opset <= newest:
            yield Hit(
                node="",
                message=f"the graph is of opset {view.opset}; TensorRT {version} reads {oldest or 'up'} to {newest}",
                versions=(version,),
            )


RULES = (
    Rule(
        id="O1",
        severity="error",
        title="No operator is one that TensorRT never had",
        fix="write it with other operators, or move it out of the network",
        source=SOURCE,
        check=never,
    ),
    Rule(
        id="O2",
        severity="error",
        title="Every operator is in each of the target's TensorRT versions",
        fix="write the operator with older ones, or drop the old version from the target",
        source=SOURCE,
        check=not_yet,
    ),
    Rule(
        id="O3",
        severity="warning",
        title="Every operator is listed by onnx-tensorrt",
        fix="build it on the device before relying on it, or write it with listed operators",
        source=SOURCE,
        check=unknown,
    ),
    Rule(
        id="O4",
        severity="error",
        title="The opset is one that each of the target's TensorRT versions reads",
        fix="export with the target's opset",
        source=SOURCE,
        check=opset,
    ),
)
