"""Rounding itself: its arithmetic is ONNX's, its gradients are LSQ's; where it starts; and what comes out for the engines."""
# ruff: noqa: TID253 - the tests of what uses torch use torch

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from network_builders import SIDE, create, frames, input_spec, run_onnx
from onnx import TensorProto, helper
from qat_builders import calibrated, small_network
from training_builders import Listener

from edgekit.compiler.explain.find import explain
from edgekit.compiler.export import preamble
from edgekit.compiler.load.source import normalize
from edgekit.compiler.progress import Silent
from edgekit.compiler.quantize.qat import calibrate, export, openvino_qdq, train
from edgekit.compiler.quantize.qat.quantizer import SIGNED, UNSIGNED, ActivationQuantizer, Limits, WeightQuantizer, fake_quantize
from edgekit.compiler.quantize.rungs import FULL_RANGE, HALF_RANGE, TrainedIntegers
from edgekit.errors import ModelError
from edgekit.runtime.engines.openvino import load_library


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def answers(network, spec, tensors):
    with torch.no_grad():
        return network(torch.from_numpy(normalize(tensors, spec)))


def onnx_rounding(values, scale, kind):
    """The same through ONNX's own operators, unoptimized."""
    import onnxruntime

    nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]), helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"])]
    weights = [helper.make_tensor("s", TensorProto.FLOAT, [], [scale]), helper.make_tensor("z", kind, [], [0])]
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in ("x", "y")]
    model = helper.make_model(
        helper.make_graph(nodes, "g", sides[:1], sides[1:], weights), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": values.numpy()})[0]


@pytest.mark.parametrize(("limits", "kind"), [(UNSIGNED, TensorProto.UINT8), (SIGNED, TensorProto.INT8)], ids=["uint8", "int8"])
@pytest.mark.parametrize("scale", [0.25, 0.0123, 1 / 3])
def test_rounding_is_that_of_onnx(limits, kind, scale):
    """Bit for bit: ties to even, and beyond both ends of the range."""
    values = torch.cat([torch.arange(-300, 300) * (scale / 2), noise(5000) * scale * 200])
    rounded = fake_quantize(values, torch.tensor(scale), limits).numpy()
    assert np.array_equal(rounded, onnx_rounding(values, scale, kind))


def test_what_is_outside_the_range_gets_no_gradient():
    """Moving it would change nothing."""
    quantizer = ActivationQuantizer(SIGNED)
    quantizer.set_scale(0.1)
    values = torch.tensor([-20.0, -12.9, -1.0, 0.03, 12.6, 20.0], requires_grad=True)
    quantizer(values).sum().backward()
    assert values.grad.tolist() == [0.0, 0.0, 1.0, 1.0, 1.0, 0.0]


def test_the_gradient_of_a_scale_is_that_of_lsq():
    """Inside the range the rounding error in steps, outside the bound, times 1/√(values · highest integer)."""
    scale, weights = 0.1, torch.tensor([1.0, 2.0, -3.0, 0.5])
    quantizer = ActivationQuantizer(Limits(low=-8, high=7))
    quantizer.set_scale(scale)
    values = torch.tensor([0.234, -0.55, 5.0, -3.0])
    (quantizer(values) * weights).sum().backward()
    steps = [round(2.34) - 2.34, round(-5.5) + 5.5, 7.0, -8.0]
    by_scale = sum(weight * step for weight, step in zip(weights.tolist(), steps, strict=True)) / (4 * 7) ** 0.5
    # d(scale)/dθ = GAIN · scale at the start.
    assert quantizer.theta.grad.item() == pytest.approx(by_scale * 30.0 * scale, rel=1e-4)


def test_a_scale_stays_positive_however_far_it_is_moved():
    """A step size of 0 or below would mean nothing."""
    quantizer = ActivationQuantizer(UNSIGNED)
    quantizer.set_scale(0.02)
    with torch.no_grad():
        quantizer.theta.fill_(-1.0)
    assert 0 < quantizer.scale.item() < 1e-10


@pytest.mark.parametrize("axis", [0, 1])
def test_weights_are_rounded_by_output_channel(axis):
    """Every channel's largest magnitude is 127 steps, its error at most half a step, and the gradient passes everywhere, in the channel's units."""
    sides = [-1, 1, 1, 1] if axis == 0 else [1, -1, 1, 1]
    weight = noise(4, 4, 3, 3) * torch.tensor([0.01, 1.0, 100.0, 0.0]).reshape(sides)
    quantizer = WeightQuantizer(weight, axis)
    learned = (weight / quantizer.unit).requires_grad_()
    assert torch.equal(quantizer.weight(learned), weight)
    assert all(0.5 < value <= 1 for value in learned.abs().amax(dim=[1 - axis, 2, 3])[:3].tolist())
    rounded = quantizer(learned)
    scale = quantizer.scale(weight).reshape(sides)
    steps = rounded.detach() / scale
    assert torch.allclose(steps, steps.round(), atol=1e-4)
    assert steps.abs().amax(dim=[1 - axis, 2, 3]).round().tolist() == [127.0, 127.0, 127.0, 0.0]
    assert ((rounded - weight).abs() <= scale * 0.5001).all()
    rounded.sum().backward()
    assert torch.equal(learned.grad, quantizer.unit.expand_as(weight))


@pytest.mark.parametrize("limit", [HALF_RANGE, FULL_RANGE])
def test_weights_keep_to_the_range_that_the_target_allows(limit):
    """All of them: a CPU that sums in 16 bits does so in every layer."""
    network, _ = train.quantized(small_network(), input_spec(), TrainedIntegers(weights=limit))
    assert [part.limit for part in network.modules() if isinstance(part, WeightQuantizer)] == [limit] * 5


def test_one_outlier_does_not_take_everybodys_precision():
    """The range ends near the bulk of the values, and covers all of values without outliers."""
    bulk = np.zeros(2048)
    bulk[:200] = 1e6
    assert calibrate.best_range(bulk, 1.0, 255) == pytest.approx(200 / 2048, rel=0.05)
    bulk[-1] = 1.0
    assert calibrate.best_range(bulk, 1.0, 255) < 0.2
    assert calibrate.best_range(np.full(2048, 7.0), 3.0, 255) == pytest.approx(3.0, rel=0.03)


def test_calibration_makes_rounded_answers_near_the_exact_ones():
    """Before any training."""
    module = small_network()
    network, spec, tensors = calibrated(module)
    with torch.no_grad():
        exact = module(torch.from_numpy(normalize(tensors, spec)).expand(-1, 3, -1, -1))
    found = answers(network, spec, tensors).logits
    assert 0 < (found - exact).abs().mean() < 0.1 * exact.std()


def test_biases_take_back_the_mean_error_of_rounding():
    """What a layer gives on average with rounding before and in it is what it gave without."""
    network, spec = train.quantized(small_network(), input_spec())
    for quantizer in network.values().values():
        quantizer.set_scale(0.3)
    layer = next(node for node in network.nodes() if network.bias(node) is not None)
    x = torch.from_numpy(normalize(frames(spec, 16), spec))
    exact = mean_of_channels(network, layer, x, rounding=False)
    assert (mean_of_channels(network, layer, x, rounding=True) - exact).abs().max() > 1e-3
    calibrate.correct_biases(network, x)
    assert torch.allclose(mean_of_channels(network, layer, x, rounding=True), exact, atol=1e-5)


def mean_of_channels(network, layer, x, *, rounding):
    walk = calibrate._Walk(network, x, rounding=rounding)
    with torch.no_grad():
        values = {node: walk.step(node) for node in network.nodes()}
    return values[layer].mean(dim=(0, 2, 3))


def test_a_value_that_is_zero_on_every_frame_is_told():
    """Its range is a guess, and the user should know."""
    module = small_network()
    with torch.no_grad():
        module[3].body[-1].weight.zero_()
        module[3].body[-1].bias.zero_()
    network, spec = train.quantized(module, input_spec())
    listener = Listener()
    calibrate.calibrate(network, lambda part: torch.from_numpy(normalize(frames(spec, 4)[part], spec)), 4, listener)
    assert any("is 0 on every calibration frame" in note for note in listener.notes)
    assert all(quantizer.scale > 0 for quantizer in network.values().values())


def test_frames_on_which_the_network_is_not_finite_are_refused():
    """A range of infinity has no step."""
    network, spec = train.quantized(small_network(), input_spec())
    network.graph.get_parameter("0.weight").data.fill_(float("inf"))
    with pytest.raises(ModelError, match="not finite"):
        calibrate.calibrate(network, lambda part: torch.from_numpy(normalize(frames(spec, 4)[part], spec)), 4, Silent())


def exported(tmp_path, module=None, spec=None):
    network, taken, tensors = calibrated(module, spec)
    export.export(network, (taken.channels, *taken.size), tmp_path / "model.onnx")
    return network, taken, tensors


def explained(tmp_path, spec):
    """The graph as the stage `explain` makes it."""
    model = ir.load(tmp_path / "model.onnx")
    preamble.attach(model, spec)
    head = explain(model)
    assert not isinstance(head, str), head
    ir.save(model, tmp_path / "explained.onnx")
    return head


MODULES = {
    "grey": (small_network, input_spec()),
    "rgb": (small_network, input_spec(color="rgb")),
    "vision-transformer": (lambda: create("timm:test_vit", img_size=SIDE), input_spec()),
}


@pytest.mark.parametrize(("build", "spec"), MODULES.values(), ids=MODULES)
def test_the_onnx_file_answers_as_the_network_does(tmp_path, build, spec):
    """Without any optimization: what differs is the order of sums, which may move a value by a step."""
    import onnxruntime

    network, taken, tensors = exported(tmp_path, build(), spec)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", options, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [1, taken.channels, *taken.size]
    expected = answers(network, taken, tensors[:8]).logits.numpy()
    found = np.concatenate([session.run(None, {session.get_inputs()[0].name: normalize(tensors[i : i + 1], taken)})[0] for i in range(8)])
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


def test_the_explained_graph_has_an_exact_map(tmp_path):
    """uint8 frames in; mean of the map + bias is the logit, and both are the network's."""
    network, taken, tensors = exported(tmp_path)
    head = explained(tmp_path, taken)
    logits, maps = run_onnx(tmp_path / "explained.onnx", tensors[:4])
    assert np.allclose(maps.mean(axis=(2, 3)) + head.bias, logits, atol=1e-5)
    own = [run_onnx(tmp_path / "model.onnx", normalize(tensors[index : index + 1], taken))[0] for index in range(4)]
    assert np.allclose(logits, np.concatenate(own), atol=1e-5)
    answer = answers(network, taken, tensors[:4])
    assert np.allclose(answer.maps.mean(dim=(2, 3)).numpy() + head.bias, answer.logits.numpy(), atol=1e-5)


def spoil_zero_point(model):
    first = next(node for node in model.graph if node.op_type == "QuantizeLinear")
    first.inputs[2].const_value = ir.tensor(np.ones_like(first.inputs[2].const_value.numpy()))


def spoil_scale(model):
    first = next(node for node in model.graph if node.op_type == "QuantizeLinear")
    first.inputs[1].const_value = ir.tensor(-first.inputs[1].const_value.numpy())


def spoil_counterpart(model):
    first, second = [node for node in model.graph if node.op_type == "DequantizeLinear"][:2]
    first.replace_input_with(1, second.inputs[1])


def spoil_number(model):
    last = next(node for node in model.graph if node.op_type == "DequantizeLinear")
    quantize = last.inputs[0].producer()
    for use in list(last.outputs[0].uses()):
        use.node.replace_input_with(use.idx, quantize.inputs[0])
    model.graph.remove([last, quantize], safe=True)


@pytest.mark.parametrize("spoil", [spoil_zero_point, spoil_scale, spoil_counterpart, spoil_number])
def test_another_graph_than_was_trained_is_refused(tmp_path, spoil):
    """Pairs that are missing, of other integers, or with another zero point."""
    network, _, _ = exported(tmp_path)
    model = ir.load(tmp_path / "model.onnx")
    export.check_pairs(model, network)
    spoil(model)
    with pytest.raises(ModelError, match="the exporter wrote"):
        export.check_pairs(model, network)


def test_the_same_network_gives_the_same_files(tmp_path):
    """Byte for byte."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        _, taken, _ = exported(tmp_path / name)
        explained(tmp_path / name, taken)
        openvino_qdq.build_ir(tmp_path / name / "explained.onnx", tmp_path / name)
    for file in ("model.onnx", "openvino.xml", "openvino.bin"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def run_ir(folder, tensors):
    """Logits and maps of an IR, and the precisions its convolutions ran in; float32 but for what is int8."""
    library = load_library()
    compiled = library.Core().compile_model(str(folder / "openvino.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    rows = []
    for index in range(len(tensors)):
        found = request.infer({0: np.ascontiguousarray(tensors[index : index + 1])})
        rows.append([found[0].copy(), found[1].copy()])
    kinds = [
        (operation.get_rt_info()["layerType"].astype(str), operation.get_rt_info()["runtimePrecision"].astype(str))
        for operation in compiled.get_runtime_model().get_ordered_ops()
    ]
    return [np.concatenate(parts) for parts in zip(*rows, strict=True)], [kind for name, kind in kinds if name == "Convolution"]


def test_openvino_runs_the_graph_in_int8_and_answers_alike(tmp_path):
    """Every convolution but the head's, which stays in float."""
    network, taken, tensors = exported(tmp_path)
    explained(tmp_path, taken)
    openvino_qdq.build_ir(tmp_path / "explained.onnx", tmp_path)
    (logits, maps), kinds = run_ir(tmp_path, tensors[:8])
    answer = answers(network, taken, tensors[:8])
    assert np.abs(logits - answer.logits.numpy()).max() < 0.02 * np.abs(logits).max()
    assert np.abs(maps - answer.maps.numpy()).max() < 0.05 * np.abs(maps).max()
    assert sorted(set(kinds)) in (["f32", "i8", "u8"], ["f32", "u8"], ["f32", "i8"])
    assert kinds.count("f32") == 1


def test_the_ir_holds_int8_weights(tmp_path):
    """A quarter of the float file."""
    _, taken, _ = exported(tmp_path, small_network(width=64))
    explained(tmp_path, taken)
    openvino_qdq.build_ir(tmp_path / "explained.onnx", tmp_path)
    assert (tmp_path / "openvino.bin").stat().st_size < 0.4 * (tmp_path / "explained.onnx").stat().st_size


def test_the_ir_says_a_pair_in_one_operator(tmp_path):
    """A FakeQuantize a rounded value, a product a rounded weight and one for std; the only difference is that of mean."""
    network, taken, _ = exported(tmp_path)
    explained(tmp_path, taken)
    openvino_qdq.build_ir(tmp_path / "explained.onnx", tmp_path)
    kinds = [operation.get_type_name() for operation in load_library().Core().read_model(str(tmp_path / "openvino.xml")).get_ordered_ops()]
    weights = sum(isinstance(part, WeightQuantizer) for part in network.modules())
    assert (kinds.count("FakeQuantize"), kinds.count("Multiply"), kinds.count("Subtract")) == (len(network.values()), weights + 1, 1)


def test_a_pair_that_openvino_reads_otherwise_is_refused(tmp_path):
    """A FakeQuantize of NNCF's, say."""
    library = load_library()
    from openvino import opset13

    value = opset13.parameter([1, 4], np.float32)
    rounded = opset13.relu(opset13.fake_quantize(value, np.float32(0), np.float32(1), np.float32(0), np.float32(1), 256))
    with pytest.raises(ModelError, match="another pair of operators"):
        openvino_qdq._fuse_pairs(library.Model([rounded], [value], "m"))
