"""The device's map beside the maps of the literature's explanation methods: a table, and a strip of small pictures a frame.

Rules this file keeps:

1. A method that was refused is a row that says why, never a row of zeros.
2. Pictures show evidence for the label. The methods have no common unit, so each map is drawn in parts of its own largest value on that frame; this strip
   alone is drawn so, and says it. Maps of pixels are drawn by their means over `DRAWN_CELLS` × `DRAWN_CELLS` cells. Where a map has no evidence for the label, the frame stays as it is.
3. The pictures are the preprocessed frames, shrunk: images of patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.evaluation.fidelity import at_size
from edgekit.imaging import overlay
from edgekit.report.html import Html, callout, element, png_data_uri, section, table
from edgekit.report.wording import UNDEFINED, count, decimal, share

THUMBNAIL_PX = 112
DRAWN_CELLS = 28
"""A map of more cells in a direction is drawn by their means: of single pixels, a few of which stand out, nothing would be seen."""

_STRIP = "display: grid; grid-template-columns: repeat(auto-fill, minmax(6.5rem, 1fr)); gap: 0.35rem; break-inside: avoid"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Strip:
    """The pictures of a frame.

    Attributes:
        file: The frame's file name, untrusted.
        label: The label that is explained.
        frame: uint8 (rows, columns) or (rows, columns, 3) in RGB order, as the models saw it.
        maps: Title to a map, float32 (map rows, map columns), signed or not; None where the method was refused on this frame, no entry where it was on all.
            The device's is first.
    """

    file: str
    label: str
    frame: NDArray[np.uint8]
    maps: Mapping[str, NDArray[np.float32] | None]


def methods_section(document: Mapping[str, Any], strips: Sequence[Strip]) -> list[Html]:
    """The section, or nothing where the recipe names no method.

    Args:
        document: The compile's, with `methods` from `compiler.stages.methods`: its `frames`, `has_map`, and a row a method.
        strips: The pictures, in the order of the frames.
    """
    found = document.get("methods")
    if not found:
        return []
    note = (
        f"Maps that methods of the literature give for the trained model in PyTorch, on {count(found['frames'], 'frame')} of test drawn evenly over the labels, "
        "for the label that the trained model answers, against the device's map of the same label. Both at the smaller size; a peak's shift is in cells of it. "
        "They are to be read beside each other: no method is the truth about another, and none proves what a clinician would call the reason."
    )
    missing = [] if found["has_map"] else [callout("warning", "the device has no map, so there is nothing to compare them with.")]
    header = ["method", "size", "frames", "Pearson, median", "5th percentile", "peak shift, median", "within one cell"]
    body = [_row(row) for row in found["methods"]]
    refused = [
        element("p", f"{row['title']}: {_refusal(row, found['frames'])}", class_="note") for row in found["methods"] if row["refused"]
    ]
    return [section("Other explanation methods", *missing, table(header, body), *refused, *_pictures(strips), note=note)]


def _row(row: Mapping[str, Any]) -> list[str]:
    size = UNDEFINED if row["rows"] is None else f"{row['rows']} × {row['columns']}"
    shift = row["peak_shift_median"]
    return [
        row["title"],
        size,
        str(row["frames"]),
        decimal(row["pearson_median"]),
        decimal(row["pearson_p5"]),
        UNDEFINED if shift is None else decimal(shift, 1),
        share(row["peak_near"], 1),
    ]


def _refusal(row: Mapping[str, Any], frames: int) -> str:
    left_out = frames - row["frames"]
    return f"not computed on {count(left_out, 'frame')} of {frames}, because {row['refused']}."


def _pictures(strips: Sequence[Strip]) -> list[Html]:
    if not strips:
        return []
    warning = callout("warning", "these are images of patients; this page is to be kept like the images.")
    words = (
        "Evidence for the label, each map in parts of its own largest value on the frame: colours say where, and cannot be compared between pictures. "
        "Maps of pixels are drawn by their means over cells. "
        "A method that does not follow the answer's sign (saliency) shows where the answer is sensitive."
    )
    return [warning, element("p", words, class_="note", style="margin-top: 0.75rem"), *(_strip(strip) for strip in strips)]


def _strip(strip: Strip) -> Html:
    pictures = [("frame", strip.frame), *((title, _drawn(strip.frame, item)) for title, item in strip.maps.items())]
    shown = [element("div", _picture(title, pixels, strip), element("span", title)) for title, pixels in pictures]
    caption = element("figcaption", element("strong", strip.label), f" {strip.file}")
    return element("figure", element("div", *shown, class_="maps", style=_STRIP), caption, style="margin-top: 1rem")


def _picture(title: str, pixels: NDArray[np.uint8] | None, strip: Strip) -> Html:
    if pixels is None:
        return element("div", "not computed", class_="unknown")
    uri = png_data_uri(pixels, longest_side=THUMBNAIL_PX)
    return element("img", src=uri, alt=f"{title}, {strip.label}, {strip.file}", style="width: 100%")


def _drawn(frame: NDArray[np.uint8], found: NDArray[np.float32] | None) -> NDArray[np.uint8] | None:
    """The frame under a map, in parts of the map's largest value."""
    if found is None:
        return None
    box = (0.0, 0.0, float(frame.shape[1]), float(frame.shape[0]))
    drawn = at_size(found[None], (min(found.shape[0], DRAWN_CELLS), min(found.shape[1], DRAWN_CELLS)))[0]
    largest = float(drawn.max())
    return overlay.render(frame, drawn / largest if largest > 0 else np.zeros_like(drawn), box=box, scale=1.0)
