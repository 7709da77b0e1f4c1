"""The page of a compile: what an engineer and a clinical reviewer read to judge whether the small model is not worse.

Made from the compile's JSON document and the preprocessed pixels of the frames whose answer changed.

Rules this file keeps:

1. The verdict stands first, with one sentence why; then the gates it rests on; then the evidence, from `test`; then how it was made.
2. A figure that is not defined is written `undefined`, never left out in silence.
3. A time is labelled with the machine it was measured on and never stands for another one.
4. The page shows patient images and says so: it lies beside the bundle and must not travel with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.report.calibration import calibration_section
from edgekit.report.cam import map_section
from edgekit.report.comparison import classes_section, confusion_section, difference_section, figures_section
from edgekit.report.flips import flips_section
from edgekit.report.gates import gates_section, verdict
from edgekit.report.html import Content, Figure, Html, callout, columns, element, figures, key_values, page, section, table
from edgekit.report.input_gate import input_gate_section
from edgekit.report.making import engines_section, host_facts, ladder_section, stages_section, target_facts
from edgekit.report.methods import Strip, methods_section
from edgekit.report.operating import operating_section
from edgekit.report.pruning import pruning_section
from edgekit.report.roc import roc_section
from edgekit.report.search import search_section
from edgekit.report.steps import steps_section
from edgekit.report.subgroups import subgroups_section
from edgekit.report.training import training_section
from edgekit.report.wording import UNDEFINED, count, decimal, milliseconds, share

Document = Mapping[str, Any]

MIB = 1024.0 * 1024.0

_SPLITS = {
    "train": "trained the model, and may calibrate it",
    "calib": "calibrates the quantization, with train where it is too small",
    "val": "chooses thresholds, temperatures, the epoch of a training, the rung and the point of a search",
    "test": "proves the result, looked at once",
}
_PERCENTILES = {"p50": "median", "p90": "p90", "p95": "p95", "p99": "p99"}
_UNMEASURED = "–"


def render(
    document: Mapping[str, Any],
    frames: Mapping[str, NDArray[np.uint8]],
    overlays: Mapping[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]] | None = None,
    worst: Mapping[str, tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]] | None = None,
    strips: Sequence[Strip] = (),
) -> str:
    """The page.

    Args:
        document: What the compiler found: the JSON report. Labels, file names and reasons in it are untrusted.
        frames: File name of each frame whose answer changed to its preprocessed pixels, uint8 (rows, columns) or (rows, columns, 3) in RGB order.
        overlays: File name to the same frame under the map of the trained model and under the device's, each uint8 (rows, columns, 3) in RGB order;
            None where there are no maps.
        worst: File name to the frame, the frame under the map of the unquantized network and under the device's map of the same label, of the frames whose maps
            are least alike; None where there are no maps.
        strips: Frames under the maps of other explanation methods, where the recipe asks for them.

    Raises:
        DataError: Pixels that are shown are no such picture.
    """
    return page(
        f"{document['name']} {document['version']} for {document['target']['name']}",
        verdict(document),
        _headline(document),
        *_reading(document),
        *_oracle(document),
        gates_section(document),
        *engines_section(document),
        figures_section(document),
        difference_section(document),
        *roc_section(document),
        *operating_section(document),
        confusion_section(document),
        classes_section(document),
        *calibration_section(document),
        flips_section(document, frames, overlays or {}),
        *subgroups_section(document),
        *steps_section(document),
        *search_section(document),
        *pruning_section(document),
        *training_section(document),
        ladder_section(document),
        map_section(document, worst or {}),
        *methods_section(document, strips),
        *input_gate_section(document),
        _latency(document),
        _data(document),
        _notes(document),
        stages_section(document),
        section("Device and host", columns(target_facts(document), host_facts(document))),
        subtitle=f"Compile report: {document['precision']}, rung {document['rung']}, {document['task']}, source {document['source']}",
        footer=f"edgekit {document['host']['packages']['edgekit']}. Contains patient images: keep it where the images may be kept. "
        "edgekit claims no clearance as a medical device.",
    )


def _oracle(document: Document) -> list[Html]:
    """Says at the top that the engine itself did not run, where it did not."""
    if not document["oracle"]:
        return []
    said = (
        f"{document['engine']['name']} did not run: what is called “device” on this page was computed by {document['oracle']}. "
        "It is numerics-checked, not device-verified; edgekit verify on the device compares golden frames."
    )
    return [callout("warning", said)]


def _headline(document: Document) -> Html:
    difference, flips, latency = document["auc_difference"], document["flips"], document["latency_ms"]
    harmful = sum(flip["kind"] == "harmful" for flip in flips)
    frames, median = document["device"]["n"], latency["p50"]
    tiles = [
        Figure(
            label="ΔAUC",
            value=decimal(difference["difference"], 4, signed=True),
            detail=f"device − FP32; lower bound {decimal(difference['lower_bound'], 4, signed=True)}",
        ),
        Figure(label="Harmful flips", value=str(harmful), detail=f"{share(harmful / frames)} of the frames: right, then wrong"),
        Figure(label="Changed answers", value=str(len(flips)), detail=f"{share(len(flips) / frames)} of the frames"),
        Figure(
            label="Latency, median",
            value=_UNMEASURED if document["oracle"] else UNDEFINED if median is None else milliseconds(median),
            unit="" if median is None else "ms",
            detail="to be measured on the device" if document["oracle"] else "on the compile's host, no other device",
        ),
        Figure(label="Bundle", value=decimal(document["size_bytes"] / MIB, 2), unit="MiB", detail=_bundle(document)),
    ]
    return figures(tiles)


def _reading(document: Document) -> list[Html]:
    if document["flips"] or document["cam"].get("worst"):
        safety = (
            "this page shows thumbnails and file names of patient images. It is for those who may see the images, and it must not travel "
            "with the bundle, which holds none."
        )
    else:
        safety = "no answer changed and there are no maps, so this page shows no patient image. Other reports do; a report must not travel with its bundle."
    limit = (
        "“Accepted” says that the gates below were passed on these frames, no more. edgekit claims no clearance as a medical device; "
        "whether the model may be used on patients is decided elsewhere."
    )
    return [callout("warning", safety), element("p", limit, class_="note", style="margin-top: 1rem")]


def _latency(document: Document) -> Html:
    latency, engine, host = document["latency_ms"], document["engine"], document["host"]
    size = f"{document['size_bytes']:,} bytes".replace(",", "\u202f")
    held = key_values([("Bundle", _bundle(document)), ("Size", size)])
    if document["oracle"]:
        note = (
            f"Not measured: {engine['name']} does not run on the host of this compile, and no other machine's latency would stand for {engine['device']}. "
            "On the device, edgekit build and edgekit profile measure it."
        )
        return section("Size", held, note=note)
    machine = host["device_model"] or host["cpu_model"] or host["architecture"]
    tiles = [_percentile(title, latency[name], latency["samples"]) for name, title in _PERCENTILES.items()]
    tiles.append(Figure(label="largest", value=milliseconds(latency["max"]), unit="ms", detail=f"of {count(latency['samples'], 'sample')}"))
    note = (
        f"Measured on the host of this compile, {machine}, with {engine['name']} {engine['version']} on {engine['device']} in "
        f"{engine['precision']}, {engine['threads']} threads: one frame of 480 × 640 pixels in, answer and map out. It stands "
        "for no other device; on the device itself, edgekit profile measures it."
    )
    return section("Latency on this host, and size", figures(tiles), _spaced(held), note=note)


def _percentile(title: str, value: float | None, samples: int) -> Figure:
    if value is None:
        return Figure(label=title, value=UNDEFINED, detail=f"{count(samples, 'sample')} are too few for it")
    return Figure(label=title, value=milliseconds(value), unit="ms")


def _bundle(document: Document) -> str:
    # The folder is this machine's business.
    return ", ".join(PurePath(path).name for path in document["bundles"]) or "not written; measured, then discarded"


def _data(document: Document) -> Html:
    counts, labels = document["data"], document["device"]["labels"]
    is_multilabel = document["task"] == "multilabel"
    rows = []
    for split in sorted(counts, key=lambda name: (list(_SPLITS).index(name) if name in _SPLITS else len(_SPLITS), name)):
        total = [] if is_multilabel else [str(sum(counts[split].values()))]
        rows.append((split, *(str(counts[split].get(label, 0)) for label in labels), *total))
    header = ["split", *labels, *([] if is_multilabel else ["all"])]
    several = " A frame with several labels counts for each of them." if is_multilabel else ""
    note = f"Frames by label. No group (patient or video) is in two splits.{several}"
    roles: list[tuple[str, Content]] = [(split, role) for split, role in _SPLITS.items() if split in counts]
    roles.append(("Calibration", f"{count(document['calibration_frames'], 'frame')}, never of val or test"))
    return section("Data", table(header, rows), _spaced(key_values(roles)), note=note)


def _notes(document: Document) -> Html:
    if not document["notes"]:
        return section("Notes", element("p", "Nothing about the model needed to be said.", class_="note"))
    return section("Notes", element("ul", *(element("li", note) for note in document["notes"])))


def _spaced(content: Html) -> Html:
    return element("div", content, style="margin-top: 1rem")
