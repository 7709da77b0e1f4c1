"""The network in training: the traced graph with its fake quantizers, and the map of its float head.

The file imports torch at its top since it defines a module; it is itself imported only by what trains.
"""

from __future__ import annotations

from typing import cast

import torch  # noqa: TID253 - see above

from edgekit.compiler.distill.answer import Answer
from edgekit.compiler.quantize.qat.place import Head, Placement, find_head, place
from edgekit.compiler.quantize.qat.quantizer import SIGNED, UNSIGNED, ActivationQuantizer, WeightQuantizer
from edgekit.compiler.quantize.qat.trace import constant
from edgekit.compiler.quantize.rungs import TrainedIntegers

ACTIVATIONS = "quantize_values"
WEIGHTS = "quantize_weights"


class QuantizedNetwork(torch.nn.Module):
    """A classifier that computes with rounded values.

    Attributes:
        graph: From float32 (frames, planes, height, width) to (logits, features or None, the classifier's weight or None).
    """

    def __init__(self, traced: torch.fx.GraphModule, *, planes: int, integers: TrainedIntegers | None = None) -> None:
        """Takes over a traced, folded network, and places its quantizers; their ranges are still to be found (`calibrate.py`).

        Args:
            traced: From float32 (frames, planes, height, width) to logits.
            planes: Channels it takes.
            integers: What the engine wants values rounded to; None for the default.

        Raises:
            ModelError: There is nothing to quantize.
        """
        super().__init__()
        head = find_head(traced)
        _insert(traced, place(traced, head), integers or TrainedIntegers())
        _add_outputs(traced, head)
        _freeze(traced, head)
        self.graph = traced
        self._planes = planes
        self._has_features = head.features is not None
        self._has_weight = head.weight is not None

    def forward(self, x: torch.Tensor) -> Answer:
        """Answers.

        Args:
            x: float32 (frames, planes or more, height, width); of grey planes, which are all alike, as many are taken as are needed.
        """
        logits, features, weight = self.graph(x[:, : self._planes])
        if not self._has_features:
            return Answer(logits, None, None)
        if not self._has_weight:
            return Answer(logits, features, features)
        return Answer(logits, torch.nn.functional.conv2d(features, weight.flatten(1)[:, :, None, None]), features)

    def values(self) -> dict[str, ActivationQuantizer]:
        """The quantizers of values, by name, in the graph's order."""
        return {name: cast("ActivationQuantizer", part) for name, part in self.graph.get_submodule(ACTIVATIONS).named_children()}

    def pairs(self) -> list[tuple[str, int]]:
        """Every rounding in the graph: its integers' type, and how many scales it has; 0 for one that is not a channel's."""
        found = []
        for node in self.nodes():
            if node.op == "call_module":
                part = self.graph.get_submodule(str(node.target))
                if isinstance(part, ActivationQuantizer):
                    found.append(("uint8" if part.limits == UNSIGNED else "int8", 0))
                elif isinstance(part, WeightQuantizer):
                    weight = cast("torch.Tensor", constant(self.graph, node.args[0]))
                    found.append(("int8", weight.shape[part.axis]))
        return found

    def nodes(self) -> list[torch.fx.Node]:
        """What the network computes, in order."""
        return [node for node in self.graph.graph.nodes if node.op != "output"]

    def value_name(self, node: torch.fx.Node) -> str | None:
        """The name of the quantizer that a node calls; None where it calls none."""
        folder, _, name = str(node.target).partition(".")
        return name if node.op == "call_module" and folder == ACTIVATIONS else None

    def call(self, node: torch.fx.Node, value: torch.Tensor, *, rounding: bool) -> torch.Tensor:
        """What a node that calls a quantizer gives; without rounding, what it would round."""
        part = self.graph.get_submodule(str(node.target))
        if not rounding:
            return part.weight(value) if isinstance(part, WeightQuantizer) else value
        rounded: torch.Tensor = part(value)
        return rounded

    def bias(self, node: torch.fx.Node) -> torch.Tensor | None:
        """The bias of a layer whose weights are rounded; None for any other node, and for a layer that has none."""
        weight = node.args[1] if len(node.args) > 2 else None
        rounded = isinstance(weight, torch.fx.Node) and weight.op == "call_module" and str(weight.target).startswith(f"{WEIGHTS}.")
        return constant(self.graph, node.args[2]) if rounded else None


def _insert(traced: torch.fx.GraphModule, placement: Placement, integers: TrainedIntegers) -> None:
    graph = traced.graph
    for folder in (ACTIVATIONS, WEIGHTS):
        traced.add_module(folder, torch.nn.Module())
    for values, not_negative in placement.groups:
        # Named after the first value of the group, which the graph's own names keep unique.
        target = f"{ACTIVATIONS}.{values[0].name}"
        traced.add_submodule(target, ActivationQuantizer(UNSIGNED if not_negative and not integers.signed else SIGNED))
        for value in values:
            readers = placement.readers[value]
            with graph.inserting_after(value):
                rounded = graph.call_module(target, (value,))
            value.replace_all_uses_with(rounded, delete_user_cb=lambda user, readers=readers: user in readers)  # type: ignore[misc]
    for layer, axis in placement.weighted.items():
        _insert_weight(traced, layer, axis, integers)
    traced.recompile()


def _insert_weight(traced: torch.fx.GraphModule, layer: torch.fx.Node, axis: int, integers: TrainedIntegers) -> None:
    """Puts a quantizer between a layer and its weight, and the weight into the quantizer's units; layers of one weight share one."""
    read = cast("torch.fx.Node", layer.args[1])
    target = f"{WEIGHTS}.{str(read.target).replace('.', '_')}"
    if not isinstance(getattr(traced.get_submodule(WEIGHTS), target.partition(".")[2], None), WeightQuantizer):
        weight = traced.get_parameter(str(read.target))
        quantizer = WeightQuantizer(weight, axis, integers.weights)
        traced.add_submodule(target, quantizer)
        with torch.no_grad():
            weight.div_(quantizer.unit)
    with traced.graph.inserting_before(layer):
        rounded = traced.graph.call_module(target, (read,))
    layer.args = (layer.args[0], rounded, *layer.args[2:])


def _add_outputs(traced: torch.fx.GraphModule, head: Head) -> None:
    output = next(node for node in traced.graph.nodes if node.op == "output")
    logits = output.args[0]
    output.args = ((logits, head.features, head.weight if head.features is not None else None),)
    traced.recompile()


def _freeze(traced: torch.fx.GraphModule, head: Head) -> None:
    """Keeps the head as it was trained: a map means what it meant, and the layers before it make up for rounding."""
    for node in head.nodes:
        for read in node.all_input_nodes:
            parameter = constant(traced, read)
            if parameter is not None:
                parameter.requires_grad_(False)
