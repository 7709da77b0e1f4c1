"""From the trained network to ONNX: QuantizeLinear/DequantizeLinear pairs around float operators, for every engine.

Rules this file keeps:

1. One file for all engines: weights stay float before their pair, biases and the head are not quantized, scales are constants.
2. What was written is read again and checked: as many pairs as quantizers, zero point 0, the right integers, one scale an output channel of a weight.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from edgekit.compiler import graph as g
from edgekit.compiler.load.source import OPSET
from edgekit.compiler.load.torch_model import first_line, quiet
from edgekit.compiler.quantize.qat.trace import constant
from edgekit.errors import ModelError

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch

    from edgekit.compiler.quantize.qat.network import QuantizedNetwork


def export(network: QuantizedNetwork, shape: tuple[int, int, int], path: Path) -> None:
    """Writes the network's logits as ONNX.

    Args:
        network: Trained, on the CPU.
        shape: (planes, height, width) of a frame.
        path: The file: input float32 (1, planes, height, width), output float32 (1, outputs), weights inside.

    Raises:
        ModelError: PyTorch cannot export it, or what it wrote is not what was trained.
    """
    import torch

    plain = with_operators(network)
    with quiet():
        try:
            program = torch.onnx.export(
                plain, (torch.zeros((1, *shape)),), dynamo=True, opset_version=OPSET, external_data=False, verbose=False
            )
        except Exception as error:  # the exporter raises many kinds
            raise ModelError(
                f"PyTorch cannot export the quantized network to ONNX: {first_line(error)}",
                hint="leave the rung qat out of [compress] quantize ladder",
            ) from error
    if program is None:
        raise ModelError("PyTorch's exporter returned nothing")
    check_pairs(program.model, network)
    program.save(str(path), include_initializers=True, keep_initializers_as_inputs=False, external_data=False)


def with_operators(network: QuantizedNetwork) -> torch.fx.GraphModule:
    """The network in PyTorch's own fake quantization operators, which the exporter knows, with constant scales; logits alone come out."""
    plain = copy.deepcopy(network.graph).eval()
    for node in list(plain.graph.nodes):
        if node.op == "output":
            node.args = (node.args[0][0],)
        elif node.op == "call_module":
            with plain.graph.inserting_before(node):
                node.replace_all_uses_with(_operator(plain, node))
            plain.graph.erase_node(node)
    plain.graph.eliminate_dead_code()
    plain.delete_all_unused_submodules()
    plain.recompile()
    return plain


def _operator(plain: torch.fx.GraphModule, node: torch.fx.Node) -> torch.fx.Node:
    """What replaces the call of a quantizer."""
    import torch

    from edgekit.compiler.quantize.qat.quantizer import ActivationQuantizer, WeightQuantizer

    part = plain.get_submodule(str(node.target))
    if isinstance(part, ActivationQuantizer):
        settings = (float(part.scale.detach()), 0, part.limits.low, part.limits.high)
        return plain.graph.call_function(torch.ops.aten.fake_quantize_per_tensor_affine.default, (node.args[0], *settings))
    if not isinstance(part, WeightQuantizer):
        raise TypeError(f"{node.target} is a {type(part).__name__}, not a quantizer")
    weight = part.weight(cast("torch.Tensor", constant(plain, node.args[0]))).detach()
    scale = part.scale(weight)
    constants = []
    for name, value in (("weight", weight), ("scale", scale), ("zero", torch.zeros(scale.shape, dtype=torch.int32))):
        path = f"{node.name}_{name}"
        plain.register_buffer(path, value)
        constants.append(plain.graph.get_attr(path))
    # int8 whole: no weight comes to −128 with this scale, and the exporter knows no other integers.
    operator = torch.ops.aten.fake_quantize_per_channel_affine.default
    return plain.graph.call_function(operator, (*constants, part.axis, -128, 127))


def check_pairs(model: ir.Model, network: QuantizedNetwork) -> None:
    """Compares what was written with what was trained (rule 2).

    Raises:
        ModelError: Something is missing, added, or of another kind.
    """
    written = sorted(_pair(node) for node in model.graph if node.op_type == "QuantizeLinear")
    restored = sum(node.op_type == "DequantizeLinear" for node in model.graph)
    expected = sorted(network.pairs())
    if written != expected or restored != len(expected):
        raise ModelError(
            f"the exporter wrote {len(written)} quantizers ({restored} dequantizers) for {len(expected)}, or other ones",
            hint="please report the architecture; the rung qat cannot be used for it with this PyTorch",
        )


def _pair(node: ir.Node) -> tuple[str, int]:
    """The integers of a QuantizeLinear and its number of scales; refuses one that its DequantizeLinear does not undo."""
    _, scale, zero = (node.inputs[index] if index < len(node.inputs) else None for index in range(3))
    scales, zeros = g.constant(scale), g.constant(zero)
    readers = [use.node for use in node.outputs[0].uses()]
    undone = [reader.op_type == "DequantizeLinear" and tuple(reader.inputs[1:3]) == (scale, zero) for reader in readers]
    if scales is None or zeros is None or zeros.any() or not (np.asarray(scales, dtype=np.float64) > 0).all() or undone != [True]:
        raise ModelError(
            f"the exporter wrote {node.name} with a zero point, without constant scales, or without its counterpart",
            hint="please report the architecture; the rung qat cannot be used for it with this PyTorch",
        )
    return str(zeros.dtype), scales.size if scales.ndim else 0
