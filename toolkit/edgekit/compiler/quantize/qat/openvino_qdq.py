"""OpenVINO's dialect of a trained Q/DQ graph: FakeQuantize operators and int8 weights.

Rules this file keeps:

1. OpenVINO reads QuantizeLinear and DequantizeLinear as a FakeQuantize to integers, two conversions, a difference and a product. As the zero point is 0,
   one FakeQuantize with equal ranges for input and output says the same, and is what OpenVINO's int8 transformations look for.
2. Weights are stored as int8 with their scales; other constants are folded.
3. The IR is written without what differs from run to run, so the same graph gives the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.compiler.quantize.openvino_ptq import BIN, XML, fold_constants, forget_history
from edgekit.errors import ModelError
from edgekit.runtime.engines.openvino import load_library

# From the FakeQuantize to its dequantized value.
_PAIR = ("Convert", "Convert", "Subtract", "Multiply")


def build_ir(graph: Path, folder: Path) -> None:
    """Writes the explained Q/DQ graph as `openvino.xml` and `openvino.bin`.

    Args:
        graph: ONNX, with preamble and map.
        folder: Where to write.

    Raises:
        MissingEngineError: OpenVINO is not installed.
        ModelError: OpenVINO cannot read the graph, or reads a pair otherwise than rule 1 says.
    """
    openvino = load_library()
    from openvino._offline_transformations import compress_quantize_weights_transformation

    try:
        model = openvino.Core().read_model(str(graph))
        _fuse_pairs(model)
        fold_constants(model)
        compress_quantize_weights_transformation(model)
    except RuntimeError as error:
        first = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
        raise ModelError(f"OpenVINO cannot handle the quantized model: {first}", hint="leave the rung qat out of the ladder") from error
    _name_constants(model)
    forget_history(model)
    openvino.serialize(model, str(folder / XML), str(folder / BIN))


def _fuse_pairs(model: Any) -> None:
    from openvino import opset13

    for operation in model.get_ordered_ops():
        if operation.get_type_name() != "FakeQuantize":
            continue
        last = operation
        for kind in _PAIR:
            readers = list(last.output(0).get_target_inputs())
            if len(readers) != 1 or readers[0].get_node().get_type_name() != kind:
                raise ModelError(
                    f"OpenVINO reads {operation.get_friendly_name()} as another pair of operators than is known",
                    hint="compile with an OpenVINO that this edgekit was tested with",
                )
            last = readers[0].get_node()
        value, low, high = (operation.input_value(index) for index in range(3))
        fused = opset13.fake_quantize(value, low, high, low, high, operation.get_attributes()["levels"])
        fused.set_friendly_name(last.get_friendly_name())
        for reader in list(last.output(0).get_target_inputs()):
            reader.replace_source_output(fused.output(0))


def _name_constants(model: Any) -> None:
    """Constants that were folded have the numbered names of what made them, which OpenVINO counts up in a process."""
    for position, operation in enumerate(model.get_ordered_ops()):
        if operation.get_type_name() == "Constant":
            operation.set_friendly_name(f"Constant_at_{position}")
