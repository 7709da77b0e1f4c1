"""`edgekit check`: does an ONNX graph keep the rules of a device's TensorRT?"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from edgekit.cli.console import print_json, say
from edgekit.errors import ModelError

if TYPE_CHECKING:
    from edgekit.compiler.conformance import Finding


def check(
    model: Path = typer.Argument(metavar="MODEL.onnx", help="An ONNX file."),
    target: str = typer.Option(..., "--target", "-t", metavar="NAME", help="A target with TensorRT; edgekit targets lists them."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document on stdout."),
) -> None:
    """Check an ONNX graph against the rules of a device's TensorRT, without the device."""
    from edgekit.catalog.target import load_target
    from edgekit.compiler.conformance import check_file
    from edgekit.schema.decode import encode

    loaded = load_target(target)
    findings = check_file(model, loaded)
    counts = Counter(finding.severity for finding in findings)
    if as_json:
        print_json(
            {"model": str(model), "target": loaded.name, "conforms": not counts["error"], "findings": [encode(item) for item in findings]}
        )
    else:
        for finding in findings:
            _show(finding)
        versions = ", ".join(loaded.tensorrt.versions) if loaded.tensorrt is not None else ""
        verdict = "does not conform" if counts["error"] else "conforms"
        say(
            f"{model} {verdict} to {loaded.name} (TensorRT {versions}): {_plural(counts['error'], 'error')}, {_plural(counts['warning'], 'warning')}"
        )
        if not counts["error"]:
            say("conformance-checked only: the device's own parser and builder have the last word")
    if counts["error"]:
        raise ModelError(
            f"{model} breaks the rules of {loaded.name} in {_plural(counts['error'], 'place')}",
            hint="each finding says how to mend it; docs/conformance-rules.md has the rules and their sources",
        )


def _show(finding: Finding) -> None:
    place = f"{finding.node}: " if finding.node else ""
    line = f"{finding.severity:<7}  {finding.rule:<3}  {place}{finding.message} [TensorRT {', '.join(finding.versions)}]"
    say(" ".join(line.splitlines()))
    if finding.fix:
        say(f"{'':<14}fix: {finding.fix}")


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
