"""The acceptance gates on the page: the verdict's sentence, and a line for each gate.

Rules this file keeps:

1. A gate that did not let the model through is red, whatever else is said about it. Amber is a gate that let it through although the frames are
   too few to tell; it never counts as failed and is never called passed.
2. What could be done about a gate stands with the gate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgekit.report.html import Content, Html, element, join, section
from edgekit.report.wording import count, decimal, share, told_apart

Document = Mapping[str, Any]

_GATES = {
    "auc_difference_lower_bound": "loss of AUC",
    "harmful_flips": "right answers made wrong",
    "flips": "changed answers",
    "net_harm": "answers made wrong, less those made right",
    "subgroup_flips": "changed answers in the worst subgroup",
    "sensitivity": "loss of sensitivity",
    "specificity": "loss of specificity",
    "ece_increase": "rise of the calibration error",
    "cam_pearson": "likeness of the map, median",
    "cam_pearson_p5": "likeness of the map, 5th percentile",
    "cam_overlap": "overlap of the map's largest tenth",
    "cam_peak": "peak of the map where it was",
    "cam_residual": "map that does not add up to the logit",
    "cam_control": "random weights whose map looks alike",
    "cam_pointing_game": "loss of peaks inside the lesion",
    "latency_ms": "latency on the compile's host",
    "size_mb": "size of the bundle",
}


def _signed(value: float | None, digits: int) -> str:
    return decimal(value, digits, signed=True)


def _time(value: float | None, digits: int) -> str:
    return decimal(value, digits) if value is None else f"{decimal(value, digits)} ms"


def _megabytes(value: float | None, digits: int) -> str:
    return decimal(value, digits) if value is None else f"{decimal(value, digits)} MB"


Form = Callable[[float | None, int], str]
_FORMS: Mapping[str, tuple[Form, int]] = {
    "auc_difference_lower_bound": (_signed, 4),
    "sensitivity": (_signed, 4),
    "specificity": (_signed, 4),
    "ece_increase": (_signed, 4),
    "cam_pearson": (decimal, 3),
    "cam_pearson_p5": (decimal, 3),
    "cam_pointing_game": (_signed, 4),
    "latency_ms": (_time, 2),
    "size_mb": (_megabytes, 2),
}
_ABOVE = frozenset({"auc_difference_lower_bound", "sensitivity", "specificity", "cam_pointing_game"})
"""Gates whose value must lie above the bound."""
_AT_LEAST = frozenset({"cam_pearson", "cam_pearson_p5", "cam_overlap", "cam_peak"})
"""Gates whose value must not be below the bound; that of all others must not exceed it."""

_COLORS = {"passed": "var(--good)", "not demonstrated": "var(--warning)", "failed": "var(--bad)"}
"""By the word that a gate's result is written with."""


def verdict(document: Document) -> Html:
    """Accepted, refused, or written although refused, and in one sentence why."""
    gates = document["gates"]
    evidence = f"the {count(document['device']['n'], 'frame')} of {count(document['device']['groups'], 'group')} of the split test"
    failed, open_ = _named(gates, "failed"), _named(gates, "not demonstrated")
    broken = f"{len(failed)} of {count(len(gates), 'gate')} failed on {evidence}: {', '.join(failed)}."
    # A document that calls a model accepted although a gate failed contradicts itself; the gates are believed.
    if document["accepted"] and not failed:
        kind, word = "good", "Accepted."
        passed = f"All {count(len(gates), 'gate')}" if not open_ else f"{len(gates) - len(open_)} of {count(len(gates), 'gate')}"
        rest = "and none failed" if open_ else "the compiled model is not worse than FP32 by more than the recipe allows"
        why = f"{passed} passed on {evidence}{', ' if open_ else ': '}{rest}."
    elif document["bundles"]:
        kind, word = "bad", "Written although refused."
        why = f"{broken} The recipe says enforce = false, so the bundle was written; it and all its results are marked as not accepted."
    else:
        kind, word = "bad", "Refused."
        why = f"{broken} No bundle was written."
    lines: list[Content] = [element("strong", f"{word} "), why]
    if open_:
        words = f"{', '.join(open_)}. These frames neither prove nor disprove it; the gates below say why."
        lines += [
            element("br"),
            element("span", "Not demonstrated: ", style=f"color: {_COLORS['not demonstrated']}; font-weight: 600"),
            words,
        ]
    return element("p", *lines, class_=f"callout {kind}", role="note", style="font-size: 1.1rem; margin-top: 1.5rem")


def gates_section(document: Document) -> Html:
    """A line a gate: result, value and bound, what it asks, why it came out so, and what could be done."""
    listed = element("ul", *(_gate(gate) for gate in document["gates"]), style="list-style: none; margin: 0; padding: 0")
    note = "What the recipe allows. A gate that cannot be computed fails."
    if _named(document["gates"], "not demonstrated"):
        note += " “Not demonstrated” is neither passed nor failed: the frames are too few to tell. It lets the model through and proves nothing."
    return section("Acceptance gates", listed, note=note)


def _gate(gate: Document) -> Html:
    result = _result(gate)
    value, bound = _gate_figures(gate)
    title = _gate_words(gate["name"])
    flag = element("strong", result, style=f"color: {_COLORS[result]}; flex: 0 0 8.25rem")
    measured = element("div", element("strong", value), element("br"), element("span", bound, class_="unknown"), style="flex: 0 0 9rem")
    said = [element("strong", title[:1].upper(), title[1:]), element("br"), gate["explanation"]]
    if result != "passed" and gate.get("advice"):
        said += [element("br"), element("span", element("strong", "What could help: "), gate["advice"], style="color: var(--ink-2)")]
    words = element("div", join(said), style="flex: 1 1 18rem")
    # A table would squeeze the sentence into one word a line on a phone; this wraps below the figures instead.
    layout = "display: flex; flex-wrap: wrap; gap: 0.25rem 1rem; padding: 0.7rem 0; border-top: 1px solid var(--line); break-inside: avoid"
    return element("li", flag, measured, words, style=layout)


def _result(gate: Document) -> str:
    if not gate["passed"]:
        return "failed"
    return "not demonstrated" if gate.get("status") == "not demonstrated" else "passed"


def _named(gates: Sequence[Document], result: str) -> list[str]:
    return [_gate_words(gate["name"]) for gate in gates if _result(gate) == result]


def _gate_words(name: str) -> str:
    return _GATES.get(name, name.replace("_", " "))


def _gate_figures(gate: Document) -> tuple[str, str]:
    form, digits = _FORMS.get(gate["name"], (share, 2))
    value, bound = told_apart(gate["value"], gate["bound"], form, digits)
    word = "above" if gate["name"] in _ABOVE else "at least" if gate["name"] in _AT_LEAST else "at most"
    return value, f"{word} {bound}"
