"""The parts of a profile beside latency, stages and start, as lines for people; the document has them all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgekit.cli.console import table

_MOST_LAYERS = 12


def lines(document: Mapping[str, Any]) -> Iterator[str]:
    """One line or table a part that was measured; what is not known says why."""
    yield from _deltas(document)
    yield from _machine(document)
    if document["paced"] is not None:
        yield from _paced(document)
    if document["idle_wake"] is not None:
        yield from _wakes(document["idle_wake"])
    if document["layers"] is not None:
        yield from _layers(document["layers"])
    for name in ("compare", "baseline"):
        if document[name] is not None:
            yield from _verdict(name, document[name])


def _deltas(document: Mapping[str, Any]) -> Iterator[str]:
    for name, words in (("cam", "the map"), ("overlay", "the overlay")):
        found = document["deltas"][name]
        if found["ratio"] is None:
            yield f"{words} adds: not known: {document['unavailable'][f'deltas.{name}.ratio']}"
        else:
            low, high = found["added_low_ms"], found["added_high_ms"]
            nothing = ", not distinguishable from 0" if low <= 0 <= high else ""
            ratio = f"{found['ratio']:.3f} times, {found['low']:.3f} to {found['high']:.3f}"
            steady = "steady" if found["steady"] else "NOT STEADY"
            yield f"{words} adds {found['added_ms']:+.3f} ms ({low:+.3f} to {high:+.3f}{nothing}; {ratio}; {found['pairs']} pairs, {steady})"


def _machine(document: Mapping[str, Any]) -> Iterator[str]:
    why, growth = document["unavailable"], document["memory_growth"]
    yield from _meanwhile(document["timeline"], document["energy"], why, "")
    if growth["mib_per_minute"] is None:
        yield f"memory growth: not known: {why['memory_growth.mib_per_minute']}"
        return
    kept = growth["kept_mib_per_minute"]
    told = "" if kept is None else f"; the profile itself keeps {kept:.2f}"
    yield f"memory growth {growth['mib_per_minute']:+.2f} MiB a minute ({growth['low']:+.2f} to {growth['high']:+.2f}{told})"


def _meanwhile(timeline: Mapping[str, Any], energy: Mapping[str, Any], why: Mapping[str, str], prefix: str) -> Iterator[str]:
    """What every run has of the machine; `prefix` is where its reasons are."""
    throttled, hottest = timeline["throttled"], timeline["hottest_c"]
    if throttled is None:
        told = f"not known: {why[f'{prefix}timeline.throttled']}"
    else:
        told = timeline["throttled_by"] if throttled else f"no (looked at: {', '.join(timeline['throttle_sources'])})"
    yield f"throttled: {told}; hottest {'not known' if hottest is None else f'{hottest:.1f} °C'}"
    if energy["mj_per_frame"] is None:
        yield f"energy: not available: {why[f'{prefix}energy.mj_per_frame']}"
        return
    above = energy["mj_per_frame_above_idle"]
    rest = f"; {why[f'{prefix}energy.mj_per_frame_above_idle']}" if above is None else f", {above:.1f} of it above rest"
    yield f"energy: {energy['mj_per_frame']:.1f} mJ a frame{rest}; {energy['scope']}, {energy['source']}"


def _paced(document: Mapping[str, Any]) -> Iterator[str]:
    paced, why, endless = document["paced"], document["unavailable"], set(document["without_end"])
    names = ("p50", "p90", "p95", "p99", "max")
    rows = []
    for part, words in (("latency_ms", "from due, ms"), ("service_ms", "service, ms"), ("wait_ms", "wait, ms")):
        cells = ("no end" if f"paced.{part}.{name}" in endless else _ms(paced[part][name]) for name in names)
        rows.append((words, *cells, str(paced[part]["samples"])))
    yield table(rows, header=(f"{paced['fps']:g} frames a second", *names, "samples"))
    yield from dict.fromkeys(f"not reported: {why[path]}" for name in names if (path := f"paced.latency_ms.{name}") in why)
    yield (
        f"deadline {paced['deadline_ms']:.1f} ms: {paced['deadline_misses']} of {paced['due']} missed, {paced['unserved']} of them never served; "
        f"a live stream would have dropped {paced['live_drops']}"
    )
    for line in _meanwhile(paced["timeline"], paced["energy"], why, "paced."):
        yield f"meanwhile {line}"


def _wakes(wakes: Mapping[str, Any]) -> Iterator[str]:
    rows = [(f"{wake['gap_s']:g} s", _ms(wake["p50_ms"]), _ms(wake["max_ms"]), str(wake["samples"])) for wake in wakes.values()]
    yield table(rows, header=("after a pause of", "p50", "max", "samples"))
    for wake in wakes.values():
        if wake["p50_ms"] is None:
            yield f"not reported: {wake['reason']}"


def _layers(layers: Mapping[str, Any]) -> Iterator[str]:
    if not layers["table"]:
        yield f"layers: {layers['reason']}"
        return
    told = sorted(layers["table"], key=lambda layer: -(layer["median_ms"] or 0.0))[:_MOST_LAYERS]
    rows = [(layer["name"][:48], layer["kind"], layer["precision"] or "–", _fine(layer["median_ms"])) for layer in told]
    yield table(rows, header=("slowest layers", "kind", "precision", "ms"), words=3)
    if layers["reason"]:
        yield f"layers: {layers['reason']}"


def _verdict(name: str, found: Mapping[str, Any]) -> Iterator[str]:
    rows = []
    for percentile, ratio in found["ratio"].items():
        known = ratio["value"] is not None
        rows.append((percentile, *(f"{ratio[end]:.3f}" if known else "–" for end in ("value", "low", "high"))))
    yield table(rows, header=(f"{name}: times the other's", "ratio", "low", "high"))
    yield f"{name}: {found['verdict']}: {found['reason']}"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _fine(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
