"""The rungs of the quantization ladder, cheapest first.

`RUNGS` is the extension point. A rung is settings, not code: what it does is in `openvino_ptq.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgekit.catalog.compress import Rung


@dataclass(frozen=True, slots=True, kw_only=True)
class RungSettings:
    """How one rung quantizes.

    Attributes:
        title: For the report.
        quantize: False leaves the model in float32.
        full_bias_correction: Corrects every layer's bias with the quantized layers before it in place, instead of each layer alone.
        histogram_ranges: Takes activation ranges from histograms instead of the extremes.
        asymmetric: Activations have a zero point of their own; nearer to float, and about a quarter slower on a CPU.
    """

    title: str
    quantize: bool = True
    full_bias_correction: bool = False
    histogram_ranges: bool = False
    asymmetric: bool = False


RUNGS: Mapping[Rung, RungSettings] = {
    "ptq": RungSettings(title="post-training quantization, fast bias correction"),
    "ptq-full": RungSettings(
        title="post-training quantization, histogram ranges, full bias correction", full_bias_correction=True, histogram_ranges=True
    ),
    "ptq-asymmetric": RungSettings(
        title="as ptq-full, with asymmetric activations", full_bias_correction=True, histogram_ranges=True, asymmetric=True
    ),
    "float": RungSettings(title="no quantization, float32", quantize=False),
}
