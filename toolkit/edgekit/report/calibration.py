"""Whether a probability means what it says: the reliability diagram of FP32 and device, and what temperature scaling did.

Rules this file keeps:

1. A bin without frames has no dot. A dot's area grows with its frames, and their number is drawn below, because a bin of few frames proves little.
2. The calibration error is not read off this picture: its bins are of equal mass, the picture's of equal width, and the page says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.report.html import Content, Html, columns, element, key_values, section, table
from edgekit.report.svg import NARROW, Area, Scale, chart, curve, dot, legend, line, rectangle, text, x_axis, y_axis
from edgekit.report.wording import UNDEFINED, count, decimal

Document = Mapping[str, Any]

SMALLEST_DOT = 3.5
LARGEST_DOT = 8.0

_SIDES = {"reference": "FP32", "device": "device"}


def calibration_section(document: Document) -> list[Html]:
    """Diagram, frames a bin, and the figures before and after scaling; nothing where the document has no `reliability`."""
    found = document.get("reliability")
    if not found:
        return []
    is_multilabel = document["task"] == "multilabel"
    what = (
        "each label of each frame: its probability against how often it is present"
        if is_multilabel
        else ("each frame: the probability of its answer against how often that answer is right")
    )
    note = (
        f"On the split test, {what}. On the dashed line a probability means what it says; below it the model is too sure. Each "
        "model's logits are divided by a temperature that was fitted on val (Guo et al. 2017); the device's travels in the bundle."
    )
    unit = "answer" if is_multilabel else "frame"
    picture = element("div", _diagram(found["bins"]), _frames(found["bins"], unit), legend(list(_SIDES.values())))
    return [section("Calibration", columns(picture, _figures(found)), note=note)]


def _diagram(bins: Sequence[Document]) -> Html:
    area = Area(height=364, width=NARROW)
    x, y = area.horizontal(0.0, 1.0), area.vertical(0.0, 1.0)
    most = max((found[side]["frames"] for found in bins for side in _SIDES), default=0)
    marks = [line(x(0.0), y(0.0), x(1.0), y(1.0), "guide")]
    for index, (side, name) in enumerate(_SIDES.items()):
        filled = [found for found in bins if found[side]["frames"]]
        kind = f"s{index + 1}"
        marks.append(
            curve([x(found[side]["confidence"]) for found in filled], [y(found[side]["accuracy"]) for found in filled], f"{kind} stroke")
        )
        marks += [_dot(found[side], (x, y), most, kind, f"{name}, {_range(found)}") for found in filled]
    said = "; ".join(
        f"{name}, {_range(found)}: {_said(found[side])}" for side, name in _SIDES.items() for found in bins if found[side]["frames"]
    )
    axes = [x_axis(area, x, "probability, mean of the bin"), y_axis(area, y, "share that was right")]
    return chart(area, *axes, *marks, label=f"Reliability diagram. {said}")


def _dot(side: Document, scales: tuple[Scale, Scale], most: int, kind: str, title: str) -> Html:
    radius = max(SMALLEST_DOT, LARGEST_DOT * math.sqrt(side["frames"] / most))
    return dot(scales[0](side["confidence"]), scales[1](side["accuracy"]), f"{kind} dot", tip=f"{title}: {_said(side)}", radius=radius)


def _frames(bins: Sequence[Document], unit: str) -> Html:
    area = Area(height=84, width=NARROW, top=16, bottom=20)
    most = max((found[side]["frames"] for found in bins for side in _SIDES), default=0)
    x, y = area.horizontal(0.0, 1.0), area.vertical(0.0, float(most))
    marks: list[Html] = [
        text(area.left, area.top - 4, f"{unit}s a bin, at most {most}"),
        line(area.left, area.y_end, area.x_end, area.y_end, "axis"),
    ]
    for found in bins:
        half = (x(found["high"]) - x(found["low"])) / 2
        for index, (side, name) in enumerate(_SIDES.items()):
            top, number = y(float(found[side]["frames"])), found[side]["frames"]
            start = x(found["low"]) + 1 + index * (half - 1)
            tip = f"{name}, {_range(found)}: {count(number, unit)}"
            marks.append(rectangle(start, top, (half - 2, area.y_end - top), f"s{index + 1} fill", tip=tip))
    listed = "; ".join(
        f"{_range(found)}: " + ", ".join(f"{name} {found[side]['frames']}" for side, name in _SIDES.items()) for found in bins
    )
    return chart(area, *marks, label=f"{unit.capitalize()}s a bin. {listed}")


def _figures(found: Document) -> Html:
    temperature, ece = found["temperature"], found["ece"]
    rows = [
        ("temperature", *(_known(temperature[side], 3) for side in _SIDES)),
        ("ECE before scaling", *(_known(ece[f"{side}_before"], 4) for side in _SIDES)),
        ("ECE after scaling", *(_known(ece[side], 4) for side in _SIDES)),
    ]
    change = None if ece["reference"] is None or ece["device"] is None else ece["device"] - ece["reference"]
    words = (
        "ECE, the expected calibration error, is the mean distance from the dashed line, here over 15 bins of equal mass; the picture has bins of "
        "equal width. Smaller is better, and chance alone never makes it 0. A temperature above 1 makes a model less sure, below 1 surer; it does not "
        "change which label is the most probable."
    )
    pairs: list[tuple[str, Content]] = [("ECE, device − FP32", decimal(change, 4, signed=True))]
    return element(
        "div",
        table(["", *_SIDES.values()], rows),
        element("div", key_values(pairs), style="margin: 1rem 0"),
        element("p", words, class_="note"),
    )


def _known(value: float | None, digits: int) -> Content:
    return element("span", UNDEFINED, class_="unknown") if value is None else decimal(value, digits)


def _range(found: Document) -> str:
    return f"{found['low']:.2g} to {found['high']:.2g}"


def _said(side: Document) -> str:
    return f"probability {side['confidence']:.3f}, right {side['accuracy']:.3f}, n {side['frames']}"
