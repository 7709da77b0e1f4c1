"""The graphs of one convolution: valid ONNX, of the types that are promised, and computing what they say; judged by ONNX's own tools."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.runtime.engines.probe_graph import CHANNELS, PRECISIONS, SIDE, one_convolution

onnx = pytest.importorskip("onnx", reason="judges what was written without it; a device does not have it")
onnxruntime = pytest.importorskip("onnxruntime")

CASES = [(precision, typed) for precision in PRECISIONS for typed in (True, False)]


def weights_of(model):
    return {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}


@pytest.mark.parametrize(("precision", "typed"), CASES)
def test_it_is_valid_onnx(precision, typed):
    """ONNX's checker takes it with inferred types, at the opset of the TensorRT it is for."""
    model = onnx.load_from_string(one_convolution(precision, typed=typed))
    onnx.checker.check_model(model, full_check=True)
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 19 if typed else 17)]
    assert model.ir_version == (9 if typed else 8)


@pytest.mark.parametrize(("precision", "typed"), CASES)
def test_the_convolution_has_the_precision(precision, typed):
    """What the convolution takes is float16 in typed graphs of fp16 and int8, else float32; only int8 has Q/DQ."""
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(one_convolution(precision, typed=typed)), strict_mode=True)
    types = {item.name: item.type.tensor_type.elem_type for item in model.graph.value_info}
    half = typed and precision != "fp32"
    assert types["conv"] == (onnx.TensorProto.FLOAT16 if half else onnx.TensorProto.FLOAT)
    pairs = [node.op_type for node in model.graph.node if "quantize" in node.op_type.lower()]
    assert len(pairs) == (0 if precision != "int8" else 3 if typed else 4)


@pytest.mark.parametrize("typed", [True, False])
def test_int8_has_the_form_of_the_compilers_graphs(typed):
    """Zero points are int8 zeros, activations have one scale, weights one an output channel, and there is no bias; only typed graphs have int8 constants."""
    model = onnx.load_from_string(one_convolution("int8", typed=typed))
    found = weights_of(model)
    assert (found["zero"].dtype, found["zero"].shape, found["weight_zeros"].any()) == (np.int8, (), False)
    assert (found["scale"].shape, found["weight_scales"].shape) == ((), (CHANNELS,))
    assert found["weights"].dtype == (np.int8 if typed else np.float32)
    assert found["scale"].dtype == found["weight_scales"].dtype == (np.float16 if typed else np.float32)
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    assert len(conv.input) == 2


@pytest.mark.parametrize(("precision", "typed"), CASES)
def test_it_computes_a_convolution(precision, typed):
    """The answer is the mean of the convolution by numpy, within the rounding of the precision."""
    onnx_bytes = one_convolution(precision, typed=typed)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(onnx_bytes, options, providers=["CPUExecutionProvider"])
    frame = np.random.default_rng(1).integers(0, 256, (1, SIDE, SIDE, CHANNELS), dtype=np.uint8)
    (logits,) = session.run(None, {"frame": frame})
    weights = weights_of(onnx.load_from_string(one_convolution("fp32", typed=True)))["weights"]
    padded = np.pad(frame[0] / 255, ((1, 1), (1, 1), (0, 0)))
    windows = np.stack([padded[row : row + SIDE, column : column + SIDE] for row in range(3) for column in range(3)], axis=-1)
    expected = np.einsum("hwck,ock->o", windows, weights.reshape(CHANNELS, CHANNELS, 9)) / SIDE**2
    assert (logits.dtype, logits.shape) == (np.float32, (1, CHANNELS))
    assert np.abs(logits[0] - expected).max() < {"fp32": 1e-4, "fp16": 0.02, "int8": 0.05}[precision]
    assert np.abs(expected).max() > 1
