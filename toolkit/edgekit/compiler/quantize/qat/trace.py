"""A classifier as a graph of PyTorch's own operators that can be rewritten and trained.

Rules this file keeps:

1. `torch.export` records what runs, whatever the classifier's code looks like; the number of frames stays free.
2. Operators that write into their input become ones that do not: a quantizer between two operators must see the value before it is overwritten.
3. The graph answers as the classifier did, or it is refused: it is compared on the example.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, cast

from edgekit.compiler.load.torch_model import first_line
from edgekit.errors import ModelError

if TYPE_CHECKING:
    import torch

_HINT = "leave the rung qat out of [compress] quantize ladder, or rewrite the part that torch.export stumbles over"
# Relative and absolute (in logits) difference that other orders of summation explain.
TOLERANCE = (1e-3, 1e-4)


def trace(module: torch.nn.Module, example: torch.Tensor) -> torch.fx.GraphModule:
    """Records a classifier.

    Args:
        module: float32 (frames, channels, height, width) to logits (frames, outputs); not changed.
        example: At least two frames of the size the classifier takes.

    Returns:
        A module of its own copies of the parameters, by their names; one input, one output, aten operators only.

    Raises:
        ModelError: torch.export cannot record it, or what was recorded answers otherwise.
    """
    import torch

    own = copy.deepcopy(module).eval()
    try:
        program = torch.export.export(own, (example,), dynamic_shapes=({0: torch.export.Dim("frames")},))
        recorded = program.module()
    except Exception as error:  # torch.export raises whatever the classifier's code raises under tracing
        raise ModelError(f"the network cannot be traced for quantization-aware training: {first_line(error)}", hint=_HINT) from error
    graph = torch.fx.Graph()
    copied: dict[torch.fx.Node, torch.fx.Node] = {}
    output = graph.graph_copy(recorded.graph, copied)
    graph.output(_only(output))
    for node in reversed(graph.nodes):
        # The exporter's checks of the input's shape are calls of a module that nothing uses.
        if node.op == "call_module" and not node.users:
            graph.erase_node(node)
    for node in list(graph.nodes):
        _make_functional(node)
        _leave_out_dropout(node)
    graph.eliminate_dead_code()
    traced = torch.fx.GraphModule(recorded, graph, class_name="Traced")
    check_same(own, traced, example)
    return traced


def check_same(module: torch.nn.Module, traced: torch.nn.Module, example: torch.Tensor) -> None:
    """Refuses a graph that does not answer as the classifier does.

    Raises:
        ModelError: The logits differ by more than rounding.
    """
    import torch

    with torch.no_grad():
        expected, found = module(example), traced(example)
    relative, absolute = TOLERANCE
    if expected.shape != found.shape or not torch.allclose(found, expected, rtol=relative, atol=absolute):
        raise ModelError("the traced network does not answer as the original does", hint=_HINT)


def constant(traced: torch.fx.GraphModule, value: object) -> torch.Tensor | None:
    """The parameter or buffer that a node reads; None for anything else."""
    import torch

    if not isinstance(value, torch.fx.Node) or value.op != "get_attr":
        return None
    found: Any = traced
    for part in str(value.target).split("."):
        found = getattr(found, part)
    return cast("torch.Tensor", found)


def operator(node: object) -> str:
    """The name of an aten operator, as "conv2d"; empty for anything else."""
    import torch

    if not isinstance(node, torch.fx.Node) or not isinstance(node.target, torch._ops.OpOverload):  # noqa: SLF001 - has no public name
        return ""
    namespace, _, name = cast("Any", node.target).name().partition("::")
    return name.partition(".")[0] if namespace == "aten" else ""


def _only(output: object) -> Any:
    import torch

    found = output[0] if isinstance(output, tuple | list) and len(output) == 1 else output
    if not isinstance(found, torch.fx.Node):
        raise ModelError("the network returns more than its logits", hint=_HINT)
    return found


def _make_functional(node: torch.fx.Node) -> None:
    """`relu_(x)` becomes `relu(x)`; the record already reads the result wherever the classifier read x afterwards."""
    import torch

    name = operator(node)
    if not name.endswith("_") or name.startswith("_"):
        return
    # From relu_.default to relu.default.
    overload = cast("Any", node.target)._overloadname  # noqa: SLF001 - has no public name
    node.target = getattr(getattr(torch.ops.aten, name[:-1]), overload)


def _leave_out_dropout(node: torch.fx.Node) -> None:
    import torch

    if operator(node) in ("dropout", "feature_dropout", "alias", "detach") and isinstance(node.args[0], torch.fx.Node):
        node.replace_all_uses_with(node.args[0])
