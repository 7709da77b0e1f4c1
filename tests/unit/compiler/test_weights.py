"""Weights files: what is unwrapped and renamed, what does not fit, and that no file ever executes code."""
# ruff: noqa: TID253, ARG005 - the tests of what loads torch load torch, and a table of cases is called alike

from __future__ import annotations

import io
import pickle
import struct
import zipfile

import pytest
import torch
from network_builders import frames, input_spec, model_spec, run_torch, tiny_network
from safetensors.torch import save_file

from edgekit.compiler.load import weights
from edgekit.compiler.load.zoo import open_timm
from edgekit.errors import CatalogError, ModelError


@pytest.fixture
def network():
    return tiny_network()


def write(path, content):
    """As safetensors where the name says so, else a checkpoint."""
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in content.items()}, path)
    else:
        torch.save(content, path)
    return path


def fitted(path, outputs=(3,)):
    return weights.fit(lambda count: tiny_network(count, seed=9), path, outputs)


def same(module, network):
    given, wanted = module.state_dict(), network.state_dict()
    return given.keys() == wanted.keys() and all(torch.equal(given[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pth", "w.ckpt", "w"])
def test_weights_come_back_as_they_were_saved(network, tmp_path, name):
    """A safetensors file by its suffix; every other file is read as a checkpoint."""
    module, notes = fitted(write(tmp_path / name, network.state_dict()))
    assert same(module, network)
    assert notes == ()


WRAPPED = {
    "state_dict": (lambda own, other: {"state_dict": own, "epoch": 3}, []),
    "model": (lambda own, other: {"model": own, "optimizer": {"lr": 0.1}}, []),
    "nested": (lambda own, other: {"model": {"state_dict": own}}, []),
    "ema-first": (lambda own, other: {"state_dict": other, "state_dict_ema": own}, ["state_dict_ema, state_dict; state_dict_ema is used"]),
    "ema-before-model": (lambda own, other: {"model": other, "model_ema": own}, ["model_ema, model; model_ema is used"]),
    "data-parallel": (lambda own, other: {f"module.{name}": tensor for name, tensor in own.items()}, ["the prefix 'module.'"]),
    "compiled": (lambda own, other: {f"_orig_mod.{name}": tensor for name, tensor in own.items()}, ["the prefix '_orig_mod.'"]),
    "lightning": (
        lambda own, other: {"state_dict": {f"model.{name}": tensor for name, tensor in own.items()}, "hyper_parameters": {}},
        ["the prefix 'model.'"],
    ),
    "compiled-and-parallel": (
        lambda own, other: {f"module._orig_mod.{name}": tensor for name, tensor in own.items()},
        ["the prefix 'module.'", "the prefix '_orig_mod.'"],
    ),
    "averaged": (
        lambda own, other: {"n_averaged": torch.tensor(5), **{f"module.{name}": tensor for name, tensor in own.items()}},
        ["the prefix 'module.'"],
    ),
}


@pytest.mark.parametrize(("wrap", "notes"), WRAPPED.values(), ids=WRAPPED)
def test_usual_wrappers_are_taken_off(network, tmp_path, wrap, notes):
    """Every step that had a choice is noted; averaged weights are what was evaluated, so they win."""
    path = write(tmp_path / "w.pt", wrap(network.state_dict(), tiny_network(seed=5).state_dict()))
    module, found = fitted(path)
    assert same(module, network)
    assert len(found) == len(notes)
    assert all(part in note for part, note in zip(notes, found, strict=True))


def test_a_prefix_that_the_architecture_has_itself_stays(network, tmp_path):
    """A wrapper class with a part called `model` saves names that begin like a prefix."""
    path = write(tmp_path / "w.pt", {f"model.{name}": tensor for name, tensor in network.state_dict().items()})
    module, notes = weights.fit(lambda _: torch.nn.ModuleDict({"model": tiny_network(seed=9)}), path, (3,))
    assert same(module["model"], network)
    assert notes == ()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(network, tmp_path, kind):
    """The reference is the FP32 model; counters stay integers."""
    path = write(tmp_path / "w.safetensors", network.to(kind).state_dict())
    assert {tensor.dtype for tensor in weights.read(path)[0].values()} == {torch.float32, torch.int64}
    module, _ = fitted(path)
    assert {tensor.dtype for tensor in module.state_dict().values()} == {torch.float32, torch.int64}
    assert torch.equal(module[0].weight, network[0].weight.float())


def without(network, name):
    return {key: tensor for key, tensor in network.state_dict().items() if key != name}


MISFITS = {
    "missing": (lambda net: without(net, "5.bias"), r"1 tensors are missing \(5\.bias …\)$"),
    "extra": (lambda net: {**net.state_dict(), "6.weight": torch.ones(1)}, r"1 are not of this architecture \(6\.weight …\)$"),
    "renamed": (
        lambda net: {**without(net, "5.bias"), "5.beta": torch.ones(3)},
        r"1 tensors are missing \(5\.bias …\) and 1 are not of this architecture \(5\.beta …\)$",
    ),
    "renamed-under-a-prefix": (
        lambda net: {f"module.{name}": tensor for name, tensor in without(net, "5.bias").items()},
        r"1 tensors are missing",
    ),
    "other-shape": (
        lambda net: {**net.state_dict(), "0.bias": torch.ones(9)},
        r"0\.bias is \(9,\) in the file and \(8,\) in the architecture",
    ),
    "other-classes": (lambda net: tiny_network(4).state_dict(), r"5\.weight is \(4, 8\) in the file and \(3, 8\) in the architecture"),
    "one-channel": (lambda net: tiny_network(channels=1).state_dict(), r"0\.weight is \(8, 1, 3, 3\) in the file"),
}


@pytest.mark.parametrize(("content", "message"), MISFITS.values(), ids=MISFITS)
@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_weights_that_do_not_fit_are_named(network, tmp_path, name, content, message):
    """Nothing is loaded partly; the first tensor at fault is named."""
    with pytest.raises(ModelError, match=message):
        fitted(write(tmp_path / name, content(network)))


@pytest.mark.parametrize("outputs", [1, 2])
def test_binary_weights_may_have_one_logit_or_two(tmp_path, outputs):
    """The weights decide which."""
    path = write(tmp_path / "w.safetensors", tiny_network(outputs).state_dict())
    module, _ = fitted(path, outputs=(2, 1))
    assert module[5].out_features == outputs


def test_three_logits_are_no_binary_model(tmp_path):
    """The problem with the likeliest number of outputs is told."""
    with pytest.raises(ModelError, match=r"5\.weight is \(3, 8\) in the file and \(2, 8\) in the architecture"):
        fitted(write(tmp_path / "w.safetensors", tiny_network(3).state_dict()), outputs=(2, 1))


EMPTY = {
    "no-tensors": {},
    "only-numbers": {"state_dict": {"epoch": 3}},
    "a-list": [torch.ones(1)],
    "a-tensor": torch.ones(1),
    "wrapper-of-nothing": {"model": {}},
    "a-number": 3,
}


@pytest.mark.parametrize("content", EMPTY.values(), ids=EMPTY)
def test_a_checkpoint_without_a_table_of_tensors_is_refused(tmp_path, content):
    """The hint lists where tensors are looked for."""
    with pytest.raises(ModelError, match="holds no table of tensors") as caught:
        weights.read(write(tmp_path / "w.pt", content))
    assert "state_dict_ema" in caught.value.hint


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def as_new_checkpoint(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def as_old_checkpoint(content):
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


@pytest.mark.parametrize("pack", [as_new_checkpoint, as_old_checkpoint, pickle.dumps])
@pytest.mark.parametrize("wrap", [lambda item: item, lambda item: {"state_dict": {"w": torch.ones(1)}, "args": item}])
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors", "w.bin"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_payload_is_never_executed(tmp_path, pack, wrap, name):
    """Whatever the file is called and however it is packed, the file that the payload would create is not there."""
    created = tmp_path / "created"
    path = tmp_path / name
    path.write_bytes(pack(wrap(Payload(created))))
    with pytest.raises(ModelError, match=r"more than tensors|not a safetensors file|not a checkpoint"):
        weights.read(path)
    assert not created.exists()


def test_the_payload_would_work(tmp_path):
    """The test above would pass with a payload that does nothing."""
    pickle.loads(pickle.dumps(Payload(tmp_path / "created"))).close()
    assert (tmp_path / "created").exists()


def test_a_whole_module_says_what_to_do(network, tmp_path):
    """The most common unsafe file gets the line that makes a safe one."""
    with pytest.raises(ModelError, match="holds more than tensors and is not loaded") as caught:
        weights.read(write(tmp_path / "w.pt", network))
    assert "safetensors.torch.save_file" in caught.value.hint


def truncated(data):
    return data[: len(data) // 2]


def header_that_lies(data):
    return struct.pack("<Q", 2**40) + data[8:]


def offsets_that_lie(data):
    size = struct.unpack("<Q", data[:8])[0]
    return data[: 8 + size].replace(b'"data_offsets":[0,', b'"data_offsets":[9,', 1) + data[8 + size :]


DAMAGED = {
    "empty-safetensors": ("w.safetensors", lambda data: b""),
    "empty-checkpoint": ("w.pt", lambda data: b""),
    "truncated-safetensors": ("w.safetensors", truncated),
    "truncated-checkpoint": ("w.pt", truncated),
    "header-beyond-the-file": ("w.safetensors", header_that_lies),
    "offsets-that-lie": ("w.safetensors", offsets_that_lie),
    "text": ("w.pt", lambda data: b"these are no weights"),
    "html": ("w.safetensors", lambda data: b"<!DOCTYPE html><html>Not found</html>"),
    "flipped-checkpoint": ("w.pt", lambda data: data[:40] + bytes(byte ^ 0xFF for byte in data[40:200]) + data[200:]),
}


@pytest.mark.parametrize(("name", "damage"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_refused(network, tmp_path, name, damage):
    """As a file that is no weights file, by its path."""
    path = write(tmp_path / name, network.state_dict())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelError, match=name.replace(".", r"\.")):
        weights.read(path)


def test_an_archive_that_is_no_checkpoint_is_refused(tmp_path):
    """Another kind of ZIP."""
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("readme.txt", "no weights")
    with pytest.raises(ModelError, match="is not a checkpoint that PyTorch can read"):
        weights.read(tmp_path / "w.pt")


@pytest.mark.parametrize("name", ["gone.pt", "folder", "nul\0"])
def test_a_missing_file_is_named(tmp_path, name):
    """A folder is no file either."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(ModelError, match="are not there"):
        weights.read(tmp_path / name)


def test_a_library_model_answers_as_itself(tmp_path):
    """The module that timm builds, with the weights it was given, in evaluation mode."""
    import timm

    network = timm.create_model("test_resnet", num_classes=3, in_chans=3).eval()
    path = write(tmp_path / "w.safetensors", network.state_dict())
    spec = input_spec()
    tensors = frames(spec)
    found = open_timm("test_resnet", model_spec(weights=path), spec).logits(tensors, lambda _: None)
    assert found == pytest.approx(run_torch(network, spec, tensors), abs=1e-5)


ZOO = {
    "unknown": ({"source": "timm:resnet10"}, "resnet10", CatalogError, "timm has no architecture 'resnet10'"),
    "hub": ({"source": "timm:hf-hub:a/b"}, "hf-hub:a/b", CatalogError, "timm has no architecture"),
    "pretrained": ({"arguments": {"pretrained": True}}, "test_resnet", CatalogError, "pretrained is not taken"),
    "checkpoint-by-the-back-door": (
        {"arguments": {"checkpoint_path": "w.pt"}},
        "test_resnet",
        CatalogError,
        "checkpoint_path is not taken",
    ),
    "unknown-argument": ({"arguments": {"blocks": 3}}, "test_resnet", CatalogError, "cannot be built with these"),
    "argument-of-another-kind": ({"arguments": {"global_pool": 3}}, "test_resnet", CatalogError, "cannot be built with these"),
    "argument-given-twice": ({"arguments": {"num_classes": 3}}, "test_resnet", CatalogError, "cannot be built with these"),
    "no-weights": ({"weights": None}, "test_resnet", ModelError, "the trained weights are missing"),
}


@pytest.mark.parametrize(("change", "name", "kind", "message"), ZOO.values(), ids=ZOO)
def test_a_library_model_that_cannot_be_is_refused(network, tmp_path, change, name, kind, message):
    """Nothing is fetched, and the library's own errors come out as edgekit's."""
    fields = {"source": f"timm:{name}", "weights": str(write(tmp_path / "w.safetensors", network.state_dict())), **change}
    with pytest.raises(kind, match=message):
        open_timm(name, model_spec(**fields), input_spec())
