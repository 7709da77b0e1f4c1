"""The page of a profile, made from its JSON document, so that a stored one can be shown as well as a fresh one.

Order of the page: what matters first (latency, start, memory, size), then how the latency is distributed and how it went over time, where the time
goes, what the machine did meanwhile, the parts that were asked for (`profile_parts.py`), how the program starts, and the machine. What is not known is shown as such, with the reason the document gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgekit.report import charts, profile_parts
from edgekit.report.charts import Course
from edgekit.report.html import UNKNOWN, Content, Figure, Html, callout, columns, element, figures, key_values, page, section, table
from edgekit.report.wording import shortened

MIB = 1024.0 * 1024.0
_LONGEST_FILE = 22
"""Letters of a name without a space that a tile holds; the whole name is below."""

BUSY_SHARE = 0.5
"""Load average by hardware threads, before the measurement, above which other programs are worth a warning."""

_COLD_STAGES = {
    "interpreter": "start Python",
    "import": "import edgekit",
    "load": "open the bundle",
    "first_result": "first answer",
}
_STAGE_TITLES = {
    "read": "read the file",
    "preprocess": "preprocess",
    "infer": "infer",
    "cam": "answer and map",
    "overlay": "draw the overlay",
}
_HOST_TITLES = {
    "device_model": ("Device", ""),
    "cpu_model": ("Processor", ""),
    "architecture": ("Architecture", ""),
    "cores_physical": ("Cores", ""),
    "cores_logical": ("Hardware threads", ""),
    "cores_usable": ("Usable by this process", "threads"),
    "cpu_limit": ("CPU limit of the container", "cores"),
    "instruction_sets": ("Instruction sets", ""),
    "governor": ("Frequency governor", ""),
    "frequency_mhz": ("Frequency at the start", "MHz"),
    "frequency_max_mhz": ("Highest frequency", "MHz"),
    "load_average": ("Load before, one minute", "processes"),
    "memory_mib": ("Memory", "MiB"),
    "memory_limit_mib": ("Memory limit of the container", "MiB"),
    "system": ("System", ""),
    "kernel": ("Kernel", ""),
    "python": ("Python", ""),
}


def render(document: Mapping[str, Any]) -> str:
    """The page.

    Args:
        document: What `Profile.to_json` gave.
    """
    bundle = document["bundle"]
    engine = bundle["engine"]
    ran_on = " ".join(str(engine[key]) for key in ("name", "version", "device", "precision") if engine.get(key))
    return page(
        f"Profile of {bundle['name']} {bundle['version']}",
        *_callouts(document),
        _headline(document),
        _latency(document),
        _stages(document),
        *profile_parts.sections(document),
        _cold_start(document),
        section("Machine and bundle", columns(_host(document), _bundle(document))),
        subtitle=f"{ran_on} · {document['host']['cpu_model'] or document['host']['architecture']}",
        footer=f"edgekit {document['host']['packages']['edgekit']} · measured {document['measured_at']} · times are milliseconds of wall clock",
    )


def _callouts(document: Mapping[str, Any]) -> list[Html]:
    found = profile_parts.verdict_callouts(document)
    if not document["bundle"]["accepted"]:
        found.append(callout("bad", "this bundle did not pass its acceptance gates; it must not be used on patients."))
    if not document["warmup"]["steady"]:
        found.append(
            callout("warning", f"the machine was not steady: {document['warmup']['reason']}. Read the percentiles with that in mind.")
        )
    load, threads = document["host"]["load_average"], document["host"]["cores_usable"]
    if load is not None and threads is not None and load > BUSY_SHARE * threads:
        found.append(callout("warning", f"other programs were running: a load of {load:.1f} on {threads} threads in the minute before."))
    return found


def _headline(document: Mapping[str, Any]) -> Html:
    latency, unavailable = document["latency_ms"], document["unavailable"]
    tiles = [Figure(label="Latency, median", value=_ms(latency["p50"]), unit="ms", detail=_interval(document, "p50"))]
    tail = next((name for name in ("p99", "p95", "p90") if latency[name] is not None), "p99")
    tiles.append(Figure(label=f"Latency, {tail}", value=_ms(latency[tail]), unit="ms", detail=_interval(document, tail)))
    cold = document["cold_start_ms"]
    tiles.append(
        Figure(label="Start to first answer", value=_ms(cold["total"]), unit="ms", detail=f"median of {cold['repeats']} fresh processes")
    )
    peak = document["peak_memory_mib"]
    reason = unavailable.get("peak_memory_mib", "") if peak is None else "resident, after the first answer"
    tiles.append(Figure(label="Peak memory", value=_number(peak, 0), unit="MiB", detail=reason))
    tiles.append(
        Figure(
            label="Bundle",
            value=_number(document["bundle"]["size_bytes"] / MIB, 2),
            unit="MiB",
            detail=shortened([document["bundle"]["file"]], _LONGEST_FILE)[0],
        )
    )
    return figures(tiles)


def _latency(document: Mapping[str, Any]) -> Html:
    latency, warmup, series = document["latency_ms"], document["warmup"], document["series"]
    values = np.asarray(series["latency_ms"], np.float64)
    marks = {name: latency[name] for name in ("p50", "p90", "p95", "p99") if latency[name] is not None}
    rows = [(name, _ms(latency[name]), _interval(document, name)) for name in ("p50", "p90", "p95", "p99")]
    rows.append(("largest", _ms(latency["max"]), ""))
    shape = " and ".join(" × ".join(map(str, shape)) for shape in document["frames"]["shapes"])
    note = (
        f"One predict call, with label, probabilities and map, on a frame of {shape} pixels that is already in memory: {latency['samples']} calls "
        f"after {warmup['excluded']} of warm-up. Percentiles are measured samples (nearest rank)."
    )
    started = np.asarray(series["start_s"], np.float64)
    return section(
        "Latency",
        table(["percentile", "ms", "95 % interval"], rows),
        element("h3", "Distribution"),
        charts.cdf(values[warmup["excluded"] :], marks),
        element("h3", "Course"),
        charts.timeline(
            started,
            values,
            Course(median=latency["p50"], excluded=warmup["excluded"], held=profile_parts.held_back(document["timeline"])),
        ),
        note=note,
    )


def _stages(document: Mapping[str, Any]) -> Html:
    stages = document["stages_ms"]
    known = [(title, stages[name]["p50"]) for name, title in _STAGE_TITLES.items() if stages[name]["p50"] is not None]
    rows = [
        (title, _ms(stages[name]["p50"]), _ms(stages[name]["p95"]), str(stages[name]["samples"])) for name, title in _STAGE_TITLES.items()
    ]
    note = "From the file to the picture with the overlay, medians. Reading and the overlay are not part of the latency above."
    drawn = [charts.stack(known)] if known else []
    return section("Where the time goes", *drawn, table(["stage", "median, ms", "p95, ms", "samples"], rows), note=note)


def _cold_start(document: Mapping[str, Any]) -> Html:
    cold = document["cold_start_ms"]
    note = (
        f"A fresh process each time, medians of {cold['repeats']}; files were in the system's cache. The first of them took "
        f"{_ms(cold['first_total'])} ms in all and may have filled an engine's cache."
    )
    return section("From start to first answer", charts.stack([(title, cold[name]) for name, title in _COLD_STAGES.items()]), note=note)


def _host(document: Mapping[str, Any]) -> Html:
    host, reasons = document["host"], document["unavailable"]
    pairs: list[tuple[str, Content]] = []
    for name, (title, unit) in _HOST_TITLES.items():
        pairs.append((title, _fact(host[name], unit, reasons.get(f"host.{name}", ""))))
    installed = ", ".join(f"{name} {version}" for name, version in host["packages"].items() if version)
    return element("div", element("h3", "Machine"), key_values([*pairs, ("Packages", installed)]))


def _bundle(document: Mapping[str, Any]) -> Html:
    bundle, memory = document["bundle"], document["memory"]
    pairs: list[tuple[str, Content]] = [
        ("File", bundle["file"]),
        ("Size", f"{bundle['size_bytes']:,} bytes".replace(",", "\u202f")),
        ("sha256", element("code", bundle["digest"])),
        ("Accepted", "yes" if bundle["accepted"] else "no"),
        *((f"Engine {key}" if key != "name" else "Engine", str(value)) for key, value in bundle["engine"].items()),
        ("Resident memory", _fact(memory["resident_mib"], "MiB", document["unavailable"].get("memory.resident_mib", ""))),
        ("Proportional memory", _fact(memory["proportional_mib"], "MiB", document["unavailable"].get("memory.proportional_mib", ""))),
    ]
    return element("div", element("h3", "Bundle and process"), key_values(pairs))


def _fact(value: Any, unit: str, reason: str) -> Content:
    if value is None:
        return element("span", reason or UNKNOWN, class_="unknown")
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none of those that matter"
    written = f"{value:,.2f}".rstrip("0").rstrip(".").replace(",", "\u202f") if isinstance(value, float) else str(value)
    return f"{written} {unit}".strip()


def _interval(document: Mapping[str, Any], name: str) -> str:
    found = document["latency_intervals_ms"][name]
    if found is None:
        return str(document["unavailable"].get(f"latency_ms.{name}", ""))
    return f"{_ms(found[0])} to {_ms(found[1])} ms"


def _ms(value: float | None) -> str:
    """Three significant digits, never in exponents."""
    if value is None:
        return UNKNOWN
    return _number(value, 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3)


def _number(value: float | None, digits: int) -> str:
    return UNKNOWN if value is None else f"{value:,.{digits}f}".replace(",", "\u202f")
