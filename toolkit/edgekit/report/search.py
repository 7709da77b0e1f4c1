"""The search: every point that was tried, the Pareto front of latency against AUC, and which point was compiled.

Rules this file keeps:

1. The front is drawn as the best AUC known at each latency: a staircase. A straight line between two points would promise what nobody measured.
2. A trial that has no result is counted by its state, never drawn.
3. AUC is that of `val`: the search never sees test, and the proof of the chosen point stands elsewhere on the page.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.report.html import Content, Html, details, element, join, section, table
from edgekit.report.svg import Area, Scale, chart, curve, dot, key, text, x_axis, y_axis
from edgekit.report.wording import count, decimal, milliseconds

Document = Mapping[str, Any]
Trials = Sequence[Document]

LABEL_CLEARANCE = (40.0, 18.0)
"""Points of the front nearer than this, in pixels across and down, to one that has its number do not get theirs; the table has it."""


def search_section(document: Document) -> list[Html]:
    """The front as a picture and as a table, and every trial; nothing where the document has no `search`."""
    found = document.get("search")
    if not found:
        return []
    trials: Trials = found["trials"]
    drawn = [trial for trial in trials if _has_result(trial)]
    front = sorted((trial for trial in drawn if trial["pareto"]), key=lambda trial: (trial["latency_ms"], -trial["auc"]))
    chosen = next((trial for trial in trials if trial["chosen"]), None)
    note = (
        f"{count(len(trials), 'trial')}, seed {found['seed']}. Latency is of the compiled INT8 candidate on the compile's host and stands for no other "
        "device; AUC is that of the split val after a trial's short training. No point of the front is beaten in both. The chosen point was then "
        "trained in full, and what was proven about it on test stands above."
    )
    picture = [_picture(drawn, front), key(_KEY)] if drawn else [element("p", "No trial has a result.", class_="note")]
    listed = details("Every trial", table(_HEADER, [_row(trial) for trial in trials]))
    fronted = [element("h3", "Points of the front"), table(_HEADER, [_row(trial) for trial in front])] if front else []
    return [section("Search", *picture, *_without_result(trials), *_choice(chosen), *fronted, listed, note=note)]


_HEADER = ("trial", "criterion", "latency target", "latency, ms", "AUC, val", "state")


_KEY = {"s1": "on the Pareto front", "s3": "chosen", "other": "beaten by another in latency and AUC"}


def _picture(drawn: Trials, front: Trials) -> Html:
    area = Area(height=340, left=64, top=20)
    x = _around(area, [trial["latency_ms"] for trial in drawn], is_horizontal=True)
    y = _around(area, [trial["auc"] for trial in drawn], is_horizontal=False)
    marks: list[Html] = []
    if front:
        xs, ys = [x(trial["latency_ms"]) for trial in front], [y(trial["auc"]) for trial in front]
        steps_x = [value for px in xs[1:] for value in (px, px)]
        steps_y = [value for before, after in itertools.pairwise(ys) for value in (before, after)]
        marks.append(curve([xs[0], *steps_x, area.x_end], [ys[0], *steps_y, ys[-1]], "s1 stroke"))
    # The points of the front lie on the others, the chosen one on all.
    for trial in sorted(drawn, key=lambda trial: (trial["chosen"], trial["pareto"])):
        place = (x(trial["latency_ms"]), y(trial["auc"]))
        kind, radius = ("s3 dot", 9.0) if trial["chosen"] else ("s1 dot", 6.0) if trial["pareto"] else ("hollow", 4.5)
        marks.append(dot(*place, kind, tip=_said(trial), radius=radius))
    axes = [x_axis(area, x, "latency of the INT8 candidate (ms)"), y_axis(area, y, "AUC on val")]
    said = "; ".join(map(_said, front)) or "no point"
    return chart(
        area, *axes, *marks, *_numbers(front, drawn, x, y), label=f"Latency against AUC of {len(drawn)} trials. On the front: {said}"
    )


def _numbers(front: Trials, drawn: Trials, x: Scale, y: Scale) -> list[Html]:
    """The chosen point's number first, then those of the front that have room."""
    wanted = [*(trial for trial in drawn if trial["chosen"]), *(trial for trial in front if not trial["chosen"])]
    taken: list[tuple[float, float]] = []
    written = []
    for trial in wanted:
        place = (x(trial["latency_ms"]), y(trial["auc"]))
        if all(any(abs(place[axis] - other[axis]) >= LABEL_CLEARANCE[axis] for axis in (0, 1)) for other in taken):
            taken.append(place)
            words = f"{trial['number']}, chosen" if trial["chosen"] else str(trial["number"])
            written.append(text(place[0], place[1] - 13, words, anchor="middle", kind="strong"))
    return written


def _around(area: Area, values: Sequence[float], *, is_horizontal: bool) -> Scale:
    low, high = min(values), max(values)
    margin = 0.1 * (high - low) or max(0.05 * abs(high), 1e-3)
    return area.horizontal(low - margin, high + margin) if is_horizontal else area.vertical(low - margin, high + margin)


def _without_result(trials: Trials) -> list[Html]:
    states = Counter(trial["state"] for trial in trials if not _has_result(trial))
    if not states:
        return []
    listed = ", ".join(f"{number} {state}" for state, number in sorted(states.items()))
    return [element("p", f"Without a result and not drawn: {listed}.", class_="note")]


def _choice(chosen: Document | None) -> list[Html]:
    words = "No point was chosen." if chosen is None else f"Compiled: trial {_said(chosen)}."
    return [element("p", words)]


def _row(trial: Document) -> tuple[Content, ...]:
    name = f"{trial['number']}"
    first = element("strong", f"{name}, chosen") if trial["chosen"] else join([name, ", front"]) if trial["pareto"] else name
    latency = decimal(None) if trial["latency_ms"] is None else milliseconds(trial["latency_ms"])
    return (first, trial["criterion"], decimal(trial["latency_target"], 2), latency, decimal(trial["auc"], 4), trial["state"])


def _has_result(trial: Document) -> bool:
    return trial["latency_ms"] is not None and trial["auc"] is not None


def _said(trial: Document) -> str:
    result = f"{trial['latency_ms']:.3g} ms, AUC {trial['auc']:.4f}" if _has_result(trial) else "no result"
    target = decimal(trial["latency_target"], 2)
    return f"{trial['number']} ({trial['criterion']}, latency target {target}): {result}"
