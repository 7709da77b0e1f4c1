"""Tiny recurrent networks of every cell, untrained; importing this file imports torch."""
# ruff: noqa: TID253 - see above

from __future__ import annotations

import torch
from network_builders import SIDE, input_spec
from torch import nn

from edgekit.catalog.recipe import ModelSpec

HELD, CHANNELS = 6, 8
INPUT = input_spec(channels=1, mean=(127.5,), std=(63.75,))
STATES = {"gru-cell": (1, HELD), "lstm-cell": (1, 2 * HELD), "gru": (1, HELD), "lstm": (1, 2 * HELD)}
CELLS = {"gru-cell": nn.GRUCell, "lstm-cell": nn.LSTMCell, "gru": nn.GRU, "lstm": nn.LSTM}


class Recurrent(nn.Module):
    """Two convolutions, a mean, a cell, a linear layer: forward(frame, state) → (logits, next_state)."""

    def __init__(self, kind: str, *, outputs: int = 3, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.kind = kind
        self.cnn = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, CHANNELS, 3, 2, 1), nn.ReLU())
        self.cell = CELLS[kind](CHANNELS, HELD, **({} if kind.endswith("cell") else {"batch_first": True}))
        self.fc = nn.Linear(HELD, outputs)
        with torch.no_grad():
            for parameter in [*self.cell.parameters(), *self.fc.parameters()]:
                parameter.mul_(2)

    def tail(self, features: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        vector = features.mean((2, 3))
        if self.kind == "gru-cell":
            out = held = self.cell(vector, state)
        elif self.kind == "lstm-cell":
            out, inner = self.cell(vector, state.chunk(2, 1))
            held = torch.cat([out, inner], 1)
        elif self.kind == "gru":
            sequence, last = self.cell(vector[:, None], state[None])
            out, held = sequence[:, 0], last[0]
        else:
            h, c = state.chunk(2, 1)
            sequence, (h, c) = self.cell(vector[:, None], (h[None].contiguous(), c[None].contiguous()))
            out, held = sequence[:, 0], torch.cat([h[0], c[0]], 1)
        return self.fc(out), held

    def forward(self, frame: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.tail(self.cnn(frame), state)


def recurrent_spec(kind: str = "gru-cell", **changes: object) -> ModelSpec:
    """The `[model]` of such a network."""
    fields = {"source": "python:nets:build", "labels": ("a", "b", "c"), "task": "multiclass", "state": STATES[kind]}
    return ModelSpec(**{**fields, **changes})


def example(seed: int = 0) -> torch.Tensor:
    """A normalized frame, (1, 1, SIDE, SIDE)."""
    return torch.rand((1, 1, SIDE, SIDE), generator=torch.Generator().manual_seed(seed)) * 2 - 1
