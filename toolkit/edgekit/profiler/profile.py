"""`edgekit profile`: what a bundle costs on this machine.

Rules this file keeps:

1. The machine is looked at before it is loaded, and the cold start is measured before this process has opened the bundle and filled an
   engine's cache.
2. The warm-up is found on the series and excluded; whether the rest is steady is said beside every figure, not hidden in it.
3. What is asked for beside (frames from a clock, pauses, another bundle, layers) comes after the latency, so that it cannot move it. Frames from a clock
   come first: nothing of theirs is left out as warm-up.
4. The machine is looked at between frames, outside the clock (`watch.py`).
5. The document is made in `document.py`.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.bundle.reader import open_bundle
from edgekit.errors import DataError
from edgekit.profiler import baseline as baselines
from edgekit.profiler import deltas, host, observation, stages
from edgekit.profiler.baseline import Baseline
from edgekit.profiler.clock import Budget, Samples
from edgekit.profiler.coldstart import RUNTIME, ColdStart, measure_cold_start
from edgekit.profiler.compare import Compared, compare_bundles
from edgekit.profiler.document import ASKED_FOR, OPTIONAL_PATHS, PATHS, BundleFacts, Extras, Profile
from edgekit.profiler.host import Host
from edgekit.profiler.idle import measure_wakes
from edgekit.profiler.layers import measure_layers
from edgekit.profiler.observation import Observed
from edgekit.profiler.pacing import Aside, Paced, play
from edgekit.profiler.percentiles import SHARES, Latency, latency, minimum_samples
from edgekit.profiler.sampler import open_meter
from edgekit.profiler.warmup import steady_state
from edgekit.profiler.watch import Eyes, Watch, open_eyes
from edgekit.runtime.clip import FirstFrames

if TYPE_CHECKING:
    from edgekit.runtime.classifier import Classifier

SHORT = 0.2
"""Share of the seconds that reading, the overlay and each delta get."""

LONGEST_REST_S = 5.0

StageProgress = Callable[[str, float], None]
"""Takes the name of the stage and the share of it that is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to measure.

    Attributes:
        seconds: Duration of the latency measurement; reading, the overlay and the deltas get a fifth of it each. Stretched up to three times where
            that gives p90 of the latency and p95 of the two others.
        repeats: Fresh processes for the cold start.
        files: Files to time the reading with; PNG copies of the frames when there are none.
        runtime: Module with the `load` to profile.
        fps: Also measure frames that come this often; None for not.
        idle: Also measure calls after pauses.
        layers: Also measure the layers of the engine.
        compare: Also measure against this bundle; None for not.
        baseline: Also compare with this earlier profile; None for not.
        root: Where the file system begins, for what the machine tells of itself.
    """

    seconds: float = 10.0
    repeats: int = 5
    files: tuple[Path, ...] = ()
    runtime: str = RUNTIME
    fps: float | None = None
    idle: bool = False
    layers: bool = False
    compare: Path | None = None
    baseline: Baseline | None = None
    root: Path = field(default=host.ROOT)

    def budget(self, share: float, percentile: str) -> Budget:
        """The budget of one part: a share of the seconds, and enough samples for a percentile if three times as long gives them."""
        seconds = self.seconds * share
        return Budget(seconds=seconds, min_samples=minimum_samples(SHARES[percentile]), max_seconds=3 * seconds)

    def paths(self) -> frozenset[str]:
        """The figures the document will have: what a limit may name."""
        # The option of a part is a field of this class; `not` would take a rate for an option that is not given.
        given = {name: getattr(self, option.removeprefix("--")) for name, option in ASKED_FOR.items()}
        asked = {name: value is not None and value is not False for name, value in given.items()}
        return PATHS.union(*(OPTIONAL_PATHS[name] for name, is_asked in asked.items() if is_asked))


@dataclass(frozen=True, slots=True, kw_only=True)
class Beforehand:
    """What was measured before this process opened the bundle."""

    host: Host
    cold_start: ColdStart


def profile(
    bundle: Path, frames: Sequence[stages.Frame], *, options: Options | None = None, on_progress: StageProgress | None = None
) -> Profile:
    """Measures a bundle on this machine.

    Args:
        bundle: The bundle.
        frames: uint8 (rows, columns) or (rows, columns, 3); they take turns, the first one is also that of the cold start.
        options: How to measure.
        on_progress: Told the stage and the share of it that is done.

    Raises:
        DataError: When there is no frame, or one is not a frame.
        BundleError: When a bundle cannot be opened.
        TargetError: When a fresh process with the bundle crashes, or the baseline is of another machine.
    """
    if not frames:
        raise DataError("there is no frame to measure with", hint="give at least one frame")
    chosen = options or Options()
    told = on_progress or (lambda _stage, _share: None)
    machine = host.fingerprint(chosen.root)
    if chosen.baseline is not None:
        chosen.baseline.check_host(machine)
    cold = measure_cold_start(bundle, frames[0], repeats=chosen.repeats, runtime=chosen.runtime, on_progress=partial(told, "cold start"))
    classifier = _load(chosen.runtime, bundle)
    try:
        return profile_classifier(classifier, frames, Beforehand(host=machine, cold_start=cold), options=chosen, on_progress=told)
    finally:
        classifier.close()


def profile_classifier(
    classifier: Classifier, frames: Sequence[stages.Frame], before: Beforehand, *, options: Options, on_progress: StageProgress
) -> Profile:
    """The part of `profile` that runs in this process, on a classifier that is open."""
    eyes = open_eyes(options.root, meter=open_meter(options.root))
    try:
        run = _Run(classifier=classifier, frames=frames, eyes=eyes, options=options, told=on_progress)
        rest_w = run.rest()
        predicted, observed = run.saturated(rest_w)
        warmup = steady_state(predicted.samples.milliseconds)
        found = Profile(
            measured_at=dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
            bundle=BundleFacts.of(classifier),
            frame_shapes=tuple(dict.fromkeys(frame.shape for frame in frames)),
            frame_count=len(frames),
            series=predicted.samples,
            warmup=warmup,
            latency=latency(predicted.samples.milliseconds[warmup.excluded :]),
            stages=run.split(predicted, warmup.excluded),
            deltas=run.deltas(),
            observed=observed,
            cold_start=before.cold_start,
            host=before.host,
            extras=Extras(),
        )
        return dataclasses.replace(found, extras=run.extras(found))
    finally:
        if eyes.meter is not None:
            eyes.meter.close()


def predictor_of(classifier: Classifier) -> Classifier | FirstFrames:
    """Who answers while time is taken: a recurrent classifier answers each frame as the first of a clip, which costs what any frame costs."""
    return classifier if classifier.manifest.state is None else FirstFrames(classifier)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What every part of a profile needs."""

    classifier: Classifier
    frames: Sequence[stages.Frame]
    eyes: Eyes
    options: Options
    told: StageProgress

    @property
    def predictor(self) -> Classifier | FirstFrames:
        """Who answers while time is taken."""
        return predictor_of(self.classifier)

    def rest(self) -> float | str:
        """Power at rest, or why it is not known."""
        # The first reading finds its files and code in no cache; those that count come later.
        Watch(eyes=self.eyes).read()
        if self.eyes.meter is None:
            return self.eyes.no_meter
        seconds = min(LONGEST_REST_S, self.options.seconds / 2)
        return observation.rest_power(self.eyes.meter, seconds, on_progress=partial(self.told, "at rest"))

    def saturated(self, rest_w: float | str) -> tuple[stages.PredictSamples, Observed]:
        gc.collect()  # before the first reading: the loop does it too, and has then nothing to do
        watch = Watch(eyes=self.eyes)
        watch.read()
        begin_ns = self.eyes.now_ns()
        budget = self.options.budget(1.0, "p90")
        told = partial(self.told, "predict")
        predicted = stages.measure_predict(self.predictor, self.frames, budget, after=watch.look, on_progress=told)
        watch.read()
        starts_s, milliseconds = predicted.samples.start_seconds, predicted.samples.milliseconds
        return predicted, Observed(watch=watch, begin_ns=begin_ns, starts_s=starts_s, milliseconds=milliseconds, rest_w=rest_w)

    def split(self, predicted: stages.PredictSamples, excluded: int) -> dict[str, Latency | None]:
        """Stage to its percentiles."""
        split: dict[str, Latency | None] = dict.fromkeys(stages.STAGES)
        for stage, values in predicted.stages_ms.items():
            split[stage] = latency(values[excluded:])
        short = self.options.budget(SHORT, "p95")
        split["read"] = _settled(stages.measure_read(self.frames, self.options.files, short, on_progress=partial(self.told, "read")))
        if self.classifier.manifest.cam is None:
            split["cam"] = None
        else:
            told = partial(self.told, "overlay")
            split["overlay"] = _settled(stages.measure_overlay(self.predictor, self.frames, short, on_progress=told))
        return split

    def deltas(self) -> dict[str, deltas.Delta | str]:
        if self.classifier.manifest.cam is None:
            return dict.fromkeys(deltas.NAMES, "the bundle has no map")
        short = self.options.budget(SHORT, "p90")
        return {
            "cam": deltas.measure_cam(self.predictor, self.frames, short, on_progress=partial(self.told, "map on and off")),
            "overlay": deltas.measure_overlay(self.predictor, self.frames, short, on_progress=partial(self.told, "overlay on and off")),
        }

    def extras(self, found: Profile) -> Extras:
        """What was asked for beside (rule 3)."""
        options = self.options
        call = stages.in_turn(self.predictor, self.frames)
        # In this order (rule 3).
        paced = None if options.fps is None else self.paced(call, options.fps, found.observed)
        wakes = measure_wakes(call, seconds=options.seconds, on_progress=partial(self.told, "after pauses")) if options.idle else None
        return Extras(
            paced=paced,
            wakes=wakes,
            compared=None if options.compare is None else self.compared(options.compare),
            layers=measure_layers(open_bundle(Path(self.classifier.path)), self.classifier.engine_name) if options.layers else None,
            against=None if options.baseline is None else baselines.against(options.baseline, found.as_baseline()),
        )

    def paced(self, call: Callable[[], object], fps: float, before: Observed) -> tuple[Paced, Observed]:
        gc.collect()
        # Told by the run before: one slow reading at the start would leave no gap long enough for all others.
        watch = Watch(eyes=self.eyes, usual_ns=1e6 * before.watch.reading_ms)
        watch.read()
        begin_ns = self.eyes.now_ns()
        told = partial(self.told, f"{fps:g} frames a second")
        found = play(call, fps=fps, seconds=self.options.seconds, aside=Aside(look=watch.look_within, on_progress=told))
        watch.read()
        # The machine is judged by what an answer takes; what a frame waits for grows by itself where it cannot keep up.
        return found, Observed(
            watch=watch, begin_ns=begin_ns, starts_s=found.starts_ns / 1e9, milliseconds=found.service_ms, rest_w=before.rest_w
        )

    def compared(self, path: Path) -> tuple[BundleFacts, Compared]:
        other = _load(self.options.runtime, path)
        try:
            told = partial(self.told, "comparison")
            found = compare_bundles(self.predictor, predictor_of(other), self.frames, seconds=self.options.seconds, on_progress=told)
            return BundleFacts.of(other), found
        finally:
            other.close()


def _load(runtime: str, bundle: Path) -> Classifier:
    # By the same name as the child, so that both measure the same code.
    import importlib

    classifier: Classifier = importlib.import_module(runtime).load(bundle)
    return classifier


def _settled(samples: Samples) -> Latency:
    values = samples.milliseconds
    return latency(values[steady_state(values).excluded :])
