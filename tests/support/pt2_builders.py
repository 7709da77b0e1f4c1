"""Real `.pt2` archives of torch.export, and what it takes to tamper with them.

Any test may `from pt2_builders import Network, save, tampered` (`tests/conftest.py` puts this folder on the path).
"""
# ruff: noqa: TID253 - importing this file imports torch

from __future__ import annotations

import io
import json
import zipfile

import torch
from network_builders import input_spec, model_spec, settle

from edgekit.compiler.load.pt2_file import open_pt2

MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
SAMPLES = "data/sample_inputs/model.pt"


class Network(torch.nn.Module):
    """With batch normalization, an in-place activation, a buffer that is not saved, a constant, and operators of several outputs and of a mode."""

    def __init__(self, outputs=3):
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.ModuleDict(
            {"a-b": torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.ReLU(True))}
        )
        self.head = torch.nn.Linear(8, outputs)
        self.register_buffer("scale", torch.full((1,), 1.5), persistent=False)
        self.outputs = outputs
        settle(self)

    def forward(self, x):
        left, right = self.body["a-b"](x).chunk(2, 1)
        features = torch.nn.functional.gelu(torch.cat([right, left], 1).mean((2, 3)), approximate="tanh")
        return self.head(features) * self.scale + torch.linspace(0, 1, 3)[: self.outputs] + torch.tensor([0.25])


def save(module, path, *, example=None, **options):
    """Exports and saves; `example` is one frame of 32 × 32 by default."""
    example = (torch.rand(1, 3, 32, 32),) if example is None else example
    with torch.no_grad():
        torch.export.save(torch.export.export(module, example, **options), path)
    return path


def opened(path, model=None):
    """As the compiler opens it, for three labels."""
    return open_pt2(str(path), model or model_spec(f"pt2:{path}"), input_spec())


def members(archive):
    """Name without the folder to content."""
    with zipfile.ZipFile(archive) as source:
        return {name.partition("/")[2]: source.read(name) for name in source.namelist()}


def pack(path, content, *, folder="net"):
    """Writes members into one folder, stored."""
    with zipfile.ZipFile(path, "w") as target:
        for name, data in content.items():
            target.writestr(f"{folder}/{name}", data)
    return path


def tampered(archive, path, name, change):
    """The archive with one JSON member changed by a function of its table."""
    content = members(archive)
    table = json.loads(content[name])
    change(table)
    return pack(path, {**content, name: json.dumps(table)})


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def payload(path):
    """A payload as torch.save packs it."""
    buffer = io.BytesIO()
    torch.save(Payload(path), buffer)
    return buffer.getvalue()


def first(table):
    """The first tensor of a payload table."""
    return next(iter(table["config"].values()))


def nodes(table):
    """The operators of a program."""
    return table["graph_module"]["graph"]["nodes"]
