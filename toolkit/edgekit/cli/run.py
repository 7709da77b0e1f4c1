"""`edgekit run`: frames in, answers and overlays out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit.cli.console import print_json, report_error, say, tell
from edgekit.errors import DataError, EdgekitError, OutputError, nearest

if TYPE_CHECKING:
    from edgekit.imaging.frames import Frame
    from edgekit.runtime.classifier import Classifier
    from edgekit.runtime.prediction import Drawing, Prediction

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def run(
    bundle: Path = typer.Argument(metavar="BUNDLE", help="A bundle (.edgekit)."),
    inputs: list[Path] = typer.Argument(metavar="INPUT", help="Images (PNG, JPEG), DICOM files, or folders of them."),
    overlay: Path | None = typer.Option(None, "--overlay", help="Write each frame with its class activation map into this folder, as PNG."),
    explain: Annotated[
        str | None, typer.Option(metavar="LABEL", help="Overlays show the evidence for this label, not for the answer.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="LABEL", help="Overlays show what speaks for the label of --explain rather than for this one.")
    ] = None,
    min_probability: Annotated[
        float | None, typer.Option(metavar="P", help="Leave an overlay empty where its label's probability is below this, 0 to 1.")
    ] = None,
    colormap: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Colours: inferno (default), viridis, cividis, jet; coolwarm draws negative evidence too."),
    ] = None,
    contours: Annotated[bool, typer.Option("--contours", help="Overlays have lines of equal evidence instead of a filled area.")] = False,
    annotate: Annotated[
        bool, typer.Option("--annotate", help="Overlays get a colour bar in logit units and a caption, beside the frame.")
    ] = False,
    as_json: bool = typer.Option(False, "--json", help="Print JSON Lines on stdout: one a frame."),
) -> None:
    """Classify frames with a bundle."""
    from edgekit.imaging import frames
    from edgekit.runtime.classifier import load

    given = (explain, against, min_probability, colormap, contours or None, annotate or None)
    if overlay is None and any(option is not None for option in given):
        raise DataError("the options of overlays need --overlay DIR", hint="add it, or leave them out")
    drawing = _drawing(colormap, contours=contours, annotate=annotate, against=against, min_probability=min_probability)
    if overlay is not None:
        _check_folder(overlay)
    classifier = load(bundle)
    overlays = None if overlay is None else _Overlays(overlay, explain, drawing)
    if overlays is not None:
        overlays.check(classifier)
    if not classifier.manifest.accepted:
        tell(f"warning: {bundle} was NOT ACCEPTED by its acceptance gate; its answers are not proven")
    failed = 0
    for place in inputs:
        try:
            _refuse_live(place)
            paths = [path for path in frames.expand([place]) if overlay is None or not path.resolve().is_relative_to(overlay.resolve())]
        except EdgekitError as error:
            failed += 1
            _report_bad(str(place), error, as_json=as_json)
            continue
        failed += sum(not _run_file(classifier, path, overlays, as_json=as_json) for path in paths)
    if failed:
        tell(f"{failed} {'input' if failed == 1 else 'inputs'} could not be answered")
        raise typer.Exit(1)


def _refuse_live(given: Path) -> None:
    if str(given).startswith("camera:"):
        raise DataError(f"{given}: cameras are not read by this version of edgekit", hint="save frames as PNG, JPEG or DICOM and run those")


def _drawing(colormap: str | None, *, contours: bool, annotate: bool, against: str | None, min_probability: float | None) -> Drawing:
    """The options of overlays, checked before any work; the plain drawing where none was given."""
    from edgekit.imaging.overlay import DEFAULT, OverlayOptions
    from edgekit.runtime.prediction import PLAIN, Drawing

    return Drawing(
        options=OverlayOptions(colormap=DEFAULT.colormap if colormap is None else colormap, contours=contours),
        against=against,
        min_probability=PLAIN.min_probability if min_probability is None else min_probability,
        colorbar=annotate,
        caption=annotate,
    )


def _run_file(classifier: Classifier, path: Path, overlays: _Overlays | None, *, as_json: bool) -> bool:
    """Answers every frame of a file; False when one could not be."""
    from edgekit.imaging import frames

    try:
        for frame in frames.read(path):
            prediction = classifier.predict(frame.pixels)
            drawn = _Drawn() if overlays is None or prediction.cam is None else overlays.write(prediction, path, frame)
            if as_json:
                print_json(_line(classifier, prediction, path, frame, drawn), line=True)
            else:
                say(_sentence(prediction, path, frame, drawn))
    except OutputError:
        raise
    except EdgekitError as error:
        _report_bad(str(path), error, as_json=as_json)
        return False
    return True


def _line(classifier: Classifier, prediction: Prediction, path: Path, frame: Frame, drawn: _Drawn) -> dict[str, Any]:
    cam = prediction.cam
    found: dict[str, Any] | None = None
    if cam is not None:
        row, column = divmod(int(cam.argmax()), cam.shape[1])
        found = {"class": prediction.cam_label, "shape": list(cam.shape), "peak": [row, column]}
    return {
        "input": str(path),
        "frame": frame.index,
        "label": prediction.label if isinstance(prediction.label, str) else list(prediction.label),
        "probabilities": prediction.probabilities,
        "logits": prediction.logits,
        "latency_ms": round(prediction.latency_ms, 3),
        "cam": found,
        "overlay": None if drawn.path is None else str(drawn.path),
        "engine": prediction.engine,
        "bundle": classifier.bundle_digest,
        "accepted": prediction.accepted,
        "assessable": prediction.assessable,
        "reason": _reason(prediction, drawn),
    }


def _sentence(prediction: Prediction, path: Path, frame: Frame, drawn: _Drawn) -> str:
    label = prediction.label if isinstance(prediction.label, str) else " + ".join(prediction.label) or "none"
    ranked = sorted(prediction.probabilities.items(), key=lambda item: -item[1])
    shown = "  ".join(f"{name} {probability:.3f}" for name, probability in ranked)
    parts = [f"{path}", f"frame {frame.index}", label, f"({shown})", f"{prediction.latency_ms:.1f} ms"]
    if reason := _reason(prediction, drawn):
        parts.append(f"[{reason}]")
    if drawn.path is not None:
        parts.append(f"→ {drawn.path}")
    return "  ".join(parts)


def _reason(prediction: Prediction, drawn: _Drawn) -> str:
    """What is missing from the answer or from its overlay, and why the engines before the one that answered did not."""
    passed_over = f"answered by {prediction.engine}, because {'; '.join(prediction.engine_notes)}" if prediction.engine_notes else ""
    return "; ".join(filter(None, (prediction.reason, drawn.withheld, passed_over)))


def _report_bad(name: str, error: EdgekitError, *, as_json: bool) -> None:
    if as_json:
        print_json({"input": name, "error": error.message}, line=True)
    report_error(error)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Where the overlay of a frame is, and why it shows nothing where that was decided."""

    path: Path | None = None
    withheld: str = ""


class _OverlayNames:
    """File names for overlays: after the input, never outside the folder, never twice."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def of(self, path: Path, frame: Frame) -> str:
        stem = _UNSAFE.sub("-", path.stem).strip("-.") or "frame"
        base = f"{stem}-{frame.index:04d}"
        name, count = f"{base}.png", 2
        while name in self._used:
            name, count = f"{base}-{count}.png", count + 1
        self._used.add(name)
        return name


def _check_folder(folder: Path) -> None:
    from edgekit.bundle.writer import check_writable

    if folder.exists() and not folder.is_dir():
        raise OutputError(f"--overlay {folder} is a file, not a folder", hint="give a folder; it is made where there is none")
    check_writable(folder / "overlay.png")


class _Overlays:
    """Writes overlays into a folder, all drawn in one way."""

    def __init__(self, folder: Path, label: str | None, drawing: Drawing) -> None:
        self._folder, self._label, self._drawing = folder, label, drawing
        self._names = _OverlayNames()

    def check(self, classifier: Classifier) -> None:
        """Refuses what this bundle cannot draw, before the first frame."""
        manifest, other = classifier.manifest, self._drawing.against
        if manifest.cam is None:
            raise DataError(f"{classifier.path} has no map to draw: {manifest.cam_reason}", hint="leave out --overlay")
        if other is not None and self._label in (None, other):
            raise DataError("--against LABEL needs --explain with another label", hint="name two labels of the model")
        for option, label in (("--explain", self._label), ("--against", other)):
            if label is not None and label not in manifest.output.labels:
                raise DataError(f"{option}: {label!r} is not a label of {classifier.path}", hint=nearest(label, manifest.output.labels))

    def write(self, prediction: Prediction, path: Path, frame: Frame) -> _Drawn:
        import io

        from PIL import Image

        from edgekit.bundle.writer import write_atomically

        buffer = io.BytesIO()
        Image.fromarray(prediction.overlay(self._label, self._drawing)).save(buffer, format="PNG")
        to = self._folder / self._names.of(path, frame)
        write_atomically(to, [buffer.getvalue()])
        return _Drawn(to, prediction.why_not_drawn(self._label, self._drawing))
