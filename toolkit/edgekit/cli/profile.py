"""`edgekit profile`: latency, memory and cold start of a bundle on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edgekit.cli.console import TerminalProgress, print_json, say, table, tell
from edgekit.errors import DataError

if TYPE_CHECKING:
    from edgekit.profiler.stages import Frame

SYNTHETIC_FRAMES = 6
MAX_FRAMES = 32
"""Frames that are kept in memory and shown in turn."""


def profile(
    bundle: Path = typer.Argument(metavar="BUNDLE", help="A bundle (.edgekit)."),
    frames: Path | None = typer.Option(None, "--frames", help="A file or folder of frames; by default synthetic 480 × 640 grey ones."),
    seconds: float = typer.Option(10.0, "--seconds", min=0.5, max=3600.0, help="How long to measure the latency."),
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
    from edgekit.report import profile_page

    limits = [failif.parse(expression, known=profiling.PATHS) for expression in fail_if]
    if html is not None:
        check_writable(html)
    open_bundle(bundle)  # a damaged bundle is refused before minutes are spent on it
    files = _files(frames)
    shown = _load(files) if files else _synthetic()
    found = profiling.profile(
        bundle, shown, options=profiling.Options(seconds=seconds, files=tuple(files)), on_progress=_Told(TerminalProgress())
    )
    document = found.to_json()
    if html is not None:
        write_atomically(html, [profile_page.render(document).encode()])
    if as_json:
        print_json(document)
    else:
        print_profile(document)
        if html is not None:
            say(f"page: {html}")
    failif.check(limits, document)


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
