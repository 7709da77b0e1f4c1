"""`edgekit verify`: are the bytes whole, and does this machine answer as the one the bundle was proven on? With `--json`, a report to send to the maker."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edgekit.cli.console import only_a_document, print_json, say
from edgekit.errors import TargetError

if TYPE_CHECKING:
    from edgekit.bundle.reader import Bundle
    from edgekit.profiler.verification import Verification


def verify(
    bundle: Path = typer.Argument(metavar="BUNDLE", help="A bundle (.edgekit)."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document on stdout."),
    full: bool = typer.Option(False, "--full", help="Also try damaged and foreign engines, in a copy of the engine cache."),
    allow_fallback: bool = typer.Option(
        False, "--allow-fallback", help="Succeed though the engine that the bundle is for did not run, if another one of the bundle passed."
    ),
) -> None:
    """Check a bundle's digests, run its golden frames on every engine, and time those that pass."""
    from edgekit.bundle.reader import open_bundle
    from edgekit.profiler.verification import Wanted, required
    from edgekit.profiler.verification import verify as verify_bundle

    opened = open_bundle(bundle)
    with only_a_document():
        found = verify_bundle(opened, Wanted(faults=full, allow_fallback=allow_fallback))
        document = _document(opened, found, allow_fallback=allow_fallback) if as_json else {}
    if as_json:
        print_json(document)
    else:
        for check in found.checks:
            say(check.line())
        say("PASS" if found.passed else "FAIL")
    if not found.passed:
        raise TargetError(
            f"{bundle} is whole, but not every engine of it passes here",
            hint=f"the reasons are above; needed are {', '.join(required(opened))}; edgekit doctor shows what this machine has",
        )


def _document(bundle: Bundle, found: Verification, *, allow_fallback: bool) -> dict[str, Any]:
    """What is sent to the maker: nothing in it tells this device from another of its kind."""
    from edgekit import __version__
    from edgekit.profiler import anonymous, probe_process
    from edgekit.profiler.device import read_device
    from edgekit.profiler.device_checks import build_checks
    from edgekit.profiler.host import fingerprint
    from edgekit.runtime.engines.tensorrt_build import is_tensorrt
    from edgekit.schema.decode import encode

    manifest = bundle.manifest
    builds = build_checks(probe_process.probe_apart()) if any(is_tensorrt(spec.name) for spec in manifest.engines) else ()
    document: dict[str, Any] = {
        "bundle": bundle.path.name,
        "name": manifest.name,
        "version": manifest.version,
        "target": manifest.target.name,
        "digest": bundle.digest,
        "accepted": manifest.accepted,
        "edgekit": __version__,
        "time": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        "passed": found.passed,
        "allow_fallback": allow_fallback,
        "checks": encode(found.checks),
        "host": encode(fingerprint()),
        "device": encode(read_device()),
        "builds": encode(builds),
    }
    scrubbed: dict[str, Any] = anonymous.document(document, {str(bundle.path.absolute().parent): "the bundle's folder"})
    return scrubbed
