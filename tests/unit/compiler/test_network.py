"""Networks on their way to the small one: what they are known by, how they are built again, and what is refused."""
# ruff: noqa: TID253 - the networks are of torch

from __future__ import annotations

import pytest
import torch
from network_builders import input_spec, model_spec, tiny_network, tiny_onnx, write_onnx
from safetensors.torch import save_file

from edgekit.catalog.compress import NetworkSpec
from edgekit.compiler import network as n
from edgekit.compiler.stages.load import LazySource
from edgekit.errors import ModelError


def architecture(seed=0, sha256="a"):
    return n.Architecture(title="tiny", build=lambda: tiny_network(seed=seed), sha256=sha256, repeatable=True, notes=lambda: ())


def answers(module):
    with torch.inference_mode():
        return module(torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32))


def test_a_network_is_built_with_its_own_weights(tmp_path):
    """Those of its folder, where it has one, bit for bit; each time as a new module."""
    trained = tiny_network(seed=1)
    n.save_weights(trained, tmp_path / n.WEIGHTS)
    network = n.Network(architecture=architecture(), folder=tmp_path)
    first, second = network.build(), network.build()
    assert torch.equal(answers(first), answers(trained))
    assert not torch.equal(answers(first), answers(tiny_network(seed=0)))
    assert first is not second
    assert not first.training


def test_a_network_is_known_by_its_content(tmp_path):
    """Other weights, another plan or another architecture are another network; another folder is not."""
    folders = [tmp_path / name for name in ("one", "copy", "other", "pruned")]
    for folder, seed in zip(folders, (1, 1, 2, 1), strict=True):
        folder.mkdir()
        n.save_weights(tiny_network(seed=seed), folder / n.WEIGHTS)
    (folders[3] / n.PLAN).write_text("{}")
    digests = [n.Network(architecture=architecture(), folder=folder).sha256 for folder in folders]
    digests += [n.Network(architecture=architecture(sha256="b"), folder=folders[0]).sha256, n.Network(architecture=architecture()).sha256]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 5


def test_weights_of_another_network_are_refused(tmp_path):
    """Nothing is loaded partly."""
    save_file({"0.weight": torch.zeros(8, 3, 3, 3)}, tmp_path / n.WEIGHTS)
    with pytest.raises(ModelError, match=r"weights\.safetensors does not fit the network"):
        n.Network(architecture=architecture(), folder=tmp_path).build()


def test_shared_tensors_are_saved_under_each_name(tmp_path):
    """As tied weights have them."""
    module = tiny_network()
    module.tied = module[5].weight
    n.save_weights(module, tmp_path / n.WEIGHTS)
    again = tiny_network(seed=3)
    again.tied = again[5].weight
    n.load_weights(again, tmp_path / n.WEIGHTS)
    assert torch.equal(again[5].weight, module[5].weight)


def test_a_model_that_is_no_network_of_pytorch_is_refused(tmp_path):
    """It can be quantized, not trained."""
    write_onnx(tmp_path / "m.onnx", tiny_onnx())
    source = LazySource(model_spec(f"onnx:{tmp_path / 'm.onnx'}"), input_spec())
    with pytest.raises(ModelError, match="a model from onnx: cannot be pruned or trained") as caught:
        n.module_of(source)
    assert "timm:" in caught.value.hint


def test_the_trained_model_is_never_changed(tmp_path):
    """What is pruned or trained is a copy of it."""
    weights = tmp_path / "w.safetensors"
    from network_builders import create

    save_file(create("timm:test_resnet").state_dict(), weights)
    source = LazySource(model_spec(weights=weights), input_spec())
    built = n.of_teacher(source, _graph()).build()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.zero_()
    assert any(bool(parameter.any()) for parameter in n.module_of(source).parameters())


def _graph():
    from pathlib import Path

    from edgekit.compiler.stages.load import FloatGraph

    return FloatGraph(path=Path("unused.onnx"), sha256="g", notes=())


def test_a_student_tells_what_it_decided_and_is_known_by_its_seed(tmp_path):
    """The same seed is the same network; weights of another task are noted."""
    from network_builders import create

    save_file(create("timm:test_resnet", outputs=10).state_dict(), tmp_path / "other.safetensors")
    spec = NetworkSpec(source="timm:test_resnet", weights=str(tmp_path / "other.safetensors"))
    first, again, other = (n.of_student(spec, model_spec(), input_spec(), seed) for seed in (0, 0, 1))
    assert first.notes() == ()
    assert torch.equal(answers(first.build().eval()), answers(again.build().eval()))
    assert any("is of another task" in note for note in first.notes())
    assert (first.sha256 == again.sha256, first.sha256 == other.sha256) == (True, False)


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("timm:resnet18", "timm:resnet18"),
        ("onnx:/home/someone/m.onnx", "onnx:m.onnx"),
        ("pt2:/x/y.pt2", "pt2:y.pt2"),
        ("python:a:b", "python:a:b"),
    ],
)
def test_a_report_names_no_folder(source, shown):
    """Where a file is on this machine is nobody's business."""
    assert n.public_title(source) == shown
