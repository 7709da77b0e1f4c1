"""Sections of a profile's page beside latency, stages and start: the machine meanwhile, frames from a clock, pauses, deltas, layers, comparisons.

A part that was not asked for has no section; a figure that is not known is a dash with the reason the document gives.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgekit.report import charts, course_chart
from edgekit.report.charts import Course, Interval
from edgekit.report.html import UNKNOWN, Content, Html, callout, details, element, key_values, section, table

_PERCENTILES = ("p50", "p90", "p95", "p99", "max")
_SLOWER, _NOT_JUDGED, _MEDIAN = "slower", "not judged", "median "
_WORDS = {"compare": "the bundle it was compared with", "baseline": "the earlier measurement"}
_SHOWN_LAYERS = 15
_FURTHEST_DEADLINE = 4.0
"""A deadline further away than this many times the largest latency would flatten the curve, and is told in words alone."""

_ADDS = {"cam": "the map", "overlay": "drawing the overlay"}


def verdict_callouts(document: Mapping[str, Any]) -> list[Html]:
    """What a comparison found, where that must not be overlooked."""
    found = []
    for name, words in _WORDS.items():
        part = document[name]
        if part is not None and part["verdict"] == _SLOWER:
            found.append(callout("bad", f"slower than {words}: {part['reason']}."))
        if part is not None and part["verdict"] == _NOT_JUDGED:
            found.append(callout("warning", f"the comparison with {words} could not be judged: {part['reason']}."))
        if part is not None and part["verdict"].startswith(_MEDIAN):
            found.append(callout("warning", f"against {words} only the median could be judged: {part['reason']}."))
    paced = document["paced"]
    for timeline, when in ((document["timeline"], ""), (paced and paced["timeline"], " while frames came from a clock")):
        if timeline and timeline["throttled"]:
            found.append(callout("warning", f"the machine held itself back{when}: {timeline['throttled_by']}."))
    return found


def held_back(timeline: Mapping[str, Any]) -> list[tuple[float, float]]:
    """(start, end) in seconds of the times in which the machine held itself back.

    A counter that has risen tells of the time since the reading before; a state stands until the next reading.
    """
    moments, events, states = timeline["t_s"], timeline["throttle_events"], timeline["throttle_states"]
    spans: list[tuple[float, float]] = []
    for index, (start, end) in enumerate(itertools.pairwise(moments)):
        before, after = events[index], events[index + 1]
        if states[index] or (before is not None and after is not None and after > before):
            joins = spans and spans[-1][1] == start
            spans = [*spans[:-1], (spans[-1][0], end)] if joins else [*spans, (start, end)]
    if states[-1] and not (spans and spans[-1][1] == moments[-1]):
        spans.append((moments[max(len(moments) - 2, 0)], moments[-1]))
    return spans


def sections(document: Mapping[str, Any]) -> list[Html]:
    """All sections that this document has something for, in the order of the page."""
    made = [_machine(document), _deltas(document)]
    if document["paced"] is not None:
        made.append(_paced(document))
    if document["idle_wake"] is not None:
        made.append(_wakes(document["idle_wake"]))
    made += [_comparison(name, document[name]) for name in ("compare", "baseline") if document[name] is not None]
    if document["layers"] is not None:
        made.append(_layers(document["layers"]))
    return made


def _machine(document: Mapping[str, Any]) -> Html:
    timeline, growth, why = document["timeline"], document["memory_growth"], document["unavailable"]
    slope = _known(growth["mib_per_minute"], "{:+.3g} MiB a minute", why.get("memory_growth.mib_per_minute", ""))
    if growth["mib_per_minute"] is not None:
        slope = f"{growth['mib_per_minute']:+.3g} MiB a minute ({growth['low']:+.3g} to {growth['high']:+.3g})"
        if growth["kept_mib_per_minute"] is not None:
            slope += f"; the profile itself keeps {growth['kept_mib_per_minute']:.2g}"
    pairs = [*_meanwhile(timeline, document["energy"], why, ""), ("Growth of memory", slope)]
    note = "Read once a second, between two frames, while the latency above was measured; on the same clock."
    return section("The machine meanwhile", *_courses(timeline), key_values(pairs), note=note)


def _courses(timeline: Mapping[str, Any]) -> list[Content]:
    held = held_back(timeline)
    memory = {"proportional (PSS)": timeline["memory_mib"], "own, no file's": timeline["own_memory_mib"]}
    drawn: list[Content] = []
    for series, quantity, unit in (
        (timeline["temperatures_c"], "temperature", "°C"),
        (timeline["clocks_mhz"], "clock", "MHz"),
        (memory, "memory", "MiB"),
    ):
        if course_chart.has_values(series):
            drawn.append(course_chart.courses(timeline["t_s"], series, quantity=quantity, unit=unit, held=held))
    return drawn


def _meanwhile(timeline: Mapping[str, Any], energy: Mapping[str, Any], why: Mapping[str, str], prefix: str) -> list[tuple[str, Content]]:
    """What every run has of the machine; `prefix` is where its reasons are."""
    return [
        ("Throttled", _throttled(timeline, why.get(f"{prefix}timeline.throttled", ""))),
        ("Hottest", _known(timeline["hottest_c"], "{:.1f} °C", why.get(f"{prefix}timeline.hottest_c", ""))),
        ("Last third by first third", _known(timeline["sustained_ratio"], "{:.3f}", why.get(f"{prefix}timeline.sustained_ratio", ""))),
        ("Energy a frame", _energy(energy, why, prefix)),
        ("One reading takes", f"{timeline['reading_ms']:.2f} ms"),
    ]


def _throttled(timeline: Mapping[str, Any], why: str) -> Content:
    if timeline["throttled"] is None:
        return _unknown(why)
    if timeline["throttled"]:
        return str(timeline["throttled_by"])
    return f"no; looked at: {', '.join(timeline['throttle_sources'])}"


def _energy(energy: Mapping[str, Any], why: Mapping[str, str], prefix: str) -> Content:
    if energy["mj_per_frame"] is None:
        return _unknown(why.get(f"{prefix}energy.mj_per_frame", ""))
    above = energy["mj_per_frame_above_idle"]
    rest = f", {above:.3g} mJ of it above rest ({energy['idle_w']:.3g} W)" if above is not None else ""
    missing = f"; {why.get(f'{prefix}energy.mj_per_frame_above_idle', '')}" if above is None else ""
    return f"{energy['mj_per_frame']:.3g} mJ{rest}; {energy['scope']}, by {energy['source']}{missing}"


def _deltas(document: Mapping[str, Any]) -> Html:
    rows: list[tuple[Content, ...]] = []
    for name, words in _ADDS.items():
        found = document["deltas"][name]
        if found["ratio"] is None:
            rows.append((words, _unknown(document["unavailable"].get(f"deltas.{name}.ratio", "")), UNKNOWN, UNKNOWN, UNKNOWN))
        else:
            interval = f"{found['low']:.3f} to {found['high']:.3f}"
            steady = "yes" if found["steady"] else "no"
            low, high = found["added_low_ms"], found["added_high_ms"]
            added = f"{found['added_ms']:+.3f} ms ({low:+.3f} to {high:+.3f})"
            added += ", not distinguishable from 0" if low <= 0 <= high else ""
            rows.append((words, added, f"{found['ratio']:.3f} ({interval})", str(found["pairs"]), steady))
    note = "Called in turn with and without it, on the same frames; difference and ratio of the medians with their 95 % intervals."
    return section("What the map and the overlay add", table(["part", "adds", "times", "pairs", "steady"], rows), note=note)


def _paced(document: Mapping[str, Any]) -> Html:
    paced, why = document["paced"], document["unavailable"]
    endless = set(document["without_end"])
    rows: list[tuple[Content, ...]] = []
    for part, words in (("latency_ms", "from due to answered"), ("service_ms", "answering alone"), ("wait_ms", "waiting")):
        cells = ("without end" if f"paced.{part}.{name}" in endless else _ms(paced[part][name]) for name in _PERCENTILES)
        rows.append((words, *cells, str(paced[part]["samples"])))
    reasons = dict.fromkeys(why[path] for name in _PERCENTILES if (path := f"paced.latency_ms.{name}") in why)
    lost = f"{paced['unserved']} of them were never served" if paced["unserved"] else "every one was served"
    drops = f"a live stream that keeps only the latest frame would have dropped {paced['live_drops']}"
    told = f"{paced['deadline_misses']} of {paced['due']} frames missed the deadline of {paced['deadline_ms']:.1f} ms; {lost}; {drops}."
    note = (
        f"Frames come from a clock, whether or not the last one is answered; what a frame waits for is in its latency. {told} "
        "Intervals take frames as independent, and are too narrow where they wait for each other."
    )
    return section(
        f"At {paced['fps']:g} frames a second",
        table(["ms", *_PERCENTILES, "frames"], rows),
        *(element("p", reason, class_="unknown") for reason in reasons),
        *_paced_charts(paced),
        element("h3", "The machine meanwhile"),
        *_courses(paced["timeline"]),
        key_values(_meanwhile(paced["timeline"], paced["energy"], why, "paced.")),
        note=note,
    )


def _paced_charts(paced: Mapping[str, Any]) -> list[Content]:
    latency, series = paced["latency_ms"], paced["series"]
    values, due = np.asarray(series["latency_ms"], np.float64), np.asarray(series["due_s"], np.float64)
    marks = {name: latency[name] for name in ("p50", "p90", "p95", "p99") if latency[name] is not None}
    if paced["deadline_ms"] <= _FURTHEST_DEADLINE * float(values.max()):
        marks["deadline"] = paced["deadline_ms"]
    course = Course(median=latency["p50"], held=held_back(paced["timeline"]), moments="when the frame was due (s)")
    return [
        charts.cdf(values, marks, endless=paced["unserved"], quantity="latency from due"),
        charts.timeline(due, values, course),
    ]


def _wakes(wakes: Mapping[str, Any]) -> Html:
    rows = []
    for wake in wakes.values():
        interval = UNKNOWN if wake["interval_ms"] is None else f"{_ms(wake['interval_ms'][0])} to {_ms(wake['interval_ms'][1])}"
        first: Content = _ms(wake["p50_ms"]) if wake["p50_ms"] is not None else _unknown(wake["reason"])
        rows.append((f"{wake['gap_s']:g} s", first, interval, _ms(wake["max_ms"]), str(wake["samples"])))
    header = ["pause", "median, ms", "95 % interval", "largest", "calls"]
    return section("After a pause", table(header, rows), note="One call after each pause; nothing is left out.")


def _comparison(name: str, part: Mapping[str, Any]) -> Html:
    known = {percentile: ratio for percentile, ratio in part["ratio"].items() if ratio["value"] is not None}
    items = [
        Interval(label=percentile, series="ratio", value=ratio["value"], low=ratio["low"], high=ratio["high"])
        for percentile, ratio in known.items()
    ]
    bounds = {percentile: 1 + ratio["margin"] for percentile, ratio in known.items()}
    drawn = [charts.intervals(items, quantity="this bundle / the other", bounds=bounds)] if items else []
    rows = []
    for percentile, ratio in part["ratio"].items():
        cells = (UNKNOWN, UNKNOWN) if percentile not in known else (f"{ratio['value']:.3f}", f"{ratio['low']:.3f} to {ratio['high']:.3f}")
        rows.append((percentile, *cells, f"{1 + ratio['margin']:.2f}"))
    if name == "compare":
        other, title = part["other"], "Against another bundle"
        what = (
            f"{other['name']} {other['version']} ({other['file']}), {part['pairs']} pairs on the same frames, in an order drawn by chance."
        )
        listed: list[Content] = []
    else:
        title, what = "Against an earlier measurement", f"Measured {part['measured_at']}, {part['samples']} samples."
        listed = [details("What else changed", *(element("p", change) for change in part["changes"]))] if part["changes"] else []
    note = f"{part['verdict'].capitalize()}: {part['reason']}. {what}"
    return section(title, *drawn, table(["percentile", "ratio", "95 % interval", "slower from"], rows), *listed, note=note)


def _layers(layers: Mapping[str, Any]) -> Html:
    rows = [
        (layer["name"], layer["kind"], layer["precision"] or UNKNOWN, layer["kernel"] or UNKNOWN, _fine(layer["median_ms"]))
        for layer in sorted(layers["table"], key=lambda layer: -(layer["median_ms"] or 0.0))
    ]
    header = ["layer", "kind", "precision", "kernel", "median, ms"]
    drawn: list[Content] = []
    shares = sorted(layers["by_precision_ms"].items(), key=lambda item: -item[1])
    if layers["sum_ms"]:
        rest = sum(length for _, length in shares[4:])
        drawn.append(charts.stack([*shares[:4], *([("others", rest)] if rest else [])]))
    if rows:
        drawn.append(table(header, rows[:_SHOWN_LAYERS], numeric=False))
    if rows[_SHOWN_LAYERS:]:
        drawn.append(details(f"{len(rows) - _SHOWN_LAYERS} more", table(header, rows[_SHOWN_LAYERS:], numeric=False)))
    note = f"{layers['engine']}, medians of {layers['repeats']} frames in a run of its own, in which counting costs time too. {layers['reason']}"
    return section("Layers", *drawn, note=note.strip())


def _known(value: float | None, form: str, why: str) -> Content:
    return _unknown(why) if value is None else form.format(value)


def _unknown(why: str) -> Html:
    return element("span", why or UNKNOWN, class_="unknown")


def _ms(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.2f}"


def _fine(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.4f}"
