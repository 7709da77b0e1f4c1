"""The ROC curves of FP32 and device in one chart, with the frozen threshold's point on each.

Rules this file keeps:

1. Both curves are of the same frames, on the same axes from 0 to 1. A good model's curve lies in a corner: the corner is drawn again, larger, never
   instead of the whole.
2. The device's curve lies over FP32's, which is broader, so that neither hides the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgekit.report.html import Html, columns, element, section
from edgekit.report.svg import NARROW, Area, Scale, chart, clipped, curve, dot, legend, line, x_axis, y_axis
from edgekit.report.wording import UNDEFINED, decimal

Document = Mapping[str, Any]

CORNER = 0.2
"""Side of the corner that is drawn larger."""

_SIDES = {"reference": ("FP32", "s1 under"), "device": ("device", "s2 stroke")}


def roc_section(document: Document) -> list[Html]:
    """A chart for each label of the document's `roc`; nothing where it has none."""
    entries: Sequence[Document] = document.get("roc") or ()
    if not entries:
        return []
    parts = []
    for entry in entries:
        parts += _label(document, entry)
    note = (
        "On the split test: how many of the frames with the label are found (sensitivity) for how many false alarms among those without it "
        "(1 − specificity), over all thresholds. A dot marks the threshold that was frozen on val. A second chart "
        "is the upper left corner of the first, larger."
    )
    return [section("ROC curves", *parts, note=note)]


def _label(document: Document, entry: Document) -> list[Html]:
    label, operating = entry["label"], entry.get("operating") or {}
    threshold = operating.get("threshold")
    frozen = "" if threshold is None else f", frozen threshold {decimal(threshold)}"
    heading = element("h3", f"“{label}” against the rest{frozen}")
    missing = [name for side, (name, _) in _SIDES.items() if not entry[side]["fpr"]]
    if missing:
        words = f"{UNDEFINED[:1].upper()}{UNDEFINED[1:]} on these frames for {' and '.join(missing)}: there are no frames with, or none without, the label."
        return [heading, element("p", words, class_="note")]
    whole = _curves(entry, operating, extent=1.0)
    corner = [_curves(entry, operating, extent=CORNER)] if _reaches_corner(entry) else []
    names = [f"{name}, AUC {decimal(_auc(document, side, label), 4)}" for side, (name, _) in _SIDES.items()]
    return [heading, columns(whole, *corner), legend(names)]


def _curves(entry: Document, operating: Document, *, extent: float) -> Html:
    area = Area(height=364, width=NARROW)
    x, y = area.horizontal(0.0, extent), area.vertical(1.0 - extent, 1.0)
    marks = [line(x(0.0), y(0.0), x(1.0), y(1.0), "guide")]
    marks += [_curve(entry[side], kind, x, y) for side, (_, kind) in _SIDES.items()]
    points = {side: operating.get(side) for side in _SIDES}
    dots = [
        dot(x(point[0]), y(point[1]), f"s{index + 1} dot", tip=f"{_SIDES[side][0]}: {_said(point)}")
        for index, (side, point) in enumerate(points.items())
        if point is not None and point[0] <= extent and point[1] >= 1.0 - extent
    ]
    axes = [x_axis(area, x, "1 − specificity"), y_axis(area, y, "sensitivity")]
    said = "; ".join(f"{_SIDES[side][0]} at the frozen threshold: {_said(point)}" for side, point in points.items() if point is not None)
    where = "" if extent == 1.0 else ", the upper left corner"
    return chart(area, *axes, clipped(area, *marks), *dots, label=f"ROC curves of FP32 and device for {entry['label']}{where}. {said}")


def _curve(points: Document, kind: str, x: Scale, y: Scale) -> Html:
    return curve([x(value) for value in points["fpr"]], [y(value) for value in points["tpr"]], kind)


def _reaches_corner(entry: Document) -> bool:
    return all(np.interp(CORNER, entry[side]["fpr"], entry[side]["tpr"]) >= 1.0 - CORNER / 2 for side in _SIDES)


def _auc(document: Document, side: str, label: str) -> float | None:
    found: float | None = document[side]["per_class"][label]["auc"]["value"]
    return found


def _said(point: Sequence[float]) -> str:
    return f"sensitivity {point[1]:.3f}, specificity {1 - point[0]:.3f}"
