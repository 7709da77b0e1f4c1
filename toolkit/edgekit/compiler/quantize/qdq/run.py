"""Runs an ONNX graph while it is being made: whole, with values of its middle, or node by node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from edgekit.compiler import graph as g
from edgekit.errors import ModelError
from edgekit.runtime.engines.onnxruntime import PROVIDER, first_line, load_library, session_options

if TYPE_CHECKING:
    import onnx_ir as ir


class GraphRunner:
    """A graph that gives values of its middle."""

    def __init__(self, model: ir.Model, names: Sequence[str]) -> None:
        """Opens a copy of the graph whose outputs are the named values.

        Args:
            model: Not changed.
            names: Of values of the graph, with types and shapes.
        """
        import onnx_ir as ir

        proto = ir.to_proto(model)
        known = {info.name: info for info in (*proto.graph.value_info, *proto.graph.output)}
        del proto.graph.output[:]
        for name in names:
            proto.graph.output.append(known[name])
        self._names = list(names)
        self._input, *states = [value.name for value in model.graph.inputs]
        self._beside = {name: zeros(value) for name, value in zip(states, model.graph.inputs[1:], strict=True)}
        self._session = open_session(proto.SerializeToString(), optimize=True)

    def run(self, tensor: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """The named values of one frame."""
        return cast("list[NDArray[np.float32]]", self._session.run(self._names, {self._input: tensor, **self._beside}))


def zeros(value: ir.Value) -> NDArray[np.float32]:
    """What a recurrent graph takes as its state: any will do, because nothing that depends on it is quantized (`explain.recurrent`)."""
    sizes = g.shape(value)
    if sizes is None:
        raise ModelError(f"the graph's input {value.name} has no static shape", hint="please report the architecture")
    return np.zeros(sizes, dtype=np.float32)


def open_session(graph: bytes, *, optimize: bool) -> Any:
    """A session on the CPU; without optimization it computes every rounding as the operators say, which is the numerical oracle for other engines.

    Raises:
        ModelError: ONNX Runtime refuses the graph.
    """
    library = load_library()
    try:
        return library.InferenceSession(
            graph, session_options({"GRAPH_OPTIMIZATION": "all" if optimize else "disabled"}), providers=[PROVIDER]
        )
    except Exception as error:  # the library raises many kinds
        raise ModelError(f"ONNX Runtime refuses the graph: {first_line(error)}", hint="please report the architecture") from error
