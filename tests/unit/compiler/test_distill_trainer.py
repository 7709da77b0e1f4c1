"""The training: that it teaches, that it can be interrupted anywhere, what it leaves behind, and what it refuses."""
# ruff: noqa: TID253, E731, ARG005 - the tests of what uses torch use torch; a table of cases is called alike

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
import torch
from network_builders import SIDE, input_spec, tiny_network
from safetensors import safe_open
from safetensors.torch import save_file
from training_builders import (
    BINARY,
    MULTICLASS,
    MULTILABEL,
    Frames,
    Listener,
    Stopped,
    TrainData,
    explained,
    labelled,
    same_weights,
    settings,
    training_data,
)

from edgekit.catalog.compress import AugmentSpec, DistillSpec
from edgekit.compiler.distill import batches, checkpoint
from edgekit.compiler.distill.answer import Explained
from edgekit.compiler.distill.loop import one_cycle, optimizer_of
from edgekit.compiler.distill.settings import History, settings_of
from edgekit.compiler.distill.trainee import Trainee
from edgekit.compiler.distill.trainer import train
from edgekit.errors import CatalogError, DataError, ModelError


@pytest.fixture(scope="module")
def data():
    return training_data()


@pytest.fixture(scope="module")
def teacher():
    return explained(seed=7)


def trained(data, teachers, given, folder, *, seed=1, progress=None, student=None):
    """A fresh student, trained; returns it and its history."""
    student = explained(seed=seed) if student is None else student
    return student, train(student, teachers, data, given, folder, progress or Listener())


def test_a_student_comes_near_its_teachers_answers_and_maps(data, teacher, tmp_path):
    """On frames it was not trained on; the history tells so part by part."""
    given = settings(epochs=8, hard_weight=0.0, learning_rate=2e-2, augment=None)
    student, history = trained(data, [teacher], given, tmp_path)
    assert history.best_epoch > 0
    best = history.epochs[history.best_epoch - 1]
    for name in ("soft", "logits", "maps"):
        assert best["val_parts"][name] < 0.3 * history.start["val_parts"][name]
    x = batches.Normalize(data.input, torch.device("cpu"))(torch.from_numpy(data.val.tensors))
    with torch.no_grad():
        distance = float(((student(x).logits - teacher(x).logits) ** 2).mean())
    assert distance == pytest.approx(best["val_parts"]["logits"], rel=1e-4)


@pytest.mark.parametrize(
    ("output", "auc"), [(MULTICLASS, 0.95), (MULTILABEL, 0.8), (BINARY, 0.95)], ids=["multiclass", "multilabel", "binary"]
)
def test_labels_alone_teach_too(output, auc, tmp_path):
    """The AUC on val rises from a half or less, for each task; a binary student may have one logit beside a teacher of two."""
    frames = training_data(96, 48, output=output)
    outputs = 1 if output is BINARY else 3
    given = settings(epochs=12, soft_weight=0.0, hard_weight=1.0, logit_weight=0.0, cam_weight=0.0, learning_rate=3e-2)
    _, history = trained(
        frames, [explained(seed=7, outputs=2 if output is BINARY else 3)], given, tmp_path, student=explained(seed=1, outputs=outputs)
    )
    assert history.start["val_auc"] < 0.7
    assert history.epochs[-1]["val_auc"] > auc
    assert set(history.epochs[-1]["parts"]) == {"hard"}


class Noisy(torch.nn.Module):
    """Dropout and batch normalization: everything that is random or has a state."""

    def __init__(self, seed=1):
        super().__init__()
        self.body = tiny_network(seed=seed)[:3]
        self.drop = torch.nn.Dropout(0.3)
        self.classifier = torch.nn.Linear(8, 3)

    def forward(self, x):
        return self.classifier(self.drop(self.body(x).mean((2, 3))))


@pytest.mark.parametrize("epoch", [1, 2, 3])
@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_an_interrupted_training_ends_with_the_same_bits(data, teacher, tmp_path, epoch, precision):
    """Interrupted after an epoch, at any time in the next one: weights, projections and history, the seconds apart."""
    given = settings(epochs=4, feature_weight=0.5, augment=AugmentSpec(speckle=0.1), precision=precision)
    teachers = [teacher, explained(seed=8)]
    torch.manual_seed(3)
    whole, wanted = trained(data, teachers, given, tmp_path / "whole", student=explained(Noisy()))
    torch.manual_seed(3)
    interrupted = explained(Noisy())
    fresh = copy.deepcopy(interrupted)
    with pytest.raises(Stopped):
        trained(data, teachers, given, tmp_path / "cut", student=interrupted, progress=Listener(f"epoch {epoch + 1} "))
    assert not same_weights(interrupted, fresh)
    torch.manual_seed(99)
    listener = Listener()
    resumed, found = trained(data, teachers, given, tmp_path / "cut", student=fresh, progress=listener)
    assert same_weights(resumed, whole)
    assert f"training goes on after epoch {epoch}" in listener.notes
    without = lambda history: [{**item, "seconds": 0} for item in history.epochs]
    assert without(found) == without(wanted)
    assert (found.best_epoch, found.start, found.stopped) == (wanted.best_epoch, wanted.start, wanted.stopped)
    assert same_weights_of_files(tmp_path / "whole", tmp_path / "cut")


def same_weights_of_files(first, second):
    """Whether two folders hold the same checkpoint, the optimizer's memory included."""
    with safe_open(first / checkpoint.FILE, "pt") as one, safe_open(second / checkpoint.FILE, "pt") as other:
        names = set(one.keys())
        assert any(name.startswith("optimizer/") for name in names)
        assert any(name.startswith("trainee/hints.") for name in names)
        return names == set(other.keys()) and all(torch.equal(one.get_tensor(name), other.get_tensor(name)) for name in names)


def test_a_training_that_had_ended_is_read(data, teacher, tmp_path):
    """Without another step."""
    first, wanted = trained(data, [teacher], settings(), tmp_path)
    listener = Listener()
    second, found = trained(data, [teacher], settings(), tmp_path, progress=listener)
    assert same_weights(first, second)
    assert found == wanted
    assert listener.steps == []


def test_what_nothing_improves_keeps_its_weights(data, tmp_path):
    """The start is a candidate: a student that is its teacher stays it, and training stops after `patience` epochs."""
    listener = Listener()
    student, history = trained(
        data, [explained(seed=1)], settings(epochs=9, patience=2, hard_weight=0.0), tmp_path, seed=1, progress=listener
    )
    assert history.best_epoch == 0
    assert len(history.epochs) == 2
    assert history.stopped == "no better loss on val for 2 epochs"
    assert listener.notes[-1] == "stopped early: no better loss on val for 2 epochs"
    assert same_weights(student, explained(seed=1))


def test_the_best_epoch_on_val_is_kept(data, teacher, tmp_path):
    """Its loss is the smallest, and the student's weights are those it had then."""
    seen = []
    listener = Listener()
    student = explained(seed=1)
    note = listener.note
    listener.note = lambda text: (seen.append(copy.deepcopy(student)), note(text))
    _, history = trained(data, [teacher], settings(epochs=5, learning_rate=3.0, patience=5), tmp_path, student=student, progress=listener)
    losses = [history.start["val_loss"], *(item["val_loss"] for item in history.epochs)]
    assert history.best_epoch == int(np.argmin(losses))
    assert history.best_epoch < 5
    assert same_weights(student, seen[history.best_epoch])


def test_val_decides_and_train_teaches(data, teacher, tmp_path):
    """Other frames in val leave the first epoch's training as it was."""
    _, one = trained(data, [teacher], settings(epochs=1, cam_weight=0.0), tmp_path / "a")
    other_data = TrainData(train=data.train, val=labelled(30, 9), input=data.input, output=data.output)
    _, other = trained(other_data, [teacher], settings(epochs=1, cam_weight=0.0), tmp_path / "b")
    assert one.epochs[0]["train_loss"] == other.epochs[0]["train_loss"]
    assert one.epochs[0]["val_loss"] != other.epochs[0]["val_loss"]


def test_everything_comes_back_as_it_was(data, tmp_path):
    """The teacher whole: weights, memory layout and modes; the student evaluating; and the caller's random numbers."""
    teacher = explained(seed=7).train()
    teacher.module[1].eval()
    weights, layouts = copy.deepcopy(teacher.state_dict()), [parameter.stride() for parameter in teacher.parameters()]
    student = explained(seed=1)
    state = torch.get_rng_state()
    student, _ = trained(data, [teacher], settings(epochs=1), tmp_path, student=student)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(weights[name], tensor) for name, tensor in teacher.state_dict().items())
    assert [parameter.stride() for parameter in teacher.parameters()] == layouts
    assert [part.training for part in teacher.module] == [True, False, True, True, True, True]
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not any(part.training for part in student.modules())
    assert all(parameter.is_contiguous() for parameter in student.parameters())


def test_frozen_batch_normalizations_keep_their_figures(data, teacher, tmp_path):
    """While their weights still learn; without freezing the figures move."""
    given = {"epochs": 1, "hard_weight": 0.0}
    frozen, _ = trained(data, [teacher], settings(freeze_batch_norm=True, **given), tmp_path / "a")
    moving, _ = trained(data, [teacher], settings(**given), tmp_path / "b")
    start = explained(seed=1)
    assert torch.equal(frozen.module[1].running_mean, start.module[1].running_mean)
    assert not torch.equal(frozen.module[1].weight, start.module[1].weight)
    assert not torch.equal(moving.module[1].running_mean, start.module[1].running_mean)


def test_progress_counts_every_step_to_its_end(data, teacher, tmp_path):
    """Rising by one, the total known from the first."""
    listener = Listener()
    trained(data, [teacher], settings(epochs=2), tmp_path, progress=listener)
    done, totals = zip(*listener.steps, strict=True)
    assert list(done) == list(range(1, totals[0] + 1))
    assert set(totals) == {totals[0]}
    assert [note.split(":")[0] for note in listener.notes] == ["before training", "epoch 1 of 2", "epoch 2 of 2"]


def test_networks_without_maps_are_trained_without_them(data, teacher, tmp_path):
    """And it is said whose head has none, and why."""
    flat = torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.Flatten(), torch.nn.Linear(3 * 16, 3))
    for student, teachers, who in ((explained(flat), [teacher], "student"), (explained(seed=1), [explained(flat)], "teacher")):
        listener = Listener()
        _, history = trained(data, teachers, settings(epochs=1, feature_weight=1.0), tmp_path / who, student=student, progress=listener)
        assert set(history.epochs[0]["parts"]) == {"soft", "hard", "logits"}
        assert f"the maps are not compared: the {who} has none (the classifier's input is not a spatial mean" in listener.notes[0]
        assert listener.notes[1].startswith("the features are not compared")


class Broken(torch.nn.Module):
    """A teacher or student at fault."""

    def __init__(self, fault):
        super().__init__()
        self.module = tiny_network(4 if fault == "outputs" else 3)
        self.fault = fault
        self.calls = 0

    def forward(self, x):
        logits = self.module(x)
        if self.fault == "batch" and len(x) > 1:
            raise RuntimeError("Expected input at *args[0].shape[0] to be equal to 1, but got 2")
        if self.fault == "late" and self.training:
            self.calls += 1
            logits = logits * (math.nan if self.calls > 3 else 1)
        return logits * math.nan if self.fault == "nan" else logits


STUDENT_FAULTS = {
    "outputs": "the student has 4 outputs for 3 labels",
    "nan": "on val is not finite",
    "late": "training's loss is not finite",
}
TEACHER_FAULTS = {"outputs": "teacher 2 has 4 outputs", "nan": "not finite", "batch": "a teacher fails on 2 frames: Expected input"}


@pytest.mark.parametrize("fault", STUDENT_FAULTS)
def test_a_student_at_fault_ends_the_training(data, teacher, tmp_path, fault):
    """With a hint where there is something to do."""
    with pytest.raises(ModelError, match=STUDENT_FAULTS[fault]) as caught:
        trained(data, [teacher], settings(), tmp_path, student=Explained(Broken(fault), torch.zeros(1, 3, SIDE, SIDE)))
    assert fault == "outputs" or "lower learning_rate" in caught.value.hint


@pytest.mark.parametrize("fault", TEACHER_FAULTS)
def test_a_teacher_at_fault_ends_the_training(data, teacher, tmp_path, fault):
    """Any of several."""
    with pytest.raises(ModelError, match=TEACHER_FAULTS[fault]):
        trained(data, [teacher, Explained(Broken(fault), torch.zeros(1, 3, SIDE, SIDE))], settings(), tmp_path)


FOREIGN = {
    "settings": lambda data, teacher: (data, teacher, settings(learning_rate=2e-2), 1),
    "student": lambda data, teacher: (data, teacher, settings(), 2),
    "teacher": lambda data, teacher: (data, explained(seed=8), settings(), 1),
    "labels": lambda data, teacher: (training_data(train=47), teacher, settings(), 1),
}


@pytest.mark.parametrize("change", FOREIGN.values(), ids=FOREIGN)
def test_another_trainings_checkpoint_is_refused(data, teacher, tmp_path, change):
    """And stays as it is."""
    trained(data, [teacher], settings(), tmp_path)
    before = (tmp_path / checkpoint.FILE).read_bytes()
    frames, other, given, seed = change(data, teacher)
    with pytest.raises(ModelError, match="is of another training") as caught:
        trained(frames, [other], given, tmp_path, seed=seed)
    assert "remove the folder" in caught.value.hint
    assert (tmp_path / checkpoint.FILE).read_bytes() == before


DAMAGED = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-10]),
    "empty": lambda path: path.write_bytes(b""),
    "pickle": lambda path: torch.save({"a": 1}, path),
    "no-header": lambda path: save_file({"a": torch.zeros(1)}, path),
    "no-json": lambda path: save_file({"a": torch.zeros(1)}, path, metadata={"edgekit": "{"}),
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_checkpoint_is_refused(data, teacher, tmp_path, damage):
    """By name, with what to do."""
    trained(data, [teacher], settings(epochs=1), tmp_path)
    damage(tmp_path / checkpoint.FILE)
    with pytest.raises(ModelError, match=r"checkpoint\.safetensors cannot be read"):
        trained(data, [teacher], settings(epochs=1), tmp_path)


def test_a_checkpoint_is_tensors_and_json_and_replaces_the_last_one_whole(data, teacher, tmp_path):
    """Nothing else lies in the folder: no pickle and no half-written file."""
    trained(data, [teacher], settings(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.FILE]
    with safe_open(tmp_path / checkpoint.FILE, "pt") as file:
        document = json.loads(file.metadata()["edgekit"])
    assert len(document["history"]["epochs"]) == 2


def test_a_failed_write_leaves_the_last_checkpoint(data, teacher, tmp_path, monkeypatch):
    """The disk is full when the second is written."""
    written = []

    def replace(path, target):
        written.append(target)
        if len(written) > 1:
            raise OSError(28, "No space left on device")
        return original(path, target)

    original = type(tmp_path).replace
    monkeypatch.setattr(type(tmp_path), "replace", replace)
    with pytest.raises(Exception, match="No space left"):
        trained(data, [teacher], settings(), tmp_path)
    monkeypatch.undo()
    student, history = trained(data, [teacher], settings(), tmp_path)
    assert len(history.epochs) == 2
    assert same_weights(student, trained(data, [teacher], settings(), tmp_path / "whole")[0])


def test_half_precision_is_used_where_it_is_asked_for(data, teacher, tmp_path):
    """bf16 trains otherwise than f32 and judges alike; f16 needs a GPU."""
    found = [trained(data, [teacher], settings(epochs=1, precision=name), tmp_path / name)[1] for name in ("f32", "bf16")]
    assert found[0].start == found[1].start
    assert found[0].epochs[0]["train_loss"] != found[1].epochs[0]["train_loss"]
    assert found[0].epochs[0]["val_loss"] == pytest.approx(found[1].epochs[0]["val_loss"], rel=0.2)
    if not torch.cuda.is_available():
        with pytest.raises(CatalogError, match="f16' needs a GPU"):
            trained(data, [teacher], settings(precision="f16"), tmp_path / "f16")


def test_every_frame_of_an_epoch_is_seen_once():
    """Drawn anew for each epoch; several processes share each batch."""
    given = settings(batch=6, frames_per_epoch=19)
    rows = [np.concatenate(list(batches.epoch_rows(40, given, epoch=epoch, rank=0, processes=1))) for epoch in (1, 2)]
    assert [len(set(item.tolist())) for item in rows] == [18, 18]
    assert set(rows[0].tolist()) != set(rows[1].tolist())
    shared = [list(batches.epoch_rows(40, given, epoch=1, rank=rank, processes=3)) for rank in range(3)]
    together = [np.concatenate(parts) for parts in zip(*shared, strict=True)]
    assert np.array_equal(np.concatenate(together), rows[0])
    assert {len(part) for parts in shared for part in parts} == {2}


def test_fewer_frames_than_a_batch_are_one_batch(teacher, tmp_path):
    """A small data set is trained on, not skipped."""
    _, history = trained(training_data(5, 3), [teacher], settings(epochs=1, batch=32), tmp_path)
    assert history.epochs[0]["train_loss"] > 0
    assert list(map(len, batches.epoch_rows(5, settings(batch=32), epoch=1, rank=0, processes=2))) == [2]


def test_processes_must_share_a_batch_evenly():
    """Else their gradients could not be averaged."""
    with pytest.raises(CatalogError, match="a batch of 8 frames cannot be shared evenly by 3 processes"):
        batches.batch_size(100, settings(batch=8), 3)
    with pytest.raises(DataError, match="1 frames cannot be shared by 2 processes"):
        batches.batch_size(1, settings(batch=8), 2)


def test_frames_are_normalized_as_the_trained_model_takes_them(data):
    """Bit for bit as the reference does it, grey repeated, in channels-last memory."""
    from edgekit.compiler.load.source import normalize

    found = batches.Normalize(data.input, torch.device("cpu"))(torch.from_numpy(data.val.tensors))
    assert np.array_equal(found.numpy(), normalize(data.val.tensors, data.input))
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 50, 1000])
def test_the_learning_rate_is_pytorchs_one_cycle(steps):
    """Step by step; where the schedule is too short for PyTorch's, it still ends within its limits."""
    found = [one_cycle(step, steps, 0.1) for step in range(steps)]
    assert all(0 < rate <= 0.1 for rate in found)
    if steps >= 7:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
        wanted = []
        for step in range(steps):
            wanted.append(schedule.get_last_lr()[0])
            optimizer.step()
            if step + 1 < steps:
                schedule.step()
        assert found == pytest.approx(wanted, rel=1e-6)


FAULTY = {
    "no-frames": (lambda: {"val": Frames(tensors=labelled(3).tensors[:0], truth=labelled(3).truth[:0])}, "no frames of the split 'val'"),
    "size": (lambda: {"train": Frames(tensors=labelled(3).tensors[:, :-1], truth=labelled(3).truth)}, "the frames of train are uint8"),
    "type": (lambda: {"train": Frames(tensors=labelled(3).tensors.astype(float), truth=labelled(3).truth)}, "are float64"),
    "labels": (lambda: {"val": Frames(tensors=labelled(3).tensors, truth=labelled(4).truth)}, "3 frames and labels of shape"),
    "two-labels": (lambda: {"val": Frames(tensors=labelled(3).tensors, truth=labelled(3).truth | True)}, "exactly one true label"),
}


@pytest.mark.parametrize(("changes", "message"), FAULTY.values(), ids=FAULTY)
def test_frames_that_do_not_fit_are_refused(changes, message):
    """Before anything runs."""
    fields = {"train": labelled(3), "val": labelled(3), "input": input_spec(), "output": MULTICLASS}
    with pytest.raises(DataError, match=message):
        TrainData(**{**fields, **changes()})


def test_a_memory_map_that_cannot_be_written_is_trained_on(data, teacher, tmp_path):
    """As the frames' stage leaves it, and with the same result."""
    np.save(tmp_path / "frames.npy", data.train.tensors)
    mapped = Frames(tensors=np.load(tmp_path / "frames.npy", mmap_mode="r"), truth=data.train.truth)
    from_disk = TrainData(train=mapped, val=data.val, input=data.input, output=data.output)
    one, _ = trained(from_disk, [teacher], settings(epochs=1, augment=None), tmp_path / "a")
    other, _ = trained(data, [teacher], settings(epochs=1, augment=None), tmp_path / "b")
    assert same_weights(one, other)


def test_a_recipes_settings_are_the_trainings():
    """Every key of `distill` but the further teachers."""
    spec = DistillSpec(epochs=3, batch=4, learning_rate=1e-3, soft_weight=2.0, cam_weight=3.0, feature_weight=4.0, seed=5, precision="bf16")
    found = settings_of(spec)
    for name in DistillSpec.__dataclass_fields__:
        if name != "teachers":
            assert getattr(found, name) == getattr(spec, name)


def test_a_history_is_json(data, teacher, tmp_path):
    """Strict JSON, for the report."""
    _, history = trained(data, [teacher], settings(), tmp_path)
    document = json.loads(json.dumps(history.to_json(), allow_nan=False))
    assert [item["epoch"] for item in document["epochs"]] == [1, 2]
    assert set(document["epochs"][0]) >= {"train_loss", "parts", "val_loss", "val_auc", "learning_rate", "seconds"}
    assert isinstance(history, History)
    assert history.is_main


def test_a_frame_is_varied_anew_in_every_epoch(data):
    """And in none where nothing is asked for."""
    rows = np.arange(8)
    first, second = (batches.read(data.train, rows, settings(), epoch) for epoch in (1, 2))
    assert not torch.equal(first, second)
    assert torch.equal(first, batches.read(data.train, rows, settings(), 1))
    for given, epoch in ((settings(augment=None), 1), (settings(), None)):
        assert np.array_equal(batches.read(data.train, rows, given, epoch).numpy(), data.train.tensors[rows])


def test_only_matrices_and_kernels_decay():
    """Biases, normalizations and scales do not."""
    trainee = Trainee(explained(), [None, (8, 4)], 0)
    groups = optimizer_of(trainee, settings(weight_decay=0.3)).param_groups
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    for name, parameter in trainee.named_parameters():
        assert decays[id(parameter)] == (0.3 if name.split("module.")[-1] in ("0.weight", "5.weight", "hints.1.weight") else 0)
    assert len(decays) == 7


def test_rare_labels_weigh_more_where_it_is_asked_for(teacher, tmp_path):
    """The same first loss but for the weights, which are those of `train`."""
    source = labelled(48, 1)
    rows = np.flatnonzero(source.truth[:, 0] | (np.arange(48) % 8 == 1))
    few = Frames(tensors=source.tensors[rows], truth=source.truth[rows])
    given = {"epochs": 1, "soft_weight": 0.0, "logit_weight": 0.0, "cam_weight": 0.0, "hard_weight": 1.0}
    plain, weighted = (
        trained(
            TrainData(train=few, val=labelled(24, 2), input=input_spec(), output=MULTICLASS),
            [teacher],
            settings(class_weighting=flag, **given),
            tmp_path / str(flag),
        )[1].start["val_loss"]
        for flag in (False, True)
    )
    assert plain != pytest.approx(weighted, rel=1e-3)
