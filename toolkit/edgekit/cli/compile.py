"""`edgekit compile`: a recipe becomes proven device bundles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edgekit.cli.console import TerminalProgress, figure, only_a_document, print_json, say, table, tell
from edgekit.errors import AcceptanceError

if TYPE_CHECKING:
    from edgekit.compiler.finish import Finished

DEFAULT_WORKDIR = Path(".edgekit")

_SHOWN = ("auc", "accuracy", "balanced_accuracy", "sensitivity", "specificity", "f1", "ece")


def compile_(
    recipe: str = typer.Argument(metavar="RECIPE", help="A recipe (TOML), or the name of one in models/."),
    out: Path | None = typer.Option(None, "--out", "-o", help="The bundle (.edgekit), or a folder for it."),
    target: list[str] = typer.Option([], "--target", "-t", help="Compile for this target instead of the recipe's; may be repeated."),
    settings: list[str] = typer.Option(
        [], "--set", metavar="KEY=VALUE", help="Change a key of the recipe, for example model.weights=lung.safetensors."
    ),
    workdir: Path = typer.Option(
        DEFAULT_WORKDIR, "--workdir", help="Where stage results are kept, so that an interrupted compile resumes."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document on stdout."),
) -> None:
    """Compile a trained model into proven device bundles."""
    from edgekit.catalog.recipe import load_recipe
    from edgekit.compiler.pipeline import compile_recipe

    loaded = load_recipe(recipe, settings=settings, targets=target)
    with only_a_document():
        results = compile_recipe(loaded, out=out, workdir=workdir, progress=TerminalProgress())
    if not results:  # a further process of `accelerate launch`: the first one tells
        return
    if as_json:
        print_json(_document(results))
    else:
        for result in results:
            print_result(result)
    refused = [result for result in results if not result.accepted and result.bundle is None]
    if refused:
        failed = [gate for gate in refused[0].gates if not gate.passed]
        names = ", ".join(gate.name for gate in failed)
        for result in refused:
            if result.outputs.bundle.exists():
                tell(f"warning: {result.outputs.bundle} is from an earlier compile; it is not the model that was refused")
        raise AcceptanceError(
            f"{loaded.name} is refused by the acceptance gate ({names}); no bundle was written",
            hint=f"{refused[0].outputs.report_html} says why; try: {'; '.join(dict.fromkeys(gate.advice for gate in failed))}",
        )


def print_result(result: Finished) -> None:
    """A target's result, for people."""
    document = result.document
    say()
    say(f"{document['name']} {document['version']} for {document['target']['name']}: {document['precision']}, rung {document['rung']}")
    say(f"test split, {document['device']['n']} frames of {document['device']['groups']} groups; 95 % intervals respect the groups")
    rows = [(name.replace("_", " "), figure(document["reference"][name]), figure(document["device"][name])) for name in _SHOWN]
    say(table(rows, header=("", "trained model, FP32", "compiled")))
    for gate in result.gates:
        say(f"  {'FAILED' if gate.status == 'failed' else gate.status}  {gate.name}: {gate.explanation}")
    cam = document["cam"]
    say(_map(cam))
    timing = document["latency_ms"]
    for row in document["engines"] if len(document["engines"]) > 1 else ():
        say(f"  {_engine(row)}")
    if document["oracle"]:
        say(
            f"  {document['engine']['name']} does not run here: proven with {document['oracle']}; on the device run edgekit build, then edgekit verify"
        )
    if timing["p50"] is not None:
        say(f"  latency on this host, 480 × 640 frame in, answer and map out: median {timing['p50']:.2f} ms of {timing['samples']}")
    if result.bundle is not None:
        verdict = "accepted" if result.accepted else "NOT ACCEPTED, written because enforce = false"
        say(f"  bundle: {result.bundle} ({document['size_bytes'] / 1e6:.1f} MB, {verdict})")
    say(f"  report: {result.outputs.report_html}")


def _engine(row: dict[str, Any]) -> str:
    if row["reason"]:
        return f"{row['name']}: left out, {row['reason']}"
    verdict = "accepted" if row["accepted"] else f"refused ({', '.join(row['failed_gates'])}), not in the bundle"
    return f"{row['name']}: rung {row['rung']}, {row['flips']} of {row['frames']} answers changed, {verdict}"


def _map(cam: dict[str, Any]) -> str:
    if not cam["rows"]:
        return f"  no map: {cam['reason']}"
    like = cam["likeness_on_val"]
    return f"  map: {cam['rows']} × {cam['columns']}, inside the graph; Pearson to the unquantized one on val: median {like['median']:.3f}, 5th percentile {like['p5']:.3f}"


def _document(results: list[Finished]) -> dict[str, Any]:
    """The contract's keys at the top; with several targets each one's own document under `targets` too."""
    document = dict(results[0].document)
    document["accepted"] = all(result.accepted for result in results)
    document["bundles"] = [path for result in results for path in result.document["bundles"]]
    if len(results) > 1:
        document["gates"] = [
            {"target": result.document["target"]["name"], **gate} for result in results for gate in result.document["gates"]
        ]
        document["targets"] = [result.document for result in results]
    return document
