"""The graph as a whole: static, of batch one, complete in one file, of standard operators."""

from __future__ import annotations

from collections.abc import Iterator

from edgekit.catalog.target import Target
from edgekit.compiler.conformance.finding import Hit, Rule
from edgekit.compiler.conformance.view import STANDARD_DOMAINS, GraphView, attribute, label
from edgekit.runtime.engines.base import STATE

_CONTROL_FLOW = ("If", "Loop", "Scan")


def dynamic_input(view: GraphView, _target: Target) -> Iterator[Hit]:
    """Q13."""
    for value in view.inputs:
        shape = view.shape(value.name)
        if shape is None or any(size is None for size in shape):
            shown = "unknown" if shape is None else "×".join("?" if size is None else str(size) for size in shape)
            yield Hit(node=value.name, message=f"the input {value.name!r} has the shape {shown}")


def batch_of_one(view: GraphView, _target: Target) -> Iterator[Hit]:
    """G1."""
    for value in view.inputs:
        if value.name == STATE:
            continue  # of any shape: what is carried need not have an axis of frames
        shape = view.shape(value.name)
        if shape and shape[0] is not None and shape[0] != 1:
            yield Hit(node=value.name, message=f"the input {value.name!r} takes a batch of {shape[0]}")


def external_data(view: GraphView, _target: Target) -> Iterator[Hit]:
    """G2."""
    import onnx

    constants = [(tensor.name, tensor) for tensor in view.initializers.values()]
    constants += [(label(node), attribute(node, "value", None)) for node in view.every_node() if node.op_type == "Constant"]
    for name, tensor in constants:
        if tensor is not None and (tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data):
            yield Hit(node=name, message=f"{name!r} is kept in another file")


def standard_operators(view: GraphView, _target: Target) -> Iterator[Hit]:
    """G3."""
    for function in view.model.functions:
        yield Hit(node=function.name, message=f"the model has a function of its own, {function.name[:80]!r}")
    for node in view.every_node():
        if node.domain not in STANDARD_DOMAINS:
            yield Hit(node=label(node), message=f"{node.op_type} is of the domain {node.domain[:80]!r}, which needs a plugin")


def control_flow(view: GraphView, _target: Target) -> Iterator[Hit]:
    """G4."""
    for node in view.nodes:
        if node.op_type in _CONTROL_FLOW:
            yield Hit(node=label(node), message=f"only operators and domains were checked inside the body of this {node.op_type}")


RULES = (
    Rule(
        id="G1",
        severity="error",
        title="Inputs have a batch of one",
        fix="export with a static batch of 1; a device answers one frame at a time",
        source="edgekit's own: golden frames and latencies are of one frame",
        check=batch_of_one,
    ),
    Rule(
        id="G2",
        severity="error",
        title="All weights are inside the file",
        fix="export with external_data=False",
        source="edgekit's own: a bundle's digest covers one file; ONNX, External Data",
        check=external_data,
    ),
    Rule(
        id="G3",
        severity="error",
        title="Operators are standard, and no function is the model's own",
        fix="export with standard operators; put functions in place with onnx.inliner.inline_local_functions",
        source="onnx-tensorrt docs/operators.md: other domains are looked up among plugins, which a bundle cannot hold",
        check=standard_operators,
    ),
    Rule(
        id="G4",
        severity="error",
        title="Graphs have no control flow, inside which most rules do not look: nothing is said of what was not judged",
        fix="trace the model with fixed sizes, so that the exporter leaves no If, Loop or Scan",
        source="a limit of this checker",
        check=control_flow,
    ),
    Rule(
        id="Q13",
        severity="error",
        title="Every dimension of an input is static",
        fix="export with static shapes",
        source="TensorRT developer guide, Working with Dynamic Shapes: the builder refuses a dynamic input without an optimization profile; tried on TensorRT-RTX 1.7.1",
        check=dynamic_input,
    ),
)
