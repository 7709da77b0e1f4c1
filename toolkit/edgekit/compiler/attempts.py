"""What each rung of the ladder makes: artefacts of one network for one target, measured on `val`.

Rules this file keeps:

1. Nothing is made before it is asked for: the ladder stops at the first variant that suffices.
2. A rung that has nothing of its own to try says why, and is not run as a copy of another one.
3. `float-fallback` starts from the post-training rung that is nearest to the reference so far, ranks its layers on calibration frames, and leaves
   the worst 1, 2, 4, 8 … of them in float32. Only layers whose return to float was measured to bring the outputs nearer are left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.manifest import EngineSpec
from edgekit.catalog.compress import QuantizeSpec, Rung
from edgekit.compiler.dialects.base import Dialect
from edgekit.compiler.ladder import RungResult, Skipped, Variant
from edgekit.compiler.quantize.rungs import POST_TRAINING
from edgekit.compiler.stages.explain import ExplainedGraph
from edgekit.compiler.stages.frames import PreparedSplit, calibration_indices
from edgekit.compiler.stages.measure import Measured, MeasureStage
from edgekit.compiler.stages.quantize import Artefact
from edgekit.compiler.stages.rank import Ranking
from edgekit.compiler.workspace import Workspace
from edgekit.errors import CatalogError, NotFiniteError, nearest
from edgekit.schema.decode import encode

RANKING_FRAMES = 32
"""Calibration frames that layers are ranked on; each layer costs a compilation and this many inferences."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bench:
    """What the rungs work on.

    Attributes:
        graph: The explained float graph, of the trained network or of a student.
        calibration: The calibration frames.
        val: The frames that rungs are measured on.
        dialect: The engine's.
        quantize: The recipe's.
    """

    graph: ExplainedGraph
    calibration: PreparedSplit
    val: PreparedSplit
    dialect: Dialect
    quantize: QuantizeSpec

    @property
    def target(self) -> str:
        """Names target and engine, for the progress."""
        return f"{self.dialect.target.name}, {self.dialect.choice.name}"


Maker = Callable[[Sequence[RungResult]], Iterable[Variant | Skipped]]
"""Makes the variants of a rung; told what was tried before it."""


class Attempts:
    """Makes and measures what the rungs ask for."""

    def __init__(self, bench: Bench, workspace: Workspace, *, others: Mapping[Rung, Maker] | None = None) -> None:
        """Takes what the rungs work on.

        Args:
            bench: The network, the frames, the target.
            workspace: Where stage results are kept.
            others: Makers of rungs that need more than the explained graph: `qat`.
        """
        self._bench = bench
        self._workspace = workspace
        self._others = dict(others or {})

    def variants(self, rung: Rung, tried: Sequence[RungResult]) -> Iterator[Variant | Skipped]:
        """What a rung has to try, each made when it is asked for.

        Args:
            rung: A rung.
            tried: What was measured before.

        Raises:
            CatalogError: The rung cannot be made here.
        """
        if rung in self._others:
            yield from self._others[rung](tried)
        elif rung == "float-fallback":
            yield from self._fallback(tried)
        elif rung != "float" and rung not in POST_TRAINING:
            raise CatalogError(
                f"the rung {rung!r} cannot be made for this model", hint=nearest(rung, (*POST_TRAINING, "float-fallback", "float"))
            )
        elif reason := self._bench.dialect.why_not(rung, self._bench.graph):
            yield Skipped(rung=rung, reason=reason)
        else:
            yield self.attempt(rung, self.artefact(rung), f"{rung} on val")

    def attempt(self, rung: Rung, artefact: Artefact, label: str, *, variant: str = "") -> Variant | Skipped:
        """An artefact with what it answers on `val`; one whose answers are no numbers counts as not tried."""
        try:
            return Variant(label=variant, artefact=artefact, measured=self.measure(artefact, label))
        except NotFiniteError as error:
            return Skipped(rung=rung, reason=f"{variant}: {error.message}" if variant else error.message)

    def artefact(self, rung: Rung, float_layers: Sequence[str] = ()) -> Artefact:
        """The artefact of a rung, with some layers left in float32."""
        bench = self._bench
        stage = bench.dialect.make(bench.graph, rung, bench.calibration, float_layers)
        left = f", {_layers(len(float_layers))} in float" if float_layers else ""
        return self._workspace.run(stage, label=f"{rung}{left}, {self._bench.target}")

    def exact(self) -> Artefact:
        """The artefact that is not quantized, in float32."""
        return self._workspace.run(self._bench.dialect.exact(self._bench.graph), label=f"float, {self._bench.target}")

    def measure(self, artefact: Artefact, label: str, split: PreparedSplit | None = None) -> Measured:
        """What an artefact answers, on `val` where no other split is named."""
        frames = self._bench.val if split is None else split
        stage = MeasureStage(
            artefact=artefact,
            engine=self.spec_of(artefact),
            tensors=frames.tensors,
            tensors_sha256=frames.sha256,
            oracle=self._bench.dialect.oracle,
            clips=tuple(frames.groups) if self._bench.graph.state is not None else (),
        )
        return self._workspace.run(stage, label=label)

    def spec_of(self, artefact: Artefact) -> EngineSpec:
        """How an artefact runs on the target."""
        return self._bench.dialect.spec(artefact)

    def _fallback(self, tried: Sequence[RungResult]) -> Iterator[Variant | Skipped]:
        base = nearest_post_training(tried)
        ranking = self._rank(base)
        worst = [layer for layer in ranking.layers if layer.error > 0][: self._bench.quantize.fallback_layers]
        if not worst:
            yield Skipped(rung="float-fallback", reason=f"no layer of {base} brings the answers nearer when it goes back to float32")
        for count in fallback_counts(len(worst)):
            left = worst[:count]
            made = self.artefact(base, [layer.name for layer in left])
            artefact = dataclasses.replace(
                made, fallback={"base": base, "base_error": ranking.error, "layers": [encode(layer) for layer in left]}
            )
            label = f"{base} with {_layers(count)} in float32"
            yield self.attempt("float-fallback", artefact, f"{label} on val", variant=label)

    def _rank(self, base: Rung) -> Ranking:
        bench = self._bench
        artefacts = self.exact(), self.artefact(base)
        stage = bench.dialect.rank(bench.graph, base, artefacts, bench.calibration, ranking_frames(bench.calibration))
        return self._workspace.run(stage, label=f"layers of {base}, {self._bench.target}")


def nearest_post_training(tried: Sequence[RungResult]) -> Rung:
    """The post-training rung whose answers on `val` are nearest to the reference's (mean KL divergence); ptq-full where none was tried."""
    candidates = [result for result in tried if result.rung in POST_TRAINING]
    return min(candidates, key=lambda result: result.comparison.agreement.mean_kl).rung if candidates else "ptq-full"


def fallback_counts(most: int) -> list[int]:
    """How many layers are left in float, in the order they are tried: 1, 2, 4, 8 … and at last `most`; none where `most` is 0."""
    counts = [2**power for power in range(most.bit_length())]
    return counts if not counts or counts[-1] == most else [*counts, most]


def ranking_frames(calibration: PreparedSplit) -> NDArray[np.uint8]:
    """The frames that layers are ranked on, uint8 (frames, height, width, channels): drawn from the calibration frames evenly over labels and groups."""
    return np.ascontiguousarray(calibration.tensors[calibration_indices(calibration.samples, count=RANKING_FRAMES, seed=0)])


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"
