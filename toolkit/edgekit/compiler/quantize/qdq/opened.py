"""Opens an explained graph in the form that the other files here read.

edgekit's own exporter writes that form; an ONNX file that a user brings need not.

Rules this file keeps:

1. Every node has a name, and no two have the same: layers are told apart by it. Who has none is called as what it makes.
2. Constants are initializers.
3. The opset has the roundings that are to be written.
4. The same file gives the same graph, so that what was found out about one copy holds for another.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import ModelError

if TYPE_CHECKING:
    import onnx_ir as ir

PER_CHANNEL = 13
"""The first opset with one scale a channel."""

HALF_SCALES = 19
"""The first opset with float16 scales."""


def open_graph(path: Path, *, typed: bool = False) -> ir.Model:
    """Opens an explained graph.

    Args:
        path: ONNX, float32 or with trained roundings.
        typed: Whether it will have float16 scales.

    Raises:
        ModelError: It cannot be taken to an opset that has them.
    """
    import onnx
    import onnx_ir as ir
    from onnx_ir.passes.common import LiftConstantsToInitializersPass

    proto = onnx.load(path, load_external_data=False)
    model = ir.from_proto(_raised(proto, HALF_SCALES if typed else PER_CHANNEL))
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    taken: set[str] = set()
    for node in model.graph:
        node.name = _free(node.name or str(node.outputs[0].name), taken)
        taken.add(node.name)
    return model


def _raised(proto: Any, least: int) -> Any:
    """The graph in a newer opset, where its own is too old."""
    import onnx

    opset = max(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    if opset >= least:
        return proto
    try:
        raised = onnx.version_converter.convert_version(proto, least)
        return onnx.shape_inference.infer_shapes(raised, strict_mode=True, data_prop=True)
    except (RuntimeError, ValueError, onnx.shape_inference.InferenceError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"the model of opset {opset} cannot be taken to opset {least}: {reason}", hint="export it with opset 20"
        ) from error


def _free(name: str, taken: set[str]) -> str:
    found, index = name, 0
    while found in taken:
        index += 1
        found = f"{name}_{index}"
    return found
