"""The search: every point that was tried, the Pareto front of latency against AUC, and which point was compiled.

Rules this file keeps:

1. The front is drawn as the best AUC known at each latency: a staircase. A straight line between two points would promise what nobody measured.
2. A trial that has no result is counted by its state, never drawn.
3. AUC is that of `val`: the search never sees test, and the proof of the chosen point stands elsewhere on the page.
4. Latency is drawn in parts of the unpruned model's where every trial was timed beside it: that is what the search compared.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.report.html import UNKNOWN, Content, Html, details, element, section, table
from edgekit.report.svg import Area, Scale, chart, curve, dot, key, line, text, x_axis, y_axis
from edgekit.report.wording import count, decimal, milliseconds, share

Document = Mapping[str, Any]
Trials = Sequence[Document]

LABEL_CLEARANCE = (40.0, 18.0)
"""Points of the front nearer than this, in pixels across and down, to one that has its number do not get theirs; the table has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """A setting or a figure of a trial: its key in the document, its title and how it is written."""

    key: str
    title: str
    form: Callable[[Any], str]


_SETTINGS = (
    _Column(key="criterion", title="criterion", form=str),
    _Column(key="latency_target", title="latency target", form=lambda value: decimal(value, 2)),
    _Column(key="ratio", title="ratio", form=lambda value: decimal(value, 2)),
    _Column(key="rung", title="rung", form=str),
)
_COLUMNS = (
    *_SETTINGS,
    _Column(key="latency_ms", title="latency, ms", form=milliseconds),
    _Column(key="share", title="share of unpruned", form=lambda value: share(value, 1)),
    _Column(key="auc", title="AUC, val", form=lambda value: decimal(value, 4)),
)
_KEY = {"s1": "on the Pareto front", "s3": "chosen", "other": "beaten by another"}


def search_section(document: Document) -> list[Html]:
    """The front as a picture and as a table, and every trial; nothing where the document has no `search`."""
    found = document.get("search")
    if not found:
        return []
    trials: Trials = found["trials"]
    drawn = [trial for trial in trials if _has_result(trial)]
    across = _across(drawn)
    front = sorted((trial for trial in drawn if trial["pareto"]), key=lambda trial: (trial[across], -trial["auc"]))
    note = (
        f"{count(len(trials), 'trial')}, seed {found['seed']}. Latency is of the compiled INT8 candidate on the compile's host and stands for no other "
        "device; AUC is that of the split val after a trial's short training. No point of the front is beaten in both. The chosen point was then "
        "trained in full, and what was proven about it on test stands above."
    )
    picture = [_picture(drawn, front, _asked(found)), key(_KEY)] if drawn else [element("p", "No trial has a result.", class_="note")]
    listed = details("Every trial", _table(trials, trials))
    fronted = [element("h3", "Points of the front"), _table(front, trials)] if front else []
    return [section("Search", *picture, *_without_result(trials), _choice(trials), *fronted, listed, note=note)]


def _picture(drawn: Trials, front: Trials, asked: float | None) -> Html:
    area = Area(height=340, left=64, top=20)
    across = _across(drawn)
    x = _around(area, [trial[across] for trial in drawn], is_horizontal=True)
    y = _around(area, [*(trial["auc"] for trial in drawn), *([] if asked is None else [asked])], is_horizontal=False)
    places = {trial["number"]: (x(trial[across]), y(trial["auc"])) for trial in drawn}
    marks = _staircase([places[trial["number"]] for trial in front], area.x_end)
    if asked is not None:
        marks.append(line(area.left, y(asked), area.x_end, y(asked), "bound"))
        marks.append(text(area.x_end, y(asked) + 16, "least AUC asked for", anchor="end", kind="strong"))
    # The points of the front lie on the others, the chosen one on all.
    for trial in sorted(drawn, key=lambda trial: (trial["chosen"], trial["pareto"])):
        kind, radius = ("s3 dot", 9.0) if trial["chosen"] else ("s1 dot", 6.0) if trial["pareto"] else ("hollow", 4.5)
        marks.append(dot(*places[trial["number"]], kind, tip=_said(trial), radius=radius))
    title = "latency in parts of the unpruned INT8 model's" if across == "share" else "latency of the INT8 candidate (ms)"
    axes = [x_axis(area, x, title), y_axis(area, y, "AUC on val")]
    said = "; ".join(map(_said, front)) or "no point"
    numbers = _numbers(front, drawn, places)
    return chart(area, *axes, *marks, *numbers, label=f"Latency against AUC of {len(drawn)} trials. On the front: {said}")


def _staircase(places: Sequence[tuple[float, float]], end: float) -> list[Html]:
    """Across to the next point's latency, then up to its AUC (rule 1)."""
    if not places:
        return []
    corners = [places[0]]
    for (_, y1), (x2, y2) in itertools.pairwise(places):
        corners += [(x2, y1), (x2, y2)]
    corners.append((end, places[-1][1]))
    return [curve([x for x, _ in corners], [y for _, y in corners], "s1 stroke")]


def _numbers(front: Trials, drawn: Trials, places: Mapping[int, tuple[float, float]]) -> list[Html]:
    """The chosen point's number first, then those of the front that have room."""
    wanted = [*(trial for trial in drawn if trial["chosen"]), *(trial for trial in front if not trial["chosen"])]
    taken: list[tuple[float, float]] = []
    written = []
    for trial in wanted:
        place = places[trial["number"]]
        if all(any(abs(place[axis] - other[axis]) >= LABEL_CLEARANCE[axis] for axis in (0, 1)) for other in taken):
            taken.append(place)
            words = f"{trial['number']}, chosen" if trial["chosen"] else str(trial["number"])
            written.append(text(place[0], place[1] - 13, words, anchor="middle", kind="strong"))
    return written


def _around(area: Area, values: Sequence[float], *, is_horizontal: bool) -> Scale:
    low, high = min(values), max(values)
    margin = 0.1 * (high - low) or max(0.05 * abs(high), 1e-3)
    return area.horizontal(low - margin, high + margin) if is_horizontal else area.vertical(low - margin, high + margin)


def _across(drawn: Trials) -> str:
    """Key of what is drawn as latency (rule 4)."""
    return "share" if drawn and all(trial.get("share") is not None for trial in drawn) else "latency_ms"


def _asked(found: Document) -> float | None:
    teacher, loss = found.get("teacher_auc"), found.get("max_auc_loss")
    return None if teacher is None or loss is None else teacher - loss


def _without_result(trials: Trials) -> list[Html]:
    states = Counter(trial["state"] for trial in trials if not _has_result(trial))
    if not states:
        return []
    listed = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
    return [element("p", f"Without a result and not drawn: {listed}.", class_="note")]


def _choice(trials: Trials) -> Html:
    chosen = next((trial for trial in trials if trial["chosen"]), None)
    return element("p", "No point was chosen." if chosen is None else f"Compiled: trial {_said(chosen)}.")


def _table(shown: Trials, trials: Trials) -> Html:
    """The trials, with a column for every setting and figure that any trial of the search has."""
    known = [column for column in _COLUMNS if any(trial.get(column.key) is not None for trial in trials)]
    return table(["trial", *(column.title for column in known), "state"], [_row(trial, known) for trial in shown])


def _row(trial: Document, known: Sequence[_Column]) -> tuple[Content, ...]:
    name = str(trial["number"])
    first = element("strong", f"{name}, chosen") if trial["chosen"] else f"{name}, front" if trial["pareto"] else name
    state = f"{trial['state']}: {trial['reason']}" if trial.get("reason") else trial["state"]
    return (first, *(UNKNOWN if trial.get(column.key) is None else column.form(trial[column.key]) for column in known), state)


def _has_result(trial: Document) -> bool:
    return trial["latency_ms"] is not None and trial["auc"] is not None


def _said(trial: Document) -> str:
    settings = ", ".join(f"{column.title} {column.form(trial[column.key])}" for column in _SETTINGS if trial.get(column.key) is not None)
    result = f"{trial['latency_ms']:.3g} ms, AUC {trial['auc']:.4f}" if _has_result(trial) else "no result"
    return f"{trial['number']} ({settings}): {result}"
