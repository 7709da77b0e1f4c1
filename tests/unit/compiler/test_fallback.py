"""Layers left in float32: found, put back, ranked by measuring, and left out of quantization; on small graphs that are written here."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from network_builders import onnx_model
from onnx import TensorProto, helper, numpy_helper  # noqa: TID253 - graphs are written here; `network_builders` imports it anyway

from edgekit.bundle.manifest import EngineSpec
from edgekit.catalog.compress import QuantizeSpec
from edgekit.catalog.target import load_target
from edgekit.compiler.attempts import RANKING_FRAMES, Attempts, Bench, fallback_counts, nearest_post_training, ranking_frames
from edgekit.compiler.dialects import dialect_of
from edgekit.compiler.ladder import RungResult, Skipped
from edgekit.compiler.progress import Silent
from edgekit.compiler.quantize import fallback, openvino_ptq
from edgekit.compiler.quantize.rungs import POST_TRAINING, RUNGS
from edgekit.compiler.stages.explain import ExplainedGraph
from edgekit.compiler.stages.frames import PreparedSplit
from edgekit.compiler.stages.measure import Measured
from edgekit.compiler.stages.quantize import Artefact, QuantizeStage
from edgekit.compiler.stages.rank import RankStage
from edgekit.compiler.workspace import Workspace, digest, file_digest
from edgekit.errors import CatalogError, ModelError
from edgekit.evaluation.dataset import Sample
from edgekit.runtime.engines.openvino import load_library

SIDE = 16
LOUD = 4  # the convolution whose input has a channel of its own size
CHANNELS = 16
TENSORS = np.random.default_rng(1).integers(0, 256, (40, SIDE, SIDE, 1), dtype=np.uint8)


def network(path, *, outlier=1.0, named=True):
    """Six convolutions, a pooling that moves values, and a map with its head; from uint8 frames.

    Args:
        path: Where to write.
        outlier: Factor of one channel in the input of the convolution LOUD, which does not look at that channel.
        named: Whether nodes have names.
    """
    random = np.random.default_rng(0)
    constants = {"mean": np.float32(127.5), "axes": np.array([2, 3]), "bias": random.normal(size=3)}
    nodes = [
        helper.make_node("Cast", ["frame"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Sub", ["planes", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "mean"], ["x0"]),
    ]
    for index in range(6):
        kernel = random.normal(size=(CHANNELS, CHANNELS if index else 1, 3, 3)) / (3 * (4 if index else 1))
        shift = random.normal(size=CHANNELS) * 0.1
        if index == LOUD - 1:
            kernel[0], shift[0] = kernel[0] * outlier, shift[0] * outlier
        if index == LOUD and outlier > 1:
            kernel[:, 0] = 0
        constants |= {f"kernel{index}": kernel, f"shift{index}": shift}
        nodes += [
            helper.make_node(
                "Conv", [f"x{index}", f"kernel{index}", f"shift{index}"], [f"c{index}"], pads=[1, 1, 1, 1], name=f"conv{index}"
            ),
            helper.make_node("Relu", [f"c{index}"], [f"x{index + 1}" if index != 1 else "r1"]),
        ]
        if index == 1:
            nodes.append(helper.make_node("MaxPool", ["r1"], ["x2"], kernel_shape=[2, 2], strides=[2, 2]))
    constants["head"] = random.normal(size=(3, CHANNELS, 1, 1))
    nodes += [
        helper.make_node("Conv", ["x6", "head"], ["cam"], name="cam_head/maps"),
        helper.make_node("ReduceMean", ["cam", "axes"], ["average"], keepdims=0, name="cam_head/mean"),
        helper.make_node("Add", ["average", "bias"], ["logits"], name="cam_head/logits"),
    ]
    return _write(path, nodes, constants, outputs={"logits": [1, 3], "cam": [1, 3, SIDE // 2, SIDE // 2]}, named=named)


def transformer(path):
    """Two normalizations around one attention, and a linear head; without a map."""
    random = np.random.default_rng(0)
    width = 32
    nodes = [
        helper.make_node("Cast", ["frame"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "full"], ["scaled"]),
        helper.make_node("Reshape", ["scaled", "tokens"], ["t"]),
        helper.make_node("LayerNormalization", ["t", "scale", "zero"], ["n"], axis=-1),
        *(helper.make_node("MatMul", ["n", f"w_{part}"], [part]) for part in "qkv"),
        helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["attention"], axis=-1),
        helper.make_node("MatMul", ["attention", "v"], ["mixed"]),
        helper.make_node("LayerNormalization", ["mixed", "scale", "zero"], ["n2"], axis=-1),
        helper.make_node("MatMul", ["n2", "w_up"], ["up"]),
        helper.make_node("Add", ["up", "b_up"], ["biased"]),
        helper.make_node("Gelu", ["biased"], ["g"]),
        helper.make_node("MatMul", ["g", "w_down"], ["down"]),
        helper.make_node("ReduceMean", ["down", "axes"], ["logits"], keepdims=0),
    ]
    shapes = {
        "w_q": (width, width),
        "w_k": (width, width),
        "w_v": (width, width),
        "w_up": (width, width),
        "w_down": (width, 3),
        "b_up": (width,),
    }
    constants = {name: random.normal(size=shape) / 4 for name, shape in shapes.items()}
    constants |= {"full": np.float32(255), "tokens": np.array([1, 8, width]), "axes": np.array([1])}
    constants |= {"scale": np.linspace(0.1, 9, width), "zero": np.zeros(width)}
    return _write(path, nodes, constants, outputs={"logits": [1, 3]}, named=False)


def _write(path, nodes, constants, *, outputs, named):
    if not named:
        for node in nodes:
            if not node.name.startswith("cam_head/"):
                node.name = ""
    arrays = {name: np.asarray(array) for name, array in constants.items()}
    initializers = [
        numpy_helper.from_array(array if array.dtype == np.int64 else array.astype(np.float32), name) for name, array in arrays.items()
    ]
    model = onnx_model(
        nodes,
        initializers,
        inputs=[helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, SIDE, SIDE, 1])],
        outputs=[helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
    )
    path.write_bytes(model.SerializeToString())
    return path


def build(graph, folder, rung="ptq", **changes):
    """An IR, written by the rung's settings with some changes."""
    folder.mkdir(exist_ok=True)
    openvino_ptq.build_ir(graph, dataclasses.replace(RUNGS[rung], **changes), TENSORS, folder, Silent())
    return folder / openvino_ptq.XML


def answers(model):
    """Runs a graph on the frames, here and not by edgekit."""
    compiled = load_library().Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    rows = [list(compiled([np.ascontiguousarray(tensor[None])]).to_tuple()) for tensor in TENSORS]
    parts = [np.concatenate(column).astype(np.float32) for column in zip(*rows, strict=True)]
    return Measured(logits=parts[0], maps=parts[1] if len(parts) > 1 else None)


def written(model, folder):
    """The bytes of a graph."""
    files = folder / "written.xml", folder / "written.bin"
    load_library().serialize(model, *map(str, files))
    return [path.read_bytes() for path in files]


def names(model):
    return [layer.name for layer in fallback.find_layers(*model)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fallback")


@pytest.fixture(scope="module")
def loud(folder):
    """The network with a layer that quantization hurts, in float and quantized: a file each."""
    graph = network(folder / "loud.onnx", outlier=3000.0)
    return graph, build(graph, folder / "loud-float", "float"), build(graph, folder / "loud-ptq")


@pytest.fixture(scope="module")
def attention(folder):
    """The transformer in float and quantized, with SmoothQuant and without."""
    graph = transformer(folder / "attention.onnx")
    return graph, {rung: build(graph, folder / f"attention-{rung}", rung) for rung in ("float", "ptq-full", "ptq-no-smoothquant")}


def test_the_quantized_layers_are_found(loud):
    """All convolutions but the head of the map, which stays in float in every rung; none in the float graph."""
    exact, quantized = (openvino_ptq.read_ir(path) for path in loud[1:])
    found = fallback.find_layers(exact, quantized)
    assert [layer.type for layer in found] == ["Convolution"] * 6
    assert [layer.name.split("/")[0] for layer in found] == [f"conv{index}" for index in range(6)]
    assert fallback.find_layers(exact, openvino_ptq.read_ir(loud[1])) == ()


def check_that_all_in_float_is_float(float_xml, quantized_xml, folder):
    """Nothing of quantization is left where every layer is in float, and all of it is back afterwards."""
    exact, quantized = openvino_ptq.read_ir(float_xml), openvino_ptq.read_ir(quantized_xml)
    before, reference, rounded = written(quantized, folder), answers(exact), answers(quantized)
    layers = fallback.find_layers(exact, quantized)
    everything = fallback.Layer(name="", type="", swaps=tuple(swap for layer in layers for swap in layer.swaps))
    with fallback.in_float(everything):
        found = answers(quantized)
    spread = float(np.abs(reference.logits).max())
    assert np.abs(rounded.logits - reference.logits).max() > 1e-3 * spread
    assert np.abs(found.logits - reference.logits).max() < 1e-5 * spread
    assert written(quantized, folder) == before


def test_a_layer_gets_all_of_its_float_back(loud, tmp_path):
    """Weights, corrected bias, and the quantizer that stands before a pooling."""
    check_that_all_in_float_is_float(*loud[1:], tmp_path)


@pytest.mark.parametrize("rung", ["ptq-full", "ptq-no-smoothquant"])
def test_a_layer_gets_its_input_back_as_it_was_before_smoothquant(attention, tmp_path, rung):
    """SmoothQuant scales the input and the weights against each other: both go back, or neither."""
    check_that_all_in_float_is_float(attention[1]["float"], attention[1][rung], tmp_path)


def test_one_layer_leaves_the_others_alone(loud, tmp_path):
    """A quantizer before a pooling is passed by on a way of its own."""
    exact, quantized = (openvino_ptq.read_ir(path) for path in loud[1:])
    layers = fallback.find_layers(exact, quantized)
    for layer in layers:
        with fallback.in_float(layer):
            assert names((exact, quantized)) == [other.name for other in layers if other is not layer]


def test_the_layer_that_hurts_most_is_found_first(loud):
    """By far; and the graph is as it was."""
    exact, quantized = (openvino_ptq.read_ir(path) for path in loud[1:])
    steps = []
    error, layers = fallback.rank(exact, quantized, answers, lambda done, total: steps.append((done, total)))
    assert error == pytest.approx(fallback.output_error(answers(exact), answers(quantized)))
    assert layers[0].name.startswith(f"conv{LOUD}")
    assert layers[0].error > 0.5 * error > 5 * layers[1].error
    assert [layer.error for layer in layers] == sorted((layer.error for layer in layers), reverse=True)
    assert steps == [(index, 6) for index in range(1, 7)]


def test_the_error_is_in_parts_of_the_variance():
    """Around the mean of each output, of logits and maps together; the unit does not matter."""
    logits = np.array([[0, 10], [2, 10]], dtype=np.float32)  # variances 1 and 0, on the average 0.5
    off = logits + np.float32(0.5)
    assert fallback.output_error(Measured(logits=logits, maps=None), Measured(logits=off, maps=None)) == pytest.approx(0.25 / 0.5)
    maps = np.zeros((2, 2, 1, 2), dtype=np.float32)
    maps[..., 0] = 4  # variance 4
    exact, found = Measured(logits=logits, maps=maps), Measured(logits=logits, maps=maps + 1)
    assert fallback.output_error(exact, found) == pytest.approx(1 / 4)
    scaled = [Measured(logits=7 * item.logits, maps=7 * item.maps) for item in (exact, found)]
    assert fallback.output_error(*scaled) == pytest.approx(1 / 4)
    flat = Measured(logits=np.ones((2, 2), dtype=np.float32), maps=None)
    assert fallback.output_error(flat, Measured(logits=flat.logits + 2, maps=None)) == pytest.approx(4)


def test_a_named_layer_stays_in_float(loud, tmp_path):
    """And with it most of the error goes; a name that no operation has is refused."""
    graph, exact_xml, _ = loud
    exact = openvino_ptq.read_ir(exact_xml)
    name = next(name for name in names((exact, openvino_ptq.read_ir(loud[2]))) if name.startswith(f"conv{LOUD}"))
    quantized = openvino_ptq.read_ir(build(graph, tmp_path / "one", float_layers=(name,)))
    found = names((exact, quantized))
    assert len(found) == 5
    assert name not in found
    reference = answers(exact)
    before = fallback.output_error(reference, answers(openvino_ptq.read_ir(loud[2])))
    assert fallback.output_error(reference, answers(quantized)) < 0.2 * before
    with pytest.raises(ModelError, match="nobody"):
        build(graph, tmp_path / "none", float_layers=("nobody",))


@pytest.mark.parametrize("kind", ["InternalError", "UnsupportedModelError", "ValidationError"])
def test_what_nncf_refuses_is_told(loud, tmp_path, monkeypatch, kind):
    """Its errors have no common base; the last line says what is wrong."""
    import nncf

    def refuse(*_, **__):
        raise getattr(nncf, kind)("\nNo such thing as this graph.\n")

    monkeypatch.setattr(nncf, "quantize", refuse)
    with pytest.raises(ModelError, match="cannot handle the model: No such thing as this graph"):
        build(loud[0], tmp_path / "refused")


def test_an_operation_has_one_name_in_every_graph(folder, tmp_path):
    """Where the source gives none, OpenVINO counts, and goes on counting at the next reading; names must not depend on it, nor the bytes."""
    graph = network(folder / "unnamed.onnx", named=False)
    files = [build(graph, tmp_path / name, rung) for name, rung in (("float", "float"), ("a", "ptq"), ("b", "ptq"))]
    assert files[1].read_bytes() == files[2].read_bytes()
    assert files[1].with_suffix(".bin").read_bytes() == files[2].with_suffix(".bin").read_bytes()
    exact, quantized = (openvino_ptq.read_ir(path) for path in files[:2])
    assert len(names((exact, quantized))) == 6
    check_that_all_in_float_is_float(*files[:2], tmp_path)


def test_smoothquant_is_in_one_rung_and_not_in_the_other(attention):
    """The text of the IR tells."""
    graph, files = attention
    assert "smooth_quant" in files["ptq-full"].read_text()
    assert "smooth_quant" not in files["ptq-no-smoothquant"].read_text()
    assert "FakeQuantize" in files["ptq-no-smoothquant"].read_text()
    assert openvino_ptq.has_attention(graph)


# The stage, and what the rung makes of it.


def engine():
    return EngineSpec(
        name="openvino",
        files={"xml": "model/openvino.xml", "bin": "model/openvino.bin"},
        minimum_version="1",
        precision="int8",
        settings={"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": "1"},
        outputs=3,
    )


def split(count=40):
    samples = tuple(
        Sample(
            path=Path("f"),
            file=f"{index}",
            labels=("abc"[index % 3],),
            split="calib",
            group=f"p{index // 4}",
            mask=None,
            extra={},
            line=index,
        )
        for index in range(count)
    )
    tensors = TENSORS[:count]
    return PreparedSplit(tensors=tensors, truth=np.zeros((count, 3), dtype=bool), samples=samples, sha256=digest(tensors.tolist()))


def bench(graph, **changes):
    explained = ExplainedGraph(path=graph, sha256=file_digest(graph), rows=8, columns=8, bias=(0.0,) * 3, outputs=3, reason="")
    fields = {
        "graph": explained,
        "calibration": split(),
        "val": split(8),
        "dialect": dialect_of(load_target("x86-64")),
        "quantize": QuantizeSpec(),
    }
    return Bench(**{**fields, **changes})


def artefact(xml):
    files = {"xml": xml, "bin": xml.with_suffix(".bin")}
    return Artefact(files=files, sha256=file_digest(xml), precision="int8", outputs=3)


def result(rung, mean_kl):
    """A rung as the ladder remembers it, as far as the fallback asks."""
    from types import SimpleNamespace

    return RungResult(
        rung=rung,
        artefact=None,
        measured=None,
        comparison=SimpleNamespace(agreement=SimpleNamespace(mean_kl=mean_kl)),
        sufficient=False,
    )


def test_a_ranking_is_a_stage(loud, tmp_path):
    """Its result is the same fresh and from the cache, and depends on both artefacts, the engine and the frames."""
    stage = RankStage(exact=artefact(loud[1]), base=artefact(loud[2]), engine=engine(), tensors=TENSORS[:8], tensors_sha256="frames")
    space = Workspace(tmp_path / "work", Silent())
    fresh, cached = space.run(stage), space.run(stage)
    assert [record.cached for record in space.records] == [False, True]
    assert fresh == cached
    assert fresh.layers[0].name.startswith(f"conv{LOUD}")
    assert 0 < fresh.layers[0].error <= fresh.error
    changes = {
        "exact": dataclasses.replace(stage.exact, sha256="x"),
        "base": dataclasses.replace(stage.base, sha256="x"),
        "engine": dataclasses.replace(stage.engine, settings={}),
        "tensors_sha256": "x",
    }
    keys = {digest(dataclasses.replace(stage, **{name: value}).requires()) for name, value in changes.items()}
    assert len(keys | {digest(stage.requires())}) == 5


def test_layers_left_in_float_change_the_key(loud):
    """They are among the rung's settings."""
    stage = QuantizeStage(graph=bench(loud[0]).graph, rung="ptq", calibration=TENSORS, calibration_sha256="c")
    assert digest(stage.requires()) != digest(dataclasses.replace(stage, float_layers=("conv1",)).requires())


def test_the_fallback_leaves_more_and_more_layers_in_float(loud, tmp_path):
    """The worst first, each variant with what it left and why, and none made before it is asked for."""
    space = Workspace(tmp_path / "work", Silent())
    attempts = Attempts(bench(loud[0], quantize=QuantizeSpec(fallback_layers=2)), space)
    variants = attempts.variants("float-fallback", [result("ptq-full", 0.2), result("ptq", 0.1), result("float", 0.0)])
    first = next(variants)
    made = [record.name for record in space.records]
    assert first.label == "ptq with 1 layer in float32"
    assert not [name for name in made if "2 layers" in name or "ptq-full" in name]
    (second,) = variants
    assert second.label == "ptq with 2 layers in float32"
    for variant, count in ((first, 1), (second, 2)):
        kept = variant.artefact.fallback
        assert kept["base"] == "ptq"
        assert [set(layer) for layer in kept["layers"]] == [{"name", "type", "error"}] * count
        assert kept["layers"][0]["name"].startswith(f"conv{LOUD}")
        assert 0 < kept["layers"][0]["error"] < kept["base_error"]
        left = {layer["name"] for layer in kept["layers"]}
        exact, quantized = openvino_ptq.read_ir(loud[1]), openvino_ptq.read_ir(variant.artefact.files["xml"])
        assert left.isdisjoint(names((exact, quantized)))
        assert len(names((exact, quantized))) == 6 - count
    assert first.measured.logits.shape == (8, 3)


def test_where_no_layer_hurts_the_fallback_is_skipped(loud, tmp_path, monkeypatch):
    """Leaving a layer in float that was measured to make it worse would only cost time."""
    harmless = (
        fallback.LayerError(name="conv1", type="Convolution", error=-0.1),
        fallback.LayerError(name="conv2", type="Convolution", error=0.0),
    )
    monkeypatch.setattr(fallback, "rank", lambda *_: (0.5, harmless))
    (found,) = Attempts(bench(loud[0]), Workspace(tmp_path / "work", Silent())).variants("float-fallback", [result("ptq", 0.1)])
    assert found == Skipped(rung="float-fallback", reason="no layer of ptq brings the answers nearer when it goes back to float32")


def test_without_attention_there_is_no_smoothquant_to_leave_out(loud, tmp_path):
    """The rung would be ptq-full under another name: it is not run."""
    space = Workspace(tmp_path / "work", Silent())
    found = list(Attempts(bench(loud[0]), space).variants("ptq-no-smoothquant", ()))
    assert found == [Skipped(rung="ptq-no-smoothquant", reason="no attention: the same as ptq-full")]
    assert space.records == []


def test_with_attention_it_is_a_rung(attention, tmp_path):
    """Made and measured as any."""
    (found,) = Attempts(bench(attention[0]), Workspace(tmp_path / "work", Silent())).variants("ptq-no-smoothquant", ())
    assert found.artefact.fallback is None
    assert found.measured.logits.shape == (8, 3)
    assert "smooth_quant" not in found.artefact.files["xml"].read_text()


def test_other_rungs_are_made_by_whom_they_are_told(loud, tmp_path):
    """Or refused: a rung that needs training is never made as another one."""
    space = Workspace(tmp_path / "work", Silent())
    skip = Skipped(rung="qat", reason="told")
    tried = [result("ptq", 0.1)]
    asked = []
    attempts = Attempts(bench(loud[0]), space, others={"qat": lambda tried: asked.append(tried) or [skip]})
    assert list(attempts.variants("qat", tried)) == [skip]
    assert asked == [tried]
    with pytest.raises(CatalogError, match="the rung 'qat' cannot be made"):
        list(Attempts(bench(loud[0]), space).variants("qat", ()))


@pytest.mark.parametrize(
    ("most", "counts"), [(0, []), (1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8]), (12, [1, 2, 4, 8, 12])], ids=str
)
def test_the_numbers_of_layers_double(most, counts):
    """Up to the most that the recipe allows, which is tried too."""
    assert fallback_counts(most) == counts


def test_the_fallback_starts_from_the_nearest_post_training_rung():
    """Not from float or a trained one, which may be nearer; from ptq-full where there is none."""
    assert nearest_post_training([result("ptq", 0.3), result("ptq-full", 0.1), result("float", 0.0), result("qat", 0.01)]) == "ptq-full"
    assert nearest_post_training([result("float", 0.0)]) == nearest_post_training(()) == "ptq-full"
    assert set(POST_TRAINING) < set(RUNGS)


def test_layers_are_ranked_on_frames_of_every_label():
    """A few of the calibration frames, the same ones each time."""
    calibration = split()
    found = ranking_frames(calibration)
    assert found.shape == (RANKING_FRAMES, SIDE, SIDE, 1)
    chosen = [index for index, tensor in enumerate(calibration.tensors) if any(np.array_equal(tensor, row) for row in found)]
    labels = [calibration.samples[index].labels[0] for index in chosen]
    assert {label: labels.count(label) >= 10 for label in "abc"} == dict.fromkeys("abc", True)
    assert np.array_equal(found, ranking_frames(calibration))
    assert len(ranking_frames(split(5))) == 5
