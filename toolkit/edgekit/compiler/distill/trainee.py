"""The networks at work: a student with its projections, its teachers, and what is done to them for the time of a training.

The file imports torch at its top since it defines modules; it is itself imported only by what trains.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch  # noqa: TID253 - see above

from edgekit.compiler.distill.answer import Answer
from edgekit.errors import ModelError
from edgekit.schema.model_io import OutputSpec

_BATCH_NORM = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d, torch.nn.SyncBatchNorm)


class Trainee(torch.nn.Module):
    """A student and its learned projections: everything that the optimizer changes, run as one.

    Attributes:
        student: Answers with `Answer`.
        hints: A 1 × 1 projection from the student's features to each teacher's (Romero et al. 2015); Identity where there is nothing to compare.
    """

    def __init__(self, student: torch.nn.Module, channels: Sequence[tuple[int, int] | None], seed: int) -> None:
        """Makes the projections.

        Args:
            student: The student.
            channels: For each teacher, the channels of the student's and of the teacher's features; None for no projection.
            seed: Of the projections' weights.
        """
        super().__init__()
        self.student = student
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            parts = [torch.nn.Identity() if pair is None else torch.nn.Conv2d(*pair, 1, bias=False) for pair in channels]
        self.hints = torch.nn.ModuleList(parts)

    def forward(self, x: torch.Tensor) -> tuple[Answer, tuple[torch.Tensor | None, ...]]:
        """The student's answer, and its features projected to each teacher's channels: float32 (frames, channels, rows, columns)."""
        answer: Answer = self.student(x)
        features = answer.features
        hints = (None if features is None or isinstance(part, torch.nn.Identity) else part(features).float() for part in self.hints)
        return answer, tuple(hints)

    def learn(self, *, freeze_batch_norm: bool) -> None:
        """Goes into training mode, batch normalizations perhaps not."""
        self.train()
        if freeze_batch_norm:
            for part in self.student.modules():
                if isinstance(part, _BATCH_NORM):
                    part.eval()


@contextmanager
def at_work(student: torch.nn.Module, teachers: Sequence[torch.nn.Module], device: torch.device) -> Iterator[None]:
    """Networks on the training device and in channels-last memory, teachers in evaluation mode; they come back as they were, the student evaluating.

    Coming back matters: the same teacher is the reference of later stages, and another memory layout rounds otherwise.
    """
    networks = [student, *teachers]
    homes = [next(network.parameters()).device for network in networks]
    modes = [(part, part.training) for teacher in teachers for part in teacher.modules()]
    try:
        for network in networks:
            network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack the pair
        for teacher in teachers:
            teacher.eval()
        yield
    finally:
        for network, home in zip(networks, homes, strict=True):
            network.to(device=home, memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # as above
        for part, mode in modes:
            part.training = mode
        student.eval()


def ask(teachers: Sequence[torch.nn.Module], x: torch.Tensor) -> list[Answer]:
    """Each teacher's answers: in float32 always, since they are what is to be matched.

    Raises:
        ModelError: A teacher cannot take the batch.
    """
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        try:
            return [teacher(x) for teacher in teachers]
        except RuntimeError as error:
            raise ModelError(
                f"a teacher fails on {len(x)} frames: {str(error).splitlines()[0][:200]}",
                hint="a program of torch.export is fixed to the batch it was exported with; give the network itself",
            ) from error


def check_outputs(student: Answer, teachers: Sequence[Answer], output: OutputSpec) -> None:
    """Refuses networks whose outputs do not mean the same labels.

    Raises:
        ModelError: Names the numbers.
    """
    for who, answer in (("the student", student), *((f"teacher {place}", answer) for place, answer in enumerate(teachers, 1))):
        if not output.accepts_logits(answer.logits.shape[1]):
            raise ModelError(f"{who} has {answer.logits.shape[1]} outputs for {len(output.labels)} labels")


def weights_digest(network: torch.nn.Module) -> str:
    """sha256 of a network's state: names, types, shapes and values."""
    found = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
