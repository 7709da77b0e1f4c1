"""`edgekit evaluate`: a bundle's figures on labelled frames, with intervals that respect the patients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from edgekit.cli.console import TerminalProgress, figure, print_json, say, table, tell
from edgekit.errors import DataError

_SHOWN = ("auc", "accuracy", "balanced_accuracy", "sensitivity", "specificity", "precision", "recall", "f1", "ece")
_SHOWN_BY_CLASS = ("auc", "sensitivity", "specificity", "precision", "f1")


def evaluate(
    bundle: Path = typer.Argument(metavar="BUNDLE", help="A bundle (.edgekit)."),
    data: Path = typer.Option(..., "--data", help="A data manifest (CSV)."),
    split: str = typer.Option("test", "--split", help="Which rows to use."),
    file_column: str = typer.Option("file", "--file-column", help="Column of the frames' paths."),
    label_column: str = typer.Option("label", "--label-column", help="Column of the labels."),
    split_column: str = typer.Option("split", "--split-column", help="Column of the splits."),
    group_column: str = typer.Option("patient_or_video_id", "--group-column", help="Column of the patients or videos."),
    explanations: bool = typer.Option(
        False, "--explanations", help="Also show and hide the pixels that the maps name: insertion, deletion, average drop, increase. Slow."
    ),
    explanation_frames: int = typer.Option(
        64, "--explanation-frames", min=1, help="Frames that --explanations is made on, drawn at random."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document on stdout."),
) -> None:
    """Evaluate a bundle on labelled frames."""
    from edgekit.runtime.classifier import load
    from edgekit.runtime.evaluate import evaluate_split
    from edgekit.schema.data import Columns

    try:
        columns = Columns(file=file_column, label=label_column, split=split_column, group=group_column)
    except ValueError as error:
        raise DataError(str(error), hint="give each --…-column option a column of its own") from error
    classifier = load(bundle)
    if explanations:
        from edgekit.runtime.explanations import check_explainable

        check_explainable(classifier)
    progress = TerminalProgress()
    progress.begin(f"{split} frames", cached=False)
    found = evaluate_split(classifier, data, split=split, columns=columns, on_frame=progress.step)
    progress.end()
    document = found.to_json()
    if explanations:
        from edgekit.runtime.explanations import explain_split

        progress.begin("explanations", cached=False)
        put = explain_split(classifier, data, split=split, columns=columns, frames=explanation_frames, on_frame=progress.step)
        progress.end()
        document["explanations"] = put.to_json()
    if found.not_assessable:
        tell(f"the input gate refuses {found.not_assessable} of {found.n} frames; the figures count them all")
    if not classifier.manifest.accepted:
        tell(f"warning: {bundle} was NOT ACCEPTED by its acceptance gate")
    if as_json:
        print_json(document)
        return
    say(
        f"{classifier.manifest.name} {classifier.manifest.version} on {data}, split {split}: {document['n']} frames of {document['groups']} groups"
    )
    say(table([(name.replace("_", " "), figure(document[name])) for name in _SHOWN], header=("", "value (95 % interval)")))
    say()
    rows = [
        (label, str(item["support"]), *[figure(item[name]) for name in _SHOWN_BY_CLASS]) for label, item in document["per_class"].items()
    ]
    say(table(rows, header=("label", "frames", *_SHOWN_BY_CLASS)))
    if explanations:
        say()
        say(_explanations(document["explanations"]))


def _explanations(found: dict[str, Any]) -> str:
    sides = ("own", "random", "difference")
    rows = [(name, *(figure(found[side][name]) for side in sides)) for name in found["own"]]
    head = (
        f"Explanations, {found['frames']} frames of {found['groups']} groups ({found['without_map']} without a map); hidden is {found['baseline']}.\n"
        "Insertion and increase: higher is better; deletion and drop: lower. A frame that is part blur is none the model was trained on."
    )
    return f"{head}\n{table(rows, header=('', 'the map', 'its cells at random', 'difference'))}"
