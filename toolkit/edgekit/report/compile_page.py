"""The page of a compile: what an engineer and a clinical reviewer read to judge whether the small model is not worse.

Made from the compile's JSON document and the preprocessed pixels of the frames whose answer changed.

Rules this file keeps:

1. The verdict stands first, with one sentence why; then the gates it rests on; then the evidence, from `test`; then how it was made.
2. A figure that is not defined is written `undefined`, never left out in silence.
3. A time is labelled with the machine it was measured on and never stands for another one.
4. The page shows patient images and says so: it lies beside the bundle and must not travel with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.report.comparison import classes_section, confusion_section, difference_section, figures_section
from edgekit.report.flips import flips_section
from edgekit.report.html import Content, Figure, Html, callout, columns, element, figures, key_values, page, section, table
from edgekit.report.making import host_facts, ladder_section, stages_section, target_facts
from edgekit.report.wording import UNDEFINED, count, decimal, milliseconds, share, tiny, told_apart

Document = Mapping[str, Any]

MIB = 1024.0 * 1024.0

_GATES = {
    "auc_difference_lower_bound": "loss of AUC",
    "harmful_flips": "right answers made wrong",
    "flips": "changed answers",
}
_SPLITS = {
    "train": "trained the model, and may calibrate it",
    "calib": "calibrates the quantization, with train where it is too small",
    "val": "chooses thresholds and the rung",
    "test": "proves the result, looked at once",
}
_PERCENTILES = {"p50": "median", "p90": "p90", "p95": "p95", "p99": "p99"}


def render(document: Mapping[str, Any], frames: Mapping[str, NDArray[np.uint8]]) -> str:
    """The page.

    Args:
        document: What the compiler found: the JSON report. Labels, file names and reasons in it are untrusted.
        frames: File name of each frame whose answer changed to its preprocessed pixels, uint8 (rows, columns) or (rows, columns, 3) in RGB order.

    Raises:
        DataError: Pixels that are shown are no such picture.
    """
    return page(
        f"{document['name']} {document['version']} for {document['target']['name']}",
        _verdict(document),
        _headline(document),
        *_reading(document),
        _gates(document),
        figures_section(document),
        difference_section(document),
        confusion_section(document),
        classes_section(document),
        flips_section(document, frames),
        ladder_section(document),
        _map(document),
        _latency(document),
        _data(document),
        _notes(document),
        stages_section(document),
        section("Device and host", columns(target_facts(document), host_facts(document))),
        subtitle=f"Compile report: {document['precision']}, rung {document['rung']}, {document['task']}, source {document['source']}",
        footer=f"edgekit {document['host']['packages']['edgekit']}. Contains patient images: keep it where the images may be kept. "
        "edgekit claims no clearance as a medical device.",
    )


def _verdict(document: Document) -> Html:
    gates = document["gates"]
    failed = [_gate_words(gate["name"]) for gate in gates if not gate["passed"]]
    evidence = f"the {count(document['device']['n'], 'frame')} of {count(document['device']['groups'], 'group')} of the split test"
    broken = f"{len(failed)} of {count(len(gates), 'gate')} failed on {evidence}: {', '.join(failed)}."
    if document["accepted"]:
        kind, word = "good", "Accepted."
        why = f"All {count(len(gates), 'gate')} passed on {evidence}: the compiled model is not worse than FP32 by more than the recipe allows."
    elif document["bundles"]:
        kind, word = "bad", "Written although refused."
        why = f"{broken} The recipe says enforce = false, so the bundle was written; it and all its results are marked as not accepted."
    else:
        kind, word = "bad", "Refused."
        why = f"{broken} No bundle was written."
    sentence = (element("strong", f"{word} "), why)
    return element("p", *sentence, class_=f"callout {kind}", role="note", style="font-size: 1.1rem; margin-top: 1.5rem")


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
            value=UNDEFINED if median is None else milliseconds(median),
            unit="" if median is None else "ms",
            detail="on the compile's host, no other device",
        ),
        Figure(label="Bundle", value=decimal(document["size_bytes"] / MIB, 2), unit="MiB", detail=_bundle(document)),
    ]
    return figures(tiles)


def _reading(document: Document) -> list[Html]:
    if document["flips"]:
        safety = (
            "this page shows thumbnails and file names of patient images. It is for those who may see the images, and it must not travel "
            "with the bundle, which holds none."
        )
    else:
        safety = "no answer changed, so this page shows no patient image. Other reports do; a report must not travel with its bundle."
    limit = (
        "“Accepted” says that the gates below were passed on these frames, no more. edgekit claims no clearance as a medical device; "
        "whether the model may be used on patients is decided elsewhere."
    )
    return [callout("warning", safety), element("p", limit, class_="note", style="margin-top: 1rem")]


def _gates(document: Document) -> Html:
    listed = element("ul", *(_gate(gate) for gate in document["gates"]), style="list-style: none; margin: 0; padding: 0")
    return section("Acceptance gates", listed, note="What the recipe allows. A gate that cannot be computed fails.")


def _gate(gate: Document) -> Html:
    value, bound = _gate_figures(gate)
    title = _gate_words(gate["name"])
    color = "var(--good)" if gate["passed"] else "var(--bad)"
    result = element("strong", "passed" if gate["passed"] else "failed", style=f"color: {color}; flex: 0 0 4rem")
    measured = element("div", element("strong", value), element("br"), element("span", bound, class_="unknown"), style="flex: 0 0 11rem")
    words = element("div", element("strong", title[:1].upper(), title[1:]), element("br"), gate["explanation"], style="flex: 1 1 18rem")
    # A table would squeeze the sentence into one word a line on a phone; this wraps below the figures instead.
    layout = "display: flex; flex-wrap: wrap; gap: 0.25rem 1rem; padding: 0.7rem 0; border-top: 1px solid var(--line); break-inside: avoid"
    return element("li", result, measured, words, style=layout)


def _gate_words(name: str) -> str:
    return _GATES.get(name, name.replace("_", " "))


def _gate_figures(gate: Document) -> tuple[str, str]:
    if gate["name"] == "auc_difference_lower_bound":
        value, bound = told_apart(gate["value"], gate["bound"], lambda number, digits: decimal(number, digits, signed=True), 4)
        return value, f"above {bound}"
    value, bound = told_apart(gate["value"], gate["bound"], share, 2)
    return value, f"at most {bound}"


def _map(document: Document) -> Html:
    cam = document["cam"]
    if not cam["rows"]:
        return section(
            "Class activation map", callout("warning", f"this bundle has no map, because {cam['reason'] or 'no reason was given'}.")
        )
    pairs: list[tuple[str, Content]] = [
        ("Size", f"{cam['rows']} rows × {cam['columns']} columns for each label"),
        ("Where it is computed", "inside the compiled graph, in logit units"),
        ("Largest deviation", tiny(cam["largest_residual"])),
    ]
    note = (
        "The logits are the mean of the map plus a bias, so the overlay and the answer cannot disagree; the deviation is "
        "the largest |mean of the map + bias − logit| over all frames of test and all labels. It does not prove that the map shows what a "
        "clinician would call the reason."
    )
    return section("Class activation map", key_values(pairs), note=note)


def _latency(document: Document) -> Html:
    latency, engine, host = document["latency_ms"], document["engine"], document["host"]
    machine = host["device_model"] or host["cpu_model"] or host["architecture"]
    tiles = [_percentile(title, latency[name], latency["samples"]) for name, title in _PERCENTILES.items()]
    tiles.append(Figure(label="largest", value=milliseconds(latency["max"]), unit="ms", detail=f"of {count(latency['samples'], 'sample')}"))
    note = (
        f"Measured on the host of this compile, {machine}, with {engine['name']} {engine['version']} on {engine['device']} in "
        f"{engine['precision']}, {engine['threads']} threads: one frame of 480 × 640 pixels in, answer and map out. It stands "
        "for no other device; on the device itself, edgekit profile measures it."
    )
    size = f"{document['size_bytes']:,} bytes".replace(",", "\u202f")
    return section(
        "Latency on this host, and size", figures(tiles), _spaced(key_values([("Bundle", _bundle(document)), ("Size", size)])), note=note
    )


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
