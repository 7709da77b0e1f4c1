"""The class activation map on the page: where it is computed, how near it stays to the unquantized network's, where it points, and the frames that fare worst.

Rules this file keeps:

1. A figure has its interval beside it; a gate that the recipe waived is named.
2. The control with random weights stands beside what it controls.
3. The worst frames are shown, never the best: frame, map before quantization, map on the device, of one label and at one scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.report.html import Content, Html, callout, element, gallery, key_values, png_data_uri, section, table
from edgekit.report.wording import UNDEFINED, count, decimal, share, tiny, with_interval

Document = Mapping[str, Any]
Pixels = NDArray[np.uint8]
Worst = Mapping[str, tuple[Pixels, Pixels, Pixels]]

THUMBNAIL_PX = 216

_LIKENESS = {
    "agreement": "With the trained model's FP32 map, test",
    "likeness_on_test": "With the map of the unquantized network, test",
    "likeness_on_val": "With the map of the unquantized network, val",
}
"""Keys of the document, the most telling first."""

_FIDELITY = {
    "pearson_median": "Pearson's correlation, median",
    "pearson_p5": "Pearson's correlation, 5th percentile",
    "overlap_median": "overlap of the largest tenth, median",
    "peak_near": "peak within one cell, share of frames",
    "peak_kept": "peak kept, share of frames",
    "sign_median": "signs that agree, by evidence, median",
}

_CARD = "flex: 1 1 20rem; max-width: 27rem; break-inside: avoid"
_CAPTIONS = ("frame", "FP32 map", "device map")


def map_section(document: Document, worst: Worst | None = None) -> Html:
    """Size, deviation and likeness of the map, or why there is none.

    Args:
        document: The compile's.
        worst: File name to the frame, the frame under the map before quantization, and under the device's, each uint8 (rows, columns) or (rows, columns, 3).
    """
    cam = document["cam"]
    if not cam["rows"]:
        reason = cam["reason"] or "no reason was given"
        return section(
            "Class activation map", callout("warning", f"this bundle has no map, because {reason}. No gate asks for what there is not.")
        )
    pairs: list[tuple[str, Content]] = [
        ("Size", f"{cam['rows']} rows × {cam['columns']} columns for each label"),
        ("Where it is computed", "inside the compiled graph, in logit units"),
        ("Largest deviation", _deviation(cam)),
        *((title, _likeness(cam[key])) for key, title in _LIKENESS.items() if cam.get(key)),
        *([("Gates waived by the recipe", ", ".join(cam["waived"]))] if cam.get("waived") else []),
    ]
    note = (
        "The logits are the mean of the map plus an offset, so the overlay and the answer cannot disagree; the deviation is "
        "the largest |mean of the map + offset − logit| over all frames of test and all labels. Likeness is Pearson's correlation of two maps of a frame, "
        "1 for the same picture, over all frames. Neither proves that the map shows what a clinician would call the reason."
    )
    found = cam.get("found")
    further = [] if not found else [*_fidelity(found, new_network=cam["new_network"]), *_lesions(found["localisation"])]
    return section("Class activation map", key_values(pairs), *further, *_worst(cam.get("worst") or (), worst or {}), note=note)


def _deviation(cam: Document) -> str:
    found = cam.get("found") or {}
    if found.get("residual_share") is None:
        return tiny(cam["largest_residual"])
    return f"{tiny(cam['largest_residual'])}, {tiny(100 * found['residual_share'])} % of the logit's standard deviation"


def _fidelity(found: Document, *, new_network: bool) -> list[Html]:
    fidelity, control = found["fidelity"], found["control"]
    draws = control["draws"] if control else ()
    rows: list[tuple[Content, ...]] = []
    for name, title in _FIDELITY.items():
        rows.append((title, with_interval(fidelity[name]), *(decimal(draw["figures"][name]) for draw in draws)))
    header = ("", "device", *(f"{draw['what']} random, {draw['seed'] + 1}" for draw in draws))
    left_out = (
        f" {count(fidelity['featureless'], 'frame')} on which neither map has any structure left out." if fidelity["featureless"] else ""
    )
    own = " That network is another than the trained model, whose maps are others; how near they are stands above." if new_network else ""
    words = (
        f"Each map of the device against the map of the network before quantization, for the label that the latter answers, on {count(fidelity['frames'], 'frame')} "
        f"of {count(fidelity['groups'], 'group')} of the split test, with 95 % intervals over groups.{left_out}{own}"
    )
    if control:
        words += (
            f" Beside it the same figures of networks whose weights are random (those of the head alone, and all), on {count(control['frames'], 'frame')}: a map that stays as it is when the weights mean "
            "nothing shows the picture, not the model."
        )
    return [element("h3", "Faithful to the unquantized network"), element("p", words, class_="note"), table(header, rows)]


def _lesions(found: Document | None) -> list[Html]:
    if not found:
        return []
    heading = element("h3", "On the lesions that the data manifest marks")
    left_out = "; ".join(f"{number} left out: {reason}" for reason, number in found["left_out"].items())
    if not found["frames"]:
        return [heading, callout("warning", f"no frame with a mask could be used ({left_out or 'none has one'}).")]
    part = found["pointing"]
    hits: tuple[Content, ...] = (
        "peak inside the lesion (pointing game)",
        share(part["reference"], 1),
        share(part["device"], 1),
        with_interval({"value": part["difference"], "low": part["low"], "high": part["high"]}),
    )
    energy: tuple[Content, ...] = (
        "positive evidence inside the lesion, mean",
        *(with_interval(found[f"energy_{side}"]) for side in ("reference", "device", "difference")),
    )
    splits = ", ".join(f"{number} of {split}" for split, number in found["splits"].items())
    words = (
        f"{count(found['frames'], 'frame')} of {count(found['groups'], 'group')} ({splits}{f'; {left_out}' if left_out else ''}), by the map of the annotated label. "
        "All splits are pooled, because two renderings of one network are compared: the difference is what counts, and the figures themselves are no estimate for "
        f"unseen frames. A peak in a cell drawn at random would hit {share(found['chance'], 1)}."
    )
    return [heading, element("p", words, class_="note"), table(("", "FP32", "device", "device − FP32"), [hits, energy])]


def _worst(rows: Sequence[Document], pictures: Worst) -> list[Html]:
    shown = [row for row in rows if row["file"] in pictures]
    if not shown:
        return []
    words = "The frames of test whose maps are least alike, the least first, as both networks saw them. These are images of patients, to be kept like the images."
    return [
        element("h3", f"Worst {count(len(shown), 'frame')}"),
        callout("warning", words),
        gallery(_card(row, pictures[row["file"]]) for row in shown),
    ]


def _card(row: Document, pictures: tuple[Pixels, Pixels, Pixels]) -> Html:
    shown = [
        element(
            "div",
            element("img", src=png_data_uri(pixels, longest_side=THUMBNAIL_PX), alt=f"{name} of {row['file']}", style="width: 100%"),
            element("span", name),
        )
        for name, pixels in zip(_CAPTIONS, pictures, strict=True)
    ]
    cells = "peak stays" if not row["peak_shift"] else f"peak moves {count(int(row['peak_shift']), 'cell')}"
    caption = element(
        "figcaption",
        element("strong", f"Pearson {decimal(row['pearson'])}, {cells}, overlap {decimal(row['overlap'], 2)}"),
        element("div", f"map of {row['label']}"),
        element("div", row["file"]),
        element("div", f"group {row['group']}"),
    )
    return element("figure", element("div", *shown, class_="maps"), caption, class_="thumbnail", style=_CARD)


def _likeness(found: Document) -> str:
    median, low = found["median"], found["p5"]
    if median is None or low is None:
        return UNDEFINED
    return f"median {decimal(median)}, 5th percentile {decimal(low)}"
