"""The loop of a training: setting up, epochs, and going on after an interruption. Rules and entry are in `trainer.py`."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch  # noqa: TID253 - this file is imported only by what trains

from edgekit.compiler.distill import batches, checkpoint
from edgekit.compiler.distill.losses import Loss, Objective, class_weights
from edgekit.compiler.distill.settings import History, TrainData, TrainSettings
from edgekit.compiler.distill.trainee import Trainee, ask, check_outputs
from edgekit.compiler.distill.validation import DIVERGED, Result, Shared, Validation
from edgekit.compiler.progress import Progress
from edgekit.errors import CatalogError, ModelError

if TYPE_CHECKING:
    from accelerate import Accelerator

WARM_UP = 0.3
"""Share of the steps in which the learning rate rises, to its largest from a twenty-fifth of it; it falls to a ten thousandth of that (Smith & Topin 2019,
with PyTorch's figures)."""
_START, _END = 1 / 25, 1e-4 / 25


class Run:
    """One training, from its start or from its checkpoint."""

    def __init__(  # noqa: PLR0913 - as `train`
        self,
        student: torch.nn.Module,
        teachers: Sequence[torch.nn.Module],
        data: TrainData,
        settings: TrainSettings,
        *,
        accelerator: Accelerator,
        progress: Progress,
    ) -> None:
        """Prepares; the networks are on the accelerator's device already."""
        self._teachers = teachers
        self._data = data
        self._settings = settings
        self._accelerator = accelerator
        self._progress = progress
        self._normalize = batches.Normalize(data.input, accelerator.device)
        shared = Shared(rank=accelerator.process_index, processes=accelerator.num_processes, gather=_gather)
        self._validation = Validation(data, settings, self._normalize, shared)
        self._steps = batches.steps_per_epoch(len(data.train.tensors), settings, accelerator.num_processes)
        self._type = _precision(settings, accelerator.device)
        self._scaler = torch.amp.GradScaler(accelerator.device.type, enabled=self._type is torch.float16)
        self._trainee, self._outputs = self._introduce(student)
        self._optimizer = optimizer_of(self._trainee, settings)
        self._best: dict[str, torch.Tensor] = {}
        self._best_loss = math.inf
        self._history: dict[str, Any] = {"start": {}, "epochs": [], "best_epoch": 0, "stopped": ""}
        self._done = self._total = 0

    def through(self, folder: Path, key: str) -> History:
        """Trains to the end, and leaves the best weights in the student."""
        self._restore(folder, key)
        if not self._history["stopped"]:
            self._prepare()
            while not self._history["stopped"]:
                self._epoch()
                self._judge()
                self._keep(folder, key)
        self._trainee.student.load_state_dict(self._best)
        self._accelerator.wait_for_everyone()
        history = self._history
        return History(
            start=history["start"],
            epochs=tuple(history["epochs"]),
            best_epoch=history["best_epoch"],
            stopped=history["stopped"],
            is_main=self._accelerator.is_main_process,
        )

    def _introduce(self, student: torch.nn.Module) -> tuple[Trainee, int]:
        """Lets the networks answer a frame or two, and finds out what can be compared."""
        rows = np.arange(min(2, len(self._data.train.tensors)))
        x = self._normalize(batches.read(self._data.train, rows, self._settings, None))
        student.eval()
        own = ask([student], x)[0]
        answers = ask(self._teachers, x)
        check_outputs(own, answers, self._data.output)
        if self._settings.cam_weight and (own.maps is None or all(answer.maps is None for answer in answers)):
            self._progress.note("the maps are not compared: " + _without_maps(student, self._teachers if own.maps is not None else ()))
        channels: list[tuple[int, int] | None] = [None for _ in answers]
        if self._settings.feature_weight:
            if own.features is None or all(answer.features is None for answer in answers):
                self._progress.note("the features are not compared: the student or every teacher pools none")
            else:
                channels = [None if item.features is None else (own.features.shape[1], item.features.shape[1]) for item in answers]
        return Trainee(student, channels, self._settings.seed).to(self._normalize.device), own.logits.shape[1]

    def _prepare(self) -> None:
        """What a training needs besides its state: the teachers' answers on `val`, the objective, and the start's worth."""
        settings, first = self._settings, not self._history["epochs"]
        epochs = settings.epochs - len(self._history["epochs"])
        self._total = epochs * (self._steps + len(self._validation)) + (2 if first else 1) * len(self._validation)
        scales = self._validation.ask(lambda x: ask(self._teachers, x), self._outputs, self._tick)
        weights = class_weights(self._data.train.truth, self._data.output, self._outputs) if settings.class_weighting else None
        self._objective = Objective(
            settings, self._data.output, class_weights=None if weights is None else weights.to(self._normalize.device), scales=scales
        )
        if first:
            start = self._validation.judge(self._trainee.student, self._objective, self._tick)
            self._history["start"] = {"val_loss": start.loss, "val_parts": start.parts, "val_auc": start.auc}
            self._remember(start, 0)
            self._progress.note(f"before training: val loss {start.loss:.4f}{_auc(start)}")
        self._model: torch.nn.Module = self._trainee
        if self._accelerator.num_processes > 1:
            self._model = self._parallel()

    def _parallel(self) -> torch.nn.Module:
        """The trainee in data-parallel clothes, which have to know whether some of its parameters never get a gradient."""
        from accelerate.utils import DistributedDataParallelKwargs

        rows = np.arange(min(2, len(self._data.train.tensors)))
        self._loss(self._trainee.eval(), rows, None).total.backward()  # type: ignore[no-untyped-call]
        unused = any(parameter.requires_grad and parameter.grad is None for parameter in self._trainee.parameters())
        self._optimizer.zero_grad()
        self._accelerator.ddp_handler = DistributedDataParallelKwargs(find_unused_parameters=unused)
        model: torch.nn.Module = self._accelerator.prepare_model(self._trainee)
        return model

    def _epoch(self) -> None:
        """One pass over the frames; its record is completed by `_judge`."""
        settings, accelerator = self._settings, self._accelerator
        epoch, began = len(self._history["epochs"]) + 1, time.perf_counter()
        torch.manual_seed(int(np.random.SeedSequence((settings.seed, epoch, accelerator.process_index)).generate_state(1)[0]))
        self._trainee.learn(freeze_batch_norm=settings.freeze_batch_norm)
        sums: dict[str, torch.Tensor] = {}
        rate = 0.0
        frames = len(self._data.train.tensors)
        parts = batches.epoch_rows(frames, settings, epoch=epoch, rank=accelerator.process_index, processes=accelerator.num_processes)
        for step, rows in enumerate(parts, (epoch - 1) * self._steps):
            rate = one_cycle(step, settings.epochs * self._steps, settings.learning_rate)
            loss = self._loss(self._model, rows, epoch)
            self._update(loss, rate)
            for name, value in {"total": loss.total.detach(), **loss.parts}.items():
                sums[name] = sums.get(name, 0) + value
            self._tick()
        means = {name: float(accelerator.reduce(value, reduction="mean")) / self._steps for name, value in sums.items()}
        self._share_buffers()
        record = {"epoch": epoch, "train_loss": means.pop("total"), "parts": means, "learning_rate": rate}
        self._history["epochs"].append({**record, "seconds": time.perf_counter() - began})

    def _loss(self, model: torch.nn.Module, rows: batches.Rows, epoch: int | None) -> Loss:
        x = self._normalize(batches.read(self._data.train, rows, self._settings, epoch))
        answers = ask(self._teachers, x)
        with torch.autocast(x.device.type, dtype=self._type, enabled=self._type is not None):
            answer, hints = model(x)
        return self._objective(answer, answers, torch.from_numpy(self._data.train.truth[rows]).to(x.device), hints)

    def _update(self, loss: Loss, rate: float) -> None:
        # The sum over the processes is not finite where any one's loss is not: all of them then stop here, and none waits for another.
        if not math.isfinite(float(self._accelerator.reduce(loss.total.detach().clone(), reduction="sum"))):
            raise ModelError("the training's loss is not finite", hint=DIVERGED)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._accelerator.backward(self._scaler.scale(loss.total))
        self._scaler.unscale_(self._optimizer)
        torch.nn.utils.clip_grad_norm_(self._trainee.parameters(), self._settings.gradient_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad()

    def _share_buffers(self) -> None:
        """Gives every process the running figures of the first."""
        from accelerate.utils import broadcast

        if self._accelerator.num_processes > 1:
            for buffer in self._trainee.buffers():
                broadcast(buffer, from_process=0)

    def _judge(self) -> None:
        """Completes the epoch's record, and decides whether it is the best and the last one."""
        settings, record, began = self._settings, self._history["epochs"][-1], time.perf_counter()
        found = self._validation.judge(self._trainee.student, self._objective, self._tick)
        record |= {"val_loss": found.loss, "val_parts": found.parts, "val_auc": found.auc}
        record["seconds"] += time.perf_counter() - began
        epoch = record["epoch"]
        if found.loss < self._best_loss:
            self._remember(found, epoch)
        told = f"epoch {epoch} of {settings.epochs}: loss {record['train_loss']:.4f}, val loss {found.loss:.4f}{_auc(found)}"
        self._progress.note(told + (" (best)" if self._history["best_epoch"] == epoch else ""))
        if epoch == settings.epochs:
            self._history["stopped"] = "all epochs done"
        elif epoch - self._history["best_epoch"] >= settings.patience:
            self._history["stopped"] = f"no better loss on val for {settings.patience} epochs"
            self._progress.note(f"stopped early: {self._history['stopped']}")

    def _remember(self, result: Result, epoch: int) -> None:
        self._best_loss = result.loss
        self._best = {name: tensor.detach().clone() for name, tensor in self._trainee.student.state_dict().items()}
        self._history["best_epoch"] = epoch

    def _tick(self) -> None:
        self._done += 1
        self._progress.step(self._done, max(self._done, self._total))

    def _keep(self, folder: Path, key: str) -> None:
        """Writes a checkpoint of the state after an epoch."""
        if not self._accelerator.is_main_process:
            return
        tensors = {f"trainee/{name}": tensor for name, tensor in self._trainee.state_dict().items()}
        tensors |= {f"best/{name}": tensor for name, tensor in self._best.items()}
        for place, parameter in enumerate(self._trainee.parameters()):
            tensors |= {f"optimizer/{place}/{name}": value for name, value in self._optimizer.state.get(parameter, {}).items()}
        document = {"history": self._history, "best_loss": self._best_loss, "scaler": self._scaler.state_dict()}
        checkpoint.write(folder, key, checkpoint.Checkpoint(tensors=tensors, document=document))

    def _restore(self, folder: Path, key: str) -> None:
        """Takes up the state of the last checkpoint, in every process, or refuses it in every process."""
        found: checkpoint.Checkpoint | None = None
        problem: ModelError | None = None
        try:
            found = checkpoint.read(folder, key)
        except ModelError as error:
            problem = error
        epochs = -1 if problem is not None else 0 if found is None else len(found.document["history"]["epochs"])
        every = _gather([epochs])
        if problem is not None:
            raise problem
        if len(set(every)) > 1:
            raise ModelError(
                f"the processes do not find the same checkpoint in {folder}",
                hint="they need one work folder, on a file system that all share",
            )
        if found is None:
            return
        self._trainee.load_state_dict(checkpoint.part(found.tensors, "trainee/"))
        self._best = {name: value.to(self._normalize.device) for name, value in checkpoint.part(found.tensors, "best/").items()}
        for place, parameter in enumerate(self._trainee.parameters()):
            saved = checkpoint.part(found.tensors, f"optimizer/{place}/")
            if saved:
                self._optimizer.state[parameter] = {name: _placed(value, parameter) for name, value in saved.items()}
        self._history, self._best_loss = found.document["history"], found.document["best_loss"]
        if found.document["scaler"]:
            self._scaler.load_state_dict(found.document["scaler"])
        if epochs and not self._history["stopped"]:
            self._progress.note(f"training goes on after epoch {epochs}")


def one_cycle(step: int, steps: int, largest: float) -> float:
    """The learning rate of a step of a one-cycle schedule (Smith & Topin 2019; both phases are half a cosine).

    Args:
        step: From 0.
        steps: In all.
        largest: At the end of the rise.
    """
    top = max(1.0, WARM_UP * steps - 1)
    if step <= top:
        low, high, share = _START, 1.0, step / top
    else:
        low, high, share = 1.0, _END, (step - top) / max(1.0, steps - 1 - top)
    return largest * (low + (high - low) * (1 - math.cos(math.pi * share)) / 2)


def optimizer_of(trainee: Trainee, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019); what is not a matrix or a kernel does not decay."""
    parameters = [parameter for parameter in trainee.parameters() if parameter.requires_grad]
    if not parameters:
        raise ModelError("the student has no parameter that could be trained")
    groups = [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=settings.learning_rate)


def _placed(saved: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """The optimizer's memory of a parameter, laid out like the parameter; its count of steps stays as it is."""
    return saved if saved.shape != parameter.shape or saved.ndim == 0 else torch.empty_like(parameter).copy_(saved)


def _precision(settings: TrainSettings, device: torch.device) -> torch.dtype | None:
    """The type of autocast; None for float32."""
    if settings.precision == "f16" and device.type == "cpu":
        raise CatalogError("precision = 'f16' needs a GPU", hint='choose "auto", "f32" or "bf16"')
    named = {"f32": None, "bf16": torch.bfloat16, "f16": torch.float16}
    if settings.precision != "auto":
        return named[settings.precision]
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def _gather(items: list[Any]) -> list[Any]:
    """The lists of all processes, joined in their order."""
    from accelerate.utils import gather_object

    result: list[Any] = gather_object(items)
    return result


def _without_maps(student: torch.nn.Module, teachers: Sequence[torch.nn.Module]) -> str:
    """Who has no maps: the teachers where there are any to blame, else the student."""
    who, network = ("the teacher", teachers[0]) if teachers else ("the student", student)
    reason = getattr(network, "reason", "")
    return f"{who} has none" + (f" ({reason})" if reason else "")


def _auc(result: Result) -> str:
    return "" if result.auc is None else f", AUC {result.auc:.4f}"
