"""What each engine that reads ONNX wants quantized, and how: one row a dialect.

The dialects differ because the engines do. ONNX Runtime has integer kernels for chains of operators and wants every feature between them rounded, uint8 with a
zero point, and the bias as int32. TensorRT fuses by itself: it wants the inputs of convolutions and matrix products rounded, the skip of a residual sum, and
nothing else; int8, zero points 0, biases in float (TensorRT documentation, "Explicit Quantization"; NVIDIA Model Optimizer, `modelopt/onnx/quantization`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Where and how an engine quantizes.

    Attributes:
        title: For people.
        unsigned: Activations are uint8 with a zero point, instead of int8 with the zero point 0.
        chained: Every feature between operators that have integer kernels is rounded, sums, products and concatenations included; else only what layers with
            weights read, and the skip of a residual sum.
        integer_bias: Biases are stored as int32 with the product of both scales.
        depthwise: Whether depthwise convolutions are quantized.
        least_channels: Convolutions with fewer channels in or out stay in float.
        vectors: Whether layers that read a single position are quantized.
    """

    title: str
    unsigned: bool
    chained: bool
    integer_bias: bool
    depthwise: bool = True
    least_channels: int = 1
    vectors: bool = True


RULES: Mapping[str, Rules] = {
    "onnxruntime": Rules(title="QDQ, uint8 activations, int8 weights", unsigned=True, chained=True, integer_bias=True),
    # Small and depthwise convolutions and matrix-vector products are faster in float16 there; the first layer is one of them, as it reads one grey plane.
    "tensorrt": Rules(
        title="explicit quantization, int8",
        unsigned=False,
        chained=False,
        integer_bias=False,
        depthwise=False,
        least_channels=16,
        vectors=False,
    ),
}
