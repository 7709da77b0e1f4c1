"""OpenVINO's dialect: NNCF post-training quantization of the OpenVINO model.

Rules this file keeps:

1. Constants are folded first. OpenVINO's ONNX reader leaves every convolution's bias behind a Reshape, where NNCF does not recognise it and then
   silently corrects no bias at all; on a depthwise network that is half of the error (docs/adr/0005-fold-before-quantizing.md).
2. The head of the map stays in float, so that logit = mean of the map + bias holds to float rounding.
3. A model with attention is quantized by NNCF's transformer scheme; which one it is, is read from the graph.
4. An operation has one name in the float graph and in all quantized ones, so that a layer found in one can be named in another.
5. The IR is written without what differs from run to run, so the same inputs give the same bytes.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.manifest import INPUT_NAMES
from edgekit.compiler.explain.head import boundary
from edgekit.compiler.progress import Progress
from edgekit.compiler.quantize.rungs import RungSettings
from edgekit.errors import MissingEngineError, ModelError
from edgekit.runtime.engines.openvino import load_library, shared_core

FRAME, STATE = INPUT_NAMES
XML = "openvino.xml"
BIN = "openvino.bin"


def build_ir(graph: Path, settings: RungSettings, calibration: NDArray[np.uint8], folder: Path, progress: Progress) -> None:
    """Quantizes the explained float graph and writes `openvino.xml` and `openvino.bin`.

    Args:
        graph: The explained graph, ONNX.
        settings: The rung.
        calibration: uint8 (frames, height, width, channels).
        folder: Where to write.
        progress: Told of every calibration frame that is read.

    Raises:
        MissingEngineError: OpenVINO or NNCF is not installed.
        ModelError: OpenVINO or NNCF cannot handle the graph, or it has no operation that is to stay in float.
    """
    openvino = load_library()
    with _refusals_explained():
        model = _read(graph)
        quantized = _quantize(model, _edge(graph), settings, calibration, progress) if settings.quantize else model
    forget_history(quantized)
    openvino.serialize(quantized, str(folder / XML), str(folder / BIN))


def has_attention(graph: Path) -> bool:
    """Whether NNCF's transformer scheme quantizes an explained graph (ONNX), and so whether SmoothQuant has a say.

    Raises:
        MissingEngineError: OpenVINO is not installed.
        ModelError: OpenVINO cannot handle the graph.
    """
    with _refusals_explained():
        return _attention(_read(graph))


def read_ir(xml: Path) -> Any:
    """An IR that `build_ir` has written, as an `openvino.Model` that may be changed."""
    return shared_core().read_model(str(xml))


@contextlib.contextmanager
def _refusals_explained(kinds: tuple[type[Exception], ...] = (RuntimeError,)) -> Iterator[None]:
    try:
        yield
    except kinds as error:
        first = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
        raise ModelError(f"OpenVINO cannot handle the model: {first}", hint='try [compress] quantize = { ladder = ["float"] }') from error


def _read(graph: Path) -> Any:
    # A core that only reads loads no device's plugin, and leaves nothing behind when it goes (see `runtime/engines/openvino.py`).
    model = shared_core().read_model(str(graph))
    # Before folding, because a folded constant keeps the name of what it was folded from.
    _replace_counted_names(model, "at")
    fold_constants(model)
    return model


def fold_constants(model: Any) -> None:
    """Computes what does not depend on the frame, in place (docs/adr/0005-fold-before-quantizing.md)."""
    from openvino.passes import ConstantFolding, Manager

    manager = Manager()
    manager.register_pass(ConstantFolding())
    manager.run_passes(model)


def _attention(model: Any) -> bool:
    types = [operation.get_type_name() for operation in model.get_ordered_ops()]
    return "Softmax" in types and types.count("MVN") + types.count("LayerNormalization") > 1


def _quantize(model: Any, edge: frozenset[str], settings: RungSettings, calibration: NDArray[np.uint8], progress: Progress) -> Any:
    nncf = _load_nncf()
    ignored = [*_float_head(model, edge), *settings.float_layers]
    missing = set(ignored) - {operation.get_friendly_name() for operation in model.get_ordered_ops()}
    if missing:
        raise ModelError(f"the graph has no operation {', '.join(sorted(missing))}", hint="layers are named as in the IR of the same graph")
    refusals = (RuntimeError, nncf.InternalError, nncf.UnsupportedModelError, nncf.ValidationError)
    # Its own progress bars go to stdout, where `--json` promises a document and nothing else.
    with contextlib.redirect_stdout(io.StringIO()), _refusals_explained(refusals):
        return nncf.quantize(
            model,
            nncf.Dataset(_Counted(calibration, _states(model), progress)),
            subset_size=len(calibration),
            preset=nncf.QuantizationPreset.MIXED if settings.asymmetric else None,
            fast_bias_correction=not settings.full_bias_correction,
            model_type=nncf.ModelType.TRANSFORMER if _attention(model) else None,
            ignored_scope=nncf.IgnoredScope(names=ignored) if ignored else None,
            advanced_parameters=_advanced(settings),
        )


def _states(model: Any) -> dict[str, NDArray[np.float32]]:
    """What a recurrent graph takes beside the frame: any state will do, because nothing that depends on it is quantized (`explain.recurrent`)."""
    state = next((port for port in model.inputs if STATE in port.get_names()), None)
    return {} if state is None else {STATE: np.zeros(tuple(state.get_shape()), dtype=np.float32)}


def _edge(graph: Path) -> frozenset[str]:
    """Names of the values between the network and its head."""
    import onnx_ir as ir

    return boundary(ir.load(graph))


def _float_head(model: Any, edge: frozenset[str]) -> list[str]:
    """Names of the operations of the head: all between its edge and the outputs. Empty where there is no map.

    Raises:
        ModelError: OpenVINO's graph has no such edge.
    """
    if len(model.get_results()) == 1:
        return []
    head: dict[str, None] = {}
    met: set[str] = set()
    waiting = [result.input_value(0) for result in model.get_results()]
    seen = set()
    while waiting:
        value = waiting.pop()
        names = value.get_names() & edge
        met |= names
        operation = value.get_node()
        if names or operation in seen or operation.get_type_name() == "Constant":
            continue
        if operation.get_type_name() == "Parameter" and STATE in value.get_names():
            continue
        if operation.get_type_name() == "Parameter":
            raise ModelError("the head of the map was not found in OpenVINO's graph", hint="please report the architecture")
        seen.add(operation)
        head[operation.get_friendly_name()] = None
        waiting.extend(operation.input_values())
    if met != edge:
        raise ModelError(
            f"OpenVINO's graph lacks {', '.join(sorted(edge - met))}, where the head of the map begins",
            hint="please report the architecture",
        )
    return list(head)


def _advanced(settings: RungSettings) -> Any:
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, AdvancedSmoothQuantParameters, OverflowFix
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    # NNCF's own default halves the first layer's weights alone, which on a CPU without VNNI is not enough, and elsewhere is not needed.
    chosen: dict[str, Any] = {"overflow_fix": OverflowFix.ENABLE if settings.half_weights else OverflowFix.DISABLE}
    if settings.histogram_ranges:
        chosen["activations_range_estimator_params"] = RangeEstimatorParametersSet.HISTOGRAM
    if not settings.smooth_quant:
        chosen["smooth_quant_alphas"] = AdvancedSmoothQuantParameters(matmul=-1, convolution=-1)
    return AdvancedQuantizationParameters(**chosen)


class _Counted:
    """The calibration frames one at a time and what goes into the graph beside them, by name, as NNCF takes it; it walks over them more than once."""

    def __init__(self, frames: NDArray[np.uint8], beside: dict[str, NDArray[np.float32]], progress: Progress) -> None:
        self._frames = frames
        self._beside = beside
        self._progress = progress

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
        for index in range(len(self._frames)):
            yield {FRAME: np.ascontiguousarray(self._frames[index : index + 1]), **self._beside}
            self._progress.step(index + 1, len(self._frames))

    def __len__(self) -> int:
        return len(self._frames)


def _load_nncf() -> Any:
    try:
        import nncf
    except ImportError as error:
        raise MissingEngineError(f"NNCF cannot be loaded: {error}", hint="install the extra: edgekit-toolkit[compile]") from error
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf


def forget_history(model: Any) -> None:
    """Drops what differs from run to run: notes about versions, options and paths, and the numbers in the names of what quantization added."""
    for key in list(model.get_rt_info()):
        del model.get_rt_info()[key]
    _replace_counted_names(model, "added")


def _replace_counted_names(model: Any, word: str) -> None:
    """Replaces names with a number that OpenVINO counts up in a process (`KIND_123`) by the place in the graph."""
    for position, operation in enumerate(model.get_ordered_ops()):
        kind = operation.get_type_name()
        if re.fullmatch(rf"{kind}_\d+", operation.get_friendly_name()):
            operation.set_friendly_name(f"{kind}_{word}_{position}")
