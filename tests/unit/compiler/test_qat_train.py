"""The rung as a whole: training, resuming, and what is left in the folder."""
# ruff: noqa: TID253 - the tests of what uses torch use torch

from __future__ import annotations

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from qat_builders import small_network
from safetensors.torch import load_file
from training_builders import Listener, Stopped, explained, training_data

from edgekit.catalog.compress import QatSpec
from edgekit.compiler.distill.settings import Frames
from edgekit.compiler.progress import Silent
from edgekit.compiler.quantize.qat import calibrate
from edgekit.compiler.quantize.qat.train import GRAPH, QUANTIZERS, WEIGHTS, QatTask, quantized, settings_of, train_qat
from edgekit.errors import DataError

SPEC = QatSpec(epochs=2, frames_per_epoch=32, batch=8, learning_rate=1e-4)


def task(**changes):
    module = small_network()
    data = training_data()
    fields = {"module": module, "teachers": [explained(module)], "data": data, "calibration": data.train.tensors[:16], "spec": SPEC}
    return QatTask(**{**fields, **changes})


@pytest.fixture
def poor_start(monkeypatch):
    """Ranges eight times too wide: something to learn."""
    monkeypatch.setattr(calibrate, "best_range", lambda *given: 8 * given[1])


@pytest.mark.usefixtures("poor_start")
def test_training_brings_the_rounded_network_nearer_to_its_teacher(tmp_path):
    """The best epoch's loss on val is below the start's, and the classifier itself is not changed."""
    given = task(spec=dataclasses.replace(SPEC, learning_rate=1e-3))
    before = copy.deepcopy(given.module.state_dict())
    result = train_qat(given, tmp_path, Silent())
    history = result.history
    assert history.best_epoch > 0
    assert history.epochs[history.best_epoch - 1]["val_loss"] < history.start["val_loss"]
    assert set(history.epochs[0]["parts"]) == {"soft", "logits", "maps"}
    assert all(torch.equal(value, given.module.state_dict()[name]) for name, value in before.items())


@pytest.mark.usefixtures("poor_start")
def test_scales_are_learned_and_told(tmp_path):
    """They move from where calibration put them, and stand in the JSON beside the weights."""
    given = task(spec=dataclasses.replace(SPEC, learning_rate=1e-3))
    result = train_qat(given, tmp_path, Silent())
    told = json.loads((tmp_path / QUANTIZERS).read_text())
    network, spec = quantized(given.module, given.data.input)
    start, trained = load_file(tmp_path / "start.safetensors"), load_file(tmp_path / WEIGHTS)
    network.load_state_dict(trained)
    assert result.input == spec == dataclasses.replace(given.data.input, channels=1, mean=(127.5,), std=(127.5,))
    assert [(item["name"], item["low"], item["high"]) for item in told] == [
        (name, part.limits.low, part.limits.high) for name, part in network.values().items()
    ]
    assert told[0]["scale"] == pytest.approx(next(iter(network.values().values())).scale.item())
    learned = [name for name in start if name.endswith(".theta")]
    assert learned
    assert not any(torch.equal(start[name], trained[name]) for name in learned)


@pytest.mark.usefixtures("poor_start")
def test_the_head_stays_as_it_was_trained(tmp_path):
    """A map means what it meant; everything before the head learns."""
    given = task(spec=dataclasses.replace(SPEC, learning_rate=1e-3))
    train_qat(given, tmp_path, Silent())
    start, trained = load_file(tmp_path / "start.safetensors"), load_file(tmp_path / WEIGHTS)
    for name in ("weight", "bias"):
        assert torch.equal(trained[f"graph.9.{name}"], given.module[9].state_dict()[name])
    assert not torch.equal(start["graph.4.weight"], trained["graph.4.weight"])


def test_an_interrupted_training_ends_with_the_same_files(tmp_path):
    """Interrupted in the middle of the training; the calibrated start is not made again."""
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    train_qat(task(), whole, Silent())
    with pytest.raises(Stopped):
        train_qat(task(), resumed, Listener(stop_at="epoch 2"))
    start = (resumed / "start.safetensors").stat().st_mtime_ns
    train_qat(task(), resumed, Silent())
    assert (resumed / "start.safetensors").stat().st_mtime_ns == start
    for name in (GRAPH, WEIGHTS, QUANTIZERS):
        assert (whole / name).read_bytes() == (resumed / name).read_bytes()


def test_labels_have_no_say(tmp_path):
    """The same training with other labels gives the same weights."""
    data = training_data()
    shuffled = dataclasses.replace(data, train=Frames(tensors=data.train.tensors, truth=np.roll(data.train.truth, 1, axis=0)))
    train_qat(task(), tmp_path / "a", Silent())
    train_qat(task(data=shuffled), tmp_path / "b", Silent())
    assert (tmp_path / "a" / GRAPH).read_bytes() == (tmp_path / "b" / GRAPH).read_bytes()


def test_without_calibration_frames_there_is_no_start(tmp_path):
    """It is refused, with the split that is empty."""
    with pytest.raises(DataError, match="no calibration frames"):
        train_qat(task(calibration=np.zeros((0, 32, 32, 1), dtype=np.uint8)), tmp_path, Silent())


def test_the_settings_are_the_recipes():
    """No labels, no weight decay, no softening; every epoch is run."""
    settings = settings_of(QatSpec(epochs=3, batch=4, frames_per_epoch=8, learning_rate=1e-3, logit_weight=0.1, cam_weight=0.2, seed=5))
    found = {
        name: getattr(settings, name)
        for name in ("epochs", "batch", "frames_per_epoch", "learning_rate", "logit_weight", "cam_weight", "seed")
    }
    assert found == {
        "epochs": 3,
        "batch": 4,
        "frames_per_epoch": 8,
        "learning_rate": 1e-3,
        "logit_weight": 0.1,
        "cam_weight": 0.2,
        "seed": 5,
    }
    assert (settings.hard_weight, settings.weight_decay, settings.temperature, settings.patience) == (0.0, 0.0, 1.0, 3)
