"""What the compile finds out about maps: masks as they may come, random weights, and which frames are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx  # noqa: TID253 - a graph is made by hand
import pytest
from onnx import TensorProto, helper, numpy_helper  # noqa: TID253
from PIL import Image

from edgekit.compiler.progress import Silent
from edgekit.compiler.stages.control import ALL, DRAWS, HEAD, ControlStage, randomize
from edgekit.compiler.stages.explain import ExplainedGraph
from edgekit.compiler.stages.masks import EMPTY, OUTSIDE, MasksStage, read_mask
from edgekit.compiler.workspace import Workspace, file_digest
from edgekit.errors import DataError, ModelError
from edgekit.evaluation.dataset import Sample
from edgekit.evaluation.fidelity import compare_frames
from edgekit.schema.model_io import InputSpec

SIZE = (16, 16)
SPEC = InputSpec(color="grey", channels=1, resize=(16, 16), crop=(8, 8), mean=(0.0,), std=(1.0,))
BLOCK = np.zeros(SIZE, dtype=np.uint8)
BLOCK[4:8, 4:12] = 255


def write(path: Path, pixels) -> Path:
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path)
    return path


@pytest.mark.parametrize("mask", [BLOCK, BLOCK // 255, np.where(BLOCK > 0, 200, 60), np.stack([BLOCK] * 3, axis=-1)])
def test_a_mask_has_two_sides(tmp_path, mask):
    """White or 1 is the lesion; grey levels of an edge fall to the nearer side, and a grey picture may be stored as RGB."""
    assert (read_mask(write(tmp_path / "m.png", mask), SIZE) == (BLOCK > 0)).all()


MASKS = {
    "another size": (BLOCK[:8], "8 × 16 pixels"),
    "coloured": (np.stack([BLOCK, 0 * BLOCK, 0 * BLOCK], axis=-1), "coloured"),
    "numbers of labels": (BLOCK // 127, "reach from 0 to 2"),
    "faint": (BLOCK // 3, "reach from 0 to 85"),
}


@pytest.mark.parametrize(("mask", "message"), MASKS.values(), ids=MASKS)
def test_a_mask_that_says_too_little_is_refused(tmp_path, mask, message):
    """Where the lesion is may not be a guess; the message names the file."""
    with pytest.raises(DataError, match=message) as caught:
        read_mask(write(tmp_path / "odd.png", mask), SIZE)
    assert "odd.png" in caught.value.message


def test_a_mask_that_is_no_picture_is_refused(tmp_path):
    """A mask is read as strictly as a frame."""
    (tmp_path / "m.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"m\.png"):
        read_mask(tmp_path / "m.png", SIZE)


def sample(folder: Path, name: str, mask) -> Sample:
    return Sample(
        path=write(folder / f"{name}.png", np.zeros(SIZE)), file=f"{name}.png", labels=("a",), split="val", group=name,
        mask=write(folder / f"{name}-mask.png", mask), extra={}, line=2,
    )  # fmt: skip


def test_masks_become_cells(tmp_path):
    """Each is what the cells of the cropped map see; what has nothing to point at says why, and another mask is another result."""
    outside = np.zeros(SIZE)
    outside[:2] = 255
    samples = tuple(sample(tmp_path, *item) for item in (("block", BLOCK), ("empty", 0 * BLOCK), ("outside", outside)))
    workspace = Workspace(tmp_path / "work", Silent())
    stage = MasksStage(samples=samples, input=SPEC, size=(2, 2))
    found = workspace.run(stage)
    assert found.reasons == ("", EMPTY, OUTSIDE)
    assert found.lesions.covered[0] == pytest.approx(np.array([[1, 1], [0, 0]]))
    assert found.lesions.centre[0].tolist() == [[True, True], [False, False]]
    workspace.run(stage)
    assert [record.cached for record in workspace.records] == [False, True]
    write(samples[0].mask, 255 - BLOCK)
    assert workspace.run(stage).lesions.covered[0] == pytest.approx(np.array([[0, 0], [1, 1]]))


CHANNELS, CLASSES = 6, 3


def explained(path: Path) -> ExplainedGraph:
    """A frame through a convolution, a turned weight and a head: logits and the map, as an explained graph has them."""
    random = np.random.default_rng(0)
    weights = {
        "features": random.normal(size=(CHANNELS, 1, 3, 3)),
        "bias": random.normal(size=CHANNELS),
        "mixed": random.normal(size=(CHANNELS, CHANNELS)),
        "head": random.normal(size=(CLASSES, CHANNELS, 1, 1)),
    }
    node = helper.make_node
    nodes = [
        node("Cast", ["frame"], ["cast"], to=TensorProto.FLOAT),
        node("Transpose", ["cast"], ["image"], perm=[0, 3, 1, 2]),
        node("Conv", ["image", "features", "bias"], ["convolved"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", ["convolved"], ["active"]),
        node("Transpose", ["active"], ["last"], perm=[0, 2, 3, 1]),
        node("Transpose", ["mixed"], ["turned"], perm=[1, 0]),
        node("MatMul", ["last", "turned"], ["linear"]),
        node("Relu", ["linear"], ["positive"]),
        node("Transpose", ["positive"], ["features_out"], perm=[0, 3, 1, 2]),
        node("Conv", ["features_out", "head"], ["cam"], kernel_shape=[1, 1]),
        node("GlobalAveragePool", ["cam"], ["pooled"]),
        node("Flatten", ["pooled"], ["logits"]),
    ]
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, CLASSES)),
        helper.make_tensor_value_info("cam", TensorProto.FLOAT, (1, CLASSES, 4, 4)),
    ]
    inputs = [helper.make_tensor_value_info("frame", TensorProto.UINT8, (1, 8, 8, 1))]
    initializers = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, initializers), opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 10
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    facts = {"rows": 4, "columns": 4, "bias": (0.0,) * CLASSES, "outputs": CLASSES, "reason": ""}
    return ExplainedGraph(path=path, sha256=file_digest(path), **facts)


def weights_of(content: bytes) -> dict[str, np.ndarray]:
    return {
        tensor.name.removesuffix("/shuffled"): numpy_helper.to_array(tensor) for tensor in onnx.load_from_string(content).graph.initializer
    }


def changed(path: Path, content: bytes) -> set[str]:
    before, after = weights_of(path.read_bytes()), weights_of(content)
    for name, value in before.items():
        assert (np.sort(value, axis=None) == np.sort(after[name], axis=None)).all()
    return {name for name, value in before.items() if (value != after[name]).any()}


def test_the_heads_weights_are_the_nearest_to_the_map(tmp_path):
    """Only they are shuffled, and no value is lost; all weights are also those that are turned on their way, and never a bias."""
    graph = explained(tmp_path / "g.onnx")
    assert changed(graph.path, randomize(graph.path, what=HEAD, seed=0)) == {"head"}
    assert changed(graph.path, randomize(graph.path, what=ALL, seed=0)) == {"head", "features", "mixed"}
    assert randomize(graph.path, what=ALL, seed=0) == randomize(graph.path, what=ALL, seed=0) != randomize(graph.path, what=ALL, seed=1)


def test_a_graph_without_weights_has_no_control(tmp_path):
    """What cannot be made random is said, not skipped."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 1, 2, 2))]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 1, 2, 2)) for name in ("logits", "cam")]
    nodes = [helper.make_node("Relu", ["x"], ["logits"]), helper.make_node("Neg", ["x"], ["cam"])]
    path = tmp_path / "g.onnx"
    path.write_bytes(helper.make_model(helper.make_graph(nodes, "g", inputs, outputs)).SerializeToString())
    with pytest.raises(ModelError, match="no weights"):
        randomize(path, what=HEAD, seed=0)


def test_random_networks_draw_other_maps(tmp_path):
    """Every draw runs on the frames that are named, gives other maps than the network, and comes from the cache as it was."""
    graph = explained(tmp_path / "g.onnx")
    tensors = np.random.default_rng(1).integers(0, 256, size=(9, 8, 8, 1), dtype=np.uint8)
    stage = ControlStage(graph=graph, tensors=tensors, tensors_sha256="t", indices=(0, 2, 8))
    workspace = Workspace(tmp_path / "work", Silent())
    found, again = workspace.run(stage), workspace.run(stage)
    assert tuple((draw.what, draw.seed) for draw in found) == DRAWS
    assert [record.cached for record in workspace.records] == [False, True]
    assert all((one.maps == two.maps).all() for one, two in zip(found, again, strict=True))
    real = _maps(graph, tensors[[0, 2, 8]])
    for draw in found:
        assert draw.maps.shape == (3, CLASSES, 4, 4)
        assert np.abs(draw.maps - real).max() > 0.1
    assert compare_frames(real[:, 0], real[:, 0]).pearson == pytest.approx(np.ones(3))


def _maps(graph: ExplainedGraph, tensors) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(graph.path.read_bytes(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["cam"], {"frame": tensor[None]})[0] for tensor in tensors])
