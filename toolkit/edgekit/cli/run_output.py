"""What `edgekit run` prints and draws: lines for scripts, sentences for people, overlays in a folder."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from edgekit.cli.console import print_json, report_error, say, tell
from edgekit.errors import DataError, EdgekitError, OutputError, nearest

if TYPE_CHECKING:
    from edgekit.runtime.classifier import Classifier
    from edgekit.runtime.health import HealthSnapshot
    from edgekit.runtime.prediction import Drawing, Prediction
    from edgekit.runtime.stream import StreamResult
    from edgekit.runtime.supervisor import Supervised
    from edgekit.runtime.temporal import Combined

Printed = Union[dict[str, Any], str, EdgekitError]  # noqa: UP007 - evaluated, which Python 3.10 cannot do with | and a generic
"""A JSON line, a sentence, or an error."""

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Drawn:
    """Where the overlay of a frame is, and why it shows nothing where that was decided."""

    path: Path | None = None
    withheld: str = ""


class Printer:
    """Prints what became of frames, inputs and clips.

    Args:
        classifier: Who answers.
        as_json: JSON Lines in place of sentences.
    """

    def __init__(self, classifier: Classifier | Supervised, *, as_json: bool) -> None:
        self._classifier, self._as_json = classifier, as_json

    def result(self, result: StreamResult, drawn: Drawn, *, live: bool, maps: bool = True) -> None:
        """One line for a frame; `maps` says whether any was asked for."""
        if result.error is not None:
            self.bad(result.input, result.error, **({"frame": result.frame, **_times(result)} if live else {}))
        else:
            self._put(self._line(result, drawn, live=live) if self._as_json else _sentence(result, drawn, live=live, maps=maps))

    def bad(self, name: str, error: EdgekitError, **more: Any) -> None:
        """An input, or a frame, that could not be answered."""
        if self._as_json:
            self._put({"input": name, "error": error.message, **more})
        self._put(error)

    @property
    def shows_maps(self) -> bool:
        """Whether its lines say something of a map."""
        return self._as_json

    def problem(self, error: EdgekitError) -> None:
        """Something beside an answer went wrong; for people alone."""
        self._put(error)

    def put(self, what: Printed) -> None:
        """Prints what a `Kept` printer kept, at once: whoever reads a pipe reads a stream."""
        if isinstance(what, EdgekitError):
            report_error(what)
        elif isinstance(what, str):
            say(what, flush=True)
        else:
            print_json(what, line=True)

    def _put(self, what: Printed) -> None:
        self.put(what)

    def clip(self, name: str, aggregate: str, found: Combined | None, left_out: dict[str, int], why_none: str) -> None:
        """One line for a clip."""
        if not self._as_json:
            self._put(_clip_sentence(name, aggregate, found, left_out, why_none))
            return
        clip = {
            "aggregate": aggregate,
            "of": "probabilities",
            "label": None if found is None else _listed(found.label),
            "probabilities": {} if found is None else found.probabilities,
            "frames": 0 if found is None else found.frames,
            "left_out": left_out,
            "reason": why_none,
        }
        about = {"bundle": self._classifier.bundle_digest, "accepted": self._classifier.manifest.accepted}
        self._put({"input": name, "clip": clip, **about})

    def _line(self, result: StreamResult, drawn: Drawn, *, live: bool) -> dict[str, Any]:
        prediction, classifier = result.prediction, self._classifier
        line: dict[str, Any] = {
            "input": result.input,
            "frame": result.frame,
            "label": None,
            "probabilities": {},
            "logits": {},
            "latency_ms": None,
            "cam": None,
            "overlay": None if drawn.path is None else str(drawn.path),
            "engine": classifier.engine_name,
            "bundle": classifier.bundle_digest,
            "accepted": classifier.manifest.accepted,
            "assessable": None,
            "reason": result.reason,
        }
        if prediction is not None:
            line |= {
                "label": _listed(prediction.label),
                "probabilities": prediction.probabilities,
                "logits": prediction.logits,
                "latency_ms": round(prediction.latency_ms, 3),
                "cam": _map(prediction),
                "engine": prediction.engine,
                "accepted": prediction.accepted,
                "assessable": prediction.assessable,
                "reason": _reason(prediction, drawn),
            }
        if live:
            line |= _times(result)
        elif result.time_s is not None:
            line["time_s"] = round(result.time_s, 6)
        if result.smoothed is not None:
            line["smoothed"] = {"label": _listed(result.smoothed.label), "probabilities": result.smoothed.probabilities}
        return line


class Kept(Printer):
    """Keeps what it would print, in order, for another printer to print in its turn."""

    def __init__(self, classifier: Classifier | Supervised, *, as_json: bool) -> None:
        super().__init__(classifier, as_json=as_json)
        self.printed: list[Printed] = []

    def _put(self, what: Printed) -> None:
        self.printed.append(what)


def _listed(label: str | tuple[str, ...] | None) -> str | list[str] | None:
    return list(label) if isinstance(label, tuple) else label


def _named(label: str | tuple[str, ...] | None) -> str:
    if label is None:
        return "not assessable"
    return label if isinstance(label, str) else " + ".join(label) or "none"


def _map(prediction: Prediction) -> dict[str, Any] | None:
    cam = prediction.cam
    if cam is None:
        return None
    row, column = divmod(int(cam.argmax()), cam.shape[1])
    return {"class": prediction.cam_label, "shape": list(cam.shape), "peak": [row, column]}


def _times(result: StreamResult) -> dict[str, Any]:
    """What a live line has more than one of a file."""
    from edgekit.runtime.degradation import FULL

    return {
        "captured_at": result.captured_at.isoformat(timespec="milliseconds"),
        "age_ms": round(result.age_ms, 3),
        "dropped": result.dropped,
        "late": result.late,
        "degraded": None if result.step == FULL else result.step,
    }


def _ranked(probabilities: dict[str, float]) -> str:
    ranked = sorted(probabilities.items(), key=lambda item: -item[1])
    return "  ".join(f"{name} {probability:.3f}" for name, probability in ranked)


def _sentence(result: StreamResult, drawn: Drawn, *, live: bool, maps: bool) -> str:
    from edgekit.runtime.degradation import FULL

    parts, prediction = [result.input, f"frame {result.frame}"], result.prediction
    reason = result.reason
    if prediction is None:
        parts.append("no result")
    else:
        parts.append(_named(prediction.label))
        if prediction.probabilities:
            parts.append(f"({_ranked(prediction.probabilities)})")
        parts.append(f"{prediction.latency_ms:.1f} ms")
        reason = _reason(prediction, drawn, maps=maps)
    if result.smoothed is not None:
        parts.append(f"smoothed: {_named(result.smoothed.label)} ({_ranked(result.smoothed.probabilities)})")
    if live:
        parts.append(f"{result.age_ms:.0f} ms old")
        parts += [f"{result.dropped} dropped"] if result.dropped else []
        parts += [f"degraded: {result.step}"] if result.step != FULL else []
    if reason:
        parts.append(f"[{reason}]")
    if drawn.path is not None:
        parts.append(f"→ {drawn.path}")
    return "  ".join(parts)


def _clip_sentence(name: str, aggregate: str, found: Combined | None, left_out: dict[str, int], why_none: str) -> str:
    out = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in left_out.items() if count)
    shown = f"no answer [{why_none}]" if found is None else f"{_named(found.label)}  ({_ranked(found.probabilities)})"
    counted = f"{aggregate} of {0 if found is None else found.frames} frames" + (f", left out: {out}" if out else "")
    return f"{name}  clip  {shown}  {counted}"


def _reason(prediction: Prediction, drawn: Drawn, *, maps: bool = True) -> str:
    """What is missing from the answer or from its overlay, and why the engines before the one that answered did not; nothing of a map that nobody asked for."""
    passed_over = f"answered by {prediction.engine}, because {'; '.join(prediction.engine_notes)}" if prediction.engine_notes else ""
    missing = prediction.reason if maps or not prediction.assessable else ""
    return "; ".join(filter(None, (missing, drawn.withheld, passed_over)))


def summarize(found: HealthSnapshot) -> None:
    """Says on stderr what became of the frames of live inputs."""
    steps = ", ".join(f"{count} on {step}" for step, count in found.degraded_by_step.items())
    age = found.age_ms
    ages = (
        "" if age.p50_ms is None else f"; frame age p50 {age.p50_ms:.0f} ms" + ("" if age.p99_ms is None else f", p99 {age.p99_ms:.0f} ms")
    )
    tell(
        f"captured {found.captured}: {found.processed} processed, {found.dropped} dropped, {found.late} late, {found.failed} failed; "
        f"degraded {found.degraded}" + (f" ({steps})" if steps else "") + ages + (f"; {found.restarts} restarts" if found.restarts else "")
    )


class OverlayNames:
    """File names for overlays: after the input, never outside the folder, never twice.

    Memory grows with the inputs that have different names, not with their frames.
    """

    def __init__(self) -> None:
        self._stems: Counter[str] = Counter()
        self._input, self._stem, self._suffix = "", "", ""
        self._fixed = False

    def begin(self) -> None:
        """Another input comes, also where it is named as the one before."""
        self._input = self._input if self._fixed else ""

    def reserved(self, name: str) -> OverlayNames:
        """The names of the next input, for itself."""
        self.begin()
        self.of(name, 0)
        own = OverlayNames()
        own._input, own._stem, own._suffix, own._fixed = self._input, self._stem, self._suffix, True
        return own

    def of(self, name: str, index: int) -> str:
        """The name for a frame of an input; frames of one input come together."""
        if name != self._input:
            self._input = name
            self._stem = _UNSAFE.sub("-", Path(name).stem).strip("-.") or "frame"
            self._stems[self._stem] += 1
            # No stem has this sign, so no other input can come to the same name.
            self._suffix = f"~{self._stems[self._stem]}" if self._stems[self._stem] > 1 else ""
        return f"{self._stem}-{index:04d}{self._suffix}.png"


def check_folder(folder: Path) -> None:
    """Refuses a place where no overlay can be written.

    Raises:
        OutputError: It is a file, or cannot be written.
    """
    from edgekit.bundle.writer import check_writable

    if folder.exists() and not folder.is_dir():
        raise OutputError(f"--overlay {folder} is a file, not a folder", hint="give a folder; it is made where there is none")
    check_writable(folder / "overlay.png")


class Overlays:
    """Writes overlays into a folder, all drawn in one way."""

    def __init__(self, folder: Path, label: str | None, drawing: Drawing) -> None:
        self._folder, self._label, self._drawing = folder, label, drawing
        self._names = OverlayNames()

    def check(self, classifier: Classifier | Supervised) -> None:
        """Refuses what this bundle cannot draw, before the first frame."""
        manifest, other = classifier.manifest, self._drawing.against
        if manifest.cam is None:
            raise DataError(f"{classifier.path} has no map to draw: {manifest.cam_reason}", hint="leave out --overlay")
        if other is not None and self._label in (None, other):
            raise DataError("--against LABEL needs --explain with another label", hint="name two labels of the model")
        for option, label in (("--explain", self._label), ("--against", other)):
            if label is not None and label not in manifest.output.labels:
                raise DataError(f"{option}: {label!r} is not a label of {classifier.path}", hint=nearest(label, manifest.output.labels))

    def begin(self) -> None:
        """Another input comes."""
        self._names.begin()

    def reserved(self, name: str) -> Overlays:
        """The same for one input alone, whose names nobody else will take: inputs may then be drawn in any order."""
        own = Overlays(self._folder, self._label, self._drawing)
        own._names = self._names.reserved(name)
        return own

    def write(self, result: StreamResult) -> Drawn:
        """Draws a result on its own frame, where it has a map."""
        import io

        from PIL import Image

        from edgekit.bundle.writer import write_atomically

        prediction = result.prediction
        if prediction is None or prediction.cam is None:
            return Drawn()
        buffer = io.BytesIO()
        Image.fromarray(prediction.overlay(self._label, self._drawing)).save(buffer, format="PNG")
        to = self._folder / self._names.of(result.input, result.frame)
        write_atomically(to, [buffer.getvalue()])
        return Drawn(to, prediction.why_not_drawn(self._label, self._drawing))
