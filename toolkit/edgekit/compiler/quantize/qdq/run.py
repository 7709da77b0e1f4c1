"""Runs an ONNX graph while it is being made: whole, with values of its middle, or node by node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.manifest import INPUT_NAMES
from edgekit.errors import ModelError
from edgekit.runtime.engines.onnxruntime import PROVIDER, first_line, load_library, session_options

if TYPE_CHECKING:
    import onnx_ir as ir


FRAME, STATE = INPUT_NAMES


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
        self._session = open_session(proto.SerializeToString(), optimize=True)

    def run(self, frames: NDArray[np.uint8], index: int, states: NDArray[np.float32] | None = None) -> list[NDArray[np.float32]]:
        """The named values of one of several frames, and of the state that a recurrent graph is given with it."""
        return cast("list[NDArray[np.float32]]", self._session.run(self._names, feed(frames, index, states)))


def feed(frames: NDArray[np.uint8], index: int, states: NDArray[np.float32] | None = None) -> dict[str, NDArray[Any]]:
    """What an explained graph takes, by name.

    Args:
        frames: uint8 (frames, height, width, channels).
        index: Which one.
        states: What a recurrent graph is given with each frame, float32 (frames, *shape of the state).
    """
    given: dict[str, NDArray[Any]] = {FRAME: np.ascontiguousarray(frames[index : index + 1])}
    if states is not None:
        given[STATE] = np.ascontiguousarray(states[index])
    return given


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
