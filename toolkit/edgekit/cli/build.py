"""`edgekit build`: makes a bundle ready on this device, once, when it is installed; what takes minutes, or even a second, does not belong to the first frame."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgekit.cli.console import TerminalProgress, only_a_document, print_json, say
from edgekit.errors import TargetError

if TYPE_CHECKING:
    from edgekit.profiler.engine_choice import Tried


def build(
    bundle: Path = typer.Argument(metavar="BUNDLE", help="A bundle (.edgekit)."),
    again: bool = typer.Option(
        False,
        "--again",
        help="Try and time the engines again although what an earlier build found still holds; plans are kept where they fit.",
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document on stdout."),
) -> None:
    """Build a bundle's TensorRT engines on this device and compile its OpenVINO models ahead, and try them on its golden frames."""
    from edgekit.bundle.reader import open_bundle
    from edgekit.profiler.ahead import make_ready
    from edgekit.runtime.engines.engine_cache import EngineCache
    from edgekit.schema.decode import encode

    opened = open_bundle(bundle)
    cache = EngineCache()
    with only_a_document():
        outcome = make_ready(opened, cache, TerminalProgress(), again=again)
    if as_json:
        print_json(
            {
                "bundle": str(bundle),
                "digest": opened.digest,
                "cache": str(cache.folder),
                "engines": [encode(one) for one in outcome.tried],
                "order": list(outcome.order),
                "notes": list(outcome.notes),
            }
        )
    else:
        for one in outcome.tried:
            say(_line(one))
        if all(one.earlier for one in outcome.tried):
            say("nothing was done: what an earlier build found still holds; --again tries the engines again")
        if outcome.order:
            say(f"{outcome.order[0]} answers from now on; engines are kept in {cache.folder}")
    if not outcome.order:
        raise TargetError(
            f"no engine of {bundle} that is built on the device may answer here",
            hint="the bundle's other engines answer where it has some: edgekit verify; edgekit doctor shows what this machine has",
        )


def _line(one: Tried) -> str:
    parts = [f"{one.status}  {one.engine}"]
    if one.built is not None:
        made = "already built" if one.built.cached else f"built in {one.built.build_seconds:.0f} s ({one.built.reason})"
        parts.append(f"{made}, {one.built.size_bytes / 2**20:.1f} MiB")
    if one.max_difference is not None:
        compared = f"{one.frames} golden frames, largest difference {one.max_difference:.3g} logit units of {one.tolerance:.3g} allowed"
        parts.append(compared if one.max_map_difference is None else f"{compared}, of a map {one.max_map_difference:.3g}")
    if one.label_changes:
        parts.append(f"{one.label_changes} of them answered with another label")
    if one.latency_ms is not None:
        parts.append(f"{one.latency_ms:.2f} ms a frame")
    if one.reason:
        parts.append(one.reason)
    return "; ".join(parts)
