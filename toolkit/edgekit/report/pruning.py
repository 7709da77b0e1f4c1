"""What was pruned: which ratios were tried, what latency each gave, and how many channels every layer kept.

Rules this file keeps:

1. The ratio was chosen by the measured latency of the compiled INT8 candidate: the chart shows what was measured, with the target, and no model of it.
2. The times are of the compile's host and stand for no other device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.report.html import Content, Html, columns, details, element, key_values, section, table
from edgekit.report.svg import NARROW, Area, chart, curve, dot, key, line, rectangle, text, x_axis, y_axis
from edgekit.report.wording import UNDEFINED, count, decimal, milliseconds, share

Document = Mapping[str, Any]

MOST_BARS = 160
"""Layers that are drawn as bars; of more, the bars would be thinner than two pixels."""


def pruning_section(document: Document) -> list[Html]:
    """Settings, probes and layers; nothing where the document has no `pruning`."""
    found = document.get("pruning")
    if not found:
        return []
    probes, layers = found["probes"], found.get("layers") or ()
    measured = found["latency_share"]
    pairs: list[tuple[str, Content]] = [
        ("Criterion", f"{found['criterion']}, {found['scope']}"),
        ("Latency asked for", f"{share(found['latency_target'], 0)} of the unpruned INT8 model's"),
        ("Latency measured", UNDEFINED if measured is None else f"{share(measured, 1)} of the unpruned INT8 model's"),
        *([("Latency as packed", f"{share(found['packed_share'], 1)} of it, whatever the rung")] if found.get("packed_share") else []),
        *([("Channels kept", _kept(layers))] if layers else []),
        ("Channels rounded to", f"multiples of {found['round_to']}"),
        ("Measured on", found["host"]),
    ]
    note = (
        "Channels are taken out in whole dependency groups. How many was decided by the measured latency of the compiled INT8 candidate, not by counting "
        "operations. It was measured on this host and stands for no other device."
    )
    facts = element("div", key_values(pairs))
    parts = columns(facts, _probes(found)) if probes else facts
    return [section("Pruning", parts, *_probe_table(probes), *_layers(layers), note=note)]


def _probes(found: Document) -> Html:
    ordered = sorted(found["probes"], key=lambda probe: probe["ratio"])
    target = found["latency_target"]
    area = Area(height=270, width=NARROW)
    x = area.horizontal(0.0, max(probe["ratio"] for probe in ordered) * 1.05)
    y = area.vertical(0.0, max(1.0, *(probe["share"] for probe in ordered)) * 1.05)
    xs, ys = [x(probe["ratio"]) for probe in ordered], [y(probe["share"]) for probe in ordered]
    marks = [
        x_axis(area, x, "pruning ratio"),
        y_axis(area, y, "share of the unpruned latency"),
        line(area.left, y(target), area.x_end, y(target), "bound"),
        text(area.x_end, y(target) - 6, f"target {decimal(target, 2)}", anchor="end", kind="strong"),
        curve(xs, ys, "s1 stroke"),
        *(dot(px, py, "s1 dot", tip=_said(probe)) for px, py, probe in zip(xs, ys, ordered, strict=True)),
    ]
    return chart(area, *marks, label=f"Latency by pruning ratio, target {target:.2f}. " + "; ".join(map(_said, ordered)))


def _probe_table(probes: Sequence[Document]) -> list[Html]:
    if not probes:
        return []
    rows = [
        (
            decimal(probe["ratio"]),
            milliseconds(probe["latency_ms"]),
            milliseconds(probe["reference_ms"]),
            share(probe["share"], 1),
            decimal(probe["parameters"], 0),
        )
        for probe in probes
    ]
    header = ["ratio", "latency, ms", "unpruned beside it, ms", "share", "parameters"]
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


def _said(probe: Document) -> str:
    return f"ratio {probe['ratio']:.3g}: {probe['latency_ms']:.3g} ms, {probe['share']:.0%} of unpruned"
