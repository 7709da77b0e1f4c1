"""Recurrent classifiers of the phantom's cines, trained in seconds: a CNN and a GRU or LSTM over what moved between two frames.

As a module of `python:sliding_network:build` it is what a user's own would be: the state is an argument and a result. It holds what the cell holds, the features of
the frame before, and whether there was one.
"""
# ruff: noqa: TID253 - this is the user's own network

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgekit.evaluation.dataset import load_manifest
from edgekit.imaging import phantom_cine
from edgekit.imaging.frames import only_frame
from edgekit.imaging.phantom_scanner import PhantomSpec
from edgekit.schema.data import Columns
from edgekit.schema.model_io import OutputSpec

SPEC = PhantomSpec(rows=48, columns=64, lines=48, samples=96)
MEAN, STD = 60.0, 60.0
OUTPUT = OutputSpec(labels=phantom_cine.LABELS, task="binary", positive="sliding")
HELD, CHANNELS, ROWS, COLUMNS = 16, 8, 24, 32
CELLS = {"gru": (nn.GRUCell, 1), "lstm": (nn.LSTMCell, 2)}

RECIPE = """\
name = "sliding-{cell}"
version = "1.0.0"
targets = {targets}

[model]
source = "python:sliding_network:build"
arguments = {{ cell = "{cell}" }}
weights = "{cell}.safetensors"
state = [1, {state}]
labels = ["no-sliding", "sliding"]
task = "binary"
positive = "sliding"

[input]
color = "grey"
channels = 1
resize = [48, 64]
mean = [60.0]
std = [60.0]

[data]
manifest = "data/manifest.csv"

[compress]
quantize = {{ ladder = ["ptq"] }}
"""


class Sliding(nn.Module):
    """forward(frame, state) → (logits, next_state)."""

    def __init__(self, cell: str) -> None:
        super().__init__()
        kind, self.parts = CELLS[cell]
        self.cnn = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, CHANNELS, 3, 1, 1), nn.ReLU())
        self.cell = kind(2 * CHANNELS, HELD)
        self.fc = nn.Linear(HELD, 2)
        self.state = HELD * self.parts + CHANNELS * ROWS * COLUMNS + 1

    def step(self, features: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        held, before, seen = state.split([HELD * self.parts, CHANNELS * ROWS * COLUMNS, 1], 1)
        moved = (features - before.reshape(-1, CHANNELS, ROWS, COLUMNS)).abs() * seen[:, :, None, None]
        taken = torch.cat([moved.mean((2, 3)), features.mean((2, 3))], 1)
        if self.parts == 1:
            out = held = self.cell(taken, held)
        else:
            out, inner = self.cell(taken, held.chunk(2, 1))
            held = torch.cat([out, inner], 1)
        return self.fc(out), torch.cat([held, features.flatten(1), torch.ones_like(seen)], 1)

    def forward(self, frame: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.step(self.cnn(frame), state)


def build(cell: str) -> nn.Module:
    """The recipe's factory."""
    return Sliding(cell)


def write_project(
    folder: Path, cell: str, *, targets: tuple[str, ...] = ("x86-64",), patients: int = 40, frames: int = 8, epochs: int = 40
) -> Path:
    """Cines, a trained network and a recipe for it; returns the recipe."""
    if not (folder / "data" / "manifest.csv").exists():
        phantom_cine.write_cines(folder / "data", patients_per_class=patients, frames=frames, seed=1, spec=SPEC)
    network = train(folder / "data" / "manifest.csv", cell, epochs=epochs)
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, folder / f"{cell}.safetensors")
    recipe = folder / f"{cell}.toml"
    recipe.write_text(RECIPE.format(cell=cell, state=network.state, targets=str(list(targets)).replace("'", '"')))
    return recipe


def clips(manifest: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Frames uint8 (clips, frames, rows, columns) and whether each clip slides."""
    data = load_manifest(manifest, Columns(), OUTPUT)
    by_clip: dict[str, list[np.ndarray]] = {}
    slides: dict[str, bool] = {}
    for sample in data.split(split):
        by_clip.setdefault(sample.group, []).append(only_frame(sample.path))
        slides[sample.group] = sample.labels == ("sliding",)
    return np.array(list(by_clip.values())), np.array([slides[name] for name in by_clip])


def train(manifest: Path, cell: str, *, epochs: int) -> Sliding:
    """Trains on the cines of `train`; a lung of which nothing is known yet counts as one that does not slide."""
    frames, slides = clips(manifest, "train")
    x = torch.from_numpy((frames.astype(np.float32) - MEAN) / STD)[:, :, None]
    y = torch.from_numpy(slides.astype(np.int64))
    torch.manual_seed(0)
    network = Sliding(cell)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-2, total_steps=epochs * -(-len(y) // 16))
    for _ in range(epochs):
        for rows in torch.randperm(len(y)).split(16):
            logits = along(network, x[rows])
            wanted = y[rows].repeat_interleave(logits.shape[1])
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), wanted, weight=torch.tensor([1.5, 1.0]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def along(network: Sliding, x: torch.Tensor) -> torch.Tensor:
    """Logits (clips, frames, 2) of clips (clips, frames, 1, rows, columns)."""
    features = network.cnn(x.flatten(0, 1)).unflatten(0, x.shape[:2])
    state, found = torch.zeros(len(x), network.state), []
    for index in range(x.shape[1]):
        logits, state = network.step(features[:, index], state)
        found.append(logits)
    return torch.stack(found, 1)
