"""Sensitivity and specificity at the frozen threshold: the paired differences, their intervals, and what they prove.

Rules this file keeps:

1. A difference that the frames are too few to prove is called not demonstrated, with the number of frames it would take; it is not called equal.
2. What the recipe allows stands beside each difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.report.charts import Interval, intervals
from edgekit.report.html import Content, Html, element, join, section, table
from edgekit.report.wording import count, decimal, shortened

Document = Mapping[str, Any]

LONGEST_LABEL = 28

_FIGURES = {"sensitivity": "with", "specificity": "without"}
"""The two figures, and the frames that each is about: those with the label, those without it."""

_NOT_THE_ANSWER = (
    " The device's label is the most probable one and does not use this threshold; compare the probability of the positive label with the manifest's "
    "threshold to use it."
)

_COLORS = {"demonstrated": "var(--good)", "not demonstrated": "var(--warning)", "worse": "var(--bad)"}


def operating_section(document: Document) -> list[Html]:
    """The differences as a chart and as a table; nothing where the document has no `operating_point`."""
    points: Sequence[Document] = document.get("operating_point") or ()
    if not points:
        return []
    rows = [_row(point, name) for point in points for name in _FIGURES]
    header = ["label, threshold", "figure", "FP32", "device", "device − FP32, 95 %", "lower bound, asked for", "result"]
    note = (
        "On the split test, at the threshold that was chosen on val and frozen, the same for both; a label without one is judged by the answer. The interval is paired: both "
        "saw the same frames. “Demonstrated” says that the lower bound (one-sided, 97.5 %) lies above −margin."
        f"{_NOT_THE_ANSWER if document['task'] != 'multilabel' and any(point['threshold'] is not None for point in points) else ''}"
    )
    return [section("Sensitivity and specificity, paired", *_chart(points), table(header, rows), note=note)]


def _chart(points: Sequence[Document]) -> list[Html]:
    items, bounds = [], {}
    shown = shortened([point["label"] for point in points], LONGEST_LABEL)
    for title, point in zip(shown, points, strict=True):
        for name in _FIGURES:
            found = point[name]
            if found["difference"] is None:
                continue
            label = f"{title}, {name}"
            items.append(Interval(label=label, series="difference", value=found["difference"], low=found["low"], high=found["high"]))
            if found["margin"] is not None:
                bounds[label] = -found["margin"]
    if not items:
        return []
    said = "Dot and whisker: the difference with its 95 % interval. Dashed: the most that the recipe allows to be lost."
    return [intervals(items, quantity="device − FP32", bounds=bounds), element("p", said, class_="note")]


def _row(point: Document, name: str) -> tuple[Content, ...]:
    found = point[name]
    is_first = name == next(iter(_FIGURES))
    threshold = point["threshold"]
    title = f"{point['label']}, {'by the answer' if threshold is None else decimal(threshold)}"
    # Repeated for who hears the table, faint for who sees it.
    first = title if is_first else element("span", title, class_="unknown")
    low, high = found["low"], found["high"]
    spread = "no interval" if low is None or high is None else f"{_signed(low)} to {_signed(high)}"
    difference = join([_signed(found["difference"]), element("br"), element("span", spread, class_="unknown", style="font-size: 0.85em")])
    asked = "" if found["margin"] is None else f"above {_signed(-found['margin'])}"
    bound = join([_signed(found["lower_bound"]), element("br"), element("span", asked, class_="unknown", style="font-size: 0.85em")])
    figures = (decimal(found["reference"]), decimal(found["device"]), difference, bound)
    return (first, name, *figures, _result(found, name))


def _result(found: Document, name: str) -> Content:
    status = found["status"]
    parts: list[Content] = [element("strong", status, style=f"color: {_COLORS[status]}") if status in _COLORS else status]
    if status == "not demonstrated" and found["frames_needed"] is not None:
        needs = f"would take about {count(found['frames_needed'], 'frame')} {_FIGURES[name]} it"
        parts += [element("br"), element("span", needs, class_="unknown", style="font-size: 0.85em")]
    return join(parts)


def _signed(value: float | None) -> str:
    return decimal(value, 4, signed=True)
