"""`edgekit inspect`: what a bundle says about itself, after every byte of it was checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgekit.cli.console import print_json, say

if TYPE_CHECKING:
    from edgekit.bundle.manifest import Manifest

_RESULTS = {"passed": "passed", "failed": "FAILED", "not demonstrated": "let through, not demonstrated"}


def inspect(
    bundle: Path = typer.Argument(metavar="BUNDLE", help="A bundle (.edgekit)."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document on stdout."),
) -> None:
    """Show what is in a bundle."""
    from edgekit.bundle.reader import open_bundle
    from edgekit.schema.decode import encode

    opened = open_bundle(bundle)
    manifest = opened.manifest
    if as_json:
        print_json({"path": str(bundle), "digest": opened.digest, "size_bytes": opened.size_bytes, "manifest": encode(manifest)})
        return
    verdict = "accepted" if manifest.accepted else "NOT ACCEPTED by its gate"
    say(f"{manifest.name} {manifest.version} (security version {manifest.security_version}), {verdict}")
    say(f"  digest      {opened.digest}")
    say(f"  size        {opened.size_bytes / 1e6:.2f} MB")
    say(f"  target      {manifest.target.name}: {manifest.target.title}")
    say(f"  answers     {manifest.output.task}: {', '.join(manifest.output.labels)}")
    for label, threshold in manifest.decision.thresholds.items():
        say(f"  threshold   {label}: {threshold:.4f} (frozen on validation)")
    spec = manifest.input
    say(f"  input       {spec.color}, resize {spec.resize[0]} × {spec.resize[1]}, crop {spec.size[0]} × {spec.size[1]}")
    for engine in manifest.engines:
        say(f"  engine      {engine.name} ≥ {engine.minimum_version}, {engine.precision}, {engine.settings}")
    say(
        f"  map         {manifest.cam.rows} × {manifest.cam.columns}, {manifest.cam.kind}"
        if manifest.cam
        else f"  map         none: {manifest.cam_reason}"
    )
    say(f"  input gate  {_input_gate(manifest)}")
    for gate in manifest.acceptance:
        value = "not computable" if gate.value is None else f"{gate.value:.4f}"
        say(f"  gate        {gate.name}: {value} against {gate.bound:.4f}, {_RESULTS[gate.status or 'failed']}")
    for name, member in sorted(manifest.members.items()):
        say(f"  member      {name}  {member.size_bytes} bytes  {member.sha256[:16]}…")


def _input_gate(manifest: Manifest) -> str:
    gate = manifest.gate
    if gate is None:
        return f"none: {manifest.gate_reason or 'the bundle was made without one'}; every frame is answered"
    limits = ", ".join(f"{name} {found.limit:.2f}" for name, found in {"brightness": gate.brightness, **gate.features}.items())
    known = f"{gate.frames} frames of {gate.groups} groups of val"
    return f"largest distance {limits}, from {known}; frozen after {gate.frozen_frames} frames or {gate.frozen_s:g} s"
