"""How a bundle was made: the ladder, the stages, the device it is for and the host it was made on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit.report.html import Content, Html, element, key_values, section, table
from edgekit.report.wording import count, decimal, share, tiny

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
    """Every rung that was tried, as measured on `val`, which was chosen and why."""
    rungs = document["ladder"]
    rows = []
    for rung in rungs:
        name = element("strong", f"{rung['rung']}, chosen") if rung["chosen"] else rung["rung"]
        cells = (
            _of(rung["flips"], rung["frames"]),
            _of(rung["harmful_flips"], rung["frames"]),
            decimal(rung["auc_difference"], 4, signed=True),
            decimal(rung["auc_difference_lower_bound"], 4, signed=True),
            tiny(rung["mean_kl"]),
            decimal(rung["max_abs_logit"], 2),
            "yes" if rung["sufficient"] else "no",
        )
        rows.append((name, *cells))
    header = ["rung", "changed", "harmful", "ΔAUC", "lower bound", "mean KL, nats", "largest |Δlogit|", "sufficient"]
    titles = key_values((rung["rung"], rung["title"]) for rung in rungs)
    frames = rungs[0]["frames"] if rungs else 0
    note = f"Settings are chosen on the split val ({count(frames, 'frame')}), cheapest rung first, never on test. {_choice(document)}"
    listed = element("div", titles, style="margin-top: 1rem")
    return section("Quantization ladder", table(header, rows), listed, *_fallback(document), note=note)


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
    settings = ", ".join(f"{key} = {value}" for key, value in target["settings"].items())
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
    words = "Ranked by the error that their quantization alone was measured to cause; each costs speed."
    heading = element("h3", f"{count(len(layers), 'layer')} left in floating point")
    return [heading, element("p", words, class_="note"), table(["layer", "type", "error"], rows)]


def _choice(document: Document) -> str:
    chosen = next((rung for rung in document["ladder"] if rung["chosen"]), None)
    if chosen is None:
        return "No rung was chosen."
    if chosen["sufficient"]:
        return (
            f"“{chosen['rung']}” was chosen: it is the first rung for which val shows, with 95 % confidence, that the flip gates would pass, and whose "
            "ΔAUC there passes the gate itself."
        )
    return (
        f"No rung was sufficient on val; “{chosen['rung']}” was chosen because its answers are nearest to FP32's (smallest mean KL divergence), and "
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
