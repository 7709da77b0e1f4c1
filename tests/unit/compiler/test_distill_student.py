"""A student's network: the same for a seed, with another task's body where it has weights, and refused where anything but the head does not fit."""
# ruff: noqa: TID253 - the tests of what loads torch load torch

from __future__ import annotations

import itertools
import sys

import pytest
import torch
from network_builders import binary_spec, create, input_spec, model_spec, tiny_network
from safetensors.torch import save_file

from edgekit.catalog.compress import NetworkSpec
from edgekit.compiler.distill.student import build_student
from edgekit.errors import CatalogError, ModelError

SOURCE = "timm:test_resnet"
COUNT = itertools.count()


def built(source=SOURCE, weights=None, *, model=None, frames=None, seed=0, **arguments):
    spec = NetworkSpec(source=source, weights=None if weights is None else str(weights), arguments=arguments)
    return build_student(spec, model or model_spec(), frames or input_spec(resize=(64, 64)), seed)


def saved(path, module, **changes):
    state = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    save_file({name: tensor for name, tensor in {**state, **changes}.items() if tensor is not None}, path)
    return path


@pytest.fixture
def other_task(tmp_path):
    """Weights of ten classes."""
    module = create(SOURCE, 10, seed=5)
    return module, saved(tmp_path / "ten.safetensors", module)


def test_the_same_seed_gives_the_same_new_weights():
    """And another seed others; the caller's random numbers are not drawn from."""
    state = torch.get_rng_state()
    first, again, other = (built(seed=seed)[0].state_dict() for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(("model", "outputs"), [(model_spec(), 3), (binary_spec(), 2)])
def test_a_new_student_has_an_output_a_label(model, outputs):
    """In evaluation mode, with nothing to note."""
    module, notes = built(model=model)
    assert module(torch.zeros(1, 3, 64, 64)).shape == (1, outputs)
    assert not module.training
    assert notes == ()


def test_weights_of_the_same_labels_are_loaded_whole(tmp_path):
    """The head too."""
    wanted = create(SOURCE, 3, seed=5)
    module, notes = built(weights=saved(tmp_path / "w.safetensors", wanted))
    assert all(torch.equal(tensor, wanted.state_dict()[name]) for name, tensor in module.state_dict().items())
    assert notes == ()


def test_binary_weights_may_have_one_logit(tmp_path):
    """The weights decide."""
    module, _ = built(model=binary_spec(), weights=saved(tmp_path / "w.safetensors", create(SOURCE, 1)))
    assert module(torch.zeros(1, 3, 64, 64)).shape == (1, 1)


def test_another_tasks_weights_give_the_body_and_the_head_is_new(other_task):
    """Which tensors were left out is noted; the new head is the seed's."""
    source, path = other_task
    module, notes = built(weights=path, seed=3)
    new = built(seed=3)[0].state_dict()
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, (new if name.startswith("fc.") else source.state_dict())[name])
    assert notes == ("ten.safetensors is of another task: fc.bias, fc.weight starts anew",)


def test_a_head_of_any_name_is_found(tmp_path):
    """By its shape: here it is a convolution in the middle of a list."""
    path = saved(tmp_path / "w.safetensors", create("torchvision:squeezenet1_1", 10))
    _, notes = built("torchvision:squeezenet1_1", path)
    assert "classifier.1.bias, classifier.1.weight starts anew" in notes[0]


def test_weights_without_a_head_will_do(tmp_path):
    """As feature extractors are saved."""
    path = saved(tmp_path / "w.safetensors", create(SOURCE, 3, seed=5), **{"fc.weight": None, "fc.bias": None})
    module, notes = built(weights=path)
    assert torch.equal(module.conv1[0].weight, create(SOURCE, 3, seed=5).conv1[0].weight)
    assert "a head, which it lacks, starts anew" in notes[0]


def test_prefixes_are_taken_off_as_of_any_weights(tmp_path):
    """And noted before what was left out."""
    path = tmp_path / "w.pt"
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in create(SOURCE, 10).state_dict().items()}}, path)
    _, notes = built(weights=path)
    assert "the prefix 'module.' was taken off" in notes[0]
    assert "fc.bias, fc.weight starts anew" in notes[1]


MISFITS = {
    "missing": ({"conv1.0.weight": None}, r"its head apart: 1 tensors are missing \(conv1\.0\.weight …\)"),
    "extra": ({"aux.weight": torch.zeros(1)}, r"1 are not of this architecture \(aux\.weight …\)"),
    "shape": ({"bn1.bias": torch.zeros(5)}, r"bn1\.bias is \(5,\) in the file"),
}


@pytest.mark.parametrize(("changes", "message"), MISFITS.values(), ids=MISFITS)
def test_anything_else_that_does_not_fit_is_refused(other_task, tmp_path, changes, message):
    """By name."""
    path = saved(tmp_path / "w.safetensors", other_task[0], **changes)
    with pytest.raises(ModelError, match=message):
        built(weights=path)


@pytest.mark.parametrize(("have", "want"), [(3, 1), (1, 3)])
def test_weights_for_other_channels_are_refused_with_what_to_set(tmp_path, have, want):
    """Summing or repeating a kernel would be a guess."""
    path = saved(tmp_path / "w.safetensors", create(SOURCE, 10, in_chans=have))
    frames = input_spec(resize=(64, 64), channels=want, mean=(127.5,) * want, std=(127.5,) * want)
    with pytest.raises(ModelError, match="its head apart") as caught:
        built(weights=path, frames=frames)
    assert f"set [input] channels = {have}" in caught.value.hint


def test_the_weights_of_another_architecture_are_refused(tmp_path):
    """However much of it fits."""
    path = saved(tmp_path / "w.safetensors", create("timm:test_efficientnet", 3))
    with pytest.raises(ModelError, match="does not fit the student"):
        built(weights=path)


FACTORY = """\
import torch
from network_builders import tiny_network

def build(outputs=3):
    return tiny_network(outputs, seed=torch.initial_seed() % 1000)
"""


def test_a_python_factory_makes_a_student(tmp_path, monkeypatch):
    """Its number of outputs is its own business, and is checked; so no part of a file can be taken for the head."""
    name = f"edgekit_student_{next(COUNT)}"
    (tmp_path / f"{name}.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    module, _ = built(f"python:{name}:build", seed=4)
    assert torch.equal(module[0].weight, tiny_network(seed=4)[0].weight)
    with pytest.raises(ModelError, match="has 4 outputs, the recipe names 3 labels"):
        built(f"python:{name}:build", outputs=4)
    with pytest.raises(ModelError, match=r"5\.weight is \(10, 8\) in the file"):
        built(f"python:{name}:build", saved(tmp_path / "w.safetensors", tiny_network(10)))
    sys.modules.pop(name)


REFUSED = {
    "onnx:net.onnx": "a model from onnx: cannot start as a new network",
    "pt2:net.pt2": "a model from pt2: cannot start as a new network",
    "tim:resnet18": "the kind 'tim' is not known",
    "timm:resnet1O": "timm has no architecture",
    "timm:": "names nothing after the colon",
}


@pytest.mark.parametrize("source", REFUSED)
def test_what_cannot_start_anew_is_refused(source):
    """An exported program has no architecture without its weights."""
    with pytest.raises(CatalogError, match=REFUSED[source]):
        built(source)


def test_arguments_that_fetch_weights_are_refused():
    """Weights come from the file that the recipe names."""
    with pytest.raises(CatalogError, match="pretrained is not taken"):
        built(pretrained=True)
