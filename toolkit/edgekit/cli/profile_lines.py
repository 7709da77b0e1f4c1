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
        yield from _paced(document["paced"])
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
            yield f"{words} adds {found['added_ms']:+.3f} ms ({found['ratio']:.3f} times, {found['low']:.3f} to {found['high']:.3f})"


def _machine(document: Mapping[str, Any]) -> Iterator[str]:
    why = document["unavailable"]
    timeline, energy, growth = document["timeline"], document["energy"], document["memory_growth"]
    throttled = timeline["throttled"]
    told = why["timeline.throttled"] if throttled is None else timeline["throttled_by"] if throttled else "no"
    hottest = timeline["hottest_c"]
    yield f"throttled: {told}; hottest {'not known' if hottest is None else f'{hottest:.1f} °C'}"
    yield f"energy: {_energy(energy, why.get('energy.mj_per_frame', ''))}"
    if growth["mib_per_minute"] is None:
        yield f"memory growth: not known: {why['memory_growth.mib_per_minute']}"
    else:
        interval = f"{growth['low']:+.2f} to {growth['high']:+.2f}"
        yield f"memory growth {growth['mib_per_minute']:+.2f} MiB a minute ({interval}; the profile itself keeps {growth['own_mib_per_minute']:.2f})"


def _energy(energy: Mapping[str, Any], why: str) -> str:
    if energy["mj_per_frame"] is None:
        return why
    above = energy["mj_per_frame_above_idle"]
    rest = "" if above is None else f", {above:.1f} of it above rest"
    return f"{energy['mj_per_frame']:.1f} mJ a frame{rest}; {energy['scope']}, {energy['source']}"


def _paced(paced: Mapping[str, Any]) -> Iterator[str]:
    names = ("p50", "p90", "p95", "p99", "max")
    rows = [
        (words, *(_ms(paced[part][name]) for name in names), str(paced[part]["samples"]))
        for part, words in (("latency_ms", "from due, ms"), ("service_ms", "service, ms"), ("wait_ms", "wait, ms"))
    ]
    yield table(rows, header=(f"{paced['fps']:g} frames a second", *names, "samples"))
    yield (
        f"deadline {paced['deadline_ms']:.1f} ms: {paced['deadline_misses']} of {paced['due']} missed, {paced['unserved']} of them never served; "
        f"a live stream would have dropped {paced['live_drops']}"
    )


def _wakes(wakes: Mapping[str, Any]) -> Iterator[str]:
    rows = []
    for wake in wakes.values():
        ratio = "–" if wake["ratio"] is None else f"{wake['ratio']:.2f}"
        rows.append((f"{wake['gap_s']:g} s", _ms(wake["p50_ms"]), _ms(wake["max_ms"]), ratio, str(wake["samples"])))
    yield table(rows, header=("after a pause of", "p50", "max", "times saturated", "samples"))
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
