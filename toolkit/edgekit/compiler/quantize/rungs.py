"""The rungs of the quantization ladder, cheapest first.

`RUNGS` is the extension point. A rung is settings, not code: what it does is in `openvino_ptq.py`; `float-fallback` takes the settings of the rung that
it starts from, and which layers it leaves in float32 is found by measuring (`fallback.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgekit.catalog.compress import Rung

FULL_RANGE, HALF_RANGE = 127, 63
"""Largest weight as an integer: where sums of products are whole, and where pairs of them are summed in 16 bits: 2 · 255 · 63 < 2¹⁵."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RungSettings:
    """How one rung quantizes.

    Attributes:
        title: For the report.
        quantize: False leaves the model in float32.
        full_bias_correction: Corrects every layer's bias with the quantized layers before it in place, instead of each layer alone.
        histogram_ranges: Takes activation ranges from histograms instead of the extremes.
        asymmetric: Activations have a zero point of their own; nearer to float, and about a quarter slower on a CPU.
        smooth_quant: In a network with attention, scales move from the activations into the weights before quantization (Xiao et al. 2023).
        half_weights: Weights use half of their range (−63 … 63), so that a CPU without VNNI, which sums pairs of products in 16 bits, cuts nothing off
            (docs/adr/0021-half-range-weights.md).
        float_layers: Names of operations that stay in float32, as the IR of another rung of the same graph has them.
    """

    title: str
    quantize: bool = True
    full_bias_correction: bool = False
    histogram_ranges: bool = False
    asymmetric: bool = False
    smooth_quant: bool = True
    half_weights: bool = False
    float_layers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedIntegers:
    """What the rung that trains rounds to, where the engine has a say.

    Attributes:
        signed: Activations are int8 also where they cannot be negative.
        weights: Largest weight as an integer. A CPU without VNNI sums pairs of products in 16 bits: with 127 large sums are cut off there unseen, with 63
            none can be.
    """

    signed: bool = False
    weights: int = FULL_RANGE


RUNGS: Mapping[Rung, RungSettings] = {
    "ptq": RungSettings(title="post-training quantization, fast bias correction"),
    "ptq-full": RungSettings(
        title="post-training quantization, histogram ranges, full bias correction", full_bias_correction=True, histogram_ranges=True
    ),
    "ptq-asymmetric": RungSettings(
        title="as ptq-full, with asymmetric activations", full_bias_correction=True, histogram_ranges=True, asymmetric=True
    ),
    "ptq-no-smoothquant": RungSettings(
        title="as ptq-full, without SmoothQuant; for networks with attention",
        full_bias_correction=True,
        histogram_ranges=True,
        smooth_quant=False,
    ),
    "float-fallback": RungSettings(title="the nearest rung of post-training quantization, with the layers that hurt most left in float32"),
    "qat": RungSettings(
        title="quantization-aware training: the network learns to answer as before with its weights and activations rounded"
    ),
    "float": RungSettings(title="no quantization, float32", quantize=False),
}

POST_TRAINING: tuple[Rung, ...] = ("ptq", "ptq-full", "ptq-asymmetric", "ptq-no-smoothquant")
"""The rungs that NNCF makes from the calibration frames alone; `float-fallback` starts from one of them."""
