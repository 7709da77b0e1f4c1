"""The rungs of the quantization ladder, cheapest first.

`RUNGS` is the extension point. A rung is settings, not code: what it does is in `openvino_ptq.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgekit.catalog.recipe import Rung


@dataclass(frozen=True, slots=True, kw_only=True)
class RungSettings:
    """How one rung quantizes.

    Attributes:
        title: For the report.
        quantize: False leaves the model in float32.
        full_bias_correction: Corrects every layer's bias with the quantized layers before it in place, instead of each layer alone.
    """

    title: str
    quantize: bool = True
    full_bias_correction: bool = False


RUNGS: Mapping[Rung, RungSettings] = {
    "ptq": RungSettings(title="post-training quantization, fast bias correction"),
    "ptq-full": RungSettings(title="post-training quantization, full bias correction", full_bias_correction=True),
    "float": RungSettings(title="no quantization, float32", quantize=False),
}
