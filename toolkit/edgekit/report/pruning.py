"""What was pruned: which ratios were tried, what latency each gave, and how many channels every layer kept.

Rules this file keeps:

1. The ratio was chosen by the measured latency of the compiled INT8 candidate, or by counting where the latency cannot be measured: the chart shows what was
   measured or counted, with the target, and no model of it.
2. The times are of the compile's host and stand for no other device; a count stands for no time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.report.html import Content, Html, columns, details, element, key_values, section, table
from edgekit.report.svg import NARROW, Area, chart, curve, dot, key, line, rectangle, text, x_axis, y_axis
from edgekit.report.wording import UNDEFINED, count, decimal, milliseconds, share

Document = Mapping[str, Any]

MOST_BARS = 160
"""Layers that are drawn as bars; of more, the bars would be thinner than two pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Words:
    """How the page speaks of what decided.

    Attributes:
        what: What was measured or counted.
        whole: What it is a share of.
        found: How the share was found out.
        axis: Under the chart's values.
        note: Under the section's title.
    """

    what: str
    whole: str
    found: str
    axis: str
    note: str


_WORDS = {
    "latency": _Words(
        what="Latency",
        whole="the unpruned INT8 model's",
        found="measured",
        axis="share of the unpruned latency",
        note="Channels are taken out in whole dependency groups. How many was decided by the measured latency of the compiled INT8 candidate, not by counting "
        "operations. It was measured on this host and stands for no other device.",
    ),
    "macs": _Words(
        what="Multiply-accumulates",
        whole="the unpruned network's",
        found="left",
        axis="share of the multiply-accumulates",
        note="Channels are taken out in whole dependency groups. How many was decided by counting multiply-accumulates, because the recipe asks for it: what that "
        "is worth in time only the device can tell (edgekit profile BUNDLE --compare OTHER).",
    ),
}


def pruning_section(document: Document) -> list[Html]:
    """Settings, probes and layers; nothing where the document has no `pruning`."""
    found = document.get("pruning")
    if not found:
        return []
    probes, layers = found["probes"], found.get("layers") or ()
    measured, words = found["share"], _WORDS[found["measure"]]
    asked = "chosen by the search" if found["target"] is None else f"{share(found['target'], 0)} of {words.whole}"
    pairs: list[tuple[str, Content]] = [
        ("Criterion", f"{found['criterion']}, {found['scope']}"),
        (f"{words.what} asked for", asked),
        (f"{words.what} {words.found}", UNDEFINED if measured is None else f"{share(measured, 1)} of {words.whole}"),
        *(
            [("Latency as packed", f"{share(found['packed_share'], 1)} of the unpruned INT8 model's, whatever the rung")]
            if found.get("packed_share")
            else []
        ),
        *([("Channels kept", _kept(layers))] if layers else []),
        ("Channels rounded to", f"multiples of {found['round_to']}"),
        *([("Measured on", found["host"])] if found["host"] else []),
    ]
    facts = element("div", key_values(pairs))
    parts = columns(facts, _probes(found, words)) if probes else facts
    return [section("Pruning", parts, *_probe_table(probes), *_layers(layers), note=words.note)]


def _probes(found: Document, words: _Words) -> Html:
    ordered = sorted(found["probes"], key=lambda probe: probe["ratio"])
    target = found["target"]
    area = Area(height=270, width=NARROW)
    x = area.horizontal(0.0, max(probe["ratio"] for probe in ordered) * 1.05)
    y = area.vertical(0.0, max(1.0, *(probe["share"] for probe in ordered)) * 1.05)
    xs, ys = [x(probe["ratio"]) for probe in ordered], [y(probe["share"]) for probe in ordered]
    marks = [
        x_axis(area, x, "pruning ratio"),
        y_axis(area, y, words.axis),
        line(area.left, y(target), area.x_end, y(target), "bound"),
        text(area.x_end, y(target) - 6, f"target {decimal(target, 2)}", anchor="end", kind="strong"),
        curve(xs, ys, "s1 stroke"),
        *(dot(px, py, "s1 dot", tip=_said(probe)) for px, py, probe in zip(xs, ys, ordered, strict=True)),
    ]
    return chart(area, *marks, label=f"{words.what} by pruning ratio, target {target:.2f}. " + "; ".join(map(_said, ordered)))


def _probe_table(probes: Sequence[Document]) -> list[Html]:
    if not probes:
        return []
    measured: list[tuple[str, ...]]
    if "macs" in probes[0]:
        measured = [(_millions(probe["macs"]),) for probe in probes]
        header = ["ratio", "multiply-accumulates, millions", "share", "parameters"]
    else:
        measured = [(milliseconds(probe["latency_ms"]), milliseconds(probe["reference_ms"])) for probe in probes]
        header = ["ratio", "latency, ms", "unpruned beside it, ms", "share", "parameters"]
    rows = [
        (decimal(probe["ratio"]), *cells, share(probe["share"], 1), decimal(probe["parameters"], 0))
        for probe, cells in zip(probes, measured, strict=True)
    ]
    return [details(f"{count(len(probes), 'probe')}, in the order they were measured", table(header, rows))]


def _layers(layers: Sequence[Document]) -> list[Html]:
    if not layers:
        return []
    rows = [(layer["name"], str(layer["before"]), str(layer["after"]), share(layer["after"] / layer["before"], 0)) for layer in layers]
    listed = details(f"All {count(len(layers), 'layer')}", table(["layer", "channels before", "kept", "share kept"], rows))
    if len(layers) > MOST_BARS:
        return [element("p", f"{len(layers)} layers are too many to draw; the list has every one.", class_="note"), listed]
    heading = element("h3", "Channels of each layer, from the input to the output")
    return [heading, _bars(layers), key({"s1": "kept", "before": "before pruning"}), listed]


def _bars(layers: Sequence[Document]) -> Html:
    area = Area(height=230)
    y = area.vertical(0.0, float(max(layer["before"] for layer in layers)))
    step = (area.x_end - area.left) / len(layers)
    width = max(step - min(2.0, step / 4), 1.0)
    marks = []
    for index, layer in enumerate(layers):
        start, tip = area.left + index * step + (step - width) / 2, f"{layer['name']}: {layer['after']} of {layer['before']} kept"
        before, after = y(float(layer["before"])), y(float(layer["after"]))
        marks.append(rectangle(start, before, (width, area.y_end - before), "s1 band", tip=tip))
        marks.append(rectangle(start, after, (width, area.y_end - after), "s1 fill", tip=tip))
    base = [line(area.left, area.y_end, area.x_end, area.y_end, "axis")]
    titled = text((area.left + area.x_end) / 2, area.y_end + 20, "layer, in the order of the network", anchor="middle")
    label = f"Channels kept, layer by layer: {_kept(layers)}. Smallest share kept: {_smallest(layers)}"
    return chart(area, y_axis(area, y, "channels"), *marks, *base, titled, label=label)


def _kept(layers: Sequence[Document]) -> str:
    before, after = (sum(layer[side] for layer in layers) for side in ("before", "after"))
    return f"{after} of {before} ({share(after / before, 0)}), over {count(len(layers), 'layer')}" if before else UNDEFINED


def _smallest(layers: Sequence[Document]) -> str:
    layer = min(layers, key=lambda item: item["after"] / item["before"])
    return f"{layer['name']}, {layer['after']} of {layer['before']}"


def _millions(macs: int) -> str:
    return f"{macs / 1e6:.0f}" if macs >= 10e6 else f"{macs / 1e6:.2f}"


def _said(probe: Document) -> str:
    measured = f"{_millions(probe['macs'])} million" if "macs" in probe else f"{probe['latency_ms']:.3g} ms"
    return f"ratio {probe['ratio']:.3g}: {measured}, {probe['share']:.0%} of unpruned"
