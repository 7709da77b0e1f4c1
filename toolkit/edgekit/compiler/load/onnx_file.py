"""A model from an ONNX file: read without external data, checked, and run by ONNX Runtime as the reference.

Rules this file keeps:

1. Everything is inside the file, at any depth: external data could name any path of this machine.
2. Only standard operators, at any depth, and no functions of the file's own: a custom domain would need code from somewhere.
3. The batch is fixed to one; every other dimension must be static already.
4. Frames and logits are float32: what the engines compute in is decided later, and measured.
5. A Softmax or Sigmoid at the output is taken off, because edgekit works on logits; it is noted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekit.catalog.recipe import ModelSpec
from edgekit.compiler import graph as g
from edgekit.compiler.load.source import OnFrames, normalize
from edgekit.compiler.load.torch_model import check_outputs, first_line
from edgekit.errors import EdgekitError, MissingEngineError, ModelError
from edgekit.schema.model_io import InputSpec, Task

if TYPE_CHECKING:
    import onnx_ir as ir

MAX_MODEL_BYTES = 2_000_000_000
"""protobuf's own limit."""

OLDEST_OPSET = 11
_STANDARD_DOMAINS = ("", "ai.onnx")
_CHECK_HINT = "onnx.checker.check_model tells more"
_INPUT_HINT = "channels, resize and crop in [input] must be what the model was trained with"


class OnnxModel:
    """An ONNX graph as a source."""

    def __init__(self, model: ir.Model, spec: InputSpec, notes: tuple[str, ...]) -> None:
        self.notes = notes
        self._spec = spec
        self._model = model
        self._session: Any = None

    def export(self, path: Path) -> None:
        path.write_bytes(self._bytes())

    def logits(self, tensors: NDArray[np.uint8], on_frame: OnFrames) -> NDArray[np.float32]:
        session = self._open()
        name = session.get_inputs()[0].name
        rows = []
        for index in range(len(tensors)):
            frame = normalize(np.asarray(tensors[index : index + 1]), self._spec)
            try:
                rows.append(session.run(None, {name: frame})[0])
            except Exception as error:  # ONNX Runtime's own kinds have no common base
                raise ModelError(f"ONNX Runtime cannot run the model: {first_line(error)}", hint=_INPUT_HINT) from error
            on_frame(index + 1)
        logits: NDArray[np.float32] = np.concatenate(rows).reshape(len(tensors), -1).astype(np.float32)
        if not np.isfinite(logits).all():
            raise ModelError("the trained model answers with NaN or infinite logits on its own data", hint="check [input] mean and std")
        return logits

    def _bytes(self) -> bytes:
        import onnx_ir as ir

        data: bytes = ir.to_proto(self._model).SerializeToString(deterministic=True)
        return data

    def _open(self) -> Any:
        if self._session is None:
            try:
                import onnxruntime
            except ImportError as error:
                raise MissingEngineError(
                    f"ONNX Runtime cannot be loaded: {error}", hint="install the extra: edgekit-toolkit[compile]"
                ) from error
            options = onnxruntime.SessionOptions()
            # Idle threads that spin make every other engine in the process slower.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            # Its errors come out as exceptions; on stderr they would be said twice.
            options.log_severity_level = 4
            try:
                self._session = onnxruntime.InferenceSession(self._bytes(), options, providers=["CPUExecutionProvider"])
            except Exception as error:  # as above
                raise ModelError(
                    f"ONNX Runtime cannot open the model: {first_line(error)}", hint="export it with a released opset"
                ) from error
        return self._session


def open_onnx(argument: str, model: ModelSpec, spec: InputSpec) -> OnnxModel:
    """`onnx:PATH`."""
    import onnx_ir as ir

    if model.weights is not None:
        raise ModelError("an ONNX file holds its own weights; remove model.weights")
    path = Path(argument)
    proto = read_onnx(path)
    _refuse_outside_help(proto, path)
    notes: list[str] = []
    try:
        graph_model = ir.from_proto(proto)
        _set_batch(graph_model, path)
        graph_model = _infer_shapes(graph_model, path)
        _strip_probabilities(graph_model, model.task, notes)
    except EdgekitError:
        raise
    except Exception as error:  # onnx-ir wraps what it cannot read in kinds of its own
        cause = error.__cause__ or error
        raise ModelError(f"{path} is not a valid ONNX model: {first_line(cause)}", hint=_CHECK_HINT) from error
    output = graph_model.graph.outputs[0]
    _require_float32(output, path)
    check_outputs(g.shape(output), len(model.labels), binary=model.task == "binary")
    return OnnxModel(graph_model, spec, tuple(notes))


def read_onnx(path: Path) -> Any:
    """Reads a file that nobody vouches for: bounded in size, without external data, valid by ONNX's own checker.

    Raises:
        ModelError: It is not there, too large, damaged, or names other files.
    """
    import onnx
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise ModelError(f"the model {path} is not there", hint='model.source = "onnx:PATH" is relative to the recipe')
    if path.stat().st_size > MAX_MODEL_BYTES:
        raise ModelError(f"{path} is larger than {MAX_MODEL_BYTES} bytes")
    try:
        proto = onnx.load_model_from_string(path.read_bytes())
        # Before the checker, which looks for external data on this machine.
        _refuse_external_data(proto, path)
        onnx.checker.check_model(proto, full_check=False)
    except (DecodeError, onnx.checker.ValidationError, ValueError) as error:
        raise ModelError(f"{path} is not a valid ONNX model: {first_line(error)}", hint=_CHECK_HINT) from error
    return proto


def _refuse_external_data(proto: Any, path: Path) -> None:
    import onnx

    for message in _messages(proto):
        if isinstance(message, onnx.TensorProto) and (message.data_location == onnx.TensorProto.EXTERNAL or message.external_data):
            raise ModelError(f"{path} keeps its weights in another file", hint="export it with external_data=False")


def _refuse_outside_help(proto: Any, path: Path) -> None:
    import onnx

    if proto.functions:
        raise ModelError(
            f"{path} has functions of its own, {proto.functions[0].name[:80]!r} first",
            hint="put them in place: onnx.inliner.inline_local_functions",
        )
    nodes = (message for message in _messages(proto) if isinstance(message, onnx.NodeProto))
    domains = {node.domain[:80] for node in nodes if node.domain not in _STANDARD_DOMAINS}
    if domains:
        raise ModelError(f"{path} uses operators of {sorted(domains)}, which no engine here has", hint="export it with standard operators")
    opset = max((entry.version for entry in proto.opset_import if entry.domain in _STANDARD_DOMAINS), default=0)
    if opset < OLDEST_OPSET:
        raise ModelError(f"{path} is of opset {opset}, older than {OLDEST_OPSET}", hint="convert it with onnx.version_converter")


def _messages(proto: Any) -> Iterator[Any]:
    """Every message inside a protobuf message, at any depth, and the message itself."""
    from google.protobuf.message import Message

    stack = [proto]
    while stack:
        message = stack.pop()
        yield message
        for _, value in message.ListFields():
            if isinstance(value, Message):
                stack.append(value)
            elif not isinstance(value, (str, bytes, int, float)) and len(value) and isinstance(value[0], Message):
                stack.extend(value)


def _set_batch(model: ir.Model, path: Path) -> None:
    import onnx_ir as ir

    inputs = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    if len(inputs) != 1 or len(model.graph.outputs) != 1:
        raise ModelError(
            f"{path} has {len(inputs)} inputs and {len(model.graph.outputs)} outputs; edgekit compiles one frame in, one vector of logits out",
            hint="export only the classifier",
        )
    shape = inputs[0].shape
    if shape is None or len(shape) != 4:
        raise ModelError(f"{path} takes {shape}, not (batch, channels, height, width)")
    _require_float32(inputs[0], path)
    inputs[0].shape = ir.Shape([1, *tuple(shape)[1:]])
    if g.shape(inputs[0]) is None:
        raise ModelError(f"{path} takes frames of any size {shape}", hint="export it with the size it was trained with")
    # Shapes written for another batch would contradict the new one.
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
    model.graph.outputs[0].shape = None


def _infer_shapes(model: ir.Model, path: Path) -> ir.Model:
    import onnx
    import onnx_ir as ir

    try:
        inferred = onnx.shape_inference.infer_shapes(ir.to_proto(model), strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise ModelError(f"{path}: shapes do not fit with a batch of one: {first_line(error)}", hint="export it with batch 1") from error
    return ir.from_proto(inferred)


def _require_float32(value: ir.Value, path: Path) -> None:
    import onnx_ir as ir

    if value.dtype != ir.DataType.FLOAT:
        raise ModelError(f"{path}: {value.name} is {value.dtype}, not FLOAT", hint="export the model in float32")


def _strip_probabilities(model: ir.Model, task: Task, notes: list[str]) -> None:
    node = g.final_probabilities(model.graph.outputs[0])
    if node is None or node.inputs[0] is None:
        return
    outputs = (g.shape(node.outputs[0]) or (0, 0))[-1]
    fits = {
        "Softmax": task == "multiclass" or (task == "binary" and outputs == 2),
        "Sigmoid": task == "multilabel" or (task == "binary" and outputs == 1),
    }
    if not fits.get(node.op_type, False):
        raise ModelError(
            f"the model ends in a {node.op_type} of {outputs} outputs, which is not what task = {task!r} means",
            hint="Softmax: multiclass, or binary with two outputs; Sigmoid: multilabel, or binary with one",
        )
    notes.append(f"the {node.op_type} at the output was taken off: edgekit works on logits")
    model.graph.outputs[0] = node.inputs[0]
    g.tidy(model)
