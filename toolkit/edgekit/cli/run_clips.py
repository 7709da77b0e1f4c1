"""How `edgekit run` plays an input: every frame of files, or live, and one answer for the clip where it is asked for.

Rules this file keeps:

1. What is played together is one clip: a live input as a whole; else each cine and each video; and where pictures are to be combined, or the classifier
   is recurrent, the pictures of one folder.
2. A file that breaks in the middle has an error and no answer for its clip: what is missing could have decided. A live clip has the frames that were answered, and
   says how many were not.
3. After an input that failed the next one is played.
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
from edgekit.imaging import frames
from edgekit.imaging.camera import Camera, is_camera
from edgekit.runtime.feeds import EveryFeed, Feed, LatestFeed
from edgekit.runtime.sources import CameraSource, Player, in_order
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
    """A clip being played: its name, its files, and what became of its frames."""

    name: str
    paths: list[Path]
    live: bool = False
    left_out: Counter[str] = field(default_factory=Counter)
    frames: int = 0
    failures: int = 0


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
        joined = combined or self._classifier.manifest.state is not None
        stills = [path for path in paths if not _moves(path)] if joined and Path(name).is_dir() else []
        together = frozenset(stills)
        for path in paths:
            if path not in together:
                yield _Clip(name=str(path), paths=[path])
            elif path == stills[0]:
                yield _Clip(name=name, paths=stills)

    def _play(self, clip: _Clip) -> int:
        if self._overlays is not None:
            self._overlays.begin()
        combiner = self._combiner(self._together.aggregate)
        try:
            feed, options = self._feed(clip)
            smoother = self._combiner(None if self._together.smooth is None else "exponential")
            stream = Stream(self._classifier.clip(), self._health, options, smoother=smoother)
            with contextlib.closing(stream.play(feed)) as results:
                for result in results:
                    self._one(clip, result, combiner)
                    if result.error is not None and not clip.live and len(clip.paths) == 1:
                        break
        except OutputError:
            raise
        except EdgekitError as error:
            clip.failures += 1
            self.printer.bad(clip.name, error)
        if combiner is not None and self._together.aggregate is not None and clip.frames:
            self._conclude(clip, self._together.aggregate, combiner)
        return clip.failures

    def _feed(self, clip: _Clip) -> tuple[Feed, StreamOptions]:
        live = self._live
        if not clip.live:
            return EveryFeed(in_order(clip.paths), self._health), StreamOptions()
        source: CameraSource | Player
        if is_camera(clip.name):
            source = CameraSource(Camera(clip.name, fps=live.fps), fps=live.fps)
        else:
            source = Player(clip.name, clip.paths, fps=live.fps)
        options = StreamOptions(period_s=source.period_s, deadline_ms=live.deadline_ms, seconds=live.seconds)
        return LatestFeed(source, self._health), options

    def _one(self, clip: _Clip, result: StreamResult, combiner: Combiner | None) -> None:
        prediction = result.prediction
        clip.frames += 1
        clip.left_out["dropped"] += result.dropped
        if prediction is not None:
            self._on_engine(prediction.engine)
        drawn = Drawn() if self._overlays is None else self._overlays.write(result)
        self.printer.result(result, drawn, live=clip.live)
        if result.error is not None:
            clip.failures += 1
            clip.left_out["failed"] += 1
        elif prediction is None:
            clip.left_out["late" if result.late else "no_result"] += 1
        elif not prediction.assessable:
            clip.left_out["not_assessable"] += 1
        elif combiner is not None:
            time_s = result.captured_ns / 1e9 if clip.live else result.time_s
            combiner.add(Evidence(probabilities=prediction.probabilities, number=result.number, time_s=time_s))

    def _conclude(self, clip: _Clip, aggregate: str, combiner: Combiner) -> None:
        found, why_none = combiner.result(), ""
        if clip.failures and not clip.live:
            found, why_none = None, "a part of the clip could not be answered"
        elif found is None:
            why_none = "no frame of the clip could be answered"
        left_out = {what: clip.left_out[what] for what in ("not_assessable", "failed", "late", "no_result", "dropped")}
        self.printer.clip(clip.name, aggregate, found, left_out, why_none)

    def _combiner(self, aggregate: str | None) -> Combiner | None:
        if aggregate is None:
            return None
        manifest = self._classifier.manifest
        return Combiner(aggregate, manifest.output, manifest.decision.thresholds, top_k=self._together.top_k, tau=self._together.smooth)


def _moves(path: Path) -> bool:
    """Whether a file is a clip of its own; one that cannot be read is, so that its error is its own."""
    try:
        return frames.format_of(path).moving
    except EdgekitError:
        return True
