"""How a bundle was made: the ladder, the stages, the device it is for and the host it was made on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.report.html import Content, Html, element, key_values, section, table
from edgekit.report.wording import UNDEFINED, count, decimal, share, tiny

Document = Mapping[str, Any]

_HOST = {
    "device_model": ("Device", ""),
    "cpu_model": ("Processor", ""),
    "architecture": ("Architecture", ""),
    "cores_physical": ("Cores", ""),
    "cores_usable": ("Usable by the compile", "threads"),
    "cpu_limit": ("CPU limit of the container", "cores"),
    "instruction_sets": ("Instruction sets", ""),
    "load_average": ("Load, one minute", "processes"),
    "memory_mib": ("Memory", "MiB"),
    "system": ("System", ""),
    "kernel": ("Kernel", ""),
    "python": ("Python", ""),
}


def ladder_section(document: Document) -> Html:
    """Every rung that was tried, as measured on `val`, which was chosen and why; and why others could not be tried."""
    rungs = document["ladder"]
    tried = [rung for rung in rungs if rung["frames"] is not None]
    has_maps = any(rung.get("map_likeness") for rung in tried)
    header = ["rung", "changed", "harmful", "ΔAUC", "lower bound", "mean KL, nats", "largest |Δlogit|"]
    header += [*(["maps, p5"] if has_maps else []), "sufficient"]
    titles = key_values({rung["rung"]: rung["title"] for rung in rungs}.items())
    frames = tried[0]["frames"] if tried else 0
    note = f"Settings are chosen on the split val ({count(frames, 'frame')}), cheapest rung first, never on test. {_choice(document)}"
    listed = table(header, [_rung(rung, has_maps=has_maps) for rung in tried])
    if has_maps:
        note += " Maps: their Pearson correlation with those before quantization, median and 5th percentile over the frames."
    described = element("div", titles, style="margin-top: 1rem")
    return section("Quantization ladder", listed, described, *_skipped(rungs), *_fallback(document), note=note)


def _rung(rung: Document, *, has_maps: bool) -> tuple[Content, ...]:
    name = _rung_name(rung)
    likeness = rung.get("map_likeness")
    cells = (
        _of(rung["flips"], rung["frames"]),
        _of(rung["harmful_flips"], rung["frames"]),
        decimal(rung["auc_difference"], 4, signed=True),
        decimal(rung["auc_difference_lower_bound"], 4, signed=True),
        tiny(rung["mean_kl"]),
        decimal(rung["max_abs_logit"], 2),
        *([f"{decimal(likeness['median'])}, {decimal(likeness['p5'])}" if likeness else UNDEFINED] if has_maps else []),
        "yes" if rung["sufficient"] else "no",
    )
    return (element("strong", f"{name}, chosen") if rung["chosen"] else name, *cells)


def _rung_name(rung: Document) -> str:
    return f"{rung['rung']}: {rung['variant']}" if rung.get("variant") else str(rung["rung"])


def _skipped(rungs: Sequence[Document]) -> list[Html]:
    left_out = [(_rung_name(rung), rung.get("status") or "not tried") for rung in rungs if rung["frames"] is None]
    if not left_out:
        return []
    return [element("h3", "Not tried"), key_values(left_out)]


def engines_section(document: Document) -> list[Html]:
    """Every engine of the bundle, each proven by itself; nothing where there is one that runs here."""
    rows = document["engines"]
    if len(rows) < 2 and not document["oracle"]:
        return []
    cells = [_engine(row) for row in rows]
    note = "In the order they are tried on the device. Each has its own artefact, judged on test by the same gates; what is refused is not in the bundle."
    if document["oracle"]:
        note += (
            f" Where an engine does not run on the host of the compile, its artefact was run by {document['oracle']}: numerics-checked, not "
            "device-verified. edgekit verify on the device compares golden frames."
        )
    header = [
        "engine",
        "rung",
        "precision",
        "changed",
        "harmful",
        "AUC",
        "map against FP32: median, p5",
        "proven with",
        "result",
        "to know",
    ]
    return [section("Engines", table(header, cells), note=note)]


def _engine(row: Document) -> tuple[Content, ...]:
    if row["reason"]:
        return (element("strong", row["name"]), *([UNDEFINED] * 7), f"left out: {row['reason']}", "")
    return (
        element("strong", row["name"]),
        row["rung"],
        row["precision"],
        _of(row["flips"], row["frames"]),
        str(row["harmful_flips"]),
        decimal(row["auc"], 4),
        f"{decimal(row['cam']['median'])}, {decimal(row['cam']['p5'])}" if row["cam"] else UNDEFINED,
        "the oracle" if row["oracle"] else "the engine",
        "accepted" if row["accepted"] else f"refused: {', '.join(row['failed_gates'])}",
        _to_know(row),
    )


def _to_know(row: Document) -> str:
    """What the conformance rules warn of, and what stayed out of float16."""
    warned = sorted({finding["rule"] for finding in row["findings"] if finding["severity"] == "warning"})
    said = [f"warnings of the rules {', '.join(warned)}"] if warned else []
    if row["float32_operators"]:
        said.append(f"{count(row['float32_operators'], 'operator')} in float32, whose values float16 cannot hold")
    return "; ".join(said)


def stages_section(document: Document) -> Html:
    """What each stage cost and whether its result came from the cache."""
    stages = document["stages"]
    rows: list[tuple[Content, ...]] = [
        (stage["name"], decimal(stage["seconds"], 1), "from the cache" if stage["cached"] else "made") for stage in stages
    ]
    rows.append((element("strong", "all"), decimal(sum(stage["seconds"] for stage in stages), 1), ""))
    note = "In the order they ran; a stage from the cache is only opened and checked."
    return section("Stages", table(["stage", "seconds", "result"], rows), note=note)


def target_facts(document: Document) -> Html:
    """The device profile the bundle was made for."""
    target, engine = document["target"], document["engine"]
    settings = ", ".join(f"{key} = {value}" for key, value in target["engines"][0]["settings"].items())
    thresholds = ", ".join(f"{label} {decimal(value)}" for label, value in document["thresholds"].items())
    pairs: list[tuple[str, Content]] = [
        ("Target", f"{target['name']}: {target['title']}"),
        ("Architectures", ", ".join(target["architectures"])),
        ("Engine", f"{engine['name']} {engine['version']}"),
        ("Settings", settings or "the engine's defaults"),
        ("Model precision", document["precision"]),
        ("Precision of the rest", engine["precision"]),
        ("Frozen thresholds", thresholds or "none"),
    ]
    facts = [element("li", fact["statement"], " ", element("span", f"({fact['source']})", class_="unknown")) for fact in target["facts"]]
    known = [element("h3", "What the target relies on"), element("ul", *facts, class_="note")] if facts else []
    return element("div", element("h3", "Made for"), key_values(pairs), *known)


def host_facts(document: Document) -> Html:
    """The machine of the compile and the versions of what ran on it."""
    host = document["host"]
    pairs: list[tuple[str, Content]] = [
        (title, _fact(host[name], unit, host["unavailable"].get(name, ""))) for name, (title, unit) in _HOST.items()
    ]
    installed = ", ".join(f"{name} {version}" for name, version in host["packages"].items() if version)
    return element("div", element("h3", "Made and measured on"), key_values([*pairs, ("Packages", installed)]))


def _fallback(document: Document) -> list[Html]:
    layers = (document.get("fallback") or {}).get("layers") or ()
    if not layers:
        return []
    rows = [(layer["name"], layer["type"], tiny(layer["error"])) for layer in layers]
    words = "Ranked by how much of the outputs' error goes away when the layer alone goes back to floating point, as measured; each costs speed."
    heading = element("h3", f"{count(len(layers), 'layer')} left in floating point")
    return [heading, element("p", words, class_="note"), table(["layer", "type", "error taken away"], rows)]


def _choice(document: Document) -> str:
    chosen = next((rung for rung in document["ladder"] if rung["chosen"]), None)
    if chosen is None:
        return "No rung was chosen."
    if chosen["sufficient"]:
        return (
            f"“{_rung_name(chosen)}” was chosen: it is the first rung for which val shows, with 95 % confidence, that the flip gates would pass, and whose "
            "ΔAUC there passes the gate itself."
        )
    return (
        f"No rung was sufficient on val; “{_rung_name(chosen)}” was chosen because its answers are nearest to FP32's (smallest mean KL divergence), and "
        "the gates on test decide."
    )


def _of(number: int, frames: int) -> str:
    return f"{number} ({share(number / frames, 1)})" if frames else str(number)


def _fact(value: Any, unit: str, reason: str) -> Content:
    if value is None:
        return element("span", reason or "not known", class_="unknown")
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none of those that matter"
    return f"{decimal(value, 0 if value >= 100 else 1) if isinstance(value, float) else value} {unit}".strip()
