"""Forms of supported operators that TensorRT does not have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edgekit.catalog.target import Target
from edgekit.compiler.conformance.finding import Hit, Rule, below
from edgekit.compiler.conformance.operators_table import SOURCE
from edgekit.compiler.conformance.quantizers import DEQUANTIZE, QUANTIZE
from edgekit.compiler.conformance.view import GraphView, attribute, label, type_name

_POOLS = ("MaxPool", "AveragePool", "LpPool")
_REDUCTIONS = (
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd"),
    *("ReduceSum", "ReduceSumSquare"),
)

_CONSTANTS: Mapping[str, tuple[tuple[int, ...], str | None]] = {
    **dict.fromkeys(_REDUCTIONS, ((1,), None)),
    "CumSum": ((1,), None),
    "InstanceNormalization": ((1, 2), "9.2"),
    "OneHot": ((1,), None),
    "Pad": ((3,), "10.4"),
    "Slice": ((3,), "10.3"),
    "Squeeze": ((1,), None),
    "TopK": ((1,), "8.6"),
    "Unsqueeze": ((1,), None),
}
"""Inputs that must be known when the engine is built, and the version from which on they need not be (None: always)."""

_RESIZE: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "coordinate_transformation_mode": (
        "half_pixel",
        ("half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners"),
    ),
    "nearest_mode": ("round_prefer_floor", ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")),
    "keep_aspect_ratio_policy": ("stretch", ("stretch",)),
}
"""Attribute to its default and what is supported."""

_TYPES: Mapping[str, str] = {
    **dict.fromkeys(("FLOAT", "FLOAT16", "INT8", "UINT8", "INT32", "INT64", "BOOL", "DOUBLE"), "8.5"),
    "FLOAT8E4M3FN": "8.6",
    **dict.fromkeys(("BFLOAT16", "INT4"), "10.0"),
    "FLOAT4E2M1": "10.8",
}
"""Types of tensors, and the version from which on TensorRT has them. DOUBLE is narrowed (R6), and INT64 before 10."""

_TAKES_UINT8 = ("Cast", "CastLike", "Identity", QUANTIZE, DEQUANTIZE)


def pool_dilations(view: GraphView, _target: Target) -> Iterator[Hit]:
    """R1."""
    for node in view.every_node():
        dilations = attribute(node, "dilations", []) if node.op_type in _POOLS else []
        if any(step != 1 for step in dilations):
            yield Hit(node=label(node), message=f"{node.op_type} has dilations {list(dilations)}")


def pool_indices(view: GraphView, _target: Target) -> Iterator[Hit]:
    """R2."""
    for node in view.every_node():
        if node.op_type == "MaxPool" and len(node.output) > 1 and node.output[1]:
            yield Hit(node=label(node), message="MaxPool gives out Indices")


def resize_form(view: GraphView, _target: Target) -> Iterator[Hit]:
    """R3."""
    for node in view.every_node():
        if node.op_type != "Resize":
            continue
        if attribute(node, "antialias", 0):
            yield Hit(node=label(node), message="Resize with antialias")
        for name, (default, supported) in _RESIZE.items():
            value = attribute(node, name, default.encode()).decode("utf-8", "replace")
            if value not in supported:
                yield Hit(node=label(node), message=f"Resize with {name} {value[:40]!r}; supported: {', '.join(supported)}")


def resize_cubic(view: GraphView, _target: Target) -> Iterator[Hit]:
    """R10."""
    for node in view.every_node():
        if node.op_type == "Resize" and attribute(node, "mode", b"nearest") == b"cubic":
            yield Hit(node=label(node), message="Resize with mode 'cubic'; listed are nearest and linear")


def layer_norm_outputs(view: GraphView, _target: Target) -> Iterator[Hit]:
    """R4."""
    for node in view.every_node():
        if node.op_type == "LayerNormalization" and any(node.output[1:]):
            yield Hit(node=label(node), message="LayerNormalization gives out its mean or deviation")


def grid_sample_rank(view: GraphView, _target: Target) -> Iterator[Hit]:
    """R5."""
    for node in view.nodes:
        shape = view.shape(node.input[0]) if node.op_type == "GridSample" else None
        if shape is not None and len(shape) != 4:
            yield Hit(node=label(node), message=f"GridSample of {len(shape)} dimensions; there is one for 4")


def double(view: GraphView, _target: Target) -> Iterator[Hit]:
    """R6."""
    import onnx

    for value in (*view.inputs, *view.initializers.values()):
        if view.dtype(value.name) == onnx.TensorProto.DOUBLE:
            yield Hit(node=value.name, message=f"{value.name!r} is DOUBLE")
    for node in view.nodes:
        if any(view.dtype(name) == onnx.TensorProto.DOUBLE for name in node.output):
            yield Hit(node=label(node), message=f"{node.op_type} makes DOUBLE")


def pool_rank(view: GraphView, _target: Target) -> Iterator[Hit]:
    """R7."""
    for node in view.nodes:
        shape = view.shape(node.input[0]) if node.op_type in {"MaxPool", "AveragePool"} else None
        if shape is not None and len(shape) not in {4, 5}:
            yield Hit(node=label(node), message=f"{node.op_type} of {len(shape)} dimensions; there are those for 4 and 5")


def constant_inputs(view: GraphView, target: Target) -> Iterator[Hit]:
    """R8."""
    for node in view.nodes:
        indices, until = _CONSTANTS.get(node.op_type, ((), None))
        versions = () if until is None else below(target, until)
        if until is not None and not versions:
            continue
        for index in indices:
            # What the builder folds is not enough: the parser asks for a constant behind nothing but Cast and Identity.
            if index < len(node.input) and node.input[index] and view.constant(node.input[index]) is None:
                yield Hit(node=label(node), message=f"input {index} of {node.op_type} is computed, and must be constant", versions=versions)


def uint8_inside(view: GraphView, _target: Target) -> Iterator[Hit]:
    """R9."""
    import onnx

    floats = {onnx.TensorProto.UNDEFINED, onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
    for node in view.nodes:
        types = [view.dtype(name) for name in (*node.input, *node.output) if name]
        if onnx.TensorProto.UINT8 not in types:
            continue
        if node.op_type not in _TAKES_UINT8 and any(view.dtype(name) == onnx.TensorProto.UINT8 for name in node.input if name):
            yield Hit(node=label(node), message=f"{node.op_type} reads UINT8")
        elif node.op_type == "Cast" and not set(types) <= floats:
            yield Hit(
                node=label(node),
                message=f"Cast from {type_name(types[0])} to {type_name(types[-1])}; UINT8 is cast to and from float types only",
            )


def known_types(view: GraphView, target: Target) -> Iterator[Hit]:
    """R11."""
    import onnx

    since = {onnx.TensorProto.DataType.Value(name): version for name, version in _TYPES.items()}
    made = [(value.name, value.name) for value in (*view.inputs, *view.initializers.values())]
    made += [(label(node), name) for node in view.nodes for name in node.output if name]
    for place, name in made:
        dtype = view.dtype(name)
        if dtype == onnx.TensorProto.UNDEFINED:
            continue
        if dtype not in since:
            yield Hit(node=place, message=f"{name!r} is {type_name(dtype)}, a type that TensorRT does not have")
        elif older := below(target, since[dtype]):
            yield Hit(node=place, message=f"{name!r} is {type_name(dtype)}, which TensorRT has from {since[dtype]} on", versions=older)


RULES = (
    Rule(
        id="R1",
        severity="error",
        title="Pooling has no dilation",
        fix="pool without dilation, or use a convolution",
        source=f"{SOURCE}; tried on TensorRT-RTX 1.7.1",
        check=pool_dilations,
    ),
    Rule(
        id="R2",
        severity="error",
        title="MaxPool gives out values only",
        fix="take the output Indices off the graph",
        source=SOURCE,
        check=pool_indices,
    ),
    Rule(
        id="R3",
        severity="error",
        title="Resize is of a form that TensorRT has",
        fix="resize on the host, or export with half_pixel, stretch and without antialias",
        source=SOURCE,
        check=resize_form,
    ),
    Rule(
        id="R4",
        severity="error",
        title="LayerNormalization gives out Y only",
        fix="take the outputs Mean and InvStdDev off the graph",
        source=SOURCE,
        check=layer_norm_outputs,
    ),
    Rule(
        id="R5",
        severity="error",
        title="GridSample is of four dimensions",
        fix="sample planes one by one",
        source=SOURCE,
        check=grid_sample_rank,
    ),
    Rule(
        id="R6",
        severity="warning",
        title="No tensor is DOUBLE: TensorRT narrows it to FLOAT",
        fix="export the model in float32",
        source=SOURCE,
        check=double,
    ),
    Rule(
        id="R7",
        severity="error",
        title="Pooling is over two or three spatial dimensions",
        fix="reshape to four dimensions before the pooling",
        source=SOURCE,
        check=pool_rank,
    ),
    Rule(
        id="R8",
        severity="error",
        title="Axes, depths and the like are constants where the parser needs them so",
        fix="fold constants, or export with fixed sizes",
        source=SOURCE,
        check=constant_inputs,
    ),
    Rule(
        id="R9",
        severity="error",
        title="UINT8 is for inputs and outputs of the network only",
        fix="cast the frame to a float type before anything else",
        source="onnx-tensorrt docs/operators.md: UINT8 is only supported as network input or output tensor types",
        check=uint8_inside,
    ),
    Rule(
        id="R10",
        severity="warning",
        title="Resize is nearest or linear",
        fix="resize by nearest or linear, or build it on the device before relying on it",
        source=f"{SOURCE}; TensorRT-RTX 1.7.1 took a cubic one",
        check=resize_cubic,
    ),
    Rule(
        id="R11",
        severity="error",
        title="Tensors are of types that TensorRT has",
        fix="cast to FLOAT, FLOAT16, INT32 or BOOL in the model, or export without the operators that need another type",
        source="TensorRT NvInferRuntimeBase.h (8.5 to 11.1), DataType; tried on TensorRT-RTX 1.7.1: INT16, UINT32 and STRING are refused",
        check=known_types,
    ),
)
