"""The numerical oracle: what an engine computes that cannot run here.

ONNX Runtime without optimization executes a Q/DQ graph as it is written: every QuantizeLinear rounds half to even and saturates, every operator between computes
in float. That is what TensorRT's explicit quantization means too, up to the order of summation.

float16 is written out first. On a CPU ONNX Runtime has no float16 kernels for most operators: it casts to float32 and takes the casts between neighbours away again, so nothing in between is
rounded and nothing overflows. Here every float16 operator computes in float32, and its result goes through float16 before anybody reads it.

Does not prove that a device computes the same: its kernels sum float16 products in an order of their own. `edgekit verify` on the device compares golden frames.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgekit.bundle.manifest import EngineSpec
from edgekit.compiler import graph as g
from edgekit.runtime.engines.base import Engine
from edgekit.runtime.engines.onnxruntime import ROLE, OnnxRuntimeEngine, load_library

if TYPE_CHECKING:
    import onnx_ir as ir

TITLE = "ONNX Runtime without optimization, as the numerical oracle"


def open_oracle(spec: EngineSpec, members: Mapping[str, memoryview], *, rounds_halves: bool = True) -> Engine:
    """Opens the model of an engine that reads ONNX.

    A model that is not quantized is run with optimization, which changes nothing but the time.

    Args:
        spec: The manifest's entry of the engine.
        members: Member name to bytes.
        rounds_halves: Whether float16 results are rounded to float16; without, what comes out shows how much hangs on that.

    Raises:
        BundleError: ONNX Runtime refuses the model.
    """
    level = "all" if spec.precision == "f32" else "disabled"
    version = load_library().__version__
    content = bytes(members[spec.files[ROLE]])
    if spec.precision != "f32" and rounds_halves:
        content = write_out_halves(content)
    oracle = dataclasses.replace(spec, settings={"GRAPH_OPTIMIZATION": level}, minimum_version=version)
    return OnnxRuntimeEngine.open(oracle, {spec.files[ROLE]: memoryview(content)})


def write_out_halves(content: bytes) -> bytes:
    """A graph that computes in float32 what another computes in float16, and rounds every result to float16.

    Args:
        content: An ONNX file.

    Returns:
        The same bytes where nothing in it is float16.
    """
    import onnx
    import onnx_ir as ir

    model = ir.from_proto(onnx.load_model_from_string(content))
    half = ir.DataType.FLOAT16
    made: dict[ir.Value, ir.Value] = {}
    for node in list(model.graph):
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype == half and g.constant(value) is not None:
                node.replace_input_with(index, _widened(model, value, made))
        for value in node.outputs:
            if value.dtype == half:
                _round(model, node, value)
    if not made and all(value.dtype != half for node in model.graph for value in node.outputs):
        return content
    g.tidy(model)
    written: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    return written


def _widened(model: ir.Model, value: ir.Value, made: dict[ir.Value, ir.Value]) -> ir.Value:
    """A float16 constant as float32, which holds every float16."""
    if value not in made:
        made[value] = g.add_constant(model.graph, f"{value.name}/widened", np.asarray(g.constant(value)).astype(np.float32))
    return made[value]


def _round(model: ir.Model, node: ir.Node, value: ir.Value) -> None:
    """Lets a node give float32, and its readers read that rounded to float16."""
    import onnx_ir as ir

    single, half = ir.DataType.FLOAT, ir.DataType.FLOAT16
    value.type = ir.TensorType(single)
    if node.op_type == "Cast":
        node.attributes["to"] = ir.AttrInt64("to", int(single))
    readers = list(value.uses())
    narrowed = ir.node("Cast", [value], {"to": int(half)}, name=f"{value.name}/narrowed")
    restored = ir.node("Cast", [narrowed.outputs[0]], {"to": int(single)}, name=f"{value.name}/restored_single")
    for made, kind in ((narrowed, half), (restored, single)):
        made.outputs[0].name = made.name
        made.outputs[0].shape = value.shape
        made.outputs[0].type = ir.TensorType(kind)
    for use in readers:
        use.node.replace_input_with(use.idx, restored.outputs[0])
    model.graph.insert_after(node, [narrowed, restored])
