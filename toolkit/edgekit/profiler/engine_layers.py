"""What the builder made of a graph: how many of its layers work in int8, and how many only change a format. Read out of the engine inspector's JSON.

Rules this file keeps:

1. Counted are the layers that have weights: convolutions and matrix products. A layer works in int8 where the tensor it takes is int8; int8 weights alone
   may be kept so and computed in float.
2. A layer whose kind or format the JSON does not tell is neither: it is counted as unknown, and told.
3. Keys are TensorRT's and differ between versions: the list of inputs and outputs is "Bindings", from version 11 on "I/O Tensors"; the layers are
   "Layers" in all of them. The format's words differ too ("Row major Int8 format", "Int8", "Int8(1024,32:32,…)"); its type is in all of them.

Does not prove that int8 is faster than float16 here: that is measured.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

IO_KEYS = ("Bindings", "I/O Tensors")
_REFORMAT = "reformat"
# Of LayerType or ParameterType, in lower case.
_WEIGHTED = ("conv", "gemm", "matrixmultiply", "matrix_multiply", "matmul", "fullyconnected")
# One layer that stands for a part of the graph that cannot be looked into.
_OPAQUE = ("foreignnode", "myelin")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCounts:
    """Layers of an engine.

    Attributes:
        layers: All of them.
        weighted: Convolutions and matrix products whose type is known.
        int8: Those of them that work in int8.
        reformats: Layers that only change a format.
        unknown: Layers that cannot be looked into, or whose format is not told.
    """

    layers: int
    weighted: int
    int8: int
    reformats: int
    unknown: int

    @property
    def int8_share(self) -> float | None:
        """Share of the weighted layers that work in int8; None where there is none."""
        return self.int8 / self.weighted if self.weighted else None


def count_layers(text: str) -> LayerCounts | str:
    """Counts the layers in an inspector's JSON; the reason where that cannot be done.

    Args:
        text: As `get_engine_information` gives it.
    """
    layers = _layers(text)
    if isinstance(layers, str):
        return layers
    kinds = [_kind(layer) for layer in layers]
    return LayerCounts(
        layers=len(layers),
        weighted=kinds.count("int8") + kinds.count("float"),
        int8=kinds.count("int8"),
        reformats=kinds.count("reformat"),
        unknown=kinds.count("unknown"),
    )


def layer_rows(text: str) -> list[tuple[str, str, str]] | str:
    """(name, kind, format of the first tensor it takes) of each layer in an inspector's JSON; the reason where that cannot be told.

    Args:
        text: As `get_engine_information` gives it.
    """
    layers = _layers(text)
    if isinstance(layers, str):
        return layers
    return [(str(layer.get("Name", "")), str(layer.get("LayerType", "")), _format(layer)) for layer in layers]


def _layers(text: str) -> list[dict[str, Any]] | str:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return "the engine inspector did not answer with JSON"
    layers = found.get("Layers") if isinstance(found, dict) else None
    if not isinstance(layers, list) or not layers or not any(key in found for key in IO_KEYS):
        return "the engine inspector's answer has no layers"
    if not all(isinstance(layer, dict) for layer in layers):
        return "the engine was built without details of its layers; the inspector tells only their names"
    return layers


def _kind(layer: Mapping[str, Any]) -> str:
    """What a layer is: "int8" or "float" where it has weights, else "reformat", "unknown" or "other"."""
    names = f"{layer.get('LayerType', '')} {layer.get('ParameterType', '')}".lower()
    if _REFORMAT in names:
        return "reformat"
    if any(word in names for word in _OPAQUE) or "foreignnode" in str(layer.get("Name", "")).lower():
        return "unknown"
    if not any(word in names for word in _WEIGHTED):
        return "other"
    taken = _format(layer)
    if "int8" in taken:
        return "int8"
    return "float" if any(word in taken for word in ("half", "float", "fp16", "fp32", "bf16", "bfloat16")) else "unknown"


def _format(layer: Mapping[str, Any]) -> str:
    """Format of the first tensor that a layer takes, in lower case; empty where it is not told."""
    inputs = layer.get("Inputs")
    first = inputs[0] if isinstance(inputs, list) and inputs else None
    if not isinstance(first, dict):
        return ""
    return str(first.get("Format/Datatype") or first.get("Datatype") or first.get("Format") or "").lower()
