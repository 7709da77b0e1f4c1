"""The contract of every source of `SOURCES`: what it exports is what it is.

Each row of the table below makes a trained model (with random weights) in the form its kind takes, and knows the model's own answer without edgekit.
A kind that is added to `SOURCES` without a row here fails `test_every_kind_has_a_row`.
"""
# ruff: noqa: TID253 - the models are made with torch

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from network_builders import create, frames, input_spec, model_spec, run_onnx, run_torch, settle, tiny_network
from safetensors.torch import save_file

from edgekit.compiler.load import SOURCES, open_source, opener
from edgekit.compiler.load.source import OPSET, normalize
from edgekit.errors import CatalogError, MissingEngineError, ModelError

# Largest difference between the source's own logits and its exported graph's, in parts of the largest logit.
TOLERANCE = 2e-5


@dataclasses.dataclass(frozen=True)
class Row:
    """One source: `make(folder)` returns the recipe's model and the torch module it stands for."""

    make: Callable[..., tuple[Any, Any]]
    changes: dict[str, object] = dataclasses.field(default_factory=dict)


def saved(module, path):
    save_file({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, path)
    return path


def library(source, **arguments):
    """An architecture of a library with weights from a safetensors file."""

    def make(folder):
        module = create(source, **arguments)
        return model_spec(source, saved(module, folder / "w.safetensors"), arguments=arguments), module

    return make


def torchxrayvision(folder):
    """Its DenseNet, as small as its constructor makes it; grey frames in [-1024, 1024]."""
    models = pytest.importorskip("torchxrayvision", reason="torchxrayvision is not installed: edgekit-toolkit[xrv]").models
    arguments = {"block_config": [1, 1, 1, 1], "growth_rate": 8, "num_init_features": 8}
    torch.manual_seed(0)
    module = settle(models.DenseNet(num_classes=3, in_channels=1, **arguments), channels=1)
    weights = module.state_dict()
    weights["op_threshs"] = torch.full((3,), 0.5)  # as the published weights have them
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "w.safetensors")
    return model_spec("torchxrayvision:densenet", folder / "w.safetensors", arguments=arguments), module


FACTORY = """\
import torch
from torch import nn

class Wrapped(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.model = nn.Sequential(nn.Conv2d(3, width, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3))

    def forward(self, x):
        return self.model(x)

def build(width):
    torch.manual_seed(0)
    return Wrapped(width).train()
"""


def factory(folder):
    """A module of the working directory, with weights whose names begin with a part of its own."""
    (folder / "edgekit_contract_factory.py").write_text(FACTORY)
    layers = [torch.nn.Conv2d(3, 5, 3, stride=2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(5, 3)]
    module = torch.nn.Sequential(*layers)
    save_file({f"model.{name}": tensor for name, tensor in module.state_dict().items()}, folder / "w.safetensors")
    return model_spec("python:edgekit_contract_factory:build", folder / "w.safetensors", arguments={"width": 5}), module


def onnx_file(folder):
    """As PyTorch's older exporter writes it, with a batch that is open and a softmax at the end."""
    module = tiny_network()
    path = folder / "net.onnx"
    with torch.no_grad():
        program = torch.onnx.export(
            torch.nn.Sequential(module, torch.nn.Softmax(dim=1)).eval(),
            (torch.rand(2, 3, 32, 32),),
            dynamo=True,
            opset_version=18,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=8)},),
            verbose=False,
        )
    program.save(str(path), external_data=False)
    return model_spec(f"onnx:{path}"), module


def pt2_file(folder):
    module = tiny_network()
    torch.export.save(torch.export.export(module, (torch.rand(1, 3, 32, 32),)), folder / "net.pt2")
    return model_spec(f"pt2:{folder / 'net.pt2'}"), module


ROWS = {
    "timm": Row(library("timm:test_resnet")),
    "timm-densenet121": Row(library("timm:densenet121", block_config=[2, 2, 2, 2])),
    "timm-one-channel": Row(library("timm:test_efficientnet", in_chans=1), {"channels": 1, "mean": (120.0,), "std": (60.0,)}),
    "torchvision-resnet18": Row(library("torchvision:resnet18")),
    "torchvision-mobilenet_v2": Row(library("torchvision:mobilenet_v2", width_mult=0.25)),
    "torchvision-squeezenet1_1": Row(library("torchvision:squeezenet1_1")),
    "torchvision-densenet121": Row(library("torchvision:densenet121"), {"color": "rgb"}),
    "torchxrayvision": Row(torchxrayvision, {"channels": 1, "mean": (127.5,), "std": (255 / 2048,)}),
    "python": Row(factory),
    "onnx": Row(onnx_file, {"color": "rgb"}),
    "pt2": Row(pt2_file),
}


def test_every_kind_has_a_row():
    """Of the table of sources, and no row is of a kind that is gone."""
    assert {name.partition("-")[0] for name in ROWS} == set(SOURCES)


pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")


@pytest.fixture
def opened(request, tmp_path, monkeypatch):
    """The source of a row, its input specification, and the module it stands for."""
    row = ROWS[request.param]
    monkeypatch.chdir(tmp_path)
    model, module = row.make(tmp_path)
    if "in_chans" in model.arguments:  # [input] channels says it
        model = dataclasses.replace(model, arguments={name: value for name, value in model.arguments.items() if name != "in_chans"})
    spec = input_spec(**row.changes)
    return open_source(model, spec), spec, module.eval()


SLOW = {"torchvision-densenet121"}


@pytest.mark.parametrize("opened", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in ROWS], indirect=True)
def test_a_source_exports_what_it_answers(opened, tmp_path):
    """Source, exported graph and the model itself give the same logits on the same frames.

    The graph takes one frame of the recipe's size in float32, holds its weights, and is of the operator set the passes are written for or of the file's own.
    """
    source, spec, module = opened
    tensors = frames(spec, count=3)
    done = []
    logits = source.logits(tensors, done.append)
    source.export(tmp_path / "graph.onnx")
    exported = run_onnx(tmp_path / "graph.onnx", normalize(tensors, spec))
    own = run_torch(module, spec, tensors)
    scale = TOLERANCE * max(1e-2, float(np.abs(own).max()))
    assert logits.shape == own.shape == exported[0].shape == (3, 3)
    assert np.abs(logits - own).max() <= scale
    assert np.abs(exported[0] - own).max() <= scale
    assert np.ptp(own, axis=0).max() > 10 * scale, "the frames are answered alike, so nothing was compared"
    assert done[-1] == 3
    model = onnx.load(tmp_path / "graph.onnx", load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    (taken,) = (value for value in model.graph.input if value.name not in {entry.name for entry in model.graph.initializer})
    assert [size.dim_value for size in taken.type.tensor_type.shape.dim] == [1, spec.channels, *spec.size]
    assert taken.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert len(model.graph.output) == len(exported) == 1
    assert sorted(tmp_path.glob("graph*")) == [tmp_path / "graph.onnx"]
    assert {entry.version for entry in model.opset_import if entry.domain == ""} <= {OPSET, 18}


@pytest.mark.parametrize("opened", ["python", "onnx", "pt2"], indirect=True)
def test_the_same_source_gives_the_same_bytes(opened, tmp_path):
    """A recipe compiled twice gives one bundle."""
    source, _, _ = opened
    for name in ("one.onnx", "two.onnx"):
        source.export(tmp_path / name)
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


BAD_SOURCES = {
    "unknown-kind": ("tim:resnet18", CatalogError, "the kind 'tim' is not known"),
    "nothing-named": ("timm:", CatalogError, "names nothing after the colon"),
    "unknown-torchvision": ("torchvision:resnet19", CatalogError, "torchvision has no classifier 'resnet19'"),
    "detector": ("torchvision:fasterrcnn_resnet50_fpn", CatalogError, "torchvision has no classifier"),
    "no-weights": ("torchvision:resnet18", ModelError, "the trained weights are missing"),
}


@pytest.mark.parametrize(("source", "kind", "message"), BAD_SOURCES.values(), ids=BAD_SOURCES)
def test_a_source_that_cannot_be_is_refused(source, kind, message):
    """With the nearest known one."""
    with pytest.raises(kind, match=message):
        open_source(model_spec(source), input_spec())


def test_an_unknown_kind_names_the_nearest():
    """And lists every kind."""
    with pytest.raises(CatalogError) as caught:
        opener("tim:resnet18")
    assert caught.value.hint == f"did you mean 'timm'? available: {', '.join(sorted(SOURCES))}"


@pytest.mark.parametrize(
    ("source", "changes", "message"),
    [
        ("torchvision:resnet18", {"channels": 1, "mean": (1.0,), "std": (1.0,)}, "take three channels"),
        ("torchxrayvision:densenet", {}, "take one channel"),
    ],
)
def test_other_channels_than_the_library_has_are_refused(source, changes, message):
    """Naming the key to change."""
    if source.startswith("torchxrayvision"):
        pytest.importorskip("torchxrayvision", reason="torchxrayvision is not installed: edgekit-toolkit[xrv]")
    with pytest.raises(ModelError, match=message) as caught:
        open_source(model_spec(source, "w.safetensors"), input_spec(**changes))
    assert "[input] channels" in caught.value.hint


@pytest.mark.parametrize("kind", ["timm", "torchvision", "torchxrayvision"])
def test_a_library_that_is_not_installed_is_named(kind, monkeypatch):
    """With the extra that brings it."""
    import sys

    monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(MissingEngineError, match=f"{kind} cannot be loaded") as caught:
        open_source(model_spec(f"{kind}:resnet18", "w.safetensors"), input_spec())
    assert caught.value.hint.startswith("install the extra: edgekit-toolkit[")


def test_auxiliary_heads_are_left_out(tmp_path):
    """They serve training; weights that hold them say so unless the recipe asks for them, and then one output is answered with."""
    spec = input_spec(resize=(64, 64))
    plain = create("torchvision:googlenet", aux_logits=False, init_weights=False)
    path = saved(plain, tmp_path / "w.safetensors")
    tensors = frames(spec)
    logits = open_source(model_spec("torchvision:googlenet", path), spec).logits(tensors, lambda _: None)
    assert logits == pytest.approx(run_torch(plain, spec, tensors), abs=1e-5)
    with pytest.raises(ModelError, match=r"tensors are missing \(aux1\."):
        open_source(model_spec("torchvision:googlenet", path, arguments={"aux_logits": True}), spec)
