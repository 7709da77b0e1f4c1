"""Which layers of a quantized graph hurt most, found by measuring: each alone goes back to float, and the whole graph runs.

The same question as `quantize/fallback.py` asks of OpenVINO's graph, and the same measure of error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler import graph as g
from edgekit.compiler.quantize.fallback import LayerError, output_error
from edgekit.compiler.quantize.qdq.run import open_session
from edgekit.compiler.stages.measure import Measured

if TYPE_CHECKING:
    import onnx_ir as ir


def rank(
    exact: ir.Model, rounded: ir.Model, frames: NDArray[np.uint8], step: Callable[[int, int], None]
) -> tuple[float, tuple[LayerError, ...]]:
    """Ranks the layers whose weights are rounded, the worst first.

    Args:
        exact: The explained float graph.
        rounded: The same with roundings, float32 between them, and biases that take nothing back: a bias that was corrected for the errors before its layer is
            wrong when one of them goes. As it was when this returns.
        frames: uint8 (frames, height, width, channels).
        step: Told of every layer that was measured: how many, of how many.

    Returns:
        The error of the rounded graph, and the layers; layers with the same error in the order of their names.
    """
    floats = {node.name: node for node in exact.graph}
    layers = [node for node in rounded.graph if node.name in floats and _is_rounded(node)]
    reference = _answers(exact, frames)
    before = output_error(reference, _answers(rounded, frames))
    found = []
    # A graph in which nothing is left to round is no rung of the ladder.
    for index, layer in enumerate(layers if len(layers) > 1 else []):
        with _in_float(rounded, layer, floats[layer.name]):
            after = output_error(reference, _answers(rounded, frames))
        found.append(LayerError(name=str(layer.name), type=layer.op_type, error=before - after))
        step(index + 1, len(layers))
    return before, tuple(sorted(found, key=lambda layer: (-layer.error, layer.name)))


def _is_rounded(node: ir.Node) -> bool:
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    made = weight.producer() if weight is not None else None
    return made is not None and made.op_type == "DequantizeLinear" and g.constant(made.inputs[0]) is not None


@contextmanager
def _in_float(model: ir.Model, layer: ir.Node, exact: ir.Node) -> Iterator[None]:
    """Gives a layer its float input, weight and bias, and takes them away again."""
    rounded = list(layer.inputs)
    restored = rounded[0].producer() if rounded[0] is not None else None
    if restored is not None and restored.op_type == "DequantizeLinear":
        pair = restored.inputs[0].producer() if restored.inputs[0] is not None else None
        layer.replace_input_with(0, pair.inputs[0] if pair is not None else rounded[0])
    for index, value in enumerate(exact.inputs[1:], start=1):
        constant = g.constant(value)
        if constant is not None:
            layer.replace_input_with(index, g.add_constant(model.graph, f"{layer.name}/float_{index}", np.asarray(constant)))
    try:
        yield
    finally:
        for index, value in enumerate(rounded):
            layer.replace_input_with(index, value)
        g.tidy(model)


def _answers(model: ir.Model, frames: NDArray[np.uint8]) -> Measured:
    import onnx_ir as ir

    session = open_session(ir.to_proto(model).SerializeToString(), optimize=False)
    results = [session.run(None, {"frame": np.ascontiguousarray(frame[None])}) for frame in frames]
    maps = np.stack([result[1][0] for result in results]) if len(results[0]) > 1 else None
    return Measured(logits=np.stack([result[0][0] for result in results]), maps=maps)
