"""The frames whose answer changed: how many, which way, and each one to look at.

Rules this file keeps:

1. Harmful flips come first, and among them those the device is surest of: these are the frames a clinical reviewer has to see.
2. At most `MOST_SHOWN` frames are shown; how many are not, and of which kind, is said in words.
3. The pictures are the preprocessed frames, what both models saw, shrunk, and where there are maps the same frame under FP32's and under the device's.
   They are images of patients. Where the maps are of one label on both sides (`cam_label`, several labels), the caption names it.
4. A difference between harmful and helpful flips is judged by McNemar's test; a large p-value is never called proof that there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.report.html import Html, callout, element, gallery, join, png_data_uri, section, table
from edgekit.report.wording import count, decimal, share, tiny

Flip = Mapping[str, Any]

MOST_SHOWN = 60
THUMBNAIL_PX = 216

_CARD = "flex: 1 0 calc(25% - 0.75rem); min-width: 9.25rem; max-width: 13.5rem; break-inside: avoid"
"""Four in a row on a screen, two on a phone."""

_WIDE_CARD = "flex: 1 1 20rem; max-width: 27rem; break-inside: avoid"
"""With maps: two in a row on a screen, one on a phone."""

_TESTS = {
    "exact": "McNemar's exact test (McNemar 1947)",
    "clustered": "McNemar's exact test over whole groups, because the frames of one group are alike",
}

_COLORS = {"harmful": "var(--bad)", "neither": "var(--warning)", "helpful": "var(--good)"}
"""Also the order of the kinds, worst first."""

_ALTERNATIVES = {"frame": "preprocessed frame", "FP32 map": "FP32's map over", "device map": "the device's map over"}

_MEANINGS = {
    "harmful": "FP32 right, device wrong",
    "neither": "both wrong, in different ways",
    "helpful": "FP32 wrong, device right",
}
_MULTILABEL_MEANINGS = {
    "harmful": "at least one label that was right became wrong",
    "helpful": "labels changed, all of them for the better",
}


Pixels = NDArray[np.uint8]


def flips_section(
    document: Mapping[str, Any], frames: Mapping[str, Pixels], overlays: Mapping[str, tuple[Pixels, Pixels]] | None = None
) -> Html:
    """Totals by kind and the frames themselves.

    Args:
        document: The compile's.
        frames: File name to the preprocessed frame, uint8 (rows, columns) or (rows, columns, 3) in RGB order. A flip without one is shown without
            a picture.
        overlays: File name to the frame under FP32's map and under the device's, each uint8 (rows, columns, 3) in RGB order.
    """
    flips: Sequence[Flip] = document["flips"]
    is_multilabel = document["task"] == "multilabel"
    note = f"Frames of the split test, {document['device']['n']} in all, that the device answers differently from FP32."
    totals = _totals(flips, document["device"]["n"], _MULTILABEL_MEANINGS if is_multilabel else _MEANINGS)
    if not flips:
        return section(
            "Changed answers", totals, *_mcnemar(document), element("p", "No answer changed on these frames.", class_="note"), note=note
        )
    order = list(_COLORS)
    ordered = sorted(flips, key=lambda flip: (order.index(flip["kind"]), -flip["device_probability"], flip["file"]))
    shown, hidden = ordered[:MOST_SHOWN], ordered[MOST_SHOWN:]
    warning = callout(
        "warning", "these are images of patients, as both models saw them, only shrunk; this page is to be kept like the images."
    )
    cards = gallery(_card(flip, _pictures(flip["file"], frames, overlays or {}), is_multilabel=is_multilabel) for flip in shown)
    heading = element("h3", f"{count(len(shown), 'frame')}, harmful first, then by the device's probability")
    return section("Changed answers", totals, *_mcnemar(document), warning, heading, *_left_out(hidden), cards, note=note)


def _totals(flips: Sequence[Flip], frames: int, meanings: Mapping[str, str]) -> Html:
    rows = []
    for kind, meaning in meanings.items():
        found = [flip for flip in flips if flip["kind"] == kind]
        rows.append((f"{kind}: {meaning}", str(len(found)), share(len(found) / frames), str(len({flip["group"] for flip in found}))))
    groups = len({flip["group"] for flip in flips})
    rows.append(("all", str(len(flips)), share(len(flips) / frames), str(groups)))
    return table(["kind", "frames", "share of frames", "in groups"], rows)


def _left_out(hidden: Sequence[Flip]) -> list[Html]:
    if not hidden:
        return []
    kinds = {kind: sum(flip["kind"] == kind for flip in hidden) for kind in _COLORS}
    which = ", ".join(f"{number} {kind}" for kind, number in kinds.items() if number)
    words = f"{count(len(hidden), 'further frame')} ({which}) not shown here; the JSON report beside this page lists every one."
    return [element("p", words, class_="note")]


def _mcnemar(document: Mapping[str, Any]) -> list[Html]:
    found = document.get("mcnemar")
    if not found:
        return []
    p_value = found["p_value"]
    name = _TESTS.get(found["test"], found["test"])
    words = (
        f"{found['harmful']} harmful against {found['helpful']} helpful {found['unit']}: p = {tiny(p_value)} ({name}, two-sided). It asks whether as many "
        "answers became wrong as right; a large p does not prove that as many did."
    )
    return [element("p", words, class_="note", style="margin-top: 0.75rem")]


def _pictures(file: str, frames: Mapping[str, Pixels], overlays: Mapping[str, tuple[Pixels, Pixels]]) -> dict[str, Pixels]:
    """What is shown of a frame, by its caption: the frame, and where there are maps the frame under each."""
    found = {"frame": frames[file]} if file in frames else {}
    if file in overlays:
        found["FP32 map"], found["device map"] = overlays[file]
    return found


def _picture(file: str, pictures: Mapping[str, Pixels]) -> Html:
    if not pictures:
        return element("p", "no picture", class_="unknown")
    # One width for all cards keeps the rows calm, whatever the sizes of the frames.
    shown = {
        name: element("img", src=png_data_uri(pixels, longest_side=THUMBNAIL_PX), alt=f"{_ALTERNATIVES[name]} {file}", style="width: 100%")
        for name, pixels in pictures.items()
    }
    if list(shown) == ["frame"]:
        return shown["frame"]
    return element("div", *(element("div", picture, element("span", name)) for name, picture in shown.items()), class_="maps")


def _card(flip: Flip, pictures: Mapping[str, Pixels], *, is_multilabel: bool) -> Html:
    picture = _picture(flip["file"], pictures)
    answers = [
        ("truth", _labels(flip["truth"])),
        ("FP32", _answer(flip, "reference", is_multilabel=is_multilabel)),
        ("device", _answer(flip, "device", is_multilabel=is_multilabel)),
    ]
    facts = element(
        "dl",
        *(join([element("dt", name), element("dd", value)]) for name, value in answers),
        class_="facts",
        style="grid-template-columns: max-content 1fr; gap: 0 0.6rem; color: var(--ink)",
    )
    caption = element(
        "figcaption",
        element("strong", flip["kind"], style=f"color: {_COLORS[flip['kind']]}"),
        facts,
        element("div", flip["file"]),
        element("div", f"group {flip['group']}"),
        *([element("div", f"map of {flip['cam_label']}")] if flip.get("cam_label") and len(pictures) > 1 else []),
    )
    return element("figure", picture, caption, class_="thumbnail", style=_WIDE_CARD if len(pictures) > 1 else _CARD)


def _answer(flip: Flip, side: str, *, is_multilabel: bool) -> str:
    probability = decimal(flip[f"{side}_probability"], 2)
    # Several labels have several probabilities; the document keeps the highest of the frame.
    return f"{_labels(flip[side])} ({'highest ' if is_multilabel else ''}{probability})"


def _labels(labels: Sequence[str]) -> str:
    return ", ".join(labels) or "none"
