"""`edgekit run`: frames in, answers and overlays out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit.cli.console import tell
from edgekit.errors import DataError, EdgekitError

if TYPE_CHECKING:
    from edgekit.cli.run_clips import Live, Runner, Together
    from edgekit.cli.run_jobs import Jobs
    from edgekit.runtime.prediction import Drawing

LONGEST_FRAME_MS = 600_000.0


def run(
    bundle: Path = typer.Argument(metavar="BUNDLE", help="A bundle (.edgekit)."),
    inputs: list[Path] = typer.Argument(
        metavar="INPUT", help="Images (PNG, JPEG), DICOM files, videos (MP4, MOV, AVI, Matroska, WebM), folders of them, or camera:N."
    ),
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
    as_json: bool = typer.Option(False, "--json", help="Print JSON Lines on stdout: one a frame, and one a clip with --aggregate."),
    fps: Annotated[
        str | None,
        typer.Option(
            "--fps", metavar="F", help="Play files live at F frames a second, or `native`: the newest frame is answered, others drop."
        ),
    ] = None,
    deadline_ms: Annotated[
        float | None,
        typer.Option("--deadline-ms", metavar="MS", help="Withhold a live result that is older; default 4 frame times, at least 100 ms."),
    ] = None,
    seconds: Annotated[float | None, typer.Option("--seconds", metavar="S", help="Stop each live input after S seconds.")] = None,
    aggregate: Annotated[
        str | None, typer.Option(metavar="HOW", help="One more answer for each clip: mean, max, topk or exponential.")
    ] = None,
    top_k: Annotated[int | None, typer.Option("--top-k", metavar="K", help="Frames that decide with --aggregate topk; default 5.")] = None,
    smooth: Annotated[
        str | None, typer.Option(metavar="TIME", help="Add smoothed probabilities, over a number of frames (8) or of seconds (0.5s).")
    ] = None,
    health: Annotated[
        int | None, typer.Option("--health", metavar="PORT", help="Serve health on this port of 127.0.0.1, while it runs.")
    ] = None,
    log: Annotated[
        Path | None, typer.Option("--log", metavar="FILE", help="Add a log of events to this file, JSON Lines without patient data.")
    ] = None,
    supervise: Annotated[
        bool | None,
        typer.Option("--supervise/--no-supervise", help="Run the engine in a process of its own, watched; default for live inputs."),
    ] = None,
    frame_limit_ms: Annotated[
        float | None,
        typer.Option(
            "--frame-limit-ms",
            metavar="MS",
            help="Start a watched engine anew that gives no answer in this time; default 1000, or the deadline where that is longer.",
        ),
    ] = None,
    jobs: Annotated[
        int,
        typer.Option(
            "--jobs", metavar="N", min=1, help="Answer N files at the same time, each on its share of the cores; not for live inputs."
        ),
    ] = 1,
) -> None:
    """Classify frames with a bundle."""
    from edgekit.cli.run_clips import Runner
    from edgekit.cli.run_jobs import Jobs
    from edgekit.cli.run_output import Overlays, Printer, check_folder, summarize
    from edgekit.cli.run_service import Service

    given = (explain, against, min_probability, colormap, contours or None, annotate or None)
    if overlay is None and any(option is not None for option in given):
        raise DataError("the options of overlays need --overlay DIR", hint="add it, or leave them out")
    drawing = _drawing(colormap, contours=contours, annotate=annotate, against=against, min_probability=min_probability)
    live, together = _live(fps, deadline_ms, seconds), _together(aggregate, top_k, smooth)
    is_live = any(live.plays(str(name)) for name in inputs)
    supervised = is_live if supervise is None else supervise
    limit_ms = _frame_limit_ms(frame_limit_ms, live, supervised=supervised)
    if not is_live and (deadline_ms is not None or seconds is not None):
        raise DataError("--deadline-ms and --seconds are for live inputs", hint="a camera, or files with --fps")
    if overlay is not None:
        check_folder(overlay)
    overlays = None if overlay is None else Overlays(overlay, explain, drawing)
    if jobs > 1 and (is_live or supervise or aggregate is not None or smooth is not None):
        raise DataError("--jobs answers files each for itself", hint="leave out --fps, --aggregate, --smooth and --supervise, or --jobs")
    service = Service(bundle=bundle, supervise=supervised, frame_limit_ms=limit_ms, port=health, log=log, jobs=jobs)
    with service.running() as opened:
        classifier = opened.classifier
        if overlays is not None:
            overlays.check(classifier)
        if not classifier.manifest.accepted:
            tell(f"warning: {bundle} was NOT ACCEPTED by its acceptance gate; its answers are not proven")
        printer = Printer(classifier, as_json=as_json)
        runner: Runner | Jobs = Runner(
            classifier, opened.health, printer, overlays, live=live, together=together, on_engine=opened.on_engine
        )
        if opened.pool is not None:
            runner = Jobs(opened, printer, overlays, as_json=as_json)
        try:
            failed = _run_all(inputs, overlay, runner)
        finally:
            if is_live:
                summarize(opened.health.snapshot())
    if failed:
        tell(f"{failed} {'file or frame' if failed == 1 else 'files or frames'} could not be answered or drawn")
        raise typer.Exit(1)


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


def _live(fps: str | None, deadline_ms: float | None, seconds: float | None) -> Live:
    """How live inputs are played, checked before any work."""
    from edgekit.cli.run_clips import Live
    from edgekit.runtime.sources import NATIVE, check_fps
    from edgekit.runtime.stream import StreamOptions

    StreamOptions(deadline_ms=deadline_ms, seconds=seconds)
    if fps is None or fps == NATIVE:
        return Live(native=fps == NATIVE, deadline_ms=deadline_ms, seconds=seconds)
    try:
        rate = float(fps)
    except ValueError:
        rate = math.nan
    return Live(fps=check_fps(rate), deadline_ms=deadline_ms, seconds=seconds)


def _frame_limit_ms(asked_ms: float | None, live: Live, *, supervised: bool) -> float:
    """When a frame has hung its engine: never before the deadline that the user allows it, and not below what is shipped."""
    from edgekit.runtime.stream import LONGEST_DEADLINE_MS, StreamOptions
    from edgekit.runtime.supervisor import DEFAULT

    if asked_ms is None:
        period_s = None if live.fps is None else 1 / live.fps
        deadline_ms = live.deadline_ms or StreamOptions(period_s=period_s).limit_ms or 0.0
        return max(DEFAULT.frame_limit_ms, min(deadline_ms, LONGEST_DEADLINE_MS))
    if not supervised:
        raise DataError("--frame-limit-ms is for an engine that is watched", hint="add --supervise, or leave it out")
    if not 0 < asked_ms <= LONGEST_FRAME_MS:
        raise DataError(f"--frame-limit-ms is above 0 and at most {LONGEST_FRAME_MS:.0f}, not {asked_ms:g}", hint="for instance 5000")
    return asked_ms


def _together(aggregate: str | None, top_k: int | None, smooth: str | None) -> Together:
    """What is made of several frames, checked before any work."""
    from edgekit.cli.run_clips import Together
    from edgekit.runtime.temporal import DEFAULT_TOP_K, TimeConstant, check_aggregate

    if top_k is not None and aggregate != "topk":
        raise DataError("--top-k K needs --aggregate topk", hint="add it, or leave out --top-k")
    k = DEFAULT_TOP_K if top_k is None else top_k
    if aggregate is not None:
        check_aggregate(aggregate, k)
    return Together(aggregate=aggregate, top_k=k, smooth=None if smooth is None else TimeConstant.parse(smooth))


def _run_all(inputs: list[Path], overlay: Path | None, runner: Runner | Jobs) -> int:
    """Answers every input; returns how many files and frames could not be."""
    from edgekit.imaging import frames
    from edgekit.imaging.camera import is_camera

    failed = 0
    for place in inputs:
        try:
            found = [] if is_camera(str(place)) else frames.expand([place])
            paths = [path for path in found if overlay is None or not path.resolve().is_relative_to(overlay.resolve())]
        except EdgekitError as error:
            failed += 1
            runner.printer.bad(str(place), error)
            continue
        failed += runner.run(str(place), paths)
    return failed
