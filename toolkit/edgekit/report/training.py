"""The course of every training: loss on `train` and `val`, and the AUC on `val`, epoch by epoch.

Rules this file keeps:

1. The epoch whose weights were kept is marked: it is not always the last.
2. A figure that was not defined in an epoch leaves a gap, not a line across it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.report.html import UNKNOWN, Html, columns, details, element, join, section, table
from edgekit.report.svg import NARROW, Area, Scale, chart, curve, dot, legend, line, text, x_axis, y_axis
from edgekit.report.wording import count, decimal, tiny

Document = Mapping[str, Any]
Epochs = Sequence[Document]

MOST_DOTS = 30
"""Epochs up to which each has a dot; a longer course is a line."""

_LOSSES = {"train_loss": "train", "val_loss": "val"}
_KINDS = {"train_loss": "s1", "val_loss": "s2", "val_auc": "s2"}
"""What was measured on val has one colour in both charts."""


def training_section(document: Document) -> list[Html]:
    """Curves of each training; nothing where the document has no `training`."""
    found: Sequence[Document] = document.get("training") or ()
    if not found:
        return []
    note = (
        "Training sees the split train; the split val decides which epoch is kept and when to stop; test is not looked at. The two losses are not "
        "comparable where train frames are augmented. The dashed line marks the epoch whose weights were kept."
    )
    return [section("Training", *(part for stage in found for part in _stage(stage)), note=note)]


def _stage(stage: Document) -> list[Html]:
    epochs = _epochs(stage)
    if not epochs:
        return [element("h3", stage["stage"]), element("p", "No epoch was trained.", class_="note")]
    best = stage["best_epoch"]
    trained = sum(epoch["epoch"] > 0 for epoch in epochs)
    kept = "weights as they were before kept" if best == 0 else f"epoch {best} kept"
    heading = element("h3", f"{stage['stage']}: {count(trained, 'epoch')}, {kept}")
    stopped = [element("p", f"Ended: {stage['stopped']}.", class_="note")] if stage.get("stopped") else []
    losses = _chart(epochs, _LOSSES, "loss", stage)
    areas = _chart(epochs, {"val_auc": "val"}, "AUC on val", stage)
    parts = [*([join([losses, legend(list(_LOSSES.values()))])] if losses else []), *([areas] if areas else [])]
    rows = [
        (
            str(epoch["epoch"]) if epoch["epoch"] else "before",
            *(UNKNOWN if epoch.get(name) is None else decimal(epoch[name], 4) for name in _KINDS),
            UNKNOWN if epoch.get("learning_rate") is None else tiny(epoch["learning_rate"]),
        )
        for epoch in epochs
    ]
    listed = table(["epoch", "loss, train", "loss, val", "AUC, val", "learning rate"], rows)
    return [heading, *stopped, columns(*parts), details("Every epoch", listed)]


def _epochs(stage: Document) -> list[Document]:
    """The epochs from 1, and as epoch 0 what `val` said before the first one, where that is known."""
    epochs = list(stage.get("history") or stage.get("epochs") or ())
    return [{"epoch": 0, **stage["start"]}, *epochs] if stage.get("start") and epochs else epochs


def _chart(epochs: Epochs, series: Mapping[str, str], title: str, stage: Document) -> Html | None:
    known = [epoch[name] for epoch in epochs for name in series if epoch.get(name) is not None]
    if not known:
        return None
    low, high = min(known), max(known)
    margin = 0.06 * (high - low) or max(abs(high) * 0.05, 1e-3)
    area = Area(height=230, width=NARROW, left=62, top=22)
    first, last = epochs[0]["epoch"], epochs[-1]["epoch"]
    x, y = area.horizontal(first - 0.25, last + 0.25), area.vertical(low - margin, high + margin)
    marks = [x_axis(area, x, "epoch", _whole), y_axis(area, y, title)]
    best = stage["best_epoch"]
    if best is not None and first <= best <= last:
        side = "start" if best < (first + last) / 2 else "end"
        marks += [
            line(x(best), area.top, x(best), area.y_end, "guide"),
            text(x(best), area.top - 8, f"kept: epoch {best}" if best else "kept: before training", anchor=side),
        ]
    for name in series:
        marks += _course(epochs, name, _KINDS[name], x, y)
    said = "; ".join(
        f"epoch {epoch['epoch']}: " + ", ".join(f"{words} {decimal(epoch.get(name), 4)}" for name, words in series.items())
        for epoch in epochs
    )
    return chart(area, *marks, label=f"{stage['stage']}, {title} by epoch. {said}")


def _course(epochs: Epochs, name: str, kind: str, x: Scale, y: Scale) -> list[Html]:
    runs: list[list[Document]] = [[]]
    for epoch in epochs:
        if epoch.get(name) is None:
            runs.append([])
        else:
            runs[-1].append(epoch)
    marks = [curve([x(e["epoch"]) for e in run], [y(e[name]) for e in run], f"{kind} stroke") for run in runs if len(run) > 1]
    for run in runs:
        # A lone epoch between two gaps has no line and would be invisible without its dot.
        if len(epochs) <= MOST_DOTS or len(run) == 1:
            marks += [dot(x(e["epoch"]), y(e[name]), f"{kind} dot", tip=f"epoch {e['epoch']}: {e[name]:.4g}", radius=4) for e in run]
    return marks


def _whole(value: float) -> str:
    return f"{value:.0f}" if abs(value - round(value)) < 1e-9 else ""
