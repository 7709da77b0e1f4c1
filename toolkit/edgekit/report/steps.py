"""What each step of the compression bought in latency and size, and what it cost in AUC and answers: measured on `val`.

Rules this file keeps:

1. Every step is measured on the same frames and compared with the same teacher. What was not measured is said, never drawn as 0.
2. Latency, size and changed answers are lengths and start at zero; an AUC is a place on a scale around the teacher's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from edgekit.report.html import Content, Html, columns, element, key_values, section, table
from edgekit.report.svg import NARROW, Area, Scale, chart, dot, line, rectangle, text
from edgekit.report.wording import count, decimal, factor, milliseconds, share

Document = Mapping[str, Any]
Step = Mapping[str, Any]

MIB = 1024.0 * 1024.0
ROW_HEIGHT = 36.0
BAR_HEIGHT = 10.0
NOT_MEASURED = "not measured"
THE_TEACHER = "the reference"

_CATALOGUES = frozenset({"timm", "torchvision", "torchxrayvision"})
"""Kinds of source that are names; of the others, files, only the file's name is the reader's business."""


def _in_mib(size_bytes: int | None) -> float | None:
    return None if size_bytes is None else size_bytes / MIB


def _flip_share(step: Step) -> float | None:
    return step["flips"] / step["frames"] if step["flips"] is not None and step["frames"] else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Panel:
    """One of the small charts.

    Attributes:
        title: What it shows, with its unit.
        value: Of a step; None where it was not measured.
        words: How a value is written.
        is_length: Whether it is drawn as a length from zero.
    """

    title: str
    value: Callable[[Step], float | None]
    words: Callable[[float], str]
    is_length: bool = True


_PANELS = (
    _Panel(title="Latency, median (ms)", value=lambda step: step["latency_ms"], words=milliseconds),
    _Panel(title="Size (MiB)", value=lambda step: _in_mib(step["size_bytes"]), words=lambda value: decimal(value, 2)),
    _Panel(title="AUC on val", value=lambda step: step["auc"], words=lambda value: decimal(value, 4), is_length=False),
    _Panel(title="Answers changed on val, against the teacher", value=_flip_share, words=share),
)


def steps_section(document: Document) -> list[Html]:
    """The steps as small charts side by side, one quantity each, and as a table; nothing where the document has none."""
    steps: Sequence[Step] = document.get("steps") or ()
    if not steps:
        return []
    panels = [_panel(panel, steps) for panel in _PANELS if any(panel.value(step) is not None for step in steps)]
    frames = max(step["frames"] or 0 for step in steps)
    note = (
        f"{_summary(steps)} AUC and changed answers are measured on the split val ({count(frames, 'frame')}), where choices are made; the proof on "
        "test stands above. Times are of the compile's host and stand for no other device."
    )
    networks = _networks(document)
    shown = [element("div", key_values(networks), style="margin-bottom: 1rem")] if networks else []
    return [section("What each step did", *shown, columns(*panels), _table(steps), note=note)]


def _networks(document: Document) -> list[tuple[str, Content]]:
    pairs: list[tuple[str, Content]] = []
    if document.get("ensemble"):
        pairs.append(("Further teachers", ", ".join(_source(source) for source in document["ensemble"])))
    if document.get("student"):
        pairs.append(("Student", _source(document["student"])))
    return pairs


def _source(source: str) -> str:
    kind, _, argument = source.partition(":")
    return source if kind in _CATALOGUES else f"{kind}:{PurePath(argument).name}"


def _summary(steps: Sequence[Step]) -> str:
    """What the last step is against the first one that has each figure; the teacher itself is not always timed."""
    last, said = steps[-1], []
    for name, more, less in (("latency_ms", "faster", "slower"), ("size_bytes", "smaller", "larger")):
        first = next((step for step in steps if step[name]), last)
        if first is not last and last[name]:
            said.append(f"{factor(first[name], last[name], more, less)} than “{first['name']}”")
    first = steps[0]
    if first is not last and first["auc"] is not None and last["auc"] is not None:
        said.append(f"AUC {decimal(last['auc'] - first['auc'], 4, signed=True)} against “{first['name']}”")
    if last["flips"] is not None and last["frames"]:
        said.append(f"{last['flips']} of {count(last['frames'], 'answer')} changed")
    return f"“{last['name']}”: {', '.join(said)}." if said else ""


def _panel(panel: _Panel, steps: Sequence[Step]) -> Html:
    values = [panel.value(step) for step in steps]
    known = [value for value in values if value is not None]
    area = Area(height=ROW_HEIGHT * len(steps) + 6, width=NARROW, left=2, right=2, top=2, bottom=4)
    low, high = (0.0, max(known)) if panel.is_length else (min(known), max(known))
    # A dot at the end of its scale would be cut in half.
    margin = 0.0 if panel.is_length else 0.06 * (high - low) or 0.01
    x = area.horizontal(low - margin, high + margin)
    marks: list[Html] = []
    said = []
    for index, (step, value) in enumerate(zip(steps, values, strict=True)):
        top = area.top + ROW_HEIGHT * index
        words = _missing(index, panel) if value is None else panel.words(value)
        said.append(f"{step['name']}: {words}")
        marks.append(text(area.left, top + 13, step["name"]))
        marks.append(text(area.x_end, top + 13, words, anchor="end", kind="faint" if value is None else "strong"))
        if value is not None:
            marks += _bar(area, x, top, value, said[-1]) if panel.is_length else _place(area, x, top, (value, values[0]), said[-1])
    return element("div", element("h3", panel.title), chart(area, *marks, label=f"{panel.title}. {'; '.join(said)}"))


def _bar(area: Area, x: Scale, top: float, value: float, tip: str) -> list[Html]:
    track = rectangle(area.left, top + 18, (area.x_end - area.left, BAR_HEIGHT), "track")
    return [track, rectangle(x.start, top + 18, (x(value) - x.start, BAR_HEIGHT), "s1 fill", tip=tip)]


def _place(area: Area, x: Scale, top: float, pair: tuple[float, float | None], tip: str) -> list[Html]:
    value, teacher = pair
    middle = top + 18 + BAR_HEIGHT / 2
    guide = [] if teacher is None else [line(x(teacher), top + 17, x(teacher), top + 19 + BAR_HEIGHT, "guide")]
    return [line(area.left, middle, area.x_end, middle, "grid"), *guide, dot(x(value), middle, "s1 dot", tip=tip)]


def _missing(index: int, panel: _Panel) -> str:
    # The first step is the teacher, which the answers of all others are compared with.
    return THE_TEACHER if index == 0 and panel.value is _flip_share else NOT_MEASURED


def _table(steps: Sequence[Step]) -> Html:
    with_parameters = any(step["parameters"] is not None for step in steps)
    rows: list[tuple[Content, ...]] = [
        (
            step["name"],
            _or_dash(step["latency_ms"], milliseconds),
            _or_dash(_in_mib(step["size_bytes"]), lambda value: decimal(value, 2)),
            *([_or_dash(step["parameters"], lambda value: decimal(value, 0))] if with_parameters else []),
            _or_dash(step["auc"], lambda value: decimal(value, 4)),
            _flips(step, index),
        )
        for index, step in enumerate(steps)
    ]
    header = ["step", "latency, ms", "size, MiB", *(["parameters"] if with_parameters else []), "AUC, val", "changed, val"]
    titles = key_values((step["name"], step["title"]) for step in steps if step["title"] and step["title"] != step["name"])
    described = (
        [element("div", titles, style="margin-top: 1rem")] if any(step["title"] and step["title"] != step["name"] for step in steps) else []
    )
    return element("div", table(header, rows), *described, style="margin-top: 1.25rem")


def _flips(step: Step, index: int) -> Content:
    found = _flip_share(step)
    if found is None and index == 0:
        return element("span", THE_TEACHER, class_="unknown")
    return _or_dash(step["flips"], str) if found is None else f"{step['flips']} ({share(found)})"


def _or_dash(value: Any, form: Callable[[Any], str]) -> Content:
    return element("span", NOT_MEASURED, class_="unknown") if value is None else form(value)
