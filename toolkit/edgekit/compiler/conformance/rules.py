"""Every rule in one table, and the check that goes through it.

`RULES` is the extension point: a new rule is a function in the file of its family and a row there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.catalog.target import Target, TensorRt
from edgekit.compiler.conformance import (
    accelerators,
    float16,
    operators,
    placement,
    placement_channels,
    quantization,
    quantization_types,
    restrictions,
    structure,
)
from edgekit.compiler.conformance.finding import SEVERITIES, Finding, Rule
from edgekit.compiler.conformance.view import GraphView
from edgekit.compiler.load.onnx_file import read_onnx
from edgekit.errors import CatalogError, MissingEngineError, ModelError

RULES: Mapping[str, Rule] = {
    rule.id: rule
    for rule in (
        *structure.RULES,
        *operators.RULES,
        *restrictions.RULES,
        *quantization.RULES,
        *quantization_types.RULES,
        *float16.RULES,
        *placement.RULES,
        *placement_channels.RULES,
        *accelerators.RULES,
    )
}


def check(model: Any, target: Target) -> tuple[Finding, ...]:
    """Checks a graph against every rule.

    Does not prove that a device builds it: nothing here knows which kernels TensorRT has.

    Args:
        model: An ONNX `ModelProto` with its weights inside.
        target: A target with a table `[tensorrt]`.

    Returns:
        What was found, the most severe first, then in the order of the rules and of the graph. No `error` among it: the graph conforms.

    Raises:
        CatalogError: The target has no TensorRT.
        ModelError: The model is damaged.
    """
    versions = _require_tensorrt(target).versions
    view = GraphView(model)
    found = [
        Finding(
            rule=rule.id,
            severity=rule.severity,
            node=hit.node,
            message=hit.message,
            fix=rule.fix,
            versions=hit.versions or versions,
        )
        for rule in RULES.values()
        for hit in rule.check(view, target)
    ]
    return tuple(sorted(found, key=lambda finding: SEVERITIES[finding.severity]))


def check_file(path: Path, target: Target) -> tuple[Finding, ...]:
    """Checks an ONNX file that nobody vouches for: of limited size, without external data, valid by ONNX's own checker.

    Raises:
        CatalogError: The target has no TensorRT.
        MissingEngineError: ONNX is not installed.
        ModelError: The file is not there, too large, not valid, or keeps its weights in another file.
    """
    _require_tensorrt(target)
    if not path.is_file():
        raise ModelError(f"the model {path} is not there", hint="name an ONNX file")
    try:
        import onnx  # noqa: F401 - asked for before the file is read
    except ImportError as error:
        raise MissingEngineError(f"ONNX cannot be loaded: {error}", hint="install the extra: edgekit-toolkit[compile]") from error
    return check(read_onnx(path), target)


def _require_tensorrt(target: Target) -> TensorRt:
    if target.tensorrt is None:
        raise CatalogError(
            f"the target {target.name!r} has no TensorRT, whose rules these are",
            hint="choose a target whose engines name tensorrt: edgekit targets",
        )
    return target.tensorrt
