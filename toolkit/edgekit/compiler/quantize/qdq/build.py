"""From the explained float graph to the graph that an engine reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler import graph as g
from edgekit.compiler.progress import Progress
from edgekit.compiler.quantize.qdq import bias, half, integers, lower, ranges
from edgekit.compiler.quantize.qdq.insert import insert, store_floats
from edgekit.compiler.quantize.qdq.opened import open_graph
from edgekit.compiler.quantize.qdq.place import Placement, moved_from, place
from edgekit.compiler.quantize.qdq.rules import Rules
from edgekit.compiler.quantize.qdq.trained import TrainedScales, in_dialect, take_apart
from edgekit.errors import ModelError

if TYPE_CHECKING:
    import onnx_ir as ir


# The format that ONNX had when it released an opset: an older reader may refuse a newer one.
_IR_VERSIONS = {13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11, 24: 12}


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """How a graph is written.

    Attributes:
        opset: Of the file; None for the one of the explained graph.
        typed: float16 where it may be, with every change of type in the graph; else float32 throughout.
        without: Operators that the engine does not have, though the opset does.
        integer_weights: Whether weights are stored as int8; else as float32 before a pair, for an engine that takes no int8 constants.
    """

    opset: int | None = None
    typed: bool = False
    without: frozenset[str] = frozenset()
    integer_weights: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding:
    """How a graph is quantized.

    Attributes:
        rules: The dialect's.
        method: How ranges are chosen.
        weight_limit: Largest weight as an integer.
        float_layers: Names of layers that stay in float.
        correct_biases: Whether biases take back the mean error of rounding.
    """

    rules: Rules
    method: ranges.Method
    weight_limit: int
    float_layers: tuple[str, ...] = ()
    correct_biases: bool = True


def quantize(path: Path, rounding: Rounding, writing: Writing, calibration: NDArray[np.uint8], progress: Progress) -> ir.Model:
    """Quantizes the explained graph from calibration frames.

    Args:
        path: The explained graph, ONNX.
        rounding: How.
        writing: Whether scales are to be float16.
        calibration: uint8 (frames, height, width, channels).
        progress: Told of every calibration frame.

    Returns:
        float32 with QuantizeLinear/DequantizeLinear pairs and int8 weights.

    Raises:
        ModelError: There is nothing to quantize, or a value is not finite.
    """
    exact, model = (open_graph(path, typed=writing.typed) for _ in range(2))
    placement = place(model, rounding.rules, rounding.float_layers)
    seen = ranges.observe(model, list(placement.readers), calibration, progress)
    unsigned = rounding.rules.unsigned
    scales = ranges.scales_of(placement.groups, seen, rounding.method, unsigned=unsigned, half=writing.typed)
    insert(model, placement, scales, weight_limit=rounding.weight_limit, half=writing.typed)
    g.tidy(model)
    if rounding.correct_biases:
        layers = tuple(layer.name for layer in placement.layers)
        bias.correct_biases(exact, model, layers, calibration[: bias.FRAMES], progress)
        g.tidy(model)
    if rounding.rules.integer_bias:
        integers.store_biases(model)
    return model


def rewrite_trained(path: Path, rounding: Rounding, writing: Writing, calibration: NDArray[np.uint8], progress: Progress) -> ir.Model:
    """Writes a graph that was trained with its roundings in another dialect.

    Its scales are the trained ones. What the dialect rounds and the training did not is given a range from the calibration frames; what the training rounded and the
    dialect does not is left alone.

    Args:
        path: The explained Q/DQ graph, ONNX.
        rounding: How; ranges that are missing are chosen by its method.
        writing: Whether scales are to be float16.
        calibration: uint8 (frames, height, width, channels).
        progress: Told of every calibration frame.
    """
    model = open_graph(path, typed=writing.typed)
    trained = take_apart(model)
    placement = place(model, rounding.rules, rounding.float_layers)
    scales = _scales(model, placement, trained, rounding, writing, calibration, progress)
    insert(model, placement, scales, weight_limit=rounding.weight_limit, half=writing.typed, trained=trained.weights)
    g.tidy(model)
    if rounding.rules.integer_bias:
        integers.store_biases(model)
    return model


def _scales(  # noqa: PLR0913, PLR0917 - one step of `rewrite_trained`, with all it has
    model: ir.Model,
    placement: Placement,
    trained: TrainedScales,
    rounding: Rounding,
    writing: Writing,
    calibration: NDArray[np.uint8],
    progress: Progress,
) -> dict[ir.Value, ranges.Scale]:
    unsigned = rounding.rules.unsigned
    found = {
        value: in_dialect(trained.values[str(value.name)], unsigned=unsigned, half=writing.typed)
        for value in placement.readers
        if str(value.name) in trained.values
    }
    # A value that only moved what was rounded keeps its range, also where the dialect rounds behind the move and the training rounded before it.
    known = {value for node in model.graph for value in node.outputs if str(value.name) in trained.values}
    for value in placement.readers:
        source = None if value in found else moved_from(value, known)
        if source is not None:
            found[value] = in_dialect(trained.values[str(source.name)], unsigned=unsigned, half=writing.typed)
    missing = {value: value for value in placement.readers if value not in found}
    if missing:
        seen = ranges.observe(model, list(missing), calibration, progress)
        found |= ranges.scales_of(missing, seen, rounding.method, unsigned=unsigned, half=writing.typed)
    return found


def write(model: ir.Model, writing: Writing, path: Path, frames: NDArray[np.uint8], progress: Progress) -> int:
    """Gives a graph its types and its opset, checks it and writes it.

    Args:
        model: float32, quantized or not; changed.
        writing: How.
        path: The file.
        frames: Calibration frames, uint8 (frames, height, width, channels); where the graph is typed, they show what float16 can hold.
        progress: Told of every frame.

    Returns:
        Nodes that stay in float32 because their values are too large for float16.

    Raises:
        ModelError: An operator has no form in the opset, or the graph is not valid ONNX.
    """
    import onnx
    import onnx_ir as ir

    if writing.opset is not None:
        lower.lower(model, writing.opset, without=writing.without)
    if not writing.integer_weights:
        store_floats(model)
    wide = half.to_half(model, half.largest_values(model, frames[: half.FRAMES], progress)) if writing.typed else 0
    model.ir_version = _IR_VERSIONS[model.opset_imports[""]]
    proto = ir.to_proto(model)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(
            f"the quantized graph is not valid ONNX: {str(error).splitlines()[0]}", hint="please report the architecture"
        ) from error
    path.write_bytes(proto.SerializeToString(deterministic=True))
    return wide
