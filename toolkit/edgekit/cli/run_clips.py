"""How `edgekit run` plays an input: every frame of files, or live, and one answer for the clip where it is asked for.

Rules this file keeps:

1. What is combined is one part of an input: a cine, a video, a camera, or the pictures of one folder, not of those below it. Two of them may be two patients.
   Of a live input each part begins anew where its first frame is answered.
2. A file that breaks in the middle has an error and no answer for its clip: what is missing could have decided. A live clip has the frames that were answered, and
   says how many were not.
3. After an input that failed the next one is played. An overlay that cannot be written is an error, and the answers go on.
4. A clip that is interrupted has its line too, which says so.
5. Maps are asked for where somebody sees them: in an overlay or in a JSON line.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.cli.run_output import Drawn, Overlays, Printer
from edgekit.errors import EdgekitError, OutputError
from edgekit.imaging.camera import Camera, is_camera
from edgekit.runtime.feeds import EveryFeed, Feed, LatestFeed
from edgekit.runtime.sources import CameraSource, Player, in_order, parts_of
from edgekit.runtime.stream import Stream, StreamOptions, StreamResult
from edgekit.runtime.temporal import Combiner, Evidence, TimeConstant

if TYPE_CHECKING:
    from edgekit.runtime.classifier import Classifier
    from edgekit.runtime.health import Health
    from edgekit.runtime.supervisor import Supervised


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """How live inputs are played.

    Attributes:
        fps: Frames a second; None where none was named.
        native: Whether files are played at their own rate.
        deadline_ms: As `StreamOptions.deadline_ms`.
        seconds: As `StreamOptions.seconds`.
    """

    fps: float | None = None
    native: bool = False
    deadline_ms: float | None = None
    seconds: float | None = None

    def plays(self, name: str) -> bool:
        """Whether an input is played live."""
        return is_camera(name) or self.native or self.fps is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """What is made of several frames.

    Attributes:
        aggregate: As `Combiner`'s; None for no answer for the clip.
        top_k: k of topk.
        smooth: τ of smoothing, and of the exponential aggregate; None for no smoothing.
    """

    aggregate: str | None = None
    top_k: int
    smooth: TimeConstant | None = None


@dataclass(slots=True, kw_only=True)
class _Clip:
    """What is played at once: its name, its files, and what became of it.

    Attributes:
        part: What is being combined; of a live input with several parts one after the other.
        combiner: Combines it; None where nothing is combined.
        left_out: Frames of this part that are in no answer, by why.
        frames: Results of this part.
        errors: Results of this part that are errors.
        failures: Everything of the clip that could not be answered or written.
        dropped: Frames of the whole clip that results told of.
    """

    name: str
    paths: list[Path]
    live: bool = False
    part: str = ""
    combiner: Combiner | None = None
    left_out: Counter[str] = field(default_factory=Counter)
    frames: int = 0
    errors: int = 0
    failures: int = 0
    dropped: int = 0


class Runner:
    """Plays inputs.

    Args:
        classifier: Who answers.
        health: Records what becomes of frames.
        printer: Prints it.
        overlays: Draws it; None for no overlays.
        live: How live inputs are played.
        together: What is made of several frames.
        on_engine: Told which engine gave each answer.
    """

    def __init__(
        self,
        classifier: Classifier | Supervised,
        health: Health,
        printer: Printer,
        overlays: Overlays | None,
        *,
        live: Live,
        together: Together,
        on_engine: Callable[[str], None],
    ) -> None:
        self._classifier, self._health = classifier, health
        self.printer, self._overlays = printer, overlays
        self._live, self._together = live, together
        self._on_engine = on_engine
        self._explain = overlays is not None or printer.shows_maps

    def run(self, name: str, paths: list[Path]) -> int:
        """Plays one input.

        Args:
            name: As the user named it.
            paths: Its files, in order; empty for a camera.

        Returns:
            How many files or frames could not be answered.
        """
        if self._live.plays(name):
            return self._play(_Clip(name=name, paths=paths, live=True))
        return sum(self._play(clip) for clip in self._clips(name, paths))

    def _clips(self, name: str, paths: list[Path]) -> Iterator[_Clip]:
        """The clips that files stand for (rule 1)."""
        combined = self._together.aggregate is not None or self._together.smooth is not None
        # To a recurrent classifier pictures that come one by one would each be the first of a clip.
        if (combined or self._classifier.manifest.state is not None) and Path(name).is_dir():
            yield from (_Clip(name=part, paths=members) for part, members in parts_of(paths).items())
        else:
            yield from (_Clip(name=str(path), paths=[path]) for path in paths)

    def _play(self, clip: _Clip) -> int:
        if self._overlays is not None:
            self._overlays.begin()
        clip.combiner = self._combiner(self._together.aggregate)
        dropped_before = 0 if clip.combiner is None else self._health.snapshot().dropped
        interrupted = False
        try:
            feed, options = self._feed(clip)
            smoother = self._combiner(None if self._together.smooth is None else "exponential")
            stream = Stream(self._classifier.clip(), self._health, options, smoother=smoother)
            with contextlib.closing(stream.play(feed)) as results:
                for result in results:
                    self._one(clip, result)
                    if result.error is not None and not clip.live and len(clip.paths) == 1:
                        break
        except OutputError:
            raise
        except EdgekitError as error:
            clip.failures += 1
            clip.errors += 1
            self.printer.bad(clip.name, error)
        except BaseException as stop:
            # A signal; after anything else nothing more is said.
            interrupted = not isinstance(stop, Exception)
            if interrupted:
                self._end(clip, dropped_before, interrupted=True)
            raise
        self._end(clip, dropped_before)
        return clip.failures

    def _end(self, clip: _Clip, dropped_before: int, *, interrupted: bool = False) -> None:
        """The input is over: what was captured after its last result counts too."""
        if clip.combiner is not None and (clip.frames or interrupted):
            clip.left_out["dropped"] += self._health.snapshot().dropped - dropped_before - clip.dropped
            self._conclude(clip, interrupted=interrupted)

    def _feed(self, clip: _Clip) -> tuple[Feed, StreamOptions]:
        live, explain = self._live, self._explain
        if not clip.live:
            return EveryFeed(in_order(clip.paths), self._health), StreamOptions(explain=explain)
        source: CameraSource | Player
        if is_camera(clip.name):
            source = CameraSource(Camera(clip.name, fps=live.fps), fps=live.fps)
        else:
            source = Player(clip.name, clip.paths, fps=live.fps)
        options = StreamOptions(period_s=source.period_s, deadline_ms=live.deadline_ms, seconds=live.seconds, explain=explain)
        return LatestFeed(source, self._health), options

    def _one(self, clip: _Clip, result: StreamResult) -> None:
        prediction = result.prediction
        if result.part and result.part != clip.part:
            self._begin_part(clip, result)
        clip.frames += 1
        clip.dropped += result.dropped
        clip.left_out["dropped"] += result.dropped_in_part
        if prediction is not None:
            self._on_engine(prediction.engine)
        if result.error is not None:
            clip.failures += 1
            clip.errors += 1
            clip.left_out["failed"] += 1
        elif prediction is None:
            clip.left_out["late" if result.late else "no_result"] += 1
        elif not prediction.assessable:
            clip.left_out["not_assessable"] += 1
        elif clip.combiner is not None:
            time_s = result.captured_ns / 1e9 if clip.live else result.time_s
            clip.combiner.add(Evidence(probabilities=prediction.probabilities, number=result.number, time_s=time_s))
        # Last, so that a frame whose line was seen is in the clip's answer, whenever Ctrl-C comes.
        self._show(clip, result)

    def _begin_part(self, clip: _Clip, result: StreamResult) -> None:
        """Another file or folder, perhaps of another patient: what was before has its answer, and nothing of it is in the next one."""
        if clip.part:
            clip.left_out["dropped"] += result.dropped - result.dropped_in_part
            if clip.combiner is not None:
                self._conclude(clip)
                clip.combiner.reset()
            clip.left_out.clear()
            clip.frames = clip.errors = 0
        clip.part = result.part

    def _show(self, clip: _Clip, result: StreamResult) -> None:
        """Draws and prints a result. A picture that cannot be written takes no answer away."""
        drawn = Drawn()
        try:
            if self._overlays is not None:
                drawn = self._overlays.write(result)
        except OutputError as error:
            clip.failures += 1
            self.printer.result(result, Drawn(withheld=f"no overlay: {error.message}"), live=clip.live, maps=self._explain)
            self.printer.problem(error)
        else:
            self.printer.result(result, drawn, live=clip.live, maps=self._explain)

    def _conclude(self, clip: _Clip, *, interrupted: bool = False) -> None:
        if clip.combiner is None or self._together.aggregate is None:
            return
        found, why_none = clip.combiner.result(), ""
        if clip.errors and not clip.live:
            found, why_none = None, "a part of the clip could not be answered"
        elif interrupted and not clip.live:
            found, why_none = None, "interrupted: a part of the clip was not looked at"
        elif interrupted:
            why_none = "interrupted: the frames until then"
        elif found is None:
            why_none = "no frame of the clip could be answered"
        left_out = {what: clip.left_out[what] for what in ("not_assessable", "failed", "late", "no_result", "dropped")}
        self.printer.clip(clip.part or clip.name, self._together.aggregate, found, left_out, why_none)

    def _combiner(self, aggregate: str | None) -> Combiner | None:
        if aggregate is None:
            return None
        manifest = self._classifier.manifest
        return Combiner(aggregate, manifest.output, manifest.decision.thresholds, top_k=self._together.top_k, tau=self._together.smooth)
