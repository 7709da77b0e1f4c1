"""The graph part of preprocessing: every colour, channel count and normalization, from uint8 frames on."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir  # noqa: TID253 - the passes are written against it
import pytest
from network_builders import SIDE, input_spec, onnx_model, run_onnx, run_torch, tiny_network, write_onnx
from onnx import TensorProto, helper, numpy_helper  # noqa: TID253

from edgekit.compiler.export import preamble
from edgekit.compiler.load.source import normalize
from edgekit.compiler.load.torch_model import TorchModel
from edgekit.errors import ModelError
from edgekit.imaging.preprocess import preprocess

node = helper.make_node
RANDOM = np.random.default_rng(0)


def graph(first, *, channels=3, kernel=None, inputs=None):
    """`first` from x to c, then a mean over everything but channels; the convolution has zero padding at the border."""
    kernel = RANDOM.normal(size=(4, channels, 3, 3)).astype(np.float32) if kernel is None else kernel
    nodes = [*first, node("GlobalAveragePool", ["c"], ["p"]), node("Flatten", ["p"], ["y"])]
    inputs = inputs or [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, SIDE, SIDE])]
    return onnx_model(nodes, [numpy_helper.from_array(kernel, "k")], inputs=inputs)


CONVOLUTION = [node("Conv", ["x", "k"], ["c"], pads=[1, 1, 1, 1])]
GROUPED = [node("Conv", ["x", "k"], ["c"], pads=[1, 1, 1, 1], group=3)]
SHARED = [node("Conv", ["x", "k"], ["d"], pads=[1, 1, 1, 1]), node("ReduceMean", ["x"], ["m"]), node("Add", ["d", "m"], ["c"])]
ACTIVATED = [node("Relu", ["x"], ["z"]), node("Conv", ["z", "k"], ["c"], pads=[1, 1, 1, 1])]
UNLIKE = {"mean": (123.7, 116.3, 103.5), "std": (58.4, 57.1, 57.4)}

# The nodes before the graph, its kernel, what changes in the input specification, and how many planes the graph computes with.
CASES = {
    "grey-repeated-alike": (CONVOLUTION, None, {}, 1),
    "grey-with-another-mean": (CONVOLUTION, None, {"mean": (100.0,) * 3, "std": (31.0,) * 3}, 1),
    "grey-repeated-unlike-mean": (CONVOLUTION, None, {"mean": UNLIKE["mean"]}, 3),
    "grey-repeated-unlike-std": (CONVOLUTION, None, {"std": UNLIKE["std"]}, 3),
    "rgb": (CONVOLUTION, None, {"color": "rgb", **UNLIKE}, 3),
    "rgb-alike": (CONVOLUTION, None, {"color": "rgb"}, 3),
    "grouped": (GROUPED, RANDOM.normal(size=(6, 1, 3, 3)).astype(np.float32), {}, 3),
    "frame-used-twice": (SHARED, None, {}, 3),
    "activation-first": (ACTIVATED, None, {}, 3),
}


@pytest.mark.parametrize(("first", "kernel", "changes", "planes"), CASES.values(), ids=CASES)
def test_the_frame_is_normalized_as_the_model_was_trained(tmp_path, first, kernel, changes, planes):
    """Equal to the model on normalized planes, zero-padded border included, and summed only where that is exact."""
    spec = input_spec(**changes)
    model = graph(first, kernel=kernel)
    frames = RANDOM.integers(0, 256, (3, *spec.size, spec.frame_channels), dtype=np.uint8)
    expected = run_onnx(model.SerializeToString(), normalize(frames, spec))[0]
    edited = ir.from_proto(model)
    preamble.attach(edited, spec)
    assert run_onnx(ir.to_proto(edited).SerializeToString(), frames)[0] == pytest.approx(expected, abs=1e-5)
    taken = edited.graph.inputs[0]
    assert (taken.name, taken.dtype, tuple(taken.shape)) == ("frame", ir.DataType.UINT8, (1, *spec.size, spec.frame_channels))
    assert edited.graph.node("preamble/std").outputs[0].shape[1] == planes


def test_a_model_of_one_channel_gets_one(tmp_path):
    """No repetition, no sum."""
    spec = input_spec(channels=1, mean=(100.0,), std=(50.0,))
    model = graph(CONVOLUTION, channels=1)
    frames = RANDOM.integers(0, 256, (2, *spec.size, 1), dtype=np.uint8)
    edited = ir.from_proto(model)
    preamble.attach(edited, spec)
    found = run_onnx(ir.to_proto(edited).SerializeToString(), frames)[0]
    assert found == pytest.approx(
        run_onnx(model.SerializeToString(), (frames.transpose(0, 3, 1, 2).astype(np.float32) - 100) / 50)[0], abs=1e-5
    )


def test_a_summed_kernel_does_a_third_of_the_work():
    """The first convolution takes the one plane, and its old kernel is gone from the file."""
    edited = ir.from_proto(graph(CONVOLUTION))
    preamble.attach(edited, input_spec())
    convolution = next(part for part in edited.graph if part.op_type == "Conv")
    assert tuple(convolution.inputs[1].shape) == (4, 1, 3, 3)
    assert "k" not in edited.graph.initializers


def test_the_order_of_colours_is_that_of_the_frame(tmp_path):
    """A model that answers with the mean of each channel tells red from blue."""
    spec = input_spec(color="rgb", mean=(0.0,) * 3, std=(1.0,) * 3)
    edited = ir.from_proto(graph([node("Identity", ["x"], ["c"])]))
    preamble.attach(edited, spec)
    frame = np.zeros((1, SIDE, SIDE, 3), dtype=np.uint8)
    frame[..., 0], frame[..., 2] = 200, 10
    assert run_onnx(ir.to_proto(edited).SerializeToString(), frame)[0].tolist() == [[200.0, 0.0, 10.0]]


OTHER_SIZES = {
    "height": {"resize": (SIDE + 1, SIDE)},
    "swapped": {"resize": (SIDE * 2, SIDE), "crop": (SIDE, SIDE // 2)},
    "channels": {"channels": 1, "mean": (0.0,), "std": (1.0,)},
}


@pytest.mark.parametrize("changes", OTHER_SIZES.values(), ids=OTHER_SIZES)
def test_an_input_that_the_model_does_not_take_is_refused(changes):
    """Naming both."""
    with pytest.raises(ModelError, match=r"the model takes \[1,3,32,32\], the recipe's \[input\] makes \[1, "):
        preamble.attach(ir.from_proto(graph(CONVOLUTION)), input_spec(**changes))


def test_a_model_of_two_inputs_is_refused():
    """One frame in."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, SIDE, SIDE]) for name in "xz"]
    with pytest.raises(ModelError, match="the model has 2 inputs"):
        preamble.attach(ir.from_proto(graph([node("Add", ["x", "z"], ["c"])], inputs=values)), input_spec())


@pytest.mark.parametrize("changes", [{}, {"color": "rgb", **UNLIKE}], ids=["grey", "rgb"])
def test_the_device_graph_answers_as_the_trained_model(tmp_path, changes):
    """From a frame as a scanner gives it: host preprocessing, then the graph, against torch on the same frame."""
    spec = input_spec(resize=(40, 48), crop=(32, 40), **changes)
    network = tiny_network()
    TorchModel(network, spec, labels=3, binary=False).export(tmp_path / "net.onnx")
    edited = ir.load(tmp_path / "net.onnx")
    preamble.attach(edited, spec)
    write_onnx(tmp_path / "device.onnx", ir.to_proto(edited))
    shape = (97, 83) if spec.color == "grey" else (97, 83, 3)
    tensor = preprocess(RANDOM.integers(0, 256, shape, dtype=np.uint8), spec)
    assert run_onnx(tmp_path / "device.onnx", tensor)[0] == pytest.approx(run_torch(network, spec, tensor), abs=1e-5)
