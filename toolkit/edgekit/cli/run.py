"""`edgekit run`: frames in, answers and overlays out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edgekit.cli.console import print_json, report_error, say, tell
from edgekit.errors import DataError, EdgekitError, OutputError

if TYPE_CHECKING:
    from edgekit.imaging.frames import Frame
    from edgekit.runtime.classifier import Classifier
    from edgekit.runtime.prediction import Prediction

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def run(
    bundle: Path = typer.Argument(metavar="BUNDLE", help="A bundle (.edgekit)."),
    inputs: list[Path] = typer.Argument(metavar="INPUT", help="Images (PNG, JPEG), DICOM files, or folders of them."),
    overlay: Path | None = typer.Option(None, "--overlay", help="Write each frame with its class activation map into this folder, as PNG."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON Lines on stdout: one a frame."),
) -> None:
    """Classify frames with a bundle."""
    from edgekit.imaging import frames
    from edgekit.runtime.classifier import load

    if overlay is not None:
        _check_folder(overlay)
    classifier = load(bundle)
    if not classifier.manifest.accepted:
        tell(f"warning: {bundle} was NOT ACCEPTED by its acceptance gate; its answers are not proven")
    if overlay is not None and classifier.manifest.cam is None:
        raise DataError(f"{bundle} has no map to draw: {classifier.manifest.cam_reason}", hint="leave out --overlay")
    failed = 0
    names = _OverlayNames()
    for given in inputs:
        try:
            _refuse_live(given)
            paths = [path for path in frames.expand([given]) if overlay is None or not path.resolve().is_relative_to(overlay.resolve())]
        except EdgekitError as error:
            failed += 1
            _report_bad(str(given), error, as_json=as_json)
            continue
        failed += sum(not _run_file(classifier, path, overlay, names, as_json=as_json) for path in paths)
    if failed:
        tell(f"{failed} {'input' if failed == 1 else 'inputs'} could not be answered")
        raise typer.Exit(1)


def _refuse_live(given: Path) -> None:
    if str(given).startswith("camera:"):
        raise DataError(f"{given}: cameras are not read by this version of edgekit", hint="save frames as PNG, JPEG or DICOM and run those")


def _run_file(classifier: Classifier, path: Path, folder: Path | None, names: _OverlayNames, *, as_json: bool) -> bool:
    """Answers every frame of a file; False when one could not be."""
    from edgekit.imaging import frames

    try:
        for frame in frames.read(path):
            prediction = classifier.predict(frame.pixels)
            drawn = None if folder is None or prediction.cam is None else _write_overlay(prediction, folder / names.of(path, frame))
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


def _line(classifier: Classifier, prediction: Prediction, path: Path, frame: Frame, drawn: Path | None) -> dict[str, Any]:
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
        "overlay": None if drawn is None else str(drawn),
        "engine": prediction.engine,
        "bundle": classifier.bundle_digest,
        "accepted": prediction.accepted,
        "assessable": prediction.assessable,
        "reason": _reason(prediction),
    }


def _sentence(prediction: Prediction, path: Path, frame: Frame, drawn: Path | None) -> str:
    label = prediction.label if isinstance(prediction.label, str) else " + ".join(prediction.label) or "none"
    ranked = sorted(prediction.probabilities.items(), key=lambda item: -item[1])
    shown = "  ".join(f"{name} {probability:.3f}" for name, probability in ranked)
    parts = [f"{path}", f"frame {frame.index}", label, f"({shown})", f"{prediction.latency_ms:.1f} ms"]
    if reason := _reason(prediction):
        parts.append(f"[{reason}]")
    if drawn is not None:
        parts.append(f"→ {drawn}")
    return "  ".join(parts)


def _reason(prediction: Prediction) -> str:
    """What is missing from the answer, and why the engines before the one that answered did not."""
    passed_over = f"answered by {prediction.engine}, because {'; '.join(prediction.engine_notes)}" if prediction.engine_notes else ""
    return "; ".join(filter(None, (prediction.reason, passed_over)))


def _report_bad(name: str, error: EdgekitError, *, as_json: bool) -> None:
    if as_json:
        print_json({"input": name, "error": error.message}, line=True)
    report_error(error)


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


def _write_overlay(prediction: Prediction, path: Path) -> Path:
    import io

    from PIL import Image

    from edgekit.bundle.writer import write_atomically

    buffer = io.BytesIO()
    Image.fromarray(prediction.overlay()).save(buffer, format="PNG")
    write_atomically(path, [buffer.getvalue()])
    return path
