"""How figures are written in the tables; used by `readme_table.py` and its parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Result = Mapping[str, Any]

_INT8 = {"amx_int8": "AMX", "avx512_vnni": "AVX-512 VNNI", "avx_vnni": "AVX-VNNI", "i8mm": "I8MM", "dotprod": "DotProd"}
"""Instructions for sums of INT8 products to their names, the fastest first: they decide how fast INT8 is, and what else takes time beside it."""


def measured(result: Result) -> str:
    """Where and when."""
    host = result["host"]
    sets = host["instruction_sets"]
    int8 = "instructions unknown" if sets is None else next((name for flag, name in _INT8.items() if flag in sets), "no VNNI")
    return f"{host['cpu_model']} ({int8}), {host['cores_usable']} cores, {result['date']}"


def goals(verdicts: Mapping[str, bool | None]) -> str:
    """Which goals were missed, and which not judged."""
    missed = ", ".join(name.replace("_", " ") for name, met in verdicts.items() if met is False)
    unjudged = ", ".join(name.replace("_", " ") for name, met in verdicts.items() if met is None)
    said = [f"missed: {missed}" if missed else "", f"not judged: {unjudged}" if unjudged else ""]
    return "; ".join(filter(None, said)) or "every goal met"


def interval(figure: Mapping[str, float | None]) -> str:
    """A figure with its interval, as the command line writes it."""
    if figure["value"] is None:
        return "undefined"
    if figure["low"] is None or figure["high"] is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} ({figure['low']:.3f}–{figure['high']:.3f})"


def signed(value: float | None) -> str:
    """A difference, with a minus sign as it is printed."""
    return "undefined" if value is None else f"{value:+.4f}".replace("-", "−")


def ratio(item: Mapping[str, Any]) -> str:
    """A ratio of medians with its interval."""
    unsteady = "" if item["steady"] else ", not steady"
    return f"{item['ratio']:.2f}× ({item['low']:.2f}–{item['high']:.2f}{unsteady})"


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
