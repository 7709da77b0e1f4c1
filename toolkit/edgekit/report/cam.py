"""The class activation map on the page: where it is computed, how exactly it adds up, and how near it stays to the trained model's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit.report.html import Content, Html, callout, key_values, section
from edgekit.report.wording import UNDEFINED, decimal, tiny

Document = Mapping[str, Any]

_LIKENESS = {
    "agreement": "With the trained model's FP32 map, test",
    "likeness_on_test": "With the map of the unquantized network, test",
    "likeness_on_val": "With the map of the unquantized network, val",
}
"""Keys of the document, the most telling first."""


def map_section(document: Document) -> Html:
    """Size, deviation and likeness of the map, or why there is none."""
    cam = document["cam"]
    if not cam["rows"]:
        return section(
            "Class activation map", callout("warning", f"this bundle has no map, because {cam['reason'] or 'no reason was given'}.")
        )
    pairs: list[tuple[str, Content]] = [
        ("Size", f"{cam['rows']} rows × {cam['columns']} columns for each label"),
        ("Where it is computed", "inside the compiled graph, in logit units"),
        ("Largest deviation", tiny(cam["largest_residual"])),
        *((title, _likeness(cam[key])) for key, title in _LIKENESS.items() if cam.get(key)),
    ]
    note = (
        "The logits are the mean of the map plus a bias, so the overlay and the answer cannot disagree; the deviation is "
        "the largest |mean of the map + bias − logit| over all frames of test and all labels. Likeness is Pearson's correlation of two maps of a frame, "
        "1 for the same picture, over all frames. Neither proves that the map shows what a clinician would call the reason."
    )
    return section("Class activation map", key_values(pairs), note=note)


def _likeness(found: Document) -> str:
    median, low = found["median"], found["p5"]
    if median is None or low is None:
        return UNDEFINED
    return f"median {decimal(median)}, 5th percentile {decimal(low)}"
