"""`edgekit profile`: latency, memory and cold start of a bundle on this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edgekit.cli import profile_lines
from edgekit.cli.console import TerminalProgress, print_json, say, table, tell
from edgekit.errors import DataError, EdgekitError, RegressionError

if TYPE_CHECKING:
    from edgekit.profiler.failif import Limit
    from edgekit.profiler.stages import Frame

SYNTHETIC_FRAMES = 6
MAX_FRAMES = 32
"""Frames that are kept in memory and shown in turn."""


def profile(
    bundle: Path = typer.Argument(metavar="BUNDLE", help="A bundle (.edgekit)."),
    frames: Path | None = typer.Option(None, "--frames", help="A file or folder of frames; by default synthetic 480 × 640 grey ones."),
    seconds: float = typer.Option(10.0, "--seconds", min=0.5, max=3600.0, help="How long to measure the latency, and each part below."),
    fps: float | None = typer.Option(
        None,
        "--fps",
        min=0.1,
        max=1000.0,
        help="Also measure frames that come this often a second, whether or not the last one is answered.",
    ),
    idle: bool = typer.Option(
        False, "--idle", help="Also measure a frame after pauses of 33 ms, 1 s and, with --seconds 55 or more, 10 s."
    ),
    layers: bool = typer.Option(
        False, "--layers", help="Also list the engine's layers with their precision and time, in a run of its own."
    ),
    compare: Path | None = typer.Option(
        None, "--compare", metavar="OTHER", help="Measure against another bundle, call by call; exit 4 where BUNDLE is slower."
    ),
    baseline: Path | None = typer.Option(
        None,
        "--baseline",
        metavar="FILE",
        help="Compare with an earlier --json of the same kind of machine; exit 4 where BUNDLE has become slower.",
    ),
    fail_if: list[str] = typer.Option(
        [], "--fail-if", metavar="EXPR", help='Exit 4 when it holds, for example "latency_ms.p99 > 20"; may be repeated.'
    ),
    html: Path | None = typer.Option(None, "--html", help="Write a self-contained page here."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document on stdout."),
) -> None:
    """Measure a bundle on this machine."""
    from edgekit.bundle.reader import open_bundle
    from edgekit.bundle.writer import check_writable, write_atomically
    from edgekit.profiler import failif
    from edgekit.profiler import profile as profiling
    from edgekit.profiler.baseline import load_baseline
    from edgekit.profiler.document import ASKED_FOR
    from edgekit.report import profile_page

    earlier = None if baseline is None else load_baseline(baseline)
    options = profiling.Options(seconds=seconds, fps=fps, idle=idle, layers=layers, compare=compare, baseline=earlier)
    limits = [failif.parse(expression, known=options.paths(), options=ASKED_FOR) for expression in fail_if]
    if html is not None:
        check_writable(html)
    for path in (bundle, compare):
        if path is not None:
            open_bundle(path)  # a damaged bundle is refused before minutes are spent on it
    files = _files(frames)
    shown = _load(files) if files else _synthetic()
    options = dataclasses.replace(options, files=tuple(files))
    document = profiling.profile(bundle, shown, options=options, on_progress=_Told(TerminalProgress())).to_json()
    if html is not None:
        write_atomically(html, [profile_page.render(document).encode()])
    if as_json:
        print_json(document)
    else:
        print_profile(document)
        if html is not None:
            say(f"page: {html}")
    _check(limits, document)


def _check(limits: Sequence[Limit], document: Mapping[str, Any]) -> None:
    """Limits and comparisons together: what broke goes before what cannot be judged, and neither hides the other."""
    from edgekit.profiler import failif, verdict

    broken: list[EdgekitError] = []
    checks: tuple[Callable[[], None], ...] = (partial(failif.check, limits, document), partial(verdict.check, document))
    for judge in checks:
        try:
            judge()
        except EdgekitError as error:
            broken.append(error)
    if not broken:
        return
    kind = RegressionError if any(isinstance(error, RegressionError) for error in broken) else EdgekitError
    raise kind("; ".join(error.message for error in broken), hint="; ".join(dict.fromkeys(error.hint for error in broken if error.hint)))


def print_profile(document: dict[str, Any]) -> None:
    """A profile, for people."""
    latency = document["latency_ms"]
    bundle = document["bundle"]
    say(f"{bundle['name']} {bundle['version']} on {document['host']['cpu_model'] or document['host']['architecture']}")
    say(
        f"engine {bundle['engine']['name']} {bundle['engine']['version']}, float parts in {bundle['engine']['precision']}, {bundle['engine']['threads']} threads"
    )
    names = ("p50", "p90", "p95", "p99", "max")
    say(table([("predict + map, ms", *[_ms(latency[name]) for name in names], str(latency["samples"]))], header=("", *names, "samples")))
    stages = [(name, _ms(item["p50"]), _ms(item["p95"]), str(item["samples"])) for name, item in document["stages_ms"].items()]
    say(table(stages, header=("stage, ms", "p50", "p95", "samples")))
    cold = document["cold_start_ms"]
    parts = ", ".join(f"{name.replace('_', ' ')} {_ms(cold[name])}" for name in ("interpreter", "import", "load", "first_result"))
    say(f"cold start {_ms(cold['total'])} ms ({parts}); median of {cold['repeats']} fresh processes")
    memory = document["peak_memory_mib"]
    say(f"peak memory {'not available' if memory is None else f'{memory:.0f} MiB'}, bundle {bundle['size_bytes'] / 1e6:.1f} MB")
    warmup = document["warmup"]
    say(f"warm-up: {warmup['excluded']} samples left out; {'steady' if warmup['steady'] else 'NOT STEADY: ' + warmup['reason']}")
    for line in profile_lines.lines(document):
        say(line)
    for name, reason in document["unavailable"].items():
        if name.startswith(("latency_ms", "peak_memory")):
            say(f"not reported: {reason}")


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _files(given: Path | None) -> list[Path]:
    if given is None:
        return []
    from edgekit.imaging.frames import expand

    found = expand([given])
    if len(found) > MAX_FRAMES:
        tell(f"the first {MAX_FRAMES} of {len(found)} files are used")
    return found[:MAX_FRAMES]


def _load(files: Sequence[Path]) -> list[Frame]:
    from edgekit.imaging.frames import read

    frames = [frame.pixels for path in files for frame, _ in zip(read(path), range(MAX_FRAMES), strict=False)][:MAX_FRAMES]
    if not frames:
        raise DataError("the files hold no frame")
    return frames


def _synthetic() -> list[Frame]:
    from edgekit.imaging import phantom
    from edgekit.imaging.phantom_scanner import PhantomSpec

    spec = PhantomSpec(rows=480, columns=640)
    kinds = phantom.LABELS
    return [phantom.frame(kinds[index % len(kinds)], patient=index, index=0, seed=0, spec=spec) for index in range(SYNTHETIC_FRAMES)]


class _Told:
    """Draws the profiler's shares as stages."""

    def __init__(self, progress: TerminalProgress) -> None:
        self._progress = progress
        self._stage = ""

    def __call__(self, stage: str, share: float) -> None:
        if stage != self._stage:
            self._stage = stage
            self._progress.begin(stage, cached=False)
        self._progress.step(round(share * 100), 100)
        if share >= 1.0:
            self._progress.end()
            self._stage = ""
