"""ratio and prune: how many channels go is measured, then they go.

The decision is a stage of its own: it may rest on times, which no second run repeats, and everything after it must be repeatable. A resumed or repeated compile
in the same work folder takes the recorded decision.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from edgekit.bundle.manifest import EngineSpec
from edgekit.catalog.compress import PruneSpec
from edgekit.catalog.explain import MapChoice
from edgekit.catalog.recipe import ModelSpec
from edgekit.compiler import network as n
from edgekit.compiler import timing
from edgekit.compiler.progress import Progress, Silent
from edgekit.compiler.stages.explain import ExplainedGraph, ExplainStage
from edgekit.compiler.stages.load import LoadStage
from edgekit.compiler.stages.quantize import Artefact
from edgekit.compiler.stages.train import TrainingFrames, example_frame
from edgekit.compiler.versions import versions
from edgekit.compiler.workspace import Stage, file_digest
from edgekit.schema.decode import encode

if TYPE_CHECKING:
    import torch

    from edgekit.compiler.prune.channel_plan import ChannelPlan

RATIO = "ratio.json"
TAYLOR_BATCHES = 4
"""Batches whose gradients the Taylor criterion sums."""
NORM_BATCHES = 16
"""Batches that batch normalization is measured on after a cut."""
_BATCH = 16
"""Calibration frames of a candidate that is only timed: ranges do not change its latency."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cut:
    """What is pruned and how: shared by the decision and the cut itself.

    Attributes:
        network: What is pruned.
        spec: The recipe's.
        round_to: Channel counts are multiples of this.
        frames: Frames of `train`, for the Taylor criterion's loss and for batch normalization.
    """

    network: n.Network
    spec: PruneSpec
    round_to: int
    frames: TrainingFrames

    def key(self) -> dict[str, object]:
        """For a stage's key: what decides which channels go at a ratio."""
        return {
            "network": self.network.sha256,
            "criterion": self.spec.criterion,
            "scope": self.spec.scope,
            "max_ratio": self.spec.max_ratio,
            "round_to": self.round_to,
            "frames": self.frames.key(),
            "versions": versions("torch", "torch-pruning", "timm", "torchvision", "numpy"),
        }

    def plan(self, module: torch.nn.Module, ratio: float) -> ChannelPlan:
        """The channels that stay at a ratio, which counts what earlier steps took out too."""
        from edgekit.compiler.prune.plan import PruneSettings, Step, plan_pruning, read

        settings = PruneSettings(
            criterion=self.spec.criterion, scope=self.spec.scope, ratio=ratio, max_ratio=self.spec.max_ratio, round_to=self.round_to
        )
        before = read(self.network.folder) if self.network.pruned and self.network.folder is not None else None
        return plan_pruning(module, example_frame(self.frames.input), settings, self.losses, Step(before=before))

    def losses(self, module: torch.nn.Module) -> Iterator[torch.Tensor]:
        """Losses of a module on frames of `train`, one a batch: its cross-entropy with the labels."""
        import torch

        from edgekit.compiler.distill.losses import hard_loss
        from edgekit.compiler.load.source import normalize

        train = self.frames.train
        chosen = np.random.default_rng(0).permutation(len(train.tensors))[: TAYLOR_BATCHES * _BATCH]
        for start in range(0, len(chosen), _BATCH):
            rows = np.sort(chosen[start : start + _BATCH])
            frames = torch.from_numpy(normalize(np.asarray(train.tensors[rows]), self.frames.input))
            yield hard_loss(module(frames), torch.from_numpy(train.truth[rows]), self.frames.output)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A decision: the share of channels that goes, and the probes it rests on, JSON-ready."""

    ratio: float
    document: dict[str, Any]
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RatioStage(Stage[Ratio]):
    """Finds the smallest ratio whose compiled INT8 candidate is as fast as the recipe asks.

    Attributes:
        cut: What is cut, and how.
        model: The recipe's.
        engine: How a candidate runs.
        reference: The network before it was cut, in INT8.
        quantize: Makes the stage that quantizes a candidate for the engine.
        frame: uint8 (1, height, width, channels), to time with.
        map: As in a recipe's [explain]: what is timed has the map that will run.
    """

    name: ClassVar[str] = "ratio"
    cut: Cut
    model: ModelSpec
    engine: EngineSpec
    reference: Artefact
    quantize: Callable[[ExplainedGraph], Stage[Artefact]]
    frame: np.ndarray[Any, np.dtype[np.uint8]]
    map: MapChoice = "auto"

    def requires(self) -> Mapping[str, object]:
        return {
            "cut": self.cut.key(),
            "map": self.map,
            "latency_target": self.cut.spec.target,
            "engine": encode(self.engine),
            "reference": self.reference.sha256,
            "host": timing.host_name(),
            "versions": versions("openvino", "nncf", "onnx", "onnx-ir", "onnxruntime"),
        }

    def apply(self, folder: Path, progress: Progress) -> None:
        from edgekit.compiler.prune.search_ratio import MOST_PROBES, find_ratio

        probes: list[dict[str, object]] = []

        def share(ratio: float) -> float:
            measured, parameters = self._probe(ratio)
            probes.append({"ratio": ratio, "parameters": parameters, **encode(measured)})
            progress.step(len(probes), MOST_PROBES)
            unsteady = "" if measured.steady else "; the machine was busy, which blurs it"
            progress.note(f"{ratio:.1%} of the channels out: {measured.share:.1%} of the unpruned INT8 latency on this host{unsteady}")
            return measured.share

        found = find_ratio(share, self.cut.spec.target, high=self.cut.spec.max_ratio)
        document = {"ratio": found.ratio, "share": found.share, "probes": probes, "host": timing.host_name()}
        (folder / RATIO).write_text(json.dumps(document, allow_nan=False))

    def _probe(self, ratio: float) -> tuple[timing.LatencyShare, int]:
        """Cuts, exports, quantizes and times a candidate; nothing of it is kept."""
        from edgekit.compiler.prune import plan

        module = self.cut.network.build()
        with tempfile.TemporaryDirectory(prefix="edgekit-probe-") as name:
            folder = Path(name)
            planned = self.cut.plan(module, ratio)
            candidate = plan.apply_plan(self.cut.network.build(), planned)
            plan.save(planned, candidate, folder, base=self.cut.network.folder)
            source = n.NetworkSource(
                n.Network(architecture=self.cut.network.architecture, folder=folder), self.model, self.cut.frames.input
            )
            LoadStage(source=source).apply(folder, Silent())
            graph = LoadStage(source=source).ensures(folder)
            explain = ExplainStage(graph=graph, input=self.cut.frames.input, map=self.map)
            explain.apply(folder, Silent())
            explained = explain.ensures(folder)
            made = self.quantize(explained)
            written = folder / "candidate"
            written.mkdir()
            made.apply(written, Silent())
            artefact = made.ensures(written)
            frame = np.ascontiguousarray(self.frame)
            candidate_engine = dataclasses.replace(self.engine, outputs=explained.outputs)
            measured = timing.latency_share(artefact, self.reference, (candidate_engine, self.engine), frame)
        return measured, sum(parameter.numel() for parameter in candidate.parameters())

    def ensures(self, folder: Path) -> Ratio:
        return _recorded(folder)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MacsRatioStage(Stage[Ratio]):
    """Finds the smallest ratio that leaves at most as many multiply-accumulates as the recipe asks for; no clock is looked at.

    Attributes:
        cut: What is cut, and how.
    """

    name: ClassVar[str] = "ratio"
    cut: Cut

    def requires(self) -> Mapping[str, object]:
        return {"cut": self.cut.key(), "macs_target": self.cut.spec.target}

    def apply(self, folder: Path, progress: Progress) -> None:
        from edgekit.compiler.prune import plan
        from edgekit.compiler.prune.macs import multiply_accumulates
        from edgekit.compiler.prune.search_ratio import MACS, MOST_PROBES, find_ratio

        example = example_frame(self.cut.frames.input)
        unpruned = multiply_accumulates(n.Network(architecture=self.cut.network.architecture).build(), example)
        probes: list[dict[str, object]] = []

        def share(ratio: float) -> float:
            module = self.cut.network.build()
            pruned = plan.apply_plan(module, self.cut.plan(module, ratio))
            left = multiply_accumulates(pruned, example)
            parameters = sum(parameter.numel() for parameter in pruned.parameters())
            probes.append({"ratio": ratio, "parameters": parameters, "macs": left, "share": left / unpruned})
            progress.step(len(probes), MOST_PROBES)
            progress.note(f"{ratio:.1%} of the channels out: {left / unpruned:.1%} of the unpruned network's multiply-accumulates")
            return left / unpruned

        found = find_ratio(share, self.cut.spec.target, high=self.cut.spec.max_ratio, quantity=MACS)
        document = {"ratio": found.ratio, "share": found.share, "probes": probes, "unpruned_macs": unpruned, "host": None}
        (folder / RATIO).write_text(json.dumps(document, allow_nan=False))

    def ensures(self, folder: Path) -> Ratio:
        return _recorded(folder)


def _recorded(folder: Path) -> Ratio:
    document = json.loads((folder / RATIO).read_text())
    return Ratio(ratio=document["ratio"], document=document, sha256=file_digest(folder / RATIO))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PruneStage(Stage[n.Network]):
    """Takes a share of the channels out, and lets batch normalization settle to what is left."""

    name: ClassVar[str] = "prune"
    cut: Cut
    ratio: float

    def requires(self) -> Mapping[str, object]:
        return {"cut": self.cut.key(), "ratio": self.ratio}

    def apply(self, folder: Path, progress: Progress) -> None:
        from edgekit.compiler.prune import plan
        from edgekit.compiler.prune.batch_norm import recalibrate_batch_norm

        module = self.cut.network.build()
        planned = self.cut.plan(module, self.ratio)
        pruned = plan.apply_plan(self.cut.network.build(), planned)
        recalibrate_batch_norm(pruned, self._batches(progress))
        plan.save(planned, pruned, folder, base=self.cut.network.folder)

    def _batches(self, progress: Progress) -> Callable[[], Iterator[torch.Tensor]]:
        from edgekit.compiler.load.source import normalize

        def batches() -> Iterator[torch.Tensor]:
            import torch

            tensors = self.cut.frames.train.tensors
            rows = np.sort(np.random.default_rng(0).permutation(len(tensors))[: NORM_BATCHES * _BATCH])
            # A batch of one frame has no variance after pooling, and few frames should not count as many.
            whole = len(rows) - len(rows) % _BATCH or len(rows)
            for start in range(0, whole, _BATCH):
                yield torch.from_numpy(normalize(np.asarray(tensors[rows[start : start + _BATCH]]), self.cut.frames.input))
                progress.step(min(start + _BATCH, whole), whole)

        return batches

    def ensures(self, folder: Path) -> n.Network:
        return n.Network(architecture=self.cut.network.architecture, folder=folder)
