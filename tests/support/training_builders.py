"""Frames that a tiny network can learn, networks to train, and a listener.

Any test may `from training_builders import training_data, explained, Listener`. Importing this file imports torch.
"""
# ruff: noqa: TID253 - see above

from __future__ import annotations

import numpy as np
import torch
from network_builders import LABELS, SIDE, input_spec, tiny_network

from edgekit.compiler.distill.answer import Explained
from edgekit.compiler.distill.trainer import Frames, TrainData, TrainSettings, train
from edgekit.schema.model_io import OutputSpec

MULTICLASS = OutputSpec(labels=LABELS, task="multiclass")
BINARY = OutputSpec(labels=("negative", "positive"), task="binary", positive="positive")
MULTILABEL = OutputSpec(labels=LABELS, task="multilabel")


def labelled(count, seed=0, output=MULTICLASS):
    """Frames whose label is their texture: stripes across, brightness, stripes down; for multilabel each label by a coin, and its texture added."""
    random = np.random.default_rng(seed)
    labels = len(output.labels)
    truth = random.random((count, labels)) < 0.5 if output.task == "multilabel" else np.eye(labels, dtype=bool)[np.arange(count) % labels]
    stripes = np.tile([0.0, 90.0], (SIDE, SIDE // 2))
    patterns = np.stack([stripes.T, np.full((SIDE, SIDE), 90.0), stripes])[:labels]
    tensors = random.uniform(20, 60, (count, SIDE, SIDE)) + np.tensordot(truth.astype(float), patterns, axes=1)
    return Frames(tensors=tensors.clip(0, 255).astype(np.uint8)[..., None], truth=truth)


def training_data(train=48, val=24, *, output=MULTICLASS, **changes):
    """Both splits."""
    fields = {"train": labelled(train, 1, output), "val": labelled(val, 2, output), "input": input_spec(), "output": output}
    return TrainData(**{**fields, **changes})


def settings(**changes):
    """Two short epochs with every part of the loss but features."""
    return TrainSettings(**{"epochs": 2, "batch": 8, "learning_rate": 1e-2, "logit_weight": 0.1, **changes})


def explained(module=None, *, seed=0, outputs=3):
    """A network that answers with its map; by default the tiny one, fresh each time."""
    module = tiny_network(outputs, seed=seed) if module is None else module
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 0.1  # what settled it remembers the last batch alone
    return Explained(module, torch.zeros(1, 3, SIDE, SIDE))


def same_weights(first, second):
    """Whether two networks have the same state, bit for bit."""
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Stopped(Exception):  # noqa: N818 - an interruption, not an error of edgekit's
    """What a user's interruption looks like."""


class Listener:
    """Collects what training tells; may interrupt it at a note."""

    def __init__(self, stop_at=None):
        self.notes = []
        self.steps = []
        self._stop_at = stop_at

    def begin(self, stage, *, cached):
        pass

    def step(self, done, total):
        self.steps.append((done, total))

    def note(self, text):
        self.notes.append(text)
        if self._stop_at is not None and text.startswith(self._stop_at):
            raise Stopped

    def end(self):
        pass


def reference_training(folder, *, stop_at=None, **changes):
    """The training that is compared between numbers of processes: two teachers, every part of the loss.

    Returns:
        The student, its history and what was told.
    """
    given = settings(feature_weight=0.5, **changes)
    student, listener = explained(seed=1), Listener(stop_at)
    history = train(student, [explained(seed=7), explained(seed=8)], training_data(), given, folder / "checkpoints", listener)
    return student, history, listener
